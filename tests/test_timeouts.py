"""How long each step of a request may take: judged by the pool, each to its exact instant."""

from __future__ import annotations

import math

import pytest

from h2lite.errors import (
    ConnectTimeout,
    PoolTimeout,
    ReadTimeout,
    UsageError,
    WriteTimeout,
)
from h2lite.orders import Deliver
from h2lite.settings import SettingId
from h2lite.testing import Answer, World
from h2lite.timeout import Timeout


def ended_at(world: World, call) -> float:
    """When a call was over, as it was told."""
    return next(at for at, told in world.told(Deliver) if told.item is call and call.over)


def failed(world: World, call):
    told = [at for at, notice in world.told(Deliver) if notice.item is call]
    return type(call.error), told[-1]


def test_a_request_waits_for_a_dial_as_long_as_it_says():
    world = World()
    server = world.serve()
    server.is_reachable = False
    own = world.request(server, limits=Timeout(connect=0.5))
    by_policy = world.request(server)

    world.run(20.0)

    assert failed(world, own) == (ConnectTimeout, 0.5)
    assert failed(world, by_policy) == (ConnectTimeout, 10.0)


def test_a_request_waits_for_room_as_long_as_it_says():
    world = World()
    server = world.serve()
    server.settings = {SettingId.MAX_CONCURRENT_STREAMS: 1}
    server.answer = lambda seen: Answer(delay_s=3.0)
    first = world.request(server)
    world.run(0.1)
    patient = world.request(server, limits=Timeout(pool=5.0))
    hasty = world.request(server, limits=Timeout(pool=0.5))

    world.run(20.0)

    assert (first.status, patient.status) == (200, 200)
    assert failed(world, hasty) == (PoolTimeout, pytest.approx(0.6))


def test_the_limit_for_room_says_nothing_of_a_dial():
    world = World()
    server = world.serve(delay_s=0.2)  # the handshake takes longer than the limit
    call = world.request(server, limits=Timeout(pool=0.1))

    world.run(5.0)

    assert call.status == 200


def test_a_response_may_begin_no_later_than_its_limit_after_the_request_has_left():
    world = World()
    server = world.serve()
    server.answer = lambda seen: Answer(hold=True)
    world.run(1.0)
    call = world.request(server, limits=Timeout(read=0.5))

    world.run(5.0)

    assert failed(world, call) == (ReadTimeout, pytest.approx(1.5, abs=0.01))
    assert world.pool.members[0].connection.streams == {}  # it was reset


def test_each_piece_of_a_response_begins_the_limit_anew():
    world = World()
    server = world.serve()
    server.answer = lambda seen: Answer(body=bytes(1000), pieces=10, body_gap_s=0.4)
    steady = world.request(server, limits=Timeout(read=0.5))
    hasty = world.request(server, limits=Timeout(read=0.3))

    world.run(10.0)

    assert (steady.error, len(world.bodies[steady])) == (None, 1000)
    assert failed(world, hasty) == (ReadTimeout, pytest.approx(0.3, abs=0.01))


def test_a_reader_that_takes_its_time_is_not_the_peers_fault():
    world = World()
    server = world.serve()
    server.answer = lambda seen: Answer(body=bytes(4000), pieces=2, body_gap_s=0.1)
    call = world.request(server, limits=Timeout(read=0.5))
    world.unread.add(call)
    world.run(5.0)

    assert call.error is None
    assert len(call.chunks) == 2


def test_once_a_reader_has_taken_all_the_limit_begins_anew():
    world = World()
    server = world.serve()
    server.answer = lambda seen: Answer(body=bytes(100), pieces=2, body_gap_s=20.0)
    call = world.request(server, limits=Timeout(read=30.0))
    world.unread.add(call)
    world.run(25.0)  # the first piece came at 20 s
    call.limits = Timeout(read=1.0)
    while world.pool.take_chunk(call, world.clock.now) is not None:
        pass
    world.run(30.0)

    assert failed(world, call) == (ReadTimeout, pytest.approx(26.0))


def test_content_that_nobody_takes_is_given_up_after_its_limit():
    world = World()
    server = world.serve()
    server.answer = lambda seen: Answer(hold=True)
    world.run(1.0)
    # More than the stream's window, which the server does not open: it never reads on.
    call = world.request(server, "POST", bytes(300_000), limits=Timeout(write=0.5))
    server.reads = False

    world.run(5.0)

    kind, at = failed(world, call)
    assert kind is WriteTimeout
    assert 1.5 <= at < 1.6


def test_content_that_is_taken_by_and_by_has_its_limit_anew_each_time():
    world = World()
    server = world.serve(octets_per_s=100_000)
    call = world.request(server, "POST", bytes(300_000), limits=Timeout(write=1.0, read=1.0))

    world.run(10.0)

    assert (call.error, call.status) == (None, 200)


def test_a_body_that_has_nothing_to_give_is_not_the_peers_fault():
    world = World()
    server = world.serve()
    call = world.request(server, "POST", source=lambda: iter(()), limits=Timeout(0.5, 0.5, 0.5))
    del world._sources[call]  # whoever gives it takes his time

    world.run(5.0)
    assert (call.error, call.sent_at is not None) == (None, True)

    world.pool.send_content(call, b"late", world.clock.now, end_stream=True)
    world.run(6.0)
    assert (call.error, call.status) == (None, 200)


def test_the_whole_exchange_has_a_limit_whatever_its_steps_do():
    world = World()
    server = world.serve()
    server.answer = lambda seen: Answer(body=bytes(1000), pieces=100, body_gap_s=0.1)
    call = world.request(server, timeout=2.0, limits=Timeout(read=0.5))

    world.run(20.0)

    assert failed(world, call) == (ReadTimeout, 2.0)


@pytest.mark.parametrize("name", ["connect", "read", "write", "pool", "total"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "5", True])
def test_a_limit_that_is_none_is_refused_by_name(name, value):
    with pytest.raises(UsageError, match="want seconds above 0") as caught:
        Timeout(**{name: value})
    assert ("timeout" if name == "total" else f"{name} timeout") in str(caught.value)
