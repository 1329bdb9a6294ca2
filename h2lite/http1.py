"""A client's HTTP/1.1 connection without its socket, for servers that have no HTTP/2.

It shows pool and loop the face of `Connection`: the peer allows one stream at a time, a request
takes its number when it leaves, and what comes is told by the same events.  It never reads a
clock, never blocks, and never lets a peer's fault out as an exception; a caller's mistake raises
UsageError and changes nothing.  The syntax is h11's, which is loaded when a connection is made.
Grounds: RFC 9112; RFC 9110 §7.6.1, §8.6, §10.1.
"""

from __future__ import annotations

import math
from collections import deque

from . import events as ev
from .connection import SEND_OCTETS, check_request
from .errors import ErrorCode, LocalProtocolError, PeerError, UsageError
from .fields import (
    CONNECTION_SPECIFIC,
    Section,
    content_of_response,
    declared_length,
    join_cookies,
    section_size,
)
from .limits import DEFAULT_LIMITS, Limits
from .settings import UNLIMITED, SettingId
from .stream import CLOSED, IDLE, RECV_END, SEND_DATA, SEND_END, SEND_HEADERS, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    import h11

    from .events import Event, Fields
    from .fields import Lines
    from .frames import GoAwayFrame, Octets

REASON_CHARS_MAX = 256  # of a fault: h11 shows the line it means, however long

_STATUS_LINE_START = b"HTTP/1."
# By the first octet of what such a peer says: the length of a SETTINGS frame, a TLS alert, a TLS
# handshake.
_OTHER_PROTOCOLS = {0x00: "HTTP/2", 0x15: "TLS", 0x16: "TLS"}
_METHODS_WITH_CONTENT = frozenset((b"POST", b"PUT", b"PATCH"))


def check_http1() -> None:
    """Raise UsageError where h11 is not installed."""
    try:
        import h11  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError("HTTP/1.1 needs the h11 package: pip install 'h2lite[http1]'") from error


class Http1Connection:
    """One HTTP/1.1 connection, client role.  Raises UsageError where h11 is not installed.

    streams          {stream_id: Stream} of the one request that has left and is not over
    closed           nothing more is accepted or sent
    message_sent     a header section or content has left data_to_send; for the caller to set
                     to False
    peer_settings    what HTTP/2's would have to say: one stream at a time
    goaway_received  None: HTTP/1.1 has no GOAWAY
    """

    client = True
    __slots__ = (
        "limits",
        "streams",
        "closed",
        "message_sent",
        "peer_settings",
        "goaway_received",
        "_h11",
        "_next_stream_id",
        "_openers",
        "_asking",
        "_answering",
        "_leaving",
        "_begun",
        "_unread",
        "_start",
        "_until_close",
    )

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        check_http1()
        import h11

        self.limits = limits
        self.streams: dict[int, Stream] = {}
        self.closed = False
        self.message_sent = False
        # RFC 9112 §9.3.2: pipelining is allowed, but one slow answer would hold up the others.
        self.peer_settings = {SettingId.MAX_CONCURRENT_STREAMS: 1}
        self.goaway_received: GoAwayFrame | None = None
        self._h11 = h11.Connection(h11.CLIENT, limits.field_section_octets)
        self._next_stream_id = 1
        self._openers: deque[tuple[Stream, h11.Request]] = deque()
        self._asking: Stream | None = None  # its request has begun to leave, and is not complete
        self._answering: Stream | None = None  # its response is not complete
        self._leaving = False  # the connection ends with the response that is on its way
        self._begun = b""  # what the transport refused
        self._unread = 0  # octets reported in DataReceived and not yet consumed
        self._start = b""  # of a header section that is coming, as far as it is judged by itself
        self._until_close = False  # the response's content ends with the connection

    # -- octets in -------------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float, work_max: int = UNLIMITED) -> list[Event]:
        """Take what the transport received; return what happened, in order.

        data   octets in any cuts
        Never raises for anything the peer did.  After a ConnectionFailed event nothing more is
        accepted, and nothing is left to send.
        """
        events: list[Event] = []
        if self.closed or not data:  # to h11 no octets at all would be the end of the stream
            return events
        try:
            self._take(data, events)
        except PeerError as error:
            self._close()
            reason = error.message[:REASON_CHARS_MAX]
            events.append(ev.ConnectionFailed(error.error_code, reason))
        return events

    def receive_eof(self) -> list[Event]:
        """The transport has ended: nothing can be sent or received any more.

        Returns what that completes: a response whose content ends with the connection.  It is
        only the peer's own, orderly end of the stream that completes anything.
        Source: RFC 9112 §6.3, §8, §9.8.
        """
        events: list[Event] = []
        stream = self._answering
        if stream is not None and self._until_close:
            events.append(ev.DataReceived(stream.stream_id, b"", True))
        self._close()
        return events

    @property
    def reading_paused(self) -> bool:
        """So much lies unread that the socket should be left alone until some is consumed."""
        return self._unread > self.limits.stream_octets and not self.closed

    def data_consumed(self, stream_id: int, octets: int) -> None:
        """The user has used up content, or drops it; the stream may have ended meanwhile."""
        stream = self.streams.get(stream_id)
        unread = self._unread if stream is None else stream.unread_octets
        if not 0 <= octets <= unread:
            raise UsageError(f"{octets} octets consumed, {unread} are unread")
        self._unread -= octets
        if stream is not None:
            stream.unread_octets -= octets

    half_since = None  # frames do not come in halves here
    backlog = False  # and what came is understood at once

    @property
    def opening_timeout(self) -> float:
        """Nothing is ever due."""
        return math.inf

    def next_deadline(self) -> float | None:
        """None: nothing is ever due."""
        return None

    def handle_deadline(self, now: float) -> list[Event]:
        """Nothing is ever due."""
        return []

    # -- calls -----------------------------------------------------------------------------

    def send_request(self, fields: Fields | Section, end_stream: bool = True) -> Stream:
        """Queue a request; it leaves when the one before it is over, and takes its number then.

        fields       (name, value) pairs of bytes, as HTTP/2 has them: pseudo-header fields first;
                     or a Section of them
        end_stream   True: no content follows
        Content goes as it is where content-length declares it, else in chunks.
        Raises LocalProtocolError for what may not be sent, UsageError when the connection takes
        no new requests.  Source: RFC 9112 §3, §6.
        """
        if not self.takes_requests:
            raise UsageError("the connection takes no new requests")
        section = fields if isinstance(fields, Section) else Section(fields)
        check_request(section)
        stream = Stream(may_send_content=True)
        stream.answers_head = section.method == b"HEAD"
        stream.announce(section.declared, end_stream)
        self._openers.append((stream, _head(section.fields, end_stream)))
        return stream

    def send_data(self, stream: Stream, data: Octets, end_stream: bool = False) -> None:
        """Queue content; it is framed as the socket takes it.

        data   kept until it has left, so do not change it; `stream.queued_octets` counts it
        Raises UsageError when the stream's end was queued before, or it is over.
        """
        self._check_open()
        stream.queue(data, end_stream)

    def send_trailers(self, stream: Stream, fields: Fields) -> None:
        """Queue the trailer section that ends the request, behind its content.

        Raises LocalProtocolError where content-length is declared: only chunked content has one.
        Source: RFC 9112 §7.1.2.
        """
        self._check_open()
        section = Section(fields)
        fault = section.trailers_fault()
        if fault is None and stream.promised is not None:
            fault = "a request with content-length has no trailers in HTTP/1.1"
        if fault is not None:
            raise LocalProtocolError(fault)
        stream.queue(b"", True)
        stream.trailers = section

    def reset_stream(self, stream: Stream, error_code: int = ErrorCode.CANCEL) -> None:
        """End a request at once.  One that is over stays over.

        One that has not left is withdrawn without a trace.  Else the connection is closed: what
        is left of request or response could not be told from the next.
        """
        if stream.state == CLOSED:
            return
        if stream.state == IDLE:
            self._openers = deque(opener for opener in self._openers if opener[0] is not stream)
            stream.drop()
        else:
            self._close()

    def goaway(self, error_code: int = ErrorCode.NO_ERROR, debug_data: bytes = b"") -> None:
        """Take no more requests.  HTTP/1.1 can say no more about it than a close does."""
        self._leaving = True
        if error_code != ErrorCode.NO_ERROR:
            self._close()

    def ping(self, opaque_data: bytes, now: float) -> None:
        """Raises UsageError."""
        raise UsageError("the connection speaks HTTP/1.1, which has no PING")

    def forget_ping(self, opaque_data: bytes) -> None:
        """There is none to forget."""

    def ping_sent_at(self, opaque_data: bytes) -> float | None:
        """None: there is none."""
        return None

    @property
    def takes_requests(self) -> bool:
        """A new request could still leave on this connection, now or when one is over."""
        return not self.closed and not self._leaving

    def _check_open(self) -> None:
        if self.closed:
            raise UsageError("the connection is closed")

    # -- octets out ------------------------------------------------------------------------

    @property
    def has_output(self) -> bool:
        """data_to_send would return octets now."""
        stream = self._asking
        content = stream is not None and (stream.outgoing or stream.end_queued)
        return bool(self._begun or content or (self._openers and self._may_open()))

    def data_to_send(self, now: float, octets_max: int = SEND_OCTETS) -> bytes:
        """The next octets for the transport; b"" when there are none.

        octets_max   about how much is wanted: header sections may go past it, content does not
        The caller sends them all, or hands the rest back with `put_back` at once.
        """
        parts: list[bytes] = [self._begun]
        self._begun = b""
        if self._openers and self._may_open():
            self._open(parts)
        if self._asking is not None:
            self._frame_content(parts, self._asking, octets_max - sum(map(len, parts)))
        if len(parts) > 1:
            self.message_sent = True
        return b"".join(parts)

    def put_back(self, rest: bytes) -> None:
        """The transport refused the last octets of what data_to_send just returned."""
        self._begun = rest

    def _may_open(self) -> bool:
        return self.takes_requests and not self.streams

    def _open(self, parts: list[bytes]) -> None:
        """Take the next number for a request and frame its header section."""
        if self._next_stream_id > 1:
            self._h11.start_next_cycle()
        stream, head = self._openers.popleft()
        stream.stream_id = self._next_stream_id
        self._next_stream_id += 1
        self.streams[stream.stream_id] = stream
        self._asking = self._answering = stream
        self._start = b""
        stream.send(SEND_HEADERS)
        self._frame(parts, head)

    def _frame_content(self, parts: list[bytes], stream: Stream, room: int) -> None:
        """Frame content as far as there is room, and the request's end."""
        import h11

        while stream.outgoing and room > 0:
            chunk = stream.outgoing[0]
            piece = chunk[:room]
            if len(piece) == len(chunk):
                stream.outgoing.popleft()
            else:
                stream.outgoing[0] = chunk[len(piece) :]
            room -= len(piece)
            stream.queued_octets -= len(piece)
            stream.send(SEND_DATA)
            self._frame(parts, h11.Data(data=piece))  # type: ignore[arg-type]
        if stream.end_queued and not stream.outgoing:
            trailers, stream.trailers = stream.trailers, None
            self._frame(parts, h11.EndOfMessage(headers=[*trailers.fields] if trailers else []))
            self._asking = None
            stream.send(SEND_END)
            self._forget_if_over(stream)

    def _frame(self, parts: list[bytes], event: h11.Event) -> None:
        parts += self._h11.send_with_data_passthrough(event) or ()

    # -- what comes ------------------------------------------------------------------------

    def _take(self, data: bytes, events: list[Event]) -> None:
        """Turn octets into events; raises PeerError, with those before it in `events`."""
        import h11

        stream = self._answering
        if stream is None:
            raise _unasked(data)
        self._judge_start(data)
        self._h11.receive_data(data)
        # What came at once is told at once: a chunk may be of one octet.
        content: list[bytes] = []
        try:
            while True:
                event = self._next_event()
                kind = type(event)
                if event is h11.NEED_DATA:
                    return
                if kind is h11.Data:
                    content.append(event.data)
                elif kind is h11.EndOfMessage:
                    self._on_end(stream, event, content, events)
                    return
                else:
                    self._on_head(stream, event, events)
        finally:
            if content:
                self._on_content(stream, content, False, events)

    def _next_event(self) -> Any:
        """h11's next event.  Raises PeerError."""
        import h11

        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == 431:  # "request header fields too large", to a server
                raise self._too_large() from None
            # h11 quotes what it has in a bytearray.
            reason = str(error).replace("bytearray(b", "(b")
            raise PeerError(ErrorCode.PROTOCOL_ERROR, reason) from None

    def _judge_start(self, octets: Octets) -> None:
        """Refuse what is no response from its first wrong octet on: h11 would wait for its end."""
        size = len(_STATUS_LINE_START)
        self._start = start = (self._start + octets[:size])[:size]
        if not _STATUS_LINE_START.startswith(start):
            wrong = next(
                start[:end]
                for end in range(1, size + 1)
                if not _STATUS_LINE_START.startswith(start[:end])
            )
            other = _other_protocol(wrong)
            raise other or PeerError(
                ErrorCode.PROTOCOL_ERROR, f"the peer speaks no HTTP/1.1: it began with {wrong!r}"
            )

    def _on_head(
        self, stream: Stream, event: h11.Response | h11.InformationalResponse, events: list[Event]
    ) -> None:
        """A status line and its fields."""
        stream_id, status = stream.stream_id, event.status_code
        fields = _visible(event.headers)
        if section_size(fields) + len(event.reason) > self.limits.field_section_octets:
            raise self._too_large()
        fields.insert(0, (b":status", b"%d" % status))
        if status >= 200:
            self._on_response(stream, event, fields, events)
            return
        stream.interim_received += 1
        most = self.limits.interim_responses
        if stream.interim_received > most:
            raise PeerError(ErrorCode.ENHANCE_YOUR_CALM, f"over {most} interim responses")
        events.append(ev.InformationalReceived(stream_id, status, fields))
        self._start = b""
        self._judge_start(self._h11.trailing_data[0])

    def _on_response(
        self, stream: Stream, event: Any, fields: Fields, events: list[Event]
    ) -> None:
        status = event.status_code
        chunked = any(name == b"transfer-encoding" for name, _ in event.headers)
        declared = declared_length(fields)
        if chunked and declared is not None:
            # RFC 9112 §6.3: chunks decide; but two lengths may be somebody's attempt to have the
            # rest taken for another response.
            fields = [field for field in fields if field[0] != b"content-length"]
            declared = None
            self._leaving = True
        stream.final_received = True
        stream.expected = content_of_response(status, declared, stream.answers_head)
        self._until_close = stream.expected is None and not chunked
        # RFC 9112 §9.3, §9.6: h11 keeps no connection of HTTP/1.0 alive, so neither do we.
        if self._until_close or event.http_version < b"1.1" or b"close" in _options(event.headers):
            self._leaving = True
        events.append(
            ev.ResponseReceived(stream.stream_id, status, fields, stream.expected == 0)
        )

    def _on_content(
        self, stream: Stream, content: list[bytes], end_stream: bool, events: list[Event]
    ) -> None:
        data = b"".join(content)
        content.clear()
        self._unread += len(data)
        stream.unread_octets += len(data)
        events.append(ev.DataReceived(stream.stream_id, data, end_stream))

    def _on_end(
        self, stream: Stream, event: h11.EndOfMessage, content: list[bytes], events: list[Event]
    ) -> None:
        """The response is complete."""
        trailers = _visible(event.headers)
        if trailers:
            if content:
                self._on_content(stream, content, False, events)
            if section_size(trailers) > self.limits.field_section_octets:
                raise self._too_large()
            events.append(ev.TrailersReceived(stream.stream_id, trailers))
        elif stream.expected != 0:  # else the header section has told it
            self._on_content(stream, content, True, events)
        self._answering = None
        stream.receive(RECV_END)
        self._forget_if_over(stream)
        rest = self._h11.trailing_data[0]
        if rest:
            raise _unasked(rest)

    # -- ends ------------------------------------------------------------------------------

    def _too_large(self) -> PeerError:
        return PeerError(
            ErrorCode.ENHANCE_YOUR_CALM,
            f"header section over {self.limits.field_section_octets} octets",
        )

    def _forget_if_over(self, stream: Stream) -> None:
        if stream.state == CLOSED:
            stream.drop()
            del self.streams[stream.stream_id]

    def _close(self) -> None:
        """Nothing more is accepted or sent; requests that have not left can be taken back."""
        self.closed = True
        self._begun = b""
        self._asking = self._answering = None
        for stream in self.streams.values():
            stream.drop()
        self.streams.clear()


def _head(fields: Lines, end_stream: bool) -> h11.Request:
    """A request's header section in HTTP/1.1's terms.  Raises LocalProtocolError."""
    import h11

    pseudo = {name: value for name, value in fields if name[:1] == b":"}
    regular = [field for field in join_cookies(fields) if field[0] not in pseudo]
    names = {name for name, _ in regular}
    # RFC 9112 §3.2.1: the request target is a path; nothing in it names a scheme.
    if pseudo[b":scheme"].lower() not in (b"http", b"https"):
        raise LocalProtocolError(f":scheme of {pseudo[b':scheme']!r}, which HTTP/1.1 cannot say")
    # RFC 9110 §10.1.1: nothing here waits for the 100 that would be asked for.
    if b"expect" in names:
        raise LocalProtocolError("expect is not offered in HTTP/1.1")
    authority = pseudo.get(b":authority")
    if authority is not None:
        # RFC 9112 §3.2: Host comes first, and once.
        regular = [(b"host", authority), *(field for field in regular if field[0] != b"host")]
    if b"te" in names:
        # RFC 9110 §10.1.4: it is meant for the next hop alone.
        regular.append((b"connection", b"te"))
    if b"content-length" not in names:
        if not end_stream:
            # RFC 9112 §7.1
            regular.append((b"transfer-encoding", b"chunked"))
        elif pseudo[b":method"] in _METHODS_WITH_CONTENT:
            # RFC 9110 §8.6
            regular.append((b"content-length", b"0"))
    try:
        return h11.Request(method=pseudo[b":method"], target=pseudo[b":path"], headers=regular)
    except h11.LocalProtocolError as error:
        raise LocalProtocolError(f"not to be said in HTTP/1.1: {error}") from None


def _options(headers: Iterable[tuple[bytes, bytes]]) -> set[bytes]:
    """What the Connection fields say, in lower case."""
    values = [value.lower() for name, value in headers if name == b"connection"]
    return {option.strip() for value in values for option in value.split(b",")}


def _visible(headers: Iterable[tuple[bytes, bytes]]) -> Fields:
    """The fields without those that concern this one connection (RFC 9110 §7.6.1)."""
    return [(name, value) for name, value in headers if name not in CONNECTION_SPECIFIC]


def _unasked(octets: bytes) -> PeerError:
    """The fault of a peer that speaks first (RFC 9112 §9.2)."""
    return _other_protocol(octets) or PeerError(
        ErrorCode.PROTOCOL_ERROR, "octets came that answer no request"
    )


def _other_protocol(octets: bytes) -> PeerError | None:
    """The fault of a peer that speaks another protocol, as far as its first octet tells that."""
    other = _OTHER_PROTOCOLS.get(octets[0])
    if other is None:
        return None
    return PeerError(ErrorCode.PROTOCOL_ERROR, f"the peer speaks {other}, not HTTP/1.1")
