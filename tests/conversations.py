"""Conversations of one peer with one core: lawful ones, and the same with one thing wrong.

A conversation is a list of steps, drawn from a `random.Random`: frames that the peer sends, and
calls that the core's user makes meanwhile.  The plan behind it keeps its own account of streams and
windows, so that what it says is lawful whoever listens.  Then a mutation may change one thing.
Frames are packed by hand, so that wrong ones can be made.  `User` makes the calls on a core.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from h2lite.connection import Connection
from h2lite.errors import ErrorCode
from h2lite.fields import FieldEncoder
from h2lite.framer import CLIENT_PREFACE
from h2lite.frames import (
    FLAG_ACK,
    FLAG_END_HEADERS,
    FLAG_END_STREAM,
    FLAG_PADDED,
    FLAG_PRIORITY,
    FRAME_HEADER,
    MAX_STREAM_ID,
)
from h2lite.settings import MAX_WINDOW_SIZE, SettingId

if TYPE_CHECKING:
    from h2lite.events import Fields
    from h2lite.stream import Stream

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)

DEFAULT_WINDOW = 65535  # the connection's, which a core may widen; no plan counts on that
STEPS = (5, 40)
DATA_OCTETS = (1, 1, 10, 300, 2000)
NAMES = (b"x-a", b"x-b", b"accept", b"user-agent", b"cookie", b"authorization", b"etag")
VALUES = (b"", b"1", b"a value", b"another value, longer than the first", b"\xc3\xbc")


class Raw(NamedTuple):
    """A frame on the wire, right or wrong.  length: what its header says; None: the truth."""

    type: int
    flags: int
    stream_id: int
    payload: bytes = b""
    length: int | None = None

    @property
    def octets(self) -> bytes:
        length = len(self.payload) if self.length is None else self.length
        header = length >> 8, length & 0xFF, self.type, self.flags, self.stream_id
        return FRAME_HEADER.pack(*header) + self.payload


class Call(NamedTuple):
    """What the core's user does: request, respond, send, trailers, reset, ping or settings."""

    name: str
    stream_id: int = 0
    value: Any = None
    end: bool = False


class Section(NamedTuple):
    """A field section that the peer sends, before HPACK.

    pad, priority   the Pad Length and the 5 octets of priority, None: without
    cuts            how many CONTINUATIONs carry its rest
    """

    stream_id: int
    fields: Fields
    end: bool
    pad: int | None = None
    priority: bytes | None = None
    cuts: int = 0


class Table(NamedTuple):
    """The peer acknowledges another HEADER_TABLE_SIZE of the core's."""

    size: int


class Conversation(NamedTuple):
    """steps: Raw frames and Calls in order; settings: announced by the core; mutation: or ""."""

    core_is_client: bool
    settings: dict[int, int]
    steps: list[Raw | Call]
    mutation: str = ""

    @property
    def preface(self) -> bytes:
        """The peer's octets before its first frame."""
        return b"" if self.core_is_client else CLIENT_PREFACE

    @property
    def frames(self) -> list[Raw]:
        return [step for step in self.steps if isinstance(step, Raw)]


def lawful(rng: Random, core_is_client: bool) -> Conversation:
    """A conversation in which nobody does anything wrong."""
    plan = Plan(rng, core_is_client)
    return Conversation(core_is_client, plan.settings, encoded(plan.run()))


def mutated(rng: Random, core_is_client: bool) -> Conversation:
    """A conversation with one thing changed, which may or may not be a fault."""
    plan = Plan(rng, core_is_client)
    planned = plan.run()
    name = rng.choice([*MUTATIONS, "field", "field", "field"])
    sections = [at for at, step in enumerate(planned) if isinstance(step, Section)]
    if name == "field" and sections:
        at = rng.choice(sections)
        section = planned[at]
        assert isinstance(section, Section)
        planned[at] = section._replace(fields=changed_fields(rng, section.fields))
        return Conversation(core_is_client, plan.settings, encoded(planned), name)
    steps = encoded(planned)
    name = rng.choice([*MUTATIONS]) if name == "field" else name
    frames = [at for at, step in enumerate(steps) if isinstance(step, Raw)]
    MUTATIONS[name](rng, steps, frames)
    return Conversation(core_is_client, plan.settings, steps, name)


def encoded(planned: list[Raw | Call | Section | Table]) -> list[Raw | Call]:
    """The steps with field sections as HEADERS and CONTINUATIONs."""
    encoder = FieldEncoder()
    steps: list[Raw | Call] = []
    for step in planned:
        if isinstance(step, Section):
            steps += section_frames(step, encoder.encode(step.fields))
        elif isinstance(step, Table):
            encoder.set_table_size(step.size)
        else:
            steps.append(step)
    return steps


def section_frames(section: Section, block: bytes) -> list[Raw]:
    """HEADERS, and CONTINUATIONs of about the same size."""
    size = len(block) // (section.cuts + 1) + 1
    first, flags = block[:size], FLAG_END_STREAM if section.end else 0
    if section.priority is not None:
        first, flags = section.priority + first, flags | FLAG_PRIORITY
    if section.pad is not None:
        first, flags = padded(first, section.pad), flags | FLAG_PADDED
    rest = [block[at : at + size] for at in range(size, len(block), size)]
    frames = [
        Raw(HEADERS, flags, section.stream_id, first),
        *[Raw(CONTINUATION, 0, section.stream_id, fragment) for fragment in rest],
    ]
    frames[-1] = frames[-1]._replace(flags=frames[-1].flags | FLAG_END_HEADERS)
    return frames


def padded(payload: bytes, pad: int) -> bytes:
    return bytes((pad,)) + payload + bytes(pad)


def u32(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "big") for value in values)


def settings_payload(settings: list[tuple[int, int]]) -> bytes:
    return b"".join(key.to_bytes(2, "big") + u32(value) for key, value in settings)


# -- what is lawful --------------------------------------------------------------------------


class Talk:
    """One stream as the plan knows it.

    peer_ended, core_ended   END_STREAM was sent
    peer_final, core_final   a final header section was sent
    peer_left, core_left     octets that the content-length still promises; None: not declared
    peer_window              octets the peer may still send; core_window: the core
    no_content               of the response: it answers HEAD
    """

    def __init__(self, stream_id: int, peer_window: int, core_window: int) -> None:
        self.stream_id = stream_id
        self.peer_ended = self.core_ended = False
        self.peer_final = self.core_final = False
        self.peer_left: int | None = None
        self.core_left: int | None = None
        self.peer_window, self.core_window = peer_window, core_window
        self.no_content = False
        self.reset = False

    @property
    def over(self) -> bool:
        return self.reset or (self.peer_ended and self.core_ended)


class Plan:
    """Draws lawful steps and keeps account of what they allow next."""

    def __init__(self, rng: Random, core_is_client: bool) -> None:
        self.rng = rng
        self.core_is_client = core_is_client
        self.steps: list[Raw | Call | Section | Table] = []
        self.talks: dict[int, Talk] = {}
        self.next_stream_id = 1
        # What the core has announced, and of it what the peer has acknowledged.
        self.settings = self._settings_of_core()
        self.waiting: list[dict[int, int]] = [self.settings]
        self.acked = {
            SettingId.HEADER_TABLE_SIZE: 4096,
            SettingId.MAX_CONCURRENT_STREAMS: 100,
            SettingId.INITIAL_WINDOW_SIZE: DEFAULT_WINDOW,
        }
        # What the peer has announced.
        self.peer_initial_window = DEFAULT_WINDOW
        self.peer_concurrency = 100
        self.peer_window = self.core_window = DEFAULT_WINDOW
        self.goaway = False

    def run(self) -> list[Raw | Call | Section | Table]:
        self.peer_settings()
        if self.rng.random() < 0.9:
            self.peer_ack()
        common = [
            self.peer_priority,
            self.peer_window_update,
            self.peer_window_update,
            self.peer_settings,
            self.peer_ping,
            self.peer_unknown,
            self.peer_reset,
            self.peer_ack,
            self.core_ping,
            self.core_reset,
            self.core_settings,
        ]
        talking = [self.open, self.peer_speaks, self.peer_speaks, self.core_speaks]
        for _ in range(self.rng.randint(*STEPS)):
            self.rng.choice(common if self.rng.random() < 0.3 else talking)()
        if self.rng.random() < 0.1:
            self.peer_goaway()
            for _ in range(self.rng.randint(0, 5)):
                self.rng.choice(talking)()
        while self.waiting:
            self.peer_ack()
        return self.steps

    # Streams.

    def open(self) -> None:
        if self.goaway or sum(not talk.over for talk in self.talks.values()) >= self._concurrency:
            return
        rng = self.rng
        stream_id = self.next_stream_id
        if not self.core_is_client and rng.random() < 0.1:
            stream_id += 2 * rng.randint(1, 3)
        self.next_stream_id = stream_id + 2
        talk = Talk(stream_id, self.acked[SettingId.INITIAL_WINDOW_SIZE], self.peer_initial_window)
        self.talks[stream_id] = talk
        method = rng.choice((b"GET", b"GET", b"HEAD", b"POST", b"POST", b"PUT", b"OPTIONS"))
        path = b"*" if method == b"OPTIONS" else rng.choice((b"/", b"/a?b=c", b"/%20"))
        talk.no_content = method == b"HEAD"
        left = self._some_length() if method in (b"POST", b"PUT") else None
        end = method not in (b"POST", b"PUT") or (not left and rng.random() < 0.2)
        fields = [
            (b":method", method),
            (b":scheme", rng.choice((b"https", b"http"))),
            (b":authority", b"example.org"),
            (b":path", path),
            *self._some_fields(left),
        ]
        if rng.random() < 0.1:
            fields.append((b"te", b"trailers"))
        if self.core_is_client:
            talk.core_final, talk.core_left, talk.core_ended = True, left, end
            self.steps.append(Call("request", stream_id, fields, end))
        else:
            talk.peer_final, talk.peer_left, talk.peer_ended = True, left, end
            self._section(stream_id, fields, end)

    @property
    def _concurrency(self) -> int:
        if self.core_is_client:
            return self.peer_concurrency
        mine = SettingId.MAX_CONCURRENT_STREAMS
        return min(self.acked[mine], *[each.get(mine, 100) for each in self.waiting], 100)

    def peer_speaks(self) -> None:
        """The next part of one message of the peer's."""
        talks = [each for each in self.talks.values() if not (each.reset or each.peer_ended)]
        if not talks:
            return
        talk, rng = self.rng.choice(talks), self.rng
        if not talk.peer_final:
            fields, left, end = self._some_response(talk)
            talk.peer_final = left is not Interim
            talk.peer_ended = end
            if left is not Interim:
                talk.peer_left = left
            self._section(talk.stream_id, fields, end)
            return
        octets, end = self._some_portion(talk.peer_left)
        pad = rng.choice((None, None, None, 0, 1, 200))
        counted = octets if pad is None else octets + pad + 1
        if counted > max(0, min(self.peer_window, talk.peer_window)) and counted:
            return
        if talk.peer_left is not None:
            talk.peer_left -= octets
        talk.peer_ended = end
        if end and not octets and rng.random() < 0.5:
            self._section(talk.stream_id, self._some_fields(None) or [(b"checksum", b"0")], True)
            return
        self.peer_window -= counted
        talk.peer_window -= counted
        flags, payload = FLAG_END_STREAM if end else 0, rng.randbytes(octets)
        if pad is not None:
            flags, payload = flags | FLAG_PADDED, padded(payload, pad)
        self.steps.append(Raw(DATA, flags, talk.stream_id, payload))

    def core_speaks(self) -> None:
        """The next part of one message of the core's."""
        talks = [each for each in self.talks.values() if not (each.reset or each.core_ended)]
        if not talks:
            return
        talk = self.rng.choice(talks)
        if not talk.core_final:
            fields, left, end = self._some_response(talk)
            if left is not Interim:
                talk.core_final, talk.core_left, talk.core_ended = True, left, end
            self.steps.append(Call("respond", talk.stream_id, fields, end))
            return
        octets, end = self._some_portion(talk.core_left)
        if octets > max(0, min(self.core_window, talk.core_window)):
            return
        if talk.core_left is not None:
            talk.core_left -= octets
        talk.core_ended = end
        if end and not octets and self.rng.random() < 0.5:
            self.steps.append(Call("trailers", talk.stream_id, [(b"checksum", b"0")], True))
            return
        self.core_window -= octets
        talk.core_window -= octets
        self.steps.append(Call("send", talk.stream_id, self.rng.randbytes(octets), end))

    def _some_response(self, talk: Talk) -> tuple[Fields, Any, bool]:
        """Fields, the octets of content to come (or Interim), END_STREAM."""
        rng = self.rng
        if rng.random() < 0.2:
            status = rng.choice((b"100", b"103"))
            return [(b":status", status), *self._some_fields(None)], Interim, False
        status = rng.choice((b"200", b"200", b"200", b"204", b"304", b"404"))
        if talk.no_content or status in (b"204", b"304"):
            return [(b":status", status), *self._some_fields(None)], 0, rng.random() < 0.7
        left = self._some_length()
        fields = [(b":status", status), *self._some_fields(left)]
        return fields, left, not left and rng.random() < 0.3

    def _some_length(self) -> int | None:
        return self.rng.choice((None, None, 0, 1, 300, 2500))

    def _some_portion(self, left: int | None) -> tuple[int, bool]:
        """Octets of content, and whether they are the last."""
        rng = self.rng
        if left is None:
            return rng.choice((0, *DATA_OCTETS)), rng.random() < 0.3
        octets = min(left, rng.choice(DATA_OCTETS))
        return octets, octets == left and (rng.random() < 0.6 or not octets)

    def _some_fields(self, length: int | None) -> Fields:
        rng = self.rng
        fields = [(rng.choice(NAMES), rng.choice(VALUES)) for _ in range(rng.randrange(4))]
        if length is not None:
            fields.append((b"content-length", b"%d" % length))
        return fields

    def _section(self, stream_id: int, fields: Fields, end: bool) -> None:
        rng = self.rng
        pad = rng.choice((None, None, None, 0, 5))
        priority = None
        if rng.random() < 0.1 and not self.core_is_client:
            priority = self._some_priority(stream_id)
        cuts = rng.choice((0, 0, 0, 1, 2))
        self.steps.append(Section(stream_id, fields, end, pad, priority, cuts))

    def _some_priority(self, stream_id: int) -> bytes:
        dependency = self.rng.choice([each for each in (0, 1, 3, 99) if each != stream_id])
        exclusive = self.rng.choice((0, 2**31))
        return u32(dependency | exclusive) + self.rng.randbytes(1)

    # What the peer may say at any time.

    def peer_ack(self) -> None:
        if not self.waiting:
            return
        settings = self.waiting.pop(0)
        self.steps.append(Raw(SETTINGS, FLAG_ACK, 0))
        before = dict(self.acked)
        self.acked.update({key: settings[key] for key in self.acked if key in settings})
        table, window = SettingId.HEADER_TABLE_SIZE, SettingId.INITIAL_WINDOW_SIZE
        if self.acked[table] != before[table]:
            self.steps.append(Table(self.acked[table]))
        for talk in self.talks.values():
            talk.peer_window += self.acked[window] - before[window]

    def peer_settings(self) -> None:
        rng = self.rng
        settings = []
        if rng.random() < 0.3:
            settings.append((SettingId.HEADER_TABLE_SIZE, rng.choice((0, 100, 4096, 65536))))
        if rng.random() < 0.2 and not self.core_is_client:
            settings.append((SettingId.ENABLE_PUSH, rng.choice((0, 1))))
        if rng.random() < 0.3:
            self.peer_concurrency = rng.choice((0, 3, 100, 2**32 - 1))
            settings.append((SettingId.MAX_CONCURRENT_STREAMS, self.peer_concurrency))
        if rng.random() < 0.4:
            size = rng.choice((0, 500, 65535, 2**20))
            self._peer_initial_window(size)
            settings.append((SettingId.INITIAL_WINDOW_SIZE, size))
        if rng.random() < 0.3:
            settings.append((SettingId.MAX_FRAME_SIZE, rng.choice((16384, 20000, 2**24 - 1))))
        if rng.random() < 0.2:
            settings.append((SettingId.MAX_HEADER_LIST_SIZE, rng.choice((10_000, 2**32 - 1))))
        if rng.random() < 0.1:
            settings.append((rng.choice((0x0, 0x7, 0x9, 0xFFFF)), rng.getrandbits(32)))
        rng.shuffle(settings)
        self.steps.append(Raw(SETTINGS, 0, 0, settings_payload(settings)))

    def _peer_initial_window(self, size: int) -> None:
        for talk in self.talks.values():
            talk.core_window += size - self.peer_initial_window
        self.peer_initial_window = size

    def peer_priority(self) -> None:
        if not self.core_is_client:
            stream_id = self.rng.choice((1, 3, 5, 7, 2, 99))
            self.steps.append(Raw(PRIORITY, 0, stream_id, self._some_priority(stream_id)))

    def peer_window_update(self) -> None:
        increment = self.rng.choice((1, 1000, 2**20))
        stream_id = self.rng.choice([0, *self.talks])
        if stream_id:
            talk = self.talks[stream_id]
            if talk.core_window + increment > MAX_WINDOW_SIZE:
                return
            talk.core_window += increment
        else:
            self.core_window += increment
        self.steps.append(Raw(WINDOW_UPDATE, 0, stream_id, u32(increment)))

    def peer_ping(self) -> None:
        flags = self.rng.choice((0, 0, FLAG_ACK))
        self.steps.append(Raw(PING, flags, 0, self.rng.randbytes(8)))

    def peer_unknown(self) -> None:
        rng = self.rng
        type_, flags = rng.choice((0xB, 0x10, 0x42, 0xFF)), rng.getrandbits(8)
        stream_id = rng.choice([0, 99, *self.talks])
        self.steps.append(Raw(type_, flags, stream_id, rng.randbytes(rng.choice((0, 1, 20)))))

    def peer_reset(self) -> None:
        talks = [each for each in self.talks.values() if not each.over]
        if talks and self.rng.random() < 0.5:
            talk = self.rng.choice(talks)
            talk.reset = True
            code = self.rng.choice((ErrorCode.NO_ERROR, ErrorCode.CANCEL, 0xFF))
            self.steps.append(Raw(RST_STREAM, 0, talk.stream_id, u32(code)))

    def peer_goaway(self) -> None:
        self.goaway = True
        last = max(self.talks, default=0) if self.core_is_client else 0
        debug_data = self.rng.choice((b"", b"a reason"))
        self.steps.append(Raw(GOAWAY, 0, 0, u32(last, ErrorCode.NO_ERROR) + debug_data))

    # What the core's user may do at any time.

    def core_ping(self) -> None:
        if sum(isinstance(step, Call) and step.name == "ping" for step in self.steps) < 5:
            self.steps.append(Call("ping", 0, self.rng.randbytes(8)))

    def core_reset(self) -> None:
        talks = [each for each in self.talks.values() if not each.over]
        if talks and self.rng.random() < 0.3:
            talk = self.rng.choice(talks)
            talk.reset = True
            self.steps.append(Call("reset", talk.stream_id, ErrorCode.CANCEL))
            # RFC 9113 §5.1: what the peer sent before it knew.
            may_speak = talk.peer_final and not talk.peer_ended and talk.peer_left is None
            if may_speak and min(self.peer_window, talk.peer_window) >= 10:
                self.peer_window -= 10
                self.steps.append(Raw(DATA, 0, talk.stream_id, bytes(10)))

    def core_settings(self) -> None:
        if self.waiting:  # one at a time: not every peer tells two acks apart
            return
        rng = self.rng
        settings = {}
        if rng.random() < 0.5:
            settings[SettingId.HEADER_TABLE_SIZE] = rng.choice((0, 100, 4096, 10_000))
        if rng.random() < 0.5:
            settings[SettingId.INITIAL_WINDOW_SIZE] = rng.choice((0, 1000, 65535, 100_000))
        if rng.random() < 0.5:
            settings[SettingId.MAX_FRAME_SIZE] = rng.choice((16384, 20_000))
        self.waiting.append(settings)
        self.steps.append(Call("settings", 0, settings))

    def _settings_of_core(self) -> dict[int, int]:
        rng = self.rng
        settings = {
            SettingId.HEADER_TABLE_SIZE: rng.choice((4096, 4096, 0, 300)),
            SettingId.INITIAL_WINDOW_SIZE: rng.choice((65535, 65535, 1000, 100_000)),
            SettingId.MAX_FRAME_SIZE: rng.choice((16384, 16384, 20_000)),
        }
        if self.core_is_client:
            settings[SettingId.ENABLE_PUSH] = 0
        else:
            settings[SettingId.MAX_CONCURRENT_STREAMS] = rng.choice((100, 100, 3))
        return settings


class Interim:
    """Instead of a length: the response is an interim one."""


class User:
    """Makes the calls of a conversation on a core of ours."""

    def __init__(self, core: Connection) -> None:
        self.core = core
        self.handles: dict[int, Stream] = {}

    def do(self, call: Call, now: float = 0.0) -> None:
        """Raises UsageError as the core does, KeyError for a stream that never was."""
        core, value = self.core, call.value
        if call.name == "request":
            self.handles[call.stream_id] = core.send_request(value, call.end)
        elif call.name == "ping":
            core.ping(value, now)
        elif call.name == "settings":
            core.update_settings(value, now)
        else:
            self.note_streams()
            stream = self.handles[call.stream_id]
            if call.name == "respond":
                core.send_response(stream, value, call.end)
            elif call.name == "send":
                core.send_data(stream, value, call.end)
            elif call.name == "trailers":
                core.send_trailers(stream, value)
            else:
                core.reset_stream(stream, value)

    def note_streams(self) -> None:
        """Remember the handles of the streams there are, for calls after they have closed."""
        self.handles |= self.core.streams


# -- what is changed -------------------------------------------------------------------------


def flip_a_bit(rng: Random, steps: list[Any], frames: list[int]) -> None:
    at = rng.choice(frames)
    octets = bytearray(steps[at].octets)
    # The header is short; half of the flips are in it.
    bit = rng.randrange(72) if rng.random() < 0.5 else rng.randrange(8 * len(octets))
    octets[bit // 8] ^= 1 << bit % 8
    high, low, type_, flags, stream_id = FRAME_HEADER.unpack_from(octets)
    steps[at] = Raw(type_, flags, stream_id, bytes(octets[9:]), high << 8 | low)


def drop(rng: Random, steps: list[Any], frames: list[int]) -> None:
    del steps[rng.choice(frames)]


def double(rng: Random, steps: list[Any], frames: list[int]) -> None:
    at = rng.choice(frames)
    again = at + 1 if rng.random() < 0.7 else rng.randint(at + 1, len(steps))
    steps.insert(again, steps[at])


def swap(rng: Random, steps: list[Any], frames: list[int]) -> None:
    if len(frames) > 1:
        one = rng.randrange(len(frames) - 1)
        other = one + 1 if rng.random() < 0.7 else rng.randrange(len(frames))
        one, other = frames[one], frames[other]
        steps[one], steps[other] = steps[other], steps[one]


def change_stream_id(rng: Random, steps: list[Any], frames: list[int]) -> None:
    at = rng.choice(frames)
    stream_id = rng.choice((0, 1, 2, 3, 5, 7, 9, 101, MAX_STREAM_ID))
    steps[at] = steps[at]._replace(stream_id=stream_id)


def change_a_flag(rng: Random, steps: list[Any], frames: list[int]) -> None:
    at = rng.choice(frames)
    flag = rng.choice((FLAG_END_STREAM, FLAG_END_HEADERS, FLAG_PADDED, FLAG_PRIORITY, 0x80))
    steps[at] = steps[at]._replace(flags=steps[at].flags ^ flag)


def truncate(rng: Random, steps: list[Any], frames: list[int]) -> None:
    at = rng.choice([at for at in frames if steps[at].payload] or frames)
    payload = steps[at].payload
    kept = payload[: rng.randrange(len(payload) or 1)]
    # The frame is shorter, or what follows it takes the place of what is missing.
    length = None if rng.random() < 0.7 else len(payload)
    steps[at] = steps[at]._replace(payload=kept, length=length)


def lengthen(rng: Random, steps: list[Any], frames: list[int]) -> None:
    at = rng.choice(frames)
    more = rng.choice((1, 1, 6, 100, 20_000))
    steps[at] = steps[at]._replace(payload=steps[at].payload + bytes(more))


def change_a_setting(rng: Random, steps: list[Any], frames: list[int]) -> None:
    """Another value, or another identifier, or one setting more."""
    chosen = [at for at in frames if steps[at].type == SETTINGS and not steps[at].flags & FLAG_ACK]
    at = rng.choice(chosen)
    payload = steps[at].payload
    place = 6 * rng.randrange(len(payload) // 6 + 1)
    values = (0, 1, 2, 16383, 16384, 2**24 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
    setting = settings_payload([(rng.choice((1, 2, 3, 4, 5, 6, 8)), rng.choice(values))])
    kept = payload[place + 6 :] if rng.random() < 0.5 else payload[place:]
    steps[at] = steps[at]._replace(payload=payload[:place] + setting + kept)


def change_a_number(rng: Random, steps: list[Any], frames: list[int]) -> None:
    """The 4 octets a WINDOW_UPDATE, RST_STREAM, GOAWAY or PRIORITY begins with."""
    types = (WINDOW_UPDATE, RST_STREAM, GOAWAY, PRIORITY)
    chosen = [at for at in frames if steps[at].type in types]
    if not chosen:
        flip_a_bit(rng, steps, frames)
        return
    at = rng.choice(chosen)
    number = rng.choice((0, 1, steps[at].stream_id, 2**31 - 1, 2**31, 2**32 - 1))
    steps[at] = steps[at]._replace(payload=u32(number & 0xFFFFFFFF) + steps[at].payload[4:])


def change_the_padding(rng: Random, steps: list[Any], frames: list[int]) -> None:
    """A Pad Length about as long as the payload, or nothing but padding."""
    chosen = [at for at in frames if steps[at].type in (DATA, HEADERS) and steps[at].payload]
    if not chosen:
        flip_a_bit(rng, steps, frames)
        return
    at = rng.choice(chosen)
    payload = steps[at].payload
    pad = min(255, max(0, len(payload) + rng.choice((-2, -1, 0, 1))))
    steps[at] = steps[at]._replace(
        flags=steps[at].flags | FLAG_PADDED, payload=bytes((pad,)) + payload[1:]
    )


def insert(rng: Random, steps: list[Any], frames: list[int]) -> None:
    """A frame that nobody asked for, of any type."""
    steps.insert(rng.choice(frames), some_frame(rng))


MUTATIONS: dict[str, Callable[[Random, list[Any], list[int]], None]] = {
    "bit": flip_a_bit,
    "drop": drop,
    "double": double,
    "swap": swap,
    "stream": change_stream_id,
    "flag": change_a_flag,
    "truncate": truncate,
    "lengthen": lengthen,
    "setting": change_a_setting,
    "number": change_a_number,
    "padding": change_the_padding,
    "insert": insert,
}


def some_frame(rng: Random) -> Raw:
    """Any frame of any type, with a payload of about the right size."""
    type_ = rng.randrange(11)
    fixed = {PRIORITY: 5, RST_STREAM: 4, SETTINGS: 6, PING: 8, GOAWAY: 8, WINDOW_UPDATE: 4}
    size = fixed.get(type_, rng.randrange(20))
    if rng.random() < 0.2:
        size = rng.randrange(20)
    flags = rng.choice((0, 1, 4, 5, 8, 0x20, 0x2D, rng.getrandbits(8)))
    return Raw(type_, flags, rng.choice((0, 0, 1, 2, 3, 5, 101)), rng.randbytes(size))


WRONG_VALUES = {
    b":method": (b"", b"CONNECT", b"G ET", b"get", b"G\x00"),
    b":scheme": (b"", b"ftp", b"1x", b"ht tp"),
    b":authority": (b"", b"u@example.org", b"example.org:x", b"example.org/", b"a b"),
    b":path": (b"", b"*", b"x", b"/a b", b"/#", b"/\x80"),
    b":status": (b"", b"101", b"099", b"600", b"999", b"2000", b"20", b"abc", b"+20"),
    b"content-length": (b"", b"-1", b"+1", b"1,1", b"1", b"0", b"0x1", b"9" * 30),
}
VALUES_OF_ANY = (
    b" a", b"a ", b"\ta", b"a\t", b"a\r\nb", b"a\x00", b"\x7f", b"\x01", b"a\tb", b"\x80\xff", b""
)  # fmt: skip
NAMES_OF_ANY = (
    b"", b"X-Upper", b"x y", b"x:y", b":x", b"x\x00", b"x\x7f", b"\xc3\xbc", b":", b"x/y", b"-"
)  # fmt: skip
ADDED: Fields = [
    (b"connection", b"close"),
    (b"proxy-connection", b"close"),
    (b"keep-alive", b"5"),
    (b"transfer-encoding", b"chunked"),
    (b"upgrade", b"h2c"),
    (b"te", b"gzip"),
    (b"te", b"Trailers"),
    (b"host", b"example.org"),
    (b"host", b"other.example"),
    (b"content-length", b"5"),
    (b":status", b"200"),
    (b":path", b"/"),
    (b":protocol", b"websocket"),
    (b":unknown", b"1"),
]


def changed_fields(rng: Random, fields: Fields) -> Fields:
    """The section with one field taken away, added, moved or changed."""
    fields = [*fields]
    way = rng.choice(("drop", "double", "move", "name", "value", "value", "value", "add", "add"))
    if way == "add" or not fields:
        fields.insert(rng.choice((0, len(fields), len(fields))), rng.choice(ADDED))
        return fields
    at = rng.randrange(len(fields))
    name, value = fields[at]
    if way == "drop":
        del fields[at]
    elif way == "double":
        fields.insert(rng.randint(at, len(fields)), (name, value))
    elif way == "move":
        fields.insert(rng.randrange(len(fields)), fields.pop(at))
    elif way == "name":
        fields[at] = rng.choice(NAMES_OF_ANY), value
    else:
        values = VALUES_OF_ANY if rng.random() < 0.4 else WRONG_VALUES.get(name, VALUES_OF_ANY)
        fields[at] = name, rng.choice(values)
    return fields
