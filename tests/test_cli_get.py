"""`h2lite get` with curl's options, against the paths of `h2lite serve`."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from h2lite.cli import get as get_module
from h2lite.cli import main
from h2lite.cli.count import FrameCounts
from h2lite.cli.routes import BYTES_MAX, PATTERN, Routes
from h2lite.client import connect
from h2lite.exchange import Reply, Request
from h2lite.framer import CLIENT_PREFACE
from h2lite.frames import DataFrame, PingFrame, SettingsFrame, UnknownFrame

from .cutting import cuts
from .running import PATIENCE_S, serving


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """`h2lite serve` without its process: the same handler."""
    counts = FrameCounts()
    routes = Routes(None, counts)
    with serving(routes, streamed=routes.streamed, tap=counts.tap) as server:
        routes.server = server
        yield server.url


def got(capfdbinary, *arguments: str) -> bytes:
    """The command succeeds without a word on stderr; what it prints."""
    code = main(["get", *arguments])
    out, err = capfdbinary.readouterr()
    assert (code, err) == (0, b"")
    return bytes(out)


def seen_by(capfdbinary, url: str, *arguments: str) -> dict[str, Any]:
    """The request that such a command sends, as the server understood it."""
    seen: dict[str, Any] = json.loads(got(capfdbinary, *arguments, f"{url}/headers"))
    return seen


def field(seen: dict[str, Any], name: str) -> list[str]:
    return [value for key, value in seen["headers"] if key == name]


# -- the paths of serve ------------------------------------------------------------------------


@pytest.mark.parametrize("octets", [0, 1, len(PATTERN), 10 * len(PATTERN) + 7])
def test_bytes_gives_so_many(capfdbinary, url, octets):
    assert got(capfdbinary, f"{url}/bytes/{octets}") == (PATTERN * 11)[:octets]


@pytest.mark.parametrize(
    "path", ["/bytes/", "/bytes/-1", "/bytes/1x", "/bytes/%C2%B2",
             f"/bytes/{BYTES_MAX + 1}", "/delay/", "/delay/x", "/delay/-1", "/delay/nan",
             "/delay/inf", "/delay/3601"]
)  # fmt: skip
def test_a_number_that_is_none_is_400(url, path):
    with connect(url) as connection:
        assert connection.request("GET", path).status == 400


def test_delay_answers_after_that_time(capfdbinary, url):
    began = time.monotonic()

    assert got(capfdbinary, f"{url}/delay/0.05") == b"after 0.05 s\n"
    assert time.monotonic() - began >= 0.05


def test_echo_gives_content_back_with_its_type(url):
    with connect(url) as connection:
        response = connection.request(
            "POST", "/echo", body=b"a: 1", headers=[("content-type", "text/yaml")]
        )
        assert (response.read(), response.headers["content-type"]) == (b"a: 1", "text/yaml")
        assert connection.request("GET", "/echo").read() == b""


def test_stats_count_streams_handlers_and_frames(url):
    with connect(url) as connection:
        connection.ping()
        waiting = connection.request("POST", "/echo", body=iter([b"a"]))
        assert waiting.read() == b"a"
        stats = json.loads(connection.request("GET", "/stats").read())

    assert {key: stats[key] for key in stats if key != "frames"} == {
        "connections": 1,
        "requests": 2,
        "streams": 1,
        "streams_most": 1,
        "handlers": 1,
        "handlers_most": 1,
    }
    # The acks of SETTINGS and the credit given back are not of the same number each time.
    frames = stats["frames"]
    assert {name: frames["in"][name] for name in ("HEADERS", "PING")} == {"HEADERS": 2, "PING": 1}
    assert frames["in"]["DATA"] == 2
    assert frames["out"]["PING"] == 1


def test_frames_are_counted_alike_however_their_octets_are_cut():
    octets = CLIENT_PREFACE + b"".join(
        frame.encode()
        for frame in (
            SettingsFrame(),
            PingFrame(b"12345678"),
            PingFrame(b"12345678", ack=True),
            DataFrame(1, b"x" * 40),
            UnknownFrame(0x20, 0, 1, b""),
        )
    )
    for pieces in cuts(octets):
        counts = FrameCounts()
        tap = counts.tap()
        for piece in pieces:
            tap(True, piece)
        assert counts.by_name() == {
            "in": {"DATA": 1, "SETTINGS": 1, "PING": 2, "0x20": 1},
            "out": {},
        }


# -- what is sent ------------------------------------------------------------------------------


def test_a_plain_get_says_who_asks_and_what_for(capfdbinary, url):
    seen = seen_by(capfdbinary, url)

    assert (seen["method"], seen["path"]) == ("GET", "/headers")
    assert field(seen, "user-agent")[0].startswith("h2lite/")
    assert field(seen, "accept") == ["*/*"]


def test_headers_are_added_replaced_left_out_and_sent_empty(capfdbinary, url):
    seen = seen_by(
        capfdbinary, url, "-H", "X-One:  1 ", "-H", "X-One: 2", "-H", "Accept: text/plain",
        "-H", "User-Agent:", "-H", "X-Empty;", "-H", "Host: example.org",
    )  # fmt: skip

    assert seen["headers"] == [
        ["x-one", "1"], ["x-one", "2"], ["accept", "text/plain"], ["x-empty", ""]
    ]  # fmt: skip
    assert seen["authority"] == "example.org"


def test_data_is_posted_as_a_form(capfdbinary, url, tmp_path):
    (tmp_path / "file").write_bytes(b"b=\r\n2\n")
    arguments = ("-d", "a=1", "-d", f"@{tmp_path / 'file'}")

    seen = seen_by(capfdbinary, url, *arguments)

    assert seen["method"] == "POST"
    assert field(seen, "content-type") == ["application/x-www-form-urlencoded"]
    assert field(seen, "content-length") == ["7"]
    assert got(capfdbinary, *arguments, f"{url}/echo") == b"a=1&b=2"
    assert seen_by(capfdbinary, url, *arguments, "-X", "PATCH")["method"] == "PATCH"


def test_json_is_posted_as_it_is(capfdbinary, url, tmp_path):
    (tmp_path / "file").write_bytes(b'[1,\n 2]\n')
    arguments = ("--json", f"@{tmp_path / 'file'}")

    seen = seen_by(capfdbinary, url, *arguments)

    assert (field(seen, "content-type"), field(seen, "accept")) == (["application/json"],) * 2
    assert got(capfdbinary, *arguments, f"{url}/echo") == b'[1,\n 2]\n'
    own = ("-H", "Content-Type: application/merge-patch+json")
    seen = seen_by(capfdbinary, url, *arguments, *own)
    assert field(seen, "content-type") == ["application/merge-patch+json"]


def test_a_file_is_put_with_its_length_and_comes_back(capfdbinary, url, tmp_path):
    content = os.urandom(1_000_000)
    (tmp_path / "a file").write_bytes(content)
    upload = ("-T", str(tmp_path / "a file"))

    assert got(capfdbinary, *upload, f"{url}/echo") == content
    seen = seen_by(capfdbinary, url, *upload)
    assert (seen["method"], field(seen, "content-length")) == ("PUT", ["1000000"])


@pytest.mark.parametrize(
    ("url", "file", "named"),
    [
        ("http://h/", "dir/a file", "http://h/a%20file"),
        ("http://h/dir/", "b", "http://h/dir/b"),
        ("http://h", "b", "http://h/b"),
        ("http://h/dir", "b", "http://h/dir"),
        ("http://h/", "-", "http://h/"),
        ("unix:/run/x.sock", "b", "unix:/run/x.sock"),
    ],
)
def test_a_url_that_ends_in_a_slash_takes_the_files_name(url, file, named):
    assert get_module._named(url, file) == named


def test_stdin_is_sent_as_it_comes(capfdbinary, url, monkeypatch):
    for arguments in (("-T", "-"), ("-d", "@-")):
        reader, writer = os.pipe()
        os.write(writer, b"piped")
        os.close(writer)
        with open(reader) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            assert got(capfdbinary, *arguments, f"{url}/echo") == b"piped"


# -- what comes --------------------------------------------------------------------------------


def test_head_prints_the_fields_alone(capfdbinary, url):
    out = got(capfdbinary, "-I", f"{url}/bytes/12")

    assert out.splitlines() == [
        b"HTTP/2 200", b"content-type: application/octet-stream", b"content-length: 12"
    ]  # fmt: skip


def test_a_status_that_is_an_error_is_printed_like_any_other(capfdbinary, url):
    assert got(capfdbinary, f"{url}/nothing") == b"not found\n"


def test_what_takes_over_a_second_is_told_on_a_terminal(url, monkeypatch, tmp_path):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(get_module, "PROGRESS_AFTER_S", 0.0)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    (tmp_path / "in").write_bytes(bytes(2_500_000))
    code = main(["get", "-T", str(tmp_path / "in"), "-o", str(tmp_path / "out"), f"{url}/echo"])

    assert code == 0
    last = terminal.getvalue().split("\r")[-1]
    assert "2.5 MB of 2.5 MB sent, 2.5 MB of 2.5 MB received, " in last
    assert last.endswith("/s\x1b[K\n")


def test_what_is_quick_is_not_told(url, monkeypatch, tmp_path, capfdbinary):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    assert got(capfdbinary, "-o", str(tmp_path / "out"), f"{url}/bytes/1") == b""


def test_a_dash_is_stdout(capfdbinary, url):
    assert got(capfdbinary, "-o", "-", f"{url}/healthz") == b"ok\n"


def test_a_length_that_the_user_declares_takes_the_place_of_ours(capfdbinary, url, tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    declared = ("-T", str(tmp_path / "file"), "-H", "Content-Length: 5")
    assert got(capfdbinary, *declared, f"{url}/echo") == b"12345"


def test_what_a_pipe_has_by_now_is_sent_by_now():
    came = threading.Event()

    def reading(request: Request) -> Reply:
        assert request.content is not None
        assert next(request.content) == b"one\n"
        came.set()
        return Reply(200, b"".join(request.content))

    command = [sys.executable, "-m", "h2lite", "get", "-T", "-"]
    with (
        serving(reading, threads=1, streamed=lambda request: True) as server,
        subprocess.Popen(
            [*command, server.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process,
    ):
        assert process.stdin is not None
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert came.wait(PATIENCE_S)
        assert process.communicate(b"two\n", PATIENCE_S)[0] == b"two\n"


# -- what is refused ---------------------------------------------------------------------------


def test_an_upload_that_fails_is_not_told_as_the_output(url, monkeypatch, capsys, tmp_path):
    def broken(file: object) -> bytes:
        raise OSError(5, "Input/output error")

    (tmp_path / "file").write_bytes(b"content")
    monkeypatch.setattr(get_module, "next_piece", broken)

    assert main(["get", "-T", str(tmp_path / "file"), f"{url}/echo"]) == 2
    assert capsys.readouterr() == ("", "h2lite: cannot read the upload: Input/output error\n")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["-H", "no colon"], "bad header 'no colon': it has the form 'Name: value'"),
        (["-H", ": value"], "bad header ': value': it has the form 'Name: value'"),
        (["-H", "na me: value"], "field name b'na me' holds a forbidden octet"),
        (["-H", "connection: close"], "field b'connection' belongs to HTTP/1.1"),
        (["-H", "host: a", "-H", "host: b"], "more than one Host"),
        (["-H", "x: \u2603"], "not representable in a field"),
        (["-X", "GE T"], ":method of b'GE T'"),
        (["-X", "CONNECT"], "CONNECT"),
        (["-T", "/nowhere/at all"], "cannot read /nowhere/at all: No such file or directory"),
        (["-T", "/"], "cannot read /: Is a directory"),
        (["-d", "@/nowhere/at all"], "cannot read /nowhere/at all: No such file or directory"),
        (["--json", "@/nowhere/at all"], "cannot read /nowhere/at all: No such file"),
        (["-d", "a", "-I"], "not allowed with argument"),
        (["--max-time", "0"], "'0' is not a number of seconds above 0"),
        (["--connect-timeout", "x"], "'x' is not a number of seconds above 0"),
    ],
)
def test_a_wrong_argument_of_get_is_one_line_and_exit_code_2(capsys, url, arguments, line):
    code: object
    try:
        code = main(["get", *arguments, url])
    except SystemExit as exit_:
        code = exit_.code
    out, err = capsys.readouterr()

    assert (code, out) == (2, "")
    assert line in err
    assert err.count("\n") == 1


# -- the end of all patience -------------------------------------------------------------------


def test_connect_timeout_ends_what_does_not_stand(capsys):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert main(["get", "--connect-timeout", "0.05", url]) == 6
    assert "SETTINGS within 0.05 s" in capsys.readouterr().err


def test_max_time_ends_an_upload_whose_source_says_nothing(url):
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "h2lite", "get", "--max-time", "0.5", "-T", "-"]
    began = time.monotonic()
    done = subprocess.run(
        [*command, f"{url}/echo"], stdin=reader, capture_output=True, timeout=PATIENCE_S
    )
    os.close(reader)
    os.close(writer)

    assert done.returncode == 6
    assert b"not fetched within 0.5 s" in done.stderr
    assert time.monotonic() - began < 5


def test_max_time_ends_a_download_that_nobody_takes(url):
    command = [sys.executable, "-m", "h2lite", "get", "--max-time", "0.5", f"{url}/bytes/99999999"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.wait(PATIENCE_S) == 6
        assert process.stderr is not None
        assert b"not fetched within 0.5 s" in process.stderr.read()


def test_the_alarm_leaves_no_trace(url, capfdbinary):
    before = signal.getsignal(signal.SIGALRM)

    got(capfdbinary, "--max-time", "5", f"{url}/healthz")

    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_max_time_ends_a_body_that_trickles(capsys):
    def trickle(request: Request) -> Reply:
        return Reply(200, iter(lambda: b"", None))

    with serving(trickle) as server:
        assert main(["get", "--max-time", "0.2", server.url]) == 6
    assert "not fetched within 0.2 s" in capsys.readouterr().err
