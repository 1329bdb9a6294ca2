"""A TCP relay that fails on command: silence, delay, a slow line, RST, FIN.

It copies octets and knows no protocol; TLS passes through it.  One thread, portable, no root.
For tests, benches and demonstrations: the kernels at both ends go on acknowledging whatever they
have room for, as behind a proxy or a NAT that has forgotten the connection.
"""

from __future__ import annotations

import math
import threading
from collections import deque

from .accept import Accepted, Listener
from .dial import Dial, Dialled
from .errors import UsageError
from .loop import READ, WRITE, Loop, Source, monotonic
from .origin import Origin
from .transport import Transport, prepare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from .value import Value

UP, DOWN, BOTH = "up", "down", "both"  # from the client to the target, the other way

CONNECTIONS_MAX = 1000  # further ones are closed at accept
# Of one direction of a connection: past this nobody reads, and the sender's kernel fills up.  One
# recv may go beyond it by 64 KiB.  With a delay it is a window: 256 KiB at 50 ms are 5 MB/s.
HELD_OCTETS_MAX = 262144
PACE_S = 0.01  # a slow line carries what it may in this time at once, and one octet at least
END_S = 5.0  # how long `close` waits for the thread


class Relay:
    """Listens from the moment it is made, and relays each connection to the target.

    target           (host, port); a name is resolved for each connection
    host, port       where to listen; port 0: a free one
    receive_buffer   octets of SO_RCVBUF on accepted sockets, so that a client's writes soon
                     block once nobody reads; None: the system's

    host, port, target   as above; the port is the one it listens on
    accepted             connections so far
    frozen_at            the instant of the last `freeze` by `loop.monotonic`; None before

    Every call is for any thread, and done when it returns.  A connection whose target cannot be
    reached is closed.  An end that sends FIN may go on receiving; an end that sends RST, or that
    nothing more can be written to, has the other reset at once, and what was held is dropped.

    Raises UsageError for arguments that cannot be, OSError for an address that cannot be had.
    """

    def __init__(
        self,
        target: tuple[str, int],
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        receive_buffer: int | None = None,
    ) -> None:
        if not isinstance(target, tuple) or len(target) != 2:
            raise UsageError(f"target {target!r}, want (host, port)")
        _check_address("target", *target, least=1)
        _check_address("host", host, port, least=0)
        octets = 1 if receive_buffer is None else receive_buffer
        if not isinstance(octets, int) or octets < 1:
            raise UsageError(f"receive_buffer of {receive_buffer!r}, want octets, above 0")
        self.target = target
        self.host = host
        self.accepted = 0
        self.frozen_at: float | None = None
        self._paces = {UP: _Pace(), DOWN: _Pace()}
        self._freezes_new = False
        self._pairs: dict[_Pair, None] = {}  # a set that keeps its order
        self._dials: dict[Source, _Pair] = {}
        self._ending = False
        # What other threads ask of this one; see _in_thread.
        self._lock = threading.Lock()
        self._closed = False
        self._posted: deque[tuple[Callable[[], None], threading.Event]] = deque()
        self._loop = Loop(monotonic)
        try:
            self._listener = Listener(self._loop, host, port, receive_buffer)
        except OSError:
            self._loop.close()
            raise
        self.port: int = self._listener.address[1]  # type: ignore[assignment]
        self._loop.open_waker()
        self._thread = threading.Thread(
            target=self._run, name=f"h2lite relay to {target[0]}:{target[1]}", daemon=True
        )
        self._thread.start()

    @property
    def connections(self) -> int:
        """How many are live: accepted and not closed, frozen ones included."""
        return len(self._pairs)

    def freeze(self, *, new: bool = False) -> None:
        """Copy nothing more on the connections there are: no octet, no FIN, no RST.

        Who has connected by now counts, even if nothing has been relayed yet.  Both kernels
        acknowledge what they have room for; neither end is told anything.

        new   connections that come later are frozen as well, from their start: they are
              accepted, and the target hears of them after `thaw`; False: they are relayed
        """
        self._in_thread(lambda: self._freeze(new))

    def thaw(self) -> None:
        """Let frozen connections go on where they stopped; nothing is lost."""
        self._in_thread(self._thaw)

    def reset(self) -> None:
        """RST to both ends of every live connection, frozen or not; what is held is dropped.

        A target that is only being dialled is left without one.
        """
        self._in_thread(lambda: self._each(_Pair.reset))

    def finish(self) -> None:
        """FIN to every live client, behind what is on its way, as if the target had sent it.

        What the target says afterwards is left unread; what the client says is still copied, and
        its FIN ends the connection.  A frozen client hears it after `thaw`.
        """
        self._in_thread(lambda: self._each(_Pair.finish))

    def delay(self, seconds: float, direction: str = BOTH) -> None:
        """Let what comes from now on take this long, on every connection; the order is kept.

        direction   "up" (from clients to the target), "down" or "both"

        Raises UsageError for anything else; nothing is changed then.
        """
        _check_number("delay", seconds, "seconds, 0 (none) or more")
        paces = self._chosen(direction)

        def act() -> None:
            for pace in paces:
                pace.delay_s = seconds

        self._in_thread(act)

    def rate(self, octets_per_s: float, direction: str = BOTH) -> None:
        """Let each connection carry so many octets a second, those it holds already included.

        octets_per_s   in each direction; 0: no limit
        direction      "up" (from clients to the target), "down" or "both"

        Raises UsageError for anything else; nothing is changed then.
        """
        _check_number("rate", octets_per_s, "octets a second, 0 (no limit) or more")
        paces = self._chosen(direction)

        def act() -> None:
            for pace in paces:
                pace.octets_per_s = octets_per_s
            self._each(_Pair.hurry)

        self._in_thread(act)

    def close(self) -> None:
        """Stop listening, close every connection and end the thread; a second time is no error."""
        try:
            self._in_thread(self._end)
        except UsageError:
            return
        self._thread.join(END_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _chosen(self, direction: str) -> list[_Pace]:
        if direction not in (UP, DOWN, BOTH):
            raise UsageError(f'direction {direction!r}, want "up", "down" or "both"')
        return [pace for way, pace in self._paces.items() if direction in (way, BOTH)]

    def _in_thread(self, act: Callable[[], None]) -> None:
        """Have the relay's thread do something between two turns, and wait until it is done."""
        done = threading.Event()
        with self._lock:
            if self._closed:
                raise UsageError("the relay is closed")
            self._posted.append((act, done))
        self._loop.wake()
        done.wait()

    # -- in the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._ending:
                for source, event in self._loop.turn():
                    self._on_event(source, event)
                self._do_posted()
        finally:
            with self._lock:
                self._closed = True
            self._listener.close()
            for pair in [*self._pairs]:
                pair.close()
            self._loop.close()
            for _, done in self._posted:  # asked beside `close`: there is nothing left to act on
                done.set()

    def _do_posted(self) -> None:
        while self._posted:
            act, done = self._posted.popleft()
            try:
                act()
            finally:
                done.set()

    def _end(self) -> None:
        self._ending = True

    def _on_event(self, source: Source, event: Value) -> None:
        if isinstance(event, Accepted):
            self._accept(event)
            return
        pair = self._dials.pop(source)
        pair.dial = None
        if isinstance(event, Dialled):
            pair.join(event.transport)
        else:
            pair.close()

    def _accept(self, event: Accepted) -> None:
        self.accepted += 1
        prepare(event.sock)
        client = Transport(event.sock, event.address)
        if len(self._pairs) == CONNECTIONS_MAX:
            client.close()
            return
        pair = _Pair(self, client)
        self._pairs[pair] = None
        if self._freezes_new:
            pair.frozen = True
        else:
            self._dial(pair)

    def _dial(self, pair: _Pair) -> None:
        pair.dial = dial = Dial(self._loop, Origin("http", *self.target), None)
        self._dials[dial] = pair
        for event in dial.start():
            self._on_event(dial, event)

    def _each(self, act: Callable[[_Pair], None]) -> None:
        """Do it to every live connection, to those that only the kernel has accepted too."""
        for event in self._listener.ready(READ, self._loop.clock()):
            self._on_event(self._listener, event)
        for pair in [*self._pairs]:
            act(pair)

    def _freeze(self, new: bool) -> None:
        self._each(_Pair.freeze)
        self._freezes_new = new
        self.frozen_at = monotonic()

    def _thaw(self) -> None:
        self._each(_Pair.thaw)
        self._freezes_new = False

    def _forget(self, pair: _Pair) -> None:
        del self._pairs[pair]
        if pair.dial is not None:
            del self._dials[pair.dial]
            pair.dial.close()


class _Pace:
    """How octets cross, one way, on every connection."""

    __slots__ = ("delay_s", "octets_per_s")

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.octets_per_s = 0.0


class _Pair:
    """One relayed connection.

    dial    under way to the target; None before and after
    ends    the client's and the target's, once that is reached; () before
    """

    __slots__ = ("relay", "client", "dial", "ends", "frozen", "over", "_finished")

    def __init__(self, relay: Relay, client: Transport) -> None:
        self.relay = relay
        self.client = client
        self.dial: Dial | None = None
        self.ends: tuple[_End, ...] = ()
        self.frozen = False
        self.over = False
        self._finished = False

    def join(self, target: Transport) -> None:
        """The target is reached: begin to copy."""
        paces = self.relay._paces
        self.ends = (_End(self, self.client, paces[DOWN]), _End(self, target, paces[UP]))
        for end, other in (self.ends, self.ends[::-1]):
            end.other = other
        if self._finished:
            self._finish_client()
        self.hurry()

    def freeze(self) -> None:
        self.frozen = True
        for end in self.ends:
            end.stop()

    def thaw(self) -> None:
        self.frozen = False
        if not self.ends and self.dial is None:
            self.relay._dial(self)
        self.hurry()

    def hurry(self) -> None:
        """Send what may be sent by now, and watch for more."""
        for end in self.ends:
            end.hurry(self.relay._loop.clock())

    def finish(self) -> None:
        self._finished = True
        if self.ends:
            self._finish_client()

    def _finish_client(self) -> None:
        client, target = self.ends
        if not target.ended:
            target.ended = True
            client.take(b"", self.relay._loop.clock())

    def reset(self) -> None:
        """RST to both ends, at once."""
        for end in self.ends:
            end.transport.drop_unsent()
        self.client.drop_unsent()
        self.close()

    def close(self) -> None:
        if self.over:
            return
        self.over = True
        self.relay._forget(self)
        for end in self.ends:
            self.relay._loop.forget(end, end.transport.sock.fileno())
            end.transport.close()
        self.client.close()


class _End(Source):
    """One end of a relayed connection, and what is on its way to it.

    other   the opposite end
    ended   nothing more is read from it: it has sent FIN, or is taken to have
    told    FIN is sent to it
    """

    __slots__ = (
        "pair",
        "transport",
        "other",
        "ended",
        "told",
        "_pace",
        "_coming",
        "_held",
        "_free_at",
        "_full",
    )

    other: _End

    def __init__(self, pair: _Pair, transport: Transport, pace: _Pace) -> None:
        self.pair = pair
        self.transport = transport
        self.ended = False
        self.told = False
        self._pace = pace
        self._coming: deque[tuple[float, bytes]] = deque()  # (due, octets); no octets: FIN
        self._held = 0
        self._free_at = 0.0  # the line to it is busy until then
        self._full = False  # its socket takes no more: the selector says when it does again

    def ready(self, mask: int, now: float) -> list[Value]:
        # If something else in this turn has ended the connection, the socket is closed and says so.
        if mask & WRITE:
            self._full = False
            self._send(now)
        if mask & READ:
            self._read(now)
        return []

    def handle_deadline(self, now: float) -> list[Value]:
        self._send(now)
        return []

    def _read(self, now: float) -> None:
        try:
            data = self.transport.recv()
        except OSError:
            self.pair.reset()
            return
        if data is not None:
            self.ended = not data
            self.other.take(data, now)

    def take(self, data: bytes, now: float) -> None:
        """What the other end has said; b"": its FIN."""
        self._coming.append((now + self._pace.delay_s, data))
        self._held += len(data)
        if not self.pair.frozen:
            self._send(now)

    def _send(self, now: float) -> None:
        """Give the socket what is due, as far as it takes it."""
        while self._coming and not self._full:
            due, data = self._coming[0]
            due = max(due, self._free_at)
            if due > now:
                self.pair.relay._loop.set_deadline(self, due)
                break
            if not data:
                self._coming.popleft()
                self.told = True
                self.transport.end_sending()
                continue
            try:
                taken = self.transport.send(data[: self._piece()])
            except OSError:
                self.pair.reset()
                return
            self._full = taken == 0
            self._took(taken, due, now)
        if self.told and self.other.told:
            self.pair.close()
            return
        self._watch()
        self.other._watch()

    def _piece(self) -> int | None:
        """How many octets may go at once; None: all."""
        rate = self._pace.octets_per_s
        return max(1, int(rate * PACE_S)) if rate else None

    def _took(self, taken: int, due: float, now: float) -> None:
        data = self._coming.popleft()[1]
        if taken < len(data):
            self._coming.appendleft((due, data[taken:]))
        self._held -= taken
        if self._pace.octets_per_s:
            # A turn that comes late is made up for, a long block is not.
            self._free_at = max(due, now - PACE_S) + taken / self._pace.octets_per_s

    def hurry(self, now: float) -> None:
        """The line to it is free, unless it is frozen: it works again, or its rate is another."""
        self._free_at = 0.0
        if not self.pair.frozen and not self.pair.over:
            self._send(now)

    def stop(self) -> None:
        self.pair.relay._loop.set_deadline(self, None)
        self._watch()

    def _watch(self) -> None:
        mask = 0
        if not self.pair.frozen:
            if not self.ended and self.other._held < HELD_OCTETS_MAX:
                mask |= READ
            if self._full:
                mask |= WRITE
        self.pair.relay._loop.watch(self, self.transport.sock.fileno(), mask)


def _check_address(what: str, host: object, port: object, least: int) -> None:
    if not isinstance(host, str) or host[:5].lower() == "unix:":
        raise UsageError(f"{what} {host!r}, want a name or a numeric address")
    if not isinstance(port, int) or not least <= port <= 65535:
        raise UsageError(f"port {port!r}, want {least} to 65535")


def _check_number(what: str, value: float, wanted: str) -> None:
    if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise UsageError(f"{what} of {value!r}, want {wanted}")
