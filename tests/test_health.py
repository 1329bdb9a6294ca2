"""Health of one connection: what is doubted when, what is given up when, on numbers alone."""

from __future__ import annotations

import pytest

from h2lite.errors import UsageError
from h2lite.health import (
    ABORT,
    CONNECTING,
    DEAD,
    ELSEWHERE,
    HOLD,
    LIVE,
    PING,
    PROBING,
    REROUTE,
    SEND,
    SUSPECT,
    Health,
    HealthPolicy,
)


def half() -> float:
    return 0.5


def live(**policy) -> Health:
    """A connection whose dial and SETTINGS took no time, at 0."""
    health = Health(HealthPolicy(jitter=policy.pop("jitter", False), **policy), 0.0, half)
    health.ready(0.0)
    return health


def run(health: Health, until: float) -> list[tuple[float, int]]:
    """Judge at each deadline; every PING leaves at once and nobody answers."""
    seen = []
    while (due := health.next_deadline()) is not None and due <= until:
        for order in health.handle_deadline(due):
            seen.append((due, order))
            if order == PING:
                health.probe_left(due)
    return seen


def test_silence_is_asked_doubted_and_ended_on_time():
    health = live()

    assert run(health, 1000) == [(30, PING), (33, REROUTE), (45, ABORT)]
    assert (health.state, health.cause, health.next_deadline()) == (DEAD, "unknown", None)
    assert (health.pings, health.suspects) == (1, 1)


def test_doubt_and_verdict_that_fall_together_are_a_verdict():
    assert run(live(ping_after_idle=1, ping_timeout=1), 9) == [(1, PING), (2, ABORT)]


def test_an_ack_gives_the_round_trip_and_the_next_silence_counts_from_it():
    health = live(ping_after_idle=3, ping_timeout=1)
    gaps = []
    for _ in range(3):
        due = health.next_deadline()
        assert due is not None
        assert health.handle_deadline(due - 0.001) == []
        assert health.handle_deadline(due) == [PING]
        health.probe_left(due)
        health.heard(due + 0.25, rtt_s=0.25)
        gaps.append(due)
    assert gaps == [3, 6.25, 9.5]
    assert (health.state, health.acks, health.rescues, health.srtt_s) == (LIVE, 3, 0, 0.25)


def test_any_octet_ends_probe_and_doubt():
    health = live()
    assert run(health, 40) == [(30, PING), (33, REROUTE)]
    assert health.state == SUSPECT
    assert health.admits(40) == ELSEWHERE

    health.heard(40)
    health.acked_late(12.0)

    assert (health.state, health.rescues, health.false_suspects) == (LIVE, 1, 1)
    assert (health.late_acks, health.late_rtt_s, health.srtt_s) == (1, 12.0, None)
    assert health.next_deadline() == 70


def test_without_an_interval_nothing_is_ever_asked():
    health = live(ping_after_idle=0)
    health.sent(1)

    assert health.next_deadline() is None
    assert health.admits(1000) == SEND
    assert health.wanted(1000) == []
    assert health.cancelled(1000, answered=False) == ([], False)


def test_no_ping_before_settings_and_the_dial_ends():
    health = Health(HealthPolicy(), 0.0, half)
    health.heard(1)

    assert (health.admits(1), health.state) == (HOLD, CONNECTING)
    assert run(health, 100) == [(10, ABORT)]
    assert health.cause == "connect_timeout"


def test_a_stale_connection_is_asked_before_its_use():
    health = live()
    assert (health.admits(10), health.wanted(10)) == (SEND, [])

    assert health.admits(11) == HOLD
    assert health.wanted(11) == [PING]
    assert health.wanted(11) == []
    health.probe_left(11)
    health.heard(11.02, rtt_s=0.02)

    assert health.admits(11.02) == SEND


def test_a_request_unanswered_is_asked_about():
    health = live()
    health.sent(1)

    assert run(health, 100) == [(11, PING), (14, REROUTE), (26, ABORT)]


def test_the_verdict_counts_from_the_pings_leaving_the_doubt_from_its_order():
    health = live()
    assert health.handle_deadline(30) == [PING]
    assert health.handle_deadline(33) == [REROUTE]
    assert health.next_deadline() is None  # the PING has not left: no ack is awaited

    health.probe_left(40)

    assert run(health, 100) == [(55, ABORT)]


def test_a_write_that_stands_still_ends_the_connection_by_what_is_received():
    silent = live(ping_after_idle=0)
    silent.wrote(1, took=False, queued=True)
    assert run(silent, 100) == [(16, ABORT)]
    assert silent.cause == "write_stall"

    deaf = live(ping_after_idle=0)
    deaf.wrote(1, took=True, queued=True)
    for now in range(1, 61):
        deaf.wrote(now, took=False, queued=True)
        deaf.heard(now)
        assert deaf.handle_deadline(now) == []
    assert run(deaf, 100) == [(61, ABORT)]
    assert deaf.cause == "peer_not_reading"


def test_slow_writes_are_no_standstill():
    health = live(ping_after_idle=0, write_stall=0.05)
    for step in range(1000):
        health.wrote(step / 100, took=True, queued=True)
        assert health.handle_deadline(step / 100) == []
    health.wrote(10, took=True, queued=False)
    assert health.next_deadline() is None


def test_a_program_that_looks_every_7_s_finds_a_dead_peer_after_one_renewal():
    health = live()
    seen = []
    for now in range(7, 100, 7):
        orders = health.handle_deadline(now)
        seen += [(now, order) for order in orders]
        if orders == [PING]:
            health.probe_left(now)

    assert seen == [(35, PING), (42, REROUTE), (77, ABORT)]


def test_jitter_goes_upward_and_the_first_probe_anywhere():
    health = live(jitter=True, ping_after_idle=10)
    assert health.next_deadline() == 5  # half of the interval
    assert health.handle_deadline(5) == [PING]
    health.heard(5, rtt_s=0.0)

    assert health.next_deadline() == pytest.approx(15.75, abs=0.05)


def test_cancels_ask_once_for_each_message_and_keep_their_place_meanwhile():
    health = live()
    health.sent(1)
    assert health.cancelled(2, answered=False) == ([PING], True)
    assert health.cancelled(2, answered=False) == ([], True)
    health.heard(3, rtt_s=1.0)

    assert health.cancelled(4, answered=False) == ([], False)
    health.heard_message()
    assert health.cancelled(5, answered=True) == ([], False)
    assert health.cancelled(5, answered=False) == ([PING], True)
    assert health.state == PROBING


def test_while_idle_off_asks_only_with_a_stream_open():
    health = live(while_idle=False)
    assert health.next_deadline() is None

    health.busy = True

    assert health.handle_deadline(600) == [PING]


def test_a_death_happens_once_and_leaves_no_deadline():
    health = live()
    health.wrote(1, took=False, queued=True)
    health.lost("eof")
    health.lost("reset")
    health.heard(2)

    assert (health.state, health.cause, health.next_deadline()) == (DEAD, "eof", None)
    assert health.handle_deadline(1000) == []


def test_a_calmed_policy_asks_seldom_and_only_when_busy():
    calm = HealthPolicy(ping_after_idle=200, stale_after=7).calmed()

    assert (calm.ping_after_idle, calm.stale_after) == (400, 7)
    assert (calm.while_idle, calm.on_cancel) == (False, False)
    assert HealthPolicy(ping_after_idle=0).calmed().ping_after_idle == 0


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_a_number_that_is_no_time_is_refused(value):
    with pytest.raises(UsageError, match="stale_after of"):
        HealthPolicy(stale_after=value)
    with pytest.raises(UsageError, match="above 0"):
        HealthPolicy(ping_timeout=0)
