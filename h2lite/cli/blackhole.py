"""Packets really dropped, in a network namespace of our own: what the demo's --blackhole does.

Linux alone.  Nothing outside of the namespace is touched, and it ends with its last process.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import sys

from ..errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import NoReturn

TOOL_S_MAX = 10.0  # for a tool to do its work
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # where nft is, and PATH often does not go

# What arrives at or from one of these ports is dropped: both directions of a connection pass
# the input of the loopback device.
RULES = """\
table ip h2lite {
    set silent { type inet_service; }
    chain input {
        type filter hook input priority 0;
        tcp sport @silent drop
        tcp dport @silent drop
    }
}
"""

# linux/sockios.h, linux/if.h
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
TCP_ESTABLISHED = "01"  # as /proc/net/tcp writes it


def enter(arguments: Sequence[str]) -> NoReturn:
    """Run h2lite with these arguments inside of a namespace, in this process's place.

    Raises UsageError where the system does not let us.
    """
    if sys.platform != "linux":
        raise UsageError("--blackhole needs Linux: packets are dropped in a network namespace")
    unshare = _tool("unshare")
    _tool("nft")  # before anything begins
    _run([unshare, "-Urn", "true"], "")
    command = [sys.executable, "-m", "h2lite", *arguments, "--outside", _namespace()]
    os.execv(unshare, [unshare, "-Urn", "--", *command])


class BlackHole:
    """Makes live connections to some of this host's ports silent; new ones get through.

    ports     of the servers, on 127.0.0.1
    outside   the namespace that is to be left alone, as `enter` told it

    Raises UsageError where the kernel refuses, and where we are still outside.
    """

    def __init__(self, ports: Iterable[int], outside: str) -> None:
        if _namespace() == outside:
            raise UsageError("--blackhole: this is no namespace of its own")
        self._ports = frozenset(ports)
        self._nft = _tool("nft")
        _raise_loopback()
        _run([self._nft, "-f", "-"], RULES)

    def swallow(self) -> None:
        """From here on no packet of a connection that is established now arrives any more."""
        with open("/proc/net/tcp", encoding="ascii") as file:
            ports = clients_of(self._ports, file)
        if ports:
            elements = ", ".join(map(str, ports))
            _run([self._nft, f"add element ip h2lite silent {{ {elements} }}"], "")


def clients_of(ports: frozenset[int], table: Iterable[str]) -> list[int]:
    """The clients' ports of the connections established to `ports`, by Linux' /proc/net/tcp."""
    found = []
    for line in table:
        _, local, remote, state, *_ = line.split()
        if state == TCP_ESTABLISHED and int(remote.partition(":")[2], 16) in ports:
            found.append(int(local.partition(":")[2], 16))
    return found


def _namespace() -> str:
    return os.readlink("/proc/self/ns/net")


def _raise_loopback() -> None:
    """A new namespace has the loopback device, but down."""
    import fcntl

    request = struct.Struct("16sH14x")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            answer = fcntl.ioctl(sock, SIOCGIFFLAGS, request.pack(b"lo", 0))
            flags = request.unpack(answer)[1]
            fcntl.ioctl(sock, SIOCSIFFLAGS, request.pack(b"lo", flags | IFF_UP))
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"--blackhole: the namespace has no loopback: {reason}") from error


def _tool(name: str) -> str:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *SBIN))
    found = shutil.which(name, path=path)
    if found is None:
        raise UsageError(f"--blackhole needs {name}, which is not installed here")
    return found


def _run(command: list[str], text: str) -> None:
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=TOOL_S_MAX, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UsageError(f"--blackhole: {error}") from error
    if done.returncode:
        said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[0]
        raise UsageError(f"--blackhole: {os.path.basename(command[0])} is refused here: {said}")
