"""HTTP/1.1 against a server of the standard library: Link, Loop and Http1Connection on a socket."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from h2lite import events as ev
from h2lite.client import ConnectionPool
from h2lite.dial import Dial, Dialled
from h2lite.http1 import Http1Connection
from h2lite.limits import DEFAULT_LIMITS
from h2lite.loop import Link, Loop
from h2lite.origin import Origin

from .running import PATIENCE_S

pytestmark = pytest.mark.scenario

CONTENT = bytes(range(256)) * 1000  # more than one send, less than what stays unread
LARGE = 12  # times that is more than what stays unread and what the kernels hold


class Handler(BaseHTTPRequestHandler):
    """GET: CONTENT, by its length; of /until-close: by the connection's end; POST: an echo.

    /large is CONTENT LARGE times, /read-ahead all that is read before it is consumed.
    """

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._begin(("Content-Length", str(len(CONTENT))))

    def do_GET(self) -> None:
        if self.path == "/until-close":
            self.close_connection = True
            self._begin()
        elif self.path == "/read-ahead":
            self._begin(("Content-Length", str(DEFAULT_LIMITS.stream_octets + 1)))
            self.wfile.write(bytes(DEFAULT_LIMITS.stream_octets + 1))
            return
        elif self.path == "/large":
            self._begin(("Content-Length", str(LARGE * len(CONTENT))))
            self.wfile.write(CONTENT * (LARGE - 1))
        else:
            self.do_HEAD()
        self.wfile.write(CONTENT)

    def do_POST(self) -> None:
        if self.headers["Transfer-Encoding"] == "chunked":
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            trailers = b""
            while (line := self.rfile.readline()) != b"\r\n":
                trailers += line
            content += trailers
        else:
            content = self.rfile.read(int(self.headers["Content-Length"]))
        self._begin(("Transfer-Encoding", "chunked"))
        for at in range(0, len(content), 10_000):
            piece = content[at : at + 10_000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\nX-Content-Length: %d\r\n\r\n" % len(content))

    def _begin(self, *pairs: tuple[str, str]) -> None:
        self.send_response_only(200)
        # By the socket's address the test sees whether a connection is used again.
        for name, value in (("X-Client", str(self.client_address[1])), *pairs):
            self.send_header(name, value)
        self.end_headers()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="http.server")
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


class Client(Http1Connection):
    """One connection on a real loop.

    is_complete   the content of the last response came to its end
    """

    is_complete = False

    def open(self, port: int) -> None:
        self.loop = Loop()
        dial = Dial(self.loop, Origin("http", "127.0.0.1", port), None, protocol="http/1.1")
        outcome: list[Any] = dial.start()
        while not outcome:
            outcome = [event for _, event in self.loop.turn(self.loop.clock() + PATIENCE_S)]
        assert type(outcome[0]) is Dialled
        assert outcome[0].transport.protocol == "http/1.1"
        connection: Any = self
        self.link = Link(self.loop, outcome[0].transport, connection)

    def close(self) -> None:
        self.link.end("the test is over")
        self.loop.close()

    def exchange(
        self,
        method: bytes,
        path: bytes = b"/",
        content: bytes | None = None,
        length: bool = True,
        trailers: ev.Fields | None = None,
    ) -> tuple[ev.ResponseReceived, bytes, list[Any]]:
        """The response, its content, and what else came of the request."""
        fields = [
            (b":method", method), (b":scheme", b"http"), (b":authority", b"localhost"),
            (b":path", path),
        ]  # fmt: skip
        if content is not None and length:
            fields.append((b"content-length", str(len(content)).encode()))
        stream = self.send_request(fields, end_stream=content is None)
        if content is not None:
            self.send_data(stream, content, end_stream=trailers is None)
        if trailers is not None:
            self.send_trailers(stream, trailers)
        self.loop.touch(self.link)
        events: list[Any] = []
        deadline = self.loop.clock() + PATIENCE_S
        while (self.streams or not stream.stream_id) and not self.link.ended:
            assert self.loop.clock() < deadline
            self.loop.flush()
            events += [event for _, event in self.loop.turn(deadline)]
        (head,) = [event for event in events if type(event) is ev.ResponseReceived]
        came = [event for event in events if type(event) is ev.DataReceived]
        self.is_complete = bool(came) and came[-1].end_stream
        pieces = [event.data for event in came]
        rest = [event for event in events if type(event) not in (type(head), ev.DataReceived)]
        for piece in pieces:
            self.data_consumed(stream.stream_id, len(piece))
        return head, b"".join(pieces), [event for event in rest if event != ev.OctetsReceived()]


@pytest.fixture
def client(port: int) -> Iterator[Client]:
    client = Client()
    client.open(port)
    yield client
    client.close()


def socket_of(head: ev.ResponseReceived) -> bytes:
    return dict(head.fields)[b"x-client"]


def test_requests_of_all_kinds_go_over_one_connection(client):
    get, content, rest = client.exchange(b"GET")
    assert (get.stream_id, get.status, content, rest) == (1, 200, CONTENT, [])

    head, content, rest = client.exchange(b"HEAD")
    assert (head.fields, head.end_stream, content, rest) == (get.fields, True, b"", [])

    post, content, rest = client.exchange(b"POST", content=CONTENT)
    assert (post.status, content) == (200, CONTENT)
    assert rest == [ev.TrailersReceived(3, [(b"x-content-length", b"256000")])]

    chunked, content, _ = client.exchange(b"POST", content=CONTENT, length=False)
    assert (chunked.status, content) == (200, CONTENT)

    trailers = [(b"a", b"b")]
    _, content, _ = client.exchange(b"POST", content=b"x", length=False, trailers=trailers)
    assert content == b"xa: b\r\n"

    last, content, _ = client.exchange(b"GET")
    assert (last.stream_id, content, client.takes_requests) == (6, CONTENT, True)
    assert len({socket_of(each) for each in (get, head, post, chunked, last)}) == 1


def test_content_that_ends_with_the_connection_is_complete_when_that_has_ended(client):
    first, _, _ = client.exchange(b"GET")

    head, content, rest = client.exchange(b"GET", b"/until-close")

    assert (socket_of(head), content, client.takes_requests) == (socket_of(first), CONTENT, False)
    assert (client.is_complete, rest) == (True, [ev.ConnectionEnded("eof", "eof")])


def test_a_pool_goes_on_reading_when_what_was_unread_is_consumed(port):
    """Each is left alone at a window of unread octets; its last consumption resumes it."""
    with ConnectionPool(http2=False, timeout=PATIENCE_S) as pool:
        response = pool.stream("GET", f"http://127.0.0.1:{port}/large")
        assert response.connection is not None
        connection = response.connection._member.connection
        deadline = time.monotonic() + PATIENCE_S
        while not connection.reading_paused:
            assert time.monotonic() < deadline
            time.sleep(0.001)

        assert response.read() == CONTENT * LARGE

        assert pool.get(f"http://127.0.0.1:{port}/").read() == CONTENT
        assert pool.stats()["dials"] == 1


def test_a_response_that_nobody_reads_holds_up_no_other_request(port):
    """It has come to its end, and its connection is left alone all the same until it is read."""
    with ConnectionPool(http2=False, timeout=PATIENCE_S) as pool:
        url = f"http://127.0.0.1:{port}"
        unread = pool.stream("GET", f"{url}/read-ahead")
        deadline = time.monotonic() + PATIENCE_S
        while not unread._exchange.call.over:
            assert time.monotonic() < deadline
            time.sleep(0.001)

        assert pool.get(url).read() == CONTENT
        assert pool.stats()["dials"] == 2

        assert unread.read() == bytes(DEFAULT_LIMITS.stream_octets + 1)
        assert pool.get(url).read() == CONTENT
        assert pool.stats()["dials"] == 2


def test_who_waits_for_a_connection_gets_one_whose_response_has_been_read(port, monkeypatch):
    monkeypatch.setattr("h2lite.pool.HTTP1_CONNECTIONS_MAX", 1)
    with ConnectionPool(http2=False, timeout=PATIENCE_S) as pool:
        url = f"http://127.0.0.1:{port}"
        for leave in ("read", "close"):
            unread = pool.stream("GET", f"{url}/read-ahead")
            deadline = time.monotonic() + PATIENCE_S
            while not unread._exchange.call.over:
                assert time.monotonic() < deadline
                time.sleep(0.001)
            waiting = pool.submit("GET", url)

            getattr(unread, leave)()

            assert waiting.result(PATIENCE_S).read() == CONTENT
        assert pool.stats()["dials"] == 1


def test_a_server_of_another_protocol_is_recognised():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Client()
        client.open(listener.getsockname()[1])
        server, _ = listener.accept()
        with server:
            server.sendall(b"\0\0\0\4\0\0\0\0\0")
            happened = client.loop.turn(client.loop.clock() + PATIENCE_S)
        client.close()

    (failed,) = [event for _, event in happened]
    assert type(failed) is ev.ConnectionFailed
    assert failed.reason == "the peer speaks HTTP/2, not HTTP/1.1"
