"""PING round trips: the clients that are compared, the servers they ask, and the one core.

    floor       the PING's 17 octets on a bare socket by selectors, its answer not looked at
    core+loop   h2lite's Connection, Link and Loop, driven directly
    ping()      h2lite.connect(url).ping(), what a user calls
    h2          the h2 library on a bare socket by selectors

Every client asks the same server in the same way: one PING, wait, its ack.  The servers are
echo.py and nghttpd; both run on the client's core, so no idle core has to wake up.
"""

from __future__ import annotations

import functools
import itertools
import selectors
import socket
import ssl
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import pytest

import h2lite
from h2lite.connection import Connection
from h2lite.events import PingAcked
from h2lite.framer import CLIENT_PREFACE
from h2lite.frames import PingFrame, SettingsFrame
from h2lite.loop import Link, Loop
from h2lite.transport import TLSTransport, Transport, client_context, prepare
from tests.peers.servers import CLEAR, HOST, TLS, Ground, accepts, free_port

from .figures import SAME, Measured, Options, compare, cores, on_core
from .variant import FLOOR, Variant

CORE, PUBLIC, H2 = "core+loop", "ping()", "h2"
ECHO, NGHTTPD = "echo", "nghttpd"
PINNING = SAME
CALLS = 150  # a round
TIMEOUT_S = 5.0
RECV_OCTETS = 65536
BLOCKED = (BlockingIOError, ssl.SSLWantReadError)
ECHO_PROGRAM = Path(__file__).with_name("echo.py")


class Target(NamedTuple):
    """A server at work; cafile is what to trust over TLS, None in cleartext."""

    url: str
    cafile: str | None

    @property
    def context(self) -> ssl.SSLContext | None:
        return None if self.cafile is None else client_context(cafile=self.cafile)

    def dial(self) -> socket.socket:
        """A connected TCP socket that still blocks."""
        port = urlsplit(self.url).port
        assert port is not None
        sock = socket.create_connection((HOST, port), TIMEOUT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def connect(self) -> socket.socket:
        """A connected socket, under TLS where the server wants it, that still blocks."""
        sock, context = self.dial(), self.context
        return sock if context is None else context.wrap_socket(sock, server_hostname=HOST)


def target(ground: Ground, server: str, security: str) -> Target:
    """Start ECHO or NGHTTPD, once a ground; skips the test where nghttpd is not installed."""
    url = start_echo(ground, security) if server == ECHO else ground.url_of(server, security)
    return Target(url, None if security == CLEAR else ground.files.cafile)


@functools.cache
def start_echo(ground: Ground, security: str) -> str:
    """Start echo.py and return its URL; once for each ground and security."""
    folder = ground.folder / f"{ECHO}-{security}"
    folder.mkdir()
    port = free_port()
    certificate = [] if security == CLEAR else [ground.files.certfile, ground.files.keyfile]
    argv = [sys.executable, "-I", str(ECHO_PROGRAM), str(port), *certificate]
    ground.start(f"{ECHO}-{security}", argv, folder).wait_until(lambda: accepts(port))
    return f"{'http' if security == CLEAR else 'https'}://{HOST}:{port}"


class Client(Protocol):
    """One connection that pings; made ready by its constructor, first PING included."""

    def __init__(self, target: Target) -> None: ...
    def ping(self) -> Any: ...
    def holds(self, answer: Any) -> bool: ...
    def close(self) -> None: ...


def opaque_values() -> Iterator[bytes]:
    """Values that differ from their neighbours, made beforehand: counting is not timed."""
    return itertools.cycle([number.to_bytes(8, "big") for number in range(1, 257)])


class BareClient:
    """A non-blocking socket and a selector."""

    def __init__(self, target: Target) -> None:
        self._sock = target.connect()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._sock, selectors.EVENT_READ)

    def _exchange(self, octets: bytes) -> bytes:
        """Send a few octets and return what one recv gives."""
        self._sock.send(octets)
        while True:
            if not self._selector.select(TIMEOUT_S):
                raise TimeoutError(f"no answer in {TIMEOUT_S} s")
            try:
                data = self._sock.recv(RECV_OCTETS)
            except BLOCKED:
                continue  # a TLS record that was not ours to see: a session ticket
            if not data:
                raise ConnectionError("the server closed the connection")
            return data

    def close(self) -> None:
        self._selector.close()
        self._sock.close()


class FloorClient(BareClient):
    """The floor: frames made beforehand go out, what comes back is not looked at."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        pings = list(itertools.islice(opaque_values(), 256))
        acks = {PingFrame(value).encode(): PingFrame(value, True).encode() for value in pings}
        self._acks = acks
        self._frames = itertools.cycle(acks)
        self._sent = next(self._frames)
        self._sock.sendall(
            CLIENT_PREFACE + SettingsFrame().encode() + SettingsFrame(ack=True).encode()
        )
        self._sock.sendall(self._sent)
        seen = b""
        while not seen.endswith(acks[self._sent]):
            data = self._sock.recv(RECV_OCTETS)
            if not data:
                raise ConnectionError(f"{target.url} closed the connection after {seen!r}")
            seen += data
        self._sock.setblocking(False)

    def ping(self) -> bytes:
        self._sent = frame = next(self._frames)
        return self._exchange(frame)

    def holds(self, answer: bytes) -> bool:
        return answer == self._acks[self._sent]


class CoreClient:
    """h2lite without its blocking client: what an embedder's own loop would do."""

    def __init__(self, target: Target) -> None:
        self._values = opaque_values()
        self._sent = b""
        self._loop = Loop()
        self._connection = Connection(client=True)
        self._transport = self._connect(target)
        self._link = Link(self._loop, self._transport, self._connection)
        self.ping()

    @staticmethod
    def _connect(target: Target) -> Transport:
        sock, context = target.dial(), target.context
        if context is None:
            prepare(sock)
            return Transport(sock, sock.getpeername())
        transport = TLSTransport(sock, sock.getpeername(), context, HOST)
        transport.handshake()  # the socket still blocks, so one step is all of it
        prepare(transport.sock)
        return transport

    def ping(self) -> bytes:
        loop = self._loop
        now = loop.clock()
        self._sent = value = next(self._values)
        self._connection.ping(value, now)
        loop.touch(self._link)
        loop.flush()
        deadline = now + TIMEOUT_S
        while True:
            happened = loop.turn(deadline)
            for _, event in happened:
                if type(event) is PingAcked:
                    return event.opaque_data
            if not happened and loop.clock() > deadline:
                raise TimeoutError(f"no PING ack in {TIMEOUT_S} s")
            loop.flush()

    def holds(self, answer: bytes) -> bool:
        return answer == self._sent

    def close(self) -> None:
        self._link.end("closed here")
        self._loop.close()


class PublicClient:
    """What a user has; the connection itself matches each ack with its PING."""

    def __init__(self, target: Target) -> None:
        self._connection = h2lite.connect(target.url, cafile=target.cafile, timeout=TIMEOUT_S)
        self.ping()

    def ping(self) -> h2lite.PingResult:
        return self._connection.ping(timeout=TIMEOUT_S)

    def holds(self, answer: h2lite.PingResult) -> bool:
        return answer.rtt is not None and 0 < answer.rtt < TIMEOUT_S

    def close(self) -> None:
        self._connection.close()


class H2Client(BareClient):
    """The h2 library, told of every octet; needs the peers' environment."""

    def __init__(self, target: Target) -> None:
        from h2.config import H2Configuration
        from h2.connection import H2Connection
        from h2.events import PingAckReceived

        super().__init__(target)
        self._sock.setblocking(False)
        self._acked = PingAckReceived
        self._values = opaque_values()
        self._sent = b""
        self._connection = H2Connection(H2Configuration(client_side=True))
        self._connection.initiate_connection()
        self.ping()

    def ping(self) -> Any:
        connection = self._connection
        self._sent = value = next(self._values)
        connection.ping(value)
        while True:
            data = self._exchange(connection.data_to_send())
            for event in connection.receive_data(data):
                if isinstance(event, self._acked):
                    return event.ping_data

    def holds(self, answer: bytes) -> bool:
        return answer == self._sent


CLIENTS: dict[str, type[Client]] = {
    FLOOR: FloorClient,
    CORE: CoreClient,
    PUBLIC: PublicClient,
    H2: H2Client,
}


@contextmanager
def variant(name: str, target: Target) -> Iterator[Variant]:
    """A connected client as a Variant.  Raises ModuleNotFoundError without the h2 library."""
    client = CLIENTS[name](target)
    try:
        yield Variant(name, client.ping, client.holds)
    finally:
        client.close()


def measure(options: Options) -> list[Measured]:
    """Every client against every server, in cleartext and under TLS."""
    results = []
    servers = [ECHO, *([NGHTTPD] if options.peers else [])]
    clients = [FLOOR, CORE, PUBLIC, *([H2] if options.peers else [])]
    with (
        on_core(cores(PINNING)[0]),
        tempfile.TemporaryDirectory() as folder,
        ExitStack() as stack,
    ):
        ground = Ground(Path(folder))
        stack.callback(ground.stop)
        for server in servers:
            for security in (CLEAR, TLS):
                try:
                    place = target(ground, server, security)
                except pytest.skip.Exception as reason:
                    options.absent.add(f"{server}: {reason}")
                    continue
                what = f"ping {server} {security}"
                results += compare_clients(what, place, clients, options)
    return results


def compare_clients(
    what: str, place: Target, clients: list[str], options: Options
) -> list[Measured]:
    with ExitStack() as stack:
        variants = []
        for client in clients:
            try:
                variants.append(stack.enter_context(variant(client, place)))
            except ModuleNotFoundError as error:
                options.absent.add(f"{client}: {error}")
        return compare(what, variants, CALLS, options.rounds, operation="PING")
