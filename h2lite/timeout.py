"""How long each step of a request may take.

Numbers only; `call.py` says what each step is measured from, and the pool judges.
"""

from __future__ import annotations

import math

from .errors import UsageError
from .value import Value


class Timeout(Value):
    """Seconds that each step of a request may take; None: no limit of its own.

    connect   until a connection is up; None: the pool's own, `HealthPolicy.connect_timeout`
    read      for the next of the response, once the request has left; not counted while content
              that has come waits for its reader
    write     for the peer to take the next of the request's content
    pool      for room on the connections that are up
    total     for the whole exchange, from the call to the last octet of the content

    Raises UsageError for what is no number above 0.
    """

    __slots__ = ("connect", "read", "write", "pool", "total")

    def __init__(
        self,
        connect: float | None = None,
        read: float | None = None,
        write: float | None = None,
        pool: float | None = None,
        total: float | None = None,
    ) -> None:
        self.connect = connect
        self.read = read
        self.write = write
        self.pool = pool
        self.total = total
        for name in self.slots():
            value = getattr(self, name)
            if value is not None:
                check_timeout(value, "timeout" if name == "total" else f"{name} timeout")


def check_timeout(seconds: object, name: str = "timeout") -> None:
    """Raise UsageError for what is no number of seconds above 0."""
    good = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not good or not 0 < seconds < math.inf:  # type: ignore[operator]
        raise UsageError(f"{name} of {seconds!r}, want seconds above 0")


NO_LIMITS = Timeout()
