"""Real processes whose system refuses them something: descriptors, a disk with room, an output.

Every failure is one line on stderr with its exit code, never a traceback, and whoever lives on
recovers as soon as the system lets him.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from h2lite.client import ConnectionPool, connect
from h2lite.errors import H2liteError
from h2lite.exchange import Reply, Request

from .running import PATIENCE_S, needs_unix, serving
from .test_cli_wrong_input import COMMAND, served
from .test_engine import QUIET, until

resource = pytest.importorskip("resource", reason="descriptors are limited in another way here")

pytestmark = pytest.mark.scenario

needs_dev_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")

NO_ROOM = "No space left on device"
CLOSED = "it is closed"
CONTENT = bytes(300_000)
SMALL_FILES = "ulimit -f 20"  # blocks of 512 octets
NO_FILES = "ulimit -f 0"


def answer(request: Request) -> Reply:
    return Reply(200, CONTENT)


@pytest.fixture
def url() -> Iterator[str]:
    with serving(answer) as server:
        yield server.url


def shell(*arguments: str, first: str = ":", redirect: str = "") -> list[str]:
    """A command whose process the shell has prepared; no code runs between fork and exec."""
    return ["sh", "-c", f'{first} && exec "$@" {redirect}', "sh", *COMMAND, *arguments]


def run(
    *arguments: str,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
    first: str = ":",
    redirect: str = "",
) -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr of one command, b"" where they are not a pipe."""
    done = subprocess.run(
        shell(*arguments, first=first, redirect=redirect), stdout=stdout, stderr=stderr, timeout=30
    )
    return done.returncode, done.stdout or b"", done.stderr or b""


@contextlib.contextmanager
def broken_pipe() -> Iterator[int]:
    """What writes to a reader that has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


COMMANDS = {
    "get": ("get", "URL"),
    "get -I": ("get", "-I", "URL"),
    "ping": ("ping", "-c", "2", "-i", "0.01", "URL"),
    "ping --json": ("ping", "-c", "1", "--json", "URL"),
    "serve": ("serve", "--port", "0"),
    "doctor": ("doctor",),
    "doctor --json": ("doctor", "--json"),
}
every_command = pytest.mark.parametrize("command", COMMANDS)


def words(command: str, url: str) -> list[str]:
    return [url if word == "URL" else word for word in COMMANDS[command]]


def told(reason: str) -> bytes:
    return f"h2lite: cannot write to stdout: {reason}\n".encode()


# -- stdout ------------------------------------------------------------------------------------


@needs_dev_full
@every_command
def test_a_stdout_without_room_is_one_line(command, url):
    with open("/dev/full", "wb") as full:
        assert run(*words(command, url), stdout=full.fileno()) == (2, b"", told(NO_ROOM))


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "serve"])
def test_a_stdout_that_is_closed_is_one_line(command, url):
    assert run(*words(command, url), redirect=">&-") == (2, b"", told(CLOSED))


@every_command
def test_a_stdout_whose_reader_has_gone_is_no_failure(command, url):
    with broken_pipe() as writer:
        assert run(*words(command, url), stdout=writer) == (0, b"", b"")


@needs_unix
def test_a_server_without_stdout_serves_all_the_same(short_path):
    path = short_path / "app.sock"
    process = subprocess.Popen(
        shell("serve", "-q", "--host", f"unix:{path}", redirect=">&-"), stderr=subprocess.PIPE
    )
    with process, ConnectionPool(health=QUIET) as pool:
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                until(lambda: not probe.connect_ex(str(path)))
            assert pool.get(f"unix:{path}:/healthz", timeout=PATIENCE_S).read() == b"ok\n"
            process.send_signal(signal.SIGTERM)
            assert process.communicate(timeout=PATIENCE_S)[1] == b""
        finally:
            process.kill()
    assert process.returncode == 0


def test_a_reader_that_goes_in_the_middle_of_the_content_is_no_failure(url):
    with subprocess.Popen(
        [*COMMAND, "get", url], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1000) == CONTENT[:1000]
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


# -- stderr ------------------------------------------------------------------------------------


@contextlib.contextmanager
def no_stderr(how: str) -> Iterator[dict[str, Any]]:
    """How to run a command whose stderr takes nothing."""
    if how == "closed":
        yield {"redirect": "2>&-"}
    elif how == "full":
        yield {"redirect": "2>/dev/full"}
    else:
        with broken_pipe() as writer:
            yield {"stderr": writer}


without_stderr = pytest.mark.parametrize(
    "how", ["closed", pytest.param("full", marks=needs_dev_full), "a broken pipe"]
)


@without_stderr
@pytest.mark.parametrize("command", ["get", "ping"])
def test_an_error_that_nobody_takes_has_its_exit_code_and_is_no_output(how, command):
    with socket.socket() as sock, no_stderr(how) as options:
        sock.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        assert run(command, url, **options)[:2] == (3, b"")


@without_stderr
def test_a_trace_that_nobody_takes_costs_nothing_and_is_no_output(how, url):
    with no_stderr(how) as options:
        assert run("get", "-v", url, **options)[:2] == (0, CONTENT)


@without_stderr
def test_a_log_that_nobody_takes_costs_nothing_and_is_no_output(how):
    with no_stderr(how) as options:
        process = subprocess.Popen(
            shell("serve", "--port", "0", redirect=options.pop("redirect", "")),
            stdout=subprocess.PIPE,
            **options,
        )
        with process, ConnectionPool(health=QUIET) as pool:
            try:
                assert process.stdout is not None
                url = process.stdout.readline().split()[1].decode()
                for _ in range(3):
                    assert pool.get(f"{url}/healthz", timeout=PATIENCE_S).status == 200
                process.send_signal(signal.SIGTERM)
                assert process.communicate(timeout=PATIENCE_S)[0] == b""
            finally:
                process.kill()
    assert process.returncode == 0


# -- disks -------------------------------------------------------------------------------------


@needs_dev_full
def test_a_file_without_room_is_one_line(url):
    said = f"h2lite: cannot write /dev/full: {NO_ROOM}\n".encode()
    assert run("get", "-o", "/dev/full", url) == (2, b"", said)


@pytest.mark.parametrize("way", ["-o", ">"])
def test_a_disk_that_fills_up_is_one_line_and_keeps_what_had_room(way, url, tmp_path):
    path = tmp_path / "file"
    with open(path, "wb") as file:
        if way == "-o":
            done = run("get", "-o", str(path), url, first=SMALL_FILES)
        else:
            done = run("get", url, stdout=file.fileno(), first=SMALL_FILES)

    where = path if way == "-o" else "to stdout"
    assert done == (2, b"", f"h2lite: cannot write {where}: File too large\n".encode())
    assert path.read_bytes() == CONTENT[: 20 * 512]


def test_a_certificate_that_has_no_room_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("os.environ", {**os.environ, "TMPDIR": str(tmp_path)})
    code, out, err = run("serve", "--port", "0", "--tls", first=NO_FILES)

    assert (code, out) == (2, b"")
    assert re.fullmatch(rb"h2lite: cannot write a certificate: [^\n]+\n", err), err
    assert os.listdir(tmp_path) == []


def test_a_server_without_tls_needs_no_disk():
    process = subprocess.Popen(
        shell("serve", "-q", "--port", "0", first=NO_FILES), stdout=subprocess.PIPE
    )
    with process, ConnectionPool(health=QUIET) as pool:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[1].decode()
            assert pool.get(f"{url}/healthz", timeout=PATIENCE_S).status == 200
        finally:
            process.terminate()
    assert process.returncode == 0


# -- descriptors -------------------------------------------------------------------------------

LIMITS = range(5, 12)  # from hardly enough for the interpreter to enough for all


@pytest.mark.parametrize("command", ["get", "ping", "serve"])
def test_a_command_without_descriptors_is_one_line(command, url):
    """In between, each of the things that need one fails."""
    words = ("serve", "--host", "127.0.0.1", "--port", url.rpartition(":")[2])
    failures = 0
    for limit in LIMITS:
        arguments = words if command == "serve" else (*COMMANDS[command][:-1], url)
        code, _, err = run(*arguments, first=f"ulimit -n {limit}")
        if code:
            assert re.fullmatch(rb"h2lite: [^\n]+\n", err), (limit, err)
            failures += b"open files" in err
    assert failures


FEW = """
import os, resource, sys
import h2lite
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
url, background = sys.argv[1], sys.argv[2] == "background"
def counted():
    return len(os.listdir("/dev/fd"))
def lowest():
    with open("/dev/null") as file:
        return file.fileno()
with h2lite.ConnectionPool(background=background) as pool:
    pool.get(url)  # all modules are loaded
before, failed = counted(), 0
for free in range(7):
    with h2lite.ConnectionPool(background=background) as pool:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest() + free, hard))
        try:
            assert pool.get(url).status == 200
        except h2lite.ConnectError as error:
            assert "open files" in str(error), error
            failed += 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        pool.connect(url)
        assert pool.get(url).status == 200
    assert counted() == before
print("failed", failed)
"""


@pytest.mark.parametrize("background", ["alone", "background"])
@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_request_without_descriptors_fails_and_the_next_one_has_them(name, background, url):
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", FEW, url.replace("127.0.0.1", name), background],
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"failed [1-6]\n", done.stdout)


@pytest.mark.parametrize("security", [(), ("--tls",)], ids=["cleartext", "TLS"])
def test_a_server_without_descriptors_serves_who_is_there_and_recovers(security):
    free = 5

    with served("-q", *security) as (process, url):
        fds = Path(f"/proc/{process.pid}/fd")
        if not fds.exists():
            pytest.skip("descriptors of other processes cannot be counted here")
        limit = max(int(fd.name) for fd in fds.iterdir()) + 1 + free
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (limit, limit))
        with contextlib.ExitStack() as stack:
            here = [
                stack.enter_context(connect(url, verify=False, health=QUIET)) for _ in range(free)
            ]
            with pytest.raises(H2liteError):  # it stands in the queue, and nobody comes for it
                connect(url, verify=False, timeout=0.3)
            for connection in here:
                assert connection.request("GET", "/healthz").status == 200
        with connect(url, verify=False, timeout=PATIENCE_S) as connection:
            assert connection.request("GET", "/healthz").status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
