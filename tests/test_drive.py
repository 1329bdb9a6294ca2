"""The driver: the pool's orders carried out on the loop, and what happened told to the pool."""

from __future__ import annotations

import pytest

from h2lite.dial import DialFailed
from h2lite.drive import Driver
from h2lite.errors import ConnectError, ConnectionLost, ConnectTimeout, UsageError
from h2lite.health import CONNECTING, DEAD, LIVE, HealthPolicy
from h2lite.loop import LINGER_S, Source
from h2lite.orders import Deliver, StateChanged
from h2lite.testing import World


class AtOnce(Source):
    """A dial that is over as soon as it begins."""

    def __init__(self, error: ConnectError) -> None:
        self.error = error

    def start(self):
        return [DialFailed(self.error)]


def dialling(world: World, dial) -> World:
    world.driver = Driver(world.loop, world.pool, lambda loop, origin: dial)
    return world


def test_a_request_goes_out_and_its_answer_comes_back_in_turns():
    world = World()
    server = world.serve(delay_s=0.01)
    call = world.request(server, "POST", b"question")

    world.run(1.0)

    assert (call.status, world.bodies[call]) == (200, b"ok")
    assert [(seen.method, seen.body) for seen in server.seen] == [("POST", b"question")]
    assert not world.driver.is_idle


def test_a_dial_that_fails_at_once_is_told_in_the_same_turn():
    error = ConnectError("no such host")
    world = dialling(World(), AtOnce(error))
    call = world.request(world.serve())

    world.turn(0.0)

    assert (type(call.error), str(call.error)) == (ConnectError, "no such host")
    assert world.driver.is_idle


def test_a_dial_that_cannot_be_made_is_a_connect_error():
    world = World()

    def refuse(loop, origin):
        raise UsageError("this system's Python has no UNIX sockets")

    world.driver = Driver(world.loop, world.pool, refuse)
    call = world.request(world.serve())

    world.turn(0.0)

    assert (type(call.error), str(call.error)) == (
        ConnectError,
        "this system's Python has no UNIX sockets",
    )
    assert world.driver.is_idle


def test_a_dial_that_cannot_begin_leaves_nothing():
    class Stillborn(AtOnce):
        def start(self):
            raise UsageError("not today")

    world = dialling(World(), Stillborn(ConnectError("")))
    call = world.request(world.serve())

    world.turn(0.0)

    assert str(call.error) == "not today"
    assert world.driver.is_idle


def test_a_dial_given_up_is_closed():
    world = World(HealthPolicy(connect_timeout=1.0, jitter=False))
    server = world.serve()
    server.is_reachable = False
    call = world.request(server)

    world.run(1.0)

    assert type(call.error) is ConnectTimeout
    assert world.driver.is_idle
    assert (len(world.loop._masks), len(world.loop._timers)) == (0, 0)


def test_what_is_told_before_a_wait_is_not_kept_until_it_ends():
    world = World()
    server = world.serve()
    server.is_reachable = False
    call = world.request(server)
    world.run(1.0)
    world.cancel(call)

    world.turn(9.0)

    assert [at for at, notice in world.log if isinstance(notice, Deliver)] == [1.0]


def test_a_connection_given_up_is_reset_and_forgotten():
    world = World(HealthPolicy(ping_after_idle=1.0, ping_timeout=1.0, jitter=False))
    server = world.serve()
    world.request(server)
    world.run(0.5)
    server.stop()

    world.run(3.0)

    assert [(n.before, n.after) for _, n in world.told(StateChanged)][-1][1] == DEAD
    assert world.driver.is_idle
    assert (len(world.loop._masks), len(world.loop._timers)) == (0, 0)
    server.cont()
    world.run(4.0)
    assert server.peers == []


def test_a_drained_connection_lingers_until_its_goaway_is_read():
    world = World(idle_close=5.0)
    server = world.serve(delay_s=0.1)
    world.request(server)
    world.run(2.0)

    # Dialled in 0.4 s, greeted at 0.5 s, answered at 0.7 s: unused from then on.
    world.run(5.75)
    assert (world.pool.members, world.driver.is_idle) == ([], False)
    world.run(6.5)
    assert (world.driver.is_idle, server.peers) == (True, [])


def test_a_peer_that_speaks_as_the_linger_ends_is_no_stranger():
    world = World(idle_close=5.0)
    server = world.serve()
    world.request(server)
    world.run(4.0)
    server.stop()
    world.run(5.0)
    assert world.pool.members == []
    other = world.serve("b.test")
    world.request(other)
    world.run(5.1)
    for each in (server, other):  # the other's octets come between its own and its end
        each.lines[0].server.send(b"\0")

    world.network.advance(5.0 + LINGER_S)
    world.run(6.0)

    assert [m.origin.host for m in world.pool.members] == ["b.test"]
    assert len(world.loop._masks) == 1


@pytest.mark.parametrize("when", [0.0, 0.3, 1.0])
def test_closing_the_driver_leaves_nothing_open(when):
    world = World()
    server = world.serve(delay_s=0.1)
    call = world.request(server)
    world.run(when)
    assert [m.health.state for m in world.pool.members] == [LIVE if when == 1.0 else CONNECTING]

    world.driver.close()

    assert world.driver.is_idle
    assert (len(world.loop._masks), len(world.loop._timers)) == (0, 0)
    assert all(line.client.is_closed for line in server.lines)
    assert call.over is (when == 1.0)


def test_closing_the_pool_ends_calls_and_connections():
    world = World()
    server = world.serve(delay_s=0.1)
    world.request(server)
    late = world.serve("b.test", delay_s=9.0)
    waiting = world.request(late)
    world.run(1.0)

    world.pool.close(world.clock.now)
    world.run(2.0)

    assert isinstance(waiting.error, ConnectionLost)
    assert waiting.error.cause == "local"
    assert (world.driver.is_idle, world.pool.members) == (True, [])
    with pytest.raises(UsageError, match="closed"):
        world.request(server)
