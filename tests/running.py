"""Both ends for tests with sockets: a clock, a server in a thread, and peers that misbehave.

The peers are h2lite's own server cores on blocking sockets, so that a test can hold back, drop
or falsify what they would say.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

from h2lite.connection import Connection
from h2lite.errors import ErrorCode
from h2lite.events import PingReceived, RequestReceived
from h2lite.exchange import Reply, Request
from h2lite.server import Server
from h2lite.value import Value

PATIENCE_S = 10.0  # how long a test waits for what must come

E = TypeVar("E", bound=Value)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 loopback here")
needs_unix = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no UNIX sockets here")


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected TCP sockets, blocking."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        left = socket.create_connection(listener.getsockname())
        return left, listener.accept()[0]


def exactly(sock: socket.socket, octets: int) -> bytes:
    """So many octets and no more; EOFError when fewer come."""
    data = b""
    while len(data) < octets:
        piece = sock.recv(octets - len(data))
        if not piece:
            raise EOFError(f"the end after {len(data)} of {octets} octets")
        data += piece
    return data


def hello(request: Request) -> Reply:
    """A handler for tests that do not care."""
    return Reply(200, b"hello\n")


@contextmanager
def serving(
    handler: Callable[[Request], Reply] = hello, **arguments: Any
) -> Iterator[Server]:
    """A Server on a free port, in a thread that has ended when the block has."""
    server = Server(handler, **arguments)
    thread = threading.Thread(target=server.serve_forever, name="server under test")
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


class Peer:
    """A server's core on a blocking socket; nothing is sent unless `flush` is called."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.core = Connection(client=False)

    def receive(self) -> list[Value]:
        """One recv; at the end of the stream EOFError."""
        data = self.sock.recv(65536)
        if not data:
            raise EOFError
        return list(self.core.receive_data(data, 0.0))

    def flush(self) -> None:
        while octets := self.core.data_to_send(0.0):
            self.sock.sendall(octets)

    def until(self, kind: type[E]) -> E:
        """Receive, and answer what came before, until such an event is there."""
        while True:
            for event in self.receive():
                if isinstance(event, kind):
                    return event
            self.flush()

    def serve(self) -> None:
        """Answer PINGs and SETTINGS until the client has gone."""
        try:
            while True:
                self.flush()
                self.receive()
        except (EOFError, ConnectionError):
            return


class Listening:
    """Where `peering` listens."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.port = address[1]
        self.url = f"http://127.0.0.1:{self.port}"


@contextmanager
def accepting(*scripts: Callable[[socket.socket], object]) -> Iterator[Listening]:
    """Run each script in a thread, on the next connection that comes; its failure is the test's."""
    faults: list[BaseException] = []

    def run() -> None:
        try:
            for script in scripts:
                sock, _ = listener.accept()
                with sock:
                    sock.settimeout(PATIENCE_S)
                    script(sock)
        except BaseException as error:  # noqa: BLE001  raised again in the test's thread
            faults.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        thread = threading.Thread(target=run, name="peer under test")
        thread.start()
        try:
            yield Listening(listener.getsockname())
        finally:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
    if faults:
        raise faults[0]


@contextmanager
def peering(*scripts: Callable[[Peer], object]) -> Iterator[Listening]:
    """As `accepting`, each with a Peer that has sent its preface."""

    def on_peer(script: Callable[[Peer], object]) -> Callable[[socket.socket], None]:
        def run(sock: socket.socket) -> None:
            peer = Peer(sock)
            peer.flush()
            script(peer)

        return run

    with accepting(*map(on_peer, scripts)) as listening:
        yield listening


class Police:
    """A server that counts PINGs as gRPC's do, and ends a connection that sends too many.

    A PING is one too many when it comes sooner than `min_gap` seconds after the one before it,
    and no HEADERS or DATA were sent in between; those also clear what was counted.  At the third
    GOAWAY ENHANCE_YOUR_CALM "too_many_pings" is said, and the connection closed.  Requests are
    answered at once, but /held only when a connection has been ended before.

    pings   when each PING came, connection by connection in the order accepted
    asked   each request's method and path
    kills   connections ended
    """

    STRIKES_MAX = 2

    def __init__(self, min_gap: float) -> None:
        self.min_gap = min_gap
        self.pings: list[list[float]] = []
        self.asked: list[str] = []
        self.kills = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._watched: dict[socket.socket, _Account] = {}
        self._is_over = False

    def run(self) -> None:
        """Serve until `stop`."""
        with self._listener:
            while not self._is_over:
                ready, _, _ = select.select([self._listener, *self._watched], [], [], 0.02)
                for sock in ready:
                    if sock is self._listener:
                        self._accept()
                    elif not self._goes_on(self._watched[sock]):
                        self._watched.pop(sock).peer.sock.close()
        for sock in self._watched:
            sock.close()

    def stop(self) -> None:
        self._is_over = True

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.settimeout(PATIENCE_S)
        self._watched[sock] = account = _Account(Peer(sock))
        self.pings.append(account.pings)
        account.peer.flush()

    def _goes_on(self, account: _Account) -> bool:
        peer = account.peer
        try:
            for event in peer.receive():
                if isinstance(event, PingReceived):
                    account.pinged(time.monotonic(), self.min_gap)
                elif isinstance(event, RequestReceived):
                    self._answer(account, event)
            if account.strikes > self.STRIKES_MAX:
                self.kills += 1
                peer.core.goaway(ErrorCode.ENHANCE_YOUR_CALM, b"too_many_pings")
            peer.flush()
        except (EOFError, ConnectionError):
            return False
        return account.strikes <= self.STRIKES_MAX

    def _answer(self, account: _Account, request: RequestReceived) -> None:
        fields = dict(request.fields)
        path = fields[b":path"].decode()
        self.asked.append(f"{fields[b':method'].decode()} {path}")
        if path == "/held" and not self.kills:
            return
        core = account.peer.core
        core.send_response(core.streams[request.stream_id], [(b":status", b"200")], True)
        account.strikes = 0
        account.is_clear = True


class _Account:
    """One connection of `Police`, and what is held against it."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.pings: list[float] = []
        self.strikes = 0
        self.is_clear = False  # HEADERS or DATA were sent since the last PING

    def pinged(self, now: float, min_gap: float) -> None:
        if not self.is_clear and self.pings and now - self.pings[-1] < min_gap:
            self.strikes += 1
        self.is_clear = False
        self.pings.append(now)


@contextmanager
def policing(min_gap: float) -> Iterator[Police]:
    """A `Police` in a thread that has ended when the block has; its failure is the test's."""
    faults: list[BaseException] = []

    def run() -> None:
        try:
            police.run()
        except BaseException as error:  # noqa: BLE001  raised again in the test's thread
            faults.append(error)

    police = Police(min_gap)
    thread = threading.Thread(target=run, name="police under test")
    thread.start()
    try:
        yield police
    finally:
        police.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    if faults:
        raise faults[0]
