"""Where every means is installed, a skipped scenario or peer test is a failure.

`.ci/run` sets H2LITE_NO_SKIP=1 after it has installed them; elsewhere such a test skips with its
reason.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.replaying import assert_cuts_make_no_difference, recorded

NO_SKIP = os.environ.get("H2LITE_NO_SKIP") == "1"
MARKS = ("scenario", "peer")


def refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure that keeps its reason; an expected failure stays one."""
    if report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"no skip is allowed here (H2LITE_NO_SKIP=1): {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if NO_SKIP and any(item.get_closest_marker(mark) for mark in MARKS):
        refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    # A module that skips as a whole never shows its marks: it is known by its path.
    report = yield
    if NO_SKIP and any(mark in collector.nodeid for mark in MARKS):
        refuse_skip(report)
    return report


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder for UNIX sockets, whose paths are limited: tmp_path is too long on macOS."""
    with TemporaryDirectory(dir="/tmp" if os.path.isdir("/tmp") else None) as folder:
        yield Path(folder)


@pytest.fixture
def every_cut(request: pytest.FixtureRequest) -> Iterator[None]:
    """All cores of the test live their histories again in other cuts: see replaying.py."""
    if request.node.get_closest_marker("uncut"):
        yield
        return
    with recorded() as histories:
        yield
    for history in histories:
        assert_cuts_make_no_difference(history)
