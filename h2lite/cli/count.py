"""How many frames of each type have crossed, told from the octets beside the connections.

Frame headers alone are read and nothing is judged, so counting costs a fraction of what handling
a frame costs, and the engine carries no counters for it.
"""

from __future__ import annotations

from ..framer import CLIENT_PREFACE
from ..frames import FRAME_HEADER, FRAME_HEADER_SIZE, frame_name

_unpack_header = FRAME_HEADER.unpack_from


class FrameCounts:
    """The sums over all connections of a server; `tap` makes what counts one of them."""

    def __init__(self) -> None:
        self.received: dict[int, int] = {}
        self.sent: dict[int, int] = {}

    def tap(self) -> _Counter:
        return _Counter(self)

    def by_name(self) -> dict[str, dict[str, int]]:
        """{"in": {"HEADERS": 3, ...}, "out": ...}, unknown types as their numbers."""
        return {
            "in": {frame_name(type_): count for type_, count in sorted(self.received.items())},
            "out": {frame_name(type_): count for type_, count in sorted(self.sent.items())},
        }


class _Counter:
    """A tap (see transport.py) of one connection, server's side."""

    def __init__(self, counts: FrameCounts) -> None:
        self._received = _Direction(counts.received, skip=len(CLIENT_PREFACE))
        self._sent = _Direction(counts.sent, skip=0)

    def __call__(self, received: bool, octets: bytes) -> None:
        (self._received if received else self._sent).feed(octets)


class _Direction:
    """skip: octets before the next frame header, which may not have come yet."""

    def __init__(self, counts: dict[int, int], skip: int) -> None:
        self._counts = counts
        self._skip = skip
        self._begun = b""  # a frame header that has not come whole

    def feed(self, octets: bytes) -> None:
        if self._begun:
            octets = self._begun + octets
        at, size = self._skip, len(octets)
        while at + FRAME_HEADER_SIZE <= size:
            high, low, type_, _, _ = _unpack_header(octets, at)
            at += FRAME_HEADER_SIZE + (high << 8 | low)
            self._counts[type_] = self._counts.get(type_, 0) + 1
        self._begun = octets[at:]
        self._skip = max(0, at - size)
