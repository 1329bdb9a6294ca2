"""SECURITY.md says what the code does: every limit is in its tables, with its default."""

from __future__ import annotations

import re
from importlib import import_module
from inspect import cleandoc
from pathlib import Path

from h2lite.limits import DEFAULT_LIMITS, Limits
from tests.attacks import ATTACKS

PAGE = (Path(__file__).parent.parent / "SECURITY.md").read_text(encoding="utf-8")
TESTS = Path(__file__).parent


def rows(pattern: str) -> list[tuple[str, float]]:
    """(name, number) of each table row whose first cell is such a name."""
    found = re.findall(rf"^\| `({pattern})` \| ([0-9 ]+) \|", PAGE, re.MULTILINE)
    return [(name, float(number.replace(" ", ""))) for name, number in found]


def test_every_limit_is_in_the_tables_once_with_its_default_in_the_order_of_the_code():
    told = rows("[a-z_]+")

    assert told == [(name, getattr(DEFAULT_LIMITS, name)) for name in Limits.slots()]


def test_every_limit_is_in_its_docstring_in_the_same_order():
    # As cleandoc has it, which is how Python 3.13 keeps it from the start.
    documented = re.findall(r"^([a-z_]+)  +\S", cleandoc(Limits.__doc__ or ""), re.MULTILINE)

    assert documented == Limits.slots()


def test_every_constant_has_the_value_that_is_told():
    told = rows(r"[a-z]+\.[A-Z_0-9]+")
    assert len(told) > 10
    for name, number in told:
        module, _, constant = name.partition(".")
        assert getattr(import_module(f"h2lite.{module}"), constant) == number, name


def test_the_files_it_names_exist():
    for name in re.findall(r"tests/(\w+\.py)", PAGE):
        assert (TESTS / name).exists(), name


def test_every_attack_is_one_of_that_name_and_every_limit_that_meets_it_exists():
    rows = re.findall(r"^\| ([^|]*CVE-[^|]*) \| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 15
    for name, attack, met_by in rows:
        for number in re.findall(r"CVE-\d+-\d+", name):
            assert number in (ATTACKS[attack].__doc__ or ""), number
        assert {*re.findall(r"`(\w+)`", met_by)} <= {*Limits.slots()}, met_by
