"""What a bench compares: variants of one job, each with the proof that it did it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

FLOOR = "floor"
OURS = "h2lite"


class Variant(NamedTuple):
    """One way to do the job.

    run          what is timed
    holds        is this result of `run` right?  Asked outside the timed part
    operations   how often one `run` does the job; times are given for one operation
    times        what is timed by another process: the nanoseconds of one operation, one value or
                 more, as the result tells them; None: `run` is timed
    """

    name: str
    run: Callable[[], Any]
    holds: Callable[[Any], bool]
    operations: int = 1
    times: Callable[[Any], list[float]] | None = None
