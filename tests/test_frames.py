"""The ten frame types: octets written by hand from RFC 9113 §4.1 and §6, both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2lite.errors import ErrorCode, PeerError, UsageError
from h2lite.frames import (
    FRAME_CLASSES,
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
    SettingsFrame,
    UnknownFrame,
    WindowUpdateFrame,
    decode_frame,
    encode_frame,
)

# length  type flags stream-id, then the payload; written out from the pictures in the RFC
OCTETS = {
    "data": ("000003 00 00 00000001  616263", DataFrame(1, b"abc")),
    "data-empty-end": ("000000 00 01 7fffffff", DataFrame(2**31 - 1, b"", end_stream=True)),
    "data-padded": (
        "000008 00 09 00000003  04 616263 00000000",
        DataFrame(3, b"abc", end_stream=True, pad_length=4),
    ),
    "data-pad-length-0": ("000004 00 08 00000003  00 616263", DataFrame(3, b"abc", pad_length=0)),
    "data-padding-alone": (
        "000100 00 08 00000003  ff" + "00" * 255,
        DataFrame(3, b"", pad_length=255),
    ),
    "headers": ("000002 01 04 00000001  8286", HeadersFrame(1, b"\x82\x86")),
    "headers-end-stream": (
        "000002 01 05 00000001  8286",
        HeadersFrame(1, b"\x82\x86", end_stream=True),
    ),
    "headers-to-be-continued": (
        "000001 01 01 00000005  82",
        HeadersFrame(5, b"\x82", end_stream=True, end_headers=False),
    ),
    "headers-priority": (
        "000006 01 24 00000005  80000003 0f 82",
        HeadersFrame(5, b"\x82", priority=Priority(True, 3, 15)),
    ),
    "headers-padded": (
        "000004 01 0c 00000005  02 82 0000",
        HeadersFrame(5, b"\x82", pad_length=2),
    ),
    "headers-padded-priority": (
        "000009 01 2d 00000005  02 00000003 ff 82 0000",
        HeadersFrame(
            5, b"\x82", end_stream=True, priority=Priority(False, 3, 255), pad_length=2
        ),
    ),
    "headers-padded-priority-empty": (
        "000007 01 2c 00000005  01 00000000 00 00",
        HeadersFrame(5, b"", priority=Priority(False, 0, 0), pad_length=1),
    ),
    "priority": (
        "000005 02 00 00000009  0000000b 07",
        PriorityFrame(9, Priority(False, 11, 7)),
    ),
    "priority-exclusive": (
        "000005 02 00 00000009  ffffffff 00",
        PriorityFrame(9, Priority(True, 2**31 - 1, 0)),
    ),
    "rst-stream": ("000004 03 00 00000005  00000008", RstStreamFrame(5, ErrorCode.CANCEL)),
    "rst-stream-unknown-code": (
        "000004 03 00 00000005  fffffffe",
        RstStreamFrame(5, 0xFFFFFFFE),
    ),
    "settings": (
        "00000c 04 00 00000000  0003 00000064  0004 0000ffff",
        SettingsFrame(((3, 100), (4, 65535))),
    ),
    "settings-empty": ("000000 04 00 00000000", SettingsFrame()),
    "settings-ack": ("000000 04 01 00000000", SettingsFrame(ack=True)),
    "settings-unknown-and-twice": (
        "000012 04 00 00000000  ffff 00000001  0001 00000000  0001 ffffffff",
        SettingsFrame(((0xFFFF, 1), (1, 0), (1, 2**32 - 1))),
    ),
    "push-promise": (
        "000006 05 04 00000001  00000002 8286",
        PushPromiseFrame(1, 2, b"\x82\x86"),
    ),
    "push-promise-padded": (
        "000008 05 08 00000001  01 7ffffffe 8286 00",
        PushPromiseFrame(1, 2**31 - 2, b"\x82\x86", end_headers=False, pad_length=1),
    ),
    "ping": ("000008 06 00 00000000  0102030405060708", PingFrame(bytes(range(1, 9)))),
    "ping-ack": ("000008 06 01 00000000  ffffffffffffffff", PingFrame(b"\xff" * 8, ack=True)),
    "goaway": (
        "000008 07 00 00000000  00000007 00000002",
        GoAwayFrame(7, ErrorCode.INTERNAL_ERROR),
    ),
    "goaway-debug-data": (
        "00000b 07 00 00000000  7fffffff 00000000 627965",
        GoAwayFrame(2**31 - 1, ErrorCode.NO_ERROR, b"bye"),
    ),
    "window-update": ("000004 08 00 00000000  00000001", WindowUpdateFrame(0, 1)),
    "window-update-stream": (
        "000004 08 00 00000003  7fffffff",
        WindowUpdateFrame(3, 2**31 - 1),
    ),
    "continuation": ("000002 09 04 00000001  8286", ContinuationFrame(1, b"\x82\x86")),
    "continuation-not-last": (
        "000000 09 00 00000001",
        ContinuationFrame(1, b"", end_headers=False),
    ),
    "unknown": ("000003 0a ff 00000001  616263", UnknownFrame(0x0A, 0xFF, 1, b"abc")),
    "unknown-last": ("000000 ff 00 00000000", UnknownFrame(0xFF, 0, 0, b"")),
}


def decode(octets: bytes) -> Frame:
    """Take the header apart by hand, so that this says nothing about the framer."""
    length, type_, flags = int.from_bytes(octets[:3], "big"), octets[3], octets[4]
    assert length == len(octets) - 9
    return decode_frame(type_, flags, int.from_bytes(octets[5:9], "big"), octets[9:])


def refusal(type_: int, flags: int, stream_id: int, payload: bytes) -> tuple[int, int]:
    """The error code and the stream of the fault, 0: the connection."""
    with pytest.raises(PeerError) as caught:
        decode_frame(type_, flags, stream_id, payload)
    return caught.value.error_code, caught.value.stream_id


PROTOCOL_ERROR = 0x1
FRAME_SIZE_ERROR = 0x6
A_CONNECTION_ERROR = 0


@pytest.mark.parametrize(("octets", "frame"), OCTETS.values(), ids=OCTETS)
def test_a_frame_is_encoded_as_the_rfc_draws_it(octets, frame):
    assert frame.encode().hex() == octets.replace(" ", "")


@pytest.mark.parametrize(("octets", "frame"), OCTETS.values(), ids=OCTETS)
def test_a_frame_is_decoded_as_the_rfc_draws_it(octets, frame):
    assert decode(bytes.fromhex(octets)) == frame


def test_the_types_are_numbered_as_in_the_rfc():
    assert [(each.TYPE, each.NAME) for each in FRAME_CLASSES] == [
        (0x0, "DATA"),
        (0x1, "HEADERS"),
        (0x2, "PRIORITY"),
        (0x3, "RST_STREAM"),
        (0x4, "SETTINGS"),
        (0x5, "PUSH_PROMISE"),
        (0x6, "PING"),
        (0x7, "GOAWAY"),
        (0x8, "WINDOW_UPDATE"),
        (0x9, "CONTINUATION"),
    ]


@pytest.mark.rfc("unknown-type")
@pytest.mark.parametrize("type_", [0x0A, 0x10, 0x7F, 0xFF])
@pytest.mark.parametrize("stream_id", [0, 1, 2**31 - 1])
def test_a_frame_of_unknown_type_is_kept_as_it_came(type_, stream_id):
    frame = decode_frame(type_, 0xA5, stream_id, b"anything")

    assert frame == UnknownFrame(type_, 0xA5, stream_id, b"anything")


USED_FLAGS = {
    0x0: 0x01 | 0x08,
    0x1: 0x01 | 0x04 | 0x08 | 0x20,
    0x2: 0,
    0x3: 0,
    0x4: 0x01,
    0x5: 0x04 | 0x08,
    0x6: 0x01,
    0x7: 0,
    0x8: 0,
    0x9: 0x04,
}
KNOWN = {name: each for name, each in OCTETS.items() if not name.startswith("unknown")}


@pytest.mark.rfc("unused-flags")
@pytest.mark.parametrize(("octets", "frame"), KNOWN.values(), ids=KNOWN)
def test_flags_that_a_type_does_not_define_are_ignored(octets, frame):
    plain = bytearray.fromhex(octets)
    assert plain[4] & ~USED_FLAGS[plain[3]] == 0

    plain[4] |= 0xFF & ~USED_FLAGS[plain[3]]

    assert decode(bytes(plain)) == frame


ON_A_STREAM = [
    pytest.param(0x0, b"abc", marks=pytest.mark.rfc("data-stream-zero")),
    pytest.param(0x1, b"\x82", marks=pytest.mark.rfc("headers-stream-zero")),
    pytest.param(0x2, bytes(5), marks=pytest.mark.rfc("priority-stream-zero")),
    pytest.param(0x3, bytes(4), marks=pytest.mark.rfc("rst-stream-zero")),
    pytest.param(0x5, bytes(4), marks=pytest.mark.rfc("push-promise-stream-zero")),
    pytest.param(0x9, b"\x82", marks=pytest.mark.rfc("continuation-stream-zero")),
]


@pytest.mark.parametrize(("type_", "payload"), ON_A_STREAM)
def test_a_frame_that_needs_a_stream_is_refused_on_stream_0(type_, payload):
    assert decode_frame(type_, 0, 1, payload)
    assert refusal(type_, 0, 0, payload) == (PROTOCOL_ERROR, A_CONNECTION_ERROR)


ON_THE_CONNECTION = [
    pytest.param(0x4, 0, b"", marks=pytest.mark.rfc("settings-stream-nonzero")),
    pytest.param(0x4, 1, b"", marks=pytest.mark.rfc("settings-stream-nonzero")),
    pytest.param(0x6, 0, bytes(8), marks=pytest.mark.rfc("ping-stream-nonzero")),
    pytest.param(0x6, 1, bytes(8), marks=pytest.mark.rfc("ping-stream-nonzero")),
    pytest.param(0x7, 0, bytes(8), marks=pytest.mark.rfc("goaway-stream-nonzero")),
]


@pytest.mark.parametrize("stream_id", [1, 2, 2**31 - 1])
@pytest.mark.parametrize(("type_", "flags", "payload"), ON_THE_CONNECTION)
def test_a_frame_of_the_connection_is_refused_on_a_stream(type_, flags, payload, stream_id):
    assert decode_frame(type_, flags, 0, payload)
    assert refusal(type_, flags, stream_id, payload) == (PROTOCOL_ERROR, A_CONNECTION_ERROR)


@pytest.mark.rfc("ping-length")
@pytest.mark.parametrize("flags", [0, 1])
@pytest.mark.parametrize("octets", [0, 7, 9, 16384])
def test_ping_of_wrong_length_is_a_frame_size_error(octets, flags):
    assert refusal(0x6, flags, 0, bytes(octets)) == (FRAME_SIZE_ERROR, A_CONNECTION_ERROR)


@pytest.mark.rfc("priority-length")
@pytest.mark.parametrize("octets", [0, 4, 6, 16384])
def test_priority_of_wrong_length_is_a_frame_size_error_of_its_stream(octets):
    assert refusal(0x2, 0, 7, bytes(octets)) == (FRAME_SIZE_ERROR, 7)


@pytest.mark.rfc("rst-stream-length")
@pytest.mark.parametrize("octets", [0, 3, 5, 16384])
def test_rst_stream_of_wrong_length_is_a_frame_size_error(octets):
    assert refusal(0x3, 0, 7, bytes(octets)) == (FRAME_SIZE_ERROR, A_CONNECTION_ERROR)


@pytest.mark.rfc("window-update-length")
@pytest.mark.parametrize("stream_id", [0, 7])
@pytest.mark.parametrize("octets", [0, 3, 5, 16384])
def test_window_update_of_wrong_length_is_a_frame_size_error(octets, stream_id):
    assert refusal(0x8, 0, stream_id, bytes(octets)) == (FRAME_SIZE_ERROR, A_CONNECTION_ERROR)


@pytest.mark.rfc("settings-length")
@pytest.mark.parametrize("octets", [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 13, 16384])
def test_settings_not_a_multiple_of_6_octets_are_a_frame_size_error(octets):
    assert refusal(0x4, 0, 0, bytes(octets)) == (FRAME_SIZE_ERROR, A_CONNECTION_ERROR)


@pytest.mark.rfc("settings-ack-empty")
@pytest.mark.parametrize("octets", [1, 6, 12])
def test_a_settings_ack_with_a_payload_is_a_frame_size_error(octets):
    assert refusal(0x4, 1, 0, bytes(octets)) == (FRAME_SIZE_ERROR, A_CONNECTION_ERROR)


@pytest.mark.rfc("settings-ack-empty")
def test_we_send_no_settings_ack_with_settings():
    with pytest.raises(UsageError):
        SettingsFrame(((1, 4096),), ack=True).encode()


@pytest.mark.rfc("frame-too-small")
@pytest.mark.parametrize(
    ("type_", "flags", "stream_id", "payload"),
    [
        (0x0, 0x08, 1, b""),
        (0x1, 0x08, 1, b""),
        (0x5, 0x08, 1, b""),
        (0x1, 0x20, 1, b""),
        (0x1, 0x20, 1, bytes(4)),
        (0x1, 0x28, 1, bytes(5)),
        (0x1, 0x28, 1, b"\x01" + bytes(5)),
        (0x5, 0, 1, b""),
        (0x5, 0, 1, bytes(3)),
        (0x5, 0x08, 1, bytes(4)),
        (0x5, 0x08, 1, b"\x01" + bytes(4)),
        (0x7, 0, 0, b""),
        (0x7, 0, 0, bytes(7)),
    ],
)
def test_a_payload_too_short_for_its_fields_is_a_frame_size_error(
    type_, flags, stream_id, payload
):
    assert refusal(type_, flags, stream_id, payload) == (FRAME_SIZE_ERROR, A_CONNECTION_ERROR)


@pytest.mark.rfc("padding-too-long")
@pytest.mark.parametrize("type_", [0x0, 0x1, 0x5])
@pytest.mark.parametrize(
    "payload", [b"\x01", b"\x05" + bytes(4), b"\x06" + bytes(4), b"\xff" + bytes(254)]
)
def test_padding_as_long_as_the_payload_is_a_protocol_error(type_, payload):
    assert refusal(type_, 0x08, 1, payload) == (PROTOCOL_ERROR, A_CONNECTION_ERROR)


@pytest.mark.rfc("padding-too-long")
def test_padding_may_fill_the_whole_payload_behind_its_length():
    assert decode_frame(0x0, 0x08, 1, b"\x04" + bytes(4)) == DataFrame(1, b"", pad_length=4)
    assert decode_frame(0x1, 0x08, 1, b"\x04" + bytes(4)) == HeadersFrame(
        1, b"", end_headers=False, pad_length=4
    )
    assert decode_frame(0x5, 0x08, 1, b"\x04" + bytes(8)) == PushPromiseFrame(
        1, 0, b"", end_headers=False, pad_length=4
    )


@pytest.mark.rfc("padding-nonzero")
def test_what_the_padding_holds_is_not_looked_at():
    assert decode_frame(0x0, 0x08, 1, b"\x03abcXYZ") == DataFrame(1, b"abc", pad_length=3)


@pytest.mark.rfc("padding-zeros")
@pytest.mark.parametrize("pad_length", [0, 1, 255])
@pytest.mark.parametrize(
    "frame",
    [DataFrame(1, b"\xff"), HeadersFrame(1, b"\xff"), PushPromiseFrame(1, 2, b"\xff")],
    ids=lambda frame: frame.NAME,
)
def test_the_padding_we_send_is_zeros(frame, pad_length):
    frame.pad_length = pad_length

    octets = frame.encode()

    assert octets[9] == pad_length
    assert octets[len(octets) - pad_length - 1 :] == b"\xff" + bytes(pad_length)


@pytest.mark.parametrize("pad_length", [-1, 256])
def test_a_pad_length_that_one_octet_cannot_hold_is_a_usage_error(pad_length):
    with pytest.raises(UsageError):
        DataFrame(1, b"", pad_length=pad_length).encode()


@pytest.mark.rfc("data-padding-counts")
@pytest.mark.parametrize(
    ("pad_length", "octets"), [(None, 3), (0, 4), (1, 5), (255, 259)]
)
def test_the_whole_payload_of_data_counts_against_the_windows(pad_length, octets):
    frame = DataFrame(1, b"abc", pad_length=pad_length)

    assert frame.flow_controlled_length == octets == len(frame.encode()) - 9


@pytest.mark.rfc("window-update-zero")
@pytest.mark.parametrize("payload", [bytes(4), b"\x80\0\0\0"], ids=["zero", "reserved-bit-alone"])
@pytest.mark.parametrize("stream_id", [0, 7])
def test_an_increment_of_0_is_the_fault_of_its_stream(stream_id, payload):
    assert refusal(0x8, 0, stream_id, payload) == (PROTOCOL_ERROR, stream_id)


@pytest.mark.parametrize("increment", [-1, 0, 2**31])
def test_an_increment_out_of_range_is_a_usage_error(increment):
    with pytest.raises(UsageError):
        WindowUpdateFrame(1, increment).encode()


@pytest.mark.rfc("reserved-bit")
def test_the_reserved_bits_inside_payloads_are_ignored():
    assert decode_frame(0x8, 0, 1, b"\x80\0\0\x01") == WindowUpdateFrame(1, 1)
    assert decode_frame(0x7, 0, 0, b"\x80\0\0\x07" + bytes(4)) == GoAwayFrame(7, 0)
    assert decode_frame(0x5, 4, 1, b"\x80\0\0\x02\x82") == PushPromiseFrame(1, 2, b"\x82")


@pytest.mark.rfc("reserved-bit")
@pytest.mark.parametrize("stream_id", [-1, 2**31, 2**32])
def test_a_stream_identifier_that_would_set_the_reserved_bit_is_a_usage_error(stream_id):
    with pytest.raises(UsageError):
        DataFrame(stream_id, b"").encode()


@pytest.mark.rfc("reserved-bit")
@pytest.mark.parametrize("last_stream_id", [-1, 2**31])
def test_a_last_stream_that_would_set_the_reserved_bit_is_a_usage_error(last_stream_id):
    with pytest.raises(UsageError):
        GoAwayFrame(last_stream_id, 0).encode()


@pytest.mark.rfc("ping-length")
@pytest.mark.parametrize("opaque_data", [b"", b"1234567", b"123456789"])
def test_we_send_no_ping_of_another_length(opaque_data):
    with pytest.raises(UsageError):
        PingFrame(opaque_data).encode()


@pytest.mark.parametrize(
    "priority", [Priority(False, 2**31, 0), Priority(False, -1, 0), Priority(False, 1, 256)]
)
def test_a_priority_that_its_fields_cannot_hold_is_a_usage_error(priority):
    with pytest.raises(UsageError):
        PriorityFrame(1, priority).encode()


def test_a_payload_may_be_as_long_as_24_bits_say_and_no_longer():
    largest = bytes(2**24 - 1)

    assert encode_frame(0x0, 0, 1, largest)[:9].hex() == "ffffff000000000001"
    with pytest.raises(UsageError):
        encode_frame(0x0, 0, 1, largest + b"\0")


def test_a_frame_without_a_type_has_no_octets():
    assert str(Frame()) == "FRAME stream=0"
    with pytest.raises(UsageError):
        Frame().encode()


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (DataFrame(1, b"abc"), "DATA stream=1 octets=3"),
        (DataFrame(1, b"", True, 0), "DATA stream=1 octets=0 pad_length=0 END_STREAM"),
        (
            HeadersFrame(3, b"\x82", True, True, Priority(True, 1, 15)),
            "HEADERS stream=3 octets=1 END_STREAM END_HEADERS depends_on=1 exclusive weight=15",
        ),
        (HeadersFrame(3, b"", pad_length=2), "HEADERS stream=3 octets=0 END_HEADERS pad_length=2"),
        (HeadersFrame(3, b"", end_headers=False), "HEADERS stream=3 octets=0"),
        (PriorityFrame(5, Priority(False, 3, 0)), "PRIORITY stream=5 depends_on=3 weight=0"),
        (RstStreamFrame(5, 0x8), "RST_STREAM stream=5 CANCEL"),
        (RstStreamFrame(5, 0x1F), "RST_STREAM stream=5 0x1f"),
        (
            SettingsFrame(((3, 100), (9, 1))),
            "SETTINGS stream=0 MAX_CONCURRENT_STREAMS=100 0x9=1",
        ),
        (SettingsFrame(), "SETTINGS stream=0"),
        (SettingsFrame(ack=True), "SETTINGS stream=0 ACK"),
        (
            PushPromiseFrame(1, 2, b"\x82", True, 0),
            "PUSH_PROMISE stream=1 promised=2 octets=1 END_HEADERS pad_length=0",
        ),
        (PushPromiseFrame(1, 2, b"", False), "PUSH_PROMISE stream=1 promised=2 octets=0"),
        (PingFrame(bytes(range(8))), "PING stream=0 opaque_data=0001020304050607"),
        (PingFrame(bytes(8), True), "PING stream=0 opaque_data=0000000000000000 ACK"),
        (GoAwayFrame(7, 0), "GOAWAY stream=0 last_stream_id=7 NO_ERROR"),
        (
            GoAwayFrame(7, 0xB, b"too_many_pings"),
            "GOAWAY stream=0 last_stream_id=7 ENHANCE_YOUR_CALM debug_data=b'too_many_pings'",
        ),
        (WindowUpdateFrame(3, 5), "WINDOW_UPDATE stream=3 increment=5"),
        (ContinuationFrame(1, b"\x82"), "CONTINUATION stream=1 octets=1 END_HEADERS"),
        (ContinuationFrame(1, b"", False), "CONTINUATION stream=1 octets=0"),
        (UnknownFrame(0xB, 0x3, 9, b"ab"), "UNKNOWN stream=9 type=0x0b flags=0x03 octets=2"),
    ],
    ids=lambda each: each.NAME if isinstance(each, Frame) else "",
)  # fmt: skip
def test_a_frame_reads_as_one_line(frame, text):
    assert str(frame) == text


def frame_or_fault(
    type_: int, flags: int, stream_id: int, payload: bytes
) -> Frame | PeerError:
    try:
        return decode_frame(type_, flags, stream_id, payload)
    except PeerError as error:
        return error


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**31 - 1), st.binary(max_size=40))
def test_whatever_arrives_is_a_frame_or_a_fault_of_the_peer(type_, flags, stream_id, payload):
    outcome = frame_or_fault(type_, flags, stream_id, payload)

    if isinstance(outcome, PeerError):
        assert outcome.error_code in (PROTOCOL_ERROR, FRAME_SIZE_ERROR)
        assert outcome.stream_id in (A_CONNECTION_ERROR, stream_id)
    else:
        assert decode(outcome.encode()) == outcome
        assert len(str(outcome).splitlines()) == 1
