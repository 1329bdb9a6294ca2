"""Clients that ping a connection while it transfers at full speed, as bench/ping_busy.py asks.

Each turn has a connection of its own, and begins once FULL_SPEED_AFTER octets have moved.  Each
client tells the octets a second that moved beside its PINGs: a short wait is no merit where the
transfer is slow.

    ping()      h2lite's pool: a thread transfers by `request` or `stream`, another one pings
    core+loop   h2lite's Connection, Link and Loop in one thread, given 64 KiB at a time
    h2          one selectors loop, given 64 KiB at a time
    go          go/pinger.go, see ping_peers.GoPinger: a goroutine transfers, another one pings
"""

from __future__ import annotations

import itertools
import selectors
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import h2lite
from h2lite import transport
from h2lite.events import ConnectionEnded, DataReceived, PingAcked

from .ping_clients import RECV_OCTETS, CoreClient, opaque_values
from .ping_peers import H2, h2_connection
from .ping_servers import TIMEOUT_S, Target

NONE, UPLOAD, DOWNLOAD = "none", "upload", "download"
FULL_SPEED_AFTER = 8 * 2**20
PIECE = bytes(64 * 1024)
H2_WINDOW = 16 * 2**20  # as wide as it takes not to be what holds a download up
NS_A_SECOND = 1e9


class OursBeside:
    """h2lite's pool in two threads.

    lowat    False: without TCP_NOTSENT_LOWAT, which keeps the kernel's queue short
    rates    octets a second, one a turn
    queued   PingResult.queued_for in nanoseconds, one a PING
    """

    def __init__(self, place: Target, load: str, lowat: bool = True) -> None:
        self._place = place
        self._load = load
        self._notsent = transport.NOTSENT_LOWAT if lowat else 2**31 - 1
        self._moved = 0
        self._stopped = False
        self.rates: list[float] = []
        self.queued: list[float] = []

    def samples(self, calls: int) -> list[float]:
        before = transport.NOTSENT_LOWAT
        transport.NOTSENT_LOWAT = self._notsent
        try:
            with h2lite.connect(self._place.url, timeout=TIMEOUT_S) as connection:
                return self._pings_beside(connection, calls)
        finally:
            transport.NOTSENT_LOWAT = before

    def _pings_beside(self, connection: h2lite.PooledConnection, calls: int) -> list[float]:
        if self._load == NONE:
            return self._pings(connection, calls)
        self._moved, self._stopped = 0, False
        thread = threading.Thread(target=self._transfer, args=(connection,))
        thread.start()
        try:
            wait_for_full_speed(lambda: self._moved)
            return self._pings(connection, calls)
        finally:
            self._stopped = True
            thread.join()

    def _pings(self, connection: h2lite.PooledConnection, calls: int) -> list[float]:
        clock, ping = time.perf_counter_ns, connection.ping
        times: list[float] = []
        began, moved = clock(), self._moved
        for _ in range(calls):
            begun = clock()
            answer = ping(TIMEOUT_S)
            times.append(clock() - begun)
            self.queued.append(answer.queued_for * NS_A_SECOND)
        self.rates.append((self._moved - moved) / (clock() - began) * NS_A_SECOND)
        return times

    def _transfer(self, connection: h2lite.PooledConnection) -> None:
        if self._load == UPLOAD:
            connection.request("POST", "/discard", body=self._content(), timeout=None)
            return
        with connection.stream("GET", "/endless") as response:
            for octets in response.iter_bytes():
                self._moved += len(octets)
                if self._stopped:
                    return

    def _content(self) -> Iterator[bytes]:
        while not self._stopped:
            self._moved += len(PIECE)
            yield PIECE


class Exchange(Protocol):
    """One connection in one thread, with one stream on it unless the load is NONE."""

    def __init__(self, place: Target, load: str) -> None: ...

    @property
    def moved(self) -> int:
        """Octets of content given to the library, or taken from it."""

    def exchange_ping(self, value: bytes) -> None: ...
    def turn(self) -> None: ...
    def close(self) -> None: ...


class LoopBeside:
    """One loop that does all there is to do; rates as OursBeside's."""

    def __init__(self, exchange: type[Exchange], place: Target, load: str) -> None:
        self._exchange = exchange
        self._place = place
        self._load = load
        self._values = opaque_values()
        self.rates: list[float] = []

    def samples(self, calls: int) -> list[float]:
        exchange = self._exchange(self._place, self._load)
        try:
            if self._load != NONE:
                deadline = time.monotonic() + TIMEOUT_S
                while exchange.moved < FULL_SPEED_AFTER:
                    exchange.turn()
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"{exchange.moved} octets in {TIMEOUT_S} s")
            return self._pings(exchange, calls)
        finally:
            exchange.close()

    def _pings(self, exchange: Exchange, calls: int) -> list[float]:
        clock = time.perf_counter_ns
        times: list[float] = []
        began, moved = clock(), exchange.moved
        for value in itertools.islice(self._values, calls):
            begun = clock()
            exchange.exchange_ping(value)
            times.append(clock() - begun)
        self.rates.append((exchange.moved - moved) / (clock() - began) * NS_A_SECOND)
        return times


class CoreExchange(CoreClient):
    """h2lite's core and loop, which take content as windows and the socket allow."""

    def __init__(self, place: Target, load: str) -> None:
        super().__init__(place)
        self._load = load
        self._answer = b""
        self._downloaded = 0
        if load != NONE:
            fields = [(name.encode(), value.encode()) for name, value in request(place, load)]
            self._stream = self._connection.send_request(fields, end_stream=load == DOWNLOAD)

    @property
    def moved(self) -> int:  # an upload's with its frame headers, 9 octets in 16 384
        return self._link.taken_octets if self._load == UPLOAD else self._downloaded

    def exchange_ping(self, value: bytes) -> None:
        self._connection.ping(value, self._loop.clock())
        while self._answer != value:
            self.turn()

    def turn(self) -> None:
        loop, connection = self._loop, self._connection
        if self._load == UPLOAD and self._stream.queued_octets < len(PIECE):
            connection.send_data(self._stream, PIECE)
        loop.touch(self._link)
        loop.flush()
        happened = loop.turn(loop.clock() + TIMEOUT_S)
        for _, event in happened:
            if type(event) is DataReceived:
                connection.data_consumed(event.stream_id, len(event.data))
                self._downloaded += len(event.data)
            elif type(event) is PingAcked:
                self._answer = event.opaque_data
            elif type(event) is ConnectionEnded:
                raise ConnectionError(f"the connection ended: {event}")


class H2Exchange:
    """The h2 library on a bare socket by selectors."""

    def __init__(self, place: Target, load: str) -> None:
        from h2.events import DataReceived
        from h2.settings import SettingCodes

        self._connection, self._acked = h2_connection(H2)
        self._data_received: type[Any] = DataReceived
        self._sock = place.dial()
        self._sock.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._mask = selectors.EVENT_READ
        self._selector.register(self._sock, self._mask)
        self._unsent = memoryview(b"")
        self._uploads = load == UPLOAD
        self._answer = b""
        self._moved = 0
        self._connection.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: H2_WINDOW})
        self._connection.increment_flow_control_window(H2_WINDOW)
        if load == NONE:
            return
        self._stream_id = self._connection.get_next_available_stream_id()
        self._connection.send_headers(
            self._stream_id, request(place, load), end_stream=not self._uploads
        )

    @property
    def moved(self) -> int:
        return self._moved

    def exchange_ping(self, value: bytes) -> None:
        self._connection.ping(value)
        while self._answer != value:
            self.turn()

    def turn(self) -> None:
        """Write what there is, wait until there is something to do, read what has come."""
        if not self._unsent:
            if self._uploads:
                self._offer()
            self._unsent = memoryview(self._connection.data_to_send())
        if self._unsent:
            try:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
            except BlockingIOError:
                pass
        mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        if mask != self._mask:
            self._mask = mask
            self._selector.modify(self._sock, mask)
        goes_on = not self._unsent and self._window() > 0
        ready = self._selector.select(0 if goes_on else TIMEOUT_S)
        if not ready and not goes_on:
            raise TimeoutError(f"nothing in {TIMEOUT_S} s")
        if any(seen & selectors.EVENT_READ for _, seen in ready):
            self._receive()

    def _window(self) -> int:
        if not self._uploads:
            return 0
        size: int = self._connection.local_flow_control_window(self._stream_id)
        return size

    def _offer(self) -> None:
        """As much content as one piece has and the window takes."""
        left = min(self._window(), len(PIECE))
        while left > 0:
            size = min(left, self._connection.max_outbound_frame_size)
            self._connection.send_data(self._stream_id, PIECE[:size])
            self._moved += size
            left -= size

    def _receive(self) -> None:
        data = self._sock.recv(RECV_OCTETS)
        if not data:
            raise ConnectionError("the server closed the connection")
        for event in self._connection.receive_data(data):
            if isinstance(event, self._data_received):
                size = event.flow_controlled_length
                self._connection.acknowledge_received_data(size, event.stream_id)
                self._moved += len(event.data)
            elif isinstance(event, self._acked):
                self._answer = event.ping_data

    def close(self) -> None:
        self._selector.close()
        self._sock.close()


def wait_for_full_speed(moved: Callable[[], int]) -> None:
    """Return once `moved()` has reached FULL_SPEED_AFTER."""
    deadline = time.monotonic() + TIMEOUT_S
    while moved() < FULL_SPEED_AFTER:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{moved()} octets in {TIMEOUT_S} s")
        time.sleep(0.001)


def request(place: Target, load: str) -> list[tuple[str, str]]:
    """The fields of the transfer's request."""
    method, path = ("POST", "/discard") if load == UPLOAD else ("GET", "/endless")
    return [
        (":method", method),
        (":scheme", "http"),
        (":authority", place.url.partition("://")[2]),
        (":path", path),
    ]
