"""How soon is a dead connection found, and a request after its death answered?

Timed: one freeze of a live connection, until it is DEAD and a request has been answered by
another one; detection.py says how.  The figures that matter, seconds from the freeze over twenty
phases of the PINGs' cycle, are printed by python -m bench.detection.
"""

from __future__ import annotations

import pytest

from tests.running import serving

from . import detection


@pytest.mark.benchmark(group="a frozen connection, R = P = 1 s")
def test_detection(benchmark):
    with serving() as server:
        result = benchmark.pedantic(lambda: detection.live(0.5, server.port), rounds=2)

    assert result.found >= detection.P_S  # never before the peer had its time
    assert result.cause == "peer_hung"
    assert result.answered > 0
