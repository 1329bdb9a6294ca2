"""Hours of a pool's life in seconds: random servers, links, clients and faults, and what must hold.

Each seed draws a world of its own and lives through it; after every turn of the loop the
invariants below are checked against what the simulation itself has written down, never against
what the code under test believes.  The same seed gives the same run, so a failure is replayed by

    python -m tests.simulation --first SEED --seeds 1

The invariants:

    sound     a connection whose link and server are sound is never closed by a verdict
    dead      silence never lasts longer than the policy allows: a dead connection is closed
    once      every request ends, once, and its outcome does not change
    repeated  a server sees a request twice only if its method is safe or nobody had acted on it
    pings     no PING that no rule of the policy asks for
    stale     nothing leaves on a connection silent for longer than stale_after
    clean     nothing of a dead connection or of a request that is over is left anywhere
    bounded   queues and tables keep to their limits
    same      one seed, one trace
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import random
import sys
import time
import traceback
from collections import Counter
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, NamedTuple

from h2lite import events as ev
from h2lite.call import Call
from h2lite.connection import PINGS_IN_FLIGHT_MAX
from h2lite.errors import ErrorCode, UsageError
from h2lite.frames import PingFrame, SettingsFrame
from h2lite.health import (
    CONNECTING,
    DEAD,
    PROBING,
    SIGNAL_NAMES,
    STATE_NAMES,
    TRANSITIONS,
    HealthPolicy,
)
from h2lite.member import Ping
from h2lite.orders import Calmed, Deliver, Send, StateChanged
from h2lite.settings import SettingId
from h2lite.testing import Answer, Path, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from h2lite.member import Member
    from h2lite.testing import Line, Seen, VirtualPeer, VirtualServer

VERDICTS = {"path_dead", "peer_hung", "peer_not_reading", "write_stall", "unknown"}
STALLS = {"peer_not_reading", "write_stall"}
SAFE = {"GET", "HEAD"}
INVARIANTS = (
    "sound",
    "dead",
    "once",
    "repeated",
    "pings",
    "stale",
    "clean",
    "bounded",
    "same",
)
QUEUED_MAX = 50
SLACK_S = 0.1  # more than a tick of jitter's rounding
EPSILON_S = 1e-6  # sums of floats
FAULT_GAP_S = 45.0  # from one to the next, on average
HEAL_S = 400.0  # after the last fault is mended, everything that waits has ended by then
HOURS_MAX = 1000
SAME_EVERY = 25  # seeds; of these one is lived twice


class Broken(AssertionError):
    """An invariant does not hold."""


class Report(NamedTuple):
    """What one seed has lived through."""

    seconds: float
    faults: Counter[str]
    transitions: Counter[tuple[int, int]]
    counters: Counter[str]
    trace: str


def signal_of(before: int, after: int, cause: str) -> int:
    """The signal of the state table that a change of state shows."""
    signals = [s for (state, s), (to, _) in TRANSITIONS.items() if (state, to) == (before, after)]
    if after != DEAD:
        (signal,) = signals
        return signal
    names = {SIGNAL_NAMES[s]: s for s in signals}
    if cause == "connect_timeout":
        return names["the connect deadline passed"]
    if cause in STALLS:
        return names["writing stands still"]
    if cause in VERDICTS and "the hard deadline passed" in names:
        return names["the hard deadline passed"]
    return names["the transport or the protocol ended"]


class Simulation:
    """One seed's world, driven from instant to instant."""

    def __init__(self, seed: int, seconds: float = 3600.0) -> None:
        self.seed = seed
        self.seconds = seconds
        self.fault_gap_s = min(FAULT_GAP_S, seconds / 8)
        self.random = random.Random(f"h2lite {seed}")
        draw = self.random
        interval = draw.choice((2.0, 5.0, 14.0, 30.0, 30.0))
        self.policy = HealthPolicy(
            ping_after_idle=interval,
            ping_timeout=draw.choice((2.5, 5.0, 15.0, 15.0)),
            stale_after=draw.choice((1.0, 4.0, 10.0, 10.0)),
            connect_timeout=draw.choice((3.0, 10.0)),
            # Now and then a stall is judged while a probe waits to leave.
            write_stall=draw.choice((3.0, 8.0, 15.0, 1.05 * interval + 1.0)),
            peer_not_reading=draw.choice((10.0, 60.0)),
            while_idle=draw.random() < 0.8,
            hold_when_stale=draw.random() < 0.8,
        )
        self.world = World(
            self.policy,
            seed,
            connections_per_origin_max=draw.choice((1, 1, 2, 3)),
            queued_max=QUEUED_MAX,
            idle_close=draw.choice((0.0, 90.0, 600.0)),
        )
        self.faults: Counter[str] = Counter()
        self.transitions: Counter[tuple[int, int]] = Counter()
        self.counters: Counter[str] = Counter()
        self._trace = hashlib.blake2b()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._agenda_count = 0
        self._over = False  # no new requests and faults
        self._turns = 0
        # What the simulation has seen itself.
        self.calls: list[Call] = []
        self.outcomes: dict[Call, tuple[bool, Any]] = {}
        self.lines: dict[Member, Line] = {}
        self.heard_at: dict[Member, float] = {}
        self.heard_before: dict[Member, float] = {}  # the same, before this turn's reads
        self.messages: Counter[Member] = Counter()
        self.probes: Counter[Member] = Counter()
        self.asked_after: dict[Member, list[int]] = {}  # messages heard before each of its probes
        self.last_asked: dict[Member, int] = {}  # messages heard before its latest probe
        self.cancel_probes: dict[Member, int] = {}  # messages heard when one was last allowed
        self.busy_since: dict[Member, float] = {}
        self.blocked_at: dict[Member, float] = {}  # when octets were last seen to be queued
        self.took_at: dict[Member, float] = {}  # when its socket last took octets
        self.pings: list[Ping] = []  # that are not over
        self.call_member: dict[Call, Member] = {}
        self.sound_since: dict[Line, float | None] = {}
        self.owing: set[Line] = set()
        self.stalled_until = 0.0
        self.calmed_at: dict[Any, float] = {}
        self.hot: dict[VirtualServer, set[str]] = {}
        self.servers = [self._server(n) for n in range(draw.randint(4, 6))]
        self._observe()
        for server in self.servers:
            gap_s = draw.choice((4.0, 12.0, 40.0, 150.0))
            self._at(draw.uniform(0, 5), self._client(server, gap_s))
        self._at(draw.uniform(5, self.fault_gap_s), self._fault)
        self._at(draw.uniform(5, 60), self._ping)

    # -- the draw ----------------------------------------------------------------------------

    def _server(self, number: int) -> VirtualServer:
        draw = self.random
        delay = draw.choice((0.0, 0.0005, 0.02, 0.08, 0.2))
        rate = draw.choice((0.0, 0.0, 0.0, 250_000.0, 60_000.0))
        capacity = draw.choice((16384, 65536, 262144))
        if rate:  # a healthy PING comes back in time though both ways are full
            capacity = min(capacity, int(rate * (self.policy.ping_timeout - 1.2) / 3))
        server = self.world.serve(
            f"s{number}.test",
            delay_s=delay,
            jitter_s=draw.choice((0.0, delay / 2)),
            octets_per_s=rate,
            capacity_octets=capacity,
        )
        limit = draw.choice((0, 2, 10, 100))
        if limit:
            server.settings = {SettingId.MAX_CONCURRENT_STREAMS: limit}
        if draw.random() < 0.15:
            server.ping_gap_s = draw.choice((10.0, 60.0, 300.0))
        self.hot[server] = set()
        server.answer = lambda seen: self._answer(server, seen)
        return server

    def _answer(self, server: VirtualServer, seen: Seen) -> Answer:
        draw, hot = self.random, self.hot[server]
        if "refuse" in hot and draw.random() < 0.7:
            return Answer(reset=ErrorCode.REFUSED_STREAM)
        if "misdirect" in hot and draw.random() < 0.5:
            return Answer(status=421)
        if "cut" in hot and draw.random() < 0.3:
            return Answer(reset=draw.choice((ErrorCode.PROTOCOL_ERROR, ErrorCode.CANCEL)))
        # Who waits without a limit must not wait for ever.
        if "hold" in hot and self.calls[int(seen.tag) - 1].deadline is not None:
            return Answer(hold=True)
        late = draw.expovariate(0.2) if "slow" in hot else draw.expovariate(20.0)
        body = bytes(draw.choice((0, 2, 2000, 2000, 100_000)))
        if draw.random() < 0.1:
            return Answer(late, body=body, pieces=5, body_gap_s=draw.choice((0.5, 8.0)))
        return Answer(late, body=body)

    def _at(self, when: float, what: Callable[[], None]) -> None:
        self._agenda_count += 1
        heappush(self._agenda, (when, self._agenda_count, what))

    def _after(self, seconds: float, what: Callable[[], None]) -> None:
        self._at(self.world.clock.now + seconds, what)

    # -- clients -----------------------------------------------------------------------------

    def _client(self, server: VirtualServer, gap_s: float) -> Callable[[], None]:
        def act() -> None:
            if self._over:
                return
            draw = self.random
            burst = draw.choice((1, 1, 1, 1, 3, 12))
            for _ in range(burst):
                self._request(server)
            # Bursts and pauses: connections must go stale, and be busy.
            self._after(draw.expovariate(1 / gap_s) * burst, act)

        return act

    def _request(self, server: VirtualServer) -> None:
        draw = self.random
        method = draw.choice(("GET", "GET", "GET", "HEAD", "POST", "POST", "PUT"))
        size = draw.choice((0, 10, 5000, 150_000)) if method in ("POST", "PUT") else 0
        body = draw.randbytes(size)
        timeout = draw.choice((3.0, 10.0, 30.0, 60.0, None))
        if size and draw.random() < 0.3:
            step = max(1, size // 3)
            pieces = [body[at : at + step] for at in range(0, size, step)]
            call = self.world.request(
                server,
                method,
                source=lambda: pieces,
                rewindable=draw.random() < 0.5,
                timeout=timeout,
            )
        else:
            call = self.world.request(server, method, body, timeout=timeout)
        self.calls.append(call)
        if draw.random() < 0.05 and timeout is not None:
            self.world.unread.add(call)
        if draw.random() < 0.08:
            self._after(draw.choice((0.0, 0.01, 1.0, 5.0)), lambda: self._cancel(call))

    def _cancel(self, call: Call) -> None:
        if not call.over:
            self.counters["cancelled"] += 1
            self.world.cancel(call)

    def _ping(self) -> None:
        """Somebody looks at every connection, or presses one of them."""
        if self._over:
            return
        draw, now = self.random, self.world.clock.now
        timeout_s = draw.choice((0.2, 1.0, 10.0))
        if draw.random() < 0.5:
            pings = self.world.pool.ping_all(now, timeout_s)
            self.pings += [ping for ping in pings if not ping.over]
        else:
            members = [member for member in self.world.pool.members if member.ready_at is not None]
            for _ in range(draw.randint(1, 20) if members else 0):
                try:
                    self.pings.append(self.world.pool.ping(members[0], now, timeout_s))
                except UsageError:
                    self.counters["asked_refused"] += 1
        self._after(draw.expovariate(1 / 120.0), self._ping)

    # -- faults ------------------------------------------------------------------------------

    def _fault(self) -> None:
        if self._over:
            return
        draw = self.random
        server = draw.choice(self.servers)
        name = draw.choice(sorted(FAULTS))
        if FAULTS[name](self, server, draw.choice((0.3, 2.0, 8.0, 30.0, 120.0))):
            self.faults[name] += 1
        self._after(draw.expovariate(1 / self.fault_gap_s), self._fault)

    def _line_of(self, server: VirtualServer) -> VirtualPeer | None:
        greeted = [peer for peer in server.peers if not peer.is_mute]
        return self.random.choice(greeted) if greeted else None

    def _spoil(self, server: VirtualServer, seconds: float, what: Callable[[Line], None]) -> bool:
        peer = self._line_of(server)
        if peer is None:
            return False
        line = peer.line
        what(line)
        self._note_soundness()
        if self.random.random() < 0.6:  # else it never comes back
            self._after(seconds, lambda: self._mend(line.mend))
        return True

    def _mend(self, what: Callable[[], None]) -> None:
        what()
        self._note_soundness()

    def freeze(self, server: VirtualServer, seconds: float) -> bool:
        return self._spoil(server, seconds, lambda line: line.freeze())

    def blackhole(self, server: VirtualServer, seconds: float) -> bool:
        return self._spoil(server, seconds, lambda line: line.blackhole())

    def blackhole_up(self, server: VirtualServer, seconds: float) -> bool:
        return self._spoil(server, seconds, lambda line: line.blackhole(down=False))

    def blackhole_down(self, server: VirtualServer, seconds: float) -> bool:
        return self._spoil(server, seconds, lambda line: line.blackhole(up=False))

    def sigstop(self, server: VirtualServer, seconds: float) -> bool:
        server.stop()
        self._note_soundness()
        self._after(seconds, lambda: self._mend(server.cont))
        return True

    def stop_reading(self, server: VirtualServer, seconds: float) -> bool:
        server.reads = False
        self._note_soundness()
        # So that there is something to be stuck.
        for _ in range(3):
            self._request(server)

        def read() -> None:
            server.reads = True
            for peer in list(server.peers):
                peer.read_again()

        self._after(seconds, lambda: self._mend(read))
        return True

    def deaf_but_talking(self, server: VirtualServer, seconds: float) -> bool:
        """It reads nothing and sends PINGs all the while."""
        if not server.peers:
            return False
        self.stop_reading(server, seconds)

        def talk() -> None:
            if not server.reads:
                for peer in list(server.peers):
                    if not peer.is_mute:
                        peer.send(PingFrame(b"deafness").encode())
                server.later(0.7, talk)

        talk()
        return True

    def ignore_pings(self, server: VirtualServer, seconds: float) -> bool:
        server.acks_pings = False
        self._note_soundness()

        def ack() -> None:
            server.acks_pings = True
            # What was not acknowledged never will be: the peer owes a sign of life.
            self.owing.update(peer.line for peer in server.peers)

        self._after(seconds, lambda: self._mend(ack))
        return True

    def reset(self, server: VirtualServer, seconds: float) -> bool:
        peer = self._line_of(server)
        if peer is not None:
            peer.kill()
        return peer is not None

    def half_open(self, server: VirtualServer, seconds: float) -> bool:
        peer = self._line_of(server)
        if peer is not None:
            peer.kill(silently=True)
            self._note_soundness()
        return peer is not None

    def eof(self, server: VirtualServer, seconds: float) -> bool:
        peer = self._line_of(server)
        if peer is not None:
            peer.close()
        return peer is not None

    def restart(self, server: VirtualServer, seconds: float) -> bool:
        server.restart(min(seconds, 30.0), silently=self.random.random() < 0.3)
        self._note_soundness()
        return True

    def unreachable(self, server: VirtualServer, seconds: float) -> bool:
        """The network to a server is cut, for old connections and for new ones."""
        server.is_reachable = False
        lines = [peer.line for peer in server.peers]
        for line in lines:
            line.blackhole()

        def back() -> None:
            server.is_reachable = True
            for line in lines:
                line.mend()

        self._note_soundness()
        self._after(seconds, lambda: self._mend(back))
        return True

    def mute_greeting(self, server: VirtualServer, seconds: float) -> bool:
        """New connections are accepted and never greeted."""
        server.sends_settings = False
        for peer in list(server.peers):
            peer.kill()

        def greet() -> None:
            server.sends_settings = True

        self._after(seconds, greet)
        return True

    def goaway(self, server: VirtualServer, seconds: float) -> bool:
        """In two steps, as a polite server does it."""
        peer = self._line_of(server)
        if peer is None:
            return False
        peer.goaway(2**31 - 1)

        def last() -> None:
            if peer.alive:
                peer.goaway()

        server.later(0.5, last)
        return True

    def goaway_rude(self, server: VirtualServer, seconds: float) -> bool:
        """Streams are left out, for a reason."""
        peer = self._line_of(server)
        if peer is None:
            return False
        opened = peer.connection._last_peer_stream_id
        last = self.random.choice((0, max(0, opened - 2), opened))
        code = self.random.choice((ErrorCode.NO_ERROR, ErrorCode.INTERNAL_ERROR))
        peer.goaway(last, code)
        return True

    def protocol_error(self, server: VirtualServer, seconds: float) -> bool:
        peer = self._line_of(server)
        if peer is not None:
            peer.send(bytes((0, 0, 1, 6, 0, 0, 0, 0, 0, 0)))  # a PING of one octet
        return peer is not None

    def new_settings(self, server: VirtualServer, seconds: float) -> bool:
        """The limit of streams changes on a living connection."""
        peer = self._line_of(server)
        if peer is not None:
            limit = self.random.choice((1, 3, 50))
            settings = ((SettingId.MAX_CONCURRENT_STREAMS, limit),)
            peer.connection.update_settings(dict(settings), self.world.clock.now)
            peer.read_again()
        return peer is not None

    def stray_ack(self, server: VirtualServer, seconds: float) -> bool:
        peer = self._line_of(server)
        if peer is not None:
            peer.send(PingFrame(b"nobody's", ack=True).encode())
        return peer is not None

    def half_frame(self, server: VirtualServer, seconds: float) -> bool:
        """One octet of a frame now, the rest later: every octet is life."""
        peer = self._line_of(server)
        if peer is None or peer.line.server.out.room < 100:
            return False
        octets = SettingsFrame().encode()
        peer.send(octets[:1])
        peer.send(octets[1:])
        return True

    def _spell(self, name: str, server: VirtualServer, seconds: float) -> bool:
        """A server behaves in some way for a while."""
        self.hot[server].add(name)
        self._after(seconds, lambda: self.hot[server].discard(name))
        return True

    def refuse(self, server: VirtualServer, seconds: float) -> bool:
        return self._spell("refuse", server, seconds)

    def misdirect(self, server: VirtualServer, seconds: float) -> bool:
        return self._spell("misdirect", server, seconds)

    def cut_streams(self, server: VirtualServer, seconds: float) -> bool:
        return self._spell("cut", server, seconds)

    def hold_answers(self, server: VirtualServer, seconds: float) -> bool:
        return self._spell("hold", server, seconds)

    def slow_answers(self, server: VirtualServer, seconds: float) -> bool:
        return self._spell("slow", server, seconds)

    def client_stopped(self, server: VirtualServer, seconds: float) -> bool:
        """Our own process stands still: between turns, or inside a wait."""
        if self.random.random() < 0.5:
            self.world.stall(seconds)
        else:
            self.world.selector.oversleep_s = seconds
            self._turn(self.world.clock.now)
        self.stalled_until = self.world.clock.now
        return True

    def suspended(self, server: VirtualServer, seconds: float) -> bool:
        """Our machine sleeps: what came meanwhile is there a little after it has woken."""
        self.world.suspend(600.0)
        self.stalled_until = self.world.clock.now
        return True

    # -- living ------------------------------------------------------------------------------

    def run(self) -> Report:
        world = self.world
        try:
            while self._agenda and self._agenda[0][0] <= self.seconds:
                when, _, what = heappop(self._agenda)
                self._run_until(when)
                what()
            self._run_until(self.seconds)
            self._heal()
            patience = world.clock.now + HEAL_S
            while world.clock.now < patience and not all(call.over for call in self.calls):
                self._run_until(world.clock.now + HEAL_S / 40)
            self._run_until(world.clock.now + HEAL_S / 40)
            self._check_ended()
            self._check_closed()
        except Broken:
            raise
        except Exception as error:
            text = f"seed {self.seed} at {world.clock.now:.3f} s: {traceback.format_exc()}"
            raise Broken(text) from error
        self.counters.update({k: v for k, v in world.pool.stats().items() if isinstance(v, int)})
        for server in self.servers:
            for seen in server.seen:
                self._note("seen", seen.at, seen.tag, seen.stream_id, seen.refused)
        digest = self._trace.hexdigest()[:16]
        return Report(world.clock.now, self.faults, self.transitions, self.counters, digest)

    def _heal(self) -> None:
        """No more requests and faults; whatever can be mended is."""
        self._over = True
        while self._agenda:
            heappop(self._agenda)[2]()
        for server in self.servers:
            server.is_reachable = server.is_listening = server.reads = True
            server.acks_pings = server.sends_settings = True
            self.hot[server].clear()
            server.cont()
            for line in server.lines:
                line.mend()
            for peer in list(server.peers):
                peer.read_again()
        self._note_soundness()

    def _run_until(self, when: float) -> None:
        world = self.world
        while True:
            began = world.clock.now
            self._turn(max(when, began))
            if began >= when:
                return

    def _turn(self, deadline: float) -> None:
        world = self.world
        began = len(world.log)
        stopped = world.selector.oversleep_s
        world.turn(deadline)
        if stopped and not world.selector.oversleep_s:
            self.stalled_until = world.clock.now
        self._turns += 1
        self._note_lines()
        for at, notice in world.log[began:]:
            self._on_notice(at, notice)
        world.log.clear()
        self._note_idle()
        self.heard_before.clear()
        self._check_silence()
        self._check_bounds()
        if self._turns % 50 == 0:
            self._check_clean()

    # -- writing down --------------------------------------------------------------------------

    def _observe(self) -> None:
        """See what each read brought, before the pool does."""
        receive = self.world.pool.receive

        def seeing(member: Member, events: Any, now: float) -> None:
            events = list(events)
            if not isinstance(events[0], (ev.ConnectionEnded, ev.ConnectionFailed)):
                self.heard_before.setdefault(member, self.heard_at.get(member, now))
                self.heard_at[member] = now
                if member in self.lines and self.lines[member] in self.owing:
                    self.owing.discard(self.lines[member])
                    self._note_soundness()
            for event in events:
                if isinstance(
                    event,
                    (
                        ev.ResponseReceived,
                        ev.DataReceived,
                        ev.TrailersReceived,
                        ev.InformationalReceived,
                    ),
                ):
                    self.messages[member] += 1
            receive(member, events, now)

        self.world.pool.receive = seeing  # type: ignore[method-assign]
        send_probe = self.world.pool._send_probe

        def asking(member: Member, now: float) -> None:
            # What comes in the same turn may let the next one leave, and not this one.
            self.asked_after.setdefault(member, []).append(self.messages[member])
            self.last_asked[member] = self.messages[member]
            send_probe(member, now)

        self.world.pool._send_probe = asking  # type: ignore[method-assign]
        sent = self.world.pool.sent

        def leaving(member: Member, *how: Any) -> None:
            sent(member, *how)
            now, took = how[:2]
            if took:
                self.took_at[member] = now
            # Noted at once: it may be given up in the same turn.
            for call in member.calls.values():
                self.call_member[call] = member

        self.world.pool.sent = leaving  # type: ignore[assignment,method-assign]

    def _note(self, *what: object) -> None:
        self._trace.update(repr(what).encode())

    def _broken(self, invariant: str, text: str) -> Broken:
        now = self.world.clock.now
        return Broken(f"seed {self.seed} at {now:.3f} s: [{invariant}] {text}")

    def _note_lines(self) -> None:
        now = self.world.clock.now
        for member, link in self.world.driver.links.items():
            if member not in self.lines:
                line = link.transport.line  # type: ignore[attr-defined]
                self.lines[member] = line
                self.sound_since.setdefault(line, now if self._is_sound(line) else None)
            if link.queued:
                self.blocked_at[member] = now
            if member.calls or member.unsent:
                self.busy_since.setdefault(member, now)
            for call in (*member.calls.values(), *member.unsent):
                self.call_member[call] = member
                if call.sent_at == now:
                    self._check_not_stale(member, call, now)

    def _note_idle(self) -> None:
        for member in list(self.busy_since):
            if not member.calls and not member.unsent:
                del self.busy_since[member]

    def _is_sound(self, line: Line) -> bool:
        server = next(s for s in self.servers if line in s.lines)
        works = not server.stopped and server.reads and server.acks_pings
        owes = line in self.owing or line.server.is_closed
        return line.is_sound and works and not owes

    def _note_soundness(self) -> None:
        now = self.world.clock.now
        for line, since in self.sound_since.items():
            if not self._is_sound(line):
                self.sound_since[line] = None
            elif since is None:
                self.sound_since[line] = now

    def _on_notice(self, at: float, notice: Any) -> None:
        if isinstance(notice, StateChanged):
            member = notice.member
            self._note("state", at, member.number, notice.before, notice.after, notice.cause)
            signal = signal_of(notice.before, notice.after, notice.cause)
            self.transitions[notice.before, signal] += 1
            if notice.after == PROBING:
                self._check_probe(member, at)
            elif notice.after == DEAD:
                if notice.cause in VERDICTS and notice.before != CONNECTING:
                    self._check_verdict(member, notice.cause, at)
                self._forget(member)
        elif isinstance(notice, Deliver):
            self._on_delivered(notice.item, at)
        elif isinstance(notice, Calmed):
            self.calmed_at[notice.origin] = at
            self.counters["calmed"] += 1

    def _forget(self, member: Member) -> None:
        tables: tuple[Any, ...] = (
            self.heard_at,
            self.messages,
            self.probes,
            self.busy_since,
            self.blocked_at,
            self.took_at,
            self.cancel_probes,
            self.asked_after,
            self.last_asked,
        )
        for table in tables:
            table.pop(member, None)

    def _on_delivered(self, call: Any, at: float) -> None:
        if isinstance(call, Ping):
            self._on_pinged(call, at)
            return
        outcome = (call.ended, call.error)
        if not call.over:
            return
        before = self.outcomes.setdefault(call, outcome)
        self._note("over", at, call.number, call.status, repr(call.error))
        if before != outcome:
            raise self._broken("once", f"request {call.number} ended as {before}, then {outcome}")
        if call.ended and call.error is not None:
            raise self._broken("once", f"request {call.number} has a response and {call.error!r}")
        if call.ended and call not in self.world.unread and call.method != b"HEAD":
            self.counters["answered"] += 1

    def _on_pinged(self, ping: Ping, at: float) -> None:
        self._note("ping", at, ping.member.number, ping.rtt_s, repr(ping.error))
        if ping not in self.pings or (ping.rtt_s is None) == (ping.error is None):
            raise self._broken("once", f"a PING of {ping.member} ended as {ping.error!r}")
        self.pings.remove(ping)
        self.counters["asked_acked" if ping.error is None else "asked_failed"] += 1

    # -- what must hold ------------------------------------------------------------------------

    def _check_verdict(self, member: Member, cause: str, now: float) -> None:
        line = self.lines.get(member)
        since = None if line is None else self.sound_since[line]
        if line is None or since is None:
            return
        path: Path = line.up.path
        rate = path.octets_per_s
        there_and_back = 2 * (path.delay_s + path.jitter_s)
        there_and_back += 2 * path.capacity_octets / rate if rate else 0.0
        if now - since > there_and_back + SLACK_S:
            text = f"{member} was closed ({cause}) though sound since {since:.3f} s"
            raise self._broken("sound", text)

    def _check_silence(self) -> None:
        """Whatever the link: who is not heard for this long is gone."""
        now = self.world.clock.now
        for member in self.world.pool.members:
            health = member.health
            if member.ready_at is None:
                continue
            if health.state == DEAD:
                raise self._broken("clean", f"{member} is dead and still a member")
            policy = health.policy
            since = self.heard_at.get(member, member.ready_at)
            if not policy.while_idle:
                if member not in self.busy_since:
                    continue
                since = max(since, self.busy_since[member])
            if self.calmed_at:
                since = max(since, self.calmed_at.get(member.origin, since))
            asked = max(since + 1.15 * policy.ping_after_idle, self.stalled_until)
            patience = policy.ping_timeout
            if self.blocked_at.get(member, -1.0) >= since:
                # The PING may not have left before the socket last took something.
                asked = max(asked, self.took_at.get(member, asked))
                patience = max(patience, policy.write_stall)
            if now > asked + patience + SLACK_S:
                text = f"{member}, {STATE_NAMES[health.state]}, silent since {since:.3f} s"
                raise self._broken("dead", text)

    def _check_probe(self, member: Member, now: float) -> None:
        """Some rule must ask for it: the first, silence, a request on it, or a cancellation."""
        policy = member.health.policy
        first = member not in self.probes
        self.probes[member] += 1
        messages = self.asked_after[member].pop(0)
        # The answer may have come in the same turn.
        heard_at = self.heard_before.get(member, self.heard_at.get(member, now))
        silence = now - heard_at
        if first and policy.while_idle:
            return
        wanted = silence > min(policy.stale_after, policy.ping_after_idle) - EPSILON_S
        # Without streams it is not asked; one may have come and gone in this very turn.
        used = member in self.busy_since or member in self.heard_before
        if wanted or (first and used):
            return
        cancelled = any(
            self.call_member.get(notice.item) is member and notice.item.error is not None
            for at, notice in self.world.log
            if isinstance(notice, Deliver) and at == now and isinstance(notice.item, Call)
        )
        allowed = self.cancel_probes.get(member) != messages
        if cancelled and allowed and member.origin not in self.calmed_at:
            self.cancel_probes[member] = messages
            return
        raise self._broken("pings", f"{member} was asked after {silence:.3f} s, for no reason")

    def _check_not_stale(self, member: Member, call: Call, now: float) -> None:
        policy = member.health.policy
        silence = now - self.heard_before.get(member, self.heard_at.get(member, now))
        heard_now = self.heard_at.get(member) == now
        # A full socket may have held it back since; that it takes octets again is news of the peer.
        blocked = self.blocked_at.get(member, -1.0) > now - silence
        if not policy.hold_when_stale or heard_now or blocked:
            return
        # Who complained of PINGs is not asked a second time before HEADERS or DATA come.
        if not policy.when_unanswered and self.last_asked.get(member) == self.messages[member]:
            return
        if silence > policy.stale_after + SLACK_S:
            text = f"request {call.number} left on {member}, silent for {silence:.3f} s"
            raise self._broken("stale", text)

    def _check_bounds(self) -> None:
        pool = self.world.pool
        left = [order for order in pool.orders if not isinstance(order, Send)]
        if left:  # the program's own reading makes for more to send, and for nothing else
            raise self._broken("bounded", f"orders are left: {left}")
        for site in pool._sites.values():
            if len(site.queue) > QUEUED_MAX + 3 * 100:  # those that moved back are not refused
                raise self._broken("bounded", f"{len(site.queue)} requests wait")
            for member in site.members:
                connection: Any = member.connection
                if len(connection._pings) > PINGS_IN_FLIGHT_MAX:
                    raise self._broken("bounded", f"{len(connection._pings)} PINGs in flight")
                if member.late_probe and member.probe == member.late_probe:
                    raise self._broken("bounded", "a probe is late and out")
                limit = connection.peer_settings[SettingId.MAX_CONCURRENT_STREAMS]
                if member.held > max(limit, 100):
                    raise self._broken("bounded", f"{member.held} slots are held of {limit}")
                unread = sum(
                    sum(map(len, call.chunks))
                    for call in self.world.unread
                    if call.member is member
                )
                if connection._unread != unread:
                    text = f"{connection._unread} octets without credit, {unread} unread"
                    raise self._broken("clean", text)
                if len(member.calls) != len(connection.streams):
                    text = f"{len(member.calls)} calls, {len(connection.streams)} streams"
                    raise self._broken("clean", text)

    def _check_clean(self) -> None:
        pool, driver = self.world.pool, self.world.driver
        members = pool.members
        for item in pool.timers._entries:
            kind = type(item).__name__
            gone = {
                "Member": lambda item: item not in members,
                "Call": lambda item: item.over,
                "Site": lambda item: item is not pool._sites.get(item.origin),
            }[kind](item)
            if gone:
                raise self._broken("clean", f"a {kind} that is gone has a timer")
        for site in pool._sites.values():
            left = [call.number for call in (*site.calls, *site.queue) if call.over]
            if left:
                raise self._broken("clean", f"requests {left} are over and still known")
            if any(call not in site.calls for call in site.queue):
                raise self._broken("clean", "a request waits and is not known")
        for member, link in driver.links.items():
            if link.ended or (member not in members and not link._finishing):
                raise self._broken("clean", f"the link of {member} is left")
        if any(member not in members for member in driver._dials):
            raise self._broken("clean", "a dial is left")
        if len(driver._members) != len(driver.links) + len(driver._dials):
            raise self._broken("clean", "the driver's tables disagree")

    def _check_ended(self) -> None:
        """Every request has ended, and the servers saw what they may have seen."""
        if self.pings:
            raise self._broken("once", f"{len(self.pings)} PINGs never ended")
        for call in self.calls:
            if not call.over:
                raise self._broken("once", f"request {call.number} never ended")
            if self.outcomes.get(call) != (call.ended, call.error):
                raise self._broken("once", f"nobody was told how request {call.number} ended")
        seen: dict[str, list[Seen]] = {}
        for server in self.servers:
            for one in server.seen:
                if not one.refused:
                    seen.setdefault(one.tag, []).append(one)
        for tag, times in seen.items():
            if len(times) > 1 and times[0].method not in SAFE:
                raise self._broken(
                    "repeated", f"{times[0].method} {tag} was seen {len(times)} times"
                )
        self.counters["requests_seen"] += sum(map(len, seen.values()))

    def _check_closed(self) -> None:
        """After `close` nothing is left: no timer, no watched descriptor, no open link."""
        world = self.world
        self._check_clean()
        world.pool.close(world.clock.now)
        self._run_until(world.clock.now + 1.0)
        left = {
            "timers of the pool": len(world.pool.timers),
            "timers of the loop": len(world.loop._timers),
            "descriptors": len(world.loop._masks),
            "links and dials": len(world.driver._members),
            "members": len(world.pool.members),
            "open ends": sum(not line.client.is_closed for s in self.servers for line in s.lines),
        }
        if any(left.values()):
            raise self._broken("clean", f"after close: {left}")


FAULTS: dict[str, Callable[[Simulation, VirtualServer, float], bool]] = {
    name: getattr(Simulation, name)
    for name in (
        "freeze",
        "blackhole",
        "blackhole_up",
        "blackhole_down",
        "sigstop",
        "stop_reading",
        "deaf_but_talking",
        "ignore_pings",
        "reset",
        "half_open",
        "eof",
        "restart",
        "unreachable",
        "mute_greeting",
        "goaway",
        "goaway_rude",
        "protocol_error",
        "new_settings",
        "stray_ack",
        "half_frame",
        "refuse",
        "misdirect",
        "cut_streams",
        "hold_answers",
        "slow_answers",
        "client_stopped",
        "suspended",
    )
}


def live(seed: int, seconds: float = 3600.0) -> Report:
    """One seed's life; raises Broken."""
    report = Simulation(seed, seconds).run()
    if seed % SAME_EVERY == 0:
        again = Simulation(seed, seconds).run()
        if again.trace != report.trace:
            raise Broken(f"seed {seed}: [same] {report.trace}, then {again.trace}")
    return report


class Total:
    """Sums over seeds."""

    def __init__(self) -> None:
        self.seeds = 0
        self.seconds = 0.0
        self.faults: Counter[str] = Counter()
        self.transitions: Counter[tuple[int, int]] = Counter()
        self.counters: Counter[str] = Counter()

    def add(self, report: Report) -> None:
        self.seeds += 1
        self.seconds += report.seconds
        self.faults += report.faults
        self.transitions += report.transitions
        self.counters += report.counters

    @property
    def missing(self) -> list[str]:
        """Rows of the state table that were never taken."""
        return [_row(*row) for row in TRANSITIONS if not self.transitions[row]]

    def text(self) -> str:
        lines = [f"{self.seeds} seeds, {self.seconds / 3600:.1f} simulated hours", "faults:"]
        lines += [f"  {name:<18}{self.faults[name]:>9}" for name in sorted(FAULTS)]
        lines.append("state table:")
        lines += [f"  {_row(*row):<58}{self.transitions[row]:>9}" for row in TRANSITIONS]
        lines.append("counters:")
        lines += [f"  {name:<18}{self.counters[name]:>9}" for name in sorted(self.counters)]
        return "\n".join(lines)


def _row(state: int, signal: int) -> str:
    return f"{STATE_NAMES[state]}: {SIGNAL_NAMES[signal]}"


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, want a whole number, 1 or more")
    return int(text)


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours <= HOURS_MAX:
        raise argparse.ArgumentTypeError(f"{text!r}, want hours above 0, at most {HOURS_MAX}")
    return hours


def _try(task: tuple[int, float]) -> Report | str:
    try:
        return live(*task)
    except Broken as error:
        return str(error)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seeds", type=_count, default=100, help="how many (default 100)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--hours", type=_hours, default=1.0, help="simulated, a seed (default 1)")
    parser.add_argument(
        "--jobs", type=_count, default=multiprocessing.cpu_count(), help="processes (default: CPUs)"
    )
    given = parser.parse_args()
    total, broken = Total(), 0
    began = time.monotonic()
    tasks = [(seed, given.hours * 3600) for seed in range(given.first, given.first + given.seeds)]
    with multiprocessing.Pool(given.jobs) as workers:
        for done in workers.imap(_try, tasks, chunksize=1):
            if isinstance(done, str):
                broken += 1
                print(done, flush=True)
            else:
                total.add(done)
    print(total.text())
    print(f"{time.monotonic() - began:.0f} s on {given.jobs} processes, {broken} seeds broken")
    if total.missing and not broken:
        print("never taken: " + "; ".join(total.missing))
    return 1 if broken or total.missing else 0


if __name__ == "__main__":
    sys.exit(main())
