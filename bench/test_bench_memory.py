"""How much memory does an idle connection take that is checked once a second?

Timed: a few connections' life, which says nothing; how many octets each of them takes is told by
`python -m bench.side_by_side memory`.  memory.py says what is counted and what is left out.
"""

from __future__ import annotations

import pytest

from tests.crowd import crowd_server, lacking
from tests.peers.servers import Ground

from . import memory
from .crowds import GO, GRPCIO, H2, HTTPX, OURS, Crowds
from .figures import Options

CONNECTIONS = 50
KINDS = {
    OURS: ["heap before", "heap after", "resident before", "resident after"],
    GO: ["heap before", "heap after", "resident before", "resident after"],
    H2: ["heap before", "heap after", "resident before", "resident after"],
    HTTPX: ["heap after", "resident after"],
    GRPCIO: ["resident before", "resident after"],
}


def measure(benchmark, monkeypatch, tmp_path, name: str) -> None:
    benchmark.group = f"memory of {CONNECTIONS} connections"
    monkeypatch.setattr(memory, "CHECKED_S", 0.1)
    if reason := lacking(CONNECTIONS):
        pytest.skip(reason)
    with crowd_server() as port:
        crowds = Crowds(Ground(tmp_path), port, Options(True, 1, set()))
        if not crowds.present(name):
            pytest.skip(f"no {name} here")
        seen = benchmark.pedantic(lambda: dict(memory.one_turn(crowds, name, CONNECTIONS)))
    assert [*seen] == [f"{kind} request" for kind in KINDS[name]]
    assert all(octets > 0 for what, octets in seen.items() if what.startswith(memory.HEAP))
    benchmark.extra_info.update(seen)


def test_h2lite(benchmark, monkeypatch, tmp_path):
    measure(benchmark, monkeypatch, tmp_path, OURS)


@pytest.mark.peer
@pytest.mark.parametrize("name", [GO, H2, HTTPX, GRPCIO])
def test_peers(benchmark, monkeypatch, tmp_path, name):
    measure(benchmark, monkeypatch, tmp_path, name)
