"""A small HTTP/2 server for demos, tests, benchmarks and teaching.

One loop in one thread moves all octets.  A handler is asked when a request is complete (or, where
it is streamed, as soon as its header section has come), and returns a Reply.  It is asked in the
loop's own thread, and must not block, or in one of a few threads made for that.
"""

from __future__ import annotations

import math
import sys
import threading
from collections import deque
from heapq import nlargest

from . import events as ev
from .accept import Accepted, Handshake, HandshakeFailed, Handshaken, Listener
from .body import BODY_QUEUED_OCTETS, BODY_RETRY_S
from .connection import Connection
from .errors import ErrorCode, UsageError
from .exchange import (
    LINE_OCTETS,
    Content,
    Due,
    Exchange,
    Repeats,
    Reply,
    Request,
    response_section,
)
from .fields import Section, load_hpack, octet_pairs, section_size, text_pairs
from .limits import DEFAULT_LIMITS, Limits
from .loop import Link, Loop, Source, monotonic
from .stream import CLOSED, HALF_CLOSED_LOCAL, OPEN
from .transport import TLSTransport, Transport, address_text, prepare
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from typing import Any

    from .events import Fields
    from .frames import Octets
    from .stream import Stream
    from .transport import Tap

HOARDERS = 10  # of those who keep most, the one to be refused is looked for
DESCRIPTORS_KEPT = 64  # for what handlers open: who would take one of the process's last is refused
LOOKS = 4  # at each client in the shortest of its timeouts: late by a quarter of one at most
FAILED = b"the handler failed\n"
_TOO_BUSY = Reply(503, b"too much is on its way to this server\n")
_TOO_SLOW = Reply(408, b"the request's content did not come in time\n")
WORKERS_END_S = 1.0  # how long a stopped server waits for handlers that still run

_GO_ON = "100-continue"
_FAREWELL = b"farewell"  # the PING whose ack shows that a client has read our first GOAWAY


class _GraceOver(Value):
    __slots__ = ()


class _Curfew(Source):
    """Says when the grace time of a server that stops is over."""

    def handle_deadline(self, now: float) -> list[Value]:
        return [_GraceOver()]


class _LookDue(Value):
    __slots__ = ()


class _Client(Source):
    """One connection and what is asked on it; its deadline is the next look at how it behaves.

    repeats      its requests and their replies, for when they come again
    exchanges    by stream, those whose reply has not been queued whole
    streaming    those of them whose body is pulled from
    handled      requests the handler is at work on, given up ones included until it has noticed
    held         requests that wait for one of these to end, in order
    starting     they are being started
    kept_octets  of its requests, fields and unread content
    streams, queued_octets   of the connection when stock was taken last
    idle_since   no stream has been open since; None: one is
    progress     how far it had come, and when: by stream, with 0 for the socket
    leaving      closed as soon as no stream is open
    """

    __slots__ = (
        "link",
        "address",
        "repeats",
        "exchanges",
        "streaming",
        "handled",
        "held",
        "starting",
        "kept_octets",
        "streams",
        "queued_octets",
        "idle_since",
        "progress",
        "leaving",
    )

    def __init__(self, link: Link, now: float) -> None:
        self.link = link
        self.address = address_text(link.transport.address)
        self.repeats = Repeats()
        self.exchanges: dict[int, Exchange] = {}
        self.streaming: dict[Exchange, None] = {}
        self.handled = 0
        self.held: dict[Exchange, None] = {}
        self.starting = False
        self.kept_octets = 0
        self.streams = 0
        self.queued_octets = 0
        self.idle_since: float | None = now
        self.progress: dict[int, tuple[int, int, float]] = {}
        self.leaving = False

    def handle_deadline(self, now: float) -> list[Value]:
        return [_LookDue()]

    def hoard(self, now: float) -> float:
        """How much is kept for its requests, each times how long."""
        return sum(exchange.hoard(now) for exchange in self.exchanges.values())

    def standstill(self, key: int, sent: int, received: int, least: int, now: float) -> float:
        """Seconds since something last moved: content that came, or `least` octets that left."""
        before = self.progress.get(key)
        if before is None or sent - before[0] >= least or received != before[1]:
            self.progress[key] = (sent, received, now)
            return 0.0
        return now - before[2]


class _Workers:
    """A few threads that take exchanges one step further, each in its turn.

    done   called in a worker's thread with each exchange that has made its step
    """

    def __init__(
        self, count: int, handler: Callable[[Request], Reply], done: Callable[[Exchange], None]
    ) -> None:
        self._handler = handler
        self._done = done
        # Bounded by what fills it: an exchange stands in it once at most.
        self._queue: dict[Exchange, None] = {}
        self._changed = threading.Condition()
        self._ending = False
        # Daemons: a handler that never returns must not keep the process from ending.
        self._threads = [
            threading.Thread(target=self._run, name=f"h2lite handler {number}", daemon=True)
            for number in range(1, count + 1)
        ]
        for thread in self._threads:
            thread.start()

    def step(self, exchange: Exchange) -> None:
        with self._changed:
            exchange.queued = True
            self._queue[exchange] = None
            self._changed.notify()

    def take_back(self, exchange: Exchange) -> bool:
        """Nobody is to make that step any more; False: somebody is at it."""
        with self._changed:
            if exchange.queued:
                exchange.queued = False
                del self._queue[exchange]
                return True
            return False

    def _next(self) -> Exchange | None:
        """The next one to make a step with, once there is one; None: it is the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._ending)
            if not self._queue:
                return None
            exchange = next(iter(self._queue))
            del self._queue[exchange]
            exchange.queued = False
            return exchange

    def _run(self) -> None:
        while (exchange := self._next()) is not None:
            try:
                exchange.work(self._handler)
            except BaseException:  # noqa: BLE001  sys.exit() ends a request, not its thread
                exchange.failed = True
                sys.excepthook(*sys.exc_info())
            self._done(exchange)

    def end(self) -> None:
        """Let every step queued before be made, then end; whoever takes longer is left behind."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        deadline = monotonic() + WORKERS_END_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - monotonic()))


class _Tapped:
    """A user's tap, made when there is something to tell; if it raises, it is told no more."""

    __slots__ = ("_make", "_tap")

    def __init__(self, make: Callable[[], Tap]) -> None:
        self._make: Callable[[], Tap] | None = make
        self._tap: Tap | None = None

    def __call__(self, received: bool, octets: bytes) -> None:
        try:
            if self._make is not None:
                make, self._make = self._make, None
                self._tap = make()
            if self._tap is not None:
                self._tap(received, octets)
        except Exception:  # noqa: BLE001  it ends neither its connection nor the others
            self._tap = None
            sys.excepthook(*sys.exc_info())


class Server:
    """Listens from the moment it is made; `serve_forever` runs it.

    handler   Request -> Reply; an exception becomes a 500
    threads   how many threads ask the handler, at most the streams a client may open;
              0: the serving thread does, and handlers must not block
    streamed  says of a request whose header section has come whether the handler wants it now
              and its content as `Request.content`; None: of none.  Content that is not streamed
              is handed over whole, and past `limits.request_octets` refused with 413
    limits    `Limits`: how much is borne of a client
    host, port, ssl_context   where to listen (port 0: a free one) and, for https, the TLS context;
                              host may be a UNIX socket, "unix:/run/app.sock", without a port: who
                              may connect is then what the umask leaves of the file's mode
    log       called with one line a request and one a failed handshake; None: nobody asks
    clock     seconds as a float, monotonic
    tap       makes for each connection what is called with all octets that cross it; one that
              raises is reported, and told no more

    Raises UsageError for threads or an address that cannot be, OSError for one that cannot be had.
    """

    def __init__(
        self,
        handler: Callable[[Request], Reply],
        *,
        threads: int = 0,
        streamed: Callable[[Request], bool] | None = None,
        limits: Limits = DEFAULT_LIMITS,
        host: str = "127.0.0.1",
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        log: Callable[[str], None] | None = None,
        clock: Callable[[], float] = monotonic,
        tap: Callable[[], Tap] | None = None,
    ) -> None:
        if not isinstance(threads, int) or not 0 <= threads <= limits.streams:
            raise UsageError(f"{threads} threads, want 0 to {limits.streams}")
        if not 0 <= port <= 65535:
            raise UsageError(f"port {port}, want 0 to 65535")
        load_hpack()
        self._handler = handler
        self._streamed = streamed
        self.limits = limits
        shortest = min(limits.idle_timeout, limits.stall_timeout, limits.request_timeout)
        self._look_every = shortest / LOOKS
        self._ssl_context = ssl_context
        self._log = log
        self._tap = tap
        self._loop = Loop(clock)
        self._loop.open_waker()
        # What other threads ask of this one; see _in_loop.
        self._posted: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._ending = False
        self._curfew = _Curfew()
        self._ends_at = math.inf
        self._handshakes: set[Handshake] = set()
        self._clients: dict[Link, _Client] = {}
        self._streams_open = self._streams_most = self._handled = self._handled_most = 0
        self._kept_octets = 0  # of requests
        self._queued_octets = 0  # of responses
        self._requests = 0
        try:
            if ssl_context is not None and host[:5].lower() == "unix:":
                raise UsageError("a UNIX socket is served in cleartext: leave out ssl_context")
            self._listener = Listener(
                self._loop, host, port, descriptors_max=_descriptors_max()
            )
        except (OSError, UsageError):
            self._loop.close()
            raise
        address = self._listener.address
        self.port: int = address[1] if isinstance(address, tuple) else 0
        self.url = address_text(address)
        if isinstance(address, tuple):
            self.url = f"{'https' if ssl_context else 'http'}://{self.url}"
        self._workers = (
            _Workers(threads, handler, lambda exchange: self._in_loop(self._on_worked, exchange))
            if threads
            else None
        )

    def serve_forever(self) -> None:
        """Serve until `stop`, then close everything."""
        try:
            while not self._ending or self._clients:
                for source, event in self._loop.turn():
                    self._on_event(source, event)
                self._do_posted()
                for source in self._loop.flush():
                    client = self._clients.get(source)  # type: ignore[call-overload]
                    if client is not None:
                        self._after_flush(client)
        finally:
            self._close()

    def stop(self, grace: float = 0.0) -> None:
        """Make `serve_forever` end: nobody new is accepted, and what is under way may finish.

        grace   seconds it has for that; 0: everything is closed at once
        From any thread, and from a signal handler.  A later call may shorten the grace, not
        lengthen it.
        """
        self._in_loop(self._end, grace)

    def stats(self) -> dict[str, int]:
        """What the server is busy with, in numbers; from any thread.

        connections   open now
        requests      taken so far
        streams, streams_most     open now, and at most at one time
        handlers, handlers_most   requests that the handler is at work on, its replies' bodies
                                  included, now and at most at one time
        """
        links = [*self._clients]
        return {
            "connections": len(links),
            "requests": self._requests,
            "streams": sum(len(link.connection.streams) for link in links),
            "streams_most": self._streams_most,
            "handlers": self._handled,
            "handlers_most": self._handled_most,
        }

    def _in_loop(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have the serving thread call a function before long."""
        self._posted.append((function, arguments))
        self._loop.wake()

    def _do_posted(self) -> None:
        while self._posted:
            function, arguments = self._posted.popleft()
            function(*arguments)

    # -- the end ---------------------------------------------------------------------------

    def _end(self, grace: float) -> None:
        """Close the door; tell every client; see the clock."""
        first = not self._ending
        if first:
            self._ending = True
            self._shut_door()
        if grace <= 0:
            self._finish_all()
            return
        deadline = self._loop.clock() + grace
        if first:
            for client in self._clients.values():
                self._announce_end(client)
        if deadline < self._ends_at:
            self._ends_at = deadline
            self._loop.set_deadline(self._curfew, deadline)

    def _shut_door(self) -> None:
        self._listener.close()
        for handshake in self._handshakes:
            handshake.close()
        self._handshakes.clear()

    def _announce_end(self, client: _Client) -> None:
        connection = client.link.connection
        if connection.closed or connection.goaway_sent is not None:
            return
        # RFC 9113 §6.8 [goaway-two-phase]: the ack shows that whatever the client opened before
        # it knew has come.
        connection.announce_goaway()
        connection.ping(_FAREWELL, self._loop.clock())
        self._loop.touch(client.link)

    def _on_ping_acked(self, link: Link, event: ev.PingAcked) -> None:
        client = self._clients.get(link)
        if client is not None:
            link.connection.goaway()
            client.leaving = True
            self._loop.touch(link)

    def _on_grace_over(self, source: Source, event: Value) -> None:
        self._finish_all()

    def _finish_all(self) -> None:
        """Give up what is still under way; whoever reads his GOAWAY has the linger time for it."""
        self._loop.set_deadline(self._curfew, None)
        for client in self._clients.values():
            client.held.clear()
            for exchange in [*client.exchanges.values()]:
                self._retire(exchange)
            if not client.link.connection.closed:
                # RFC 9113 §6.8 [goaway-before-close]
                client.link.connection.goaway()
            client.link.finish()

    def _close(self) -> None:
        """Whatever has ended the loop, leave nothing behind."""
        if not self._ending:
            self._shut_door()
        for link in [*self._clients]:
            link.end("closed here")
            self._drop(link)
        if self._workers is not None:
            self._workers.end()
            self._workers = None  # the steps that are left are made here
            self._do_posted()
        self._loop.close()

    # -- events ----------------------------------------------------------------------------

    def _on_event(self, source: Source, event: Value) -> None:
        handler = _ON_EVENT.get(type(event))
        if handler is not None:
            handler(self, source, event)

    def _on_accepted(self, source: Source, event: Accepted) -> None:
        if len(self._clients) + len(self._handshakes) >= self.limits.connections:
            event.sock.close()
            return
        tap = None if self._tap is None else _Tapped(self._tap)
        try:
            # Who has gone again already is found out here: ssl cannot wrap such a socket.
            event.sock.getpeername()
            prepare(event.sock)
            if self._ssl_context is None:
                self._add_client(Transport(event.sock, event.address, tap))
            else:
                transport = TLSTransport(
                    event.sock, event.address, self._ssl_context, None, tap
                )
                timeout = self.limits.handshake_timeout
                self._handshakes.add(Handshake(self._loop, transport, timeout))
        except OSError:
            event.sock.close()

    def _on_handshaken(self, source: Handshake, event: Handshaken) -> None:
        self._handshakes.discard(source)
        self._loop.forget(source, source.transport.sock.fileno())
        self._add_client(source.transport)

    def _on_handshake_failed(self, source: Handshake, event: HandshakeFailed) -> None:
        if source not in self._handshakes:  # done, or failed otherwise, in the same turn
            return
        self._handshakes.discard(source)
        self._say(f"{address_text(source.transport.address)} {event.reason}")
        source.close()

    def _add_client(self, transport: Transport) -> None:
        link = Link(self._loop, transport, Connection(client=False, limits=self.limits))
        self._clients[link] = client = _Client(link, self._loop.clock())
        self._look_again(client)

    def _on_request(self, link: Link, event: ev.RequestReceived) -> None:
        stream = link.connection.streams.get(event.stream_id)
        if stream is None or link.connection.closed:  # reset, or at fault, in the same turn
            return
        client = self._clients[link]
        self._requests += 1
        request, octets = client.repeats.request(event.fields, client.address)
        repeats = client.repeats if self._workers is None else None
        exchange = Exchange(link, stream, request, self._loop.clock(), repeats)
        client.exchanges[event.stream_id] = exchange
        self._keep(exchange, octets)
        if exchange.over:
            return
        if request.method == "CONNECT":
            # RFC 9110 §9.3.6: a tunnel is what CONNECT asks for, and no handler offers one.
            self._answer_here(exchange, Reply(501, b"CONNECT is not offered\n"))
        elif event.end_stream:
            self._start(exchange)
        else:
            self._take_stock(client)
            self._expect_content(exchange)

    def _expect_content(self, exchange: Exchange) -> None:
        """A request whose content is still to come."""
        request, link = exchange.request, exchange.link
        # RFC 9110 §10.1.1: the client waits for a word before it sends content.
        if any(name == "expect" and value.lower() == _GO_ON for name, value in request.headers):
            try:
                link.connection.send_response(exchange.stream, [(b":status", b"100")])
            except UsageError:
                pass  # it takes no field section of that size; the final response will say so
            self._loop.touch(link)
        try:
            streamed = self._streamed is not None and self._streamed(request)
        except Exception:  # noqa: BLE001  as a handler's fault
            sys.excepthook(*sys.exc_info())
            self._answer_here(exchange, Reply(500, FAILED))
            return
        if streamed:
            request.content = self._content(exchange)
            self._start(exchange)

    def _content(self, exchange: Exchange) -> Content:
        if self._workers is None:
            return Content(lambda octets: self._on_taken(exchange, octets))
        return Content(
            lambda octets: self._in_loop(self._on_taken, exchange, octets), threading.Condition()
        )

    def _on_taken(self, exchange: Exchange, octets: int) -> None:
        """A handler has read content: the client may send as much again."""
        link = exchange.link
        if exchange.kept:  # else it has been released, with all that was kept for it
            self._count_kept(exchange, -octets)
        link.connection.data_consumed(exchange.stream.stream_id, octets)
        self._loop.touch(link)

    def _on_data(self, link: Link, event: ev.DataReceived) -> None:
        exchange = self._clients[link].exchanges.get(event.stream_id)
        content = None if exchange is None else exchange.request.content
        if content is None:
            link.connection.data_consumed(event.stream_id, len(event.data))
            self._loop.touch(link)
        if exchange is None or exchange.over:
            return
        if content is not None:
            content.add(event.data)
            self._keep(exchange, len(event.data))
            self._more_came(exchange)
        else:
            self._collect(exchange, event.data)
        if event.end_stream and not exchange.over:
            self._on_complete(exchange)

    def _collect(self, exchange: Exchange, data: Octets) -> None:
        exchange.octets += len(data)
        most = self.limits.request_octets
        if exchange.octets > most:
            exchange.chunks.clear()
            self._answer_here(exchange, Reply(413, b"content over %d octets is not taken\n" % most))
            return
        exchange.chunks.add(data)
        self._keep(exchange, len(data))

    def _keep(self, exchange: Exchange, octets: int) -> None:
        """Octets of a request are kept; if they are too many, a request is refused for them.

        What some hoard is not refused to others: it is the one that holds most for the longest, of
        the client of whom that is true.
        """
        self._count_kept(exchange, octets)
        if self._kept_octets <= self.limits.kept_octets:
            return
        now = self._loop.clock()
        large = nlargest(HOARDERS, self._clients.values(), key=lambda each: each.kept_octets)
        client = max(large, key=lambda each: each.hoard(now))
        # What a worker is at would not be freed by that.
        free = [each for each in client.exchanges.values() if each.queued or not each.working]
        refused = max(free, key=lambda each: each.hoard(now), default=None)
        if refused is None:
            if client is not self._clients[exchange.link]:
                return
            refused = exchange
        self._say(f"{refused.request.address} gave more than the server can keep")
        was_asked = refused.started
        if self._take_back(refused):
            was_asked = refused.reply is not None
        if was_asked:
            self._reset(refused, ErrorCode.ENHANCE_YOUR_CALM, provoked=True)
        else:
            self._answer_here(refused, _TOO_BUSY)

    def _count_kept(self, exchange: Exchange, octets: int) -> None:
        exchange.kept += octets
        self._kept_octets += octets
        client = self._clients.get(exchange.link)
        if client is not None:
            client.kept_octets += octets

    def _on_trailers(self, link: Link, event: ev.TrailersReceived) -> None:
        exchange = self._clients[link].exchanges.get(event.stream_id)
        if exchange is not None:
            exchange.request.trailers += text_pairs(event.fields)
            self._keep(exchange, _kept_size(event.fields))
            if not exchange.over:
                self._on_complete(exchange)

    def _on_complete(self, exchange: Exchange) -> None:
        """All of the request has come."""
        request = exchange.request
        if request.content is not None:
            request.content.end()
            self._more_came(exchange)
        elif not exchange.over:
            request.body = exchange.chunks.join()
            exchange.chunks.clear()
            self._start(exchange)

    def _more_came(self, exchange: Exchange) -> None:
        if exchange.waiting:
            self._ask_again(exchange)

    def _on_window(self, link: Link, event: Value) -> None:
        """Content may leave for which no body was asked yet."""
        if self._clients[link].streaming:
            self._loop.touch(link)

    def _on_reset(self, link: Link, event: ev.StreamReset) -> None:
        client = self._clients[link]
        exchange = client.exchanges.get(event.stream_id)
        if exchange is not None:
            self._retire(exchange)
        self._take_stock(client)
        if client.leaving:  # this may have been its last stream
            self._loop.touch(link)

    def _on_failed(self, link: Link, event: ev.ConnectionFailed) -> None:
        self._say(f"{address_text(link.transport.address)} {event.reason}")
        link.finish()

    def _on_ended(self, link: Link, event: ev.ConnectionEnded) -> None:
        self._drop(link)

    def _drop(self, link: Link) -> None:
        client = self._clients.pop(link, None)
        if client is not None:
            self._loop.set_deadline(client, None)
            self._streams_open -= client.streams
            self._queued_octets -= client.queued_octets
            for exchange in client.exchanges.values():
                self._retire(exchange)

    # -- who takes too long ----------------------------------------------------------------

    def _look_again(self, client: _Client) -> None:
        if self._look_every < math.inf:
            self._loop.set_deadline(client, self._loop.clock() + self._look_every)

    def _on_look_due(self, client: _Client, event: _LookDue) -> None:
        """See whether a client keeps what it has begun going, and whether it is of any use."""
        link = client.link
        if link.ended or link.connection.closed:
            return
        now = self._loop.clock()
        self._take_stock(client)
        if self._is_stuck(client, now):
            self._say(f"{address_text(link.transport.address)} takes nothing that is sent to it")
            link.abort()
            self._drop(link)
            return
        streams = link.connection.streams
        for stream_id in client.progress.keys() - streams.keys() - {0}:
            del client.progress[stream_id]
        for stream in [*streams.values()]:
            self._look_at(client, stream, now)
        if client.idle_since is not None and now - client.idle_since >= self.limits.idle_timeout:
            # Whoever has not even acknowledged our farewell since the last look is left.
            if link.connection.goaway_sent is None:
                self._announce_end(client)
            else:
                link.connection.goaway()
                link.finish()
                return
        self._look_again(client)

    def _is_stuck(self, client: _Client, now: float) -> bool:
        """The client's socket has been full all the time."""
        link, limits = client.link, self.limits
        if not link.queued:
            client.progress.pop(0, None)
            return False
        standstill = client.standstill(0, link.taken_octets, 0, limits.stall_octets, now)
        return standstill >= limits.stall_timeout

    def _look_at(self, client: _Client, stream: Stream, now: float) -> None:
        """Give up a stream whose client neither takes the response nor sends the request."""
        limits = self.limits
        exchange = client.exchanges.get(stream.stream_id)
        is_coming = stream.state in (OPEN, HALF_CLOSED_LOCAL)
        if exchange is not None and exchange in client.held:
            return
        if exchange is not None and is_coming and not exchange.started:
            if now - exchange.begun_at >= limits.request_timeout:
                self._answer_here(exchange, _TOO_SLOW)
            return
        sent, received, least = stream.sent_octets, 0, limits.stall_octets
        if not stream.queued_octets:
            if not is_coming or stream.unread_octets or client.link.connection.withholds_credit:
                client.progress.pop(stream.stream_id, None)
                return  # whatever it waits for is the handlers' to do
            received, least = stream.received_octets, 1
        standstill = client.standstill(stream.stream_id, sent, received, least, now)
        if standstill < limits.stall_timeout:
            return
        address = address_text(client.link.transport.address)
        self._say(f"{address} stream {stream.stream_id} stands still")
        # RFC 9113 §8.1 [early-response-stop]: where the response has left whole, it stands.
        code = ErrorCode.NO_ERROR if stream.state == HALF_CLOSED_LOCAL else ErrorCode.CANCEL
        client.link.connection.reset_stream(stream, code, provoked=True)
        self._loop.touch(client.link)
        if exchange is not None:
            self._retire(exchange)

    # -- the handler's side ----------------------------------------------------------------

    def _start(self, exchange: Exchange) -> None:
        """Ask the handler, unless the client has asked it enough.

        A client that opens streams and resets them gets no more of it than one that waits, and
        one that does not read what it asked for, no more where memory is short.
        """
        client = self._clients[exchange.link]
        if exchange.stream.state == CLOSED:  # its reset comes later in this turn
            return
        if not self._may_ask(client):
            client.held[exchange] = None
            return
        exchange.started = True
        client.handled += 1
        self._handled += 1
        self._handled_most = max(self._handled_most, self._handled)
        self._step(exchange)

    def _may_ask(self, client: _Client) -> bool:
        """The handler may be asked for one more of a client's requests."""
        if client.handled >= self.limits.streams:
            return False
        self._take_stock(client)
        return self._room > 0 or not client.queued_octets

    @property
    def _room(self) -> int:
        """Octets that may still be kept, for all clients together."""
        return self.limits.kept_octets - self._kept_octets - self._queued_octets

    def _step(self, exchange: Exchange) -> None:
        """Have the user's code make one step, here or in a worker."""
        exchange.working = True
        if self._workers is None:
            exchange.work(self._handler)
            self._on_worked(exchange)
        else:
            self._workers.step(exchange)

    def _on_worked(self, exchange: Exchange) -> None:
        """A step is made: the reply is there, or a piece of its body, or the body is closed."""
        exchange.working = False
        if exchange.over:
            self._close_body(exchange)
        elif exchange.answered:
            self._on_piece(exchange)
        elif exchange.reply is None:
            self._answer_here(exchange, Reply(500, FAILED))
        elif exchange.reply.delay > 0:
            self._loop.set_deadline(exchange, self._loop.clock() + exchange.reply.delay)
        else:
            self._answer(exchange, exchange.reply)

    def _on_due(self, exchange: Exchange, event: Due) -> None:
        if exchange.over:  # since this turn began
            return
        if exchange.waiting:
            self._ask_again(exchange)
        elif exchange.reply is not None and not exchange.answered:
            # Else what it had waited for came in the same turn.
            self._answer(exchange, exchange.reply)

    def _ask_again(self, exchange: Exchange) -> None:
        """A body that had nothing yet may have something now."""
        exchange.waiting = False
        self._loop.set_deadline(exchange, None)
        self._step(exchange)

    def _answer_here(self, exchange: Exchange, reply: Reply) -> None:
        """The server's own reply, in place of the handler's."""
        exchange.reply = reply
        exchange.section = response_section(reply)
        self._answer(exchange, reply)

    def _answer(self, exchange: Exchange, reply: Reply) -> None:
        """Queue the reply's header section, and what is there of its body."""
        connection, stream, request = exchange.link.connection, exchange.stream, exchange.request
        if connection.closed or stream.state == CLOSED:  # failed or reset in the same turn
            self._retire(exchange)
            return
        if self._log is not None:
            self._say(f'{request.address} "{request.method} {request.path}" {reply.status}')
        exchange.answered = True
        if not self._takes(exchange, exchange.section):
            return
        body = reply.body
        whole = isinstance(body, bytes)
        try:
            trailers = octet_pairs(reply.trailers) if whole and reply.trailers else []
            empty = request.method == "HEAD" or (body == b"" and not trailers)
            connection.send_response(stream, exchange.section, end_stream=empty)
            if empty:
                self._complete(exchange)
            elif isinstance(body, bytes):
                self._send_last(exchange, body, trailers)
            else:
                self._clients[exchange.link].streaming[exchange] = None
        except Exception:  # noqa: BLE001  what the handler replied cannot be sent
            self._fail(exchange)
        self._loop.touch(exchange.link)

    def _on_piece(self, exchange: Exchange) -> None:
        """The body has given its next piece, none yet, or its end."""
        connection, stream, piece = exchange.link.connection, exchange.stream, exchange.piece
        if connection.closed or stream.state == CLOSED:
            self._retire(exchange)
            return
        try:
            if exchange.failed:
                self._reset(exchange, ErrorCode.INTERNAL_ERROR)
            elif piece is None:
                assert exchange.reply is not None
                self._send_last(exchange, b"", octet_pairs(exchange.reply.trailers))
            elif piece:
                connection.send_data(stream, piece)
            else:
                exchange.waiting = True
                self._loop.set_deadline(exchange, self._loop.clock() + BODY_RETRY_S)
        except Exception:  # noqa: BLE001  as a handler's fault
            self._fail(exchange)
        self._loop.touch(exchange.link)

    def _takes(self, exchange: Exchange, section: Section) -> bool:
        """The client takes a field section of that size; if it does not, its stream is reset."""
        if exchange.link.connection.takes_section(section):
            return True
        self._say(f"{exchange.request.address} takes no field section of that size")
        self._reset(exchange, ErrorCode.INTERNAL_ERROR, provoked=True)
        return False

    def _send_last(self, exchange: Exchange, octets: bytes, trailers: Fields) -> None:
        connection, stream = exchange.link.connection, exchange.stream
        if not trailers:
            connection.send_data(stream, octets, end_stream=True)
        else:
            section = Section(trailers)
            if not self._takes(exchange, section):
                return
            connection.send_data(stream, octets)
            connection.send_trailers(stream, section)
        self._complete(exchange)

    def _complete(self, exchange: Exchange) -> None:
        """The reply is queued whole; a client that still sends its request is told to stop."""
        if exchange.stream.state == OPEN:
            exchange.link.connection.stop_request(exchange.stream)
        self._retire(exchange)

    def _fail(self, exchange: Exchange) -> None:
        """The fault being handled is the user's: report it, and give up the stream it came on."""
        sys.excepthook(*sys.exc_info())
        self._reset(exchange, ErrorCode.INTERNAL_ERROR)

    def _reset(self, exchange: Exchange, error_code: int, provoked: bool = False) -> None:
        exchange.link.connection.reset_stream(exchange.stream, error_code, provoked)
        self._loop.touch(exchange.link)
        self._retire(exchange)

    def _after_flush(self, client: _Client) -> None:
        """Octets may have left: ask bodies that run low for more, and see whether all is done."""
        if client.streaming:
            self._pull(client)
        self._take_stock(client)
        self._start_held(client)
        link = client.link
        if client.leaving and not link.connection.streams and not link.connection.has_output:
            link.finish()

    def _pull(self, client: _Client) -> None:
        """Ask the bodies that run low for more, as long as their client takes it."""
        link, limits = client.link, self.limits
        room = limits.queued_octets - sum(e.stream.queued_octets for e in client.streaming)
        room = min(room, self._room)
        for exchange in [*client.streaming]:
            stream = exchange.stream
            while self._wants_piece(exchange) and (
                room > 0
                # However much waits for others, what can leave at once does not pile up.
                or not (stream.queued_octets or link.queued or not link.connection.may_send(stream))
            ):
                room += stream.queued_octets
                self._step(exchange)
                room -= stream.queued_octets

    def _wants_piece(self, exchange: Exchange) -> bool:
        return (
            exchange.stream.queued_octets < BODY_QUEUED_OCTETS
            and not exchange.working
            and not exchange.waiting
            and not exchange.over
        )

    def _take_stock(self, client: _Client) -> None:
        connection = client.link.connection
        streams = len(connection.streams)
        self._streams_open += streams - client.streams
        self._streams_most = max(self._streams_most, self._streams_open)
        if streams:
            client.idle_since = None
        elif client.idle_since is None:
            client.idle_since = self._loop.clock()
        client.streams = streams
        self._queued_octets += connection.queued_octets - client.queued_octets
        client.queued_octets = connection.queued_octets

    def _retire(self, exchange: Exchange) -> None:
        """Nothing more of an exchange is taken or sent; its body is closed by the next step."""
        if exchange.over:
            return
        exchange.over = True
        self._loop.set_deadline(exchange, None)
        client = self._clients.get(exchange.link)
        if client is not None:
            client.exchanges.pop(exchange.stream.stream_id, None)
            client.streaming.pop(exchange, None)
            client.held.pop(exchange, None)
        if exchange.request.content is not None:
            self._on_taken(exchange, exchange.request.content.give_up())
        exchange.waiting = False
        self._take_back(exchange)
        if not exchange.working:  # else when its step is made
            self._close_body(exchange)

    def _take_back(self, exchange: Exchange) -> bool:
        """Have no worker make the step that waits for one; False: none waits."""
        if self._workers is None or not self._workers.take_back(exchange):
            return False
        exchange.working = False
        return True

    def _close_body(self, exchange: Exchange) -> None:
        """The last step of an exchange that is over, where its body is something to be closed."""
        reply = exchange.reply
        if exchange.body_closed or reply is None or isinstance(reply.body, bytes):
            self._release(exchange)
        else:
            self._step(exchange)

    def _release(self, exchange: Exchange) -> None:
        """Nobody is at work on an exchange any more: the next one that was held may start."""
        self._count_kept(exchange, -exchange.kept)
        if not exchange.started:
            return
        self._handled -= 1
        client = self._clients.get(exchange.link)
        if client is None:
            return
        client.handled -= 1
        self._start_held(client)

    def _start_held(self, client: _Client) -> None:
        if client.starting:  # by a request that has ended at once: whoever started it goes on
            return
        client.starting = True
        while client.held and self._may_ask(client):
            held = next(iter(client.held))
            del client.held[held]
            self._start(held)
        client.starting = False

    def _say(self, line: str) -> None:
        if self._log is None:
            return
        try:
            self._log(line)
        except Exception:  # noqa: BLE001  a log that cannot be written ends no connection
            sys.excepthook(*sys.exc_info())


_ON_EVENT: dict[type[Value], Callable[[Server, Any, Any], None]] = {
    Accepted: Server._on_accepted,
    Handshaken: Server._on_handshaken,
    HandshakeFailed: Server._on_handshake_failed,
    _GraceOver: Server._on_grace_over,
    _LookDue: Server._on_look_due,
    Due: Server._on_due,
    ev.RequestReceived: Server._on_request,
    ev.DataReceived: Server._on_data,
    ev.TrailersReceived: Server._on_trailers,
    ev.WindowUpdated: Server._on_window,
    ev.SettingsReceived: Server._on_window,
    ev.PingAcked: Server._on_ping_acked,
    ev.StreamReset: Server._on_reset,
    ev.ConnectionFailed: Server._on_failed,
    ev.ConnectionEnded: Server._on_ended,
}


def _kept_size(fields: Fields) -> int:
    """Octets of memory that a request's field section takes, about."""
    return section_size(fields) + LINE_OCTETS * len(fields)


def _descriptors_max() -> float:
    """The first descriptor that no newcomer gets."""
    try:
        from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit
    except ImportError:  # Windows, where sockets are not numbered so
        return math.inf
    soft = getrlimit(RLIMIT_NOFILE)[0]
    return math.inf if soft == RLIM_INFINITY else soft - min(DESCRIPTORS_KEPT, soft // 8)
