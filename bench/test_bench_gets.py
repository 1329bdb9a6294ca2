"""What does a small GET cost, a hundred at once on one connection, and one after the other?

Timed: a round of GETs, fields the same or differing, each answer's status and content looked at.
getters.py says what each client does; the server is h2lite's own, in a process on the other core
(for the peers: nghttpd), so it may be the slower of the two.  Left out: connecting.  Clients in
turns, and how many streams at once: python -m bench.side_by_side gets.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

import h2lite
from tests.peers.servers import Ground

from . import gets, getters, places
from .figures import SPLIT, cores, on_core
from .getters import BLOCKING, CORE, H2, HTTPX, JH2, POLL, PUBLIC
from .variant import OURS, Variant

pytestmark = pytest.mark.benchmark(max_time=0.5)

GETS = 200
PATHS = gets.TASKS["differing"]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    ground = Ground(tmp_path_factory.mktemp("bench"))
    yield ground
    ground.stop()


@pytest.fixture(scope="module")
def ours(ground: Ground) -> places.Place:
    with on_core(cores(SPLIT)[1]):
        return places.start(ground, OURS)


@pytest.fixture(scope="module")
def nghttpd(ground: Ground) -> places.Place:
    with on_core(cores(SPLIT)[1]):
        return places.start(ground, places.NGHTTPD)


def measure(benchmark, ground: Ground, place: places.Place, client: str, task: str) -> None:
    benchmark.group = f"{GETS} GETs {task}"
    with on_core(cores(SPLIT)[0]), ExitStack() as stack:
        variant = gets.variant(stack, client, ground, place, gets.TASKS[task], GETS)
        assert isinstance(variant, Variant)
        answer = benchmark(variant.run)
        assert variant.holds(answer)


@pytest.mark.parametrize("task", gets.TASKS)
@pytest.mark.parametrize("client", [CORE, PUBLIC, POLL, BLOCKING])
def test_h2lite(benchmark, ground, ours, client, task):
    measure(benchmark, ground, ours, client, task)


@pytest.mark.peer
@pytest.mark.parametrize("task", gets.TASKS)
@pytest.mark.parametrize("client", [CORE, H2, JH2, HTTPX])
def test_against_nghttpd(benchmark, ground, nghttpd, client, task):
    if client != CORE:
        pytest.importorskip(client, reason=f"{client} is in the peers' set: make peers")
    measure(benchmark, ground, nghttpd, client, task)


@pytest.mark.peer
@pytest.mark.parametrize("task", gets.TASKS)
def test_go_against_nghttpd(ground, nghttpd, task):
    with getters.GoGetter(ground, nghttpd, gets.TASKS[task]) as getter:
        assert 0 < getter.at_once(GETS).samples(1)[0] < 1e9
        assert len(getter.one_by_one().samples(3)) == 3


def differing(place: places.Place) -> set[str]:
    """The fields of which two responses to `differing` have other values."""
    with h2lite.ConnectionPool() as pool:
        one, other = (
            dict(pool.get(place.url + path).headers)
            for path in itertools.islice(PATHS.paths(), 1, 3)
        )
    return {name for name in one if name != "date" and one[name] != other[name]}


def test_one_field_of_responses_differs(ours):
    assert differing(ours) == {"x-item"}


@pytest.mark.peer
@pytest.mark.parametrize(
    ("server", "field"), [(places.GO, "x-item"), (places.NGHTTPD, "last-modified")]
)
def test_one_field_of_peers_responses_differs(ground, server, field):
    assert differing(places.start(ground, server)) == {field}
