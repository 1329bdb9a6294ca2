"""Real processes: every failure is one line on stderr with its exit code, never a traceback."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from h2lite.certs import CertificateFiles, make_certificate
from h2lite.client import connect
from h2lite.errors import ConnectionLost, ErrorCode
from h2lite.events import RequestReceived
from h2lite.exchange import Reply
from h2lite.frames import DataFrame, GoAwayFrame, HeadersFrame, RstStreamFrame
from h2lite.transport import server_context

from .pair import block
from .running import PATIENCE_S, Peer, accepting, peering, serving

pytestmark = pytest.mark.scenario

COMMAND = [sys.executable, "-m", "h2lite"]


def h2lite(*arguments: str, **options) -> tuple[int, str, str]:
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=30, **options
    )
    return done.returncode, done.stdout, done.stderr


def fails(code: int, pattern: str, *arguments: str) -> None:
    """The command ends with `code`, says nothing on stdout and one line on stderr."""
    returncode, out, err = h2lite(*arguments)

    assert (returncode, out) == (code, ""), err
    assert re.fullmatch(rf"h2lite[^\n]*{pattern}[^\n]*\n", err), err


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    return make_certificate(str(tmp_path_factory.mktemp("certificate")))


both = pytest.mark.parametrize("command", [("get",), ("ping", "-c", "1")])


@both
def test_no_such_host(command):
    pattern = r"cannot resolve nowhere\.invalid: .*\(check the name\)"
    fails(3, pattern, *command, "http://nowhere.invalid/")


@both
def test_no_host_name_at_all(command):
    fails(3, r"cannot resolve a\.\.b: not a host name", *command, "http://a..b/")


@both
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_refused_port(command, scheme):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        pattern = rf"127\.0\.0\.1:{port}: connection refused \(is the server running"
        fails(3, pattern, *command, f"{scheme}://127.0.0.1:{port}")


@both
def test_a_port_that_speaks_http1(command):
    def http1(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        while sock.recv(65536):
            pass

    with accepting(http1) as peer:
        fails(4, r"the peer speaks HTTP/1\.1, not HTTP/2 \(.*try https://\)", *command, peer.url)


def test_tls_without_h2(files):
    """A ping needs HTTP/2; for what a get does there, see test_http1_over_tls."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certfile, files.keyfile)
    context.set_alpn_protocols(["http/1.1"])

    def http1(sock: socket.socket) -> None:
        try:
            with context.wrap_socket(sock, server_side=True) as tls:
                tls.recv(1)
        except OSError:
            return  # the client has seen enough

    with accepting(http1) as peer:
        url = f"https://127.0.0.1:{peer.port}"
        fails(4, "does not offer h2 by ALPN", "ping", "--cacert", files.cafile, url)


def test_http1_over_tls(files):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certfile, files.keyfile)
    context.set_alpn_protocols(["http/1.1"])

    def http1(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as tls:
            assert tls.recv(65536).startswith(b"GET /here HTTP/1.1\r\n")
            tls.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nover\n")
            tls.recv(1)

    with accepting(http1) as peer:
        url = f"https://127.0.0.1:{peer.port}/here"
        assert h2lite("get", "--cacert", files.cafile, url) == (0, "over\n", "")


@both
def test_cleartext_where_tls_was_asked_for(command):
    with serving() as server:
        url = f"https://127.0.0.1:{server.port}"
        fails(4, r"the port speaks cleartext: try http://", *command, url)


@both
def test_tls_where_cleartext_was_asked_for(command, files):
    with serving(ssl_context=server_context(files.certfile, files.keyfile)) as server:
        fails(4, "HTTP/2 did not begin", *command, f"http://127.0.0.1:{server.port}")


@both
def test_an_unknown_certificate(command, files):
    with serving(ssl_context=server_context(files.certfile, files.keyfile)) as server:
        fails(4, r"certificate not accepted: .*--cacert FILE, or .* -k", *command, server.url)
        assert h2lite(*command, "-k", server.url)[0] == 0
        assert h2lite(*command, "--cacert", files.cafile, server.url)[0] == 0


@both
def test_an_expired_certificate(command, tmp_path):
    expired = make_certificate(str(tmp_path), days=-1)
    with serving(ssl_context=server_context(expired.certfile, expired.keyfile)) as server:
        pattern = r"certificate not accepted: certificate has expired"
        fails(4, pattern, *command, "--cacert", expired.cafile, server.url)


@both
def test_a_certificate_for_another_name(command, tmp_path):
    other = make_certificate(str(tmp_path), ("example.org",))
    with serving(ssl_context=server_context(other.certfile, other.keyfile)) as server:
        pattern = r"certificate not accepted: .*(mismatch|not valid for)"
        fails(4, pattern, *command, "--cacert", other.cafile, server.url)


# -- a server that misbehaves ------------------------------------------------------------------

RESET = struct.pack("ii", 1, 0)


def resets_at_once(sock: socket.socket) -> None:
    sock.recv(65536)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def sends_garbage(sock: socket.socket) -> None:
    sock.recv(65536)
    sock.sendall(b"\x16\x03\x01 what protocol is this?")
    while sock.recv(65536):
        pass


def closes_at_once(sock: socket.socket) -> None:
    sock.recv(65536)


@both
@pytest.mark.parametrize(
    ("script", "pattern"),
    [
        (resets_at_once, "connection reset by peer"),
        (sends_garbage, r"the peer begins with b'\\x16\\x03\\x01 what ', not with SETTINGS"),
        (closes_at_once, "closed the connection"),
    ],
)
def test_a_server_that_speaks_no_http2(command, script, pattern):
    with accepting(script) as peer:
        where = rf"{peer.url} \(127\.0\.0\.1:{peer.port}\): HTTP/2 did not begin: "
        fails(4, rf"{where}[^\n]*{pattern}", *command, peer.url)


def test_a_server_that_sends_nothing():
    def silent(sock: socket.socket) -> None:
        with suppress(ConnectionResetError):  # who gives up may reset the connection
            while sock.recv(65536):
                pass

    with accepting(silent) as peer:
        arguments = ("get", "--connect-timeout", "0.3", peer.url)
        fails(6, r"sent no HTTP/2 SETTINGS within 0\.3 s \(the port may", *arguments)
    with accepting(silent) as peer:
        fails(6, r"not fetched within 0\.3 s", "get", "--max-time", "0.3", peer.url)


def answering(*frames: bytes) -> Callable[[Peer], None]:
    """A server that answers the first request with these octets, and goes."""

    def script(peer: Peer) -> None:
        peer.until(RequestReceived)
        peer.flush()
        peer.sock.sendall(b"".join(frames))

    return script


BEGUN = HeadersFrame(1, block([(b":status", b"200"), (b"content-length", b"9")])).encode()
HALF = DataFrame(1, b"half ").encode()


@pytest.mark.parametrize(
    ("script", "out", "pattern"),
    [
        (answering(BEGUN, HALF), "half ", "closed the connection"),
        (answering(BEGUN, HALF, RstStreamFrame(1, ErrorCode.INTERNAL_ERROR).encode()), "half ",
         "the peer reset the stream, INTERNAL_ERROR"),
        (answering(RstStreamFrame(1, ErrorCode.REFUSED_STREAM).encode()), "",
         "the peer reset the stream, REFUSED_STREAM"),
        (answering(BEGUN, DataFrame(1, b"half ", end_stream=True).encode()), "",
         "h2lite reset the stream, PROTOCOL_ERROR: malformed message: 5 octets of content, 9"),
        (answering(GoAwayFrame(0, ErrorCode.ENHANCE_YOUR_CALM, b"too many").encode()), "",
         "left out by GOAWAY ENHANCE_YOUR_CALM b'too many'"),
        (answering(GoAwayFrame(0, ErrorCode.NO_ERROR).encode()), "",
         "REFUSED_STREAM: left out by GOAWAY NO_ERROR"),
        (answering(b"\x00\x00\x07\x06\x00\x00\x00\x00\x00" + bytes(7)), "",
         "broke HTTP/2, FRAME_SIZE_ERROR: PING of 7 octets"),
        (answering(HeadersFrame(1, b"\xff\xff").encode()), "", "broke HTTP/2, COMPRESSION_ERROR"),
    ],
    ids=["stops mid-body", "resets mid-body", "refuses", "ends short", "goaway with an error",
         "goaway", "a faulty frame", "a faulty field block"],
)  # fmt: skip
def test_a_server_that_does_not_finish_its_answer(script, out, pattern):
    with peering(script) as peer:
        code, printed, err = h2lite("get", peer.url)

    assert (code, printed) == (5, out), err
    assert re.fullmatch(rf"h2lite: [^\n]*{pattern}[^\n]*\n", err), err


@pytest.mark.parametrize(
    ("header", "pattern"),
    [
        ("none", "bad header 'none'"),
        ("Connection: close", r"field b'connection' belongs to HTTP/1\.1"),
        ("a b: c", "holds a forbidden octet"),
    ],
)
def test_a_bad_header(header, pattern):
    with serving() as server:
        fails(2, pattern, "get", "-H", header, server.url)


def test_a_file_that_cannot_be_read_or_written(tmp_path):
    with serving() as server:
        pattern = "cannot read .*none: No such file or directory"
        fails(2, pattern, "get", "-T", str(tmp_path / "none"), server.url)
        pattern = "cannot write .*none/file: No such file or directory"
        fails(2, pattern, "get", "-o", str(tmp_path / "none" / "file"), server.url)


@both
@pytest.mark.parametrize(
    "url", ["ftp://localhost", "localhost", "http://", "http://a:99999", "http://h/\u2603"]
)
def test_a_bad_url(command, url):
    fails(2, "bad URL", *command, url)


@both
def test_certificates_that_cannot_be_read(command, tmp_path):
    path = str(tmp_path / "none.pem")
    fails(2, "No such file", *command, "--cacert", path, "https://localhost")
    Path(path).write_text("not a certificate")
    fails(2, "cannot read certificates from", *command, "--cacert", path, "https://localhost")


@pytest.mark.parametrize(
    "arguments",
    [("ping", "-c", "x"), ("ping", "-i", "-1"), ("ping", "-W", "nan"), ("get", "--max-time", "0")],
)
def test_a_bad_number(arguments):
    fails(2, "is not a ", *arguments, "http://localhost")


def test_an_output_that_is_full():
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with serving() as server, open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "get", server.url], stdout=full, stderr=subprocess.PIPE, timeout=30
        )

    assert done.returncode == 2
    assert done.stderr == b"h2lite: cannot write to stdout: No space left on device\n"


def test_a_reader_that_has_gone_is_no_failure():
    content = bytes(2**20)

    with serving(lambda request: Reply(200, content)) as server:
        process = subprocess.Popen(
            [*COMMAND, "get", server.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, err = process.communicate(timeout=30)

    assert (process.returncode, err) == (0, b"")


def test_ctrl_c_ends_a_ping_with_its_summary():
    with serving() as server:
        process = subprocess.Popen(
            [*COMMAND, "ping", "-i", "60", server.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)

    assert "seq=1 rtt=" in lines[1]
    assert "\n1 sent, 1 acknowledged, 0% loss, " in out
    assert (process.returncode, err) == (0, "")


# -- serve -------------------------------------------------------------------------------------


@contextmanager
def served(*arguments: str, **options) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its URL; killed if the test has not ended it."""
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    with process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().split()[1]
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("security", [(), ("--tls",)])
def test_a_signal_ends_serving_with_exit_code_0_and_leaves_nothing(number, security, tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with served(*security, env=environment) as (process, url):
        assert h2lite("get", "-k", f"{url}/healthz")[:2] == (0, "ok\n")
        assert len(os.listdir(tmp_path)) == len(security)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)

    assert (process.returncode, out) == (0, "")
    assert re.fullmatch(r'127\.0\.0\.1:\d+ "GET /healthz" 200\n', err)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_stream_finish_within_the_grace_time(number):
    with served("-q") as (process, url), connect(url) as connection:
        waiting = connection.stream("POST", "/echo", body=iter(lambda: b"", None), timeout=9.0)
        process.send_signal(number)
        while not connection.is_draining:
            connection.watch(0.01)
        assert process.poll() is None
        waiting.close()
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("second", [True, False], ids=["again", "at the end of its grace"])
def test_a_stream_that_does_not_finish_is_cut_off(second):
    grace = "60" if second else "0.1"
    with served("-q", "--grace", grace) as (process, url), connect(url) as connection:
        unread = connection.stream("POST", "/echo", body=iter(lambda: b"", None), timeout=9.0)
        process.send_signal(signal.SIGTERM)
        while second and not connection.is_draining:
            connection.watch(0.01)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionLost):
            unread.read()
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_output_that_cannot_be_written_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "doctor"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE_S
        )

    said = "h2lite: cannot write to stdout: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_the_certificate_it_makes_can_be_trusted():
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", "--tls", "-q"], stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout is not None
            words = process.stdout.readline().split()
            assert words[0] == "serving"
            code, out, _ = h2lite("get", "--cacert", words[-1], f"{words[1]}/healthz")
            assert (code, out) == (0, "ok\n")
        finally:
            process.terminate()


def test_a_port_in_use():
    with serving() as server:
        pattern = rf"cannot listen on 127\.0\.0\.1 port {server.port}: address already in use"
        fails(3, pattern, "serve", "--port", str(server.port))


def test_a_certificate_that_cannot_be_read(tmp_path, files):
    none = str(tmp_path / "none.pem")
    fails(2, "No such file", "serve", "--cert", none, "--key", none)
    fails(2, "cannot use the certificate", "serve", "--cert", files.certfile, "--key", files.cafile)


def test_a_folder_that_is_none():
    fails(2, "is not a folder", "serve", "/none")
