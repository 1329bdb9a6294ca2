"""The loop under a virtual clock, and a Link over a socketpair; nothing here waits for time."""

from __future__ import annotations

import gc
import selectors
import socket
import struct
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from h2lite.connection import Connection
from h2lite.errors import ErrorCode, UsageError
from h2lite.events import (
    ConnectionEnded,
    ConnectionFailed,
    DataReceived,
    OctetsReceived,
    PingReceived,
    SettingsReceived,
)
from h2lite.framer import CLIENT_PREFACE, Framer
from h2lite.frames import (
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from h2lite.limits import DEFAULT_LIMITS
from h2lite.loop import (
    LINGER_S,
    READ,
    RECV_OCTETS_MAX,
    WORK_A_TURN,
    WRITE,
    Link,
    Loop,
    Source,
)
from h2lite.testing import Clock
from h2lite.transport import RECV_OCTETS, TLSBroken, Transport, prepare
from h2lite.value import Value

from .pair import GET, block, feed
from .running import tcp_pair


class Happened(Value):
    """What a Recorder reports: which method the loop called, and with what."""

    __slots__ = ("how", "value")

    def __init__(self, how: str, value: float) -> None:
        self.how = how
        self.value = value


class Recorder(Source):
    def __init__(self) -> None:
        self.flushed: list[float] = []

    def ready(self, mask: int, now: float) -> list[Value]:
        return [Happened("ready", mask)]

    def flush(self, now: float) -> None:
        self.flushed.append(now)

    def handle_deadline(self, now: float) -> list[Value]:
        return [Happened("deadline", now)]


@pytest.fixture
def clock() -> Clock:
    return Clock(100.0)


@pytest.fixture
def loop(clock: Clock) -> Iterator[Loop]:
    loop = Loop(clock)
    yield loop
    loop.close()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    for end in (left, right):
        end.setblocking(False)
    with left, right:
        yield left, right


# -- watching ----------------------------------------------------------------------------------


def test_a_readable_descriptor_is_reported_with_its_source(loop, clock, ends):
    source = Recorder()
    loop.watch(source, ends[0].fileno(), READ)

    assert loop.turn(clock.now) == []
    ends[1].send(b"x")
    assert loop.turn(None) == [(source, Happened("ready", READ))]


def test_what_is_watched_can_change(loop, clock, ends):
    source = Recorder()
    loop.watch(source, ends[0].fileno(), READ)
    loop.watch(source, ends[0].fileno(), READ)
    loop.watch(source, ends[0].fileno(), READ | WRITE)

    assert loop.turn(None) == [(source, Happened("ready", WRITE))]
    loop.watch(source, ends[0].fileno(), 0)
    loop.watch(source, ends[0].fileno(), 0)
    assert loop.turn(clock.now) == []


def test_a_forgotten_source_is_never_called(loop, clock, ends):
    source = Recorder()
    loop.watch(source, ends[0].fileno(), READ)
    loop.touch(source)
    loop.set_deadline(source, clock.now)
    ends[1].send(b"x")

    loop.forget(source, ends[0].fileno())

    loop.flush()
    assert (loop.turn(clock.now), source.flushed, loop.next_deadline()) == ([], [], None)


# -- deadlines ---------------------------------------------------------------------------------


def test_deadlines_pass_in_their_order_and_once(loop, clock):
    late, early, middle, future = (Recorder() for _ in range(4))
    for source, seconds in ((late, 3.0), (early, 1.0), (middle, 2.0), (future, 4.0)):
        loop.set_deadline(source, clock.now + seconds)
    assert loop.next_deadline() == clock.now + 1.0

    clock.now += 3.0

    passed = Happened("deadline", clock.now)
    assert loop.turn(clock.now) == [(early, passed), (middle, passed), (late, passed)]
    assert loop.turn(clock.now) == []
    assert loop.next_deadline() == clock.now + 1.0


def test_equal_deadlines_pass_in_the_order_they_were_set(loop, clock):
    sources = [Recorder() for _ in range(3)]
    for source in sources:
        loop.set_deadline(source, clock.now)

    assert [source for source, _ in loop.turn(clock.now)] == sources


def test_a_moved_deadline_counts_only_where_it_was_moved_to(loop, clock):
    source = Recorder()
    loop.set_deadline(source, clock.now + 1.0)
    loop.set_deadline(source, clock.now + 9.0)
    assert loop.next_deadline() == clock.now + 9.0

    clock.now += 5.0
    assert loop.turn(clock.now) == []
    clock.now += 4.0
    assert loop.turn(clock.now) == [(source, Happened("deadline", clock.now))]


def test_a_cancelled_deadline_never_passes(loop, clock):
    source = Recorder()
    loop.set_deadline(source, clock.now)
    loop.set_deadline(source, None)
    loop.set_deadline(source, None)

    assert (loop.next_deadline(), loop.turn(clock.now)) == (None, [])


def test_a_deadline_is_judged_after_reading(loop, clock, ends):
    class Relieved(Recorder):
        def ready(self, mask: int, now: float) -> list[Value]:
            loop.set_deadline(self, None)
            return super().ready(mask, now)

    source = Relieved()
    loop.watch(source, ends[0].fileno(), READ)
    loop.set_deadline(source, clock.now)
    ends[1].send(b"x")

    assert loop.turn(None) == [(source, Happened("ready", READ))]
    assert loop.next_deadline() is None


def test_a_deadline_that_passed_during_the_wait_is_judged_one_turn_later(ends):
    """A process that was stopped in select reads all that came before it judges anybody."""
    instants = iter([0.0, 60.0, 60.0, 60.0])
    loop = Loop(lambda: next(instants))
    source = Recorder()
    loop.watch(source, ends[0].fileno(), READ)
    loop.set_deadline(source, 30.0)
    ends[1].send(b"x")

    assert loop.turn(None) == [(source, Happened("ready", READ))]
    expected = [(source, Happened("ready", READ)), (source, Happened("deadline", 60.0))]
    assert loop.turn(None) == expected
    loop.close()


# -- waking and flushing -----------------------------------------------------------------------


def test_a_wake_before_the_wait_is_not_lost(loop):
    loop.open_waker()
    loop.open_waker()
    loop.wake()

    assert loop.turn(None) == []


def test_a_wake_ends_the_wait_of_another_thread(loop):
    loop.open_waker()
    turns: list[list[tuple[Source, Value]]] = []
    thread = threading.Thread(target=lambda: turns.append(loop.turn(None)))
    thread.start()

    loop.wake()

    thread.join(10)
    assert (thread.is_alive(), turns) == (False, [[]])


def test_more_wakes_than_a_socket_holds_are_no_error(loop):
    loop.open_waker()
    for _ in range(5000):
        loop.wake()

    assert loop.turn(None) == []


def test_a_wake_without_a_waker_does_nothing(loop, clock):
    loop.wake()

    assert loop.turn(clock.now) == []


def test_touched_sources_are_flushed_once_and_in_order(loop, clock):
    order: list[Source] = []

    class Ordered(Recorder):
        def flush(self, now: float) -> None:
            order.append(self)

    first, second = Ordered(), Ordered()
    for source in (first, second, first):
        loop.touch(source)

    loop.flush()
    loop.flush()

    assert order == [first, second]


def test_nobody_waits_while_a_source_has_more_to_send(loop, clock):
    class Eager(Recorder):
        def flush(self, now: float) -> None:
            super().flush(now)
            if len(self.flushed) < 2:
                loop.touch(self)

    source = Eager()
    loop.touch(source)
    loop.flush()

    assert loop.turn(None) == []  # would wait for ever otherwise
    loop.flush()
    assert source.flushed == [clock.now, clock.now]


# -- a link ------------------------------------------------------------------------------------


class Ends:
    """A client's Link, and the raw socket at its other end with a server's core."""

    def __init__(self, loop: Loop, left: socket.socket, right: socket.socket) -> None:
        prepare(left)
        right.setblocking(False)
        self.loop = loop
        self.right = right
        self.server = Connection(client=False)
        self.client = Connection(client=True)
        self.link = Link(loop, Transport(left, ("left", 1)), self.client)

    def turn(self) -> list[Value]:
        """One turn that does not wait."""
        now = self.loop.clock()
        return [event for _, event in self.loop.turn(now)]

    def taken(self) -> bytes:
        """What has arrived at the other end."""
        octets = b""
        while True:
            try:
                piece = self.right.recv(65536)
            except BlockingIOError:
                return octets
            if not piece:
                return octets
            octets += piece

    def exchange(self) -> list[Value]:
        """Let both ends talk until neither has anything to say; what the server saw."""
        seen: list[Value] = []
        while True:
            self.loop.flush()
            octets = self.taken()
            seen += self.server.receive_data(octets, 0.0)
            answer = self.server.data_to_send(0.0)
            self.right.sendall(answer)
            self.turn()
            if not octets and not answer:
                return seen


@pytest.fixture
def link_ends(loop, ends) -> Iterator[Ends]:
    pair = Ends(loop, *ends)
    yield pair
    pair.link.end("the test is over")


REQUEST = [(b":method", b"PUT"), (b":scheme", b"http"), (b":path", b"/")]
CONTENT = bytes(range(256)) * 1024
PROLOGUE = Connection(client=False).data_to_send(0.0)  # a framer wants SETTINGS first


class Narrow(Transport):
    """A socket that takes a few octets at a time and then asks to wait."""

    width = 1

    def send(self, data: bytes) -> int:
        return super().send(data[: self.width])


@pytest.mark.parametrize("width", [1, 2, 8, 9, 10, 17, 24, 25, 60, 100, 1000])
def test_octets_arrive_unchanged_however_little_the_socket_takes(loop, ends, width):
    """Cut at every place: the preface, a frame header, a payload."""

    def speak(connection: Connection) -> None:
        stream = connection.send_request(REQUEST, end_stream=False)
        connection.send_data(stream, CONTENT[:500], end_stream=True)
        connection.ping(b"12345678", 0.0)

    twin = Connection(client=True)
    speak(twin)
    pair = Ends(loop, *ends)
    transport = Narrow(ends[0], ("left", 1))
    transport.width = width
    pair.link.transport = transport
    speak(pair.client)

    arrived = b""
    for _ in range(2000):
        loop.flush()
        arrived += pair.taken()
        pair.turn()

    assert arrived == twin.data_to_send(0.0)
    pair.link.end("the test is over")


def test_a_megabyte_passes_through_a_small_socket_buffer(loop, ends):
    ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pair = Ends(loop, *ends)
    pair.exchange()
    stream = pair.client.send_request(REQUEST, end_stream=False)
    pair.client.send_data(stream, CONTENT * 4, end_stream=True)
    loop.touch(pair.link)

    content = b""
    while stream.queued_octets or not content:
        for event in pair.exchange():
            if isinstance(event, DataReceived):
                content += event.data
                pair.server.data_consumed(event.stream_id, len(event.data))

    assert content == CONTENT * 4
    pair.link.end("the test is over")


def test_a_ping_is_let_in_before_the_data_that_a_full_socket_refused(loop, ends):
    ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pair = Ends(loop, *ends)
    pair.exchange()
    stream = pair.client.send_request(REQUEST, end_stream=False)
    pair.client.send_data(stream, CONTENT, end_stream=True)
    loop.touch(pair.link)
    loop.flush()
    arrived = pair.taken()  # the socket is full: what is on its way is here

    pair.client.ping(b"12345678", 0.0)
    loop.touch(pair.link)
    for _ in range(1000):
        loop.flush()
        arrived += pair.taken()
        pair.turn()

    framer = Framer(max_frame_size=2**20)
    framer.feed(PROLOGUE + arrived)
    kinds = [type(frame) for frame in iter(framer.next_frame, None)]
    after = kinds[kinds.index(PingFrame) + 1 :]
    # One whole frame was on its way at most; three of those offered with it come later.
    assert kinds.index(DataFrame) < kinds.index(PingFrame)
    assert after.count(DataFrame) >= 2
    pair.link.end("the test is over")


@pytest.mark.rfc("preface-in-clear")
@pytest.mark.parametrize("client", [True, False])
def test_a_link_begins_with_its_preface_before_the_peer_has_said_a_word(loop, ends, client):
    link = Link(loop, Transport(ends[0], ("left", 1)), Connection(client=client))

    loop.flush()

    octets = ends[1].recv(65536)
    preface = CLIENT_PREFACE if client else b""
    assert octets.startswith(preface)
    assert octets[len(preface) + 3] == SettingsFrame.TYPE
    link.end("the test is over")


class Flood(Transport):
    """A socket whose every recv is as full as is asked for."""

    octets = bytes.fromhex("003fff 00 00 00000001") + bytes(16383)  # DATA

    def recv(self) -> bytes:
        return (self.octets * (self.recv_octets // len(self.octets) + 1))[: self.recv_octets]


@pytest.mark.parametrize(
    ("client", "octets", "then"),
    [
        (True, Flood.octets, RECV_OCTETS_MAX),
        (True, WindowUpdateFrame(0, 1).encode(), RECV_OCTETS),  # so many that they must wait
        (False, Flood.octets, RECV_OCTETS),
    ],
)
def test_a_client_reads_more_at_once_where_recv_was_full(loop, ends, client, octets, then):
    core = Connection(client=client)
    flood = Flood(ends[0], ("left", 1))
    link = Link(loop, flood, core)
    core.data_to_send(0.0)
    core.receive_data((b"" if client else CLIENT_PREFACE) + PROLOGUE, 0.0)
    flood.octets = octets

    link.ready(READ, 0.0)

    assert flood.recv_octets == then
    link.end("the test is over")


def test_a_client_reads_as_little_as_before_once_recv_is_not_full(link_ends):
    link_ends.exchange()
    link_ends.link.transport.recv_octets = RECV_OCTETS_MAX
    link_ends.server.ping(b"12345678", 0.0)
    link_ends.exchange()

    assert link_ends.link.transport.recv_octets == RECV_OCTETS


def test_the_peers_end_is_reported_once_and_closes_the_socket(link_ends, ends):
    link_ends.exchange()
    ends[1].close()

    assert link_ends.turn() == [ConnectionEnded("eof", "eof")]
    assert (link_ends.link.ended, link_ends.client.closed, ends[0].fileno()) == (True, True, -1)
    link_ends.loop.flush()
    assert link_ends.turn() == []
    assert link_ends.link.end("again") == []


def test_a_reset_is_reported_with_the_systems_words(loop):
    left, right = tcp_pair()
    pair = Ends(loop, left, right)
    right.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    right.close()

    events = [event for _, event in loop.turn(None)]

    assert events == [ConnectionEnded("Connection reset by peer", "reset")]
    assert (pair.link.ended, left.fileno()) == (True, -1)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ConnectionResetError(104, "reset"), "reset"),
        (BrokenPipeError(32, "broken pipe"), "reset"),
        (TimeoutError(110, "timed out"), "path_dead"),
        (TLSBroken(1, "TLS failed: bad record mac"), "tls"),
        (OSError(113, "no route"), "unknown"),
    ],
)
def test_a_failing_socket_tells_why_the_connection_ended(link_ends, monkeypatch, error, cause):
    link_ends.exchange()

    def recv(self: Transport) -> bytes:
        raise error

    link_ends.right.sendall(b"x")
    monkeypatch.setattr(Transport, "recv", recv)

    assert link_ends.turn() == [ConnectionEnded(error.strerror, cause)]


def test_an_error_of_encoding_is_not_taken_for_the_sockets(link_ends, monkeypatch):
    """Without descriptors not even a module can be loaded; nothing would come by the next recv."""
    link_ends.exchange()

    def failing(connection: Connection, now: float) -> bytes:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Connection, "data_to_send", failing)
    link_ends.loop.touch(link_ends.link)
    with pytest.raises(OSError, match="open files"):
        link_ends.loop.flush()

    assert link_ends.turn() == [ConnectionEnded("interrupted here", "local")]


@pytest.mark.parametrize("spoke", [False, True], ids=["silent", "spoke"])
def test_a_reset_that_a_send_was_told_of_is_no_end_of_the_stream(loop, spoke):
    """The system says it once, and then only that nothing more comes."""
    pair = Ends(loop, *tcp_pair())
    pair.exchange()
    if spoke:
        pair.right.sendall(PingFrame(b"12345678").encode())
    pair.right.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pair.right.close()
    pair.client.ping(b"87654321", 0.0)
    loop.touch(pair.link)
    loop.flush()

    came = [PingReceived(b"12345678")] if spoke else []  # one recv a turn
    ended = ConnectionEnded("Connection reset by peer", "reset")
    assert [*pair.turn(), *pair.turn()] == [*came, ended]


def test_octets_that_complete_nothing_are_told_all_the_same(link_ends):
    link_ends.exchange()
    link_ends.server.ping(b"question", 0.0)
    octets = link_ends.server.data_to_send(0.0)

    link_ends.right.sendall(octets[:5])
    assert link_ends.turn() == [OctetsReceived()]
    link_ends.right.sendall(octets[5:])
    assert link_ends.turn() == [PingReceived(b"question")]


def test_a_link_tells_what_its_last_send_came_to(loop, ends):
    ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pair = Ends(loop, *ends)
    pair.exchange()
    loop.touch(pair.link)
    loop.flush()
    assert (pair.link.took, pair.link.queued) == (False, False)

    stream = pair.client.send_request(REQUEST, end_stream=False)
    pair.client.send_data(stream, CONTENT * 4, end_stream=True)
    loop.touch(pair.link)
    loop.flush()
    assert (pair.link.took, pair.link.queued) == (True, True)
    loop.touch(pair.link)
    loop.flush()  # the socket is full: it is not even tried
    assert (pair.link.took, pair.link.queued) == (False, True)
    pair.link.end("the test is over")


def test_what_a_broken_socket_will_never_take_is_queued(link_ends, ends):
    link_ends.exchange()
    ends[1].close()
    link_ends.client.ping(b"question", 0.0)
    link_ends.loop.touch(link_ends.link)
    link_ends.loop.flush()
    assert (link_ends.link.took, link_ends.link.queued) == (False, False)

    link_ends.client.ping(b"another.", 0.0)
    assert link_ends.link.queued
    link_ends.link.end("the test is over")


def test_an_aborted_link_resets_and_reports_nothing(loop):
    left, right = tcp_pair()
    pair = Ends(loop, left, right)
    pair.exchange()

    pair.link.abort()
    pair.link.abort()

    with pytest.raises(ConnectionResetError):
        right.recv(1)
    right.close()
    assert (pair.link.ended, left.fileno(), pair.client.closed) == (True, -1, True)
    assert (len(loop._timers), loop._masks) == (0, {})


@pytest.mark.rfc("read-promptly")
def test_a_link_with_a_full_socket_still_reads_what_the_peer_says(loop, ends):
    ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pair = Ends(loop, *ends)
    pair.exchange()
    stream = pair.client.send_request(REQUEST, end_stream=False)
    pair.client.send_data(stream, CONTENT * 4, end_stream=True)
    loop.touch(pair.link)
    for _ in range(100):
        loop.flush()
        pair.turn()
    assert stream.queued_octets  # nobody reads at the other end

    pair.server.ping(b"question", 0.0)
    pair.right.sendall(pair.server.data_to_send(0.0))

    assert pair.turn() == [PingReceived(b"question")]
    pair.link.end("the test is over")


@pytest.mark.rfc("read-promptly")
def test_a_link_that_can_send_no_more_still_reads_what_the_peer_said(link_ends, ends):
    link_ends.server.ping(b"goodbye.", 0.0)
    ends[1].sendall(link_ends.server.data_to_send(0.0))
    ends[1].shutdown(socket.SHUT_RD)

    link_ends.loop.flush()  # the send fails; nothing is raised, nothing is reported
    events = link_ends.turn()

    kinds = [type(event) for event in events]
    assert SettingsReceived in kinds
    assert events[-1] == PingReceived(b"goodbye.")
    assert not link_ends.link.ended
    link_ends.loop.flush()
    ends[1].close()
    assert link_ends.turn() == [ConnectionEnded("eof", "eof")]


@pytest.mark.rfc("connection-error-closes")
def test_a_finished_link_sends_its_goaway_then_its_end(link_ends, ends):
    link_ends.exchange()
    link_ends.client.goaway()
    link_ends.link.finish()
    link_ends.link.finish()
    link_ends.loop.flush()

    assert ends[1].recv(65536) == GoAwayFrame(0, 0, b"").encode()
    assert ends[1].recv(65536) == b""
    assert not link_ends.link.ended
    ends[1].close()
    assert link_ends.turn() == [ConnectionEnded("eof", "eof")]


@pytest.mark.rfc("connection-error-closes")
def test_a_finished_link_waits_for_a_peer_that_stays_no_longer_than_it_lingers(
    link_ends, ends, clock
):
    link_ends.exchange()
    link_ends.client.goaway()
    link_ends.link.finish()
    link_ends.loop.flush()

    clock.now += LINGER_S - 0.001
    assert link_ends.turn() == []
    clock.now += 0.002
    assert link_ends.turn() == [ConnectionEnded("closed here", "local")]
    assert ends[0].fileno() == -1


@pytest.mark.rfc("settings-timeout")
def test_a_link_gives_up_on_a_peer_that_never_acknowledges_its_settings(link_ends, clock):
    link_ends.loop.flush()
    clock.now += DEFAULT_LIMITS.settings_timeout - 1
    link_ends.server.ping(b"12345678", clock.now)
    link_ends.right.sendall(link_ends.server.data_to_send(clock.now))
    assert [type(event) for event in link_ends.turn()][-1] is PingReceived
    heard_at = clock.now

    clock.now += 2  # the timer set at first: octets have put off what it is for
    assert link_ends.turn() == []
    clock.now = heard_at + DEFAULT_LIMITS.settings_timeout - 0.001
    assert link_ends.turn() == []
    clock.now = heard_at + DEFAULT_LIMITS.settings_timeout

    (failed,) = link_ends.turn()

    assert isinstance(failed, ConnectionFailed)
    assert failed.error_code == ErrorCode.SETTINGS_TIMEOUT


def test_a_finished_link_with_a_full_socket_sends_everything_before_its_end(loop, ends):
    ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pair = Ends(loop, *ends)
    pair.exchange()
    stream = pair.client.send_request(REQUEST, end_stream=False)
    pair.client.send_data(stream, CONTENT[:60000], end_stream=True)
    loop.touch(pair.link)
    loop.flush()
    assert stream.queued_octets or pair.client.has_output
    pair.client.goaway()
    pair.link.finish()

    arrived = b""
    for _ in range(1000):
        loop.flush()
        arrived += pair.taken()
        pair.turn()

    framer = Framer(max_frame_size=2**20)
    framer.feed(PROLOGUE + arrived)
    frames = list(iter(framer.next_frame, None))
    assert b"".join(f.data for f in frames if isinstance(f, DataFrame)) == CONTENT[:60000]
    assert GoAwayFrame(0, 0, b"") in frames
    assert ends[1].recv(1) == b""
    pair.link.end("the test is over")


def test_wake_after_close_does_nothing():
    loop = Loop(Clock())
    loop.open_waker()
    loop.close()

    loop.wake()


def test_a_forgotten_source_is_not_kept_alive_by_its_deadline(loop, clock, ends):
    for _ in range(1000):
        source = Recorder()
        loop.set_deadline(source, clock.now + 30)
        loop.forget(source, ends[0].fileno())
    gone = weakref.ref(source)

    del source
    gc.collect()

    assert gone() is None
    assert len(loop._timers._heap) < 200
    assert loop.next_deadline() is None


# -- who has much to say -----------------------------------------------------------------------


def test_what_one_peer_says_at_once_is_understood_in_several_turns(link_ends):
    link_ends.exchange()
    link_ends.right.sendall(PingFrame(b"12345678").encode() * (WORK_A_TURN + 800))

    assert told_in_turns(link_ends) == [WORK_A_TURN, 800]


def told_in_turns(ends: Ends) -> list[int]:
    """How many events each turn gave, until one has nothing left to do at once."""
    told: list[int] = []
    while ends.loop.patience(None, 0.0) == 0.0 or not told:
        told.append(len(ends.turn()))
        ends.loop.flush()
        ends.taken()
    return told


def test_field_lines_count_as_much_as_frames():
    server = Connection(client=False)
    feed(server, CLIENT_PREFACE, SettingsFrame(), SettingsFrame(ack=True))
    lines = [*GET, *[(b"x", b"")] * 96]
    octets = b"".join(HeadersFrame(at, block(lines), True).encode() for at in range(1, 80, 2))

    first = server.receive_data(octets, 0.0, 1000)
    assert (len(first), server.backlog) == (10, True)
    with pytest.raises(UsageError):
        server.receive_data(b"more", 0.0)
    rest = server.receive_data(b"", 0.0)
    assert (len(rest), server.backlog) == (30, False)


class Decrypted(Transport):
    """As TLS has it: octets may be here that the selector does not see."""

    hidden = b""

    def recv(self) -> bytes | None:
        if not self.hidden:
            self.hidden = super().recv() or b""
        data, self.hidden = self.hidden[:17000], self.hidden[17000:]
        return data or None

    def pending(self) -> int:
        return len(self.hidden)


def test_what_was_decrypted_meanwhile_is_read_once_that_is_understood(link_ends):
    link_ends.exchange()
    link_ends.link.transport = Decrypted(link_ends.link.transport.sock, ("left", 1))
    link_ends.right.sendall(PingFrame(b"12345678").encode() * 1800)

    assert told_in_turns(link_ends) == [1000, 800]


def test_an_end_forgets_what_was_left_to_be_understood(link_ends, loop):
    link_ends.exchange()
    link_ends.right.sendall(PingFrame(b"12345678").encode() * 3000)
    link_ends.turn()
    assert link_ends.client.backlog
    link_ends.link.end("no more of it")

    assert not link_ends.client.backlog
    assert loop.patience(1.0, 0.0) == 1.0
    assert link_ends.turn() == []


# -- looking again before sleeping -----------------------------------------------------------------


class Looks(selectors.SelectSelector):
    """Sees something at its third look, and notes how long it was to wait each time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.waits: list[float | None] = []

    def select(self, timeout: float | None = None) -> list[Any]:
        self.waits.append(timeout)
        self.clock.now += 0.0001
        return ["ready"] if len(self.waits) == 3 else []


@pytest.mark.parametrize(
    ("spin", "waits"),
    [
        (0.0, [5.0]),
        (0.0001, [0.0, pytest.approx(4.9999)]),
        (0.0009, [0.0, 0.0, 0.0]),
    ],
)
def test_a_wait_looks_again_and_again_for_as_long_as_was_asked(spin, waits):
    clock = Clock()
    looks = Looks(clock)
    loop = Loop(clock, looks, spin)

    ready = loop.select(5.0)

    assert looks.waits == waits
    assert ready == (["ready"] if len(waits) == 3 else [])
    loop.close()


def test_nothing_is_looked_for_twice_where_nothing_is_waited_for():
    clock = Clock()
    looks = Looks(clock)
    loop = Loop(clock, looks, spin=0.001)

    assert (loop.select(0.0), looks.waits) == ([], [0.0])
    loop.close()
