"""The server against h2lite's client and against raw sockets that do not behave."""

from __future__ import annotations

import io
import socket
import struct
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from h2lite.certs import CertificateFiles, make_certificate
from h2lite.client import PooledConnection, connect
from h2lite.connection import Connection
from h2lite.errors import ConnectionLost, ErrorCode, StreamReset, TLSError, UsageError
from h2lite.events import DataReceived, GoAwayReceived, PingAcked, ResponseReceived
from h2lite.exchange import Reply, Request
from h2lite.fields import FieldDecoder
from h2lite.frames import GoAwayFrame, HeadersFrame
from h2lite.limits import DEFAULT_LIMITS, Limits
from h2lite.server import Server
from h2lite.transport import server_context

from .pair import block, parse
from .running import PATIENCE_S, hello, needs_ipv6, needs_unix, serving

GET = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    return make_certificate(str(tmp_path_factory.mktemp("certificate")))


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """The exceptions that reached sys.excepthook."""
    faults: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, traceback: faults.append(error))
    return faults


@contextmanager
def connected(handler=hello, **arguments) -> Iterator[PooledConnection]:
    with serving(handler, **arguments) as server, connect(server.url) as connection:
        yield connection


class Raw:
    """A client's core on a blocking socket, driven by hand."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.core = Connection(client=True)
        self.events: deque[Any] = deque()  # that came and were not looked at
        self.seen: list[Any] = []  # all that came

    def flush(self) -> None:
        while octets := self.core.data_to_send(0.0):
            self.sock.sendall(octets)

    def until(self, kind: type) -> Any:
        """The next event of that kind; those before it are passed over."""
        while True:
            while self.events:
                event = self.events.popleft()
                if isinstance(event, kind):
                    return event
            self.flush()
            data = self.sock.recv(65536)
            assert data, f"the server closed before {kind.__name__}"
            events = self.core.receive_data(data, 0.0)
            self.events += events
            self.seen += events

    def rest(self) -> bytes:
        """What comes until the server closes."""
        octets = b""
        while data := self.sock.recv(65536):
            octets += data
        return octets


@contextmanager
def raw_client(server: Server) -> Iterator[Raw]:
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as sock:
        yield Raw(sock)


# -- requests ----------------------------------------------------------------------------------


def test_a_handler_gets_the_request_whole():
    seen: list[Request] = []

    def handler(request: Request) -> Reply:
        seen.append(request)
        return Reply(204)

    with connected(handler) as connection:
        body = bytes(range(256)) * 500
        connection.request("PUT", "/a?b=c", headers=[("X-One", "1")], body=body).read()
        authority = connection.origin.authority

    (request,) = seen
    assert (request.method, request.scheme, request.path) == ("PUT", "http", "/a?b=c")
    assert (request.authority, request.body) == (authority, body)
    assert request.headers == [("x-one", "1"), ("content-length", str(len(body)))]
    assert request.address.startswith("127.0.0.1:")


@pytest.mark.rfc("cookie-joined")
def test_cookie_lines_are_joined_at_the_place_of_the_first():
    lines = [(b"cookie", b"a=b"), (b"x", b"y"), (b"cookie", b"c=d; e=f")]

    request = Request([*GET, *lines], b"", "")

    assert request.headers == [("cookie", "a=b; c=d; e=f"), ("x", "y")]
    assert Request([*GET, lines[0]], b"", "").headers == [("cookie", "a=b")]


def test_connect_is_answered_501_without_asking_the_handler():
    asked: list[Request] = []
    connect_fields = block([(b":method", b"CONNECT"), (b":authority", b"example.org:443")])

    def handler(request: Request) -> Reply:
        asked.append(request)
        return Reply(200)

    with serving(handler) as server, raw_client(server) as raw:
        raw.flush()  # our own core offers no CONNECT, so the request is written by hand
        raw.sock.sendall(HeadersFrame(1, connect_fields, end_stream=True).encode())
        raw.sock.shutdown(socket.SHUT_WR)
        (response,) = [frame for frame in parse(raw.rest()) if isinstance(frame, HeadersFrame)]

    assert (b":status", b"501") in FieldDecoder().decode(bytes(response.field_block)).fields
    assert asked == []


def test_content_up_to_the_limit_is_taken_and_past_it_is_413():
    sizes: list[int] = []

    def handler(request: Request) -> Reply:
        sizes.append(len(request.body))
        return Reply()

    with connected(handler) as connection:
        at_limit = connection.request("PUT", "/", body=bytes(DEFAULT_LIMITS.request_octets))
        past_it = connection.request("PUT", "/", body=bytes(DEFAULT_LIMITS.request_octets + 1))

        assert (at_limit.status, past_it.status) == (200, 413)
        assert past_it.read() == b"content over 1048576 octets is not taken\n"
        assert connection.request("GET", "/").status == 200
    assert sizes == [DEFAULT_LIMITS.request_octets, 0]


def test_trailers_end_a_request():
    with serving(lambda request: Reply(200, request.body)) as server, raw_client(server) as raw:
        stream = raw.core.send_request([(b":method", b"PUT"), *GET[1:]], end_stream=False)
        raw.core.send_data(stream, b"content")
        raw.core.send_trailers(stream, [(b"checksum", b"1")])

        assert raw.until(DataReceived) == DataReceived(1, b"content", True)


# -- replies -----------------------------------------------------------------------------------


def test_a_body_may_be_octets_a_file_or_an_iterator():
    content = bytes(range(256)) * 1024
    file = io.BytesIO(content)
    bodies: dict[str, Any] = {
        "/octets": content,
        "/file": file,
        "/iterator": iter([content[:10], b"", content[10:]]),
        "/nothing": iter(()),
    }

    with connected(lambda request: Reply(200, bodies[request.path])) as connection:
        for path, expected in (
            ("/octets", content),
            ("/file", content),
            ("/iterator", content),
            ("/nothing", b""),
        ):
            assert connection.request("GET", path).read() == expected

        assert connection.request("GET", "/octets").headers["content-length"] == str(len(content))
    assert file.closed


def test_a_reply_to_head_has_no_content_and_closes_its_file():
    file = io.BytesIO(b"content")

    with connected(lambda request: Reply(200, file, (("content-length", "7"),))) as connection:
        response = connection.request("HEAD", "/")

        assert (response.read(), response.headers["content-length"]) == (b"", "7")
    assert file.closed


def raising(request: Request) -> Reply:
    raise RuntimeError("a handler's mistake")


@pytest.mark.parametrize(
    "broken",
    [
        raising,
        lambda request: None,
        lambda request: Reply(200, "text instead of octets"),  # type: ignore[arg-type]
        lambda request: Reply(200, b"", (("name", "not latin-1: \u2603"),)),
        lambda request: Reply(200, b"", (("name", 1),)),  # type: ignore[arg-type]
    ],
    ids=["raises", "returns nothing", "body of text", "field of snow", "field of number"],
)
def test_a_handlers_mistake_is_a_500_and_the_rest_goes_on(broken, reported):
    def handler(request: Request) -> Reply:
        return broken(request) if request.path == "/broken" else hello(request)

    with connected(handler) as connection:
        assert connection.request("GET", "/broken").status == 500
        assert connection.request("GET", "/").read() == b"hello\n"
    assert len(reported) == 1


def test_a_reply_that_http2_forbids_resets_its_stream_alone(reported):
    def handler(request: Request) -> Reply:
        forbidden = request.path == "/forbidden"
        return Reply(200, b"", (("connection", "close"),) if forbidden else ())

    with connected(handler) as connection:
        with pytest.raises(StreamReset) as caught:
            connection.request("GET", "/forbidden")
        assert caught.value.error_code == ErrorCode.INTERNAL_ERROR
        assert connection.request("GET", "/").status == 200
    assert len(reported) == 1


@pytest.mark.parametrize("fault", [RuntimeError("it broke"), "text"], ids=["raises", "text"])
def test_an_iterator_that_fails_resets_its_stream_alone(fault, reported):
    def pieces() -> Iterator[bytes]:
        yield b"the beginning"
        if isinstance(fault, Exception):
            raise fault
        yield fault

    def handler(request: Request) -> Reply:
        return Reply(200, pieces() if request.path == "/broken" else b"whole")

    with connected(handler) as connection:
        with pytest.raises(StreamReset) as caught:
            connection.request("GET", "/broken").read()
        assert caught.value.error_code == ErrorCode.INTERNAL_ERROR
        assert connection.request("GET", "/").read() == b"whole"
    assert len(reported) == 1


def test_a_slow_reader_holds_up_nobody_else():
    pulled: list[int] = []

    def endless() -> Iterator[bytes]:
        while True:
            pulled.append(65536)
            yield bytes(65536)

    def handler(request: Request) -> Reply:
        return Reply(200, endless() if request.path == "/endless" else b"quick")

    with serving(handler) as server, connect(server.url) as slow, connect(server.url) as other:
        unread = slow.stream("GET", "/endless")
        for _ in range(20):
            assert slow.request("GET", "/").read() == b"quick"
            assert other.request("GET", "/").read() == b"quick"
        assert unread.status == 200
        # Windows hold it back: what the client allows, and what one stream may have queued.
        assert sum(pulled) <= DEFAULT_LIMITS.stream_octets + 3 * 65536
        unread.close()


@pytest.mark.parametrize("how", ["reset", "close", "abort"])
def test_a_body_is_closed_when_nobody_reads_it_any_more(how):
    closed = threading.Event()

    class File(io.BytesIO):
        def close(self) -> None:
            closed.set()
            super().close()

    def handler(request: Request) -> Reply:
        return Reply(200, File(bytes(2**22)))

    with serving(handler) as server, raw_client(server) as raw:
        stream = raw.core.send_request(GET)
        raw.until(ResponseReceived)
        if how == "reset":
            raw.core.reset_stream(stream)
            raw.flush()
        else:
            if how == "abort":
                raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.sock.close()

        assert closed.wait(PATIENCE_S)


def test_a_request_that_was_reset_is_no_fault_of_the_handler(reported):
    asked: list[str] = []

    def handler(request: Request) -> Reply:
        asked.append(request.path)
        return Reply()

    with serving(handler) as server, raw_client(server) as raw:
        stream = raw.core.send_request([(b":method", b"PUT"), *GET[1:]], end_stream=False)
        raw.core.send_data(stream, b"first")
        raw.core.ping(b"12345678", 0.0)
        raw.until(PingAcked)
        # In one packet: the end of the content, and the reset.
        raw.core.send_data(stream, b"last", end_stream=True)
        octets = raw.core.data_to_send(0.0)
        raw.core.reset_stream(stream)
        raw.sock.sendall(octets + raw.core.data_to_send(0.0))
        raw.core.send_request(GET)
        raw.until(ResponseReceived)

    assert (reported, asked) == ([], ["/"])


# -- connections -------------------------------------------------------------------------------


def test_connections_past_the_limit_are_closed_and_the_others_served():
    with (
        serving(limits=Limits(connections=2)) as server,
        connect(server.url) as first,
        connect(server.url) as second,
    ):
        with pytest.raises(TLSError):
            connect(server.url)
        first.ping()
        second.close()
        while True:  # the server sees the close before long
            try:
                connect(server.url).close()
                break
            except TLSError:
                first.ping()


def test_a_handshake_that_takes_too_long_is_cut_off(files):
    limits = Limits(handshake_timeout=0.05)
    lines: list[str] = []
    context = server_context(files.certfile, files.keyfile)
    with serving(ssl_context=context, log=lines.append, limits=limits) as server:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as silent:
            address = silent.getsockname()
            assert silent.recv(1) == b""
        connect(f"https://127.0.0.1:{server.port}", cafile=files.cafile).close()

    assert lines[0] == f"127.0.0.1:{address[1]} TLS handshake not done in 0.05 s"


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["nothing", "a part"])
def test_a_client_that_does_not_go_on_with_its_handshake_holds_up_nobody(files, said):
    context = server_context(files.certfile, files.keyfile)
    with (
        serving(ssl_context=context) as server,
        socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as silent,
    ):
        silent.sendall(said)
        with connect(f"https://127.0.0.1:{server.port}", cafile=files.cafile) as connection:
            connection.ping()
            assert connection.request("GET", "/").read() == b"hello\n"
        silent.setblocking(False)
        with pytest.raises(BlockingIOError):  # the server has not given it up either
            silent.recv(1)


def test_a_failed_handshake_is_told_to_the_log(files):
    lines: list[str] = []
    context = server_context(files.certfile, files.keyfile)
    with serving(ssl_context=context, log=lines.append) as server:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                sock.makefile("rb").read()
        connect(f"https://127.0.0.1:{server.port}", cafile=files.cafile).close()

    assert "TLS handshake failed: http request" in lines[0]


@pytest.mark.parametrize("secure", [True, False])
def test_a_client_gone_before_it_was_accepted_does_no_harm(secure, files):
    context = server_context(files.certfile, files.keyfile) if secure else None
    server = Server(hello, ssl_context=context)
    gone = socket.create_connection(("127.0.0.1", server.port))
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gone.close()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with connect(server.url, cafile=files.cafile) as connection:
            connection.ping()
    finally:
        server.stop()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()


@pytest.mark.rfc("goaway-before-close")
def test_stopping_says_goaway_then_closes():
    with serving() as server, raw_client(server) as raw:
        raw.core.send_request(GET)
        raw.until(ResponseReceived)
        server.stop()

        assert raw.until(GoAwayReceived) == GoAwayReceived(1, ErrorCode.NO_ERROR, b"")
        raw.core.ping(b"12345678", 0.0)
        raw.flush()  # what crosses the GOAWAY on its way is no reason for a reset
        assert raw.rest() == b""


def test_stopping_ends_a_clients_calls():
    with serving() as server:
        connection = connect(server.url)
        server.stop()
        with pytest.raises(ConnectionLost):
            connection.watch(PATIENCE_S)
        connection.close()


def test_garbage_is_answered_with_a_goaway_and_the_end():
    lines: list[str] = []
    with serving(log=lines.append) as server, connect(server.url) as other:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            octets = b""
            while data := sock.recv(65536):
                octets += data
        other.ping()

    expected = GoAwayFrame(0, ErrorCode.PROTOCOL_ERROR, b"no HTTP/2 connection preface")
    assert octets.endswith(expected.encode())
    assert lines[0].endswith("no HTTP/2 connection preface")


def test_the_log_has_a_line_for_each_request():
    lines: list[str] = []
    with connected(log=lines.append) as connection:
        connection.request("GET", "/one?two").read()

    assert len(lines) == 1
    assert lines[0].startswith("127.0.0.1:")
    assert lines[0].endswith('"GET /one?two" 200')


# -- where it listens --------------------------------------------------------------------------


def test_a_port_in_use_is_refused_and_nothing_is_left_open():
    with serving() as server, pytest.raises(OSError, match="in use"):
        Server(hello, port=server.port)


@pytest.mark.parametrize("host", ["a..b", "nowhere.invalid"])
def test_a_host_that_is_none_is_refused_and_nothing_is_left_open(host):
    with pytest.raises(OSError, match=r"."):
        Server(hello, host=host)


@needs_ipv6
def test_it_serves_over_ipv6():
    with serving(host="::1") as server, connect(server.url) as connection:
        assert server.url == f"http://[::1]:{server.port}"
        assert connection.address == f"[::1]:{server.port}"
        connection.ping()


@pytest.fixture
def path(short_path: Path) -> Path:
    """Where a UNIX socket may be."""
    return short_path / "app.sock"


@needs_unix
def test_it_serves_on_a_unix_socket_and_takes_its_file_away(path):
    lines: list[str] = []
    with serving(host=f"unix:{path}", log=lines.append) as server:
        assert (server.url, server.port) == (f"unix:{path}", 0)
        with connect(f"{server.url}:/healthz") as connection:
            connection.ping()
            assert connection.request("GET", "/healthz").read() == b"hello\n"
        assert path.exists()

    assert not path.exists()
    assert lines == ['unix: "GET /healthz" 200']


@needs_unix
def test_a_request_by_a_unix_socket_is_for_localhost_by_http(path):
    seen: list[tuple[str, str, str]] = []

    def handler(request: Request) -> Reply:
        seen.append((request.scheme, request.authority, request.address))
        return hello(request)

    with connected(handler, host=f"unix:{path}") as connection:
        assert connection.address == f"unix:{path}"
        connection.request("GET", "/").read()

    assert seen == [("http", "localhost", "unix:")]


@needs_unix
def test_the_socket_of_a_dead_server_is_replaced(path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()

    with connected(host=f"unix:{path}") as connection:
        connection.ping()


@needs_unix
@pytest.mark.parametrize("backlog", [0, 5])
def test_the_socket_of_a_living_server_is_left_alone(path, backlog):
    """Even of one so busy that its queue is full."""
    with socket.socket(socket.AF_UNIX) as living, socket.socket(socket.AF_UNIX) as client:
        living.bind(str(path))
        living.listen(backlog)
        client.connect(str(path))

        with pytest.raises(OSError, match="in use"):
            Server(hello, host=f"unix:{path}")

        assert path.is_socket()


@needs_unix
@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_what_is_no_socket_is_left_alone(path, what):
    if what == "file":
        path.write_text("precious", "ascii")
    elif what == "folder":
        path.mkdir()
    else:
        other = path.with_name("dead.sock")
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(other))
        path.symlink_to(other)

    with pytest.raises(OSError, match="in use"):
        Server(hello, host=f"unix:{path}")

    assert path.exists()


@needs_unix
def test_a_file_that_is_gone_already_is_no_error_at_the_end(path):
    with serving(host=f"unix:{path}"):
        path.unlink()

    assert not path.exists()


@needs_unix
def test_the_file_that_a_successor_has_put_there_is_left_alone(path):
    predecessor = Server(hello, host=f"unix:{path}")
    path.unlink()
    with serving(host=f"unix:{path}") as successor:
        predecessor.stop()
        predecessor.serve_forever()

        connect(successor.url).close()


@needs_unix
@pytest.mark.parametrize("url", ["unix:", "unix:app.sock", "unix:/app.sock:/target"])
def test_a_unix_url_that_names_no_socket_is_the_callers_mistake(url):
    with pytest.raises(UsageError):
        Server(hello, host=url)


@needs_unix
def test_a_unix_socket_is_not_served_under_tls(path, files):
    with pytest.raises(UsageError, match="leave out ssl_context"):
        Server(
            hello,
            host=f"unix:{path}",
            ssl_context=server_context(files.certfile, files.keyfile),
        )

    assert not path.exists()


def test_where_there_are_no_unix_sockets_none_is_served(monkeypatch, path):
    pair = socket.socketpair()  # the loop's; here they would be made of what is taken away
    monkeypatch.setattr(socket, "socketpair", lambda: pair)
    monkeypatch.delattr(socket, "AF_UNIX", raising=False)

    with pytest.raises(UsageError, match="no UNIX sockets"):
        Server(hello, host=f"unix:{path}")
