"""Timers: one heap of instants for whatever waits.

Numbers in, items out: it reads no clock and calls nobody.  Cancelled instants stay in the heap
until their time comes or they outnumber the others, so setting and cancelling are cheap.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CANCELLED_MAX = 64  # beside one for each that waits, before the heap is swept


class Timers:
    """At most one deadline for each item; items compare and hash by identity.

    changed   `next_deadline` may have another answer; for whoever asks it to set to False
    """

    __slots__ = ("changed", "_heap", "_count", "_numbers", "_waiting")

    def __init__(self) -> None:
        # A heap of (instant, number): the number, not the item, so that one that is gone is not
        # kept alive until its instant comes.
        self._heap: list[tuple[float, int]] = []
        self.changed = False
        self._count = 0
        self._numbers: dict[Any, int] = {}
        self._waiting: dict[int, Any] = {}  # numbers that are not here were cancelled

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._waiting)

    def set(self, item: Any, deadline: float | None) -> None:
        """Have the item come up at an instant, or, None, not at all."""
        number = self._numbers.pop(item, None)
        if number is not None:
            del self._waiting[number]
            self.changed = True
        if deadline is None:
            return
        self.changed = True
        self._count += 1
        self._numbers[item] = self._count
        self._waiting[self._count] = item
        heappush(self._heap, (deadline, self._count))
        if len(self._heap) > 2 * len(self._waiting) + CANCELLED_MAX:
            self._heap = [timer for timer in self._heap if timer[1] in self._waiting]
            heapify(self._heap)

    def next_deadline(self) -> float | None:
        """The earliest instant at which an item comes up."""
        heap = self._heap
        while heap and heap[0][1] not in self._waiting:
            heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, now: float) -> Any | None:
        """The item whose instant came first, if that is at `now` or before; it waits no more."""
        heap = self._heap
        if not heap or heap[0][0] > now:
            return None
        due = self.next_deadline()  # which drops those that were cancelled
        if due is None or due > now:
            return None
        self.changed = True
        item = self._waiting.pop(heappop(self._heap)[1])
        del self._numbers[item]
        return item
