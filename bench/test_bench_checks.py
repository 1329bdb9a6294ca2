"""What does it cost to check connections once a second, and does it slow requests down?

Timed: a second or two in the life of a few connections that are checked; what matters is the
processor's time they took, and the requests beside them, which `python -m bench.side_by_side
checks` prints for up to 10 000 of them.  checks.py says what is measured and what is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crowd import crowd_server, lacking
from tests.peers.servers import Ground

from . import checks
from .crowds import GO, H2, OURS, Crowds
from .figures import Options

CONNECTIONS = 10


@pytest.fixture(scope="module")
def crowds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowds]:
    if reason := lacking(CONNECTIONS):
        pytest.skip(reason)
    with crowd_server() as port:
        yield Crowds(Ground(tmp_path_factory.mktemp("bench")), port, Options(True, 1, set()))


def measure(benchmark, crowds: Crowds, name: str) -> None:
    benchmark.group = f"{CONNECTIONS} connections checked once a second"
    if not crowds.present(name):
        pytest.skip(f"no {name} here")
    nanoseconds = benchmark.pedantic(lambda: checks.one_turn(crowds, name, CONNECTIONS, 0.0))
    assert nanoseconds > 0
    benchmark.extra_info["cpu_ns_a_check"] = nanoseconds


def test_h2lite(benchmark, crowds):
    measure(benchmark, crowds, OURS)


@pytest.mark.peer
@pytest.mark.parametrize("name", [GO, H2])
def test_peers(benchmark, crowds, name):
    measure(benchmark, crowds, name)


@pytest.mark.parametrize("period", checks.PERIODS)
def test_requests_beside_checks(benchmark, monkeypatch, period):
    benchmark.group = "GETs beside checks"
    monkeypatch.setattr(checks, "ASK_S", 0.1)
    if reason := lacking(CONNECTIONS):
        pytest.skip(reason)
    with crowd_server() as port:
        seen = benchmark.pedantic(
            lambda: dict(checks.ask(port, CONNECTIONS, checks.PERIODS[period]))
        )
    assert [*seen] == [checks.ONE_BY_ONE, checks.TOGETHER]
    assert all(min(times) > 0 for times in seen.values())
