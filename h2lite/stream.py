"""One stream: the state table of RFC 9113 §5.1, and what waits to be sent on it.

Looks states up and counts octets; frames, HPACK and the connection's windows are
connection.py's.  Push is switched off, so no stream is ever reserved.
"""

from __future__ import annotations

from collections import deque

from .errors import ErrorCode, PeerError, UsageError
from .window import ReceiveWindow, SendWindow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .events import Fields
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
    final_received   a final header section came (client: not a 1xx; server: the request)
    """

    __slots__ = (
        "stream_id",
        "state",
        "send_window",
        "receive_window",
        "outgoing",
        "queued_octets",
        "end_queued",
        "trailers",
        "final_received",
        "scheduled",
    )

    def __init__(self, stream_id: int, send_window: int, receive_window: int) -> None:
        self.stream_id = stream_id
        self.state = IDLE
        self.send_window = SendWindow(send_window)
        self.receive_window = ReceiveWindow(receive_window)
        self.outgoing: deque[Octets] = deque()
        self.queued_octets = 0
        self.end_queued = False  # the caller has said that nothing follows
        self.trailers: Fields | None = None
        self.final_received = False
        self.scheduled = False  # stands in the connection's round of streams with DATA

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
        state = TRANSITIONS.get((self.state, signal))
        if state is None:
            raise UsageError(
                f"cannot {SIGNAL_NAMES[signal]} on stream {self.stream_id}, "
                f"{STATE_NAMES[self.state]}"
            )
        self.state = state

    def queue(self, data: Octets, end_stream: bool) -> None:
        """Put content behind what already waits.  Raises UsageError after the end was queued."""
        if self.end_queued or self.state in (CLOSED, HALF_CLOSED_LOCAL):
            raise UsageError(f"stream {self.stream_id} takes no more content")
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
