"""Trying again: tokens, back-off and the crowd, on numbers alone."""

from __future__ import annotations

import pytest

from h2lite.retry import DELAY_S_MAX, TOKENS_MAX, Backoff, Bucket


def fixed(value: float):
    return lambda: value


def test_a_bucket_holds_ten_tokens_and_earns_one_a_second():
    bucket = Bucket(100.0)

    assert [bucket.take(100.0) for _ in range(11)] == [True] * 10 + [False]
    assert not bucket.take(100.99)
    assert bucket.take(101.0)
    assert not bucket.take(101.5)
    assert [bucket.take(1000.0) for _ in range(11)] == [True] * 10 + [False]


def test_every_fifth_request_earns_a_token_and_never_more_than_there_is_room_for():
    bucket = Bucket(0.0)
    for _ in range(100):
        bucket.earn()
    assert bucket._tokens == TOKENS_MAX
    assert [bucket.take(0.0) for _ in range(11)] == [True] * 10 + [False]

    for _ in range(4):
        bucket.earn()
    assert not bucket.take(0.0)
    bucket.earn()
    assert bucket.take(0.0)


def test_failures_in_a_row_wait_longer_up_to_ten_seconds():
    backoff = Backoff(None)
    waits = []
    for _ in range(8):
        backoff.failed(1000.0)
        waits.append(backoff.due - 1000.0)

    assert waits == pytest.approx([1, 1.6, 2.56, 4.096, 6.5536, 10, 10, 10])
    backoff.proved()
    backoff.failed(2000.0)
    assert backoff.due == 2001.0


@pytest.mark.parametrize(("uniform", "factor"), [(0.0, 0.8), (0.5, 1.0), (0.999999, 1.2)])
def test_waits_are_spread_by_a_fifth_both_ways(uniform, factor):
    backoff = Backoff(fixed(uniform))
    for _ in range(9):
        backoff.failed(0.0)

    assert backoff.due == pytest.approx(DELAY_S_MAX * factor, rel=1e-5)


@pytest.mark.parametrize(
    ("uniform", "due"), [(None, 50.0), (fixed(0.0), 50.0), (fixed(0.9), 50.09)]
)
def test_what_worked_is_replaced_within_a_tenth_of_a_second(uniform, due):
    backoff = Backoff(uniform)
    backoff.replace(50.0)

    assert backoff.due == pytest.approx(due)


def crowd(uniform: float, last: float = 0.5) -> Backoff:
    backoff = Backoff(fixed(uniform))
    for at in (0.0, 0.2, last):
        backoff.died(at)
    return backoff


def test_three_deaths_within_a_second_spread_every_dial_over_the_whole_wait():
    backoff = crowd(0.7)
    backoff.replace(0.5)
    assert backoff.due == pytest.approx(0.5 + 0.7)

    backoff.dialled(2.0)
    assert backoff.due == pytest.approx(2.0 + 0.7)
    backoff.failed(3.0)
    backoff.failed(3.0)
    assert backoff.due == pytest.approx(3.0 + 0.7 * 1.6)


def test_three_deaths_further_apart_are_no_crowd():
    backoff = crowd(0.7, last=1.01)
    backoff.replace(1.01)

    assert backoff.due == pytest.approx(1.01 + 0.07)


def test_a_crowd_is_forgotten_after_ten_seconds():
    backoff = crowd(0.7)
    backoff.replace(10.49)
    assert backoff.due == pytest.approx(10.49 + 0.7)
    backoff.replace(10.5)
    assert backoff.due == pytest.approx(10.5 + 0.07)


def test_without_a_crowd_a_dial_that_succeeds_says_nothing_of_the_next():
    backoff = Backoff(fixed(0.7))
    backoff.dialled(5.0)

    assert backoff.due == 0.0
