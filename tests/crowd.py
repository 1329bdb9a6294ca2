"""A crowd of connections: where they may be had, and the server of little cost they lead to."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from h2lite.health import HealthPolicy

CHECKED = HealthPolicy(ping_after_idle=1.0, ping_timeout=5.0, jitter=False)
SILENCE_S_MAX = 2.0  # a check is missed when a whole period more has passed
STOP_S_MAX = 5.0
SERVER_PROGRAM = Path(__file__).with_name("crowd_server.py")
CONTENT = b"ok\n"  # of each of its responses


def allow_descriptors(count: int) -> str:
    """Raise the soft limit where it is too low; return why that cannot be, or ""."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        if hard != resource.RLIM_INFINITY and hard < count:
            return f"{count} descriptors are needed, the hard limit is {hard}"
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    return ""


def has_loopback_net() -> bool:
    """All of 127.0.0.0/8 is this machine, not 127.0.0.1 alone: each address is an origin."""
    try:
        with socket.socket() as sock:
            sock.bind(("127.0.1.1", 0))
    except OSError:
        return False
    return True


def lacking(count: int) -> str:
    """Why so many connections to as many origins cannot be had here, or ""."""
    if not has_loopback_net():
        return "this machine has no 127.0.0.0/8"
    return allow_descriptors(count + 100)


def crowd_urls(port: int, count: int) -> list[str]:
    """So many origins, all served at one port."""
    numbers = range(1, count + 1)
    return [f"http://127.0.{number >> 8}.{number & 255}:{port}" for number in numbers]


@contextmanager
def crowd_server(core: int | None = None) -> Iterator[int]:
    """The port of crowd_server.py, in a process that ends with the block.

    core   to keep it on; None: wherever it likes
    """
    pin = [] if core is None else ["taskset", "-c", str(core)]
    argv = [*pin, sys.executable, "-I", str(SERVER_PROGRAM)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.stdin.close()
            try:
                server.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                server.kill()


def resident_octets() -> int:
    """Of this process; 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:  # not Linux
        return 0
