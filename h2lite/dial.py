"""Reaching an origin without waiting: name, TCP, TLS, a step whenever the loop says so.

A name's addresses are tried as RFC 8305 has it: the families take turns, an attempt that is slow
gets the next one beside it, and the first whose handshake is finished wins.  Names resolve in a
short thread of their own, since the system's resolver blocks; numeric addresses and UNIX sockets
need none.  Timeouts are the caller's: it closes the dial.
"""

from __future__ import annotations

import errno
import os
import socket
import sys

from .errors import ConnectError, TLSError, UsageError
from .loop import READ, WRITE, Loop, Source
from .transport import (
    H2_ALONE,
    H2C,
    HTTP1,
    HandshakeCut,
    SocketOptions,
    TLSTransport,
    Transport,
    address_text,
    check_unix_sockets,
    prepare,
)
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from .origin import Origin
    from .transport import Address, Tap

ADDRESSES_MAX = 16  # of one name: the last begins within 4 s, which leaves it time to answer
# RFC 8305 §5: longer than most round trips, so that a healthy first address is left alone with
# it, and short enough that nobody minds when it is dead.
ATTEMPT_DELAY_S = 0.25

# What connect_ex says of a connection that stands or is under way, interrupted or not.  On Windows
# it would block; elsewhere that means that the system has no room for one more.
_UNDER_WAY = errno.EWOULDBLOCK if sys.platform == "win32" else errno.EINPROGRESS
_BEGUN = (0, _UNDER_WAY, errno.EINTR)


class Dialled(Value):
    """The origin is reached; TLS, where asked for, stands, and `transport.protocol` is settled."""

    __slots__ = ("transport",)

    def __init__(self, transport: Transport) -> None:
        self.transport = transport


class DialFailed(Value):
    """The origin was not reached.

    error   what the attempt that came furthest met with, of several the last: a handshake cut
            off says more than a refused connection
    """

    __slots__ = ("error",)

    def __init__(self, error: ConnectError) -> None:
        self.error = error


class Dial(Source):
    """One dial of one origin; reports Dialled or DialFailed, once, and holds nothing then.

    context    the TLS context, None for cleartext
    alpn       what that context offers
    protocol   what to speak in cleartext, where nothing is negotiated: "h2c" or "http/1.1"
    options    the kernel's watch over TCP, None: that of SocketOptions()

    Raises UsageError for another protocol, and for a UNIX socket where the system, or its
    Python, has none.
    """

    def __init__(
        self,
        loop: Loop,
        origin: Origin,
        context: ssl.SSLContext | None,
        tap: Tap | None = None,
        alpn: Sequence[str] = H2_ALONE,
        protocol: str = H2C,
        options: SocketOptions | None = None,
    ) -> None:
        if origin.unix_path is not None:
            check_unix_sockets()
        if protocol not in (H2C, HTTP1):
            raise UsageError(f"protocol of {protocol!r} in cleartext, want h2c or http/1.1")
        self.loop = loop
        self.origin = origin
        self.context = context
        self.tap = tap
        self.alpn = alpn
        self.protocol = protocol
        self.options = options or SocketOptions()
        self._resolver: _Resolver | None = None
        self._addresses: list[tuple[int, Address]] = []  # not tried yet
        self._attempts: list[_Attempt] = []  # under way, the oldest first
        self._fault: ConnectError | None = None

    @property
    def stage(self) -> str:
        """What it is busy with, for messages: the attempt that came furthest."""
        if not self._attempts:
            return "resolving the name"
        furthest = max(self._attempts, key=lambda attempt: attempt.connected)
        others = len(self._attempts) - 1
        return furthest.stage + (f" (and {others} more)" if others else "")

    def start(self) -> list[Value]:
        """Begin.  What fails at once is reported at once."""
        return self._go_on(self._resolve)

    def ready(self, mask: int, now: float) -> list[Value]:
        if self._resolver is not None:
            return self._go_on(lambda: self._on_resolved(now))
        return self._go_on(lambda: self._step(now))

    def handle_deadline(self, now: float) -> list[Value]:
        """The attempts under way take their time: the next address starts beside them."""
        return self._go_on(lambda: self._start_next(now))

    def close(self) -> None:
        """Give up; nothing is reported any more."""
        self._close_resolver()
        self.loop.set_deadline(self, None)
        while self._attempts:
            self._attempts.pop().close()

    def close_after_fork(self) -> None:
        """In a child process: close its copies of the descriptors, and nothing else."""
        if self._resolver is not None:
            self._resolver.close()
        for attempt in self._attempts:
            attempt.close_after_fork()

    def _go_on(self, step: Callable[[], list[Value]]) -> list[Value]:
        """Take a step; one that is interrupted, as somebody's Ctrl-C has it, is the last."""
        try:
            return step()
        except BaseException:
            # What it was at may stand half begun: nothing would come of it any more.
            self.close()
            error = ConnectError(f"cannot connect to {self.origin}: interrupted here")
            self.loop.report(self, [DialFailed(error)])
            raise

    # -- name ------------------------------------------------------------------------------

    def _resolve(self) -> list[Value]:
        if self.origin.unix_path is not None:
            return self._begin([(socket.AF_UNIX, self.origin.unix_path)], self.loop.clock())
        try:
            found = _numeric(self.origin.host, self.origin.port)
        except (OSError, UnicodeError):  # a name, or what cannot even be one: say so alike
            self._resolver = _Resolver(self.origin.host, self.origin.port)
            self.loop.watch(self, self._resolver.fileno(), READ)
            return []
        return self._begin(found, self.loop.clock())

    def _on_resolved(self, now: float) -> list[Value]:
        resolver = self._resolver
        assert resolver is not None
        self._close_resolver()
        if resolver.fault is not None:
            reason = resolver.fault.strerror or str(resolver.fault)
            error = ConnectError(f"cannot resolve {self.origin.host}: {reason}")
            error.__cause__ = resolver.fault
            return [DialFailed(error)]
        return self._begin(resolver.addresses, now)

    def _close_resolver(self) -> None:
        if self._resolver is not None:
            self.loop.forget(self, self._resolver.fileno())
            self._resolver.close()
            self._resolver = None

    # -- addresses -------------------------------------------------------------------------

    def _begin(self, found: list[tuple[int, Address]], now: float) -> list[Value]:
        self._addresses = _taking_turns(found)[:ADDRESSES_MAX]
        return self._start_next(now)

    def _start_next(self, now: float) -> list[Value]:
        """Start the next address there is; with none to start and none under way, it is over."""
        while self._addresses:
            attempt = _Attempt(self, *self._addresses.pop(0))
            self._attempts.append(attempt)
            try:
                attempt.start()
            except OSError as error:
                self._drop(attempt, self._unreached(attempt, error))
                continue
            self.loop.set_deadline(self, now + ATTEMPT_DELAY_S if self._addresses else None)
            return []
        if self._attempts:
            return []
        self.close()
        assert self._fault is not None
        return [DialFailed(self._fault)]

    def _step(self, now: float) -> list[Value]:
        """See how far each attempt has come: the loop does not say which of them is ready."""
        failed = False
        for attempt in list(self._attempts):
            try:
                transport = attempt.step()
            except TLSError as error:
                fault = TLSError(f"{self.origin} ({address_text(attempt.address)}): {error}")
                fault.__cause__ = error.__cause__
                # Another address is the same server by another way: what this one says by TLS,
                # the others would say too.  A connection that broke has said nothing.
                if not isinstance(error, HandshakeCut):
                    self.close()
                    return [DialFailed(fault)]
                self._drop(attempt, fault)
                failed = True
            except OSError as error:
                self._drop(attempt, self._unreached(attempt, error))
                failed = True
            else:
                if transport is not None:
                    self._attempts.remove(attempt)
                    self.close()
                    return [Dialled(transport)]
        # The place of one that failed is taken at once.
        return self._start_next(now) if failed else []

    def _unreached(self, attempt: _Attempt, error: OSError) -> ConnectError:
        reason = (error.strerror or str(error)).lower()
        # A UNIX socket's address is its origin: once is enough.
        by = "" if self.origin.unix_path is not None else f", {attempt.stage}"
        fault = ConnectError(f"cannot connect to {self.origin}{by}: {reason}")
        fault.__cause__ = error
        return fault

    def _drop(self, attempt: _Attempt, fault: ConnectError) -> None:
        self._attempts.remove(attempt)
        attempt.close()
        if isinstance(fault, TLSError) or not isinstance(self._fault, TLSError):
            self._fault = fault


class _Attempt:
    """One address of a dial: TCP and then, for https, TLS."""

    def __init__(self, dial: Dial, family: int, address: Address) -> None:
        self.address = address
        self._dial = dial
        self._family = family
        self._sock: socket.socket | None = None
        self._tls: TLSTransport | None = None

    @property
    def connected(self) -> bool:
        """TCP stands; TLS is under way."""
        return self._tls is not None

    @property
    def stage(self) -> str:
        doing = "TLS handshake with" if self.connected else "connecting to"
        return f"{doing} {address_text(self.address)}"

    def start(self) -> None:
        """Ask for the connection.  Raises OSError when that fails at once."""
        self._sock = socket.socket(self._family, socket.SOCK_STREAM)
        prepare(self._sock, self._dial.options)
        code = self._sock.connect_ex(self.address)
        if isinstance(self.address, str) and code == errno.EAGAIN:
            # A UNIX socket connects at once or not at all: this is no "under way".
            raise OSError(code, "the server's queue is full")
        if code not in _BEGUN:
            raise OSError(code, os.strerror(code))
        self._watch(WRITE)

    def step(self) -> Transport | None:
        """Go on as far as that is possible; the transport once it stands, None before.

        Raises OSError when there is no connection, TLSError when there is no TLS on it.
        """
        assert self._sock is not None
        if self._tls is None:
            address = _peer(self._sock)
            if address is None:
                return None
            self._watch(0)
            self.address = address
            dial = self._dial
            if dial.context is None:
                return Transport(self._sock, address, dial.tap, dial.protocol)
            # RFC 9113 §9.2 [tls-sni]: ssl sends names and no numeric addresses.  A dot that ends a
            # name is no part of SNI (RFC 6066 §3), nor of the name in a certificate.
            name = dial.origin.host.rstrip(".")
            try:
                self._tls = TLSTransport(
                    self._sock, address, dial.context, name, dial.tap, dial.alpn
                )
            except OSError as error:  # reset a moment ago: ssl cannot wrap such a socket
                reason = f"TLS handshake cut off: {error.strerror or error}"
                raise HandshakeCut(reason) from error
            self._sock = self._tls.sock
        wanted = self._tls.handshake()
        self._watch(wanted)
        return None if wanted else self._tls

    def close(self) -> None:
        if self._sock is not None:
            self._watch(0)
            self._sock.close()

    def close_after_fork(self) -> None:
        if self._sock is not None:
            self._sock.close()

    def _watch(self, mask: int) -> None:
        # Not `forget`: that would take the dial's deadline and with it the next attempt.
        assert self._sock is not None
        self._dial.loop.watch(self._dial, self._sock.fileno(), mask)


def _peer(sock: socket.socket) -> Address | None:
    """Who is at the other end; None while that is not settled.  Raises OSError: nobody."""
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
    try:
        address: Address = sock.getpeername()
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            return None
        raise
    return address


def _taking_turns(found: list[tuple[int, Address]]) -> list[tuple[int, Address]]:
    """The addresses, each once, so that the families alternate, the first one's beginning.

    Within its family each keeps the resolver's order.  Source: RFC 8305 §4.
    """
    found = list(dict.fromkeys(found))
    first = [one for one in found if one[0] == found[0][0]]
    others = [one for one in found if one[0] != found[0][0]]
    turns = [one for pair in zip(first, others, strict=False) for one in pair]
    return turns + first[len(others) :] + others[len(first) :]


class _Resolver:
    """getaddrinfo in a daemon thread; its descriptor becomes readable when it has answered."""

    def __init__(self, host: str, port: int) -> None:
        import threading

        self.addresses: list[tuple[int, Address]] = []
        self.fault: OSError | None = None
        self._done, self._signal = socket.socketpair()
        thread = threading.Thread(
            target=self._resolve, args=(host, port), name=f"h2lite resolves {host}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the system has none left
            self._done.close()
            self._signal.close()
            raise

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


