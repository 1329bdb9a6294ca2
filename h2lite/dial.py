"""Reaching an origin without waiting: name, TCP, TLS, one step whenever the loop says so.

Names resolve in a short thread of their own, since the system's resolver blocks; numeric
addresses need none.  Timeouts are the caller's: it closes the dial.
"""

from __future__ import annotations

import errno
import os
import socket

from .errors import ConnectError, TLSError
from .loop import READ, WRITE, Loop, Source
from .transport import TLSTransport, Transport, address_text, prepare
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl

    from .origin import Origin
    from .transport import Address, Tap

ADDRESSES_MAX = 16  # of one name; more would only prolong a failure


class Dialled(Value):
    """The origin is reached; TLS, where asked for, stands and chose h2."""

    __slots__ = ("transport",)

    def __init__(self, transport: Transport) -> None:
        self.transport = transport


class DialFailed(Value):
    """No address of the origin could be reached; `error` says what the last one answered."""

    __slots__ = ("error",)

    def __init__(self, error: ConnectError) -> None:
        self.error = error


class Dial(Source):
    """One attempt at one origin; reports Dialled or DialFailed, once.

    context   the TLS context, None for cleartext
    stage     what it is busy with, for messages
    """

    def __init__(
        self, loop: Loop, origin: Origin, context: ssl.SSLContext | None, tap: Tap | None = None
    ) -> None:
        self.loop = loop
        self.origin = origin
        self.stage = "resolving the name"
        self._context = context
        self._tap = tap
        self._addresses: list[tuple[int, Address]] = []
        self._fault: ConnectError | None = None
        self._sock: socket.socket | None = None
        self._transport: TLSTransport | None = None
        self._resolver: _Resolver | None = None

    def start(self) -> list[Value]:
        """Begin.  What fails at once is reported at once."""
        try:
            self._addresses = _numeric(self.origin.host, self.origin.port)
        except (OSError, UnicodeError):  # a name, or what cannot even be one: say so alike
            self._resolver = _Resolver(self.origin.host, self.origin.port)
            self.loop.watch(self, self._resolver.fileno(), READ)
            return []
        return self._next_address()

    def ready(self, mask: int, now: float) -> list[Value]:
        if self._resolver is not None:
            return self._on_resolved()
        if self._transport is not None:
            return self._on_handshake()
        return self._on_connected()

    def close(self) -> None:
        """Give up; nothing is reported any more."""
        self._close_resolver()
        self._close_socket()

    # -- name ------------------------------------------------------------------------------

    def _on_resolved(self) -> list[Value]:
        resolver = self._resolver
        assert resolver is not None
        self._close_resolver()
        if resolver.fault is not None:
            reason = resolver.fault.strerror or str(resolver.fault)
            error = ConnectError(f"cannot resolve {self.origin.host}: {reason}")
            error.__cause__ = resolver.fault
            return [DialFailed(error)]
        self._addresses = resolver.addresses[:ADDRESSES_MAX]
        return self._next_address()

    def _close_resolver(self) -> None:
        if self._resolver is not None:
            self.loop.forget(self, self._resolver.fileno())
            self._resolver.close()
            self._resolver = None

    # -- TCP -------------------------------------------------------------------------------

    def _next_address(self) -> list[Value]:
        """Try the next address; report the last one's fault when there is none."""
        while self._addresses:
            family, address = self._addresses.pop(0)
            self.stage = f"connecting to {address_text(address)}"
            try:
                self._sock = socket.socket(family, socket.SOCK_STREAM)
                prepare(self._sock)
                code = self._sock.connect_ex(address)
            except OSError as error:
                self._failed(address, error)
                continue
            if code in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
                self.loop.watch(self, self._sock.fileno(), WRITE)
                return []
            self._failed(address, OSError(code, os.strerror(code)))
        assert self._fault is not None
        return [DialFailed(self._fault)]

    def _failed(self, address: Address, error: OSError) -> None:
        reason = (error.strerror or str(error)).lower()
        self._fault = ConnectError(
            f"cannot connect to {self.origin} ({address_text(address)}): {reason}"
        )
        self._fault.__cause__ = error
        self._close_socket()

    def _on_connected(self) -> list[Value]:
        sock = self._sock
        assert sock is not None
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        try:
            if code:
                raise OSError(code, os.strerror(code))
            address = sock.getpeername()
        except OSError as error:
            # The kernel has forgotten the address of a socket that failed: the stage names it.
            self._fault = ConnectError(
                f"cannot connect to {self.origin}, {self.stage}: "
                f"{(error.strerror or str(error)).lower()}"
            )
            self._fault.__cause__ = error
            self._close_socket()
            return self._next_address()
        self.loop.forget(self, sock.fileno())
        if self._context is None:
            self._sock = None
            return [Dialled(Transport(sock, address, self._tap))]
        self.stage = f"TLS handshake with {address_text(address)}"
        try:
            self._transport = TLSTransport(
                sock, address, self._context, self.origin.host, self._tap
            )
        except OSError as error:  # reset a moment ago: ssl cannot wrap such a socket
            reason = f"TLS handshake cut off: {error.strerror or error}"
            return self._tls_failed(address, reason, error)
        self._sock = self._transport.sock
        return self._on_handshake()

    def _close_socket(self) -> None:
        self._transport = None
        if self._sock is not None:
            self.loop.forget(self, self._sock.fileno())
            self._sock.close()
            self._sock = None

    # -- TLS -------------------------------------------------------------------------------

    def _on_handshake(self) -> list[Value]:
        transport = self._transport
        assert transport is not None
        try:
            wanted = transport.handshake()
        except TLSError as error:
            return self._tls_failed(transport.address, str(error), error.__cause__)
        self.loop.watch(self, transport.sock.fileno(), wanted)
        if wanted:
            return []
        self.loop.forget(self, transport.sock.fileno())
        self._sock = self._transport = None
        return [Dialled(transport)]

    def _tls_failed(
        self, address: Address, reason: str, cause: BaseException | None
    ) -> list[Value]:
        """Another address is the same server by another way: its TLS would fail alike."""
        fault = TLSError(f"{self.origin} ({address_text(address)}): {reason}")
        fault.__cause__ = cause
        self._close_socket()
        return [DialFailed(fault)]


class _Resolver:
    """getaddrinfo in a daemon thread; its descriptor becomes readable when it has answered."""

    def __init__(self, host: str, port: int) -> None:
        import threading

        self.addresses: list[tuple[int, Address]] = []
        self.fault: OSError | None = None
        self._done, self._signal = socket.socketpair()
        threading.Thread(
            target=self._resolve, args=(host, port), name=f"h2lite resolves {host}", daemon=True
        ).start()

    def _resolve(self, host: str, port: int) -> None:
        try:
            self.addresses = _lookup(host, port, 0)
        except OSError as error:
            self.fault = error
        except UnicodeError as error:
            self.fault = OSError(0, f"not a host name: {error}")
        finally:
            self._signal.close()  # the other end reads this as its end

    def fileno(self) -> int:
        return self._done.fileno()

    def close(self) -> None:
        """Stop listening; a thread still waiting for the system ends when it is answered."""
        self._done.close()


def _numeric(host: str, port: int) -> list[tuple[int, Address]]:
    """The address a numeric host stands for.  Raises OSError for a name."""
    return _lookup(host, port, socket.AI_NUMERICHOST)


def _lookup(host: str, port: int, flags: int) -> list[tuple[int, Address]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [(family, address) for family, _, _, _, address in found]


