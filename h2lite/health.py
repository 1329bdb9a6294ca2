"""Health: decide when a silent connection is doubtful, and when it is dead.

One `Health` a connection.  Instants and what was seen come in as arguments, orders go out as
return values; there is no clock, no socket and no frame here, and nothing is ever sent.
Grounds: RFC 9113 §6.7 (PING), §5.4.1 (giving a connection up); the estimate is RFC 6298 §2's.
`spec-notes/health.md` explains the rules; `pool.py` obeys the orders.
"""

from __future__ import annotations

import math

from .errors import UsageError
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# States
CONNECTING, LIVE, PROBING, SUSPECT, DEAD = range(5)
STATE_NAMES = ("CONNECTING", "LIVE", "PROBING", "SUSPECT", "DEAD")

# Signals: what is seen or falls due
READY, HEARD, PROBE_DUE, SOFT_DUE, HARD_DUE, WRITE_DUE, CONNECT_DUE, LOST = range(8)
SIGNAL_NAMES = (
    "the peer's SETTINGS came",
    "an octet came",
    "a probe is due",
    "the soft deadline passed",
    "the hard deadline passed",
    "writing stands still",
    "the connect deadline passed",
    "the transport or the protocol ended",
)

# Orders: what the caller must do
PING, REROUTE, ABORT = range(1, 4)
ORDER_NAMES = (
    "-",
    "send one PING",
    "move what has not left to another connection",
    "abort the connection",
)

# (state, signal) -> (next state, order or 0); what is not here is never looked up.
TRANSITIONS = {
    (CONNECTING, READY): (LIVE, 0),
    (CONNECTING, CONNECT_DUE): (DEAD, ABORT),
    (CONNECTING, LOST): (DEAD, 0),
    (LIVE, PROBE_DUE): (PROBING, PING),
    (LIVE, WRITE_DUE): (DEAD, ABORT),
    (LIVE, LOST): (DEAD, 0),
    (PROBING, HEARD): (LIVE, 0),
    (PROBING, SOFT_DUE): (SUSPECT, REROUTE),
    (PROBING, HARD_DUE): (DEAD, ABORT),
    (PROBING, WRITE_DUE): (DEAD, ABORT),
    (PROBING, LOST): (DEAD, 0),
    (SUSPECT, HEARD): (LIVE, 0),
    (SUSPECT, HARD_DUE): (DEAD, ABORT),
    (SUSPECT, WRITE_DUE): (DEAD, ABORT),
    (SUSPECT, LOST): (DEAD, 0),
}

# Whether a request may be encoded now
SEND, HOLD, ELSEWHERE = range(3)

JITTER = 0.15  # of ping_after_idle, upward only: nobody is probed sooner than was asked
TICKS = 20  # probes due within a twentieth of ping_after_idle share one turn of the loop ...
TICK_S_MAX = 0.05  # ... but no probe moves by more than this
SOFT_S_MIN = 1.5  # one lost segment and its retransmission (1 s, RFC 6298 §2.4) are no doubt yet
SOFT_S_UNKNOWN = 3.0  # without a sample of the round trip: the initial handshake's patience
SOFT_MARGIN_S = 0.25  # a peer that delays its ack, and its scheduler
LATE_S_MIN = 1.0  # a deadline judged later than this tells of our own standstill
CALM_AFTER_IDLE_S = 300.0  # gRPC's default for the least time between two PINGs


class HealthPolicy(Value):
    """When to doubt a connection and when to give it up.  Seconds; 0 switches a rule off.

    ping_after_idle    silence before a PING; 0: no PING of our own, whatever the reason
    ping_timeout       from the PING's leaving to the verdict; above 0
    stale_after        silence after which a request waits for a PING's ack before it leaves; and
                       after which a PING asks about HEADERS or DATA that nothing has answered
    connect_timeout    name, TCP, TLS and the peer's SETTINGS together; above 0
    write_stall        octets queued, none taken and none received
    peer_not_reading   octets queued and none taken, though others are received
    while_idle         False: PINGs on a schedule only while a stream is open
    hold_when_stale    False: a request leaves at once, beside the PING that asks
    jitter             False: PINGs exactly on time
    when_unanswered    False: no PING because a request stays unanswered, cancelled or not, and
                       before the use of a stale connection only one until HEADERS or DATA come

    Raises UsageError for a negative number, for one that is none, and for a 0 that cannot be.
    """

    __slots__ = (
        "ping_after_idle",
        "ping_timeout",
        "stale_after",
        "connect_timeout",
        "write_stall",
        "peer_not_reading",
        "while_idle",
        "hold_when_stale",
        "jitter",
        "when_unanswered",
    )

    def __init__(
        self,
        ping_after_idle: float = 30.0,
        ping_timeout: float = 15.0,
        stale_after: float = 10.0,
        connect_timeout: float = 10.0,
        write_stall: float = 15.0,
        peer_not_reading: float = 60.0,
        while_idle: bool = True,
        hold_when_stale: bool = True,
        jitter: bool = True,
        when_unanswered: bool = True,
    ) -> None:
        self.ping_after_idle = _seconds("ping_after_idle", ping_after_idle)
        self.ping_timeout = _seconds("ping_timeout", ping_timeout, above=True)
        self.stale_after = _seconds("stale_after", stale_after)
        self.connect_timeout = _seconds("connect_timeout", connect_timeout, above=True)
        self.write_stall = _seconds("write_stall", write_stall)
        self.peer_not_reading = _seconds("peer_not_reading", peer_not_reading)
        self.while_idle = while_idle
        self.hold_when_stale = hold_when_stale
        self.jitter = jitter
        self.when_unanswered = when_unanswered

    @property
    def found_within_s(self) -> float | None:
        """How long a connection can be dead and quiet at most; None: nobody looks.

        Without `while_idle` it is counted from the stream that is opened on it.
        """
        if not self.ping_after_idle:
            return None
        spread = JITTER if self.jitter else 0.0
        return (1 + spread) * self.ping_after_idle + self.ping_timeout

    def is_late(self, late_s: float) -> bool:
        """A deadline judged by so much too late tells of our own standstill."""
        return late_s > max(LATE_S_MIN, self.ping_timeout / 4)

    def without_pings(self) -> HealthPolicy:
        """The same for a connection whose protocol has no PING."""
        return self.but(ping_after_idle=0.0)

    def but(self, **changes: Any) -> HealthPolicy:
        """The same with other values.  Raises as the policy itself does."""
        return HealthPolicy(**{name: getattr(self, name) for name in self.slots()} | changes)

    def calmed(self) -> HealthPolicy:
        """The same for an origin that complained of too many PINGs.

        PINGs are few then, and only with a stream open; a stale connection is still asked before
        its use, but not again until HEADERS or DATA came: only these clear what gRPC has counted.
        """
        calm = self.but(while_idle=False, when_unanswered=False)
        if self.ping_after_idle:
            calm.ping_after_idle = max(2 * self.ping_after_idle, CALM_AFTER_IDLE_S)
        return calm


def _seconds(name: str, value: float, above: bool = False) -> float:
    good = isinstance(value, (int, float)) and math.isfinite(value)
    if not good or value < 0 or (above and value == 0):
        least = "above 0" if above else "0 (off) or more"
        raise UsageError(f"{name} of {value!r}, want seconds, {least}")
    return value


class Health:
    """The health of one connection.

    policy    `HealthPolicy`
    now       the dial begins; seconds, as everywhere below
    uniform   a number in [0, 1), another each time

    state          see TRANSITIONS
    cause          of death, "" before
    busy           set by `set_busy`: a stream is open
    sooner         something may be due sooner than `next_deadline` has said last
    srtt_s         smoothed round trip and its variation, None without a sample
    heard_at       when an octet last came; at first, the peer's SETTINGS
    late_rtt_s     of the last probe whose ack came after another octet had ended it, or None
    pings, acks, late_acks, rescues, suspects, false_suspects    counted since the dial
    """

    __slots__ = (
        "policy",
        "state",
        "cause",
        "busy",
        "sooner",
        "srtt_s",
        "rttvar_s",
        "late_rtt_s",
        "pings",
        "acks",
        "late_acks",
        "rescues",
        "suspects",
        "false_suspects",
        "heard_at",
        "_uniform",
        "_jitter_s",
        "_first_due",
        "_unanswered_since",
        "_blocked_since",
        "_may_probe_cancel",
        "_may_probe_stale",
        "_soft_due",
        "_hard_due",
        "_connect_due",
        "_renewed",
        "_stall_renewed_at",
        "_told",
    )

    def __init__(self, policy: HealthPolicy, now: float, uniform: Callable[[], float]) -> None:
        self.policy = policy
        self.state = CONNECTING
        self.cause = ""
        self.busy = False
        self.sooner = True
        self.srtt_s: float | None = None
        self.rttvar_s = 0.0
        self.late_rtt_s: float | None = None
        self.pings = self.acks = self.late_acks = 0
        self.rescues = self.suspects = self.false_suspects = 0
        self.heard_at = now
        self._uniform = uniform
        self._jitter_s = 0.0
        self._first_due: float | None = None  # of the first probe, until there was one
        self._unanswered_since: float | None = None  # first HEADERS or DATA with no octet since
        self._blocked_since: float | None = None  # octets are queued, none was taken since
        self._may_probe_cancel = True
        self._may_probe_stale = True
        self._soft_due: float | None = None
        self._hard_due: float | None = None  # None: no probe is out, or it has not left
        self._connect_due = now + policy.connect_timeout
        self._renewed = False  # the probe's, or the dial's, deadline was put off once
        self._told: float | None = None  # as the next deadline
        self._stall_renewed_at: float | None = None  # the same of the standstill under way

    # -- what was seen ---------------------------------------------------------------------

    def ready(self, now: float) -> None:
        """The peer's SETTINGS came: requests and PINGs may leave."""
        if self.state != CONNECTING:
            return
        self._enter(READY)
        self.heard_at = now
        # Whatever the traffic, for a first sample; anywhere within the interval, so that
        # connections opened together are not probed together.
        spread = self._uniform() if self.policy.jitter else 1.0
        self._first_due = now + spread * self.policy.ping_after_idle
        self._draw_jitter()

    def heard(self, now: float, rtt_s: float | None = None) -> None:
        """Octets came: any of them is life.

        rtt_s   the probe's round trip, where its ack is among them
        """
        self.heard_at = now
        self._unanswered_since = None
        if self.state not in (PROBING, SUSPECT):
            return
        if self.state == SUSPECT:
            self.false_suspects += 1
        if rtt_s is None:
            self.rescues += 1
        else:
            self.acks += 1
            self.sample(rtt_s)
        self._enter(HEARD)
        self._soft_due = self._hard_due = None
        self._draw_jitter()

    def heard_message(self) -> None:
        """HEADERS or DATA came: the peer works, so the next lost patience may be asked about."""
        self._may_probe_cancel = True
        self._may_probe_stale = True

    def acked_late(self, rtt_s: float) -> None:
        """A probe's ack came when another octet had ended that probe; counted, nothing else."""
        self.late_acks += 1
        self.late_rtt_s = rtt_s

    def sample(self, rtt_s: float) -> None:
        """A round trip was measured, by a probe or by a user's own PING."""
        # RFC 6298 §2.2, §2.3: gains 1/8 and 1/4, the variation first.
        if self.srtt_s is None:
            self.srtt_s = rtt_s
            self.rttvar_s = rtt_s / 2
        else:
            self.rttvar_s += (abs(self.srtt_s - rtt_s) - self.rttvar_s) / 4
            self.srtt_s += (rtt_s - self.srtt_s) / 8

    def sent(self, now: float) -> None:
        """HEADERS or DATA were given to the socket."""
        if self._unanswered_since is None:
            self._unanswered_since = now
            # Requests that follow one another bring nothing nearer than it was for the first.
            if self._told is None or now + self.policy.stale_after < self._told:
                self.sooner = True

    def set_busy(self, busy: bool) -> None:
        """A stream is open, or none is any more."""
        if busy != self.busy:
            self.busy = busy
            self.sooner = True

    def wrote(self, now: float, took: bool, queued: bool) -> None:
        """A send was tried.

        took     the socket took octets
        queued   framed octets are left that it refused; DATA that waits for a window is not
        """
        if not queued:
            self._blocked_since = None
        elif took or self._blocked_since is None:
            self._blocked_since = now
            self.sooner = True
        if took or not queued:
            self._stall_renewed_at = None

    def set_policy(self, policy: HealthPolicy) -> None:
        """From here on by these rules; a probe that is out is judged as it was begun."""
        self.policy = policy
        self._first_due = None  # it was the old policy's, and may be too soon now
        self.sooner = True
        self._draw_jitter()

    def probe_left(self, now: float) -> None:
        """The socket has taken the PING that was ordered: from here on its ack is awaited."""
        if self.state in (PROBING, SUSPECT) and self._hard_due is None:
            self._hard_due = now + self.policy.ping_timeout
            if self._told is None or self._hard_due < self._told:  # seldom: doubt comes first
                self.sooner = True
            if self.soft_s >= self.policy.ping_timeout:
                self._soft_due = None  # both fall together: the verdict alone is judged

    def lost(self, cause: str) -> None:
        """The connection ended, or is ended, for another reason than its silence."""
        self._die(LOST, cause)

    # -- questions -------------------------------------------------------------------------

    @property
    def soft_s(self) -> float:
        """Seconds from a probe to doubt, never more than to the verdict."""
        if self.srtt_s is None:
            soft = SOFT_S_UNKNOWN
        else:
            soft = max(SOFT_S_MIN, self.srtt_s + 4 * self.rttvar_s + SOFT_MARGIN_S)
        return min(self.policy.ping_timeout, soft)

    @property
    def probing(self) -> bool:
        """A probe is out, or waits to leave."""
        return self.state in (PROBING, SUSPECT)

    def is_stale(self, now: float) -> bool:
        """Silent for so long that nobody knows whether the peer is still there, and may ask."""
        policy = self.policy
        asks = policy.ping_after_idle and policy.stale_after
        if not asks or now - self.heard_at <= policy.stale_after:
            return False
        return policy.when_unanswered or self._may_probe_stale or self.probing

    def admits(self, now: float) -> int:
        """SEND a request now, HOLD it until an octet or the soft deadline, or send it ELSEWHERE."""
        if self.state == CONNECTING:
            return HOLD
        if self.state in (SUSPECT, DEAD):
            return ELSEWHERE
        return HOLD if self.policy.hold_when_stale and self.is_stale(now) else SEND

    # -- what falls due --------------------------------------------------------------------

    def wanted(self, now: float) -> list[int]:
        """A request wants this connection: a stale one is asked first."""
        if self.state != LIVE or not self.is_stale(now):
            return []
        self._may_probe_stale = False
        return self._probe(now)

    def cancelled(self, now: float, answered: bool) -> tuple[list[int], bool]:
        """A request was cancelled or timed out; its RST_STREAM leaves in any case.

        answered   an octet came since its HEADERS left
        Returns orders, and whether the stream keeps its place among the peer's concurrent
        streams until an octet comes: else a peer that hangs is given stream after stream.
        """
        if answered or self.state not in (LIVE, PROBING, SUSPECT):
            return [], False
        if self.probing:
            return [], True
        policy = self.policy
        if not (policy.when_unanswered and policy.ping_after_idle and self._may_probe_cancel):
            return [], False
        self._may_probe_cancel = False
        return self._probe(now), True

    def next_deadline(self) -> float | None:
        """When `handle_deadline` has something to judge; None: nothing to wait for.

        An octet puts it off without a word, so ask again before acting on it.
        """
        self.sooner = False
        self._told = due = self._next_deadline()
        return due

    def _next_deadline(self) -> float | None:
        if self.state == CONNECTING:
            return self._connect_due
        due = self._probe_deadline()
        for other in (self._soft_due, self._hard_due, self._stall_deadline()[0]):
            if other is not None and (due is None or other < due):
                due = other
        return due

    def handle_deadline(self, now: float) -> list[int]:
        """Judge what should have come by now: PING, REROUTE or ABORT; harmless when early.

        Call it when everything that had arrived by `now` has been read.
        """
        if _is_past(self._connect_deadline(), now):
            return self._judge_connect(now)
        stalled, cause = self._stall_deadline()
        if stalled is not None and now >= stalled:
            return self._judge_stall(now, stalled, cause)
        if self._hard_due is not None and now >= self._hard_due:
            if not self._renews(now, self._hard_due):
                return self._die(HARD_DUE, "unknown")
            self._hard_due = now + self.policy.ping_timeout
        if _is_past(self._soft_due, now):
            self._soft_due = None
            self.suspects += 1
            return self._enter(SOFT_DUE)
        if _is_past(self._probe_deadline(), now):
            return self._probe(now)
        return []

    def _connect_deadline(self) -> float | None:
        return self._connect_due if self.state == CONNECTING else None

    def _probe_deadline(self) -> float | None:
        """Of the next probe that nobody asks for: silence, or HEADERS and DATA unanswered."""
        policy = self.policy
        if self.state != LIVE or not policy.ping_after_idle:
            return None
        if not (policy.while_idle or self.busy):
            return None
        due = self.heard_at + policy.ping_after_idle
        if policy.jitter:
            tick = min(policy.ping_after_idle / TICKS, TICK_S_MAX)
            due = max(due, (due + self._jitter_s) // tick * tick)
        if self._first_due is not None:
            due = self._first_due  # never later: it lies within one interval of the SETTINGS
        if self._unanswered_since is not None and policy.stale_after and policy.when_unanswered:
            due = min(due, self._unanswered_since + policy.stale_after)
        return due

    def _stall_deadline(self) -> tuple[float | None, str]:
        """When a blocked write becomes a verdict, and which."""
        blocked = self._blocked_since
        if blocked is None or self.state not in (LIVE, PROBING, SUSPECT):
            return None, ""
        policy = self.policy
        since = blocked if self._stall_renewed_at is None else self._stall_renewed_at
        deaf = since + policy.peer_not_reading if policy.peer_not_reading else math.inf
        silent = math.inf
        if policy.write_stall:
            silent = max(since, self.heard_at) + policy.write_stall
        if silent <= deaf:
            return (silent, "write_stall") if silent < math.inf else (None, "")
        return deaf, "peer_not_reading"

    def _judge_connect(self, now: float) -> list[int]:
        if self._renews(now, self._connect_due):
            self._connect_due = now + self.policy.connect_timeout
            return []
        return self._die(CONNECT_DUE, "connect_timeout")

    def _judge_stall(self, now: float, due: float, cause: str) -> list[int]:
        if self.policy.is_late(now - due) and self._stall_renewed_at is None:
            self._stall_renewed_at = now
            return []
        return self._die(WRITE_DUE, cause)

    def _renews(self, now: float, due: float) -> bool:
        """We stood still ourselves, so the peer had less time than it seems: once more, in full.

        Once only, so that a program which looks seldom still finds a dead peer.
        """
        if self._renewed or not self.policy.is_late(now - due):
            return False
        self._renewed = True
        return True

    def _probe(self, now: float) -> list[int]:
        """The caller checks that the state is LIVE."""
        self.pings += 1
        self._first_due = None
        self._renewed = False
        # Counted from here and not from the PING's leaving: whoever waits to use the connection
        # does not care why nothing comes.
        self._soft_due = now + self.soft_s
        return self._enter(PROBE_DUE)

    def _draw_jitter(self) -> None:
        if self.policy.jitter:
            self._jitter_s = self._uniform() * JITTER * self.policy.ping_after_idle

    def _die(self, signal: int, cause: str) -> list[int]:
        if self.state == DEAD:
            return []
        self.cause = cause
        self._soft_due = self._hard_due = None
        return self._enter(signal)

    def _enter(self, signal: int) -> list[int]:
        """Look the signal up; the order it carries, if any."""
        self.sooner = True
        self.state, order = TRANSITIONS[self.state, signal]
        return [order] if order else []


def _is_past(deadline: float | None, now: float) -> bool:
    return deadline is not None and now >= deadline
