"""Does anything grow worse than the work it does?

Timed: the same work at a small and at a larger load; the report's times are for all of it, `units`
in its extra info says how many they are.  scaling.py says what they are; the curves are drawn from
`python -m bench.side_by_side scaling`.
"""

from __future__ import annotations

import pytest

from h2lite import ConnectionPool

from . import scaling
from .variant import Variant

pytestmark = pytest.mark.benchmark(max_time=0.25)


def measure(benchmark, group: str, variant: Variant) -> None:
    benchmark.group = group
    benchmark.extra_info["units"] = variant.operations
    assert variant.holds(benchmark(variant.run))


@pytest.mark.parametrize("count", scaling.STREAMS)
def test_streams(benchmark, count):
    measure(benchmark, "streams", scaling.streams(count))


@pytest.mark.parametrize("count", scaling.LINES)
@pytest.mark.parametrize("differing", [False, True], ids=["repeated", "differing"])
def test_field_lines(benchmark, count, differing):
    measure(benchmark, f"field lines {differing=}", scaling.field_lines(count, differing))


@pytest.mark.parametrize("mib", scaling.MIB[:2])
def test_octets(benchmark, mib):
    with scaling.serving(None) as url, ConnectionPool() as pool:
        measure(benchmark, "octets", scaling.download(pool, url, mib))
