"""How many small requests does the server answer?

Timed: one run of h2load against the server, which has a core of its own.  places.py says what
each server is.  What h2load itself says, servers in turns: python -m bench.side_by_side serving.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.peers.servers import Ground

from . import places, serving
from .figures import SPLIT, cores, on_core
from .variant import OURS

REQUESTS = 1000


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    ground = Ground(tmp_path_factory.mktemp("bench"))
    yield ground
    ground.stop()


def measure(benchmark, ground: Ground, name: str, shape: tuple[int, int]) -> None:
    our_core, their_core = cores(SPLIT)
    with on_core(their_core):
        place = places.start(ground, name)
    load = serving.Load(place, REQUESTS, *shape)
    benchmark.group = f"{REQUESTS} requests of h2load, {shape}"
    with on_core(our_core):
        took = benchmark.pedantic(load.run)
    assert 0 < took < 1e9


@pytest.mark.parametrize("shape", serving.SHAPES)
def test_h2lite(benchmark, ground, shape):
    measure(benchmark, ground, OURS, shape)


@pytest.mark.peer
@pytest.mark.parametrize("shape", serving.SHAPES)
@pytest.mark.parametrize("name", serving.PEERS)
def test_peers(benchmark, ground, name, shape):
    measure(benchmark, ground, name, shape)
