"""Scenarios of the pool on real sockets: dials, limits, idle connections, names, forks.

The exact instants are held by the virtual twins; here it is order, cause and generous bounds.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from h2lite.certs import make_certificate
from h2lite.client import ConnectionPool
from h2lite.connection import Connection
from h2lite.errors import ConnectTimeout, ReadTimeout, UsageError
from h2lite.events import PingAcked, PingReceived, RequestReceived, SettingsAcked
from h2lite.health import HealthPolicy
from h2lite.settings import SettingId
from h2lite.transport import server_context

from .running import PATIENCE_S, Peer, accepting, peering, serving
from .test_dial import resolve_to, swallowing
from .test_engine import slow, until

pytestmark = pytest.mark.scenario

QUIET = HealthPolicy(ping_after_idle=0)
OK = [(b":status", b"200")]


def respond(peer: Peer, stream_id: int, content: bytes = b"ok") -> None:
    stream = peer.core.streams[stream_id]
    peer.core.send_response(stream, OK)
    peer.core.send_data(stream, content, end_stream=True)
    peer.flush()


def test_dial_coalesce():
    with serving(slow) as server, ConnectionPool() as pool, ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(lambda index: pool.get(f"{server.url}/0.05"), range(10)))
        stats = pool.stats()
        pool.close()

    assert [answer.status for answer in answers] == [200] * 10
    assert (stats["dials"], stats["connections"]) == (1, 1)
    assert pool.stats()["deaths"] == {"local": 1}


def test_dial_owner_cancel():
    """Who waited first gives up in the middle of the dial; it goes on for the second."""
    greet = threading.Event()

    def late(sock: socket.socket) -> None:
        greet.wait(PATIENCE_S)
        peer = Peer(sock)
        peer.flush()
        # The first one's request was given up before it left.
        request = peer.until(RequestReceived)
        assert dict(request.fields)[b":path"] == b"/second"
        respond(peer, request.stream_id)
        peer.serve()

    with accepting(late) as peer, ConnectionPool(health=QUIET) as pool:
        with ThreadPoolExecutor(1) as threads:
            with pytest.raises((ConnectTimeout, ReadTimeout)):
                pool.get(f"{peer.url}/first", timeout=0.1)
            second = threads.submit(lambda: pool.get(f"{peer.url}/second"))
            time.sleep(0.05)
            greet.set()
            assert second.result(PATIENCE_S).status == 200
        assert pool.stats()["dials"] == 1


def test_max_streams_low():
    def one_at_a_time(sock: socket.socket) -> None:
        peer = Peer(sock)
        settings = {SettingId.MAX_CONCURRENT_STREAMS: 1}
        peer.core = Connection(client=False, settings=settings)
        peer.flush()
        for _ in range(3):
            respond(peer, peer.until(RequestReceived).stream_id)
        peer.serve()

    with accepting(one_at_a_time) as peer, ConnectionPool(health=QUIET) as pool:
        assert [pool.get(peer.url).status for _ in range(3)] == [200] * 3
        assert pool.stats()["dials"] == 1


@pytest.mark.parametrize("background", [True, False])
def test_idle_reads_served(background):
    """With no request running, the peer's PING and SETTINGS are answered all the same."""
    served = threading.Event()

    def ask(peer: Peer) -> None:
        respond(peer, peer.until(RequestReceived).stream_id)
        peer.core.ping(b"are you?", 0.0)
        peer.core.update_settings({SettingId.MAX_CONCURRENT_STREAMS: 7}, 0.0)
        peer.flush()
        seen: set[type] = set()
        while not {PingAcked, SettingsAcked} <= seen:
            seen |= {type(event) for event in peer.receive()}
            peer.flush()
        served.set()
        respond(peer, peer.until(RequestReceived).stream_id)
        peer.serve()

    with peering(ask) as peer, ConnectionPool(health=QUIET, background=background) as pool:
        assert pool.get(peer.url).status == 200
        if background:
            assert served.wait(PATIENCE_S)
        else:
            deadline = time.monotonic() + PATIENCE_S
            while not served.is_set() and time.monotonic() < deadline:
                pool.poll(0.1)
        assert pool.get(peer.url).status == 200
        assert pool.stats()["dials"] == 1


@pytest.mark.parametrize("background", [True, False])
def test_eof_while_idle(background):
    """The peer closes an idle connection: the next request, a POST, never meets it."""

    def script(listener: socket.socket) -> None:
        for leaves in (True, False):
            with listener.accept()[0] as sock:
                sock.settimeout(PATIENCE_S)
                peer = Peer(sock)
                peer.flush()
                respond(peer, peer.until(RequestReceived).stream_id)
                if leaves:
                    sock.shutdown(socket.SHUT_WR)
                peer.serve()

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        ConnectionPool(health=QUIET, background=background) as pool,
        ThreadPoolExecutor(1) as threads,
    ):
        listener.settimeout(PATIENCE_S)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        peer = threads.submit(script, listener)
        assert pool.get(url).status == 200
        if background:
            until(lambda: not pool.connections)
        else:
            time.sleep(0.05)  # the FIN is on its way, and nobody looks
        assert pool.post(url, body=b"once").status == 200
        assert (pool.stats()["dials"], pool.stats()["deaths"]) == (2, {"eof": 1})
        pool.close()
        peer.result(PATIENCE_S)


def test_resolver_hangs(monkeypatch):
    """A name that does not resolve holds nobody else up, and fails at its connect timeout."""
    release = threading.Event()
    system = socket.getaddrinfo

    def getaddrinfo(host: str, *arguments: Any, **options: Any) -> Any:
        if host == "hangs.test" and not options.get("flags", 0) & socket.AI_NUMERICHOST:
            release.wait(5.0)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return system(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        with serving(slow) as server, ConnectionPool(connect_timeout=1.0) as pool:
            pool.get(server.url)
            (connection,) = pool.connections
            began = time.monotonic()
            hanging = pool.submit("GET", "http://hangs.test/")
            answered = 0
            while not hanging.done():
                assert connection.ping(timeout=PATIENCE_S).error is None
                assert pool.get(server.url).status == 200
                answered += 1
            with pytest.raises(ConnectTimeout, match="resolving the name"):
                hanging.result(0)
            assert 1.0 <= time.monotonic() - began < 4.0
            assert answered >= 10
    finally:
        release.set()


def test_first_address_silent(monkeypatch):
    """Two addresses, the first of which neither answers nor refuses."""
    with serving(slow) as server, swallowing() as silent:
        resolve_to(monkeypatch, silent, ("127.0.0.1", server.port))
        began = time.monotonic()
        with ConnectionPool() as pool:
            response = pool.get(f"http://two.test:{server.port}/")
        took = time.monotonic() - began

    assert (response.status, pool.stats()["dials"]) == (200, 1)
    assert 0.25 <= took < 2.5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # just that is tested
def test_fork_child(tmp_path):
    """Over TLS, where a careless child would send close_notify in its parent's name."""
    files = make_certificate(tmp_path)
    context = server_context(files.certfile, files.keyfile)
    with (
        serving(slow, ssl_context=context) as server,
        ConnectionPool(cafile=files.cafile) as pool,
    ):
        url = f"https://localhost:{server.port}/"
        pool.get(url)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:  # what the child saw goes through the pipe: an assertion here is lost
            said = "nothing"
            try:
                pool.get(url)
            except UsageError as error:
                said = str(error)
            try:
                pool.close()
                del pool
            finally:
                os.write(write, said.encode())
                os._exit(0)
        os.close(write)
        with os.fdopen(read) as told:
            said = told.read()
        os.waitpid(pid, 0)

        assert said == "this pool belongs to the parent process: make one after the fork"
        assert pool.get(url).status == 200
        assert (pool.stats()["dials"], pool.stats()["deaths"]) == (1, {})


def test_ack_late_behind_bulk():
    """The ack comes after its deadline, behind 100 kB at 1 Mbit/s: life enough."""

    def bulk_first(peer: Peer) -> None:
        request = peer.until(RequestReceived)
        stream = peer.core.streams[request.stream_id]
        peer.core.send_response(stream, OK)
        peer.flush()
        peer.until(PingReceived)
        ack = peer.core.data_to_send(0.0)
        for _ in range(25):
            peer.core.send_data(stream, bytes(4000))
            peer.flush()
            time.sleep(0.032)
        peer.sock.sendall(ack)
        peer.core.send_data(stream, b"", end_stream=True)
        peer.serve()

    policy = HealthPolicy(ping_after_idle=0.3, ping_timeout=0.4, jitter=False)
    with peering(bulk_first) as peer, ConnectionPool(health=policy) as pool:
        assert len(pool.get(peer.url).read()) == 100_000
        until(lambda: pool.stats()["late_acks"])
        stats = pool.stats()
        (connection,) = pool.connections
        assert (connection._member.health.late_rtt_s or 0.0) > 0.4
    assert (stats["rescues"], stats["late_acks"], stats["deaths"]) == (1, 1, {})
