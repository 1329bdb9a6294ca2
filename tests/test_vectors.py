"""Published vectors: http2jp's frames and HPACK stories, from ../shared/vectors.

They are not part of the repository, so these tests are skipped where the folder is absent; the
project's own vectors stand in test_frames.py and always run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from h2lite.connection import Connection
from h2lite.errors import ErrorCode
from h2lite.events import ConnectionFailed
from h2lite.fields import FieldDecoder, FieldEncoder
from h2lite.frames import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    OversizedFrame,
    PingFrame,
    Priority,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from tests.cutting import frames_of

VECTORS = Path(__file__).parent.parent.parent / "shared" / "vectors"
FRAMES = VECTORS / "http2-frame-test-case"
STORIES = VECTORS / "hpack-test-case"

Json = dict[str, Any]


def vectors(folder: Path, pattern: str) -> list[Any]:
    """The files below a folder as test parameters; one skipped parameter where it is absent."""
    paths = sorted(folder.glob(pattern))
    if paths:
        return [pytest.param(path, id="/".join(path.parts[-2:])) for path in paths]
    reason = f"no published vectors: {folder.parent.name}/{folder.name} is not beside this project"
    return [pytest.param(None, id="absent", marks=pytest.mark.skip(reason))]


def read(path: Path) -> Json:
    read_back: Json = json.loads(path.read_text("utf-8"))
    return read_back


# -- frames --------------------------------------------------------------------------------


def priority(payload: Json) -> Priority:
    """The vectors write the weight as 1 to 256, we as the octet that crosses."""
    return Priority(payload["exclusive"], payload["stream_dependency"], payload["weight"] - 1)


def expected(frame: Json) -> Frame:
    """Our frame for one that a vector describes."""
    stream_id, flags, payload = frame["stream_identifier"], frame["flags"], frame["frame_payload"]
    block = payload.get("header_block_fragment", "").encode()
    pad_length = payload.get("padding_length")
    flag_1, end_headers = bool(flags & 0x1), bool(flags & 0x4)
    match frame["type"]:
        case 0x0:
            return DataFrame(stream_id, payload["data"].encode(), flag_1, pad_length)
        case 0x1:
            signal = priority(payload) if flags & 0x20 else None
            return HeadersFrame(stream_id, block, flag_1, end_headers, signal, pad_length)
        case 0x2:
            return PriorityFrame(stream_id, priority(payload))
        case 0x3:
            return RstStreamFrame(stream_id, payload["error_code"])
        case 0x4:
            return SettingsFrame(tuple(map(tuple, payload["settings"])), flag_1)
        case 0x5:
            promised = payload["promised_stream_id"]
            return PushPromiseFrame(stream_id, promised, block, end_headers, pad_length)
        case 0x6:
            return PingFrame(payload["opaque_data"].encode(), flag_1)
        case 0x7:
            debug_data = payload["additional_debug_data"].encode()
            return GoAwayFrame(payload["last_stream_id"], payload["error_code"], debug_data)
        case 0x8:
            return WindowUpdateFrame(stream_id, payload["window_size_increment"])
        case _:
            return ContinuationFrame(stream_id, block, end_headers)


def with_zero_padding(wire: bytes, frame: Json) -> bytes:
    """The vectors pad with text; we send zeros, as RFC 9113 wants."""
    pad_length = frame["frame_payload"].get("padding_length") or 0
    return wire[: len(wire) - pad_length] + bytes(pad_length)


@pytest.mark.parametrize("path", vectors(FRAMES, "[!e]*/*.json"))
def test_a_lawful_frame_is_decoded_as_described_and_encoded_again(path):
    vector = read(path)
    wire = bytes.fromhex(vector["wire"])
    frame = expected(vector["frame"])
    # Stream states are not these vectors' subject: a CONTINUATION needs a block to continue.
    before: list[Frame] = [SettingsFrame()]
    if isinstance(frame, ContinuationFrame):
        before.append(HeadersFrame(frame.stream_id, b"", end_headers=False))

    found = frames_of(b"".join(each.encode() for each in before) + wire)

    assert found == [*before, frame]
    assert frame.encode() == with_zero_padding(wire, vector["frame"])


# Whether a promised stream exists is for the connection to judge, not for the framer.
ILLEGAL_PROMISES = (
    "push_promise-frame-promised_stream-odd.json",
    "push_promise-frame-promised_stream-zero.json",
)


@pytest.mark.parametrize("path", vectors(FRAMES, "error/*.json"))
def test_an_unlawful_frame_is_refused_with_an_error_code_that_fits(path):
    vector = read(path)
    wire = bytes.fromhex(vector["wire"])

    stream_id = int.from_bytes(wire[5:9], "big")

    _, outcome = frames_of(SettingsFrame().encode() + wire)

    if path.name in ILLEGAL_PROMISES:
        assert isinstance(outcome, PushPromiseFrame)
    elif isinstance(outcome, OversizedFrame):
        assert ErrorCode.FRAME_SIZE_ERROR in vector["error"]
    else:
        assert outcome in [(code, reach) for code in vector["error"] for reach in (0, stream_id)]


@pytest.mark.parametrize("path", vectors(FRAMES, "error/*.json"))
def test_an_unlawful_frame_ends_the_connection_with_an_error_code_that_fits(path):
    vector = read(path)
    connection = Connection()
    octets = SettingsFrame().encode() + bytes.fromhex(vector["wire"])

    failed = connection.receive_data(octets, 0.0)[-1]

    assert isinstance(failed, ConnectionFailed)
    assert failed.error_code in vector["error"]
    assert connection.closed


# -- HPACK ---------------------------------------------------------------------------------


def fields_of(case: Json) -> list[tuple[bytes, bytes]]:
    pairs = [pair for line in case["headers"] for pair in line.items()]
    return [(name.encode(), value.encode()) for name, value in pairs]


@pytest.mark.parametrize("path", vectors(STORIES, "[!r]*/*.json"))
def test_a_story_of_field_blocks_is_decoded_in_order(path):
    decoder = FieldDecoder()

    for case in read(path)["cases"]:
        section = decoder.decode(bytes.fromhex(case["wire"]))
        assert [*section.fields] == fields_of(case), case["seqno"]


@pytest.mark.parametrize("path", vectors(STORIES, "*/*.json"))
def test_a_story_of_field_sections_is_encoded_so_that_it_decodes_again(path):
    encoder, decoder = FieldEncoder(), FieldDecoder()

    for case in read(path)["cases"]:
        if case.get("header_table_size") is not None:
            encoder.set_table_size(case["header_table_size"])
        assert [*decoder.decode(encoder.encode(fields_of(case))).fields] == fields_of(case)
