"""Hold the figures against the budgets: is each of them met?

    python -m bench.check [FOLDER]

Reads budgets.toml and the jobs' JSON in FOLDER (bench/results), and prints each budget as `met`,
`short` or `not measured`, with its figure.  It is a report and never a test: what a machine does
on one day breaks no build, so the exit code is 0 whatever it says.
"""

from __future__ import annotations

import argparse
import math
import operator
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from .figures import FOLDER, RATIO, Measured, median_ratio, read_all
from .units import DIGITS, TOLD_IN, convert, number

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BUDGETS = FOLDER / "budgets.toml"
RESULTS = FOLDER / "results"
WORDS = MET, SHORT, NOT_MEASURED = "met", "short", "not measured"
VALUES = ("min", "p50", "p90", "p99", "p999", "max")
DIRECTIONS = {"at most": operator.le, "at least": operator.ge}


def geometric_mean(values: list[float]) -> float:
    return math.prod(values) ** (1 / len(values))


FOLDS: dict[str, Callable[[list[float]], float]] = {
    "geometric mean": geometric_mean,
    "least": min,
    "greatest": max,
}


class Budget(NamedTuple):
    """One of budgets.toml, which says what each field means."""

    name: str
    job: str
    what: list[str]
    variant: str
    direction: str
    limit: float
    unit: str
    value: str
    over: list[str]
    minus: str
    load: float | None
    fold: str
    stretch: float | None
    firm: bool
    others: str

    @property
    def limit_text(self) -> str:
        return f"{self.direction} {self.limit:g} {self.unit}"

    @property
    def stretch_text(self) -> str:
        return "" if self.stretch is None else f"{self.stretch:g} {self.unit}"


class Verdict(NamedTuple):
    """How a budget stands: `figure` in its unit, None where it was not measured."""

    budget: Budget
    figure: float | None

    @property
    def word(self) -> str:
        if self.figure is None:
            return NOT_MEASURED
        return MET if self._keeps(self.budget.limit) else SHORT

    @property
    def stretched(self) -> bool:
        """Is what was hoped for reached, too?"""
        return self.budget.stretch is not None and self._keeps(self.budget.stretch)

    @property
    def figure_text(self) -> str:
        if self.figure is None:
            return ""
        limit, digits = self.budget.limit, DIGITS
        while number(self.figure, digits) == number(limit, digits) and self.figure != limit:
            digits += 1  # 1.302 is not "1.30, at most 1.3: short"
        return f"{number(self.figure, digits)} {self.budget.unit}"

    def _keeps(self, limit: float) -> bool:
        return self.figure is not None and bool(
            DIRECTIONS[self.budget.direction](self.figure, limit)
        )


def budgets(path: Path = BUDGETS) -> list[Budget]:
    """All of them, in the file's order.  Raises ValueError for one that says no sense."""
    return [_budget(dict(entry)) for entry in tomllib.loads(path.read_text())["budget"]]


def _budget(entry: dict[str, Any]) -> Budget:
    def listed(field: str) -> list[str]:
        given = entry.pop(field, [])
        return [given] if isinstance(given, str) else given

    name = entry.pop("name")
    directions = [word for word in DIRECTIONS if word.replace(" ", "_") in entry]
    if len(directions) != 1:
        raise ValueError(f"{name}: want one of at_most and at_least")
    (direction,) = directions
    budget = Budget(
        name,
        entry.pop("job"),
        listed("what"),
        entry.pop("variant"),
        direction,
        entry.pop(direction.replace(" ", "_")),
        entry.pop("unit", RATIO),
        entry.pop("value", "p50"),
        listed("over"),
        entry.pop("minus", ""),
        entry.pop("load", None),
        entry.pop("fold", "greatest"),
        entry.pop("stretch", None),
        entry.pop("firm", False),
        entry.pop("others", ""),
    )
    if entry:
        raise ValueError(f"{name}: what is {', '.join(entry)}?")
    for field, known in (("fold", FOLDS), ("value", VALUES), ("unit", TOLD_IN)):
        said = getattr(budget, field)
        if said not in known:
            raise ValueError(f"{name}: no {field} {said}")
    return budget


def judge(budget: Budget, results: list[Measured]) -> Verdict:
    """One budget, by the figures of its job.  Raises ValueError where it should say which load."""
    lines = {}
    for one in results:
        if budget.load is not None and one.load != budget.load:
            continue
        if one.what in budget.what and (one.what, one.variant) in lines:
            raise ValueError(f"{budget.name}: under which load?")
        lines[one.what, one.variant] = one
    values = [_value(budget, what, lines) for what in budget.what]
    present = [value for value in values if value is not None]
    if len(present) < len(values):
        return Verdict(budget, None)
    return Verdict(budget, FOLDS[budget.fold](present))


def _value(
    budget: Budget, what: str, lines: dict[tuple[str, str], Measured]
) -> float | None:
    """The budget's figure for one `what`, in its unit; None where a line of it is missing."""
    ours = lines.get((what, budget.variant))
    if ours is None:
        return None
    if budget.over:
        others = [lines[what, name] for name in budget.over if (what, name) in lines]
        # Against the best of several; those that were not there say nothing.
        return max((ratio(ours, other, budget.value) for other in others), default=None)
    value = value_of(ours, budget.value)
    if budget.minus:
        bare = lines.get((what, budget.minus))
        if bare is None:
            return None
        value = difference(ours, bare, budget.value)
    return convert(value, ours.unit, budget.unit)


def value_of(one: Measured, value: str) -> float:
    return max(one.rounds) if value == "max" else float(getattr(one, value))


def ratio(this: Measured, that: Measured, value: str) -> float:
    """How many times that's; of medians, round by round where both had the same rounds."""
    if value == "p50" and len(this.rounds) == len(that.rounds):
        return median_ratio(this.rounds, that.rounds)
    return value_of(this, value) / value_of(that, value)


def difference(this: Measured, that: Measured, value: str) -> float:
    """How much more than that's, in the figures' unit; of medians as in `ratio`."""
    if value == "p50" and len(this.rounds) == len(that.rounds):
        return median(mine - its for mine, its in zip(this.rounds, that.rounds, strict=True))
    return value_of(this, value) - value_of(that, value)


def judge_all(folder: Path) -> list[Verdict]:
    """Every budget by what lies in `folder`."""
    measured = {job: results for job, (_, results) in read_all(folder).items()}
    return [judge(budget, measured.get(budget.job, [])) for budget in budgets()]


def text(verdicts: list[Verdict]) -> str:
    """A line for each, and how many there are of each word."""
    width = max(len(verdict.budget.name) for verdict in verdicts)
    lines = []
    for verdict in verdicts:
        budget = verdict.budget
        stretch = f"stretch {budget.stretch_text}" if budget.stretch_text else ""
        if verdict.stretched:
            stretch += ", reached"
        lines.append(
            f"{verdict.word:<13} {budget.name:<{width}} {verdict.figure_text:>12}"
            f"   {budget.limit_text:<18} {stretch}".rstrip()
        )
    return "\n".join([*lines, "", counted(verdicts)])


def counted(verdicts: list[Verdict]) -> str:
    words = [verdict.word for verdict in verdicts]
    return ", ".join(f"{words.count(word)} {word}" for word in WORDS)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", nargs="?", type=Path, default=RESULTS, metavar="FOLDER")
    print(text(judge_all(parser.parse_args(argv).folder)))


if __name__ == "__main__":
    main(sys.argv[1:])
