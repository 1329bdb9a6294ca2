"""The same peer's octets into h2lite and into python-hyper's h2: what each makes of every frame.

Lawful conversations, and such with one thing changed, from tests/conversations.py.  Frame by frame
both tell what they have seen and what they answer; the first disagreement ends the conversation,
and a rule must know it by name.  Each name has its lines in spec-notes/differences.md.
H2LITE_DIFFERENTIAL says how many conversations a role; a failure names its seed and its frames.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest

from h2lite import events as ev
from h2lite.errors import ERROR_NAMES, ErrorCode, UsageError
from h2lite.events import Event
from h2lite.frames import FLAG_ACK, FLAG_PADDED, FRAME_HEADER, FRAME_HEADER_SIZE
from h2lite.settings import INITIAL_VALUES, SettingId
from tests import conversations as cv
from tests.conversations import Call, Conversation, Raw, User
from tests.pair import drain, parse

from .beside_h2 import Ours, Seen, Theirs

pytestmark = [pytest.mark.peer]

CONVERSATIONS = int(os.environ.get("H2LITE_DIFFERENTIAL", "200"))
BATCH = 20  # conversations in one test
NOTES = Path(__file__).parents[2] / "spec-notes" / "differences.md"

CLIENT, SERVER = "h2lite client", "h2lite server"


class Outcome(NamedTuple):
    """What one end makes of some octets.

    seen     its events, in the words of beside_h2
    resets   (stream_id, error code) of the RST_STREAMs it answers with
    failed   error code of its GOAWAY, None: the connection goes on
    acks     the SETTINGS acks and PING acks it answers with, in the order of their types
    reason   h2lite's words, h2's exception
    """

    seen: tuple[Seen, ...] = ()
    resets: tuple[tuple[int, int], ...] = ()
    failed: int | None = None
    acks: tuple[str, ...] = ()
    reason: str = ""

    @property
    def verdict(self) -> str:
        if self.failed is not None:
            return f"connection {ERROR_NAMES.get(self.failed, self.failed)}"
        if self.resets:
            return "stream " + " ".join(
                f"{ERROR_NAMES.get(code, code)} on {stream_id}" for stream_id, code in self.resets
            )
        return "accepted"

    @property
    def what(self) -> Any:
        return self.seen, self.resets, self.failed, self.acks


class Disagreement(NamedTuple):
    """role and frame (None: octets of one that is not whole), and what both made of it."""

    ours_is_client: bool
    frame: Raw | None
    octets: bytes
    ours: Outcome
    theirs: Outcome
    before: list[Any]  # frames and calls
    reset_by_us: frozenset[int] = frozenset()

    def __str__(self) -> str:
        said = "\n    ".join(str(step) for step in [*self.before, self.frame, self.octets.hex(" ")])
        return f"    {said}\n  h2lite: {self.ours}\n  h2:     {self.theirs}"


# -- both ends -------------------------------------------------------------------------------


class OursUnderTest:
    """h2lite's core, and what it makes of octets."""

    def __init__(self, client: bool, settings: dict[int, int]) -> None:
        self.end = Ours(client, settings)
        self.user = User(self.end.core)
        self.settings = dict(INITIAL_VALUES)
        drain(self.end.core)

    def take(self, octets: bytes) -> Outcome:
        events = self.end.core.receive_data(octets, 0.0)
        seen = [one for event in events for one in self._seen(event)]
        reasons = [getattr(event, "reason", "") for event in events]
        answers = parse(drain(self.end.core))
        self.user.note_streams()
        return answered(seen, answers, " ".join(filter(None, reasons)))

    def _seen(self, event: Event) -> Iterator[Seen]:
        if isinstance(event, ev.ConnectionFailed):
            return
        if isinstance(event, ev.StreamReset) and not event.by_peer:
            return
        if isinstance(event, ev.UnknownPingAcked):
            yield Seen("ping ack", 0, event.opaque_data)
        elif isinstance(event, ev.SettingsReceived):
            self.settings.update(event.changed)
            yield Seen("settings", 0, dict(sorted(self.settings.items())))
        else:
            yield Ours._seen(event)

    def do(self, call: Call) -> bool:
        try:
            self.user.do(call)
        except (UsageError, KeyError):
            return False
        drain(self.end.core)
        self.user.note_streams()
        return True


class TheirsUnderTest:
    """h2's connection, and what it makes of octets."""

    def __init__(self, client: bool, settings: dict[int, int]) -> None:
        self.end = Theirs(client, settings)
        self.errors = pytest.importorskip("h2.exceptions")
        self.settings = dict(INITIAL_VALUES)
        self.end.conn.data_to_send()

    def take(self, octets: bytes) -> Outcome:
        seen: list[Seen] = []
        reason = ""
        try:
            for event in self.end.conn.receive_data(octets):
                seen += self._seen(event)
        except self.errors.ProtocolError as error:
            reason = f"{type(error).__name__}: {error}"
        outcome = answered(seen, parse(self.end.conn.data_to_send()), reason)
        assert (outcome.failed is not None) == bool(reason), outcome
        return outcome

    def _seen(self, event: Any) -> Iterator[Seen]:
        name = type(event).__name__
        if name in ("PriorityUpdated", "UnknownFrameReceived", "AlternativeServiceAvailable"):
            return
        if name == "PushedStreamReceived":
            yield Seen("push", event.pushed_stream_id, None)
        elif name == "StreamReset" and not event.remote_reset:
            return
        elif name == "RemoteSettingsChanged":
            for identifier, change in event.changed_settings.items():
                if identifier in INITIAL_VALUES:
                    self.settings[int(identifier)] = change.new_value
            yield Seen("settings", 0, dict(sorted(self.settings.items())))
        elif (seen := self.end._seen(event)) is not None:
            if seen.kind == "data":
                seen = seen._replace(value=(seen.value[0], len(seen.value[0])))
            yield seen

    def do(self, call: Call) -> bool:
        conn = self.end.conn
        try:
            if call.name in ("request", "respond", "trailers"):
                conn.send_headers(call.stream_id, call.value, call.end)
            elif call.name == "send":
                conn.send_data(call.stream_id, call.value, call.end)
            elif call.name == "reset":
                conn.reset_stream(call.stream_id, call.value)
            elif call.name == "ping":
                conn.ping(call.value)
            else:
                conn.update_settings(call.value)
        except (self.errors.ProtocolError, KeyError):
            return False
        conn.data_to_send()
        return True


def answered(seen: list[Seen], frames: list[Any], reason: str) -> Outcome:
    """The outcome behind the frames that an end answers with."""
    resets = [(f.stream_id, f.error_code) for f in frames if f.TYPE == cv.RST_STREAM]
    failed = [f.error_code for f in frames if f.TYPE == cv.GOAWAY]
    acks = [f"{f.NAME} {f.details()}" for f in frames if getattr(f, "ack", False)]
    return Outcome(
        tuple(seen), tuple(resets), failed[-1] if failed else None, tuple(sorted(acks)), reason
    )


# -- side by side ----------------------------------------------------------------------------


class Beside:
    """One conversation, heard by both.

    disagreement   the first one; nothing is compared behind it
    parted         a call was refused by one of them only; nothing is compared behind that either
    """

    def __init__(self, conversation: Conversation) -> None:
        client = conversation.core_is_client
        self.client = client
        self.ours = OursUnderTest(client, conversation.settings)
        self.theirs = TheirsUnderTest(client, conversation.settings)
        self.disagreement: Disagreement | None = None
        self.parted = False
        self.over = False
        self.frames = 0
        self.outcomes: list[Outcome] = []
        self.reset_by_us: set[int] = set()
        self.said: list[Any] = []
        self.rest = b""
        self._compare(None, conversation.preface)
        for step in conversation.steps:
            self._step(step)
        if self.rest and not self._ended:
            self._compare(None, self.rest)

    @property
    def _ended(self) -> bool:
        return self.over or self.parted or self.disagreement is not None

    @property
    def goaway_received(self) -> bool:
        return any(isinstance(step, Raw) and step.type == cv.GOAWAY for step in self.said)

    def _step(self, step: Raw | Call) -> None:
        if self._ended:
            return
        if isinstance(step, Call):
            self.parted = self.ours.do(step) != self.theirs.do(step)
            if step.name == "reset":
                self.reset_by_us.add(step.stream_id)
            self.said.append(step)
            return
        # Whole frames, as the receiver sees them: a wrong length moves what follows.
        self.rest += step.octets
        while len(self.rest) >= FRAME_HEADER_SIZE and not self._ended:
            high, low, type_, flags, stream_id = FRAME_HEADER.unpack_from(self.rest)
            end = FRAME_HEADER_SIZE + (high << 8 | low)
            if len(self.rest) < end:
                return
            octets, self.rest = self.rest[:end], self.rest[end:]
            self._compare(Raw(type_, flags, stream_id, octets[FRAME_HEADER_SIZE:]), octets)

    def _compare(self, frame: Raw | None, octets: bytes) -> None:
        self.frames += 1
        ours, theirs = self.ours.take(octets), self.theirs.take(octets)
        if ours.what != theirs.what:
            self.disagreement = Disagreement(
                self.client,
                frame,
                octets,
                ours,
                theirs,
                [*self.said],
                frozenset(self.reset_by_us),
            )
        self.reset_by_us |= {stream_id for stream_id, _ in ours.resets}
        self.outcomes.append(ours)
        self.over = ours.failed is not None
        self.said.append(frame if frame is not None else octets)


# -- the differences, by name ----------------------------------------------------------------


class Rule(NamedTuple):
    """A difference we know.

    matches   is it this one?
    client    the role in which the example shows it
    example   steps of a peer whose SETTINGS have been exchanged, or all of them
    """

    name: str
    matches: Callable[[Disagreement], bool]
    client: bool
    example: list[Raw | Call]


def failed(outcome: Outcome, code: int, words: str = "") -> bool:
    """A connection error of that code, told in these words."""
    return outcome.failed == code and re.search(words, outcome.reason) is not None


def reset(outcome: Outcome, code: int, words: str = "") -> bool:
    """A stream error of that code, told in these words."""
    codes = [each for _, each in outcome.resets]
    return outcome.failed is None and code in codes and re.search(words, outcome.reason) is not None


def accepted(outcome: Outcome) -> bool:
    return outcome.verdict == "accepted"


def of_type(d: Disagreement, *types: int) -> bool:
    return d.frame is not None and d.frame.type in types


def malformed_there_accepted(words: str) -> Callable[[Disagreement], bool]:
    """h2lite calls the message malformed, in these words; h2 takes it."""
    words = f"^malformed message: {words}"
    return lambda d: reset(d.ours, ErrorCode.PROTOCOL_ERROR, words) and accepted(d.theirs)


def identifiers(frame: Raw | None) -> list[int]:
    """The settings of a SETTINGS frame, without their values."""
    payload = b"" if frame is None else frame.payload
    return [int.from_bytes(payload[at : at + 2], "big") for at in range(0, len(payload), 6)]


def reserved_bit(frame: Raw | None) -> bool:
    return frame is not None and frame.payload[:1] >= b"\x80"


def was_reset(d: Disagreement) -> bool:
    """The core has reset the stream of the frame, by a call or for a fault."""
    return d.frame is not None and d.frame.stream_id in d.reset_by_us


HELLO: list[Raw | Call] = [Raw(cv.SETTINGS, 0, 0), Raw(cv.SETTINGS, FLAG_ACK, 0)]
GET = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/")]
AUTHORITY = (b":authority", b"example.org")
ASKED: list[Raw | Call] = [*HELLO, Call("request", 1, [*GET, AUTHORITY], True)]


def section(stream_id: int, *fields: tuple[bytes, bytes], end: bool = True) -> Raw:
    """HEADERS whose block uses no table."""
    block = b"".join(
        b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value
        for name, value in fields
    )
    return Raw(cv.HEADERS, 4 | end, stream_id, block)


def request(*fields: tuple[bytes, bytes], end: bool = True, stream_id: int = 1) -> Raw:
    return section(stream_id, *GET, AUTHORITY, *fields, end=end)


def changed(name: bytes, value: bytes) -> Raw:
    """A request with another value of one pseudo-header field."""
    fields = [*GET, AUTHORITY]
    return section(1, *[(key, value if key == name else old) for key, old in fields])


ASKING: list[Raw | Call] = [*HELLO, request(end=False)]
RULES = [
    Rule(
        "first-frame",
        lambda d: failed(d.ours, ErrorCode.PROTOCOL_ERROR, "^the peer begins with"),
        False,
        [Raw(cv.PING, 0, 0, bytes(8))],
    ),
    Rule(
        "our-limits",
        lambda d: failed(d.ours, ErrorCode.ENHANCE_YOUR_CALM)
        or reset(d.ours, ErrorCode.ENHANCE_YOUR_CALM),
        True,
        [*ASKED, *[section(1, (b":status", b"103"), end=False)] * 33],
    ),
    Rule(
        "judged-before-it-is-whole",
        lambda d: d.frame is None and (accepted(d.ours) or accepted(d.theirs)),
        False,
        [*HELLO, Raw(cv.SETTINGS, 0, 0, b"", 20_000)],
    ),
    Rule(
        "judged-before-it-is-whole",
        lambda d: d.frame is None and None not in (d.ours.failed, d.theirs.failed),
        False,
        [*HELLO, Raw(cv.DATA, 0, 0, b"", 20_000)],
    ),
    Rule(
        "goaway-ends-all",
        lambda d: "in state ConnectionState.CLOSED" in d.theirs.reason
        and any(isinstance(step, Raw) and step.type == cv.GOAWAY for step in d.before),
        True,
        [*ASKED, Raw(cv.GOAWAY, 0, 0, cv.u32(1, 0)), section(1, (b":status", b"200"))],
    ),
    Rule(
        "goaway-reserved-bit",
        lambda d: of_type(d, cv.GOAWAY)
        and reserved_bit(d.frame)
        and accepted(d.ours)
        and accepted(d.theirs),
        False,
        [*HELLO, Raw(cv.GOAWAY, 0, 0, cv.u32(2**31, 0))],
    ),
    Rule(
        "goaway-leaves-out",
        lambda d: of_type(d, cv.GOAWAY)
        and accepted(d.ours)
        and d.ours.seen[:1] == d.theirs.seen
        and {each.kind for each in d.ours.seen[1:]} == {"reset"},
        True,
        [*ASKED, Raw(cv.GOAWAY, 0, 0, cv.u32(0, 0))],
    ),
    Rule(
        "window-update-reserved-bit",
        lambda d: of_type(d, cv.WINDOW_UPDATE)
        and reserved_bit(d.frame)
        and failed(d.theirs, ErrorCode.PROTOCOL_ERROR, "non-compliant data"),
        False,
        [*HELLO, Raw(cv.WINDOW_UPDATE, 0, 0, cv.u32(2**31 + 5))],
    ),
    Rule(
        "window-update-zero",
        lambda d: of_type(d, cv.WINDOW_UPDATE)
        and reset(d.ours, ErrorCode.PROTOCOL_ERROR, "^WINDOW_UPDATE of 0")
        and failed(d.theirs, ErrorCode.PROTOCOL_ERROR),
        False,
        [*ASKING, Raw(cv.WINDOW_UPDATE, 0, 1, cv.u32(0))],
    ),
    Rule(
        "altsvc",
        lambda d: of_type(d, 0xA)
        and accepted(d.ours)
        and d.theirs.failed in (ErrorCode.FRAME_SIZE_ERROR, ErrorCode.PROTOCOL_ERROR),
        False,
        [*HELLO, Raw(0xA, 0, 0, b"\x00")],
    ),
    Rule(
        "fault-on-a-closed-stream",
        lambda d: d.frame is not None
        and d.frame.stream_id != 0
        and d.ours.what == Outcome().what
        and (
            failed(d.theirs, ErrorCode.FRAME_SIZE_ERROR)
            or (of_type(d, cv.WINDOW_UPDATE) and failed(d.theirs, ErrorCode.PROTOCOL_ERROR))
            or (of_type(d, cv.PRIORITY) and failed(d.theirs, ErrorCode.PROTOCOL_ERROR))
        ),
        False,
        [*ASKING, Raw(cv.RST_STREAM, 0, 1, cv.u32(8)), Raw(cv.WINDOW_UPDATE, 0, 1, cv.u32(0))],
    ),
    Rule(
        "self-dependency",
        lambda d: reset(d.ours, ErrorCode.PROTOCOL_ERROR, "depends on itself$")
        and failed(d.theirs, ErrorCode.PROTOCOL_ERROR, "depend on itself$"),
        False,
        [*ASKING, Raw(cv.PRIORITY, 0, 1, cv.u32(1) + b"\0")],
    ),
    Rule(
        "compression-error",
        lambda d: failed(d.ours, ErrorCode.COMPRESSION_ERROR)
        and d.theirs.failed == ErrorCode.PROTOCOL_ERROR,
        False,
        [*HELLO, Raw(cv.HEADERS, 5, 1, b"\xff")],
    ),
    Rule(
        "table-size-before-the-ack",
        lambda d: d.ours.failed is None
        and failed(d.theirs, ErrorCode.PROTOCOL_ERROR, "Encoder exceeded max allowable"),
        False,
        [
            *HELLO,
            Call("settings", 0, {SettingId.HEADER_TABLE_SIZE: 8192}),
            request()._replace(payload=b"\x3f\xe1\x3f" + request().payload),
        ],
    ),
    Rule(
        "malformed-ends-all",
        lambda d: reset(
            d.ours, ErrorCode.PROTOCOL_ERROR, "^malformed message|^DATA before the header section"
        )
        and d.theirs.failed == ErrorCode.PROTOCOL_ERROR,
        False,
        [*HELLO, request((b"connection", b"close"))],
    ),
    Rule(
        "field-names",
        malformed_there_accepted("field name .* forbidden octet"),
        False,
        [*HELLO, request((b"x/y", b"1"))],
    ),
    Rule(
        "field-values",
        malformed_there_accepted("value of .* forbidden octet"),
        False,
        [*HELLO, request((b"x", b"\x01"))],
    ),
    Rule(
        "request-values",
        malformed_there_accepted(":(method|scheme|authority|path) "),
        False,
        [*HELLO, changed(b":path", b"x")],
    ),
    Rule(
        "response-status",
        malformed_there_accepted(":status "),
        True,
        [*ASKED, section(1, (b":status", b"101"), end=False)],
    ),
    Rule(
        "content-length",
        malformed_there_accepted(r"(content-length of|\d+ octets of content)"),
        False,
        [*HELLO, request((b"content-length", b"5"))],
    ),
    Rule(
        "authority-required",
        lambda d: accepted(d.ours)
        and failed(d.theirs, ErrorCode.PROTOCOL_ERROR, "does not have an :authority or Host"),
        False,
        [*HELLO, section(1, *GET)],
    ),
    Rule(
        "settings-ack-for-nothing",
        lambda d: failed(d.ours, ErrorCode.PROTOCOL_ERROR, "^SETTINGS ack without SETTINGS")
        and accepted(d.theirs),
        False,
        [*HELLO, Raw(cv.SETTINGS, FLAG_ACK, 0)],
    ),
    Rule(
        "settings-ack-size",
        lambda d: failed(d.ours, ErrorCode.FRAME_SIZE_ERROR, "^SETTINGS ack of")
        and failed(d.theirs, ErrorCode.PROTOCOL_ERROR),
        False,
        [*HELLO, Raw(cv.SETTINGS, FLAG_ACK, 0, bytes(6))],
    ),
    Rule(
        "setting-twice",
        lambda d: of_type(d, cv.SETTINGS)
        and d.ours.failed in (ErrorCode.PROTOCOL_ERROR, ErrorCode.FLOW_CONTROL_ERROR)
        and accepted(d.theirs)
        and len(identifiers(d.frame)) > len(set(identifiers(d.frame))),
        False,
        [*HELLO, Raw(cv.SETTINGS, 0, 0, cv.settings_payload([(5, 1), (5, 16384)]))],
    ),
    Rule(
        "setting-of-rfc-8441",
        lambda d: of_type(d, cv.SETTINGS)
        and accepted(d.ours)
        and failed(d.theirs, ErrorCode.PROTOCOL_ERROR, "^InvalidSettingsValueError")
        and 8 in identifiers(d.frame),
        False,
        [*HELLO, Raw(cv.SETTINGS, 0, 0, cv.settings_payload([(8, 2)]))],
    ),
    Rule(
        "reset-again",
        lambda d: d.ours.what == Outcome().what
        and reset(d.theirs, ErrorCode.STREAM_CLOSED)
        and was_reset(d),
        False,
        [*ASKING, Call("reset", 1, ErrorCode.CANCEL), Raw(cv.DATA, 0, 1, b"late")],
    ),
    Rule(
        "interim-on-a-closed-stream",
        lambda d: failed(d.theirs, ErrorCode.PROTOCOL_ERROR, "RECV_INFORMATIONAL_HEADERS in state")
        and (
            (d.ours.what == Outcome().what and was_reset(d))
            or d.ours.failed == ErrorCode.STREAM_CLOSED
            or reset(d.ours, ErrorCode.STREAM_CLOSED)
        ),
        True,
        [*ASKED, Call("reset", 1, ErrorCode.CANCEL), section(1, (b":status", b"103"), end=False)],
    ),
    Rule(
        "passed-over",
        lambda d: failed(d.ours, ErrorCode.PROTOCOL_ERROR, "which was passed over$")
        and reset(d.theirs, ErrorCode.STREAM_CLOSED),
        False,
        [*HELLO, request(stream_id=5), Raw(cv.DATA, 0, 3, b"a")],
    ),
    Rule(
        "rst-stream-idle",
        lambda d: failed(d.ours, ErrorCode.PROTOCOL_ERROR, "^RST_STREAM on idle stream")
        and accepted(d.theirs),
        False,
        [*ASKING, Raw(cv.RST_STREAM, 0, 7, cv.u32(8))],
    ),
    Rule(
        "continuation-alone",
        lambda d: failed(d.ours, ErrorCode.PROTOCOL_ERROR, "continues nothing$")
        and (
            d.theirs.failed == ErrorCode.STREAM_CLOSED
            or reset(d.theirs, ErrorCode.STREAM_CLOSED)
        ),
        False,
        [
            *ASKING,
            Raw(cv.RST_STREAM, 0, 1, cv.u32(8)),
            request(stream_id=3),
            Raw(cv.CONTINUATION, 4, 1, b""),
        ],
    ),
    Rule(
        "frame-in-a-field-block",
        lambda d: failed(d.ours, ErrorCode.PROTOCOL_ERROR, "inside the field block")
        and d.theirs.failed == ErrorCode.FRAME_SIZE_ERROR,
        False,
        [*HELLO, Raw(cv.HEADERS, 0, 1, b""), Raw(cv.PING, 0, 0, b"")],
    ),
    Rule(
        "stream-window-exceeded",
        lambda d: reset(d.ours, ErrorCode.FLOW_CONTROL_ERROR, "^DATA of")
        and d.theirs.failed == ErrorCode.FLOW_CONTROL_ERROR,
        False,
        [*HELLO, Call("settings", 0, {SettingId.INITIAL_WINDOW_SIZE: 0}), HELLO[1],
         request(end=False), Raw(cv.DATA, 0, 1, b"a")],
    ),
    Rule(
        "empty-data-below-zero",
        lambda d: of_type(d, cv.DATA)
        and accepted(d.ours)
        and d.theirs.failed == ErrorCode.FLOW_CONTROL_ERROR
        and d.frame is not None
        and not d.frame.payload,
        False,
        [*ASKING, Raw(cv.DATA, 0, 1, b"a"),
         Call("settings", 0, {SettingId.INITIAL_WINDOW_SIZE: 0}), HELLO[1],
         Raw(cv.DATA, 1, 1)],
    ),
    Rule(
        "window-granted-sooner",
        lambda d: of_type(d, cv.DATA)
        and accepted(d.ours)
        and d.theirs.failed == ErrorCode.FLOW_CONTROL_ERROR
        and d.frame is not None
        and d.frame.payload != b"",
        False,
        [
            *HELLO,
            Call("settings", 0, {SettingId.INITIAL_WINDOW_SIZE: 100}),
            HELLO[1],
            request(end=False),
            *[Raw(cv.DATA, FLAG_PADDED, 1, bytes((60,)) + bytes(60))] * 2,
        ],
    ),
    Rule(
        "frame-size-of-a-stream",
        lambda d: reset(d.ours, ErrorCode.FRAME_SIZE_ERROR)
        and d.theirs.failed == ErrorCode.FRAME_SIZE_ERROR,
        False,
        [*ASKING, Raw(cv.PRIORITY, 0, 1, b"")],
    ),
    Rule(
        "too-many-streams",
        lambda d: reset(d.ours, ErrorCode.REFUSED_STREAM)
        and failed(d.theirs, ErrorCode.PROTOCOL_ERROR, "^TooManyStreamsError"),
        False,
        [*HELLO, Call("settings", 0, {SettingId.MAX_CONCURRENT_STREAMS: 0}), HELLO[1], request()],
    ),
    Rule(
        "push-promise-in-pieces",
        lambda d: of_type(d, cv.PUSH_PROMISE)
        and failed(d.ours, ErrorCode.PROTOCOL_ERROR, "^PUSH_PROMISE, though push is off")
        and accepted(d.theirs),
        True,
        [*ASKED, Raw(cv.PUSH_PROMISE, 0, 1, cv.u32(2))],
    ),
    Rule(
        "padding-too-long",
        lambda d: failed(d.ours, ErrorCode.PROTOCOL_ERROR, "padding of")
        and d.theirs.failed == ErrorCode.FRAME_SIZE_ERROR,
        False,
        [*HELLO, Raw(cv.HEADERS, 0x2D, 1, b"\x09\x00\x00\x00")],
    ),
    Rule(
        "padding-is-all",
        lambda d: of_type(d, cv.HEADERS)
        and d.ours.failed is None
        and failed(d.theirs, ErrorCode.PROTOCOL_ERROR, "invalid padding")
        and d.octets[FRAME_HEADER_SIZE] < len(d.octets) - FRAME_HEADER_SIZE,
        False,
        [*ASKING, Raw(cv.HEADERS, 0xD, 1, b"\x02\x00\x00")],
    ),
    Rule(
        "priority-fields-cut",
        lambda d: failed(d.ours, ErrorCode.FRAME_SIZE_ERROR, "too short for its priority fields")
        and d.theirs.failed in (None, ErrorCode.PROTOCOL_ERROR),
        False,
        [*HELLO, Raw(cv.HEADERS, 0x2D, 1, b"\x03\x00\x00\x00\x00\x00")],
    ),
    Rule(
        "push-promise-cut",
        lambda d: failed(d.ours, ErrorCode.FRAME_SIZE_ERROR, "too short for its promised stream")
        and failed(d.theirs, ErrorCode.PROTOCOL_ERROR),
        True,
        [*ASKED, Raw(cv.PUSH_PROMISE, 0xC, 1, b"\x02\x00\x00\x00\x00\x00")],
    ),
]


def name_of(disagreement: Disagreement) -> str | None:
    """The first rule's that knows it."""
    return next((rule.name for rule in RULES if rule.matches(disagreement)), None)


# -- tests -----------------------------------------------------------------------------------


def conversation_of(seed: int, client: bool) -> Conversation:
    """Every fourth is lawful."""
    return (cv.mutated if seed % 4 else cv.lawful)(Random(seed), client)


@pytest.mark.parametrize("role", [CLIENT, SERVER])
@pytest.mark.parametrize("first", range(0, CONVERSATIONS, BATCH))
def test_every_disagreement_has_a_name(role, first, request):
    unknown = []
    counted: Counter[str] = Counter()
    for seed in range(first, min(first + BATCH, CONVERSATIONS)):
        conversation = conversation_of(seed, role == CLIENT)
        beside = Beside(conversation)
        disagreement = beside.disagreement
        counted["conversations"] += 1
        counted["frames"] += beside.frames
        if not conversation.mutation:
            assert {each.verdict for each in beside.outcomes} == {"accepted"}, f"seed {seed}"
        if beside.parted and not beside.goaway_received:
            counted["parted by a call"] += 1
            assert conversation.mutation, f"seed {seed}: {beside.said[-1]}"
        if disagreement is None:
            counted[f"agreed: {beside.outcomes[-1].verdict.partition(' on ')[0]}"] += 1
        elif (name := name_of(disagreement)) is not None:
            counted[name] += 1
        else:
            unknown.append(f"seed {seed}, {role}, {conversation.mutation}:\n{disagreement}")
    request.node.user_properties.extend(counted.items())
    assert not unknown, "\n".join(unknown)


@pytest.mark.parametrize("rule", RULES, ids=[rule.name for rule in RULES])
def test_each_difference_is_still_there(rule):
    settings = {SettingId.ENABLE_PUSH: 0} if rule.client else {}
    steps = rule.example

    disagreement = Beside(Conversation(rule.client, settings, steps)).disagreement

    assert disagreement is not None
    assert name_of(disagreement) == rule.name, disagreement


def test_the_notes_name_the_same_differences():
    named = re.findall(r"^## ([a-z0-9-]+)$", NOTES.read_text("utf-8"), re.MULTILINE)

    assert len(named) == len(set(named))
    assert set(named) == {rule.name for rule in RULES}
