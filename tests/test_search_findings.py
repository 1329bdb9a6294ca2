"""What the search for cases that nobody named has found, each held against h2lite alone."""

from __future__ import annotations

import pytest

from h2lite import events as ev
from h2lite.connection import Connection
from h2lite.errors import ErrorCode
from h2lite.frames import DataFrame, HeadersFrame, Priority, RstStreamFrame, SettingsFrame
from h2lite.limits import DEFAULT_LIMITS
from h2lite.settings import SettingId
from tests.holding import held
from tests.pair import GET, OK, POST, begun, block, drain, feed, sent

ACK = SettingsFrame(ack=True)


def test_a_field_block_that_does_not_decode_tells_the_peer_no_address_of_ours():
    # An integer of too many octets; hpack's error shows the memoryview it was in.
    server = begun(client=False)

    (failed,) = feed(server, HeadersFrame(1, b"\x3f" + b"\xff" * 20))
    (goaway,) = sent(server)

    assert goaway.error_code == failed.error_code == ErrorCode.COMPRESSION_ERROR
    assert b"0x" not in goaway.debug_data
    assert "0x" not in failed.reason


def server_without_window() -> Connection:
    """A server that has sent all that the connection's window takes."""
    server = begun(client=False)
    feed(server, HeadersFrame(1, block(GET), end_stream=True))
    server.send_response(server.streams[1], OK)
    server.send_data(server.streams[1], bytes(65535), True)
    drain(server)
    return server


@pytest.mark.parametrize("by_us", [True, False])
def test_streams_that_were_reset_leave_nothing_behind_while_the_window_is_closed(by_us):
    server = server_without_window()
    before = held(server)

    for number in range(1000):
        now, stream_id = float(number), 3 + 2 * number
        feed(server, HeadersFrame(stream_id, block(GET), end_stream=True), now=now)
        stream = server.streams[stream_id]
        server.send_response(stream, OK)
        server.send_data(stream, b"an answer that has to wait", True)
        drain(server, now)
        if by_us:
            server.reset_stream(stream)
            drain(server, now)
        else:
            feed(server, RstStreamFrame(stream_id, ErrorCode.CANCEL), now=now)

    assert server.streams == {}
    assert held(server).items - before.items < 10 * DEFAULT_LIMITS.streams


def test_credit_for_padding_does_not_pile_up_before_a_peer_that_does_not_read():
    # With small windows each frame of padding alone is worth a WINDOW_UPDATE at once.
    server = begun(client=False, settings={SettingId.INITIAL_WINDOW_SIZE: 100})
    feed(server, HeadersFrame(1, block(POST)))
    before = held(server)

    for _ in range(3 * DEFAULT_LIMITS.answers_queued):
        feed(server, DataFrame(1, b"", pad_length=60))

    after = held(server)
    assert server.closed or after.octets - before.octets < 17 * DEFAULT_LIMITS.answers_queued


@pytest.mark.parametrize("value", [b"Trailers", b"TRAILERS"])
def test_te_may_say_trailers_in_any_case(value):
    # RFC 9113 §8.2.2 allows "trailers"; it is a literal of HTTP's grammar, which has no case.
    server = begun(client=False)
    fields = [*GET, (b"te", value)]

    assert feed(server, HeadersFrame(1, block(fields), end_stream=True)) == [
        ev.RequestReceived(1, fields, True)
    ]


def test_headers_on_a_stream_the_peer_has_ended_are_stream_closed_whatever_they_depend_on():
    # RFC 9113 §5.1: it MUST respond with STREAM_CLOSED; the other rule is RFC 7540's alone.
    server = begun(client=False)
    feed(server, HeadersFrame(1, block(GET), end_stream=True))

    feed(server, HeadersFrame(1, block(GET), end_stream=True, priority=Priority(False, 1, 0)))

    assert sent(server) == [RstStreamFrame(1, ErrorCode.STREAM_CLOSED)]


def test_a_table_reduced_and_raised_again_still_asks_for_the_size_update():
    # RFC 9113 §4.3.1: a field block that follows an acknowledgment of the reduction and does
    # not begin with a size update MUST be a COMPRESSION_ERROR.
    server = begun(client=False)
    server.update_settings({SettingId.HEADER_TABLE_SIZE: 0}, 0.0)
    drain(server)
    feed(server, ACK)
    server.update_settings({SettingId.HEADER_TABLE_SIZE: 4096}, 0.0)
    drain(server)

    (failed,) = feed(server, HeadersFrame(1, block(GET), end_stream=True))

    assert isinstance(failed, ev.ConnectionFailed)
    assert failed.error_code == ErrorCode.COMPRESSION_ERROR


def test_a_stream_whose_content_waited_can_be_reset_after_the_connection_was_closed():
    client = begun(client=True)
    stream = client.send_request(POST, False)
    drain(client)
    client.send_data(stream, b"content")
    client.goaway(ErrorCode.INTERNAL_ERROR)

    client.reset_stream(stream)

    assert stream.queued_octets == 0
