"""Flow-control windows: how many octets of DATA may still cross, each way.

Plain counting; who sends WINDOW_UPDATE, and when, is connection.py's business.
Grounds: RFC 9113 §5.2 and §6.9.
"""

from __future__ import annotations

from .errors import ErrorCode, PeerError
from .settings import MAX_WINDOW_SIZE


class SendWindow:
    """What the peer still takes from us.  `size` is negative after a lowered setting."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size

    def take(self, octets: int) -> None:
        """Count octets that leave; the caller has looked at `size`."""
        self.size -= octets

    def widen(self, increment: int, stream_id: int = 0) -> None:
        """The peer's WINDOW_UPDATE, or a changed INITIAL_WINDOW_SIZE (may be negative).

        Raises PeerError(FLOW_CONTROL_ERROR) past 2^31-1; the window is left as it was.
        """
        # RFC 9113 §6.9.1 [window-overflow]
        if self.size + increment > MAX_WINDOW_SIZE:
            raise PeerError(
                ErrorCode.FLOW_CONTROL_ERROR,
                f"window of stream {stream_id} over 2^31-1",
                stream_id,
            )
        self.size += increment


class ReceiveWindow:
    """What the peer may still send us, and what we owe it in WINDOW_UPDATE.

    size    octets the peer may still send; negative after a lowered setting
    owed    octets consumed and not yet given back
    limit   octets the peer was told the window holds when nothing is outstanding: fewer than
            `size` while a lowered setting is on its way to it
    """

    __slots__ = ("limit", "size", "owed")

    def __init__(self, limit: int, size: int | None = None) -> None:
        self.limit = limit
        self.size = limit if size is None else size
        self.owed = 0

    def receive(self, octets: int, stream_id: int = 0) -> None:
        """Count a flow-controlled payload.  Raises PeerError when the peer sent too much."""
        # RFC 9113 §6.9.1 [window-exceeded]: an empty frame may come in a window below zero.
        if octets > self.size and octets:
            raise PeerError(
                ErrorCode.FLOW_CONTROL_ERROR,
                f"DATA of {octets} octets in a window of {self.size} on stream {stream_id}",
                stream_id,
            )
        self.size -= octets

    def resize(self, difference: int, limit: int) -> None:
        """Our INITIAL_WINDOW_SIZE has changed what the peer may use, and what it was told."""
        self.size += difference
        self.limit = limit

    def consume(self, octets: int) -> int:
        """Give octets back; the increment to announce now, 0 while it would be a small one."""
        self.owed += octets
        # RFC 9113 §6.9.1 [window-update-small]: half a window is worth a frame.
        if self.owed * 2 < self.limit:
            return 0
        increment, self.owed = self.owed, 0
        self.size += increment
        return increment
