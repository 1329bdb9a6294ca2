"""The blocking client against h2lite's server, and against peers that fall silent or go away."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import pytest

import h2lite
from h2lite.client import PooledConnection, connect
from h2lite.errors import (
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    ErrorCode,
    LocalProtocolError,
    PingTimeout,
    PoolTimeout,
    ReadTimeout,
    RemoteProtocolError,
    StreamReset,
    TLSError,
    UsageError,
)
from h2lite.events import (
    DataReceived,
    GoAwayReceived,
    PingAcked,
    PingReceived,
    RequestReceived,
    SettingsAcked,
)
from h2lite.events import StreamReset as StreamWasReset
from h2lite.exchange import Reply, Request
from h2lite.frames import DataFrame, GoAwayFrame, HeadersFrame, PingFrame
from h2lite.message import Headers
from h2lite.settings import SettingId

from .pair import block
from .running import PATIENCE_S, Peer, accepting, peering, serving

OK = [(b":status", b"200")]
CONTENT = bytes(range(256)) * 4096


def answer(request: Request) -> Reply:
    path = request.path.partition("?")[0]
    if path == "/echo":
        return Reply(200, request.body, (("X-Method", request.method),))
    if path == "/big":
        return Reply(200, iter([CONTENT[at : at + 10000] for at in range(0, len(CONTENT), 10000)]))
    if path == "/endless":
        return Reply(200, iter(lambda: bytes(1000), None))
    if path == "/fields":
        fields = [f"{name}: {value}".encode("latin-1") for name, value in request.headers]
        return Reply(200, b"\n".join([request.authority.encode(), *fields]))
    return Reply(404, b"not found\n", (("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")))


def core(connection: PooledConnection) -> Any:
    """The sans-IO connection inside."""
    return connection._member.connection


def deaf(sock) -> None:
    """A peer that reads and says nothing; who gives it up may reset the connection."""
    with contextlib.suppress(ConnectionResetError):
        while sock.recv(65536):
            pass


@pytest.fixture
def connection() -> Iterator[PooledConnection]:
    with serving(answer) as server, connect(server.url, timeout=PATIENCE_S) as connection:
        yield connection


# -- pings -------------------------------------------------------------------------------------


def test_a_ping_returns_its_round_trip_in_seconds(connection):
    results = [connection.ping() for _ in range(3)]

    assert all(result.rtt is not None and 0 < result.rtt < PATIENCE_S for result in results)
    assert all(0 <= result.queued_for < PATIENCE_S for result in results)


def test_connect_is_the_packages_own_name():
    with serving() as server, h2lite.connect(server.url) as connection:
        assert (connection.protocol, connection.tls_version) == ("h2c", None)
        assert connection.address == f"127.0.0.1:{server.port}"
        assert str(connection) == f"{server.url} (127.0.0.1:{server.port})"


def test_a_ping_without_an_answer_times_out_and_the_connection_goes_on():
    def lose_the_first(peer: Peer) -> None:
        peer.until(PingReceived)
        peer.core.data_to_send(0.0)  # lost
        peer.serve()

    with peering(lose_the_first) as peer, connect(peer.url) as connection:
        with pytest.raises(PingTimeout) as caught:
            connection.ping(timeout=0.05)
        assert (connection.ping().rtt or 0.0) > 0

    assert str(caught.value) == (
        f"http://127.0.0.1:{peer.port} (127.0.0.1:{peer.port}) "
        "did not answer a PING within 0.05 s"
    )


def test_an_answer_that_comes_late_is_not_taken_for_another_pings():
    def answer_late(peer: Peer) -> None:
        peer.until(PingReceived)
        late = peer.core.data_to_send(0.0)
        peer.until(PingReceived)
        peer.sock.sendall(late)
        peer.serve()

    with peering(answer_late) as peer, connect(peer.url) as connection:
        with pytest.raises(PingTimeout):
            connection.ping(timeout=0.05)
        result = connection.ping()
        assert result.rtt is not None
        assert core(connection)._pings == {}


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_a_timeout_that_is_none_is_refused_and_nothing_is_sent(connection, timeout):
    for call in (
        lambda: connection.ping(timeout=timeout),
        lambda: connection.stream("GET", "/echo", timeout=timeout),
        lambda: connect(str(connection.origin), timeout=timeout),
    ):
        with pytest.raises(UsageError, match="timeout of"):
            call()
    connection.ping()


def test_watching_answers_the_peers_pings():
    answered = threading.Event()

    def ask(peer: Peer) -> None:
        peer.until(SettingsAcked)
        peer.core.ping(b"peer's  ", 0.0)
        peer.flush()
        assert peer.until(PingAcked).opaque_data == b"peer's  "
        answered.set()
        peer.serve()

    with peering(ask) as peer, connect(peer.url) as connection:
        while not answered.is_set():
            connection.watch(0.01)


def test_watching_a_connection_that_ends_says_so():
    with peering(lambda peer: peer.until(SettingsAcked)) as peer:
        connection = connect(peer.url)
        with pytest.raises(ConnectionLost, match=r"closed the connection|reset"):
            connection.watch(PATIENCE_S)
        connection.close()


# -- requests ----------------------------------------------------------------------------------


def test_a_request_is_answered_with_status_fields_and_content(connection):
    response = connection.stream("PUT", "/echo?x", body=b"some content")

    assert (response.status, response.http_version) == (200, "HTTP/2")
    assert list(response.headers) == [("x-method", "PUT"), ("content-length", "12")]
    assert response.read() == b"some content"
    assert response.read() == b"some content"
    assert list(response.trailers) == []


@pytest.mark.rfc("authority-sent", "field-name-lowered")
def test_a_request_carries_its_authority_and_lower_case_names(connection):
    response = connection.stream("GET", "/fields", headers={"X-Some-NAME": "Value"})

    assert response.read() == f"{connection.origin.authority}\nx-some-name: Value".encode()


def test_content_is_streamed_as_it_comes(connection):
    pieces = list(connection.stream("GET", "/big").iter_bytes())

    assert len(pieces) > 1
    assert b"".join(pieces) == CONTENT


def test_a_megabyte_is_uploaded_and_comes_back(connection):
    assert connection.stream("PUT", "/echo", body=CONTENT).read() == CONTENT


def test_head_has_no_content(connection):
    response = connection.stream("HEAD", "/echo")

    assert (response.status, response.read()) == (200, b"")


def test_a_404_is_a_response_like_any_other(connection):
    with connection.stream("GET", "/nowhere") as response:
        assert (response.status, response.read()) == (404, b"not found\n")
        assert response.headers.get_all("set-cookie") == ["a=1", "b=2"]


def test_two_responses_may_be_read_alternately(connection):
    first = connection.stream("GET", "/big")
    second = connection.stream("GET", "/big")
    octets = [b"", b""]
    for pieces in zip_longest(first.iter_bytes(), second.iter_bytes(), fillvalue=b""):
        octets[0] += pieces[0]
        octets[1] += pieces[1]

    assert octets == [CONTENT, CONTENT]


def test_trailers_are_there_once_the_content_is_read():
    def with_trailers(peer: Peer) -> None:
        request = peer.until(RequestReceived)
        stream = peer.core.streams[request.stream_id]
        peer.core.send_response(stream, [(b":status", b"103")])
        peer.core.send_response(stream, OK)
        peer.core.send_data(stream, b"content")
        peer.core.send_trailers(stream, [(b"checksum", b"1")])
        peer.serve()

    with peering(with_trailers) as peer, connect(peer.url) as connection:
        response = connection.stream("GET", "/")
        assert (response.status, response.read()) == (200, b"content")
        assert list(response.trailers) == [("checksum", "1")]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"method": "GE T\u00e9"}, UsageError),
        ({"method": ""}, LocalProtocolError),
        ({"path": ""}, LocalProtocolError),
        ({"path": "/\u2603"}, UsageError),
        ({"headers": {"connection": "close"}}, LocalProtocolError),
        ({"headers": {"na me": "1"}}, LocalProtocolError),
        ({"headers": {"name": "1\r\nother: 2"}}, LocalProtocolError),
        ({"headers": {"name": "\u2603"}}, UsageError),
        ({"headers": {":path": "/other"}}, LocalProtocolError),
    ],
)
def test_a_request_that_must_not_be_sent_is_refused_and_nothing_is_sent(
    connection, arguments, error
):
    with pytest.raises(error) as caught:
        connection.stream(**{"method": "GET", "path": "/echo", **arguments})

    assert type(caught.value) is error
    connection.stream("GET", "/echo")
    assert core(connection)._next_stream_id == 3


# -- requests that fail ------------------------------------------------------------------------


def test_a_request_without_a_response_times_out_and_is_cancelled():
    resets: list[StreamWasReset] = []

    def silent(peer: Peer) -> None:
        peer.until(RequestReceived)
        resets.append(peer.until(StreamWasReset))
        peer.serve()

    with peering(silent) as peer, connect(peer.url) as connection:
        with pytest.raises(ReadTimeout):
            connection.stream("GET", "/", timeout=0.05)
        connection.ping()
        assert (connection.requests, core(connection).streams) == (0, {})
    assert [(event.stream_id, event.error_code) for event in resets] == [(1, ErrorCode.CANCEL)]


def test_the_timeout_covers_the_content_too():
    def half(peer: Peer) -> None:
        request = peer.until(RequestReceived)
        stream = peer.core.streams[request.stream_id]
        peer.core.send_response(stream, OK)
        peer.core.send_data(stream, b"the first half")
        peer.serve()

    with peering(half) as peer, connect(peer.url) as connection:
        response = connection.stream("GET", "/", timeout=0.2)
        pieces = response.iter_bytes()
        assert next(pieces) == b"the first half"
        with pytest.raises(ReadTimeout):
            next(pieces)
        connection.ping()


def test_a_request_that_never_left_is_withdrawn_without_a_trace():
    def one_at_a_time(peer: Peer) -> None:
        request = peer.until(RequestReceived)
        stream = peer.core.streams[request.stream_id]
        peer.core.send_response(stream, OK)
        peer.flush()
        assert isinstance(peer.until(PingReceived), PingReceived)
        assert list(peer.core.streams) == [1]
        peer.core.send_data(stream, b"done", end_stream=True)
        peer.flush()
        request = peer.until(RequestReceived)
        assert request.stream_id == 3
        assert dict(request.fields)[b":path"] == b"/third"
        peer.core.send_response(peer.core.streams[3], OK, end_stream=True)
        peer.serve()

    def limited(sock) -> None:
        peer = Peer(sock)
        peer.core = type(peer.core)(
            client=False, settings={SettingId.MAX_CONCURRENT_STREAMS: 1}
        )
        peer.flush()
        one_at_a_time(peer)

    with accepting(limited) as peer, connect(peer.url) as connection:
        first = connection.stream("GET", "/first")
        with pytest.raises(PoolTimeout):
            connection.stream("GET", "/second", timeout=0.05)
        connection.ping()
        assert first.read() == b"done"
        assert connection.stream("GET", "/third").status == 200


def test_a_stream_the_peer_resets_fails_alone():
    def reset(peer: Peer) -> None:
        request = peer.until(RequestReceived)
        peer.core.reset_stream(peer.core.streams[request.stream_id], ErrorCode.INTERNAL_ERROR)
        peer.serve()

    with peering(reset) as peer, connect(peer.url) as connection:
        with pytest.raises(StreamReset, match="peer reset the stream, INTERNAL_ERROR") as caught:
            connection.stream("GET", "/")
        connection.ping()
    assert caught.value.error_code == ErrorCode.INTERNAL_ERROR


@pytest.mark.rfc("early-response")
def test_a_complete_response_is_kept_though_its_unfinished_request_is_reset():
    def enough(peer: Peer) -> None:
        request = peer.until(RequestReceived)
        stream = peer.core.streams[request.stream_id]
        peer.core.send_response(stream, OK)
        peer.core.send_data(stream, b"enough", end_stream=True)
        peer.flush()
        peer.core.reset_stream(stream, ErrorCode.NO_ERROR)
        peer.serve()

    with peering(enough) as peer, connect(peer.url) as connection:
        # More than the peer's windows hold, so it cannot all have left.
        response = connection.stream("POST", "/", body=bytes(2**23))
        connection.ping()  # the RST_STREAM has come by now
        assert (response.status, response.read()) == (200, b"enough")
        connection.ping()


def test_a_malformed_response_fails_alone():
    def malformed(peer: Peer) -> None:
        request = peer.until(RequestReceived)
        # Static table, §6.1 of RFC 7541: entry 4, ":path: /", which no response carries.
        peer.sock.sendall(HeadersFrame(request.stream_id, b"\x84", True).encode())
        peer.serve()

    with peering(malformed) as peer, connect(peer.url) as connection:
        with pytest.raises(StreamReset, match="h2lite reset the stream, PROTOCOL_ERROR"):
            connection.stream("GET", "/")
        connection.ping()


def test_a_response_closed_early_frees_its_stream(connection):
    response = connection.stream("GET", "/endless")
    next(response.iter_bytes())
    response.close()
    response.close()

    assert (connection.requests, core(connection).streams) == (0, {})
    assert core(connection)._unread == 0
    with pytest.raises(UsageError, match="the response was closed"):
        response.read()
    assert connection.stream("PUT", "/echo", body=b"again").read() == b"again"


def test_leaving_the_block_closes_the_response(connection):
    with connection.stream("GET", "/endless"):
        pass

    assert core(connection).streams == {}


def test_a_connection_lost_in_the_middle_of_the_content_is_an_error():
    def half(peer: Peer) -> None:
        request = peer.until(RequestReceived)
        stream = peer.core.streams[request.stream_id]
        peer.core.send_response(stream, OK)
        peer.core.send_data(stream, b"the first half")
        peer.flush()

    with peering(half) as peer:
        connection = connect(peer.url)
        pieces = connection.stream("GET", "/").iter_bytes()
        assert next(pieces) == b"the first half"
        with pytest.raises(ConnectionLost, match=r"closed the connection|reset"):
            next(pieces)
        connection.close()


def test_a_peer_that_breaks_http2_is_told_why():
    told: list[GoAwayReceived] = []

    def broken(peer: Peer) -> None:
        peer.until(RequestReceived)
        peer.sock.sendall(b"\0\0\1" + bytes([PingFrame.TYPE]) + bytes(5) + b"x")
        told.append(peer.until(GoAwayReceived))

    with peering(broken) as peer:
        connection = connect(peer.url)
        with pytest.raises(RemoteProtocolError, match="broke HTTP/2, FRAME_SIZE_ERROR") as caught:
            connection.stream("GET", "/")
        connection.close()
    assert caught.value.error_code == ErrorCode.FRAME_SIZE_ERROR
    assert told[0].error_code == ErrorCode.FRAME_SIZE_ERROR


# -- GOAWAY ------------------------------------------------------------------------------------


def test_a_graceful_goaway_lets_what_runs_finish_and_takes_no_more():
    def leave(peer: Peer) -> None:
        request = peer.until(RequestReceived)
        stream = peer.core.streams[request.stream_id]
        peer.core.send_response(stream, OK)
        peer.core.goaway()
        peer.flush()
        peer.until(PingReceived)
        peer.core.send_data(stream, b"the last answer", end_stream=True)
        peer.serve()

    with peering(leave) as peer, connect(peer.url) as connection:
        running = connection.stream("GET", "/")
        connection.ping()
        with pytest.raises(ConnectionLost, match="said GOAWAY NO_ERROR") as caught:
            connection.stream("GET", "/")
        assert running.read() == b"the last answer"
        with pytest.raises(ConnectionLost, match="said GOAWAY NO_ERROR"):
            connection.ping()  # it was closed with its last stream
    assert caught.value.error_code == ErrorCode.NO_ERROR


def test_a_goaway_with_an_error_ends_every_call():
    def dismiss(peer: Peer) -> None:
        peer.until(RequestReceived)
        peer.core.goaway(ErrorCode.ENHANCE_YOUR_CALM, b"too_many_pings")
        peer.flush()

    with peering(dismiss) as peer:
        connection = connect(peer.url)
        with pytest.raises(ConnectionLost) as caught:
            connection.stream("GET", "/")
        with pytest.raises(ConnectionLost) as again:
            connection.ping()
        connection.close()

    assert str(caught.value).endswith("said GOAWAY ENHANCE_YOUR_CALM b'too_many_pings'")
    assert str(again.value) == str(caught.value)
    assert caught.value.error_code == again.value.error_code == ErrorCode.ENHANCE_YOUR_CALM


def test_a_request_the_goaway_left_out_is_refused():
    def left_out(peer: Peer) -> None:
        peer.until(RequestReceived)
        peer.sock.sendall(GoAwayFrame(0, ErrorCode.NO_ERROR, b"").encode())
        peer.serve()

    with (
        peering(left_out) as peer,
        connect(peer.url) as connection,
        pytest.raises(StreamReset, match="left out by GOAWAY") as caught,
    ):
        connection.stream("GET", "/")
    assert caught.value.error_code == ErrorCode.REFUSED_STREAM


# -- the end -----------------------------------------------------------------------------------


def test_every_call_on_a_lost_connection_raises_an_error_of_its_own():
    def lose(peer: Peer) -> None:
        peer.until(DataReceived)

    with peering(lose) as peer:
        connection = connect(peer.url)
        errors: list[BaseException] = []
        for call in (
            lambda: connection.stream("PUT", "/", body=b"x"),
            lambda: connection.stream("GET", "/"),
            connection.ping,
            connection.ping,
            lambda: connection.watch(1.0),
        ):
            with pytest.raises(ConnectionLost) as caught:
                call()
            errors.append(caught.value)
        connection.close()

    assert len({id(error) for error in errors}) == len(errors)
    assert len({str(error) for error in errors}) == 1


def test_reading_a_failed_response_twice_raises_two_errors(connection):
    response = connection.stream("GET", "/endless")
    response.close()
    errors = []
    for _ in range(2):
        with pytest.raises(UsageError) as caught:
            response.read()
        errors.append(caught.value)

    assert errors[0] is not errors[1]


def test_closing_twice_does_nothing_more_and_every_call_after_it_is_refused():
    before = sorted(os.listdir("/dev/fd"))
    with serving(answer) as server:
        connection = connect(server.url)
        unread = connection.stream("GET", "/endless")
        connection.close()
        connection.close()

        for call in (
            connection.ping,
            lambda: connection.stream("GET", "/"),
            lambda: connection.watch(0.1),
        ):
            with pytest.raises(UsageError, match="is closed"):
                call()
        with pytest.raises(ConnectionLost, match="the pool was closed"):
            unread.read()
        unread.close()
    assert sorted(os.listdir("/dev/fd")) == before


@pytest.mark.rfc("goaway-before-close")
def test_closing_says_goaway():
    said: list[GoAwayReceived] = []

    with peering(lambda peer: said.append(peer.until(GoAwayReceived))) as peer:
        connect(peer.url).close()

    assert said == [GoAwayReceived(0, ErrorCode.NO_ERROR, b"")]


@pytest.mark.parametrize("received", [True, False], ids=["reading", "writing"])
def test_a_call_that_is_interrupted_ends_the_connection(received):
    """Octets were read and not understood, or sent in part: the two sides do not agree any more."""
    armed: list[bool] = []

    def tap(crossed: bool, octets: bytes) -> None:
        if armed and crossed == received:
            armed.clear()
            raise KeyboardInterrupt

    with serving() as server, connect(server.url, tap=tap, background=False) as connection:
        armed.append(True)
        with pytest.raises(KeyboardInterrupt):
            connection.ping()
        with pytest.raises(ConnectionLost, match="interrupted here") as caught:
            connection.ping()
    assert caught.value.cause == "local"


def test_threads_take_turns_on_one_connection(connection):
    rtts: list[float | None] = []
    faults: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(50):
                rtts.append(connection.ping().rtt)
                assert connection.stream("PUT", "/echo", body=b"x").read() == b"x"
        except BaseException as error:  # noqa: BLE001  shown by the assertion below
            faults.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)

    assert faults == []
    assert len(rtts) == 200


# -- connecting --------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["ftp://localhost", "localhost:80", "http://", "http://a b/"])
def test_a_bad_url_is_refused(url):
    with pytest.raises(UsageError, match="bad URL"):
        connect(url)


def test_a_certificate_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read certificates from .*No such file"):
        connect("https://localhost", cafile=str(tmp_path / "none.pem"))


def test_a_refused_connection_leaves_nothing_open():
    with serving() as server:
        port = server.port
    before = sorted(os.listdir("/dev/fd"))

    with pytest.raises(ConnectError, match="connection refused"):
        connect(f"http://127.0.0.1:{port}")

    assert sorted(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_peer_that_says_nothing_is_given_up_in_time(scheme):
    before = sorted(os.listdir("/dev/fd"))

    with accepting(deaf) as silent:
        began = time.monotonic()
        with pytest.raises(ConnectTimeout, match=r"0\.1 s"):
            connect(f"{scheme}://127.0.0.1:{silent.port}", timeout=0.1)
        assert time.monotonic() - began < PATIENCE_S / 2

    assert sorted(os.listdir("/dev/fd")) == before


def test_a_peer_that_speaks_http1_is_no_http2_peer():
    def http1(sock) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        while sock.recv(65536):
            pass

    with accepting(http1) as peer, pytest.raises(TLSError, match=r"the peer speaks HTTP/1\.1"):
        connect(peer.url)


def test_a_peer_that_hangs_up_is_no_http2_peer():
    with accepting(lambda sock: None) as peer, pytest.raises(TLSError, match="did not begin"):
        connect(peer.url)


def test_the_tap_sees_both_directions():
    seen: dict[bool, bytes] = {True: b"", False: b""}

    def tap(received: bool, octets: bytes) -> None:
        seen[received] += octets

    with serving() as server, connect(server.url, tap=tap) as connection:
        connection.ping()

    head = PingFrame(bytes(8)).encode()[:9]
    assert head in seen[False]
    opaque_data = seen[False].partition(head)[2][:8]
    assert PingFrame(opaque_data, ack=True).encode() in seen[True]


def test_headers_compare_names_without_regard_to_case():
    headers = Headers([(b":status", b"200"), (b"a", b"1"), (b"b", b"\xe9"), (b"a", b"2")])

    assert (headers["A"], headers.get("B"), headers.get("c"), headers.get("c", "")) == (
        "1, 2",
        "\u00e9",
        None,
        "",
    )
    assert ("A" in headers, "c" in headers, len(headers)) == (True, False, 3)
    assert repr(headers) == "Headers([('a', '1'), ('b', '\u00e9'), ('a', '2')])"
    with pytest.raises(KeyError):
        headers["c"]


def test_what_came_before_a_reset_in_the_same_turn_is_still_the_users():
    def resets(peer: Peer) -> None:
        stream = peer.core.streams[peer.until(RequestReceived).stream_id]
        peer.core.send_response(stream, OK)
        peer.core.send_data(stream, b"half")
        octets = peer.core.data_to_send(0.0)
        peer.core.reset_stream(stream, ErrorCode.INTERNAL_ERROR)
        peer.sock.sendall(octets + peer.core.data_to_send(0.0))
        peer.serve()

    with peering(resets) as peer, connect(peer.url) as connection:
        response = connection.stream("GET", "/")
        pieces = response.iter_bytes()
        assert (response.status, next(pieces)) == (200, b"half")
        with pytest.raises(StreamReset, match="INTERNAL_ERROR"):
            next(pieces)


@pytest.mark.rfc("connection-error-closes")
@pytest.mark.parametrize("fault", [True, False], ids=["after a fault", "at close"])
def test_a_goaway_of_ours_is_read_whatever_the_peer_still_sends(fault):
    """A socket closed with octets unread resets the connection, and takes the GOAWAY along."""
    said: list[bytes] = []

    def talkative(peer: Peer) -> None:
        peer.until(RequestReceived)
        stream = peer.core.streams[1]
        peer.core.send_response(stream, OK)
        peer.core.send_data(stream, bytes(500_000))
        faulty = b"\x00\x00\x07\x06\x00\x00\x00\x00\x00" + bytes(7) if fault else b""
        peer.sock.sendall(peer.core.data_to_send(0.0) + faulty + bytes(300_000))
        while octets := peer.sock.recv(65536):
            said.append(octets)

    with peering(talkative) as peer, connect(peer.url) as connection:
        response = connection.stream("GET", "/")
        if fault:
            with pytest.raises(RemoteProtocolError):
                response.read()

    goaway = GoAwayFrame(0, ErrorCode.FRAME_SIZE_ERROR, b"PING of 7 octets, want 8")
    expected = goaway if fault else GoAwayFrame(0, ErrorCode.NO_ERROR)
    assert b"".join(said).endswith(expected.encode())


@pytest.mark.rfc("goaway-before-close")
def test_a_goaway_with_an_error_is_answered_with_ours():
    said: list[GoAwayReceived] = []

    def leaving(peer: Peer) -> None:
        peer.until(RequestReceived)
        peer.core.send_response(peer.core.streams[1], OK)
        peer.flush()
        peer.sock.sendall(GoAwayFrame(1, ErrorCode.INTERNAL_ERROR).encode())
        peer.core.send_data(peer.core.streams[1], b"the rest", end_stream=True)
        peer.flush()
        said.append(peer.until(GoAwayReceived))

    with (
        peering(leaving) as peer,
        connect(peer.url) as connection,
    ):
        assert connection.request("GET", "/").read() == b"the rest"
        with pytest.raises(ConnectionLost, match="said GOAWAY INTERNAL_ERROR"):
            connection.watch(PATIENCE_S)

    assert said == [GoAwayReceived(0, ErrorCode.NO_ERROR, b"")]


@pytest.mark.rfc("malformed-stream-error")
def test_nothing_of_a_malformed_response_is_the_users_to_see():
    def ends_short(peer: Peer) -> None:
        peer.until(RequestReceived)
        fields = block([*OK, (b"content-length", b"9")])
        frames = HeadersFrame(1, fields).encode() + DataFrame(1, b"short", True).encode()
        peer.sock.sendall(frames)
        peer.serve()

    with (
        peering(ends_short) as peer,
        connect(peer.url) as connection,
        pytest.raises(StreamReset, match="malformed message"),
    ):
        connection.stream("GET", "/")


def test_watch_takes_no_time_that_is_none(connection):
    with pytest.raises(UsageError, match="timeout of nan"):
        connection.watch(float("nan"))
    connection.watch(-1.0)  # over already: what is there is served, once
