"""Run jobs, print their tables, and keep their figures.

    python -m bench.side_by_side JOB ... [--peers] [--rounds N] [--json FOLDER]

A job is a module of this folder: its docstring says what is timed and what is left out, `measure`
does it, and PINNING says on which cores.  `figures.py` says how variants are compared.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

from . import figures
from .figures import NS, ROUNDS, Measured, Options

# In the report's order.
JOBS = ("ping", "codec", "memory", "checks", "startup", "detection", "scaling")
_MODULES = {"ping": "pings"}  # where a job's module is not called like it


def job_module(job: str) -> Any:
    return import_module(f".{_MODULES.get(job, job)}", __package__)


def table(results: list[Measured]) -> str:
    """Microseconds, where times were measured."""
    columns = ("min", "p50", "p90", "p99", "p99.9", "x floor")
    lines = [" " * 46 + "".join(f"{column:>11}" for column in columns)]
    for what, group in groupby(results, key=lambda one: one.what):
        for one in group:
            values = (one.min, one.p50, one.p90, one.p99, one.p999)
            scale, unit = (1000, "us") if one.unit == NS else (1, one.unit)
            figures_text = "".join(f"{value / scale:11.2f}" for value in values)
            ratio = "" if one.to_floor is None else f"{one.to_floor:11.2f}"
            name = what if one.load is None else f"{what} ({one.load:g})"
            lines.append(f"{name + ': ' + one.variant:<43}{unit:>3}{figures_text}{ratio:>11}")
        lines.append("")
    return "\n".join(lines)


def run_job(job: str, options: Options, folder: Path | None) -> None:
    module = job_module(job)
    around = figures.circumstances(module.PINNING)
    print(f"== {job}: {module.__doc__.splitlines()[0]}", flush=True)
    results = module.measure(options)
    print(table(results))
    summary = getattr(module, "summary", None)
    if summary is not None:
        print("\n".join(summary(results)) + "\n")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        figures.write(folder / f"{job}.json", job, around, options, results)


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.side_by_side",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"of {', '.join(JOBS)}; or all")
    parser.add_argument("--peers", action="store_true", help="measure the peers too")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, metavar="N", help=f"turns of each variant ({ROUNDS})"
    )
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="keep the figures there")
    options = parser.parse_args(argv)
    unknown = {*options.jobs} - {*JOBS}
    if unknown:
        parser.error(f"no job {min(unknown)}: choose from {', '.join(JOBS)}")
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    return options


def main(argv: list[str]) -> None:
    options = arguments(argv)
    around = figures.circumstances("")
    print(f"{around['python']} ({around['built']}) on {around['machine']}")
    print(", ".join(f"{name} {version}" for name, version in around["versions"].items()) + "\n")
    absent: set[str] = set()
    for job in options.jobs or JOBS:
        run_job(job, Options(options.peers, options.rounds, absent), options.json)
    for one in sorted(absent):
        print(f"without {one}")


if __name__ == "__main__":
    main(sys.argv[1:])
