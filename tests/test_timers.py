"""Timers: who comes up when, and what a cancelled instant leaves behind."""

from __future__ import annotations

import gc
import weakref

import pytest

from h2lite.timers import CANCELLED_MAX, Timers


class Item:
    """Something that waits."""


def test_items_come_up_in_the_order_of_their_instants():
    timers = Timers()
    first, second, third = Item(), Item(), Item()
    timers.set(second, 2.0)
    timers.set(third, 3.0)
    timers.set(first, 1.0)

    assert timers.next_deadline() == 1.0
    assert [timers.pop_due(2.5) for _ in range(3)] == [first, second, None]
    assert (timers.next_deadline(), len(timers)) == (3.0, 1)


def test_equal_instants_come_up_in_the_order_they_were_set():
    timers = Timers()
    items = [Item() for _ in range(5)]
    for item in items:
        timers.set(item, 7.0)

    assert [timers.pop_due(7.0) for _ in items] == items


@pytest.mark.parametrize(("now", "due"), [(0.999, False), (1.0, True), (1.001, True)])
def test_an_item_is_due_at_its_instant(now, due):
    timers = Timers()
    item = Item()
    timers.set(item, 1.0)

    assert (timers.pop_due(now) is item) is due


def test_the_last_word_counts():
    timers = Timers()
    item = Item()
    timers.set(item, 1.0)
    timers.set(item, 5.0)

    assert (timers.pop_due(4.0), timers.next_deadline()) == (None, 5.0)
    timers.set(item, None)
    assert (timers.pop_due(9.0), timers.next_deadline(), len(timers)) == (None, None, 0)


def test_an_item_that_came_up_waits_no_more():
    timers = Timers()
    item = Item()
    timers.set(item, 1.0)

    assert timers.pop_due(1.0) is item
    timers.set(item, None)
    assert (timers.pop_due(99.0), len(timers)) == (None, 0)


def test_cancelled_instants_are_swept_and_keep_nobody_alive():
    timers = Timers()
    waiting = Item()
    timers.set(waiting, 1e9)
    gone = weakref.ref(item := Item())
    for n in range(10 * CANCELLED_MAX):
        timers.set(item, 1e6 + n)
    timers.set(item, None)
    del item
    gc.collect()

    assert gone() is None
    assert len(timers._heap) <= 2 + CANCELLED_MAX
    assert timers.pop_due(1e9) is waiting
