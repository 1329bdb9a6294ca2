"""Scenarios of outages, slow readers and doubt: what is given up, what survives, what moves.

Each test is named after its scenario in the table of requirements.  Delays are 0 unless a test
says otherwise, so a connection is up at 0.0 and a request is at the server when it leaves.
"""

from __future__ import annotations

import pytest

from h2lite.frames import WindowUpdateFrame
from h2lite.orders import Moved
from h2lite.settings import SettingId
from h2lite.testing import Answer, World
from tests.scenes import (
    MIB,
    begun,
    delivered,
    held,
    let_time_run,
    member,
    names,
    near,
    open_wide,
    opened,
    pinged,
    policy,
    states,
    watch,
    widen,
)

# -- paths and processes that stop -----------------------------------------------------------------


def test_reconnect_broken_tcp():
    world = World(policy(ping_after_idle=1, ping_timeout=1))
    server = world.serve()
    opened(world, server)
    world.run(0.5)
    server.lines[0].freeze()
    world.run(3.5)
    assert states(world)[1:] == [(1.0, "PROBING", ""), (2.0, "DEAD", "peer_hung")]
    assert server.lines[0].client.is_closed

    call = world.request(server)
    world.run(4)

    assert (call.status, call.retries, delivered(world, call)[-1]) == (200, 0, 3.5)
    assert server.dials == [0.0, 3.5]
    assert [seen.line for seen in server.seen] == server.lines


@pytest.mark.parametrize("ping_after_idle", [2, 0])
def test_kube_15min(ping_after_idle):
    """Streams and small writes into a black hole; without PINGs nothing tells of it."""
    world = World(policy(ping_after_idle=ping_after_idle, ping_timeout=1), idle_close=0)
    server = world.serve()
    opened(world, server, begun)
    watched = world.request(server)
    world.run(2.5)
    server.lines[0].blackhole()
    beats = []
    for count in range(1000):
        world.run(3.25 + count)
        beats.append(world.request(server, "POST", b"a heartbeat"))

    deaths = world.pool.stats()["deaths"]
    if ping_after_idle:
        # The last octet came with the ack of 2.0.
        assert states(world)[3:] == [(4.0, "PROBING", ""), (5.0, "DEAD", "path_dead")]
        assert watched.error is not None
        assert (watched.error.cause, delivered(world, watched)[-1]) == ("path_dead", 5.0)
        # What was sent into the hole may have been served; the next one dials.
        assert [beat.error is None for beat in beats[:4]] == [False, False, True, True]
        assert (deaths, server.dials) == ({"path_dead": 1}, [0.0, 5.25])
    else:
        assert states(world) == [(0.0, "LIVE", "")]
        assert (deaths, server.dials, server.pings) == ({}, [0.0], [])
        assert [call.over for call in (watched, *beats)] == [False] * 1001


def test_sigstop_peer():
    world = World(policy())
    server = world.serve()
    opened(world, server, begun)
    call = world.request(server)
    world.run(0.5)
    server.stop()

    world.run(100)

    assert states(world) == [
        (0.0, "LIVE", ""),
        (30.0, "PROBING", ""),
        (33.0, "SUSPECT", ""),
        (45.0, "DEAD", "peer_hung"),
    ]
    assert call.error is not None
    assert (call.error.cause, delivered(world, call)[-1]) == ("peer_hung", 45.0)
    assert (server.pings, server.dials) == ([], [0.0])


def test_sigcont_in_time():
    world = World(policy())
    server = world.serve()
    opened(world, server)
    server.answer = lambda seen: Answer(body=b"before and after", pieces=2, body_gap_s=33.0)
    call = world.request(server)
    world.run(29.5)
    server.stop()
    world.run(37.5)
    server.cont()

    world.run(66.5)

    assert states(world) == [
        (0.0, "LIVE", ""),
        (30.0, "PROBING", ""),
        (33.0, "SUSPECT", ""),
        (37.5, "LIVE", ""),
    ]
    assert (call.status, call.error, world.bodies[call]) == (200, None, b"before and after")
    assert (world.pool.stats()["deaths"], server.dials) == ({}, [0.0])


@pytest.mark.parametrize(
    ("outage", "ping_timeout", "expected"),
    [
        (1.0, 5, [(30.0, "PROBING", ""), (30.75, "LIVE", "")]),
        (3.2, 15, [(30.0, "PROBING", ""), (32.95, "LIVE", "")]),
        (14.9, 15, [(30.0, "PROBING", ""), (33.0, "SUSPECT", ""), (44.65, "LIVE", "")]),
    ],
)
def test_transient_blackhole(outage, ping_timeout, expected):
    world = World(policy(ping_timeout=ping_timeout))
    server = world.serve()
    opened(world, server, begun)
    call = world.request(server)
    world.run(29.75)
    (line,) = server.lines
    line.blackhole()
    world.run(29.75 + outage)
    line.mend()

    world.run(60)

    assert states(world)[1:] == expected
    assert (call.error, world.pool.stats()["deaths"], server.dials) == (None, {}, [0.0])


# -- peers that do not read ------------------------------------------------------------------------


def test_zero_window_slow_reader():
    world = World(policy())
    server = world.serve()
    open_wide(server)
    opened(world, server)
    widen(server)
    world.run(0.25)
    server.answer = lambda seen: Answer(body=bytes(80), pieces=80, body_gap_s=1.0)
    download = world.request(server)
    world.run(0.5)
    server.reads = False
    server.answer = lambda seen: Answer(delay_s=5)
    upload = world.request(server, "POST", bytes(4 * MIB))
    world.run(30.5)  # twice write_stall
    (line,) = server.lines
    assert (line.up.room, upload.over, server.seen[-1].method) == (0, False, "GET")
    server.reads = True
    server.peers[0].read_again()

    world.run(90)

    assert (download.status, download.error, len(world.bodies[download])) == (200, None, 80)
    assert (upload.status, upload.error, len(server.seen[-1].body)) == (200, None, 4 * MIB)
    assert delivered(world, upload)[-1] == 35.5
    assert (world.pool.stats()["deaths"], server.dials) == ({}, [0.0])


def test_peer_not_reading():
    world = World(policy())
    server = world.serve()
    open_wide(server)
    opened(world, server)
    widen(server)
    world.run(1)
    server.reads = False
    upload = world.request(server, "POST", bytes(4 * MIB))
    (peer,) = server.peers
    for count in range(1, 100):
        world.network.later(count * 0.75, lambda: peer.send(WindowUpdateFrame(0, 1).encode()))

    world.run(100)

    # The PING of 30 s waits behind the upload, and the next octet ends it.
    assert states(world) == [
        (0.0, "LIVE", ""),
        (30.0, "PROBING", ""),
        (30.25, "LIVE", ""),
        (61.0, "DEAD", "peer_not_reading"),
    ]
    assert upload.error is not None
    assert (upload.error.cause, upload.error.maybe_processed) == ("peer_not_reading", True)
    assert delivered(world, upload)[-1] == 61.0
    assert server.pings == []


# -- doubt, and what moves -------------------------------------------------------------------------


def test_soft_routes_away():
    world = World(policy(), connections_per_origin_max=2)
    server = world.serve(delay_s=0.005)
    server.settings = {SettingId.MAX_CONCURRENT_STREAMS: 1}
    server.answer = lambda seen: Answer(delay_s=0.1)
    first = [world.request(server), world.request(server)]
    world.run(1)
    assert [call.status for call in first] == [200, 200]
    assert [seen.line for seen in server.seen] == server.lines
    world.pool.ping_all(world.clock.now, timeout_s=5)
    world.run(2)
    samples = [each.health.srtt_s for each in world.pool.members]
    assert samples == [near(0.01)] * 2
    server.lines[0].freeze()
    asked = 0.025 + 30  # its SETTINGS came 5 ms after four times as long for TCP and TLS
    world.run(asked + 1.49)
    assert [state for _, state, _ in states(world)] == ["LIVE", "PROBING"]

    world.run(asked + 1.51)
    calls = [world.request(server), world.request(server)]
    world.run(asked + 3)

    assert states(world)[1:] == [
        (near(asked), "PROBING", ""),
        (near(asked + 1.5), "SUSPECT", ""),
    ]
    assert [state for _, state, _ in states(world, 2)] == ["LIVE", "PROBING", "LIVE"]
    assert [(call.status, call.retries) for call in calls] == [(200, 0), (200, 0)]
    # The first at once, on the one that is up; the second has no room there.
    assert [(seen.line.number, seen.at) for seen in server.seen[2:]] == [
        (2, near(asked + 1.51 + 0.005)),
        (3, near(asked + 1.51 + 0.03)),
    ]


def test_suspect_recovers():
    world = World(policy())
    server = world.serve()
    opened(world, server)
    server.answer = lambda seen: Answer(body=b"intact", pieces=2, body_gap_s=50.0)
    call = world.request(server)
    server.acks_pings = False
    world.run(40)
    assert [state for _, state, _ in states(world)] == ["LIVE", "PROBING", "SUSPECT"]
    server.acks_pings = True
    update = WindowUpdateFrame(0, 1).encode()
    server.lines[0].server.send(update[:1])
    world.run(41)
    assert states(world)[3:] == [(40.0, "LIVE", "")]
    server.lines[0].server.send(update[1:])
    later = world.request(server)

    world.run(150)

    assert (world.bodies[call], call.error, later.error) == (b"intact", None, None)
    assert [seen.line for seen in server.seen] == server.lines * 3
    stats = world.pool.stats()
    assert (stats["suspects"], stats["false_suspects"], stats["rescues"]) == (1, 1, 1)
    assert (stats["deaths"], server.dials) == ({}, [0.0])


@pytest.mark.parametrize("connections_max", [1, 3])
def test_replacement_dial_once(connections_max):
    world = World(policy(), connections_per_origin_max=connections_max)
    server = world.serve(delay_s=0.125)
    opened(world, server)
    server.lines[0].freeze()
    asked = 0.625 + 30
    world.run(asked + 4)
    assert states(world)[1:] == [(asked, "PROBING", ""), (asked + 3, "SUSPECT", "")]
    assert server.dials == [0.0]

    calls = [world.request(server) for _ in range(50)]
    world.run(asked + 10)

    assert server.dials == [0.0, asked + 4]
    assert [(call.status, call.retries) for call in calls] == [(200, 0)] * 50
    # TCP and TLS, the SETTINGS, the requests: 0.125 s each way.
    assert [(seen.line.number, seen.at) for seen in server.seen[1:]] == [(2, asked + 4.75)] * 50
    assert world.pool.stats()["dials"] == 2


def test_queued_move():
    world = World(policy(ping_after_idle=1))
    server = world.serve()
    open_wide(server)
    server.settings[SettingId.MAX_CONCURRENT_STREAMS] = 3
    opened(world, server)
    widen(server)
    world.run(0.5)
    (line,) = server.lines
    line.freeze()
    upload = world.request(server, "POST", bytes(4 * MIB))
    world.run(2)
    # Two that the full socket holds back, two that wait for a slot of the peer's.
    given = [world.request(server, "POST", b"first"), world.request(server)]
    waiting = [world.request(server, "POST", b"second"), world.request(server)]
    world.run(3.999)
    assert [call.member is not None for call in given + waiting] == [True, True, False, False]

    world.run(4.5)

    assert states(world)[1:] == [(1.0, "PROBING", ""), (4.0, "SUSPECT", "")]
    assert [(at, notice.call) for at, notice in world.told(Moved)] == [
        (4.0, given[0]),
        (4.0, given[1]),
    ]
    assert server.dials == [0.0, 4.0]
    assert [(seen.at, seen.line.number, seen.method, seen.body) for seen in server.seen[1:]] == [
        (4.0, 2, "POST", b"first"),
        (4.0, 2, "GET", b""),
        (4.0, 2, "POST", b"second"),
        (4.0, 2, "GET", b""),
    ]
    assert [(call.status, call.retries) for call in given + waiting] == [(200, 0)] * 4
    assert (upload.over, world.pool.stats()["moves"]) == (False, 2)


def test_stale_probe_before_use():
    world = World(policy())
    server = world.serve(delay_s=0.01)
    opened(world, server)
    world.run(0.5)
    at = member(world).health.heard_at + 11
    world.run(at)
    log = watch(server.lines[0].up)

    call = world.request(server, "POST", b"content")
    world.run(at + 1)

    assert names(log)[:3] == [
        (at, "PING"),
        (near(at + 0.02), "HEADERS"),
        (near(at + 0.02), "DATA"),
    ]
    assert (call.status, call.retries, server.dials) == (200, 0, [0.0])
    assert [(seen.at, seen.body) for seen in server.seen[1:]] == [
        (near(at + 0.03), b"content")
    ]


def test_stale_probe_before_use_in_silence():
    world = World(policy())
    server = world.serve()
    opened(world, server)
    world.run(0.5)
    server.lines[0].blackhole(up=False)
    world.run(11)
    log = watch(server.lines[0].up)

    call = world.request(server, "POST", b"content")
    world.run(20)

    assert names(log) == [(11.0, "PING")]
    assert states(world)[1:] == [(11.0, "PROBING", ""), (14.0, "SUSPECT", "")]
    assert (call.status, call.retries, server.dials) == (200, 0, [0.0, 14.0])
    assert [(seen.at, seen.line.number, seen.method, seen.body) for seen in server.seen[1:]] == [
        (14.0, 2, "POST", b"content")
    ]
    world.run(30)
    assert states(world)[3:] == [(26.0, "DEAD", "path_dead")]
    assert pinged(server) == [11.0]


def test_stale_probe_before_use_can_be_switched_off():
    world = World(policy(hold_when_stale=False))
    server = world.serve(delay_s=0.01)
    opened(world, server, held)
    world.run(0.5)
    at = member(world).health.heard_at + 11
    world.run(at)
    log = watch(server.lines[0].up)

    world.request(server, "POST", b"content")
    world.run(at + 0.015)

    assert names(log) == [(at, "PING"), (at, "HEADERS"), (at, "DATA")]


@pytest.mark.parametrize("tick", [0.0, 1e-6])
def test_stale_probe_of_an_unanswered_request_on_a_clock_that_runs(tick, monkeypatch):
    """A clock reads otherwise each time it is asked; nothing may hang on two readings alike."""
    world = World(policy())
    server = world.serve(delay_s=0.01)
    opened(world, server, held)
    world.run(1)
    let_time_run(world, tick, monkeypatch)

    world.request(server)
    world.run(15)

    assert pinged(server) == [near(11.01, within=0.001)]


def test_stale_probe_is_not_for_a_request_that_was_answered_in_the_same_instant():
    world = World(policy())
    server = world.serve()
    opened(world, server)

    world.run(35)

    assert pinged(server) == [30.0]
