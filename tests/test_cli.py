"""The commands in process: what they print, where, and the exit code."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from h2lite import errors
from h2lite.cli import describe, exit_code, main
from h2lite.cli import routes as routes_module
from h2lite.cli import serve as serve_module
from h2lite.cli.count import FrameCounts
from h2lite.cli.ping import Tally
from h2lite.cli.routes import HELP, Routes
from h2lite.cli.trace import FrameTrace
from h2lite.client import PooledConnection, connect
from h2lite.errors import ErrorCode, UsageError
from h2lite.events import PingReceived, RequestReceived
from h2lite.exchange import Reply, Request
from h2lite.fields import FieldEncoder
from h2lite.framer import CLIENT_PREFACE
from h2lite.frames import GoAwayFrame, HeadersFrame, SettingsFrame

from .running import Peer, accepting, needs_unix, peering, serving

OK = [(b":status", b"200")]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    try:
        code = main(list(arguments))
    except SystemExit as end:
        code = int(end.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


# -- arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["ping", "-c", "0", "u"], "h2lite ping: argument -c: '0' is not a whole number above 0"),
        (["ping", "-c", "x", "u"], "h2lite ping: argument -c: 'x' is not a whole number above 0"),
        (["ping", "-c", "1.5", "u"], "argument -c: '1.5' is not a whole number above 0"),
        (["ping", "-c", "9" * 5000, "u"], "is not a whole number above 0"),
        (["ping", "-i", "-1", "u"], "argument -i: '-1' is not a number of seconds, 0 or more"),
        (["ping", "-i", "nan", "u"], "argument -i: 'nan' is not a number of seconds, 0 or more"),
        (["ping", "-i", "inf", "u"], "argument -i: 'inf' is not a number of seconds, 0 or more"),
        (["ping", "-W", "0", "u"], "argument -W: '0' is not a number of seconds above 0"),
        (["ping"], "h2lite ping: the following arguments are required: URL"),
        (["get", "--max-time", "soon", "u"], "'soon' is not a number of seconds above 0"),
        (["serve", "--port", "65536"], "argument --port: '65536' is not a port, 0 to 65535"),
        (["serve", "--port", "0" * 21 + "99999"], "is not a port, 0 to 65535"),
        (["nothing"], "invalid choice: 'nothing'"),
        (["ping", "--nothing", "u"], "h2lite: unrecognized arguments: --nothing"),
        ([], "h2lite: the following arguments are required: COMMAND"),
    ],
)
def test_a_wrong_argument_is_one_line_and_exit_code_2(capsys, arguments, line):
    code, out, err = run(capsys, *arguments)

    assert (code, out) == (2, "")
    assert line in err
    assert err.count("\n") == 1
    assert err.endswith("--help)\n")


@pytest.mark.parametrize("command", [[], ["ping"], ["get"], ["serve"], ["demo"], ["doctor"]])
def test_help_is_no_failure(capsys, command):
    code, out, err = run(capsys, *command, "--help")

    assert (code, err) == (0, "")
    assert out.startswith("usage: h2lite")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("x"), 2),
        (errors.LocalProtocolError("x"), 2),
        (errors.ConnectError("x"), 3),
        (errors.TLSError("x"), 4),
        (errors.ConnectionLost("x"), 5),
        (errors.RemoteProtocolError("x", ErrorCode.PROTOCOL_ERROR), 5),
        (errors.StreamReset("x", ErrorCode.CANCEL), 5),
        (errors.ConnectTimeout("x"), 6),
        (errors.ReadTimeout("x"), 6),
        (errors.PingTimeout("x"), 6),
    ],
)
def test_each_error_has_the_exit_code_promised(error, code):
    assert exit_code(error) == code


def test_an_error_is_described_in_one_line_that_steers_no_terminal():
    error = errors.ConnectError("cannot resolve \x1b[2J\nthe host")

    assert describe(error) == "cannot resolve \\x1b[2J the host (check the name)"
    assert describe(errors.ConnectError("something else")) == "something else"


# -- ping --------------------------------------------------------------------------------------


def test_ping_reports_as_ping_does(capsys):
    with serving() as server:
        code, out, err = run(capsys, "ping", "-c", "3", "-i", "0", server.url)

    address = re.escape(f"127.0.0.1:{server.port}")
    url = re.escape(server.url)
    replies = "".join(
        rf"8 octets from {address}: seq={seq} rtt=\d+\.\d\d\d ms\n" for seq in (1, 2, 3)
    )
    assert re.fullmatch(
        rf"PING {url} \({address}\) over h2c: 8 octets of data\n{replies}"
        rf"--- {url} ping statistics ---\n"
        r"3 sent, 3 acknowledged, 0% loss, time \d+ ms\n"
        r"rtt min/avg/max/mdev = \d+\.\d{3}/\d+\.\d{3}/\d+\.\d{3}/\d+\.\d{3} ms\n",
        out,
    )
    assert (code, err) == (0, "")


def test_a_quiet_ping_prints_head_and_summary(capsys):
    with serving() as server:
        code, out, _ = run(capsys, "ping", "-q", "-c", "2", "-i", "0", server.url)

    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["PING", "---", "2", "rtt"]


def test_ping_as_json_is_an_object_a_line(capsys):
    with serving() as server:
        code, out, _ = run(capsys, "ping", "--json", "-c", "2", "-i", "0", server.url)

    connected, *acks, summary = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert connected == {
        "event": "connected",
        "url": server.url,
        "address": f"127.0.0.1:{server.port}",
        "protocol": "h2c",
        "tls_version": None,
    }
    assert [(ack["event"], ack["seq"], ack["rtt"] > 0) for ack in acks] == [
        ("ack", 1, True),
        ("ack", 2, True),
    ]
    assert list(summary) == [
        *("event", "sent", "acknowledged", "loss_percent", "seconds"),
        *("rtt_min", "rtt_avg", "rtt_max", "rtt_mdev"),
    ]
    assert (summary["sent"], summary["acknowledged"], summary["loss_percent"]) == (2, 2, 0.0)


def lose_the_second(peer: Peer) -> None:
    peer.until(PingReceived)
    peer.flush()
    peer.until(PingReceived)
    peer.core.data_to_send(0.0)  # lost
    peer.serve()


def test_a_lost_ping_is_told_and_is_exit_code_1(capsys):
    with peering(lose_the_second) as peer:
        code, out, err = run(capsys, "ping", "-c", "3", "-i", "0", "-W", "0.05", peer.url)

    assert (code, err) == (1, "")
    assert f"no ack from 127.0.0.1:{peer.port}: seq=2 within 0.05 s\n" in out
    assert "\n3 sent, 2 acknowledged, 33.33% loss, time " in out


def test_a_lost_ping_as_json(capsys):
    with peering(lose_the_second) as peer:
        arguments = ("--json", "-c", "3", "-i", "0", "-W", "0.05", peer.url)
        code, out, _ = run(capsys, "ping", *arguments)

    told = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [line["event"] for line in told] == ["connected", "ack", "lost", "ack", "summary"]
    assert told[2] == {"event": "lost", "seq": 2, "waited": 0.05}


def test_ctrl_c_ends_a_ping_with_its_summary(capsys, monkeypatch):
    def interrupted(self: PooledConnection, timeout: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PooledConnection, "watch", interrupted)
    with serving() as server:
        code, out, err = run(capsys, "ping", server.url)

    assert (code, err) == (0, "")
    assert "\n1 sent, 1 acknowledged, 0% loss, " in out


def test_ctrl_c_elsewhere_is_exit_code_130_without_a_word(capsys, monkeypatch):
    def interrupted(self: PooledConnection, method: str, path: str, **_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PooledConnection, "stream", interrupted)
    with serving() as server:
        assert run(capsys, "get", server.url) == (130, "", "")


@pytest.mark.parametrize(
    ("error_code", "code"), [(ErrorCode.NO_ERROR, 1), (ErrorCode.ENHANCE_YOUR_CALM, 5)]
)
def test_a_ping_whose_connection_ends_sums_up_and_says_why(capsys, error_code, code):
    def leave(peer: Peer) -> None:
        peer.until(PingReceived)
        peer.flush()
        peer.until(PingReceived)
        peer.core.goaway(error_code, b"enough")
        peer.core._urgent = []  # the answer
        peer.flush()

    with peering(leave) as peer:
        done = run(capsys, "ping", "-i", "0", peer.url)

    assert done[0] == code
    assert "\n2 sent, 1 acknowledged, 50% loss, " in done[1]
    assert done[2].startswith(f"h2lite: {peer.url} (127.0.0.1:{peer.port})")
    assert done[2].count("\n") == 1


def test_the_deviation_is_that_of_all_round_trips():
    tally = Tally()
    for rtt in (1.0, 2.0, 3.0, 6.0):
        tally.sent += 1
        tally.add(rtt)
    tally.sent += 4

    assert (tally.low, tally.mean, tally.high, tally.loss_percent) == (1.0, 3.0, 6.0, 50.0)
    assert tally.deviation == pytest.approx(3.5**0.5)
    assert Tally().loss_percent == 0.0


# -- get ---------------------------------------------------------------------------------------


def test_get_prints_the_content_octet_for_octet(capfdbinary):
    content = bytes(range(256)) * 300
    with serving(lambda request: Reply(200, content)) as server:
        assert main(["get", f"{server.url}/x?y"]) == 0

    assert capfdbinary.readouterr() == (content, b"")


@needs_unix
def test_ping_and_get_reach_a_unix_socket(capfdbinary, short_path):
    with serving(host=f"unix:{short_path}/app.sock") as server:
        assert main(["ping", "-q", "-c", "1", server.url]) == 0
        assert main(["get", f"{server.url}:/healthz"]) == 0
    out, err = capfdbinary.readouterr()

    lines = out.decode().splitlines()
    url = f"unix:{short_path}/app.sock"
    assert lines[0] == f"PING {url} ({url}) over h2c: 8 octets of data"
    assert (lines[-1], err) == ("hello", b"")


def test_get_writes_to_a_file(capsys, tmp_path):
    with serving() as server:
        done = run(capsys, "get", "-o", str(tmp_path / "out"), server.url)

    assert done == (0, "", "")
    assert (tmp_path / "out").read_bytes() == b"hello\n"


def test_a_file_that_cannot_be_written_is_named(capsys, tmp_path):
    path = tmp_path / "no folder" / "out"
    with serving() as server:
        done = run(capsys, "get", "-o", str(path), server.url)

    assert done == (2, "", f"h2lite: cannot write {path}: No such file or directory\n")


def test_get_shows_every_frame_on_stderr(capfd):
    with serving() as server:
        assert main(["get", "-v", f"{server.url}/healthz"]) == 0
    out, err = capfd.readouterr()

    assert out == "hello\n"
    lines = err.splitlines()
    assert lines[0] == "> connection preface octets=24"
    kinds = [line.split()[:2] for line in lines if not line[2:].startswith(" ")]
    for kind in (["<", "SETTINGS"], [">", "SETTINGS"], [">", "HEADERS"], ["<", "HEADERS"]):
        assert kind in kinds
    assert ["<", "DATA"] in kinds
    assert [">", "GOAWAY"] in kinds
    start = lines.index(next(line for line in lines if line.startswith("> HEADERS")))
    assert lines[start + 1 : start + 5] == [
        ">     :method: GET",
        ">     :scheme: http",
        f">     :authority: 127.0.0.1:{server.port}",
        ">     :path: /healthz",
    ]


def test_a_response_that_does_not_come_in_time_is_exit_code_6(capsys):
    def silent(peer: Peer) -> None:
        peer.until(RequestReceived)
        peer.serve()

    with peering(silent) as peer:
        code, out, err = run(capsys, "get", "--max-time", "0.2", peer.url)

    assert (code, out) == (6, "")
    assert err.startswith(f"h2lite: {peer.url} not fetched within 0.2 s: ")
    assert err.count("\n") == 1


def test_a_connection_that_does_not_stand_in_time_is_exit_code_6(capsys):
    def silent(sock: socket.socket) -> None:
        with contextlib.suppress(ConnectionResetError):  # who gives up may reset the connection
            while sock.recv(65536):
                pass

    with accepting(silent) as peer:
        code, out, err = run(capsys, "get", "--max-time", "0.2", peer.url)

    assert (code, out) == (6, "")
    assert "not fetched within 0.2 s" in err


def test_a_reset_response_is_exit_code_5(capsys):
    def reset(peer: Peer) -> None:
        request = peer.until(RequestReceived)
        peer.core.reset_stream(peer.core.streams[request.stream_id], ErrorCode.INTERNAL_ERROR)
        peer.serve()

    with peering(reset) as peer:
        done = run(capsys, "get", peer.url)

    assert done == (5, "", "h2lite: the peer reset the stream, INTERNAL_ERROR\n")


# -- trace -------------------------------------------------------------------------------------


def trace(*crossed: tuple[bool, bytes]) -> list[str]:
    lines: list[str] = []
    tap = FrameTrace(lines.append)
    for received, octets in crossed:
        tap(received, octets)
    return lines


def test_secrets_are_not_shown():
    fields = [
        (b":status", b"200"),
        (b"set-cookie", b"secret"),
        (b"authorization", b"secret"),
        (b"cookie", b"secret"),
        (b"proxy-authorization", b"secret"),
    ]
    headers = HeadersFrame(1, FieldEncoder().encode(fields), True)

    lines = trace((True, SettingsFrame().encode() + headers.encode()))

    assert lines[2:] == [
        "<     :status: 200",
        *(f"<     {name.decode()}: (not shown)" for name, _ in fields[1:]),
    ]
    assert "secret" not in "".join(lines)


def test_a_hostile_peers_control_characters_are_escaped():
    fields = [(b"na\x1b[2Jme", b"va\x1b]0;title\x07\nlue\x9b2J")]
    headers = HeadersFrame(1, FieldEncoder().encode(fields), True)
    goaway = GoAwayFrame(0, ErrorCode.NO_ERROR, b"\x1b[2J\n")

    lines = trace((True, SettingsFrame().encode() + headers.encode() + goaway.encode()))

    assert lines[2] == "<     na\\x1b[2Jme: va\\x1b]0;title\\x07\\x0alue\\x9b2J"
    assert all(line.isprintable() for line in lines)
    assert len(lines) == 4


def test_octets_cut_anywhere_give_the_same_lines():
    headers = HeadersFrame(1, FieldEncoder().encode(OK), True)
    octets = CLIENT_PREFACE + SettingsFrame().encode() + headers.encode()
    whole = trace((False, octets))

    assert whole[0] == "> connection preface octets=24"
    for cut in range(1, len(octets)):
        assert trace((False, octets[:cut]), (False, octets[cut:])) == whole


def test_what_is_no_frame_ends_the_trace_of_its_direction():
    lines = trace((True, b"HTTP/1.1 400 Bad Request\r\n\r\n"), (True, SettingsFrame().encode()))

    assert lines == ["< not understood: the peer speaks HTTP/1.1, not HTTP/2"]


# -- serve -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to serve beside what must not be served."""
    (tmp_path / "secret.txt").write_bytes(b"secret")
    folder = tmp_path / "public"
    (folder / "sub").mkdir(parents=True)
    (folder / "links").mkdir()
    (folder / "a b.txt").write_bytes(b"a and b")
    (folder / "index.html").write_bytes(b"<p>index")
    (folder / "link").symlink_to(tmp_path / "secret.txt")
    (folder / "way out").symlink_to(tmp_path)
    (folder / "inside").symlink_to(folder / "a b.txt")
    (folder / "links" / "index.html").symlink_to(tmp_path / "secret.txt")
    return folder


FILE = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/log")]


def routes(folder: Path | None) -> Routes:
    return Routes(None if folder is None else str(folder), FrameCounts())


def ask(handler: Routes, path: str, method: str = "GET") -> tuple[int, bytes, dict[str, str]]:
    fields = [(b":method", method.encode()), (b":scheme", b"http"), (b":path", path.encode())]
    reply = handler(Request(fields, b"", "127.0.0.1:1"))
    body = reply.body
    if isinstance(body, bytes):
        return reply.status, body, dict(reply.headers)
    return reply.status, b"".join(body), dict(reply.headers)


def test_a_file_that_grows_is_served_as_long_as_it_was(folder):
    (folder / "log").write_bytes(b"x" * 70_000)
    reply = routes(folder)(Request(FILE, b"", "127.0.0.1:1"))
    assert isinstance(reply.body, Iterator)
    first = next(reply.body)
    with (folder / "log").open("ab") as log:
        log.write(b"y" * 70_000)

    assert first + b"".join(reply.body) == b"x" * 70_000


@pytest.mark.parametrize("how", ["cut short", "replaced"])
def test_a_file_that_is_no_longer_the_one_that_was_begun_fails(folder, how):
    (folder / "log").write_bytes(b"x" * 70_000)
    reply = routes(folder)(Request(FILE, b"", "127.0.0.1:1"))
    assert isinstance(reply.body, Iterator)
    next(reply.body)
    if how == "cut short":
        (folder / "log").write_bytes(b"x" * 69_999)
    else:
        (folder / "new").write_bytes(b"y" * 70_000)
        (folder / "new").rename(folder / "log")

    with pytest.raises(OSError, match=f"log was {how} while it was sent$"):
        next(reply.body)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="descriptors are counted there")
def test_files_that_nobody_reads_hold_no_descriptors(folder):
    (folder / "log").write_bytes(b"x" * 200_000)
    handler = routes(folder)
    before = len(os.listdir("/proc/self/fd"))
    replies = [handler(Request(FILE, b"", "127.0.0.1:1")) for _ in range(10)]
    for reply in replies:
        assert isinstance(reply.body, Iterator)
        next(reply.body)

    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("path", "content", "kind"),
    [
        ("/a%20b.txt", b"a and b", "text/plain"),
        ("/a%20b.txt?query", b"a and b", "text/plain"),
        ("/sub/../a%20b.txt", b"a and b", "text/plain"),
        ("/inside", b"a and b", "text/plain"),
        ("//a%20b.txt", b"a and b", "text/plain"),
        ("/", b"<p>index", "text/html"),
        ("/healthz", b"ok\n", "text/plain; charset=utf-8"),
    ],
)
def test_files_of_the_folder_are_served(folder, path, content, kind):
    status, body, headers = ask(routes(folder), path)

    assert (status, body, headers["content-type"]) == (200, content, kind)
    assert headers.get("content-length", str(len(content))) == str(len(content))


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/%2e%2e%2fsecret.txt",
        "/sub/../../secret.txt",
        "//../secret.txt",
        "/..",
        "/link",
        "/links/",
        "/way%20out/secret.txt",
        "/a%20b.txt%00.html",
        "/%00",
        "/sub",
        "/none",
        "/" + "x" * 5000,
        "*",
    ],
)
def test_nothing_outside_the_folder_is_served(folder, path):
    assert ask(routes(folder), path)[:2] == (404, b"not found\n")


def test_an_absolute_path_in_a_path_stays_in_the_folder(folder, tmp_path):
    handler = routes(folder)

    for prefix in ("/", "//", "/%2f"):
        assert ask(handler, f"{prefix}{tmp_path}/secret.txt")[0] == 404


def test_without_a_folder_the_root_lists_what_there_is():
    assert ask(routes(None), "/healthz")[:2] == (200, b"ok\n")
    assert ask(routes(None), "/")[:2] == (200, HELP)
    assert ask(routes(None), "/index.html")[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "CONNECT"])
def test_other_methods_are_405(folder, method):
    status, _, headers = ask(routes(folder), "/", method)

    assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_a_file_that_cannot_be_read_is_403(folder, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(routes_module, "open", refuse, raising=False)

    assert ask(routes(folder), "/")[0] == 403


def test_head_is_answered_with_the_fields_of_get(folder):
    with serving(routes(folder)) as server, connect(server.url) as connection:
        response = connection.request("HEAD", "/a%20b.txt")

        assert (response.status, response.headers["content-length"]) == (200, "7")
        assert response.read() == b""


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is not a folder"):
        routes(tmp_path / "none")


def test_what_a_client_asked_cannot_steer_the_log(capsys):
    serve_module._log('127.0.0.1:1 "GET /\x1b[2J\x9b" 200')

    assert capsys.readouterr().err == '127.0.0.1:1 "GET /\\x1b[2J\\x9b" 200\n'


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--cert", "c.pem"], "--cert and --key go together"),
        (["--tls", "--cert", "c", "--key", "k"], "leave out --cert and --key"),
        (["--cert", "none.pem", "--key", "none.pem"], "No such file or directory"),
        (["/none"], "/none is not a folder"),
    ],
)
def test_serve_refuses_what_it_cannot_do(capsys, arguments, line):
    code, out, err = run(capsys, "serve", *arguments)

    assert (code, out) == (2, "")
    assert line in err
    assert err.count("\n") == 1


def test_a_host_that_does_not_exist_is_exit_code_3(capsys):
    code, out, err = run(capsys, "serve", "--host", "a..b")

    assert (code, out) == (3, "")
    assert err.startswith("h2lite: cannot listen on a..b port 8080: not a host name")
    assert err.count("\n") == 1
