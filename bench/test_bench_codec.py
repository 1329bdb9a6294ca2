"""How long does a frame take, from octets to a typed, validated object and back?

Timed: one recv's worth of frames of one type, parsed or serialised one after the other; the
report's times are for all of them, `frames` in its extra info says how many.  codec.py says what
each variant does.  Left out: sockets, HPACK, and what a connection does with a frame.
"""

from __future__ import annotations

import pytest

from . import codec
from .variant import FLOOR, OURS

pytestmark = [
    pytest.mark.benchmark(max_time=0.25),
    pytest.mark.parametrize("case", codec.CASES),
    pytest.mark.parametrize("direction", codec.DIRECTIONS),
]


def measure(benchmark, name: str, direction: str, case: str) -> None:
    benchmark.group = f"{direction} {case}"
    variant = codec.variant(name, direction, codec.CASES[case])
    benchmark.extra_info["frames"] = variant.operations
    result = benchmark(variant.run)
    assert variant.holds(result)


def test_floor(benchmark, direction, case):
    measure(benchmark, FLOOR, direction, case)


def test_h2lite(benchmark, direction, case):
    measure(benchmark, OURS, direction, case)


@pytest.mark.peer
def test_hyperframe(benchmark, direction, case):
    pytest.importorskip("hyperframe", reason="hyperframe is in the peers' set: make peers")
    measure(benchmark, codec.HYPERFRAME, direction, case)
