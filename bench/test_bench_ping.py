"""How much longer than the bare octets does a PING's round trip take?

Timed: one PING and its ack on an open connection of an idle client, back to back.  The floor is
the same 17 octets on a bare socket by selectors, against the same server; every process is on
one core.  Left out: connecting, the TLS handshake, SETTINGS.  ping_clients.py and ping_peers.py
say what each client does.  Percentiles and ratios, clients in turns, and the same on two cores:
python -m bench.side_by_side ping ping_split.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.peers.servers import CLEAR, TLS, Ground

from . import ping_rtt, pings
from .figures import cores, on_core
from .ping_servers import ECHO, NGHTTPD, target
from .variant import Sampled

pytestmark = [
    pytest.mark.benchmark(max_time=0.5),
    pytest.mark.parametrize("security", [CLEAR, TLS]),
]
SAMPLES_A_CALL = 10  # where a client takes its own times


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with on_core(cores(pings.PINNING)[0]):
        ground = Ground(tmp_path_factory.mktemp("bench"))
        yield ground
        ground.stop()


def measure(benchmark, ground: Ground, server: str, client: str, security: str) -> None:
    benchmark.group = f"ping {server} {security}"
    place = target(ground, server, security)
    with pings.variant(client, ground, place) as variant:
        if isinstance(variant, Sampled):
            times = benchmark(lambda: variant.samples(SAMPLES_A_CALL))
            assert len(times) == SAMPLES_A_CALL
            assert min(times) > 0
            return
        answer = benchmark(variant.run)
        assert variant.holds(answer)


@pytest.mark.parametrize("client", pings.OURS_APART)
def test_echo(benchmark, ground, client, security):
    measure(benchmark, ground, ECHO, client, security)


@pytest.mark.peer
@pytest.mark.parametrize("client", pings.OURS)
def test_nghttpd(benchmark, ground, client, security):
    measure(benchmark, ground, NGHTTPD, client, security)


@pytest.mark.peer
@pytest.mark.parametrize("client", pings.PEERS)
def test_peers_against_nghttpd(benchmark, ground, client, security):
    if client in pings.LIBRARIES:
        pytest.importorskip(pings.LIBRARIES[client], reason="in the peers' set: make peers")
    measure(benchmark, ground, NGHTTPD, client, security)


def test_what_is_reported_beside_the_wire(benchmark, ground, security):
    place = target(ground, ECHO, security)
    lines = benchmark.pedantic(lambda: ping_rtt.measure("rtt", place, 5, 1), rounds=1)
    assert [line.variant for line in lines] == [
        ping_rtt.WIRE,
        ping_rtt.RTT,
        ping_rtt.RTT_LESS_WIRE,
        ping_rtt.CHECKS_LESS_WIRE,
    ]
