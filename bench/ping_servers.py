"""The servers that the PING benches ask: echo.py, nghttpd and others of tests/peers/servers.py."""

from __future__ import annotations

import functools
import socket
import ssl
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from h2lite.transport import client_context
from tests.peers.servers import CLEAR, HOST, Ground, accepts, free_port

ECHO, NGHTTPD = "echo", "nghttpd"
TIMEOUT_S = 5.0  # of whatever is waited for
ECHO_PROGRAM = Path(__file__).with_name("echo.py")


class Target(NamedTuple):
    """A server at work; cafile is what to trust over TLS, None in cleartext."""

    url: str
    cafile: str | None

    @property
    def context(self) -> ssl.SSLContext | None:
        return None if self.cafile is None else client_context(cafile=self.cafile)

    def dial(self) -> socket.socket:
        """A connected TCP socket that still blocks."""
        port = urlsplit(self.url).port
        assert port is not None
        sock = socket.create_connection((HOST, port), TIMEOUT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def connect(self) -> socket.socket:
        """A connected socket, under TLS where the server wants it, that still blocks."""
        sock, context = self.dial(), self.context
        return sock if context is None else context.wrap_socket(sock, server_hostname=HOST)


def target(ground: Ground, server: str, security: str) -> Target:
    """Start ECHO or NGHTTPD, once a ground; skips the test where nghttpd is not installed."""
    url = start_echo(ground, security) if server == ECHO else ground.url_of(server, security)
    return Target(url, None if security == CLEAR else ground.files.cafile)


@functools.cache
def start_echo(ground: Ground, security: str) -> str:
    """Start echo.py and return its URL; once for each ground and security."""
    folder = ground.folder / f"{ECHO}-{security}"
    folder.mkdir()
    port = free_port()
    certificate = [] if security == CLEAR else [ground.files.certfile, ground.files.keyfile]
    argv = [sys.executable, "-I", str(ECHO_PROGRAM), str(port), *certificate]
    ground.start(f"{ECHO}-{security}", argv, folder).wait_until(lambda: accepts(port))
    return f"{'http' if security == CLEAR else 'https'}://{HOST}:{port}"
