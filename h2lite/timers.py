"""Timers: one heap of instants for whatever waits.

Numbers in, items out: it reads no clock and calls nobody.  Cancelled instants stay in the heap
until their time comes or they outnumber the others, so setting and cancelling are cheap.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CANCELLED_MAX = 64  # beside one for four that wait, before the heap is swept


class Timers:
    """At most one deadline for each item; items compare and hash by identity.

    changed   `next_deadline` may have another answer; for whoever asks it to set to False
    """

    __slots__ = ("changed", "_heap", "_count", "_entries")

    def __init__(self) -> None:
        self.changed = False
        # A heap of [instant, number, item]; the number comes first among equals.  A cancelled one
        # has no item any more, which would be kept alive until the instant comes.
        self._heap: list[list[Any]] = []
        self._count = 0
        self._entries: dict[Any, list[Any]] = {}

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._entries)

    def set(self, item: Any, deadline: float | None) -> None:
        """Have the item come up at an instant, or, None, not at all."""
        entries = self._entries
        if item in entries:
            entries[item][2] = None
            self.changed = True
            if deadline is None:
                del entries[item]
        if deadline is None:
            return
        self.changed = True
        self._count += 1
        entry = entries[item] = [deadline, self._count, item]
        heap = self._heap
        heappush(heap, entry)
        if len(heap) > len(entries) + len(entries) // 4 + CANCELLED_MAX:
            self._heap = [entry for entry in heap if entry[2] is not None]
            heapify(self._heap)

    def next_deadline(self) -> float | None:
        """The earliest instant at which an item comes up."""
        heap = self._heap
        while heap and heap[0][2] is None:
            heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, now: float) -> Any | None:
        """The item whose instant came first, if that is at `now` or before; it waits no more."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            item = heappop(heap)[2]
            if item is not None:
                self.changed = True
                del self._entries[item]
                return item
        return None
