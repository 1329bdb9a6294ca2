"""`h2lite get` over HTTP/1.1: forced, by the environment, and what -v shows of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from h2lite.client import ConnectionPool
from h2lite.errors import UsageError

from .test_cli import run


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(self.path.encode())

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["content-length"])))

    def answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("set-cookie", "secret")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_http1_can_be_forced(url, capsys):
    assert run(capsys, "get", "--http1.1", f"{url}/here") == (0, "/here", "")


def test_the_environment_may_ask_for_it(url, capsys, monkeypatch):
    monkeypatch.setenv("DISABLE_HTTP2", "1")

    assert run(capsys, "get", "-d", "content", url) == (0, "content", "")


def test_its_heads_are_shown_line_by_line_and_secrets_are_not(url, capsys):
    arguments = ("get", "-v", "--http1.1", "-H", "Authorization: Bearer x", "-d", "four", url)
    code, out, err = run(capsys, *arguments)

    assert (code, out) == (0, "four")
    assert "> POST / HTTP/1.1\n" in err
    assert "> authorization: (not shown)\n" in err
    assert "Bearer" not in err
    assert "< HTTP/1.1 200 OK\n" in err
    assert "set-cookie: (not shown)\n" in err
    assert "< (4 octets of content)\n" in err


def test_without_the_extra_the_error_names_it(url, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h11", None)

    code, out, err = run(capsys, "get", "--http1.1", url)
    assert (code, out) == (2, "")
    assert "pip install 'h2lite[http1]'" in err
    with pytest.raises(UsageError, match=r"h2lite\[http1\]"):
        ConnectionPool(http2=False)
    ConnectionPool().close()  # nobody has asked for it


def test_a_pool_reuses_a_connection_and_opens_another_when_all_are_busy(url):
    with ConnectionPool(http2=False) as pool:
        for _ in range(3):
            response = pool.get(url)
            assert (response.http_version, response.read()) == ("HTTP/1.1", b"/")
        assert pool.stats()["dials"] == 1
        with pool.stream("GET", url) as unread:
            assert pool.get(url).status == 200
            assert unread.status == 200
        assert pool.stats()["dials"] == 2
        with pytest.raises(UsageError, match=r"HTTP/1\.1, which has no PING"):
            pool.connections[0].ping()
        assert [str(result.error) for result in pool.ping_all()] == [
            f"{connection} speaks HTTP/1.1, which has no PING" for connection in pool.connections
        ]
