"""Being reached: a listening socket, TCP or UNIX, and the TLS handshakes of those who come.

The counterpart of dial.py, one step whenever the loop says so; a handshake holds up nobody.
Names of hosts to listen on are resolved at once, before anything is served.
"""

from __future__ import annotations

import errno
import math
import os
import socket
import stat
import sys

from .errors import TLSError, UsageError
from .loop import READ, Loop, Source
from .origin import parse_url
from .transport import TLSTransport, check_unix_sockets
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .transport import Address

ACCEPTS_A_TURN_MAX = 64  # so that a rush of newcomers does not hold up who is here
BACKLOG = 256
EXHAUSTED_PAUSE_S = 0.1  # without descriptors or memory, before the next accept is tried
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Accepted(Value):
    """Somebody has connected."""

    __slots__ = ("sock", "address")

    def __init__(self, sock: socket.socket, address: Address) -> None:
        self.sock = sock
        self.address = address


class Handshaken(Value):
    """TLS stands, and chose h2."""

    __slots__ = ()


class HandshakeFailed(Value):
    """There will be no TLS with this peer; `reason` says why."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Listener(Source):
    """A listening socket: TCP, or a UNIX socket where the host is a unix: URL.

    receive_buffer    octets of SO_RCVBUF on each accepted socket; None: the system's
    descriptors_max   the first descriptor that no newcomer keeps, not even until the turn's end:
                      a handler may need it before that
    """

    def __init__(
        self,
        loop: Loop,
        host: str,
        port: int,
        receive_buffer: int | None = None,
        descriptors_max: float = math.inf,
    ) -> None:
        self._loop = loop
        self._descriptors_max = descriptors_max
        self._file: _SocketFile | None = None
        if host[:5].lower() == "unix:":
            self._sock, self._file = _unix_socket(host)
        else:
            self._sock = _tcp_socket(host, port)
        self._sock.setblocking(False)
        if receive_buffer is not None:
            # Accepted sockets inherit it; on them it would come after the first window was told.
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.address: Address = self._sock.getsockname()
        try:
            self._sock.listen(BACKLOG)
        except OSError:  # somebody else came first
            self._sock.close()
            raise
        loop.watch(self, self._sock.fileno(), READ)

    def ready(self, mask: int, now: float) -> list[Value]:
        accepted: list[Value] = []
        for _ in range(ACCEPTS_A_TURN_MAX):
            try:
                sock, address = self._sock.accept()
            except OSError as error:  # nobody is left, or the one who came has gone again
                if error.errno in _EXHAUSTED:
                    # The selector would go on saying that somebody waits: look away for a moment.
                    self._loop.watch(self, self._sock.fileno(), 0)
                    self._loop.set_deadline(self, now + EXHAUSTED_PAUSE_S)
                break
            if sock.fileno() >= self._descriptors_max:
                sock.close()
            else:
                accepted.append(Accepted(sock, address))
        return accepted

    def handle_deadline(self, now: float) -> list[Value]:
        self._loop.watch(self, self._sock.fileno(), READ)
        return []

    def close(self) -> None:
        self._loop.forget(self, self._sock.fileno())
        if self._file is not None:
            self._file.remove()
        self._sock.close()


def _tcp_socket(host: str, port: int) -> socket.socket:
    """A socket bound to a host and a port."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except UnicodeError as error:
        raise OSError(0, f"not a host name: {error}") from error
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":
            # There it would let a second server take the port over from a living one.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _unix_socket(url: str) -> tuple[socket.socket, _SocketFile]:
    """A socket bound to the path of a unix: URL, over what a dead server has left there."""
    check_unix_sockets()
    origin, target = parse_url(url)
    path = origin.unix_path
    assert path is not None
    if target != "/":
        raise UsageError(f"cannot listen on {url}: a path, and no request target after it")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_left_over(path):
                raise
            os.unlink(path)
            sock.bind(path)
        return sock, _SocketFile(path)
    except OSError:
        sock.close()
        raise


def _is_left_over(path: str) -> bool:
    """A socket on which nobody listens; anything else is not ours to remove."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
    except OSError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a living server's queue may be full
        return probe.connect_ex(path) == errno.ECONNREFUSED


class _SocketFile:
    """The file of a bound UNIX socket, which the system leaves to us to remove."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stat = os.lstat(path)

    def remove(self) -> None:
        """Remove it, unless it has gone or another server has put its own there."""
        try:
            if os.path.samestat(self._stat, os.lstat(self._path)):
                os.unlink(self._path)
        except OSError:
            return


class Handshake(Source):
    """A connection whose TLS does not stand yet."""

    def __init__(self, loop: Loop, transport: TLSTransport, timeout: float) -> None:
        """timeout: seconds it may take."""
        self.loop = loop
        self.transport = transport
        self.timeout = timeout
        loop.watch(self, transport.sock.fileno(), READ)
        loop.set_deadline(self, None if timeout == math.inf else loop.clock() + timeout)

    def ready(self, mask: int, now: float) -> list[Value]:
        try:
            wanted = self.transport.handshake()
        except TLSError as error:
            return [HandshakeFailed(str(error))]
        self.loop.watch(self, self.transport.sock.fileno(), wanted)
        return [] if wanted else [Handshaken()]

    def handle_deadline(self, now: float) -> list[Value]:
        return [HandshakeFailed(f"TLS handshake not done in {self.timeout:g} s")]

    def close(self) -> None:
        self.loop.forget(self, self.transport.sock.fileno())
        self.transport.close()
