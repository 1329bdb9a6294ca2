"""How soon is a cold process ready: what does an import cost, how long until the first PING?

Timed: a whole process, from its start to its end; startup.py says what each does and what is left
out.  Percentiles, memory and what is beyond the bare interpreter: python -m bench.side_by_side
startup.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.peers.servers import CLEAR, TLS, Ground

from . import startup
from .figures import Options
from .variant import FLOOR, OURS

pytestmark = pytest.mark.benchmark(max_time=0.5)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    ground = Ground(tmp_path_factory.mktemp("bench"))
    yield ground
    ground.stop()


@pytest.mark.parametrize("name", [FLOOR, OURS, startup.POOL])
def test_import(benchmark, name):
    measure_import(benchmark, name)


@pytest.mark.peer
@pytest.mark.parametrize("name", startup.PEERS)
def test_import_of_peers(benchmark, name):
    pytest.importorskip(name, reason=f"{name} is in the peers' set: make peers")
    measure_import(benchmark, name)


def measure_import(benchmark, name: str) -> None:
    benchmark.group = "import"
    variant = startup.program(name, startup.bare(*startup.IMPORTS[name]))
    assert variant.holds(benchmark(variant.run))


def test_memory():
    floor, ours = startup.memory([FLOOR, OURS], 1)
    assert 0 < floor.p50 < 2**30
    assert ours.to_floor is not None


@pytest.mark.parametrize("security", [CLEAR, TLS])
def test_first_ping(benchmark, ground, security):
    benchmark.group = f"first PING {security}"
    _, ours = startup.pingers(ground, security, Options(False, 1, set()))
    assert ours.holds(benchmark(ours.run))


@pytest.mark.peer
@pytest.mark.parametrize("security", [CLEAR, TLS])
def test_peers_and_ours_against_nghttpd(ground, security):
    for variant in startup.pingers(ground, security, Options(True, 1, set())):
        assert variant.holds(variant.run()), variant.name
