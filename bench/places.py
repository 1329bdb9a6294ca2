"""Servers at work, for the benches of throughput: each one's command line, and the way to it.

    h2lite      h2lite.Server with a handler that makes a Reply (answering.py)
    go          Go's net/http (go/server.go)
    nghttpd     files that hold what the others answer; it takes queries and ignores them
    h2          the h2 library on bare sockets by selectors (answering.py)
    hypercorn   an ASGI application (asgi_small.py), without worker processes

All of them take STREAMS_MAX streams at once on a connection.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from h2lite.transport import TLSTransport, Transport, prepare
from tests.peers.servers import CLEAR, HOST, Ground, accepts, command, free_port

from .answering import CONTENT, ITEM_CONTENT, STREAMS_MAX
from .go_programs import GO_SOURCES
from .ping_servers import Target
from .variant import OURS

GO, NGHTTPD, H2, HYPERCORN = "go", "nghttpd", "h2", "hypercorn"
ITEMS = 1000  # files of nghttpd's, each with a last-modified of its own
FOLDER = Path(__file__).parent


class Place(Target):
    """A server at work, and what more a client of content needs of it."""

    @property
    def authority(self) -> str:
        return urlsplit(self.url).netloc

    def transport(self) -> Transport:
        """A connection to it as one of h2lite's transports."""
        sock, context = self.dial(), self.context
        if context is None:
            prepare(sock)
            return Transport(sock, sock.getpeername())
        transport = TLSTransport(sock, sock.getpeername(), context, HOST)
        transport.handshake()  # the socket still blocks, so one step is all of it
        prepare(transport.sock)
        return transport


def _h2lite(ground: Ground, folder: Path, port: int, certificate: list[str]) -> list[str]:
    return [sys.executable, "-m", "bench.answering", OURS, str(port), *certificate]


def _h2(ground: Ground, folder: Path, port: int, certificate: list[str]) -> list[str]:
    if find_spec("h2") is None:
        pytest.skip("no h2: install it from PyPI")
    return [sys.executable, "-m", "bench.answering", H2, str(port)]


def _go(ground: Ground, folder: Path, port: int, certificate: list[str]) -> list[str]:
    pairs = zip(("cert", "key"), certificate, strict=False)
    options = [f"-{name}={file}" for name, file in pairs]
    return [ground.go_program("server", GO_SOURCES), f"-address={HOST}:{port}", *options]


def _nghttpd(ground: Ground, folder: Path, port: int, certificate: list[str]) -> list[str]:
    program = command("nghttpd", "Debian package nghttp2-server")
    (folder / "small").write_bytes(CONTENT)
    (folder / "items").mkdir()
    for number in range(ITEMS):
        file = folder / "items" / str(number)
        file.write_bytes(ITEM_CONTENT)
        os.utime(file, (10**9 + number, 10**9 + number))
    options = ["-a", HOST, "-d", str(folder), f"-m{STREAMS_MAX}"]
    if not certificate:
        return [program, *options, "--no-tls", str(port)]
    certfile, keyfile = certificate
    return [program, *options, str(port), keyfile, certfile]


def _hypercorn(ground: Ground, folder: Path, port: int, certificate: list[str]) -> list[str]:
    program = command("hypercorn", "hypercorn from PyPI")
    shutil.copy(FOLDER / "asgi_small.py", folder)
    # By default it ends a connection after 1000 requests.
    (folder / "settings.py").write_text(
        f"keep_alive_max_requests = 10**9\nh2_max_concurrent_streams = {STREAMS_MAX}\n"
    )
    options = ["--workers", "0", "--config", "file:settings.py", "--bind", f"{HOST}:{port}"]
    return [program, *options, "asgi_small:app"]


_STARTS: dict[str, Callable[[Ground, Path, int, list[str]], list[str]]] = {
    OURS: _h2lite,
    GO: _go,
    NGHTTPD: _nghttpd,
    H2: _h2,
    HYPERCORN: _hypercorn,
}


def start(ground: Ground, name: str, security: str = CLEAR) -> Place:
    """Start a server on this thread's core; skips the test where it is not installed."""
    port = free_port()
    folder = ground.folder / f"bench-{name}-{port}"
    folder.mkdir()
    files = ground.files
    certificate = [] if security == CLEAR else [files.certfile, files.keyfile]
    argv = _STARTS[name](ground, folder, port, certificate)
    ground.start(f"{name} {security}", argv, folder).wait_until(lambda: accepts(port))
    if security == CLEAR:
        return Place(f"http://{HOST}:{port}", None)
    return Place(f"https://{HOST}:{port}", files.cafile)
