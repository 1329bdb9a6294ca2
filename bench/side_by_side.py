"""Run jobs, print their tables, and keep their figures.

    python -m bench.side_by_side JOB ... [--peers] [--rounds N] [--json FOLDER]

A job is a module of this folder: its docstring says what is timed and what is left out, `measure`
does it, and PINNING says on which cores.  `figures.py` says how variants are compared.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

from . import figures
from .figures import ROUNDS, Measured, Options
from .units import convert, number, unit_of

# In the report's order.
JOBS = (
    "ping",
    "ping_split",
    "ping_busy",
    "ping_many",
    "codec",
    "get_codec",
    "gets",
    "one_by_one",
    "serving",
    "transfers",
    "checks",
    "memory",
    "startup",
    "detection",
    "scaling",
)
_MODULES = {"ping": "pings"}  # where a job's module is not called like it


def module_name(job: str) -> str:
    return _MODULES.get(job, job)


def job_module(job: str) -> Any:
    return import_module(f".{module_name(job)}", __package__)


def table(results: list[Measured]) -> str:
    """A line for each, those that are compared in one unit."""
    columns = ("min", "p50", "p90", "p99", "p99.9", "x first")
    lines = [" " * 51 + "".join(f"{column:>9}" for column in columns)]
    for (what, load), group in groupby(results, key=lambda one: (one.what, one.load)):
        name = what if load is None else f"{what} x {load:g}"
        compared = list(group)
        unit = unit_of(compared)
        for one in compared:
            values = (one.min, one.p50, one.p90, one.p99, one.p999)
            texts = "".join(f"{number(convert(value, one.unit, unit)):>9}" for value in values)
            ratio = "" if one.to_floor is None else f"{one.to_floor:.2f}"
            lines.append(f"{name + ': ' + one.variant:<44}{unit:>7}{texts}{ratio:>9}")
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


def main(argv: list[str]) -> int:
    """Run the jobs; one that fails keeps no other from running.  Returns the exit code."""
    options = arguments(argv)
    around = figures.circumstances("")
    print(f"{around['python']} ({around['built']}) on {around['machine']}")
    print(", ".join(f"{name} {version}" for name, version in around["versions"].items()) + "\n")
    absent: set[str] = set()
    failed = []
    for job in options.jobs or JOBS:
        of_job = Options(options.peers, options.rounds, set())
        try:
            run_job(job, of_job, options.json)
        except Exception:  # noqa: BLE001  told at once, and again at the end
            traceback.print_exc()
            failed.append(job)
        absent |= of_job.absent
    for one in sorted(absent):
        print(f"without {one}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
