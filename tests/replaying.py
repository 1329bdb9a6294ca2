"""Every core of a test lived again with its octets cut otherwise: nothing it says may change.

While a test runs, each Connection keeps a history: how it was made, every call from outside, and
what came of it.  Afterwards a twin is made and gets the same calls in the same order, but what it
receives comes octet by octet, and cut in two at every place.  Its events, its octets and its
refusals must be those of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import pytest

from h2lite.connection import Connection
from h2lite.errors import UsageError
from h2lite.stream import Stream
from tests.pair import pieces

CALLS = [
    name
    for name, member in vars(Connection).items()
    if callable(member) and not name.startswith("_")
]

EVERY_PLACE_OCTETS_MAX = 400  # received by one core; where more comes, the places are A_FEW
A_FEW = (1, 8, 9, 10, 25, 100)  # around a frame header, in a preface, in a payload
OCTET_BY_OCTET_MAX = 10_000  # received by one core; where more comes, pieces of PIECE_OCTETS
PIECE_OCTETS = 1000
HISTORY_OCTETS_MAX = 300_000  # received by one core; where more comes, nothing is lived again
HISTORIES_MAX = 40  # of one test: a property test makes cores by the hundred


class Call(NamedTuple):
    """One call from outside."""

    name: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    outcome: Any


class Handle(NamedTuple):
    """A Stream among the arguments, and the identifier it had then."""

    stream: Stream
    stream_id: int


class History:
    """What was done to one core; inside: it is at work, and what it calls itself is no call."""

    def __init__(self, core: Connection) -> None:
        self.core = core
        self.calls: list[Call] = []
        self.inside = False
        self.received_octets = 0
        self.next_stream_id = 0

    @property
    def too_long(self) -> bool:
        return self.received_octets > HISTORY_OCTETS_MAX

    def do(self, name: str, method: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        if self.inside or self.too_long:
            return method(self.core, *args, **keywords)
        if self.calls and self.core._next_stream_id != self.next_stream_id:
            # A test that shortens a connection's life sets it from outside.
            set_to = "_next_stream_id", self.core._next_stream_id
            self.calls.append(Call("__setattr__", set_to, {}, None))
        if name == "receive_data":
            self.received_octets += len(args[0])
        kept = tuple(map(_kept, args)), {key: _kept(value) for key, value in keywords.items()}
        self.inside = True
        try:
            outcome = method(self.core, *args, **keywords)
        except UsageError as error:
            self.calls.append(Call(name, *kept, _comparable(error)))
            raise
        finally:
            self.inside = False
            self.next_stream_id = self.core._next_stream_id
        self.calls.append(Call(name, *kept, _comparable(outcome)))
        return outcome


def _kept(argument: Any) -> Any:
    """The argument as it is now: the test may go on using its lists."""
    if isinstance(argument, Stream):
        return Handle(argument, argument.stream_id)
    return argument.copy() if isinstance(argument, (list, dict)) else argument


def _comparable(outcome: Any) -> Any:
    if isinstance(outcome, UsageError):
        return type(outcome), str(outcome)
    return [*outcome] if isinstance(outcome, list) else outcome


@contextmanager
def recorded() -> Iterator[list[History]]:
    """The histories of the first HISTORIES_MAX cores that are made meanwhile."""
    histories: list[History] = []
    of_core: dict[int, History] = {}

    def watched(name: str) -> Callable[..., Any]:
        method = getattr(Connection, name)

        def call(core: Connection, *args: Any, **keywords: Any) -> Any:
            if name == "__init__" and len(histories) < HISTORIES_MAX:
                of_core[id(core)] = History(core)
                histories.append(of_core[id(core)])
            history = of_core.get(id(core))
            if history is None:
                return method(core, *args, **keywords)
            return history.do(name, method, *args, **keywords)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("__init__", *CALLS):
            patch.setattr(Connection, name, watched(name))
        yield histories


def assert_cuts_make_no_difference(history: History) -> None:
    """Live a core's history again in every cut."""
    if history.too_long:
        return
    received = [len(call.arguments[0]) for call in history.calls if call.name == "receive_data"]
    total, longest = sum(received), max(received, default=0)
    step = 1 if total <= OCTET_BY_OCTET_MAX else PIECE_OCTETS
    _live_again(history, lambda octets: pieces(octets, step))
    places = range(1, longest) if total <= EVERY_PLACE_OCTETS_MAX else A_FEW
    for place in places:
        _live_again(history, partial(_in_two, place))


def _in_two(place: int, octets: bytes) -> tuple[bytes, bytes]:
    return octets[:place], octets[place:]


def _live_again(history: History, cut: Callable[[bytes], Iterable[bytes]]) -> None:
    twin = object.__new__(Connection)
    streams: dict[int, Stream] = {}  # by the id() of the first core's
    accepted: dict[int, Stream] = {}  # by stream identifier

    def given(argument: Any) -> Any:
        if not isinstance(argument, Handle):
            return argument
        return streams.get(id(argument.stream)) or accepted[argument.stream_id]

    for call in history.calls:
        arguments = [given(argument) for argument in call.arguments]
        outcome: Any
        if call.name == "receive_data":
            octets, now = arguments
            outcome = [
                event for piece in cut(octets) for event in twin.receive_data(piece, now)
            ]
        else:
            try:
                outcome = getattr(twin, call.name)(*arguments, **call.keywords)
            except UsageError as error:
                outcome = error
        if isinstance(call.outcome, Stream):
            streams[id(call.outcome)] = outcome
        else:
            assert _comparable(outcome) == call.outcome, call
        accepted.update(twin.streams)
