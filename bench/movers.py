"""Clients that move content, for the benches of throughput: down and up, on one stream.

    core+loop   h2lite's Connection, Link and Loop, driven directly
    public      h2lite.ConnectionPool: `stream` read piece by piece, `post` of an iterator
    h2          the h2 library on a bare socket by selectors, its windows as large as h2lite's
    go          Go's net/http (go/client.go); it keeps its own time

What is sent is answering.py's BLOCK again and again, and so is what comes.  Content-length and
the octets that came are compared, as are the octets that the server says came; `Seen` shows the
content itself to whoever wants to look.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Protocol

import h2lite
from h2lite.connection import CONNECTION_WINDOW, Connection
from h2lite.events import ConnectionEnded, DataReceived, ResponseReceived, StreamReset
from h2lite.limits import DEFAULT_LIMITS
from h2lite.loop import Link, Loop
from tests.peers.servers import Ground

from .answering import BLOCK, pieces
from .getters import CORE, GO, H2, PUBLIC, BareSocket, GoProgram, h2_connection
from .places import Place
from .variant import Sampled, Variant

DOWN, UP = "down", "up"
TIMEOUT_S = 60.0
# Ahead of what the socket has taken: more than a turn sends, so that the next one waits only
# where the server takes no more.
QUEUED_OCTETS = 4 * len(BLOCK)
MIB = 2**20


class Crc:
    """What becomes of content that is looked at: its CRC-32."""

    def __init__(self) -> None:
        self.value = 0

    def __call__(self, octets: bytes | memoryview) -> None:
        self.value = zlib.crc32(octets, self.value)


See = Callable[[Any], object]


class Mover(Protocol):
    """One connection; made ready by its constructor."""

    def __init__(self, place: Place) -> None: ...

    def down(self, octets: int, see: See | None = None) -> int:
        """GET so many octets, and return how many came; see: told of each piece."""

    def up(self, octets: int, path: str = "/sink") -> str:
        """POST so many octets, and return what the server says of them."""

    def close(self) -> None: ...


def _check(status: int, declared: Any, octets: int | None) -> None:
    if status != 200 or (octets is not None and int(declared) != octets):
        raise ValueError(f"status {status}, content-length {declared}, want 200 and {octets}")


class CoreMover:
    """What an embedder's own loop would do."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._loop = Loop()
        self._connection = Connection(client=True)
        self._link = Link(self._loop, place.transport(), self._connection)

    def _fields(self, method: bytes, path: str) -> list[tuple[bytes, bytes]]:
        return [
            (b":method", method),
            (b":scheme", self._place.url.split(":")[0].encode()),
            (b":authority", self._place.authority.encode()),
            (b":path", path.encode()),
        ]

    def _turn(self, deadline: float) -> list[Any]:
        self._loop.touch(self._link)
        self._loop.flush()
        events = [event for _, event in self._loop.turn(deadline)]
        for event in events:
            if isinstance(event, (StreamReset, ConnectionEnded)):
                raise ConnectionError(str(event))
        return events

    def down(self, octets: int, see: See | None = None) -> int:
        connection = self._connection
        connection.send_request(self._fields(b"GET", f"/octets/{octets}"))
        deadline = self._loop.clock() + TIMEOUT_S
        taken = 0
        while self._loop.clock() < deadline:
            for event in self._turn(deadline):
                kind = type(event)
                if kind is DataReceived:
                    data = event.data
                    taken += len(data)
                    if see is not None:
                        see(data)
                    connection.data_consumed(event.stream_id, len(data))
                    if event.end_stream:
                        return taken
                elif kind is ResponseReceived:
                    _check(event.status, dict(event.fields)[b"content-length"], octets)
        raise TimeoutError(f"{taken} octets of {octets} in {TIMEOUT_S} s")

    def up(self, octets: int, path: str = "/sink") -> str:
        connection, clock = self._connection, self._loop.clock
        length = (b"content-length", str(octets).encode())
        stream = connection.send_request([*self._fields(b"POST", path), length], False)
        content = pieces(octets)
        deadline = clock() + TIMEOUT_S
        ended = False
        said = b""
        while clock() < deadline:
            while not ended and stream.queued_octets < QUEUED_OCTETS:
                piece = next(content, b"")
                ended = not piece
                connection.send_data(stream, piece, ended)
            for event in self._turn(deadline):
                if isinstance(event, DataReceived):
                    said += event.data
                    connection.data_consumed(event.stream_id, len(event.data))
                    if event.end_stream:
                        return said.decode()
                elif isinstance(event, ResponseReceived):
                    _check(event.status, None, None)
        raise TimeoutError(f"no answer to {octets} octets in {TIMEOUT_S} s")

    def close(self) -> None:
        self._link.end("closed here")
        self._loop.close()


class PublicMover:
    """What a user has."""

    def __init__(self, place: Place) -> None:
        self._url = place.url
        self._pool = h2lite.ConnectionPool(cafile=place.cafile, timeout=TIMEOUT_S)

    def down(self, octets: int, see: See | None = None) -> int:
        taken = 0
        with self._pool.stream("GET", f"{self._url}/octets/{octets}") as response:
            _check(response.status, response.headers.get("content-length"), octets)
            for piece in response.iter_bytes():
                taken += len(piece)
                if see is not None:
                    see(piece)
        return taken

    def up(self, octets: int, path: str = "/sink") -> str:
        headers = {"content-length": str(octets)}
        response = self._pool.post(self._url + path, headers=headers, body=pieces(octets))
        _check(response.status, None, None)
        return response.read().decode()

    def close(self) -> None:
        self._pool.close()


class H2Mover:
    """The h2 library, told of every octet."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._connection, self._events = h2_connection("h2")
        from h2.settings import SettingCodes

        window = {SettingCodes.INITIAL_WINDOW_SIZE: DEFAULT_LIMITS.stream_octets}
        self._connection.update_settings(window)
        self._connection.increment_flow_control_window(CONNECTION_WINDOW - 65535)
        self._bare = BareSocket(place)

    def _begin(self, method: str, path: str, *fields: tuple[str, str]) -> int:
        stream_id: int = self._connection.get_next_available_stream_id()
        pseudo = [
            (":method", method),
            (":scheme", self._place.url.split(":")[0]),
            (":authority", self._place.authority),
            (":path", path),
        ]
        self._connection.send_headers(stream_id, [*pseudo, *fields], end_stream=not fields)
        return stream_id

    def _receive(self) -> list[Any]:
        events: list[Any] = self._connection.receive_data(self._bare.recv())
        for event in events:
            if isinstance(event, (self._events.StreamReset, self._events.ConnectionTerminated)):
                raise ConnectionError(str(event))
        return events

    def _content(self, octets: int | None, see: See) -> None:
        """Take a response whose request has left, or is about to."""
        connection, events = self._connection, self._events
        while True:
            self._bare.send(connection.data_to_send())
            for event in self._receive():
                if isinstance(event, events.DataReceived):
                    see(event.data)
                    connection.acknowledge_received_data(
                        event.flow_controlled_length, event.stream_id
                    )
                elif isinstance(event, events.ResponseReceived):
                    fields = dict(event.headers)
                    _check(int(fields[b":status"]), fields.get(b"content-length"), octets)
                elif isinstance(event, events.StreamEnded):
                    return

    def down(self, octets: int, see: See | None = None) -> int:
        self._begin("GET", f"/octets/{octets}")
        taken = 0

        def count(data: bytes) -> None:
            nonlocal taken
            taken += len(data)
            if see is not None:
                see(data)

        self._content(octets, count)
        return taken

    def up(self, octets: int, path: str = "/sink") -> str:
        connection = self._connection
        stream_id = self._begin("POST", path, ("content-length", str(octets)))
        largest = connection.max_outbound_frame_size
        for piece in pieces(octets):
            rest = memoryview(piece)
            while rest:
                room = min(connection.local_flow_control_window(stream_id), largest, len(rest))
                if room:
                    connection.send_data(stream_id, rest[:room])
                    rest = rest[room:]
                else:
                    self._bare.send(connection.data_to_send())
                    self._receive()
            self._bare.send(connection.data_to_send())
        connection.end_stream(stream_id)
        said: list[bytes] = []
        self._content(None, said.append)
        return b"".join(said).decode()

    def close(self) -> None:
        self._bare.close()


class GoMover(GoProgram):
    """Content in one direction."""

    def __init__(self, ground: Ground, place: Place, direction: str, octets: int) -> None:
        path = f"/octets/{octets}" if direction == DOWN else "/sink"
        options = [] if place.cafile is None else [f"-cacert={place.cafile}"]
        super().__init__(ground, f"-url={place.url}{path}", *options)
        self._order = f"{direction} {octets}"
        self._mebibytes = octets // MIB

    def sampled(self) -> Sampled:
        """A whole transfer a time, an operation a MiB."""
        return Sampled(
            GO,
            lambda times: [self.order(self._order)[0] / self._mebibytes for _ in range(times)],
        )


MOVERS: dict[str, type[Mover]] = {CORE: CoreMover, PUBLIC: PublicMover, H2: H2Mover}


def variant(name: str, mover: Mover, direction: str, octets: int) -> Variant:
    """A whole transfer, an operation a MiB."""
    mebibytes = octets // MIB
    if direction == DOWN:
        return Variant(name, lambda: mover.down(octets), lambda taken: taken == octets, mebibytes)
    return Variant(name, lambda: mover.up(octets), lambda said: said == str(octets), mebibytes)
