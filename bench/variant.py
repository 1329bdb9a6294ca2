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
    """

    name: str
    run: Callable[[], Any]
    holds: Callable[[Any], bool]
    operations: int = 1


class Sampled(NamedTuple):
    """A variant that takes its own times: in another process, or inside of an event loop.

    samples   does the job so many times, and returns the nanoseconds each took; it has checked
              each result itself, outside the timed part
    """

    name: str
    samples: Callable[[int], list[float]]
