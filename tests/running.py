"""Both ends for tests with sockets: a clock, a server in a thread, and peers that misbehave.

The peers are h2lite's own server cores on blocking sockets, so that a test can hold back, drop
or falsify what they would say.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

from h2lite.connection import Connection
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
def accepting(script: Callable[[socket.socket], object]) -> Iterator[Listening]:
    """Run `script` in a thread on the first connection that comes; its failure is the test's."""
    faults: list[BaseException] = []

    def run() -> None:
        try:
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
def peering(script: Callable[[Peer], object]) -> Iterator[Listening]:
    """As `accepting`, with a Peer that has sent its preface."""

    def run(sock: socket.socket) -> None:
        peer = Peer(sock)
        peer.flush()
        script(peer)

    with accepting(run) as listening:
        yield listening
