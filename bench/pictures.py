"""Draw what the jobs found: the only file that needs matplotlib.

    spreads   from min to p99.9 of each variant, the median a dot: how long, and how steady
    bars      medians, or how much a second, beside one another
    curves    what one operation costs as there is more of it: flat is what is wanted
    strips    each value a dot, where there are few
    series    one long run over its time

The same figures give the same octets, with the same matplotlib.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from PIL import Image

from .colours import colours, ours
from .figures import Measured
from .units import convert, number, thousands, unit_of

WIDTH, DPI = 9.0, 100  # inches; so 900 pixels, as wide as a page shows them
ROW, FRAME = 0.26, 0.75  # inches of a panel's height: a variant, and what stands around them
PALETTE = 64  # colours of a file: lines, a few fills, and the edges of letters
TITLE_MAX = 26  # characters that a third of the width has room for
DOTS = {"markersize": 4.5, "markeredgecolor": "#333333", "markeredgewidth": 0.5}
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "svg.hashsalt": "h2lite",
}


Panels = dict[str, list[Measured]]  # a set of axes each: its title, and what it shows


# -- a page of panels ---------------------------------------------------------------------------


@contextmanager
def page(
    path: Path, heights: list[float], columns: int, title: str
) -> Iterator[tuple[Figure, list[Any]]]:
    """A figure of len(heights) panels in rows of `columns`, written to `path` at the end."""
    rows = [max(heights[at : at + columns]) for at in range(0, len(heights), columns)]
    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(
            len(rows),
            columns,
            figsize=(WIDTH, sum(rows) + 0.4),
            height_ratios=rows,
            squeeze=False,
            layout="constrained",
        )
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
        every = list(axes.flat)
        for spare in every[len(heights) :]:
            spare.set_axis_off()
        try:
            yield figure, every[: len(heights)]
            save(figure, path)
        finally:
            pyplot.close(figure)


def save(figure: Figure, path: Path) -> None:
    """A PNG of few colours, and without a word of who made it when."""
    raw = BytesIO()
    figure.savefig(raw, format="png", dpi=DPI, metadata={"Software": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(raw) as image:
        image.convert("RGB").quantize(PALETTE).save(path, optimize=True)


def variants_down(axes: Any, variants: list[str]) -> None:
    """The variants' names at the left, the first one on top, ours in bold."""
    axes.set_yticks(range(len(variants)), variants)
    axes.set_ylim(len(variants) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    for label, variant in zip(axes.get_yticklabels(), variants, strict=True):
        label.set_fontweight("bold" if ours(variant) else "normal")


def plain_numbers(axis: Any) -> None:
    """Ticks told without powers of ten, also on a logarithmic scale, few enough to read."""
    if axis.get_scale() == "log":
        low, high = axis.get_view_interval()
        subs = (1, 2, 5) if high < 300 * low else (1,)
        axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: thousands(value)))
    axis.set_minor_formatter(NullFormatter())


# -- kinds of pictures --------------------------------------------------------------------------


def spreads(path: Path, title: str, panels: Panels) -> None:
    """Thin from min to p99.9, thick to p90, a dot at p50, a tick at p99; the median written out."""
    title += "\ndot: median, also at the right; thick: to 90 %; tick: 99 %; thin: least to 99.9 %"
    everything = [one for lines in panels.values() for one in lines]
    tints = colours([one.variant for one in everything])
    unit = unit_of(everything)
    edges = [
        convert(value, one.unit, unit) for one in everything for value in (one.min, one.p999)
    ]
    heights = [ROW * len(lines) + FRAME for lines in panels.values()]
    with page(path, heights, min(2, len(panels)), title) as (_, every):
        for axes, (name, lines) in zip(every, panels.items(), strict=True):
            for row, one in enumerate(lines):
                low, median, p90, p99, high = (
                    convert(value, one.unit, unit)
                    for value in (one.min, one.p50, one.p90, one.p99, one.p999)
                )
                tint = tints[one.variant]
                axes.plot([low, high], [row, row], color=tint, linewidth=1.2)
                axes.plot([low, p90], [row, row], color=tint, linewidth=6, solid_capstyle="butt")
                axes.plot(p99, row, "|", color=tint, markersize=10, markeredgewidth=2)
                axes.plot(median, row, "o", color="white", markeredgecolor="#222222", markersize=5)
                axes.annotate(
                    number(median), (1.01, row), xycoords=("axes fraction", "data"), va="center"
                )
            if min(edges) > 0:  # what is a difference may be less
                axes.set_xscale("log")
                axes.set_xlim(min(edges) / 1.1, max(edges) * 1.1)  # all alike, to compare them
            plain_numbers(axes.xaxis)
            axes.grid(axis="x")
            variants_down(axes, [one.variant for one in lines])
            axes.set_title(name)
            axes.set_xlabel(unit)


def bars(path: Path, title: str, panels: Panels, rate: str = "") -> None:
    """A bar a variant from 0 on: its median, or with `rate` how many a second that makes."""
    tints = colours([one.variant for lines in panels.values() for one in lines])
    heights = [ROW * len(lines) + FRAME for lines in panels.values()]
    most = 3 if all(len(name) <= TITLE_MAX for name in panels) and not rate else 2
    with page(path, heights, min(most, len(panels)), title) as (_, every):
        for axes, (name, lines) in zip(every, panels.items(), strict=True):
            if rate:
                unit = rate
                values = [1e9 / convert(one.p50, one.unit, "ns") for one in lines]
            else:
                unit = unit_of(lines)
                values = [convert(one.p50, one.unit, unit) for one in lines]
            variants = [one.variant for one in lines]
            axes.barh(range(len(values)), values, 0.7, color=[tints[one] for one in variants])
            for row, value in enumerate(values):
                axes.annotate(
                    number(value), (value, row), (3, 0), textcoords="offset points", va="center"
                )
            axes.margins(x=0.2)
            axes.locator_params(axis="x", nbins=4)
            plain_numbers(axes.xaxis)
            axes.grid(axis="x")
            variants_down(axes, variants)
            axes.set_title(name)
            axes.set_xlabel(f"{unit}, {'more' if unit.endswith('/s') else 'less'} is better")


def curves(path: Path, title: str, panels: Panels) -> None:
    """The median of one operation against `load`, both in powers of ten."""
    tints = colours([one.variant for lines in panels.values() for one in lines])
    with page(path, [2.9] * len(panels), min(2, len(panels)), title) as (figure, every):
        shown: dict[str, Any] = {}
        for axes, (name, lines) in zip(every, panels.items(), strict=True):
            unit = unit_of(lines)
            for variant in dict.fromkeys(one.variant for one in lines):
                points = sorted(
                    (one.load, convert(one.p50, one.unit, unit))
                    for one in lines
                    if one.variant == variant and one.load is not None
                )
                (shown[variant],) = axes.plot(
                    *zip(*points, strict=True),
                    "o-",
                    color=tints[variant],
                    linewidth=2.4 if ours(variant) else 1.4,
                    markersize=5 if ours(variant) else 4,
                )
            axes.set_xscale("log")
            if min(one.p50 for one in lines) > 0:  # what is a difference may be less
                axes.set_yscale("log")
                low, high = axes.get_ylim()
                axes.set_ylim(min(low, high / 10), high * 1.3)  # so that noise is no slope
            plain_numbers(axes.xaxis)
            plain_numbers(axes.yaxis)
            axes.grid(which="major")
            axes.set_title(name)
            axes.set_ylabel(f"{unit} a {lines[0].operation}")
            axes.set_xlabel("how many")
        figure.legend(
            shown.values(), shown.keys(), loc="outside lower left", ncols=8, fontsize=9
        )


def strips(path: Path, title: str, panels: Panels) -> None:
    """Every round's value a dot."""
    tints = colours([one.variant for lines in panels.values() for one in lines])
    heights = [1.6 * ROW * len(lines) + FRAME for lines in panels.values()]
    with page(path, heights, 1, title) as (_, every):
        for axes, (name, lines) in zip(every, panels.items(), strict=True):
            unit = unit_of(lines)
            for row, one in enumerate(lines):
                values = [convert(value, one.unit, unit) for value in one.rounds]
                # Side by side within the row, in the order they were measured in.
                heights_in_row = [
                    row + 0.5 * (index / max(1, len(values) - 1) - 0.5)
                    for index in range(len(values))
                ]
                axes.plot(values, heights_in_row, "o", color=tints[one.variant], **DOTS)
            plain_numbers(axes.xaxis)
            axes.grid(axis="x")
            variants_down(axes, [one.variant for one in lines])
            axes.set_title(name)
            axes.set_xlabel(unit)


class Series(NamedTuple):
    """One value over a long run."""

    title: str
    values: list[float]


def series(path: Path, title: str, minutes: list[float], every: list[Series]) -> None:
    """One below the other, each from 0, so that a slope is as steep as it is."""
    (blue,) = colours(["h2lite"]).values()
    with page(path, [1.35] * len(every), 1, title) as (_, panels):
        for axes, one in zip(panels, every, strict=True):
            axes.plot(minutes, one.values, color=blue, linewidth=1.5)
            axes.set_ylim(0, max([*one.values, 1e-9]) * 1.15)
            axes.set_xlim(0, max(minutes))
            axes.locator_params(axis="y", nbins=4)
            plain_numbers(axes.yaxis)
            axes.grid()
            axes.set_title(one.title)
        panels[-1].set_xlabel("minutes")
