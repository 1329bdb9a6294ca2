"""How a figure is told: in the unit a reader thinks in, with the digits it deserves."""

from __future__ import annotations

import math

from .figures import NS, OCTETS, RATIO, SECONDS, Measured

TIME, SIZE, NUMBER = "time", "size", "number"
# What is measured in, and what is told in: kind, and how many of the kind's smallest one is.
MEASURED_IN = {NS: (TIME, 1.0), SECONDS: (TIME, 1e9), OCTETS: (SIZE, 1.0), RATIO: (NUMBER, 1.0)}
TOLD_IN = {
    "ns": (TIME, 1.0),
    "us": (TIME, 1e3),
    "ms": (TIME, 1e6),
    "s": (TIME, 1e9),
    "octets": (SIZE, 1.0),
    "KiB": (SIZE, 1024.0),
    "MiB": (SIZE, 1048576.0),
    "GiB": (SIZE, 1073741824.0),
    "x": (NUMBER, 1.0),
}
DIGITS = 3  # of a figure below 1000; no run repeats more of them


def kind_of(unit: str) -> str:
    """TIME or SIZE; what no table knows counts as it is."""
    return MEASURED_IN.get(unit, (NUMBER, 1.0))[0]


def convert(value: float, unit: str, told_in: str) -> float:
    """A figure in another unit of its kind.  Raises ValueError when it has none such."""
    kind, times = MEASURED_IN.get(unit, (NUMBER, 1.0))
    wanted, parts = TOLD_IN.get(told_in, (NUMBER, 1.0))
    if kind != wanted:
        raise ValueError(f"{unit} cannot be told in {told_in}")
    return value * times / parts


def fitting(value: float, unit: str) -> str:
    """The largest unit in which `value` is 1 or more; the smallest for less than that."""
    kind, times = MEASURED_IN.get(unit, (NUMBER, 1.0))
    if kind == NUMBER:
        return unit
    candidates = [(parts, name) for name, (of_kind, parts) in TOLD_IN.items() if of_kind == kind]
    return max(
        (one for one in candidates if one[0] <= abs(value) * times), default=min(candidates)
    )[1]


def unit_of(lines: list[Measured]) -> str:
    """One unit for all of them: that of the least median which is not 0, if there is one."""
    medians = [abs(one.p50) for one in lines if one.p50]
    return fitting(min(medians, default=max(one.p999 for one in lines)), lines[0].unit)


def number(value: float, digits: int = DIGITS) -> str:
    """So many digits, no exponent, thousands apart: 0.0312, 8.24, 19.8, 1 240, 51 200."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits}g}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{decimals}f}".replace(",", " ")


def thousands(value: float) -> str:
    """All digits of what is counted, and of a fraction six: 10 000, 0.5."""
    return f"{value:,.0f}".replace(",", " ") if value == int(value) else f"{value:g}"


def amount(value: float, unit: str) -> str:
    """A figure with the unit that fits it: 8.24 us, 1.5 MiB, 1.19 x."""
    told_in = fitting(value, unit)
    return f"{number(convert(value, unit, told_in))} {told_in}"
