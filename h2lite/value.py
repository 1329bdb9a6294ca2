"""The base of every value class: `==`, `hash` and `repr` read from `__slots__`.

No dataclasses: they cost milliseconds of import and a factor of three per object, and frames
must also run on small interpreters.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _NoDict(dict["Any", "Any"]):
    """An empty dict that stays empty."""

    __slots__ = ()

    def __setitem__(self, *entry: object) -> None:
        raise TypeError("NO_ENTRIES takes none: put a dict in its place")

    setdefault = update = __setitem__  # type: ignore[assignment]


# In place of lists, deques and dicts with nothing in them.  They take 56, 760 and 64 octets, up to
# 224 where something was in them, and an idle connection has a dozen.
NOTHING: Any = ()
NO_ENTRIES: Any = _NoDict()


class Value:
    """A plain value: two of one class are equal when all their slots are."""

    __slots__ = ()

    @classmethod
    def slots(cls) -> list[str]:
        """All slot names, the base classes' first."""
        bases = reversed(cls.__mro__)
        return [name for base in bases for name in base.__dict__.get("__slots__", ())]

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.slots())

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in self.slots())))

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.slots())
        return f"{type(self).__name__}({values})"
