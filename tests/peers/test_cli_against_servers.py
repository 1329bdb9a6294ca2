"""`h2lite ping` and `h2lite get` against real servers, clear and TLS."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from .servers import CLEAR, SERVERS, TLS, TLS_1_2, Ground, h2lite, sha256

if TYPE_CHECKING:
    from pathlib import Path

# The first test that needs a Go program waits for its compiler.
pytestmark = [pytest.mark.peer, pytest.mark.timeout(300)]

PAIRS = [(name, security) for name in SERVERS for security in (CLEAR, TLS)]
PAIRS.append(("nginx", TLS_1_2))


@pytest.fixture(params=PAIRS, ids="-".join)
def url(request: pytest.FixtureRequest, ground: Ground) -> str:
    return ground.url_of(*request.param)


def test_every_ping_is_acknowledged(ground: Ground, url: str) -> None:
    done = h2lite("ping", "-c", "20", "-i", "0.01", *ground.trust(url), url)

    assert (done.returncode, done.stderr) == (0, b"")
    assert b"20 sent, 20 acknowledged" in done.stdout


def test_get_of_ten_megabytes_is_whole(ground: Ground, url: str, tmp_path: Path) -> None:
    got = tmp_path / "got"

    done = h2lite("get", "-o", got, *ground.trust(url), f"{url}/big")

    assert (done.returncode, done.stderr) == (0, b"")
    assert sha256(got.read_bytes()) == sha256(ground.big)


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("verb", ["ping", "get"])
def test_unknown_certificate_is_refused_in_one_line(ground: Ground, verb: str, name: str) -> None:
    done = h2lite(verb, f"{ground.url_of(name, TLS)}/small")

    assert (done.returncode, done.stdout) == (4, b"")
    assert re.fullmatch(rb"[^\n]*certificate[^\n]*\n", done.stderr), done.stderr


def test_unknown_certificate_is_accepted_when_told_so(ground: Ground) -> None:
    done = h2lite("get", "-k", f"{ground.url_of('nghttpd', TLS)}/small")

    assert (done.returncode, done.stdout, done.stderr) == (0, b"a small file\n", b"")


@pytest.mark.parametrize(("security", "version"), [(TLS, b"1.3"), (TLS_1_2, b"1.2")])
def test_ping_names_the_version_of_tls(ground: Ground, security: str, version: bytes) -> None:
    url = ground.url_of("nginx", security)

    done = h2lite("ping", "-c", "1", *ground.trust(url), url)

    assert re.search(rb"TLS ?v?" + re.escape(version), done.stdout.splitlines()[0])


@pytest.mark.parametrize("security", [CLEAR, TLS])
def test_pings_of_the_server_are_acknowledged_between_two_of_ours(
    ground: Ground, security: str
) -> None:
    url = ground.url_of("go", security)

    # Go's server asks after 0.3 s of silence and closes when 0.5 s later nobody has answered.
    done = h2lite("ping", "-c", "2", "-i", "1.2", *ground.trust(url), url)

    assert (done.returncode, done.stderr) == (0, b"")
    assert b"2 sent, 2 acknowledged" in done.stdout
