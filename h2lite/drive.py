"""The pool under a loop: what the loop saw goes to the pool, the pool's orders to the loop.

It decides nothing, and it knows sockets only as what a dial gives it.  One thread at a time.
"""

from __future__ import annotations

import math
from collections import deque

from .dial import Dialled
from .errors import ConnectError, UsageError
from .events import ConnectionEnded
from .loop import Link, Source
from .orders import Abort, Dial, Finish, Send
from .transport import address_text
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .loop import Loop
    from .member import Member
    from .pool import Pool


class _PoolDue(Value):
    """Something of the pool's fell due; `now`: the instant at which the turn's wait began."""

    __slots__ = ("now",)

    def __init__(self, now: float) -> None:
        self.now = now


class _Alarm(Source):
    """The pool's one place among the loop's timers."""

    __slots__ = ("armed",)

    def __init__(self) -> None:
        self.armed: float | None = None

    def handle_deadline(self, now: float) -> list[Value]:
        # Not judged here: what this turn has read is still on its way to the pool.
        self.armed = None
        return [_PoolDue(now)]


class Driver:
    """A `Loop` and a `Pool`, joined; the loop watches nothing else.

    dial   makes the source that reaches an origin: it has `start` and `close`, tells its `stage`
           and reports Dialled or DialFailed once, as `dial.Dial` does

    A turn has three parts, and only the second may go on while another thread is inside.
    """

    def __init__(self, loop: Loop, pool: Pool, dial: Callable[[Loop, Any], Any]) -> None:
        self.loop = loop
        self.pool = pool
        self._dial = dial
        self._alarm = _Alarm()
        self._dials: dict[Member, Any] = {}
        self._members: dict[Source, Member] = {}  # of links and dials
        self._happened: deque[tuple[Source, list[Any]]] = deque()  # and not told the pool yet
        self._orders: deque[Value] = deque()  # the pool's, and not carried out
        self.told: deque[Value] = deque()  # by the pool, for whoever hears it to take
        pool.diagnose = self._diagnose
        pool.stage = self._stage

    def turn(self, deadline: float | None = None) -> list[Value]:
        """Wait, read, judge, write, once; see `Loop.turn`.

        Returns what the pool tells its caller, in order.
        """
        began, patience = self.begin(deadline)
        self.end(self.loop.select(patience), began)
        told = [*self.told]
        self.told.clear()
        return told

    def begin(self, deadline: float | None) -> tuple[float, float | None]:
        """Send what waits; return the instant, and how long `Loop.select` may wait."""
        self.flush()
        began = self.loop.clock()
        # Somebody is to hear of what was told before anything is waited for.
        waits = not self.told and not self._happened
        return began, self.loop.patience(deadline, began) if waits else 0.0

    def end(self, ready: list[Any], began: float) -> None:
        """Read, judge and write; what the pool tells its caller is in `told`, in order.

        An exception on the way costs the one connection at hand; the rest is for the next call.
        """
        due = None
        happened = self._happened
        happened += self.loop.handle(ready, began)
        while happened:
            source, events = happened.popleft()
            if source is self._alarm:
                due = events[-1].now
            else:
                self._take(source, events)
        # Last of all: what a deadline is judged by may have come behind it in this turn, and a
        # socket that has just become writable has to be tried before it is called blocked.
        if due is not None:
            self.flush()
            self.pool.handle_deadline(due)
        self.flush()

    def recover(self) -> None:
        """After an exception: tell the pool of what that cost; no deadline is judged."""
        self.end([], -math.inf)

    def flush(self) -> None:
        """Carry out the pool's orders and send what can be sent."""
        pool = self.pool
        if pool.orders or self._orders:
            self._carry_out()
        if self.loop.touched:
            for source in self.loop.flush():
                member = self._members.get(source)
                if member is not None and isinstance(source, Link):
                    committed = bool(source.transport.committed)
                    pool.sent(member, source.flushed_at, source.took, source.queued, committed)
            if pool.orders:
                self._carry_out()
        timers = pool.timers
        if timers.changed or self._alarm.armed is None:
            due = timers.next_deadline()
            if due != self._alarm.armed:
                self.loop.set_deadline(self._alarm, due)
                self._alarm.armed = due
            timers.changed = False  # last: whatever is raised before, the next flush sets it

    @property
    def links(self) -> dict[Member, Link]:
        """Those that are open, or linger, by member."""
        return {m: source for source, m in self._members.items() if isinstance(source, Link)}

    @property
    def is_idle(self) -> bool:
        """No connection and no dial is left, those that only linger included."""
        return not self._members

    def close(self) -> None:
        """End what is left at once; close the pool before, which tells those who wait."""
        for dial in self._dials.values():
            dial.close()
        for member, link in self.links.items():
            link.end("closed here")
            member.link = None
        self._dials.clear()
        self._members.clear()
        self.loop.set_deadline(self._alarm, None)

    def close_after_fork(self) -> None:
        """In a child process: close its copies of the descriptors, and tell nobody."""
        for dial in list(self._dials.values()):
            dial.close_after_fork()
        for link in self.links.values():
            link.transport.close()  # and no unregistering: that would reach into the parent's epoll
        self.loop.close()

    # -- what happened -----------------------------------------------------------------------

    def _take(self, source: Source, events: list[Any]) -> None:
        member = self._members.get(source)
        if member is None:  # it was given up by another thread, or closed meanwhile
            return
        now = self.loop.clock()
        if not isinstance(source, Link):
            self._dial_ended(member, events[0], now)
            return
        if type(events[-1]) is ConnectionEnded:
            self._forget(member, source)
        try:
            self.pool.receive(member, events, now)
        except BaseException:
            source.abort()
            self._forget(member, source)
            self.pool.receive(member, [ConnectionEnded("interrupted here", "local")], now)
            raise

    def _dial_ended(self, member: Member, outcome: Any, now: float) -> None:
        self._forget_dial(member)
        if isinstance(outcome, Dialled):
            transport = outcome.transport
            # First of all, since it may replace the member's connection by HTTP/1.1's.
            address = address_text(transport.address)
            self.pool.reached(member, transport.protocol, address, transport.tls_version, now)
            link = Link(self.loop, transport, member.connection)
            member.link = link
            self._members[link] = member
        else:
            self.pool.dial_failed(member, outcome.error, now)

    def _forget(self, member: Member, link: Link) -> None:
        member.link = None
        self._members.pop(link, None)

    def _diagnose(self, member: Member) -> str:
        link: Link | None = member.link
        return "unknown" if link is None else link.transport.path_state()

    def _stage(self, member: Member) -> str:
        dial = self._dials.get(member)
        return "" if dial is None else str(dial.stage)

    def transport_of(self, member: Member) -> Any:
        """The member's `Transport`, None while it has none."""
        link: Link | None = member.link
        return None if link is None else link.transport

    # -- what is to be done --------------------------------------------------------------------

    def _carry_out(self) -> None:
        """Orders may lead to others, a dial that fails at once to the next request's."""
        orders = self._orders  # what is raised on the way costs none of those behind it
        while orders or self.pool.orders:
            orders.extend(self.pool.take_orders())
            while orders:
                order = orders.popleft()
                if type(order) is Send:  # nine of ten
                    link = order.member.link
                    if link is not None:
                        self.loop.touch(link)
                    continue
                carry = _CARRY.get(type(order))
                if carry is None:
                    self.told.append(order)
                else:
                    carry(self, order.member)  # type: ignore[attr-defined]

    def _on_finish(self, member: Member) -> None:
        link: Link | None = member.link
        if link is not None:
            link.finish()

    def _on_abort(self, member: Member) -> None:
        dial = self._forget_dial(member)
        if dial is not None:
            dial.close()
        link: Link | None = member.link
        if link is not None:
            self._forget(member, link)
            link.abort()

    def _on_dial(self, member: Member) -> None:
        try:
            dial = self._dial(self.loop, member.origin)
            self._dials[member] = dial
            self._members[dial] = member
            events = dial.start()
        except (UsageError, OSError, RuntimeError) as error:  # no descriptor, or no thread, is left
            self._forget_dial(member)
            text = str(error)
            if isinstance(error, OSError):
                text = f"cannot connect to {member.origin}: {error.strerror or error}"
            failed = ConnectError(text)
            failed.__cause__ = error
            self.pool.dial_failed(member, failed, self.loop.clock())
            return
        for event in events:
            self._dial_ended(member, event, self.loop.clock())

    def _forget_dial(self, member: Member) -> Any | None:
        dial = self._dials.pop(member, None)
        if dial is not None:
            del self._members[dial]
        return dial


_CARRY: dict[type[Value], Callable[[Driver, Member], None]] = {
    Dial: Driver._on_dial,
    Finish: Driver._on_finish,
    Abort: Driver._on_abort,
}
