"""The client: a pool of connections a user holds, sees and pings, and one connection alone.

Whoever waits for an answer drives the loop meanwhile (`engine.py`); the pool decides (`pool.py`).
No redirects, cookies, proxies or content decoding: those belong to the client above.
"""

from __future__ import annotations

import os
import warnings
import weakref

from .body import BODY_RETRY_S, Pieces, next_piece, octets_left
from .call import Call
from .dial import Dial
from .engine import Engine, Watcher
from .environment import check_proxy, read_environment
from .errors import ConnectError, H2liteError, ResponseTooLarge, UsageError
from .fields import Section, octet_pairs
from .health import STATE_NAMES, HealthPolicy
from .limits import DEFAULT_LIMITS, Limits
from .loop import SPIN_S_MAX, Loop, monotonic
from .message import Headers, Source, check_body, request_fields
from .orders import Calmed, Moved, Retried, StateChanged
from .origin import parse_url
from .pool import IDLE_CLOSE_S, QUEUED_MAX, Pool
from .retry import RETRIES_MAX
from .timeout import Timeout, check_timeout
from .transport import SocketOptions, check_user_timeout, client_tls
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Future
    from types import TracebackType
    from typing import Any

    from typing_extensions import Self, TypedDict, Unpack

    from .body import Body
    from .fields import Pairs
    from .member import Member, Ping
    from .message import HeaderPairs
    from .origin import Origin
    from .transport import Tap

    class RequestOptions(TypedDict, total=False):
        """What every way of making a request takes; see `ConnectionPool.request`."""

        headers: HeaderPairs
        body: Body
        trailers: Pairs
        timeout: Timeout | float | None
        idempotent: bool
        retries: int


CONNECT_TIMEOUT_S = 10.0  # name, TCP, TLS and the peer's SETTINGS together
PING_TIMEOUT_S = 5.0
STEP_TIMEOUT_S = 30.0  # of each step of a request, where nothing else was asked for
CONTENT_OCTETS_MAX = 256 * 2**20  # of a response that is read whole; more is to be streamed

# A request has a limit at every step; of a stream, that may be a watch of days, only the head has.
DEFAULT_TIMEOUT = Timeout(read=STEP_TIMEOUT_S, write=STEP_TIMEOUT_S, pool=STEP_TIMEOUT_S)
_AS_THE_POOL = Timeout()  # told from any other by identity


class PingResult(Value):
    """What became of one PING.

    connection   on which it was sent, a `PooledConnection`
    rtt          seconds there and back, None without an answer
    queued_for   seconds before the PING could leave
    rescued_by   what came first, where that was not its ack, else ""
    state        of the connection afterwards, as `PooledConnection.state`
    error        why there is no answer, None where there is one
    """

    __slots__ = ("connection", "rtt", "queued_for", "rescued_by", "state", "error")

    def __init__(
        self,
        connection: PooledConnection,
        rtt: float | None,
        queued_for: float,
        rescued_by: str,
        state: str,
        error: H2liteError | None,
    ) -> None:
        self.connection = connection
        self.rtt = rtt
        self.queued_for = queued_for
        self.rescued_by = rescued_by
        self.state = state
        self.error = error


class ConnectionChanged(Value):
    """A connection's state changed, as the event callback is told.

    before, after   CONNECTING, LIVE, PROBING, SUSPECT or DEAD
    cause           of its death, "" otherwise
    at              seconds on the pool's clock
    """

    __slots__ = ("connection", "before", "after", "cause", "at")

    def __init__(
        self, connection: PooledConnection, before: str, after: str, cause: str, at: float
    ) -> None:
        self.connection = connection
        self.before = before
        self.after = after
        self.cause = cause
        self.at = at


class RequestMoved(Value):
    """A request that had not left `connection` goes elsewhere."""

    __slots__ = ("connection", "method", "at")

    def __init__(self, connection: PooledConnection, method: str, at: float) -> None:
        self.connection = connection
        self.method = method
        self.at = at


class RequestRetried(Value):
    """A request is repeated, `delay` seconds from `at`, because of `error`."""

    __slots__ = ("method", "delay", "error", "at")

    def __init__(self, method: str, delay: float, error: H2liteError, at: float) -> None:
        self.method = method
        self.delay = delay
        self.error = error
        self.at = at


class OriginCalmed(Value):
    """An origin complained of too many PINGs; a death on it is found within `found_within` now."""

    __slots__ = ("origin", "found_within", "at")

    def __init__(self, origin: Origin, found_within: float | None, at: float) -> None:
        self.origin = origin
        self.found_within = found_within
        self.at = at


class EnvironmentWarning(Value):
    """A variable of the environment was of no use; `text` says which, and what holds instead."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class _Exchange(Watcher):
    """A request under way, and whoever is told of it.

    source   gives the request's content piece by piece; None: the call has it whole
    """

    __slots__ = ("pool", "call", "source", "trailers", "_rewind_due")

    def __init__(
        self, pool: ConnectionPool, call: Call, source: Source | None, trailers: Pairs
    ) -> None:
        self.pool = pool
        self.call = call
        self.source = source
        self.trailers = trailers
        self._rewind_due = False

    def rewind(self) -> None:
        self._rewind_due = True

    @property
    def wants_step(self) -> bool:
        return self.source is not None and (self._rewind_due or self.call.wants_content)

    def step(self) -> bool:
        """Give the request's next piece.  The body's own code runs here, without the lock.

        False: it had none yet.
        """
        engine, pool, call, source = self.pool._engine, self.pool._pool, self.call, self.source
        assert source is not None
        try:
            if self._rewind_due:
                self._rewind_due = False
                source.rewind()
            piece = next_piece(source.pieces)
            trailers = octet_pairs(self.trailers) if piece is None else []
            with engine.lock:
                if self._rewind_due or call.over:  # the piece was of an attempt that has failed
                    return True
                now = engine.loop.clock()
                if trailers:
                    pool.send_trailers(call, trailers, now)
                else:
                    pool.send_content(call, piece or b"", now, end_stream=piece is None)
                engine.settle()
            return piece != b""
        except BaseException:
            with engine.lock:
                pool.cancel(call, engine.loop.clock(), UsageError("the request's body failed"))
                engine.settle()
            raise

    def wait(self, done: Callable[[], object]) -> None:
        """Wait until `done`, giving content meanwhile.  Raises what ended the call."""
        engine, call = self.pool._engine, self.call
        watcher = None if self.source is None else self
        while True:
            engine.wait(lambda: done() or call.over, call, watcher=watcher)
            if done():
                return
            if call.error is not None:
                raise self.pool._told(call.error)
            if not self.wants_step:
                engine.check_open()
                raise UsageError("the pool is closed")
            pause = 0.0 if self.step() else BODY_RETRY_S
            # A body that always has more, or never, holds nothing else up.
            engine.turn(engine.loop.clock() + pause)


class _Submitted(_Exchange):
    """A request whose answer is told by a future; content comes from a seekable file at most."""

    __slots__ = ("future", "_chunks", "_octets", "_stepping", "_fate")

    def __init__(
        self, pool: ConnectionPool, call: Call, source: Source | None, trailers: Pairs
    ) -> None:
        from concurrent.futures import Future
        from threading import Lock

        super().__init__(pool, call, source, trailers)
        self.future: Future[Response] = Future()
        self._chunks = Pieces()
        self._octets = 0
        self._stepping = False
        self._fate = Lock()  # taken by whoever settles the future's, and never given back

    def delivered(self) -> None:
        """Take what has come; under the lock."""
        pool, call = self.pool, self.call
        now = pool._engine.loop.clock()
        while (chunk := pool._pool.take_chunk(call, now)) is not None:
            self._chunks.add(chunk)
            self._octets += len(chunk)
        if self._octets > pool._content_max and not call.over:
            pool._pool.cancel(call, now, _too_large(pool._content_max))
        if call.over:
            pool._engine.queue(self._finish)

    def turned(self) -> None:
        if self.wants_step and not self._stepping:
            self._stepping = True
            self.pool._engine.queue(self._give)

    def rewind(self) -> None:
        super().rewind()
        self._chunks.clear()
        self._octets = 0

    def _give(self) -> None:
        self._stepping = False
        try:
            while self.wants_step and self.step():
                continue
        except Exception as error:  # noqa: BLE001  the future tells it
            if self._settles():
                self.future.set_exception(error)

    def _settles(self) -> bool:
        """Whether it is this caller who has the future's answer; one that is cancelled has none.

        That it was cancelled must be said once, or who waits for several futures never hears it.
        """
        return self._fate.acquire(blocking=False) and self.future.set_running_or_notify_cancel()

    def cancelled(self, future: Future[Response]) -> None:
        """The future is done; see to the request where its user has cancelled it."""
        if future.cancelled():
            self.pool._cancel(self.call)
            self._settles()

    def _finish(self) -> None:
        if not self._settles():
            return
        error = self.call.error
        if error is None and self._octets > self.pool._content_max:  # and its end came along
            error = _too_large(self.pool._content_max)
        if error is not None:
            self.future.set_exception(self.pool._told(error))
            return
        response = Response(self)
        response._content = self._chunks.join()
        self.future.set_result(response)


class Response:
    """A response whose header section has come; its content is read whole or piece by piece.

    status         the final status code
    headers        `Headers`
    trailers       `Headers`, complete once the content has been read
    interim        (status, `Headers`) of each 1xx response that came before
    http_version   "HTTP/2" or "HTTP/1.1"
    connection     the `PooledConnection` it came on, None where that has ended since

    One that was streamed is to be used as a context manager, read to its end, or closed: an
    unread response keeps its stream open until it is collected.  Where the server answered
    before it had the whole request, reading the response also sends the rest of that.
    """

    def __init__(self, exchange: _Exchange) -> None:
        call = exchange.call
        self._exchange = exchange
        self._content: bytes | None = None
        member = call.member
        self.connection = None if member is None else exchange.pool._handle(member)
        self.http_version = "HTTP/1.1" if call.site.is_http1 else "HTTP/2"
        self.status = call.status
        self.headers = Headers(call.response_fields)
        self.interim = tuple((status, Headers(fields)) for status, fields in call.interim)

    @property
    def trailers(self) -> Headers:
        return Headers(self._exchange.call.response_trailers)

    def iter_bytes(self) -> Iterator[bytes]:
        """The content as it comes.

        Raises ReadTimeout, StreamReset or ConnectionLost when it does not come to its end; what
        was yielded before is then incomplete.
        """
        if self._content is not None:
            if self._content:
                yield self._content
            return
        while (chunk := self._next_chunk()) is not None:
            yield chunk

    def read(self) -> bytes:
        """The content that `iter_bytes` has not given; once read, the same each time.

        Errors as `iter_bytes`, and ResponseTooLarge for more octets than the pool keeps of one
        response; the stream is reset then.
        """
        if self._content is None:
            exchange = self._exchange
            call, limit = exchange.call, exchange.pool._content_max
            pieces = Pieces()
            octets = 0
            while True:
                came, ended = self._take()
                for piece in came:
                    pieces.add(piece)
                    octets += len(piece)
                if octets > limit:
                    error = _too_large(limit)
                    exchange.pool._cancel(call, error)
                    raise error
                if ended:
                    break
                exchange.wait(lambda: call.chunks or call.ended)
            self._content = pieces.join()
        return self._content

    def _take(self) -> tuple[list[bytes], bool]:
        """All that has come and nobody has taken, and whether that is the end."""
        call, pool = self._exchange.call, self._exchange.pool
        engine = pool._engine
        came: list[bytes] = []
        with engine.lock:
            engine.check_usable()
            if call.chunks:
                now = engine.loop.clock()
                while (piece := pool._pool.take_chunk(call, now)) is not None:
                    came.append(piece)
                engine.settle()
            return came, call.ended

    def close(self) -> None:
        """Drop what has not been read; an unfinished stream is reset."""
        call = self._exchange.call
        if not call.over or call.chunks:
            self._exchange.pool._cancel(call, UsageError("the response was closed"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # What nobody can read any more would count for ever as unread on its connection.
        self.close()

    def __repr__(self) -> str:
        return f"<Response {self.status}, {self.http_version}>"

    def _next_chunk(self) -> bytes | None:
        exchange = self._exchange
        call, engine = exchange.call, exchange.pool._engine
        while True:
            with engine.lock:
                engine.check_usable()
                chunk = exchange.pool._pool.take_chunk(call, engine.loop.clock())
                if chunk is not None:
                    engine.settle()
                    return chunk
                if call.ended:
                    return None
            exchange.wait(lambda: call.chunks or call.ended)


class PooledConnection:
    """One connection of a pool, or the one that `connect` made.

    origin        the `Origin` it serves
    number        in the order of the pool's dials, from 1
    address       the peer's address and port as text, "" until it is reached
    protocol      "h2" over TLS, "h2c" in cleartext, "http/1.1"; "" until it is reached
    tls_version   "TLSv1.3" and the like, None in cleartext
    state         CONNECTING, LIVE, PROBING, SUSPECT or DEAD
    is_draining   it takes no new requests and is closed when those under way have ended
    requests      how many are under way on it
    rtt           the smoothed round trip of its PINGs in seconds, None before the first
    error         why it ended, None while it has not
    """

    def __init__(self, pool: ConnectionPool, member: Member) -> None:
        self._pool = pool
        self._member = member
        self._owns_pool = False
        self.origin = member.origin
        self.number = member.number

    @property
    def tls_version(self) -> str | None:
        return self._member.tls_version

    @property
    def address(self) -> str:
        return self._member.address

    @property
    def protocol(self) -> str:
        return self._member.protocol

    @property
    def state(self) -> str:
        return STATE_NAMES[self._member.health.state]

    @property
    def is_draining(self) -> bool:
        return self._member.draining

    @property
    def requests(self) -> int:
        return len(self._member.calls) + len(self._member.unsent)

    @property
    def rtt(self) -> float | None:
        return self._member.health.srtt_s

    @property
    def error(self) -> H2liteError | None:
        error = self._member.error
        return None if error is None else self._pool._told(error)

    def ping(self, timeout: float = PING_TIMEOUT_S) -> PingResult:
        """Send a PING and wait for its ack.

        timeout   seconds
        Raises PingTimeout (the connection is left as it is), ConnectionLost when it ended,
        UsageError where eight wait already, or where HTTP/1.1 is spoken, which has no PING.
        Source: RFC 9113 §6.7.
        """
        check_timeout(timeout)
        pool = self._pool
        engine = pool._engine
        with engine.lock:
            self._check_alive()
            ping = pool._pool.ping(self._member, engine.loop.clock(), timeout)
            engine.settle()
        engine.wait(lambda: ping.over, ping)
        if ping.error is not None:
            raise pool._told(ping.error)
        state = STATE_NAMES[self._member.health.state]
        return PingResult(self, ping.rtt_s, ping.queued_s, ping.rescued_by, state, None)

    def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> Response:
        """Send a request on this very connection and return its response, read whole.

        path      the request target, query included
        options   as `ConnectionPool.request` takes them

        Errors are those of `ConnectionPool.request`; where the connection takes no more requests,
        ConnectionLost at once.
        """
        return _read_whole(self._start(method, path, **options))

    def stream(self, method: str, path: str, **options: Unpack[RequestOptions]) -> Response:
        """As `request`, but return as soon as the header section has come.

        Without a timeout of one's own, the content may take any time.
        """
        return _unhurried(self._start(method, path, **options), options)

    def _start(self, method: str, path: str, **options: Unpack[RequestOptions]) -> Response:
        with self._pool._engine.lock:
            self._check_alive()
        return self._pool._start(self.origin, method, path, self._member, **options)

    def watch(self, timeout: float) -> None:
        """Wait `timeout` seconds; the connection is served meanwhile.

        Raises what ended the connection as soon as it has.
        """
        if not timeout == timeout:
            raise UsageError(f"timeout of {timeout!r}, want seconds")
        engine, member = self._pool._engine, self._member
        with engine.lock:
            self._check_alive()
        engine.wait(lambda: member.error is not None, member, engine.loop.clock() + timeout)
        with engine.lock:
            self._check_alive()

    def close(self) -> None:
        """Say GOAWAY and close; a second close does nothing.

        The connection of `connect` takes its pool along: that lasts as long as the peer needs to
        read the GOAWAY and to close too, 0.25 s at most.
        """
        engine = self._pool._engine
        if self._owns_pool:
            self._pool.close()
            return
        if engine.postpones(self.close):
            return
        with engine.lock:
            engine.check_open()
            self._pool._pool.close_member(self._member, engine.loop.clock())
            engine.settle()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PooledConnection) and other._member is self._member

    def __hash__(self) -> int:
        return hash(self._member)

    def __str__(self) -> str:
        return str(self._member)

    def __repr__(self) -> str:
        return f"<PooledConnection {self.number} to {self}, {self.state}>"

    def _check_alive(self) -> None:
        """Under the lock."""
        pool = self._pool
        pool._engine.check_usable()
        if self._owns_pool and pool._pool.closed:
            raise UsageError(f"{self} is closed")
        if self._member.error is not None:
            raise self._pool._told(self._member.error)


class ConnectionPool:
    """Connections to any number of origins, checked all the time, pinged when you like.

    health                        `HealthPolicy`; None: the default, with what the environment says
    http2                         True: HTTP/2 alone; False: HTTP/1.1 alone (extra `http1`);
                                  None: HTTP/2, or HTTP/1.1 where a server chooses that by ALPN
                                  or DISABLE_HTTP2 is set
    connect_timeout               seconds for name, TCP, TLS and SETTINGS together, instead of the
                                  policy's
    timeout                       of requests that have none of their own, a `Timeout` or seconds
                                  in all; None: none.  By default 30 s for each step
    connections_per_origin_max    HTTP/2 connections that take requests at once
    queued_max                    requests of one origin that may wait for a connection
    idle_close                    seconds unused before a connection is closed, 0: never
    content_octets_max            of a response that is read whole
    limits                        `Limits`: how much is borne of a server
    verify, cafile, certfile, keyfile, ssl_context   as `connect` takes them
    socket_options                `SocketOptions`: keepalive and TCP_USER_TIMEOUT
    trust_env                     False: no variable of the environment counts
    on_event                      called with ConnectionChanged, RequestMoved, RequestRetried,
                                  OriginCalmed and EnvironmentWarning, in order, in whichever
                                  thread drives; it may make calls of the pool's
    background                    False: no thread; call `poll`, or embed `fileno`
    clock                         seconds as a float, monotonic
    spin                          seconds, at most 0.001, to look again and again before a wait
                                  sleeps: a third off the round trip where a core is free for it,
                                  and that core's time gone
    tap                           called with (received, octets) for all that crosses, under TLS
                                  decrypted

    Raises UsageError for arguments that cannot be, or do not go together, ConnectError where the
    system has no descriptor left.  All methods may be called from any thread.  Use it as a context
    manager, or close it.
    """

    def __init__(
        self,
        *,
        health: HealthPolicy | None = None,
        http2: bool | None = None,
        connect_timeout: float | None = None,
        timeout: Timeout | float | None = DEFAULT_TIMEOUT,
        connections_per_origin_max: int = 1,
        queued_max: int = QUEUED_MAX,
        idle_close: float = IDLE_CLOSE_S,
        content_octets_max: int = CONTENT_OCTETS_MAX,
        limits: Limits = DEFAULT_LIMITS,
        verify: bool = True,
        cafile: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        socket_options: SocketOptions | None = None,
        trust_env: bool = True,
        on_event: Callable[[Value], object] | None = None,
        background: bool = True,
        clock: Callable[[], float] = monotonic,
        spin: float = 0.0,
        tap: Tap | None = None,
    ) -> None:
        environ: Mapping[str, str] = os.environ if trust_env else {}
        seen = read_environment(environ)
        self.health = _policy(health, environ)
        if connect_timeout is not None:
            self.health = self.health.but(connect_timeout=connect_timeout)
        self.socket_options = socket_options or SocketOptions()
        check_user_timeout(self.socket_options, self.health)
        if content_octets_max < 0:
            raise UsageError(f"content_octets_max of {content_octets_max!r}, want 0 or more")
        self._environ = environ
        self._content_max = content_octets_max
        self._timeout = _timeout(timeout)
        if http2 is None and not seen.http2:
            http2 = False
        self._tls = {
            "verify": verify,
            "cafile": cafile,
            "certfile": certfile,
            "keyfile": keyfile,
            "ssl_context": ssl_context,
        }
        self._alpn = _protocols(http2)
        self._context: ssl.SSLContext | None = None
        if cafile or certfile or keyfile or ssl_context:
            self._tls_context()  # what cannot be read is to be told now
        self._tap = tap
        self._on_event = on_event
        self._background = background
        self._pool = Pool(
            self.health,
            _uniform(),
            connections_per_origin_max=connections_per_origin_max,
            queued_max=queued_max,
            idle_close=idle_close,
            limits=limits,
            tells_probes=on_event is not None,
        )
        self._engine = Engine(
            _loop(clock, spin),
            self._pool,
            _weakly(self, "_dial"),
            background=background,
            on_notice=None if on_event is None else _telling(self),
        )
        for text in seen.warnings:
            _log_warning(text)
            if on_event is not None:
                with self._engine.lock:
                    self._engine.queue(_calling(on_event, EnvironmentWarning(text)))

    # -- requests --------------------------------------------------------------------------

    def request(self, method: str, url: str, **options: Unpack[RequestOptions]) -> Response:
        """Send a request and return its response, its content read whole.

        url          https:// (h2 by ALPN), http:// (prior knowledge) or unix:/run/app.sock:/path
        headers      a mapping or pairs; names are lowered, and Host takes the place of the URL's
        body         octets, a file open for reading octets (from where it stands; left open), or
                     an iterable of octets; its pieces are taken as the server takes them, by the
                     thread that waits for this response, and content-length is added where known
        trailers     (name, value) pairs, read when the body has ended: its iterator may fill the
                     list it gave
        timeout      a `Timeout`, or seconds for the whole exchange; None: no limit
        idempotent   True: a lost PUT or DELETE may be repeated, as a GET is
        retries      how often a request that failed may be repeated, where that is safe; 7 at most

        Raises UsageError and LocalProtocolError before anything is sent; ConnectError (with
        TLSError and ConnectTimeout), PoolTimeout, WriteTimeout, ReadTimeout, StreamReset,
        ConnectionLost, RemoteProtocolError, ResponseTooLarge; what reading the body raises comes
        through.  The stream is reset where the exchange was not complete.
        """
        origin, path = self._origin(url)
        return _read_whole(self._start(origin, method, path, None, **options))

    def get(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """`request` with GET."""
        return self.request("GET", url, **options)

    def head(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """`request` with HEAD."""
        return self.request("HEAD", url, **options)

    def options(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """`request` with OPTIONS."""
        return self.request("OPTIONS", url, **options)

    def post(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """`request` with POST."""
        return self.request("POST", url, **options)

    def put(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """`request` with PUT."""
        return self.request("PUT", url, **options)

    def patch(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """`request` with PATCH."""
        return self.request("PATCH", url, **options)

    def delete(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """`request` with DELETE."""
        return self.request("DELETE", url, **options)

    def stream(self, method: str, url: str, **options: Unpack[RequestOptions]) -> Response:
        """As `request`, but return as soon as the header section has come.

        Without a timeout of one's own the content may take any time, as that of a watch does:
        the connection's health is what sees to its end.
        """
        origin, path = self._origin(url)
        return _unhurried(self._start(origin, method, path, None, **options), options)

    def submit(self, method: str, url: str, **options: Unpack[RequestOptions]) -> Future[Response]:
        """As `request`, but return a future at once.  Cancelling it cancels the request.

        body   octets or a seekable file, which whoever drives reads
        """
        origin, path = self._origin(url)
        body = options.get("body", b"")
        if not isinstance(body, (bytes, bytearray, memoryview)) and not hasattr(body, "read"):
            raise UsageError("submit takes a body of octets or a seekable file")
        exchange = self._exchange(_Submitted, origin, method, path, None, **options)
        assert isinstance(exchange, _Submitted)
        if exchange.source is not None and not exchange.source.is_rewindable:
            raise UsageError("submit takes no file that cannot seek")
        self._begin(exchange)
        exchange.future.add_done_callback(exchange.cancelled)
        return exchange.future

    # -- connections -----------------------------------------------------------------------

    @property
    def connections(self) -> list[PooledConnection]:
        """Every connection, those still being dialled included."""
        with self._engine.lock:
            return [self._handle(member) for member in self._pool.members]

    def connect(self, url: str) -> PooledConnection:
        """A connection that takes requests to a URL's origin, dialled where there is none.

        Raises ConnectError, TLSError or ConnectTimeout when it does not come about.
        """
        origin, _ = self._origin(url)
        engine = self._engine
        with engine.lock:
            engine.check_open()
            engine.start()
            member = self._pool.reach(origin, engine.loop.clock())
            engine.settle()
        engine.wait(lambda: member.is_up or member.error is not None, member)
        if not member.is_up:
            assert member.error is not None
            raise self._told(member.error)
        return self._handle(member)

    def ping_all(self, timeout: float = PING_TIMEOUT_S) -> list[PingResult]:
        """Send a PING on every connection at once and wait for all of them.

        Never raises for a sick connection: its result has the error.
        """
        check_timeout(timeout)
        engine = self._engine
        with engine.lock:
            engine.check_open()
            pings = self._pool.ping_all(engine.loop.clock(), timeout)
            engine.settle()
        for ping in pings:
            engine.wait(lambda ping=ping: ping.over, ping)  # type: ignore[misc]
        return [self._result(ping) for ping in pings]

    def forget_origin(self, url: str) -> None:
        """What a URL's origin has said of too many PINGs is forgotten."""
        origin, _ = parse_url(url)
        with self._engine.lock:
            self._engine.check_open()
            self._pool.forget_origin(origin)
            self._engine.settle()

    def stats(self) -> dict[str, Any]:
        """Counters since the pool began, ready for JSON."""
        with self._engine.lock:
            stats = self._pool.stats()
            stats["events_dropped"] = self._engine.dropped_events
            return stats

    # -- driving and ending ----------------------------------------------------------------

    def poll(self, timeout: float = 0.0) -> None:
        """Wait until something happens, `timeout` seconds at most, and see to it.

        For a pool without a thread: checks are made, peers answered and futures and callbacks
        called only here and in calls that wait.
        """
        if not timeout >= 0:
            raise UsageError(f"timeout of {timeout!r}, want seconds, 0 or more")
        engine = self._engine
        with engine.lock:
            engine.check_open()
        engine.turn(engine.loop.clock() + timeout)

    def fileno(self) -> int:
        """A descriptor that is readable when `poll` has something to do; see `next_deadline`.

        Raises UsageError where a thread in the background would be there before, OSError where
        the system's selector has no descriptor.
        """
        if self._background:
            raise UsageError("fileno() is for a pool made with background=False")
        with self._engine.lock:
            self._engine.check_open()
            return self._engine.embed()

    def next_deadline(self) -> float | None:
        """When to call `poll` if the descriptor is not readable before; None: no need to.

        In seconds on the pool's `clock`.
        """
        self._engine.check_open()
        return self._engine.next_deadline()

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds as `next_deadline` and events count them."""
        return self._engine.loop.clock

    @property
    def is_closed(self) -> bool:
        return self._pool.closed

    def close(self) -> None:
        """End every request and every connection, by a GOAWAY; a second close does nothing.

        Lasts as long as the peers need to read that and to close too, 0.25 s at most.
        """
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        engine = getattr(self, "_engine", None)
        if engine is not None and not engine.is_over:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)
            engine.abandon()

    def __repr__(self) -> str:
        return f"<ConnectionPool of {len(self._pool.members)} connections>"

    # -- inside ----------------------------------------------------------------------------

    def _origin(self, url: str) -> tuple[Origin, str]:
        origin, path = parse_url(url)
        if not self._pool.knows(origin):
            check_proxy(origin, self._environ)
        return origin, path

    def _exchange(
        self,
        kind: type[_Exchange],
        origin: Origin,
        method: str,
        path: str,
        pinned: Member | None,
        *,
        headers: HeaderPairs = (),
        body: Body = b"",
        trailers: Pairs = (),
        timeout: Timeout | float | None = _AS_THE_POOL,
        idempotent: bool = False,
        retries: int = RETRIES_MAX,
    ) -> _Exchange:
        limits = self._timeout if timeout is _AS_THE_POOL else _timeout(timeout)
        if not isinstance(retries, int) or retries < 0:
            raise UsageError(f"retries of {retries!r}, want a whole number, 0 or more")
        body = check_body(body)
        length = len(body) if isinstance(body, bytes) else octets_left(body)
        section = self._section(origin, method, path, headers, length)
        whole = isinstance(body, bytes) and not trailers
        source = None if whole else Source([body] if isinstance(body, bytes) else body)
        total = limits.total
        call = Call(
            origin,
            section,
            body if whole else None,  # type: ignore[arg-type]
            rewindable=source is not None and source.is_rewindable,
            idempotent=idempotent,
            deadline=None if total is None else self._engine.loop.clock() + total,
            limits=limits,
            pinned=pinned,
            retries_max=retries,
        )
        return kind(self, call, source, trailers)

    def _section(
        self, origin: Origin, method: str, path: str, headers: HeaderPairs, length: int | None
    ) -> Section:
        """A request's field section, the one that was sent before where it is the same."""
        pairs = tuple(headers.items() if hasattr(headers, "items") else headers)
        asked = self._pool.asked(origin)
        key = method, path, pairs, length
        try:
            known: Section | None = asked.get(key)
        except TypeError:  # pairs that are lists
            return Section(request_fields(origin, method, path, pairs, length))
        if known is None:
            known = Section(request_fields(origin, method, path, pairs, length))
            with self._engine.lock:
                asked.keep(key, known, 2 * known.weight)
        return known

    def _start(
        self,
        origin: Origin,
        method: str,
        path: str,
        pinned: Member | None,
        **options: Unpack[RequestOptions],
    ) -> Response:
        """Send a request and wait for its response's header section."""
        exchange = self._exchange(_Exchange, origin, method, path, pinned, **options)
        call = exchange.call
        self._begin(exchange)
        try:
            exchange.wait(lambda: call.status)
            with self._engine.lock:
                if call.status:
                    return Response(exchange)
            # Another thread has read on: it was malformed, and nothing of it is to be seen.
            assert call.error is not None
            raise self._told(call.error)
        except BaseException:
            self._cancel(call)
            raise

    def _begin(self, exchange: _Exchange) -> None:
        engine = self._engine
        engine.look()
        with engine.lock:
            engine.check_open()
            engine.start()
            if exchange.source is not None or isinstance(exchange, _Submitted):
                engine.watchers[exchange.call] = exchange
                if exchange.source is not None and isinstance(exchange, _Submitted):
                    engine.fed[exchange] = None
            try:
                self._pool.request(exchange.call, engine.loop.clock())
                engine.settle()
            except BaseException:
                if exchange.call.number:  # it was taken, and nobody waits for it any more
                    self._pool.cancel(exchange.call, engine.loop.clock())
                engine.watchers.pop(exchange.call, None)
                engine.fed.pop(exchange, None)
                raise

    def _cancel(self, call: Call, error: H2liteError | None = None) -> None:
        engine = self._engine
        if engine.postpones(lambda: self._cancel(call, error)):
            return
        with engine.lock:
            if engine.is_over:
                return
            if not call.over or call.chunks:
                self._pool.cancel(call, engine.loop.clock(), error)
                engine.settle()

    def _dial(self, loop: Loop, origin: Origin) -> Dial:
        if origin.scheme == "https":
            context = self._tls_context()
            return Dial(
                loop, origin, context, self._tap, alpn=self._alpn, options=self.socket_options
            )
        protocol = "h2c" if "h2" in self._alpn else "http/1.1"
        return Dial(
            loop, origin, None, self._tap, protocol=protocol, options=self.socket_options
        )

    def _tls_context(self) -> ssl.SSLContext:
        if self._context is None:
            context = client_tls("https", alpn=self._alpn, **self._tls)  # type: ignore[arg-type]
            assert context is not None
            self._context = context
        return self._context

    def _handle(self, member: Member) -> PooledConnection:
        return PooledConnection(self, member)

    def _result(self, ping: Ping) -> PingResult:
        member = ping.member
        error = None if ping.error is None else self._told(ping.error)
        state = STATE_NAMES[member.health.state]
        handle = self._handle(member)
        return PingResult(handle, ping.rtt_s, ping.queued_s, ping.rescued_by, state, error)

    def _told(self, error: H2liteError) -> H2liteError:
        """An error as a user gets it: one of his own, with the connection he knows."""
        error = error.again()
        if error.connection is not None:
            error.connection = self._handle(error.connection)
        if isinstance(error.__cause__, H2liteError):
            error.__cause__ = self._told(error.__cause__)
        return error

    def _event(self, notice: Value) -> Callable[[], object]:
        """What to call for a notice of the pool's; under the lock."""
        assert self._on_event is not None
        now = self._engine.loop.clock()
        event: Value
        if isinstance(notice, StateChanged):
            before, after = STATE_NAMES[notice.before], STATE_NAMES[notice.after]
            event = ConnectionChanged(
                self._handle(notice.member), before, after, notice.cause, now
            )
        elif isinstance(notice, Moved):
            method = notice.call.method.decode("latin-1")
            event = RequestMoved(self._handle(notice.member), method, now)
        elif isinstance(notice, Retried):
            method = notice.call.method.decode("latin-1")
            event = RequestRetried(method, notice.delay_s, self._told(notice.error), now)
        else:
            assert isinstance(notice, Calmed)
            event = OriginCalmed(notice.origin, notice.policy.found_within_s, now)
        return _calling(self._on_event, event)


def connect(
    url: str,
    *,
    timeout: float = CONNECT_TIMEOUT_S,
    health: HealthPolicy | None = None,
    verify: bool = True,
    cafile: str | None = None,
    certfile: str | None = None,
    keyfile: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    socket_options: SocketOptions | None = None,
    limits: Limits = DEFAULT_LIMITS,
    trust_env: bool = True,
    on_event: Callable[[Value], object] | None = None,
    background: bool = True,
    clock: Callable[[], float] = monotonic,
    spin: float = 0.0,
    tap: Tap | None = None,
) -> PooledConnection:
    """Connect to the origin of a URL by HTTP/2 and wait for the peer's SETTINGS.

    url           https:// (h2 by ALPN), http:// or unix:/run/app.sock (prior knowledge); what
                  follows the origin is not looked at
    timeout       seconds for name, TCP, TLS and SETTINGS together
    verify        False: accept any certificate
    cafile        PEM file of certificates to trust instead of the system's
    certfile      PEM file of a certificate to show to a server that asks for one
    keyfile       PEM file of its private key, not encrypted; None: that is in certfile
    ssl_context   a context of your own instead of these four; it is used as it is, but offers
                  h2 alone by ALPN from then on
    health, socket_options, limits, trust_env, on_event, background, clock, spin, tap   as
                  `ConnectionPool` takes them

    verify and cafile say nothing without TLS; certfile, keyfile and ssl_context are refused then.
    With SSLKEYLOGFILE in the environment, the secrets of TLS are appended to that file, for
    Wireshark and the like; a context of your own does as it was made.

    The connection is a pool's only one: it is checked as every pool's, and not replaced when it
    ends.  Raises UsageError for a bad URL, for files that cannot be read and arguments that do
    not go together, ConnectError when no address answers, TLSError when TLS fails or the peer
    does not speak h2, ConnectTimeout; nothing is left open then.
    """
    origin, _ = parse_url(url)
    check_timeout(timeout)
    if origin.scheme != "https" and (certfile or keyfile or ssl_context):
        raise UsageError("certfile, keyfile and ssl_context are for https URLs")
    pool = ConnectionPool(
        health=health,
        http2=True,
        connect_timeout=timeout,
        idle_close=0.0,
        verify=verify,
        cafile=cafile if origin.scheme == "https" else None,
        certfile=certfile,
        keyfile=keyfile,
        ssl_context=ssl_context,
        socket_options=socket_options,
        limits=limits,
        trust_env=trust_env,
        on_event=on_event,
        background=background,
        clock=clock,
        spin=spin,
        tap=tap,
    )
    try:
        connection = pool.connect(url)
    except BaseException:
        pool.close()
        raise
    connection._owns_pool = True
    return connection


def _read_whole(response: Response) -> Response:
    try:
        response.read()
    except BaseException:
        response.close()
        raise
    return response


def _unhurried(response: Response, options: RequestOptions) -> Response:
    """Where no timeout was asked for, its content may take any time, as a watch's does."""
    if "timeout" not in options:
        call = response._exchange.call
        call.limits = Timeout(write=call.limits.write)
        call.deadline = None
    return response


def _too_large(limit: int) -> ResponseTooLarge:
    return ResponseTooLarge(f"the response has more than {limit} octets of content: stream it")


def _timeout(timeout: Timeout | float | None) -> Timeout:
    """One number is the whole exchange's; None: no limit."""
    if isinstance(timeout, Timeout):
        return timeout
    if timeout is not None:
        check_timeout(timeout)
    return Timeout(total=timeout)


def _policy(health: HealthPolicy | None, environ: Mapping[str, str]) -> HealthPolicy:
    """What the program asks for, else what the environment does, else the default."""
    if health is not None:
        if not isinstance(health, HealthPolicy):
            raise UsageError(f"health of {health!r}, want a HealthPolicy")
        return health
    seen = read_environment(environ)
    changes = {
        name: value
        for name in ("ping_after_idle", "ping_timeout")
        if (value := getattr(seen, name)) is not None
    }
    return HealthPolicy().but(**changes)


def _protocols(http2: bool | None) -> list[str]:
    """What to offer by ALPN, the first liked best; None: either."""
    if http2:
        return ["h2"]
    from .http1 import check_http1

    try:
        check_http1()
    except UsageError:
        if http2 is None:
            return ["h2"]
        raise
    return ["http/1.1"] if http2 is False else ["h2", "http/1.1"]


def _loop(clock: Callable[[], float], spin: float) -> Loop:
    if not 0 <= spin <= SPIN_S_MAX:
        raise UsageError(f"spin of {spin!r}, want seconds, 0 to {SPIN_S_MAX:g}")
    try:
        return Loop(clock, spin=spin)
    except OSError as error:
        raise ConnectError(f"cannot watch connections: {error.strerror or error}") from error


def _uniform() -> Callable[[], float]:
    """Each pool's own: the clients of one server that fork or start together draw apart."""
    from random import SystemRandom

    return SystemRandom().random


def _weakly(pool: ConnectionPool, name: str) -> Callable[..., Any]:
    """A method of a pool that what calls it does not keep alive."""
    reference = weakref.ref(pool)

    def call(*arguments: Any) -> Any:
        alive = reference()
        if alive is None:
            raise UsageError("the pool was dropped without being closed")
        return getattr(alive, name)(*arguments)

    return call


def _telling(pool: ConnectionPool) -> Callable[[Value], Callable[[], object] | None]:
    """What its callback is told; nothing once nobody holds the pool any more."""
    reference = weakref.ref(pool)

    def tell(notice: Value) -> Callable[[], object] | None:
        alive = reference()
        return None if alive is None else alive._event(notice)

    return tell


def _calling(function: Callable[[Value], object], event: Value) -> Callable[[], object]:
    return lambda: function(event)


def _log_warning(text: str) -> None:
    import logging

    logging.getLogger("h2lite").warning(text)
