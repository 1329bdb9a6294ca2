"""Connection, the rules at the edges: closed streams, lengths, changed settings, endings.

Each fault is held against its code, its reach, and whether the connection goes on.
"""

from __future__ import annotations

import pytest

from h2lite import events as ev
from h2lite.connection import (
    DEBUG_DATA_OCTETS_MAX,
    RESETS_REMEMBERED_MAX,
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
    Priority,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    UnknownFrame,
    WindowUpdateFrame,
)
from h2lite.limits import DEFAULT_LIMITS, RESETS_PERIOD_S
from h2lite.settings import SettingId
from h2lite.stream import CLOSED, IDLE, OPEN
from h2lite.window import SendWindow
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


@pytest.mark.rfc("closed-minimal")
@pytest.mark.parametrize(
    "late", [HeadersFrame(1, block(OK)), DataFrame(1, b"late")], ids=["HEADERS", "DATA"]
)
def test_however_many_requests_are_cancelled_at_once_their_late_responses_pass(late):
    client = begun(client=True, peer={SettingId.MAX_CONCURRENT_STREAMS: 1000})
    for stream in requested(client, *[True] * (RESETS_REMEMBERED_MAX + 2)):
        client.reset_stream(stream)
    drain(client)

    assert feed(client, late) == []
    assert sent(client) == []
    assert_goes_on(client)


@pytest.mark.rfc("closed-by-end")
def test_a_reset_that_was_forgotten_excuses_no_later_stream():
    server = begun(client=False)
    for stream_id in range(1, 2 * RESETS_REMEMBERED_MAX + 3, 2):
        feed(server, HeadersFrame(stream_id, block(POST)))
        server.reset_stream(server.streams[stream_id])
    late = stream_id + 2
    feed(server, HeadersFrame(late, block(GET), True))
    server.send_response(server.streams[late], OK, end_stream=True)
    drain(server)

    events = feed(server, HeadersFrame(late, block(GET), True))

    assert_over(server, events, ErrorCode.STREAM_CLOSED)


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


@pytest.mark.rfc("goaway-ignores-new")
@pytest.mark.parametrize(
    "late", [HeadersFrame(3, block(TRAILERS), True), DataFrame(3, b"late")], ids=["HEADERS", "DATA"]
)
def test_however_many_requests_come_past_our_goaway_they_are_ignored(late):
    server = asked(1)
    server.goaway()
    drain(server)
    feed(server, *(HeadersFrame(2 * n + 3, block(POST)) for n in range(RESETS_REMEMBERED_MAX + 2)))

    assert feed(server, late) == []
    assert sent(server) == []
    assert_goes_on(server)


@pytest.mark.rfc("closed-no-timers")
@pytest.mark.parametrize("now", [0.0, 1e9])
@pytest.mark.parametrize("by_us", [True, False])
def test_no_clock_decides_how_a_late_frame_is_taken(by_us, now):
    server = asked(1)
    if by_us:
        server.reset_stream(server.streams[1])
    else:
        feed(server, RstStreamFrame(1, ErrorCode.CANCEL))
    drain(server)

    assert feed(server, DataFrame(1, b"late"), now=now) == []
    assert sent(server) == ([] if by_us else [RstStreamFrame(1, ErrorCode.STREAM_CLOSED)])


@pytest.mark.rfc("one-error")
def test_one_error_is_reported_of_a_stream_and_one_of_the_connection():
    server = asked(1, 3)
    wrong = [
        HeadersFrame(1, block(TRAILERS)),
        HeadersFrame(1, block(OK), True),
        DataFrame(1, bytes(16385)),
        UnknownFrame(0x8, 0, 1, bytes(4)),
        PriorityFrame(1, Priority(False, 1, 0)),
    ]

    events = feed(server, *wrong)
    assert [(type(event), event.stream_id) for event in events] == [(ev.StreamReset, 1)]
    assert sent(server) == [RstStreamFrame(1, ErrorCode.PROTOCOL_ERROR)]

    events = feed(server, DataFrame(99, b""), SettingsFrame(((2, 2),)), *wrong)
    assert_over(server, events, ErrorCode.PROTOCOL_ERROR)
    assert [type(event) for event in events] == [ev.ConnectionFailed]


@pytest.mark.uncut("the test itself changes a window, which no call of the history shows")
@pytest.mark.rfc("connection-error-first")
@pytest.mark.parametrize(
    ("frame", "error_code"),
    [
        (HeadersFrame(1, b"\x80"), ErrorCode.COMPRESSION_ERROR),
        (HeadersFrame(1, b"\x80", priority=Priority(False, 1, 0)), ErrorCode.COMPRESSION_ERROR),
        (HeadersFrame(3, b"\x80"), ErrorCode.COMPRESSION_ERROR),
        (HeadersFrame(5, block([*GET, (b"A", b"")])[:-1], True), ErrorCode.COMPRESSION_ERROR),
        (DataFrame(1, b"octets", pad_length=3), ErrorCode.FLOW_CONTROL_ERROR),
        (DataFrame(3, b"octets", pad_length=3), ErrorCode.FLOW_CONTROL_ERROR),
    ],
)
def test_of_an_error_of_the_stream_and_one_of_the_connection_the_connections_is_answered(
    frame, error_code
):
    server = begun(client=False, settings={SettingId.MAX_CONCURRENT_STREAMS: 2})
    feed(server, HeadersFrame(1, block(POST), True), HeadersFrame(3, block(POST), True))
    server.reset_stream(server.streams[3])
    server.send_response(server.streams[1], OK)
    drain(server)
    server._receive_window.size = 9  # the peer has sent nearly all that it may

    assert_over(server, feed(server, frame), error_code)


@pytest.mark.rfc("refused-unprocessed", "goaway-covers-processed", "goaway-last-stream")
def test_no_stream_that_was_handed_over_is_called_unprocessed():
    server = begun(client=False, settings={SettingId.MAX_CONCURRENT_STREAMS: 2})

    events = feed(server, *(HeadersFrame(at, block(POST)) for at in (1, 3, 5, 7)))
    handed_over = [event.stream_id for event in events]
    assert handed_over == [1, 3]
    assert sent(server) == [RstStreamFrame(at, ErrorCode.REFUSED_STREAM) for at in (5, 7)]

    server.goaway()
    feed(server, HeadersFrame(9, block(POST)))
    server.goaway(ErrorCode.INTERNAL_ERROR)
    assert [frame.last_stream_id for frame in sent(server)] == [7, 7]


@pytest.mark.rfc("early-response")
@pytest.mark.parametrize("error_code", [ErrorCode.NO_ERROR, ErrorCode.CANCEL])
def test_a_response_that_was_complete_before_the_reset_is_reported_whole(error_code):
    client = begun(client=True, peer={SettingId.INITIAL_WINDOW_SIZE: 3})
    (stream,) = requested(client, True)
    client.send_data(stream, b"more than the server wants", end_stream=True)
    drain(client)

    events = feed(
        client,
        HeadersFrame(1, block(OK)),
        DataFrame(1, b"enough", True),
        RstStreamFrame(1, error_code),
    )

    assert events == [
        ev.ResponseReceived(1, 200, OK, False),
        ev.DataReceived(1, b"enough", True),
        ev.StreamReset(1, error_code, True),
    ]
    client.data_consumed(1, 6)
    feed(client, WindowUpdateFrame(1, 1000))
    assert (sent(client), client.streams) == ([], {})


@pytest.mark.rfc("early-response")
def test_a_server_may_answer_whole_and_then_ask_for_no_more():
    server = asked(1)
    stream = server.streams[1]
    server.send_response(stream, OK)
    server.send_data(stream, b"enough", end_stream=True)
    answer = sent(server)
    server.reset_stream(stream, ErrorCode.NO_ERROR)

    assert answer == [HeadersFrame(1, block(OK)), DataFrame(1, b"enough", True)]
    assert sent(server) == [RstStreamFrame(1, ErrorCode.NO_ERROR)]
    assert feed(server, DataFrame(1, b"what was under way", True)) == []
    assert_goes_on(server)


# -- flow control ----------------------------------------------------------------------------


@pytest.mark.rfc("initial-window-default")
@pytest.mark.parametrize("client", [True, False])
def test_before_the_peers_settings_65535_octets_may_cross(client):
    core = Connection(client)
    if client:
        stream = core.send_request(POST, end_stream=False)
    else:
        # The preface, and a SETTINGS frame that says nothing of windows.
        feed(core, CLIENT_PREFACE, SettingsFrame(), HeadersFrame(1, block(POST)))
        stream = core.streams[1]
        core.send_response(stream, OK)
    core.send_data(stream, bytes(70000))

    frames = parse(drain(core).removeprefix(CLIENT_PREFACE))

    assert sum(len(frame.data) for frame in frames if isinstance(frame, DataFrame)) == 65535
    assert (stream.send_window.size, core._send_window.size) == (0, 0)


@pytest.mark.rfc("initial-window-adjusts")
def test_settings_leave_the_connections_window_alone():
    client = begun(client=True, peer={SettingId.INITIAL_WINDOW_SIZE: 2**31 - 1})
    (stream,) = requested(client, True)
    assert (stream.send_window.size, client._send_window.size) == (2**31 - 1, 65535)

    client.send_data(stream, bytes(65536))
    drain(client)
    feed(client, SettingsFrame(((SettingId.INITIAL_WINDOW_SIZE, 2**31 - 2),)))

    assert (stream.send_window.size, client._send_window.size) == (2**31 - 2 - 65535, 0)


@pytest.mark.rfc("window-kept")
def test_the_largest_windows_there_are_are_used():
    client = begun(client=True, peer={SettingId.INITIAL_WINDOW_SIZE: 2**31 - 1})
    feed(client, WindowUpdateFrame(0, 2**31 - 1 - 65535))
    (stream,) = requested(client, True)
    client.send_data(stream, bytes(2**24), end_stream=True)

    frames = sent(client)

    assert sum(len(frame.data) for frame in frames) == 2**24
    assert frames[-1].end_stream
    left = 2**31 - 1 - 2**24
    assert (stream.send_window.size, client._send_window.size) == (left, left)


@pytest.mark.rfc("initial-window-overflow")
@pytest.mark.parametrize(
    "settings",
    [
        [(SettingId.INITIAL_WINDOW_SIZE, 65536)],
        [(SettingId.INITIAL_WINDOW_SIZE, 65536), (SettingId.INITIAL_WINDOW_SIZE, 65535)],
        [(SettingId.INITIAL_WINDOW_SIZE, 0), (SettingId.INITIAL_WINDOW_SIZE, 2**31 - 1)],
    ],
    ids=["at once", "taken back", "by a detour"],
)
@pytest.mark.parametrize("ended", [False, True], ids=["open", "half-closed (local)"])
def test_settings_that_lift_one_stream_of_many_over_the_largest_window_end_it_all(settings, ended):
    client = begun(client=True)
    requested(client, True, not ended, True)
    feed(client, WindowUpdateFrame(3, 2**31 - 1 - 65535))

    events = feed(client, SettingsFrame(tuple(settings)))

    assert_over(client, events, ErrorCode.FLOW_CONTROL_ERROR)


@pytest.mark.rfc("initial-window-adjusts", "settings-in-order")
def test_a_window_may_go_through_any_lawful_value_within_one_settings_frame():
    client = begun(client=True)
    (stream,) = requested(client, True)
    client.send_data(stream, bytes(65535))
    drain(client)
    window = SettingId.INITIAL_WINDOW_SIZE

    feed(client, SettingsFrame(((window, 2**31 - 1), (window, 0), (window, 0), (window, 7))))

    assert stream.send_window.size == 7 - 65535
    client.send_data(stream, b"waits")
    assert sent(client) == [SettingsFrame(ack=True)]


@pytest.mark.rfc("settings-entries-bounded")
def test_a_settings_frame_with_more_settings_than_there_are_ends_the_connection():
    most = DEFAULT_LIMITS.settings_entries
    server = begun(client=False)
    assert [type(e) for e in feed(server, SettingsFrame(((0xFE, 1),) * most))] == [
        ev.SettingsReceived
    ]

    events = feed(server, SettingsFrame(((0xFE, 1),) * (most + 1)))

    assert_over(server, events, ErrorCode.ENHANCE_YOUR_CALM)


@pytest.mark.rfc("settings-work-bounded")
def test_a_settings_frame_that_changes_one_setting_often_moves_each_window_once(monkeypatch):
    client = begun(client=True, peer={SettingId.MAX_CONCURRENT_STREAMS: 100})
    streams = requested(client, *[True] * 100)
    moves: list[int] = []
    widen = SendWindow.widen

    def counted(window: SendWindow, increment: int, stream_id: int = 0) -> None:
        moves.append(increment)
        widen(window, increment, stream_id)

    monkeypatch.setattr(SendWindow, "widen", counted)

    changes = [(SettingId.INITIAL_WINDOW_SIZE, number % 2) for number in range(99)]
    events = feed(client, SettingsFrame((*changes, (SettingId.INITIAL_WINDOW_SIZE, 9))))

    assert [type(event) for event in events] == [ev.SettingsReceived]
    assert {stream.send_window.size for stream in streams} == {9}
    assert len(moves) <= 2 * len(streams)
    moves.clear()
    feed(client, SettingsFrame(((SettingId.INITIAL_WINDOW_SIZE, 9),)))
    assert moves == []


@pytest.mark.rfc("only-data-counted")
def test_with_no_window_left_everything_but_content_still_crosses():
    windows = {SettingId.INITIAL_WINDOW_SIZE: 0}
    client, server = Connection(True, windows), Connection(False, windows)
    stream = client.send_request(POST, end_stream=False)
    exchange(client, server)
    for core in (client, server):
        core._send_window.size = core._receive_window.size = 0

    client.send_data(stream, b"waits")
    server.send_response(server.streams[1], INTERIM)
    server.send_response(server.streams[1], OK)
    server.send_trailers(server.streams[1], TRAILERS)
    client.ping(b"01234567", 0.0)
    server.update_settings({SettingId.MAX_FRAME_SIZE: 20000}, 0.0)
    seen, asked_of = exchange(client, server)

    assert [type(event) for event in asked_of] == [ev.PingReceived, ev.SettingsAcked]
    assert [type(event) for event in seen] == [
        ev.PingAcked,
        ev.SettingsReceived,
        ev.InformationalReceived,
        ev.ResponseReceived,
        ev.TrailersReceived,
    ]


@pytest.mark.rfc("data-framed-late")
def test_content_is_framed_only_as_it_is_asked_for():
    client = begun(client=True, peer={SettingId.INITIAL_WINDOW_SIZE: 2**31 - 1})
    feed(client, WindowUpdateFrame(0, 2**30))
    (stream,) = requested(client, True)
    client.send_data(stream, bytes(2**20))

    for _ in range(100):  # a transport that takes nothing
        client.put_back(client.data_to_send(0.0, 20000))

    assert stream.queued_octets == 2**20 - 19982
    assert sum(map(len, client._refused)) == 20000


# -- concurrency -----------------------------------------------------------------------------


@pytest.mark.rfc("concurrency-counted")
def test_half_closed_streams_count_on_both_sides():
    limit = {SettingId.MAX_CONCURRENT_STREAMS: 2}
    server = begun(client=False, settings=limit)
    feed(server, HeadersFrame(1, block(GET), True), HeadersFrame(3, block(POST)))
    server.send_response(server.streams[3], OK, end_stream=True)
    drain(server)
    feed(server, HeadersFrame(5, block(GET), True))
    assert sent(server) == [RstStreamFrame(5, ErrorCode.REFUSED_STREAM)]
    feed(server, DataFrame(3, b"", True))
    assert [type(event) for event in feed(server, HeadersFrame(7, block(GET), True))] == [
        ev.RequestReceived
    ]

    client = begun(client=True, peer=limit)
    requested(client, False, True)
    feed(client, HeadersFrame(3, block(OK), True))
    client.send_request(GET)
    assert sent(client) == []
    feed(client, HeadersFrame(1, block(OK), True))
    assert [frame.stream_id for frame in sent(client)] == [5]


@pytest.mark.rfc("concurrency-lowered", "concurrency-zero")
def test_streams_open_when_the_limit_is_lowered_complete():
    server = asked(1, 3)
    server.update_settings({SettingId.MAX_CONCURRENT_STREAMS: 0}, 0.0)
    drain(server)
    feed(server, SettingsFrame(ack=True), HeadersFrame(5, block(POST)))
    assert sent(server) == [RstStreamFrame(5, ErrorCode.REFUSED_STREAM)]

    for stream_id in (1, 3):
        assert feed(server, DataFrame(stream_id, b"x", True)) == [
            ev.DataReceived(stream_id, b"x", True)
        ]
        server.send_response(server.streams[stream_id], OK, end_stream=True)
    assert [frame.stream_id for frame in sent(server)] == [1, 3]
    assert_goes_on(server)


@pytest.mark.rfc("preface-acknowledged")
@pytest.mark.parametrize("client", [True, False])
def test_the_peers_first_settings_are_acknowledged_behind_our_own(client):
    core = Connection(client)
    feed(core, b"" if client else CLIENT_PREFACE, SettingsFrame())

    first, *others = parse(drain(core).removeprefix(CLIENT_PREFACE))

    assert (type(first), first.ack) == (SettingsFrame, False)
    assert others[-1] == SettingsFrame(ack=True)


# -- priority --------------------------------------------------------------------------------


@pytest.mark.rfc("self-dependency")
@WHOLE_OR_BY_OCTETS
def test_an_open_stream_that_comes_to_depend_on_itself_is_reset(cut):
    server = asked(1, 3)

    events = feed(server, PriorityFrame(1, Priority(False, 1, 15)), cut=cut)

    assert_reset(server, events, 1, ErrorCode.PROTOCOL_ERROR)
    assert list(server.streams) == [3]


@pytest.mark.rfc("self-dependency", "always-decoded")
@pytest.mark.parametrize("end_stream", [False, True])
def test_a_request_that_depends_on_itself_is_reset_and_not_handed_on(end_stream):
    server = asked(1)
    fields = block([*POST, (b"added", b"line")])

    events = feed(
        server, HeadersFrame(3, fields, end_stream, priority=Priority(True, 3, 0), pad_length=2)
    )

    assert [type(event) for event in events] == [ev.StreamReset]
    assert_reset(server, events, 3, ErrorCode.PROTOCOL_ERROR)
    assert server._decoder.decode(b"\xbe").fields == ((b"added", b"line"),)


@pytest.mark.rfc("self-dependency")
def test_a_response_that_depends_on_itself_is_reset():
    client = begun(client=True)
    requested(client, True)

    events = feed(client, HeadersFrame(1, block(OK), priority=Priority(False, 1, 0)))

    assert_reset(client, events, 1, ErrorCode.PROTOCOL_ERROR)


@pytest.mark.rfc("self-dependency", "rst-stream-not-idle")
def test_an_idle_stream_that_depends_on_itself_ends_the_connection_as_it_cannot_be_reset():
    server = asked(1)

    events = feed(server, PriorityFrame(3, Priority(False, 3, 15)))

    assert_over(server, events, ErrorCode.PROTOCOL_ERROR)


@pytest.mark.rfc("self-dependency", "closed-nothing-sent")
def test_a_closed_stream_that_depends_on_itself_is_left_alone():
    server = asked(1)
    server.reset_stream(server.streams[1])
    drain(server)

    assert feed(server, PriorityFrame(1, Priority(False, 1, 15))) == []
    assert sent(server) == []
    assert_goes_on(server)


@pytest.mark.rfc("self-dependency")
def test_a_stream_may_depend_on_any_other():
    server = begun(client=False)

    for dependency in (0, 2, 3, 2**31 - 1):
        assert feed(server, PriorityFrame(1, Priority(True, dependency, 255))) == []
    events = feed(server, HeadersFrame(1, block(GET), True, priority=Priority(True, 3, 255)))

    assert [type(event) for event in events] == [ev.RequestReceived]
    assert sent(server) == []


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


@pytest.mark.rfc("goaway-debug-data")
def test_what_a_goaway_says_of_a_fault_is_bounded():
    client = begun(client=True)
    requested(client, False)
    feed(client, HeadersFrame(1, b"\x40" + b"\xff" * 100))

    assert len(sent(client)[-1].debug_data) <= DEBUG_DATA_OCTETS_MAX


# -- requests cut short ----------------------------------------------------------------------


CUT_SHORT = {
    "reset by the client": lambda at: wire(HeadersFrame(at, block(POST)), RstStreamFrame(at, 8)),
    "faulty": lambda at: wire(HeadersFrame(at, block(POST)), HeadersFrame(at, block(POST))),
}


@pytest.mark.rfc("resets-bounded")
@pytest.mark.parametrize("how", CUT_SHORT)
def test_a_client_that_cuts_requests_short_without_end_must_go(how):
    server = begun(client=False)
    for number in range(DEFAULT_LIMITS.resets):
        feed(server, CUT_SHORT[how](2 * number + 1), now=5.0 + number / 100)
        drain(server)
    assert not server.closed

    events = feed(server, CUT_SHORT[how](2 * number + 3), now=14.9)

    assert_over(server, events, ErrorCode.ENHANCE_YOUR_CALM)


@pytest.mark.rfc("resets-bounded")
@pytest.mark.parametrize(("hurry", "taken"), [(0.99, True), (1.01, False)])
def test_requests_may_be_cut_short_for_ever_at_a_modest_pace(hurry, taken):
    server = begun(client=False)
    per_s = DEFAULT_LIMITS.resets / RESETS_PERIOD_S
    for number in range(4 * DEFAULT_LIMITS.resets):
        at, now = 2 * number + 1, number / (per_s * hurry)
        feed(server, CUT_SHORT["reset by the client"](at), now=now)
        drain(server)

    assert server.closed is not taken


@pytest.mark.rfc("resets-bounded")
def test_requests_that_are_answered_are_not_cut_short():
    server = begun(client=False)
    for number in range(DEFAULT_LIMITS.resets + 10):
        at = 2 * number + 1
        feed(server, HeadersFrame(at, block(GET), True))
        server.send_response(server.streams[at], OK, end_stream=True)
        drain(server)
    assert_goes_on(server)


@pytest.mark.rfc("resets-bounded")
def test_requests_that_are_refused_count_as_cut_short():
    """Or a client might go on past MAX_CONCURRENT_STREAMS for ever."""
    server = begun(client=False, settings={SettingId.MAX_CONCURRENT_STREAMS: 1})
    for number in range(DEFAULT_LIMITS.resets + 2):
        assert not server.closed
        events = feed(server, HeadersFrame(2 * number + 1, block(GET), True))

    assert_over(server, events, ErrorCode.ENHANCE_YOUR_CALM)


@pytest.mark.rfc("resets-bounded")
def test_a_client_bears_as_many_resets_as_it_made_requests():
    client = begun(client=True)
    for number in range(DEFAULT_LIMITS.resets + 10):
        requested(client, False)
        feed(client, RstStreamFrame(2 * number + 1, ErrorCode.REFUSED_STREAM))
    assert_goes_on(client)


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
    pytest.param(
        [*GET, (b"host", b"other.org")],
        marks=pytest.mark.rfc("host-differs", "host-differs-sent", "host-not-used"),
    ),
    pytest.param(
        [*GET, (b"host", b"example.org"), (b"host", b"other.org")],
        marks=pytest.mark.rfc("host-differs"),
    ),
    pytest.param([*GET, (b"host", b"")], marks=pytest.mark.rfc("host-differs")),
    pytest.param(
        with_pseudo(b":authority", b""),
        marks=pytest.mark.rfc("authority-not-empty"),
    ),
    *(
        pytest.param(with_pseudo(name, value), marks=pytest.mark.rfc("request-values"))
        for name, value in [
            (b":scheme", b"ht tp"),
            (b":scheme", b"https:"),
            (b":scheme", b"9p"),
            (b":scheme", b"https\xe9"),
            (b":authority", b"example.org/x"),
            (b":authority", b"example.org?x"),
            (b":authority", b"example.org#x"),
            (b":authority", b"example org"),
            (b":authority", b"example\torg"),
            (b":path", b"/a b"),
            (b":path", b"/a\tb"),
            (b":path", b"/ HTTP/1.1"),
            (b":path", b"/a#b"),
        ]
    ),
    pytest.param(
        with_pseudo(b":path", b"index", with_pseudo(b":scheme", b"HTTPS")),
        marks=pytest.mark.rfc("path-form"),
    ),
    pytest.param(with_pseudo(b":path", b""), marks=pytest.mark.rfc("request-pseudo")),
    *(
        pytest.param(
            with_pseudo(b":path", path, with_pseudo(b":method", method)),
            marks=pytest.mark.rfc("options-asterisk"),
        )
        for method, path in [(b"OPTIONS", b""), (b"OPTIONS", b"**"), (b"HEAD", b"*")]
    ),
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
        marks=pytest.mark.rfc("path-form", "options-asterisk"),
    ),
    pytest.param(
        with_pseudo(b":path", b"urn", with_pseudo(b":scheme", b"x-other")),
        marks=pytest.mark.rfc("path-form"),
    ),
    pytest.param(
        with_pseudo(b":authority", b"[::1]:8443"), marks=pytest.mark.rfc("request-values")
    ),
    pytest.param(
        with_pseudo(b":path", b"/a%20b/\xc3\xa9?c=/d?&e"), marks=pytest.mark.rfc("request-values")
    ),
    pytest.param(
        [field for field in GET if field[0] != b":authority"],
        marks=pytest.mark.rfc("authority-not-empty"),
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


@pytest.mark.rfc("header-list-size-kept")
def test_trailers_and_responses_that_the_peer_will_not_take_are_refused_too():
    long = (b"long", b"x" * 300)
    server = begun(client=False, peer={SettingId.MAX_HEADER_LIST_SIZE: 200})
    feed(server, HeadersFrame(1, block(POST)))
    stream = server.streams[1]
    with pytest.raises(LocalProtocolError):
        server.send_response(stream, [*OK, long])
    server.send_response(stream, OK)
    with pytest.raises(LocalProtocolError):
        server.send_trailers(stream, [*TRAILERS, long])
    server.send_trailers(stream, TRAILERS)

    assert [frame.end_stream for frame in sent(server)] == [False, True]


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


@pytest.mark.rfc("connection-error")
@pytest.mark.parametrize("whose", ["the peer's fault", "the caller's wish"])
def test_a_goaway_with_an_error_is_the_last_frame_whatever_waited(whose):
    core = asked(1, 3)
    core.send_response(core.streams[1], OK)
    core.send_data(core.streams[1], bytes(50000), end_stream=True)
    core.put_back(core.data_to_send(0.0, 20000)[1000:])  # half a frame, and whole ones
    core.send_response(core.streams[3], OK)
    core.ping(b"01234567", 0.0)
    core.update_settings({SettingId.MAX_FRAME_SIZE: 20000}, 0.0)

    if whose == "the caller's wish":
        core.goaway(ErrorCode.INTERNAL_ERROR)
    else:
        feed(core, SettingsFrame(), DataFrame(99, b""))
    octets = core.data_to_send(0.0)
    core.put_back(octets[-5:])
    octets = octets[:-5] + drain(core)

    at = 1000  # of what had left, as it was framed: HEADERS, then DATA up to here
    first = HeadersFrame(1, block(OK)).encode()
    frames = parse(octets[16384 + 9 - (at - len(first)) :])
    assert [type(frame) for frame in frames[-1:]] == [GoAwayFrame]
    assert not any(isinstance(frame, HeadersFrame) for frame in frames)
    assert frames[-1].last_stream_id == 3
    assert not core.has_output


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
        feed(core, wire(PingFrame(b"01234567")) * (DEFAULT_LIMITS.answers_queued // 2))
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


@pytest.mark.rfc("table-size-reduced")
def test_a_decoder_at_work_is_told_of_the_smaller_table_by_the_ack():
    server = begun(client=False)
    server.update_settings({SettingId.HEADER_TABLE_SIZE: 100}, 0.0)
    feed(server, HeadersFrame(1, block(GET), True), SettingsFrame(ack=True))
    drain(server)

    events = feed(server, HeadersFrame(3, block(GET), True))

    assert_over(server, events, ErrorCode.COMPRESSION_ERROR)


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
    with pytest.raises(UsageError):
        core.update_settings(settings, 0.0)
    assert (core.has_output, core.local_settings.unacked) == (False, 0)


@pytest.mark.rfc("enable-push-zero")
@pytest.mark.parametrize("client", [True, False])
def test_push_is_never_switched_on(client):
    with pytest.raises(UsageError):
        Connection(client, {SettingId.ENABLE_PUSH: 1})
    core = begun(client)
    with pytest.raises(UsageError):
        core.update_settings({SettingId.ENABLE_PUSH: 1}, 0.0)
    assert (core.has_output, core.local_settings.unacked) == (False, 0)

    core.update_settings({SettingId.ENABLE_PUSH: 0}, 0.0)
    assert sent(core) == [SettingsFrame(((SettingId.ENABLE_PUSH, 0),))]


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
    assert client.next_deadline() == 100.0 + DEFAULT_LIMITS.settings_timeout

    feed(client, SettingsFrame(), now=120.0)
    deadline = 120.0 + DEFAULT_LIMITS.settings_timeout
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
    assert client.next_deadline() == 50.0 + DEFAULT_LIMITS.settings_timeout


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


@pytest.mark.rfc("early-response-stop")
def test_who_goes_on_sending_a_window_after_the_whole_response_is_stopped():
    server = asked(1, settings={SettingId.INITIAL_WINDOW_SIZE: 1000})
    stream = server.streams[1]
    feed(server, DataFrame(1, bytes(500)))
    server.send_response(stream, OK)
    server.send_data(stream, b"early", end_stream=True)
    server.stop_request(stream)
    server.data_consumed(1, 500)  # before the response has left: not counted
    assert [type(frame) for frame in sent(server)] == [WindowUpdateFrame, HeadersFrame, DataFrame]

    for size in (500, 500):
        feed(server, DataFrame(1, bytes(size)))
        server.data_consumed(1, size)
        assert sent(server) == [WindowUpdateFrame(1, 500)]
    feed(server, DataFrame(1, b"!"))
    server.data_consumed(1, 1)

    assert sent(server) == [RstStreamFrame(1, ErrorCode.NO_ERROR)]
    assert feed(server, DataFrame(1, b"on its way")) == []
    assert_goes_on(server)


def test_a_complete_request_is_not_stopped():
    server = begun(client=False)
    feed(server, HeadersFrame(1, block(POST), end_stream=True))
    stream = server.streams[1]
    server.send_response(stream, OK, end_stream=True)
    server.stop_request(stream)

    assert [type(frame) for frame in sent(server)] == [HeadersFrame]


@pytest.mark.rfc("interim-bounded")
def test_more_interim_responses_than_anybody_has_use_for_reset_the_stream():
    client = begun(client=True)
    client.send_request(GET)
    drain(client)
    interim = HeadersFrame(1, block([(b":status", b"103")]))

    most = DEFAULT_LIMITS.interim_responses
    assert len(feed(client, *[interim] * most)) == most
    (reset,) = feed(client, interim)

    assert (reset.stream_id, reset.error_code) == (1, ErrorCode.ENHANCE_YOUR_CALM)
    assert sent(client) == [RstStreamFrame(1, ErrorCode.ENHANCE_YOUR_CALM)]
    client.send_request(GET)
    drain(client)
    assert feed(client, HeadersFrame(3, block(OK), end_stream=True)) != []
