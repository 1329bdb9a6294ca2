"""256 MiB through `h2lite get`, down, up and back: every octet, in little memory."""

from __future__ import annotations

import hashlib
import random
import sys
from typing import TYPE_CHECKING

import pytest

from .servers import CLEAR, TLS, Ground, command, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.peer, pytest.mark.timeout(120)]

HUGE_OCTETS = 256 * 2**20
MEMORY_KB_MAX = 60 * 1000  # of the whole process, Python included

# `h2lite`, which tells at its end the most memory it had (VmHWM), on the last line of stderr.
MEASURED = """
import sys
from h2lite.cli import main
code = main(sys.argv[1:])
with open("/proc/self/status") as status:
    peak = next(line for line in status if line.startswith("VmHWM"))
print(peak.split()[1], file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def huge(ground: Ground) -> Path:
    """A file of HUGE_OCTETS in the site; no two of its blocks are the same."""
    path = ground.www / "huge"
    block = random.Random(7541).randbytes(2**20 - 4)
    with path.open("wb") as file:
        for number in range(HUGE_OCTETS // 2**20):
            file.write(number.to_bytes(4, "big") + block)
    return path


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def fetch(ground: Ground, url: str, *options: str) -> None:
    """Run h2lite get, and hold its memory against the limit."""
    done = run(sys.executable, "-c", MEASURED, "get", *ground.trust(url), *options, url)

    *said, peak = done.stderr.split(b"\n")[:-1]
    assert (done.returncode, said) == (0, [])
    assert int(peak) < MEMORY_KB_MAX


@pytest.mark.parametrize(
    ("name", "security"), [("nghttpd", CLEAR), ("nginx", TLS), ("h2lite", CLEAR), ("h2lite", TLS)]
)
def test_a_huge_file_comes_whole_in_little_memory(
    ground: Ground, huge: Path, tmp_path: Path, name: str, security: str
) -> None:
    fetch(ground, f"{ground.url_of(name, security)}/huge", "-o", str(tmp_path / "got"))

    assert sha256_of(tmp_path / "got") == sha256_of(huge)


@pytest.mark.parametrize("security", [CLEAR, TLS])
def test_a_huge_upload_comes_back_whole_in_little_memory(
    ground: Ground, huge: Path, tmp_path: Path, security: str
) -> None:
    url = f"{ground.url_of('h2lite', security)}/echo"
    fetch(ground, url, "-T", str(huge), "-o", str(tmp_path / "got"))

    assert sha256_of(tmp_path / "got") == sha256_of(huge)


@pytest.mark.parametrize("security", [CLEAR, TLS])
def test_curl_gets_its_upload_back(
    ground: Ground, huge: Path, tmp_path: Path, security: str
) -> None:
    upload = tmp_path / "upload"
    with huge.open("rb") as file:
        upload.write_bytes(file.read(100_000_000))
    url = f"{ground.url_of('h2lite', security)}/echo"
    version = "--http2" if security == TLS else "--http2-prior-knowledge"
    curl = command("curl", "Debian package curl")

    done = run(
        curl, "-sS", version, *ground.trust(url), "-T", upload, "-o", tmp_path / "got", url
    )

    assert (done.returncode, done.stderr) == (0, b"")
    assert sha256_of(tmp_path / "got") == sha256_of(upload)


@pytest.mark.parametrize("security", [CLEAR, TLS])
def test_curl_keeps_the_answer_to_an_upload_that_is_refused(
    ground: Ground, huge: Path, security: str
) -> None:
    url = f"{ground.url_of('h2lite', security)}/healthz"
    version = "--http2" if security == TLS else "--http2-prior-knowledge"
    curl = command("curl", "Debian package curl")

    done = run(curl, "-sS", version, *ground.trust(url), "-T", huge, "-w", "%{http_code}", url)

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"content over 1048576 octets is not taken\n413"
