"""How long does a PING take on a connection that transfers at full speed, or is one of many?

Timed: a few turns of ping_busy.py and ping_many.py, transfers begun and connections opened
included: what they are for, percentiles in turns, is printed by
python -m bench.side_by_side ping_busy ping_many.
"""

from __future__ import annotations

import pytest

from tests.peers.servers import CLEAR, Ground

from . import ping_busy, ping_many
from .figures import Options
from .ping_servers import ECHO, target


@pytest.fixture
def ground(tmp_path):
    ground = Ground(tmp_path)
    yield ground
    ground.stop()


@pytest.mark.parametrize("case", ping_busy.CASES, ids=lambda case: case.name)
def test_beside_a_transfer(benchmark, ground, case):
    place = ping_busy.start_sink(ground, go=False)
    if case.is_slow:
        place = ping_busy.start_slow_path(ground, place)
    options = Options(peers=False, rounds=1, absent=set())
    lines = benchmark.pedantic(
        lambda: ping_busy.measure_case(ground, place, case, options), rounds=1
    )
    assert all(line.min > 0 for line in lines)


@pytest.mark.peer
@pytest.mark.parametrize("case", ping_busy.CASES, ids=lambda case: case.name)
def test_peers_beside_a_transfer(benchmark, ground, case):
    pytest.importorskip("h2", reason="h2 is in the peers' set: make peers")
    place = ping_busy.start_sink(ground, go=True)
    if case.is_slow:
        place = ping_busy.start_slow_path(ground, place)
    options = Options(peers=True, rounds=1, absent=set())
    lines = benchmark.pedantic(
        lambda: ping_busy.measure_case(ground, place, case, options), rounds=1
    )
    assert not options.absent
    assert {line.variant for line in lines} > {"h2", "go"}


@pytest.mark.parametrize("count", [1, 100])
def test_of_many(benchmark, ground, count):
    place = target(ground, ECHO, CLEAR)
    lines = benchmark.pedantic(
        lambda: ping_many.measure_count("ping of many", place, count, 1), rounds=1
    )
    assert [line.load for line in lines] == [count, count]
