"""One stream: the state table of RFC 9113 §5.1, and what waits to be sent on it.

Looks states up and counts octets; frames, HPACK and the connection's windows are
connection.py's.  Push is switched off, so no stream is ever reserved.
"""

from __future__ import annotations

from collections import deque

from .errors import ErrorCode, LocalProtocolError, PeerError, UsageError
from .window import ReceiveWindow, SendWindow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .fields import Section
    from .frames import Octets

# States (RFC 9113 §5.1, figure 2)
IDLE, OPEN, HALF_CLOSED_LOCAL, HALF_CLOSED_REMOTE, CLOSED = range(5)
STATE_NAMES = ("idle", "open", "half-closed (local)", "half-closed (remote)", "closed")

# Signals: a frame crossing, or the END_STREAM flag on it
SEND_HEADERS, SEND_DATA, SEND_END, SEND_RESET, RECV_HEADERS, RECV_DATA, RECV_END, RECV_RESET = (
    range(8)
)
SIGNAL_NAMES = (
    "send HEADERS",
    "send DATA",
    "send END_STREAM",
    "send RST_STREAM",
    "receive HEADERS",
    "receive DATA",
    "receive END_STREAM",
    "receive RST_STREAM",
)

# (state, signal) -> next state; what is not here must not happen.
TRANSITIONS = {
    (IDLE, SEND_HEADERS): OPEN,
    (IDLE, RECV_HEADERS): OPEN,
    (OPEN, SEND_HEADERS): OPEN,
    (OPEN, RECV_HEADERS): OPEN,
    (OPEN, SEND_DATA): OPEN,
    (OPEN, RECV_DATA): OPEN,
    (OPEN, SEND_END): HALF_CLOSED_LOCAL,
    (OPEN, RECV_END): HALF_CLOSED_REMOTE,
    (OPEN, SEND_RESET): CLOSED,
    (OPEN, RECV_RESET): CLOSED,
    (HALF_CLOSED_LOCAL, RECV_HEADERS): HALF_CLOSED_LOCAL,
    (HALF_CLOSED_LOCAL, RECV_DATA): HALF_CLOSED_LOCAL,
    (HALF_CLOSED_LOCAL, RECV_END): CLOSED,
    (HALF_CLOSED_LOCAL, SEND_RESET): CLOSED,
    (HALF_CLOSED_LOCAL, RECV_RESET): CLOSED,
    (HALF_CLOSED_REMOTE, SEND_HEADERS): HALF_CLOSED_REMOTE,
    (HALF_CLOSED_REMOTE, SEND_DATA): HALF_CLOSED_REMOTE,
    (HALF_CLOSED_REMOTE, SEND_END): CLOSED,
    (HALF_CLOSED_REMOTE, SEND_RESET): CLOSED,
    (HALF_CLOSED_REMOTE, RECV_RESET): CLOSED,
}


class Stream:
    """A stream's handle and bookkeeping.

    stream_id        0 until its HEADERS are encoded: ids are taken only then
    state            see TRANSITIONS
    send_window      octets the peer takes on this stream
    receive_window   octets it may send us
    queued_octets    content waiting to be framed
    sent_at          when some was framed last; seconds
    final_received   a final header section came (client: not a 1xx; server: the request)
    may_send_content a final header section of ours was queued, so content may follow
    unread_octets    content received and not yet consumed
    answers_head     the request is a HEAD: the response has no content whatever it declares
    expected         octets of content the peer declared, None when it did not
    promised         octets of content we declared, None when we did not
    interim_received 1xx responses so far
    sections         of its header and trailer sections that wait to be framed, how many
    sent_octets      content that was framed
    received_octets  content that came
    unwanted_octets  content that came though the response was whole; None: it is wanted
    """

    __slots__ = (
        "stream_id",
        "state",
        "send_window",
        "receive_window",
        "outgoing",
        "queued_octets",
        "sent_at",
        "end_queued",
        "trailers",
        "final_received",
        "may_send_content",
        "unread_octets",
        "answers_head",
        "expected",
        "interim_received",
        "unwanted_octets",
        "promised",
        "received_octets",
        "sections",
        "sent_octets",
        "_offered_octets",
        "scheduled",
    )

    def __init__(self, may_send_content: bool) -> None:
        self.stream_id = 0
        self.state = IDLE
        self.send_window = SendWindow(0)
        self.receive_window = ReceiveWindow(0)
        self.outgoing: deque[Octets] = deque()
        self.queued_octets = 0
        self.sent_at = 0.0
        self.end_queued = False  # the caller has said that nothing follows
        self.trailers: Section | None = None
        self.final_received = False
        self.may_send_content = may_send_content
        self.unread_octets = 0
        self.answers_head = False
        self.expected: int | None = None
        self.interim_received = 0
        self.unwanted_octets: int | None = None
        self.promised: int | None = None
        self.received_octets = 0
        self.sections = 0
        self.sent_octets = 0
        self._offered_octets = 0
        self.scheduled = False  # stands in the connection's round of streams with DATA

    def open(self, stream_id: int, send_window: int, receive_window: ReceiveWindow) -> None:
        """Take an identifier and windows, as they stand when the stream leaves "idle"."""
        self.stream_id = stream_id
        self.send_window.size = send_window
        self.receive_window = receive_window

    def receive(self, signal: int) -> None:
        """The peer did `signal`.  Raises PeerError where §5.1 does not allow it."""
        state = TRANSITIONS.get((self.state, signal))
        if state is None:
            # RFC 9113 §5.1 [half-closed-remote-frames]
            raise PeerError(
                ErrorCode.STREAM_CLOSED,
                f"{SIGNAL_NAMES[signal]} on stream {self.stream_id}, {STATE_NAMES[self.state]}",
                self.stream_id,
            )
        self.state = state

    def send(self, signal: int) -> None:
        """We do `signal`.  Raises UsageError where §5.1 does not allow it."""
        # RFC 9113 §5.1 [half-closed-local-sends], §6.1 [data-sent-open]
        state = TRANSITIONS.get((self.state, signal))
        if state is None:
            raise UsageError(
                f"cannot {SIGNAL_NAMES[signal]} on stream {self.stream_id}, "
                f"{STATE_NAMES[self.state]}"
            )
        self.state = state

    def count_received(self, octets: int, end_stream: bool) -> None:
        """Hold received content against what was declared.  Raises PeerError."""
        self.received_octets += octets
        if self.expected is None:
            return
        received = self.received_octets
        # RFC 9113 §8.1.1 [content-length]
        if received > self.expected or (end_stream and received != self.expected):
            raise PeerError(
                ErrorCode.PROTOCOL_ERROR,
                f"malformed message: {received} octets of content, {self.expected} declared",
                self.stream_id,
            )

    def announce(self, content_octets: int | None, end_stream: bool) -> None:
        """Our header section is about to be queued; it declares that much content.

        Raises LocalProtocolError when the stream ends with it and content was declared.
        """
        if end_stream and content_octets:
            raise LocalProtocolError(f"{content_octets} octets of content declared, none sent")
        self.promised = content_octets
        self.end_queued = end_stream

    def queue(self, data: Octets, end_stream: bool) -> None:
        """Put content behind what already waits.  Raises UsageError after the end was queued."""
        if self.end_queued or self.state in (CLOSED, HALF_CLOSED_LOCAL):
            raise UsageError(f"stream {self.stream_id} takes no more content")
        # RFC 9113 §8.1 [header-section-first]
        if not self.may_send_content:
            raise LocalProtocolError(f"stream {self.stream_id}: a final response comes first")
        offered = self._offered_octets + len(data)
        promised = self.promised
        if promised is not None and (offered > promised or (end_stream and offered != promised)):
            raise LocalProtocolError(
                f"{offered} octets of content on stream {self.stream_id}, {promised} declared"
            )
        self._offered_octets = offered
        if data:
            self.outgoing.append(memoryview(data))
            self.queued_octets += len(data)
        self.end_queued = end_stream

    def drop(self) -> None:
        """Closed: forget what was not sent."""
        self.state = CLOSED
        self.outgoing.clear()
        self.queued_octets = 0
        self.trailers = None
