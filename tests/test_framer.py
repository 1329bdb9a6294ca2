"""Octets to frames: the preface, the order, the sizes; and no cut makes a difference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2lite.errors import PeerError
from h2lite.framer import CLIENT_PREFACE, Framer
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
    UnknownFrame,
    WindowUpdateFrame,
)
from tests.cutting import drain, frames_of

PROTOCOL_ERROR = 0x1
FRAME_SIZE_ERROR = 0x6

SETTINGS = bytes.fromhex("000000 04 00 00000000")
PING = bytes.fromhex("000008 06 00 00000000  0102030405060708")
A_PING = PingFrame(bytes(range(1, 9)))

def begun(max_frame_size: int = 16384) -> Framer:
    """A framer that has seen the peer's SETTINGS."""
    framer = Framer(max_frame_size)
    assert drain(framer, [SETTINGS]) == [SettingsFrame()]
    return framer


# -- the preface ---------------------------------------------------------------------------


@pytest.mark.rfc("client-preface")
def test_the_clients_preface_is_the_24_octets_of_the_rfc():
    assert CLIENT_PREFACE.hex() == "505249202a20485454502f322e300d0a0d0a534d0d0a0d0a"


@pytest.mark.rfc("client-preface")
def test_a_clients_frames_follow_its_preface():
    assert frames_of(CLIENT_PREFACE + SETTINGS + PING, from_client=True) == [
        SettingsFrame(),
        A_PING,
    ]


@pytest.mark.rfc("preface-invalid")
@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        SETTINGS,
        CLIENT_PREFACE[:23] + b"\r" + SETTINGS,
        b"pri" + CLIENT_PREFACE[3:] + SETTINGS,
        b"\x16\x03\x01",
    ],
    ids=["http1", "no-preface", "last-octet", "lower-case", "tls"],
)
def test_octets_other_than_the_preface_are_a_protocol_error(octets):
    assert frames_of(octets, from_client=True) == [(PROTOCOL_ERROR, 0)]


@pytest.mark.rfc("preface-invalid")
@pytest.mark.parametrize("at", range(24))
def test_a_wrong_preface_is_refused_at_its_first_wrong_octet(at):
    framer = Framer(from_client=True)
    assert drain(framer, [CLIENT_PREFACE[:at]]) == []

    assert drain(framer, [b"\0"]) == [(PROTOCOL_ERROR, 0)]


def test_a_server_has_no_preface_but_its_settings():
    assert frames_of(SETTINGS + PING) == [SettingsFrame(), A_PING]


@pytest.mark.rfc("first-frame-settings")
@pytest.mark.parametrize(
    "first",
    [
        PING,
        SettingsFrame(ack=True).encode(),
        GoAwayFrame(0, 0).encode(),
        HeadersFrame(1, b"\x82").encode(),
        ContinuationFrame(1, b"\x82").encode(),
        UnknownFrame(0x0A, 0, 0, b"").encode(),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
    ids=["ping", "settings-ack", "goaway", "headers", "continuation", "unknown", "http1"],
)
def test_a_first_frame_other_than_settings_is_a_protocol_error(first):
    assert frames_of(first + SETTINGS) == [(PROTOCOL_ERROR, 0)]
    assert frames_of(CLIENT_PREFACE + first + SETTINGS, from_client=True) == [(PROTOCOL_ERROR, 0)]


@pytest.mark.rfc("first-frame-settings")
def test_the_first_frame_is_judged_on_its_header():
    assert frames_of(PING[:9]) == [(PROTOCOL_ERROR, 0)]
    assert frames_of(PING[:8]) == []


def test_an_answer_in_http_1_1_is_called_by_its_name():
    framer = Framer()
    framer.feed(b"HTTP/1.1 ")

    with pytest.raises(PeerError, match=r"HTTP/1\.1"):
        framer.next_frame()


# -- cutting -------------------------------------------------------------------------------

ALL_TYPES: list[Frame] = [
    SettingsFrame(((0x3, 100), (0x4, 65535))),
    SettingsFrame(ack=True),
    A_PING,
    HeadersFrame(1, b"\x82\x86", end_headers=False, priority=Priority(True, 0, 15)),
    ContinuationFrame(1, b"", end_headers=False),
    ContinuationFrame(1, b"\x84"),
    DataFrame(1, b"abc", pad_length=2),
    DataFrame(1, b"", end_stream=True),
    PriorityFrame(3, Priority(False, 1, 0)),
    PushPromiseFrame(1, 2, b"\x82"),
    WindowUpdateFrame(0, 2**31 - 1),
    UnknownFrame(0xAA, 0xFF, 7, b"xyz"),
    RstStreamFrame(1, 0x8),
    GoAwayFrame(1, 0x0, b"bye"),
]


def test_frames_of_all_types_come_out_as_they_went_in():
    assert frames_of(b"".join(frame.encode() for frame in ALL_TYPES)) == ALL_TYPES


def test_an_unfinished_frame_is_no_frame():
    for end in range(len(PING)):
        assert drain(begun(), [PING[:end]]) == []


def test_the_octets_of_an_unfinished_frame_are_counted_and_then_let_go():
    framer = begun()
    assert framer.held_octets == 0

    assert drain(framer, [PING + PING[:5]]) == [A_PING]
    assert framer.held_octets == 5

    assert drain(framer, [PING[5:12]]) == []
    assert framer.held_octets == 12

    assert drain(framer, [PING[12:]]) == [A_PING]
    assert framer.held_octets == 0


def test_the_content_of_data_is_a_view_of_what_was_fed_and_other_payloads_are_octets():
    data, ping = drain(begun(), [DataFrame(1, b"abc").encode() + PING])

    assert isinstance(data, DataFrame)
    assert isinstance(data.data, memoryview)
    assert isinstance(ping, PingFrame)
    assert isinstance(ping.opaque_data, bytes)


# -- headers -------------------------------------------------------------------------------


@pytest.mark.rfc("reserved-bit")
def test_the_reserved_bit_of_the_header_is_ignored():
    octets = bytes.fromhex("000001 00 00 80000001  61   000008 06 00 80000000") + bytes(8)

    assert frames_of(SETTINGS + octets) == [
        SettingsFrame(),
        DataFrame(1, b"a"),
        PingFrame(bytes(8)),
    ]


@pytest.mark.rfc("frame-too-large", "frame-size-minimum")
@pytest.mark.parametrize("max_frame_size", [16384, 16385, 2**24 - 1])
def test_a_payload_may_be_as_long_as_max_frame_size(max_frame_size):
    header = max_frame_size.to_bytes(3, "big") + bytes.fromhex("00 00 00000001")

    framer = begun(max_frame_size)

    assert drain(framer, [header]) == []
    assert drain(framer, [bytes(max_frame_size)]) == [DataFrame(1, bytes(max_frame_size))]


CONNECTION_WIDE = [0x1, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0x9]  # all but DATA and PRIORITY


@pytest.mark.rfc("frame-too-large-connection")
@pytest.mark.parametrize("max_frame_size", [16384, 20000])
@pytest.mark.parametrize(
    ("type_", "stream_id"), [*((type_, 1) for type_ in CONNECTION_WIDE), (0x0, 0), (0xB, 0)]
)
def test_a_longer_payload_of_the_connection_is_refused_before_it_has_come(
    type_, stream_id, max_frame_size
):
    header = (max_frame_size + 1).to_bytes(3, "big") + bytes((type_, 0, 0, 0, 0, stream_id))
    opened = HeadersFrame(1, b"", end_headers=False)
    before = SETTINGS + (opened.encode() if type_ == 0x9 else b"")

    assert frames_of(before + header, max_frame_size)[-1:] == [(FRAME_SIZE_ERROR, 0)]


@pytest.mark.rfc("frame-too-large")
@pytest.mark.parametrize("type_", [0x0, 0x2, 0xB, 0xFF])
def test_a_longer_payload_of_one_stream_is_announced_and_passed_over(type_):
    framer = begun(16384)
    header = bytes.fromhex("004001") + bytes((type_, 0, 0, 0, 0, 5))

    assert drain(framer, [header]) == [OversizedFrame(type_, 5, 16385)]
    assert drain(framer, [bytes(10000), bytes(6384)]) == []
    assert drain(framer, [b"\0" + A_PING.encode()]) == [A_PING]
    assert framer.held_octets == 0


@pytest.mark.rfc("frame-too-large")
def test_max_frame_size_may_be_raised_between_frames():
    framer = begun()
    frame = DataFrame(1, bytes(16385))

    framer.max_frame_size = 16385

    assert drain(framer, [frame.encode()]) == [frame]


# -- the order of field blocks ---------------------------------------------------------------

OPEN_BLOCKS = {
    "headers": HeadersFrame(1, b"\x82", end_headers=False),
    "push-promise": PushPromiseFrame(1, 2, b"\x82", end_headers=False),
}


@pytest.mark.rfc("field-block-contiguous")
@pytest.mark.parametrize("first", OPEN_BLOCKS.values(), ids=OPEN_BLOCKS)
def test_a_field_block_ends_with_end_headers(first):
    sequence = [
        SettingsFrame(),
        first,
        ContinuationFrame(1, b"\x86", end_headers=False),
        ContinuationFrame(1, b"\x84"),
        A_PING,
    ]

    assert frames_of(b"".join(frame.encode() for frame in sequence)) == sequence


@pytest.mark.rfc("field-block-contiguous")
@pytest.mark.parametrize(
    "intruder",
    [
        DataFrame(1, b""),
        HeadersFrame(1, b""),
        HeadersFrame(3, b""),
        PriorityFrame(1, Priority(False, 0, 0)),
        RstStreamFrame(1, 0x8),
        SettingsFrame(),
        SettingsFrame(ack=True),
        PushPromiseFrame(1, 2, b""),
        A_PING,
        GoAwayFrame(0, 0x0),
        WindowUpdateFrame(0, 1),
        ContinuationFrame(3, b""),
        UnknownFrame(0x0A, 0, 1, b""),
    ],
    ids=str,
)
@pytest.mark.parametrize("first", OPEN_BLOCKS.values(), ids=OPEN_BLOCKS)
def test_nothing_comes_between_the_frames_of_a_field_block(first, intruder):
    before = SettingsFrame().encode() + first.encode()
    further = ContinuationFrame(1, b"", end_headers=False)

    assert frames_of(before + intruder.encode()) == [SettingsFrame(), first, (PROTOCOL_ERROR, 0)]
    assert frames_of(before + further.encode() + intruder.encode()) == [
        SettingsFrame(),
        first,
        further,
        (PROTOCOL_ERROR, 0),
    ]


@pytest.mark.rfc("field-block-contiguous")
def test_an_intruder_in_a_field_block_is_judged_on_its_header():
    before = SettingsFrame().encode() + OPEN_BLOCKS["headers"].encode()

    assert frames_of(before + PING[:9])[2:] == [(PROTOCOL_ERROR, 0)]


@pytest.mark.rfc("continuation-alone")
@pytest.mark.parametrize(
    "before",
    [
        SettingsFrame(),
        HeadersFrame(1, b"\x82"),
        PushPromiseFrame(1, 2, b"\x82"),
        DataFrame(1, b"\x82"),
        UnknownFrame(0x0A, 0, 1, b""),
    ],
    ids=str,
)
@pytest.mark.parametrize("end_headers", [False, True])
def test_a_continuation_that_continues_nothing_is_a_protocol_error(before, end_headers):
    octets = before.encode() + ContinuationFrame(1, b"", end_headers).encode()

    assert frames_of(SETTINGS + octets) == [SettingsFrame(), before, (PROTOCOL_ERROR, 0)]


@pytest.mark.rfc("continuation-alone")
def test_a_continuation_behind_the_end_of_its_block_is_a_protocol_error():
    octets = b"".join(
        [
            OPEN_BLOCKS["headers"].encode(),
            ContinuationFrame(1, b"").encode(),
            ContinuationFrame(1, b"").encode(),
        ]
    )

    assert frames_of(SETTINGS + octets)[2:] == [ContinuationFrame(1, b""), (PROTOCOL_ERROR, 0)]


# -- faults --------------------------------------------------------------------------------


@pytest.mark.rfc("priority-length")
@pytest.mark.rfc("window-update-zero")
def test_after_a_stream_error_the_next_frame_comes():
    octets = bytes.fromhex("000004 02 00 00000003 00000000   000004 08 00 00000005 00000000")

    assert frames_of(SETTINGS + octets + PING) == [
        SettingsFrame(),
        (FRAME_SIZE_ERROR, 3),
        (PROTOCOL_ERROR, 5),
        A_PING,
    ]


def test_the_frames_before_a_fault_come_out():
    assert frames_of(SETTINGS + PING + WindowUpdateFrame(0, 1).encode()[:9] + bytes(4)) == [
        SettingsFrame(),
        A_PING,
        (PROTOCOL_ERROR, 0),
    ]


# -- whatever may come -----------------------------------------------------------------------

stream_ids = st.integers(1, 2**31 - 1)
u31 = st.integers(0, 2**31 - 1)
u32 = st.integers(0, 2**32 - 1)
short = st.binary(max_size=30)
pad_lengths = st.none() | st.integers(0, 255)
priorities = st.builds(Priority, st.booleans(), u31, st.integers(0, 255))

single_frames: st.SearchStrategy[list[Frame]] = st.one_of(
    st.builds(DataFrame, stream_ids, short, st.booleans(), pad_lengths),
    st.builds(PriorityFrame, stream_ids, priorities),
    st.builds(RstStreamFrame, stream_ids, u32),
    st.builds(
        SettingsFrame,
        st.lists(st.tuples(st.integers(0, 2**16 - 1), u32), max_size=4).map(tuple),
    ),
    st.just(SettingsFrame(ack=True)),
    st.builds(PingFrame, st.binary(min_size=8, max_size=8), st.booleans()),
    st.builds(GoAwayFrame, u31, u32, short),
    st.builds(WindowUpdateFrame, u31, st.integers(1, 2**31 - 1)),
    st.builds(UnknownFrame, st.integers(0x0A, 0xFF), st.integers(0, 0xFF), u31, short),
).map(lambda frame: [frame])


@st.composite
def field_blocks(draw: st.DrawFn) -> list[Frame]:
    """HEADERS or PUSH_PROMISE and the CONTINUATIONs that end it."""
    stream_id = draw(stream_ids)
    fragments = draw(st.lists(short, max_size=3))
    whole = not fragments
    first = draw(
        st.builds(
            HeadersFrame,
            st.just(stream_id),
            short,
            st.booleans(),
            st.just(whole),
            st.none() | priorities,
            pad_lengths,
        )
        | st.builds(
            PushPromiseFrame, st.just(stream_id), u31, short, st.just(whole), pad_lengths
        )
    )
    last = len(fragments) - 1
    return [
        first,
        *(ContinuationFrame(stream_id, each, at == last) for at, each in enumerate(fragments)),
    ]


@given(st.lists(single_frames | field_blocks(), max_size=6), st.data())
def test_lawful_frames_come_out_as_they_went_in(groups, data):
    sequence = [SettingsFrame(), *(frame for group in groups for frame in group)]
    octets = b"".join(frame.encode() for frame in sequence)
    places = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=10)))
    pieces = [octets[a:b] for a, b in zip([0, *places], [*places, len(octets)], strict=True)]

    assert drain(Framer(), pieces) == sequence


@given(st.booleans(), st.lists(st.binary(max_size=60)))
def test_random_octets_raise_nothing_but_faults_of_the_peer(from_client, pieces):
    preface = CLIENT_PREFACE if from_client else b""
    framer = Framer(from_client=from_client)

    found = drain(framer, [preface + SETTINGS, *pieces])

    assert found[0] == SettingsFrame()
    assert framer.held_octets <= 16384 + 9
    assert found == drain(Framer(from_client=from_client), [preface + SETTINGS + b"".join(pieces)])


headers = st.builds(
    lambda length, type_, flags, stream_id, payload: (
        length.to_bytes(3, "big") + bytes((type_, flags)) + stream_id + payload
    ),
    st.integers(0, 12) | st.integers(0, 2**24 - 1),
    st.integers(0, 0x0B),
    st.sampled_from([0, 1, 4, 5, 8, 9, 0x20, 0x2C]) | st.integers(0, 0xFF),
    st.sampled_from([bytes(4), b"\0\0\0\x01", b"\0\0\0\x02", b"\x80\0\0\0"]),
    st.binary(max_size=12),
)


@given(st.lists(headers, max_size=5))
def test_octets_that_look_like_frames_raise_nothing_but_faults_of_the_peer(parts):
    octets = b"".join(parts)

    whole = drain(begun(), [octets])

    assert whole == drain(begun(), [octets[at : at + 1] for at in range(len(octets))])
