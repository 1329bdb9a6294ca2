"""Health of one connection: what is doubted when, what is given up when, on numbers alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from h2lite.errors import UsageError
from h2lite.health import (
    ABORT,
    CONNECTING,
    DEAD,
    ELSEWHERE,
    HOLD,
    LIVE,
    ORDER_NAMES,
    PING,
    PROBING,
    REROUTE,
    SEND,
    SIGNAL_NAMES,
    STATE_NAMES,
    SUSPECT,
    TRANSITIONS,
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

    health.set_busy(True)

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
    assert (calm.while_idle, calm.when_unanswered) == (False, False)
    assert HealthPolicy(ping_after_idle=0).calmed().ping_after_idle == 0


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "10", None])
def test_a_number_that_is_no_time_is_refused(value):
    with pytest.raises(UsageError, match="stale_after of"):
        HealthPolicy(stale_after=value)
    with pytest.raises(UsageError, match="above 0"):
        HealthPolicy(ping_timeout=0)


def in_state(state: int) -> Health:
    """A connection with octets queued at 0, brought to a state by its own silence."""
    if state == CONNECTING:
        return Health(HealthPolicy(), 0.0, half)
    health = live(write_stall=50)
    health.wrote(0, took=False, queued=True)
    for due in {LIVE: [], PROBING: [30], SUSPECT: [30, 33]}[state]:
        assert health.handle_deadline(due) != []
    assert health.state == state
    return health


@pytest.mark.parametrize("state", [CONNECTING, LIVE, PROBING, SUSPECT])
def test_the_transports_end_is_death_in_every_state(state):
    health = in_state(state)

    health.lost("reset")

    assert (health.state, health.cause, health.next_deadline()) == (DEAD, "reset", None)
    assert health.admits(100) == ELSEWHERE
    assert health.cancelled(100, answered=False) == ([], False)


@pytest.mark.parametrize("state", [LIVE, PROBING, SUSPECT])
def test_a_standstill_is_death_in_every_state_that_writes(state):
    health = in_state(state)

    assert health.handle_deadline(50) == [ABORT]
    assert (health.state, health.cause, health.next_deadline()) == (DEAD, "write_stall", None)


@pytest.mark.parametrize("uniform", [0.0, 0.001, 0.999])
def test_a_jittered_probe_is_on_a_tick_and_never_early(uniform):
    health = Health(HealthPolicy(ping_after_idle=10), 0.0, lambda: uniform)
    health.ready(0.0)
    assert health.handle_deadline(10 * uniform) == [PING]
    health.heard(20.01, rtt_s=0.0)

    due = health.next_deadline()

    exact = 30.01 + 1.5 * uniform
    assert due is not None
    assert max(30.01, exact - 0.05) <= due <= exact
    assert due == 30.01 or round(due * 20) / 20 == due


def test_an_octet_answers_what_was_sent_and_the_first_of_those_counts():
    health = live()
    health.heard(1)
    health.sent(2)
    health.sent(5)
    assert health.next_deadline() == 12

    health.heard(6)

    assert health.handle_deadline(16) == []
    assert health.next_deadline() == 30


def test_where_unanswered_requests_are_not_asked_about_silence_is():
    health = live(when_unanswered=False)
    health.sent(1)

    assert health.cancelled(2, answered=False) == ([], False)
    assert health.next_deadline() == 30


def test_where_unanswered_requests_are_not_asked_about_one_ping_goes_before_a_use():
    health = live(when_unanswered=False)
    assert (health.admits(11), health.wanted(11)) == (HOLD, [PING])
    assert health.admits(11) == HOLD  # the next one waits for the same ack
    health.heard(12, rtt_s=1.0)

    assert (health.admits(25), health.wanted(25)) == (SEND, [])

    health.heard_message()
    assert (health.admits(25), health.wanted(25)) == (HOLD, [PING])


def test_silence_counts_from_settings_for_staleness():
    health = Health(HealthPolicy(), 0.0, half)
    health.ready(9)

    assert health.admits(19) == SEND
    assert health.admits(19.1) == HOLD


def test_later_settings_are_octets_like_others():
    health = live()
    health.heard(20)
    health.ready(20)

    assert run(health, 40) == [(30, PING), (33, REROUTE)]


def test_a_stale_request_need_not_wait_or_ask():
    eager = live(hold_when_stale=False)
    assert eager.admits(11) == SEND
    assert eager.wanted(11) == [PING]

    never = live(stale_after=0)
    assert never.admits(29) == SEND
    assert never.wanted(29) == []


def test_the_estimate_is_that_of_rfc_6298():
    health = live()
    assert health.soft_s == 3
    health.sample(2.0)
    assert (health.srtt_s, health.rttvar_s, health.soft_s) == (2, 1, 6.25)
    health.sample(1.0)
    assert (health.srtt_s, health.rttvar_s, health.soft_s) == (1.875, 1, 6.125)
    health.sample(1.875)
    assert (health.srtt_s, health.rttvar_s) == (1.875, 0.75)


def test_doubt_is_never_sooner_than_a_retransmission_nor_later_than_the_verdict():
    near = live()
    near.sample(0.01)
    assert near.soft_s == 1.5

    far = live(ping_timeout=2)
    far.sample(9.0)
    assert far.soft_s == 2


def test_a_verdict_a_moment_after_equal_doubt_is_the_verdict_alone():
    health = live(ping_after_idle=1, ping_timeout=1)
    assert health.handle_deadline(1) == [PING]
    health.probe_left(1.25)

    assert run(health, 9) == [(2.25, ABORT)]


def test_the_ping_leaves_once():
    health = live()
    assert health.handle_deadline(30) == [PING]
    health.probe_left(31)
    health.probe_left(40)

    assert run(health, 100)[-1] == (46, ABORT)


@pytest.mark.parametrize(("timeout", "late"), [(2, 1.0), (40, 10.0)])
def test_a_verdict_judged_late_is_put_off_once_a_little_late_is_not(timeout, late):
    def after(delay: float) -> Health:
        health = live(ping_after_idle=100, ping_timeout=timeout)
        assert health.handle_deadline(100) == [PING]
        health.probe_left(100)
        health.handle_deadline(100 + timeout + delay)
        return health

    assert after(late).state == DEAD
    renewed = after(late + 0.5)
    assert renewed.state != DEAD
    assert renewed.handle_deadline(1000) == [ABORT]


def test_each_probe_may_be_put_off_once():
    health = live()
    for asked in (100, 300):
        assert health.handle_deadline(asked) == [PING]
        health.probe_left(asked)
        assert health.handle_deadline(asked + 100) == [REROUTE]
        health.heard(asked + 101)

    assert (health.state, health.rescues) == (LIVE, 2)


def test_a_dial_judged_late_is_put_off_once():
    health = Health(HealthPolicy(), 0.0, half)

    assert health.handle_deadline(100) == []
    assert health.next_deadline() == 110
    assert health.handle_deadline(500) == [ABORT]


def test_a_standstill_judged_late_is_put_off_once():
    health = live(ping_after_idle=0)
    health.wrote(0, took=False, queued=True)

    assert health.handle_deadline(100) == []
    assert health.next_deadline() == 115
    assert health.handle_deadline(500) == [ABORT]


@pytest.mark.parametrize("queued", [True, False])
def test_every_standstill_may_be_put_off_once(queued):
    health = live(ping_after_idle=0)
    health.wrote(0, took=False, queued=True)
    assert health.handle_deadline(100) == []
    health.wrote(101, took=queued, queued=queued)
    health.wrote(102, took=False, queued=True)

    assert health.handle_deadline(300) == []
    assert health.next_deadline() == 315


def test_rules_of_writing_can_be_switched_off():
    silent = live(ping_after_idle=0, write_stall=0)
    silent.wrote(0, took=False, queued=True)
    assert silent.next_deadline() == 60

    neither = live(ping_after_idle=0, write_stall=0, peer_not_reading=0)
    neither.wrote(0, took=False, queued=True)
    assert neither.next_deadline() is None


def test_the_page_shows_the_table_as_it_is():
    page = Path(__file__).parent.parent / "spec-notes" / "health.md"
    starts = tuple(f"| {name} |" for name in STATE_NAMES)
    rows = [line for line in page.read_text("utf-8").splitlines() if line.startswith(starts)]

    assert rows == [
        f"| {STATE_NAMES[state]} | {SIGNAL_NAMES[signal]} | {STATE_NAMES[then]} "
        f"| {ORDER_NAMES[order]} |"
        for (state, signal), (then, order) in TRANSITIONS.items()
    ]


@pytest.mark.parametrize(
    ("policy", "bound"),
    [
        (HealthPolicy(), 49.5),
        (HealthPolicy(jitter=False), 45.0),
        (HealthPolicy(ping_after_idle=0), None),
        (HealthPolicy().calmed(), 360.0),
    ],
)
def test_a_policy_tells_within_what_time_a_death_is_found(policy, bound):
    assert policy.found_within_s == (None if bound is None else pytest.approx(bound))
