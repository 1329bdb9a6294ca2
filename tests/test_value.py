"""The base of all value classes: equality, hash and repr from the slots."""

from __future__ import annotations

import operator

import pytest

from h2lite.value import NO_ENTRIES, Value


class Point(Value):
    __slots__ = ("x", "y")

    def __init__(self, x: object, y: object) -> None:
        self.x = x
        self.y = y


class Pixel(Point):
    __slots__ = ("colour",)

    def __init__(self, x: object, y: object, colour: str) -> None:
        super().__init__(x, y)
        self.colour = colour


class Place(Value):
    __slots__ = ("x", "y")

    def __init__(self, x: object, y: object) -> None:
        self.x = x
        self.y = y


def test_values_of_one_class_are_equal_when_all_their_slots_are():
    assert Point(1, 2) == Point(1, 2)
    assert Point(1, 2) != Point(1, 3)
    assert Point(1, 2) != Point(0, 2)


def test_a_subclass_compares_its_own_slots_and_its_bases():
    assert Pixel(1, 2, "red") == Pixel(1, 2, "red")
    assert Pixel(1, 2, "red") != Pixel(1, 2, "blue")
    assert Pixel(1, 2, "red") != Pixel(9, 2, "red")


def test_values_of_different_classes_are_never_equal():
    assert Point(1, 2) != Place(1, 2)
    assert Pixel(1, 2, "red") != Point(1, 2)
    assert Point(1, 2) != Pixel(1, 2, "red")
    assert Point(1, 2) != (1, 2)


def test_octets_and_a_view_of_the_same_octets_are_equal():
    assert Point(b"ab", 1) == Point(memoryview(b"ab"), 1)


def test_equal_values_have_one_place_in_a_set():
    assert {Point(1, 2), Point(1, 2), Place(1, 2), Point(2, 1)} == {
        Point(1, 2),
        Place(1, 2),
        Point(2, 1),
    }


def test_repr_names_each_slot_the_bases_first():
    assert repr(Pixel(1, b"\x00", "red")) == "Pixel(x=1, y=b'\\x00', colour='red')"


def test_a_value_takes_no_attribute_beside_its_slots():
    assert not hasattr(Point(1, 2), "__dict__")


def test_what_stands_for_no_entries_takes_none():
    for put in (
        lambda: operator.setitem(NO_ENTRIES, 1, 2),
        lambda: NO_ENTRIES.update({1: 2}),
        lambda: NO_ENTRIES.setdefault(1, 2),
    ):
        with pytest.raises(TypeError):
            put()

    assert (len(NO_ENTRIES), NO_ENTRIES.get(1), NO_ENTRIES.pop(1, 3)) == (0, None, 3)
