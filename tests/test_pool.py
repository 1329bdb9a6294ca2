"""The pool's corners that no scenario has: content in pieces, limits, ends, who gets credit."""

from __future__ import annotations

import pytest

from h2lite import pool as pool_module
from h2lite.call import Call
from h2lite.errors import (
    ConnectError,
    ConnectionLost,
    ErrorCode,
    LocalProtocolError,
    PoolTimeout,
    RemoteProtocolError,
    StreamReset,
    UsageError,
)
from h2lite.frames import MAX_STREAM_ID, DataFrame, HeadersFrame, RstStreamFrame
from h2lite.health import DEAD, HealthPolicy
from h2lite.orders import Finish, Moved, Retried, Rewind, Send, StateChanged
from h2lite.origin import Origin
from h2lite.pool import Pool
from h2lite.settings import SettingId
from h2lite.testing import Answer, Seen, VirtualServer, World

from .pair import block
from .scenes import held, member, opened, policy

PIECES = [b"one", b"two", b"three"]


def in_pieces(world: World, server: VirtualServer, **options) -> Call:
    """A POST whose content the test gives itself."""
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":authority", server.origin.host.encode()),
        (b":path", b"/"),
    ]
    call = Call(server.origin, fields, None, **options)
    world.pool.request(call, world.clock.now)
    return call


# -- what a pool is made of ------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"connections_per_origin_max": 0}, {"queued_max": -1}, {"idle_close": -1.0}],
)
def test_limits_that_cannot_be_are_refused(options):
    with pytest.raises(UsageError, match="want at least 1, 0 and 0"):
        Pool(HealthPolicy(), lambda: 0.5, **options)


def test_an_idle_close_that_is_no_number_is_refused():
    with pytest.raises(UsageError, match="nan"):
        Pool(HealthPolicy(), lambda: 0.5, idle_close=float("nan"))


# -- content in pieces -----------------------------------------------------------------------


def test_pieces_given_before_there_is_a_connection_leave_in_order():
    world = World(policy())
    server = world.serve(delay_s=0.1)
    call = in_pieces(world, server)
    for piece in PIECES:
        world.pool.send_content(call, piece, world.clock.now)
    world.pool.send_content(call, b"", world.clock.now, end_stream=True)
    assert not call.wants_content

    world.run(2.0)

    assert (call.status, [seen.body for seen in server.seen]) == (200, [b"onetwothree"])


def test_pieces_given_on_the_way_leave_at_once():
    world = World(policy())
    server = world.serve(delay_s=0.1)
    server.answer = lambda seen: Answer(delay_s=1.0)
    call = in_pieces(world, server)
    world.run(0.55)
    assert call.wants_content

    world.pool.send_content(call, b"one", world.clock.now)
    world.run(0.6)
    world.pool.send_content(call, b"two", world.clock.now, end_stream=True)
    world.run(2.0)

    assert (call.status, [seen.body for seen in server.seen]) == (200, [b"onetwo"])


@pytest.mark.parametrize("when", [0.0, 1.0], ids=["before the dial is done", "on the way"])
def test_trailers_end_content_in_pieces(when):
    world = World(policy())
    server = world.serve(delay_s=0.1)
    call = in_pieces(world, server)
    server.answer = lambda seen: Answer(delay_s=2.0)
    world.pool.send_content(call, b"content", world.clock.now)
    world.run(when)

    world.pool.send_trailers(call, [(b"checksum", b"1")], world.clock.now)
    world.run(6.0)

    assert (call.status, server.seen[0].body) == (200, b"content")
    (peer,) = server.peers
    assert peer.connection.streams == {}


def test_content_after_its_end_is_a_mistake_and_after_the_answer_is_dropped():
    world = World(policy())
    server = world.serve()
    call = in_pieces(world, server)
    world.pool.send_content(call, b"", world.clock.now, end_stream=True)
    with pytest.raises(UsageError, match="has ended"):
        world.pool.send_content(call, b"more", world.clock.now)
    with pytest.raises(UsageError, match="has ended"):
        world.pool.send_trailers(call, [], world.clock.now)

    early = in_pieces(world, server)
    world.run(1.0)
    assert (early.status, early.over) == (200, True)
    world.pool.send_content(early, b"late", world.clock.now)
    world.pool.send_trailers(early, [(b"a", b"b")], world.clock.now)
    world.run(2.0)
    assert server.seen[1].body == b""


def test_content_that_had_not_left_moves_with_its_request():
    world = World(policy())
    server = world.serve(capacity_octets=17000)
    opened(world, server, held)
    server.reads = False
    world.request(server, "POST", bytes(100_000))
    world.run(0.1)
    moved = in_pieces(world, server)
    world.pool.send_content(moved, b"one", world.clock.now)
    world.pool.send_content(moved, b"two", world.clock.now, end_stream=True)
    world.run(0.2)
    assert (moved.stream is not None, moved.sent_at) == (True, None)

    server.reads = True
    server.peers[0].kill()
    server.answer = lambda seen: Answer()
    world.run(5.0)

    assert [notice.call for _, notice in world.told(Moved)] == [moved]
    assert (moved.status, moved.retries) == (200, 0)
    assert [s.body for s in server.seen if s.line.number == 2] == [b"onetwo"]


def test_a_repeated_request_is_given_its_content_and_trailers_anew():
    world = World(policy())
    server = world.serve()
    answers = [Answer(delay_s=0.1, reset=ErrorCode.REFUSED_STREAM), Answer(delay_s=1.0)]
    server.answer = lambda seen: answers.pop(0)
    call = in_pieces(world, server, rewindable=True)
    world.pool.send_content(call, b"first", world.clock.now)
    world.pool.send_trailers(call, [(b"a", b"b")], world.clock.now)
    world.run(0.5)
    assert [notice.call for _, notice in world.told(Rewind)] == [call]
    assert (call.content_ended, call.trailers) == (False, None)

    world.pool.send_content(call, b"again", world.clock.now, end_stream=True)
    world.run(2.0)

    assert (call.status, [seen.body for seen in server.seen]) == (200, [b"first", b"again"])


# -- limits ------------------------------------------------------------------------------------


def test_more_than_may_wait_are_told_at_once_and_nobody_else_is_hurt():
    world = World(policy(), queued_max=3)
    server = world.serve(delay_s=0.1)

    calls = [world.request(server) for _ in range(5)]

    assert [type(call.error) for call in calls] == [type(None)] * 3 + [PoolTimeout] * 2
    assert str(calls[3].error) == "3 requests wait for https://a.test already"
    world.run(2.0)
    assert [call.status for call in calls] == [200, 200, 200, 0, 0]


def test_without_a_queue_a_request_needs_a_connection_that_is_up():
    world = World(policy(), queued_max=0)
    server = world.serve()
    assert type(world.request(server).error) is PoolTimeout
    world.run(1.0)

    late = world.request(server)
    world.run(2.0)
    assert late.status == 200


def test_a_connection_whose_stream_identifiers_are_used_up_is_replaced():
    world = World(policy())
    server = world.serve()
    opened(world, server)
    member(world).connection._next_stream_id = MAX_STREAM_ID

    last = world.request(server)
    world.run(1.0)
    after = world.request(server)
    world.run(2.0)

    assert (last.status, after.status, len(server.dials)) == (200, 200, 2)
    assert [m.number for m in world.pool.members] == [2]


def test_the_last_identifiers_promised_behind_a_full_socket_are_taken_back_and_used_elsewhere():
    world = World(policy())
    server = world.serve(capacity_octets=17000)
    opened(world, server, held)
    server.reads = False
    world.request(server, "POST", bytes(100_000))
    world.run_for(0.1)
    server.answer = lambda seen: Answer()
    member(world).connection._next_stream_id = MAX_STREAM_ID

    # No octet comes and no deadline passes: the send alone tells that there are no more of them.
    last = world.request(server)
    world.run_for(0.1)

    assert ([n.call for _, n in world.told(Moved)], len(server.dials)) == ([last], 2)


def test_origins_of_no_use_any_more_are_forgotten(monkeypatch):
    monkeypatch.setattr(pool_module, "ORIGINS_REMEMBERED_MAX", 3)
    world = World(policy(), idle_close=1.0)
    for n in range(3):
        opened(world, world.serve(f"h{n}.test"))
    world.run(10.0)
    assert len(world.pool._sites) == 3

    opened(world, world.serve("new.test"))

    assert [origin.host for origin in world.pool._sites] == ["new.test"]


def test_origins_in_use_are_never_forgotten(monkeypatch):
    monkeypatch.setattr(pool_module, "ORIGINS_REMEMBERED_MAX", 3)
    world = World(policy())
    servers = [world.serve(f"h{n}.test") for n in range(9)]
    for server in servers:
        opened(world, server)

    assert len(world.pool._sites) == 9
    assert len(world.pool.members) == 9


def test_origins_that_complained_are_remembered_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(pool_module, "CALMED_MAX", 2)
    world = World(policy())
    for n in range(3):
        server = world.serve(f"h{n}.test")
        opened(world, server)
        server.peers[0].goaway(None, ErrorCode.ENHANCE_YOUR_CALM, b"too_many_pings")
        server.peers[0].goaway(None, ErrorCode.ENHANCE_YOUR_CALM, b"too_many_pings")
        world.run_for(1.0)

    assert list(world.pool.stats()["calmed_origins"]) == ["https://h1.test", "https://h2.test"]


def test_an_origin_never_met_can_be_forgotten():
    world = World(policy())

    world.pool.forget_origin(Origin("https", "nowhere.test", 443))

    assert (world.pool._sites, world.pool.stats()["calmed_origins"]) == ({}, {})


# -- what cannot be sent -----------------------------------------------------------------------


def test_a_request_whose_content_is_not_as_declared_ends_with_the_reason_and_leaves_nothing():
    world = World(policy())
    server = world.serve()
    opened(world, server)
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":authority", b"a"),
        (b":path", b"/"),
        (b"content-length", b"3"),
    ]
    bad = Call(server.origin, fields, b"four")

    world.pool.request(bad, world.clock.now)
    world.run_for(1.0)

    assert isinstance(bad.error, LocalProtocolError)
    assert "4 octets of content" in str(bad.error)
    assert len(server.seen) == 1
    assert (member(world).connection.streams, len(member(world).unsent)) == ({}, 0)
    good = world.request(server)
    world.run_for(1.0)
    assert (good.status, server.seen[1].stream_id) == (200, 3)


def test_a_request_larger_than_the_peer_takes_ends_with_the_reason():
    world = World(policy())
    server = world.serve()
    server.settings = {SettingId.MAX_HEADER_LIST_SIZE: 300}
    opened(world, server)
    fields = [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", b"a"),
        (b":path", b"/" + b"x" * 300),
    ]
    big = Call(server.origin, fields)

    world.pool.request(big, world.clock.now)
    world.run_for(1.0)

    assert isinstance(big.error, LocalProtocolError)
    assert (str(big.error).split(",")[1], len(server.seen)) == (" the peer takes 300", 1)


# -- several connections -------------------------------------------------------------------------


def two(world: World, server: VirtualServer) -> list[Call]:
    """Two connections, each with a request that nobody answers."""
    server.settings = {SettingId.MAX_CONCURRENT_STREAMS: 1}
    opened(world, server, held)
    calls = [world.request(server), world.request(server)]
    world.run_for(0.1)
    assert [m.number for m in world.pool.members] == [1, 2]
    return calls


def test_of_two_stale_connections_the_older_is_asked():
    world = World(policy(), connections_per_origin_max=2)
    server = world.serve(delay_s=0.01)
    for call, peer in zip(two(world, server), server.peers, strict=True):
        peer.respond(server.seen[call.number - 1])
    world.run_for(11.0)
    server.answer = lambda seen: Answer()

    call = world.request(server)
    world.run_for(1.0)

    assert [line.number for _, line, _ in server.pings] == [1]
    assert (call.status, server.seen[-1].line.number) == (200, 1)


def test_requests_of_connections_that_end_in_one_turn_find_a_third():
    world = World(policy(), connections_per_origin_max=2)
    server = world.serve()
    calls = two(world, server)
    server.answer = lambda seen: Answer()
    for peer in server.peers:
        peer.connection.update_settings({SettingId.MAX_CONCURRENT_STREAMS: 9}, world.clock.now)
        peer.read_again()
    world.run_for(0.1)

    for peer in [*server.peers]:
        peer.kill()
    world.run_for(5.0)

    # Nothing was given to the second one in between: its end had come in the same turn.
    assert world.told(Moved) == []
    assert [(call.status, call.error) for call in calls] == [(200, None)] * 2
    assert [seen.line.number for seen in server.seen] == [1, 1, 2, 3, 3]


def test_a_connection_whose_request_went_elsewhere_at_once_is_idle_from_then_on():
    world = World(policy(), connections_per_origin_max=2)
    server = world.serve()
    first, second = two(world, server)
    server.peers[0].respond(server.seen[1])
    world.run(2.0)
    server.answer = lambda seen: Answer()
    server.peers[1].respond(server.seen[2], Answer(reset=ErrorCode.REFUSED_STREAM))
    world.run(200.0)

    assert (first.status, second.status, server.seen[-1].line.number) == (200, 200, 1)
    assert [(at, n.member.number) for at, n in world.told(StateChanged) if n.after == DEAD] == [
        (92.0, 1),
        (92.0, 2),
    ]


def test_a_connection_that_said_421_is_not_asked_because_of_who_it_sent_away():
    world = World(policy(ping_after_idle=5, while_idle=False))
    server = world.serve(delay_s=0.01)
    opened(world, server)
    world.run(4.9)
    server.answer = lambda seen: Answer(status=421)
    server.is_reachable = False
    call = world.request(server)
    world.run(8.0)  # the first PING is due at 5.03 s, while a request waits for another dial

    assert (call.retries, call.over, len(server.dials), server.pings) == (1, False, 2, [])


# -- PINGs ---------------------------------------------------------------------------------------


def test_a_connection_that_is_not_up_or_has_ended_cannot_be_pinged():
    world = World(policy())
    server = world.serve(delay_s=0.1)
    world.request(server)
    world.run(0.1)
    dialled = member(world)
    with pytest.raises(UsageError, match="is not up yet"):
        world.pool.ping(dialled, world.clock.now, 1.0)
    (ping,) = world.pool.ping_all(world.clock.now, 1.0)
    assert (ping.over, type(ping.error)) == (True, UsageError)

    world.run(1.0)
    server.peers[0].kill()
    world.run(2.0)
    with pytest.raises(UsageError, match="has ended"):
        world.pool.ping(dialled, world.clock.now, 1.0)


def test_what_rescued_a_ping_is_told():
    world = World(policy())
    server = world.serve()
    opened(world, server)
    server.acks_pings = False
    ping = world.pool.ping(member(world), world.clock.now, 5.0)
    world.run_for(1.0)
    server.peers[0].send(b"\0")
    world.run_for(0.5)

    assert ping.rescued_by == "OctetsReceived"


# -- responses -----------------------------------------------------------------------------------


def raw(world: World, server: VirtualServer, *octets: bytes) -> Call:
    """A request to which the test answers by hand."""
    opened(world, server, held)
    call = world.request(server)
    world.run_for(0.1)
    server.peers[0].send(*octets)
    world.run_for(0.1)
    return call


TRAILERS = [(b"checksum", b"1")]


def test_a_response_with_content_and_trailers_is_given_whole():
    world = World(policy())
    server = world.serve()
    octets = [
        HeadersFrame(3, block([(b":status", b"200")]), False).encode(),
        DataFrame(3, b"content", False).encode(),
        DataFrame(3, b"", False).encode(),
        HeadersFrame(3, block(TRAILERS), True).encode(),
    ]
    call = raw(world, server, *octets)

    assert (call.ended, call.response_trailers) == (True, TRAILERS)
    assert world.bodies[call] == b"content"


def test_what_came_with_a_421_is_dropped_and_given_credit():
    world = World(policy())
    server = world.serve()
    octets = [
        HeadersFrame(3, block([(b":status", b"421")]), False).encode(),
        DataFrame(3, b"elsewhere", False).encode(),
        HeadersFrame(3, block(TRAILERS), True).encode(),
    ]
    first = raw(world, server, *octets)
    assert (first.retries, first.status, list(first.chunks)) == (1, 0, [])

    server.peers[1].respond(server.seen[-1])
    world.run_for(1.0)

    assert (first.status, world.bodies[first]) == (200, b"ok")
    assert [m.connection._unread for m in world.pool.members] == [0, 0]


def test_a_server_that_wants_no_more_after_its_answer_is_no_fault():
    world = World(policy())
    server = world.serve()
    opened(world, server, held)
    call = in_pieces(world, server)
    world.pool.send_content(call, b"one", world.clock.now)
    world.run_for(0.1)
    server.peers[0].send(
        HeadersFrame(3, block([(b":status", b"200")]), True).encode(),
        RstStreamFrame(3, ErrorCode.NO_ERROR).encode(),
    )
    world.run_for(0.1)

    assert (call.status, call.ended, call.error) == (200, True, None)
    assert member(world).connection.streams == {}


def test_interim_responses_are_kept_and_make_a_repetition_unsafe():
    world = World(policy())
    server = world.serve()
    hints = [(b":status", b"103"), (b"link", b"</a>")]
    call = raw(world, server, HeadersFrame(3, block(hints)).encode())
    assert (call.interim, call.begun, call.over) == ([(103, hints)], True, False)

    server.peers[0].kill()
    world.run_for(5.0)

    assert isinstance(call.error, ConnectionLost)
    assert (call.error.maybe_processed, world.told(Retried)) == (True, [])


def test_frames_of_requests_that_are_over_change_nothing():
    world = World(policy())
    server = world.serve(delay_s=0.1)
    opened(world, server, held)
    call = world.request(server)
    world.run_for(0.5)
    world.cancel(call)
    peer = server.peers[0]
    peer.send(
        HeadersFrame(3, block([(b":status", b"103")]), False).encode(),
        HeadersFrame(3, block([(b":status", b"200")]), False).encode(),
        HeadersFrame(3, block([(b"a", b"b")]), True).encode(),
        RstStreamFrame(3, ErrorCode.CANCEL).encode(),
    )
    world.run_for(1.0)

    assert (call.status, call.interim, str(call.error)) == (0, [], "the request was cancelled")


def test_a_malformed_response_is_not_shown_and_its_octets_are_given_credit():
    world = World(policy())
    server = world.serve()
    opened(world, server, lambda seen: Answer(body=bytes(1000), pieces=2, body_gap_s=60.0))
    call = world.request(server)
    world.unread.add(call)
    world.run_for(61.0)
    assert (call.status, sum(map(len, call.chunks))) == (200, 500)

    server.peers[0].send(HeadersFrame(3, block([(b":status", b"200")]), True).encode())
    world.run_for(1.0)

    assert isinstance(call.error, StreamReset)
    assert (call.status, list(call.chunks), call.error.maybe_processed) == (0, [], True)
    assert member(world).connection._unread == 0


def test_what_came_before_a_reset_can_be_read_and_holds_no_credit_back():
    world = World(policy())
    server = world.serve()
    opened(world, server, lambda seen: Answer(body=bytes(1000), pieces=2, body_gap_s=60.0))
    call = world.request(server)
    world.unread.add(call)
    world.run_for(61.0)

    server.peers[0].send(RstStreamFrame(3, ErrorCode.INTERNAL_ERROR).encode())
    world.run_for(1.0)

    assert isinstance(call.error, StreamReset)
    assert member(world).connection._unread == 0
    now = world.clock.now
    chunks = [world.pool.take_chunk(call, now), world.pool.take_chunk(call, now)]
    assert chunks == [bytes(500), None]


def test_a_peer_that_breaks_the_protocol_is_told_and_its_requests_end():
    world = World(policy())
    server = world.serve()
    call = raw(world, server, bytes((0, 0, 1, 6, 0, 0, 0, 0, 0, 0)))

    (death,) = [n for _, n in world.told(StateChanged) if n.after == DEAD]
    assert death.cause == "protocol_error"
    world.run_for(1.0)
    assert (call.retries, call.error) == (1, None)  # a GET, and nothing of an answer had come
    post = world.request(server, "POST")
    world.run_for(1.0)
    server.peers[0].send(bytes((0, 0, 1, 6, 0, 0, 0, 0, 0, 0)))
    world.run_for(1.0)
    assert isinstance(post.error, RemoteProtocolError)
    assert (post.error.cause, post.error.maybe_processed) == ("protocol_error", True)


@pytest.mark.parametrize("status", [421, 200])
def test_a_421_that_cannot_be_repeated_is_the_answer(status):
    world = World(policy())
    server = world.serve()

    def answer(seen: Seen) -> Answer:
        return Answer(delay_s=0.1, status=status)

    server.answer = answer
    late = world.request(server, timeout=0.0)
    world.run(1.0)
    assert late.over

    call = world.request(server, source=lambda: [b"gone"], rewindable=False)
    world.run(2.0)
    assert (call.status, call.retries) == (status, 0)


# -- waiting, and giving up -----------------------------------------------------------------------


def blocked(world: World, server: VirtualServer) -> Call:
    """A request that a connection has taken and its full socket holds back."""
    opened(world, server, held)
    server.reads = False
    world.request(server, "POST", bytes(100_000))
    world.run_for(0.1)
    call = world.request(server, "POST", b"held back")
    world.run_for(0.1)
    assert (call.stream is not None, call.sent_at) == (True, None)
    return call


def test_a_request_that_had_not_left_is_given_up_without_a_trace():
    world = World(policy())
    server = world.serve(capacity_octets=17000)
    call = blocked(world, server)
    world.cancel(call)
    server.reads = True
    server.peers[0].read_again()
    world.run_for(1.0)

    assert str(call.error) == "the request was cancelled"
    assert call.error is not None
    assert not call.error.maybe_processed
    assert [seen.stream_id for seen in server.seen] == [1, 3]
    assert (len(member(world).unsent), list(member(world).calls)) == (0, [3])


def test_a_pool_closed_with_requests_that_had_not_left_ends_them():
    world = World(policy())
    server = world.serve(capacity_octets=17000)
    call = blocked(world, server)

    world.pool.close(world.clock.now)
    world.run_for(1.0)

    assert isinstance(call.error, ConnectionLost)
    assert (call.error.maybe_processed, world.told(Moved)) == (False, [])


def test_a_deadline_that_passes_while_a_connection_has_no_room_says_so():
    world = World(policy())
    server = world.serve()
    server.settings = {SettingId.MAX_CONCURRENT_STREAMS: 1}
    opened(world, server, held)
    first = world.request(server)
    world.run_for(0.1)

    late = world.request(server, timeout=20.0)
    world.run_for(20.0)

    assert type(late.error) is PoolTimeout
    assert (first.over, len(server.dials)) == (False, 1)


def test_a_second_connection_that_cannot_be_had_costs_no_request():
    world = World(policy(), connections_per_origin_max=2)
    server = world.serve()
    server.settings = {SettingId.MAX_CONCURRENT_STREAMS: 1}
    opened(world, server, held)
    world.request(server)
    world.run_for(0.1)
    server.is_listening = False

    second = world.request(server)
    world.run_for(1.0)
    assert (second.over, world.pool.counters["dials_failed"]) == (False, 1)
    server.answer = lambda seen: Answer()
    server.peers[0].respond(server.seen[-1])
    world.run_for(1.0)

    assert second.status == 200


def test_a_response_may_be_read_after_its_connection_is_gone():
    world = World(policy())
    server = world.serve()
    opened(world, server)
    call = world.request(server)
    world.unread.add(call)
    world.run_for(1.0)
    gone = member(world)
    server.peers[0].kill()
    world.run_for(1.0)
    assert world.pool.members == []

    assert world.pool.take_chunk(call, world.clock.now) == b"ok"
    world.pool.orders += [Send(gone), Finish(gone)]
    world.run_for(1.0)
    world.cancel(call)
    assert (call.status, call.ended, call.error) == (200, True, None)


# -- ends ----------------------------------------------------------------------------------------


def test_a_dial_that_failed_after_all_was_given_up_is_no_news():
    world = World(policy(connect_timeout=1.0))
    server = world.serve()
    server.is_reachable = False
    world.request(server)
    world.run(0.5)
    dialled = member(world)
    world.run(1.5)
    told = len(world.log)

    world.pool.dial_failed(dialled, ConnectError("late news"), 2.0)
    world.pool.receive(dialled, [], 2.0)
    world.pool.sent(dialled, 2.0, took=False, queued=False, committed=False)

    world.run(3.0)
    assert len(world.log) == told
    assert world.pool.counters["dials_failed"] == 1


def test_what_has_left_when_the_pool_is_closed_may_have_been_acted_on():
    world = World(policy())
    server = world.serve()
    opened(world, server, held)
    sent = world.request(server, "POST")
    world.run_for(1.0)
    waiting = world.request(world.serve("b.test", delay_s=1.0))
    world.run_for(0.1)

    world.pool.close(world.clock.now)
    world.pool.close(world.clock.now)

    errors = [sent.error, waiting.error]
    assert [type(error) for error in errors] == [ConnectionLost] * 2
    assert [error.maybe_processed for error in errors if error] == [True, False]
    assert world.pool.members == []


def test_settings_of_the_pool_are_announced():
    world = World(policy(), settings={SettingId.INITIAL_WINDOW_SIZE: 70_000})
    server = world.serve()
    opened(world, server)

    assert server.peers[0].connection.peer_settings[SettingId.INITIAL_WINDOW_SIZE] == 70_000
