"""What a reading of the pool found, one test for each defect that was mended."""

from __future__ import annotations

import pytest

from h2lite import events as ev
from h2lite.call import Call
from h2lite.errors import ConnectError, UsageError
from h2lite.frames import PingFrame
from h2lite.orders import Send
from h2lite.retry import DELAY_S_MAX, Backoff
from h2lite.settings import SettingId
from h2lite.testing import Answer, World
from tests.scenes import held, member, opened, pinged, policy, states, watch

SOON_S = 0.001
POST = [
    (b":method", b"POST"),
    (b":scheme", b"https"),
    (b":authority", b"a.test"),
    (b":path", b"/"),
]


# -- exceptions out of the pool ---------------------------------------------------------------


def test_an_outage_of_hours_does_not_overflow_the_backoff():
    """1.6 ** 1510 is no float any more: after 4.2 hours of dials the pool raises OverflowError."""
    backoff = Backoff(None)
    for count in range(2000):
        backoff.failed(count * 10.0)
    assert backoff.due == 1999 * 10.0 + DELAY_S_MAX


def test_closing_the_pool_with_a_request_that_has_not_left():
    world = World()
    server = world.serve()
    opened(world, server)
    call = world.request(server)  # given to the connection; no turn has sent it yet

    world.pool.close(world.clock.now)  # AssertionError in _withdraw

    assert call.error is not None
    assert not call.error.maybe_processed
    assert world.pool.members == []


def test_fields_of_the_wrong_type_hurt_nobody_else():
    """Its caller hears of it, and not whoever turns the loop when the dial is done."""
    world = World()
    server = world.serve()
    good = world.request(server)

    with pytest.raises((AttributeError, TypeError)):
        world.pool.request(Call(server.origin, [*POST, (b"age", 3)]), 0.0)  # type: ignore[list-item]

    world.run(1.0)
    assert good.ended


@pytest.mark.parametrize(
    "event",
    [ev.InformationalReceived(3, 103, []), ev.ResponseReceived(3, 200, [], True)],
    ids=["interim", "final"],
)
def test_a_response_to_a_request_that_was_given_up_before_the_pool_heard_of_it(event):
    """Read in a turn that was interrupted, and told after another thread's cancel: KeyError."""
    world = World()
    server = world.serve()
    opened(world, server)
    server.answer = held
    call = world.request(server)
    world.run(SOON_S)
    assert list(member(world).calls) == [3]

    world.pool.cancel(call, world.clock.now)
    world.pool.receive(member(world), [event], world.clock.now)

    assert member(world).error is None


def test_the_end_of_a_connection_that_has_failed_in_the_same_read():
    """Link._receive may return both; the second buries a member that is gone: ValueError."""
    world = World()
    server = world.serve()
    opened(world, server)
    events = [ev.ConnectionFailed(1, "fault"), ev.ConnectionEnded("eof", "eof")]
    world.pool.receive(member(world), events, world.clock.now)
    assert world.pool.stats()["deaths"] == {"protocol_error": 1}


def test_a_deadline_that_is_no_number_does_not_stop_the_loop():
    """NaN is never due and never later: handle_deadline pops and sets it for ever."""
    world = World()
    server = world.serve()
    call = Call(server.origin, POST, deadline=float("nan"))

    with pytest.raises(UsageError, match="nan"):
        world.pool.request(call, world.clock.now)
    world.request(server)
    world.run(1.0)
    with pytest.raises(UsageError, match="nan"):
        world.pool.ping(member(world), world.clock.now, float("nan"))


# -- what waits for ever ------------------------------------------------------------------------


def test_a_misdirected_request_ends_when_its_own_dial_fails():
    """R8: who waits on a dial that fails hears it; the connection it avoids is no hope for it."""
    world = World()
    server = world.serve()
    opened(world, server, lambda seen: Answer(status=421))
    server.is_listening = False
    call = world.request(server)

    world.run_for(3600.0)

    assert isinstance(call.error, ConnectError)
    assert len(server.dials) == 2


def test_a_request_that_waits_for_room_on_a_dead_connection_is_not_forgotten():
    """MAX_CONCURRENT_STREAMS 0 and `while_idle` off: nobody asks, nobody closes, it waits on."""
    world = World(policy(while_idle=False))
    server = world.serve()
    server.settings = {SettingId.MAX_CONCURRENT_STREAMS: 0}
    call = world.request(server)
    world.run(5.0)
    server.lines[0].blackhole()
    server.settings = {}

    world.run(600.0)

    assert pinged(server) or states(world)[-1][1] == "DEAD"
    assert call.over


def test_a_connection_is_closed_as_idle_when_the_last_waiting_request_is_cancelled():
    """Who is waited for is used; from the cancellation on it is not."""
    world = World(policy(ping_after_idle=0))
    server = world.serve()
    server.settings = {SettingId.MAX_CONCURRENT_STREAMS: 0}
    call = world.request(server)
    world.run(45.0)

    world.cancel(call)
    world.run(1000.0)

    assert states(world)[-1] == (135.0, "DEAD", "local")


def test_a_misdirected_request_is_not_held_up_by_one_that_waits_for_room():
    """`_dispatch` stops at the first request that must wait, though one behind it need not."""
    world = World()
    server = world.serve()
    server.settings = {SettingId.MAX_CONCURRENT_STREAMS: 1}
    opened(world, server)
    answers = iter([Answer(reset=7), Answer(reset=7), Answer(status=421)])
    server.answer = lambda seen: next(answers, Answer(hold=seen.line.number == 1))
    older = world.request(server, "POST", b"older")  # twice refused: comes back after 1 s
    world.run_for(0.5)
    younger = world.request(server)  # 421: needs another connection
    world.pool._sites[server.origin].backoff.due = world.clock.now + 2.0  # which takes 2 s
    holder = world.request(server)  # takes the only slot for good
    world.run_for(60.0)
    assert not holder.over
    assert (younger.status, older.over) == (200, True)


# -- wrong errors ------------------------------------------------------------------------------


def lost_put(world, timeout=None):
    server = world.serve()
    opened(world, server, held)
    call = world.request(server, "PUT", b"x", idempotent=True, timeout=timeout)
    world.run_for(0.1)
    assert len(server.seen) == 2
    return server, call


@pytest.mark.parametrize("how", ["refused", "late", "closed"])
def test_what_left_once_may_have_been_processed_whatever_ends_it_later(how):
    """`leave` forgets `sent_at`, and with it that the lost attempt may have been acted on."""
    world = World()
    server, call = lost_put(world, timeout=4.0)
    server.is_listening = how != "refused"
    server.is_reachable = how == "refused"
    server.peers[0].kill()
    world.run_for(0.05)
    if how == "closed":
        world.pool.close(world.clock.now)
    world.run_for(5.0)
    assert call.error is not None
    assert call.error.maybe_processed


def test_a_cancelled_request_that_had_left_may_have_been_processed():
    world = World()
    _, call = lost_put(world)
    world.cancel(call)
    assert call.error is not None
    assert call.error.maybe_processed
    assert not isinstance(call.error, UsageError)  # "nothing was changed or sent": it was


def test_a_dial_that_succeeded_makes_the_error_of_an_earlier_one_history():
    world = World()
    server = world.serve()
    server.is_listening = False
    world.request(server)
    world.run(1.0)
    server.is_listening = True
    world.run(5.0)
    opened(world, server)
    server.peers[0].kill()
    server.is_reachable = False
    world.run(3600.0)

    call = world.request(server)  # this time packets are lost, an hour later
    world.run_for(20.0)

    assert call.error is not None
    assert "refused" not in str(call.error)


def test_a_deadline_during_the_backoff_tells_of_the_last_dial():
    """ConnectTimeout from the last dial's error, also where the call's own deadline is first."""
    world = World()
    server = world.serve()
    server.is_listening = False
    world.request(server)
    world.run(0.1)
    call = world.request(server, timeout=0.5)
    world.run(0.9)
    assert call.error is not None
    assert isinstance(call.error.__cause__, ConnectError)


def test_a_connection_drained_for_a_reset_did_not_die_of_a_goaway():
    world = World()
    server = world.serve()
    opened(world, server, lambda seen: Answer(reset=1))  # PROTOCOL_ERROR
    world.request(server)
    world.run_for(1.0)
    assert "goaway" not in world.pool.stats()["deaths"]


# -- what is sent though it should not be -------------------------------------------------------


def test_a_request_whose_deadline_has_passed_is_not_sent():
    world = World()
    server = world.serve()
    opened(world, server)
    call = world.request(server, "POST", b"x", timeout=-1.0)
    world.run_for(1.0)
    assert len(server.seen) == 1
    assert call.error is not None


def test_nothing_of_a_request_follows_the_goaway_of_a_closed_pool():
    """R2: flush GOAWAY, shut down writing.  `Finish` goes on with DATA of requests that failed."""
    world = World()
    server = world.serve(octets_per_s=1e6, capacity_octets=20000)
    opened(world, server, held)
    world.request(server, "POST", b"x" * 500000)
    world.run_for(0.1)
    log = watch(server.lines[0].up)

    world.pool.close(world.clock.now)
    world.run_for(1.0)

    # At most what the full socket had refused already.
    assert sum(len(octets) for _, octets in log) < 70000


def test_a_malformed_request_is_told_at_once_and_nothing_is_dialled():
    world = World()
    server = world.serve()
    call = Call(server.origin, [*POST, (b"X Y", b"")])
    with pytest.raises(UsageError, match="X Y"):
        world.pool.request(call, world.clock.now)
    assert world.pool.members == []


def test_a_call_is_requested_once():
    world = World()
    server = world.serve()
    opened(world, server)
    call = world.request(server, "POST", b"x")
    with pytest.raises(UsageError):
        world.pool.request(call, world.clock.now)
    world.run_for(1.0)
    assert len(server.seen) == 2


# -- tables and counters ------------------------------------------------------------------------


def test_requests_that_are_refused_leave_nothing_in_the_connection():
    """No Send follows, so the withdrawn openers pile up until something else is sent."""
    world = World()
    server = world.serve()
    opened(world, server)
    world.run(1.0)
    for _ in range(100):
        call = Call(server.origin, [*POST, (b"content-length", b"5")], b"xx")
        world.pool.request(call, world.clock.now)
        assert isinstance(call.error, UsageError)
    world.run_for(SOON_S)
    assert len(member(world).connection._openers) == 0


def test_requests_cancelled_behind_a_full_socket_leave_nothing_in_the_connection():
    world = World()
    server = world.serve(capacity_octets=20000)
    opened(world, server, held)
    server.reads = False
    world.request(server, "POST", b"x" * 50000)
    world.run_for(SOON_S)
    for _ in range(1000):
        world.cancel(world.request(server))
        world.run_for(SOON_S)
    assert len(member(world).connection._openers) < 100


def test_a_late_ack_that_rescues_the_next_probe_is_counted():
    """`_heard` puts the new probe in `late_probe` before the old one's ack is looked up."""
    world = World(policy(ping_after_idle=5.0))
    server = world.serve()
    opened(world, server)
    server.acks_pings = False
    world.run(5.5)
    (peer,) = server.peers
    peer.send(PingFrame(b"12345678").encode())  # rescues the first probe
    world.run(11.0)
    assert pinged(server) == [5.0, 10.5]

    peer.send(PingFrame(server.pings[0][2], ack=True).encode())
    world.run(12.0)

    stats = world.pool.stats()
    assert (stats["rescues"], stats["late_acks"]) == (2, 1)


def test_content_of_a_connection_that_is_gone_asks_for_no_send():
    world = World()
    server = world.serve()
    opened(world, server)
    call = world.request(server)
    world.unread.add(call)
    world.run_for(SOON_S)
    server.peers[0].kill()
    world.run_for(SOON_S)
    assert call.ended
    assert world.pool.members == []
    world.pool.take_orders()
    assert world.pool.take_chunk(call, world.clock.now) == b"ok"
    assert [order for order in world.pool.take_orders() if isinstance(order, Send)] == []
