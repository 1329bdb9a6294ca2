"""The whole of RFC 9113 §5.1: every state of a stream, every frame that may come, both roles.

Each table has a row for a state and a column for a frame; what stands there is read from the RFC:

    taken       the frame does its work and is reported
    passed      no error, nothing reported, nothing answered
    S X         a stream error X: RST_STREAM, and the connection goes on
    C X         a connection error X: GOAWAY, and nothing more is accepted
"""

from __future__ import annotations

from typing import Any

import pytest

from h2lite import events as ev
from h2lite.connection import Connection
from h2lite.errors import ErrorCode
from h2lite.frames import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    Priority,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    UnknownFrame,
    WindowUpdateFrame,
)
from h2lite.settings import SettingId
from tests.pair import GET, OK, POST, TRAILERS, begun, block, drain, feed, sent

# A field block that adds one line to HPACK's table, where b"\xbe" then refers to it.
ADDED = (b"added", b"line")
GOES_ON = b"goes on?"
SHORT_NAMES = {ErrorCode.PROTOCOL_ERROR: "PROTOCOL", ErrorCode.STREAM_CLOSED: "CLOSED"}


def section(*fields: tuple[bytes, bytes]) -> bytes:
    return block([*fields, ADDED])


FRAMES: dict[str, Any] = {
    "DATA": lambda at, client: DataFrame(at, b"octets"),
    "HEADERS": lambda at, client: HeadersFrame(at, section(*(OK if client else POST))),
    "trailers": lambda at, client: HeadersFrame(at, section(*TRAILERS), end_stream=True),
    "PRIORITY": lambda at, client: PriorityFrame(at, Priority(False, 0, 15)),
    "RST_STREAM": lambda at, client: RstStreamFrame(at, ErrorCode.CANCEL),
    "PUSH_PROMISE": lambda at, client: PushPromiseFrame(at, 4, section(*GET)),
    "WINDOW_UPDATE": lambda at, client: WindowUpdateFrame(at, 5),
    "CONTINUATION": lambda at, client: ContinuationFrame(at, section(*TRAILERS)),
    "unknown": lambda at, client: UnknownFrame(0x42, 0xFF, at, b"octets"),
    # Frames of the connection as a whole, on a stream all the same.
    "SETTINGS": lambda at, client: UnknownFrame(0x4, 0, at, b""),
    "PING": lambda at, client: UnknownFrame(0x6, 0, at, bytes(8)),
    "GOAWAY": lambda at, client: UnknownFrame(0x7, 0, at, bytes(8)),
}


# -- a server, and the frames of a client ------------------------------------------------------


def asked(*stream_ids: int, end_stream: bool = False, **settings: Any) -> Connection:
    server = begun(client=False, **settings)
    feed(server, *(HeadersFrame(at, block(POST), end_stream) for at in stream_ids))
    return server


def answered(end_stream: bool) -> Connection:
    server = asked(5, end_stream=end_stream)
    server.send_response(server.streams[5], OK, end_stream=True)
    return server


def reset_by_client() -> Connection:
    server = asked(5)
    feed(server, RstStreamFrame(5, ErrorCode.CANCEL))
    return server


def reset_by_server() -> Connection:
    server = asked(5)
    server.reset_stream(server.streams[5])
    return server


def refused() -> Connection:
    return asked(3, 5, settings={SettingId.MAX_CONCURRENT_STREAMS: 1})


def past_goaway() -> Connection:
    server = asked(3)
    server.goaway()
    feed(server, HeadersFrame(5, block(POST)))
    return server


SERVER_STATES: dict[str, Any] = {
    "idle": lambda: asked(3),
    "idle, the server's": lambda: asked(3),  # its number is 6
    "open": lambda: asked(5),
    "half-closed (local)": lambda: answered(end_stream=False),
    "half-closed (remote)": lambda: asked(5, end_stream=True),
    "closed by END_STREAM": lambda: answered(end_stream=True),
    "closed by the client's reset": reset_by_client,
    "closed by the server's reset": reset_by_server,
    "closed by its refusal": refused,
    "closed by being passed over": lambda: asked(3, 9),
    "past the server's GOAWAY": past_goaway,
}
SERVER_TABLE = """
state                        | DATA       | HEADERS    | trailers   | RST_STREAM | WINDOW_UPDATE
idle                         | C PROTOCOL | taken      | S PROTOCOL | C PROTOCOL | C PROTOCOL
idle, the server's           | C PROTOCOL | C PROTOCOL | C PROTOCOL | C PROTOCOL | C PROTOCOL
open                         | taken      | S PROTOCOL | taken      | taken      | taken
half-closed (local)          | taken      | S PROTOCOL | taken      | taken      | taken
half-closed (remote)         | S CLOSED   | S CLOSED   | S CLOSED   | taken      | taken
closed by END_STREAM         | S CLOSED   | C CLOSED   | C CLOSED   | passed     | passed
closed by the client's reset | S CLOSED   | S CLOSED   | S CLOSED   | passed     | passed
closed by the server's reset | passed     | passed     | passed     | passed     | passed
closed by its refusal        | passed     | passed     | passed     | passed     | passed
closed by being passed over  | C PROTOCOL | C PROTOCOL | C PROTOCOL | passed     | passed
past the server's GOAWAY     | passed     | passed     | passed     | passed     | passed
"""


# -- a client, and the frames of a server ------------------------------------------------------


def requested(*bodies: bool) -> Connection:
    """Requests on streams 1, 3 and so on that have left; True: content is still to come."""
    client = begun(client=True)
    for body in bodies:
        client.send_request(POST if body else GET, end_stream=not body)
    drain(client)
    return client


def responded(body: bool) -> Connection:
    client = requested(False, False, body)
    feed(client, HeadersFrame(5, block(OK), end_stream=True))
    return client


def reset_by_peer() -> Connection:
    client = requested(False, False, True)
    feed(client, RstStreamFrame(5, ErrorCode.CANCEL))
    return client


def cancelled() -> Connection:
    client = requested(False, False, True)
    client.reset_stream(client.streams[5])
    return client


def left_out() -> Connection:
    client = requested(False, False, True)
    feed(client, GoAwayFrame(3, ErrorCode.NO_ERROR))
    return client


CLIENT_STATES: dict[str, Any] = {
    "idle": lambda: requested(False),
    "idle, the server's": lambda: requested(False),  # its number is 6
    "open": lambda: requested(False, False, True),
    "half-closed (local)": lambda: requested(False, False, False),
    "half-closed (remote)": lambda: responded(body=True),
    "closed by END_STREAM": lambda: responded(body=False),
    "closed by the server's reset": reset_by_peer,
    "closed by the client's reset": cancelled,
    "closed by the server's GOAWAY": left_out,
}
CLIENT_TABLE = """
state                         | DATA       | HEADERS    | trailers   | RST_STREAM | WINDOW_UPDATE
idle                          | C PROTOCOL | C PROTOCOL | C PROTOCOL | C PROTOCOL | C PROTOCOL
idle, the server's            | C PROTOCOL | C PROTOCOL | C PROTOCOL | C PROTOCOL | C PROTOCOL
open                          | S PROTOCOL | taken      | S PROTOCOL | taken      | taken
half-closed (local)           | S PROTOCOL | taken      | S PROTOCOL | taken      | taken
half-closed (remote)          | S CLOSED   | S CLOSED   | S CLOSED   | taken      | taken
closed by END_STREAM          | S CLOSED   | C CLOSED   | C CLOSED   | passed     | passed
closed by the server's reset  | S CLOSED   | S CLOSED   | S CLOSED   | passed     | passed
closed by the client's reset  | passed     | passed     | passed     | passed     | passed
closed by the server's GOAWAY | S CLOSED   | C CLOSED   | C CLOSED   | passed     | passed
"""

# The same in every state of a stream.
ALWAYS = {
    "PRIORITY": "passed",
    "PUSH_PROMISE": "C PROTOCOL",
    "CONTINUATION": "C PROTOCOL",
    "unknown": "passed",
    "SETTINGS": "C PROTOCOL",
    "PING": "C PROTOCOL",
    "GOAWAY": "C PROTOCOL",
}


def cells(client: bool, table: str) -> list[tuple[bool, str, str, str]]:
    """(client, state, frame, outcome) of every cell, and of what is the same everywhere."""
    header, *rows = [
        [cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()
    ]
    found = []
    for state, *outcomes in rows:
        all_outcomes = {**dict(zip(header[1:], outcomes, strict=True)), **ALWAYS}
        found += [(client, state, frame, outcome) for frame, outcome in all_outcomes.items()]
    return found


CELLS = cells(False, SERVER_TABLE) + cells(True, CLIENT_TABLE)


def outcome_of(core: Connection, events: list[Any], frames: list[Frame]) -> str:
    """The outcome in the tables' words; what was queued is held against what was reported."""
    if core.closed:
        (goaway,) = frames
        assert isinstance(goaway, GoAwayFrame)
        assert [type(event) for event in events] == [ev.ConnectionFailed]
        assert events[0].error_code == goaway.error_code
        return f"C {SHORT_NAMES[goaway.error_code]}"
    if frames:
        (reset,) = frames
        assert isinstance(reset, RstStreamFrame)
        assert reset.stream_id not in core.streams
        assert {type(event) for event in events} <= {ev.StreamReset}
        return f"S {SHORT_NAMES[reset.error_code]}"
    return "taken" if events else "passed"


def test_the_tables_have_every_state_and_every_frame():
    assert {state for client, state, _, _ in CELLS if client} == set(CLIENT_STATES)
    assert {state for client, state, _, _ in CELLS if not client} == set(SERVER_STATES)
    for client, states in ((True, CLIENT_STATES), (False, SERVER_STATES)):
        for state in states:
            row = {frame for role, at, frame, _ in CELLS if (role, at) == (client, state)}
            assert row == set(FRAMES)


@pytest.mark.rfc(
    "idle-frames", "half-closed-remote-frames", "closed-minimal", "closed-by-reset",
    "closed-by-end", "unpermitted-frames", "stream-id-lower", "client-stream-odd", "reset-once",
    "reset-not-answered", "data-closed", "rst-stream-idle", "window-update-closed",
    "priority-any-state", "push-refused", "push-by-client", "continuation-alone",
    "unknown-frame-discarded", "goaway-ignores-new", "always-decoded", "data-always-counted",
    "settings-stream-nonzero", "ping-stream-nonzero", "goaway-stream-nonzero", "connection-error",
    "stream-error",
)  # fmt: skip
@pytest.mark.parametrize("cut", [None, 1], ids=["whole", "octet by octet"])
@pytest.mark.parametrize(("client", "state", "frame", "outcome"), CELLS)
def test_a_frame_in_a_state_has_the_outcome_of_the_rfc(client, state, frame, outcome, cut):
    core: Connection = (CLIENT_STATES if client else SERVER_STATES)[state]()
    drain(core)
    stream_id = 6 if state == "idle, the server's" else 5
    others = {at: stream.state for at, stream in core.streams.items() if at != stream_id}
    octets = FRAMES[frame](stream_id, client)

    events = feed(core, octets, cut=cut)

    assert outcome_of(core, events, sent(core)) == outcome
    if outcome.startswith("C "):
        assert feed(core, PingFrame(GOES_ON)) == []
        assert not core.has_output
        return
    # The connection goes on, with its other streams, its windows and HPACK's table intact.
    assert feed(core, PingFrame(GOES_ON)) == [ev.PingReceived(GOES_ON)]
    assert sent(core) == [PingFrame(GOES_ON, ack=True)]
    assert {at: core.streams[at].state for at in others} == others
    window = core._receive_window
    assert window.size + window.owed == window.limit
    if frame in ("HEADERS", "trailers"):
        assert core._decoder.decode(b"\xbe").fields == (ADDED,)
    # What was answered once, or passed, is not answered again.
    if outcome != "taken" and frame != "HEADERS" and not state.startswith(("idle", "open")):
        feed(core, octets, cut=cut)
        assert not any(isinstance(answer, RstStreamFrame) for answer in sent(core))
