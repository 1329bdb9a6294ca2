"""What does a GET cost without sockets, and what of it are field blocks?

Timed: BATCH GETs between two connections in memory, or BATCH field sections encoded or decoded;
the report's times are for all of them.  get_codec.py says what the cases and the floor are.
Left out: the system.
"""

from __future__ import annotations

import pytest

from . import get_codec
from .variant import FLOOR, OURS, Variant

pytestmark = pytest.mark.benchmark(max_time=0.25)

CALLS = 500


def measure(benchmark, group: str, variant: Variant) -> None:
    benchmark.group = group
    benchmark.extra_info["operations"] = variant.operations
    result = benchmark(variant.run)
    assert variant.holds(result)


@pytest.mark.parametrize("case", get_codec.GET_CASES)
def test_get(benchmark, case):
    measure(benchmark, f"GET {case}", get_codec.get_variant(OURS, case))


@pytest.mark.peer
@pytest.mark.parametrize("case", get_codec.GET_CASES)
@pytest.mark.parametrize("library", [get_codec.H2, get_codec.JH2])
def test_get_of_peers(benchmark, library, case):
    pytest.importorskip(library, reason=f"{library} is in the peers' set: make peers")
    measure(benchmark, f"GET {case}", get_codec.get_variant(library, case))


@pytest.mark.parametrize("case", get_codec.FIELDS_CASES)
@pytest.mark.parametrize("direction", [get_codec.ENCODE, get_codec.DECODE])
@pytest.mark.parametrize("name", [FLOOR, OURS])
def test_fields(benchmark, name, direction, case):
    variant = get_codec.fields_variant(name, direction, case, CALLS)
    measure(benchmark, f"fields {direction} {case}", variant)
