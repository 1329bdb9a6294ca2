"""`ConnectionPool` and what it gives out, as documented, on real sockets."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import h2lite
from h2lite import errors
from h2lite.client import ConnectionPool, Response, connect
from h2lite.errors import ErrorCode, H2liteError, UsageError
from h2lite.events import DataReceived, RequestReceived
from h2lite.events import StreamReset as StreamWasReset
from h2lite.exchange import Reply, Request
from h2lite.frames import GoAwayFrame
from h2lite.health import HealthPolicy
from h2lite.http1 import Http1Connection
from h2lite.settings import SettingId
from h2lite.timeout import Timeout
from h2lite.transport import SocketOptions

from .running import PATIENCE_S, Peer, accepting, hello, peering, serving
from .test_engine import QUIET, until

OK = [(b":status", b"200")]
CONTENT = bytes(range(256)) * 1000
BRIEF_S = 0.05  # a timeout that is meant to run out

pytestmark = pytest.mark.filterwarnings("error")


def echo(request: Request) -> Reply:
    """What was asked, in headers, and its content again."""
    headers = [("x-method", request.method), ("x-path", request.path)]
    headers += [(f"x-got-{name}", value) for name, value in request.headers]
    headers += [(f"x-trailer-{name}", value) for name, value in request.trailers]
    return Reply(200, request.body, headers)


def in_pieces(request: Request) -> Reply:
    return Reply(200, iter([bytes(1000)] * 50))


def respond(peer: Peer, content: bytes = b"ok") -> None:
    """Read a request to its end, answer it, and serve until the client has gone."""
    request = peer.until(RequestReceived)
    stream = peer.core.streams[request.stream_id]
    peer.core.send_response(stream, OK)
    peer.core.send_data(stream, content, end_stream=True)
    peer.serve()


def silent(peer: Peer) -> None:
    """Read a request and say nothing until the client has gone."""
    peer.until(RequestReceived)
    peer.serve()


# -- requests ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
def test_each_method_has_a_call_of_its_name(method):
    with serving(echo) as server, ConnectionPool(health=QUIET) as pool:
        response = getattr(pool, method.lower())(
            f"{server.url}/a?b=c", headers={"X-One": "1"}, timeout=PATIENCE_S
        )
        assert isinstance(response, Response)
        assert (response.status, response.http_version) == (200, "HTTP/2")
        assert (response.headers["x-method"], response.headers["x-path"]) == (method, "/a?b=c")
        assert response.headers["x-got-x-one"] == "1"
        assert response.connection == pool.connections[0]
        assert repr(response) == "<Response 200, HTTP/2>"


def test_a_response_that_was_read_whole_can_be_read_again_and_gone_through():
    with serving(in_pieces) as server, ConnectionPool(health=QUIET) as pool:
        response = pool.get(server.url)
        assert response.read() == response.read() == b"".join(response.iter_bytes())
        assert len(response.read()) == 50_000
        response.close()
        assert len(response.read()) == 50_000


def test_what_was_gone_through_is_not_read_again():
    with (
        serving(in_pieces) as server,
        ConnectionPool(health=QUIET) as pool,
        pool.stream("GET", server.url) as response,
    ):
        first = next(response.iter_bytes())
        assert len(first) + len(response.read()) == 50_000


def test_interim_responses_and_trailers_are_there_in_text():
    def script(peer: Peer) -> None:
        peer.until(RequestReceived)
        stream = peer.core.streams[1]
        peer.core.send_response(stream, [(b":status", b"103"), (b"link", b"</a>")])
        peer.core.send_response(stream, OK)
        peer.core.send_data(stream, b"content")
        peer.core.send_trailers(stream, [(b"sum", b"1")])
        peer.serve()

    with peering(script) as peer, ConnectionPool(health=QUIET) as pool:
        response = pool.get(peer.url)
        ((status, headers),) = response.interim
        assert (status, headers["Link"]) == (103, "</a>")
        assert (response.read(), list(response.trailers)) == (b"content", [("sum", "1")])


def test_a_response_that_is_larger_than_what_is_kept_is_told_and_reset():
    resets: list[StreamWasReset] = []

    def script(peer: Peer) -> None:
        peer.until(RequestReceived)
        peer.core.send_response(peer.core.streams[1], OK)
        peer.core.send_data(peer.core.streams[1], bytes(2000))
        peer.flush()
        resets.append(peer.until(StreamWasReset))
        peer.serve()

    with peering(script) as peer, ConnectionPool(content_octets_max=1999, health=QUIET) as pool:
        with pytest.raises(h2lite.ResponseTooLarge, match="more than 1999 octets"):
            pool.get(peer.url)
        until(lambda: resets)
    assert resets[0].error_code == ErrorCode.CANCEL


def test_a_response_of_just_what_is_kept_is_read_and_a_larger_one_can_be_streamed():
    with (
        serving(in_pieces) as server,
        ConnectionPool(content_octets_max=50_000, health=QUIET) as pool,
    ):
        assert len(pool.get(server.url).read()) == 50_000
    with (
        serving(in_pieces) as server,
        ConnectionPool(content_octets_max=0, health=QUIET) as pool,
        pool.stream("GET", server.url) as response,
    ):
        assert sum(map(len, response.iter_bytes())) == 50_000


def test_a_future_fails_with_a_response_that_is_larger_than_what_is_kept():
    with serving(in_pieces) as server, ConnectionPool(content_octets_max=9, health=QUIET) as pool:
        with pytest.raises(h2lite.ResponseTooLarge):
            pool.submit("GET", server.url).result(PATIENCE_S)
        assert pool.connections[0].requests == 0


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (CONTENT, True),
        (bytearray(CONTENT), True),
        (memoryview(CONTENT), True),
        (io.BytesIO(CONTENT), True),
        ([CONTENT[:100], bytearray(CONTENT[100:])], False),
        (iter([CONTENT[:100], b"", CONTENT[100:]]), False),
    ],
    ids=["bytes", "bytearray", "memoryview", "file", "list", "iterator"],
)
def test_bodies_of_every_kind_arrive_with_their_length_where_it_is_known(body, length):
    with serving(echo) as server, ConnectionPool(health=QUIET) as pool:
        response = pool.put(server.url, body=body)
        assert response.read() == CONTENT
        assert ("x-got-content-length" in response.headers) == length


def test_a_file_is_sent_from_where_it_stands_and_left_open():
    file = io.BytesIO(CONTENT)
    file.seek(1000)
    with serving(echo) as server, ConnectionPool(health=QUIET) as pool:
        response = pool.put(server.url, body=file)
        assert response.read() == CONTENT[1000:]
        assert response.headers["x-got-content-length"] == str(len(CONTENT) - 1000)
    assert not file.closed


@pytest.mark.parametrize("body", [b"abc", [b"a", b"bc"]], ids=["octets", "list"])
def test_trailers_may_be_filled_in_while_the_body_is_read(body):
    trailers: list[tuple[str, str]] = []

    def pieces() -> Iterator[bytes]:
        yield from [body] if isinstance(body, bytes) else body
        trailers.append(("sum", "6"))

    with serving(echo) as server, ConnectionPool(health=QUIET) as pool:
        response = pool.put(server.url, body=pieces(), trailers=trailers)
        assert (response.read(), response.headers["x-trailer-sum"]) == (b"abc", "6")
        response = pool.put(server.url, body=body, trailers=[("sum", "7")])
        assert (response.read(), response.headers["x-trailer-sum"]) == (b"abc", "7")


def test_what_a_body_raises_comes_through_and_costs_its_stream_alone():
    def broken() -> Iterator[bytes]:
        yield b"abc"
        raise LookupError("no more")

    with serving(echo) as server, ConnectionPool(health=QUIET) as pool:
        with pytest.raises(LookupError, match="no more"):
            pool.put(server.url, body=broken())
        with pytest.raises(UsageError, match="a body gives int"):
            pool.put(server.url, body=[1])  # type: ignore[list-item]
        assert pool.get(server.url).status == 200
        assert (pool.stats()["dials"], pool.connections[0].requests) == (1, 0)


# -- bodies that are sent again ----------------------------------------------------------------


def leave_out(peer: Peer) -> None:
    """A GOAWAY that says that nothing was acted on, in the middle of the request's content."""
    peer.until(DataReceived)
    peer.sock.sendall(GoAwayFrame(0, ErrorCode.NO_ERROR).encode())
    peer.serve()


def whole(seen: list[int]) -> Callable[[Peer], None]:
    """Read a request to its end and answer."""

    def script(peer: Peer) -> None:
        while True:
            for event in peer.receive():
                if isinstance(event, DataReceived):
                    seen.append(len(event.data))
                    peer.core.data_consumed(event.stream_id, len(event.data))
                    if event.end_stream:
                        peer.core.send_response(peer.core.streams[1], OK, end_stream=True)
                        return peer.serve()
            peer.flush()

    return script


@pytest.mark.parametrize("kind", ["octets", "file", "list"])
def test_a_body_that_can_be_given_again_is_sent_again_after_a_goaway(kind, monkeypatch):
    monkeypatch.setattr("h2lite.retry.FIRST_DELAY_S", 0.0)  # before the next dial
    body: Any = {
        "octets": CONTENT,
        "file": io.BytesIO(CONTENT),
        "list": [CONTENT[:1000], CONTENT[1000:]],
    }[kind]
    seen: list[int] = []
    with (
        peering(leave_out, whole(seen)) as peer,
        ConnectionPool(health=HealthPolicy(ping_after_idle=0, jitter=False)) as pool,
    ):
        assert pool.post(peer.url, body=body, timeout=PATIENCE_S).status == 200
        assert (pool.stats()["dials"], pool.stats()["retries"]) == (2, 1)
        pool.close()
    assert sum(seen) == len(CONTENT)


def test_an_iterator_cannot_be_sent_again_and_the_error_says_what_happened():
    with peering(leave_out) as peer, ConnectionPool(health=QUIET) as pool:
        with pytest.raises(h2lite.StreamReset, match="left out by GOAWAY") as caught:
            pool.post(peer.url, body=iter([CONTENT, CONTENT]))
        assert caught.value.safe_to_retry  # with a body of one's own
        pool.close()


def test_a_refused_request_is_repeated_on_the_same_connection():
    def refuse_the_first(peer: Peer) -> None:
        event = peer.until(RequestReceived)
        stream = peer.core.streams[event.stream_id]
        peer.core.reset_stream(stream, ErrorCode.REFUSED_STREAM)
        peer.flush()
        respond(peer)

    with peering(refuse_the_first) as peer, ConnectionPool(health=QUIET) as pool:
        assert pool.post(peer.url, body=[b"abc"]).read() == b"ok"
        assert (pool.stats()["dials"], pool.stats()["retries"]) == (1, 1)


def refuse(peer: Peer) -> None:
    event = peer.until(RequestReceived)
    peer.core.reset_stream(peer.core.streams[event.stream_id], ErrorCode.REFUSED_STREAM)
    peer.serve()


def test_without_retries_nothing_is_repeated():
    with peering(refuse) as peer, ConnectionPool(health=QUIET) as pool:
        with pytest.raises(h2lite.StreamReset) as caught:
            pool.get(peer.url, retries=0)
        assert caught.value.error_code == ErrorCode.REFUSED_STREAM
        assert caught.value.safe_to_retry
        assert pool.stats()["retries"] == 0


def lose(peer: Peer) -> None:
    peer.until(RequestReceived)


@pytest.mark.parametrize(
    ("method", "options", "repeated"),
    [
        ("GET", {}, True),
        ("GET", {"retries": 0}, False),
        ("PUT", {}, False),
        ("PUT", {"idempotent": True}, True),
        ("DELETE", {"idempotent": True}, True),
        ("POST", {"idempotent": True}, False),
    ],
)
def test_what_a_lost_connection_took_along_is_repeated_where_that_is_safe(
    method, options, repeated, monkeypatch
):
    monkeypatch.setattr("h2lite.retry.FIRST_DELAY_S", 0.0)  # before the next dial
    scripts = [lose, respond] if repeated else [lose]
    with (
        peering(*scripts) as peer,
        ConnectionPool(health=HealthPolicy(ping_after_idle=0, jitter=False)) as pool,
    ):
        if repeated:
            assert pool.request(method, peer.url, **options).read() == b"ok"
        else:
            with pytest.raises(h2lite.ConnectionLost) as caught:
                pool.request(method, peer.url, **options)
            assert caught.value.maybe_processed
            assert not caught.value.safe_to_retry
        pool.close()


# -- timeouts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "timeout", [BRIEF_S, Timeout(total=BRIEF_S), Timeout(read=BRIEF_S)], ids=["s", "total", "read"]
)
@pytest.mark.parametrize("whose", ["the pool's", "the request's"])
def test_a_response_that_does_not_come_in_time_is_a_read_timeout(timeout, whose):
    pools = {"timeout": timeout} if whose == "the pool's" else {}
    options = {"timeout": timeout} if whose == "the request's" else {}
    with peering(silent) as peer, ConnectionPool(health=QUIET, **pools) as pool:
        with pytest.raises(h2lite.ReadTimeout) as caught:
            pool.get(peer.url, **options)
        assert caught.value.maybe_processed
        assert caught.value.connection == pool.connections[0]


def trickle(peer: Peer) -> None:
    """Answer each request by content in pieces, each with a pause before it."""
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            event = peer.until(RequestReceived)
            stream = peer.core.streams[event.stream_id]
            peer.core.send_response(stream, OK)
            peer.flush()
            for index in range(4):
                time.sleep(BRIEF_S)
                peer.core.send_data(stream, b"x", end_stream=index == 3)
                peer.flush()


def test_a_number_is_the_whole_exchanges():
    with (
        peering(trickle) as peer,
        ConnectionPool(health=QUIET) as pool,
        pytest.raises(h2lite.ReadTimeout),
    ):
        pool.get(peer.url, timeout=2 * BRIEF_S)


def test_a_step_begins_anew_with_each_piece():
    """Four of them take longer than each may; the step's limit leaves room for a busy machine."""
    with peering(trickle) as peer, ConnectionPool(health=QUIET) as pool:
        assert pool.get(peer.url, timeout=Timeout(read=3.5 * BRIEF_S)).read() == b"xxxx"


@pytest.mark.parametrize("timeout", [3 * BRIEF_S, Timeout(read=3 * BRIEF_S, write=1)])
def test_a_streams_content_may_take_any_time(timeout):
    """The pool's own timeout holds for the header section alone."""
    with (
        peering(trickle) as peer,
        ConnectionPool(health=QUIET, timeout=timeout) as pool,
        pool.stream("GET", peer.url) as response,
    ):
        call = response._exchange.call
        assert (call.deadline, call.limits.read, call.limits.total) == (None, None, None)
        assert response.read() == b"xxxx"


def test_a_streams_own_timeout_holds_for_its_content():
    with (
        peering(trickle) as peer,
        ConnectionPool(health=QUIET) as pool,
        pool.stream("GET", peer.url, timeout=2 * BRIEF_S) as response,
        pytest.raises(h2lite.ReadTimeout),
    ):
        response.read()


def test_none_is_no_limit():
    with serving(echo) as server, ConnectionPool(health=QUIET, timeout=0.001) as pool:
        pool.connect(server.url)
        call = pool.get(server.url, timeout=None)._exchange.call
        assert (call.deadline, call.limits) == (None, Timeout())


def test_content_that_the_peer_does_not_take_is_a_write_timeout():
    with peering(silent) as peer, ConnectionPool(health=QUIET) as pool:
        with pytest.raises(h2lite.WriteTimeout) as caught:
            pool.put(peer.url, body=bytes(2**21), timeout=Timeout(write=BRIEF_S))
        assert caught.value.maybe_processed


def test_a_request_that_finds_no_room_is_a_pool_timeout_and_safe():
    def one_at_a_time(sock: socket.socket) -> None:
        peer = Peer(sock)
        settings = {SettingId.MAX_CONCURRENT_STREAMS: 1}
        peer.core = type(peer.core)(client=False, settings=settings)
        peer.flush()
        silent(peer)

    with accepting(one_at_a_time) as peer, ConnectionPool(health=QUIET) as pool:
        pool.connect(peer.url)
        first = pool.submit("GET", peer.url)
        with pytest.raises(h2lite.PoolTimeout) as caught:
            pool.post(peer.url, timeout=Timeout(pool=BRIEF_S))
        assert caught.value.safe_to_retry
        assert caught.value.connection is None
        first.cancel()


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), True, "1"])
def test_what_is_no_timeout_is_refused(timeout):
    with pytest.raises(UsageError, match="timeout of"):
        ConnectionPool(timeout=timeout)
    with ConnectionPool() as pool, pytest.raises(UsageError, match="timeout of"):
        pool.get("http://127.0.0.1:1/", timeout=timeout)
    for name in Timeout.slots():
        with pytest.raises(UsageError, match="timeout of"):
            Timeout(**{name: timeout})


# -- errors ------------------------------------------------------------------------------------


def test_every_exception_a_user_meets_is_the_packages_own_name():
    raised = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, H2liteError) and each.__name__ != "PeerError"
    ]
    assert [each for each in raised if getattr(h2lite, each.__name__, None) is not each] == []
    assert all(issubclass(each, h2lite.H2liteError) for each in raised)


@pytest.mark.parametrize(
    ("raised", "caught_as"),
    [
        (h2lite.PingTimeout, TimeoutError),
        (h2lite.ReadTimeout, TimeoutError),
        (h2lite.WriteTimeout, TimeoutError),
        (h2lite.PoolTimeout, TimeoutError),
        (h2lite.ConnectTimeout, TimeoutError),
        (h2lite.ConnectTimeout, h2lite.ConnectError),
        (h2lite.TLSError, h2lite.ConnectError),
        (h2lite.ConnectionLost, ConnectionError),
        (h2lite.UsageError, ValueError),
        (h2lite.LocalProtocolError, h2lite.UsageError),
    ],
)
def test_what_python_has_a_class_for_is_caught_by_that(raised, caught_as):
    assert issubclass(raised, caught_as)


def told(error: H2liteError) -> tuple[str, bool, bool, bool]:
    """What an error promises to say."""
    return error.cause, error.maybe_processed, error.safe_to_retry, error.connection is not None


def test_each_failure_says_whether_the_peer_may_have_acted_and_on_which_connection():
    def break_the_rules(peer: Peer) -> None:
        peer.until(RequestReceived)
        peer.sock.sendall(bytes(3) + b"\x00" + bytes(5))  # DATA on stream 0
        with contextlib.suppress(ConnectionError):
            while peer.sock.recv(65536):
                pass

    def reset(peer: Peer) -> None:
        event = peer.until(RequestReceived)
        peer.core.reset_stream(peer.core.streams[event.stream_id], ErrorCode.INTERNAL_ERROR)
        peer.serve()

    def leave(peer: Peer) -> None:
        event = peer.until(RequestReceived)
        peer.sock.sendall(GoAwayFrame(event.stream_id, ErrorCode.INTERNAL_ERROR).encode())

    expected: list[tuple[Callable[[Peer], object], type[H2liteError], Any]] = [
        (lose, h2lite.ConnectionLost, ("eof", True, False, True)),
        (leave, h2lite.ConnectionLost, ("goaway", True, False, True)),
        (reset, h2lite.StreamReset, ("", True, False, True)),
        (refuse, h2lite.StreamReset, ("", False, True, True)),
        (break_the_rules, h2lite.RemoteProtocolError, ("protocol_error", True, False, True)),
    ]
    for script, kind, promised in expected:
        with peering(script) as peer, ConnectionPool(health=QUIET) as pool:
            with pytest.raises(kind) as caught:
                pool.post(peer.url, retries=0)
            assert (script.__name__, type(caught.value)) == (script.__name__, kind)
            assert told(caught.value) == promised
            assert isinstance(caught.value.connection, h2lite.PooledConnection)


def test_a_connection_that_does_not_come_about_says_why_and_is_safe():
    with serving() as server:
        port = server.port
    with ConnectionPool() as pool:
        with pytest.raises(h2lite.ConnectError, match="refused") as caught:
            pool.post(f"http://127.0.0.1:{port}/")
        assert told(caught.value)[1:3] == (False, True)
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_a_request_during_the_backoff_hears_of_the_last_dial():
    with serving() as server:
        port = server.port
    with ConnectionPool() as pool:
        with pytest.raises(h2lite.ConnectError):
            pool.get(f"http://127.0.0.1:{port}/")
        with pytest.raises(h2lite.ConnectTimeout, match="refused") as late:
            pool.get(f"http://127.0.0.1:{port}/", timeout=Timeout(connect=BRIEF_S))
        assert isinstance(late.value.__cause__, h2lite.ConnectError)
        assert isinstance(late.value.__cause__.connection, h2lite.PooledConnection)


def test_a_death_found_by_a_check_has_its_cause():
    policy = HealthPolicy(ping_after_idle=BRIEF_S, ping_timeout=BRIEF_S, jitter=False)
    over = threading.Event()

    def mute(peer: Peer) -> None:
        peer.until(RequestReceived)
        over.wait(PATIENCE_S)

    with peering(mute) as peer, ConnectionPool(health=policy) as pool:
        with pytest.raises(h2lite.ConnectionLost, match="is dead") as caught:
            pool.post(peer.url)
        assert caught.value.cause in ("peer_hung", "path_dead", "unknown")
        assert pool.stats()["deaths"] == {caught.value.cause: 1}
        assert caught.value.connection.error.cause == caught.value.cause
        over.set()


# -- connections -------------------------------------------------------------------------------


def test_a_connection_tells_all_of_itself():
    with serving(echo) as server, ConnectionPool(health=QUIET) as pool:
        connection = pool.connect(server.url)
        assert pool.connections == [connection]
        assert (connection.number, connection.protocol) == (1, "h2c")
        assert connection.tls_version is None
        assert (connection.state, connection.is_draining) == ("LIVE", False)
        assert (connection.requests, connection.error, connection.rtt) == (0, None, None)
        assert connection.address == f"127.0.0.1:{server.port}"
        assert str(connection.origin) == server.url
        assert repr(connection) == f"<PooledConnection 1 to {connection}, LIVE>"
        assert {connection: 1}[pool.connections[0]] == 1
        assert connection != object()
        result = connection.ping()
        assert connection.rtt == result.rtt
        assert (result.error, result.state) == (None, "LIVE")
        connection.close()
        connection.close()
        assert (connection.state, pool.connections) == ("DEAD", [])
        assert isinstance(connection.error, h2lite.ConnectionLost)
        assert connection.error.cause == "local"
        for call in (connection.ping, lambda: connection.request("GET", "/")):
            with pytest.raises(h2lite.ConnectionLost, match="closed here"):
                call()
        assert pool.get(server.url).connection.number == 2  # type: ignore[union-attr]


def test_ping_all_has_a_result_for_each_and_an_error_for_the_sick_one():
    over = threading.Event()

    def mute(peer: Peer) -> None:
        over.wait(PATIENCE_S)

    with serving() as server, peering(mute) as peer, ConnectionPool(health=QUIET) as pool:
        good, sick = pool.connect(server.url), pool.connect(peer.url)
        results = pool.ping_all(timeout=4 * BRIEF_S)
        assert [result.connection for result in results] == [good, sick]
        assert results[0].error is None
        assert results[0].rtt is not None
        assert isinstance(results[1].error, h2lite.PingTimeout)
        assert (results[1].rtt, sick.state) == (None, "LIVE")  # it was left as it is
        with pytest.raises(h2lite.PingTimeout):
            sick.ping(timeout=BRIEF_S)
        over.set()


def test_a_ninth_ping_is_refused_and_told_in_ping_all():
    over = threading.Event()

    def mute(peer: Peer) -> None:
        over.wait(PATIENCE_S)

    with peering(mute) as peer, ConnectionPool(health=QUIET) as pool:
        connection = pool.connect(peer.url)
        pinging = [threading.Thread(target=pool.ping_all, args=(4 * BRIEF_S,)) for _ in range(8)]
        for thread in pinging:
            thread.start()
        until(lambda: len(connection._member.pings) == 8)
        (result,) = pool.ping_all(BRIEF_S)
        assert isinstance(result.error, UsageError)
        assert "8 PINGs are in flight" in str(result.error)
        for thread in pinging:
            thread.join(PATIENCE_S)
        over.set()


def test_stats_are_numbers_for_json():
    with serving() as server, ConnectionPool(health=QUIET) as pool:
        pool.get(server.url)
        pool.ping_all()
        stats = pool.stats()
    assert json.loads(json.dumps(stats)) == stats
    assert (stats["requests"], stats["dials"], stats["connections"]) == (1, 1, 1)
    assert (stats["pings_sent"], stats["pings_acked"], stats["events_dropped"]) == (1, 1, 0)


def test_an_origin_that_complained_of_pings_is_remembered_until_it_is_to_be_forgotten():
    events: list[Any] = []

    def complain(peer: Peer) -> None:
        peer.until(RequestReceived)
        frame = GoAwayFrame(1, ErrorCode.ENHANCE_YOUR_CALM, b"too_many_pings")
        peer.sock.sendall(frame.encode())

    with peering(complain) as peer, ConnectionPool(on_event=events.append) as pool:
        with pytest.raises(h2lite.ConnectionLost):
            pool.post(peer.url)
        until(lambda: any(isinstance(event, h2lite.OriginCalmed) for event in events))
        assert list(pool.stats()["calmed_origins"]) == [peer.url]
        pool.forget_origin(peer.url)
        assert pool.stats()["calmed_origins"] == {}
    (calmed,) = (event for event in events if isinstance(event, h2lite.OriginCalmed))
    assert str(calmed.origin) == peer.url
    assert calmed.found_within is not None
    assert calmed.found_within > 300  # what its PINGs are apart from now on


def test_what_connect_made_is_never_replaced_by_another_connection():
    with peering(lose) as peer:
        connection = connect(peer.url, health=QUIET)
        with pytest.raises(h2lite.ConnectionLost):
            connection.request("GET", "/")  # which a pool would repeat elsewhere
        with pytest.raises(h2lite.ConnectionLost):
            connection.request("GET", "/")
        assert connection._pool.stats()["dials"] == 1
        connection.close()


def test_a_request_of_one_connection_stays_on_it_though_another_has_room(monkeypatch):
    monkeypatch.setattr("h2lite.retry.FIRST_DELAY_S", 0.0)  # before the next dial
    with (
        peering(leave_out, respond) as peer,
        ConnectionPool(health=HealthPolicy(ping_after_idle=0, jitter=False)) as pool,
    ):
        first = pool.connect(peer.url)
        with pytest.raises((h2lite.StreamReset, h2lite.ConnectionLost)):
            first.request("POST", "/", body=CONTENT)
        answer = pool.get(peer.url)
        assert answer.connection is not None
        assert (answer.connection.number, answer.status) == (2, 200)
        with pytest.raises(h2lite.ConnectionLost):
            first.request("GET", "/")
        pool.close()


# -- events ------------------------------------------------------------------------------------


def test_a_repeated_request_is_an_event():
    events: list[Any] = []

    def refuse_the_first(peer: Peer) -> None:
        event = peer.until(RequestReceived)
        stream = peer.core.streams[event.stream_id]
        peer.core.reset_stream(stream, ErrorCode.REFUSED_STREAM)
        peer.flush()
        respond(peer)

    with peering(refuse_the_first) as peer, ConnectionPool(
        health=QUIET, on_event=events.append
    ) as pool:
        pool.post(peer.url)
    (retried,) = (event for event in events if isinstance(event, h2lite.RequestRetried))
    assert (retried.method, retried.delay) == ("POST", 0.0)
    assert isinstance(retried.error, h2lite.StreamReset)


def test_a_request_that_moves_is_an_event(monkeypatch):
    """It could not leave before its connection said GOAWAY."""
    monkeypatch.setattr("h2lite.retry.FIRST_DELAY_S", 0.0)  # before the next dial
    events: list[Any] = []
    both_asked = threading.Event()

    def one_then_leave(peer: Peer) -> None:
        peer.until(RequestReceived)
        assert both_asked.wait(PATIENCE_S)
        peer.sock.sendall(GoAwayFrame(2**31 - 1, ErrorCode.NO_ERROR).encode())
        peer.core.send_response(peer.core.streams[1], OK, end_stream=True)
        peer.serve()

    with (
        peering(one_then_leave, respond) as peer,
        ConnectionPool(
            health=HealthPolicy(ping_after_idle=0, jitter=False),
            on_event=events.append,
            background=False,
        ) as pool,
    ):
        connection = pool.connect(peer.url)
        first = pool.submit("GET", peer.url)
        link = pool._engine.driver.links[connection._member]
        link._blocked = True  # as if the socket were full: the second cannot leave
        second = pool.submit("POST", peer.url)
        both_asked.set()
        while not first.done() or not second.done():
            pool.poll(1.0)
        assert second.result(0).connection != connection
        pool.close()
    (moved,) = (event for event in events if isinstance(event, h2lite.RequestMoved))
    assert (moved.method, moved.connection) == ("POST", connection)


# -- the environment ---------------------------------------------------------------------------


def test_a_proxy_that_applies_is_refused_unless_the_environment_is_ignored(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy.test:3128")
    monkeypatch.setattr("h2lite.dial._lookup", lambda host, port, flags: [(2, (host, port))])
    with ConnectionPool() as pool:
        for call in (
            lambda: pool.get("http://a.test/"),
            lambda: pool.stream("GET", "http://a.test/"),
            lambda: pool.submit("GET", "http://a.test/"),
            lambda: pool.connect("http://a.test/"),
        ):
            with pytest.raises(UsageError, match="http_proxy is set, and h2lite goes through no"):
                call()
        assert pool.stats()["dials"] == 0
    with serving() as server:
        with ConnectionPool() as pool:
            assert pool.get(server.url).status == 200  # the loopback has none
        with ConnectionPool(trust_env=False) as pool, pytest.raises(h2lite.ConnectError):
            pool.get("http://256.256.256.256/", timeout=BRIEF_S)


def test_variables_set_the_checks_and_a_bad_one_is_an_event_and_a_line_in_the_log(
    monkeypatch, caplog
):
    monkeypatch.setenv("H2LITE_PING_AFTER_IDLE", "7")
    monkeypatch.setenv("H2LITE_PING_TIMEOUT", "soon")
    events: list[Any] = []
    with ConnectionPool(on_event=events.append, background=False) as pool:
        assert (pool.health.ping_after_idle, pool.health.ping_timeout) == (7, 15)
        pool.poll(0.0)
    assert [type(event) for event in events] == [h2lite.EnvironmentWarning]
    assert "H2LITE_PING_TIMEOUT of 'soon'" in events[0].text
    assert caplog.messages == [events[0].text]
    with ConnectionPool(trust_env=False) as pool:
        assert pool.health.ping_after_idle == 30
    with ConnectionPool(health=HealthPolicy(ping_after_idle=3)) as pool:
        assert pool.health.ping_after_idle == 3


def http1(sock: socket.socket) -> None:
    """One answer in HTTP/1.1 for each request that comes."""
    with contextlib.suppress(ConnectionError):
        while sock.recv(65536):
            sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


@pytest.mark.parametrize("how", ["variable", "option"])
def test_without_http2_the_pool_speaks_http1(how, monkeypatch):
    if how == "variable":
        monkeypatch.setenv("DISABLE_HTTP2", "1")
    http2 = False if how == "option" else None
    with accepting(http1) as peer, ConnectionPool(http2=http2, health=QUIET) as pool:
        for _ in range(2):
            response = pool.get(peer.url)
            assert (response.read(), response.http_version) == (b"ok", "HTTP/1.1")
        (connection,) = pool.connections
        assert connection.protocol == "http/1.1"
        assert isinstance(connection._member.connection, Http1Connection)
        with pytest.raises(UsageError, match=r"HTTP/1\.1, which has no PING"):
            connection.ping()
        (result,) = pool.ping_all()
        assert isinstance(result.error, UsageError)


@pytest.mark.parametrize("options", [{"http2": True}, {"trust_env": False}])
def test_the_variable_yields_to_what_is_said(options, monkeypatch):
    monkeypatch.setenv("DISABLE_HTTP2", "1")
    with serving() as server, ConnectionPool(**options) as pool:
        assert pool.get(server.url).http_version == "HTTP/2"


# -- bad arguments, and the end ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"connections_per_origin_max": 0}, "connections_per_origin_max 0, .* want at least 1"),
        ({"queued_max": -1}, "queued_max -1"),
        ({"idle_close": -0.1}, r"idle_close -0\.1"),
        ({"idle_close": float("nan")}, "idle_close nan"),
        ({"content_octets_max": -1}, "content_octets_max of -1, want 0 or more"),
        ({"connect_timeout": 0}, "connect_timeout"),
        ({"connect_timeout": -1.0}, "connect_timeout"),
        ({"health": 5}, "health of 5, want a HealthPolicy"),
        ({"timeout": "soon"}, "timeout of 'soon', want seconds above 0"),
        ({"cafile": "/none.pem"}, "cannot read certificates"),
        ({"keyfile": "/none.pem"}, "keyfile"),
        ({"socket_options": ("user_timeout", 1.0)}, "user_timeout of 1"),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
def test_arguments_that_cannot_be_are_refused_each_by_its_name(arguments, message):
    if "socket_options" in arguments:
        arguments = {"socket_options": SocketOptions(user_timeout=1.0)}
    before = sorted(os.listdir("/dev/fd"))
    with pytest.raises(UsageError, match=message):
        ConnectionPool(**arguments)
    assert sorted(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"body": "text"}, "a body of str"),
        ({"body": 3}, "a body of int"),
        ({"retries": "3"}, "retries of '3'"),
        ({"retries": -1}, "retries of -1"),
        ({"retries": None}, "retries of None"),
        ({"headers": {"name": "\n"}}, "name"),
        ({"headers": {"Host": "a", "host": "b"}}, "more than one Host"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused_before_anything_is_sent(options, message):
    with ConnectionPool() as pool:
        with pytest.raises(UsageError, match=message):
            pool.post("http://127.0.0.1:1/", **options)
        assert (pool.stats()["dials"], pool._engine.watchers) == (0, {})


def test_after_the_end_every_call_says_so():
    with serving() as server:
        pool = ConnectionPool(health=QUIET)
        (connection := pool.connect(server.url)).ping()
        pool.close()
        pool.close()
        assert pool.is_closed
        assert pool.connections == []
        assert repr(pool) == "<ConnectionPool of 0 connections>"
        for call in (
            lambda: pool.get(server.url),
            lambda: pool.stream("GET", server.url),
            lambda: pool.submit("GET", server.url),
            lambda: pool.connect(server.url),
            lambda: pool.forget_origin(server.url),
            pool.ping_all,
            pool.poll,
            pool.next_deadline,
        ):
            with pytest.raises(UsageError, match="the pool is closed"):
                call()
        with pytest.raises(h2lite.ConnectionLost, match="the pool was closed"):
            connection.ping()
        assert pool.stats()["deaths"] == {"local": 1}


def test_two_pools_stand_side_by_side():
    with (
        serving(echo) as server,
        ConnectionPool(health=QUIET) as one,
        ConnectionPool(health=QUIET) as two,
    ):
        assert one.get(server.url).status == two.get(server.url).status == 200
        assert one.connections != two.connections
        one.close()
        assert two.get(server.url).status == 200
        assert (one.stats()["requests"], two.stats()["requests"]) == (1, 2)


@pytest.mark.parametrize("spin", [-0.001, 0.0011, math.nan])
def test_a_spin_that_is_none_or_too_long_is_refused(spin):
    with pytest.raises(UsageError, match="spin"):
        ConnectionPool(spin=spin)


def test_a_connection_that_looks_again_before_it_sleeps_is_as_any_other():
    with serving(hello) as server, connect(server.url, spin=0.001) as connection:
        assert connection.ping().rtt is not None
        assert connection.request("GET", "/").status == 200
