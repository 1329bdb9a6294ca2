"""The connection: two cores against each other, and one against octets written by hand."""

from __future__ import annotations

import random
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from h2lite import events as ev
from h2lite.connection import (
    CONNECTION_WINDOW,
    PINGS_IN_FLIGHT_MAX,
    Connection,
)
from h2lite.errors import ErrorCode, LocalProtocolError, UsageError
from h2lite.fields import FieldDecoder
from h2lite.framer import CLIENT_PREFACE
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
    SettingsFrame,
    UnknownFrame,
    WindowUpdateFrame,
)
from h2lite.limits import DEFAULT_LIMITS, Limits
from h2lite.settings import SettingId
from h2lite.stream import CLOSED, IDLE, Stream
from tests import pair
from tests.cutting import same_for_all_cuts
from tests.pair import GET, OK, POST, TRAILERS, begun, block, connected, drain, parse, sent, wire

# What every core of these tests receives is also cut otherwise: see replaying.py.
pytestmark = pytest.mark.usefixtures("every_cut")

INTERIM = [(b":status", b"103"), (b"link", b"</a>")]
ACK = SettingsFrame(ack=True)
PING = PingFrame(b"01234567")
PING_ACK = PingFrame(b"01234567", ack=True)
K16 = bytes(16384)


@pytest.fixture(params=[None, 1], ids=["whole", "octet by octet"])
def cut(request):
    """How `feed` and `exchange` cut the octets; the tests' expectations are the same."""
    return request.param


@pytest.fixture
def feed(cut):
    return partial(pair.feed, cut=cut)


@pytest.fixture
def exchange(cut):
    return partial(pair.exchange, cut=cut)


def requested(core: Connection, *bodies: bool) -> list[Stream]:
    """Requests that have left, each with content to follow (True) or without."""
    streams = [core.send_request(POST if body else GET, not body) for body in bodies]
    drain(core)
    return streams


def open_request(stream_id: int, end_stream: bool = False) -> HeadersFrame:
    return HeadersFrame(stream_id, block(POST), end_stream)


def asked(*stream_ids: int, **kwargs) -> Connection:
    """A server core with requests under way."""
    core = begun(client=False, **kwargs)
    pair.feed(core, *(open_request(stream_id) for stream_id in stream_ids))
    return core


def state_of(core: Connection) -> tuple[object, ...]:
    """What a refused call must leave as it was."""
    streams = [
        (s.stream_id, s.state, s.send_window.size, s.queued_octets, s.end_queued, s.trailers)
        for s in core.streams.values()
    ]
    return core.closed, core.has_output, core.takes_requests, core.goaway_sent, streams


# -- the preface ---------------------------------------------------------------------------


@pytest.mark.rfc("preface-sent", "push-off", "prior-knowledge")
def test_a_client_begins_with_the_preface_settings_and_its_window():
    octets = Connection(client=True).data_to_send(0.0)

    assert octets.startswith(CLIENT_PREFACE)
    assert parse(octets[24:]) == [
        SettingsFrame(
            (
                (SettingId.INITIAL_WINDOW_SIZE, DEFAULT_LIMITS.stream_octets),
                (SettingId.MAX_HEADER_LIST_SIZE, 65536),
                (SettingId.ENABLE_PUSH, 0),
            )
        ),
        WindowUpdateFrame(0, CONNECTION_WINDOW - 65535),
    ]


@pytest.mark.rfc("preface-sent")
def test_a_server_begins_with_settings_and_its_window():
    assert sent(Connection(client=False)) == [
        SettingsFrame(
            (
                (SettingId.INITIAL_WINDOW_SIZE, DEFAULT_LIMITS.stream_octets),
                (SettingId.MAX_HEADER_LIST_SIZE, 65536),
                (SettingId.MAX_CONCURRENT_STREAMS, DEFAULT_LIMITS.streams),
            )
        ),
        WindowUpdateFrame(0, CONNECTION_WINDOW - 65535),
    ]


@pytest.mark.rfc("preface-sent")
def test_a_client_does_not_wait_for_the_servers_settings():
    client = Connection(client=True)
    client.send_request(GET)
    client.ping(b"01234567", 0.0)

    octets = client.data_to_send(0.0)

    kinds = [type(frame) for frame in parse(octets[24:])]
    assert kinds == [SettingsFrame, WindowUpdateFrame, PingFrame, HeadersFrame]


@pytest.mark.rfc("settings-ack")
def test_both_sides_acknowledge_and_report_settings(exchange):
    client = Connection(client=True, settings={SettingId.MAX_FRAME_SIZE: 32768})
    server = Connection(client=False, settings={SettingId.MAX_CONCURRENT_STREAMS: 7})

    client_events, server_events = exchange(client, server)

    assert client_events == [
        ev.SettingsReceived(
            {
                SettingId.MAX_CONCURRENT_STREAMS: 7,
                SettingId.INITIAL_WINDOW_SIZE: DEFAULT_LIMITS.stream_octets,
                SettingId.MAX_HEADER_LIST_SIZE: 65536,
            }
        ),
        ev.WindowUpdated(0),
        ev.SettingsAcked(),
    ]
    assert server_events == [
        ev.SettingsReceived(
            {
                SettingId.ENABLE_PUSH: 0,
                SettingId.INITIAL_WINDOW_SIZE: DEFAULT_LIMITS.stream_octets,
                SettingId.MAX_FRAME_SIZE: 32768,
                SettingId.MAX_HEADER_LIST_SIZE: 65536,
            }
        ),
        ev.WindowUpdated(0),
        ev.SettingsAcked(),
    ]
    assert client.settings_received
    assert server.settings_received


@pytest.mark.rfc("settings-ack")
def test_settings_are_in_force_when_their_ack_leaves(feed):
    client = begun(client=True)

    events = feed(client, SettingsFrame(((SettingId.MAX_CONCURRENT_STREAMS, 1), (0xFF, 9))))
    client.send_request(GET)
    client.send_request(GET)

    assert events == [ev.SettingsReceived({SettingId.MAX_CONCURRENT_STREAMS: 1})]
    assert [type(frame) for frame in sent(client)] == [SettingsFrame, HeadersFrame]


@pytest.mark.rfc("first-frame-settings", "connection-error")
@pytest.mark.parametrize("client", [True, False])
def test_a_peer_that_begins_otherwise_is_told_and_heard_no_more(client, feed):
    core = Connection(client=client)
    drain(core)

    events = feed(core, b"" if client else CLIENT_PREFACE, PING, SettingsFrame(), PING)

    assert [type(event) for event in events] == [ev.ConnectionFailed]
    assert [(frame.last_stream_id, frame.error_code) for frame in sent(core)] == [
        (0, ErrorCode.PROTOCOL_ERROR)
    ]
    assert core.closed


@pytest.mark.rfc("preface-invalid", "prior-knowledge")
def test_a_client_that_speaks_http_1_is_told_with_goaway(feed):
    server = Connection(client=False)

    events = feed(server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")

    reason = "no HTTP/2 connection preface"
    assert events == [ev.ConnectionFailed(ErrorCode.PROTOCOL_ERROR, reason)]
    assert sent(server)[-1] == GoAwayFrame(0, ErrorCode.PROTOCOL_ERROR, reason.encode())


# -- messages ------------------------------------------------------------------------------


def test_a_request_and_its_response_cross(exchange):
    client, server = connected()

    stream = client.send_request(GET)
    assert exchange(client, server) == ([], [ev.RequestReceived(1, GET, True)])

    server.send_response(server.streams[1], OK)
    server.send_data(server.streams[1], b"hello", end_stream=True)
    assert exchange(client, server) == (
        [ev.ResponseReceived(1, 200, OK, False), ev.DataReceived(1, b"hello", True)],
        [],
    )
    assert stream.state == CLOSED
    assert client.streams == {}
    assert server.streams == {}


def test_interim_responses_content_and_trailers_cross_both_ways(exchange):
    client, server = connected()

    stream = client.send_request(POST, end_stream=False)
    client.send_data(stream, b"one")
    client.send_data(stream, b"two")
    client.send_trailers(stream, TRAILERS)
    assert exchange(client, server)[1] == [
        ev.RequestReceived(1, POST, False),
        ev.DataReceived(1, b"one", False),
        ev.DataReceived(1, b"two", False),
        ev.TrailersReceived(1, TRAILERS),
    ]

    reply = server.streams[1]
    server.send_response(reply, INTERIM)
    server.send_response(reply, OK)
    server.send_data(reply, b"three")
    server.send_trailers(reply, TRAILERS)
    assert exchange(client, server)[0] == [
        ev.InformationalReceived(1, 103, INTERIM),
        ev.ResponseReceived(1, 200, OK, False),
        ev.DataReceived(1, b"three", False),
        ev.TrailersReceived(1, TRAILERS),
    ]
    assert (client.streams, server.streams) == ({}, {})


def test_a_response_may_come_before_the_request_has_ended(exchange):
    client, server = connected()
    stream = client.send_request(POST, end_stream=False)
    exchange(client, server)

    server.send_response(server.streams[1], OK, end_stream=True)
    assert exchange(client, server)[0] == [ev.ResponseReceived(1, 200, OK, True)]

    client.send_data(stream, b"late", end_stream=True)
    assert exchange(client, server)[1] == [ev.DataReceived(1, b"late", True)]
    assert (client.streams, server.streams) == ({}, {})


def test_trailers_may_follow_a_header_section_at_once(exchange):
    client, server = connected()

    client.send_trailers(client.send_request(POST, end_stream=False), TRAILERS)
    assert exchange(client, server)[1] == [
        ev.RequestReceived(1, POST, False),
        ev.TrailersReceived(1, TRAILERS),
    ]

    server.send_response(server.streams[1], OK)
    server.send_trailers(server.streams[1], TRAILERS)
    assert exchange(client, server)[0] == [
        ev.ResponseReceived(1, 200, OK, False),
        ev.TrailersReceived(1, TRAILERS),
    ]


def test_content_that_turns_out_to_be_none_ends_with_the_header_section():
    client = begun(client=True)
    stream = client.send_request(GET, end_stream=False)
    client.send_data(stream, b"", end_stream=True)

    assert sent(client) == [HeadersFrame(1, block(GET), end_stream=True)]


@pytest.mark.rfc("window-kept")
def test_an_end_without_content_leaves_though_no_window_is_open():
    client = begun(client=True, peer={SettingId.INITIAL_WINDOW_SIZE: 0})
    (stream,) = requested(client, True)
    assert not client.has_output

    client.send_data(stream, b"", end_stream=True)

    assert sent(client) == [DataFrame(1, b"", end_stream=True)]


def test_an_end_that_comes_while_content_waits_is_its_last_frames_flag():
    client = begun(client=True)
    (stream,) = requested(client, True)

    client.send_data(stream, b"abc")
    client.send_data(stream, b"", end_stream=True)

    assert sent(client) == [DataFrame(1, b"abc", end_stream=True)]


@pytest.mark.rfc("stream-ids-odd-rising")
def test_requests_leave_in_their_order_with_odd_identifiers(exchange):
    client, server = connected()
    paths = [[*GET[:3], (b":path", b"/%d" % n)] for n in range(3)]

    streams = [client.send_request(fields) for fields in paths]
    assert [stream.stream_id for stream in streams] == [0, 0, 0]

    assert exchange(client, server)[1] == [
        ev.RequestReceived(2 * n + 1, fields, True) for n, fields in enumerate(paths)
    ]
    assert [stream.stream_id for stream in streams] == [1, 3, 5]


@pytest.mark.rfc("stream-ids-exhausted")
def test_the_last_identifier_is_used_and_none_after_it():
    client = begun(client=True)
    client._next_stream_id = 2**31 - 1  # two thousand million requests later

    client.send_request(GET)
    assert [frame.stream_id for frame in sent(client)] == [2**31 - 1]

    assert not client.takes_requests
    with pytest.raises(UsageError):
        client.send_request(GET)


@pytest.mark.rfc("stream-ids-exhausted")
def test_no_more_requests_are_taken_than_identifiers_are_left():
    client = begun(client=True)
    client._next_stream_id = 2**31 - 3

    for _ in range(2):
        assert client.takes_requests
        client.send_request(GET)
    assert not client.takes_requests
    with pytest.raises(UsageError):
        client.send_request(GET)

    assert [frame.stream_id for frame in sent(client)] == [2**31 - 3, 2**31 - 1]


@pytest.mark.rfc("client-stream-odd")
def test_a_server_takes_the_last_identifier_and_refuses_every_one_after_it(feed):
    server = begun(client=False)
    last = 2**31 - 1

    assert feed(server, open_request(last, True)) == [ev.RequestReceived(last, POST, True)]
    server.send_response(server.streams[last], OK, end_stream=True)
    assert [frame.stream_id for frame in sent(server)] == [last]

    events = feed(server, open_request(1, True))
    assert [(type(event), event.error_code) for event in events] == [
        (ev.ConnectionFailed, ErrorCode.PROTOCOL_ERROR)
    ]
    assert [frame.last_stream_id for frame in sent(server)] == [last]


# -- field blocks --------------------------------------------------------------------------


def large(octets: int) -> list[tuple[bytes, bytes]]:
    """A request whose field block is more than twice that many octets."""
    # An octet of 0x80 takes 20 bits in HPACK's Huffman code, so none is used.
    return [*GET, (b"x", b"\x80" * (2 * octets + 400))]


@pytest.mark.rfc("field-block-contiguous")
def test_a_large_section_crosses_in_continuations_with_nothing_in_between(exchange):
    client, server = connected()
    fields = large(20000)
    client.send_request(fields)
    assert exchange(client, server)[1] == [ev.RequestReceived(1, fields, True)]

    server.send_response(server.streams[1], [*OK, fields[-1]], end_stream=True)
    octets = drain(server)
    client.ping(b"01234567", 0.0)

    frames = parse(octets)
    assert [type(frame) for frame in frames[:2]] == [HeadersFrame, ContinuationFrame]
    assert {frame.stream_id for frame in frames} == {1}
    assert [frame.end_headers for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert [len(frame.field_block) for frame in frames[:-1]] == [16384] * (len(frames) - 1)
    assert frames[0].end_stream
    assert pair.feed(client, octets) == [ev.ResponseReceived(1, 200, [*OK, fields[-1]], True)]


def test_the_peers_larger_frames_need_no_continuation():
    client = begun(client=True, peer={SettingId.MAX_FRAME_SIZE: 2**20})

    client.send_request(large(8000))

    assert [type(frame) for frame in sent(client)] == [HeadersFrame]


def test_a_field_block_may_come_in_any_fragments(feed):
    server = begun(client=False)
    octets = block(POST)
    fragments = [octets[at : at + 3] for at in range(0, len(octets), 3)]

    events = feed(
        server,
        HeadersFrame(1, b"", end_stream=True, end_headers=False),
        *(ContinuationFrame(1, fragment, False) for fragment in fragments),
        ContinuationFrame(1, b"", True),
    )

    assert events == [ev.RequestReceived(1, POST, True)]


@pytest.mark.rfc("field-block-bounded")
def test_as_many_continuations_as_are_honest_are_taken_and_no_more(feed):
    start = HeadersFrame(1, block(GET), end_headers=False)
    value = bytes([0x7F, 0]) + bytes([97]) * 127  # 127 octets, in a literal without Huffman codes
    line = b"\x00\x01x" + value
    more = ContinuationFrame(1, line, False).encode()
    most = DEFAULT_LIMITS.continuations

    server = begun(client=False)
    (taken,) = feed(server, start, more * (most - 1), ContinuationFrame(1, line, True))
    assert taken == ev.RequestReceived(1, [*GET, *[(b"x", b"a" * 127)] * most], False)

    server = begun(client=False)
    refused = feed(server, start, more * (most + 1), PING)
    assert_calmed(refused, f"over {most} CONTINUATION frames")


@pytest.mark.rfc("field-block-bounded")
def test_as_many_continuations_may_be_empty_in_a_row_and_no_more(feed):
    start = HeadersFrame(1, block(GET)[:1], end_headers=False)
    empty = ContinuationFrame(1, b"", False).encode()
    a_bit = ContinuationFrame(1, block(GET)[1:2], False).encode()
    most = DEFAULT_LIMITS.empty_continuations

    server = begun(client=False)
    rest = ContinuationFrame(1, block(GET)[2:], True)
    taken = feed(server, start, empty * most, a_bit, empty * most, rest)
    assert taken == [ev.RequestReceived(1, GET, False)]

    server = begun(client=False)
    refused = feed(server, start, a_bit, empty * (most + 1))
    assert_calmed(refused, f"over {most} empty CONTINUATION frames in a row")


@pytest.mark.rfc("field-block-bounded")
@pytest.mark.parametrize("frames", ["one", "some"])
def test_a_field_block_is_not_kept_past_what_a_section_may_hold(feed, frames):
    most = 2000
    server = Connection(client=False, limits=Limits(field_section_octets=most))
    drain(server)
    feed(server, CLIENT_PREFACE + SettingsFrame().encode())
    if frames == "one":
        refused = feed(server, HeadersFrame(1, bytes(most + 1)))
    else:
        start = HeadersFrame(1, bytes(most // 2), end_headers=False)
        assert feed(server, start, ContinuationFrame(1, bytes(most // 2), False)) == []
        refused = feed(server, ContinuationFrame(1, b"x", False))

    assert_calmed(refused, f"field block over {most} octets")


def assert_calmed(events, reason):
    """The connection has ended, for too much of something."""
    assert events == [ev.ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, reason)]


@pytest.mark.rfc("always-decoded")
@pytest.mark.parametrize("how", ["reset", "refused", "malformed", "after goaway"])
def test_the_blocks_of_streams_nobody_wants_still_change_the_table(how, feed):
    server = begun(client=False, settings={SettingId.MAX_CONCURRENT_STREAMS: 1})
    indexed = bytes.fromhex("4001780179")  # x: y, which becomes entry 62
    feed(server, open_request(1))
    if how == "reset":
        server.reset_stream(server.streams[1])
        unwanted = HeadersFrame(1, indexed, end_stream=True)
    elif how == "refused":
        unwanted = HeadersFrame(3, block(GET) + indexed, end_stream=True)
    elif how == "malformed":
        server.reset_stream(server.streams[1])
        unwanted = HeadersFrame(3, indexed, end_stream=True)
    else:
        server.goaway()
        unwanted = HeadersFrame(3, block(GET) + indexed, end_stream=True)
    assert not [event for event in feed(server, unwanted) if isinstance(event, ev.RequestReceived)]

    decoded = server._decoder.decode(b"\xbe")

    assert decoded.fields == ((b"x", b"y"),)
    assert not server.closed


# -- flow control --------------------------------------------------------------------------


def lengths(frames: list[Frame]) -> list[tuple[int, int]]:
    return [(frame.stream_id, len(frame.data)) for frame in frames if isinstance(frame, DataFrame)]


@pytest.mark.rfc("window-kept")
def test_content_waits_for_the_streams_window_and_goes_on(feed):
    client = begun(client=True, peer={SettingId.INITIAL_WINDOW_SIZE: 10})
    (stream,) = requested(client, True)

    client.send_data(stream, b"0123456789abcdef", end_stream=True)
    assert sent(client) == [DataFrame(1, b"0123456789")]
    assert (client.has_output, stream.queued_octets) == (False, 6)

    assert feed(client, WindowUpdateFrame(1, 4)) == [ev.WindowUpdated(1)]
    assert sent(client) == [DataFrame(1, b"abcd")]

    feed(client, WindowUpdateFrame(1, 100))
    assert sent(client) == [DataFrame(1, b"ef", end_stream=True)]
    assert stream.queued_octets == 0


@pytest.mark.rfc("window-kept")
def test_content_waits_for_the_connections_window_and_streams_share_it(feed):
    client = begun(client=True, peer={SettingId.INITIAL_WINDOW_SIZE: 2**20})
    first, second = requested(client, True, True)

    client.send_data(first, bytes(50000), end_stream=True)
    client.send_data(second, bytes(50000), end_stream=True)
    frames = sent(client)

    assert sum(length for _, length in lengths(frames)) == 65535
    assert [stream_id for stream_id, _ in lengths(frames)][:4] == [1, 3, 1, 3]
    assert not client.has_output

    assert feed(client, WindowUpdateFrame(0, 34465)) == [ev.WindowUpdated(0)]
    assert sum(length for _, length in lengths(sent(client))) == 34465
    assert (first.queued_octets, second.queued_octets) == (0, 0)


def test_one_blocked_stream_does_not_stop_the_others(feed):
    client = begun(client=True)
    first, second = requested(client, True, True)
    client.send_data(first, bytes(65535))
    feed(client, WindowUpdateFrame(0, 2**20))
    drain(client)

    client.send_data(first, b"blocked")
    client.send_data(second, b"free")

    assert sent(client) == [DataFrame(3, b"free")]
    feed(client, WindowUpdateFrame(1, 7))
    assert sent(client) == [DataFrame(1, b"blocked")]


def test_content_queued_before_its_request_leaves_follows_it_when_windows_open(feed):
    client = begun(client=True, peer={SettingId.INITIAL_WINDOW_SIZE: 0})
    stream = client.send_request(POST, end_stream=False)
    client.send_data(stream, b"abc")
    client.send_trailers(stream, TRAILERS)
    assert [type(frame) for frame in sent(client)] == [HeadersFrame]

    feed(client, SettingsFrame(((SettingId.INITIAL_WINDOW_SIZE, 2),)))
    assert sent(client) == [ACK, DataFrame(1, b"ab")]

    feed(client, WindowUpdateFrame(1, 1))
    data, trailers = sent(client)
    assert data == DataFrame(1, b"c")
    assert trailers.end_stream
    assert [*FieldDecoder().decode(trailers.field_block).fields] == TRAILERS


def test_streams_take_turns_and_none_is_forgotten(feed):
    client = begun(client=True, peer={SettingId.INITIAL_WINDOW_SIZE: 2**20})
    feed(client, WindowUpdateFrame(0, 2**24))
    streams = requested(client, *[True] * 5)
    for stream in streams:
        client.send_data(stream, bytes(100_000), end_stream=True)

    batches = [lengths(parse(client.data_to_send(0.0))) for _ in range(3)]

    # About four frames a batch: after three, nobody is a whole frame ahead of his turn.
    turns = [stream_id for batch in batches for stream_id, _ in batch]
    assert turns == ([1, 3, 5, 7, 9] * 3)[: len(turns)]
    while client.has_output:
        assert client.data_to_send(0.0)
    assert [stream.queued_octets for stream in streams] == [0] * 5
    assert not client._round


@pytest.mark.rfc("window-update-small")
def test_the_streams_window_returns_when_the_user_consumes(feed):
    server = asked(1)
    half = DEFAULT_LIMITS.stream_octets // 2
    for _ in range(DEFAULT_LIMITS.stream_octets // 16384):
        feed(server, DataFrame(1, K16))
    assert sent(server) == []

    server.data_consumed(1, half - 1)
    assert sent(server) == []
    server.data_consumed(1, 1)
    assert sent(server) == [WindowUpdateFrame(1, half)]
    server.data_consumed(1, half)
    assert sent(server) == [WindowUpdateFrame(1, half)]


def test_the_connections_window_returns_on_receipt():
    server = asked(1, 3, 5)

    for stream_id in (1, 3):
        pair.feed(server, wire(DataFrame(stream_id, K16)) * 64)

    assert sent(server) == [WindowUpdateFrame(0, CONNECTION_WINDOW // 2)]


def test_past_the_unread_limit_only_consumption_gives_the_connections_window():
    stream_ids = range(1, 2 * 20, 2)
    server = asked(*stream_ids)
    for stream_id in stream_ids[:16]:
        pair.feed(server, wire(DataFrame(stream_id, K16)) * 64)
    drain(server)
    assert server._unread == DEFAULT_LIMITS.unread_octets

    for stream_id in stream_ids[16:]:
        pair.feed(server, wire(DataFrame(stream_id, K16)) * 64)
    assert sent(server) == []
    window = server._receive_window
    assert (window.size, window.owed, server._withheld) == (0, 0, 2**22)

    for stream_id in stream_ids:
        server.data_consumed(stream_id, DEFAULT_LIMITS.stream_octets)
    increments = [f.window_size_increment for f in sent(server) if f.stream_id == 0]
    assert sum(increments) == CONNECTION_WINDOW
    assert (window.size, server._unread, server._withheld) == (CONNECTION_WINDOW, 0, 0)


@pytest.mark.rfc("data-padding-counts")
def test_padding_counts_and_comes_back_at_once(feed):
    server = asked(1)

    events = feed(server, DataFrame(1, b"abc", pad_length=255), DataFrame(1, b"", pad_length=0))

    assert events == [ev.DataReceived(1, b"abc", False), ev.DataReceived(1, b"", False)]
    window = server.streams[1].receive_window
    assert (window.size, window.owed) == (DEFAULT_LIMITS.stream_octets - 260, 257)
    server.data_consumed(1, 3)
    assert window.size + window.owed == window.limit


@pytest.mark.rfc("closed-minimal", "data-always-counted")
def test_data_on_closed_streams_is_discarded_and_its_credit_returned(feed):
    server = asked(1)
    server.reset_stream(server.streams[1])
    assert sent(server) == [RstStreamFrame(1, ErrorCode.CANCEL)]

    events = feed(server, wire(DataFrame(1, K16)) * 200)

    assert events == []
    assert sent(server) == [WindowUpdateFrame(0, CONNECTION_WINDOW // 2)]
    window = server._receive_window
    assert window.size + window.owed == CONNECTION_WINDOW


@pytest.mark.rfc("data-always-counted")
def test_data_in_error_is_credited_to_the_connection(feed):
    server = asked(1)
    feed(server, DataFrame(1, b"end", end_stream=True))

    feed(server, DataFrame(1, bytes(1000), pad_length=10))

    window = server._receive_window
    assert window.size + window.owed == CONNECTION_WINDOW
    assert sent(server) == [RstStreamFrame(1, ErrorCode.STREAM_CLOSED)]


@pytest.mark.rfc("closed-minimal", "window-update-closed")
def test_frames_that_were_under_way_to_a_closed_stream_are_no_fault(feed):
    client = begun(client=True)
    (stream,) = requested(client, True)
    client.reset_stream(stream)
    drain(client)

    events = feed(
        client,
        HeadersFrame(1, block(OK)),
        DataFrame(1, b"abc"),
        WindowUpdateFrame(1, 5),
        PriorityFrame(1, Priority(False, 0, 15)),
        HeadersFrame(1, block(TRAILERS), end_stream=True),
        RstStreamFrame(1, ErrorCode.NO_ERROR),
    )

    assert (events, sent(client), client.closed) == ([], [], False)


@pytest.mark.rfc("initial-window-adjusts", "window-negative")
def test_a_changed_initial_window_moves_the_open_streams_below_zero_too(feed):
    client = begun(client=True)
    stream, other = requested(client, True, True)
    client.send_data(stream, bytes(60 * 1024))
    drain(client)

    feed(client, SettingsFrame(((SettingId.INITIAL_WINDOW_SIZE, 16 * 1024),)))
    client.send_data(stream, b"more", end_stream=True)
    assert sent(client) == [ACK]
    assert (stream.send_window.size, other.send_window.size) == (-44 * 1024, 16 * 1024)
    (third,) = requested(client, True)
    assert third.send_window.size == 16 * 1024

    feed(client, WindowUpdateFrame(1, 44 * 1024))
    assert lengths(sent(client)) == []
    feed(client, WindowUpdateFrame(1, 3))
    assert lengths(sent(client)) == [(1, 3)]
    feed(client, SettingsFrame(((SettingId.INITIAL_WINDOW_SIZE, 16 * 1024 + 1),)))
    assert lengths(sent(client)) == [(1, 1)]


@pytest.mark.rfc("window-negative")
def test_content_whose_turn_had_come_waits_when_its_window_goes_below_zero(feed):
    client = begun(client=True)
    stream, other = requested(client, True, True)
    client.send_data(stream, bytes(20000))
    client.data_to_send(0.0, 10009)
    assert stream.send_window.size == 65535 - 10000

    feed(client, SettingsFrame(((SettingId.INITIAL_WINDOW_SIZE, 5000),)))
    client.send_data(other, b"free")
    assert sent(client) == [ACK, DataFrame(3, b"free")]
    assert (stream.send_window.size, stream.queued_octets) == (-5000, 10000)

    feed(client, WindowUpdateFrame(1, 5000))
    assert sent(client) == []
    feed(client, WindowUpdateFrame(1, 10000))
    assert lengths(sent(client)) == [(1, 10000)]


@pytest.mark.rfc("initial-window-adjusts")
def test_a_changed_initial_window_counts_for_requests_that_wait():
    client = begun(client=True, peer={SettingId.MAX_CONCURRENT_STREAMS: 0})
    stream = client.send_request(POST, end_stream=False)
    client.send_data(stream, b"0123456789", end_stream=True)

    pair.feed(
        client,
        SettingsFrame(
            ((SettingId.INITIAL_WINDOW_SIZE, 4), (SettingId.MAX_CONCURRENT_STREAMS, 1))
        ),
    )

    assert lengths(sent(client)) == [(1, 4)]


def pump(client: Connection, server: Connection, batch: int) -> tuple[int, int]:
    """Move octets both ways, consuming content at once; the octets each side got of it."""
    got = [0, 0]
    quiet = False
    while not quiet:
        quiet = True
        for index, (sender, receiver) in enumerate(((client, server), (server, client))):
            octets = sender.data_to_send(0.0, batch)
            quiet = quiet and not octets
            for event in receiver.receive_data(octets, 0.0):
                if isinstance(event, ev.DataReceived):
                    got[index] += len(event.data)
                    receiver.data_consumed(event.stream_id, len(event.data))
    return got[0], got[1]


@pytest.mark.parametrize("batch", [1000, 65536])
def test_windows_are_whole_again_after_100_megabytes_both_ways(batch):
    client, server = connected()
    streams = [client.send_request(POST, end_stream=False) for _ in range(4)]
    pair.exchange(client, server)
    octets = bytes(6_250_001)  # on four streams, both ways, twice: 100 MB
    for stream in streams:
        reply = server.streams[stream.stream_id]
        server.send_response(reply, OK)
    total = 0
    for _ in range(2):
        for stream in streams:
            client.send_data(stream, octets)
            server.send_data(server.streams[stream.stream_id], octets)
        got = pump(client, server, batch)
        assert got == (4 * len(octets), 4 * len(octets))
        total += sum(got)

    assert total > 100_000_000
    for sender, receiver in ((client, server), (server, client)):
        window = receiver._receive_window
        assert window.size + window.owed == CONNECTION_WINDOW
        assert sender._send_window.size == window.size
        assert (receiver._unread, receiver._withheld) == (0, 0)
        for stream_id, stream in receiver.streams.items():
            window = stream.receive_window
            assert window.size + window.owed == DEFAULT_LIMITS.stream_octets
            assert sender.streams[stream_id].send_window.size == window.size
    for stream in streams:
        client.send_data(stream, b"", end_stream=True)
        server.send_data(server.streams[stream.stream_id], b"", end_stream=True)
    pump(client, server, batch)
    assert (client.streams, server.streams) == ({}, {})
    assert (client.has_output, server.has_output) == (False, False)


# -- PING ----------------------------------------------------------------------------------


@pytest.mark.rfc("ping-ack", "ping-ack-first")
@pytest.mark.parametrize("client", [True, False])
def test_a_ping_is_answered_before_all_that_waits(client, feed):
    core = begun(client=client)
    if client:
        (stream,) = requested(core, True)
    else:
        feed(core, open_request(1))
        stream = core.streams[1]
        core.send_response(stream, OK)
    core.send_data(stream, bytes(60000))

    events = feed(core, SettingsFrame(), PING)

    assert events == [ev.SettingsReceived({}), ev.PingReceived(b"01234567")]
    frames = sent(core)
    assert frames[:2] == [PING_ACK, ACK]
    assert isinstance(frames[-1], DataFrame)


@pytest.mark.rfc("ping-ack")
def test_as_many_pings_as_came_are_answered_in_their_order(feed):
    core = begun(client=True)
    values = [bytes(8), b"\xff" * 8, b"01234567", b"01234567"]

    feed(core, *(PingFrame(value) for value in values))

    assert sent(core) == [PingFrame(value, ack=True) for value in values]


def test_a_ping_is_timed_from_where_it_left(feed):
    core = begun(client=True)

    core.ping(b"01234567", now=10.0)
    assert sent(core, now=10.5) == [PING]
    assert feed(core, PING_ACK, now=12.75) == [ev.PingAcked(b"01234567", 2.25, 0.5)]


def test_a_ping_the_socket_refused_is_timed_from_when_it_left_after_all(feed):
    core = begun(client=True)
    core.ping(b"01234567", now=10.0)

    core.put_back(core.data_to_send(10.5))
    assert sent(core, now=11.0) == [PING]

    assert feed(core, PING_ACK, now=12.0) == [ev.PingAcked(b"01234567", 1.0, 1.0)]


def test_a_ping_the_socket_took_half_of_is_timed_from_its_last_octet(feed):
    core = begun(client=True)
    core.ping(b"01234567", now=10.0)

    core.put_back(core.data_to_send(10.5)[5:])
    drain(core, now=11.0)

    assert feed(core, PING_ACK, now=12.0) == [ev.PingAcked(b"01234567", 1.0, 1.0)]


@pytest.mark.parametrize("taken", range(18))
def test_a_ping_has_left_when_the_socket_has_taken_all_of_it(taken):
    core = begun(client=True)
    core.ping(b"01234567", now=10.0)
    assert core.ping_sent_at(b"01234567") is None

    octets = core.data_to_send(10.5)
    if taken < len(octets):
        core.put_back(octets[taken:])
    assert core.ping_sent_at(b"01234567") == (10.5 if taken == 17 else None)

    rest = core.data_to_send(11.0)
    if len(rest) > 1:
        core.put_back(rest[1:])
        assert core.ping_sent_at(b"01234567") is None
        core.data_to_send(12.0)
    assert core.ping_sent_at(b"01234567") == {17: 10.5, 16: 11.0}.get(taken, 12.0)
    assert core.ping_sent_at(b"76543210") is None


def test_a_ping_behind_one_that_is_half_out_has_not_left():
    core = begun(client=True)
    core.ping(b"01234567", now=10.0)
    core.ping(b"76543210", now=10.0)

    core.put_back(core.data_to_send(10.5)[20:])

    assert core.ping_sent_at(b"01234567") == 10.5
    assert core.ping_sent_at(b"76543210") is None
    drain(core, now=11.0)
    assert core.ping_sent_at(b"76543210") == 11.0


def test_a_ping_has_left_though_what_follows_it_is_refused():
    core = begun(client=True)
    stream = core.send_request(POST, end_stream=False)
    core.send_data(stream, bytes(1000))
    core.ping(b"01234567", now=10.0)

    core.put_back(core.data_to_send(10.5)[17:])

    assert core.ping_sent_at(b"01234567") == 10.5
    assert core.message_sent


def test_an_ack_of_a_ping_that_has_not_left_took_no_time(feed):
    core = begun(client=True)
    core.ping(b"01234567", now=10.0)

    assert feed(core, PING_ACK, now=12.0) == [ev.PingAcked(b"01234567", 0.0, 2.0)]


def test_headers_and_data_are_messages_and_pings_are_none():
    core = begun(client=True)
    seen = []

    def note() -> None:
        drain(core)
        seen.append(core.message_sent)
        core.message_sent = False

    core.ping(b"01234567", now=1.0)
    note()
    stream = core.send_request(POST, end_stream=False)
    note()
    core.send_data(stream, b"content", end_stream=True)
    note()
    core.ping(b"76543210", now=4.0)
    note()

    assert seen == [False, True, True, False]


@pytest.mark.rfc("ping-ack-unanswered")
def test_an_ack_that_answers_nothing_is_reported_and_not_answered(feed):
    core = begun(client=True)
    core.ping(b"01234567", now=0.0)
    drain(core)

    events = feed(core, PingFrame(bytes(8), ack=True), PING_ACK, PING_ACK, now=1.0)

    assert events == [
        ev.UnknownPingAcked(bytes(8)),
        ev.PingAcked(b"01234567", 1.0, 0.0),
        ev.UnknownPingAcked(b"01234567"),
    ]
    assert sent(core) == []


def test_the_late_ack_of_a_forgotten_ping_is_unknown(feed):
    core = begun(client=True)
    core.ping(b"01234567", now=0.0)
    drain(core)

    core.forget_ping(b"01234567")

    assert feed(core, PING_ACK) == [ev.UnknownPingAcked(b"01234567")]
    core.forget_ping(b"01234567")


def test_pings_in_flight_are_few_and_distinct(feed):
    core = begun(client=True)
    values = [bytes((n,)) * 8 for n in range(PINGS_IN_FLIGHT_MAX)]
    for value in values:
        core.ping(value, 0.0)

    with pytest.raises(UsageError, match="10 PINGs are in flight already"):
        core.ping(b"01234567", 0.0)
    with pytest.raises(UsageError, match="0x0000000000000000 is still in flight"):
        core.ping(bytes(8), 0.0)

    assert sent(core) == [PingFrame(value) for value in values]
    feed(core, PingFrame(values[3], ack=True))
    core.ping(values[3], 1.0)
    assert sent(core) == [PingFrame(values[3])]


@pytest.mark.parametrize("value", [b"", b"0123456", b"012345678"])
def test_a_ping_value_has_8_octets(value):
    core = begun(client=True)

    with pytest.raises(UsageError):
        core.ping(value, 0.0)

    assert (sent(core), core._pings) == ([], {})


# -- RST_STREAM ----------------------------------------------------------------------------


@pytest.mark.rfc("reset-last")
def test_a_reset_drops_what_waits_on_its_stream_alone(feed):
    client = begun(client=True, peer={SettingId.INITIAL_WINDOW_SIZE: 3})
    stream, other = requested(client, True, True)
    client.send_data(stream, b"abcdef")
    client.send_trailers(stream, TRAILERS)
    client.send_data(other, b"xyz")
    first = parse(client.data_to_send(0.0))

    client.reset_stream(stream, ErrorCode.CANCEL)
    feed(client, WindowUpdateFrame(1, 100), WindowUpdateFrame(3, 100))

    assert first == [DataFrame(1, b"abc"), DataFrame(3, b"xyz")]
    assert sent(client) == [RstStreamFrame(1, ErrorCode.CANCEL)]
    assert (stream.state, stream.queued_octets, list(client.streams)) == (CLOSED, 0, [3])
    client.reset_stream(stream)
    assert sent(client) == []


@pytest.mark.rfc("reset-last")
def test_a_stream_may_be_reset_while_its_content_waits_for_the_connections_window(feed):
    client = begun(client=True, peer={SettingId.INITIAL_WINDOW_SIZE: 2**20})
    stream, other = requested(client, True, True)
    client.send_data(stream, bytes(100_000))
    client.send_data(other, b"xyz", end_stream=True)
    drain(client)

    client.reset_stream(stream)
    feed(client, WindowUpdateFrame(0, 2**20))

    frames = sent(client)
    assert frames[0] == RstStreamFrame(1, ErrorCode.CANCEL)
    assert [frame.stream_id for frame in frames[1:]] == [3] * len(frames[1:])
    assert not client._round


@pytest.mark.rfc("reset-received")
def test_the_peers_reset_ends_the_stream_and_drops_what_waits(feed):
    client = begun(client=True)
    stream, other = requested(client, True, True)
    client.send_data(stream, b"abc")
    client.send_data(other, b"xyz")

    events = feed(client, RstStreamFrame(1, 0x77), RstStreamFrame(1, 0x77))

    assert events == [ev.StreamReset(1, 0x77, True)]
    assert sent(client) == [DataFrame(3, b"xyz")]
    assert (stream.state, list(client.streams)) == (CLOSED, [3])


@pytest.mark.rfc("reset-received")
def test_the_peers_reset_withdraws_a_response_that_has_not_left(feed):
    server = asked(1)
    server.send_response(server.streams[1], OK)
    server.send_data(server.streams[1], b"abc", end_stream=True)

    feed(server, RstStreamFrame(1, ErrorCode.CANCEL))

    assert sent(server) == []
    assert (server.streams, server.has_output) == ({}, False)


def test_a_request_that_has_not_left_is_withdrawn_without_a_trace():
    client = begun(client=True)
    first = client.send_request(POST, end_stream=False)
    client.send_data(first, b"abc", end_stream=True)
    second = client.send_request(GET)

    client.reset_stream(first)

    assert sent(client) == [HeadersFrame(1, block(GET), end_stream=True)]
    assert (first.state, first.stream_id, second.stream_id) == (CLOSED, 0, 1)
    assert (list(client.streams), client.has_output) == ([1], False)


def test_a_reset_follows_the_header_section_the_socket_refused():
    client = begun(client=True)
    stream = client.send_request(POST, end_stream=False)
    client.send_data(stream, b"abc")
    client.put_back(client.data_to_send(0.0))

    client.reset_stream(stream)

    frames = sent(client)
    assert [type(frame) for frame in frames] == [HeadersFrame, DataFrame, RstStreamFrame]
    assert client.streams == {}


# -- GOAWAY --------------------------------------------------------------------------------


@pytest.mark.rfc("goaway-unprocessed")
def test_streams_a_goaway_left_out_are_reported_and_the_others_go_on(feed):
    client = begun(client=True)
    first, second, third = requested(client, True, True, False)
    client.send_data(second, b"abc")

    events = feed(client, GoAwayFrame(1, ErrorCode.NO_ERROR, b"bye"))

    left_out = "left out by GOAWAY NO_ERROR b'bye'"
    assert events == [
        ev.GoAwayReceived(1, ErrorCode.NO_ERROR, b"bye"),
        ev.StreamReset(3, ErrorCode.REFUSED_STREAM, True, left_out),
        ev.StreamReset(5, ErrorCode.REFUSED_STREAM, True, left_out),
    ]
    assert (second.state, third.state, list(client.streams)) == (CLOSED, CLOSED, [1])
    client.send_data(first, b"xyz", end_stream=True)
    assert sent(client) == [DataFrame(1, b"xyz", end_stream=True)]
    assert feed(client, HeadersFrame(1, block(OK), end_stream=True)) == [
        ev.ResponseReceived(1, 200, OK, True)
    ]


def test_a_second_goaway_lowers_the_limit_and_cannot_raise_it(feed):
    client = begun(client=True)
    requested(client, True, True, True)

    raised = feed(client, GoAwayFrame(3, 0), GoAwayFrame(2**31 - 1, 0))
    assert raised[0] == ev.GoAwayReceived(3, 0, b"")
    assert raised[2:] == [ev.GoAwayReceived(3, 0, b"")]

    lowered = feed(client, GoAwayFrame(1, 0))
    assert [event.stream_id for event in lowered[1:]] == [3]
    assert list(client.streams) == [1]


@pytest.mark.rfc("goaway-opens-nothing")
def test_after_a_goaway_no_request_is_taken_and_none_that_waits_leaves(feed):
    client = begun(client=True, peer={SettingId.MAX_CONCURRENT_STREAMS: 1})
    requested(client, False)
    waiting = client.send_request(GET)

    feed(client, GoAwayFrame(1, 0), HeadersFrame(1, block(OK), end_stream=True))

    assert not client.takes_requests
    with pytest.raises(UsageError):
        client.send_request(GET)
    assert (sent(client), client.has_output) == ([], False)
    assert (waiting.stream_id, waiting.state) == (0, IDLE)


@pytest.mark.rfc("goaway-not-raised", "goaway-last-stream", "goaway-again")
def test_our_goaway_names_the_last_stream_taken_and_is_never_raised(feed):
    server = asked(1, 3)

    server.goaway()
    feed(server, open_request(5))
    server.goaway(debug_data=b"again")
    feed(server, DataFrame(7, b""))

    assert sent(server) == [
        GoAwayFrame(3, ErrorCode.NO_ERROR),
        GoAwayFrame(3, ErrorCode.NO_ERROR, b"again"),
        GoAwayFrame(3, ErrorCode.PROTOCOL_ERROR, b"DATA on idle stream 7"),
    ]


@pytest.mark.rfc("goaway-ignores-new")
def test_requests_past_our_goaway_are_ignored_and_the_others_finish(feed):
    server = asked(1)
    server.goaway()

    assert feed(server, open_request(3, end_stream=True)) == []
    assert feed(server, DataFrame(1, b"abc", end_stream=True)) == [
        ev.DataReceived(1, b"abc", True)
    ]
    server.send_response(server.streams[1], OK, end_stream=True)

    frames = sent(server)
    assert [type(frame) for frame in frames] == [GoAwayFrame, HeadersFrame]
    assert (server.closed, server.streams) == (False, {})


@pytest.mark.rfc("goaway-opens-nothing")
def test_a_client_that_said_goaway_asks_no_more():
    client = begun(client=True)
    client.send_request(GET)

    client.goaway()

    assert sent(client) == [GoAwayFrame(0, 0)]
    with pytest.raises(UsageError):
        client.send_request(GET)


def test_a_goaway_with_an_error_ends_all_that_waits(feed):
    client = begun(client=True)
    (stream,) = requested(client, True)
    client.send_data(stream, b"abc")
    client.send_request(GET)

    client.goaway(ErrorCode.INTERNAL_ERROR, b"sorry")

    assert sent(client) == [GoAwayFrame(0, ErrorCode.INTERNAL_ERROR, b"sorry")]
    assert (client.closed, client.has_output, feed(client, PING)) == (True, False, [])


def test_nothing_is_left_to_send_after_the_transports_end():
    client = Connection(client=True)
    client.ping(b"01234567", 0.0)
    client.send_request(GET)
    client.data_to_send(0.0)
    client.send_request(GET)

    client.receive_eof()

    assert (client.closed, client.has_output, client.data_to_send(0.0)) == (True, False, b"")


# -- MAX_CONCURRENT_STREAMS ----------------------------------------------------------------


@pytest.mark.rfc("concurrency-kept")
def test_requests_over_the_peers_limit_wait_for_a_stream_to_end(feed):
    client = begun(client=True, peer={SettingId.MAX_CONCURRENT_STREAMS: 2})
    streams = [client.send_request(GET) for _ in range(4)]
    assert [frame.stream_id for frame in sent(client)] == [1, 3]

    feed(client, HeadersFrame(3, block(OK), end_stream=True))
    assert [frame.stream_id for frame in sent(client)] == [5]

    client.reset_stream(streams[0])
    assert [type(frame) for frame in sent(client)] == [RstStreamFrame, HeadersFrame]

    feed(client, SettingsFrame(((SettingId.MAX_CONCURRENT_STREAMS, 1),)))
    client.send_request(GET)
    assert sent(client) == [ACK]
    feed(client, SettingsFrame(((SettingId.MAX_CONCURRENT_STREAMS, 3),)))
    assert [frame.stream_id for frame in sent(client)[1:]] == [9]


@pytest.mark.rfc("concurrency-zero")
def test_a_limit_of_zero_is_a_limit_like_any_other(feed):
    client = begun(client=True, peer={SettingId.MAX_CONCURRENT_STREAMS: 0})

    client.send_request(GET)
    assert (sent(client), client.has_output, client.takes_requests) == ([], False, True)

    feed(client, SettingsFrame(((SettingId.MAX_CONCURRENT_STREAMS, 1),)))
    assert [frame.stream_id for frame in sent(client)[1:]] == [1]
    feed(client, SettingsFrame(((SettingId.MAX_CONCURRENT_STREAMS, 0),)))
    client.send_request(GET)
    assert sent(client) == [ACK]
    assert feed(client, HeadersFrame(1, block(OK), True)) == [ev.ResponseReceived(1, 200, OK, True)]
    assert sent(client) == []


@pytest.mark.rfc("concurrency-exceeded")
def test_streams_over_our_limit_are_refused_and_the_others_go_on(feed):
    server = begun(client=False, settings={SettingId.MAX_CONCURRENT_STREAMS: 2})

    events = feed(server, *(open_request(stream_id) for stream_id in (1, 3, 5)))

    assert [event.stream_id for event in events] == [1, 3]
    assert sent(server) == [RstStreamFrame(5, ErrorCode.REFUSED_STREAM)]
    assert feed(server, DataFrame(5, b"abc"), RstStreamFrame(1, 8)) == [
        ev.StreamReset(1, 8, True)
    ]
    assert feed(server, open_request(7)) == [ev.RequestReceived(7, POST, False)]
    assert (sent(server), list(server.streams)) == ([], [3, 7])


# -- put_back ------------------------------------------------------------------------------


def a_full_batch() -> tuple[Connection, list[bytes]]:
    """A client with everything to send, and the values of PINGs that come later."""
    client = Connection(client=True)
    client.receive_data(
        wire(SettingsFrame(((SettingId.MAX_FRAME_SIZE, 16384),)), PingFrame(b"question")), 0.0
    )
    client.ping(b"0" * 8, 0.0)
    client.ping(b"1" * 8, 0.0)
    stream = client.send_request(POST, end_stream=False)
    client.send_data(stream, b"abc")
    client.send_data(stream, b"def")
    client.send_trailers(stream, TRAILERS)
    client.send_request([*GET, (b"x", b"y")])
    late = [b"2" * 8, b"3" * 8]
    return client, late


def judged(octets: bytes) -> list[ev.Event]:
    """What a server core makes of them: it refuses an unlawful sequence."""
    return Connection(client=False).receive_data(octets, 0.0)


def test_octets_put_back_at_any_place_leave_again_whole_and_in_order():
    whole = a_full_batch()[0].data_to_send(0.0)
    frames = parse(whole[len(CLIENT_PREFACE) :])
    assert [type(frame) for frame in frames] == [
        SettingsFrame,
        WindowUpdateFrame,
        PingFrame,
        PingFrame,
        PingFrame,
        SettingsFrame,
        HeadersFrame,
        HeadersFrame,
        DataFrame,
        DataFrame,
        HeadersFrame,
    ]
    # The preface, SETTINGS and WINDOW_UPDATE leave as one.
    ends = [len(whole) - len(wire(*frames[at:])) for at in range(2, len(frames))]

    for taken in range(len(whole)):
        client, late = a_full_batch()
        client.put_back(client.data_to_send(0.0)[taken:])
        client.ping(late[0], 0.0)

        # What was begun goes on to its end; then PINGs, the late one last; then the rest.
        end = min([*(end for end in ends if end >= taken), len(whole)])
        rest = parse(whole[end:])
        pings = [frame for frame in rest if isinstance(frame, PingFrame)]
        others = [frame for frame in rest if not isinstance(frame, PingFrame)]
        assert drain(client) == whole[taken:end] + wire(*pings, PingFrame(late[0]), *others)


@pytest.mark.parametrize("first", range(0, 300, 7))
def test_octets_may_be_put_back_again_and_again(first):
    expected = judged(a_full_batch()[0].data_to_send(0.0))
    client, late = a_full_batch()
    on_the_wire = b""
    for take, ping in ((first, late[0]), (3, late[1]), (10, None), (0, None), (1, None)):
        octets = client.data_to_send(0.0)
        on_the_wire += octets[:take]
        if take < len(octets):
            client.put_back(octets[take:])
        if ping is not None:
            client.ping(ping, 0.0)
    on_the_wire += drain(client)

    pings = [ev.PingReceived(b"2" * 8), ev.PingReceived(b"3" * 8)]
    assert [event for event in judged(on_the_wire) if event not in pings] == expected
    assert [event for event in judged(on_the_wire) if event in pings] == pings


@pytest.mark.rfc("field-block-contiguous")
def test_a_ping_is_not_let_into_a_field_block_that_was_put_back():
    client = begun(client=True)
    client.send_request(large(8000))
    octets = client.data_to_send(0.0)
    assert [type(frame) for frame in parse(octets)][:2] == [HeadersFrame, ContinuationFrame]

    for taken in [0, 1, 9, 16384 + 8, 16384 + 9, 16384 + 18, len(octets) - 1]:
        client = begun(client=True)
        client.send_request(large(8000))
        client.put_back(client.data_to_send(0.0)[taken:])
        client.ping(b"01234567", 0.0)
        frames = parse(octets[:taken] + drain(client))
        if taken:
            assert [*parse(octets), PING] == frames
        else:
            assert [PING, *parse(octets)] == frames


def test_nothing_that_leaves_is_put_back():
    client, _ = a_full_batch()
    octets = client.data_to_send(0.0)

    client.put_back(b"")

    assert octets
    assert (client.has_output, client.data_to_send(0.0)) == (False, b"")


@pytest.mark.parametrize("octets_max", [0, 1, 9, 10, 100, 16393, 16394, 65536])
def test_content_keeps_to_the_octets_asked_for(octets_max):
    client = begun(client=True)
    (stream,) = requested(client, True)
    client.send_data(stream, bytes(65535), end_stream=True)

    octets = client.data_to_send(0.0, octets_max)

    assert len(octets) <= octets_max
    assert bool(octets) == (octets_max > 9)


# -- faults of the peer --------------------------------------------------------------------


def case(name, client, code, reach, *frames, rfc=()):
    """One fault: who meets it, its code, its reach (stream 1 or the connection, 0), its frames."""
    return pytest.param(client, code, reach, wire(*frames), id=name, marks=rfc)


E = ErrorCode
REQUEST = open_request(1)
MALFORMED = block([*GET, (b"Upper", b"case")])
CLIENT_FAULTS = [
    case("DATA on an idle stream", True, E.PROTOCOL_ERROR, 0, DataFrame(5, b"a"),
         rfc=pytest.mark.rfc("idle-frames")),
    case("HEADERS on an idle stream", True, E.PROTOCOL_ERROR, 0, HeadersFrame(5, block(OK)),
         rfc=pytest.mark.rfc("idle-frames")),
    case("WINDOW_UPDATE on an idle stream", True, E.PROTOCOL_ERROR, 0, WindowUpdateFrame(5, 1),
         rfc=pytest.mark.rfc("idle-frames")),
    case("RST_STREAM on an idle stream", True, E.PROTOCOL_ERROR, 0, RstStreamFrame(5, 0),
         rfc=pytest.mark.rfc("rst-stream-idle")),
    case("RST_STREAM on a server's stream", True, E.PROTOCOL_ERROR, 0, RstStreamFrame(2, 0),
         rfc=pytest.mark.rfc("rst-stream-idle")),
    case("HEADERS on a server's stream", True, E.PROTOCOL_ERROR, 0, HeadersFrame(2, block(OK))),
    case("PUSH_PROMISE", True, E.PROTOCOL_ERROR, 0, PushPromiseFrame(1, 2, block(GET)),
         rfc=pytest.mark.rfc("push-refused")),
    case("a wrong PRIORITY on an idle stream", True, E.FRAME_SIZE_ERROR, 0,
         UnknownFrame(PriorityFrame.TYPE, 0, 9, b"1234"),
         rfc=pytest.mark.rfc("rst-stream-not-idle")),
    case("a wrong PRIORITY on an open stream", True, E.FRAME_SIZE_ERROR, 1,
         UnknownFrame(PriorityFrame.TYPE, 0, 1, b"1234")),
    case("WINDOW_UPDATE of 0 on a stream", True, E.PROTOCOL_ERROR, 1,
         UnknownFrame(WindowUpdateFrame.TYPE, 0, 1, bytes(4)),
         rfc=pytest.mark.rfc("stream-error")),
    case("WINDOW_UPDATE of 0 on an idle stream", True, E.PROTOCOL_ERROR, 0,
         UnknownFrame(WindowUpdateFrame.TYPE, 0, 9, bytes(4)),
         rfc=pytest.mark.rfc("rst-stream-not-idle")),
    case("WINDOW_UPDATE of 0 on the connection", True, E.PROTOCOL_ERROR, 0,
         UnknownFrame(WindowUpdateFrame.TYPE, 0, 0, bytes(4))),
    case("a stream's window over 2^31-1", True, E.FLOW_CONTROL_ERROR, 1,
         WindowUpdateFrame(1, 2**31 - 65535), rfc=pytest.mark.rfc("window-overflow")),
    case("the connection's window over 2^31-1", True, E.FLOW_CONTROL_ERROR, 0,
         WindowUpdateFrame(0, 2**31 - 65535), rfc=pytest.mark.rfc("window-overflow")),
    case("INITIAL_WINDOW_SIZE that lifts a stream's window over 2^31-1", True,
         E.FLOW_CONTROL_ERROR, 0, WindowUpdateFrame(3, 2**31 - 1 - 65535),
         SettingsFrame(((SettingId.INITIAL_WINDOW_SIZE, 65536),)),
         rfc=pytest.mark.rfc("initial-window-overflow")),
    case("ENABLE_PUSH from a server", True, E.PROTOCOL_ERROR, 0,
         SettingsFrame(((SettingId.ENABLE_PUSH, 1),))),
    case("INITIAL_WINDOW_SIZE over 2^31-1", True, E.FLOW_CONTROL_ERROR, 0,
         SettingsFrame(((SettingId.INITIAL_WINDOW_SIZE, 2**31),))),
    case("SETTINGS ack for nothing", True, E.PROTOCOL_ERROR, 0, ACK),
    case("DATA before the response", True, E.PROTOCOL_ERROR, 1, DataFrame(1, b"a"),
         rfc=pytest.mark.rfc("data-before-headers")),
    case("DATA after an interim response alone", True, E.PROTOCOL_ERROR, 1,
         HeadersFrame(1, block(INTERIM)), DataFrame(1, b"a"),
         rfc=pytest.mark.rfc("data-before-headers")),
    case("an interim response that ends the stream", True, E.PROTOCOL_ERROR, 1,
         HeadersFrame(1, block(INTERIM), end_stream=True),
         rfc=pytest.mark.rfc("interim-end-stream")),
    case("status 101", True, E.PROTOCOL_ERROR, 1, HeadersFrame(1, block([(b":status", b"101")])),
         rfc=pytest.mark.rfc("no-101")),
    case("a response without status", True, E.PROTOCOL_ERROR, 1, HeadersFrame(1, block(OK[1:])),
         rfc=pytest.mark.rfc("malformed-stream-error")),
    case("a second response", True, E.PROTOCOL_ERROR, 1, HeadersFrame(1, block(OK)),
         HeadersFrame(1, block(OK)), rfc=pytest.mark.rfc("trailers-end-stream")),
    case("trailers that do not end the stream", True, E.PROTOCOL_ERROR, 1,
         HeadersFrame(1, block(OK)), HeadersFrame(1, block(TRAILERS)),
         rfc=pytest.mark.rfc("trailers-end-stream")),
    case("trailers with a status", True, E.PROTOCOL_ERROR, 1,
         HeadersFrame(1, block(OK)), HeadersFrame(1, block(OK), end_stream=True),
         rfc=pytest.mark.rfc("trailers-no-pseudo")),
    case("DATA after END_STREAM", True, E.STREAM_CLOSED, 1,
         HeadersFrame(1, block(OK), end_stream=True), DataFrame(1, b"a"),
         rfc=pytest.mark.rfc("half-closed-remote-frames")),
    case("HEADERS after END_STREAM", True, E.STREAM_CLOSED, 1,
         HeadersFrame(1, block(OK), end_stream=True), HeadersFrame(1, block(OK)),
         rfc=pytest.mark.rfc("half-closed-remote-frames")),
    case("a field block that does not decode", True, E.COMPRESSION_ERROR, 0,
         HeadersFrame(1, b"\x80"), rfc=pytest.mark.rfc("decoding-error")),
    case("PING within a field block", True, E.PROTOCOL_ERROR, 0,
         HeadersFrame(1, b"", end_headers=False), PING),
    case("CONTINUATION alone", True, E.PROTOCOL_ERROR, 0, ContinuationFrame(1, b"")),
    case("a frame too large", True, E.FRAME_SIZE_ERROR, 0, UnknownFrame(0xB, 0, 0, bytes(16385))),
]  # fmt: skip
SERVER_FAULTS = [
    case("DATA on an idle stream", False, E.PROTOCOL_ERROR, 0, DataFrame(1, b"a"),
         rfc=pytest.mark.rfc("idle-frames")),
    case("WINDOW_UPDATE on a server's stream", False, E.PROTOCOL_ERROR, 0,
         WindowUpdateFrame(2, 1), rfc=pytest.mark.rfc("idle-frames")),
    case("RST_STREAM on an idle stream", False, E.PROTOCOL_ERROR, 0, RstStreamFrame(1, 0),
         rfc=pytest.mark.rfc("rst-stream-idle")),
    case("a request on a server's stream", False, E.PROTOCOL_ERROR, 0, open_request(2),
         rfc=pytest.mark.rfc("client-stream-odd")),
    case("a request on a server's stream, late", False, E.PROTOCOL_ERROR, 0, open_request(5),
         open_request(2), rfc=pytest.mark.rfc("client-stream-odd")),
    case("PUSH_PROMISE", False, E.PROTOCOL_ERROR, 0, REQUEST, PushPromiseFrame(1, 2, b""),
         rfc=pytest.mark.rfc("push-by-client")),
    case("a malformed request", False, E.PROTOCOL_ERROR, 1, HeadersFrame(1, MALFORMED),
         rfc=pytest.mark.rfc("malformed-stream-error")),
    case("trailers that do not end the stream", False, E.PROTOCOL_ERROR, 1, REQUEST,
         HeadersFrame(1, block(TRAILERS)), rfc=pytest.mark.rfc("trailers-end-stream")),
    case("trailers with a method", False, E.PROTOCOL_ERROR, 1, REQUEST,
         HeadersFrame(1, block(GET), end_stream=True),
         rfc=pytest.mark.rfc("trailers-no-pseudo")),
    case("DATA after END_STREAM", False, E.STREAM_CLOSED, 1, open_request(1, True),
         DataFrame(1, b"a"), rfc=pytest.mark.rfc("half-closed-remote-frames")),
    case("HEADERS after END_STREAM", False, E.STREAM_CLOSED, 1, open_request(1, True),
         HeadersFrame(1, block(TRAILERS), end_stream=True),
         rfc=pytest.mark.rfc("half-closed-remote-frames")),
    case("a field block that does not decode", False, E.COMPRESSION_ERROR, 0,
         HeadersFrame(1, b"\xbf"), rfc=pytest.mark.rfc("decoding-error")),
    case("a stream's window over 2^31-1", False, E.FLOW_CONTROL_ERROR, 1, REQUEST,
         WindowUpdateFrame(1, 2**31 - 65535), rfc=pytest.mark.rfc("window-overflow")),
    case("PING of 7 octets", False, E.FRAME_SIZE_ERROR, 0, UnknownFrame(6, 0, 0, bytes(7))),
]  # fmt: skip


def faulted(client: bool) -> Connection:
    """A core about to meet a fault: a client with open streams 1 and 3, or a fresh server."""
    core = begun(client=client)
    if client:
        requested(core, True, True)
    return core


@pytest.mark.parametrize(("client", "code", "reach", "octets"), CLIENT_FAULTS + SERVER_FAULTS)
def test_a_fault_is_answered_as_far_as_it_reaches(client, code, reach, octets):
    core = faulted(client)

    events = pair.feed(core, octets)
    answer = sent(core)[-1]
    after = pair.feed(core, PING)

    fault = events[-1]
    assert fault.error_code == code
    if reach == 1:
        assert (type(fault), fault.stream_id, fault.by_peer) == (ev.StreamReset, 1, False)
        assert answer == RstStreamFrame(1, code)
        assert not core.closed
        assert 1 not in core.streams
        assert (after, sent(core)) == ([ev.PingReceived(b"01234567")], [PING_ACK])
    else:
        assert type(fault) is ev.ConnectionFailed
        last = core._last_peer_stream_id
        assert answer == GoAwayFrame(last, code, fault.reason.encode())
        assert core.closed
        assert (after, sent(core), core.has_output) == ([], [], False)


@pytest.mark.parametrize(("client", "code", "reach", "octets"), CLIENT_FAULTS + SERVER_FAULTS)
def test_a_fault_is_the_same_for_every_cut(client, code, reach, octets):
    if len(octets) > 1000:
        octets = octets[:1000]

    def outcome(pieces):
        core = faulted(client)
        events = [event for piece in pieces for event in core.receive_data(piece, 0.0)]
        return events, sent(core), core.closed

    same_for_all_cuts(octets, outcome)


def test_a_lawful_conversation_is_the_same_for_every_cut():
    client = begun(client=True)
    stream = client.send_request(POST, end_stream=False)
    client.send_data(stream, b"abc")
    client.send_trailers(stream, TRAILERS)
    client.ping(b"01234567", 0.0)
    asking = drain(client)

    def answered(pieces):
        core = begun(client=False)
        events = [event for piece in pieces for event in core.receive_data(piece, 0.0)]
        core.send_response(core.streams[1], INTERIM)
        core.send_response(core.streams[1], OK)
        core.send_data(core.streams[1], b"xyz")
        core.send_trailers(core.streams[1], TRAILERS)
        return events, drain(core)

    events, answering = same_for_all_cuts(asking, answered)
    assert [type(event) for event in events] == [
        ev.PingReceived,
        ev.RequestReceived,
        ev.DataReceived,
        ev.TrailersReceived,
    ]

    def heard(pieces):
        core = begun(client=True)
        requested(core, True)
        core.ping(b"01234567", 0.0)
        drain(core)
        return [event for piece in pieces for event in core.receive_data(piece, 0.0)]

    assert [type(event) for event in same_for_all_cuts(answering, heard)] == [
        ev.PingAcked,
        ev.InformationalReceived,
        ev.ResponseReceived,
        ev.DataReceived,
        ev.TrailersReceived,
    ]


def test_what_came_before_a_fault_is_reported_and_what_comes_behind_is_not(feed):
    server = begun(client=False)

    events = feed(server, open_request(1), DataFrame(1, b"abc"), ContinuationFrame(1, b""), PING)

    assert events[:2] == [ev.RequestReceived(1, POST, False), ev.DataReceived(1, b"abc", False)]
    assert [type(event) for event in events[2:]] == [ev.ConnectionFailed]


@pytest.mark.rfc("window-exceeded")
def test_content_past_a_streams_window_ends_the_stream():
    server = asked(1)
    pair.feed(server, wire(DataFrame(1, K16)) * (DEFAULT_LIMITS.stream_octets // 16384))

    events = pair.feed(server, DataFrame(1, b""), DataFrame(1, b"a"))

    assert events[0] == ev.DataReceived(1, b"", False)
    assert (events[1].stream_id, events[1].error_code) == (1, ErrorCode.FLOW_CONTROL_ERROR)
    assert sent(server) == [RstStreamFrame(1, ErrorCode.FLOW_CONTROL_ERROR)]
    assert server._unread == DEFAULT_LIMITS.stream_octets


@pytest.mark.rfc("window-exceeded")
def test_content_past_the_connections_window_ends_the_connection():
    server = asked(*range(1, 2 * 21, 2))
    for stream_id in range(1, 2 * 20, 2):
        pair.feed(server, wire(DataFrame(stream_id, K16)) * 64)
    drain(server)

    events = pair.feed(server, DataFrame(41, b"a"))

    assert [(type(event), event.error_code) for event in events] == [
        (ev.ConnectionFailed, ErrorCode.FLOW_CONTROL_ERROR)
    ]
    assert [type(frame) for frame in sent(server)] == [GoAwayFrame]


@pytest.mark.rfc("priority-ignored", "unknown-frame-discarded")
def test_priority_and_unknown_frames_change_nothing(feed):
    server = begun(client=False)
    priority = Priority(True, 3, 255)

    events = feed(
        server,
        PriorityFrame(7, priority),
        UnknownFrame(0xEE, 0xFF, 9, b"abc"),
        HeadersFrame(1, block(GET), end_stream=True, priority=priority, pad_length=3),
        PriorityFrame(1, priority),
        UnknownFrame(0x0A, 0, 0, b""),
    )

    assert events == [ev.RequestReceived(1, GET, True)]
    assert sent(server) == []


@pytest.mark.rfc("answers-bounded")
@pytest.mark.parametrize("provocation", [PING, SettingsFrame()], ids=["PING", "SETTINGS"])
def test_a_peer_that_provokes_answers_without_reading_them_must_go(provocation):
    server = asked(1)
    octets = wire(provocation)

    pair.feed(server, octets * DEFAULT_LIMITS.answers_queued)
    assert not server.closed
    assert len(sent(server)) == DEFAULT_LIMITS.answers_queued
    pair.feed(server, octets * DEFAULT_LIMITS.answers_queued)
    assert not server.closed

    events = pair.feed(server, octets)
    assert [(type(event), event.error_code) for event in events] == [
        (ev.ConnectionFailed, ErrorCode.ENHANCE_YOUR_CALM)
    ]
    assert sent(server)[-1].error_code == ErrorCode.ENHANCE_YOUR_CALM


@pytest.mark.rfc("answers-bounded")
@pytest.mark.parametrize("wrong", ["malformed", "refused", "on a closed stream"])
def test_a_peer_that_provokes_resets_without_reading_them_must_go(wrong):
    settings = {SettingId.MAX_CONCURRENT_STREAMS: 0} if wrong == "refused" else None
    server = begun(client=False, settings=settings)
    request = block(OK if wrong == "malformed" else POST)
    for number in range(DEFAULT_LIMITS.answers_queued + 1):
        assert not server.closed
        octets = wire(HeadersFrame(2 * number + 1, request))
        if wrong == "on a closed stream":
            octets += wire(RstStreamFrame(2 * number + 1, 8), DataFrame(2 * number + 1, b"late"))
        events = pair.feed(server, octets, now=float(number))

    assert [(type(event), event.error_code) for event in events[-1:]] == [
        (ev.ConnectionFailed, ErrorCode.ENHANCE_YOUR_CALM)
    ]
    *resets, goaway = sent(server)
    assert len(resets) == DEFAULT_LIMITS.answers_queued
    assert {type(frame) for frame in resets} == {RstStreamFrame}
    assert goaway.error_code == ErrorCode.ENHANCE_YOUR_CALM


# -- mistakes of the caller ----------------------------------------------------------------


@pytest.mark.rfc("malformed-not-sent")
@pytest.mark.parametrize(
    "fields",
    [
        GET[1:],
        OK,
        [*GET, (b"Upper", b"case")],
        [*GET, (b"connection", b"close")],
        [*GET, (b"a", b"b\r\nc: d")],
        [(b"a", b"b"), *GET],
    ],
)
def test_a_malformed_request_is_refused_and_nothing_changes(fields):
    client = begun(client=True)
    before = state_of(client)

    with pytest.raises(LocalProtocolError):
        client.send_request(fields)

    assert (state_of(client), sent(client)) == (before, [])


@pytest.mark.rfc("malformed-not-sent")
@pytest.mark.parametrize("fields", [GET, OK[1:], [(b":status", b"101")], [*OK, (b"te", b"gzip")]])
def test_a_malformed_response_is_refused_and_nothing_changes(fields):
    server = asked(1)
    before = state_of(server)

    with pytest.raises(LocalProtocolError):
        server.send_response(server.streams[1], fields)

    assert (state_of(server), sent(server)) == (before, [])


@pytest.mark.rfc("malformed-not-sent")
def test_malformed_trailers_are_refused_and_nothing_changes():
    client = begun(client=True)
    (stream,) = requested(client, True)
    before = state_of(client)

    with pytest.raises(LocalProtocolError):
        client.send_trailers(stream, OK)

    assert (state_of(client), sent(client)) == (before, [])


@pytest.mark.rfc("stream-ids-odd-rising")
def test_a_server_opens_no_streams():
    server = begun(client=False)

    with pytest.raises(UsageError, match="a server opens no streams"):
        server.send_request(GET)

    assert sent(server) == []


@pytest.mark.rfc("half-closed-local-sends", "data-sent-open")
def test_nothing_is_taken_behind_the_end_of_a_stream():
    client = begun(client=True)
    (stream,) = requested(client, False)
    server = asked(1)
    reply = server.streams[1]
    server.send_response(reply, OK, end_stream=True)

    for call in (
        lambda: client.send_data(stream, b"abc"),
        lambda: client.send_data(stream, b"", end_stream=True),
        lambda: client.send_trailers(stream, TRAILERS),
        lambda: server.send_response(reply, OK),
        lambda: server.send_data(reply, b"abc"),
        lambda: server.send_trailers(reply, TRAILERS),
    ):
        with pytest.raises(UsageError):
            call()

    assert sent(client) == []
    assert sent(server) == [HeadersFrame(1, block(OK), end_stream=True)]


@pytest.mark.rfc("reset-last", "reset-received")
def test_a_stream_that_was_reset_takes_nothing(feed):
    server = asked(1, 3)
    one, three = server.streams[1], server.streams[3]
    server.reset_stream(one)
    feed(server, RstStreamFrame(3, 0))
    drain(server)

    for stream in (one, three):
        for call in (
            partial(server.send_response, stream, OK),
            partial(server.send_data, stream, b"abc"),
            partial(server.send_trailers, stream, TRAILERS),
        ):
            with pytest.raises(UsageError):
                call()

    assert (sent(server), server.has_output) == ([], False)


@pytest.mark.parametrize("octets", [-1, 4])
def test_no_more_can_be_consumed_than_is_unread(octets, feed):
    server = asked(1)
    feed(server, DataFrame(1, b"abc"))

    with pytest.raises(UsageError):
        server.data_consumed(1, octets)

    assert (server._unread, server.streams[1].receive_window.owed) == (3, 0)


@pytest.mark.rfc("frame-size-minimum")
@pytest.mark.parametrize(
    "settings",
    [
        {SettingId.ENABLE_PUSH: 2},
        {SettingId.INITIAL_WINDOW_SIZE: 2**31},
        {SettingId.MAX_FRAME_SIZE: 16383},
        {SettingId.MAX_FRAME_SIZE: 2**24},
    ],
)
def test_settings_out_of_bounds_are_refused(settings):
    with pytest.raises(UsageError):
        Connection(settings=settings)


def test_a_closed_connection_takes_neither_pings_nor_requests(feed):
    client = begun(client=True)
    feed(client, DataFrame(9, b""))
    drain(client)

    with pytest.raises(UsageError):
        client.ping(b"01234567", 0.0)
    with pytest.raises(UsageError):
        client.send_request(GET)

    assert (sent(client), client.has_output) == ([], False)


# -- anything at all -----------------------------------------------------------------------

CONVERSATION = {
    True: [
        SettingsFrame(((SettingId.INITIAL_WINDOW_SIZE, 100),)),
        WindowUpdateFrame(0, 1000),
        PING,
        PING_ACK,
        HeadersFrame(1, block(INTERIM)),
        HeadersFrame(1, block(OK)[:3], end_headers=False),
        ContinuationFrame(1, block(OK)[3:]),
        DataFrame(1, b"abc", pad_length=5),
        WindowUpdateFrame(1, 50),
        HeadersFrame(1, block(TRAILERS), end_stream=True),
        RstStreamFrame(3, ErrorCode.CANCEL),
        PriorityFrame(3, Priority(False, 1, 16)),
        GoAwayFrame(3, ErrorCode.NO_ERROR, b"bye"),
    ],
    False: [
        SettingsFrame(((SettingId.HEADER_TABLE_SIZE, 0), (SettingId.MAX_FRAME_SIZE, 20000))),
        open_request(1),
        DataFrame(1, b"abc", end_stream=True, pad_length=2),
        HeadersFrame(3, block(POST)[:9], end_headers=False, priority=Priority(True, 1, 3)),
        ContinuationFrame(3, block(POST)[9:]),
        WindowUpdateFrame(3, 50),
        HeadersFrame(3, block(TRAILERS), end_stream=True),
        PING,
        RstStreamFrame(1, ErrorCode.CANCEL),
        open_request(5, end_stream=True),
        UnknownFrame(0x42, 0xFF, 5, b"x"),
        GoAwayFrame(0, ErrorCode.NO_ERROR),
    ],
}


def busy(client: bool) -> Connection:
    """A core in the middle of things, with output that waits."""
    core = begun(client=client)
    if client:
        for stream in requested(core, True, True, True):
            core.send_data(stream, bytes(70000))
    else:
        pair.feed(core, open_request(1))
        core.send_response(core.streams[1], OK)
        core.send_data(core.streams[1], bytes(70000))
    core.ping(b"01234567", 0.0)
    return core


def take(core: Connection, octets: bytes) -> None:
    """Feed octets of any kind and see that the core keeps its word."""
    events = core.receive_data(octets, 1.0)
    failed = [event for event in events if isinstance(event, ev.ConnectionFailed)]
    assert failed == events[-1:] if core.closed and events else not failed
    for frame in parse(drain(core)):
        assert not isinstance(frame, (UnknownFrame, PushPromiseFrame))
    for stream_id, stream in core.streams.items():
        assert stream.stream_id == stream_id
        assert stream.state != CLOSED


@settings(max_examples=200)
@given(st.booleans(), st.lists(st.binary(max_size=100), max_size=5))
def test_no_octets_make_receive_data_raise(client, chunks):
    new = Connection(client=client)
    drain(new)
    for core in (new, busy(client)):
        for chunk in chunks:
            take(core, chunk)


@settings(max_examples=400)
@given(st.booleans(), st.data())
def test_no_lawful_conversation_gone_wrong_makes_receive_data_raise(client, data):
    frames = [frame.encode() for frame in CONVERSATION[client]]
    order = data.draw(
        st.one_of(
            st.just(range(len(frames))),
            st.permutations(range(len(frames))),
            st.lists(st.integers(0, len(frames) - 1), max_size=20),
        )
    )
    octets = bytearray(b"".join(frames[number] for number in order))
    places = st.integers(0, max(0, len(octets) - 1))
    changes = data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=4))
    for at, value in changes:
        octets[at : at + 1] = bytes((value,))
    core = busy(client)

    for piece in pair.pieces(bytes(octets), data.draw(st.sampled_from([None, 1, 7, 50]))):
        take(core, piece)


def test_both_conversations_are_lawful():
    for client, frames in CONVERSATION.items():
        core = busy(client)
        take(core, wire(*frames))
        assert not core.closed


class Simulation:
    """Two cores, callers who do anything lawful, and a network that takes what it likes."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.cores = connected(
            {SettingId.INITIAL_WINDOW_SIZE: self.random.choice([65535, 200_000])},
            {
                SettingId.INITIAL_WINDOW_SIZE: self.random.choice([65535, 200_000]),
                SettingId.MAX_CONCURRENT_STREAMS: self.random.choice([1, 3, 100]),
            },
        )
        self.under_way = [b"", b""]  # octets sent by each core and not yet received
        self.streams: list[Stream] = []  # the client's
        self.said: dict[tuple[int, Stream], list[bytes]] = {}  # by whom, the client's stream
        self.heard: dict[tuple[int, int], list[bytes]] = {}  # by whom, identifier
        self.unread: list[tuple[int, int, int]] = []
        self.pings = 0
        self.acked = 0
        self.reset: set[int] = set()

    def choose(self) -> None:
        step = self.random.choice(
            [self.ask, self.talk, self.talk, self.end, self.read, self.ping, self.give_up]
            + [self.carry] * 6
        )
        step()

    def ask(self) -> None:
        if len(self.streams) < 60:
            self.streams.append(self.cores[0].send_request(POST, end_stream=False))

    def stream_at(self) -> tuple[int, Stream, Stream] | None:
        """A side, the client's stream and that side's own."""
        who = self.random.randrange(2)
        if not self.streams:
            return None
        stream = self.random.choice(self.streams)
        own = stream if who == 0 else self.cores[1].streams.get(stream.stream_id)
        if own is None or own.state == CLOSED or own.end_queued:
            return None
        if who == 1 and (who, stream) not in self.said:
            self.said[who, stream] = []
            self.cores[1].send_response(own, OK)
        return who, stream, own

    def talk(self) -> None:
        if found := self.stream_at():
            who, stream, own = found
            content = self.random.randbytes(self.random.choice([0, 1, 100, 20_000, 120_000]))
            self.cores[who].send_data(own, content)
            self.said.setdefault((who, stream), []).append(content)

    def end(self) -> None:
        if found := self.stream_at():
            who, _, own = found
            if self.random.random() < 0.5:
                self.cores[who].send_trailers(own, TRAILERS)
            else:
                self.cores[who].send_data(own, b"", end_stream=True)

    def give_up(self) -> None:
        if self.random.random() < 0.1 and (found := self.stream_at()):
            who, stream, own = found
            self.cores[who].reset_stream(own)
            self.reset.add(id(stream))

    def read(self) -> None:
        self.random.shuffle(self.unread)
        for _ in range(len(self.unread) // 2 + 1):
            if self.unread:
                who, stream_id, octets = self.unread.pop()
                self.cores[who].data_consumed(stream_id, octets)

    def ping(self) -> None:
        who = self.random.randrange(2)
        if len(self.cores[who]._pings) < PINGS_IN_FLIGHT_MAX:
            self.pings += 1
            self.cores[who].ping(self.pings.to_bytes(8, "big"), 0.0)

    def carry(self) -> None:
        """The socket takes some octets and gives some."""
        who = self.random.randrange(2)
        core = self.cores[who]
        octets = core.data_to_send(0.0, self.random.choice([20, 1000, 65536]))
        taken = self.random.choice([len(octets), self.random.randint(0, len(octets))])
        if taken < len(octets):
            core.put_back(octets[taken:])
        self.under_way[who] += octets[:taken]
        size = self.random.choice([1, 30, 70_000])
        piece, self.under_way[who] = self.under_way[who][:size], self.under_way[who][size:]
        for event in self.cores[1 - who].receive_data(piece, 0.0):
            self.on_event(1 - who, event)

    def on_event(self, who: int, event: ev.Event) -> None:
        assert not isinstance(event, (ev.ConnectionFailed, ev.UnknownPingAcked)), event
        if isinstance(event, ev.StreamReset):
            assert event.by_peer, event
        if isinstance(event, ev.PingAcked):
            self.acked += 1
        if isinstance(event, ev.DataReceived):
            self.heard.setdefault((who, event.stream_id), []).append(bytes(event.data))
            self.unread.append((who, event.stream_id, len(event.data)))

    def finish(self) -> None:
        """Everyone ends what he began, and all is carried."""
        while True:
            for stream in self.streams:
                own = self.cores[1].streams.get(stream.stream_id)
                if stream.state != CLOSED and not stream.end_queued:
                    self.cores[0].send_data(stream, b"", end_stream=True)
                if own is not None and not own.end_queued:
                    if (1, stream) not in self.said:
                        self.said[1, stream] = []
                        self.cores[1].send_response(own, OK)
                    self.cores[1].send_data(own, b"", end_stream=True)
            self.random.shuffle(self.unread)
            while self.unread:
                self.read()
            busy = any(core.has_output for core in self.cores) or any(self.under_way)
            if not busy:
                return
            for _ in range(20):
                self.carry()


@pytest.mark.parametrize("seed", range(40))
def test_whatever_lawful_callers_do_all_content_arrives_and_windows_are_whole(seed):
    simulation = Simulation(seed)
    for _ in range(600):
        simulation.choose()
    simulation.finish()

    client, server = simulation.cores
    for (who, stream), said in simulation.said.items():
        heard = b"".join(simulation.heard.get((1 - who, stream.stream_id), []))
        if id(stream) in simulation.reset:
            assert b"".join(said).startswith(heard)
        else:
            assert b"".join(said) == heard
    assert (client.streams, server.streams) == ({}, {})
    assert simulation.acked == simulation.pings
    for sender, receiver in ((client, server), (server, client)):
        window = receiver._receive_window
        assert window.size + window.owed == CONNECTION_WINDOW
        assert sender._send_window.size == window.size
        assert (receiver._unread, receiver._withheld) == (0, 0)
        assert [len(lane) for lane in (sender._round, sender._sections, sender._openers)] == [0] * 3
