"""Variants of one job measured in turns, A B C A B C, and their ratios printed.

    python -m bench.side_by_side {codec,ping} ... [--peers] [--json FILE]

Whatever else the machine does then falls on all of them alike.  The ratio to the floor is the
median, over all rounds, of the ratio of the two medians within one round; min and percentiles
are taken over all rounds together.  Every result is checked, outside the timed part.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import ssl
import sys
import tempfile
import time
from contextlib import ExitStack
from importlib import metadata
from itertools import groupby
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import pytest

import h2lite
from tests.peers.servers import CLEAR, TLS, Ground, command, run

from . import codec, pings
from .variant import FLOOR, OURS, Variant

ROUNDS = 200
WARM_UP_CALLS = 5  # at the start of each turn, untimed: the variant before has used the caches
CODEC_CALLS = 30  # a round, of up to codec.FRAMES_MAX frames each
PING_CALLS = 150  # a round
PEERS_PACKAGES = ("h2", "hyperframe")


class Measured(NamedTuple):
    """One line of the table; nanoseconds for one operation."""

    what: str
    variant: str
    min: float
    p50: float
    p90: float
    p99: float
    to_floor: float
    rounds: list[float]  # each round's median


def turn(variant: Variant, calls: int) -> list[float]:
    """One variant's turn: nanoseconds an operation, one value a call."""
    run, holds, operations = variant.run, variant.holds, variant.operations
    clock = time.perf_counter_ns
    for _ in range(WARM_UP_CALLS):
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


def compare(what: str, variants: list[Variant], calls: int, rounds: int) -> list[Measured]:
    """Measure variants in turns; the first one is the floor."""
    times: list[list[list[float]]] = [[] for _ in variants]
    for _ in range(rounds):
        for index, variant in enumerate(variants):
            times[index].append(turn(variant, calls))
    medians = [[median(of_round) for of_round in of_variant] for of_variant in times]
    measured = []
    for variant, of_variant, of_rounds in zip(variants, times, medians, strict=True):
        every = [value for of_round in of_variant for value in of_round]
        cuts = quantiles(every, n=100, method="inclusive")
        to_floor = median_ratio(of_rounds, medians[0])
        measured.append(
            Measured(
                what, variant.name, min(every), cuts[49], cuts[89], cuts[98], to_floor, of_rounds
            )
        )
    return measured


def median_ratio(these: list[float], those: list[float]) -> float:
    return median(this / that for this, that in zip(these, those, strict=True))


# -- codec ---------------------------------------------------------------------------------------


def side_by_side_codec(peers: bool, rounds: int, absent: set[str]) -> list[Measured]:
    results = []
    for direction in codec.DIRECTIONS:
        for name, case in codec.CASES.items():
            variants = [codec.variant(kind, direction, case) for kind in (FLOOR, OURS)]
            if peers:
                try:
                    variants.append(codec.variant(codec.HYPERFRAME, direction, case))
                except ModuleNotFoundError as error:
                    absent.add(f"{codec.HYPERFRAME}: {error}")
            results += compare(f"{direction} {name}", variants, CODEC_CALLS, rounds)
    return results


def against_hyperframe(results: list[Measured]) -> list[str]:
    """How many times h2lite's time hyperframe takes: a line for each direction."""
    by_name = {(one.what, one.variant): one.rounds for one in results}
    lines = []
    for direction in codec.DIRECTIONS:
        times = {
            case: median_ratio(
                by_name[f"{direction} {case}", codec.HYPERFRAME],
                by_name[f"{direction} {case}", OURS],
            )
            for case in codec.CASES
            if (f"{direction} {case}", codec.HYPERFRAME) in by_name
        }
        if not times:
            continue
        each = ", ".join(f"{case} {ratio:.2f}" for case, ratio in times.items())
        long_data = times.pop(codec.LONG_DATA)
        mean = math.prod(times.values()) ** (1 / len(times))
        lines.append(
            f"{direction}: hyperframe takes {mean:.2f} x h2lite's time (geometric mean of the "
            f"{len(times)} types; {codec.LONG_DATA} {long_data:.2f} x)\n    {each}"
        )
    return lines


# -- ping ----------------------------------------------------------------------------------------


def side_by_side_ping(peers: bool, rounds: int, absent: set[str]) -> list[Measured]:
    results = []
    servers = (pings.ECHO, pings.NGHTTPD) if peers else (pings.ECHO,)
    clients = [FLOOR, pings.CORE, pings.PUBLIC, *([pings.H2] if peers else [])]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        ground = Ground(Path(folder))
        stack.callback(ground.stop)
        for server in servers:
            for security in (CLEAR, TLS):
                try:
                    target = pings.target(ground, server, security)
                except pytest.skip.Exception as reason:
                    absent.add(f"{server}: {reason}")
                    continue
                what = f"ping {server} {security}"
                results += compare_pings(what, target, clients, rounds, absent)
    return results


def compare_pings(
    what: str, target: pings.Target, clients: list[str], rounds: int, absent: set[str]
) -> list[Measured]:
    with ExitStack() as stack:
        variants = []
        for client in clients:
            try:
                variants.append(stack.enter_context(pings.variant(client, target)))
            except ModuleNotFoundError as error:
                absent.add(f"{client}: {error}")
        return compare(what, variants, PING_CALLS, rounds)


# -- report --------------------------------------------------------------------------------------


def circumstances(core: int | None, peers: bool) -> dict[str, Any]:
    """What a figure means nothing without."""
    versions = {"h2lite": h2lite.__version__, "OpenSSL": ssl.OPENSSL_VERSION}
    for package in PEERS_PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if peers:
        try:
            program = command("nghttpd", "Debian package nghttp2-server")
            versions["nghttpd"] = run(program, "--version").stdout.decode().split()[-1]
        except pytest.skip.Exception:
            pass  # the job that misses it says so
    return {
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": versions,
        "core": core,
    }


def table(results: list[Measured]) -> str:
    columns = ("min us", "p50 us", "p90 us", "p99 us", "x floor")
    lines = [" " * 38 + "".join(f"{column:>9}" for column in columns)]
    for what, group in groupby(results, key=lambda one: one.what):
        for one in group:
            times = (one.min, one.p50, one.p90, one.p99)
            micros = "".join(f"{value / 1000:9.2f}" for value in times)
            lines.append(f"{what + ': ' + one.variant:<38}{micros}{one.to_floor:9.2f}")
        lines.append("")
    return "\n".join(lines)


def as_json(
    results: list[Measured], around: dict[str, Any], absent: set[str], rounds: int
) -> str:
    figures = []
    for one in results:
        figure = one._asdict()
        del figure["rounds"]
        figures.append(figure)
    whole = {**around, "rounds": rounds, "absent": sorted(absent), "nanoseconds": figures}
    return json.dumps(whole, indent=1) + "\n"


JOBS = {"codec": side_by_side_codec, "ping": side_by_side_ping}


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.side_by_side",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("jobs", nargs="+", choices=sorted(JOBS), metavar="{codec,ping}")
    parser.add_argument("--peers", action="store_true", help="measure the peers too")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, metavar="N", help=f"turns of each variant ({ROUNDS})"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    return options


def main(argv: list[str]) -> None:
    options = arguments(argv)
    absent: set[str] = set()
    results: list[Measured] = []
    with pings.one_core() as core:
        around = circumstances(core, options.peers)
        for job in options.jobs:
            results += JOBS[job](options.peers, options.rounds, absent)
    pinned = "not pinned" if core is None else f"all on core {core}"
    print(f"{around['python']} on {around['machine']}, {pinned}")
    print(", ".join(f"{name} {version}" for name, version in around["versions"].items()) + "\n")
    print(table(results))
    for line in [*against_hyperframe(results), *(f"without {one}" for one in sorted(absent))]:
        print(line)
    if options.json is not None:
        options.json.write_text(as_json(results, around, absent, options.rounds))


if __name__ == "__main__":
    main(sys.argv[1:])
