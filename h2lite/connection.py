"""The HTTP/2 connection without its socket: octets in, events out; calls in, octets out.

Client or server role.  It never reads a clock, never blocks, and never lets a peer's fault out
as an exception: `receive_data` always returns events, and queues the RST_STREAM or GOAWAY that
answers a fault itself.  A caller's mistake raises UsageError and changes nothing.
Grounds: RFC 9113 §3.4, §5, §6, §8.1.

What leaves, in this order, whenever `data_to_send` is asked:

    begun     the rest of a frame the socket took half of; at first the connection preface
    urgent    PINGs and PING acks
    refused   frames framed before and refused by a full socket, in their order
    control   SETTINGS acks, RST_STREAM, GOAWAY; then WINDOW_UPDATE, one a stream
    sections  responses, trailers; then requests, whose field block is encoded and whose stream
              id is taken only now
    DATA      framed only now, one frame a stream in turn, as windows and room allow
"""

from __future__ import annotations

import math
from collections import deque

from . import events as ev
from .errors import ErrorCode, LocalProtocolError, PeerError, UsageError, error_name
from .fields import (
    FieldDecoder,
    FieldEncoder,
    Section,
    content_of_response,
)
from .framer import CLIENT_PREFACE, Framer
from .frames import (
    FLAG_ACK,
    FLAG_END_STREAM,
    FRAME_HEADER_SIZE,
    MAX_STREAM_ID,
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    OversizedFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    UnknownFrame,
    WindowUpdateFrame,
    encode_header,
    encode_ping,
)
from .limits import DEFAULT_LIMITS, RESETS_PERIOD_S, Limits
from .settings import INITIAL_VALUES, UNLIMITED, LocalSettings, PeerSettings, SettingId
from .stream import (
    CLOSED,
    HALF_CLOSED_LOCAL,
    IDLE,
    OPEN,
    RECV_DATA,
    RECV_END,
    RECV_HEADERS,
    RECV_RESET,
    SEND_DATA,
    SEND_END,
    SEND_HEADERS,
    SEND_RESET,
    Stream,
)
from .value import NO_ENTRIES, NOTHING
from .window import ReceiveWindow, SendWindow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .events import Event, Fields
    from .frames import Frame, Octets, Priority

CONNECTION_WINDOW = 2**22  # octets in flight for all streams: 4 MiB is 320 Mbit/s at 100 ms
# Eight that somebody asked for, the health probe, and one probe whose ack is late: more
# outstanding than this says nothing new about the peer.
PINGS_IN_FLIGHT_MAX = 10
CHATTER_FORGIVEN = 10  # for a stream, and for a DATA frame: WINDOW_UPDATEs and PRIORITY follow it
SMALL_OCTETS = 1024  # of content: a window that lets out less at a time is not worth its frames
RESETS_REMEMBERED_MAX = 128  # streams whose reset decides how a late frame on them is taken
SKIPS_REMEMBERED_MAX = 16  # runs of stream identifiers a client has passed over
DEBUG_DATA_OCTETS_MAX = 256  # of a GOAWAY that tells a peer its fault
DATA_FRAME_OCTETS_MAX = 16384  # larger frames would make a PING wait longer behind one
SEND_OCTETS = 65536  # what one data_to_send offers by default

_INITIAL_WINDOW = 65535
_NONE_SENT: tuple[int, list[bytes]] = (0, NOTHING)


class Connection:
    """One HTTP/2 connection, client or server role.

    client     True: we open streams; False: we accept them
    settings   {SettingId: value} to announce beside what `limits` says
    limits     how much is borne of the peer

    streams         {stream_id: Stream} of the streams that are neither idle nor closed
    queued_octets   of content, responses and trailers that wait to be framed, on all streams
    half_since      when the field block began of which only a part is there; None: there is none
    backlog         `receive_data` has been given more than it has told of
    message_sent    HEADERS or DATA have left data_to_send; for the caller to set to False
    """

    __slots__ = (
        "client",
        "limits",
        "streams",
        "queued_octets",
        "half_since",
        "backlog",
        "_lines",
        "closed",
        "settings_received",
        "goaway_received",
        "goaway_sent",
        "_next_stream_id",
        "_last_peer_stream_id",
        "_resets",
        "_forgotten",
        "_cut_short_at",
        "_overdue",
        "_chatter",
        "_chatter_at",
        "_empty_data",
        "_skips",
        "_began_at",
        "_active_at",
        "_encoder",
        "_decoder",
        "_block",
        "_fragments",
        "_block_octets",
        "_empty_fragments",
        "_send_window",
        "_stream_window",
        "_receive_window",
        "_unread",
        "_withheld",
        "_pings",
        "_urgent",
        "_refused",
        "_control",
        "_credit",
        "_answers",
        "_answers_sent",
        "_sections",
        "_openers",
        "_round",
        "_lengths",
        "_urgent_sent",
        "_begun_ping",
        "message_sent",
        "peer_settings",
        "local_settings",
        "_begun",
        "_framer",
    )

    # Windows hold the peer up, stream by stream; the transport is read throughout.
    reading_paused = False

    def __init__(
        self,
        client: bool = True,
        settings: dict[int, int] | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.client = client
        self.limits = limits
        self.streams: dict[int, Stream] = {}
        self.queued_octets = 0
        self.half_since: float | None = None
        self.backlog = False
        self._lines = 0  # decoded since receive_data was called
        self.closed = False  # nothing more is accepted; what is queued may still be sent
        self.settings_received = False
        self.message_sent = False
        self.goaway_received: GoAwayFrame | None = None
        self.goaway_sent: GoAwayFrame | None = None
        self._next_stream_id = 1 if client else 2
        self._last_peer_stream_id = 0
        # What may come late: of a stream that we reset, octets its window let pass; else -1.
        self._resets: dict[int, int] = NO_ENTRIES
        self._forgotten = 0  # the highest stream that we reset and no longer remember
        # When the requests that a client began were cut short, as many as it may have in a period.
        self._cut_short_at: deque[float] | None = None
        self._overdue: PeerError | None = None  # for too many of them, found where none is raised
        self._chatter = 0.0  # frames that moved nothing, less those forgiven
        self._chatter_at = 0.0
        self._empty_data = 0  # frames in a row
        self._skips: list[range] = NOTHING  # stream identifiers the client can never use again
        self._began_at: float | None = None  # when the first octet left
        self._active_at: float | None = None  # when an octet last came, at first: left

        # Of type FieldEncoder and FieldDecoder, once there is a field section: who only pings has
        # no use for them.
        self._encoder: Any = None
        self._decoder: Any = None
        self._block: HeadersFrame | None = None  # whose CONTINUATIONs are still coming
        self._fragments: list[Octets] = NOTHING
        self._block_octets = 0  # in them
        self._empty_fragments = 0  # in a row

        # RFC 9113 §6.9.2 [initial-window-default]
        self._send_window = SendWindow(_INITIAL_WINDOW)
        self._receive_window = ReceiveWindow(CONNECTION_WINDOW)
        self._unread = 0  # octets reported in DataReceived and not yet consumed
        self._withheld = 0  # of those, octets whose credit waits for consumption

        # value -> asked at, sent at; not sent: None
        self._pings: dict[bytes, tuple[float, float | None]] = NO_ENTRIES
        self._urgent: list[bytes] = NOTHING
        self._refused: list[bytes] = NOTHING
        self._control: list[bytes] = NOTHING
        self._credit: dict[int, int] = NO_ENTRIES  # by stream, what WINDOW_UPDATE is to say
        self._answers = 0  # of the queued frames, those the peer provoked
        self._answers_sent = 0  # the same of what data_to_send returned last
        self._sections: deque[tuple[Stream, Section | None, bool]] = NOTHING
        self._openers: deque[tuple[Stream, Section]] = NOTHING
        self._round: deque[Stream] = NOTHING
        self._lengths: list[int] = NOTHING  # of the units in what data_to_send returned last
        # The first urgent one among those units, and all that were urgent.
        self._urgent_sent: tuple[int, list[bytes]] = _NONE_SENT
        self._begun_ping = b""  # the PING frame that "begun" is the rest of

        self.peer_settings = PeerSettings(from_server=client)
        self.local_settings = LocalSettings(of_server=not client)
        # RFC 9113 §3.4 [preface-sent]: "begun" leaves before anything else can.
        self._begun = self._preface(settings or {})
        largest = self.local_settings.largest
        if largest(SettingId.HEADER_TABLE_SIZE) != INITIAL_VALUES[SettingId.HEADER_TABLE_SIZE]:
            self._block_decoder().set_table_size(largest(SettingId.HEADER_TABLE_SIZE))
        self._framer = Framer(largest(SettingId.MAX_FRAME_SIZE), from_client=not client)
        # What a new stream's receive window begins with: what we have announced, and what the
        # peer may use by now.
        self._stream_window = (
            self.local_settings.announced(SettingId.INITIAL_WINDOW_SIZE),
            largest(SettingId.INITIAL_WINDOW_SIZE),
        )

    def _block_encoder(self) -> FieldEncoder:
        if self._encoder is None:
            self._encoder = FieldEncoder()
        return self._encoder  # type: ignore[no-any-return]

    def _block_decoder(self) -> FieldDecoder:
        if self._decoder is None:
            self._decoder = FieldDecoder(self.limits.field_section_octets)
        return self._decoder  # type: ignore[no-any-return]

    def _preface(self, settings: dict[int, int]) -> bytes:
        """The octets every connection begins with, our SETTINGS among them."""
        announced = {
            SettingId.INITIAL_WINDOW_SIZE: self.limits.stream_octets,
            SettingId.MAX_HEADER_LIST_SIZE: self.limits.field_section_octets,
        }
        if self.client:
            # RFC 9113 §8.4 [push-off]
            announced[SettingId.ENABLE_PUSH] = 0
        else:
            announced[SettingId.MAX_CONCURRENT_STREAMS] = self.limits.streams
        announced.update(settings)
        _check_no_push(announced)
        frame = SettingsFrame(tuple(announced.items()))
        self.local_settings.sent(frame.settings)
        # RFC 9113 §3.3 [prior-knowledge]: the same octets with TLS and without.
        return (
            (CLIENT_PREFACE if self.client else b"")
            + frame.encode()
            + WindowUpdateFrame(0, CONNECTION_WINDOW - _INITIAL_WINDOW).encode()
        )

    # -- octets in -------------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float, work_max: int = UNLIMITED) -> list[Event]:
        """Take what the transport received; return what happened, in order.

        data       octets in any cuts; kept alive while a DataReceived event refers to them
        now        seconds on the clock that data_to_send is given too
        work_max   frames and field lines to understand at once: 64 KiB may hold 7000 frames, or
                   60 000 lines.  Where there were more, `backlog` is True: give b"" next
        Never raises for anything the peer did.  After a ConnectionFailed event nothing more is
        accepted: send what data_to_send still gives, then close.
        """
        events: list[Event] = []
        if self.closed:
            self.backlog = False
            return events
        self._active_at = now
        # What was sent before has left: `put_back` would have come at once.
        self._lengths, self._urgent_sent = NOTHING, _NONE_SENT
        framer = self._framer
        if not self.backlog:
            framer.feed(data)
        elif data:
            raise UsageError("octets that came before are not understood yet: give b\"\"")
        self.backlog = False
        self._lines = 0
        next_frame = framer.next_frame
        moved = False
        while True:
            if work_max <= self._lines:
                self.backlog = True
                return events
            work_max -= 1
            try:
                frame = next_frame()
                if frame is None:
                    break
                moved = True
                _HANDLERS[type(frame)](self, frame, now, events)
            except PeerError as error:
                if self._refuse_frame(error, events):
                    return events
        if framer.half or self.half_since is not None:
            self._note_half(moved, now)
            self._judge(now, events)
        return events

    def _note_half(self, moved: bool, now: float) -> None:
        """See whether half a field block waits, and whether it is another one than before."""
        if self._block is not None:  # which counts from its HEADERS
            return
        if not self._framer.half:
            self.half_since = None
        elif moved or self.half_since is None:
            self.half_since = now

    def receive_eof(self) -> list[Event]:
        """The transport has ended: nothing can be sent or received any more.

        Returns what that completes: of HTTP/2 nothing.
        """
        self.closed = True
        self.backlog = False
        self._begun = b""
        self._urgent = self._refused = self._control = NOTHING
        self._credit = NO_ENTRIES
        self._forget_streams_output()
        return []

    def data_consumed(self, stream_id: int, octets: int) -> None:
        """The user has used up content: let the peer send as much again.

        Call it for dropped content too; the stream may have ended meanwhile.
        Source: RFC 9113 §5.2.2, §6.9.
        """
        stream = self.streams.get(stream_id)
        unread = self._unread if stream is None else stream.unread_octets
        if not 0 <= octets <= unread:
            raise UsageError(f"{octets} octets consumed, {unread} are unread")
        self._unread -= octets
        returned = min(octets, self._withheld)
        self._withheld -= returned
        if self.closed:
            return
        self._credit_connection(returned)
        if stream is not None:
            stream.unread_octets -= octets
            if stream.unwanted_octets is None or not self._stopped(stream, octets):
                self._credit_stream(stream, octets)

    def _stopped(self, stream: Stream, octets: int) -> bool:
        """Count content nobody wants; True when the client has been told to stop sending it."""
        if stream.state != HALF_CLOSED_LOCAL or stream.unwanted_octets is None:
            return False
        stream.unwanted_octets += octets
        if stream.unwanted_octets <= stream.receive_window.limit:
            return False
        # RFC 9113 §8.1 [early-response-stop]
        self.reset_stream(stream, ErrorCode.NO_ERROR)
        return True

    def next_deadline(self) -> float | None:
        """When `handle_deadline` has something to judge, in absolute seconds; None: never.

        Later octets may put it off, so ask again before acting on it.
        """
        # A server that falls silent is for its client's PINGs to judge, whatever it left half said.
        awaited = self._awaited(silent=self.client)
        return min((deadline for deadline, _, _ in awaited if deadline < math.inf), default=None)

    def _awaited(self, silent: bool) -> list[tuple[float, int, str]]:
        """What is to come and by when, what its absence is called, and how that is put.

        silent   leave out what only a peer that says more can be blamed for
        """
        awaited: list[tuple[float, int, str]] = []
        if self.closed or self._began_at is None or self._active_at is None:
            return awaited
        limits = self.limits
        if not self.client and not self.settings_received:
            seconds = limits.preface_timeout
            # RFC 9113 §10.5 [preface-bounded]
            text = f"no preface and SETTINGS in {seconds:g} s"
            awaited.append((self._began_at + seconds, ErrorCode.PROTOCOL_ERROR, text))
        if self.half_since is not None and not silent:
            seconds = limits.field_block_timeout
            # RFC 9113 §10.5.1 [half-block-bounded]: nothing else can come in between.
            text = f"half a field block for {seconds:g} s"
            awaited.append((self.half_since + seconds, ErrorCode.ENHANCE_YOUR_CALM, text))
        if self.local_settings.unacked:
            seconds = limits.settings_timeout
            # RFC 9113 §6.5.3 [settings-timeout]
            text = f"SETTINGS not acknowledged, {seconds:g} s without an octet"
            awaited.append((self._active_at + seconds, ErrorCode.SETTINGS_TIMEOUT, text))
        return awaited

    @property
    def opening_timeout(self) -> float:
        """Seconds from the first octet until `next_deadline` is to be asked for the first time."""
        return min(self.limits.preface_timeout, self.limits.settings_timeout)

    def handle_deadline(self, now: float) -> list[Event]:
        """Judge what should have come by now; harmless when called early."""
        events: list[Event] = []
        self._judge(now, events, silent=self.client)
        return events

    def _judge(self, now: float, events: list[Event], silent: bool = False) -> None:
        for deadline, error_code, text in self._awaited(silent):
            if now >= deadline:
                self._refuse_frame(PeerError(error_code, text), events)
                return

    # -- calls -----------------------------------------------------------------------------

    def send_request(self, fields: Fields | Section, end_stream: bool = True) -> Stream:
        """Queue a request (client role); its stream's id is taken when it leaves.

        fields       (name, value) pairs of bytes, pseudo-header fields first; or a Section of them
        end_stream   True: no content follows
        Raises LocalProtocolError for a field section RFC 9113 forbids, UsageError when the
        connection takes no new streams.  Source: RFC 9113 §8.3.1.
        """
        if not self.client:
            raise UsageError("a server opens no streams")
        if not self.takes_requests:
            raise UsageError("the connection takes no new requests")
        section = self._block_encoder().section(fields)
        check_request(section)
        self._check_section_size(section)
        stream = Stream(may_send_content=True)
        stream.answers_head = section.method == b"HEAD"
        stream.announce(section.declared, end_stream)
        if not self._openers:
            self._openers = deque()
        self._openers.append((stream, section))
        return stream

    def send_response(
        self, stream: Stream, fields: Fields | Section, end_stream: bool = False
    ) -> None:
        """Queue a response's header section, interim ones included (server role).

        Raises LocalProtocolError as send_request; UsageError when the stream has ended.
        """
        self._check_open_for_sending()
        # RFC 9113 §8.1 [one-final-response]
        if self.client or stream.may_send_content or stream.state in (CLOSED, HALF_CLOSED_LOCAL):
            raise UsageError(f"stream {stream.stream_id} takes no response any more")
        section = self._block_encoder().section(fields)
        # RFC 9113 §8.3 [malformed-not-sent]
        _refuse(section.response_fault())
        self._check_section_size(section)
        status = section.status
        if status >= 200:
            content = content_of_response(status, section.declared, stream.answers_head)
            stream.announce(content, end_stream)
            stream.may_send_content = True
        elif end_stream:
            # RFC 9113 §8.1 [interim-end-stream]
            raise LocalProtocolError("an interim response cannot end the stream")
        self._queue_section(stream, section, end_stream)

    def _queue_section(self, stream: Stream, section: Section | None, end_stream: bool) -> None:
        """Queue a header section; None: the end of the stream."""
        stream.sections += 1
        if section is not None:
            self.queued_octets += section.size
        if not self._sections:
            self._sections = deque()
        self._sections.append((stream, section, end_stream))

    def _check_open_for_sending(self) -> None:
        if self.closed:
            raise UsageError("the connection is closed")

    def takes_section(self, fields: Fields | Section) -> bool:
        """The peer takes a field section of that size."""
        limit = self.peer_settings[SettingId.MAX_HEADER_LIST_SIZE]
        return self._block_encoder().section(fields).size <= limit

    def _check_section_size(self, section: Section) -> None:
        # RFC 9113 §6.5.2 [header-list-size-kept]: advice, but who ignores it is refused.
        limit = self.peer_settings[SettingId.MAX_HEADER_LIST_SIZE]
        if section.size > limit:
            raise LocalProtocolError(
                f"field section of {section.size} octets, the peer takes {limit}"
            )

    @property
    def withholds_credit(self) -> bool:
        """The peer may be unable to send, since content of other streams lies unread here."""
        return self._withheld > 0

    def send_data(self, stream: Stream, data: Octets, end_stream: bool = False) -> None:
        """Queue content; it is framed as windows and the socket allow.

        data   kept until it has left, so do not change it; `stream.queued_octets` counts it
        Raises UsageError when the stream's end was queued before, or it was reset.
        """
        self._check_open_for_sending()
        stream.queue(data, end_stream)
        self.queued_octets += len(data)
        self._queue_end_or_data(stream)

    def send_trailers(self, stream: Stream, fields: Fields | Section) -> None:
        """Queue the trailer section that ends the stream, behind its content."""
        self._check_open_for_sending()
        section = self._block_encoder().section(fields)
        # RFC 9113 §8.3 [malformed-not-sent]
        _refuse(section.trailers_fault())
        self._check_section_size(section)
        stream.queue(b"", True)
        stream.trailers = section
        self.queued_octets += section.size
        self._queue_end_or_data(stream)

    def _queue_end_or_data(self, stream: Stream) -> None:
        """After `Stream.queue`: what is to leave next on a stream, once its HEADERS have left."""
        if stream.outgoing:
            self._schedule(stream)
        elif stream.end_queued and stream.state != IDLE:
            self._queue_section(stream, None, True)

    def stop_request(self, stream: Stream) -> None:
        """The response answers the request without its rest (server role).

        A client that goes on sending, a whole window of content after the response has left,
        is stopped by RST_STREAM NO_ERROR.  Not before: what comes until then may have been on
        its way, and not every client keeps a response that a reset follows at once, as it must.
        Call it when the response's end is queued; it does nothing when the request is complete.
        Source: RFC 9113 §8.1.
        """
        stream.unwanted_octets = 0

    def reset_stream(
        self, stream: Stream, error_code: int = ErrorCode.CANCEL, provoked: bool = False
    ) -> None:
        """End a stream at once; what it had queued is dropped.  A closed stream stays closed.

        provoked   through something the client did: it counts among the resets it may cause
        A request that has not left yet is withdrawn without a trace.  A server that gives
        REFUSED_STREAM promises that nobody has acted on the request: the client may send it
        again.  Source: RFC 9113 §5.4.2, §8.7.
        """
        if stream.state == CLOSED:
            return
        if stream.state == IDLE or self.closed:
            self._drop(stream)
            # Where nothing leaves, those that are given up must not pile up either.
            while self._openers and self._openers[-1][0].state == CLOSED:
                self._openers.pop()
            return
        frame = RstStreamFrame(stream.stream_id, error_code).encode()
        stream.send(SEND_RESET)
        if provoked and self._overdue is None:
            try:
                self._count_cut_short()
            except PeerError as flood:  # which is not the caller's: the next request meets it
                self._overdue = flood
        self._queue_control(frame)
        self._note_reset(stream.stream_id, max(0, stream.receive_window.size))
        self._close_stream(stream)

    def update_settings(self, settings: dict[int, int], now: float) -> None:
        """Ask something else of the peer: one SETTINGS frame, in force as §6.5.3 says.

        settings   {SettingId: value}, sent in this order
        Raises UsageError for a value the RFC forbids, when too many await their ack, or on a
        closed connection; nothing is changed then.
        """
        self._check_open_for_sending()
        _check_no_push(settings)
        frame = SettingsFrame(tuple(settings.items()))
        before = self._receive_limits()
        self.local_settings.sent(frame.settings)
        self._apply_receive_limits(before)
        if self._active_at is not None:
            self._active_at = now
        self._queue_control(frame.encode())

    def _receive_limits(self) -> tuple[int, int]:
        """What the peer may use by now: stream window, HPACK table."""
        largest = self.local_settings.largest
        return largest(SettingId.INITIAL_WINDOW_SIZE), largest(SettingId.HEADER_TABLE_SIZE)

    def _apply_receive_limits(self, before: tuple[int, int]) -> None:
        """Raised limits hold from when they are sent, lowered ones from their ack.

        Between the two the peer may use either, so the larger one is granted.
        """
        window, table = self._receive_limits()
        announced = self.local_settings.announced(SettingId.INITIAL_WINDOW_SIZE)
        self._framer.max_frame_size = self.local_settings.largest(SettingId.MAX_FRAME_SIZE)
        self._stream_window = announced, window
        # RFC 9113 §6.9.2 [initial-window-receive], §6.9.3 [window-reduced]
        for stream in self.streams.values():
            stream.receive_window.resize(window - before[0], announced)
            # What was consumed and held back may be half of the smaller window by now, and no
            # later call might come to give it back.
            self._credit_stream(stream, 0)
        if table != before[1]:
            self._block_decoder().set_table_size(table)

    def ping(self, opaque_data: bytes, now: float) -> None:
        """Queue one PING; its answer arrives later as PingAcked.

        opaque_data   8 octets, not already awaiting an answer on this connection
        now           seconds; PingAcked.queued_s counts from here
        Raises UsageError on a closed connection, for a value in flight, or when
        PINGS_IN_FLIGHT_MAX wait; nothing is queued then.  Source: RFC 9113 §6.7.
        """
        if self.closed:
            self._check_open_for_sending()
        if opaque_data in self._pings:
            raise UsageError(f"PING value 0x{opaque_data.hex()} is still in flight")
        if len(self._pings) >= PINGS_IN_FLIGHT_MAX:
            raise UsageError(f"{PINGS_IN_FLIGHT_MAX} PINGs are in flight already")
        self._queue_urgent(encode_ping(opaque_data))
        if not self._pings:
            self._pings = {}
        self._pings[opaque_data] = (now, None)

    def forget_ping(self, opaque_data: bytes) -> None:
        """Stop waiting for a PING's ack; a late one is then an UnknownPingAcked."""
        self._pings.pop(opaque_data, None)

    def ping_sent_at(self, opaque_data: bytes) -> float | None:
        """When the PING was given to the transport whole; None while it waits, or is unknown."""
        return self._pings.get(opaque_data, (0.0, None))[1]

    def announce_goaway(self) -> None:
        """Queue a GOAWAY that refuses nothing yet: the peer is to open no more streams.

        Those it has opened before it reads this are still accepted, until `goaway`, which
        should follow a round trip later.  Source: RFC 9113 §6.8.
        """
        # RFC 9113 §6.8 [goaway-two-phase]
        if self.goaway_sent is None and not self.closed:
            self.goaway_sent = GoAwayFrame(MAX_STREAM_ID, ErrorCode.NO_ERROR)
            self._queue_control(self.goaway_sent.encode())

    def goaway(self, error_code: int = ErrorCode.NO_ERROR, debug_data: bytes = b"") -> None:
        """Queue a GOAWAY: streams accepted so far finish, no more are accepted.

        error_code   other than NO_ERROR, the connection is closed: it accepts nothing more
        debug_data   must fit one frame of the peer's MAX_FRAME_SIZE
        Raises UsageError for values that do not fit; does nothing on a closed connection.
        Source: RFC 9113 §6.8, §5.4.1.
        """
        # RFC 9113 §4.2 [frame-size-kept]
        if len(debug_data) + 8 > self.peer_settings[SettingId.MAX_FRAME_SIZE]:
            raise UsageError(f"debug_data of {len(debug_data)} octets does not fit a frame")
        if self.closed:
            return
        # RFC 9113 §6.8 [goaway-last-stream], [goaway-again], §8.7 [goaway-covers-processed]
        last = self._last_peer_stream_id
        if self.goaway_sent is not None:
            # RFC 9113 §6.8 [goaway-not-raised]
            last = min(last, self.goaway_sent.last_stream_id)
        frame = GoAwayFrame(last, error_code, debug_data)
        self._queue_control(frame.encode())
        self.goaway_sent = frame
        if error_code != ErrorCode.NO_ERROR:
            self.closed = True
            self._forget_streams_output()

    @property
    def takes_requests(self) -> bool:
        """A new request could still leave on this connection, now or when a stream ends."""
        return self._opens_more_than(len(self._openers))

    def _opens_more_than(self, streams: int) -> bool:
        # RFC 9113 §6.8 [goaway-opens-nothing], §5.1.1 [stream-ids-exhausted]
        return not (
            self.closed
            or self.goaway_sent
            or self.goaway_received
            or self._next_stream_id + 2 * streams > MAX_STREAM_ID
        )

    # -- octets out ------------------------------------------------------------------------

    def may_send(self, stream: Stream) -> bool:
        """Content of the stream could leave now, as far as the peer's windows go."""
        return stream.send_window.size > 0 and self._send_window.size > 0

    @property
    def has_output(self) -> bool:
        """data_to_send would return octets now."""
        return bool(
            self._begun
            or self._urgent
            or self._refused
            or self._control
            or self._credit
            or self._sections
            or (self._openers and self._may_open())
            or (self._round and self._send_window.size > 0)
        )

    def data_to_send(self, now: float, octets_max: int = SEND_OCTETS) -> bytes:
        """The next octets for the transport; b"" when there are none.

        now          seconds; PINGs among them are stamped with it
        octets_max   about how much is wanted: control frames may go past it, DATA does not
        The caller sends them all, or hands the rest back with `put_back` at once.
        """
        parts: list[Octets] = []
        lengths = self._lengths = []
        if self._begun:
            parts.append(self._begun)
            self._begun = b""
            self._stamp_ping(self._begun_ping, now)
            if self._began_at is None:
                self._began_at = self._active_at = now
        self._urgent_sent = (len(parts), self._urgent)
        if self._urgent:
            for frame in self._urgent:
                self._stamp_ping(frame, now)
            parts += self._urgent
            self._urgent = NOTHING
        if self._refused:
            parts += self._refused
            self._refused = NOTHING
        if self._control:
            parts += self._control
            self._control = NOTHING
        if self._credit:
            parts += [WindowUpdateFrame(*credit).encode() for credit in self._credit.items()]
            self._credit = NO_ENTRIES
        self._answers_sent, self._answers = self._answers, 0
        if parts:
            lengths += map(len, parts)
        if self._sections or self._openers or self._round:
            room = octets_max - sum(lengths)
            others = len(parts)
            room = self._frame_sections(parts, room)
            self._frame_data(parts, room, now)
            if len(parts) > others:
                self.message_sent = True
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    def put_back(self, rest: bytes) -> None:
        """The transport refused the last octets of what data_to_send just returned.

        They leave first next time, with PINGs let in between whole frames only.
        """
        lengths, self._lengths = self._lengths, NOTHING
        first_urgent, frames = self._urgent_sent
        end_urgent = first_urgent + len(frames)
        start = len(rest) - sum(lengths)  # of the unit at hand, counted within `rest`
        urgent: list[bytes] = []
        refused: list[bytes] = []
        for index, length in enumerate(lengths):
            end = start + length
            unit = rest[max(start, 0) : max(end, 0)]
            is_urgent = first_urgent <= index < end_urgent
            if unit and is_urgent:
                self._stamp_ping(frames[index - first_urgent], None)
            # Half a frame must go on as it began; so must the preface, even untouched.
            if end > 0 and (start < 0 or index < first_urgent):
                self._begun = unit
                if index >= first_urgent:
                    self._begun_ping = frames[index - first_urgent] if is_urgent else b""
                self._stamp_ping(self._begun_ping, None)
            elif unit and is_urgent:
                urgent.append(unit)
            elif unit:
                refused.append(unit)
            start = end
        self._urgent = [*urgent, *self._urgent] or NOTHING
        self._refused = [*self._refused, *refused] or NOTHING
        # A peer that reads a little still owes us the reading of the rest.
        self._answers += min(self._answers_sent, len(urgent) + len(self._refused))

    def _stamp_ping(self, frame: bytes, sent_at: float | None) -> None:
        """Note when a PING left, or, None, that the transport did not take all of it."""
        if frame and not frame[4] & FLAG_ACK:
            opaque_data = frame[FRAME_HEADER_SIZE:]
            times = self._pings.get(opaque_data)
            if times is not None:
                self._pings[opaque_data] = (times[0], sent_at)

    def _frame_sections(self, parts: list[Octets], room: int) -> int:
        """Encode what can leave of responses, trailers and requests; return the room left."""
        while self._sections and room > 0:
            stream, section, end_stream = self._sections.popleft()
            stream.sections -= 1
            if section is not None:
                self.queued_octets -= section.size
            room -= self._frame_section(parts, stream, section, end_stream)
        while self._openers and room > 0:
            stream, opening = self._openers[0]
            if stream.state == CLOSED:  # withdrawn
                self._openers.popleft()
                continue
            if not self._may_open():
                break
            self._openers.popleft()
            room -= self._open(parts, stream, opening)
        self._sections = self._sections or NOTHING
        self._openers = self._openers or NOTHING
        return room

    def _open(self, parts: list[Octets], stream: Stream, section: Section) -> int:
        """Take the next stream identifier for a request and frame its header section."""
        # RFC 9113 §5.1.1 [stream-ids-odd-rising]
        self._put_in_use(stream, self._next_stream_id)
        self._next_stream_id += 2
        # Content that was announced may have turned out to be none by now.
        ended = stream.end_queued and not stream.outgoing
        octets = self._frame_section(parts, stream, section, ended and stream.trailers is None)
        if ended and stream.trailers is not None:
            octets += self._frame_end(parts, stream)
        return octets

    def _may_open(self) -> bool:
        # RFC 9113 §5.1.2 [concurrency-kept], [concurrency-counted], §6.5.2 [concurrency-zero]
        limit = self.peer_settings[SettingId.MAX_CONCURRENT_STREAMS]
        return len(self.streams) < limit and self._opens_more_than(0)

    def _frame_section(
        self, parts: list[Octets], stream: Stream, section: Section | None, end_stream: bool
    ) -> int:
        """Frame one header section; None: end the stream.  Returns the octets."""
        if section is None:
            return self._frame_end(parts, stream)
        stream.send(SEND_HEADERS)
        octets = self._add_unit(parts, self._encode_section(stream.stream_id, section, end_stream))
        if end_stream:
            self._end_stream(stream)
        elif stream.outgoing:
            self._schedule(stream)
        return octets

    def _frame_end(self, parts: list[Octets], stream: Stream) -> int:
        """Frame the trailer section, or an empty DATA with END_STREAM; return the octets."""
        trailers, stream.trailers = stream.trailers, None
        if trailers is None:
            unit = DataFrame(stream.stream_id, b"", True).encode()
        else:
            self.queued_octets -= trailers.size
            unit = self._encode_section(stream.stream_id, trailers, True)
        self._end_stream(stream)
        return self._add_unit(parts, unit)

    def _add_unit(self, parts: list[Octets], unit: bytes) -> int:
        parts.append(unit)
        self._lengths.append(len(unit))
        return len(unit)

    def _encode_section(self, stream_id: int, section: Section, end_stream: bool) -> bytes:
        """HEADERS and as many CONTINUATIONs as the peer's MAX_FRAME_SIZE asks for."""
        block: bytes = self._block_encoder().encode(section)
        size = self.peer_settings[SettingId.MAX_FRAME_SIZE]
        if len(block) <= size:
            return HeadersFrame(stream_id, block, end_stream).encode()
        # RFC 9113 §4.3 [field-block-contiguous]: one unit, so nothing can come in between.
        frames = [HeadersFrame(stream_id, block[:size], end_stream, end_headers=False).encode()]
        for start in range(size, len(block), size):
            last = start + size >= len(block)
            frames.append(ContinuationFrame(stream_id, block[start : start + size], last).encode())
        return b"".join(frames)

    def _frame_data(self, parts: list[Octets], room: int, now: float) -> None:
        """Frame DATA, one frame a stream in turn, while windows and room last."""
        frame_max = min(self.peer_settings[SettingId.MAX_FRAME_SIZE], DATA_FRAME_OCTETS_MAX)
        while self._round and room > FRAME_HEADER_SIZE and self._send_window.size > 0:
            stream = self._round.popleft()
            stream.scheduled = False
            # RFC 9113 §6.9.1 [window-kept], §6.9.2 [window-negative]
            # RFC 9113 §10.5 [data-framed-late]: no more than there is room for.
            allowed = min(
                stream.send_window.size,
                self._send_window.size,
                frame_max,
                room - FRAME_HEADER_SIZE,
            )
            if allowed <= 0:
                continue
            room -= self._frame_data_of(stream, parts, allowed)
            stream.sent_at = now
            if stream.outgoing:
                stream.scheduled = True
                self._round.append(stream)
        self._round = self._round or NOTHING

    def _frame_data_of(self, stream: Stream, parts: list[Octets], allowed: int) -> int:
        """One DATA frame of one stream; return its octets, header included."""
        chunk = stream.outgoing[0]
        if len(chunk) <= allowed:
            stream.outgoing.popleft()
            piece = chunk
        else:
            piece = chunk[:allowed]
            stream.outgoing[0] = chunk[allowed:]
        octets = len(piece)
        # A window that lets content out in crumbs is not worth the WINDOW_UPDATEs it takes.
        if octets >= SMALL_OCTETS or piece is chunk:
            self._chatter -= CHATTER_FORGIVEN
        stream.queued_octets -= octets
        stream.sent_octets += octets
        self.queued_octets -= octets
        stream.send_window.take(octets)
        self._send_window.take(octets)
        stream.send(SEND_DATA)
        last = stream.end_queued and not stream.outgoing
        end_stream = last and stream.trailers is None
        flags = FLAG_END_STREAM if end_stream else 0
        parts.append(encode_header(DataFrame.TYPE, flags, stream.stream_id, octets))
        parts.append(piece)
        self._lengths.append(FRAME_HEADER_SIZE + octets)
        if end_stream:
            self._end_stream(stream)
        elif last:
            octets += self._frame_end(parts, stream)
        return FRAME_HEADER_SIZE + octets

    def _schedule(self, stream: Stream) -> None:
        """Put a stream with content into the round, once its HEADERS are out."""
        if not stream.scheduled and stream.state != IDLE and stream.send_window.size > 0:
            stream.scheduled = True
            if not self._round:
                self._round = deque()
            self._round.append(stream)

    def _end_stream(self, stream: Stream) -> None:
        stream.send(SEND_END)
        if stream.state == CLOSED:
            self._close_stream(stream)

    def _close_stream(self, stream: Stream) -> None:
        # RFC 9113 §5.4.2 [reset-last], §6.4 [reset-received]
        self._drop(stream)
        self.streams.pop(stream.stream_id, None)

    def _drop(self, stream: Stream) -> None:
        """What was queued on it will not leave, and is not kept for when it might have."""
        self.queued_octets -= stream.queued_octets
        if stream.trailers is not None:
            self.queued_octets -= stream.trailers.size
        stream.drop()
        if stream.scheduled:
            stream.scheduled = False
            self._round.remove(stream)
        if stream.sections:
            stream.sections = 0
            entries, self._sections = self._sections, deque()
            for entry in entries:
                if entry[0] is not stream:
                    self._sections.append(entry)
                elif entry[1] is not None:
                    self.queued_octets -= entry[1].size
        self._credit.pop(stream.stream_id, None)

    def _forget_streams_output(self) -> None:
        for stream in self._round:
            stream.scheduled = False
        self._sections = self._openers = self._round = NOTHING

    def _queue_urgent(self, frame: bytes) -> None:
        if not self._urgent:
            self._urgent = []
        self._urgent.append(frame)

    def _queue_control(self, frame: bytes) -> None:
        if not self._control:
            self._control = []
        self._control.append(frame)

    def _count_answer(self) -> None:
        """A frame that the peer provokes is queued; who provokes without reading must go."""
        self._answers += 1
        if self._answers > self.limits.answers_queued:
            # RFC 9113 §10.5 [answers-bounded]
            raise PeerError(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"{self.limits.answers_queued} answers wait unread",
            )

    # -- faults of the peer ----------------------------------------------------------------

    def _refuse_frame(self, error: PeerError, events: list[Event]) -> bool:
        """Answer a fault with RST_STREAM or GOAWAY; True when the connection is over."""
        stream_id = error.stream_id
        # RFC 9113 §5.4 [one-error]: a stream is closed by its first.
        # RFC 9113 §5.1 [closed-nothing-sent]: but for the codes that say a stream is closed.
        if self._is_closed(stream_id) and error.error_code not in _CODES_FOR_CLOSED:
            return False
        # RFC 9113 §6.4 [rst-stream-not-idle]: an idle stream cannot be reset, so the
        # connection ends instead (§5.4.1 lets any stream error reach that far).
        if stream_id and not self._is_idle(stream_id):
            try:
                self._reset_for(error, events)
                return False
            except PeerError as flood:
                error = flood
        # RFC 9113 §5.4.1 [connection-error]
        # RFC 9113 §6.8 [goaway-debug-data]
        text = error.message.encode("ascii", "replace")[:DEBUG_DATA_OCTETS_MAX]
        self.goaway(error.error_code, text)
        self.closed = True
        events.append(ev.ConnectionFailed(error.error_code, error.message))
        return True

    def _reset_for(self, error: PeerError, events: list[Event]) -> None:
        # RFC 9113 §5.4.2 [stream-error]
        frame = RstStreamFrame(error.stream_id, error.error_code)
        self._count_answer()
        self._queue_control(frame.encode())
        self._count_cut_short()
        stream = self.streams.get(error.stream_id)
        left = 0 if stream is None else max(0, stream.receive_window.size)
        self._note_reset(error.stream_id, left)
        if stream is None and self.client:
            self._count_chatter()
        if stream is not None:
            self._close_stream(stream)
            events.append(ev.StreamReset(error.stream_id, error.error_code, False, error.message))

    # -- frames in -------------------------------------------------------------------------

    def _on_data(self, frame: DataFrame, now: float, events: list[Event]) -> None:
        octets = frame.flow_controlled_length
        # RFC 9113 §6.9 [data-always-counted], [only-data-counted], §5.4 [connection-error-first]
        self._receive_window.receive(octets)
        stream = self.streams.get(frame.stream_id)
        size = len(frame.data)
        if size or frame.end_stream:
            self._empty_data = 0
        else:
            self._count_empty_data()
        try:
            if stream is None:
                self._check_late("DATA", frame.stream_id)
                self._count_late(frame.stream_id, size)
            else:
                self._take_data(stream, frame, octets, size)
        except PeerError:
            self._credit_connection(octets)
            raise
        if stream is None:
            # RFC 9113 §5.1 [closed-minimal]: counted, given back, discarded.
            self._credit_connection(octets)
            return
        self._unread += size
        stream.unread_octets += size
        if self._unread > self.limits.unread_octets:
            self._withheld += size
            self._credit_connection(octets - size)
        else:
            self._credit_connection(octets)
        self._credit_stream(stream, octets - size)
        events.append(ev.DataReceived(frame.stream_id, frame.data, frame.end_stream))
        if frame.end_stream:
            self._peer_ended(stream)

    def _count_empty_data(self) -> None:
        self._empty_data += 1
        # RFC 9113 §10.5 [empty-data-bounded]: however much padding they carry.
        if self._empty_data > self.limits.empty_data:
            raise PeerError(
                ErrorCode.ENHANCE_YOUR_CALM, f"over {self.limits.empty_data} empty DATA in a row"
            )

    def _take_data(self, stream: Stream, frame: DataFrame, octets: int, size: int) -> None:
        """Judge one DATA frame on a living stream; raises PeerError."""
        stream.receive(RECV_DATA)
        if not stream.final_received:
            # RFC 9113 §8.1 [data-before-headers]
            raise PeerError(
                ErrorCode.PROTOCOL_ERROR, "DATA before the header section", frame.stream_id
            )
        stream.receive_window.receive(octets, frame.stream_id)
        stream.count_received(size, frame.end_stream)

    def _on_headers(self, frame: HeadersFrame, now: float, events: list[Event]) -> None:
        if frame.end_headers:
            self._check_block_octets(len(frame.field_block))
            self._on_field_block(frame, bytes(frame.field_block), events)
        else:
            self._block = frame
            self.half_since = now
            self._fragments = []
            self._block_octets = self._empty_fragments = 0
            self._add_fragment(frame.field_block)

    def _on_continuation(self, frame: ContinuationFrame, now: float, events: list[Event]) -> None:
        # The framer has seen to it that a field block is open and is this stream's.
        self._add_fragment(frame.field_block)
        limits = self.limits
        # RFC 9113 §10.5.1 [field-block-bounded]
        if len(self._fragments) > limits.continuations + 1:
            raise PeerError(
                ErrorCode.ENHANCE_YOUR_CALM, f"over {limits.continuations} CONTINUATION frames"
            )
        if self._empty_fragments > limits.empty_continuations:
            raise PeerError(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"over {limits.empty_continuations} empty CONTINUATION frames in a row",
            )
        if frame.end_headers and self._block is not None:
            block, self._block = self._block, None
            self.half_since = None
            fragments, self._fragments = self._fragments, NOTHING
            self._on_field_block(block, b"".join(fragments), events)

    def _add_fragment(self, fragment: Octets) -> None:
        """Keep one more piece of a field block."""
        self._fragments.append(fragment)
        self._empty_fragments = 0 if len(fragment) else self._empty_fragments + 1
        self._block_octets += len(fragment)
        self._check_block_octets(self._block_octets)

    def _check_block_octets(self, octets: int) -> None:
        # RFC 9113 §10.5.1 [field-block-bounded]: coded, a section takes fewer octets than the 32
        # a line with which it is counted, unless somebody has it take more.
        if octets > self.limits.field_section_octets:
            raise PeerError(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"field block over {self.limits.field_section_octets} octets",
            )

    def _on_field_block(self, frame: HeadersFrame, block: bytes, events: list[Event]) -> None:
        # RFC 9113 §4.3 [always-decoded], §5.4 [connection-error-first]: before anything else can
        # refuse the frame.
        section = self._block_decoder().decode(block)
        self._lines += len(section.fields)
        stream_id, end_stream = frame.stream_id, frame.end_stream
        stream = self.streams.get(stream_id)
        if stream is None:
            if self.client or not self._is_idle(stream_id):
                # RFC 9113 §5.1 [closed-minimal]: decoded and discarded.
                self._check_late("HEADERS", stream_id)
                self._count_chatter()
                return
            stream = self._accept(stream_id)
            if stream is None:
                return
        stream.receive(RECV_HEADERS)
        if frame.priority is not None:
            _refuse_self_dependency(frame.priority, stream_id)
        if stream.final_received:
            self._on_trailers(stream, section, end_stream, events)
        elif self.client:
            self._on_response(stream, section, end_stream, events)
        else:
            self._on_request(stream, section, end_stream, events)
        if end_stream:
            self._peer_ended(stream)

    def _accept(self, stream_id: int) -> Stream | None:
        """A client opens a stream; None: a GOAWAY has told it that we do not look at it."""
        # RFC 9113 §5.1.1 [client-stream-odd]
        if stream_id % 2 == 0:
            raise PeerError(ErrorCode.PROTOCOL_ERROR, f"HEADERS on a server's stream {stream_id}")
        if self._overdue is not None:
            raise self._overdue
        if stream_id > self._last_peer_stream_id + 2:
            self._note_skipped(stream_id)
        self._last_peer_stream_id = stream_id
        # RFC 9113 §6.8 [goaway-ignores-new]: this frame and all that follow on that stream.
        if self.goaway_sent is not None and stream_id > self.goaway_sent.last_stream_id:
            self._count_chatter()
            return None
        # RFC 9113 §5.1.2 [concurrency-exceeded]: from the start, though the client may not have
        # read our SETTINGS yet; it can try a refused stream again. §8.7 [refused-unprocessed]:
        # nobody has seen it. §5.1.2 [concurrency-counted], [concurrency-lowered]
        if len(self.streams) >= self.local_settings.announced(SettingId.MAX_CONCURRENT_STREAMS):
            raise PeerError(ErrorCode.REFUSED_STREAM, "too many streams at once", stream_id)
        stream = Stream(may_send_content=False)
        self._put_in_use(stream, stream_id)
        return stream

    def _put_in_use(self, stream: Stream, stream_id: int) -> None:
        """The stream leaves "idle": from now on it has an identifier and windows."""
        self._chatter -= CHATTER_FORGIVEN
        window = ReceiveWindow(*self._stream_window)
        stream.open(stream_id, self.peer_settings[SettingId.INITIAL_WINDOW_SIZE], window)
        self.streams[stream_id] = stream

    def _on_request(
        self, stream: Stream, section: Section, end_stream: bool, events: list[Event]
    ) -> None:
        _refuse_message(section.request_fault(), stream.stream_id)
        stream.final_received = True
        stream.answers_head = section.method == b"HEAD"
        stream.expected = section.declared
        stream.count_received(0, end_stream)
        events.append(ev.RequestReceived(stream.stream_id, [*section.fields], end_stream))

    def _on_response(
        self, stream: Stream, section: Section, end_stream: bool, events: list[Event]
    ) -> None:
        stream_id = stream.stream_id
        _refuse_message(section.response_fault(), stream_id)
        status = section.status
        if status >= 200:
            stream.final_received = True
            stream.expected = content_of_response(status, section.declared, stream.answers_head)
            stream.count_received(0, end_stream)
            events.append(ev.ResponseReceived(stream_id, status, [*section.fields], end_stream))
            return
        # RFC 9113 §8.1 [interim-end-stream]
        if end_stream:
            _refuse_message("an interim response ends the stream", stream_id)
        stream.interim_received += 1
        if stream.interim_received > self.limits.interim_responses:
            # RFC 9113 §10.5 [interim-bounded]
            raise PeerError(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"over {self.limits.interim_responses} interim responses",
                stream_id,
            )
        events.append(ev.InformationalReceived(stream_id, status, [*section.fields]))

    def _on_trailers(
        self, stream: Stream, section: Section, end_stream: bool, events: list[Event]
    ) -> None:
        stream_id = stream.stream_id
        # RFC 9113 §8.1 [trailers-end-stream]
        if not end_stream:
            _refuse_message("a second header section does not end the stream", stream_id)
        _refuse_message(section.trailers_fault(), stream_id)
        stream.count_received(0, end_stream)
        events.append(ev.TrailersReceived(stream_id, [*section.fields]))

    def _on_priority(self, frame: PriorityFrame, now: float, events: list[Event]) -> None:
        # RFC 9113 §5.3.2 [priority-ignored]: read and checked by its decode, used for nothing.
        # RFC 9113 §6.3 [priority-any-state]: so it does not matter whether the stream is open.
        self._count_chatter()
        _refuse_self_dependency(frame.priority, frame.stream_id)

    def _on_rst_stream(self, frame: RstStreamFrame, now: float, events: list[Event]) -> None:
        # RFC 9113 §6.4 [rst-stream-idle]
        self._check_not_idle("RST_STREAM", frame.stream_id)
        self._count_cut_short()
        stream = self.streams.get(frame.stream_id)
        # RFC 9113 §5.4.2 [reset-not-answered]: not even where the stream is closed already.
        if stream is None:
            self._count_chatter()
            return
        stream.receive(RECV_RESET)
        self._note_reset(frame.stream_id, -1)
        self._close_stream(stream)
        # RFC 9113 §8.1 [early-response]: what came before, a whole response say, is reported.
        events.append(ev.StreamReset(frame.stream_id, frame.error_code, True))

    def _on_settings(self, frame: SettingsFrame, now: float, events: list[Event]) -> None:
        if frame.ack:
            before = self._receive_limits()
            self.local_settings.acked()
            self._apply_receive_limits(before)
            events.append(ev.SettingsAcked())
            return
        self._count_chatter()
        # RFC 9113 §10.5 [settings-entries-bounded]
        if len(frame.settings) > self.limits.settings_entries:
            raise PeerError(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"SETTINGS frame of {len(frame.settings)} settings, "
                f"over {self.limits.settings_entries}",
            )
        self.settings_received = True
        window = highest = latest = self.peer_settings[SettingId.INITIAL_WINDOW_SIZE]
        changes = self.peer_settings.receive(frame.settings)
        for identifier, value in changes:
            if identifier == SettingId.INITIAL_WINDOW_SIZE:
                highest, latest = max(highest, value), value
            elif identifier == SettingId.HEADER_TABLE_SIZE:
                self._block_encoder().set_table_size(value)
        # RFC 9113 §10.5 [settings-work-bounded]: one frame may change it 2700 times.
        if highest != window or latest != window:
            self._resize_send_windows(highest - window, latest - highest)
        # RFC 9113 §6.5.3 [settings-ack], §3.4 [preface-acknowledged]
        self._count_answer()
        self._queue_control(_SETTINGS_ACK)
        events.append(ev.SettingsReceived(dict(changes)))

    def _resize_send_windows(self, up: int, down: int) -> None:
        """To the highest value that came, since that must not be too much, then to the last."""
        # RFC 9113 §6.9.2 [initial-window-adjusts]: open streams; the others start with it.
        for stream in self.streams.values():
            # RFC 9113 §6.9.2 [initial-window-overflow]: the reach is the connection.
            stream.send_window.widen(up)
            stream.send_window.widen(down)
            if stream.outgoing:
                self._schedule(stream)

    def _on_push_promise(self, frame: PushPromiseFrame, now: float, events: list[Event]) -> None:
        # RFC 9113 §6.6 [push-refused]: our first SETTINGS came before any request could.
        # RFC 9113 §8.4 [push-by-client]
        raise PeerError(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE, though push is off")

    def _on_ping(self, frame: PingFrame, now: float, events: list[Event]) -> None:
        opaque_data = bytes(frame.opaque_data)
        if not frame.ack:
            # RFC 9113 §6.7 [ping-ack], [ping-ack-first]
            self._count_answer()
            self._queue_urgent(encode_ping(opaque_data, ack=True))
            if self._answers > PINGS_IN_FLIGHT_MAX:  # who measures waits for what was asked before
                self._count_chatter()
            events.append(ev.PingReceived(opaque_data))
            return
        # RFC 9113 §6.7 [ping-ack-unanswered]
        times = self._pings.pop(opaque_data, None)
        if times is None:
            self._count_chatter()
            events.append(ev.UnknownPingAcked(opaque_data))
            return
        if not self._pings:
            self._pings = NO_ENTRIES
        asked_at, sent_at = times
        if sent_at is None:  # an ack of what has not left: the peer guesses
            sent_at = now
        events.append(ev.PingAcked(opaque_data, now - sent_at, sent_at - asked_at))

    def _on_goaway(self, frame: GoAwayFrame, now: float, events: list[Event]) -> None:
        self._count_chatter()
        last = frame.last_stream_id
        if self.goaway_received is not None:
            # A raised limit revives nothing: the streams past it may be retried elsewhere by now.
            last = min(last, self.goaway_received.last_stream_id)
        debug_data = bytes(frame.debug_data)
        self.goaway_received = GoAwayFrame(last, frame.error_code, debug_data)
        events.append(ev.GoAwayReceived(last, frame.error_code, debug_data))
        # RFC 9113 §6.8 [goaway-unprocessed]
        left_out = [s for s in self.streams.values() if s.stream_id > last] if self.client else []
        said = f" {debug_data!r}" if debug_data else ""
        for stream in left_out:
            self._close_stream(stream)
            events.append(
                ev.StreamReset(
                    stream.stream_id,
                    ErrorCode.REFUSED_STREAM,
                    True,
                    f"left out by GOAWAY {error_name(frame.error_code)}{said}",
                )
            )

    def _on_window_update(self, frame: WindowUpdateFrame, now: float, events: list[Event]) -> None:
        self._count_chatter()
        if frame.stream_id == 0:
            self._send_window.widen(frame.window_size_increment)
        else:
            self._check_not_idle("WINDOW_UPDATE", frame.stream_id)
            stream = self.streams.get(frame.stream_id)
            # RFC 9113 §6.9 [window-update-closed]
            if stream is None:
                return
            stream.send_window.widen(frame.window_size_increment, frame.stream_id)
            if stream.outgoing:
                self._schedule(stream)
        events.append(ev.WindowUpdated(frame.stream_id))

    def _on_unknown(self, frame: UnknownFrame, now: float, events: list[Event]) -> None:
        # RFC 9113 §5.5 [unknown-frame-discarded]
        self._count_chatter()

    def _on_oversized(self, frame: OversizedFrame, now: float, events: list[Event]) -> None:
        if frame.type == DataFrame.TYPE:
            # RFC 9113 §6.9 [data-always-counted]: though nothing of it is kept.
            self._receive_window.receive(frame.length)
            self._credit_connection(frame.length)
        # RFC 9113 §4.2 [frame-too-large]
        raise PeerError(
            ErrorCode.FRAME_SIZE_ERROR,
            f"frame of {frame.length} octets on stream {frame.stream_id}",
            frame.stream_id,
        )

    # -- bookkeeping -----------------------------------------------------------------------

    def _is_idle(self, stream_id: int) -> bool:
        """Neither side has opened that stream, or one with a higher identifier."""
        if stream_id % 2 == (1 if self.client else 0):
            return stream_id >= self._next_stream_id
        return stream_id > self._last_peer_stream_id

    def _is_closed(self, stream_id: int) -> bool:
        return stream_id > 0 and stream_id not in self.streams and not self._is_idle(stream_id)

    def _check_late(self, name: str, stream_id: int) -> None:
        """DATA or HEADERS on a stream that is not open: raise what it costs, or let it pass.

        It passes on a stream that we reset: it may have left before our RST_STREAM arrived.
        """
        # RFC 9113 §5.1 [closed-no-timers]: however late it is.
        self._check_not_idle(name, stream_id)
        # RFC 9113 §6.8 [goaway-ignores-new]: however many streams these are.
        goaway = self.goaway_sent
        if goaway is not None and not self.client and stream_id > goaway.last_stream_id:
            return
        left = self._resets.get(stream_id)
        # RFC 9113 §5.4.2 [reset-once]
        if left is not None and left >= 0:
            return
        # RFC 9113 §5.1.1 [stream-id-lower]
        if any(stream_id in skipped for skipped in self._skips):
            raise PeerError(
                ErrorCode.PROTOCOL_ERROR, f"{name} on stream {stream_id}, which was passed over"
            )
        # RFC 9113 §5.1 [closed-minimal]: where it may be one we reset, nobody is accused.
        if left is None and stream_id <= self._forgotten:
            return
        # RFC 9113 §6.1 [data-closed], §5.1 [closed-by-reset]: the stream's business. §5.1
        # [closed-by-end]: HEADERS after END_STREAM would use the stream a second time.
        reach = 0 if name == "HEADERS" and left is None else stream_id
        raise PeerError(ErrorCode.STREAM_CLOSED, f"{name} on closed stream {stream_id}", reach)

    def _count_chatter(self) -> None:
        """A frame came that moves no message; they are forgiven by time, and by what does move."""
        limits, now = self.limits, self._active_at or 0.0
        if self._chatter > 0:
            forgiven = (now - self._chatter_at) * limits.chatter_per_s
            self._chatter = max(0.0, self._chatter - forgiven)
        # What moved before has made as much good in advance: who reads late updates late.
        self._chatter = max(self._chatter, -limits.chatter) + 1
        self._chatter_at = now
        # RFC 9113 §10.5 [small-frames]
        if self._chatter > limits.chatter:
            raise PeerError(
                ErrorCode.ENHANCE_YOUR_CALM, f"over {limits.chatter} frames that move nothing"
            )

    def _count_cut_short(self) -> None:
        """The peer has reset a stream, or has made us reset one."""
        # RFC 9113 §10.5 [resets-bounded]: MAX_CONCURRENT_STREAMS does not see such streams, yet
        # each is a request that somebody has begun to answer.
        if self.client or self._active_at is None:  # a client's were requests of its own
            return
        if self._cut_short_at is None:
            self._cut_short_at = deque(maxlen=self.limits.resets)
        instants, now = self._cut_short_at, self._active_at
        if len(instants) == self.limits.resets and now - instants[0] < RESETS_PERIOD_S:
            raise PeerError(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"over {self.limits.resets} requests cut short in {RESETS_PERIOD_S:g} s",
            )
        instants.append(now)

    def _count_late(self, stream_id: int, octets: int) -> None:
        """Content came for a stream that is closed: it may have left before that was known."""
        left = self._resets.get(stream_id)
        if left is not None and octets <= left:
            self._resets[stream_id] = left - octets
        else:
            self._count_chatter()

    def _note_reset(self, stream_id: int, left: int) -> None:
        if len(self._resets) >= RESETS_REMEMBERED_MAX:
            oldest = next(iter(self._resets))
            if self._resets.pop(oldest) >= 0:
                self._forgotten = max(self._forgotten, oldest)
        if not self._resets:
            self._resets = {}
        self._resets[stream_id] = left

    def _note_skipped(self, stream_id: int) -> None:
        # RFC 9113 §5.1.1 [lower-streams-close]
        latest = range(self._last_peer_stream_id + 1, stream_id)
        self._skips = [*self._skips[1 - SKIPS_REMEMBERED_MAX :], latest]

    def _check_not_idle(self, name: str, stream_id: int) -> None:
        # RFC 9113 §5.1 [idle-frames], [unpermitted-frames]
        if self._is_idle(stream_id):
            raise PeerError(ErrorCode.PROTOCOL_ERROR, f"{name} on idle stream {stream_id}")

    def _peer_ended(self, stream: Stream) -> None:
        stream.receive(RECV_END)
        if stream.state == CLOSED:
            self._close_stream(stream)

    def _credit_connection(self, octets: int) -> None:
        increment = self._receive_window.consume(octets)
        if increment:
            self._queue_credit(0, increment)

    def _credit_stream(self, stream: Stream, octets: int) -> None:
        increment = stream.receive_window.consume(octets)
        if increment and stream.state in (OPEN, HALF_CLOSED_LOCAL):
            self._queue_credit(stream.stream_id, increment)

    def _queue_credit(self, stream_id: int, increment: int) -> None:
        if not self._credit:
            self._credit = {}
        self._credit[stream_id] = self._credit.get(stream_id, 0) + increment


# What may be said about a stream that is not open.
_CODES_FOR_CLOSED = (ErrorCode.STREAM_CLOSED, ErrorCode.REFUSED_STREAM)
_SETTINGS_ACK = SettingsFrame(ack=True).encode()

_HANDLERS: dict[type[Frame], Callable[[Connection, Any, float, list[Event]], None]] = {
    DataFrame: Connection._on_data,
    HeadersFrame: Connection._on_headers,
    PriorityFrame: Connection._on_priority,
    RstStreamFrame: Connection._on_rst_stream,
    SettingsFrame: Connection._on_settings,
    PushPromiseFrame: Connection._on_push_promise,
    PingFrame: Connection._on_ping,
    GoAwayFrame: Connection._on_goaway,
    WindowUpdateFrame: Connection._on_window_update,
    ContinuationFrame: Connection._on_continuation,
    UnknownFrame: Connection._on_unknown,
    OversizedFrame: Connection._on_oversized,
}


def _check_no_push(settings: dict[int, int]) -> None:
    # RFC 9113 §6.5.2 [enable-push-zero]: from a client, 1 would invite what ends the connection.
    if settings.get(SettingId.ENABLE_PUSH):
        raise UsageError("push is not offered: ENABLE_PUSH stays 0")


def check_request(section: Section) -> None:
    """Raise LocalProtocolError for a request's field section that may not be sent."""
    # RFC 9113 §8.3 [malformed-not-sent]
    _refuse(section.request_fault())
    if section.method == b"CONNECT":
        # RFC 9113 §8.5 [connect-tunnel]
        raise LocalProtocolError("CONNECT is not offered")


def _refuse(fault: str | None) -> None:
    if fault:
        raise LocalProtocolError(fault)


def _refuse_self_dependency(priority: Priority, stream_id: int) -> None:
    # RFC 7540 §5.3.1 [self-dependency]
    if priority.stream_dependency == stream_id:
        raise PeerError(
            ErrorCode.PROTOCOL_ERROR, f"stream {stream_id} depends on itself", stream_id
        )


def _refuse_message(fault: str | None, stream_id: int) -> None:
    # RFC 9113 §8.1.1 [malformed-stream-error]
    if fault:
        raise PeerError(ErrorCode.PROTOCOL_ERROR, f"malformed message: {fault}", stream_id)
