"""Short lives of random worlds, and what the simulation is worth: it finds what is broken.

`make sim` lives longer ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from h2lite import health, pool
from h2lite.drive import Driver
from h2lite.errors import ConnectionLost, PingTimeout, UsageError
from h2lite.health import HOLD, SEND, STATE_NAMES, TRANSITIONS, Health
from h2lite.member import Member
from h2lite.orders import Deliver
from h2lite.pool import Pool
from h2lite.retry import IDEMPOTENT_METHODS

from .simulation import FAULTS, INVARIANTS, Broken, Report, Total, live

if TYPE_CHECKING:
    from collections.abc import Callable

# Whoever asks for them first waits for them all, and under a tracer that takes a while.
pytestmark = pytest.mark.timeout(300)

SEEDS = 210
SECONDS = 80.0


@pytest.fixture(scope="module")
def lives() -> list[Report]:
    """Each seed's report.  A seed that breaks an invariant fails every test that asks."""
    return [live(seed, SECONDS) for seed in range(SEEDS)]


def test_a_few_hundred_short_lives_break_no_invariant(lives):
    total = Total()
    for report in lives:
        total.add(report)

    assert total.missing == []
    assert [name for name in FAULTS if not total.faults[name]] == []


def test_one_seed_is_one_trace(lives):
    again = [live(seed, SECONDS).trace for seed in range(0, SEEDS, 30)]

    assert again == [report.trace for report in lives[::30]]
    assert len({report.trace for report in lives}) == SEEDS


@pytest.mark.parametrize(
    "row", TRANSITIONS, ids=lambda row: f"{STATE_NAMES[row[0]]}-{health.SIGNAL_NAMES[row[1]]}"
)
def test_a_row_of_the_state_table_taken_out_is_found(lives, row, monkeypatch):
    seed = next(seed for seed, report in enumerate(lives) if report.transitions[row])
    monkeypatch.delitem(health.TRANSITIONS, row)

    with pytest.raises(Broken):
        live(seed, SECONDS)


def in_haste(patch: pytest.MonkeyPatch) -> None:
    """A PING's ack is given a tenth of a second."""
    left = Health.probe_left

    def hurry(self: Health, now: float) -> None:
        left(self, now)
        self._hard_due = now + 0.1

    patch.setattr(Health, "probe_left", hurry)


def no_verdict(patch: pytest.MonkeyPatch) -> None:
    """The hard deadline is put off whenever it passes."""
    patch.setattr(Health, "_renews", lambda self, now, due: True)


def never_left(patch: pytest.MonkeyPatch) -> None:
    """No PING is ever thought to have left."""
    patch.setattr(Health, "probe_left", lambda self, now: None)


def untold(patch: pytest.MonkeyPatch) -> None:
    """Nobody hears that a request was lost with its connection."""
    close = Pool._close_call

    def quietly(self: Pool, call: Any) -> None:
        close(self, call)
        if isinstance(call.error, ConnectionLost):
            self.orders.pop()

    patch.setattr(Pool, "_close_call", quietly)


def told_twice(patch: pytest.MonkeyPatch) -> None:
    """A PING that timed out ends a second time."""
    timed_out = Pool._ping_is_late

    def twice(self: Pool, ping: Any) -> None:
        timed_out(self, ping)
        ping.error = PingTimeout("again")
        self.orders.append(Deliver(ping))

    patch.setattr(Pool, "_ping_is_late", twice)


def any_method(patch: pytest.MonkeyPatch) -> None:
    """A POST whose connection is lost is sent again."""
    patch.setattr(pool, "SAFE_METHODS", IDEMPOTENT_METHODS | {b"POST"})


def impatient(patch: pytest.MonkeyPatch) -> None:
    """Silence is asked about too soon."""
    patch.setattr(Health, "is_stale", lambda self, now: True)


def unrationed(patch: pytest.MonkeyPatch) -> None:
    """Every cancellation brings a PING."""
    cancelled = Health.cancelled

    def probe(self: Health, now: float, answered: bool) -> tuple[list[int], bool]:
        self._may_probe_cancel = True
        return cancelled(self, now, answered)

    patch.setattr(Health, "cancelled", probe)


def unheld(patch: pytest.MonkeyPatch) -> None:
    """A stale connection is used at once, beside its PING."""
    admits = Health.admits

    def at_once(self: Health, now: float) -> int:
        word = admits(self, now)
        return SEND if word == HOLD and self.state != health.CONNECTING else word

    patch.setattr(Health, "admits", at_once)


def link_left(patch: pytest.MonkeyPatch) -> None:
    """The driver keeps the link of a connection that is gone."""
    patch.setattr(Driver, "_forget", lambda self, member, link: None)


def timer_left(patch: pytest.MonkeyPatch) -> None:
    """A connection that ended keeps its place among the timers."""
    remove = Pool._remove

    def and_arm(self: Pool, member: Member, now: float, *rest: Any) -> None:
        remove(self, member, now, *rest)
        self.timers.set(member, now + 50.0)

    patch.setattr(Pool, "_remove", and_arm)


def stream_left(patch: pytest.MonkeyPatch) -> None:
    """A cancelled request stays on its connection's list."""
    reset = Pool._reset

    def keep(self: Pool, member: Member, stream: Any, *rest: Any) -> None:
        call = member.calls[stream.stream_id]
        reset(self, member, stream, *rest)
        member.calls[stream.stream_id] = call

    patch.setattr(Pool, "_reset", keep)


def too_many_pings(patch: pytest.MonkeyPatch) -> None:
    """Nobody counts the PINGs that are asked for."""
    patch.setattr(pool, "PINGS_ASKED_MAX", 1000)
    patch.setattr("h2lite.connection.PINGS_IN_FLIGHT_MAX", 1000)


def slots_kept(patch: pytest.MonkeyPatch) -> None:
    """Slots of cancelled streams are held by the hundred."""
    reset = Pool._reset

    def hold(self: Pool, member: Member, *rest: Any) -> None:
        reset(self, member, *rest)
        member.held += 200

    patch.setattr(Pool, "_reset", hold)


BREAKS: list[tuple[str, Callable[[pytest.MonkeyPatch], None]]] = [
    ("sound", in_haste),
    ("dead", no_verdict),
    ("dead", never_left),
    ("once", untold),
    ("once", told_twice),
    ("repeated", any_method),
    ("pings", impatient),
    ("pings", unrationed),
    ("stale", unheld),
    ("clean", link_left),
    ("clean", timer_left),
    ("clean", stream_left),
    ("bounded", too_many_pings),
    ("bounded", slots_kept),
]


@pytest.mark.parametrize(("invariant", "spoil"), BREAKS)
def test_a_broken_rule_is_found(invariant, spoil, monkeypatch):
    spoil(monkeypatch)

    with pytest.raises(Broken, match=rf"\[{invariant}\]"):
        _ = [live(seed, SECONDS) for seed in range(SEEDS)]


def test_a_run_that_differs_is_found(monkeypatch):
    draws = iter(range(10**9))
    monkeypatch.setattr(Member, "next_opaque", lambda self: next(draws).to_bytes(8, "big"))
    monkeypatch.setattr(health, "JITTER", 0.1)
    original = Health._draw_jitter

    def draw(self: Health) -> None:
        original(self)
        self._jitter_s += next(draws) % 1000 / 1e4

    monkeypatch.setattr(Health, "_draw_jitter", draw)

    with pytest.raises(Broken, match=r"\[same\]"):
        live(0, SECONDS)


def test_every_invariant_has_been_broken():
    assert {invariant for invariant, _ in BREAKS} | {"same"} == set(INVARIANTS)


def test_a_crash_tells_seed_and_instant(monkeypatch):
    def crash(self: Pool, member: Member, now: float) -> None:
        raise UsageError("crashed")

    monkeypatch.setattr(Pool, "_send_probe", crash)

    with pytest.raises(Broken, match=r"seed 0 at \d+\.\d{3} s: Traceback"):
        live(0, SECONDS)
