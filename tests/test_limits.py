"""What a core bears of its peer: each limit reached, and passed by one; and each can be another.

The limits of field blocks, answers, resets and interim responses are beside the rules they
belong to, in test_connection.py and test_connection_rules.py; a server's own in
test_server_limits.py.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest

from h2lite import events as ev
from h2lite.connection import PINGS_IN_FLIGHT_MAX, Connection
from h2lite.errors import ErrorCode, UsageError
from h2lite.fields import HUFFMAN_OCTETS_MAX, FieldDecoder, FieldEncoder, section_size
from h2lite.framer import CLIENT_PREFACE, Framer
from h2lite.frames import (
    ContinuationFrame,
    DataFrame,
    Frame,
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
from h2lite.limits import DEFAULT_LIMITS, Limits, limits_from
from h2lite.settings import SettingId
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
    sent,
    wire,
)

pytestmark = pytest.mark.usefixtures("every_cut")

CALM = ErrorCode.ENHANCE_YOUR_CALM


def assert_over(events, error_code, reason):
    assert events[-1:] == [ev.ConnectionFailed(error_code, reason)]


def serving(*stream_ids, fields=POST, settings=None):
    """A server with these requests open."""
    server = begun(client=False, settings=settings)
    feed(server, *(HeadersFrame(stream_id, block(fields)) for stream_id in stream_ids))
    return server


# -- the numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"streams": 0}, {"streams": -1}, {"streams": 1.5}, {"streams": True}, {"streams": "3"},
        {"stream_octets": 2**31}, {"idle_timeout": 0}, {"idle_timeout": -1.0},
        {"idle_timeout": math.nan}, {"idle_timeout": None}, {"idle_timeout": True},
    ],
)  # fmt: skip
def test_what_is_no_limit_is_refused(arguments):
    with pytest.raises(UsageError, match=f"^{next(iter(arguments))} of "):
        Limits(**arguments)


def test_limits_come_from_texts():
    limits = limits_from(["streams=7", "idle_timeout=inf", "stall_timeout=0.5"])

    assert limits == Limits(streams=7, idle_timeout=math.inf, stall_timeout=0.5)
    assert limits_from([]) == DEFAULT_LIMITS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stream=7", "no limit is called 'stream'; there are: field_section_octets, "),
        ("streams", "streams of '', want a whole number"),
        ("streams=1.5", "streams of '1.5', want a whole number"),
        ("idle_timeout=soon", "idle_timeout of 'soon', want seconds"),
        ("idle_timeout=0", "idle_timeout of 0.0, want seconds above 0"),
    ],
)
def test_a_text_that_is_no_limit_is_refused(text, message):
    with pytest.raises(UsageError) as caught:
        limits_from([text])
    assert str(caught.value).startswith(message)


def test_what_a_core_announces_is_what_it_bears():
    limits = Limits(field_section_octets=1000, stream_octets=2000, streams=3)
    server = Connection(client=False, limits=limits)
    drain(server)

    announced = server.local_settings.announced
    assert announced(SettingId.MAX_HEADER_LIST_SIZE) == 1000
    assert announced(SettingId.INITIAL_WINDOW_SIZE) == 2000
    assert announced(SettingId.MAX_CONCURRENT_STREAMS) == 3
    feed(server, CLIENT_PREFACE, SettingsFrame(), SettingsFrame(ack=True))
    large = [*GET, (b"x", b"a" * 1000)]
    assert_over(
        feed(server, HeadersFrame(1, block(large))), CALM, "field section over 1000 octets"
    )


# -- frames that move nothing ----------------------------------------------------------------

CHATTER = {
    "PRIORITY": lambda at: PriorityFrame(2 * at + 1, Priority(False, 0, 16)),
    "SETTINGS": lambda at: SettingsFrame(((SettingId.INITIAL_WINDOW_SIZE, at),)),
    "empty SETTINGS": lambda at: SettingsFrame(),
    "WINDOW_UPDATE": lambda at: WindowUpdateFrame(0, 1),
    "WINDOW_UPDATE of a stream": lambda at: WindowUpdateFrame(1, 1),
    "an unknown type": lambda at: UnknownFrame(0xF0, 0, 0, b""),
    "a PING ack nobody asked for": lambda at: PingFrame(b"nobody's", ack=True),
    "GOAWAY": lambda at: GoAwayFrame(0, ErrorCode.NO_ERROR),
    "late HEADERS": lambda at: HeadersFrame(3, block(POST)),
}


@pytest.mark.rfc("small-frames")
@pytest.mark.parametrize("kind", CHATTER)
def test_frames_that_move_nothing_are_borne_up_to_a_number(kind):
    server = serving(1, 3)
    server.reset_stream(server.streams[3])
    drain(server)
    def frames() -> Iterator[Frame]:
        for number in itertools.count():
            yield CHATTER[kind](number)

    assert_calmed_in_time(server, frames(), forgiven=20)


def assert_calmed_in_time(core, frames, forgiven):
    """The core bears as many frames as it must, and not many more than it may."""
    borne = 0
    while not core.closed:
        events = feed(core, next(frames))
        drain(core)
        borne += 1
    most = DEFAULT_LIMITS.chatter
    assert most - 1 <= borne <= most + forgiven + 1
    assert_over(events, CALM, f"over {most} frames that move nothing")


@pytest.mark.rfc("small-frames")
def test_streams_opened_after_our_goaway_are_ignored_up_to_a_number():
    server = serving(1)
    server.goaway()
    frames = (HeadersFrame(at, block(POST)) for at in itertools.count(3, 2))

    assert_calmed_in_time(server, frames, forgiven=10)


@pytest.mark.rfc("small-frames")
def test_frames_that_move_nothing_are_forgiven_with_time():
    server = serving(1)
    pace = DEFAULT_LIMITS.chatter_per_s
    for number in range(3 * DEFAULT_LIMITS.chatter):
        feed(server, PriorityFrame(1, Priority(False, 0, 16)), now=number / (pace * 0.99))
    assert not server.closed


@pytest.mark.rfc("small-frames")
@pytest.mark.parametrize("client", [True, False], ids=["client", "server"])
def test_pings_one_at_a_time_are_never_too_many(client):
    core = begun(client)
    for number in range(3 * DEFAULT_LIMITS.chatter):
        feed(core, *[PingFrame(number.to_bytes(8, "big"))] * PINGS_IN_FLIGHT_MAX)
        drain(core)
    assert not core.closed


@pytest.mark.rfc("small-frames")
def test_pings_by_the_hundred_are_too_many_even_of_a_peer_that_reads():
    server = begun(client=False)
    for _ in range(DEFAULT_LIMITS.chatter // 90):
        feed(server, wire(PingFrame(b"01234567")) * (90 + PINGS_IN_FLIGHT_MAX))
        drain(server)
    assert not server.closed

    events = feed(server, wire(PingFrame(b"01234567")) * 200)

    assert_over(events, CALM, "over 2000 frames that move nothing")


@pytest.mark.rfc("small-frames")
@pytest.mark.parametrize(
    ("size", "borne"), [(1024, True), (1, False)], ids=["whole pieces", "crumbs"]
)
def test_a_window_is_opened_as_often_as_content_leaves_by_it_but_not_for_crumbs(size, borne):
    server = begun(client=False, peer={SettingId.INITIAL_WINDOW_SIZE: 0})
    feed(server, HeadersFrame(1, block(GET), True), WindowUpdateFrame(0, 2**30))
    stream = server.streams[1]
    server.send_response(stream, OK)
    server.send_data(stream, bytes(2**24))
    drain(server)
    for _ in range(DEFAULT_LIMITS.chatter + 100):
        feed(server, WindowUpdateFrame(1, size))
        drain(server)

    assert server.closed is not borne


@pytest.mark.rfc("small-frames")
def test_content_that_a_reset_crosses_is_not_chatter_however_small_its_frames():
    client, server = connected()
    client.send_request(GET)
    other = client.send_request(GET)
    exchange(client, server)
    server.send_response(server.streams[1], OK)
    for _ in range(DEFAULT_LIMITS.chatter + 500):
        server.send_data(server.streams[1], b"a message")
    client.reset_stream(client.streams[1])
    exchange(client, server)

    assert (client.closed, client.streams) == (False, {3: other})


@pytest.mark.rfc("small-frames")
def test_content_for_a_stream_that_was_reset_may_fill_its_window_and_then_chatters():
    server = Connection(client=False, limits=Limits(stream_octets=1000, chatter=50))
    drain(server)
    feed(server, CLIENT_PREFACE, SettingsFrame(), SettingsFrame(ack=True))
    feed(server, HeadersFrame(1, block(POST)))
    server.reset_stream(server.streams[1])
    feed(server, *[DataFrame(1, b"x" * 10)] * 100)
    assert server._chatter <= 1

    events = feed(server, *[DataFrame(1, b"x" * 10)] * 61)

    assert_over(events, CALM, "over 50 frames that move nothing")


@pytest.mark.rfc("small-frames")
def test_late_content_leaves_nothing_behind_of_streams_that_nobody_remembers():
    server = serving(1)
    server.goaway()
    for number in range(1, 300):
        at = 2 * number + 1
        feed(server, HeadersFrame(at, block(POST)), DataFrame(at, b""), DataFrame(at, b"x"))

    assert server._resets == {}


@pytest.mark.rfc("small-frames")
def test_a_server_whose_late_frames_have_us_reset_them_chatters():
    client = begun(client=True)
    client.send_request(GET)
    drain(client)
    feed(client, HeadersFrame(1, block(OK), True))

    assert_calmed_in_time(client, itertools.repeat(DataFrame(1, b"late")), forgiven=10)


@pytest.mark.rfc("small-frames")
def test_a_reader_that_was_busy_may_say_at_once_what_it_has_taken():
    server = begun(client=False, peer={SettingId.INITIAL_WINDOW_SIZE: 2**22})
    feed(server, WindowUpdateFrame(0, 2**30), HeadersFrame(1, block(GET), True))
    server.send_response(server.streams[1], OK)
    server.send_data(server.streams[1], bytes(2**23))
    assert len(drain(server)) > 2**22
    taken = wire(WindowUpdateFrame(0, 4096), WindowUpdateFrame(1, 4096))

    feed(server, taken * 1024)

    assert not server.closed


@pytest.mark.rfc("small-frames")
def test_a_client_that_asks_may_say_a_few_words_beside_each_request():
    server = begun(client=False)
    for number in range(DEFAULT_LIMITS.chatter // 8):
        at = 2 * number + 1
        feed(
            server,
            HeadersFrame(at, block(GET), True),
            *[PriorityFrame(at, Priority(False, 0, 16))] * 5,
            *[WindowUpdateFrame(0, 1)] * 4,
        )
        server.send_response(server.streams[at], OK, end_stream=True)
        drain(server)
    assert not server.closed


@pytest.mark.rfc("small-frames")
def test_a_server_that_resets_what_has_ended_chatters():
    client = begun(client=True)
    client.send_request(GET)
    drain(client)
    feed(client, HeadersFrame(1, block(OK), True))
    frames = itertools.repeat(RstStreamFrame(1, ErrorCode.NO_ERROR))

    assert_calmed_in_time(client, frames, forgiven=10)


@pytest.mark.rfc("empty-data-bounded")
@pytest.mark.parametrize("padding", [None, 7], ids=["bare", "padded"])
@pytest.mark.parametrize("late", [False, True], ids=["open", "reset"])
def test_empty_data_frames_are_borne_up_to_a_number_in_a_row(padding, late):
    server = serving(1)
    if late:
        server.reset_stream(server.streams[1])
    empty = DataFrame(1, b"", pad_length=padding)
    most = DEFAULT_LIMITS.empty_data
    feed(server, *[empty] * most, DataFrame(1, b"x"), *[empty] * most)
    assert not server.closed

    events = feed(server, empty)

    assert_over(events, CALM, f"over {most} empty DATA in a row")


def test_a_request_may_end_by_an_empty_data_frame_however_often():
    server = begun(client=False)
    for number in range(DEFAULT_LIMITS.empty_data + 1):
        at = 2 * number + 1
        feed(server, HeadersFrame(at, block(POST)), DataFrame(at, b"", True))
        server.send_response(server.streams[at], OK, end_stream=True)
        drain(server)
    assert not server.closed


# -- what does not come ----------------------------------------------------------------------


@pytest.mark.rfc("preface-bounded")
@pytest.mark.parametrize(
    "said",
    [b"", CLIENT_PREFACE[:5], CLIENT_PREFACE, CLIENT_PREFACE + SettingsFrame().encode()[:8]],
    ids=["nothing", "half a preface", "a preface", "half a SETTINGS"],
)
def test_a_client_has_some_time_for_its_preface(said):
    server = Connection(client=False)
    assert server.next_deadline() is None
    drain(server, now=5.0)
    for at, octet in enumerate(said):
        server.receive_data(bytes([octet]), 5.0 + at / 100)

    assert server.next_deadline() == 15.0
    assert server.handle_deadline(14.9) == []
    events = server.handle_deadline(15.0)

    assert_over(events, ErrorCode.PROTOCOL_ERROR, "no preface and SETTINGS in 10 s")
    assert [type(frame) for frame in sent(server)] == [GoAwayFrame]


@pytest.mark.rfc("preface-bounded")
def test_a_server_has_as_long_as_its_client_cares_to_wait():
    client = Connection(client=True)
    drain(client, now=5.0)

    assert client.next_deadline() == 5.0 + DEFAULT_LIMITS.settings_timeout


HALF_BLOCKS = {
    "half a HEADERS": wire(HeadersFrame(1, block(POST)))[:-1],
    "HEADERS alone": wire(HeadersFrame(1, block(POST)[:3], end_headers=False)),
    "half a CONTINUATION": wire(
        HeadersFrame(1, block(POST)[:3], end_headers=False),
        ContinuationFrame(1, block(POST)[3:], True),
    )[:-1],
}


@pytest.mark.rfc("half-block-bounded")
@pytest.mark.parametrize("half", HALF_BLOCKS)
def test_half_a_field_block_is_not_waited_for_long(half):
    server = begun(client=False)
    feed(server, HALF_BLOCKS[half], now=7.0)

    assert server.next_deadline() == 17.0
    assert server.handle_deadline(16.9) == []
    assert_over(server.handle_deadline(17.0), CALM, "half a field block for 10 s")


@pytest.mark.rfc("half-block-bounded")
@pytest.mark.parametrize("client", [True, False], ids=["client", "server"])
def test_nor_where_it_comes_octet_by_octet(client):
    core = begun(client)
    if client:
        core.send_request(GET)
        drain(core)
    long = wire(HeadersFrame(1, block([*(OK if client else POST), (b"x", b"a" * 100)])))
    for at, octet in enumerate(long[:20]):
        events = core.receive_data(bytes([octet]), float(at))
        if events:
            break

    # Its frame header was whole at 8.0: from there on it is known what it is half of.
    assert at == 18
    assert_over(events, CALM, "half a field block for 10 s")


@pytest.mark.rfc("half-block-bounded")
def test_half_a_field_block_before_a_silence_is_for_the_clients_pings_to_judge():
    client = begun(client=True)
    client.send_request(GET)
    drain(client)
    octets = wire(HeadersFrame(1, block(OK)))
    feed(client, octets[:-1], now=7.0)

    assert client.next_deadline() is None
    assert client.handle_deadline(1000.0) == []
    (event,) = feed(client, octets[-1:], now=1000.0)  # late, and whole
    assert isinstance(event, ev.ResponseReceived)


@pytest.mark.rfc("half-block-bounded")
@pytest.mark.parametrize(
    "frame",
    [DataFrame(1, bytes(9)), PingFrame(bytes(8)), UnknownFrame(0xF0, 0, 0, bytes(9))],
    ids=["DATA", "PING", "unknown"],
)
def test_half_of_another_frame_may_take_its_time(frame):
    server = serving(1)
    for at, octet in enumerate(wire(frame)[:-1]):
        server.receive_data(bytes([octet]), 100.0 * at)

    assert server.next_deadline() is None


@pytest.mark.rfc("half-block-bounded")
def test_each_field_block_has_its_own_time():
    server = begun(client=False)
    octets = b"".join(wire(HeadersFrame(2 * at + 1, block(POST))) for at in range(10))
    size = len(octets) // 10
    feed(server, octets[: size - 1])
    for at in range(1, 10):  # each recv ends one block and begins the next
        assert server.next_deadline() == 9.0 * (at - 1) + 10.0
        feed(server, octets[at * size - 1 : (at + 1) * size - 1], now=9.0 * at)

    feed(server, octets[-1:], now=90.0)
    assert (server.next_deadline(), len(server.streams)) == (None, 10)


def test_without_a_limit_nothing_is_ever_due():
    limits = Limits(
        settings_timeout=math.inf, preface_timeout=math.inf, field_block_timeout=math.inf
    )
    server = Connection(client=False, limits=limits)
    drain(server)
    server.receive_data(CLIENT_PREFACE + SettingsFrame().encode(), 1.0)
    feed(server, HALF_BLOCKS["HEADERS alone"], now=2.0)

    assert server.next_deadline() is None
    assert server.handle_deadline(1e9) == []


# -- what is counted --------------------------------------------------------------------------


def test_queued_octets_are_those_of_all_streams_and_go_when_they_leave_or_are_dropped():
    server = begun(client=False, peer={SettingId.INITIAL_WINDOW_SIZE: 1000})
    feed(server, *(HeadersFrame(at, block(GET), True) for at in (1, 3, 5)))
    for at in (1, 3, 5):
        server.send_response(server.streams[at], OK)
        server.send_data(server.streams[at], bytes(3000))
    size = section_size(OK)
    assert server.queued_octets == 3 * (3000 + size)

    drain(server)
    assert server.queued_octets == 6000
    server.reset_stream(server.streams[1])
    assert server.queued_octets == 4000
    feed(server, RstStreamFrame(3, 8))
    assert server.queued_octets == 2000
    server.send_trailers(server.streams[5], TRAILERS)
    assert server.queued_octets == 2000 + section_size(TRAILERS)
    feed(server, WindowUpdateFrame(5, 2000))
    drain(server)
    assert server.queued_octets == 0


def test_sections_that_are_dropped_are_not_counted():
    server = serving(1, 3)
    server.send_response(server.streams[1], OK, end_stream=True)
    server.send_response(server.streams[3], OK)
    server.send_trailers(server.streams[3], TRAILERS)
    server.reset_stream(server.streams[1])
    server.reset_stream(server.streams[3])

    assert server.queued_octets == 0


def test_content_that_was_queued_for_a_request_which_is_withdrawn_is_not_counted():
    client = begun(client=True)
    stream = client.send_request(POST, end_stream=False)
    client.send_data(stream, bytes(10))
    client.reset_stream(stream)

    assert client.queued_octets == 0


def test_a_long_value_is_not_huffman_coded():
    """hpack's coder takes the square of its octets: two seconds for 64 KiB."""
    long = [(b"x", b"a" * (HUFFMAN_OCTETS_MAX + 1))]
    short = [(b"x", b"a" * HUFFMAN_OCTETS_MAX)]

    assert len(FieldEncoder().encode(long)) > HUFFMAN_OCTETS_MAX
    assert len(FieldEncoder().encode(short)) < HUFFMAN_OCTETS_MAX
    assert [*FieldDecoder().decode(FieldEncoder().encode(long)).fields] == long


@pytest.mark.rfc("resets-bounded")
def test_resets_that_a_client_provokes_by_what_it_does_not_take_count_too():
    server = begun(client=False)
    for number in range(DEFAULT_LIMITS.resets + 1):
        feed(server, HeadersFrame(2 * number + 1, block(GET), True))
        server.reset_stream(server.streams[2 * number + 1], provoked=True)
        drain(server)
    assert not server.closed

    events = feed(server, HeadersFrame(2 * number + 3, block(GET), True))

    assert_over(events, CALM, "over 200 requests cut short in 10 s")


def test_a_frame_in_crumbs_is_kept_in_about_its_own_size():
    framer = Framer()
    framer.feed(SettingsFrame().encode())
    assert framer.next_frame() is not None
    octets = DataFrame(1, bytes(16000)).encode()
    for octet in octets[:-1]:
        framer.feed(bytes([octet]))
        assert framer.next_frame() is None

    assert len(framer._held) <= 16
    framer.feed(octets[-1:])
    assert framer.next_frame() == DataFrame(1, bytes(16000))


@pytest.mark.rfc("decoding-error")
@pytest.mark.uncut("the decoder is another one only while the test runs")
@pytest.mark.parametrize("fault", [ValueError, RecursionError, IndexError])
def test_whatever_a_block_makes_of_the_decoder_ends_the_connection_alone(monkeypatch, fault):
    server = serving(1)

    def decode(self: object, data: bytes, raw: bool = False) -> None:
        raise fault("no words of ours")

    monkeypatch.setattr("hpack.Decoder.decode", decode)
    events = feed(server, HeadersFrame(3, block(POST)))

    reason = f"field block does not decode: {fault.__name__}"
    assert_over(events, ErrorCode.COMPRESSION_ERROR, reason)
