"""The clients of the PING benches: the floor, and h2lite at each of its heights.

    floor            the PING's 17 octets on a bare socket by selectors, its answer not looked at
    core+loop        h2lite's Connection, Link and Loop, driven directly
    ping()           h2lite.connect(url).ping(), what a user calls
    ping(), thread   the same on a ConnectionPool's connection, its background thread alive
    ping(), alone    the same with background=False: there is no other thread to hand over to
    poll()           a pool embedded in a selectors loop of the user's own, by fileno() and poll()
"""

from __future__ import annotations

import itertools
import selectors
import ssl
import threading
from collections.abc import Iterator
from typing import Any, Protocol

import h2lite
from h2lite.connection import Connection
from h2lite.events import PingAcked
from h2lite.framer import CLIENT_PREFACE
from h2lite.frames import PingFrame, SettingsFrame
from h2lite.loop import Link, Loop
from h2lite.transport import TLSTransport, Transport, prepare
from tests.peers.servers import HOST

from .ping_servers import TIMEOUT_S, Target

CORE = "core+loop"
PUBLIC, THREADED, ALONE, EMBEDDED = "ping()", "ping(), thread", "ping(), alone", "poll()"
SPINNING = "ping(), spin"
SPIN_S = 0.0001
RECV_OCTETS = 65536
BLOCKED = (BlockingIOError, ssl.SSLWantReadError)


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


class SpinningClient(PublicClient):
    """The same, looking for SPIN_S before it sleeps."""

    def __init__(self, target: Target) -> None:
        self._connection = h2lite.connect(target.url, cafile=target.cafile, spin=SPIN_S)
        self.ping()


class ThreadedClient(PublicClient):
    """Of a pool whose background thread is alive, and stands back while a caller drives."""

    def __init__(self, target: Target) -> None:
        before = {*threading.enumerate()}
        self._pool = h2lite.ConnectionPool(cafile=target.cafile)
        self._connection = self._pool.connect(target.url)
        if not {*threading.enumerate()} - before:
            raise AssertionError("the pool has started no thread")
        self.ping()

    def close(self) -> None:
        self._pool.close()


class AloneClient(PublicClient):
    def __init__(self, target: Target) -> None:
        self._connection = h2lite.connect(
            target.url, cafile=target.cafile, timeout=TIMEOUT_S, background=False
        )
        self.ping()


class EmbeddedClient(PublicClient):
    """A pool in a loop that watches its descriptor and its deadline, and calls poll().

    The PING is ordered as `ping()` orders it, but not waited for there: no public call does
    that, since an embedded pool's PINGs are its checks.
    """

    def __init__(self, target: Target) -> None:
        self._pool = h2lite.ConnectionPool(cafile=target.cafile, background=False)
        self._connection = self._pool.connect(target.url)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._pool.fileno(), selectors.EVENT_READ)
        self.ping()

    def ping(self) -> h2lite.PingResult:
        pool = self._pool
        engine = pool._engine
        with engine.lock:
            ping = pool._pool.ping(self._connection._member, engine.loop.clock(), TIMEOUT_S)
            engine.settle()
        while not ping.over:
            deadline = pool.next_deadline()
            patience = None if deadline is None else max(0.0, deadline - pool.clock())
            self._selector.select(patience)
            pool.poll()
        return pool._result(ping)

    def close(self) -> None:
        self._selector.close()
        self._pool.close()
