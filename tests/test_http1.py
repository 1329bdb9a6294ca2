"""A client's HTTP/1.1 connection: octets written out, events compared whole, every cut the same."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from h2lite import events as ev
from h2lite.call import Call
from h2lite.connection import Connection
from h2lite.errors import ErrorCode, LocalProtocolError, RemoteProtocolError, UsageError
from h2lite.health import HealthPolicy
from h2lite.http1 import REASON_CHARS_MAX, Http1Connection, check_http1
from h2lite.limits import DEFAULT_LIMITS
from h2lite.orders import Finish
from h2lite.origin import Origin
from h2lite.pool import Pool
from h2lite.settings import SettingId
from h2lite.stream import CLOSED, Stream

from .cutting import same_for_all_cuts

OK = b"HTTP/1.1 200 OK\r\n"
LENGTH_2 = OK + b"content-length: 2\r\n\r\nok"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
UNASKED = ev.ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "octets came that answer no request")
TOO_LARGE = ev.ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "header section over 65536 octets")


def fields(method: bytes = b"GET", *more: tuple[bytes, bytes], path: bytes = b"/") -> ev.Fields:
    return [
        (b":method", method),
        (b":scheme", b"http"),
        (b":authority", b"a.test"),
        (b":path", path),
        *more,
    ]


def sent(connection: Http1Connection) -> bytes:
    """All that leaves now."""
    octets = b""
    while connection.has_output:
        octets += connection.data_to_send(0.0)
    return octets


def asked(method: bytes = b"GET", *more: tuple[bytes, bytes]) -> tuple[Http1Connection, Stream]:
    """A connection whose first request has left whole."""
    connection = Http1Connection()
    stream = connection.send_request(fields(method, *more))
    sent(connection)
    return connection, stream


def uploading(octets: int = 10) -> tuple[Http1Connection, Stream]:
    """A connection whose first request has left but for its content."""
    connection = Http1Connection()
    length = (b"content-length", str(octets).encode())
    stream = connection.send_request(fields(b"POST", length), end_stream=False)
    sent(connection)
    return connection, stream


def joined(events: list[Any]) -> list[Any]:
    """Events with neighbouring pieces of content made one."""
    found: list[Any] = []
    for event in events:
        last = found[-1] if found else None
        if type(event) is type(last) is ev.DataReceived:
            data = b"".join((last.data, event.data))
            found[-1] = ev.DataReceived(1, data, event.end_stream)
        else:
            found.append(event)
    return found


def told(octets: bytes, method: bytes = b"GET") -> tuple[list[Any], bool]:
    """The events that a response comes to, the same for every cut, and takes_requests then."""

    def feed(pieces: list[bytes]) -> tuple[list[Any], bool]:
        connection, _ = asked(method)
        events = [event for piece in pieces for event in connection.receive_data(piece, 0.0)]
        return joined(events), connection.takes_requests

    return same_for_all_cuts(octets, feed)


def response(status: int, *more: tuple[bytes, bytes], end: bool = False) -> ev.ResponseReceived:
    return ev.ResponseReceived(1, status, [(b":status", b"%d" % status), *more], end)


def fault(reason: str) -> ev.ConnectionFailed:
    return ev.ConnectionFailed(ErrorCode.PROTOCOL_ERROR, reason)


# -- the same face -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "streams", "closed", "message_sent", "goaway_received", "peer_settings", "takes_requests",
        "has_output", "receive_data", "receive_eof", "data_to_send", "put_back", "data_consumed",
        "send_request", "send_data", "send_trailers", "reset_stream", "goaway", "ping",
        "forget_ping", "ping_sent_at", "next_deadline", "handle_deadline",
    ],
)  # fmt: skip
def test_what_pool_and_loop_ask_of_a_connection_is_there(name):
    """All but reading_paused, which HTTP/2 has no need of: its windows pause the peer."""
    assert hasattr(Http1Connection(), name)
    assert hasattr(Connection(), name)


def test_a_new_connection_is_silent_and_takes_one_request_at_a_time():
    connection = Http1Connection()

    assert connection.peer_settings[SettingId.MAX_CONCURRENT_STREAMS] == 1
    assert (connection.takes_requests, connection.has_output, connection.closed) == (
        True, False, False,
    )  # fmt: skip
    assert (connection.streams, connection.goaway_received) == ({}, None)
    assert connection.data_to_send(0.0) == b""
    assert not connection.message_sent
    assert (connection.next_deadline(), connection.handle_deadline(1e9)) == (None, [])


def test_there_is_no_ping():
    connection = Http1Connection()

    with pytest.raises(UsageError, match=r"speaks HTTP/1\.1, which has no PING"):
        connection.ping(b"12345678", 0.0)
    connection.forget_ping(b"12345678")
    assert connection.ping_sent_at(b"12345678") is None


def test_without_h11_the_user_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "h11", None)

    with pytest.raises(UsageError, match=r"pip install 'h2lite\[http1\]'"):
        check_http1()
    with pytest.raises(UsageError, match=r"pip install 'h2lite\[http1\]'"):
        Http1Connection()


def test_h11_is_loaded_when_a_connection_is_made_and_not_before():
    program = (
        "import sys, h2lite.http1 as http1\n"
        "before = 'h11' in sys.modules\n"
        "http1.Http1Connection()\n"
        "print(before, 'h11' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert (ran.stdout, ran.stderr) == ("False True\n", "")


# -- requests ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_fields", "octets"),
    [
        (fields(path=b"/a?b=c"), b"GET /a?b=c HTTP/1.1\r\nhost: a.test\r\n\r\n"),
        (fields(b"OPTIONS", path=b"*"), b"OPTIONS * HTTP/1.1\r\nhost: a.test\r\n\r\n"),
        (
            fields(b"GET", (b"accept", b"*/*"), (b"host", b"A.test"), (b"x", b"1")),
            b"GET / HTTP/1.1\r\nhost: a.test\r\naccept: */*\r\nx: 1\r\n\r\n",
        ),
        (
            [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/"), (b"host", b"b.test")],
            b"GET / HTTP/1.1\r\nhost: b.test\r\n\r\n",
        ),
        (
            fields(b"GET", (b"cookie", b"a=1"), (b"x", b"1"), (b"cookie", b"b=2")),
            b"GET / HTTP/1.1\r\nhost: a.test\r\ncookie: a=1; b=2\r\nx: 1\r\n\r\n",
        ),
        (
            fields(b"GET", (b"te", b"trailers")),
            b"GET / HTTP/1.1\r\nhost: a.test\r\nte: trailers\r\nconnection: te\r\n\r\n",
        ),
        (fields(b"DELETE"), b"DELETE / HTTP/1.1\r\nhost: a.test\r\n\r\n"),
        (fields(b"POST"), b"POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 0\r\n\r\n"),
        (
            fields(b"PUT", (b"content-length", b"0")),
            b"PUT / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 0\r\n\r\n",
        ),
    ],
    ids=[
        "path", "asterisk", "host-first-and-once", "host-alone", "cookies-joined", "te",
        "no-content", "content-foreseen", "length-as-given",
    ],
)  # fmt: skip
def test_a_header_section_is_said_in_the_terms_of_http_1_1(request_fields, octets):
    connection = Http1Connection()

    connection.send_request(request_fields)

    assert sent(connection) == octets
    assert connection.message_sent


def test_content_with_a_length_goes_as_it_is():
    connection = Http1Connection()
    stream = connection.send_request(fields(b"POST", (b"content-length", b"10")), end_stream=False)
    connection.send_data(stream, b"01234")
    connection.send_data(stream, b"56789", end_stream=True)

    assert sent(connection) == (
        b"POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 10\r\n\r\n0123456789"
    )
    assert (stream.queued_octets, len(stream.outgoing)) == (0, 0)


def test_content_without_a_length_goes_in_chunks_and_may_have_trailers():
    connection = Http1Connection()
    stream = connection.send_request(fields(b"POST"), end_stream=False)
    assert sent(connection) == (
        b"POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n"
    )

    connection.send_data(stream, b"")
    assert not connection.has_output
    connection.send_data(stream, bytes(26))
    assert sent(connection) == b"1a\r\n" + bytes(26) + b"\r\n"
    connection.send_trailers(stream, [(b"a", b"b")])
    assert sent(connection) == b"0\r\na: b\r\n\r\n"
    assert stream.end_queued


def test_a_chunked_request_may_come_to_nothing():
    connection = Http1Connection()
    stream = connection.send_request(fields(b"PATCH"), end_stream=False)
    connection.send_data(stream, b"", end_stream=True)

    assert sent(connection).endswith(b"\r\n\r\n0\r\n\r\n")


def test_trailers_do_not_go_with_a_length():
    connection, stream = uploading(octets=1)

    with pytest.raises(LocalProtocolError, match="content-length has no trailers"):
        connection.send_trailers(stream, [(b"a", b"b")])

    assert not stream.end_queued
    connection.send_data(stream, b"x", end_stream=True)
    assert sent(connection) == b"x"


@pytest.mark.parametrize(
    ("request_fields", "reason"),
    [
        ([(b":method", b"CONNECT"), (b":authority", b"a.test:443")], "CONNECT is not offered"),
        (fields(b"GET", (b"expect", b"100-continue")), "expect is not offered"),
        (fields(b"GET", (b"upgrade", b"h2c")), "belongs to HTTP/1.1"),
        (fields(b"GET", (b"X", b"1")), "forbidden octet"),
        (fields(path=b"/\xe9"), "not to be said in HTTP/1.1: Illegal target characters"),
        ([(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")], "Host"),
        (
            [(b":method", b"GET"), (b":scheme", b"ftp"), (b":authority", b"a"), (b":path", b"a")],
            "which HTTP/1.1 cannot say",
        ),
        (fields(b"POST", (b"content-length", b"1")), "1 octets of content declared, none sent"),
    ],
)
def test_a_request_that_may_not_be_sent_is_refused_and_changes_nothing(request_fields, reason):
    connection = Http1Connection()

    with pytest.raises(LocalProtocolError) as caught:
        connection.send_request(request_fields)

    assert reason in str(caught.value)
    assert not connection.has_output


@pytest.mark.parametrize(("octets", "end"), [(11, False), (1, True)])
def test_content_that_is_not_what_was_declared_is_refused_and_changes_nothing(octets, end):
    connection, stream = uploading()

    with pytest.raises(LocalProtocolError, match=f"{octets} octets of content on stream 1"):
        connection.send_data(stream, bytes(octets), end)

    connection.send_data(stream, b"0123456789", end_stream=True)
    assert sent(connection) == b"0123456789"


def test_malformed_trailers_are_refused_and_change_nothing():
    connection = Http1Connection()
    stream = connection.send_request(fields(b"POST"), end_stream=False)

    with pytest.raises(LocalProtocolError, match="pseudo-header field"):
        connection.send_trailers(stream, [(b":path", b"/")])

    connection.send_trailers(stream, [])
    assert sent(connection).endswith(b"\r\n\r\n0\r\n\r\n")


def test_a_request_waits_for_the_one_before_it_and_takes_its_number_when_it_leaves():
    connection = Http1Connection()
    first, second = (connection.send_request(fields(path=path)) for path in (b"/1", b"/2"))
    assert (first.stream_id, second.stream_id) == (0, 0)

    assert sent(connection) == b"GET /1 HTTP/1.1\r\nhost: a.test\r\n\r\n"
    assert (first.stream_id, second.stream_id, connection.streams) == (1, 0, {1: first})
    assert [*connection.receive_data(LENGTH_2, 0.0)][-1] == ev.DataReceived(1, b"ok", True)
    assert (first.state, connection.streams) == (CLOSED, {})

    assert sent(connection) == b"GET /2 HTTP/1.1\r\nhost: a.test\r\n\r\n"
    assert (second.stream_id, connection.streams) == (2, {2: second})
    assert connection.receive_data(NO_CONTENT, 0.0) == [
        ev.ResponseReceived(2, 204, [(b":status", b"204")], True)
    ]
    assert connection.takes_requests


def test_content_is_framed_only_as_it_is_asked_for():
    connection = Http1Connection()
    length = (b"content-length", b"200000")
    stream = connection.send_request(fields(b"PUT", length), end_stream=False)
    connection.send_data(stream, bytes(200_000), end_stream=True)
    sizes = []
    while connection.has_output:
        sizes.append(len(connection.data_to_send(0.0)))
        assert stream.queued_octets == sum(map(len, stream.outgoing))

    head = len(b"PUT / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 200000\r\n\r\n")
    assert sizes == [65536, 65536, 65536, 200_000 + head - 3 * 65536]


def test_what_the_transport_refused_leaves_first():
    connection = Http1Connection()
    stream = connection.send_request(fields(b"POST"), end_stream=False)
    connection.send_data(stream, b"0123456789", end_stream=True)
    whole = connection.data_to_send(0.0)
    connection.put_back(whole[5:])
    assert connection.has_output
    again = connection.data_to_send(0.0, 10)
    connection.put_back(again[1:])

    connection.message_sent = False
    assert sent(connection) == whole[6:]
    assert not connection.message_sent


@given(
    sizes=st.lists(st.integers(0, 300), max_size=8),
    chunked=st.booleans(),
    octets_max=st.integers(1, 400),
    taken=st.lists(st.integers(0, 500), max_size=30),
)
@settings(deadline=None)
def test_a_server_reads_the_content_that_was_given_however_the_socket_takes_it(
    sizes, chunked, octets_max, taken
):
    pieces = [bytes([65 + at]) * size for at, size in enumerate(sizes)]
    content = b"".join(pieces)
    more = [] if chunked else [(b"content-length", str(len(content)).encode())]
    connection = Http1Connection()
    stream = connection.send_request(fields(b"POST", *more), end_stream=False)
    for piece in pieces:
        connection.send_data(stream, piece)
    connection.send_data(stream, b"", end_stream=True)
    server = h11.Connection(h11.SERVER)

    while connection.has_output:
        octets = connection.data_to_send(0.0, octets_max)
        fits = taken.pop() if taken else len(octets)
        connection.put_back(octets[fits:])
        if octets[:fits]:
            server.receive_data(octets[:fits])

    arrived, event = b"", server.next_event()
    assert type(event) is h11.Request
    while type(event) is not h11.EndOfMessage:
        event = server.next_event()
        if type(event) is h11.Data:
            arrived += event.data
    assert arrived == content
    assert server.trailing_data[0] == b""


# -- responses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "octets", "events"),
    [
        (
            b"GET",
            OK + b"Content-Length: 5\r\nX-Y: 1\r\nx-y: 2\r\n\r\nhello",
            [
                response(200, (b"content-length", b"5"), (b"x-y", b"1"), (b"x-y", b"2")),
                ev.DataReceived(1, b"hello", True),
            ],
        ),
        (
            b"GET",
            CHUNKED + b"5;extension\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
            [response(200), ev.DataReceived(1, b"hello!", True)],
        ),
        (
            b"GET",
            CHUNKED + b"1\r\n!\r\n0\r\nA: b\r\nconnection: x\r\n\r\n",
            [
                response(200),
                ev.DataReceived(1, b"!", False),
                ev.TrailersReceived(1, [(b"a", b"b")]),
            ],
        ),
        (b"GET", CHUNKED + b"0\r\n\r\n", [response(200), ev.DataReceived(1, b"", True)]),
        (
            b"GET",
            OK + b"content-length: 0\r\n\r\n",
            [response(200, (b"content-length", b"0"), end=True)],
        ),
        (
            b"HEAD",
            OK + b"content-length: 9\r\n\r\n",
            [response(200, (b"content-length", b"9"), end=True)],
        ),
        (b"HEAD", CHUNKED, [response(200, end=True)]),
        (b"GET", NO_CONTENT, [response(204, end=True)]),
        (
            b"GET",
            b"HTTP/1.1 304\r\ncontent-length: 9\r\n\r\n",
            [response(304, (b"content-length", b"9"), end=True)],
        ),
        (
            b"GET",
            b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 100 Go\r\n\r\n" + NO_CONTENT,
            [
                ev.InformationalReceived(1, 103, [(b":status", b"103"), (b"link", b"x")]),
                ev.InformationalReceived(1, 100, [(b":status", b"100")]),
                response(204, end=True),
            ],
        ),
        (
            b"GET",
            OK
            + b"Connection: X\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\n"
            b"content-length: 0\r\n\r\n",
            [response(200, (b"content-length", b"0"), end=True)],
        ),
    ],
    ids=[
        "length", "chunked", "trailers", "no chunks", "length 0", "HEAD", "HEAD chunked", "204",
        "304", "interim", "hop-by-hop",
    ],
)  # fmt: skip
def test_a_response_comes_to_the_same_events_in_every_cut(method, octets, events):
    assert told(octets, method) == (events, True)


@pytest.mark.parametrize(
    "head",
    [
        OK + b"connection: Keep-Alive, CLOSE\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
        OK + b"\r\nok",
        OK + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
    ],
    ids=["close", "HTTP/1.0", "HTTP/1.0 keep-alive", "close-delimited", "two lengths"],
)
def test_some_responses_are_a_connections_last(head):
    """Known from the header section on, so that nothing is queued behind it."""
    connection, _ = asked()

    events = joined(connection.receive_data(head, 0.0))

    assert not connection.takes_requests
    assert [type(event) for event in events] == [ev.ResponseReceived, ev.DataReceived]
    assert (b"content-length", b"4") not in events[0].fields
    with pytest.raises(UsageError, match="takes no new requests"):
        connection.send_request(fields())


def test_a_request_that_waits_behind_a_last_response_can_be_taken_back():
    connection, _ = asked()
    waiting = connection.send_request(fields(b"POST"), end_stream=False)
    connection.send_data(waiting, b"content")
    connection.receive_data(OK + b"connection: close\r\ncontent-length: 0\r\n\r\n", 0.0)

    assert (connection.has_output, sent(connection)) == (False, b"")
    assert (waiting.stream_id, [*waiting.outgoing]) == (0, [b"content"])
    connection.receive_eof()
    assert [*waiting.outgoing] == [b"content"]
    connection.reset_stream(waiting)
    assert waiting.state == CLOSED


@pytest.mark.parametrize("status_line", [OK, b"HTTP/1.0 200 OK\r\n"])
def test_content_without_a_length_ends_with_the_connection(status_line):
    connection, stream = asked()

    events = connection.receive_data(status_line + b"\r\nto the end", 0.0)
    assert events == [response(200), ev.DataReceived(1, b"to the end", False)]
    assert connection.receive_eof() == [ev.DataReceived(1, b"", True)]
    assert (connection.closed, connection.takes_requests, stream.state) == (True, False, CLOSED)
    assert connection.receive_eof() == []


@pytest.mark.parametrize(
    "octets",
    [b"", b"HTTP/1.1 2", LENGTH_2[:-1], CHUNKED + b"1\r\n!\r\n", CHUNKED + b"1\r\n!\r\n0\r\n"],
)
def test_the_end_of_the_connection_completes_nothing_else(octets):
    connection, _ = asked()
    connection.receive_data(octets, 0.0)

    assert connection.receive_eof() == []
    assert (connection.closed, connection.has_output) == (True, False)
    assert connection.receive_data(b"ok", 0.0) == []


def test_the_end_of_an_idle_connection_completes_nothing():
    connection = Http1Connection()
    assert connection.receive_eof() == []
    assert not connection.takes_requests

    used, _ = asked()
    used.receive_data(LENGTH_2, 0.0)
    assert used.receive_eof() == []


# -- an answer before the request is complete --------------------------------------------------


def test_an_early_answer_is_told_and_the_rest_of_the_request_may_still_leave():
    connection, stream = uploading()
    events = connection.receive_data(LENGTH_2, 0.0)
    assert [type(event) for event in events] == [ev.ResponseReceived, ev.DataReceived]
    assert connection.streams == {1: stream}

    connection.send_data(stream, b"0123456789", end_stream=True)
    second = connection.send_request(fields())
    assert connection.data_to_send(0.0) == b"0123456789"
    assert (stream.state, connection.streams) == (CLOSED, {})
    assert sent(connection).startswith(b"GET /")
    assert connection.receive_data(NO_CONTENT, 0.0)[0].stream_id == second.stream_id == 2  # type: ignore[attr-defined]


def test_a_reset_behind_an_early_answer_ends_the_connection():
    connection, stream = uploading()
    connection.send_data(stream, b"01234")
    connection.receive_data(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n", 0.0)

    connection.reset_stream(stream, ErrorCode.NO_ERROR)

    assert (connection.takes_requests, connection.streams) == (False, {})
    assert (connection.has_output, connection.data_to_send(0.0)) == (False, b"")


def test_a_second_answer_to_an_unfinished_request_is_a_fault():
    connection, _ = uploading()
    connection.receive_data(LENGTH_2, 0.0)

    assert connection.receive_data(LENGTH_2, 0.0) == [UNASKED]


# -- ends of our own ---------------------------------------------------------------------------


def test_a_request_that_has_not_left_is_withdrawn_without_a_trace():
    connection = Http1Connection()
    first, second = (connection.send_request(fields(path=path)) for path in (b"/1", b"/2"))

    connection.reset_stream(first)

    assert (first.state, connection.takes_requests) == (CLOSED, True)
    assert sent(connection) == b"GET /2 HTTP/1.1\r\nhost: a.test\r\n\r\n"
    assert second.stream_id == 1
    connection.receive_data(LENGTH_2, 0.0)
    withdrawn = connection.send_request(fields())
    connection.reset_stream(withdrawn)
    assert not connection.has_output
    with pytest.raises(UsageError, match="takes no more content"):
        connection.send_data(withdrawn, b"")


def test_a_reset_of_what_has_left_ends_the_connection_and_drops_what_comes():
    connection, stream = asked()
    connection.receive_data(OK + b"content-length: 4\r\n\r\nha", 0.0)

    connection.reset_stream(stream)
    connection.reset_stream(stream)

    assert (connection.takes_requests, connection.closed, stream.state) == (False, True, CLOSED)
    assert connection.receive_data(b"lf" + LENGTH_2, 0.0) == []
    connection.data_consumed(1, 2)
    with pytest.raises(UsageError, match="the connection is closed"):
        connection.send_data(stream, b"")
    with pytest.raises(UsageError, match="the connection is closed"):
        connection.send_trailers(stream, [])


def test_what_the_transport_refused_of_a_request_is_dropped_with_it():
    connection, stream = uploading()
    connection.send_data(stream, b"01234")
    connection.put_back(connection.data_to_send(0.0))

    connection.reset_stream(stream)

    assert (connection.has_output, connection.data_to_send(0.0)) == (False, b"")


def test_a_reset_of_what_is_over_leaves_the_connection_as_it_is():
    connection, stream = asked()
    connection.receive_data(LENGTH_2, 0.0)

    connection.reset_stream(stream, ErrorCode.NO_ERROR)

    assert connection.takes_requests


def test_after_goaway_what_is_under_way_ends_and_nothing_else_leaves():
    connection, _ = asked()
    connection.send_request(fields())

    connection.goaway()

    assert (connection.takes_requests, connection.has_output, connection.closed) == (
        False, False, False,
    )  # fmt: skip
    assert connection.receive_data(LENGTH_2, 0.0)[-1] == ev.DataReceived(1, b"ok", True)
    assert sent(connection) == b""


def test_a_goaway_for_a_fault_closes():
    connection, _ = asked()

    connection.goaway(ErrorCode.INTERNAL_ERROR)

    assert (connection.closed, connection.receive_data(LENGTH_2, 0.0)) == (True, [])


# -- memory ------------------------------------------------------------------------------------


def paused(connection: Http1Connection) -> bool:
    """Asked anew each time, which a type checker cannot know of an attribute."""
    return connection.reading_paused


def test_reading_pauses_while_more_than_a_window_lies_unread():
    connection, _ = asked()
    assert DEFAULT_LIMITS.stream_octets == 2**20
    connection.receive_data(OK + b"content-length: 9999999\r\n\r\n" + bytes(2**20), 0.0)
    assert not paused(connection)

    connection.receive_data(b"x", 0.0)
    assert paused(connection)
    connection.data_consumed(1, 1)
    assert not paused(connection)


def test_what_an_earlier_response_left_unread_counts_too():
    connection, _ = asked()
    connection.receive_data(OK + b"content-length: 2\r\n\r\nok", 0.0)
    connection.send_request(fields())
    sent(connection)
    connection.receive_data(OK + b"content-length: 9999999\r\n\r\n" + bytes(2**20 - 1), 0.0)

    assert paused(connection)
    connection.data_consumed(1, 2)
    assert not paused(connection)


@pytest.mark.parametrize("end", ["reset", "eof"])
def test_a_connection_that_has_ended_pauses_nothing(end):
    """Else the end of the stream would never be seen."""
    connection, stream = asked()
    connection.receive_data(OK + b"\r\n" + bytes(2**21), 0.0)
    assert paused(connection)

    if end == "reset":
        connection.reset_stream(stream)
    else:
        connection.receive_eof()

    assert not paused(connection)
    connection.data_consumed(1, 2**21)


@pytest.mark.parametrize("octets", [-1, 3])
def test_more_than_is_unread_cannot_be_consumed(octets):
    connection, _ = asked()
    connection.receive_data(OK + b"content-length: 5\r\n\r\nok", 0.0)

    with pytest.raises(UsageError, match=f"{octets} octets consumed, 2 are unread"):
        connection.data_consumed(1, octets)
    connection.data_consumed(1, 1)
    with pytest.raises(UsageError, match="2 octets consumed, 1 are unread"):
        connection.data_consumed(1, 2)
    connection.receive_data(b"end", 0.0)
    with pytest.raises(UsageError, match="5 octets consumed, 4 are unread"):
        connection.data_consumed(1, 5)


def test_chunks_that_come_at_once_are_one_event():
    connection, _ = asked()

    events = connection.receive_data(CHUNKED + b"1\r\nx\r\n" * 1000, 0.0)

    assert events == [response(200), ev.DataReceived(1, b"x" * 1000, False)]


# -- faults of the peer ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"\0\0\6\4\0\0\0\0\0\0\3\0\0\0\x64", "the peer speaks HTTP/2, not HTTP/1.1"),
        (b"\x15\3\1\0\2\2\x46", "the peer speaks TLS, not HTTP/1.1"),
        (b"SSH-2.0-OpenSSH", "the peer speaks no HTTP/1.1: it began with b'S'"),
        (b"HTTP/2 200", "the peer speaks no HTTP/1.1: it began with b'HTTP/2'"),
        (b"\r\n" + OK, "the peer speaks no HTTP/1.1: it began with b'\\r'"),
        (b"HTTP/1.1 999999\r\n\r\n", "illegal status line: (b'HTTP/1.1 999999')"),
        (OK + b"no colon\r\n\r\n", "illegal header line: (b'no colon')"),
        (OK + b"content-length: x\r\n\r\n", "bad Content-Length"),
        (
            OK + b"transfer-encoding: gzip, chunked\r\n\r\n",
            "Only Transfer-Encoding: chunked is supported",
        ),
    ],
)
def test_what_is_no_response_ends_the_connection(octets, reason):
    """From the first octet that cannot be one: a peer that speaks otherwise may send no more."""
    assert told(octets) == ([fault(reason)], False)


def test_what_came_before_a_fault_is_told():
    assert told(CHUNKED + b"2\r\nok\r\nnonsense\r\n") == (
        [
            response(200),
            ev.DataReceived(1, b"ok", False),
            fault("illegal chunk header: (b'nonsense\\r\\n')"),
        ],
        False,
    )
    assert told(b"HTTP/1.1 100 Go\r\n\r\nHTTQ") == (
        [
            ev.InformationalReceived(1, 100, [(b":status", b"100")]),
            fault("the peer speaks no HTTP/1.1: it began with b'HTTQ'"),
        ],
        False,
    )


@pytest.mark.parametrize("octets", [LENGTH_2, b"\r\n"])
def test_octets_that_answer_no_request_are_a_fault(octets):
    assert told(LENGTH_2 + octets) == (
        [response(200, (b"content-length", b"2")), ev.DataReceived(1, b"ok", True), UNASKED],
        False,
    )
    assert same_for_all_cuts(octets, first_words) == [UNASKED]


def test_a_peer_that_begins_with_http_2_is_recognised_before_any_request():
    settings = Connection(client=False).data_to_send(0.0)

    assert same_for_all_cuts(settings, first_words) == [
        fault("the peer speaks HTTP/2, not HTTP/1.1")
    ]


def first_words(pieces: list[bytes]) -> list[ev.Event]:
    """What octets come to that nobody has asked for."""
    connection = Http1Connection()
    return [event for piece in pieces for event in connection.receive_data(piece, 0.0)]


def test_a_switch_of_protocols_that_nobody_asked_for_is_a_fault():
    events, _ = told(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n")

    assert [event.error_code for event in events] == [ErrorCode.PROTOCOL_ERROR]


def test_interim_responses_have_a_limit():
    interim = b"HTTP/1.1 100 Go\r\n\r\n"
    connection, _ = asked()
    events = connection.receive_data(interim * DEFAULT_LIMITS.interim_responses, 0.0)
    assert {type(event) for event in events} == {ev.InformationalReceived}

    assert connection.receive_data(interim + NO_CONTENT, 0.0) == [
        ev.ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "over 32 interim responses")
    ]


def large(octets: int, reason: bytes = b"OK") -> bytes:
    """A header section of so many octets, 32 a line included, its reason phrase counted."""
    value = bytes(octets - len(b"x") - 32 - len(reason)).replace(b"\0", b"v")
    return b"HTTP/1.1 204 %s\r\nx: %s\r\n\r\n" % (reason, value)


@pytest.mark.parametrize("piece", [10**6, 1000])
def test_header_sections_have_a_limit(piece):
    def feed(octets: bytes, connection: Http1Connection) -> list[ev.Event]:
        pieces = (octets[at : at + piece] for at in range(0, len(octets), piece))
        return [event for each in pieces for event in connection.receive_data(each, 0.0)]

    limit = DEFAULT_LIMITS.field_section_octets
    assert type(feed(large(limit), asked()[0])[0]) is ev.ResponseReceived
    assert feed(large(limit + 1), asked()[0]) == [TOO_LARGE]
    assert feed(large(limit + 1, b"r" * 60000), asked()[0]) == [TOO_LARGE]
    trailers = b"0\r\nx: %s\r\n\r\n" % (b"v" * limit)
    assert feed(CHUNKED + trailers, asked()[0]) == [response(200), TOO_LARGE]


def test_a_header_section_that_does_not_end_is_not_kept():
    connection, _ = asked()

    assert connection.receive_data(OK + b"x: " + b"v" * 65536, 0.0) == [TOO_LARGE]


def test_a_reason_quotes_no_more_than_is_of_use():
    connection, _ = asked()

    (failed,) = connection.receive_data(OK + b"v" * 5000 + b"\r\n\r\n", 0.0)

    assert type(failed) is ev.ConnectionFailed
    assert len(failed.reason) == REASON_CHARS_MAX


def test_after_a_fault_nothing_is_accepted_or_sent():
    connection, stream = uploading()
    connection.send_data(stream, b"01234")
    connection.receive_data(b"?", 0.0)

    assert (connection.closed, connection.takes_requests, stream.state) == (True, False, CLOSED)
    assert (connection.has_output, connection.data_to_send(0.0)) == (False, b"")
    assert (connection.receive_data(LENGTH_2, 0.0), connection.receive_eof()) == ([], [])


WORDS = [
    OK, b"HTTP/1.0 200\r\n", b"HTTP/1.1 100 Go\r\n", b"HTTP/1.1 204 \r\n", b"\r\n", b"\n", b" ",
    b"content-length: 3\r\n", b"transfer-encoding: chunked\r\n", b"connection: close\r\n",
    b"a: b\r\n", b"abc", b"3\r\n", b"0\r\n", b":", b"\0",
]  # fmt: skip


METHODS = [b"GET", b"HEAD"]


@given(words=st.lists(st.sampled_from(WORDS), max_size=8), method=st.sampled_from(METHODS))
@settings(deadline=None)
def test_whatever_comes_no_cut_changes_what_it_is_taken_for(words, method):
    def feed(pieces: list[bytes]) -> tuple[list[Any], bool, bool]:
        connection, _ = asked(method)
        events: list[Any] = []
        for piece in pieces:
            events += connection.receive_data(piece, 0.0)
        events += connection.receive_eof()
        if events and type(events[-1]) is ev.ConnectionFailed:  # h11 quotes as much as it has
            events[-1] = ev.ConnectionFailed(events[-1].error_code, "")
        return joined(events), connection.takes_requests, connection.has_output

    same_for_all_cuts(b"".join(words), feed)


@given(st.lists(st.sampled_from([LENGTH_2, NO_CONTENT, CHUNKED + b"0\r\n\r\n"]), max_size=5))
@settings(deadline=None)
def test_a_connection_serves_request_after_request(responses):
    connection = Http1Connection()
    for number, octets in enumerate(responses, 1):
        stream = connection.send_request(fields())
        sent(connection)
        connection.receive_data(octets, 0.0)
        assert (stream.stream_id, stream.state, connection.streams) == (number, CLOSED, {})
        assert connection.takes_requests


# -- in the pool -------------------------------------------------------------------------------


def http1() -> Any:
    return Http1Connection()


class Pooled:
    """The real pool over one HTTP/1.1 connection, driven by hand."""

    def __init__(self) -> None:
        self.origin = Origin("http", "a.test", 80)
        self.pool = Pool(HealthPolicy(ping_after_idle=0.0, jitter=False), lambda: 0.5)
        self.first = self.request()
        (self.member,) = self.pool.members
        self.connection = http1()
        self.member.connection = self.connection
        self.pool.receive(self.member, [ev.SettingsReceived({})], 0.0)

    def request(self, method: bytes = b"GET", content: bytes = b"") -> Call:
        length = [(b"content-length", str(len(content)).encode())] if content else []
        call = Call(self.origin, fields(method, *length), content)
        self.pool.request(call, 0.0)
        return call

    def send(self) -> bytes:
        octets = sent(self.connection)
        self.pool.sent(self.member, 0.0, bool(octets), False, False)
        return octets

    def receive(self, octets: bytes) -> None:
        self.pool.receive(self.member, self.connection.receive_data(octets, 0.0), 0.0)


def test_the_pool_sends_one_request_after_the_other():
    pooled = Pooled()
    second = pooled.request(b"POST", b"content")

    assert pooled.send() == b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n"
    pooled.receive(LENGTH_2)
    assert (pooled.first.status, [*pooled.first.chunks], pooled.first.ended) == (200, [b"ok"], True)
    assert pooled.pool.take_chunk(pooled.first, 0.0) == b"ok"
    assert pooled.send().endswith(b"\r\n\r\ncontent")
    pooled.receive(NO_CONTENT)
    assert (second.status, second.ended, pooled.pool.stats()["connections"]) == (204, True, 1)


def test_the_pool_leaves_a_connection_that_says_close():
    pooled = Pooled()
    waiting = pooled.request()
    pooled.send()

    pooled.receive(OK + b"connection: close\r\ncontent-length: 2\r\n\r\nok")

    assert pooled.first.ended
    assert pooled.member not in pooled.pool.members
    assert Finish(pooled.member) in pooled.pool.take_orders()
    assert (waiting.over, len(pooled.pool.members)) == (False, 1)


def test_the_pool_takes_an_early_answer_and_ends_the_connection():
    pooled = Pooled()
    pooled.send()
    pooled.receive(LENGTH_2)
    upload = pooled.request(b"POST", bytes(200_000))
    pooled.connection.data_to_send(0.0)
    pooled.pool.sent(pooled.member, 0.0, True, False, False)

    pooled.receive(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")

    assert (upload.status, upload.ended, [*upload.chunks]) == (413, True, [b"no"])
    assert pooled.member not in pooled.pool.members
    assert pooled.pool.take_chunk(upload, 0.0) == b"no"


def test_the_pool_is_told_of_a_peer_that_breaks_the_rules():
    pooled = Pooled()
    pooled.send()
    pooled.receive(LENGTH_2)
    post = pooled.request(b"POST")
    pooled.send()

    pooled.receive(b"\0\0\0\4")

    assert type(post.error) is RemoteProtocolError
    assert "the peer speaks HTTP/2, not HTTP/1.1" in str(post.error)
    assert (post.error.cause, post.error.maybe_processed) == ("protocol_error", True)
    assert pooled.member not in pooled.pool.members
