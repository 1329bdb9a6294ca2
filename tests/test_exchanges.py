"""Content that streams both ways over real sockets, the handler in the loop or in threads."""

from __future__ import annotations

import hashlib
import io
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from h2lite.body import BODY_RETRY_S
from h2lite.client import PooledConnection, connect
from h2lite.connection import Connection
from h2lite.errors import (
    ConnectionLost,
    ErrorCode,
    LocalProtocolError,
    ReadTimeout,
    StreamReset,
    UsageError,
    WriteTimeout,
)
from h2lite.events import (
    DataReceived,
    Event,
    GoAwayReceived,
    InformationalReceived,
    PingAcked,
    ResponseReceived,
    TrailersReceived,
)
from h2lite.events import StreamReset as StreamWasReset
from h2lite.exchange import Content, Reply, Request
from h2lite.frames import MAX_STREAM_ID
from h2lite.limits import DEFAULT_LIMITS
from h2lite.loop import Link, Loop
from h2lite.server import Server
from h2lite.settings import SettingId
from h2lite.transport import Transport, prepare

from .running import PATIENCE_S, Peer, peering, serving
from .test_server import GET, raw_client

PUT = [(b":method", b"PUT"), *GET[1:]]
BLOCK = bytes(range(256)) * 256
in_loop_and_threads = pytest.mark.parametrize("threads", [0, 3], ids=["loop", "threads"])


def streamed(request: Request) -> bool:
    return request.path.startswith("/stream")


def handler(request: Request) -> Reply:
    """Gives content back as it comes, or tells how much there was."""
    if request.path == "/stream/echo":
        assert request.content is not None
        return Reply(200, request.content, trailers=request.trailers)
    if request.path == "/stream/refuse":
        return Reply(403, b"not here\n")
    return Reply(200, str(len(request.body)).encode())


@pytest.fixture(params=[0, 3], ids=["loop", "threads"])
def connection(request: pytest.FixtureRequest) -> Iterator[PooledConnection]:
    with (
        serving(handler, threads=request.param, streamed=streamed) as server,
        connect(server.url) as connection,
    ):
        yield connection


def until(condition) -> None:
    """Wait for what another thread does before long."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# -- requests ----------------------------------------------------------------------------------


def test_content_far_beyond_the_windows_comes_back_whole_with_its_trailers(connection):
    trailers: list[tuple[str, str]] = []
    sent, received = hashlib.sha256(), hashlib.sha256()

    def body() -> Iterator[bytes]:
        for _ in range(100):
            sent.update(BLOCK)
            yield BLOCK
        trailers.append(("Digest", sent.hexdigest()))

    response = connection.stream("PUT", "/stream/echo", body=body(), trailers=trailers)
    for piece in response.iter_bytes():
        received.update(piece)

    assert response.trailers["digest"] == received.hexdigest() == sent.hexdigest()


@pytest.mark.parametrize(
    "body",
    [
        lambda: b"abc" * 1000,
        lambda: bytearray(b"abc" * 1000),
        lambda: memoryview(b"abc" * 1000),
        lambda: io.BytesIO(b"abc" * 1000),
        lambda: [b"abc"] * 1000,
        lambda: iter([b"abc", b"", bytearray(b"abc")] + [memoryview(b"abc")] * 998),
    ],
    ids=["bytes", "bytearray", "memoryview", "file", "list", "iterator"],
)
def test_a_body_may_be_octets_a_file_or_an_iterable(connection, body):
    whole = body()
    assert connection.stream("PUT", "/count", body=whole).read() == b"3000"
    assert not getattr(whole, "closed", False)
    assert connection.stream("PUT", "/stream/echo", body=body()).read() == b"abc" * 1000


def test_a_body_that_has_nothing_yet_is_asked_again_after_a_while(connection):
    asked: list[float] = []

    def body() -> Iterator[bytes]:
        yield b"begun"
        while len(asked) < 5:
            asked.append(time.monotonic())
            yield b""
        yield b"done"

    assert connection.stream("PUT", "/count", body=body()).read() == b"9"
    assert asked[-1] - asked[0] > 2 * BODY_RETRY_S  # what the server says meanwhile may wake it


def test_a_file_is_sent_from_where_it_stands_and_its_length_is_declared():
    seen: list[Request] = []

    def note(request: Request) -> Reply:
        seen.append(request)
        return Reply()

    file = io.BytesIO(b"0123456789")
    file.seek(4)
    with serving(note) as server, connect(server.url) as connection:
        connection.stream("PUT", "/", body=file).read()
        reader, writer = os.pipe()
        os.write(writer, b"piped")
        os.close(writer)
        with open(reader, "rb") as pipe:
            connection.stream("PUT", "/", body=pipe).read()

    assert [request.body for request in seen] == [b"456789", b"piped"]
    assert ("content-length", "6") in seen[0].headers
    assert seen[1].headers == []


@pytest.mark.parametrize("body", ["text", 5, None])
def test_what_can_be_no_body_is_refused_before_anything_is_sent(connection, body):
    with pytest.raises(UsageError, match="a body of"):
        connection.stream("PUT", "/count", body=body)
    assert connection.stream("PUT", "/count").read() == b"0"


def raises() -> Iterator[bytes]:
    yield b"the beginning"
    raise RuntimeError("it broke")


@pytest.mark.parametrize(
    ("body", "headers", "fault"),
    [
        (raises, (), RuntimeError),
        (lambda: iter(["text"]), (), UsageError),
        (lambda: io.StringIO("text"), (), UsageError),
        (lambda: iter([b"too", b"long"]), (("content-length", "5"),), LocalProtocolError),
        (lambda: iter([b"short"]), (("content-length", "6"),), LocalProtocolError),
    ],
    ids=["raises", "text", "a file of text", "too long", "too short"],
)
def test_a_body_that_fails_costs_its_stream_alone(connection, body, headers, fault):
    with pytest.raises(fault):
        connection.stream("PUT", "/count", body=body(), headers=headers)
    assert connection.stream("PUT", "/count", body=b"whole").read() == b"5"


def test_trailers_that_may_not_be_sent_withdraw_the_request(connection):
    for body in (b"octets", iter([b"octets"])):
        with pytest.raises(LocalProtocolError, match=r"belongs to HTTP/1\.1"):
            connection.stream("PUT", "/count", body=body, trailers=[("connection", "close")])
    assert connection.stream("PUT", "/count", body=b"whole").read() == b"5"
    assert connection._member.connection.streams == {}


def test_a_piece_may_be_used_again_for_the_next_one(connection):
    def body() -> Iterator[bytearray]:
        piece = bytearray(1000)
        for number in range(3000):  # more than the windows hold, so that some have to wait
            piece[:] = bytes([number % 251]) * 1000
            yield piece

    content = connection.stream("PUT", "/stream/echo", body=body()).read()
    assert content == b"".join(bytes([number % 251]) * 1000 for number in range(3000))


def test_the_bodys_own_code_runs_without_the_connections_lock(connection):
    answers: list[bytes] = []

    def body() -> Iterator[bytes]:
        other = threading.Thread(
            target=lambda: answers.append(connection.stream("GET", "/count").read())
        )
        other.start()
        other.join(PATIENCE_S)
        yield b"content"

    assert connection.stream("PUT", "/count", body=body()).read() == b"7"
    assert answers == [b"0"]


def test_an_answer_before_the_end_of_the_request_is_kept_and_the_rest_not_sent(connection):
    pulled: list[int] = []

    def endless() -> Iterator[bytes]:
        while True:
            pulled.append(1)
            yield BLOCK

    response = connection.stream("PUT", "/stream/refuse", body=endless(), timeout=PATIENCE_S)

    assert (response.status, response.read()) == (403, b"not here\n")
    assert len(pulled) < 100
    assert connection.stream("GET", "/count").read() == b"0"


def test_a_request_that_stalls_runs_into_its_timeout(connection):
    def patient(peer: Peer) -> None:
        peer.serve()  # takes nothing, answers nothing

    with peering(patient) as peer, connect(peer.url) as silent:
        with pytest.raises(WriteTimeout):
            silent.stream("PUT", "/", body=iter(lambda: BLOCK, None), timeout=0.1)
        with pytest.raises(ReadTimeout):
            silent.stream("PUT", "/", body=iter(lambda: b"", None), timeout=0.1)
        silent.ping()


def test_interim_responses_stand_beside_the_final_one():
    def early(peer: Peer) -> None:
        from h2lite.events import RequestReceived

        stream = peer.core.streams[peer.until(RequestReceived).stream_id]
        peer.core.send_response(stream, [(b":status", b"103"), (b"link", b"</a>")])
        peer.core.send_response(stream, [(b":status", b"100")])
        peer.core.send_response(stream, [(b":status", b"200")], end_stream=True)
        peer.serve()

    with peering(early) as peer, connect(peer.url) as connection:
        response = connection.stream("GET", "/")

    assert response.status == 200
    assert [(status, list(fields)) for status, fields in response.interim] == [
        (103, [("link", "</a>")]),
        (100, []),
    ]


# -- the server's side -------------------------------------------------------------------------


def test_a_client_that_waits_for_a_word_is_told_to_go_on():
    with serving(handler) as server, raw_client(server) as raw:
        stream = raw.core.send_request([*PUT, (b"expect", b"100-continue")], end_stream=False)

        assert raw.until(InformationalReceived) == InformationalReceived(
            1, 100, [(b":status", b"100")]
        )
        raw.core.send_data(stream, b"content", end_stream=True)
        assert raw.until(DataReceived) == DataReceived(1, b"7", True)


@pytest.mark.rfc("early-response-stop")
@in_loop_and_threads
def test_who_is_answered_early_gets_the_whole_answer_and_then_no_error(threads):
    with serving(handler, threads=threads, streamed=streamed) as server, raw_client(server) as raw:
        path = (b":path", b"/stream/refuse")
        stream = raw.core.send_request([*PUT[:-1], path], end_stream=False)

        assert raw.until(DataReceived) == DataReceived(1, b"not here\n", True)
        raw.core.send_data(stream, bytes(4 * DEFAULT_LIMITS.stream_octets))
        assert raw.until(StreamWasReset) == StreamWasReset(1, ErrorCode.NO_ERROR, True)


def test_content_that_no_handler_reads_is_held_up_by_its_window():
    with serving(never_done, streamed=lambda request: True) as server, raw_client(server) as raw:
        stream = raw.core.send_request(PUT, end_stream=False)
        raw.until(ResponseReceived)
        raw.core.send_data(stream, bytes(2 * DEFAULT_LIMITS.stream_octets))
        raw.core.ping(b"12345678", 0.0)
        raw.until(PingAcked)
        assert stream.queued_octets == DEFAULT_LIMITS.stream_octets


@in_loop_and_threads
def test_trailers_follow_the_body_that_filled_them(threads):
    def with_trailers(request: Request) -> Reply:
        trailers: list[tuple[str, str]] = []

        def body() -> Iterator[bytes]:
            yield b"content"
            trailers.append(("Checksum", "1"))

        if request.path == "/iterator":
            return Reply(200, body(), trailers=trailers)
        return Reply(200, b"" if request.path == "/empty" else b"content", trailers=[("a", "b")])

    with (
        serving(with_trailers, threads=threads) as server,
        connect(server.url) as connection,
    ):
        for path, content, trailers in (
            ("/iterator", b"content", [("checksum", "1")]),
            ("/octets", b"content", [("a", "b")]),
            ("/empty", b"", [("a", "b")]),
        ):
            response = connection.stream("GET", path)
            assert (response.read(), list(response.trailers)) == (content, trailers)


@in_loop_and_threads
def test_a_body_that_has_nothing_yet_is_asked_again(threads):
    yields = [b"", b"first", b"", b"", b"last"]

    with (
        serving(lambda request: Reply(200, iter(yields)), threads=threads) as server,
        connect(server.url) as connection,
    ):
        assert connection.stream("GET", "/").read() == b"firstlast"


def test_a_reply_with_a_delay_holds_up_nobody():
    order: list[str] = []

    def slow(request: Request) -> Reply:
        return Reply(200, b"", delay=0.2 if request.path == "/slow" else 0.0)

    with serving(slow) as server, connect(server.url) as one, connect(server.url) as other:

        def wait() -> None:
            one.stream("GET", "/slow")
            order.append("slow")

        thread = threading.Thread(target=wait)
        thread.start()
        other.request("GET", "/quick")
        order.append("quick")
        thread.join(PATIENCE_S)

    assert order == ["quick", "slow"]


def test_a_delayed_reply_to_a_stream_that_was_reset_is_not_sent():
    with serving(lambda request: Reply(200, b"", delay=0.05)) as server, raw_client(server) as raw:
        stream = raw.core.send_request(GET)
        raw.flush()
        until(lambda: server.stats()["handlers"] == 1)
        raw.core.reset_stream(stream)
        raw.flush()
        until(lambda: server.stats()["handlers"] == 0)
        raw.core.send_request(GET)
        assert raw.until(ResponseReceived).stream_id == 3


# -- threads -----------------------------------------------------------------------------------


def test_handlers_in_threads_wait_side_by_side_and_never_more_than_there_are_threads():
    barrier = threading.Barrier(3)
    running: list[int] = []
    most: list[int] = []

    def waiting(request: Request) -> Reply:
        running.append(1)
        most.append(len(running))
        barrier.wait(PATIENCE_S)
        running.pop()
        return Reply(200, b"met\n")

    with serving(waiting, threads=3) as server, raw_client(server) as raw:
        for _ in range(9):
            raw.core.send_request(GET)
        for _ in range(9):
            raw.until(DataReceived)

    assert max(most) == 3


def test_the_loop_goes_on_while_a_handler_blocks():
    released = threading.Event()

    def blocking(request: Request) -> Reply:
        released.wait(PATIENCE_S)
        return Reply()

    with (
        serving(blocking, threads=1) as server,
        connect(server.url) as connection,
        raw_client(server) as raw,
    ):
        raw.core.send_request(GET)
        raw.flush()
        until(lambda: server.stats()["handlers"] == 1)
        connection.ping()
        released.set()
        raw.until(ResponseReceived)


def test_streams_that_are_reset_start_no_more_handlers_than_a_client_may_have():
    released = threading.Event()

    def blocking(request: Request) -> Reply:
        released.wait(PATIENCE_S)
        return Reply()

    with serving(blocking, threads=2) as server, raw_client(server) as raw:
        for number in range(DEFAULT_LIMITS.streams + 20):
            stream = raw.core.send_request(GET)
            raw.core.ping(number.to_bytes(8, "big"), 0.0)
            raw.until(PingAcked)  # the server has seen the request before its reset
            raw.core.reset_stream(stream)
        raw.core.ping(b"12345678", 0.0)
        raw.until(PingAcked)
        assert server.stats()["handlers"] == 2  # the others were taken back from the queue
        released.set()
        until(lambda: server.stats()["handlers"] == 0)
        assert server.stats()["handlers_most"] <= DEFAULT_LIMITS.streams
        raw.core.send_request(GET)
        raw.until(ResponseReceived)


def test_a_reader_of_content_is_told_when_the_client_gives_up():
    told: list[BaseException] = []
    begun = threading.Event()

    def reading(request: Request) -> Reply:
        assert request.content is not None
        begun.set()  # before, it is taken back, and there is nobody to tell
        try:
            return Reply(200, b"".join(request.content))
        except ConnectionResetError as error:
            told.append(error)
            raise

    with (
        serving(reading, threads=1, streamed=lambda request: True) as server,
        raw_client(server) as raw,
    ):
        stream = raw.core.send_request(PUT, end_stream=False)
        raw.core.send_data(stream, b"some")
        raw.flush()
        assert begun.wait(PATIENCE_S)
        raw.core.reset_stream(stream)
        raw.flush()
        until(lambda: told)
        until(lambda: server.stats()["handlers"] == 0)


def test_sys_exit_in_a_handler_ends_its_request_and_not_its_thread(monkeypatch):
    monkeypatch.setattr("sys.excepthook", lambda *_: None)

    def leaving(request: Request) -> Reply:
        raise SystemExit

    with serving(leaving, threads=1) as server, connect(server.url) as connection:
        assert [connection.stream("GET", "/").status for _ in range(2)] == [500, 500]


@pytest.mark.parametrize("threads", [-1, DEFAULT_LIMITS.streams + 1, 1.5])
def test_a_number_of_threads_that_is_none_is_refused(threads):
    with pytest.raises(UsageError, match="threads"):
        Server(handler, threads=threads)


def test_a_predicate_that_fails_is_a_500(monkeypatch):
    monkeypatch.setattr("sys.excepthook", lambda *_: None)

    def broken(request: Request) -> bool:
        raise RuntimeError("which requests are streamed?")

    with serving(handler, streamed=broken) as server, connect(server.url) as connection:
        assert connection.stream("PUT", "/", body=b"content").status == 500
        assert connection.stream("GET", "/").status == 200


@in_loop_and_threads
def test_trailers_that_cannot_be_sent_reset_their_stream_alone(threads, monkeypatch):
    monkeypatch.setattr("sys.excepthook", lambda *_: None)

    def wrong(request: Request) -> Reply:
        body = iter([b"content"]) if request.path == "/iterator" else b"content"
        return Reply(200, body, trailers=[("connection", "close")])

    with serving(wrong, threads=threads) as server, connect(server.url) as connection:
        for path in ("/iterator", "/octets"):
            with pytest.raises(StreamReset, match="INTERNAL_ERROR"):
                connection.stream("GET", path).read()


def test_what_ends_the_loop_leaves_nothing_open():
    def leaving(request: Request) -> Reply:
        raise KeyboardInterrupt

    server = Server(leaving)
    with raw_client(server) as raw:
        raw.core.send_request(GET)
        raw.flush()
        with pytest.raises(KeyboardInterrupt):
            server.serve_forever()
        assert raw.rest() != b""
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.port))


# -- stopping ----------------------------------------------------------------------------------


@pytest.mark.rfc("goaway-two-phase")
@in_loop_and_threads
def test_within_the_grace_time_streams_finish_and_late_ones_are_taken(threads):
    released = threading.Event()

    def body() -> Iterator[bytes]:
        yield b"begun "
        while not released.is_set():
            yield b""
        yield b"and finished"

    with (
        serving(lambda request: Reply(200, body()), threads=threads) as server,
        raw_client(server) as raw,
    ):
        raw.core.send_request(GET)
        raw.until(DataReceived)
        raw.core.send_request(GET)  # on its way before the client can know
        late = raw.core.data_to_send(0.0)
        server.stop(PATIENCE_S)
        assert raw.until(GoAwayReceived).last_stream_id == MAX_STREAM_ID
        raw.sock.sendall(late)
        assert raw.until(GoAwayReceived) == GoAwayReceived(3, ErrorCode.NO_ERROR, b"")
        released.set()
        raw.flush()
        content = content_by_stream([*raw.seen, *raw.core.receive_data(raw.rest(), 0.0)])

    assert content == {1: b"begun and finished", 3: b"begun and finished"}


def content_by_stream(events: list[Event]) -> dict[int, bytes]:
    content: dict[int, bytes] = {}
    for event in events:
        if isinstance(event, DataReceived):
            content[event.stream_id] = content.get(event.stream_id, b"") + bytes(event.data)
    return content


def never_done(request: Request) -> Reply:
    return Reply(200, iter(lambda: b"", None))


def test_an_idle_client_is_not_waited_for():
    with serving() as server, connect(server.url) as connection:
        server.stop(60.0)
        with pytest.raises(ConnectionLost):
            connection.watch(PATIENCE_S)


def test_who_does_not_finish_in_the_grace_time_is_cut_off():
    with serving(never_done) as server, raw_client(server) as raw:
        raw.core.send_request(GET)
        raw.until(ResponseReceived)
        server.stop(0.05)
        assert raw.until(GoAwayReceived).last_stream_id == MAX_STREAM_ID
        assert raw.until(GoAwayReceived) == GoAwayReceived(1, ErrorCode.NO_ERROR, b"")
        raw.rest()


def test_a_second_stop_shortens_the_grace_time():
    with serving(never_done) as server, raw_client(server) as raw:
        raw.core.send_request(GET)
        raw.until(ResponseReceived)
        server.stop(60.0)
        server.stop(0.0)
        raw.rest()


def test_a_stopped_server_leaves_a_handler_that_never_returns_behind(monkeypatch):
    monkeypatch.setattr("h2lite.server.WORKERS_END_S", 0.01)
    released = threading.Event()

    def blocking(request: Request) -> Reply:
        released.wait(3 * PATIENCE_S)
        return Reply()

    with serving(blocking, threads=1) as server, raw_client(server) as raw:
        raw.core.send_request(GET)
        raw.flush()
        until(lambda: server.stats()["handlers"] == 1)
    released.set()


# -- many at once ------------------------------------------------------------------------------


def test_a_thousand_requests_at_once_on_one_connection_are_all_answered():
    def sized(request: Request) -> Reply:
        return Reply(200, request.path.encode() * 10, [("x-path", request.path)])

    with serving(sized) as server:
        loop = Loop()
        sock = socket.create_connection(("127.0.0.1", server.port))
        prepare(sock)
        core = Connection(client=True)
        link = Link(loop, Transport(sock, sock.getpeername()), core)
        while not core.settings_received:
            loop.flush()
            loop.turn(loop.clock() + PATIENCE_S)
        streams = {
            path: core.send_request([*GET[:-1], (b":path", path)])
            for path in (b"/%d" % number for number in range(1000))
        }
        loop.touch(link)
        answers: dict[int, Any] = {}
        content: dict[int, bytes] = {}
        while len(content) < 1000:
            loop.flush()
            for _, event in loop.turn(loop.clock() + PATIENCE_S):
                if isinstance(event, ResponseReceived):
                    answers[event.stream_id] = dict(event.fields)[b"x-path"]
                elif isinstance(event, DataReceived):
                    content[event.stream_id] = bytes(event.data)
                    core.data_consumed(event.stream_id, len(event.data))
            assert len(core.streams) <= DEFAULT_LIMITS.streams
            loop.touch(link)
        link.end("done")
        loop.close()
        assert server.stats()["streams_most"] <= DEFAULT_LIMITS.streams

    for path, stream in streams.items():
        assert (answers[stream.stream_id], content[stream.stream_id]) == (path, path * 10)


# -- a request that streams, by itself ---------------------------------------------------------


def test_content_in_the_loop_says_when_it_has_nothing_yet():
    taken: list[int] = []
    content = Content(taken.append)

    assert next(content) == b""
    content.add(b"one")
    assert (next(content), next(content)) == (b"one", b"")
    content.end()
    assert list(content) == []
    assert taken == [3]


def test_content_in_crumbs_is_gathered():
    taken: list[int] = []
    content = Content(taken.append)
    for _ in range(1500):
        content.add(b"x")
    content.add(bytes(2000))
    content.add(b"y")
    content.end()

    assert [*map(len, content)] == [1025, 475, 2000, 1]
    assert taken == [1025, 475, 2000, 1]


def test_content_that_was_given_up_is_read_no_further():
    content = Content(lambda octets: None)
    content.add(b"four")

    assert content.give_up() == 4
    with pytest.raises(ConnectionResetError):
        next(content)


def test_trailers_end_a_streamed_request_too():
    with serving(handler, streamed=streamed) as server, raw_client(server) as raw:
        path = (b":path", b"/stream/echo")
        stream = raw.core.send_request([*PUT[:-1], path], end_stream=False)
        raw.core.send_data(stream, b"content")
        raw.core.send_trailers(stream, [(b"checksum", b"1")])

        assert raw.until(TrailersReceived) == TrailersReceived(1, [(b"checksum", b"1")])


# -- what a hostile client, an odd handler or a poor system must not end -------------------------

WAITING_PUT = [*PUT, (b"expect", b"100-Continue")]


def test_a_client_at_fault_while_it_waits_for_a_word_ends_nothing_but_itself():
    with serving(handler) as server, raw_client(server) as raw:
        raw.core.send_request(WAITING_PUT, end_stream=False)
        raw.sock.sendall(raw.core.data_to_send(0.0) + b"\0\0\1\6\0\0\0\0\0x")  # a PING of 1 octet
        raw.rest()
        with connect(server.url) as connection:
            assert connection.stream("GET", "/").status == 200


def test_a_client_that_takes_no_fields_ends_nothing_but_its_stream(monkeypatch):
    monkeypatch.setattr("sys.excepthook", lambda *_: None)
    with serving(handler) as server, raw_client(server) as raw:
        raw.core.update_settings({SettingId.MAX_HEADER_LIST_SIZE: 1}, 0.0)
        stream = raw.core.send_request(WAITING_PUT, end_stream=False)
        raw.core.send_data(stream, b"content", end_stream=True)
        assert raw.until(StreamWasReset).error_code == ErrorCode.INTERNAL_ERROR
        with connect(server.url) as connection:
            assert connection.stream("GET", "/").status == 200


@pytest.mark.parametrize("step", ["handler", "body"])
def test_a_body_is_closed_though_the_reset_came_during_a_step(step):
    entered, released, closed = (threading.Event() for _ in range(3))

    class Slow:
        def __next__(self) -> bytes:
            if step == "body":
                entered.set()
                released.wait(PATIENCE_S)
            return b"piece"

        def close(self) -> None:
            closed.set()

    def slow(request: Request) -> Reply:
        if step == "handler":
            entered.set()
            released.wait(PATIENCE_S)
        return Reply(200, Slow())  # type: ignore[arg-type]

    with serving(slow, threads=1) as server, raw_client(server) as raw:
        stream = raw.core.send_request(GET)
        raw.flush()
        assert entered.wait(PATIENCE_S)
        raw.core.reset_stream(stream)
        raw.core.ping(b"12345678", 0.0)
        raw.until(PingAcked)
        released.set()
        assert closed.wait(PATIENCE_S)
        until(lambda: server.stats()["handlers"] == 0)


def test_a_reset_in_the_turn_of_a_deadline_releases_an_exchange_once():
    def stalls(request: Request) -> Reply:
        if request.path == "/stall":
            time.sleep(3 * BODY_RETRY_S)  # the deadline of the other body passes meanwhile
            return Reply()
        return never_done(request)

    with serving(stalls) as server, raw_client(server) as raw, raw_client(server) as other:
        stream = raw.core.send_request(GET)
        raw.until(ResponseReceived)
        other.core.send_request([*GET[:-1], (b":path", b"/stall")])
        other.flush()
        raw.core.reset_stream(stream)
        raw.flush()
        other.until(ResponseReceived)
        raw.core.ping(b"12345678", 0.0)
        raw.until(PingAcked)
        assert server.stats()["handlers"] == 0


@pytest.mark.parametrize("delay", [float("inf"), float("nan"), -1.0, "1", None])
def test_a_delay_that_is_none_is_a_500(delay, monkeypatch):
    monkeypatch.setattr("sys.excepthook", lambda *_: None)
    with (
        serving(lambda request: Reply(200, b"", delay=delay)) as server,
        connect(server.url) as connection,
    ):
        assert connection.stream("GET", "/").status == 500


def test_a_wait_longer_than_the_selector_takes_is_no_fault():
    with serving(lambda request: Reply(200, b"", delay=1e8)) as server, raw_client(server) as raw:
        raw.core.send_request(GET)
        raw.core.ping(b"12345678", 0.0)
        raw.until(PingAcked)
        connect(server.url, timeout=1e8).close()


@pytest.mark.parametrize("status", [204, 304])
def test_a_response_that_has_no_content_declares_none(status):
    with serving(lambda request: Reply(status)) as server, connect(server.url) as connection:
        response = connection.stream("GET", "/")
        assert (response.read(), list(response.headers)) == (b"", [])


def test_a_log_that_cannot_be_written_ends_nothing(monkeypatch):
    monkeypatch.setattr("sys.excepthook", lambda *_: None)

    def full(line: str) -> None:
        raise OSError("no space left")

    with serving(handler, log=full) as server, connect(server.url) as connection:
        assert connection.stream("GET", "/").status == 200


def test_without_descriptors_the_listener_waits_and_does_not_spin():
    with serving(handler) as server, connect(server.url) as connection:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        newcomer = socket.socket()
        resource.setrlimit(resource.RLIMIT_NOFILE, (newcomer.fileno() + 1, hard))
        try:
            newcomer.connect(("127.0.0.1", server.port))
            began = time.process_time()
            for _ in range(10):
                connection.ping()
                time.sleep(0.02)
            assert time.process_time() - began < 0.1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        newcomer.close()
        connect(server.url).close()


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(UsageError, match="port"):
        Server(handler, port=port)
