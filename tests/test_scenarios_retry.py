"""Requests that did not arrive: what is repeated, where, when, and what is told instead.

On virtual time, with servers by script; every instant is exact.  Grounds: RFC 9113 §6.8, §8.7.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from h2lite.call import Call
from h2lite.errors import ConnectionLost, ErrorCode, StreamReset
from h2lite.health import STATE_NAMES, HealthPolicy
from h2lite.orders import Calmed, Retried, StateChanged
from h2lite.retry import RETRY_DELAYS_S
from h2lite.testing import Answer, Seen, VirtualServer, World

SOON_S = 0.001  # all that follows at once has happened by then
HOLD = Answer(hold=True)
RAISED_MAX = 2**31 - 1


def held(seen: Seen) -> Answer:
    return HOLD


def follow(server: VirtualServer, *script: Answer) -> None:
    """Answer by script: the n-th request by its n-th line, all others by the last."""
    server.answer = lambda seen: script[min(len(server.seen), len(script)) - 1]


def ends(call: Call) -> tuple[int, bool, type | None]:
    """What became of a request: its status, whether it is complete, its error's class."""
    return call.status, call.ended, None if call.error is None else type(call.error)


OK = (200, True, None)


def streams(server: VirtualServer) -> list[tuple[int, int]]:
    """The requests that came: connection and stream."""
    return [(seen.line.number, seen.stream_id) for seen in server.seen]


def changes(world: World) -> list[tuple[float, int, str, str]]:
    """Each change of state: instant, connection, state, cause."""
    return [
        (at, told.member.number, STATE_NAMES[told.after], told.cause)
        for at, told in world.told(StateChanged)
    ]


# -- GOAWAY ------------------------------------------------------------------------------------


def test_goaway_noerror_stream1_retry():
    """The connection was of no use, so the next dial waits for its back-off."""
    world = World()
    server = world.serve()
    follow(server, HOLD, Answer())
    call = world.request(server)
    world.run(0.5)

    server.peers[0].goaway(0)
    world.run(1.5 + SOON_S)

    assert ends(call) == OK
    assert streams(server) == [(1, 1), (2, 1)]
    assert server.dials == [0.0, 1.5]
    assert [(at, told.delay_s) for at, told in world.told(Retried)] == [(0.5, 0.0)]


def test_goaway_error_stream1_no_retry():
    """The first request of a connection that ended it would end the next one too."""
    world = World()
    server = world.serve()
    server.answer = held
    call = world.request(server, "POST", b"body")
    world.run(0.5)

    server.peers[0].goaway(0, ErrorCode.PROTOCOL_ERROR)
    world.run(100.0)

    assert ends(call) == (0, False, StreamReset)
    assert str(call.error) == (
        "the peer reset the stream, REFUSED_STREAM: left out by GOAWAY PROTOCOL_ERROR"
    )
    assert call.error is not None
    assert not call.error.maybe_processed
    assert (server.dials, streams(server)) == ([0.0], [(1, 1)])
    assert world.pool.stats()["retries"] == 0


def test_goaway_second_request():
    world = World()
    server = world.serve()
    follow(server, Answer(), HOLD, Answer())
    world.request(server)
    world.run(0.5)
    call = world.request(server, "POST", b"body")
    world.run(1.0)

    server.peers[0].goaway(1, ErrorCode.PROTOCOL_ERROR)
    world.run(1.0 + SOON_S)

    assert ends(call) == OK
    assert streams(server) == [(1, 1), (1, 3), (2, 1)]
    assert server.dials == [0.0, 1.0]
    assert server.seen[-1].body == b"body"


def test_goaway_last0():
    world = World()
    server = world.serve()
    follow(server, HOLD, Answer())
    call = world.request(server, "POST", b"the body")
    world.run(0.5)

    server.peers[0].goaway(0, ErrorCode.NO_ERROR)
    world.run(100.0)

    assert ends(call) == OK
    assert [(seen.at, seen.line.number, seen.method, seen.body) for seen in server.seen] == [
        (0.0, 1, "POST", b"the body"),
        (1.5, 2, "POST", b"the body"),
    ]
    assert (call.retries, world.pool.stats()["retries"]) == (1, 1)


def test_goaway_two_phase():
    world = World()
    server = world.serve()
    follow(server, HOLD, HOLD, HOLD, HOLD, Answer())
    calls = [world.request(server, "POST", b"%d" % number) for number in range(4)]
    world.run(0.5)
    peer, line = server.peers[0], server.lines[0]

    peer.goaway(RAISED_MAX)
    world.run(0.75)
    assert (streams(server), server.dials) == ([(1, 1), (1, 3), (1, 5), (1, 7)], [0.0])
    peer.goaway(5)
    world.run(1.75)

    # The connection had given no response, so its loss counts as a dial's failure: 1 s.
    assert [ends(call) for call in calls] == [(0, False, None)] * 3 + [OK]
    assert (streams(server)[4:], server.seen[4].body) == ([(2, 1)], b"3")
    assert server.dials == [0.0, 1.5]
    for seen in server.seen[:3]:
        assert not line.client.is_closed
        peer.respond(seen)
        world.run_for(SOON_S)
    assert [ends(call) for call in calls] == [OK] * 4
    assert (line.client.is_closed, line.server.is_closed) == (True, True)
    assert [change[1:] for change in changes(world)][-1] == (1, "DEAD", "goaway")


def test_goaway_raised():
    """A raised limit revives nothing: stream 7 is elsewhere by then."""
    world = World()
    server = world.serve()
    follow(server, Answer(), HOLD, HOLD, HOLD, Answer())
    world.request(server)
    world.run(0.5)
    calls = [world.request(server) for _ in range(3)]
    world.run(1.0)
    peer = server.peers[0]

    peer.goaway(5)
    world.run(2.0)
    peer.goaway(9)
    world.run(3.0)
    received = world.pool.members[0].connection.goaway_received
    assert received is not None
    assert received.last_stream_id == 5
    for seen in server.seen[1:3]:
        peer.respond(seen)
    world.run(4.0)

    assert [ends(call) for call in calls] == [OK] * 3
    assert streams(server) == [(1, 1), (1, 3), (1, 5), (1, 7), (2, 1)]
    assert [call.retries for call in calls] == [0, 0, 1]
    assert world.pool.stats()["deaths"] == {"goaway": 1}


def go_away_and_take_nothing(server: VirtualServer) -> None:
    """The peer refuses new requests, and its socket all octets; what it sends still comes."""
    server.peers[0].goaway(1)
    transport = server.lines[0].transport
    assert transport is not None
    transport.fails_sending = True


def test_drain_ping_failure():
    """A socket that takes nothing more still gives what the peer has to say."""
    world = World()
    server = world.serve()
    server.answer = lambda seen: Answer(delay_s=44.0)
    call = world.request(server)
    world.run(5.0)
    go_away_and_take_nothing(server)

    world.run(44.0 + SOON_S)

    assert (ends(call), call.retries, server.pings) == (OK, 0, [])
    assert changes(world) == [
        (0.0, 1, "LIVE", ""),
        (30.0, 1, "PROBING", ""),
        (33.0, 1, "SUSPECT", ""),
        (44.0, 1, "LIVE", ""),
        (44.0, 1, "DEAD", "goaway"),
    ]


def test_drain_ping_failure_again_and_again():
    """Each silence is asked about, in vain, and each DATA ends the question."""
    world = World()
    server = world.serve()
    server.answer = lambda seen: Answer(body=b"abcd", pieces=4, body_gap_s=40.0)
    call = world.request(server)
    world.run(20.0)
    go_away_and_take_nothing(server)

    world.run(160.0 + SOON_S)

    assert (ends(call), world.bodies[call]) == (OK, b"abcd")
    assert (server.pings, call.retries) == ([], 0)
    assert [(at, after) for at, _, after, _ in changes(world) if after != "SUSPECT"] == [
        (0.0, "LIVE"),
        (30.0, "PROBING"),
        (40.0, "LIVE"),
        (70.0, "PROBING"),
        (80.0, "LIVE"),
        (110.0, "PROBING"),
        (120.0, "LIVE"),
        (150.0, "PROBING"),
        (160.0, "LIVE"),
        (160.0, "DEAD"),
    ]


def test_closes_after_goaway():
    world = World()
    server = world.serve()
    world.request(server)
    world.run(0.5)
    line = server.lines[0]

    server.peers[0].goaway()
    world.run(0.5 + SOON_S)

    assert (line.client.is_closed, world.pool.members) == (True, [])
    assert changes(world) == [(0.0, 1, "LIVE", ""), (0.5, 1, "DEAD", "goaway")]


def test_closes_after_goaway_when_the_last_stream_ends():
    world = World()
    server = world.serve()
    server.answer = lambda seen: Answer(delay_s=2.0)
    call = world.request(server)
    world.run(0.5)
    line = server.lines[0]

    server.peers[0].goaway()
    world.run(2.0 - SOON_S)
    assert (line.client.is_closed, ends(call)) == (False, (0, False, None))
    world.run(2.0 + SOON_S)

    assert (line.client.is_closed, ends(call)) == (True, OK)
    assert changes(world) == [(0.0, 1, "LIVE", ""), (2.0, 1, "DEAD", "goaway")]


# -- too many PINGs ----------------------------------------------------------------------------


def ping_instants(server: VirtualServer, line: int) -> list[float]:
    return [at for at, pinged, _ in server.pings if pinged.number == line]


def test_too_many_pings():
    """gRPC's default: a PING within 300 s of the last, with a stream open, is a strike."""
    world = World(HealthPolicy(ping_after_idle=1.0, jitter=False))
    server = world.serve()
    server.ping_gap_s = 300.0
    server.answer = held
    world.request(server)

    world.run(5.0 + 10 * 300.0 + SOON_S)

    assert ping_instants(server, 1) == [1.0, 2.0, 3.0, 4.0]
    assert ping_instants(server, 2) == [5.0 + 300.0 * count for count in range(1, 11)]
    assert server.dials == [0.0, 5.0]
    assert [(at, told.origin, told.policy) for at, told in world.told(Calmed)] == [
        (4.0, server.origin, world.pool.policy.calmed())
    ]
    assert world.pool.policy.calmed().ping_after_idle == 300.0
    stats = world.pool.stats()
    assert (stats["deaths"], stats["calmed_origins"]) == ({"goaway": 1}, {"https://a.test": 315.0})


def test_too_many_pings_idle():
    """A connection without a stream is not asked again, but before its use it is."""
    world = World(HealthPolicy(ping_after_idle=1.0, jitter=False), idle_close=0.0)
    server = world.serve()
    server.ping_gap_s = 300.0
    world.request(server)
    world.run(5.0)
    assert [at for at, _ in world.told(Calmed)] == [4.0]
    world.request(server)
    world.run(1000.0)
    assert ping_instants(server, 2) == []

    call = world.request(server)
    world.run(1001.0)

    assert (ends(call), ping_instants(server, 2)) == (OK, [1000.0])
    assert world.pool.stats()["deaths"] == {"goaway": 1}


def test_too_many_pings_before_use():
    """A connection whose requests stay unanswered is asked once; the next ones leave at once.

    gRPC's server counts each PING before a use as well, until it sends HEADERS or DATA.
    """
    world = World(HealthPolicy(ping_after_idle=1.0, jitter=False))
    server = world.serve()
    server.ping_gap_s = 300.0
    server.answer = held
    world.request(server)
    world.run(5.0)
    for at in range(20, 200, 15):
        world.run(float(at))
        world.request(server, "POST")

    world.run(250.0)

    assert ping_instants(server, 2) == [20.0]
    assert server.dials == [0.0, 5.0]
    assert world.pool.stats()["deaths"] == {"goaway": 1}


def test_too_many_pings_untold():
    """The code without gRPC's words counts when three PINGs have left since the last HEADERS."""
    world = World(HealthPolicy(ping_after_idle=1.0, jitter=False))
    few, many = world.serve("few.test"), world.serve("many.test")
    for server in (few, many):
        server.answer = held
        world.request(server)
    world.run(2.5)
    few.peers[0].goaway(1, ErrorCode.ENHANCE_YOUR_CALM)
    world.run(3.5)
    many.peers[0].goaway(1, ErrorCode.ENHANCE_YOUR_CALM)
    world.run(4.0)

    assert [(at, told.origin) for at, told in world.told(Calmed)] == [(3.5, many.origin)]


def test_too_many_pings_per_origin():
    world = World(HealthPolicy(ping_after_idle=1.0, jitter=False))
    strict, lenient = world.serve("strict.test"), world.serve("lenient.test")
    strict.ping_gap_s = 300.0
    for server in (strict, lenient):
        server.answer = held
        world.request(server, "POST")
    world.run(100.5)
    assert ping_instants(strict, 1) == [1.0, 2.0, 3.0, 4.0]
    world.request(strict, "POST")
    world.run(200.5)

    strict.restart(0.0)
    world.run(201.5)
    world.request(strict, "POST")
    world.run(501.9)

    assert strict.dials == [0.0, 100.5, 201.5]
    assert (ping_instants(strict, 2), ping_instants(strict, 3)) == ([], [501.5])
    assert [at for at, *_ in lenient.pings] == [float(at) for at in range(1, 502)]
    assert world.pool.stats()["calmed_origins"] == {"https://strict.test": 315.0}


def test_too_many_pings_per_origin_until_it_is_forgotten():
    world = World(HealthPolicy(ping_after_idle=1.0, jitter=False))
    server = world.serve()
    server.answer = held
    world.request(server)
    world.run(1.5)
    server.peers[0].goaway(1, ErrorCode.ENHANCE_YOUR_CALM, b"too_many_pings")
    world.run(100.0)
    assert [at for at, *_ in server.pings] == [1.0]

    world.pool.forget_origin(server.origin)
    world.run(102.5)

    assert world.pool.stats()["calmed_origins"] == {}
    assert [at for at, *_ in server.pings] == [1.0, 100.0, 101.0, 102.0]


def test_too_many_pings_before_the_first():
    """What an origin has said holds for a first probe that was due sooner."""
    world = World(HealthPolicy(ping_after_idle=1.0, jitter=False))
    server = world.serve()
    server.answer = held
    world.request(server)
    world.run(0.5)

    server.peers[0].goaway(1, ErrorCode.ENHANCE_YOUR_CALM, b"too_many_pings")
    world.run(301.0)

    assert [at for at, *_ in server.pings] == [300.5]


# -- RST_STREAM --------------------------------------------------------------------------------


REFUSED = Answer(reset=ErrorCode.REFUSED_STREAM)


def test_refused_same_conn():
    world = World()
    server = world.serve()
    follow(server, REFUSED, Answer())
    call = world.request(server, "POST", b"body")

    world.run(100.0)

    assert ends(call) == OK
    assert [(seen.at, seen.stream_id, seen.body) for seen in server.seen] == [
        (0.0, 1, b"body"),
        (0.0, 3, b"body"),
    ]
    assert server.dials == [0.0]
    assert [(at, told.delay_s) for at, told in world.told(Retried)] == [(0.0, 0.0)]


@pytest.mark.parametrize("seed", range(5))
def test_refused_forever(seed):
    """Seven repetitions, each 0 to 10 % later than 0, 1, 2, 4, 8, 16 and 32 s after the last."""
    world = World(seed=seed)
    server = world.serve()
    follow(server, REFUSED)
    call = world.request(server)

    world.run(100.0)

    at = [seen.at for seen in server.seen]
    delays = [told.delay_s for _, told in world.told(Retried)]
    assert len(at) == 8
    assert [after - before for before, after in pairwise(at)] == pytest.approx(delays)
    for delay, least in zip(delays, RETRY_DELAYS_S, strict=True):
        assert least <= delay <= 1.1 * least
    assert len(set(delays)) == 7  # drawn, so that what was refused together does not come back so
    assert 63.0 <= at[-1] <= 70.0
    assert ends(call) == (0, False, StreamReset)
    assert isinstance(call.error, StreamReset)
    assert call.error.error_code == ErrorCode.REFUSED_STREAM
    assert str(call.error) == "the peer reset the stream, REFUSED_STREAM"
    assert (call.error.maybe_processed, server.dials) == (False, [0.0])


def test_refused_forever_before_the_deadline():
    """A repetition that could not be answered in time is none."""
    world = World()
    server = world.serve()
    follow(server, REFUSED)
    call = world.request(server, timeout=6.0)

    world.run(100.0)

    assert len(server.seen) == 4  # at 0, 0, 1 and 3 s and a little; the next would be at 7
    assert ends(call) == (0, False, StreamReset)


def test_refused_forever_by_the_bucket():
    """Ten tokens of an origin are soon spent by many: the others are told at once."""
    world = World()
    server = world.serve()
    follow(server, REFUSED)
    calls = [world.request(server) for _ in range(30)]

    world.run(0.5)

    assert (world.pool.stats()["retries"], len(server.seen)) == (10, 40)
    assert [ends(call) for call in calls] == [(0, False, StreamReset)] * 30


def test_rst_protocol_error():
    world = World()
    server = world.serve()
    follow(server, Answer(delay_s=5.0), Answer(reset=ErrorCode.PROTOCOL_ERROR), Answer())
    other = world.request(server)
    call = world.request(server)

    world.run(1.0)
    last = world.request(server)
    world.run(10.0)

    assert ends(call) == (0, False, StreamReset)
    assert isinstance(call.error, StreamReset)
    assert (call.error.error_code, call.error.maybe_processed) == (ErrorCode.PROTOCOL_ERROR, True)
    assert (ends(other), ends(last), call.retries) == (OK, OK, 0)
    assert [(seen.at, seen.line.number, seen.stream_id) for seen in server.seen] == [
        (0.0, 1, 1),
        (0.0, 1, 3),
        (1.0, 2, 1),
    ]
    assert changes(world) == [
        (0.0, 1, "LIVE", ""),
        (1.0, 2, "LIVE", ""),
        (5.0, 1, "DEAD", "local"),
    ]


# -- a connection lost -------------------------------------------------------------------------


def test_lost_post_not_retried():
    world = World()
    server = world.serve()
    server.answer = held
    call = world.request(server, "POST", b"body")
    world.run(0.5)

    server.peers[0].kill()
    world.run(100.0)

    assert ends(call) == (0, False, ConnectionLost)
    assert isinstance(call.error, ConnectionLost)
    assert (call.error.cause, call.error.maybe_processed) == ("reset", True)
    assert (streams(server), server.dials) == ([(1, 1)], [0.0])


def test_lost_get_retried():
    world = World()
    server = world.serve()
    follow(server, HOLD, Answer())
    call = world.request(server)
    world.run(0.5)

    server.peers[0].kill()
    world.run(100.0)

    assert (ends(call), call.retries) == (OK, 1)
    assert [(seen.at, seen.line.number) for seen in server.seen] == [(0.0, 1), (1.5, 2)]


@pytest.mark.parametrize(
    ("method", "idempotent", "repeated"),
    [
        ("HEAD", False, True),
        ("OPTIONS", False, True),
        ("TRACE", False, True),
        ("PUT", False, False),
        ("DELETE", False, False),
        ("PUT", True, True),
        ("DELETE", True, True),
        ("POST", True, False),
        ("PATCH", True, False),
    ],
)
def test_lost_get_retried_and_which_others(method, idempotent, repeated):
    world = World()
    server = world.serve()
    follow(server, HOLD, Answer(body=b""))
    call = world.request(server, method, idempotent=idempotent)
    world.run(0.5)

    server.peers[0].kill()
    world.run(100.0)

    assert ends(call) == (OK if repeated else (0, False, ConnectionLost))
    assert len(server.seen) == 1 + repeated


def test_lost_get_retried_unless_the_response_had_begun():
    world = World()
    server = world.serve()
    server.answer = lambda seen: Answer(body=b"abcd", pieces=4, body_gap_s=1.0)
    call = world.request(server)
    world.run(2.5)

    server.peers[0].kill()
    world.run(100.0)

    assert ends(call) == (200, False, ConnectionLost)
    assert (world.bodies[call], len(server.seen)) == (b"ab", 1)


# -- bodies ------------------------------------------------------------------------------------


BODY = bytes(range(250)) * 4000  # 1 MB, no two frames of which are alike in order
PIECE_OCTETS = 50_000


def pieces():
    return (BODY[at : at + PIECE_OCTETS] for at in range(0, len(BODY), PIECE_OCTETS))


def half_sent(world: World, server: VirtualServer) -> None:
    """Run until the server has half of the body, then have it refuse the request."""
    world.run(0.5)
    (seen,) = server.seen
    assert 0.4 < len(seen.body) / len(BODY) < 0.6
    server.peers[0].goaway(0)


@pytest.mark.parametrize("given", ["whole", "in pieces"])
def test_body_replay(given):
    world = World()
    server = world.serve(octets_per_s=len(BODY))
    follow(server, HOLD, Answer(delay_s=2.0))
    if given == "whole":
        call = world.request(server, "POST", BODY)
    else:
        call = world.request(server, "POST", source=pieces)
    half_sent(world, server)

    world.run(10.0)

    assert (ends(call), call.retries) == (OK, 1)
    assert streams(server) == [(1, 1), (2, 1)]
    assert server.seen[1].body == BODY


def test_body_replay_refused_for_a_generator():
    world = World()
    server = world.serve(octets_per_s=len(BODY))
    follow(server, HOLD, Answer())
    call = world.request(server, "POST", source=pieces, rewindable=False)
    half_sent(world, server)

    world.run(100.0)

    assert ends(call) == (0, False, StreamReset)
    assert str(call.error) == (
        "the peer reset the stream, REFUSED_STREAM: left out by GOAWAY NO_ERROR"
    )
    assert call.error is not None
    assert not call.error.maybe_processed
    assert (streams(server), server.dials) == ([(1, 1)], [0.0])


# -- 421 ---------------------------------------------------------------------------------------


def test_misdirected_421():
    world = World()
    server = world.serve()
    follow(server, Answer(status=421), Answer())
    call = world.request(server, "POST", b"body")

    world.run(1.0)

    assert (ends(call), call.retries) == (OK, 1)
    assert [(seen.line.number, seen.stream_id, seen.body) for seen in server.seen] == [
        (1, 1, b"body"),
        (2, 1, b"body"),
    ]
    assert (server.dials, world.bodies[call]) == ([0.0, 0.0], b"ok")


def test_misdirected_421_twice():
    world = World()
    server = world.serve()
    follow(server, Answer(status=421, body=b"first"), Answer(status=421, body=b"second"))
    call = world.request(server)

    world.run(100.0)

    assert (ends(call), world.bodies[call]) == ((421, True, None), b"second")
    assert streams(server) == [(1, 1), (2, 1)]


def test_misdirected_421_not_replayable():
    world = World()
    server = world.serve()
    follow(server, Answer(status=421, body=b"not here"), Answer())
    call = world.request(server, "POST", source=lambda: iter([b"body"]), rewindable=False)

    world.run(100.0)

    assert (ends(call), world.bodies[call]) == ((421, True, None), b"not here")
    assert streams(server) == [(1, 1)]
