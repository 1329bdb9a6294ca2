"""The event loop: one selector, one clock, timers, and one `turn`.

It knows sources, not protocols: a source is what owns a descriptor, and `ready` turns what the
selector saw into events.  The caller of `turn` decides what they mean, then calls `flush`.
No callbacks, no re-entry; one thread at a time, but `wake` is for any thread, and while one is in
`select` others may watch, touch and set deadlines.
"""

from __future__ import annotations

import errno
import math
import selectors
import socket
import time
from functools import partial

from .events import ConnectionEnded, OctetsReceived
from .timers import Timers
from .transport import RECV_OCTETS, TLSBroken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .connection import Connection
    from .http1 import Http1Connection
    from .transport import Transport
    from .value import Value

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

PATIENCE_S_MAX = 86400.0  # of one wait: epoll takes no more than 2^31 ms; waking early is harmless
WORK_A_TURN = 1000  # frames and field lines of one connection: some 10 ms, then the others' turn
RECV_OCTETS_MAX = 262144  # of a client's recv while content comes as fast as it is read
SPIN_S_MAX = 0.001  # longer than this a core is waited for by somebody else
LINGER_S = 0.25  # how long a finished connection may stay, for its last octets to be read

BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


# Seconds that never go back and go on during suspend, where the system has such a clock.  A turn
# reads it five times, so no function of ours stands in between.
monotonic: Callable[[], float] = (
    time.monotonic if BOOTTIME is None else partial(time.clock_gettime, BOOTTIME)
)


class Source:
    """What the loop watches.  Every method is called by the loop, in the turn's thread."""

    __slots__ = ()

    def ready(self, mask: int, now: float) -> list[Value]:
        """The selector saw READ, WRITE or both; say what came of it."""
        return []

    def flush(self, now: float) -> None:
        """Send what waits; called once a turn after `Loop.touch`."""

    def handle_deadline(self, now: float) -> list[Value]:
        """The deadline set by `Loop.set_deadline` has passed.

        now   the instant at which the turn's wait began; all that had come by then has been read
        """
        return []


class Loop:
    """One selector and what it watches.

    clock      seconds as a float, monotonic
    selector   a virtual one, for tests; None: the system's best
    spin       seconds to look again and again before a wait sleeps, at most SPIN_S_MAX

    touched    the sources that `flush` has something to do for
    """

    def __init__(
        self,
        clock: Callable[[], float] = monotonic,
        selector: selectors.BaseSelector | None = None,
        spin: float = 0.0,
    ) -> None:
        self.clock = clock
        self._spin = spin
        self._selector = selector or selectors.DefaultSelector()
        self._masks: dict[int, int] = {}
        self.touched: dict[Source, None] = {}  # a set that keeps its order
        self._unread: dict[Source, None] = {}  # so is this
        self._timers = Timers()
        self._happened: list[tuple[Source, list[Value]]] = []  # and not told yet
        self._waker: tuple[socket.socket, socket.socket] | None = None

    def watch(self, source: Source, fileno: int, mask: int) -> None:
        """Watch a descriptor for READ, WRITE or both; 0 stops watching it."""
        known = self._masks.get(fileno, 0)
        if mask == known:
            return
        if not mask:
            del self._masks[fileno]
            self._selector.unregister(fileno)
            return
        self._masks[fileno] = mask
        if known:
            self._selector.modify(fileno, mask, source)
        else:
            self._selector.register(fileno, mask, source)

    def touch(self, source: Source) -> None:
        """Have the source flushed: it has, or may have, something to send."""
        self.touched[source] = None

    def leave_unread(self, source: Source) -> None:
        """Have the next turn call `ready` again: octets are left that the selector cannot see."""
        self._unread[source] = None

    def set_deadline(self, source: Source, deadline: float | None) -> None:
        """Have `handle_deadline` called at an instant, or, None, not at all."""
        self._timers.set(source, deadline)

    def forget(self, source: Source, fileno: int) -> None:
        """The source is about to close its descriptor."""
        self.watch(source, fileno, 0)
        self.touched.pop(source, None)
        self._unread.pop(source, None)
        self.set_deadline(source, None)

    def next_deadline(self) -> float | None:
        """The earliest instant at which a source wants to be called."""
        return self._timers.next_deadline()

    def turn(self, deadline: float | None = None) -> list[tuple[Source, Value]]:
        """Wait until something is ready or `deadline` (absolute seconds; None: for ever).

        Returns what happened, in order, each with its source.  Deadlines are judged after
        reading, and against the instant at which the wait began, so a process that was
        stopped meanwhile reads first and judges then.
        """
        began = self.clock()
        happened = self.handle(self.select(self.patience(deadline, began)), began)
        return [(source, event) for source, events in happened for event in events]

    def patience(self, deadline: float | None, now: float) -> float | None:
        """How long `select` may wait; 0 while somebody has more to send or something to hear."""
        if self.touched or self._happened or self._unread:
            return 0.0
        due = self._timers.next_deadline()
        if due is not None and (deadline is None or due < deadline):
            deadline = due
        return None if deadline is None else min(max(0.0, deadline - now), PATIENCE_S_MAX)

    def select(self, patience: float | None) -> list[Any]:
        """Wait for the selector; the one part of a turn that needs no lock."""
        if self._spin and patience != 0.0:
            # An idle core takes longer to wake than many an answer to come: see bench/README.md.
            until = self.clock() + self._spin
            while self.clock() < until:
                ready = self._selector.select(0.0)
                if ready:
                    return ready
            if patience is not None:
                patience = max(0.0, patience - self._spin)
        return self._selector.select(patience)

    def handle(self, ready: list[Any], began: float) -> list[tuple[Source, list[Value]]]:
        """Read where the selector saw something, then judge what was due when the wait began.

        Returns what happened, in order, each source with all that came of one look at it.
        Whatever is raised on the way, what had happened before is returned by the next call.
        """
        now = self.clock()
        if self._unread:
            for reader in [*self._unread]:
                self._unread.pop(reader, None)
                events = reader.ready(READ, now)
                if events:
                    self._happened.append((reader, events))
        for key, mask in ready:
            source = key.data
            if source is None:
                self._drain_waker()
                continue
            events = source.ready(mask, now)
            if events:
                self._happened.append((source, events))
        while True:
            source = self._timers.pop_due(began)
            if source is None:
                break
            events = source.handle_deadline(began)
            if events:
                self._happened.append((source, events))
        happened, self._happened = self._happened, []
        return happened

    def report(self, source: Source, events: Iterable[Value]) -> None:
        """Have the next `handle` return these, too."""
        self._happened.append((source, [*events]))

    def flush(self) -> Iterable[Source]:
        """Let every touched source send once; return those that were touched, in order."""
        touched, self.touched = self.touched, {}
        try:
            for source in touched:
                source.flush(self.clock())
        except BaseException:
            self.touched = {**touched, **self.touched}  # those not reached keep their turn
            raise
        return touched

    def wake(self) -> None:
        """Make a `turn` that waits in another thread return."""
        if self._waker is not None:
            try:
                self._waker[1].send(b"\0")
            except OSError:
                return  # it is full of wake-ups already, or the loop is closed

    def open_waker(self) -> None:
        """Make `wake` work; costs two descriptors, so only who needs it asks for it."""
        if self._waker is None:
            self._waker = socket.socketpair()
            for end in self._waker:
                end.setblocking(False)
            self._selector.register(self._waker[0], READ, None)

    @property
    def is_live(self) -> bool:
        """The selector heeds what is changed while a thread waits in it (epoll and kqueue do)."""
        return hasattr(self._selector, "fileno")

    def fileno(self) -> int:
        """The selector's own descriptor, readable when a turn has something to do.

        Raises OSError where the system's selector has none (neither epoll nor kqueue).
        """
        if not self.is_live:
            kind = type(self._selector).__name__
            raise OSError(errno.ENOTSUP, f"{kind} has no descriptor; epoll and kqueue have")
        return int(self._selector.fileno())  # type: ignore[attr-defined]

    def close(self) -> None:
        """Close the selector; sources close their own descriptors before."""
        self._selector.close()
        for end in self._waker or ():
            end.close()

    def _drain_waker(self) -> None:
        assert self._waker is not None
        try:
            self._waker[0].recv(4096)
        except BlockingIOError:
            return


class Link(Source):
    """A transport and the Connection on it: the octets' way in and out.

    flushed_at   the instant of the last flush, as the connection was told it
    took         it gave the socket octets
    taken_octets how many the socket has taken in all
    queued       framed octets are left that the socket has refused
    """

    __slots__ = (
        "loop",
        "transport",
        "connection",
        "ended",
        "flushed_at",
        "took",
        "taken_octets",
        "_blocked",
        "_mask",
        "_muted",
        "_broken",
        "_finishing",
    )

    def __init__(
        self, loop: Loop, transport: Transport, connection: Connection | Http1Connection
    ) -> None:
        self.loop = loop
        self.transport = transport
        self.connection: Any = connection  # a server's is always a Connection
        self.ended = False
        self.flushed_at = 0.0
        self.took = False
        self.taken_octets = 0
        self._blocked = False  # the socket is full: only the selector may start the next send
        self._muted = False  # nothing can be sent any more; what the peer sent is still read
        self._broken: tuple[str, str] | None = None  # a send was told; see `end`
        self._finishing = False
        self._watch()
        # RFC 9113 §3.2 [preface-over-tls], §3.3 [preface-in-clear]: it is what waits already.
        loop.touch(self)
        patience = self.connection.opening_timeout
        loop.set_deadline(self, None if patience == math.inf else loop.clock() + patience)

    def ready(self, mask: int, now: float) -> list[Value]:
        if self.ended:  # by another thread, since the selector saw it
            return []
        if mask & WRITE:
            self._blocked = False
            self._watch()
            self.loop.touch(self)
        if not mask & READ:
            return []
        try:
            events = self._receive(now)
        except BaseException:
            self._interrupted()
            raise
        if self.connection.backlog:
            self.loop.leave_unread(self)
        if self.connection.reading_paused:
            self._watch()
        if self.connection.half_since is not None and not self._finishing:
            self.loop.set_deadline(self, self.connection.next_deadline())
        if self.connection.has_output or self._finishing:
            self.loop.touch(self)
        return events

    def _watch(self) -> None:
        """Have the selector look for what can be gone on with."""
        mask = 0 if self.connection.reading_paused else READ
        if self._blocked:
            mask |= WRITE
        self._mask = mask
        self.loop.watch(self, self.transport.sock.fileno(), mask)

    def _interrupted(self) -> None:
        """Octets were read and not understood, or taken and not sent, as somebody's Ctrl-C has it.

        What the two sides know of each other no longer agrees, so the connection ends.
        """
        self.loop.report(self, self.end("interrupted here"))

    @property
    def queued(self) -> bool:
        # A socket that failed refuses all that is framed; but a peer that has said GOAWAY need
        # not read any more, and what it sends still counts.
        refuses = self._muted and self.connection.goaway_received is None
        return self._blocked or (refuses and self.connection.has_output)

    def _receive(self, now: float) -> list[Value]:
        """One recv, and what TLS has already decrypted beyond it; [] when nothing came.

        In its place, what an earlier one has left to be understood.
        """
        # RFC 9113 §5.2.2 [read-promptly]: nothing here asks who consumes, or what can be sent.
        events: list[Value] = []
        if self.connection.backlog:
            events += self.connection.receive_data(b"", now, WORK_A_TURN)
            if self.connection.backlog or not self.transport.pending():
                return events
        while True:
            try:
                data = self.transport.recv()
            except OSError as error:
                return [*events, *self.end(error.strerror or str(error), _cause(error))]
            if data is None:
                return events
            if not data:
                if self._broken is not None:  # so this completes nothing
                    return [*events, *self.end(*self._broken)]
                # RFC 9112 §9.8: an end that TLS did not announce completes nothing.
                if not self.transport.cut_off:
                    events += self.connection.receive_eof()
                return [*events, *self.end("eof", "eof")]
            events += self.connection.receive_data(data, now, WORK_A_TURN)
            if len(data) >= RECV_OCTETS:
                self._receive_more()
            elif self.transport.recv_octets != RECV_OCTETS:
                self.transport.recv_octets = RECV_OCTETS
            # TLS holds decrypted octets the selector cannot see, so drain them before waiting.
            if self.connection.backlog or not self.transport.pending():
                return events or [OctetsReceived()]

    def _receive_more(self) -> None:
        """A client's recv was full: the next may bring more, and costs no more turns for that.

        A download is half as fast again; but not where the octets are so many frames that they
        wait to be understood, and not for a server, whose clients are many.
        """
        connection = self.connection
        if connection.client and not connection.backlog:
            self.transport.recv_octets = RECV_OCTETS_MAX

    def flush(self, now: float) -> None:
        self.flushed_at = now
        self.took = False
        if self._blocked or self._muted or self.ended:
            return
        try:
            self._send(now)
        except BaseException:
            self._interrupted()
            raise
        if self._blocked or self._mask != READ:
            self._watch()
        if self._finishing and not self._blocked and not self.connection.has_output:
            self._muted = True
            self.transport.end_sending()

    def _send(self, now: float) -> None:
        transport = self.transport
        try:
            if transport.committed:
                if not transport.push():
                    self._blocked = True
                    return
                self.took = True
        except OSError as error:
            self._mute(error)
            return
        # Not among what a socket's errors are caught of: encoding may fail by one of its own.
        data = self.connection.data_to_send(now)
        if not data:
            return
        try:
            taken = transport.send(data)
        except OSError as error:
            self._mute(error)
            return
        self.took = self.took or taken > 0
        self.taken_octets += taken
        if taken < len(data):
            self.connection.put_back(data[taken:])
        if taken < len(data) or transport.committed:
            self._blocked = True
        elif self.connection.has_output:
            self.loop.touch(self)

    def _mute(self, error: OSError) -> None:
        # The peer takes nothing more, but what it said before can still be read; the end
        # of the connection comes by the next recv.
        self._muted = True
        if isinstance(error, (ConnectionResetError, TimeoutError)):
            # The system says so once: recv is told no more than that nothing comes.
            self._broken = (error.strerror or str(error), _cause(error))

    def finish(self) -> None:
        """Send what is queued, a GOAWAY say, then close once the peer has had time to read it.

        Closing at once could reset the connection, and take the GOAWAY with it.
        """
        # RFC 9113 §5.4.1 [connection-error-closes]
        if not self._finishing and not self.ended:
            self._finishing = True
            self.loop.touch(self)
            self.loop.set_deadline(self, self.loop.clock() + LINGER_S)

    def handle_deadline(self, now: float) -> list[Value]:
        if self._finishing:
            if not self._muted:  # the peer has not taken all, and may never: leave none of it
                self.transport.drop_unsent()
            return self.end("closed here", "local")
        events: list[Value] = [*self.connection.handle_deadline(now)]
        self.loop.touch(self)
        # Octets have put it off meanwhile: an octet itself touches no timer.
        self.loop.set_deadline(self, self.connection.next_deadline())
        return events

    def end(self, reason: str, cause: str = "local") -> list[Value]:
        """The transport is of no more use: stop watching it, close it, report the end once.

        cause   see `ConnectionEnded`
        """
        if self.ended:
            return []
        self.ended = True
        self.connection.receive_eof()
        self.loop.forget(self, self.transport.sock.fileno())
        self.transport.close()
        return [ConnectionEnded(reason, cause)]

    def abort(self) -> None:
        """Close at once; what the kernel still holds is not sent, and nothing is reported."""
        if not self.ended:
            self.transport.drop_unsent()
            self.end("aborted here")


def _cause(error: OSError) -> str:
    """What a failing socket, or TLS on it, says about the end of its connection."""
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return "reset"
    if isinstance(error, TLSBroken):
        return "tls"
    # What the kernel reports when its own retransmissions or keepalives went unanswered.
    return "path_dead" if isinstance(error, TimeoutError) else "unknown"
