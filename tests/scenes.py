"""What the scenarios on virtual time share: how they read a world's record."""

from __future__ import annotations

from typing import Any

import pytest

from h2lite.call import Call
from h2lite.frames import WindowUpdateFrame
from h2lite.health import STATE_NAMES, HealthPolicy
from h2lite.member import Member
from h2lite.orders import Deliver, StateChanged
from h2lite.settings import MAX_WINDOW_SIZE, SettingId
from h2lite.testing import Answer, Pipe, Seen, VirtualServer, World
from tests.pair import parse

MIB = 2**20


def policy(**seconds: Any) -> HealthPolicy:
    """The default policy with instants exact: no jitter."""
    return HealthPolicy(jitter=False, **seconds)


def held(seen: Seen) -> Answer:
    """Nothing comes back, though the server has the request."""
    return Answer(hold=True)


def begun(seen: Seen) -> Answer:
    """The response's header section at once, the first piece of its content in a week."""
    return Answer(body=b"ok", pieces=2, body_gap_s=604800.0)


def opened(world: World, server: VirtualServer, answer: Any = None) -> Call:
    """A first request, answered whole, so that its connection is up; the next get `answer`."""
    call = world.request(server)
    while not call.over:
        world.turn(world.clock.now + 60)
    if answer is not None:
        server.answer = answer
    return call


def open_wide(server: VirtualServer) -> None:
    """Open both windows of what the server receives as far as they go: only its socket limits."""
    server.settings = {SettingId.INITIAL_WINDOW_SIZE: MAX_WINDOW_SIZE}


def widen(server: VirtualServer) -> None:
    """The connection's own window, once it is up."""
    (peer,) = server.peers
    peer.send(WindowUpdateFrame(0, MAX_WINDOW_SIZE - 4 * MIB).encode())


def states(world: World, number: int = 1) -> list[tuple[float, str, str]]:
    """(instant, state, cause) of each change of one connection's health, in order."""
    return [
        (at, STATE_NAMES[notice.after], notice.cause)
        for at, notice in world.told(StateChanged)
        if notice.member.number == number
    ]


def delivered(world: World, item: Any) -> list[float]:
    """When something was told of a Call or a Ping."""
    return [at for at, notice in world.told(Deliver) if notice.item is item]


def member(world: World, number: int = 1) -> Member:
    """The pool's connection of this number."""
    (found,) = [each for each in world.pool.members if each.number == number]
    return found


def pinged(server: VirtualServer) -> list[float]:
    """When PINGs came."""
    return [at for at, _, _ in server.pings]


def near(value: float, within: float | None = None) -> Any:
    """What equals a sum of floats; of a type that may stand in any expected value."""
    return pytest.approx(value, abs=within)


def let_time_run(world: World, tick: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each reading of the loop's clock be `tick` seconds later than the one before."""

    def clock() -> float:
        world.clock.now += tick
        return world.clock.now

    monkeypatch.setattr(world.loop, "clock", clock)


def watch(pipe: Pipe) -> list[tuple[float, bytes]]:
    """Keep what is sent from now on; see `frames`."""
    log: list[tuple[float, bytes]] = []
    pipe.log = log
    return log


def frames(log: list[tuple[float, bytes]]) -> list[tuple[float, Any]]:
    """Each send's frames with its instant; every send must be whole frames."""
    return [(at, frame) for at, octets in log for frame in parse(octets)]


def names(log: list[tuple[float, bytes]]) -> list[tuple[float, str]]:
    """The frames' names with their instants."""
    return [(at, frame.NAME + " ack" * getattr(frame, "ack", False)) for at, frame in frames(log)]
