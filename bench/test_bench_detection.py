"""How soon is a dead connection found, and a request after its death answered?

Timed: one freeze of a live connection, until it is DEAD and a request has been answered by
another one; detection.py says how.  The figures that matter, seconds from the freeze over twenty
phases of the PINGs' cycle, are printed by python -m bench.detection.
"""

from __future__ import annotations

import pytest

from tests.peers.servers import Ground
from tests.running import serving

from . import detection

pytestmark = pytest.mark.benchmark(group="a frozen connection, R = P = 1 s")


def test_detection(benchmark):
    with serving() as server:
        result = benchmark.pedantic(lambda: detection.live(0.5, server.port), rounds=2)

    assert result.found >= detection.P_S  # never before the peer had its time
    assert result.cause == "peer_hung"
    assert result.answered > 0


@pytest.mark.peer
@pytest.mark.parametrize("name", [detection.GO, detection.GRPCIO, detection.HTTPX])
def test_detection_by_peers(benchmark, monkeypatch, tmp_path, name):
    monkeypatch.setattr(detection, "PATIENCE_S", 3.0)
    argv = detection.command_of(name, Ground(tmp_path))
    with serving(detection.handler) as server:
        result = benchmark.pedantic(
            lambda: detection.live_of_peer(name, argv, 0.5, server.port), rounds=1
        )

    is_found = result.found < detection.PATIENCE_S
    assert is_found is (name != detection.HTTPX)
    assert result.answered > 0
