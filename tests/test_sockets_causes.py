"""Each way in which a connection dies on real sockets reports its own cause, to whoever asks.

That a standstill of our own loop is no death is test_loop_stall's in test_sockets_silence.py.
"""

from __future__ import annotations

import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from h2lite.certs import make_certificate
from h2lite.client import ConnectionPool
from h2lite.errors import ConnectionLost, ErrorCode, H2liteError, RemoteProtocolError
from h2lite.events import RequestReceived
from h2lite.health import HealthPolicy
from h2lite.transport import server_context

from . import namespace
from .namespace import inside
from .running import PATIENCE_S, Peer, accepting, peering, serving
from .test_cli_wrong_input import served
from .test_engine import slow
from .test_sockets_pool import respond
from .test_sockets_silence import Deaf, Watch, checks, deaf, hangs, upload

pytestmark = pytest.mark.scenario

HERE = "tests.test_sockets_causes"
QUIET = HealthPolicy(ping_after_idle=0)


def told_by_all(pool: ConnectionPool, told: Watch, future: Future[Any] | None) -> dict[str, Any]:
    """What the end of a pool's one connection is called, wherever it can be heard of.

    future   of a request that was under way on it, and is not repeated
    """
    told.wait_for("DEAD")
    (connection,) = {
        event.connection for event in told.events if event.connection.number == 1
    }
    errors = {"connection": connection.error, "ping": _error_of(connection.ping)}
    if future is not None:
        errors["request"] = _error_of(lambda: future.result(PATIENCE_S))
    return {
        "events": [cause for *_, state, cause in told.changes if state == "DEAD"],
        "errors": {name: [type(e).__name__, e.cause] for name, e in errors.items()},
        "deaths": pool.stats()["deaths"],
    }


def _error_of(call: Callable[[], object]) -> H2liteError:
    with pytest.raises(H2liteError) as caught:
        call()
    return caught.value


def only(cause: str, error: type[H2liteError] = ConnectionLost, request: bool = True) -> Any:
    """All say the same."""
    names = ("connection", "ping", "request") if request else ("connection", "ping")
    return {
        "events": [cause],
        "errors": {name: [error.__name__, cause] for name in names},
        "deaths": {cause: 1},
    }


def begin(pool: ConnectionPool, url: str) -> Future[Any]:
    """A request that nobody repeats, on its way to a peer that does not answer it."""
    return pool.submit("POST", url, body=b"once", timeout=None)


# -- what the health rules find ----------------------------------------------------------------


def path_dead() -> dict[str, Any]:
    told = Watch()
    with (
        serving(slow) as server,
        ConnectionPool(health=checks(0.3, 0.5), on_event=told) as pool,
    ):
        pool.get(server.url)
        namespace.drop(server.port)
        return told_by_all(pool, told, begin(pool, f"{server.url}/30"))


def test_cause_matrix_path_dead():
    assert inside(HERE, "path_dead") == only("path_dead")


def test_cause_matrix_peer_hung():
    told = Watch()
    with (
        served("-q") as (process, url),
        ConnectionPool(health=checks(0.3, 0.5), on_event=told) as pool,
    ):
        pool.get(f"{url}/healthz")
        process.send_signal(signal.SIGSTOP)
        assert told_by_all(pool, told, begin(pool, f"{url}/delay/30")) == only("peer_hung")


def goes_on_sending(peer: Deaf) -> None:
    """Reads nothing, and is heard all the time, until the client resets the connection."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        peer.says(b"still here")
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("cause", "script"), [("write_stall", hangs), ("peer_not_reading", goes_on_sending)]
)
def test_cause_matrix_of_a_blocked_write(cause, script):
    told = Watch()
    health = HealthPolicy(ping_after_idle=0, write_stall=0.6, peer_not_reading=0.9)
    with deaf(script) as url, ConnectionPool(health=health, on_event=told) as pool:
        assert told_by_all(pool, told, upload(pool, url)) == only(cause)


# -- what the peer does ------------------------------------------------------------------------


def resets(peer: Peer) -> None:
    peer.until(RequestReceived)
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.sock.close()


def leaves(peer: Peer) -> None:
    """Says so before it closes."""
    peer.until(RequestReceived)
    peer.core.goaway(ErrorCode.INTERNAL_ERROR)
    peer.flush()


def ends(peer: Peer) -> None:
    """Closes, and says nothing."""
    peer.until(RequestReceived)


def talks_nonsense(peer: Peer) -> None:
    peer.until(RequestReceived)
    peer.sock.sendall(b"\0\0\x08\6\0\0\0\0\3" + b"12345678")  # PING on stream 3
    with pytest.raises(EOFError):
        peer.until(RequestReceived)


@pytest.mark.parametrize(
    ("script", "cause", "error"),
    [
        (resets, "reset", ConnectionLost),
        (leaves, "goaway", ConnectionLost),
        (ends, "eof", ConnectionLost),
        (talks_nonsense, "protocol_error", RemoteProtocolError),
    ],
)
def test_cause_matrix(script, cause, error):
    told = Watch()
    with peering(script) as peer, ConnectionPool(health=QUIET, on_event=told) as pool:
        assert told_by_all(pool, told, begin(pool, peer.url)) == only(cause, error)


def test_cause_matrix_eof_while_idle():
    def finishes(peer: Peer) -> None:
        respond(peer, peer.until(RequestReceived).stream_id)
        peer.sock.shutdown(socket.SHUT_WR)
        peer.serve()

    told = Watch()
    with peering(finishes) as peer, ConnectionPool(health=QUIET, on_event=told) as pool:
        assert pool.get(peer.url).status == 200
        assert told_by_all(pool, told, None) == only("eof", request=False)


def test_cause_matrix_tls(tmp_path):
    """Octets that are no TLS, in the middle of a connection."""
    files = make_certificate(str(tmp_path))
    context = server_context(files.certfile, files.keyfile)

    def talks_clear(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as under_tls:
            peer = Peer(under_tls)
            peer.flush()
            peer.until(RequestReceived)
            socket.socket.sendall(under_tls, b"this was never encrypted")
            with pytest.raises((EOFError, OSError)):
                peer.until(RequestReceived)

    told = Watch()
    with (
        accepting(talks_clear) as listening,
        ConnectionPool(health=QUIET, on_event=told, cafile=files.cafile) as pool,
    ):
        future = begin(pool, f"https://127.0.0.1:{listening.port}/")
        assert told_by_all(pool, told, future) == only("tls")


# -- what we do --------------------------------------------------------------------------------


def test_cause_matrix_local():
    asked = threading.Event()

    def listens(peer: Peer) -> None:
        peer.until(RequestReceived)
        asked.set()
        peer.serve()

    told = Watch()
    with peering(listens) as peer, ConnectionPool(health=QUIET, on_event=told) as pool:
        future = begin(pool, peer.url)
        assert asked.wait(PATIENCE_S)
        (connection,) = pool.connections
        connection.close()
        assert told_by_all(pool, told, future) == only("local")
