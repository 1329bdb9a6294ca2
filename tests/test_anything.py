"""Any octets, in any cuts, into either role: events or one clear fault, and bounded memory.

Nobody named these cases.  H2LITE_EXAMPLES says how many a test tries; a failing one is told by its
seed or its octets.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from h2lite import events as ev
from h2lite.connection import Connection
from h2lite.errors import ErrorCode, UsageError
from h2lite.events import Event
from h2lite.framer import CLIENT_PREFACE
from h2lite.frames import FLAG_PADDED, GoAwayFrame, RstStreamFrame
from h2lite.limits import DEFAULT_LIMITS
from h2lite.settings import SettingId
from tests import conversations as cv
from tests.conversations import Call, Conversation, Raw, User
from tests.holding import allowance, held, overfull
from tests.pair import GET, OK, POST, TRAILERS, block, drain, parse, pieces

EXAMPLES = int(os.environ.get("H2LITE_EXAMPLES", "40"))

Cut = Callable[[bytes], Iterable[bytes]]
Script = list["bytes | Call"]

seeds = st.integers(0, 2**32)
sized = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
both_roles = pytest.mark.parametrize("client", [True, False], ids=["client", "server"])


# -- one life of a core ----------------------------------------------------------------------


class Life:
    """A core, what went in and what came out; what always holds is asserted all the while."""

    def __init__(self, client: bool, announced: dict[int, int] | None = None) -> None:
        self.core = Connection(client, announced)
        self.user = User(self.core)
        self.events: list[Event] = []
        self.frames: list[Any] = []  # all that came out
        self.refused: list[str] = []  # calls
        self.queued = self.fed = self.pieces = 0
        self.requests = self.streams_most = 0
        self.ended: set[int] = set()  # streams that were reset
        self.start = drain(self.core)

    def take(self, octets: bytes, now: float = 0.0) -> None:
        was_closed = self.core.closed
        events = self.core.receive_data(octets, now)
        self.fed = max(self.fed, len(octets))
        if was_closed:
            assert events == []
            assert self.core.closed
        failed = [event for event in events if isinstance(event, ev.ConnectionFailed)]
        assert failed in ([], events[-1:])
        assert not failed or self.core.closed
        for event in events:
            self._check_order(event)
        self.events += events
        self.pieces += 1
        if self.pieces % 100 == 0:
            self.check_bounds()

    def _check_order(self, event: Event) -> None:
        """After its reset a stream is heard of no more, and each only after its beginning."""
        stream_id = getattr(event, "stream_id", 0)
        assert stream_id not in self.ended, event
        if isinstance(event, ev.StreamReset):
            self.ended.add(stream_id)

    def check_bounds(self) -> None:
        streams = self.requests
        if not self.core.client:
            mine = SettingId.MAX_CONCURRENT_STREAMS
            # Streams that were open when it was lowered stay open.
            self.streams_most = max(self.streams_most, self.core.local_settings.largest(mine))
            streams = min(self.streams_most, DEFAULT_LIMITS.streams)
        now, most = held(self.core), allowance(self.core, streams, self.fed, self.queued)
        assert now.octets <= most.octets
        assert now.items <= most.items
        assert overfull(self.core, streams) == []
        # RFC 9113 §6.9: what is neither free nor unread was given back, or soon will be.
        window = self.core._receive_window
        withheld = self.core._withheld
        assert self.core.closed or window.size + window.owed + withheld == window.limit
        if not self.core.local_settings.unacked:
            for stream in self.core.streams.values():
                window = stream.receive_window
                assert window.size + window.owed + stream.unread_octets == window.limit

    def give(self) -> None:
        self.frames += parse(drain(self.core))
        # Or a loop would ask for ever.
        assert not self.core.has_output
        self.user.note_streams()

    def do(self, call: Call) -> None:
        """A call of the user's; only a refusal may come of it."""
        if isinstance(call.value, (bytes, list)):
            self.queued += len(repr(call.value)) + 1000
        self.requests += call.name == "request"
        try:
            self.user.do(call)
        except UsageError as error:
            self.refused.append(f"{call.name}: {error}")
        except KeyError:
            self.refused.append(f"{call.name} on a stream that never was")

    def run(self, script: Script, cut: Cut) -> Life:
        for step in script:
            if isinstance(step, Call):
                self.do(step)
            else:
                for piece in cut(step):
                    self.take(piece)
            self.check_bounds()
            self.give()
        self.check_end()
        return self

    def check_end(self) -> None:
        """Each fault was answered with the frame that says so, and a failure is the end."""
        told = [e for e in self.events if isinstance(e, ev.StreamReset) and not e.by_peer]
        resets = [frame for frame in self.frames if isinstance(frame, RstStreamFrame)]
        for event in told:
            assert RstStreamFrame(event.stream_id, event.error_code) in resets
        failed = [event for event in self.events if isinstance(event, ev.ConnectionFailed)]
        assert len(failed) <= 1
        if failed:
            goaway = [frame for frame in self.frames if isinstance(frame, GoAwayFrame)][-1]
            assert goaway.error_code == failed[0].error_code != ErrorCode.NO_ERROR
            before = len(self.events)
            self.take(b"" if self.core.client else CLIENT_PREFACE)
            self.take(Raw(cv.PING, 0, 0, bytes(8)).octets)
            assert len(self.events) == before
            assert drain(self.core) == b""
        else:
            assert not self.core.closed


def whole(octets: bytes) -> Iterable[bytes]:
    return [octets]


def octet_by_octet(octets: bytes) -> Iterable[bytes]:
    return pieces(octets, 1)


def at_random(seed: int) -> Cut:
    rng = Random(seed)

    def cut(octets: bytes) -> Iterable[bytes]:
        at = 0
        while at < len(octets):
            step = rng.choice((0, 1, 2, 8, 9, 10, 20, 100, 1000))
            yield octets[at : at + step]
            at += step

    return cut


def same_in_all_cuts(client: bool, script: Script, announced: dict[int, int] | None = None) -> Life:
    """What becomes of a script, the same in every cut."""
    total = sum(len(step) for step in script if not isinstance(step, Call))
    cuts = [whole, at_random(1), at_random(2), *([octet_by_octet] if total < 3000 else [])]
    lives = [Life(client, announced).run(script, cut) for cut in cuts]
    for life in lives[1:]:
        assert life.events == lives[0].events
        assert life.frames == lives[0].frames
        assert life.refused == lives[0].refused
    return lives[0]


def script_of(conversation: Conversation) -> Script:
    """The conversation's octets, in runs between its calls."""
    script: Script = [conversation.preface]
    for step in conversation.steps:
        if isinstance(step, Call):
            script.append(step)
        elif isinstance(script[-1], bytes):
            script[-1] += step.octets
        else:
            script.append(step.octets)
    return script


def beginning(client: bool) -> Script:
    """What a peer begins with; then a client has asked and a server was asked."""
    hello = Raw(cv.SETTINGS, 0, 0).octets + Raw(cv.SETTINGS, 1, 0).octets
    if client:
        requests = [Call("request", 1, GET, True), Call("request", 3, POST, False)]
        return [hello, *requests, b""]
    open_and_whole = Raw(cv.HEADERS, 4, 1, block(POST)).octets + Raw(
        cv.HEADERS, 5, 3, block(GET)
    ).octets
    return [CLIENT_PREFACE + hello + open_and_whole, Call("respond", 1, OK), b""]


# -- octets that mean nothing ----------------------------------------------------------------


@both_roles
@sized
@given(octets=st.binary(max_size=200))
def test_octets_from_the_start(client, octets):
    same_in_all_cuts(client, [octets])


@both_roles
@sized
@given(octets=st.binary(max_size=500))
def test_octets_after_a_good_beginning(client, octets):
    same_in_all_cuts(client, [*beginning(client), octets])


stream_ids = st.sampled_from([0, 1, 1, 2, 3, 4, 5, 101, 2**31 - 1, 2**31 + 1])
flags = st.one_of(st.sampled_from([0, 1, 4, 5, 8, 0x20]), st.integers(0, 255))
sizes = st.sampled_from([0, 1, 3, 4, 5, 6, 7, 8, 9, 12, 13])
payloads = st.one_of(sizes.flatmap(lambda n: st.binary(min_size=n, max_size=n)), st.binary())
frames = st.builds(Raw, st.integers(0, 10), flags, stream_ids, payloads, st.none())
lies = st.one_of(st.none(), st.integers(0, 30), st.sampled_from([16384, 16385, 2**24 - 1]))
lying = st.builds(Raw, st.integers(0, 10), flags, stream_ids, payloads, lies)


@both_roles
@sized
@given(sent=st.lists(frames, max_size=12))
def test_frames_of_all_types_with_anything_in_them(client, sent):
    octets = b"".join(frame.octets for frame in sent)
    same_in_all_cuts(client, [*beginning(client), octets])


@both_roles
@sized
@given(sent=st.lists(lying, min_size=1, max_size=6))
def test_frames_whose_length_may_be_a_lie(client, sent):
    octets = b"".join(frame.octets for frame in sent)
    same_in_all_cuts(client, [*beginning(client), octets])


@both_roles
@sized
@given(
    type_=st.integers(0, 12),
    stream_id=stream_ids,
    size=st.sampled_from([16383, 16384, 16385, 17000, 40_000]),
    octet=st.sampled_from([0, 1, 0xFF]),
)
def test_frames_that_may_be_too_large(client, type_, stream_id, size, octet):
    """What follows a frame that was passed over is found where that ends."""
    frame = Raw(type_, 0, stream_id, bytes((octet,)) * size).octets
    ping = Raw(cv.PING, 0, 0, b"behind..").octets

    life = same_in_all_cuts(client, [*beginning(client), frame + ping])

    heard = ev.PingReceived(b"behind..") in life.events
    assert heard or life.core.closed


@both_roles
@sized
@given(seed=seeds)
def test_a_flood_of_anything_is_bounded(client, seed):
    """A few frames, again and again on new streams, to a core whose output is not taken."""
    rng = Random(seed)
    section = (cv.HEADERS, 5 if rng.random() < 0.7 else 4, block(OK if client else GET))
    verse = [cv.some_frame(rng) for _ in range(rng.randint(0, 3))]
    life = Life(client).run(beginning(client)[:1], whole)
    stream_id = 1
    for number in range(400):
        octets = b""
        if client:
            life.do(Call("request", stream_id, GET, True))
            life.give()
        if rng.random() < 0.95:
            octets += Raw(section[0], section[1], stream_id, section[2]).octets
        for frame in verse:
            same = frame.stream_id == 0
            octets += frame._replace(stream_id=0 if same else stream_id).octets
        octets += Raw(cv.RST_STREAM, 0, stream_id, cv.u32(8)).octets
        life.take(octets, float(number))
        stream_id += 2
        if life.core.closed:
            break
    life.check_bounds()


hpack_octets = st.lists(
    st.one_of(
        st.integers(0x80, 0xFF).map(lambda octet: bytes((octet,))),  # an index
        st.integers(0x20, 0x3F).map(lambda octet: bytes((octet,))),  # a table size
        st.sampled_from([b"\x40\x01a\x01b", b"\x00\x01a\x00", b"\x10\x01A\x01b", b"\x41\x81\x1f"]),
        st.sampled_from([block(GET), block(OK), block(TRAILERS)]),
        st.binary(max_size=12),
    ),
    max_size=8,
).map(b"".join)


@both_roles
@sized
@given(blocks=st.lists(st.tuples(hpack_octets, st.integers(0, 3)), min_size=1, max_size=4))
@example(blocks=[(b"\x3f" + b"\xff" * 20, 0)])
def test_field_blocks_of_any_octets(client, blocks):
    octets = b""
    for number, (fields, cuts) in enumerate(blocks):
        stream_id = 1 + 2 * number if client else 5 + 2 * number
        section = cv.Section(stream_id, [], number % 2 == 0, cuts=cuts)
        octets += b"".join(frame.octets for frame in cv.section_frames(section, fields))
    same_in_all_cuts(client, [*beginning(client), octets])


# -- conversations ---------------------------------------------------------------------------


@both_roles
@sized
@given(seed=seeds)
def test_a_lawful_conversation_meets_no_fault_and_no_refusal(client, seed):
    conversation = cv.lawful(Random(seed), client)

    life = same_in_all_cuts(client, script_of(conversation), conversation.settings)

    faults = (ev.ConnectionFailed, ev.StreamReset)
    found = [event for event in life.events if isinstance(event, faults)]
    assert [event for event in found if not getattr(event, "by_peer", False)] == []
    assert life.refused == []
    mine = [step for step in conversation.steps if isinstance(step, Call) and step.name == "reset"]
    resets = [frame for frame in life.frames if isinstance(frame, RstStreamFrame)]
    assert resets == [RstStreamFrame(call.stream_id, call.value) for call in mine]
    check_told(conversation, life)


def check_told(conversation: Conversation, life: Life) -> None:
    """What the peer has said arrived: the content, the PINGs, the ends."""
    content: dict[int, bytes] = {}
    for event in life.events:
        if isinstance(event, ev.DataReceived):
            content[event.stream_id] = content.get(event.stream_id, b"") + bytes(event.data)
    said: dict[int, bytes] = {}
    reset: set[int] = set()
    pings = []
    for step in conversation.steps:
        if isinstance(step, Call):
            reset |= {step.stream_id} if step.name == "reset" else set()
        elif step.type == cv.DATA and step.stream_id not in reset:
            data = step.payload
            if step.flags & FLAG_PADDED:
                data = data[1 : len(data) - data[0]]
            said[step.stream_id] = said.get(step.stream_id, b"") + data
        elif step.type == cv.PING:
            pings.append(step.payload)
    assert content == said
    heard = (ev.PingReceived, ev.UnknownPingAcked, ev.PingAcked)
    assert [event.opaque_data for event in life.events if isinstance(event, heard)] == pings


@both_roles
@sized
@given(seed=seeds)
def test_a_conversation_with_one_thing_wrong_gives_events_or_one_fault(client, seed):
    conversation = cv.mutated(Random(seed), client)

    same_in_all_cuts(client, script_of(conversation), conversation.settings)


@both_roles
@sized
@given(seed=seeds)
def test_any_call_at_any_time_is_done_or_refused(client, seed):
    rng = Random(seed)
    conversation = rng.choice((cv.lawful, cv.mutated))(rng, client)
    life = Life(client, conversation.settings)
    caller = AnyCalls(rng, life)
    life.take(conversation.preface)

    for number, step in enumerate(conversation.steps):
        if isinstance(step, Call):
            life.do(step)
        else:
            life.take(step.octets, float(number))
        for _ in range(rng.choice((0, 0, 1, 3))):
            caller.one()
        life.check_bounds()

    life.core.receive_eof()
    caller.one()
    assert life.core.closed
    assert drain(life.core) == b""


class AnyCalls:
    """Calls of the core's public methods, with values right and wrong, drawn at random."""

    def __init__(self, rng: Random, life: Life) -> None:
        self.rng, self.life, self.core = rng, life, life.core
        self.now = 0.0

    def one(self) -> None:
        self.now += self.rng.choice((0.0, 0.01, 100.0))
        self.life.user.note_streams()
        try:
            self.rng.choice(self.calls())()
        except UsageError as error:
            self.life.refused.append(str(error))

    def calls(self) -> list[Callable[[], Any]]:
        core, rng, now = self.core, self.rng, self.now
        streams = [*self.life.user.handles.values()]
        codes = (ErrorCode.NO_ERROR, ErrorCode.CANCEL, ErrorCode.INTERNAL_ERROR)
        fields = rng.choice(
            (GET, POST, OK, TRAILERS, [], [(b":status", b"103")], cv.changed_fields(rng, GET))
        )
        data = bytes(rng.choice((0, 1, 1000)))
        self.life.queued += len(data) + 2000
        end = rng.random() < 0.5
        value = rng.choice((0, 1, 100, 65535, 2**31 - 1, 2**31, 2**32))
        calls: list[Callable[[], Any]] = [
            lambda: self.request(fields, end),
            lambda: core.ping(rng.randbytes(8), now),
            lambda: core.update_settings({rng.randrange(8): value}, now),
            lambda: core.data_consumed(rng.choice((0, 1, 3)), rng.choice((0, 1, 100, -1))),
            lambda: core.handle_deadline(now),
            core.next_deadline,
            self.send_some,
            lambda: core.forget_ping(bytes(8)),
        ]
        if rng.random() < 0.1:
            calls += [lambda: core.goaway(rng.choice(codes), data), core.announce_goaway]
        if streams:
            stream = rng.choice(streams)
            calls += [
                lambda: core.send_response(stream, fields, end),
                lambda: core.send_data(stream, data, end),
                lambda: core.send_trailers(stream, fields),
                lambda: core.stop_request(stream),
                lambda: core.reset_stream(stream, rng.choice(codes)),
            ]
        return calls

    def request(self, fields: Any, end: bool) -> None:
        self.life.requests += 1
        stream = self.core.send_request(fields, end)
        self.life.user.handles[-self.life.requests] = stream

    def send_some(self) -> None:
        """Octets for a transport that may not take them all."""
        octets = self.core.data_to_send(self.now, self.rng.choice((1, 50, 65536)))
        if octets and self.rng.random() < 0.5:
            self.core.put_back(octets[self.rng.randrange(len(octets)) :])


def test_what_is_held_is_found_wherever_it_is():
    core = Connection(client=False)
    before = held(core)

    core._queue_control(bytes(1000))
    core._resets = dict.fromkeys(range(50), 0)
    core._framer._held = [b"abc", b"def"]

    after = held(core)
    assert after.octets - before.octets == 1006
    assert after.items - before.items == 53


def test_the_seeds_make_the_same_conversations():
    assert [cv.mutated(random.Random(n), True) for n in range(50)] == [
        cv.mutated(random.Random(n), True) for n in range(50)
    ]
