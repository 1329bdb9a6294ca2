"""One ground for a session's peer tests, and the peers' output in a failing test's report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .servers import Ground

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

GROUND = pytest.StashKey[Ground]()


@pytest.fixture(scope="session")
def ground(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ground]:
    ground = Ground(tmp_path_factory.mktemp("peers"))
    request.config.stash[GROUND] = ground
    yield ground
    ground.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    ground = item.config.stash.get(GROUND, None)
    if report.failed and ground is not None:
        report.sections.extend(
            (f"output of {peer.name}", peer.output()) for peer in ground.peers if peer.output()
        )
    return report
