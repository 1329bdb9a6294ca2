"""A network in memory under a clock that a test holds: links that fail, servers by script.

What runs on it is what is shipped: the loop's turn, `Link`, `Connection`, health, pool and
driver, with a selector, transports and dials that are virtual.  Days pass in seconds, and the
same seed gives the same run.  For tests and benches; nothing here touches a socket.
"""

from __future__ import annotations

import random
from collections import deque
from contextlib import suppress
from heapq import heappop, heappush
from selectors import BaseSelector, SelectorKey

from . import events as ev
from .call import Call
from .connection import Connection
from .dial import DialFailed, Dialled
from .drive import Driver
from .errors import ConnectError, ErrorCode
from .frames import GoAwayFrame
from .health import HealthPolicy
from .limits import Limits
from .loop import READ, WRITE, Loop, Source
from .orders import Deliver, Rewind
from .origin import Origin
from .pool import Pool
from .transport import RECV_OCTETS
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from .events import Event, Fields

SEGMENT_OCTETS = 16384  # what crosses a link at once: enough to see a frame in parts
CAPACITY_OCTETS = 262144  # of one direction: the kernels' buffers at both ends
HANDSHAKE_ROUND_TRIPS = 2  # TCP, then TLS 1.3
PING_STRIKES_MAX = 2  # gRPC's servers close at the third PING that comes too soon
PING_GAP_IDLE_S = 7200.0  # which is always too soon without a stream, unless they allow it


class Clock:
    """Seconds that pass when somebody says so.  Call it, as a loop does."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Network:
    """What happens when: the one queue of all that is not the client's."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._queue, (self.clock.now + delay_s, self._count, what))

    def next_at(self) -> float | None:
        return self._queue[0][0] if self._queue else None

    def advance(self, until: float) -> None:
        """Let everything happen up to an instant, and the clock stand there."""
        while self._queue and self._queue[0][0] <= until:
            at, _, what = heappop(self._queue)
            self.clock.now = max(self.clock.now, at)
            what()
        self.clock.now = max(self.clock.now, until)

    def step(self) -> None:
        """Let the next thing happen, and all others of that instant."""
        at = self.next_at()
        assert at is not None
        self.advance(max(at, self.clock.now))


class VirtualSelector(BaseSelector):
    """Waits on the network instead of on the system; level-triggered, as epoll is here."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.oversleep_s = 0.0  # the next wait ends this much late: the process was stopped
        self._keys: dict[int, SelectorKey] = {}
        self._handles: dict[int, Handle] = {}
        self._hot: dict[int, None] = {}  # who may be ready
        self._count = 0

    def handle(self, handle: Handle) -> int:
        """A number for something to watch."""
        self._count += 1
        self._handles[self._count] = handle
        return self._count

    def changed(self, fileno: int) -> None:
        """It may be ready by now."""
        self._hot[fileno] = None

    def drop(self, fileno: int) -> None:
        self._handles.pop(fileno, None)

    def register(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        key = self._keys[fileobj] = SelectorKey(fileobj, fileobj, events, data)
        self._hot[fileobj] = None
        return key

    def unregister(self, fileobj: Any) -> SelectorKey:
        return self._keys.pop(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        return self.register(fileobj, events, data)

    def get_map(self) -> Mapping[Any, SelectorKey]:
        return self._keys

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        network, clock = self.network, self.network.clock
        network.advance(clock.now)
        deadline = None if timeout is None else clock.now + timeout
        while True:
            ready = self._ready()
            if ready or (deadline is not None and clock.now >= deadline):
                break
            at = network.next_at()
            if at is not None and (deadline is None or at <= deadline):
                network.step()
            elif deadline is not None:
                network.advance(deadline)
            else:
                raise RuntimeError("nothing will ever happen")
        if self.oversleep_s:
            network.advance(clock.now + self.oversleep_s)
            self.oversleep_s = 0.0
            ready = self._ready()
        return ready

    def _ready(self) -> list[tuple[SelectorKey, int]]:
        ready = []
        for fileno in list(self._hot):
            key, handle = self._keys.get(fileno), self._handles.get(fileno)
            mask = handle.mask() & key.events if key and handle else 0
            if key is not None and mask:
                ready.append((key, mask))
            else:
                del self._hot[fileno]
        return ready


class Handle:
    """What a selector can watch."""

    def mask(self) -> int:
        """READ, WRITE or both: what would not block now; 0: nothing would."""
        return 0


class Path(Value):
    """How octets cross a link, one way.

    delay_s           each octet's
    jitter_s          up to this much more, drawn for each segment; the order is kept
    octets_per_s      0: at once
    capacity_octets   sent and not yet read: past this a sender's socket is full
    """

    __slots__ = ("delay_s", "jitter_s", "octets_per_s", "capacity_octets")

    def __init__(
        self,
        delay_s: float = 0.0,
        jitter_s: float = 0.0,
        octets_per_s: float = 0.0,
        capacity_octets: int = CAPACITY_OCTETS,
    ) -> None:
        self.delay_s = delay_s
        self.jitter_s = jitter_s
        self.octets_per_s = octets_per_s
        self.capacity_octets = capacity_octets


class Pipe:
    """One direction of a link.

    frozen       a relay has stopped copying: it still acknowledges what it takes
    blackholed   packets are dropped: nothing is acknowledged; TCP sends them again later
    log          (instant, octets) of each send, once a test sets a list; None: not kept
    held_until   nothing arrives before that instant
    """

    def __init__(self, network: Network, path: Path, uniform: Callable[[], float]) -> None:
        self.path = path
        self.frozen = False
        self.blackholed = False
        self.log: list[tuple[float, bytes]] | None = None
        self.held_until = 0.0
        self.receiver: End | None = None
        self.sender: End | None = None
        self._network = network
        self._uniform = uniform
        self._held = 0  # octets taken and not yet read
        self._stuck: list[bytes | None] = []
        self._free_at = 0.0  # the line is busy until then
        self._last_at = 0.0  # when the last segment arrives

    @property
    def room(self) -> int:
        return max(0, self.path.capacity_octets - self._held)

    @property
    def unacknowledged(self) -> bool:
        """Something sent lies where no kernel has acknowledged it."""
        return self.blackholed and bool(self._stuck)

    def send(self, data: bytes) -> int:
        """Take what there is room for."""
        taken = min(len(data), self.room)
        self._held += taken
        if self.log is not None and taken:
            self.log.append((self._network.clock.now, data[:taken]))
        for start in range(0, taken, SEGMENT_OCTETS):
            self._carry(data[start : min(taken, start + SEGMENT_OCTETS)])
        return taken

    def end(self) -> None:
        """Nothing more comes; told behind all that was sent."""
        self._carry(None)

    def _carry(self, segment: bytes | None) -> None:
        path, now = self.path, self._network.clock.now
        self._free_at = max(self._free_at, now)
        if segment and path.octets_per_s:
            self._free_at += len(segment) / path.octets_per_s
        jitter = path.jitter_s * self._uniform() if path.jitter_s else 0.0
        self._last_at = max(self._last_at, self._free_at + path.delay_s + jitter)
        self._network.later(self._last_at - now, lambda: self._arrive(segment))

    def _arrive(self, segment: bytes | None) -> None:
        wait = self.held_until - self._network.clock.now
        if wait > 0:
            self._network.later(wait, lambda: self._arrive(segment))
        elif self.frozen or self.blackholed or self._stuck:
            self._stuck.append(segment)
        elif self.receiver is not None:
            self.receiver.arrived(segment)

    def mend(self) -> None:
        """The line works again; what it held arrives."""
        self.frozen = self.blackholed = False
        stuck, self._stuck = self._stuck, []
        for segment in stuck:
            self._arrive(segment)

    def was_read(self, octets: int) -> None:
        self._held -= octets
        if octets and self.sender is not None:
            self.sender.room_came()


class End(Handle):
    """One end of a link, as a socket is one.

    on_change   called when it may be read or written; the client's end tells its selector
    """

    def __init__(self, out: Pipe, into: Pipe) -> None:
        self.out = out
        self.into = into
        out.sender = self
        into.receiver = self
        self.on_change: Callable[[], None] = lambda: None
        self.is_closed = False
        self._segments: deque[bytes] = deque()
        self._ended = False
        self._reset = False
        self._unsent_dropped = False

    def mask(self) -> int:
        readable = READ if self._segments or self._ended or self._reset else 0
        return readable | (WRITE if self.out.room or self._reset else 0)

    def arrived(self, segment: bytes | None) -> None:
        if self.is_closed:
            if segment:  # nobody is there: the kernel says so
                self.into.was_read(len(segment))
                self._refuse()
            return
        if segment is None:
            self._ended = True
        else:
            self._segments.append(segment)
        self.on_change()

    def _refuse(self) -> None:
        peer = self.out.receiver
        if peer is not None and not self.out.blackholed and not self.out.frozen:
            self.out._network.later(self.out.path.delay_s, peer.reset)

    def room_came(self) -> None:
        self.on_change()

    def reset(self) -> None:
        """An RST came."""
        self._reset = True
        self._segments.clear()
        self.on_change()

    def recv(self) -> bytes | None:
        if self._segments:
            data = b"".join(self._segments)
            self._segments.clear()
            self.into.was_read(len(data))
            return data
        if self._reset:
            raise ConnectionResetError(104, "Connection reset by peer")
        return b"" if self._ended else None

    def send(self, data: bytes) -> int:
        if self._reset:
            raise BrokenPipeError(32, "Broken pipe")
        return self.out.send(data)

    def drop_unsent(self) -> None:
        self._unsent_dropped = True

    def end_sending(self) -> None:
        self.out.end()

    def close(self) -> None:
        """FIN, or RST after `drop_unsent`."""
        if self.is_closed:
            return
        self.is_closed = True
        if self._unsent_dropped:
            self._refuse()
        else:
            self.out.end()

    def vanish(self) -> None:
        """The machine is gone without a word; what comes later is answered with RST."""
        self.is_closed = True


class _Sock:
    """What `Link` asks of a socket."""

    def __init__(self, fileno: int) -> None:
        self._fileno = fileno

    def fileno(self) -> int:
        return self._fileno


class VirtualTransport:
    """The client's end of a link, as `transport.Transport` is one."""

    protocol = "h2"
    tls_version = None
    committed = b""
    recv_octets = RECV_OCTETS
    cut_off = False
    address = ("virtual", 0)

    def __init__(self, line: Line, selector: VirtualSelector) -> None:
        self.line = line
        self.end = end = line.client
        self._selector = selector
        fileno = selector.handle(end)
        self.sock = _Sock(fileno)
        end.on_change = lambda: selector.changed(fileno)
        self.fails_sending = False  # every send is refused as a broken pipe

    def recv(self) -> bytes | None:
        return self.end.recv()

    def pending(self) -> int:
        return 0

    def send(self, data: bytes) -> int:
        if self.fails_sending:
            raise BrokenPipeError(32, "Broken pipe")
        return self.end.send(data)

    def push(self) -> bool:
        return True

    def end_sending(self) -> None:
        self.end.end_sending()

    def drop_unsent(self) -> None:
        self.end.drop_unsent()

    def path_state(self) -> str:
        """As TCP_INFO tells: is anything unacknowledged, and being sent again?"""
        lost = self.end.out.unacknowledged or self.end.into.blackholed
        return "path_dead" if lost else "peer_hung"

    def close(self) -> None:
        self._selector.drop(self.sock.fileno())
        self.end.close()


class Line:
    """A connection's link, for a test to spoil: both ways, or one."""

    def __init__(self, world: World, path: Path, number: int) -> None:
        self.number = number
        self.up = Pipe(world.network, path, world.uniform)  # client to server
        self.down = Pipe(world.network, path, world.uniform)
        self.client = End(self.up, self.down)
        self.server = End(self.down, self.up)
        self.transport: VirtualTransport | None = None

    def __repr__(self) -> str:
        return f"<line {self.number}>"

    def freeze(self) -> None:
        self.up.frozen = self.down.frozen = True

    def blackhole(self, up: bool = True, down: bool = True) -> None:
        self.up.blackholed |= up
        self.down.blackholed |= down

    def mend(self) -> None:
        self.up.mend()
        self.down.mend()

    @property
    def is_sound(self) -> bool:
        return not any(p.frozen or p.blackholed for p in (self.up, self.down))


class VirtualDial(Source):
    """Reaches a virtual server, or does not; reports as `dial.Dial` does."""

    def __init__(self, loop: Loop, world: World, origin: Origin) -> None:
        self._loop = loop
        self._world = world
        self._origin = origin
        self._outcome: Value | None = None
        self._fileno = 0

    def start(self) -> list[Value]:
        world = self._world
        server = world.servers[self._origin]
        self._fileno = world.selector.handle(_Ready(self))
        self._loop.watch(self, self._fileno, READ)
        server.dials.append(world.clock.now)
        if server.is_reachable:
            handshake = 2 * server.path.delay_s * HANDSHAKE_ROUND_TRIPS
            world.network.later(handshake, self._finish)
        return []

    def _finish(self) -> None:
        server = self._world.servers[self._origin]
        if not self._fileno or not server.is_reachable:
            return  # given up, or lost on the way
        if server.is_listening:
            self._outcome = Dialled(server.accept())  # type: ignore[arg-type]
        else:
            self._outcome = DialFailed(ConnectError(f"cannot connect to {self._origin}: refused"))
        self._world.selector.changed(self._fileno)

    @property
    def stage(self) -> str:
        return f"connecting to {self._origin}"

    @property
    def is_over(self) -> bool:
        return self._outcome is not None

    def ready(self, mask: int, now: float) -> list[Value]:
        outcome = self._outcome
        assert outcome is not None
        self._forget()
        return [outcome]

    def _forget(self) -> None:
        if self._fileno:
            self._loop.forget(self, self._fileno)
            self._world.selector.drop(self._fileno)
            self._fileno = 0

    def close(self) -> None:
        if self._fileno and isinstance(self._outcome, Dialled):
            self._outcome.transport.close()
        self._forget()


class _Ready(Handle):
    """A dial to a selector."""

    def __init__(self, dial: VirtualDial) -> None:
        self._dial = dial

    def mask(self) -> int:
        return READ if self._dial.is_over else 0


class Answer(Value):
    """What a virtual server does with one request.

    delay_s       before the response
    body_gap_s    between its header section and each piece of its content
    reset         an error code: RST_STREAM instead of a response; None: a response
    hold          no answer at all
    """

    __slots__ = ("delay_s", "status", "body", "pieces", "body_gap_s", "reset", "hold")

    def __init__(
        self,
        delay_s: float = 0.0,
        status: int = 200,
        body: bytes = b"ok",
        pieces: int = 1,
        body_gap_s: float = 0.0,
        reset: int | None = None,
        hold: bool = False,
    ) -> None:
        self.delay_s = delay_s
        self.status = status
        self.body = body
        self.pieces = pieces
        self.body_gap_s = body_gap_s
        self.reset = reset
        self.hold = hold


class Seen(Value):
    """A request as a virtual server saw it.

    refused   it was answered with REFUSED_STREAM or 421, or left out by a GOAWAY: nobody has
              acted on it
    """

    __slots__ = ("at", "line", "stream_id", "method", "tag", "body", "refused")

    def __init__(self, at: float, line: Line, stream_id: int, method: str, tag: str) -> None:
        self.at = at
        self.line = line
        self.stream_id = stream_id
        self.method = method
        self.tag = tag
        self.body = b""
        self.refused = False


class VirtualServer:
    """A server by script; its connections are real `Connection`s in the server role.

    answer            what to do with a request, called with a `Seen`
    path              of every connection from now on
    settings          to announce
    limits            how much it bears; by default, of requests that are given up
    is_listening      dials succeed; else they are refused
    is_reachable      packets reach it; else dials hang
    sends_settings    a new connection is greeted
    acks_pings        PINGs are answered
    ping_gap_s        police PINGs as gRPC's servers do: those sooner than this are too soon
    pings             (instant, line, value) of each PING that came
    seen              every request
    dials             when somebody tried to reach it
    """

    def __init__(self, world: World, origin: Origin, path: Path) -> None:
        self.world = world
        self.origin = origin
        self.path = path
        self.answer: Callable[[Seen], Answer] = lambda seen: Answer()
        self.settings: dict[int, int] = {}
        self.limits = Limits(resets=10**6)
        self.is_listening = True
        self.is_reachable = True
        self.sends_settings = True
        self.acks_pings = True
        self.reads = True
        self.ping_gap_s = 0.0
        self.pings: list[tuple[float, Line, bytes]] = []
        self.seen: list[Seen] = []
        self.dials: list[float] = []
        self.peers: list[VirtualPeer] = []  # that are alive
        self.lines: list[Line] = []  # all there ever were
        self._stopped = False
        self._postponed: list[Callable[[], None]] = []

    def accept(self) -> VirtualTransport:
        world = self.world
        line = Line(world, self.path, len(self.lines) + 1)
        line.transport = VirtualTransport(line, world.selector)
        self.lines.append(line)
        peer = VirtualPeer(self, line)
        self.peers.append(peer)
        self.later(0.0, peer.start)
        return line.transport

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        """Do something in the server's own time, which stands still while it is stopped."""

        def run() -> None:
            if self._stopped:
                self._postponed.append(run)
            else:
                what()

        self.world.network.later(delay_s, run)

    def stop(self) -> None:
        """SIGSTOP: the kernel goes on, the process does not."""
        self._stopped = True

    def cont(self) -> None:
        """SIGCONT."""
        self._stopped = False
        postponed, self._postponed = self._postponed, []
        for what in postponed:
            what()

    def restart(self, down_s: float, silently: bool = False) -> None:
        """End every connection, with RST or, `silently`, without a word; refuse dials meanwhile."""
        for peer in list(self.peers):
            peer.kill(silently)
        self.is_listening = False

        def listen() -> None:
            self.is_listening = True

        self.world.network.later(down_s, listen)

    @property
    def stopped(self) -> bool:
        return self._stopped


class VirtualPeer:
    """One connection at a virtual server.

    alive     neither closed nor killed
    is_mute   it sends nothing of its own, not even its preface
    """

    def __init__(self, server: VirtualServer, line: Line) -> None:
        self.server = server
        self.line = line
        self.alive = True
        self.connection = Connection(client=False, settings=server.settings, limits=server.limits)
        self._requests: dict[int, Seen] = {}  # that have not been answered
        self.is_mute = not server.sends_settings
        self._strikes = 0
        self._last_ping_at: float | None = None
        self._left_out_past: int | None = None  # by a GOAWAY of the test's own
        self._message_sent = False  # HEADERS or DATA since the last PING: strikes are forgotten
        line.server.on_change = lambda: server.later(0.0, self._turn)

    def start(self) -> None:
        self._flush()

    def _turn(self) -> None:
        """Read what came, act, write."""
        if not self.alive:
            return
        if self.server.reads:
            self._read()
        self._flush()

    def _read(self) -> None:
        try:
            data = self.line.server.recv()
        except ConnectionResetError:
            self.kill(silently=True)
            return
        if data == b"":
            self.close()
        elif data is not None:
            for event in self.connection.receive_data(data, self.server.world.clock.now):
                self._on_event(event)

    def read_again(self) -> None:
        """The server reads after it had stopped to."""
        self.server.later(0.0, self._turn)

    def _flush(self) -> None:
        if self.is_mute or not self.alive:
            return
        now = self.server.world.clock.now
        while data := self.connection.data_to_send(now):
            try:
                taken = self.line.server.send(data)
            except BrokenPipeError:
                self.kill(silently=True)
                return
            if taken < len(data):
                self.connection.put_back(data[taken:])
                return
        if self.connection.closed:
            self.close()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, ev.RequestReceived):
            fields = dict(event.fields)
            seen = Seen(
                self.server.world.clock.now,
                self.line,
                event.stream_id,
                fields[b":method"].decode(),
                fields.get(b"tag", b"").decode(),
            )
            self.server.seen.append(seen)
            if self._left_out_past is not None and seen.stream_id > self._left_out_past:
                seen.refused = True
                return
            self._requests[event.stream_id] = seen
            self._answer(seen)
        elif isinstance(event, ev.DataReceived):
            seen_before = self._requests.get(event.stream_id)
            if seen_before is not None:
                seen_before.body += bytes(event.data)
            self.connection.data_consumed(event.stream_id, len(event.data))
        elif isinstance(event, ev.StreamReset):
            self._requests.pop(event.stream_id, None)
        elif isinstance(event, ev.PingReceived):
            self._on_ping(event.opaque_data)

    def _on_ping(self, opaque_data: bytes) -> None:
        server, now = self.server, self.server.world.clock.now
        server.pings.append((now, self.line, opaque_data))
        if not server.acks_pings:
            self.connection._urgent = []
        if server.ping_gap_s:
            self._police(now)

    def _police(self, now: float) -> None:
        """gRPC's rule for PINGs that come too soon."""
        last, self._last_ping_at = self._last_ping_at, now
        if self._message_sent:
            self._message_sent = False
            self._strikes = 0
            return
        gap = self.server.ping_gap_s if self.connection.streams else PING_GAP_IDLE_S
        if last is not None and now - last < gap:
            self._strikes += 1
        if self._strikes > PING_STRIKES_MAX:
            self.connection.goaway(ErrorCode.ENHANCE_YOUR_CALM, b"too_many_pings")

    def _answer(self, seen: Seen) -> None:
        answer = self.server.answer(seen)
        if answer.hold:
            return
        self.server.later(answer.delay_s, lambda: self._respond(seen, answer))

    def _respond(self, seen: Seen, answer: Answer) -> None:
        stream = self.connection.streams.get(seen.stream_id)
        if not self.alive or stream is None or self.connection.closed or seen.refused:
            return
        if answer.reset is not None:
            seen.refused = answer.reset == ErrorCode.REFUSED_STREAM
            self.connection.reset_stream(stream, answer.reset)
            self._flush()
            return
        fields: Fields = [(b":status", str(answer.status).encode())]
        seen.refused = answer.status == 421
        body = b"" if stream.answers_head else answer.body
        self.connection.send_response(stream, fields, end_stream=not body)
        self._message_sent = True
        size = -(-len(body) // answer.pieces) if body else 1
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        for index, piece in enumerate(pieces):
            last = index == len(pieces) - 1
            if answer.body_gap_s:
                gap = answer.body_gap_s * (index + 1)
                self.server.later(gap, self._piece_sender(seen, piece, last))
            else:
                self.connection.send_data(stream, piece, last)
        self._flush()

    def _piece_sender(self, seen: Seen, piece: bytes, last: bool) -> Callable[[], None]:
        def send() -> None:
            stream = self.connection.streams.get(seen.stream_id)
            if self.alive and stream is not None and not self.connection.closed:
                self.connection.send_data(stream, piece, last)
                self._flush()

        return send

    def respond(self, seen: Seen, answer: Answer | None = None) -> None:
        """Answer a request that was held."""
        self._respond(seen, answer or Answer())

    def send(self, *octets: bytes) -> None:
        """Octets of the test's own, between whole frames; lost where nobody listens."""
        if self.is_mute:
            with suppress(BrokenPipeError):
                self.line.server.send(b"".join(octets))
        else:
            self.connection._queue_control(b"".join(octets))
            self._flush()

    def goaway(
        self,
        last_stream_id: int | None = None,
        error_code: int = ErrorCode.NO_ERROR,
        debug_data: bytes = b"",
    ) -> None:
        """GOAWAY by hand; requests past `last_stream_id` are left out.  None: refuses none yet."""
        last = self.connection._last_peer_stream_id if last_stream_id is None else last_stream_id
        self.send(GoAwayFrame(last, error_code, debug_data).encode())
        before = self._left_out_past
        self._left_out_past = last if before is None else min(before, last)
        for seen in self.server.seen:
            if seen.line is self.line and seen.stream_id > last:
                seen.refused = True
                self._requests.pop(seen.stream_id, None)

    def close(self) -> None:
        self._end()
        self.line.server.close()

    def kill(self, silently: bool = False) -> None:
        """The process dies: RST; `silently`: its machine does."""
        self._end()
        if silently:
            self.line.server.vanish()
        else:
            self.line.server.drop_unsent()
            self.line.server.close()

    def _end(self) -> None:
        self.alive = False
        self._requests.clear()
        if self in self.server.peers:
            self.server.peers.remove(self)


class World:
    """A client's pool, servers and a clock.

    seed      of everything that is drawn
    policy    `HealthPolicy`; by default the default one with jitter off
    options   of the `Pool`

    log       (instant, notice) of all that the pool told, in order
    bodies    the content of each call's response that was read
    unread    calls whose response nobody reads
    """

    def __init__(self, policy: HealthPolicy | None = None, seed: int = 0, **options: Any) -> None:
        self.random = random.Random(seed)
        self.uniform = self.random.random
        self.clock = Clock()
        self.network = Network(self.clock)
        self.selector = VirtualSelector(self.network)
        self.loop = Loop(self.clock, self.selector)
        self.pool = Pool(policy or HealthPolicy(jitter=False), self.uniform, **options)
        self.driver = Driver(self.loop, self.pool, self._dial)
        self.servers: dict[Origin, VirtualServer] = {}
        self.log: list[tuple[float, Value]] = []
        self.bodies: dict[Call, bytes] = {}
        self.unread: set[Call] = set()
        self._sources: dict[Call, tuple[Callable[[], Iterable[bytes]], Iterator[bytes]]] = {}
        self._count = 0

    def _dial(self, loop: Loop, origin: Origin) -> VirtualDial:
        return VirtualDial(loop, self, origin)

    def serve(self, host: str = "a.test", **path: Any) -> VirtualServer:
        """A server; its links as `Path` says."""
        origin = Origin("https", host, 443)
        server = self.servers[origin] = VirtualServer(self, origin, Path(**path))
        return server

    def request(
        self,
        server: VirtualServer,
        method: str = "GET",
        body: bytes = b"",
        *,
        source: Callable[[], Iterable[bytes]] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Call:
        """Make a request.

        source   gives the content in pieces each time it is called; the call is rewindable
                 unless `rewindable` says otherwise
        """
        self._count += 1
        fields = [
            (b":method", method.encode()),
            (b":scheme", b"https"),
            (b":authority", server.origin.host.encode()),
            (b":path", b"/"),
            (b"tag", str(self._count).encode()),
        ]
        deadline = None if timeout is None else self.clock.now + timeout
        if source is not None:
            options.setdefault("rewindable", True)
        content = body if source is None else None
        call = Call(server.origin, fields, content, deadline=deadline, **options)
        if source is not None:
            self._sources[call] = (source, iter(source()))
        self.pool.request(call, self.clock.now)
        return call

    def cancel(self, call: Call) -> None:
        self.pool.cancel(call, self.clock.now)

    def run(self, until: float) -> None:
        """Turn after turn up to an instant, everything that falls due at it included."""
        while True:
            began = self.clock.now
            self.turn(until)
            if began >= until:
                return

    def run_for(self, seconds: float) -> None:
        self.run(self.clock.now + seconds)

    def turn(self, deadline: float | None = None) -> None:
        """One turn of the loop; the program reads what came and gives what is asked for."""
        for notice in self.driver.turn(deadline):
            self.log.append((self.clock.now, notice))
            if isinstance(notice, Deliver) and isinstance(notice.item, Call):
                self._read(notice.item)
            elif isinstance(notice, Rewind) and notice.call in self._sources:
                source, _ = self._sources[notice.call]
                self._sources[notice.call] = (source, iter(source()))
        for call in list(self._sources):
            self._feed(call)

    def _read(self, call: Call) -> None:
        if call not in self.unread:
            while (chunk := self.pool.take_chunk(call, self.clock.now)) is not None:
                self.bodies[call] = self.bodies.get(call, b"") + chunk

    def _feed(self, call: Call) -> None:
        while call.wants_content:
            piece = next(self._sources[call][1], None)
            self.pool.send_content(call, piece or b"", self.clock.now, end_stream=piece is None)
        if call.over:
            del self._sources[call]

    def stall(self, seconds: float) -> None:
        """The client's process stands still; everything else goes on."""
        self.network.advance(self.clock.now + seconds)

    def suspend(self, seconds: float, wake_s: float = 0.3) -> None:
        """The client's machine sleeps: nothing reaches it until `wake_s` after it has woken."""
        for server in self.servers.values():
            for line in server.lines:
                line.down.held_until = self.clock.now + seconds + wake_s
        self.stall(seconds)

    def told(self, kind: type[Value]) -> list[tuple[float, Any]]:
        """The notices of one kind, with their instants."""
        return [(at, notice) for at, notice in self.log if type(notice) is kind]
