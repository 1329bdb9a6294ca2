"""Scenarios of idle connections and of cancelled requests: who is asked, and who keeps a slot.

Each test is named after its scenario in the table of requirements.
"""

from __future__ import annotations

import pytest

from h2lite.call import Call
from h2lite.errors import ReadTimeout
from h2lite.health import LIVE
from h2lite.settings import SettingId
from h2lite.testing import Answer, VirtualServer, World
from tests.scenes import (
    begun,
    delivered,
    held,
    member,
    names,
    opened,
    pinged,
    policy,
    states,
    watch,
)

# -- connections without a stream ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("while_idle", "expected"), [(False, []), (True, [float(at) for at in range(1, 11)])]
)
def test_idle_no_streams_off_on(while_idle, expected):
    world = World(policy(ping_after_idle=1, while_idle=while_idle))
    server = world.serve()
    opened(world, server)

    world.run(10.5)

    assert pinged(server) == expected
    assert [state for _, state, _ in states(world) if state != "PROBING"][-1] == "LIVE"
    assert world.pool.stats()["pings_acked"] == len(expected)


@pytest.mark.parametrize("while_idle", [False, True])
def test_idle_no_streams_off_on_of_a_server_that_hangs(while_idle):
    world = World(policy(ping_after_idle=1, ping_timeout=1, while_idle=while_idle))
    server = world.serve()
    opened(world, server)
    world.run(0.5)
    server.lines[0].freeze()

    world.run(60)

    dead = [(at, cause) for at, state, cause in states(world) if state == "DEAD"]
    assert dead == ([(2.0, "peer_hung")] if while_idle else [])
    assert world.pool.stats()["pings_sent"] == (1 if while_idle else 0)


def test_idle_no_streams_off_asks_while_a_stream_is_open():
    world = World(policy(ping_after_idle=1, while_idle=False))
    server = world.serve()
    opened(world, server, begun)
    world.run(3.5)
    call = world.request(server)
    world.run(6)
    world.cancel(call)

    world.run(20)

    # What was due in the idle time is asked with the request, the rest while it is open.
    assert pinged(server) == [3.5, 4.5, 5.5]


def dormant() -> tuple[World, VirtualServer]:
    """Ten minutes without a stream and without a PING, at 600.0."""
    world = World(policy(while_idle=False), idle_close=0)
    server = world.serve()
    opened(world, server)
    world.run(600)
    assert (server.pings, states(world)) == ([], [(0.0, "LIVE", "")])
    return world, server


def test_dormant_wake():
    world, server = dormant()
    server.lines[0].blackhole(up=False)
    log = watch(server.lines[0].up)

    call = world.request(server, "POST", b"content")
    world.run(602.999)
    assert (server.dials, len(server.seen)) == ([0.0], 1)
    world.run(700)

    assert names(log) == [(600.0, "PING")]
    assert states(world)[1:] == [
        (600.0, "PROBING", ""),
        (603.0, "SUSPECT", ""),
        (615.0, "DEAD", "path_dead"),
    ]
    assert (call.status, call.retries, server.dials) == (200, 0, [0.0, 603.0])
    assert [(seen.at, seen.line.number, seen.body) for seen in server.seen[1:]] == [
        (603.0, 2, b"content")
    ]


def test_dormant_wake_of_a_healthy_connection():
    world, server = dormant()
    log = watch(server.lines[0].up)

    call = world.request(server, "POST", b"content")
    world.run(601)

    assert [name for _, name in names(log)][:3] == ["PING", "HEADERS", "DATA"]
    assert states(world)[1:] == [(600.0, "PROBING", ""), (600.0, "LIVE", "")]
    assert (call.status, delivered(world, call)[-1], server.dials) == (200, 600.0, [0.0])


# -- cancelled requests ----------------------------------------------------------------------------


def asked(streams_max: int, **options: float) -> tuple[World, VirtualServer]:
    """A connection with a round trip of 0.25 s on which no request is answered, at 2.0."""
    world = World(policy(**options))
    server = world.serve(delay_s=0.125)
    server.settings = {SettingId.MAX_CONCURRENT_STREAMS: streams_max}
    opened(world, server, held)
    world.run(2)
    return world, server


def get(world: World, server: VirtualServer) -> Call:
    """A request that is at the server, unanswered, half a second later."""
    call = world.request(server)
    world.run_for(0.5)
    assert not call.over
    return call


def test_cancel_probe():
    world, server = asked(3)
    first, second, _ = [get(world, server) for _ in range(3)]
    log = watch(server.lines[0].up)
    world.cancel(first)
    world.run(3.625)
    world.cancel(second)
    waiting = world.request(server)
    world.run(3.749)
    assert (member(world).held, waiting.sent_at, server.dials) == (2, None, [0.0])

    world.run(4)

    # Both slots are free by the ack, a quarter of a second after the PING.
    assert names(log) == [
        (3.5, "PING"),
        (3.5, "RST_STREAM"),
        (3.625, "RST_STREAM"),
        (3.75, "HEADERS"),
    ]
    assert (pinged(server), server.dials) == ([3.625], [0.0])
    assert (member(world).held, member(world).room, waiting.sent_at) == (0, 1, 3.75)
    stats = world.pool.stats()
    assert (stats["pings_sent"], stats["pings_acked"], stats["rescues"]) == (1, 1, 0)
    assert states(world)[1:] == [(3.5, "PROBING", ""), (3.75, "LIVE", "")]


def test_cancel_probe_for_a_request_that_timed_out():
    world, server = asked(3)
    call = world.request(server, timeout=1.0)
    log = watch(server.lines[0].up)

    world.run(4)

    assert names(log)[1:] == [(3.0, "PING"), (3.0, "RST_STREAM")]
    assert type(call.error) is ReadTimeout
    assert (delivered(world, call)[-1], call.error.maybe_processed) == (3.0, True)
    assert states(world)[1:] == [(3.0, "PROBING", ""), (3.25, "LIVE", "")]


def test_cancel_no_probe_if_alive():
    world, server = asked(1)
    server.answer = begun
    call = get(world, server)
    assert call.status == 200
    log = watch(server.lines[0].up)
    world.cancel(call)
    waiting = world.request(server)
    world.run(3)

    assert names(log) == [(2.5, "RST_STREAM"), (2.5, "HEADERS")]
    assert (waiting.status, server.pings, server.dials) == (200, [], [0.0])
    assert member(world).held == 0


def test_cancel_ping_rationed():
    world, server = asked(3)
    log = watch(server.lines[0].up)
    for _ in range(4):
        call = get(world, server)
        world.cancel(call)
        world.run_for(0.5)
    assert pinged(server) == [2.625]
    # An answer allows another.
    server.answer = lambda seen: Answer()
    world.request(server)
    world.run_for(0.5)
    server.answer = held
    world.cancel(get(world, server))
    world.run_for(0.5)

    resets = [at for at, name in names(log) if name == "RST_STREAM"]
    assert resets == [2.5, 3.5, 4.5, 5.5, 7.0]
    assert [at for at, name in names(log) if name == "PING"] == [2.5, 7.0]
    assert (member(world).held, server.dials) == (0, [0.0])
    assert [state for _, state, _ in states(world)] == ["LIVE", *["PROBING", "LIVE"] * 2]


def test_cancel_ping_rationed_frees_the_slot_where_no_ping_may_be_sent():
    world, server = asked(1)
    world.cancel(get(world, server))
    world.run_for(0.5)
    call = get(world, server)
    log = watch(server.lines[0].up)

    world.cancel(call)
    world.request(server)
    world.run_for(0.1)

    assert names(log) == [(3.5, "RST_STREAM"), (3.5, "HEADERS")]
    assert (member(world).held, server.dials) == (0, [0.0])


def test_unresponsive_conn_abandoned():
    world, server = asked(3)
    server.lines[0].blackhole(up=False)
    calls = [get(world, server) for _ in range(3)]
    log = watch(server.lines[0].up)
    for call in calls:
        world.cancel(call)
    assert (server.dials, member(world).held) == ([0.0], 3)
    server.answer = lambda seen: Answer()

    fourth = world.request(server, "POST", b"content")
    world.run(60)

    assert names(log) == [(3.5, "PING"), *[(3.5, "RST_STREAM")] * 3]
    # TCP and TLS, the SETTINGS, the request: 0.125 s each way.
    assert server.dials == [0.0, 3.5]
    assert [(seen.at, seen.line.number, seen.body) for seen in server.seen[4:]] == [
        (4.25, 2, b"content")
    ]
    assert (fourth.status, fourth.retries) == (200, 0)
    assert states(world)[1:] == [
        (3.5, "PROBING", ""),
        (6.5, "SUSPECT", ""),
        (18.5, "DEAD", "path_dead"),
    ]


def test_unresponsive_conn_abandoned_comes_back_with_an_octet():
    world, server = asked(3)
    calls = [get(world, server) for _ in range(3)]
    for call in calls:
        world.cancel(call)
    assert not member(world).takes_requests

    world.run_for(0.25)

    assert (member(world).takes_requests, member(world).room) == (True, 3)
    world.cancel(get(world, server))
    assert (server.dials, server.seen[-1].line.number) == ([0.0], 1)


@pytest.mark.parametrize("pause_s", [0.05, 0.5, 12.0])
def test_cancel_storm_keeps_conn(pause_s):
    """Faster than a round trip, slower, and each on a connection gone stale."""
    world, server = asked(10)
    for _ in range(1000):
        call = world.request(server)
        world.run_for(pause_s)
        world.cancel(call)
    world.run_for(1)

    health = member(world).health
    assert (server.dials, len(server.peers), health.state) == ([0.0], 1, LIVE)
    assert (member(world).held, member(world).room, health.busy) == (0, 10, False)
    assert world.pool.stats()["deaths"] == {}
    server.answer = lambda seen: Answer()
    last = [world.request(server) for _ in range(3)]
    world.run_for(1)
    assert [(call.status, call.error) for call in last] == [(200, None)] * 3
    assert {seen.line.number for seen in server.seen} == {1}
