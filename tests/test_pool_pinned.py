"""Requests for one certain connection, connections on demand, and HTTP/1.1's dials."""

from __future__ import annotations

import pytest

from h2lite.call import Call
from h2lite.errors import ConnectError, ConnectionLost, ErrorCode, TLSError, UsageError
from h2lite.frames import MAX_STREAM_ID
from h2lite.health import DEAD, SUSPECT, HealthPolicy
from h2lite.limits import DEFAULT_LIMITS
from h2lite.member import Member
from h2lite.orders import Dial
from h2lite.origin import Origin
from h2lite.pool import HTTP1_CONNECTIONS_MAX, Pool
from h2lite.retry import FIRST_DELAY_S
from h2lite.testing import Answer, World
from h2lite.timeout import Timeout

from .scenes import held, member, opened

QUIET = HealthPolicy(ping_after_idle=0, jitter=False)
GET = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")]
ORIGIN = Origin("http", "a.test", 80)


# -- one certain connection --------------------------------------------------------------------


def test_a_request_for_one_connection_goes_there():
    world = World(QUIET)
    server = world.serve()
    opened(world, server)

    call = world.request(server, pinned=member(world))
    world.run_for(1.0)

    assert (call.status, len(server.dials)) == (200, 1)


def test_a_request_for_a_connection_of_another_origin_is_refused():
    world = World(QUIET)
    opened(world, world.serve())

    with pytest.raises(UsageError, match=r"https://a\.test \(.*\) does not serve https://b\.test"):
        world.request(world.serve("b.test"), pinned=member(world))


def test_a_request_for_a_connection_that_has_ended_hears_why():
    world = World(QUIET)
    server = world.serve()
    opened(world, server)
    ended = member(world)
    server.peers[0].kill()
    world.run_for(1.0)

    call = world.request(server, pinned=ended)

    assert type(call.error) is ConnectionLost
    assert call.error is not ended.error
    assert (call.error.cause, len(server.dials)) == ("reset", 1)


def test_a_request_for_a_connection_that_is_left_hears_what_was_said():
    world = World(QUIET)
    server = world.serve()
    opened(world, server)
    server.answer = held
    world.request(server)
    world.run_for(1.0)
    server.peers[0].goaway(3, ErrorCode.NO_ERROR, b"bye")
    world.run_for(1.0)

    call = world.request(server, pinned=member(world))

    assert str(call.error).endswith("said GOAWAY NO_ERROR b'bye'")
    assert len(server.dials) == 1


def test_a_request_for_a_connection_whose_identifiers_are_used_up_is_told():
    world = World(QUIET)
    server = world.serve()
    opened(world, server, held)
    member(world).connection._next_stream_id = MAX_STREAM_ID + 2

    call = world.request(server, pinned=member(world))

    assert str(call.error).endswith("takes no more requests")


def test_a_lost_get_for_one_connection_is_repeated_nowhere_else():
    world = World(QUIET)
    server = world.serve()
    opened(world, server)
    server.answer = held
    call = world.request(server, pinned=member(world))
    world.run_for(1.0)
    server.peers[0].kill()
    world.run_for(5.0)

    assert type(call.error) is ConnectionLost
    assert (call.retries, len(server.dials)) == (0, 1)


# -- connections on demand ---------------------------------------------------------------------


def test_a_connection_on_demand_is_the_one_there_is_or_is_dialled():
    world = World(QUIET)
    server = world.serve(delay_s=0.01)

    first = world.pool.reach(server.origin, 0.0)
    assert world.pool.reach(server.origin, 0.0) is first
    world.run(1.0)
    assert (first.is_up, world.pool.reach(server.origin, 1.0) is first) == (True, True)

    world.pool.close_member(first, 1.0)
    world.pool.close_member(first, 1.0)  # it is closed already
    world.run(2.0)
    assert first.health.state == DEAD
    assert str(first.error).endswith("was closed: closed here")
    second = world.pool.reach(server.origin, 2.0)
    assert (second is first, len(world.pool.members)) == (False, 1)


def test_no_back_off_keeps_from_a_dial_on_demand():
    world = World(QUIET)
    server = world.serve()
    server.is_listening = False
    failed = world.pool.reach(server.origin, 0.0)
    world.run(0.1)
    assert type(failed.error) is ConnectError
    server.is_listening = True

    assert world.pool.reach(server.origin, 0.1) is not failed
    world.run(0.2)
    assert member(world, 2).is_up


def test_a_closed_pool_dials_nobody():
    pool = Pool(QUIET, lambda: 0.5)
    pool.close(0.0)

    with pytest.raises(UsageError, match="the pool is closed"):
        pool.reach(ORIGIN, 0.0)


def test_a_connection_on_demand_is_none_that_is_left():
    world = World(QUIET)
    server = world.serve()
    opened(world, server)
    server.answer = held
    world.request(server)
    world.run_for(1.0)
    server.peers[0].goaway(3)
    world.run_for(1.0)

    assert world.pool.reach(server.origin, world.clock.now).number == 2


def test_a_request_for_a_connection_in_doubt_waits_for_it():
    world = World(HealthPolicy(ping_after_idle=1.0, ping_timeout=8.0, jitter=False))
    server = world.serve()
    opened(world, server)
    server.lines[0].freeze()
    world.run(5.0)
    doubted = member(world)
    assert doubted.health.state == SUSPECT

    call = world.request(server, pinned=doubted)
    world.run(6.0)
    assert (call.over, call.member) == (False, None)
    server.lines[0].mend()
    world.run(7.0)
    assert (call.status, len(server.dials)) == (200, 1)


def test_a_peer_of_another_protocol_is_told_from_one_that_breaks_ours():
    world = World(QUIET)
    server = world.serve()
    server.sends_settings = False
    asked = world.pool.reach(server.origin, 0.0)
    world.run(0.1)
    server.peers[0].send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    world.run(0.2)

    assert type(asked.error) is TLSError
    assert "HTTP/2 did not begin: the peer speaks HTTP/1.1" in str(asked.error)


def test_a_limit_that_progress_has_put_off_is_judged_later():
    world = World(QUIET)
    server = world.serve()
    server.answer = lambda seen: Answer(body=b"ab", pieces=2, body_gap_s=4.0)
    call = world.request(server, limits=Timeout(read=5.0))
    world.unread.add(call)  # what has come waits for its reader, so nothing is late at 5 s
    world.run(20.0)

    assert (call.error, call.ended) == (None, True)


# -- HTTP/1.1 ----------------------------------------------------------------------------------


def dials(pool: Pool) -> list[Member]:
    return [order.member for order in pool.take_orders() if type(order) is Dial]


def http1_pool() -> Pool:
    """A pool that knows of its origin that HTTP/1.1 is spoken there; one connection is busy."""
    pool = Pool(QUIET, lambda: 0.5)
    pool.request(Call(ORIGIN, GET), 0.0)
    (first,) = dials(pool)
    pool.reached(first, "http/1.1", "a.test:80", None, 0.0)
    assert first.unsent
    return pool


def test_each_request_that_waits_for_http1_has_a_connection_dialled():
    pool = http1_pool()
    for _ in range(3):
        pool.request(Call(ORIGIN, GET), 1.0)

    assert len(dials(pool)) == 3


def test_http1_has_its_limit_of_connections():
    pool = http1_pool()
    for _ in range(HTTP1_CONNECTIONS_MAX + 5):
        pool.request(Call(ORIGIN, GET), 1.0)

    assert len(pool.members) == HTTP1_CONNECTIONS_MAX


def test_http1_heeds_the_back_off():
    pool = http1_pool()
    pool.request(Call(ORIGIN, GET), 1.0)
    (failing,) = dials(pool)
    pool.dial_failed(failing, ConnectError("refused"), 1.0)
    waiting = Call(ORIGIN, GET)
    pool.request(waiting, 1.1)
    assert (dials(pool), waiting.error) == ([], None)

    pool.handle_deadline(1.0 + FIRST_DELAY_S)
    assert len(dials(pool)) == 2  # the one whose dial failed waits for the busy connection, too


def respond(pool: Pool, on: Member, octets: bytes, now: float) -> None:
    """What its request was answered, as a link would tell it."""
    on.connection.data_to_send(now)
    pool.sent(on, now, True, False, False)
    pool.receive(on, on.connection.receive_data(octets, now), now)


def test_http1_has_no_ping():
    pool = http1_pool()

    with pytest.raises(UsageError, match=r"speaks HTTP/1\.1, which has no PING"):
        pool.ping(pool.members[0], 0.0, 1.0)


def test_where_an_answer_ends_its_connection_the_next_is_dialled_at_once():
    pool = http1_pool()
    head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n"
    respond(pool, pool.members[0], head + b"ok", 1.0)
    assert pool.members == []

    pool.request(Call(ORIGIN, GET), 1.0)
    assert len(dials(pool)) == 1


def test_a_connection_whose_response_is_unread_has_room_once_it_is_read():
    pool = http1_pool()
    (first,) = pool.members
    (call,) = first.unsent
    size = 2 * DEFAULT_LIMITS.stream_octets
    respond(pool, first, b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size, 1.0)
    for _ in range(2):
        events = first.connection.receive_data(bytes(DEFAULT_LIMITS.stream_octets), 1.0)
        pool.receive(first, events, 1.0)
    assert call.ended
    waiting = Call(ORIGIN, GET)
    pool.request(waiting, 2.0)
    assert waiting.member is None

    while pool.take_chunk(call, 3.0) is not None:
        pass
    assert waiting.member is first
