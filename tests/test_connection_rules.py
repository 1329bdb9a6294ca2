"""Connection, the rules at the edges: closed streams, lengths, changed settings, endings.

Each fault is held against its code, its reach, and whether the connection goes on.
"""

from __future__ import annotations

import pytest

from h2lite import events as ev
from h2lite.connection import (
    ANSWERS_QUEUED_MAX,
    DEBUG_DATA_OCTETS_MAX,
    RESETS_REMEMBERED_MAX,
    SETTINGS_ACK_TIMEOUT_S,
    SKIPS_REMEMBERED_MAX,
    Connection,
)
from h2lite.errors import ErrorCode, LocalProtocolError, UsageError
from h2lite.framer import CLIENT_PREFACE
from h2lite.frames import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    UnknownFrame,
    WindowUpdateFrame,
)
from h2lite.settings import SettingId
from h2lite.stream import CLOSED, IDLE, OPEN
from tests.pair import (
    GET,
    OK,
    POST,
    TRAILERS,
    begun,
    block,
    connected,
    drain,
    exchange,
    feed,
    parse,
    sent,
    wire,
)

# What every core of these tests receives is also cut otherwise: see replaying.py.
pytestmark = pytest.mark.usefixtures("every_cut")

INTERIM = [(b":status", b"103")]
WHOLE_OR_BY_OCTETS = pytest.mark.parametrize("cut", [None, 1, 7], ids=["whole", "by 1", "by 7"])


def asked(*stream_ids, settings=None, fields=POST):
    """A server with these requests open."""
    server = begun(client=False, settings=settings)
    feed(server, *(HeadersFrame(stream_id, block(fields)) for stream_id in stream_ids))
    return server


def requested(client, *bodies):
    """Streams of requests that have left; True: content is still to come."""
    streams = [client.send_request(POST if body else GET, end_stream=not body) for body in bodies]
    drain(client)
    return streams


def assert_goes_on(core):
    feed(core, PingFrame(b"goes on?"))
    assert sent(core)[-1:] == [PingFrame(b"goes on?", ack=True)]


def assert_reset(core, events, stream_id, error_code):
    """The last event and frame say so, and the connection goes on."""
    assert [(type(e), e.stream_id, e.error_code, e.by_peer) for e in events[-1:]] == [
        (ev.StreamReset, stream_id, error_code, False)
    ]
    assert sent(core)[-1] == RstStreamFrame(stream_id, error_code)
    assert stream_id not in core.streams
    assert_goes_on(core)


def assert_over(core, events, error_code):
    """The last event and frame say so, and nothing more is accepted or sent."""
    assert [(type(e), e.error_code) for e in events[-1:]] == [(ev.ConnectionFailed, error_code)]
    last = sent(core)[-1]
    assert (type(last), last.error_code) == (GoAwayFrame, error_code)
    assert feed(core, PingFrame(b"goes on?")) == []
    assert not core.has_output


# -- closed streams --------------------------------------------------------------------------


@pytest.mark.rfc("closed-minimal")
@WHOLE_OR_BY_OCTETS
def test_what_was_under_way_to_a_stream_we_reset_is_counted_and_discarded(cut):
    server = asked(1)
    server.reset_stream(server.streams[1])
    drain(server)

    late = (DataFrame(1, bytes(500)), HeadersFrame(1, block(TRAILERS), True), DataFrame(1, b"x"))
    assert feed(server, *late, cut=cut) == []
    assert sent(server) == []
    window = server._receive_window
    assert window.size + window.owed == window.limit
    assert_goes_on(server)


@pytest.mark.rfc("data-closed", "closed-by-reset")
@pytest.mark.parametrize(
    "late", [DataFrame(1, b"late"), HeadersFrame(1, block(TRAILERS), True)], ids=["DATA", "HEADERS"]
)
def test_after_its_own_reset_the_peer_may_send_nothing_more_there(late):
    server = asked(1)
    feed(server, RstStreamFrame(1, ErrorCode.CANCEL))

    assert feed(server, late) == []
    assert sent(server) == [RstStreamFrame(1, ErrorCode.STREAM_CLOSED)]
    assert feed(server, late) == []
    assert sent(server) == []
    assert_goes_on(server)


@pytest.mark.rfc("data-closed")
def test_data_after_end_stream_both_ways_is_a_stream_error_and_counted():
    server = begun(client=False)
    feed(server, HeadersFrame(1, block(GET), True))
    server.send_response(server.streams[1], OK, end_stream=True)
    drain(server)

    assert feed(server, DataFrame(1, b"late")) == []
    assert sent(server) == [RstStreamFrame(1, ErrorCode.STREAM_CLOSED)]
    window = server._receive_window
    assert window.size + window.owed == window.limit
    assert_goes_on(server)


@pytest.mark.rfc("closed-by-end")
def test_headers_after_end_stream_both_ways_end_the_connection():
    server = begun(client=False)
    feed(server, HeadersFrame(5, block(GET), True))
    server.send_response(server.streams[5], OK, end_stream=True)
    drain(server)

    events = feed(server, HeadersFrame(5, block(GET), True))

    assert_over(server, events, ErrorCode.STREAM_CLOSED)


@pytest.mark.rfc("closed-by-end")
def test_a_second_response_on_a_finished_stream_ends_the_connection():
    client = begun(client=True)
    requested(client, False)
    feed(client, HeadersFrame(1, block(OK), True))

    assert_over(client, feed(client, HeadersFrame(1, block(OK), True)), ErrorCode.STREAM_CLOSED)


@pytest.mark.rfc("stream-id-lower", "lower-streams-close")
@pytest.mark.parametrize("late", [HeadersFrame(3, block(GET), True), DataFrame(3, b"")])
def test_a_stream_that_was_passed_over_can_never_be_opened(late):
    server = asked(1, 7)

    assert_over(server, feed(server, late), ErrorCode.PROTOCOL_ERROR)


@pytest.mark.rfc("lower-streams-close")
def test_what_is_remembered_of_closed_streams_is_bounded():
    server = begun(client=False)
    for number in range(SKIPS_REMEMBERED_MAX + RESETS_REMEMBERED_MAX):
        stream_id = 4 * number + 3
        feed(server, HeadersFrame(stream_id, block(POST)), RstStreamFrame(stream_id, 8))
    assert len(server._skips) == SKIPS_REMEMBERED_MAX
    assert len(server._resets) == RESETS_REMEMBERED_MAX
    assert server._skips[-1] == range(stream_id - 3, stream_id)


@pytest.mark.rfc("closed-nothing-sent")
@pytest.mark.parametrize("type_", [0x2, 0x8], ids=["PRIORITY of 4", "WINDOW_UPDATE of 0"])
def test_a_fault_on_a_closed_stream_passes_without_an_answer(type_):
    server = asked(1)
    server.reset_stream(server.streams[1])
    drain(server)

    assert feed(server, UnknownFrame(type_, 0, 1, bytes(4))) == []
    assert sent(server) == []
    assert_goes_on(server)


@pytest.mark.rfc("goaway-ignores-new")
@pytest.mark.parametrize(
    "frame",
    [DataFrame(3, bytes(1000)), RstStreamFrame(3, 8), WindowUpdateFrame(3, 1)],
    ids=lambda frame: frame.NAME,
)
def test_all_frames_of_requests_past_our_goaway_are_ignored(frame):
    server = asked(1)
    server.goaway()

    assert feed(server, HeadersFrame(3, block(POST)), frame) == []
    assert sent(server) == [GoAwayFrame(1, ErrorCode.NO_ERROR)]
    window = server._receive_window
    assert window.size + window.owed == window.limit
    server.goaway()
    assert sent(server) == [GoAwayFrame(1, ErrorCode.NO_ERROR)]
    assert list(server.streams) == [1]


# -- frames too large ------------------------------------------------------------------------


@pytest.mark.rfc("frame-too-large", "data-always-counted")
@WHOLE_OR_BY_OCTETS
def test_data_too_large_resets_its_stream_and_is_counted(cut):
    server = asked(1, 3)

    events = feed(server, DataFrame(1, bytes(16385)), cut=cut)

    assert_reset(server, events, 1, ErrorCode.FRAME_SIZE_ERROR)
    window = server._receive_window
    assert (window.size, window.owed) == (window.limit - 16385, 16385)
    assert list(server.streams) == [3]


@pytest.mark.rfc("frame-size-kept")
def test_field_sections_content_and_goaway_stay_within_the_peers_frames():
    client = begun(client=True)
    stream = client.send_request([*POST, (b"long", b"\xff" * 20000)], end_stream=False)
    client.send_data(stream, bytes(40000), end_stream=True)
    frames = sent(client)
    assert [type(frame) for frame in frames[:2]] == [HeadersFrame, ContinuationFrame]
    assert max(len(frame.encode()) for frame in frames) == 16384 + 9

    with pytest.raises(UsageError):
        client.goaway(ErrorCode.NO_ERROR, bytes(16384 - 7))
    assert not client.has_output
    client.goaway(ErrorCode.NO_ERROR, bytes(16384 - 8))
    assert len(drain(client)) == 16384 + 9


def test_what_a_goaway_says_of_a_fault_is_bounded():
    client = begun(client=True)
    requested(client, False)
    feed(client, HeadersFrame(1, b"\x40" + b"\xff" * 100))

    assert len(sent(client)[-1].debug_data) <= DEBUG_DATA_OCTETS_MAX


# -- content-length --------------------------------------------------------------------------


def length(octets):
    return (b"content-length", str(octets).encode())


@pytest.mark.rfc("content-length")
@WHOLE_OR_BY_OCTETS
def test_content_as_long_as_declared_is_a_whole_message(cut):
    server = begun(client=False)

    events = feed(
        server,
        HeadersFrame(1, block([*POST, length(5)])),
        DataFrame(1, b"abc", pad_length=9),
        DataFrame(1, b"de"),
        HeadersFrame(1, block(TRAILERS), True),
        cut=cut,
    )

    assert [type(event) for event in events] == [
        ev.RequestReceived,
        ev.DataReceived,
        ev.DataReceived,
        ev.TrailersReceived,
    ]


TOO_SHORT_OR_LONG = {
    "DATA too short": [DataFrame(1, b"abcd", True)],
    "DATA too long": [DataFrame(1, b"abcdef")],
    "a second too long": [DataFrame(1, b"abcde"), DataFrame(1, b"f", True)],
    "trailers too early": [DataFrame(1, b"abc"), HeadersFrame(1, block(TRAILERS), True)],
    "no content": [DataFrame(1, b"", True)],
}


@pytest.mark.rfc("content-length", "malformed-stream-error")
@pytest.mark.parametrize("frames", TOO_SHORT_OR_LONG.values(), ids=TOO_SHORT_OR_LONG)
@WHOLE_OR_BY_OCTETS
def test_content_of_another_length_than_declared_is_malformed(frames, cut):
    server = begun(client=False)

    events = feed(server, HeadersFrame(1, block([*POST, length(5)])), *frames, cut=cut)

    assert not any(getattr(event, "end_stream", False) for event in events)
    assert_reset(server, events, 1, ErrorCode.PROTOCOL_ERROR)


@pytest.mark.rfc("content-length")
def test_a_response_that_ends_with_its_headers_yet_declares_content_is_malformed():
    client = begun(client=True)
    requested(client, False)

    events = feed(client, HeadersFrame(1, block([*OK, length(5)]), True))

    assert [type(event) for event in events] == [ev.StreamReset]
    assert_reset(client, events, 1, ErrorCode.PROTOCOL_ERROR)


@pytest.mark.rfc("no-content")
@pytest.mark.parametrize(
    ("method", "status"), [(b"HEAD", b"200"), (b"GET", b"204"), (b"GET", b"304")]
)
def test_a_response_without_content_may_declare_any_length(method, status):
    client, server = connected()
    client.send_request([(b":method", method), *GET[1:]])
    exchange(client, server)
    server.send_response(server.streams[1], [(b":status", status), length(5)], end_stream=True)

    (response,), _ = exchange(client, server)

    assert isinstance(response, ev.ResponseReceived)
    assert (response.status, response.end_stream) == (int(status), True)


@pytest.mark.rfc("no-content")
@pytest.mark.parametrize(
    ("method", "status"), [(b"HEAD", b"200"), (b"GET", b"204"), (b"GET", b"304")]
)
def test_content_where_there_is_none_is_malformed_and_not_sent(method, status):
    client = begun(client=True)
    client.send_request([(b":method", method), *GET[1:]])
    drain(client)
    events = feed(
        client, HeadersFrame(1, block([(b":status", status)])), DataFrame(1, b"x", True)
    )
    assert_reset(client, events, 1, ErrorCode.PROTOCOL_ERROR)

    server = asked(1, fields=[(b":method", method), *GET[1:]])
    server.send_response(server.streams[1], [(b":status", status)])
    with pytest.raises(LocalProtocolError):
        server.send_data(server.streams[1], b"x")


@pytest.mark.rfc("content-length")
def test_we_send_no_other_content_than_we_declared():
    client = begun(client=True)
    with pytest.raises(LocalProtocolError):
        client.send_request([*POST, length(5)], end_stream=True)
    assert not client.has_output

    stream = client.send_request([*POST, length(5)], end_stream=False)
    for wrong in (lambda: client.send_data(stream, b"abcdef"),
                  lambda: client.send_data(stream, b"abcd", end_stream=True),
                  lambda: client.send_trailers(stream, TRAILERS)):  # fmt: skip
        with pytest.raises(LocalProtocolError):
            wrong()
    client.send_data(stream, b"abcde", end_stream=True)
    assert sent(client)[1:] == [DataFrame(1, b"abcde", True)]


@pytest.mark.rfc("content-length-valid")
@pytest.mark.parametrize(
    "lengths", [[b"five"], [b"-5"], [b"+5"], [b"5", b"5"], [b"5,5"], [b""], [b"1" * 19]]
)
def test_a_content_length_that_is_none_is_malformed(lengths):
    server = begun(client=False)
    fields = [*POST, *((b"content-length", value) for value in lengths)]

    assert_reset(
        server, feed(server, HeadersFrame(1, block(fields))), 1, ErrorCode.PROTOCOL_ERROR
    )
    with pytest.raises(LocalProtocolError):
        begun(client=True).send_request(fields, end_stream=False)


# -- field sections --------------------------------------------------------------------------


def with_pseudo(name, value, fields=GET):
    return [(name, value) if field[0] == name else field for field in fields]


MALFORMED_REQUESTS = [
    pytest.param(with_pseudo(b":method", b"G T"), marks=pytest.mark.rfc("method-token")),
    pytest.param(with_pseudo(b":method", b"GET\xe9"), marks=pytest.mark.rfc("method-token")),
    pytest.param(with_pseudo(b":path", b"index"), marks=pytest.mark.rfc("path-form")),
    pytest.param(with_pseudo(b":path", b"*"), marks=pytest.mark.rfc("path-form")),
    pytest.param([*GET, (b"host", b"other.org")], marks=pytest.mark.rfc("host-differs")),
    pytest.param(
        with_pseudo(b":authority", b"me@example.org"),
        marks=pytest.mark.rfc("authority-no-userinfo"),
    ),
]


@pytest.mark.parametrize("fields", MALFORMED_REQUESTS)
def test_a_request_of_another_form_is_malformed_and_not_sent(fields):
    server = begun(client=False)

    assert_reset(
        server, feed(server, HeadersFrame(1, block(fields), True)), 1, ErrorCode.PROTOCOL_ERROR
    )
    with pytest.raises(LocalProtocolError):
        begun(client=True).send_request(fields)


WELL_FORMED_REQUESTS = [
    pytest.param(with_pseudo(b":method", b"M-SEARCH"), marks=pytest.mark.rfc("method-token")),
    pytest.param(
        with_pseudo(b":path", b"*", with_pseudo(b":method", b"OPTIONS")),
        marks=pytest.mark.rfc("path-form"),
    ),
    pytest.param(
        with_pseudo(b":path", b"urn", with_pseudo(b":scheme", b"x-other")),
        marks=pytest.mark.rfc("path-form"),
    ),
    pytest.param([*GET, (b"host", b"EXAMPLE.org")], marks=pytest.mark.rfc("host-differs")),
]


@pytest.mark.parametrize("fields", WELL_FORMED_REQUESTS)
def test_a_request_of_its_form_is_taken(fields):
    client, server = connected()
    client.send_request(fields)

    assert exchange(client, server)[1] == [ev.RequestReceived(1, fields, True)]


def test_connect_is_not_offered():
    client = begun(client=True)
    with pytest.raises(LocalProtocolError):
        client.send_request([(b":method", b"CONNECT"), (b":authority", b"example.org:443")])
    assert not client.has_output


@pytest.mark.rfc("header-list-size-kept")
def test_a_section_that_the_peer_will_not_take_is_refused_to_the_caller():
    size = sum(len(name) + len(value) + 32 for name, value in GET)
    for limit, refused in ((size, False), (size - 1, True)):
        client = begun(client=True, peer={SettingId.MAX_HEADER_LIST_SIZE: limit})
        if refused:
            with pytest.raises(LocalProtocolError):
                client.send_request(GET)
        else:
            client.send_request(GET)
        assert client.has_output is not refused


def test_fields_are_those_of_the_call():
    client = begun(client=True)
    fields = list(GET)
    client.send_request(fields)
    fields[3] = (b":path", b"/b\r\n")

    assert sent(client)[0].field_block == block(GET)


# -- the order of our own frames -------------------------------------------------------------


@pytest.mark.rfc("header-section-first")
@pytest.mark.parametrize("before", [(), (INTERIM,)], ids=["nothing", "an interim response"])
def test_a_server_sends_nothing_before_its_final_response(before):
    server = asked(1)
    stream = server.streams[1]
    for fields in before:
        server.send_response(stream, fields)
    drain(server)

    for early in (
        lambda: server.send_data(stream, b"x"),
        lambda: server.send_data(stream, b"", end_stream=True),
        lambda: server.send_trailers(stream, TRAILERS),
    ):
        with pytest.raises(LocalProtocolError):
            early()
    assert not server.has_output
    server.send_response(stream, OK, end_stream=True)
    assert server.has_output


@pytest.mark.rfc("one-final-response", "interim-end-stream")
def test_a_server_sends_one_final_response_and_no_interim_one_after_it():
    server = asked(1)
    stream = server.streams[1]
    with pytest.raises(UsageError):
        server.send_response(stream, INTERIM, end_stream=True)
    server.send_response(stream, OK)
    for second in (OK, INTERIM):
        with pytest.raises(UsageError):
            server.send_response(stream, second)
    assert [type(frame) for frame in sent(server)] == [HeadersFrame]


@pytest.mark.rfc("one-final-response")
def test_a_client_sends_no_response():
    client = begun(client=True)
    (stream,) = requested(client, True)

    with pytest.raises(UsageError):
        client.send_response(stream, OK)


@pytest.mark.parametrize("end", ["failed", "eof"])
def test_a_closed_connection_sends_nothing_more(end):
    core = asked(1, 3)
    stream = core.streams[1]
    core.send_response(stream, OK)
    feed(core, *[DataFrame(1, bytes(16384))] * 40)
    drain(core)
    if end == "eof":
        core.receive_eof()
    else:
        feed(core, DataFrame(99, b""))
        drain(core)

    for call in (
        lambda: core.send_data(stream, b"x"),
        lambda: core.send_trailers(stream, TRAILERS),
        lambda: core.send_response(core.streams[3], OK),
        lambda: core.ping(b"12345678", 0.0),
        lambda: core.update_settings({}, 0.0),
    ):
        with pytest.raises(UsageError):
            call()
    core.data_consumed(1, 40 * 16384)
    core.reset_stream(stream)
    core.goaway()
    assert not core.has_output
    assert stream.state == CLOSED


@pytest.mark.parametrize("code", [-1, 2**32])
def test_an_error_code_that_does_not_fit_is_refused_and_changes_nothing(code):
    client = begun(client=True)
    (stream,) = requested(client, True)

    with pytest.raises(UsageError):
        client.reset_stream(stream, code)
    with pytest.raises(UsageError):
        client.goaway(code)
    assert (stream.state, client.goaway_sent, client.closed, sent(client)) == (
        OPEN, None, False, [],
    )  # fmt: skip


def test_no_more_can_be_consumed_on_a_stream_than_came_on_it():
    server = asked(1, 3)
    feed(server, DataFrame(1, bytes(10)), DataFrame(3, bytes(10)))

    with pytest.raises(UsageError):
        server.data_consumed(1, 11)
    server.data_consumed(1, 10)
    server.data_consumed(3, 10)
    with pytest.raises(UsageError):
        server.data_consumed(3, 1)


def test_answers_put_back_still_count():
    core = begun(client=True)
    for _ in range(3):
        feed(core, wire(PingFrame(b"01234567")) * (ANSWERS_QUEUED_MAX // 2))
        core.put_back(core.data_to_send(0.0))
    assert core.closed


# -- settings --------------------------------------------------------------------------------


@pytest.mark.rfc("concurrency-exceeded")
def test_a_client_that_never_acks_our_settings_cannot_open_streams_without_end():
    server = Connection(client=False)
    drain(server)
    feed(server, CLIENT_PREFACE, SettingsFrame())

    feed(server, *(HeadersFrame(2 * n + 1, block(POST)) for n in range(101)))

    assert len(server.streams) == 100
    assert sent(server)[-1] == RstStreamFrame(201, ErrorCode.REFUSED_STREAM)


@pytest.mark.rfc("initial-window-receive")
@pytest.mark.parametrize("window", [1, 1000, 65535, 2**20])
def test_content_crosses_whole_whatever_window_was_announced(window):
    client, server = Connection(True, {SettingId.INITIAL_WINDOW_SIZE: window}), Connection(False)
    client.send_request(GET)
    exchange(client, server)
    server.send_response(server.streams[1], OK)
    server.send_data(server.streams[1], bytes(50), end_stream=True)
    got = 0
    while got < 50:
        octets = sum(
            len(event.data)
            for event in exchange(client, server)[0]
            if isinstance(event, ev.DataReceived)
        )
        assert octets, "it has stopped"
        client.data_consumed(1, octets)
        got += octets
    assert got == 50


@pytest.mark.rfc("initial-window-receive")
def test_a_raised_window_is_open_from_when_it_is_sent():
    server = asked(1, settings={SettingId.INITIAL_WINDOW_SIZE: 100})
    assert server.streams[1].receive_window.size == 100

    server.update_settings({SettingId.INITIAL_WINDOW_SIZE: 300}, 0.0)
    assert sent(server) == [SettingsFrame(((SettingId.INITIAL_WINDOW_SIZE, 300),))]
    assert feed(server, DataFrame(1, bytes(300))) == [ev.DataReceived(1, bytes(300), False)]

    feed(server, SettingsFrame(ack=True))
    assert_reset(server, feed(server, DataFrame(1, b"x")), 1, ErrorCode.FLOW_CONTROL_ERROR)


@pytest.mark.rfc("window-reduced", "initial-window-receive")
def test_a_lowered_window_counts_from_its_ack():
    server = asked(1, settings={SettingId.INITIAL_WINDOW_SIZE: 300})
    server.update_settings({SettingId.INITIAL_WINDOW_SIZE: 100}, 0.0)

    feed(server, DataFrame(1, bytes(250)))
    assert server.streams[1].receive_window.size == 50
    feed(server, SettingsFrame(ack=True))
    assert server.streams[1].receive_window.size == -150
    assert_reset(server, feed(server, DataFrame(1, b"x")), 1, ErrorCode.FLOW_CONTROL_ERROR)


@pytest.mark.rfc("table-size-reduced")
def test_after_a_smaller_table_is_acknowledged_a_block_without_the_update_is_refused():
    server = begun(client=False)
    server.update_settings({SettingId.HEADER_TABLE_SIZE: 100}, 0.0)
    drain(server)
    # Before the ack the peer's encoder may still use the larger table.
    assert [type(e) for e in feed(server, HeadersFrame(1, block(GET), True))] == [
        ev.RequestReceived
    ]
    feed(server, SettingsFrame(ack=True))
    lawful = HeadersFrame(3, bytes.fromhex("3f45") + block(GET), True)
    assert [type(event) for event in feed(server, lawful)] == [ev.RequestReceived]

    other = begun(client=False, settings={SettingId.HEADER_TABLE_SIZE: 0})
    assert_over(
        other, feed(other, HeadersFrame(1, block(GET), True)), ErrorCode.COMPRESSION_ERROR
    )


def test_a_larger_table_that_we_announced_may_be_used():
    client = begun(client=True, settings={SettingId.HEADER_TABLE_SIZE: 8192})
    requested(client, False)

    events = feed(client, HeadersFrame(1, bytes.fromhex("3fe13f") + block(OK), True))

    assert [type(event) for event in events] == [ev.ResponseReceived]


@pytest.mark.rfc("table-size-update")
def test_the_smallest_table_of_one_settings_frame_is_announced():
    client = begun(client=True)
    requested(client, False)
    table = SettingId.HEADER_TABLE_SIZE
    feed(client, SettingsFrame(((table, 0), (table, 4096))))

    client.send_request(GET)

    assert sent(client)[-1].field_block.startswith(bytes.fromhex("203fe11f"))


def test_a_raised_frame_size_is_accepted_from_when_it_is_sent():
    server = asked(1)
    server.update_settings({SettingId.MAX_FRAME_SIZE: 20000}, 0.0)

    assert feed(server, DataFrame(1, bytes(20000))) == [ev.DataReceived(1, bytes(20000), False)]


@pytest.mark.parametrize("settings", [{3: 2**32}, {3: -1}, {70000: 1}, {SettingId.ENABLE_PUSH: 1}])
def test_settings_that_cannot_be_asked_for_are_refused(settings):
    with pytest.raises(UsageError):
        Connection(client=True, settings=settings)
    core = begun(client=True)
    if SettingId.ENABLE_PUSH not in settings:
        with pytest.raises(UsageError):
            core.update_settings(settings, 0.0)
    assert not core.has_output


def test_windows_are_given_to_a_request_only_when_it_opens():
    client = begun(client=True, peer={SettingId.MAX_CONCURRENT_STREAMS: 0})
    stream = client.send_request(POST, end_stream=False)
    feed(client, SettingsFrame(((SettingId.INITIAL_WINDOW_SIZE, 7),)))
    assert (stream.state, stream.send_window.size) == (IDLE, 0)

    feed(client, SettingsFrame(((SettingId.MAX_CONCURRENT_STREAMS, 1),)))
    drain(client)

    assert (stream.stream_id, stream.send_window.size) == (1, 7)


@pytest.mark.rfc("settings-timeout")
def test_settings_without_an_ack_end_the_connection_after_a_silence():
    client = Connection(client=True)
    assert client.next_deadline() is None
    drain(client, now=100.0)
    assert client.next_deadline() == 100.0 + SETTINGS_ACK_TIMEOUT_S

    feed(client, SettingsFrame(), now=120.0)
    deadline = 120.0 + SETTINGS_ACK_TIMEOUT_S
    assert client.next_deadline() == deadline
    assert client.handle_deadline(deadline - 0.001) == []
    drain(client)

    assert_over(client, client.handle_deadline(deadline), ErrorCode.SETTINGS_TIMEOUT)
    assert client.next_deadline() is None


@pytest.mark.rfc("settings-timeout")
def test_acknowledged_settings_leave_nothing_to_wait_for():
    client, _ = connected()
    assert client.next_deadline() is None
    assert client.handle_deadline(1e9) == []

    client.update_settings({SettingId.MAX_FRAME_SIZE: 20000}, 50.0)
    assert client.next_deadline() == 50.0 + SETTINGS_ACK_TIMEOUT_S


# -- endings ---------------------------------------------------------------------------------


@pytest.mark.rfc("goaway-two-phase", "goaway-not-raised")
def test_a_graceful_end_takes_what_is_under_way_then_names_the_last_stream():
    client, server = connected()
    client.send_request(GET)
    exchange(client, server)
    client.send_request(GET)
    under_way = drain(client)

    server.announce_goaway()
    server.announce_goaway()
    octets = drain(server)
    assert parse(octets) == [GoAwayFrame(2**31 - 1, ErrorCode.NO_ERROR)]
    client.receive_data(octets, 0.0)
    assert not client.takes_requests
    with pytest.raises(UsageError):
        client.send_request(GET)
    assert server.receive_data(under_way, 0.0) == [ev.RequestReceived(3, GET, True)]

    server.goaway()
    assert sent(server) == [GoAwayFrame(3, ErrorCode.NO_ERROR)]
    for stream in list(server.streams.values()):
        server.send_response(stream, OK, end_stream=True)
    events, _ = exchange(client, server)
    assert events == [ev.ResponseReceived(stream_id, 200, OK, True) for stream_id in (1, 3)]


def test_nothing_is_announced_on_a_closed_connection():
    server = begun(client=False)
    server.receive_eof()

    server.announce_goaway()

    assert (server.has_output, server.goaway_sent) == (False, None)
