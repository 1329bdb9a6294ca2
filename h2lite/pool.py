"""The pool's decisions: which connection serves, whom to ask, replace and give up, what to repeat.

Pure: what was seen and the instant come in, orders go out by `take_orders`; `drive.py` carries
them out.  It holds the sans-IO connections and their health, and no socket, clock or thread.
`spec-notes/health.md` explains the rules.  Grounds: RFC 9113 §5.1.2, §6.7, §6.8, §8.7, §9.1.
"""

from __future__ import annotations

import math

from . import events as ev
from .call import Call
from .connection import Connection, check_request
from .errors import (
    ConnectionLost,
    ConnectTimeout,
    ErrorCode,
    H2liteError,
    PingTimeout,
    PoolTimeout,
    ReadTimeout,
    RemoteProtocolError,
    RequestCancelled,
    StreamReset,
    TLSError,
    UsageError,
    WriteTimeout,
    error_name,
)
from .health import ABORT, DEAD, HOLD, LIVE, PING, PROBING, REROUTE, Health, HealthPolicy
from .limits import DEFAULT_LIMITS, Limits
from .member import Member, Ping, Site
from .memo import NO_MEMO, Memo
from .orders import (
    Abort,
    Calmed,
    Deliver,
    Dial,
    Finish,
    Moved,
    Retried,
    Rewind,
    Send,
    StateChanged,
)
from .retry import (
    GOOD_LIFE_S,
    IDEMPOTENT_METHODS,
    RETRIES_MAX,
    RETRY_DELAYS_S,
    RETRY_SPREAD,
    SAFE_METHODS,
    Backoff,
)
from .timers import Timers
from .value import NO_ENTRIES, NOTHING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from .events import Event, Fields
    from .frames import GoAwayFrame, Octets
    from .origin import Origin
    from .stream import Stream
    from .value import Value

PINGS_ASKED_MAX = 8  # of a user, unanswered on one connection: more say nothing new
QUEUED_MAX = 1000  # requests of one origin that wait: more are told at once
IDLE_CLOSE_S = 90.0  # unused for this long, a connection is closed
ORIGINS_REMEMBERED_MAX = 1000  # past this, those without a connection or a request are forgotten
HTTP1_CONNECTIONS_MAX = 32  # to one origin: without multiplexing each request needs one
CALMED_MAX = 1000  # origins that complained of PINGs; the oldest are forgotten
PINGS_TOO_MANY = 3  # gRPC's servers bear two that come too soon, and say so at the third

COUNTERS = (
    "requests",
    "dials",
    "dials_failed",
    "moves",
    "retries",
    "pings_sent",
    "pings_acked",
    "late_acks",
    "unknown_acks",
    "rescues",
    "suspects",
    "false_suspects",
)


class Pool:
    """Connections to any number of origins.

    policy                        `HealthPolicy` of every connection
    uniform                       a number in [0, 1), another each time
    connections_per_origin_max    that take requests at once
    queued_max                    requests of one origin that may wait for a connection
    idle_close                    seconds unused before a connection is closed, 0: never
    settings                      {SettingId: value} to announce beside the defaults
    limits                        `Limits`: how much is borne of a peer
    diagnose                      asked at a verdict: path_dead, peer_hung or unknown
    stage                         asked when a dial took too long: what it was busy with, "" once
                                  the transport stood
    tells_probes                  False: nobody is told that a probe was sent or answered

    orders                        those that `take_orders` would give
    timers                        what waits to be judged by `handle_deadline`
    """

    def __init__(
        self,
        policy: HealthPolicy,
        uniform: Callable[[], float],
        *,
        connections_per_origin_max: int = 1,
        queued_max: int = QUEUED_MAX,
        idle_close: float = IDLE_CLOSE_S,
        settings: dict[int, int] | None = None,
        limits: Limits = DEFAULT_LIMITS,
        diagnose: Callable[[Member], str] = lambda member: "unknown",
        stage: Callable[[Member], str] = lambda member: "",
        tells_probes: bool = True,
    ) -> None:
        if connections_per_origin_max < 1 or queued_max < 0 or not idle_close >= 0:
            raise UsageError(
                f"connections_per_origin_max {connections_per_origin_max!r}, queued_max"
                f" {queued_max!r}, idle_close {idle_close!r}: want at least 1, 0 and 0"
            )
        self.policy = policy
        self.diagnose = diagnose
        self.stage = stage
        self._tells_probes = tells_probes
        self.closed = False
        self.deaths: dict[str, int] = {}  # by cause, of connections that had been up
        self.counters = dict.fromkeys(COUNTERS, 0)
        self._uniform = uniform
        self._members_max = connections_per_origin_max
        self._queued_max = queued_max
        self._idle_close = idle_close
        self._settings = settings
        self._limits = limits
        self._sites: dict[Origin, Site] = {}
        self._sites_max = ORIGINS_REMEMBERED_MAX
        self._calmed: dict[Origin, None] = {}
        self.timers = Timers()
        self.orders: list[Value] = []
        self._dial_count = 0
        self._call_count = 0

    # -- for the program -------------------------------------------------------------------

    @property
    def members(self) -> list[Member]:
        """Every connection, those still being dialled included."""
        return [member for site in self._sites.values() for member in site.members]

    def knows(self, origin: Origin) -> bool:
        """There is, or was not long ago, a connection or a request to it."""
        return origin in self._sites

    def asked(self, origin: Origin) -> Memo:
        """What the program has asked an origin, for it to remember; empty without a connection."""
        site = self._sites.get(origin)
        if site is None or not site.members:
            return Memo()
        if site.asked is NO_MEMO:
            site.asked = Memo()
        return site.asked  # or NO_MEMO again, where another thread has lost the connection

    def request(self, call: Call, now: float) -> None:
        """Send a request as soon as a connection can take it.

        What becomes of it is told by `Deliver`, that too many wait already included.  Raises
        LocalProtocolError for fields that may not be sent, UsageError on a closed pool, for a
        deadline that is no number, for a call that was requested before, and for one pinned to
        a connection of another origin.
        """
        if self.closed:
            raise UsageError("the pool is closed")
        if call.number:
            raise UsageError("a call is requested once: make another")
        if call.deadline is not None and not math.isfinite(call.deadline):
            raise UsageError(f"deadline of {call.deadline!r}, want seconds or None")
        if call.pinned is not None and call.pinned.origin != call.origin:
            raise UsageError(f"{call.pinned} does not serve {call.origin}")
        check_request(call.section)
        site = call.site = self._site(call.origin, now)
        site.bucket.earn()
        self.counters["requests"] += 1
        self._call_count += 1
        call.number = self._call_count
        site.calls[call] = None
        is_late = call.deadline is not None and now >= call.deadline
        member = None if site.queue or is_late else self._choose(site, call, now)
        if member is not None:
            self._open(call, member, now)
            return
        if call.over:  # the connection it was pinned to serves nobody any more
            return
        self._enqueue(site, call, now)
        if is_late:
            self._fail(call, self._late_error(call, site))
        self._dispatch(site, now)
        if len(site.queue) > self._queued_max and site.queue[-1] is call:
            text = f"{self._queued_max} requests wait for {site.origin} already"
            self._fail(call, PoolTimeout(text))
            self._note_queue(site, now)

    def cancel(self, call: Call, now: float, error: H2liteError | None = None) -> None:
        """Give a request up, or the rest of its response.

        error   what it ends with, None: RequestCancelled
        """
        if call.over:
            self._drop_chunks(call)
            self._dispatch_read(call.site, now)
            return
        member, stream, sent_at = call.member, call.stream, call.sent_at
        self._drop_chunks(call)
        self._fail(call, error or RequestCancelled("the request was cancelled"))
        if member is not None and stream is not None:
            if sent_at is not None:
                self._reset(member, stream, sent_at, now)
            else:
                member.unsent.remove(call)
                member.connection.reset_stream(stream)
            self._settle(member, now)
        self._dispatch(call.site, now)

    def send_content(
        self, call: Call, piece: Octets, now: float, end_stream: bool = False
    ) -> None:
        """Give a request more of its content; it is kept until it has left.

        Raises UsageError when its end was given before, and what `Connection.send_data` raises.
        Does nothing, but for that, for a request that is over.
        """
        self._check_gives(call)
        if call.over:
            return
        if call.stream is not None:
            call.member.connection.send_data(call.stream, piece, end_stream)
            self._progressed(call, now)
            self.orders.append(call.member.send)
        elif piece:
            call.pieces.append(piece)
        call.given = True
        call.content_ended = end_stream

    def send_trailers(self, call: Call, fields: Fields, now: float) -> None:
        """End a request's content in pieces with a trailer section.  Errors as `send_content`."""
        self._check_gives(call)
        if call.over:
            return
        if call.stream is not None:
            call.member.connection.send_trailers(call.stream, fields)
            self._progressed(call, now)
            self.orders.append(call.member.send)
        call.trailers = fields
        call.content_ended = True

    def _check_gives(self, call: Call) -> None:
        if call.content_ended:
            raise UsageError("the request's content has ended")

    def take_chunk(self, call: Call, now: float) -> bytes | None:
        """The next octets of a response's content, and credit to send as much again.

        None: nothing has come, or nothing more comes.
        """
        if not call.chunks:
            return None
        chunk = call.chunks.take()
        self._give_credit(call, len(chunk))
        if not call.chunks:
            self._progressed(call, now)
        self._dispatch_read(call.site, now)
        return chunk

    def _dispatch_read(self, site: Site, now: float) -> None:
        """HTTP/1.1: a connection whose response has been read, or dropped, has room again."""
        if site.is_http1 and site.queue:
            self._dispatch(site, now)

    def _progressed(self, call: Call, now: float) -> None:
        """A step of a request begins anew, so what limits it does."""
        call.progress_at = now
        if call.armed is None or now + call.step_s < call.armed:
            self._arm_call(call)

    def _arm_call(self, call: Call) -> None:
        """See that the timers know of the call's deadline; a later one costs nothing."""
        due = None if call.over else call.next_deadline()
        if due is not None and (call.armed is None or due < call.armed):
            call.armed = due
            self.timers.set(call, due)

    def _give_credit(self, call: Call, octets: int) -> None:
        """The peer may send as much again, where it is still there."""
        member = call.member
        if member is not None and call.stream is not None and member.health.state != DEAD:
            connection = member.connection
            paused = connection.reading_paused  # asked before: the link must hear that it is over
            connection.data_consumed(call.stream.stream_id, octets)
            if connection.has_output or paused:
                self.orders.append(member.send)

    def reach(self, origin: Origin, now: float) -> Member:
        """A connection that takes requests to an origin; one is dialled where there is none.

        StateChanged tells when it is up, or why not.  No back-off keeps from such a dial.
        Raises UsageError on a closed pool.
        """
        if self.closed:
            raise UsageError("the pool is closed")
        site = self._site(origin, now)
        for member in site.members:
            if member.takes_requests:
                return member
        return self._dial(site, now)

    def close_member(self, member: Member, now: float) -> None:
        """Close one connection by a GOAWAY; its requests end or move as after any loss."""
        if member.health.state != DEAD:
            self._close_member(member, now, "closed here")

    def ping(self, member: Member, now: float, timeout_s: float) -> Ping:
        """Send a PING of one's own on a connection; `Deliver` tells when it is over.

        timeout_s   seconds to wait for its ack, above 0
        Raises UsageError when the connection is not up, PINGS_ASKED_MAX wait on it, or for a
        timeout that is none.
        """
        if not 0 < timeout_s < math.inf:
            raise UsageError(f"timeout of {timeout_s!r}, want seconds above 0")
        if member.health.state == DEAD:
            raise UsageError(f"{member} has ended")
        if member.ready_at is None:
            raise UsageError(f"{member} is not up yet")
        if member.site.is_http1:
            raise UsageError(f"{member} speaks HTTP/1.1, which has no PING")
        if len(member.pings) >= PINGS_ASKED_MAX:
            raise UsageError(f"{PINGS_ASKED_MAX} PINGs are in flight on {member} already")
        ping = Ping(member, timeout_s, now)
        ping.opaque_data = member.next_opaque()
        self._send_ping(member, ping.opaque_data, now)
        if not member.pings:
            member.pings = {}
        member.pings[ping.opaque_data] = ping
        self._arm_at(member, ping.deadline)
        return ping

    def ping_all(self, now: float, timeout_s: float) -> list[Ping]:
        """A PING on every connection, as `ping`; where that cannot be, its error says so."""
        pings = []
        for member in self.members:
            try:
                pings.append(self.ping(member, now, timeout_s))
            except UsageError as error:
                ping = Ping(member, timeout_s, now)
                ping.fail(error)
                pings.append(ping)
        return pings

    def forget_origin(self, origin: Origin) -> None:
        """What an origin has said of PINGs is forgotten."""
        self._calmed.pop(origin, None)
        site = self._sites.get(origin)
        if site is not None:
            self._set_policy(site, self.policy)

    def close(self, now: float) -> None:
        """End everything: requests with an error, connections with a GOAWAY."""
        self.closed = True
        for site in self._sites.values():
            for call in list(site.calls):
                self._fail(call, ConnectionLost("the pool was closed", cause="local"))
            for member in list(site.members):
                self._close_member(member, now, "the pool was closed")
            self.timers.set(site, None)

    def stats(self) -> dict[str, Any]:
        """Counters since the pool began, ready for JSON."""
        counters = dict(self.counters)
        for member in self.members:
            self._add_health(counters, member.health)
        return {
            **counters,
            "deaths": dict(self.deaths),
            "connections": len(self.members),
            # What they said of PINGs makes a death on them take longer to find.
            "calmed_origins": {str(o): self.policy.calmed().found_within_s for o in self._calmed},
        }

    # -- for the loop ----------------------------------------------------------------------

    def take_orders(self) -> list[Value]:
        """What is to be done and what is to be told, in order; each is given once."""
        orders, self.orders = self.orders, []
        return orders

    def next_deadline(self) -> float | None:
        """When `handle_deadline` has something to do."""
        return self.timers.next_deadline()

    def handle_deadline(self, now: float) -> None:
        """Judge what should have come by `now`; all that had come by then was `receive`d."""
        while True:
            item = self.timers.pop_due(now)
            if item is None:
                return
            _ON_DEADLINE[type(item)](self, item, now)

    def dial_failed(self, member: Member, error: H2liteError, now: float) -> None:
        """The member's origin was not reached."""
        if member.health.state != DEAD:
            self._remove(member, now, "unknown", error)

    def reached(
        self, member: Member, protocol: str, address: str, tls_version: str | None, now: float
    ) -> None:
        """The member's transport stands: what is spoken on it, with whom and by which TLS.

        protocol   "h2", "h2c" or "http/1.1"
        """
        member.protocol = protocol
        member.address = address
        member.tls_version = tls_version
        if protocol != "http/1.1":
            return
        from .http1 import Http1Connection  # needs an extra, and few have a use for it

        member.site.is_http1 = True
        member.connection = Http1Connection(self._limits)
        member.health.set_policy(member.health.policy.without_pings())
        self._is_up(member, now)
        self._settle(member, now)
        self._dispatch(member.site, now)

    def receive(self, member: Member, events: Sequence[Event], now: float) -> None:
        """What came of one read, at least one event; a connection that has ended is ignored."""
        if member.health.state == DEAD:
            return
        if type(events[0]) not in (ev.ConnectionEnded, ev.ConnectionFailed):
            self._heard(member, events, now)
        for event in events:
            handler = _ON_EVENT.get(type(event))
            if handler is not None and member.health.state != DEAD:
                handler(self, member, event, now)
        if member.health.state != DEAD:
            if member.connection.has_output:
                self.orders.append(member.send)
            health = member.health
            # Else no stream is open and none has ended: an idle connection's PING, or its ack.
            if health.busy or member.calls or member.unsent or member.draining or health.sooner:
                self._settle(member, now)
        site = member.site
        if site.queue or site.waited_for:
            self._dispatch(site, now)

    def sent(self, member: Member, now: float, took: bool, queued: bool, committed: bool) -> None:
        """A send was tried; `now`: as the connection's `data_to_send` was told.

        took        the transport took octets
        queued      framed octets are left that it refused
        committed   octets wait inside the transport, as TLS makes them
        """
        health, connection = member.health, member.connection
        if health.state == DEAD:
            return
        health.wrote(now, took, queued)
        if member.probe:
            sent_at = connection.ping_sent_at(member.probe)
            # What TLS has encrypted leaves before anything newer is taken.
            if sent_at is not None and (not committed or (took and sent_at < now)):
                health.probe_left(now)
        while (call := member.take_sent()) is not None:
            assert call.stream is not None
            call.sent_at = now
            self._progressed(call, now)
        if connection.message_sent:
            connection.message_sent = False
            health.sent(now)
            self._settle(member, now)
        elif member.unsent:  # which may be more than there are stream identifiers left
            self._settle(member, now)
        elif health.sooner:
            self._arm(member)

    # -- requests --------------------------------------------------------------------------

    def _enqueue(self, site: Site, call: Call, now: float) -> None:
        """Wait for a connection, in the order in which requests were made."""
        call.leave()
        call.retry_at = None
        call.renewed = False
        call.connect_due = now + self._patience(call)
        if call.limits.pool is not None:
            call.room_due = now + call.limits.pool
        queue = site.queue
        place = len(queue)
        while place and queue[place - 1].number > call.number:
            place -= 1
        queue.insert(place, call)
        self._arm_call(call)

    def _patience(self, call: Call) -> float:
        """Seconds a request waits for a connection to be up."""
        own = call.limits.connect
        return float(call.site.policy.connect_timeout if own is None else own)

    def _dispatch(self, site: Site, now: float) -> None:
        """Give waiting requests to connections, as far as there are any; dial where needed."""
        index = 0
        blocked = False
        while index < len(site.queue):
            call = site.queue[index]
            # Behind one that must wait, only those that cannot take its place may pass: they go
            # elsewhere after a 421, or to one certain connection.
            apart = call.avoid is not None or call.pinned is not None
            member = None if blocked and not apart else self._choose(site, call, now)
            if call.over:  # the connection it was pinned to serves nobody any more
                continue
            if member is None:
                blocked = blocked or not apart
                index += 1
            else:
                del site.queue[index]
                self._open(call, member, now)
        if site.is_http1:
            self._dial_more(site, now)
        self._note_queue(site, now)

    def _dial_more(self, site: Site, now: float) -> None:
        """HTTP/1.1: each request that waits needs a connection of its own."""
        waiting = sum(1 for call in site.queue if call.pinned is None)
        dialling = sum(1 for member in site.members if not member.is_up)
        while dialling < waiting and len(site.members) < HTTP1_CONNECTIONS_MAX:
            if now < site.backoff.due:
                self.timers.set(site, site.backoff.due)
                return
            self._dial(site, now)
            dialling += 1

    def _note_queue(self, site: Site, now: float) -> None:
        """Whether requests wait for them is what keeps connections watched, and open."""
        if site.waited_for != bool(site.queue):
            site.waited_for = bool(site.queue)
            for member in site.members:
                self._note_use(member, now)
                self._arm(member)

    def _choose(self, site: Site, call: Call, now: float) -> Member | None:
        """The connection for a request; None: it must wait, and what it waits for is begun."""
        stale = None
        serving = 0
        dialling = False
        # The oldest with room: one that was dialled in its place goes unused then, and is closed.
        for member in site.members:
            if not member.takes_requests or not call.may_use(member):
                continue
            serving += 1
            if not member.is_up:
                dialling = True
            elif member.room > 0:
                if member.health.admits(now) != HOLD:
                    return member
                if stale is None:
                    stale = member
        if stale is not None:
            self._carry_out(stale, stale.health.wanted(now), now)
        elif call.pinned is not None:
            self._check_pinned(call)
        elif not dialling and serving < self._members_max:
            if now < site.backoff.due:
                self.timers.set(site, site.backoff.due)
            else:
                self._dial(site, now)
        return None

    def _check_pinned(self, call: Call) -> None:
        """A request for one connection ends where that takes no more; one in doubt may recover."""
        member = call.pinned
        if member.error is not None:
            self._fail(call, member.error.again())
        elif member.draining or not member.connection.takes_requests:
            goaway = member.connection.goaway_received
            if goaway is None:
                used_up = ConnectionLost(f"{member} takes no more requests", cause="local")
                self._fail(call, used_up)
            else:
                self._fail(call, _goaway_error(member, goaway))

    def _open(self, call: Call, member: Member, now: float) -> None:
        """Give a request to a connection; its stream's identifier is taken when it leaves."""
        connection = member.connection
        # A stale connection is asked even where the request does not wait for the answer.
        self._carry_out(member, member.health.wanted(now), now)
        pieces = [call.content] if call.content else [*call.pieces]
        ends = call.content_ended and call.trailers is None
        stream = None
        try:
            stream = connection.send_request(call.section, end_stream=ends and not pieces)
            for index, piece in enumerate(pieces, 1):
                connection.send_data(stream, piece, ends and index == len(pieces))
            if call.trailers is not None:
                connection.send_trailers(stream, call.trailers)
        except UsageError as error:
            if stream is not None:
                connection.reset_stream(stream)
            self._fail(call, error)
            return
        call.pieces.clear()
        call.member, call.stream = member, stream
        call.connect_due = call.room_due = None
        self._arm_call(call)
        member.give(call)
        self._note_use(member, now)
        self.orders.append(member.send)
        if call.content is None:
            self.orders.append(Deliver(call))  # it wants content

    def _withdraw(self, member: Member, now: float) -> None:
        """Take back what has not left; it goes elsewhere, whatever its method."""
        unsent, member.unsent = member.unsent, NOTHING
        for call in unsent:
            if call.over:
                continue
            stream = call.stream
            assert stream is not None
            if call.content is None:
                call.pieces.extend(stream.outgoing)
            member.connection.reset_stream(stream)
            self.counters["moves"] += 1
            self.orders.append(Moved(call, member))
            self._enqueue(member.site, call, now)
        self._note_use(member, now)

    def _repeat_or_fail(
        self, call: Call, now: float, error: H2liteError, free: bool = False
    ) -> None:
        """Try a request that has left again, or end it with `error`."""
        delay = self._delay_of_repeat(call, now, free)
        if delay is None:
            self._fail(call, error)
        else:
            self._repeat(call, now, delay, error)

    def _delay_of_repeat(self, call: Call, now: float, free: bool = False) -> float | None:
        """Take what a repetition costs; None: there is none.  free: it costs no token."""
        if call.retries >= min(call.retries_max, RETRIES_MAX) or not call.replayable:
            return None
        if call.pinned is not None and not call.pinned.takes_requests:
            return None
        delay = RETRY_DELAYS_S[call.retries] * (1 + RETRY_SPREAD * self._uniform())
        if call.deadline is not None and now + delay >= call.deadline:
            return None
        site = call.site
        return delay if free or site.bucket.take(now) else None

    def _repeat(self, call: Call, now: float, delay: float, error: H2liteError) -> None:
        call.retries += 1
        self.counters["retries"] += 1
        call.forget_response()
        call.leave()
        if call.content is None and call.given:
            call.pieces.clear()
            call.trailers = None
            call.given = call.content_ended = False
            self.orders.append(Rewind(call))
        self.orders.append(Retried(call, delay, error))
        if delay:
            call.retry_at = now + delay
            self._arm_call(call)
        else:
            self._enqueue(call.site, call, now)

    def _fail(self, call: Call, error: H2liteError) -> None:
        """End a call with an error; its caller sees to the stream, where that is still open."""
        error.maybe_processed = call.maybe_processed or call.sent_at is not None
        if error.connection is None:
            error.connection = call.member
        call.error = error
        self._close_call(call)
        # What came can still be read; the connection need not wait for that.
        self._give_credit(call, sum(map(len, call.chunks)))
        call.leave()

    def _close_call(self, call: Call) -> None:
        """A call is over, whatever of it is still on its stream."""
        site = call.site
        site.calls.pop(call, None)
        if call.member is None and call in site.queue:
            site.queue.remove(call)
        call.retry_at = call.connect_due = call.room_due = None
        call.pieces.clear()
        if call.armed is not None:
            call.armed = None
            self.timers.set(call, None)
        self.orders.append(Deliver(call))

    def _reset(self, member: Member, stream: Stream, sent_at: float, now: float) -> None:
        """Reset the stream of a request that its caller gives up."""
        del member.calls[stream.stream_id]
        answered = member.health.heard_at > sent_at
        orders, keeps_slot = member.health.cancelled(now, answered)
        member.held += keeps_slot
        member.connection.reset_stream(stream, ErrorCode.CANCEL)
        self._carry_out(member, orders, now)
        self.orders.append(member.send)

    def _drop_chunks(self, call: Call) -> None:
        self._give_credit(call, sum(map(len, call.chunks)))
        call.chunks.clear()

    def _on_call_deadline(self, call: Call, now: float) -> None:
        call.armed = None
        site = call.site
        if _is_past(call.deadline, now):
            self.cancel(call, now, self._late_error(call, site))
        elif _is_past(call.retry_at, now):
            self._enqueue(site, call, now)
            self._dispatch(site, now)
        elif _is_past(call.step_due, now):
            self.cancel(call, now, self._late_error(call, site))
        elif _is_past(call.room_due, now) and site.serves(call):
            self._fail(call, self._late_error(call, site))
            self._note_queue(site, now)
        elif _is_past(call.connect_due, now):
            self._judge_connect(call, site, now)
        elif _is_past(call.room_due, now):  # it waits for a dial, which has a limit of its own
            call.room_due = now + (call.limits.pool or 0.0)
        if not call.over:
            self._arm_call(call)

    def _judge_connect(self, call: Call, site: Site, now: float) -> None:
        """A request has waited long for a connection to be up."""
        patience = self._patience(call)
        if site.serves(call):  # it waits for room, not for a dial
            call.connect_due = now + patience
        elif not call.renewed and site.policy.is_late(now - (call.connect_due or now)):
            # We stood still ourselves; the dial was given more time for it, too.
            call.renewed = True
            call.connect_due = now + patience
        else:
            self._fail(call, self._unreached(site, f"within {patience:g} s"))
            self._note_queue(site, now)

    def _late_error(self, call: Call, site: Site) -> H2liteError:
        if call.sent_at is not None:
            if call.stream is not None and call.stream.queued_octets and not call.begun:
                return WriteTimeout(f"{call.member} did not take the request's content in time")
            return ReadTimeout(f"{call.member} did not finish the response in time")
        if site.serves(call):
            return PoolTimeout(f"no connection to {site.origin} took the request in time")
        return self._unreached(site, "in time")

    def _unreached(self, site: Site, within: str) -> ConnectTimeout:
        """What a request that waited for a dial hears: what that does, or why the last failed."""
        dialling = next((member for member in site.members if not member.is_up), None)
        if dialling is not None:
            return ConnectTimeout(self._slow_dial(dialling, within))
        last = site.last_error
        why = "" if last is None else f": {last}"
        error = ConnectTimeout(f"{site.origin} not reached {within}{why}")
        error.__cause__ = None if last is None else last.again()
        return error

    def _slow_dial(self, member: Member, within: str) -> str:
        stage = self.stage(member)
        if stage:
            return f"{member.origin} not reached {within}, {stage}"
        return f"{member} sent no HTTP/2 SETTINGS {within}"

    # -- connections -----------------------------------------------------------------------
    #
    # _retire         it takes no more requests, and lives on
    # _condemn        Health's verdict: it is dead
    # _close_member   we close it
    # _remove         the common end of all: nothing of it stays behind
    # _note_loss      what an end means for the next dial and for who waits for one

    def _site(self, origin: Origin, now: float) -> Site:
        site = self._sites.get(origin)
        if site is None:
            self._forget_sites()
            policy = self.policy.calmed() if origin in self._calmed else self.policy
            backoff = Backoff(self._uniform if policy.jitter else None)
            site = self._sites[origin] = Site(origin, policy, backoff, now)
        return site

    def _forget_sites(self) -> None:
        if len(self._sites) < self._sites_max:
            return
        for origin, site in [*self._sites.items()]:
            if not site.members and not site.calls:
                self.timers.set(site, None)
                del self._sites[origin]
        # Those in use stay, however many: look again only when there are twice as many.
        self._sites_max = max(ORIGINS_REMEMBERED_MAX, 2 * len(self._sites))

    def _dial(self, site: Site, now: float) -> Member:
        """Begin a dial."""
        self._dial_count += 1
        self.counters["dials"] += 1
        member = Member(
            site,
            self._dial_count,
            Connection(client=True, settings=self._settings, limits=self._limits),
            Health(site.policy, now, self._uniform),
            int(self._uniform() * 2**32),
        )
        member.send = Send(member)
        site.members.append(member)
        self._arm(member)
        self.orders.append(Dial(member))
        return member

    def _on_site_deadline(self, site: Site, now: float) -> None:
        """Back-off is over: dial, if a request still waits for it."""
        self._dispatch(site, now)

    def _on_member_deadline(self, member: Member, now: float) -> None:
        member.armed = None
        for ping in [ping for ping in member.pings.values() if now >= ping.deadline]:
            self._ping_is_late(ping)
        self._carry_out(member, member.health.handle_deadline(now), now)
        if member.health.state == DEAD:
            return
        idle = self._idle_deadline(member)
        if idle is not None and now >= idle:
            self._close_member(member, now, f"unused for {self._idle_close:g} s")
        else:
            self._arm(member)

    def _idle_deadline(self, member: Member) -> float | None:
        if member.unused_since is None or not self._idle_close:
            return None
        return member.unused_since + self._idle_close

    def _arm(self, member: Member) -> None:
        """See that the timers know of all the member's deadlines; a later one costs nothing."""
        health = member.health
        if not health.sooner and member.armed is not None:
            return
        due = health.next_deadline()
        idle = self._idle_deadline(member)
        if idle is not None and (due is None or idle < due):
            due = idle
        for ping in member.pings.values():
            due = ping.deadline if due is None else min(due, ping.deadline)
        if due is not None:
            self._arm_at(member, due)

    def _arm_at(self, member: Member, due: float) -> None:
        """One deadline; what it is of is asked when the member's time has come."""
        if member.armed is None or due < member.armed:
            member.armed = due
            self.timers.set(member, due)

    def _note_use(self, member: Member, now: float) -> None:
        """Requests came to a connection, left it, or wait for it."""
        if not member.calls:
            member.calls = NO_ENTRIES
        used = bool(member.calls or member.unsent) or self._is_waited_for(member)
        member.health.set_busy(used)
        if used or member.ready_at is None or member.health.state == DEAD:
            member.unused_since = None
        elif member.unused_since is None:
            member.unused_since = now
            if self._idle_close:
                self._arm_at(member, now + self._idle_close)

    def _is_waited_for(self, member: Member) -> bool:
        """A request waits that it might take.

        Not one that is in the queue for a moment only, on its way to another connection.
        """
        site = member.site
        waits = site.waited_for and any(call.avoid is not member for call in site.queue)
        return waits and member.takes_requests

    def _settle(self, member: Member, now: float) -> None:
        """After anything that may have ended a stream or moved a deadline."""
        self._note_use(member, now)
        if not member.draining and not member.connection.takes_requests:
            # Its stream identifiers are used up, also by requests that have not left.
            self._retire(member, now, drain=True)
            self._dispatch(member.site, now)
        if member.draining and not member.calls:
            self._close_member(member, now, "drained")
        elif member.health.sooner:
            self._arm(member)

    def _carry_out(self, member: Member, orders: Iterable[int], now: float) -> None:
        """What Health orders."""
        for order in orders:
            if order == ABORT:
                self._condemn(member, now)
                return
            self._note_state(member)
            if order == PING:
                self._send_probe(member, now)
            else:
                assert order == REROUTE
                self._retire(member, now)
                self._dispatch(member.site, now)

    def _send_probe(self, member: Member, now: float) -> None:
        member.probe = member.next_opaque()
        self._send_ping(member, member.probe, now)
        self._arm(member)

    def _send_ping(self, member: Member, opaque_data: bytes, now: float) -> None:
        member.connection.ping(opaque_data, now)
        member.pings_since_message += 1
        self.counters["pings_sent"] += 1
        self.orders.append(member.send)

    def _ping_is_late(self, ping: Ping) -> None:
        """Nobody waits for this answer any more; the connection is left as it is."""
        member = ping.member
        member.connection.forget_ping(ping.opaque_data)
        del member.pings[ping.opaque_data]
        ping.fail(PingTimeout(f"{member} did not answer a PING within {ping.timeout_s:.3g} s"))
        self.orders.append(Deliver(ping))

    def _retire(self, member: Member, now: float, drain: bool = False) -> None:
        """It takes no new requests: it is doubted or, `drain`, it has said so."""
        if drain:
            member.draining = True
        if not member.loss_judged:
            member.loss_judged = True
            if drain:
                self._judge_loss(member, now)
            else:
                member.site.backoff.replace(now)
        self._withdraw(member, now)

    def _judge_loss(self, member: Member, now: float) -> None:
        """Whether the connection was of use decides how soon another is dialled."""
        backoff = member.site.backoff
        assert member.ready_at is not None
        if member.answered or now - member.ready_at >= GOOD_LIFE_S:
            backoff.proved()
            if member.site.is_http1:  # connections that come and go are its way
                backoff.due = now
            else:
                backoff.replace(now)
        else:
            backoff.failed(now)

    def _condemn(self, member: Member, now: float) -> None:
        """Health's verdict."""
        health = member.health
        if not member.is_up:
            within = f"within {health.policy.connect_timeout:g} s"
            error: H2liteError = ConnectTimeout(self._slow_dial(member, within))
        else:
            if health.cause == "unknown":
                health.cause = self.diagnose(member)
            error = ConnectionLost(f"{member} is dead: {health.cause}", cause=health.cause)
        self._remove(member, now, health.cause, error, Abort(member))

    def _close_member(self, member: Member, now: float, why: str) -> None:
        """Close a connection ourselves, by a GOAWAY where it is up."""
        connection = member.connection
        for stream in [*connection.streams.values()]:
            connection.reset_stream(stream, ErrorCode.CANCEL)  # nobody waits for the rest
        connection.goaway()
        goaway = connection.goaway_received
        order = Finish(member) if member.is_up else Abort(member)
        if goaway is None:
            cause, error = "local", ConnectionLost(f"{member} was closed: {why}", cause="local")
        else:
            cause, error = "goaway", _goaway_error(member, goaway)
        self._remove(member, now, cause, error, order)

    def _remove(
        self,
        member: Member,
        now: float,
        cause: str,
        error: H2liteError,
        order: Value | None = None,
    ) -> None:
        """The connection is gone: nothing of it stays behind, and each of its requests goes on."""
        site = member.site
        member.error = error
        error.connection = member
        member.health.lost(cause)
        self._note_state(member)
        site.members.remove(member)
        site.asked = NO_MEMO  # what it asked may be secret, and lives no longer than it does
        self.timers.set(member, None)
        self._add_health(self.counters, member.health)
        if order is not None:
            self.orders.append(order)
        self._note_loss(member, now, cause, error)
        for ping in member.pings.values():
            ping.fail(error.again())
            self.orders.append(Deliver(ping))
        member.pings = NO_ENTRIES
        self._withdraw(member, now)
        calls, member.calls = member.calls, NO_ENTRIES
        for call in calls.values():
            if not call.over:
                self._lose(call, now, error)
        self._dispatch(site, now)

    def _note_loss(self, member: Member, now: float, cause: str, error: H2liteError) -> None:
        """What a loss means for the origin's next dial, and for who waits for one."""
        site = member.site
        if member.is_up:
            self.deaths[cause] = self.deaths.get(cause, 0) + 1
            # Of HTTP/1.1, the peer ends whatever is idle.
            is_usual = site.is_http1 and not member.calls
            if cause not in ("local", "goaway") and not is_usual:
                site.backoff.died(now)
            if cause != "local" and not member.loss_judged:
                self._judge_loss(member, now)
        elif cause != "local":
            self.counters["dials_failed"] += 1
            site.last_error = error
            site.backoff.failed(now)
            for call in list(site.queue):
                if not site.serves(call):
                    self._fail(call, error.again())

    def _lose(self, call: Call, now: float, error: H2liteError) -> None:
        """A request's connection ended before its response did."""
        error = error.again()
        call.maybe_processed = True
        methods = IDEMPOTENT_METHODS if call.idempotent else SAFE_METHODS
        if call.begun or call.method not in methods:
            self._fail(call, error)
        else:
            self._repeat_or_fail(call, now, error)

    def _note_state(self, member: Member) -> None:
        """Tell that the state has changed; of probes, where somebody wants to hear of them."""
        before, member.state = member.state, member.health.state
        if self._tells_probes or before not in _ASKED or member.state not in _ASKED:
            self.orders.append(StateChanged(member, before, member.state, member.health.cause))

    @staticmethod
    def _add_health(counters: dict[str, int], health: Health) -> None:
        counters["pings_acked"] += health.acks
        counters["late_acks"] += health.late_acks
        for name in ("rescues", "suspects", "false_suspects"):
            counters[name] += getattr(health, name)

    # -- events ----------------------------------------------------------------------------

    def _heard(self, member: Member, events: Sequence[Event], now: float) -> None:
        """Octets came, and with them what they completed."""
        member.held = 0
        if not member.probe and not member.late_probe and not member.pings:
            member.health.heard(now)
            return
        acked: dict[bytes, ev.PingAcked] = {}
        for event in events:
            if type(event) is ev.PingAcked:
                acked[event.opaque_data] = event
        ack = acked.get(member.probe)
        member.health.heard(now, None if ack is None else ack.rtt_s)
        for opaque_data, ping in member.pings.items():
            if opaque_data not in acked and not ping.rescued_by:
                ping.rescued_by = type(events[0]).__name__
        if member.late_probe and (late := acked.get(member.late_probe)) is not None:
            member.health.acked_late(late.rtt_s)
            member.late_probe = b""
        if member.probe:
            if ack is None:
                member.connection.forget_ping(member.late_probe)
                member.late_probe = member.probe
            member.probe = b""
            member.loss_judged = member.draining
            self._note_state(member)

    def _on_settings(self, member: Member, event: ev.SettingsReceived, now: float) -> None:
        if not member.is_up:
            self._is_up(member, now)

    def _is_up(self, member: Member, now: float) -> None:
        member.ready_at = now
        member.health.ready(now)
        member.site.backoff.dialled(now)
        member.site.last_error = None
        self._note_state(member)

    def _on_ping_acked(self, member: Member, event: ev.PingAcked, now: float) -> None:
        ping = member.pings.pop(event.opaque_data, None)
        if ping is not None:
            if not member.pings:
                member.pings = NO_ENTRIES
            ping.over = True
            ping.rtt_s = event.rtt_s
            ping.queued_s = event.queued_s
            member.health.sample(event.rtt_s)
            self.counters["pings_acked"] += 1
            self.orders.append(Deliver(ping))

    def _on_unknown_ack(self, member: Member, event: ev.UnknownPingAcked, now: float) -> None:
        known = member.is_own(event.opaque_data)
        self.counters["late_acks" if known else "unknown_acks"] += 1

    def _on_interim(self, member: Member, event: ev.InformationalReceived, now: float) -> None:
        self._heard_message(member)
        call = member.calls.get(event.stream_id)
        if call is not None:  # None: as in `_on_data`
            call.interim.append((event.status, event.fields))
            call.progress_at = now
            self.orders.append(Deliver(call))

    def _on_response(self, member: Member, event: ev.ResponseReceived, now: float) -> None:
        self._heard_message(member)
        if not member.answered:
            member.answered = True
            member.site.backoff.proved()
        call = member.calls.get(event.stream_id)
        if call is None:  # as in `_on_data`
            return
        if event.status == 421 and self._redirected(member, call, now):
            return
        call.status = event.status
        call.response_fields = event.fields
        call.progress_at = now
        self._advance(member, call, event.end_stream)

    def _redirected(self, member: Member, call: Call, now: float) -> bool:
        """RFC 9110 §15.5.20: another connection may serve what this one does not; asked once."""
        if call.misdirected:
            return False
        delay = self._delay_of_repeat(call, now)
        if delay is None:
            return False
        assert call.stream is not None
        del member.calls[call.stream.stream_id]
        member.connection.reset_stream(call.stream, ErrorCode.CANCEL)
        call.misdirected = True
        call.avoid = member
        self._repeat(call, now, delay, H2liteError(f"{member} answered 421"))
        return True

    def _on_data(self, member: Member, event: ev.DataReceived, now: float) -> None:
        self._heard_message(member)
        call = member.calls.get(event.stream_id)
        if call is None:  # it was given up while what had come was on its way here
            member.connection.data_consumed(event.stream_id, len(event.data))
            return
        if event.data:
            call.chunks.add(event.data)
        call.progress_at = now
        self._advance(member, call, event.end_stream)

    def _on_trailers(self, member: Member, event: ev.TrailersReceived, now: float) -> None:
        self._heard_message(member)
        call = member.calls.get(event.stream_id)
        if call is not None:
            call.response_trailers = event.fields
            self._advance(member, call, end_stream=True)

    def _advance(self, member: Member, call: Call, end_stream: bool) -> None:
        """More of a response has come, or all of it."""
        if not end_stream:
            self.orders.append(Deliver(call))
            return
        stream = call.stream
        assert stream is not None
        call.ended = True
        del member.calls[stream.stream_id]
        # A complete response needs no more of the request (RFC 9113 §8.1), and a server that
        # does not read it would keep the stream open for ever.
        member.connection.reset_stream(stream, ErrorCode.NO_ERROR)
        self._close_call(call)

    def _heard_message(self, member: Member) -> None:
        member.health.heard_message()
        member.pings_since_message = 0

    def _on_reset(self, member: Member, event: ev.StreamReset, now: float) -> None:
        stream_id, code = event.stream_id, event.error_code
        call = member.calls.pop(stream_id, None)
        who = "the peer" if event.by_peer else "h2lite"
        reason = f": {event.reason}" if event.reason else ""
        error = StreamReset(f"{who} reset the stream, {error_name(code)}{reason}", code)
        error.connection = member
        if event.by_peer and code == ErrorCode.PROTOCOL_ERROR:
            # It takes us for a peer at fault: whatever we say next may be the next mistake.
            self._retire(member, now, drain=True)
        if call is None:
            return
        if not event.by_peer:  # a malformed message: nothing of it is the user's to see
            self._drop_chunks(call)
            call.forget_response()
        if event.by_peer and code == ErrorCode.REFUSED_STREAM and not call.begun:
            self._on_refused(member, call, stream_id, error, now)
        else:
            self._fail(call, error)

    def _on_refused(
        self, member: Member, call: Call, stream_id: int, error: StreamReset, now: float
    ) -> None:
        """RFC 9113 §8.7: nobody has acted on the request."""
        goaway = member.connection.goaway_received
        left_out = goaway is not None and stream_id > goaway.last_stream_id
        call.leave()
        if goaway and left_out and stream_id == 1 and goaway.error_code != ErrorCode.NO_ERROR:
            # The very first request ended it: the next one would too.
            self._fail(call, error)
            return
        # A connection that is left in good order costs its requests no token: its own back-off
        # sees to it that this does not go on for ever.
        self._repeat_or_fail(call, now, error, free=left_out and call.retries == 0)

    def _on_goaway(self, member: Member, event: ev.GoAwayReceived, now: float) -> None:
        if event.error_code == ErrorCode.ENHANCE_YOUR_CALM and (
            b"too_many_pings" in event.debug_data or member.pings_since_message >= PINGS_TOO_MANY
        ):
            self._calm(member.site)
        self._retire(member, now, drain=True)

    def _calm(self, site: Site) -> None:
        """Remembered as long as the pool lives, whatever becomes of the connection."""
        if site.origin in self._calmed:
            return
        if len(self._calmed) >= CALMED_MAX:
            del self._calmed[next(iter(self._calmed))]
        self._calmed[site.origin] = None
        self._set_policy(site, self.policy.calmed())
        self.orders.append(Calmed(site.origin, site.policy))

    def _set_policy(self, site: Site, policy: HealthPolicy) -> None:
        site.policy = policy
        for member in site.members:
            member.health.set_policy(policy)
            self._arm(member)

    def _on_failed(self, member: Member, event: ev.ConnectionFailed, now: float) -> None:
        http = "HTTP/1.1" if member.site.is_http1 else "HTTP/2"
        text = f"{member} broke {http}, {error_name(event.error_code)}: {event.reason}"
        error: H2liteError = RemoteProtocolError(text, event.error_code)
        if not member.is_up:
            error = TLSError(f"{member}: HTTP/2 did not begin: {event.reason}")
        error.cause = "protocol_error"
        self._remove(member, now, "protocol_error", error, Finish(member))

    def _on_ended(self, member: Member, event: ev.ConnectionEnded, now: float) -> None:
        goaway = member.connection.goaway_received
        how = "the peer closed the connection" if event.reason == "eof" else event.reason.lower()
        if not member.is_up:
            early = TLSError(f"{member}: HTTP/2 did not begin: {how}")
            self._remove(member, now, event.cause, early)
            return
        if goaway is None:
            error = ConnectionLost(f"{member}: {how}", cause=event.cause)
        else:
            error = _goaway_error(member, goaway)
        self._remove(member, now, error.cause, error)


def _goaway_error(member: Member, goaway: GoAwayFrame) -> ConnectionLost:
    said = f" {bytes(goaway.debug_data)!r}" if goaway.debug_data else ""
    text = f"{member} said GOAWAY {error_name(goaway.error_code)}{said}"
    return ConnectionLost(text, goaway.error_code, "goaway")


def _is_past(deadline: float | None, now: float) -> bool:
    return deadline is not None and now >= deadline


_ASKED = (LIVE, PROBING)  # between these a connection goes with each probe

_ON_DEADLINE: dict[type[Any], Callable[[Pool, Any, float], None]] = {
    Call: Pool._on_call_deadline,
    Member: Pool._on_member_deadline,
    Site: Pool._on_site_deadline,
}

_ON_EVENT: dict[type[Value], Callable[[Pool, Member, Any, float], None]] = {
    ev.SettingsReceived: Pool._on_settings,
    ev.PingAcked: Pool._on_ping_acked,
    ev.UnknownPingAcked: Pool._on_unknown_ack,
    ev.InformationalReceived: Pool._on_interim,
    ev.ResponseReceived: Pool._on_response,
    ev.DataReceived: Pool._on_data,
    ev.TrailersReceived: Pool._on_trailers,
    ev.StreamReset: Pool._on_reset,
    ev.GoAwayReceived: Pool._on_goaway,
    ev.ConnectionFailed: Pool._on_failed,
    ev.ConnectionEnded: Pool._on_ended,
}
