"""Malformed field sections of every kind, both roles, received and to be sent.

Received, each is a stream error, PROTOCOL_ERROR, of which the user hears nothing else.  To be
sent, each is refused to the caller; nothing leaves, and the stream is as it was.
"""

from __future__ import annotations

from typing import Any

import pytest

from h2lite import events as ev
from h2lite.connection import Connection
from h2lite.errors import ErrorCode, LocalProtocolError
from h2lite.frames import DataFrame, HeadersFrame, PingFrame, RstStreamFrame
from tests.pair import GET, OK, POST, TRAILERS, begun, block, drain, feed, sent

INTERIM = [(b":status", b"103")]


# One line that no section may hold, whatever stands before it.
LINES = [
    # A name is a token...
    (b"", b"v"), (b" ", b"v"), (b"a b", b"v"), (b"a\0", b"v"), (b"a\r\nb", b"v"), (b"a\x7f", b"v"),
    (b"a\x80", b"v"), (b"a\xff", b"v"), (b"a:b", b"v"), (b"a:", b"v"),
    # ... in lower case.
    (b"Date", b"v"), (b"datE", b"v"), (b"TE", b"trailers"),
    # A value holds no control character, and no blank at its ends.
    (b"a", b"\0"), (b"a", b"b\0c"), (b"a", b"b\r"), (b"a", b"\nb"), (b"a", b"b\r\nc: d"),
    (b"a", b" b"), (b"a", b"b "), (b"a", b"\tb"), (b"a", b"b\t"), (b"a", b" "), (b"a", b"\t"),
    # What belongs to HTTP/1.1, and what TE may not say.
    (b"connection", b"close"), (b"connection", b""), (b"proxy-connection", b"close"),
    (b"keep-alive", b"timeout=5"), (b"transfer-encoding", b"chunked"), (b"upgrade", b"h2c"),
    (b"te", b"gzip"), (b"te", b"trailers, gzip"), (b"te", b""),
    # Pseudo-header fields: unknown ones, and those that come too late.
    (b":", b"v"), (b":protocol", b"websocket"), (b":Path", b"/"),
    (b":method", b"GET"), (b":status", b"200"),
    (b"content-length", b"x"), (b"content-length", b"-1"),
]  # fmt: skip
# Whole sections that are wrong where they stand.
REQUESTS = [
    [],
    GET[1:],
    [GET[0], *GET[2:]],
    GET[:3],
    [(b":method", b""), *GET[1:]],
    OK,
    [*GET, OK[0]],
    [*GET, GET[0]],
    [*GET, (b":path", b"/other")],
    [*GET[:3], (b"a", b"b"), GET[3]],
    [(b":method", b"CONNECT"), *GET[1:]],
    [(b":method", b"CONNECT")],
    [(b":method", b"CONNECT"), (b":authority", b"example.org")],
]
RESPONSES = [
    [],
    OK[1:],
    [(b":status", b"")],
    [(b":status", b"20")],
    [(b":status", b"2OO")],
    [(b":status", b"1000")],
    [(b":status", b"101")],
    GET,
    [*OK[:1], GET[3]],
    [OK[0], OK[0]],
    [(b"a", b"b"), OK[0]],
]


def asked(end_stream: bool = False) -> Connection:
    server = begun(client=False)
    feed(server, HeadersFrame(1, block(POST), end_stream))
    return server


def requested() -> Connection:
    client = begun(client=True)
    client.send_request(POST, end_stream=False)
    drain(client)
    return client


def assert_malformed(core: Connection, *frames: Any, heard: int = 0) -> None:
    """Of these frames only the first `heard` are reported, then the reset of stream 1."""
    events = feed(core, *frames)

    assert [(type(e), e.stream_id, e.error_code, e.by_peer) for e in events[heard:]] == [
        (ev.StreamReset, 1, ErrorCode.PROTOCOL_ERROR, False)
    ]
    assert sent(core) == [RstStreamFrame(1, ErrorCode.PROTOCOL_ERROR)]
    assert core.streams == {}
    assert feed(core, PingFrame(b"goes on?")) == [ev.PingReceived(b"goes on?")]


@pytest.mark.rfc(
    "malformed-stream-error", "field-name", "field-name-lowercase", "field-value",
    "connection-specific", "te-trailers", "pseudo-unknown", "pseudo-late", "content-length-valid",
)  # fmt: skip
@pytest.mark.parametrize("line", LINES, ids=repr)
def test_one_bad_line_received_makes_any_section_malformed(line):
    request, response = block([*POST, line]), block([*OK, line])
    interim, trailers = block([*INTERIM, line]), block([*TRAILERS, line])
    for end_stream in (False, True):
        assert_malformed(begun(client=False), HeadersFrame(1, request, end_stream))
        assert_malformed(requested(), HeadersFrame(1, response, end_stream))
    assert_malformed(requested(), HeadersFrame(1, interim))
    assert_malformed(asked(), HeadersFrame(1, trailers, True))
    assert_malformed(
        requested(), HeadersFrame(1, block(OK)), HeadersFrame(1, trailers, True), heard=1
    )
    assert_malformed(
        requested(),
        HeadersFrame(1, block(INTERIM)),
        HeadersFrame(1, block(OK)),
        DataFrame(1, b"x"),
        HeadersFrame(1, trailers, True),
        heard=3,
    )


@pytest.mark.rfc(
    "malformed-not-sent", "field-name", "field-name-lowercase", "field-value",
    "connection-specific", "te-trailers", "pseudo-unknown", "pseudo-late", "content-length-valid",
)  # fmt: skip
@pytest.mark.parametrize("line", LINES, ids=repr)
def test_one_bad_line_is_sent_in_no_section(line):
    client, server = requested(), asked()
    stream, reply = client.streams[1], server.streams[1]
    for call in (
        lambda: client.send_request([*POST, line], end_stream=False),
        lambda: client.send_request([*POST, line]),
        lambda: client.send_trailers(stream, [*TRAILERS, line]),
        lambda: server.send_response(reply, [*INTERIM, line]),
        lambda: server.send_response(reply, [*OK, line]),
        lambda: server.send_response(reply, [*OK, line], end_stream=True),
    ):
        with pytest.raises(LocalProtocolError):
            call()
    assert (client.has_output, server.has_output) == (False, False)

    # They are as they were.
    client.send_trailers(stream, TRAILERS)
    server.send_response(reply, OK)
    with pytest.raises(LocalProtocolError):
        server.send_trailers(reply, [*TRAILERS, line])
    server.send_trailers(reply, TRAILERS)
    assert [frame.end_stream for frame in sent(client)] == [True]
    assert [frame.end_stream for frame in sent(server)] == [False, True]


@pytest.mark.rfc(
    "malformed-stream-error", "malformed-not-sent", "request-pseudo", "pseudo-unknown",
    "pseudo-repeated", "pseudo-late", "connect-pseudo",
)  # fmt: skip
@pytest.mark.parametrize("fields", REQUESTS)
def test_a_malformed_request_is_neither_taken_nor_sent(fields):
    for end_stream in (False, True):
        assert_malformed(begun(client=False), HeadersFrame(1, block(fields), end_stream))
        client = begun(client=True)
        with pytest.raises(LocalProtocolError):
            client.send_request(fields, end_stream)
        assert not client.has_output
        client.send_request(GET)
        assert [frame.stream_id for frame in sent(client)] == [1]


@pytest.mark.rfc(
    "malformed-stream-error", "malformed-not-sent", "response-status", "no-101", "pseudo-unknown",
    "pseudo-repeated", "pseudo-late",
)  # fmt: skip
@pytest.mark.parametrize("fields", RESPONSES)
def test_a_malformed_response_is_neither_taken_nor_sent(fields):
    for end_stream in (False, True):
        assert_malformed(requested(), HeadersFrame(1, block(fields), end_stream))
        assert_malformed(
            requested(),
            HeadersFrame(1, block(INTERIM)),
            HeadersFrame(1, block(fields), end_stream),
            heard=1,
        )
        server = asked()
        with pytest.raises(LocalProtocolError):
            server.send_response(server.streams[1], fields, end_stream)
        assert not server.has_output
        server.send_response(server.streams[1], OK)
        assert [type(frame) for frame in sent(server)] == [HeadersFrame]


@pytest.mark.rfc("trailers-no-pseudo")
@pytest.mark.parametrize("field", [*GET, OK[0], (b":protocol", b"x")])
def test_trailers_with_a_pseudo_header_field_are_neither_taken_nor_sent(field):
    assert_malformed(asked(), HeadersFrame(1, block([field]), True))
    assert_malformed(
        requested(), HeadersFrame(1, block(OK)), HeadersFrame(1, block([field]), True), heard=1
    )
    client = requested()
    with pytest.raises(LocalProtocolError):
        client.send_trailers(client.streams[1], [field])
    assert not client.has_output
