"""A memo: what was worked out once and would come out the same again, as long as its owner says.

Bounded in entries and in octets; full, it is emptied, which costs no more than it has saved.  It
never decides whether what it holds still holds: whoever keeps one clears it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENTRIES_MAX = 64
OCTETS_MAX = 8192  # a peer that fills all of a connection's memos costs 40 KiB
LINE_OCTETS = 64  # what the objects of a field line take beside its own octets


class Memo(dict["Any", "Any"]):
    """A dict for `get`; `keep` and `clear` alone change it."""

    __slots__ = ("_octets",)

    def __init__(self) -> None:
        self._octets = 0

    def keep(self, key: object, value: object, octets: int) -> None:
        """Remember something new that takes about so many octets; one that takes many is not."""
        if octets > OCTETS_MAX // 4:
            return
        if len(self) >= ENTRIES_MAX or self._octets + octets > OCTETS_MAX:
            self.clear()
        self._octets += octets
        self[key] = value

    def clear(self) -> None:
        super().clear()
        self._octets = 0


class _NoMemo(Memo):
    """It is everybody's, so nothing is kept."""

    __slots__ = ()

    def keep(self, key: object, value: object, octets: int) -> None:
        return

    def __setitem__(self, *entry: object) -> None:
        raise TypeError("NO_MEMO takes nothing: put a Memo in its place")


NO_MEMO: Memo = _NoMemo()  # in place of one in which nothing was kept yet
