"""How long does content take on one stream, down and up, in cleartext and under TLS?

Timed: one transfer of a few MiB on an open connection, to and from h2lite's own server in a
process on the other core.  movers.py says what each client does; before, each has moved some
content that was compared as a whole.  256 MiB, clients in turns, and Go's server:
python -m bench.side_by_side transfers.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.peers.servers import CLEAR, TLS, Ground

from . import movers, places, transfers
from .figures import SPLIT, cores, on_core
from .getters import CORE, GO, H2, PUBLIC
from .variant import OURS

pytestmark = [
    pytest.mark.parametrize("direction", [movers.DOWN, movers.UP]),
    pytest.mark.parametrize("security", [CLEAR, TLS]),
]

OCTETS = 16 * movers.MIB


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    ground = Ground(tmp_path_factory.mktemp("bench"))
    yield ground
    ground.stop()


def measure(
    benchmark, ground: Ground, server: str, client: str, direction: str, security: str
) -> None:
    benchmark.group = f"{OCTETS // movers.MIB} MiB {direction} {security} {server}"
    our_core, their_core = cores(SPLIT)
    with on_core(their_core):
        place = places.start(ground, server, security)
    with on_core(our_core):
        mover = transfers.checked(client, place)
        variant = movers.variant(client, mover, direction, OCTETS)
        answer = benchmark.pedantic(variant.run, rounds=3)
        mover.close()
    assert variant.holds(answer)


@pytest.mark.parametrize("client", [CORE, PUBLIC])
def test_h2lite(benchmark, ground, client, direction, security):
    measure(benchmark, ground, OURS, client, direction, security)


@pytest.mark.peer
@pytest.mark.parametrize("client", [CORE, PUBLIC, H2])
def test_against_go(benchmark, ground, client, direction, security):
    if client == H2:
        pytest.importorskip("h2", reason="h2 is in the peers' set: make peers")
    measure(benchmark, ground, GO, client, direction, security)


@pytest.mark.peer
def test_go_against_go(ground, direction, security):
    place = places.start(ground, GO, security)
    with movers.GoMover(ground, place, direction, OCTETS) as mover:
        assert 0 < mover.sampled().samples(1)[0] < 1e9
