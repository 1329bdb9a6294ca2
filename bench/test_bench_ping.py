"""How much longer than the bare octets does a PING's round trip take?

Timed: one PING and its ack on an open connection of an idle client, back to back.  The floor is
the same 17 octets on a bare socket by selectors, against the same server; every process is on
one core.  Left out: connecting, the TLS handshake, SETTINGS.  pings.py says what each client
does.  Percentiles and ratios, clients in turns: python -m bench.side_by_side ping.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.peers.servers import CLEAR, TLS, Ground

from . import pings
from .figures import cores, on_core
from .variant import FLOOR

pytestmark = [
    pytest.mark.benchmark(max_time=0.5),
    pytest.mark.parametrize("security", [CLEAR, TLS]),
]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with on_core(cores(pings.PINNING)[0]):
        ground = Ground(tmp_path_factory.mktemp("bench"))
        yield ground
        ground.stop()


def measure(benchmark, ground: Ground, server: str, client: str, security: str) -> None:
    benchmark.group = f"ping {server} {security}"
    with pings.variant(client, pings.target(ground, server, security)) as variant:
        answer = benchmark(variant.run)
        assert variant.holds(answer)


@pytest.mark.parametrize("client", [FLOOR, pings.CORE, pings.PUBLIC])
def test_echo(benchmark, ground, client, security):
    measure(benchmark, ground, pings.ECHO, client, security)


@pytest.mark.peer
@pytest.mark.parametrize("client", [FLOOR, pings.CORE, pings.PUBLIC])
def test_nghttpd(benchmark, ground, client, security):
    measure(benchmark, ground, pings.NGHTTPD, client, security)


@pytest.mark.peer
def test_h2_library_against_nghttpd(benchmark, ground, security):
    pytest.importorskip("h2", reason="h2 is in the peers' set: make peers")
    measure(benchmark, ground, pings.NGHTTPD, pings.H2, security)
