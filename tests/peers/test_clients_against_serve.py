"""curl, nghttp, h2load and Go's net/http against `h2lite serve`, clear and TLS."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from .servers import BIG_OCTETS, CLEAR, TLS, Ground, command, run, sha256

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

# The first test that needs a Go program waits for its compiler.
pytestmark = [pytest.mark.peer, pytest.mark.timeout(300)]


@pytest.fixture(params=[CLEAR, TLS])
def url(request: pytest.FixtureRequest, ground: Ground) -> str:
    return ground.url_of("h2lite", request.param)


def curl(
    ground: Ground, url: str, *options: str, path: str = "/small"
) -> subprocess.CompletedProcess[bytes]:
    program = command("curl", "Debian package curl")
    version = "--http2" if url.startswith("https:") else "--http2-prior-knowledge"
    return run(program, "-sS", version, *ground.trust(url), *options, url + path)


def test_curl_gets_ten_megabytes(ground: Ground, url: str, tmp_path: Path) -> None:
    got = tmp_path / "got"

    what = "%{http_version} %{http_code}"
    done = curl(ground, url, "-o", str(got), "-w", what, path="/big")

    assert (done.returncode, done.stdout, done.stderr) == (0, b"2 200", b"")
    assert sha256(got.read_bytes()) == sha256(ground.big)


def test_curl_finds_the_server_healthy(ground: Ground, url: str) -> None:
    done = curl(ground, url, "-o", "/dev/null", "-w", "%{http_code}", path="/healthz")

    assert (done.returncode, done.stdout, done.stderr) == (0, b"200", b"")


# "outside" lies beside the served folder, not in it.
@pytest.mark.parametrize("path", ["/absent", "/../outside", "/%2e%2e/outside", "/..%2foutside"])
def test_curl_finds_nothing_outside_the_folder(ground: Ground, url: str, path: str) -> None:
    done = curl(ground, url, "--path-as-is", "-w", "\n%{http_code}", path=path)

    assert (done.returncode, done.stdout.splitlines()[-1], done.stderr) == (0, b"404", b"")
    assert b"not part of the site" not in done.stdout


def test_curl_head_has_the_length_and_no_body(ground: Ground, url: str) -> None:
    done = curl(ground, url, "-I", "-w", "%{size_download}", path="/big")

    status, *fields, downloaded = done.stdout.lower().splitlines()
    assert (done.returncode, status.strip(), downloaded) == (0, b"http/2 200", b"0")
    assert b"content-length: %d" % BIG_OCTETS in [field.strip() for field in fields]


def test_nghttp_sees_status_200_and_every_octet(url: str) -> None:
    done = run(command("nghttp", "Debian package nghttp2-client"), "-nv", f"{url}/big")

    assert done.returncode == 0, done.stderr
    assert re.findall(rb":status: (\d+)", done.stdout) == [b"200"]
    lengths = re.findall(rb"recv DATA frame <length=(\d+),", done.stdout)
    assert sum(map(int, lengths)) == BIG_OCTETS


def test_nghttp_gets_ten_megabytes(ground: Ground, url: str) -> None:
    done = run(command("nghttp", "Debian package nghttp2-client"), f"{url}/big")

    assert done.returncode == 0, done.stderr
    assert sha256(done.stdout) == sha256(ground.big)


def test_go_gets_ten_megabytes(ground: Ground, url: str) -> None:
    done = run(ground.go_program("client"), *ground.trust(url), f"{url}/big")

    assert done.stdout.decode() == f"HTTP/2.0 200 {sha256(ground.big)}\n", done.stderr


# Many small answers, then a few large ones that share their connection's window.
@pytest.mark.parametrize(
    ("requests", "connections", "streams", "path"), [(20000, 20, 50, "small"), (8, 2, 4, "big")]
)
def test_h2load_sees_no_failed_request(
    ground: Ground, url: str, requests: int, connections: int, streams: int, path: str
) -> None:
    program = command("h2load", "Debian package nghttp2-client")
    load = [f"-n{requests}", f"-c{connections}", f"-m{streams}"]

    done = run(program, *load, f"{url}/{path}")

    report = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert f"{requests} succeeded, 0 failed, 0 errored, 0 timeout" in report
    assert f"status codes: {requests} 2xx, 0 3xx, 0 4xx, 0 5xx" in report
    octets = requests * (ground.www / path).stat().st_size
    assert f"({octets}) data" in report
