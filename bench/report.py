"""Write bench/README.md and its pictures from bench/results.

    python -m bench.report [--results FOLDER] [--to FOLDER]

All of the page comes from somewhere else: figures from the jobs' JSON, what is timed and what is
left out from the docstrings of the jobs' modules, budgets from budgets.toml.  The same figures
make the same page, and with the same matplotlib the same pictures.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from . import check, side_by_side
from .colours import ours
from .figures import FOLDER, FREE, NS, SAME, SPLIT, Measured, read_all
from .units import TIME, amount, convert, kind_of, number, thousands, unit_of

PICTURES = "pictures"
PAGE = "README.md"
PANELS_MAX = 12  # of one picture
SOAK = "soak"  # no job of side_by_side: tests/soak.py writes it
SPREADS, BARS, CURVES, STRIPS = "spreads", "bars", "curves", "strips"  # in pictures.py
TIMED, LEFT_OUT = "Timed:", "Left out:"

HEAD = """\
# How fast h2lite is, and beside whom

Written by `make bench-report` from the figures in [results/](results/): edit the benches, not this
page. `make bench` measures h2lite and its floors in minutes, `make bench-peers` everybody side by
side, and `make bench-check` holds the figures against [budgets.toml](budgets.toml).

How to read it. The variants of a table took turns, A B C A B C, so whatever else the machine did
fell on all of them alike. "x first" is how many times the first line's median a variant takes: the
median, over all rounds, of the ratio of the two medians within one round. Minimum and percentiles
are taken over all rounds together. Every result was checked for being right, outside of the timed
part. A floor does the least that the job needs and checks nothing, so no client can be faster.
Ways to use h2lite are in **bold**; in pictures they are blue."""

LIMITS = """\
## What these figures do not show

- **A network.** All is loopback, on one machine: no loss, no distance, no other traffic. On a real
  network most of a round trip is the network's, and the differences here disappear in it.
- **An idle core's waking.** Where client and server share a core (`same`), nobody has to be woken
  on another one. With a core each (`split`), on a virtual machine, 50 to 60 us of waking come on
  top of every round trip.
- **Your Python.** Another version, another build (the distribution's, pyenv's, with or without
  profile-guided optimisation) or another processor gives other figures; ratios move less.
- **A quiet machine.** This one is virtual and has neighbours; p99.9 and beyond tell of them as
  much as of anything measured here. Compare within a table rather than between two runs.
- **The peers at their best.** Each is used as its documentation shows, in the release named above.
  Who knows one well may get more out of it; and what a peer checks of what it receives differs.
- **Several processes.** h2lite's own work is on one core throughout; Go, nghttp2 and grpcio may
  use more threads, on the cores they are given."""

PINNINGS = {
    SAME: "client and server on one core",
    SPLIT: "a core each for client and server",
    FREE: "on any core",
}


# -- Markdown -----------------------------------------------------------------------------------


def table(header: list[str], rows: list[list[str]], texts: int = 1) -> str:
    """A table of which the first `texts` columns are text and the others are figures."""
    aligned = ["---" if column < texts else "---:" for column in range(len(header))]
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (header, aligned, *rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in escaped)


def name_of(variant: str) -> str:
    return f"**{variant}**" if ours(variant) else variant


# -- what the modules say -----------------------------------------------------------------------


class Said(NamedTuple):
    """A job's docstring, cut where the page wants it.

    title       its first line
    measured    the paragraphs after it, without what is left out
    left_out    what comes after "Left out:", to the end of the paragraph
    """

    title: str
    measured: str
    left_out: str


def docstring(path: Path) -> str:
    """A module's, without importing it: the plotting set lacks what most of them import."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def numbers(path: Path) -> dict[str, str]:
    """A module's constants that are numbers, as a reader wants them."""
    found = {}
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(statement, ast.Assign):
            continue
        target, value = statement.targets[0], statement.value
        pairs = [(target, value)]
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            pairs = list(zip(target.elts, value.elts, strict=True))
        for name, expression in pairs:
            result = _number(expression)
            if isinstance(name, ast.Name) and result is not None:
                found[name.id] = thousands(result)
    return found


def _number(expression: ast.expr) -> float | None:
    """Of a literal, or of products and powers of them: 256 * 2**20."""
    if isinstance(expression, ast.Constant) and type(expression.value) in (int, float):
        return float(expression.value)  # type: ignore[arg-type]
    if isinstance(expression, ast.BinOp) and isinstance(expression.op, (ast.Mult, ast.Pow)):
        left, right = _number(expression.left), _number(expression.right)
        if left is not None and right is not None:
            return left * right if isinstance(expression.op, ast.Mult) else float(left**right)
    return None


def explained(path: Path) -> str:
    """A module's docstring, where the first mention of a constant has its number beside it."""
    text = docstring(path)
    for name, value in numbers(path).items():
        text = re.sub(rf"\b{name}\b", f"{name} ({value})", text, count=1)
    return text


def said(text: str) -> Said:
    title, _, rest = text.partition("\n")
    kept, left_out = [], []
    for paragraph in rest.strip("\n").split("\n\n"):
        measured, found, missing = paragraph.partition(LEFT_OUT)
        if found:
            left_out.append(missing.strip())
        if measured.strip():
            kept.append(measured.rstrip())
    return Said(title, "\n\n".join(kept), "\n\n".join(left_out))


def module_path(job: str) -> Path:
    if job == SOAK:
        return FOLDER.parent / "tests" / "load.py"
    return FOLDER / f"{side_by_side.module_name(job)}.py"


def referred(text: str) -> list[Path]:
    """The modules beside the jobs' that a docstring sends its reader to.

    Not those that say how they are run: they are programs of their own, to which a job talks.
    """
    paths = [FOLDER / name for name in dict.fromkeys(re.findall(r"\b(\w+\.py)\b", text))]
    return [path for path in paths if path.exists() and "    python " not in docstring(path)]


# -- a job's tables -----------------------------------------------------------------------------


def percentiles(results: list[Measured]) -> str:
    """A line for each variant, and the unit that fits all of one `what`."""
    rows = []
    for what, group in groupby(results, key=lambda one: one.what):
        lines = list(group)
        unit = unit_of(lines)
        for index, one in enumerate(lines):
            values = (one.min, one.p50, one.p90, one.p99, one.p999)
            rows.append(
                [
                    "" if index else what,
                    name_of(one.variant),
                    unit,
                    *(number(convert(value, one.unit, unit)) for value in values),
                    "" if one.to_floor is None else f"{one.to_floor:.2f}",
                ]
            )
    header = ["what", "variant", "unit", "min", "p50", "p90", "p99", "p99.9", "x first"]
    return table(header, rows, texts=3)


def medians(results: list[Measured], rate: str = "") -> str:
    """As `percentiles`, of medians alone; with `rate` also how many a second that makes."""
    rows = []
    for what, group in groupby(results, key=lambda one: one.what):
        for index, one in enumerate(group):
            row = ["" if index else what, name_of(one.variant), amount(one.p50, one.unit)]
            if rate:
                row.append(f"{number(per_second(one))}")
            row.append("" if one.to_floor is None else f"{one.to_floor:.2f}")
            rows.append(row)
    header = ["what", "variant", "median", *([rate] if rate else []), "x first"]
    return table(header, rows, texts=2)


def per_second(one: Measured) -> float:
    return 1e9 / convert(one.p50, one.unit, NS)


def by_load(results: list[Measured], rate: str = "") -> str:
    """A line for each variant, a column for each load: the median, or how many a second."""
    loads = sorted({one.load for one in results if one.load is not None})
    rows = []
    for what, lines in growing(results).items():
        for index, variant in enumerate(dict.fromkeys(one.variant for one in lines)):
            at = {
                one.load: number(per_second(one)) if rate else amount(one.p50, one.unit)
                for one in lines
                if one.variant == variant
            }
            rows.append(
                ["" if index else what, name_of(variant), *(at.get(load, "") for load in loads)]
            )
    what = f"what, {rate} with" if rate else "what, with"
    return table([what, "variant", *map(thousands, loads)], rows, texts=2)


def groups(results: list[Measured]) -> dict[str, list[Measured]]:
    """By `what`, in the order of their first lines."""
    found: dict[str, list[Measured]] = {}
    for one in results:
        found.setdefault(one.what, []).append(one)
    return found


def without_load(one: Measured) -> str:
    """A line's `what` without the load that it may name.

    "gets 100 at once" is "gets at once", and "memory of 100" is "memory".
    """
    if one.load is None:
        return one.what
    return re.sub(rf"(^|( of)? ){one.load:.0f}(?= |$)", "", one.what, count=1).strip()


def growing(results: list[Measured]) -> dict[str, list[Measured]]:
    """What was measured under several loads, by that, its lines without their loads."""
    every = groups([one._replace(what=without_load(one)) for one in results if one.load])
    return {
        what: lines for what, lines in every.items() if len({one.load for one in lines}) > 1
    }


class Family(NamedTuple):
    """Lines of a job that have a table and a picture together."""

    name: str
    grows: bool
    lines: list[Measured]


def families(results: list[Measured]) -> list[Family]:
    """A job's lines, told apart by units, by whether they grow, and those that do not by the
    first of several words and by what comes after a comma.
    """
    grown = growing(results)
    found: dict[tuple[str, bool], list[Measured]] = {}
    for one in results:
        main, _, aside = one.what.partition(", ")
        unit = "" if kind_of(one.unit) == TIME else one.unit
        grows = one.load is not None and without_load(one) in grown
        word = "" if grows or " " not in main else main.split()[0]
        name = " ".join(filter(None, (word, aside, unit)))
        found.setdefault((name, grows), []).append(one)
    return [Family(name, grows, lines) for (name, grows), lines in found.items()]


# -- how each job is shown ----------------------------------------------------------------------


class Shown(NamedTuple):
    """What figures are best told by.

    picture   a function of pictures.py: SPREADS, BARS, CURVES or STRIPS
    rate      what the operations are called by the second, where that says more
    """

    picture: str
    rate: str = ""

    def table(self, results: list[Measured]) -> str:
        if self.picture == CURVES:
            return by_load(results, self.rate)
        return medians(results, self.rate) if self.picture == BARS else percentiles(results)


SHOWN = {
    "ping": Shown(SPREADS),
    "ping_split": Shown(SPREADS),
    "ping_busy": Shown(SPREADS),
    "gets": Shown(BARS, "GETs/s"),
    "one_by_one": Shown(SPREADS),
    "serving": Shown(BARS, "requests/s"),
    "transfers": Shown(BARS, "MiB/s"),
    "detection": Shown(STRIPS),
}


def shown(job: str, family: Family) -> Shown:
    """How a family of the job's lines is told: what grows by curves, what is no time by bars."""
    if kind_of(family.lines[0].unit) != TIME:
        return Shown(CURVES if family.grows else BARS)
    of_job = SHOWN.get(job, Shown(BARS))
    return of_job._replace(picture=CURVES) if family.grows else of_job


def drawn(
    job: str, around: dict[str, Any], results: list[Measured], folder: Path
) -> list[str]:
    """Draw a job's pictures into `folder`, one for each family of lines; return their names."""
    from . import pictures

    if job == SOAK:
        return drawn_soak(around, folder)
    title = said(docstring(module_path(job))).title.rstrip(".")
    every = families(results)
    names = []
    for family in every:
        words = [job, *(re.findall(r"\w+", family.name) if len(every) > 1 else [])]
        how = shown(job, family)
        kinds = [how.picture]
        if family.grows:
            # A rate is compared load by load, too.
            kinds = [CURVES, *([BARS] if how.rate else [])]
            words.append("growing")
        for kind in kinds:
            name = "-".join([*words, *([kind] if len(kinds) > 1 else [])])
            for part, some in enumerate(parts(panels(kind, family)), 1):
                path = folder / f"{name}{f'-{part}' * (part > 1)}.png"
                if kind == BARS:
                    pictures.bars(path, title, some, how.rate)
                else:
                    getattr(pictures, kind)(path, title, some)
                names.append(path.name)
    return names


def panels(kind: str, family: Family) -> dict[str, list[Measured]]:
    """What each set of axes shows, by its title."""
    if kind == CURVES:
        return growing(family.lines)
    if not family.grows:
        return groups(family.lines)
    return groups(
        [one._replace(what=f"{without_load(one)}, {one.load:g}") for one in family.lines]
    )


def parts(panels: dict[str, list[Measured]]) -> Iterator[dict[str, list[Measured]]]:
    """So many of them as one picture has room for, then the next ones."""
    titles = list(panels)
    for at in range(0, len(titles), PANELS_MAX):
        yield {title: panels[title] for title in titles[at : at + PANELS_MAX]}


# -- the page -----------------------------------------------------------------------------------


def circumstances(every: dict[str, tuple[dict[str, Any], list[Measured]]]) -> str:
    """What was measured with what, and when; told once where all jobs had the same."""
    arounds = {job: around for job, (around, _) in every.items()}
    lines = ["## On what"]
    rows = []
    for name in ("machine", "python", "built"):
        values = dict.fromkeys(around[name] for around in arounds.values())
        rows.append([name, "; ".join(values)])
    versions: dict[str, dict[str, None]] = {}
    for around in arounds.values():
        for package, version in around["versions"].items():
            versions.setdefault(package, {})[version.removeprefix(f"{package} ")] = None
    each = [f"{package} {' / '.join(of)}" for package, of in versions.items()]
    rows.append(["versions", ", ".join(each)])
    lines.append(table(["", ""], rows, texts=2))
    jobs = [
        [
            f"[{job}](#{job})",
            around["commit"],
            around["date"],
            PINNINGS.get(around["pinning"], around["pinning"]),
            str(around.get("asked_rounds", "")),
            "; ".join(around.get("absent", [])) or "nobody",
        ]
        for job, around in arounds.items()
    ]
    lines.append(
        table(["job", "commit", "date", "cores", "rounds asked for", "without"], jobs, texts=4)
    )
    lines.append("A commit with a + had changes that were not committed.")
    return "\n\n".join(lines)


def budgets(verdicts: list[check.Verdict]) -> str:
    """The table of all budgets, the firm ones marked."""
    rows = []
    for verdict in verdicts:
        budget = verdict.budget
        word = f"**{verdict.word}**" if verdict.word == check.SHORT else verdict.word
        rows.append(
            [
                budget.name + " *" * budget.firm,
                f"[{budget.job}](#{budget.job})",
                budget.others,
                budget.limit_text,
                budget.stretch_text + ", reached" * verdict.stretched,
                verdict.figure_text,
                word,
            ]
        )
    header = ["budget", "job", "others, when it was set", "limit", "stretch", "now", ""]
    return "\n\n".join(
        [
            "## Budgets",
            f"{check.counted(verdicts)}. `*`: to be met without exception.",
            table(header, rows, texts=3),
        ]
    )


def section(
    job: str, around: dict[str, Any], results: list[Measured], images: list[str], told: set[Path]
) -> str:
    """One job: pictures, figures, how they were measured, what they leave out.

    told   modules whose docstrings the page has already; those this section adds are added
    """
    path = module_path(job)
    of_job = said(explained(path))
    parts = [f"## {job}", of_job.title]
    parts += [f"![{job}: {image}]({PICTURES}/{image})" for image in images]
    if job == SOAK:
        parts.append(soak_text(around))
    else:
        parts += [shown(job, family).table(family.lines) for family in families(results)]
    parts.append(of_job.measured.replace(TIMED, f"**{TIMED}**"))
    for other in referred(docstring(path)):
        if other not in told:
            told.add(other)
            parts.append(f"From [{other.name}]({other.name}): {explained(other)}")
    if of_job.left_out:
        parts.append(f"**Left out:** {of_job.left_out}")
    return "\n\n".join(part for part in parts if part)


# -- the soak -----------------------------------------------------------------------------------

# A sample's field, how the page calls it, and how many of its unit are one of the page's.
SOAK_SEEN = (
    ("requests_per_s", "requests a second", 1.0),
    ("checks_per_s", "PINGs answered a second", 1.0),
    ("resident_octets", "memory, MiB resident", 1048576.0),
    ("silence_s", "longest silence of any connection, seconds", 1.0),
)
SOAK_COUNTED = ("pings_sent", "pings_acked", "suspects", "false_suspects", "deaths")


def soak_text(around: dict[str, Any]) -> str:
    """What came of the run: its first tenth beside its last, and what was counted."""
    samples = around["samples"]
    tenth = max(1, len(samples) // 10)
    rows = []
    for field, name, per in SOAK_SEEN:
        values = [sample[field] / per for sample in samples]
        few = (fmean(values[:tenth]), fmean(values[-tenth:]), min(values), max(values))
        rows.append([name, *map(number, few)])
    counted = ", ".join(
        f"{samples[-1][field]:,} {field.replace('_', ' ')}".replace(",", " ")
        for field in SOAK_COUNTED
    )
    minutes, faults = around["seconds"] / 60, "; ".join(around["faults"])
    return (
        f"{around['connections']} connections for {number(minutes)} minutes: {counted}. "
        f"What did not hold: {faults or 'nothing'}.\n\n"
        + table(["", "first tenth", "last tenth", "least", "most"], rows)
    )


def drawn_soak(around: dict[str, Any], folder: Path) -> list[str]:
    from . import pictures

    samples = around["samples"]
    every = [
        pictures.Series(name, [sample[field] / per for sample in samples])
        for field, name, per in SOAK_SEEN
    ]
    path = folder / f"{SOAK}.png"
    title = f"{SOAK}: {around['connections']} connections"
    pictures.series(path, title, [sample["at"] / 60 for sample in samples], every)
    return [path.name]


def page(results: Path, pictures: Path | None) -> str:
    """All of it.  pictures: where to draw them; None: the page has none."""
    every = read_all(results)
    order = [job for job in (*side_by_side.JOBS, SOAK) if job in every]
    every = {job: every[job] for job in order}
    parts = [HEAD]
    if not every:
        return "\n\n".join([*parts, "Nothing has been measured yet.", LIMITS]) + "\n"
    parts += [circumstances(every), budgets(check.judge_all(results))]
    told = {module_path(job) for job in every}
    for job, (around, measured) in every.items():
        images = []
        if pictures is not None:
            images = drawn(job, around, measured, pictures)
        parts.append(section(job, around, measured, images, told))
    return "\n\n".join([*parts, LIMITS]) + "\n"


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--results", type=Path, default=check.RESULTS, metavar="FOLDER")
    parser.add_argument("--to", type=Path, default=FOLDER, metavar="FOLDER")
    options = parser.parse_args(argv)
    pictures = options.to / PICTURES
    for old in pictures.glob("*.png"):
        old.unlink()
    written = page(options.results, pictures)
    (options.to / PAGE).write_text(written, encoding="utf-8")
    print(f"{options.to / PAGE}, {len(list(pictures.glob('*.png')))} pictures")


if __name__ == "__main__":
    main(sys.argv[1:])
