"""Clients that GET, for the benches of throughput: each on one connection, each answer checked.

    core+loop     h2lite's Connection, Link and Loop, driven directly
    public        h2lite.ConnectionPool: `submit` and its futures, which the pool's background
                  thread sees to
    public, poll  the same without that thread: the caller gives the pool its turns
    get()         h2lite.ConnectionPool.get, one after the other
    go            Go's net/http (go/client.go), a goroutine for each stream; it keeps its own time
    h2, jh2       those libraries on a bare socket by selectors
    httpx         AsyncClient, a task for each stream, of which it lets 100 be open at once

`gets(count)` keeps as many requests under way as there are to be streams, until the last, and
returns how many responses had status 200 and the content that was to come: looking at both is
part of what is timed.
"""

from __future__ import annotations

import asyncio
import itertools
import select
import selectors
import ssl
import subprocess
from collections import deque
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NamedTuple, Protocol

import h2lite
from h2lite.connection import Connection
from h2lite.events import ConnectionEnded, DataReceived, ResponseReceived, StreamReset
from h2lite.loop import Link, Loop
from tests.peers.servers import STOP_S_MAX, Ground

from .go_programs import GO_SOURCES
from .places import ITEMS, Place
from .variant import Sampled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Self

CORE, PUBLIC, POLL, BLOCKING = "core+loop", "public", "public, poll", "get()"
GO, H2, JH2, HTTPX = "go", "h2", "jh2", "httpx"
RECV_OCTETS = 65536
TIMEOUT_S = 10.0
BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
FIELDS = [("user-agent", "bench"), ("accept", "*/*")]


class Task(NamedTuple):
    """What is asked for, and how.

    path      of every request
    content   of every response
    streams   at once
    differing the path goes on with a number below ITEMS and a query that no other request has
    token     of the field authorization; "": none
    """

    path: str
    content: bytes
    streams: int
    differing: bool = False
    token: str = ""

    def fields(self) -> list[tuple[str, str]]:
        """Of a request, beside the pseudo-header fields."""
        return [*FIELDS, *([("authorization", self.token)] if self.token else [])]

    def paths(self) -> Iterator[str]:
        """Of the requests, one after the other."""
        if not self.differing:
            return itertools.repeat(self.path)
        return (f"{self.path}{number % ITEMS}?{number}" for number in itertools.count())

    def sections(self, place: Place) -> Iterator[list[tuple[bytes, bytes]]]:
        """The requests' field sections; where nothing differs, one list again and again."""
        pseudo = [
            (b":method", b"GET"),
            (b":scheme", place.url.split(":")[0].encode()),
            (b":authority", place.authority.encode()),
        ]
        regular = [(name.encode(), value.encode()) for name, value in self.fields()]
        if not self.differing:
            return itertools.repeat([*pseudo, (b":path", self.path.encode()), *regular])
        return ([*pseudo, (b":path", path.encode()), *regular] for path in self.paths())


class Getter(Protocol):
    """One connection that GETs; made ready by its constructor, first GET included."""

    def gets(self, count: int) -> int:
        """So many GETs; returns how many were answered as they should be."""

    def close(self) -> None: ...


class CoreGetter:
    """What an embedder's own loop would do."""

    def __init__(self, place: Place, task: Task) -> None:
        self._task = task
        self._sections = task.sections(place)
        self._loop = Loop()
        self._connection = Connection(client=True)
        self._link = Link(self._loop, place.transport(), self._connection)
        self._begun: dict[int, bytes] = {}  # content of which a part has come, by stream
        self.gets(1)

    def gets(self, count: int) -> int:
        loop, connection, sections = self._loop, self._connection, self._sections
        content, streams = self._task.content, self._task.streams
        begun = self._begun
        asked = answered = right = 0
        event: Any  # asked for its type, once, and without isinstance
        deadline = loop.clock() + TIMEOUT_S
        while answered < count:
            while asked < count and asked - answered < streams:
                connection.send_request(next(sections))
                asked += 1
            loop.touch(self._link)
            loop.flush()
            happened = loop.turn(deadline)
            for _, event in happened:
                kind = type(event)
                if kind is ResponseReceived:
                    if event.end_stream:  # and without content
                        answered += 1
                    elif event.status == 200:
                        begun[event.stream_id] = b""
                elif kind is DataReceived:
                    stream_id = event.stream_id
                    connection.data_consumed(stream_id, len(event.data))
                    if stream_id in begun:
                        begun[stream_id] += event.data
                    if event.end_stream:
                        answered += 1
                        right += begun.pop(stream_id, None) == content
                elif kind is StreamReset or kind is ConnectionEnded:
                    raise ConnectionError(str(event))
            if not happened and loop.clock() > deadline:
                raise TimeoutError(f"{answered} of {count} answers in {TIMEOUT_S} s")
        return right

    def close(self) -> None:
        self._link.end("closed here")
        self._loop.close()


class PublicGetter:
    """What a user has: futures, as many as there are to be streams."""

    BACKGROUND = True

    def __init__(self, place: Place, task: Task) -> None:
        self._task = task
        self._urls = (place.url + path for path in task.paths())
        self._headers = task.fields()
        self._pool = h2lite.ConnectionPool(
            cafile=place.cafile, timeout=TIMEOUT_S, background=self.BACKGROUND
        )
        self.gets(1)

    def _answer(self, future: Any) -> Any:
        return future.result(TIMEOUT_S)

    def gets(self, count: int) -> int:
        pool, urls, headers = self._pool, self._urls, self._headers
        content = self._task.content
        futures: deque[Any] = deque()
        right = 0
        for _ in range(count):
            if len(futures) == self._task.streams:
                response = self._answer(futures.popleft())
                right += response.status == 200 and response.read() == content
            futures.append(pool.submit("GET", next(urls), headers=headers))
        while futures:
            response = self._answer(futures.popleft())
            right += response.status == 200 and response.read() == content
        return right

    def close(self) -> None:
        self._pool.close()


class PollGetter(PublicGetter):
    """No thread but the caller's."""

    BACKGROUND = False

    def _answer(self, future: Any) -> Any:
        poll = self._pool.poll
        while not future.done():
            poll(TIMEOUT_S)
        return future.result()


class BlockingGetter(PublicGetter):
    """`get`, each time waited for."""

    def gets(self, count: int) -> int:
        get, content = self._pool.get, self._task.content
        right = 0
        for _ in range(count):
            response = get(next(self._urls), headers=self._headers)
            right += response.status == 200 and response.read() == content
        return right


class BareSocket:
    """A socket that does not block, and a selector."""

    def __init__(self, place: Place) -> None:
        self._sock = place.connect()
        self._sock.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._sock, selectors.EVENT_READ)

    def send(self, octets: bytes) -> None:
        """Send all of it."""
        while octets:
            try:
                octets = octets[self._sock.send(octets) :]
            except BLOCKED:
                select.select([], [self._sock], [], TIMEOUT_S)

    def recv(self) -> bytes:
        """Wait for what one recv gives."""
        while True:
            if not self._selector.select(TIMEOUT_S):
                raise TimeoutError(f"no answer in {TIMEOUT_S} s")
            try:
                data: bytes = self._sock.recv(RECV_OCTETS)
            except BLOCKED:
                continue  # a TLS record that was not ours to see: a session ticket
            if not data:
                raise ConnectionError("the server closed the connection")
            return data

    def close(self) -> None:
        self._selector.close()
        self._sock.close()


class H2Getter:
    """The h2 library, told of every octet."""

    LIBRARY = "h2"

    def __init__(self, place: Place, task: Task) -> None:
        self._connection, self._events = h2_connection(self.LIBRARY)
        self._task = task
        self._sections = task.sections(place)
        self._bare = BareSocket(place)
        self._begun: dict[int, bytes] = {}
        self.gets(1)

    def gets(self, count: int) -> int:
        connection, sections, events = self._connection, self._sections, self._events
        content, streams = self._task.content, self._task.streams
        begun = self._begun
        asked = answered = right = 0
        while answered < count:
            while asked < count and asked - answered < streams:
                stream_id = connection.get_next_available_stream_id()
                connection.send_headers(stream_id, next(sections), end_stream=True)
                asked += 1
            self._bare.send(connection.data_to_send())
            for event in connection.receive_data(self._bare.recv()):
                if isinstance(event, events.ResponseReceived):
                    if (b":status", b"200") in event.headers:
                        begun[event.stream_id] = b""
                elif isinstance(event, events.DataReceived):
                    stream_id = event.stream_id
                    connection.acknowledge_received_data(
                        event.flow_controlled_length, stream_id
                    )
                    if stream_id in begun:
                        begun[stream_id] += event.data
                elif isinstance(event, events.StreamEnded):
                    answered += 1
                    right += begun.pop(event.stream_id, None) == content
                elif isinstance(event, (events.StreamReset, events.ConnectionTerminated)):
                    raise ConnectionError(str(event))
        return right

    def close(self) -> None:
        self._bare.close()


class Jh2Getter(H2Getter):
    LIBRARY = "jh2"


def h2_connection(library: str) -> tuple[Any, Any]:
    """A client's connection of h2 or jh2, its preface queued, and the library's events.

    Raises ModuleNotFoundError without the library.
    """
    connection = import_module(f"{library}.connection").H2Connection
    configuration = import_module(f"{library}.config").H2Configuration
    made = connection(configuration(client_side=True, header_encoding=None))
    made.initiate_connection()
    return made, import_module(f"{library}.events")


class HttpxGetter:
    """Tasks that share one client, in an asyncio loop that runs while there is something to do."""

    def __init__(self, place: Place, task: Task) -> None:
        import httpx

        self._task = task
        self._urls = (place.url + path for path in task.paths())
        self._loop = asyncio.new_event_loop()
        self._client = httpx.AsyncClient(
            http1=False,
            http2=True,
            verify=place.context or False,
            headers=task.fields(),
            timeout=TIMEOUT_S,
            limits=httpx.Limits(max_connections=1),
        )
        self.gets(1)

    def gets(self, count: int) -> int:
        return self._loop.run_until_complete(self._gets(count))

    async def _gets(self, count: int) -> int:
        turns = iter(range(count))
        return sum(await asyncio.gather(*(self._some(turns) for _ in range(self._task.streams))))

    async def _some(self, turns: Iterator[int]) -> int:
        right = 0
        for _ in turns:
            response = await self._client.get(next(self._urls))
            right += response.status_code == 200 and response.content == self._task.content
        return right

    def close(self) -> None:
        self._loop.run_until_complete(self._client.aclose())
        self._loop.close()


class GoProgram:
    """go/client.go at work: an order in, a line of nanoseconds out.  It does its own checks."""

    def __init__(self, ground: Ground, *options: str) -> None:
        self._process = subprocess.Popen(
            [ground.go_program("client", GO_SOURCES), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def order(self, order: str) -> list[float]:
        """The nanoseconds that it says an order took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(order + "\n")
        said = self._process.stdout.readline()
        if not said:
            raise AssertionError(f"go ended at {order!r}; its stderr says why")
        return [float(took) for took in said.split()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=STOP_S_MAX)


class GoGetter(GoProgram):
    def __init__(self, ground: Ground, place: Place, task: Task) -> None:
        options = [f"-url={place.url}{task.path}", f"-expect={task.content.decode()}"]
        if task.differing:
            options.append(f"-items={ITEMS}")
        if task.token:
            options.append(f"-token={task.token}")
        super().__init__(ground, *options)
        self._streams = task.streams

    def at_once(self, count: int) -> Sampled:
        """So many GETs a time."""
        order = f"gets {count} {self._streams}"
        return Sampled(GO, lambda times: [self.order(order)[0] / count for _ in range(times)])

    def one_by_one(self) -> Sampled:
        return Sampled(GO, lambda times: self.order(f"each {times}"))


GETTERS: dict[str, Callable[[Place, Task], Getter]] = {
    CORE: CoreGetter,
    PUBLIC: PublicGetter,
    POLL: PollGetter,
    BLOCKING: BlockingGetter,
    H2: H2Getter,
    JH2: Jh2Getter,
    HTTPX: HttpxGetter,
}
