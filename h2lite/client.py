"""The blocking client: one connection a user holds, pings and sends requests on.

The calling thread drives the loop itself until its answer is there; calls from several threads
take turns.  No redirects, cookies, proxies or content decoding: those belong to the client above.
"""

from __future__ import annotations

import math
import threading
from collections import deque

from . import events as ev
from .body import BODY_QUEUED_OCTETS, next_piece, octets_left
from .connection import Connection
from .dial import Dial, DialFailed, Dialled
from .errors import (
    ConnectionLost,
    ConnectTimeout,
    ErrorCode,
    H2liteError,
    PingTimeout,
    ReadTimeout,
    RemoteProtocolError,
    StreamReset,
    TLSError,
    UsageError,
    error_name,
)
from .fields import octet_pairs, text_pairs
from .loop import Link, Loop, monotonic
from .origin import parse_url
from .stream import CLOSED
from .transport import address_text, client_tls
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType
    from typing import Any

    from typing_extensions import Self

    from .body import Body
    from .events import Fields
    from .fields import Pairs
    from .origin import Origin
    from .stream import Stream
    from .transport import Tap, Transport

    HeaderPairs = Mapping[str, str] | Pairs

CONNECT_TIMEOUT_S = 10.0  # name, TCP, TLS and the peer's SETTINGS together
PING_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 30.0


class PingResult(Value):
    """rtt: seconds there and back; queued_for: seconds before the PING could leave."""

    __slots__ = ("rtt", "queued_for")

    def __init__(self, rtt: float, queued_for: float) -> None:
        self.rtt = rtt
        self.queued_for = queued_for


class Headers:
    """A response's fields as text, in order; names compare without regard to case."""

    __slots__ = ("_pairs",)

    def __init__(self, fields: Fields) -> None:
        self._pairs = text_pairs(fields)

    def get(self, name: str, default: str | None = None) -> str | None:
        """The values of a field, joined by ", "; `default` when it is absent."""
        values = self.get_all(name)
        return ", ".join(values) if values else default

    def get_all(self, name: str) -> list[str]:
        """Every value of a field, line by line."""
        lowered = name.lower()
        return [value for key, value in self._pairs if key == lowered]

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: str) -> bool:
        return bool(self.get_all(name))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __repr__(self) -> str:
        return f"Headers({self._pairs!r})"


class _Call:
    """One request under way: what is still to be sent, what came for it, and how it ended.

    body       what the rest of the request's content comes from; None: all of it is queued
    trailers   what follows the request's content
    interim    the 1xx responses that came before the final one
    chunks     the response's content that was not read yet
    ended      the response is complete
    """

    __slots__ = (
        "stream",
        "deadline",
        "body",
        "trailers",
        "interim",
        "status",
        "fields",
        "chunks",
        "response_trailers",
        "ended",
        "fault",
    )

    def __init__(
        self, stream: Stream, deadline: float | None, body: object, trailers: Pairs
    ) -> None:
        self.stream = stream
        self.deadline = deadline
        self.body = body
        self.trailers = trailers
        self.interim: list[tuple[int, Headers]] = []
        self.status = 0
        self.fields: Fields = []
        self.chunks: deque[bytes] = deque()
        self.response_trailers: Fields = []
        self.ended = False
        self.fault: H2liteError | None = None

    @property
    def wants_piece(self) -> bool:
        """The request's content runs low: its body is to be asked for more."""
        return self.body is not None and self.stream.queued_octets < BODY_QUEUED_OCTETS


class Response:
    """A response whose header section has come; its content is read piece by piece.

    status         the final status code
    headers        `Headers`
    trailers       `Headers`, complete once the content has been read
    interim        (status, `Headers`) of each 1xx response that came before
    http_version   "HTTP/2"

    Use it as a context manager, read it to its end, or close it: an unread response keeps its
    stream open.  Where the server answered before it had the whole request, reading the response
    also sends the rest of that.
    """

    http_version = "HTTP/2"

    def __init__(self, connection: PooledConnection, call: _Call) -> None:
        self._connection = connection
        self._call = call
        self.status = call.status
        self.headers = Headers(call.fields)
        self.interim = tuple(call.interim)

    @property
    def trailers(self) -> Headers:
        return Headers(self._call.response_trailers)

    def iter_bytes(self) -> Iterator[bytes]:
        """The content as it comes.

        Raises ReadTimeout, StreamReset or ConnectionLost when it does not come to its end; what
        was yielded before is then incomplete.
        """
        while True:
            chunk = self._connection._next_chunk(self._call)
            if chunk is None:
                return
            yield chunk

    def read(self) -> bytes:
        """All of the content that was not read before.  Errors as `iter_bytes`."""
        return b"".join(self.iter_bytes())

    def close(self) -> None:
        """Drop what has not been read; an unfinished stream is reset."""
        self._connection._abandon(self._call)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class PooledConnection:
    """One HTTP/2 connection, live from the moment you have it.  Made by `connect`.

    origin        the `Origin` it serves
    address       the peer's address and port as text
    protocol      "h2" over TLS, "h2c" in cleartext
    tls_version   "TLSv1.3" and the like, None in cleartext

    Nobody answers the peer's PINGs while no call is under way: where it is left alone for long,
    call `poll`.
    """

    def __init__(self, loop: Loop, origin: Origin, transport: Transport) -> None:
        self.origin = origin
        self.address = address_text(transport.address)
        self.protocol = transport.protocol
        self.tls_version = transport.tls_version
        self._loop = loop
        self._connection = Connection(client=True)
        self._link = Link(loop, transport, self._connection)
        self._lock = threading.RLock()
        self._calls: dict[int, _Call] = {}
        self._unsent: deque[_Call] = deque()  # in the order their streams will open
        self._answers: dict[bytes, PingResult] = {}
        self._ping_count = 0
        self._dismissal: ConnectionLost | None = None  # the peer's GOAWAY: no new requests
        self._fault: H2liteError | None = None  # why the connection is of no more use

    # -- public ----------------------------------------------------------------------------

    def ping(self, timeout: float = PING_TIMEOUT_S) -> PingResult:
        """Send a PING and wait for its ack.

        timeout   seconds
        Raises PingTimeout (the connection is left as it is), ConnectionLost when it ended.
        Source: RFC 9113 §6.7.
        """
        with self._lock:
            self._check_alive()
            _check_timeout(timeout)
            self._ping_count += 1
            opaque_data = self._ping_count.to_bytes(8, "big")
            now = self._loop.clock()
            self._connection.ping(opaque_data, now)
            self._loop.touch(self._link)
            answers = self._answers
            try:
                answered = self._drive(
                    lambda: opaque_data in answers or self._fault is not None, now + timeout
                )
            finally:
                self._connection.forget_ping(opaque_data)
            result = answers.pop(opaque_data, None)
            if result is not None:
                return result
            if not answered:
                raise PingTimeout(f"{self} did not answer a PING within {timeout:.3g} s")
            raise self._lost()

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: HeaderPairs = (),
        body: Body = b"",
        trailers: Pairs = (),
        timeout: float | None = REQUEST_TIMEOUT_S,
    ) -> Response:
        """Send a request and wait for its response's header section.

        path       the request target, query included
        headers    a mapping or pairs; names are lowered, and Host takes the place of the origin's
        body       octets, a file open for reading octets (from where it stands; left open), or
                   an iterable of octets; its pieces are taken as the server takes them, by the
                   thread that waits for this response, and content-length is added where known
        trailers   (name, value) pairs, read when the body has ended: its iterator may fill the
                   list it gave
        timeout    seconds for the whole exchange, reading the content included; None: for ever

        Raises LocalProtocolError for what RFC 9113 forbids to send (nothing is sent then),
        ReadTimeout, StreamReset, ConnectionLost, RemoteProtocolError; what reading the body
        raises comes through.  The stream is reset where the exchange was not complete.
        """
        if timeout is not None:
            _check_timeout(timeout)
        body = _checked(body)
        length = len(body) if isinstance(body, bytes) else octets_left(body)
        fields = _request_fields(self.origin, method, path, headers, length)
        with self._lock:
            self._check_alive()
            if self._dismissal is not None:
                raise self._dismissal.again()
            call = self._begin(fields, body, trailers, timeout)
        self._wait(call, lambda: bool(call.status))
        return Response(self, call)

    def poll(self, timeout: float) -> None:
        """Serve the connection for `timeout` seconds: the peer's PINGs and SETTINGS are answered.

        Raises ConnectionLost or RemoteProtocolError as soon as the connection has ended.
        """
        if math.isnan(timeout):  # no clock ever reaches it
            raise UsageError(f"timeout of {timeout!r}, want seconds")
        with self._lock:
            self._check_alive()
            self._drive(lambda: self._fault is not None, self._loop.clock() + timeout)
            self._check_alive()

    def close(self) -> None:
        """Say GOAWAY and close; a second close does nothing.

        Takes as long as the peer needs to read that and to close too, 0.25 s at most.
        """
        with self._lock:
            if self._fault is None:
                self._fail(UsageError(f"{self} is closed"))
                # RFC 9113 §6.8 [goaway-before-close]
                self._connection.goaway()
                self._linger()
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __str__(self) -> str:
        origin = str(self.origin)
        return origin if origin == self.address else f"{origin} ({self.address})"

    # -- requests --------------------------------------------------------------------------

    def _begin(self, fields: Fields, body: Body, trailers: Pairs, timeout: float | None) -> _Call:
        """Queue a request and, where it is there whole, its content."""
        deadline = None if timeout is None else self._loop.clock() + timeout
        stream = self._connection.send_request(fields, end_stream=body == b"" and not trailers)
        if isinstance(body, bytes):
            call = _Call(stream, deadline, None, trailers)
            try:
                self._send_last(call, body)
            except BaseException:
                self._connection.reset_stream(stream)  # it has not left: withdrawn untraced
                raise
        else:
            call = _Call(stream, deadline, body if hasattr(body, "read") else iter(body), trailers)
        self._unsent.append(call)
        self._loop.touch(self._link)
        return call

    def _send_last(self, call: _Call, octets: bytes) -> None:
        """Queue the last of a request's content, and the trailers behind it."""
        trailers = octet_pairs(call.trailers)
        call.body = None
        if octets or not call.stream.end_queued:
            self._connection.send_data(call.stream, octets, end_stream=not trailers)
        if trailers:
            self._connection.send_trailers(call.stream, trailers)

    def _wait(self, call: _Call, done: Callable[[], bool]) -> None:
        """Drive until `done`, feeding the request meanwhile; or raise what ended the call."""
        while True:
            with self._lock:
                in_time = self._drive(
                    lambda: done() or call.fault is not None or call.wants_piece, call.deadline
                )
                if done():
                    return
                if call.fault is not None:
                    raise call.fault.again()
                # A body that always has a piece, or an empty one, never lets the drive be late.
                if not in_time or self._is_over(call.deadline):
                    late = ReadTimeout(f"{self} did not finish the response in time")
                    self._cancel(call, late)
                    raise late.again()
            self._feed(call)

    def _feed(self, call: _Call) -> None:
        """Send the next piece of a request's content.  The body's own code runs unlocked."""
        try:
            piece = next_piece(call.body)
            with self._lock:
                if call.fault is None and call.stream.state != CLOSED:
                    if piece is None:
                        self._send_last(call, b"")
                    else:
                        self._connection.send_data(call.stream, piece)
                    self._loop.touch(self._link)
        except BaseException:
            with self._lock:
                self._cancel(call, UsageError("the request's body failed"))
            raise
        with self._lock:
            self._turn(self._loop.clock())

    def _cancel(self, call: _Call, fault: H2liteError) -> None:
        """Give a call up: its stream is reset, what has come of it is dropped."""
        if call.fault is None:
            call.fault = fault
        call.body = None
        self._drop_chunks(call)
        self._calls.pop(call.stream.stream_id, None)
        if self._fault is None:
            self._connection.reset_stream(call.stream, ErrorCode.CANCEL)
            self._loop.touch(self._link)
            self._loop.flush()

    def _next_chunk(self, call: _Call) -> bytes | None:
        while True:
            with self._lock:
                if call.chunks:
                    chunk = call.chunks.popleft()
                    self._connection.data_consumed(call.stream.stream_id, len(chunk))
                    self._loop.touch(self._link)
                    return chunk
                if call.ended:
                    self._abandon(call)
                    return None
                if call.fault is not None:
                    raise call.fault.again()
            self._wait(call, lambda: bool(call.chunks or call.ended))

    def _abandon(self, call: _Call) -> None:
        """Nobody reads the response any more, or it was read to its end."""
        with self._lock:
            unfinished = not call.ended or call.stream.state != CLOSED
            if unfinished and call.fault is None:
                # A complete response needs no more of the request: RFC 9113 §8.1.
                self._cancel(call, UsageError("the response was closed"))
            elif call.chunks:
                self._drop_chunks(call)
                self._loop.touch(self._link)

    def _drop_chunks(self, call: _Call) -> None:
        while call.chunks:
            self._connection.data_consumed(call.stream.stream_id, len(call.chunks.popleft()))

    # -- driving ---------------------------------------------------------------------------

    def _check_alive(self) -> None:
        if self._fault is not None:
            raise self._lost()

    def _lost(self) -> H2liteError:
        assert self._fault is not None
        return self._fault.again()

    def _drive(self, done: Callable[[], bool], deadline: float | None) -> bool:
        """Turn the loop until `done`; False when `deadline` passed first.

        The last turn begins after the deadline: what had come by then is read before judging.
        """
        late = False
        while True:
            self._flush()
            if done():
                return True
            if late:
                return False
            late = self._is_over(deadline)
            self._turn(deadline)

    def _is_over(self, deadline: float | None) -> bool:
        return deadline is not None and self._loop.clock() >= deadline

    def _flush(self) -> None:
        try:
            self._loop.flush()
        except BaseException:
            self._on_interrupt()
            raise
        self._note_sent()

    def _turn(self, deadline: float | None) -> None:
        try:
            for _, event in self._loop.turn(deadline):
                self._on_event(event)
            if self._fault is not None and not self._link.ended:
                self._linger()
        except BaseException:
            self._on_interrupt()
            raise

    def _linger(self) -> None:
        """A GOAWAY of ours is queued: let the peer read it before the socket goes."""
        self._link.finish()
        try:
            while not self._link.ended:
                self._loop.flush()
                self._loop.turn()
        finally:
            self._link.end("closed here")

    def _on_interrupt(self) -> None:
        # Octets may have been read and not understood, or taken and not sent: what the two sides
        # know of each other no longer agrees.
        self._end(ConnectionLost(f"{self}: a call was interrupted"))

    def _note_sent(self) -> None:
        """Requests that have left now have a stream identifier: file them under it."""
        while self._unsent and (self._unsent[0].stream.stream_id or self._unsent[0].fault):
            call = self._unsent.popleft()
            if call.fault is None:
                self._calls[call.stream.stream_id] = call

    def _on_event(self, event: Value) -> None:
        handler = _ON_EVENT.get(type(event))
        if handler is not None:
            handler(self, event)

    def _on_ping_acked(self, event: ev.PingAcked) -> None:
        self._answers[event.opaque_data] = PingResult(event.rtt_s, event.queued_s)

    def _on_interim(self, event: ev.InformationalReceived) -> None:
        call = self._calls.get(event.stream_id)
        if call is not None:
            call.interim.append((event.status, Headers(event.fields)))

    def _on_response(self, event: ev.ResponseReceived) -> None:
        call = self._calls.get(event.stream_id)
        if call is not None:
            call.status = event.status
            call.fields = event.fields
            if event.end_stream:
                self._finished(call)

    def _on_data(self, event: ev.DataReceived) -> None:
        call = self._calls.get(event.stream_id)
        if call is None:
            self._connection.data_consumed(event.stream_id, len(event.data))
            self._loop.touch(self._link)
            return
        if event.data:
            call.chunks.append(bytes(event.data))
        if event.end_stream:
            self._finished(call)

    def _on_trailers(self, event: ev.TrailersReceived) -> None:
        call = self._calls.get(event.stream_id)
        if call is not None:
            call.response_trailers = event.fields
            self._finished(call)

    def _finished(self, call: _Call) -> None:
        call.ended = True
        self._calls.pop(call.stream.stream_id, None)

    def _on_reset(self, event: ev.StreamReset) -> None:
        call = self._calls.pop(event.stream_id, None)
        if call is not None:
            who = "the peer" if event.by_peer else "h2lite"
            reason = f": {event.reason}" if event.reason else ""
            call.fault = StreamReset(
                f"{who} reset the stream, {error_name(event.error_code)}{reason}",
                event.error_code,
            )
            if not event.by_peer:  # a malformed message: nothing of it is the user's to see
                call.status = 0
                self._drop_chunks(call)

    def _on_goaway(self, event: ev.GoAwayReceived) -> None:
        """No new requests; those the peer has accepted run on."""
        said = f" {bytes(event.debug_data)!r}" if event.debug_data else ""
        text = f"{self} said GOAWAY {error_name(event.error_code)}{said}"
        self._dismissal = ConnectionLost(text, event.error_code)
        for call in self._unsent:
            call.fault = self._dismissal
        if event.error_code != ErrorCode.NO_ERROR:
            # RFC 9113 §6.8 [goaway-before-close]
            self._connection.goaway()
            self._fail(self._dismissal)

    def _on_failed(self, event: ev.ConnectionFailed) -> None:
        # The turn goes on to see the GOAWAY off.
        self._fail(
            RemoteProtocolError(
                f"{self} broke HTTP/2, {error_name(event.error_code)}: {event.reason}",
                event.error_code,
            )
        )

    def _on_ended(self, event: ev.ConnectionEnded) -> None:
        how = "closed the connection" if event.reason == "eof" else event.reason.lower()
        self._end(ConnectionLost(f"{self}: {how}"))

    def _end(self, fault: H2liteError) -> None:
        """The connection is of no more use: every call ends with `fault`."""
        self._fail(fault)
        self._link.end("closed here")

    def _fail(self, fault: H2liteError) -> None:
        if self._fault is not None:
            return
        self._fault = fault
        for call in [*self._calls.values(), *self._unsent]:
            if call.fault is None:
                call.fault = fault
        self._calls.clear()
        self._unsent.clear()


_ON_EVENT: dict[type[Value], Callable[[PooledConnection, Any], None]] = {
    ev.PingAcked: PooledConnection._on_ping_acked,
    ev.InformationalReceived: PooledConnection._on_interim,
    ev.ResponseReceived: PooledConnection._on_response,
    ev.DataReceived: PooledConnection._on_data,
    ev.TrailersReceived: PooledConnection._on_trailers,
    ev.StreamReset: PooledConnection._on_reset,
    ev.GoAwayReceived: PooledConnection._on_goaway,
    ev.ConnectionFailed: PooledConnection._on_failed,
    ev.ConnectionEnded: PooledConnection._on_ended,
}


def connect(
    url: str,
    *,
    timeout: float = CONNECT_TIMEOUT_S,
    verify: bool = True,
    cafile: str | None = None,
    certfile: str | None = None,
    keyfile: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    clock: Callable[[], float] = monotonic,
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
    clock         seconds as a float, monotonic
    tap           called with (received, octets) for all that crosses, under TLS decrypted

    verify and cafile say nothing without TLS; certfile, keyfile and ssl_context are refused then.
    With SSLKEYLOGFILE in the environment, the secrets of TLS are appended to that file, for
    Wireshark and the like; a context of your own does as it was made.

    Raises UsageError for a bad URL, for files that cannot be read and arguments that do not go
    together, ConnectError when no address answers, TLSError when TLS fails or the peer does not
    speak h2, ConnectTimeout; nothing is left open then.
    """
    origin, _ = parse_url(url)
    _check_timeout(timeout)
    context = client_tls(
        origin.scheme,
        verify=verify,
        cafile=cafile,
        certfile=certfile,
        keyfile=keyfile,
        ssl_context=ssl_context,
    )
    loop = Loop(clock)
    deadline = clock() + timeout
    try:
        transport = _reach(loop, origin, Dial(loop, origin, context, tap), deadline, timeout)
        connection = PooledConnection(loop, origin, transport)
    except BaseException:
        loop.close()
        raise
    try:
        _await_settings(connection, deadline, timeout)
    except BaseException:
        connection.close()
        raise
    return connection


def _reach(loop: Loop, origin: Origin, dial: Dial, deadline: float, timeout: float) -> Transport:
    """Drive a dial to its end; it is closed when it does not succeed."""
    try:
        events = dial.start()
        late = False
        while not events:
            if late:
                raise ConnectTimeout(f"{origin} not reached in {timeout:.3g} s, {dial.stage}")
            late = loop.clock() >= deadline
            events = [event for _, event in loop.turn(deadline)]
        outcome = events[0]
        if isinstance(outcome, DialFailed):
            raise outcome.error
        assert isinstance(outcome, Dialled)
        return outcome.transport
    except BaseException:
        dial.close()
        raise


def _await_settings(connection: PooledConnection, deadline: float, timeout: float) -> None:
    """A peer that answers in another protocol, or not at all, is no HTTP/2 peer."""
    core = connection._connection
    in_time = connection._drive(
        lambda: core.settings_received or connection._fault is not None, deadline
    )
    if core.settings_received:
        return
    if not in_time:
        raise ConnectTimeout(f"{connection} sent no HTTP/2 SETTINGS within {timeout:.3g} s")
    fault = connection._fault
    raise TLSError(f"HTTP/2 did not begin: {fault}") from fault


def _check_timeout(timeout: float) -> None:
    if not timeout > 0:
        raise UsageError(f"timeout of {timeout!r}, want seconds above 0")


def _checked(body: object) -> Body:
    """A request's body, or UsageError for what can be none."""
    if isinstance(body, bytes):
        return body
    if isinstance(body, (bytearray, memoryview)):
        return bytes(body)  # it may change before it has left
    if isinstance(body, str) or not (hasattr(body, "read") or hasattr(body, "__iter__")):
        text = f"a body of {type(body).__name__}, want octets, a file or an iterable of octets"
        raise UsageError(text)
    return body  # type: ignore[return-value]


def _request_fields(
    origin: Origin, method: str, path: str, headers: HeaderPairs, body_octets: int | None
) -> Fields:
    """The field section of a request, pseudo-header fields first."""
    pairs = [*(headers.items() if hasattr(headers, "items") else headers)]
    # RFC 9113 §8.3.1 [authority-sent]: a Host that the caller gives becomes :authority.
    hosts = [value for name, value in pairs if name.lower() == "host"] or [origin.authority]
    try:
        fields = [
            (b":method", method.encode("ascii")),
            (b":scheme", origin.scheme.encode("ascii")),
            (b":authority", hosts[0].encode("ascii")),
            (b":path", path.encode("ascii")),
            *octet_pairs((name, value) for name, value in pairs if name.lower() != "host"),
        ]
    except UnicodeEncodeError as error:
        raise UsageError(f"not representable in a field: {error}") from None
    if len(hosts) > 1:
        raise UsageError("more than one Host")
    if body_octets and not any(name == b"content-length" for name, _ in fields):
        fields.append((b"content-length", str(body_octets).encode()))
    return fields
