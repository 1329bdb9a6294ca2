"""Scenarios of silence, stalled writes and PINGs: one client on virtual time, exact to the instant.

Each test is named after its scenario in the table of requirements.  Delays are 0 unless a test
says otherwise, so a connection is up at 0.0 and a PING is at the server when it leaves.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from h2lite.errors import (
    ConnectionLost,
    ConnectTimeout,
    PingTimeout,
    UsageError,
)
from h2lite.frames import (
    FRAME_HEADER_SIZE,
    DataFrame,
    PingFrame,
    UnknownFrame,
    WindowUpdateFrame,
    encode_header,
)
from h2lite.health import LIVE, HealthPolicy
from h2lite.settings import SettingId
from h2lite.testing import Answer, VirtualServer, World
from tests.pair import GET as GET_FIELDS
from tests.pair import begun as begun_core
from tests.pair import drain, feed, parse
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

# -- probes, their deadlines and what ends them ----------------------------------------------


def test_lost_ping_aborts_streams():
    world = World(policy(ping_after_idle=1, ping_timeout=1))
    server = world.serve()
    server.answer = begun
    server.acks_pings = False
    call = world.request(server)

    world.run(10)

    assert pinged(server) == [1.0]
    assert states(world) == [(0.0, "LIVE", ""), (1.0, "PROBING", ""), (2.0, "DEAD", "peer_hung")]
    assert (call.status, type(call.error)) == (200, ConnectionLost)
    assert call.error is not None
    assert (call.error.cause, call.error.maybe_processed) == ("peer_hung", True)
    assert delivered(world, call)[-1] == 2.0
    assert server.dials == [0.0]
    assert world.pool.stats()["deaths"] == {"peer_hung": 1}


def test_repeated_ping_when_silent():
    world = World(policy(ping_after_idle=1))
    server = world.serve()
    opened(world, server)
    world.run(0.5)
    log = watch(server.lines[0].up)

    for count in range(5):
        world.run(count + 0.999)
        assert len(log) == count
        world.run(count + 1.25)

    assert names(log) == [(1.0 + count, "PING") for count in range(5)]
    assert pinged(server) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert len({opaque_data for _, _, opaque_data in server.pings}) == 5
    stats = world.pool.stats()
    assert (stats["pings_sent"], stats["pings_acked"], stats["deaths"]) == (5, 5, {})


@pytest.mark.parametrize("answer", [None, held, begun])
def test_disabled(answer):
    world = World(policy(ping_after_idle=0), idle_close=0)
    server = world.serve()
    opened(world, server, answer)
    world.run(11)
    calls = [world.request(server), world.request(server, "POST", b"content")]
    world.run(1000)
    for call in calls:
        world.cancel(call)

    world.run(10000)

    assert (server.pings, world.pool.stats()["pings_sent"]) == ([], 0)
    assert states(world) == [(0.0, "LIVE", "")]
    assert [seen.at for seen in server.seen] == [0.0, 11.0, 11.0]


# -- writes that stand still -------------------------------------------------------------------


def test_ping_write_blocked():
    world = World(policy(ping_after_idle=5, ping_timeout=4))
    server = world.serve()
    open_wide(server)
    opened(world, server)
    widen(server)
    world.run(1)
    log = watch(server.lines[0].up)
    server.reads = False
    call = world.request(server, "POST", bytes(4 * MIB))

    world.run(30)

    # Asked at 5 s; the PING stays here, so 9 s means nothing: the stalled write alone is judged.
    assert states(world) == [
        (0.0, "LIVE", ""),
        (5.0, "PROBING", ""),
        (8.0, "SUSPECT", ""),
        (16.0, "DEAD", "write_stall"),
    ]
    sent = b"".join(octets for _, octets in log)
    assert {at for at, _ in log} == {1.0}
    assert PingFrame.TYPE not in frame_types(sent)
    assert (server.pings, world.pool.stats()["pings_sent"]) == ([], 1)
    assert call.error is not None
    assert (call.error.cause, call.error.maybe_processed) == ("write_stall", True)
    assert server.dials == [0.0]


@pytest.mark.parametrize("tick", [0.0, 1e-6])
def test_ping_write_blocked_inside_tls(tick, monkeypatch):
    """The socket took a part of the record that holds the PING: it has not left."""
    world = World(policy(ping_after_idle=1, ping_timeout=2, write_stall=10))
    server = world.serve()
    opened(world, server)
    world.run(0.5)
    transport = server.lines[0].transport

    def seal(data: bytes) -> int:
        monkeypatch.setattr(transport, "committed", True)
        server.lines[0].up.path.capacity_octets = 0
        return len(data)

    monkeypatch.setattr(transport, "send", seal)
    monkeypatch.setattr(transport, "push", lambda: False)
    let_time_run(world, tick, monkeypatch)

    world.run(30)

    assert states(world)[1:] == [
        (near(1.0, within=0.001), "PROBING", ""),
        (near(3.0, within=0.001), "SUSPECT", ""),
        (near(11.0, within=0.001), "DEAD", "write_stall"),
    ]


def frame_types(octets: bytes) -> list[int]:
    """Of the frames in a stream of octets, the last of them perhaps cut."""
    return [octets[start + 3] for start in frame_starts(octets) if start + 3 < len(octets)]


def frame_starts(octets: bytes) -> list[int]:
    """Where each frame begins."""
    starts, at = [], 0
    while at < len(octets):
        starts.append(at)
        at += FRAME_HEADER_SIZE + int.from_bytes(octets[at : at + 3], "big")
    return starts


def test_write_no_progress():
    world = World(policy())
    server = world.serve()
    open_wide(server)
    server.reads = False
    call = world.request(server, "POST", bytes(8 * MIB))
    world.run(0.5)
    widen(server)
    world.run(14.999)
    (line,) = server.lines
    assert (line.up.room, call.error) == (0, None)
    assert call.stream is not None
    assert call.stream.queued_octets > 7 * MIB
    assert call.stream.send_window.size > 2**30

    world.run(100)

    assert states(world) == [(0.0, "LIVE", ""), (15.5, "DEAD", "write_stall")]
    assert call.error is not None
    assert (call.error.cause, call.error.maybe_processed) == ("write_stall", True)
    assert (server.pings, server.seen, server.dials) == ([], [], [0.0])


def test_client_sigstop_with_a_blocked_write():
    """The peer reads again while the client stands still, until a moment past write_stall."""
    world = World(policy())
    server = world.serve()
    open_wide(server)
    server.reads = False
    call = world.request(server, "POST", bytes(8 * MIB))
    world.run(0.5)
    widen(server)
    world.run(10.0)
    server.reads = True
    server.peers[0].is_mute = True  # it reads, and has nothing to say yet
    server.peers[0].read_again()
    world.stall(5.55)
    world.run(20.0)
    server.peers[0].is_mute = False
    server.peers[0].read_again()
    world.run(25.0)

    assert states(world) == [(0.0, "LIVE", "")]
    assert (call.error, call.status) == (None, 200)


@pytest.mark.parametrize(
    ("octets_per_s", "capacity_octets", "write_stall", "size"),
    [(100, 1, 0.05, 200), (640 * 1024, 64 * 1024, 2.0, 4 * MIB)],
    ids=["an octet each 10 ms", "64 KiB each 100 ms"],
)
def test_slow_writes_ok(octets_per_s, capacity_octets, write_stall, size):
    world = World(policy(write_stall=write_stall))
    server = world.serve(octets_per_s=octets_per_s, capacity_octets=capacity_octets)
    body = bytes(range(200)) * (size // 200)
    server.answer = lambda seen: Answer(delay_s=10)
    call = world.request(server, "POST", body)
    world.run(size / octets_per_s)
    (seen,) = server.seen
    assert len(seen.body) < size

    world.run(60)

    assert (call.status, call.error, world.bodies[call]) == (200, None, b"ok")
    assert (seen.body, len(server.seen)) == (body, 1)
    assert world.pool.stats()["deaths"] == {}


def test_any_byte_rescues():
    world = World(policy())
    server = world.serve()
    server.answer = begun
    server.acks_pings = False
    call = world.request(server)
    world.run(1)
    (peer,) = server.peers
    trickle = [37.5, 45.0, 52.5, 60.0, 67.5, 75.0]  # each half a ping_timeout, for three
    for at in trickle:
        world.network.later(at - 1, lambda: peer.send(DataFrame(1, b"x").encode()))

    world.run(200)

    assert pinged(server) == [30.0, 105.0]
    assert states(world) == [
        (0.0, "LIVE", ""),
        (30.0, "PROBING", ""),
        (33.0, "SUSPECT", ""),
        (37.5, "LIVE", ""),
        (105.0, "PROBING", ""),
        (108.0, "SUSPECT", ""),
        (120.0, "DEAD", "peer_hung"),
    ]
    assert delivered(world, call)[-7:] == [*trickle, 120.0]
    assert world.pool.stats()["rescues"] == 1


def test_any_byte_rescues_every_probe():
    """Octets rarer than the interval: each probe is ended by one, and none by its ack."""
    world = World(policy(ping_after_idle=1, ping_timeout=4))
    server = world.serve()
    server.answer = begun
    server.acks_pings = False
    world.request(server)
    world.run(0.5)
    (peer,) = server.peers
    for at in (2, 4, 6, 8, 10, 12):
        world.network.later(at - 0.5, lambda: peer.send(DataFrame(1, b"x").encode()))

    world.run(30)

    assert pinged(server) == [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0]
    assert states(world)[-3:] == [
        (13.0, "PROBING", ""),
        (16.0, "SUSPECT", ""),
        (17.0, "DEAD", "peer_hung"),
    ]
    stats = world.pool.stats()
    assert (stats["rescues"], stats["pings_acked"]) == (6, 0)


def test_partial_frame_rescues():
    largest = 2**24 - 1
    world = World(policy(ping_after_idle=1), settings={SettingId.MAX_FRAME_SIZE: largest})
    server = world.serve(octets_per_s=1e6, capacity_octets=2**25)
    opened(world, server)
    (peer,) = server.peers
    ready_at = member(world).ready_at
    assert ready_at is not None
    world.run(ready_at + 1)
    # The PING is on its way: the frame is ahead of its ack, and takes 16.8 s.
    peer.send(UnknownFrame(0xF0, 0, 0, bytes(largest)).encode())

    world.run(18)

    assert pinged(server) == [near(1, within=0.01)]
    assert [state for _, state, _ in states(world)] == ["LIVE", "PROBING", "LIVE"]
    assert states(world)[-1][0] == near(1.016, within=0.01)
    health = member(world).health
    assert (health.state, health.rescues, health.late_acks) == (LIVE, 1, 1)
    assert health.late_rtt_s == near(16.78, within=0.01)


def test_ack_late_behind_bulk():
    world = World(policy(ping_after_idle=1, ping_timeout=2))
    server = world.serve(delay_s=0.05, octets_per_s=125000, capacity_octets=MIB)
    opened(world, server, held)
    call = world.request(server)
    ready_at = member(world).ready_at
    assert ready_at is not None
    world.run(ready_at + 0.9)
    (peer,) = server.peers
    # It leaves before the PING comes, and arrives after the PING has left.
    peer.respond(server.seen[-1], Answer(body=bytes(400_000)))

    world.run(ready_at + 5)

    assert (len(world.bodies[call]), call.error) == (400_000, None)
    assert [state for _, state, _ in states(world)] == ["LIVE", "PROBING", "LIVE"]
    assert states(world)[1][0] == ready_at + 1
    assert states(world)[2][0] == near(ready_at + 1.08, within=0.01)
    health = member(world).health
    # 400 kB at 125 kB/s, less the 0.05 s that they were on their way before the PING was.
    assert health.late_rtt_s == near(3.2 - 0.05, within=0.01)
    assert (health.rescues, health.late_acks, health.acks, health.srtt_s) == (1, 1, 0, None)
    assert len(server.pings) == 1


# -- the order of what leaves --------------------------------------------------------------------


def blocked_upload(capacity_octets: int) -> tuple[World, VirtualServer, list[tuple[float, bytes]]]:
    """A connection whose socket is full amid 1 MiB of DATA, at 1.0, and what left since."""
    world = World(policy())
    server = world.serve(capacity_octets=capacity_octets)
    open_wide(server)
    opened(world, server, held)
    widen(server)
    world.run(1)
    (line,) = server.lines
    log = watch(line.up)
    line.up.frozen = True
    world.request(server, "POST", bytes(MIB))
    world.run(2)
    assert (line.up.room, sum(len(octets) for _, octets in log)) == (0, capacity_octets)
    return world, server, log


@pytest.mark.parametrize("capacity_octets", [17_000, 50_000, 65_000])
def test_ping_ahead_of_data(capacity_octets):
    world, server, log = blocked_upload(capacity_octets)
    ping = world.pool.ping(member(world), world.clock.now, timeout_s=60)
    world.run(3)
    server.lines[0].mend()

    world.run(9)

    sent = b"".join(octets for _, octets in log)
    start = next(start for start in frame_starts(sent) if start >= capacity_octets)
    assert sent[start:].startswith(PingFrame(ping.opaque_data).encode())
    assert (ping.queued_s, ping.rtt_s, ping.error) == (1.0, 0.0, None)
    assert len(server.seen[-1].body) == MIB


@pytest.mark.parametrize("capacity_octets", [17_000, 50_000, 65_000])
def test_pong_priority(capacity_octets):
    world, server, log = blocked_upload(capacity_octets)
    (peer,) = server.peers
    peer.send(PingFrame(b"12345678").encode())
    world.run(3)
    server.lines[0].mend()

    world.run(9)

    sent = b"".join(octets for _, octets in log)
    start = next(start for start in frame_starts(sent) if start >= capacity_octets)
    assert sent[start:].startswith(PingFrame(b"12345678", ack=True).encode())
    assert len(server.seen[-1].body) == MIB


@pytest.mark.parametrize("ask", ["ping", "peer's ping"])
def test_ping_ahead_of_data_wherever_the_socket_stopped(ask):
    """Every place at which a socket can cut three frames, in the connection alone."""
    fields = [(b":method", b"POST"), *GET_FIELDS[1:]]
    for cut in range(1, 3 * 1009 + 40):
        core = begun_core(client=True)
        for _ in range(3):
            core.send_data(core.send_request(fields, end_stream=False), bytes(1000), True)
        octets = core.data_to_send(0.0)
        cut = min(cut, len(octets) - 1)
        core.put_back(octets[cut:])
        if ask == "ping":
            core.ping(b"12345678", 1.0)
        else:
            feed(core, PingFrame(b"12345678"), now=1.0)

        sent = octets[:cut] + drain(core, 1.0)

        starts = [start for start in frame_starts(sent) if start >= cut]
        frame = PingFrame(b"12345678", ack=ask != "ping")
        assert parse(sent[starts[0] : starts[0] + 17]) == [frame]
        assert sent.replace(frame.encode(), b"") == octets


# -- acks and PINGs that somebody asks for -------------------------------------------------------


def test_unknown_ack():
    world = World(policy(ping_after_idle=0))
    server = world.serve()
    opened(world, server)
    world.run(1)
    log = watch(server.lines[0].up)
    (peer,) = server.peers
    peer.send(PingFrame(b"a stray!", ack=True).encode())

    world.run(2)

    stats = world.pool.stats()
    assert (stats["unknown_acks"], stats["late_acks"], stats["pings_acked"]) == (1, 0, 0)
    assert (states(world), log) == ([(0.0, "LIVE", "")], [])
    call = world.request(server)
    world.run(3)
    assert (call.status, server.dials) == (200, [0.0])


def test_ping_payloads_distinct():
    world = World(policy(ping_after_idle=0))
    server = world.serve(delay_s=0.125)
    opened(world, server)
    world.run(2)
    pings = [world.pool.ping(member(world), 2.0, timeout_s=5) for _ in range(8)]
    with pytest.raises(UsageError):
        world.pool.ping(member(world), 2.0, timeout_s=5)

    world.run(20)

    assert pinged(server) == [2.125] * 8
    sent = [opaque_data for _, _, opaque_data in server.pings]
    assert (len(set(sent)), sent) == (8, [ping.opaque_data for ping in pings])
    assert [(ping.rtt_s, ping.error) for ping in pings] == [(0.25, None)] * 8
    assert [delivered(world, ping) for ping in pings] == [[2.25]] * 8
    assert world.pool.stats()["pings_acked"] == 8
    assert world.pool.ping(member(world), 20.0, timeout_s=5).opaque_data not in sent


def test_ping_timeout_forgets():
    world = World(policy(ping_after_idle=0))
    server = world.serve()
    opened(world, server)
    server.acks_pings = False
    world.run(1)
    ping = world.pool.ping(member(world), 1.0, timeout_s=2)
    world.run(5)
    assert type(ping.error) is PingTimeout
    assert (ping.rtt_s, delivered(world, ping)) == (None, [3.0])
    connection: Any = member(world).connection
    assert (member(world).pings, connection.ping_sent_at(ping.opaque_data)) == ({}, None)
    assert connection._pings == {}

    server.peers[0].send(PingFrame(ping.opaque_data, ack=True).encode())
    world.run(6)

    stats = world.pool.stats()
    assert (stats["late_acks"], stats["unknown_acks"], stats["pings_acked"]) == (1, 0, 0)
    assert (delivered(world, ping), ping.rtt_s) == ([3.0], None)
    assert states(world) == [(0.0, "LIVE", "")]


@pytest.mark.parametrize("cause", ["local", "eof", "reset"])
def test_ping_on_closed(cause):
    world = World(policy())
    server = world.serve()
    opened(world, server)
    server.acks_pings = False
    world.run(1)
    ping = world.pool.ping(member(world), 1.0, timeout_s=60)
    world.run(2)

    if cause == "local":
        world.pool.close(2.0)
    elif cause == "eof":
        server.peers[0].close()
    else:
        server.peers[0].kill()
    world.run(100)

    assert type(ping.error) is ConnectionLost
    assert (ping.error.cause, ping.rtt_s, delivered(world, ping)) == (cause, None, [2.0])
    assert world.pool.stats()["deaths"] == {cause: 1}


# -- one death, and how often is asked before it ---------------------------------------------------


def spoil(world: World, server: VirtualServer, cause: str) -> None:
    """Bring a connection to its end by this cause, or to where its end begins."""
    (peer,), (line,) = server.peers, server.lines
    if cause == "path_dead":
        line.blackhole()
    elif cause == "peer_hung":
        server.acks_pings = False
    elif cause in ("write_stall", "peer_not_reading"):
        line.up.frozen = True
        world.request(server, "POST", bytes(MIB))
        for count in range(100 if cause == "peer_not_reading" else 0):
            world.network.later(count / 2, lambda: peer.send(WindowUpdateFrame(0, 1).encode()))
    elif cause == "eof":
        peer.close()
    elif cause == "reset":
        peer.kill()
    elif cause == "goaway":
        peer.goaway()
    elif cause == "protocol_error":
        peer.send(encode_header(PingFrame.TYPE, 0, 0, 7) + bytes(7))
    else:
        world.pool.close(world.clock.now)


@pytest.mark.parametrize(
    ("cause", "at"),
    [
        ("path_dead", 7.0),
        ("peer_hung", 7.0),
        ("write_stall", 4.0),
        ("peer_not_reading", 5.0),
        ("eof", 1.0),
        ("reset", 1.0),
        ("goaway", 1.0),
        ("protocol_error", 1.0),
        ("local", 1.0),
    ],
)
def test_single_death(cause, at):
    world = World(
        policy(ping_after_idle=5, ping_timeout=2, write_stall=3, peer_not_reading=4), idle_close=0
    )
    server = world.serve(capacity_octets=32768)
    opened(world, server)
    log = watch(server.lines[0].up)
    world.run(1)

    spoil(world, server, cause)
    world.run(at + 0.5)
    assert (world.pool.members, world.pool.next_deadline()) == ([], None)
    world.run(at + 50)
    world.pool.close(world.clock.now)
    world.run_for(50)

    dead = [(when, why) for when, state, why in states(world) if state == "DEAD"]
    assert dead == [(at, cause)]
    assert world.pool.stats()["deaths"] == {cause: 1}
    assert [when for when, octets in log if PingFrame.TYPE in frame_types(octets)] == (
        [5.0] if cause in ("path_dead", "peer_hung") else []
    )
    assert (world.driver.is_idle, world.loop.next_deadline()) == (True, None)


@pytest.mark.parametrize(
    ("ping_after_idle", "ping_timeout", "delay_s"),
    [(3, 1, 0.25), (1, 3, 0.25), (1, 3, 1.0)],
)
def test_interval_gt_timeout_and_lt(ping_after_idle, ping_timeout, delay_s):
    world = World(policy(ping_after_idle=ping_after_idle, ping_timeout=ping_timeout), idle_close=0)
    server = world.serve(delay_s=delay_s)
    opened(world, server)
    first = 5 * delay_s + ping_after_idle  # four for TCP and TLS, one for the SETTINGS
    period = ping_after_idle + 2 * delay_s

    world.run(first + 10 * period + delay_s)

    assert pinged(server) == [first + count * period + delay_s for count in range(11)]
    stats = world.pool.stats()
    acks = stats["pings_acked"] + stats["late_acks"]  # late: the response came before it
    assert (stats["pings_sent"], acks, stats["deaths"]) == (11, 10, {})


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_jitter_upward(seed):
    world = World(HealthPolicy(), seed, idle_close=0)
    server = world.serve()
    opened(world, server)

    world.run(1002 * 34.5)

    instants = pinged(server)
    gaps = [after - before for before, after in pairwise(instants)]
    assert len(gaps) >= 1000
    assert 0 <= instants[0] <= 30
    assert 30 - 1e-9 <= min(gaps) < 30.5
    assert 34 < max(gaps) <= 34.5 + 1e-9
    assert sum(gaps) / len(gaps) == near(30 * 1.075, within=0.2)


def test_no_ping_before_settings():
    world = World(policy(ping_after_idle=1))
    server = world.serve()
    server.sends_settings = False
    call = world.request(server)
    world.run(9.999)
    assert not call.over

    world.run(30)

    assert type(call.error) is ConnectTimeout
    assert (delivered(world, call), call.error.maybe_processed) == ([10.0], False)
    assert states(world) == [(10.0, "DEAD", "connect_timeout")]
    assert (server.pings, server.seen, server.dials) == ([], [], [0.0])
    stats = world.pool.stats()
    assert (stats["pings_sent"], stats["dials_failed"], stats["deaths"]) == (0, 1, {})
