"""Scenarios of silence on real sockets: frozen, stopped and black-holed peers, stalled writes.

The exact instants are held by the virtual twins; here it is order, cause and generous bounds.
R = ping_after_idle, P = ping_timeout.
"""

from __future__ import annotations

import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import pytest

import h2lite
from h2lite.certs import make_certificate
from h2lite.client import ConnectionChanged, ConnectionPool
from h2lite.connection import CONNECTION_WINDOW, Connection
from h2lite.errors import ConnectionLost, H2liteError
from h2lite.events import DataReceived, RequestReceived
from h2lite.frames import WindowUpdateFrame
from h2lite.health import HealthPolicy
from h2lite.loop import LINGER_S
from h2lite.relay import Relay
from h2lite.settings import SettingId
from h2lite.transport import read_tcp_info, server_context

from . import namespace
from .namespace import inside
from .running import PATIENCE_S, Peer, serving
from .test_cli_wrong_input import served
from .test_engine import slow, until

pytestmark = pytest.mark.scenario

HERE = "tests.test_sockets_silence"
OK = [(b":status", b"200")]
MIB = 2**20
WINDOW_MAX = 2**31 - 1


def checks(r: float, p: float, **more: Any) -> HealthPolicy:
    return HealthPolicy(**{"ping_after_idle": r, "ping_timeout": p, "jitter": False, **more})


class Watch:
    """What a pool told, and when."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def __call__(self, event: Any) -> None:
        self.events.append(event)

    @property
    def changes(self) -> list[tuple[int, str, str]]:
        """(connection, state, cause) of each change, in order."""
        return [
            (event.connection.number, event.after, event.cause)
            for event in self.events
            if isinstance(event, ConnectionChanged)
        ]

    def at(self, state: str, number: int = 1) -> float:
        """When a connection came to a state, on the pool's clock."""
        return next(
            event.at
            for event in self.events
            if isinstance(event, ConnectionChanged)
            and (event.connection.number, event.after) == (number, state)
        )

    def wait_for(self, state: str, number: int = 1) -> float:
        until(lambda: any(change[:2] == (number, state) for change in self.changes))
        return self.at(state, number)


def transport_of(pool: ConnectionPool) -> Any:
    (connection,) = pool.connections
    return pool._engine.driver.transport_of(connection._member)


def is_blocked(pool: ConnectionPool) -> bool:
    """Octets are framed that the socket has refused."""
    links = list(pool._engine.driver.links.values())
    return any(link.queued for link in links)


# -- peers that do not read --------------------------------------------------------------------


def greet(sock: socket.socket) -> Peer:
    """A peer that has opened both windows as wide as they go."""
    peer = Peer(sock)
    peer.core = Connection(client=False, settings={SettingId.INITIAL_WINDOW_SIZE: WINDOW_MAX})
    peer.flush()
    sock.sendall(WindowUpdateFrame(0, WINDOW_MAX - CONNECTION_WINDOW).encode())
    return peer


class Deaf:
    """A peer with both windows open as wide as they go, and next to no room in its kernel.

    It reads nothing but what `script` reads, and answers no PING that it has not read.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.peer = greet(sock)
        self.is_complete = False  # all of the request was read
        self.request: RequestReceived = self.peer.until(RequestReceived)

    def says(self, content: bytes, last: bool = False) -> None:
        core = self.peer.core
        stream = core.streams[self.request.stream_id]
        if not stream.may_send_content:
            core.send_response(stream, OK)
        core.send_data(stream, content, last)
        self.peer.flush()

    def read(self, octets: int) -> None:
        """Read so many, or fewer at the request's end."""
        while octets > 0 and not self.is_complete:
            data = self.peer.sock.recv(octets)
            octets -= len(data)
            for event in self.peer.core.receive_data(data, 0.0):
                if isinstance(event, DataReceived):
                    self.is_complete = event.end_stream
            self.peer.flush()  # the acks of PINGs


@contextmanager
def deaf(script: Callable[[Deaf], object], receive_buffer: int = 4096) -> Iterator[str]:
    """A `Deaf` peer's URL; its script's failure is the test's."""
    faults: list[BaseException] = []

    def run() -> None:
        try:
            with listener.accept()[0] as sock:
                sock.settimeout(PATIENCE_S)
                with suppress(ConnectionResetError):  # as it should: nobody reads
                    script(Deaf(sock))
        except BaseException as error:  # noqa: BLE001  raised again in the test's thread
            faults.append(error)

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(PATIENCE_S)
        thread = threading.Thread(target=run, name="deaf peer")
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
    if faults:
        raise faults[0]


def hangs(peer: Deaf) -> None:
    """Reads nothing until the client resets the connection."""
    poller = select.poll()
    poller.register(peer.peer.sock, 0)  # errors and hang-ups alone
    poller.poll(PATIENCE_S * 1000)


def upload(pool: ConnectionPool, url: str, octets: int = 4 * MIB) -> Any:
    """Begin to send more than anybody takes; the future of its response."""
    future = pool.submit("POST", url, body=bytes(octets), timeout=None)
    until(lambda: is_blocked(pool))
    return future


def test_ping_write_blocked():
    """The PING is due and cannot leave, so only the stall is judged."""
    told = Watch()
    health = checks(0.3, 0.3, write_stall=1.0)
    with deaf(hangs) as url, ConnectionPool(health=health, on_event=told) as pool:
        future = upload(pool, url)
        (connection,) = pool.connections
        blocked_at = pool.clock()
        probing = told.wait_for("PROBING")
        member = connection._member
        assert member.connection.ping_sent_at(member.probe) is None
        with pytest.raises(ConnectionLost) as caught:
            future.result(PATIENCE_S)
        dead = told.at("DEAD")

    assert (caught.value.cause, caught.value.maybe_processed) == ("write_stall", True)
    assert probing < dead
    assert 0.8 <= dead - blocked_at < 4.0


def test_write_no_progress():
    told = Watch()
    health = HealthPolicy(ping_after_idle=0, write_stall=0.7)
    with deaf(hangs) as url, ConnectionPool(health=health, on_event=told) as pool:
        future = upload(pool, url)
        with pytest.raises(ConnectionLost):
            future.result(PATIENCE_S)
    assert told.changes == [(1, "LIVE", ""), (1, "DEAD", "write_stall")]


def test_slow_writes_ok():
    """64 KiB each 100 ms: slow, but no stall."""

    def slowly(peer: Deaf) -> None:
        while not peer.is_complete:
            peer.read(65536)
            time.sleep(0.1)
        peer.says(b"", last=True)
        peer.peer.serve()

    told = Watch()
    health = checks(0.3, 1.0, write_stall=0.5)
    with (
        deaf(slowly, receive_buffer=65536) as url,
        ConnectionPool(health=health, on_event=told) as pool,
    ):
        assert upload(pool, url, MIB).result(PATIENCE_S).status == 200
        assert pool.stats()["deaths"] == {}


def test_zero_window_slow_reader():
    """It pauses its reading for twice write_stall, and sends DATA meanwhile."""

    def pausing(peer: Deaf) -> None:
        for _ in range(12):
            peer.says(b"still here")
            time.sleep(0.1)
        peer.read(5 * MIB)
        peer.says(b"", last=True)
        peer.peer.serve()

    told = Watch()
    health = checks(0.3, 1.0, write_stall=0.6)
    with (
        deaf(pausing, receive_buffer=65536) as url,
        ConnectionPool(health=health, on_event=told) as pool,
    ):
        response = upload(pool, url).result(PATIENCE_S)
        assert response.read() == b"still here" * 12
        assert pool.stats()["deaths"] == {}
        assert pool.socket_options.user_timeout == 0


def test_checkout_never_blocks():
    """Nobody waits for a connection whose writes are blocked but its own requests."""
    with serving(slow) as server, deaf(hangs) as url:
        with ConnectionPool(health=HealthPolicy(ping_after_idle=0, write_stall=3.0)) as pool:
            stuck = upload(pool, url)
            for _ in range(20):
                assert pool.get(server.url, timeout=PATIENCE_S).status == 200
            assert is_blocked(pool)
            assert not stuck.done()
        with pytest.raises(ConnectionLost, match="the pool was closed"):
            stuck.result(PATIENCE_S)


# -- frozen, stopped and restarted -------------------------------------------------------------


def test_reconnect_broken_tcp():
    """The relay stops, the kernel goes on acknowledging: the next request finds a new way."""
    with (
        serving(slow) as server,
        Relay(("127.0.0.1", server.port)) as relay,
        ConnectionPool(health=checks(1.0, 1.0)) as pool,
    ):
        url = f"http://127.0.0.1:{relay.port}/"
        assert pool.get(url).status == 200
        relay.freeze()
        time.sleep(3.0)
        assert pool.get(url).status == 200
        assert (pool.stats()["dials"], relay.accepted) == (2, 2)


def test_sigstop_peer():
    told = Watch()
    with (
        served("-q") as (process, url),
        ConnectionPool(health=checks(0.5, 0.5), on_event=told) as pool,
    ):
        assert pool.get(f"{url}/healthz").status == 200
        process.send_signal(signal.SIGSTOP)
        stopped = pool.clock()
        dead = told.wait_for("DEAD")

    assert told.changes == [(1, "LIVE", ""), (1, "PROBING", ""), (1, "DEAD", "peer_hung")]
    assert 0.5 <= dead - stopped < 5.0


def test_sigcont_in_time():
    """Stopped for half of P while a PING is out: nobody is given up, streams finish."""
    told = Watch()
    with (
        served("-q") as (process, url),
        ConnectionPool(health=checks(0.3, 3.0), on_event=told) as pool,
    ):
        future = pool.submit("GET", f"{url}/delay/0.6")
        told.wait_for("LIVE")
        process.send_signal(signal.SIGSTOP)
        told.wait_for("PROBING")
        time.sleep(1.2)
        process.send_signal(signal.SIGCONT)
        assert future.result(PATIENCE_S).status == 200
        stats = pool.stats()
    assert (stats["deaths"], stats["dials"]) == ({}, 1)


CLIENT = """
import json, sys, h2lite
events = []
pool = h2lite.ConnectionPool(
    health=h2lite.HealthPolicy(ping_after_idle=0.3, ping_timeout=0.6, jitter=False),
    on_event=lambda event: events.append(event.after),
)
with pool:
    for line in sys.stdin:
        status = pool.get(line.strip()).status
        print(json.dumps([status, pool.stats()["deaths"], pool.stats()["dials"]]), flush=True)
"""


def test_client_sigstop():
    """The client stands still for twice P; the server is well, and so is the connection."""
    with (
        serving(slow) as server,
        subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as client,
    ):
        try:
            assert client.stdin is not None
            assert client.stdout is not None

            def ask() -> str:
                assert client.stdin is not None
                assert client.stdout is not None
                client.stdin.write(f"{server.url}/0\n")
                client.stdin.flush()
                return client.stdout.readline()

            assert ask() == "[200, {}, 1]\n"
            for _ in range(3):
                time.sleep(0.25)
                client.send_signal(signal.SIGSTOP)
                time.sleep(1.3)
                client.send_signal(signal.SIGCONT)
                assert ask() == "[200, {}, 1]\n"
            client.stdin.close()
            assert client.wait(PATIENCE_S) == 0
        finally:
            client.kill()


def test_loop_stall():
    """The loop stands still for longer than P while the ack lies in the kernel: no death."""
    told = Watch()
    with (
        serving(slow) as server,
        ConnectionPool(health=checks(0.2, 0.5), on_event=told, background=False) as pool,
    ):
        pool.get(server.url)
        until_probing = time.monotonic() + PATIENCE_S
        while pool.stats()["pings_sent"] == 0 and time.monotonic() < until_probing:
            pool.poll(0.05)
        time.sleep(2.5)  # P + 2 s: nobody turns the loop
        for _ in range(5):
            pool.poll(0.05)
        assert pool.stats()["deaths"] == {}
        assert pool.get(server.url).status == 200
        assert pool.stats()["dials"] == 1


def test_loop_stall_polled_seldom():
    """A program that looks seldom finds a dead peer all the same."""
    told = Watch()
    with (
        serving(slow) as server,
        Relay(("127.0.0.1", server.port)) as relay,
        ConnectionPool(health=checks(0.4, 0.4), on_event=told, background=False) as pool,
    ):
        pool.get(f"http://127.0.0.1:{relay.port}/")
        relay.freeze()
        for _ in range(4):
            time.sleep(1.45)
            pool.poll(0.0)
            pool.poll(0.0)
        assert pool.stats()["deaths"] == {"peer_hung": 1}


# -- packets that are really dropped -----------------------------------------------------------


def kube_15min() -> dict[str, Any]:
    """A streaming response, small requests, then nothing of either arrives any more."""
    told = Watch()
    with (
        serving(slow) as server,
        serving(slow) as unwatched,
        ConnectionPool(health=checks(2.0, 1.0), on_event=told) as pool,
        ConnectionPool(health=HealthPolicy(ping_after_idle=0, write_stall=0)) as control,
    ):
        for _ in range(5):
            pool.post(f"{server.url}/0", body=bytes(1000))
            control.post(f"{unwatched.url}/0", body=bytes(1000))
        running = pool.submit("POST", f"{server.url}/30", body=bytes(1000), timeout=None)
        control.submit("POST", f"{unwatched.url}/30", body=bytes(1000), timeout=None)
        until(lambda: pool.connections[0].requests and control.connections[0].requests)
        namespace.drop(server.port)
        namespace.drop(unwatched.port)
        dropped = pool.clock()
        # More small writes on both; the kernel takes them, nobody acknowledges them.
        control.submit("POST", f"{unwatched.url}/0", body=bytes(1000), timeout=None)
        try:
            running.result(PATIENCE_S)
            cause = ""
        except H2liteError as error:
            cause = error.cause
        found = told.at("DEAD") - dropped
        time.sleep(max(0.0, 5.0 - (pool.clock() - dropped)))
        info = read_tcp_info(transport_of(control).sock)
        assert info is not None
        state = control.connections[0].state
        return {
            "found": found,
            "cause": cause,
            "control": [state, info.state, info.unacked > 0],
        }


def test_kube_15min():
    seen = inside(HERE, "kube_15min")

    assert seen["cause"] == "path_dead"
    assert seen["found"] < 1.15 * 2.0 + 1.0 + 2.0
    assert seen["control"] == ["LIVE", 1, True]  # 1: ESTABLISHED


def keepalive_blind() -> dict[str, Any]:
    """The kernel's keepalive at its fastest, one octet unacknowledged: it says nothing."""
    told = Watch()
    options = h2lite.SocketOptions(
        keepalive_idle=1, keepalive_interval=1, keepalive_count=1
    )
    with (
        serving(slow) as server, serving(slow) as unwatched, ConnectionPool(
            health=checks(1.0, 1.0), on_event=told, socket_options=options
        ) as pool,
        ConnectionPool(
            health=HealthPolicy(ping_after_idle=0), socket_options=options
        ) as control,
    ):
        pool.get(server.url)
        control.get(unwatched.url)
        namespace.drop(server.port)
        namespace.drop(unwatched.port)
        dropped = pool.clock()
        control.submit("GET", unwatched.url, timeout=None)  # the octets in flight
        found = told.wait_for("DEAD") - dropped
        time.sleep(max(0.0, 5.0 - (pool.clock() - dropped)))
        return {
            "found": found,
            "kernel": control.connections[0].state,
            "cause": told.changes[-1][2],
        }


def test_keepalive_blind():
    seen = inside(HERE, "keepalive_blind")

    assert seen["kernel"] == "LIVE"
    assert seen["cause"] == "path_dead"
    assert seen["found"] < 1.15 * 1.0 + 1.0 + 2.0


def transient_blackhole() -> dict[str, Any]:
    with serving(slow) as server, ConnectionPool(health=checks(0.3, 5.0)) as pool:
        pool.get(server.url)
        namespace.drop(server.port)
        running = pool.submit("POST", f"{server.url}/0", body=b"small")
        time.sleep(1.0)
        namespace.pass_again()
        return {"status": running.result(PATIENCE_S).status, "stats": pool.stats()}


def test_transient_blackhole():
    """A second's outage, P = 5: TCP sends again, and nobody is given up."""
    seen = inside(HERE, "transient_blackhole")

    assert seen["status"] == 200
    assert (seen["stats"]["deaths"], seen["stats"]["dials"]) == ({}, 1)


@contextmanager
def uploading(pool: ConnectionPool) -> Iterator[tuple[Any, Any]]:
    """An upload that begins in a black hole: its `Link` and the future of its response."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as threads:
        port = listener.getsockname()[1]
        greeted = threads.submit(lambda: greet(listener.accept()[0]))
        pool.connect(f"http://127.0.0.1:{port}")
        with greeted.result(PATIENCE_S).sock:
            (link,) = pool._engine.driver.links.values()
            until(lambda: link.connection._send_window.size == WINDOW_MAX)
            namespace.drop(port)
            url = f"http://127.0.0.1:{port}/"
            yield link, pool.submit("POST", url, body=bytes(8 * MIB), timeout=None)


def notsent_lowat() -> int:
    """How many octets the kernel swallows of it."""
    with (
        ConnectionPool(health=HealthPolicy(ping_after_idle=0, write_stall=0)) as pool,
        uploading(pool) as (link, _),
    ):
        until(lambda: is_blocked(pool))
        time.sleep(0.5)
        (stream,) = link.connection.streams.values()
        taken: int = 8 * MIB - stream.queued_octets
        return taken


def test_notsent_lowat():
    taken = inside(HERE, "notsent_lowat")

    assert 0 < taken <= 512 * 1024


def linger_abort() -> dict[str, Any]:
    """A connection with a full send queue is given up: nothing of it stays in the kernel."""
    told = Watch()
    health = HealthPolicy(ping_after_idle=0, write_stall=0.5)
    with ConnectionPool(health=health, on_event=told) as pool:
        with uploading(pool) as (link, stuck):
            ours = link.transport.sock.getsockname()[1]
            told.wait_for("DEAD")
            with suppress(H2liteError):
                stuck.result(PATIENCE_S)
            left = states_of(ours)
        began = time.monotonic()
    return {"left": left, "close": time.monotonic() - began, "told": told.changes[-1][1:]}


def states_of(port: int) -> list[str]:
    """The kernel's states of sockets with that local port, as /proc tells them."""
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return [row[3] for row in rows if int(row[1].partition(":")[2], 16) == port]


def test_linger_abort():
    seen = inside(HERE, "linger_abort")

    assert seen["left"] == []  # no FIN-WAIT1, nothing
    assert seen["told"] == ["DEAD", "write_stall"]
    assert seen["close"] < 1.0


def tls_close_hang() -> float:
    """How long a close takes whose TLS peer answers nothing."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        files = make_certificate(folder)
        context = server_context(files.certfile, files.keyfile)
        with serving(slow, ssl_context=context) as server:
            pool = ConnectionPool(cafile=files.cafile)
            pool.get(f"https://localhost:{server.port}/")
            namespace.drop(server.port)
            began = time.monotonic()
            pool.close()
            took = time.monotonic() - began
            namespace.pass_again()
            return took


def test_tls_close_hang():
    assert inside(HERE, "tls_close_hang") < LINGER_S + 1.0
