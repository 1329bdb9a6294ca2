"""What is held against an hour of full load; test_soak.py has seconds of it."""

from __future__ import annotations

from typing import Any

import pytest

from .load import judge

IDLE = 984  # of a thousand connections, so many are not in use at any time


def samples(**last_tenth: float) -> list[dict[str, Any]]:
    """An hour, one every ten seconds, of which the last tenth differs."""
    usual: dict[str, Any] = {
        "requests_per_s": 4000.0,
        "checks_per_s": float(IDLE),
        "resident_octets": 60_000_000,
        "objects": 70_000,
        "silence_s": 1.02,
        "connections": 1000,
        "suspects": 0,
        "false_suspects": 0,
        "deaths": 0,
    }
    return [
        {"at": 10.0 * (number + 1), **usual, **(last_tenth if number >= 324 else {})}
        for number in range(360)
    ]


def test_an_hour_that_stays_as_it_was_is_well():
    assert judge(1000, samples()) == []


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("requests_per_s", 3190.0, "throughput: 0.80 of what it was"),
        ("resident_octets", 60_000_000 + 2**24 + 1, "memory grew by 16.0 MiB"),
        ("objects", 80_001, "10001 more objects than there were"),
        ("silence_s", 3.0, "a check was missed: 3.00 s of silence"),
        ("connections", 999, "999 connections"),
        ("suspects", 1, "suspected, falsely suspected or dead: "),
        ("false_suspects", 1, "suspected, falsely suspected or dead: "),
        ("deaths", 1, "suspected, falsely suspected or dead: "),
        ("checks_per_s", -2200.0, "666 checks a second of 984 connections that nobody used"),
    ],
)
def test_an_hour_that_ends_worse_than_it_began_is_told(name, value, told):
    (fault,) = judge(1000, samples(**{name: value}))

    assert fault.startswith(told)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("requests_per_s", 3200.0),
        ("resident_octets", 60_000_000 + 2**24),
        ("objects", 80_000),
        ("silence_s", 2.99),
    ],
)
def test_what_is_within_its_limit_is_well(name, value):
    assert judge(1000, samples(**{name: value})) == []


def test_nothing_seen_is_not_well():
    assert judge(1000, []) == ["nothing was seen"]


def test_throughput_of_less_than_a_minute_is_not_judged():
    few = samples(requests_per_s=1.0)[-5:]
    for number, sample in enumerate(few):
        sample["at"] = number * 10.0
    few[0]["requests_per_s"] = 4000.0

    assert judge(1000, few) == []
