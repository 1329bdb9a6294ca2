"""Sockets that never block: one recv, one send, TLS by ssl with ALPN.

Octets only: no frames, no waiting; the loop says when to try.
Grounds: RFC 9113 §3.2, §3.3, §9.2; RFC 7301 (ALPN).
"""

from __future__ import annotations

import math
import os
import selectors
import socket
import struct
import sys
from functools import lru_cache

from .errors import TLSError, UsageError
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    from .health import HealthPolicy

    # What a socket calls an address: host and port first, more for IPv6; a UNIX socket's is its
    # path, empty for the end that has none, octets for a name that is no file.
    Address: TypeAlias = tuple[Any, ...] | str | bytes
    # Sees every octet as it crosses: True for those received, False for those sent.
    Tap: TypeAlias = Callable[[bool, bytes], None]

RECV_OCTETS = 65536
TLS_SEND_OCTETS = 16384  # one TLS record; what a send that wants to write commits us to
# Without it the kernel swallows megabytes, and a PING waits behind them.
NOTSENT_LOWAT = 128 * 1024
# What Linux takes: MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL, MAX_TCP_KEEPCNT, milliseconds in an int.
KEEPALIVE_S_MAX = 32767
KEEPALIVE_COUNT_MAX = 127
USER_TIMEOUT_S_MAX = (2**31 - 1) / 1000

# What a transport carries: HTTP/2 under TLS and in cleartext, and what came before it.
H2, H2C, HTTP1 = "h2", "h2c", "http/1.1"
H2_ALONE = (H2,)  # offered by ALPN where nobody asks for more


class HandshakeCut(TLSError):
    """The connection ended during the handshake, without a verdict on certificate or protocol."""


class TLSBroken(OSError):
    """After the handshake something came that is no TLS, or a fatal alert."""


def address_text(address: Address) -> str:
    """An address as people write it; "unix:" alone is the client's end of a UNIX socket."""
    if isinstance(address, bytes):
        return f"unix:{address.decode('utf-8', 'backslashreplace')}"
    if isinstance(address, str):
        return f"unix:{address}"
    return _tcp_text(address[0], address[1])


@lru_cache(maxsize=64)
def _tcp_text(host: str, port: int) -> str:
    # One text for all connections to one address: each keeps it.
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_unix_sockets() -> None:
    """Raise UsageError where there are no UNIX sockets."""
    if not hasattr(socket, "AF_UNIX"):
        raise UsageError("this system's Python has no UNIX sockets")


class SocketOptions(Value):
    """The kernel's own watch over a TCP connection, behind the health checks.

    keepalive            probe a connection on which nothing is in flight (SO_KEEPALIVE)
    keepalive_idle       silence before the first probe, whole seconds
    keepalive_interval   between one probe and the next, whole seconds
    keepalive_count      probes unanswered before the kernel gives the connection up
    user_timeout         seconds that octets may stay unacknowledged, or unsent before a closed
                         window (TCP_USER_TIMEOUT, which also overrides keepalive_count); 0: off

    Keepalive is a backstop and no check: one unacknowledged octet, and its timer only re-arms
    itself.  A system that cannot set one of its figures keeps its own.

    Raises UsageError for what no kernel takes, and for a user_timeout where there is none.
    """

    __slots__ = (
        "keepalive",
        "keepalive_idle",
        "keepalive_interval",
        "keepalive_count",
        "user_timeout",
    )

    def __init__(
        self,
        keepalive: bool = True,
        keepalive_idle: int = 60,
        keepalive_interval: int = 15,
        keepalive_count: int = 4,
        user_timeout: float = 0.0,
    ) -> None:
        _check_whole("keepalive_idle", keepalive_idle, KEEPALIVE_S_MAX, "whole seconds")
        _check_whole("keepalive_interval", keepalive_interval, KEEPALIVE_S_MAX, "whole seconds")
        _check_whole("keepalive_count", keepalive_count, KEEPALIVE_COUNT_MAX, "a whole number")
        good = isinstance(user_timeout, (int, float))
        if not good or not 0 <= user_timeout <= USER_TIMEOUT_S_MAX:  # false for nan, too
            raise UsageError(
                f"user_timeout of {user_timeout!r}, want seconds, 0 (off) to {USER_TIMEOUT_S_MAX}"
            )
        if user_timeout and not hasattr(socket, "TCP_USER_TIMEOUT"):
            raise UsageError("user_timeout: this system, or its Python, has no TCP_USER_TIMEOUT")
        self.keepalive = keepalive
        self.keepalive_idle = keepalive_idle
        self.keepalive_interval = keepalive_interval
        self.keepalive_count = keepalive_count
        self.user_timeout = user_timeout

    def apply(self, sock: socket.socket) -> None:
        """Set them on a TCP socket.  Raises OSError where the system refuses."""
        if self.keepalive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            # The same by macOS' name.
            idle = "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE"
            _set_tcp(sock, idle, self.keepalive_idle)
            _set_tcp(sock, "TCP_KEEPINTVL", self.keepalive_interval)
            _set_tcp(sock, "TCP_KEEPCNT", self.keepalive_count)
        if self.user_timeout:
            # Rounded up: 0 ms would mean off.
            _set_tcp(sock, "TCP_USER_TIMEOUT", math.ceil(self.user_timeout * 1000))


def _check_whole(name: str, value: int, most: int, what: str) -> None:
    if not isinstance(value, int) or not 1 <= value <= most:
        raise UsageError(f"{name} of {value!r}, want {what}, 1 to {most}")


def _set_tcp(sock: socket.socket, name: str, value: int) -> None:
    option = getattr(socket, name, None)
    if option is not None:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def check_user_timeout(options: SocketOptions, policy: HealthPolicy) -> None:
    """Raise UsageError for a user_timeout that is shorter than the patience of the policy.

    TCP_USER_TIMEOUT does not ask whether the peer answers: it ends a live connection whose peer
    has only closed its window, which the policy lets pass for so long.
    """
    least = policy.peer_not_reading + policy.ping_timeout
    if 0 < options.user_timeout < least:
        raise UsageError(
            f"user_timeout of {options.user_timeout:g} s, want 0 (off) or at least"
            f" peer_not_reading + ping_timeout, {least:g} s: the kernel would end a connection"
            " whose peer lives and merely reads slowly"
        )


def prepare(sock: socket.socket, options: SocketOptions | None = None) -> None:
    """Make a stream socket fit for frames: no blocking, no Nagle, a short kernel queue.

    options   what the kernel watches by itself, None: nothing; UNIX sockets have none of it
    """
    sock.setblocking(False)
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _set_tcp(sock, "TCP_NOTSENT_LOWAT", NOTSENT_LOWAT)
    if options is not None:
        options.apply(sock)


class TcpInfo(Value):
    """What Linux knows of a TCP connection: five fields from the head of struct tcp_info.

        offset   field              octets
             0   tcpi_state              1   1: established
             2   tcpi_retransmits        1   the same octets sent again, times since the last ack
             3   tcpi_probes             1   of a closed window or of keepalive, since the last ack
             4   tcpi_backoff            1   times that the timer was doubled
            24   tcpi_unacked            4   segments sent and not acknowledged

    Source: linux/tcp.h, whose struct has only ever grown at its end.
    """

    __slots__ = ("state", "retransmits", "probes", "backoff", "unacked")

    HEAD = struct.Struct("=BxBBB19xI")
    ESTABLISHED = 1

    def __init__(
        self, state: int, retransmits: int, probes: int, backoff: int, unacked: int
    ) -> None:
        self.state = state
        self.retransmits = retransmits
        self.probes = probes
        self.backoff = backoff
        self.unacked = unacked

    @classmethod
    def decode(cls, octets: bytes) -> TcpInfo:
        return cls(*cls.HEAD.unpack_from(octets))

    @property
    def path_state(self) -> str:
        """Of a connection that is silent: "path_dead", "peer_hung" or "unknown"."""
        if self.state != self.ESTABLISHED:
            return "unknown"
        if self.unacked:
            # Without a retransmission the octets may be on their way.
            return "path_dead" if self.retransmits or self.backoff else "unknown"
        # Before a closed window nothing is in flight but probes of it.  The other end's kernel
        # answers them, whatever its program does, but not one that follows another too soon.
        return "path_dead" if self.probes > 1 else "peer_hung"


def read_tcp_info(sock: socket.socket) -> TcpInfo | None:
    """The kernel's view of a connection; None on other systems, and for what is no TCP socket."""
    if sys.platform != "linux":  # others have other structs by that name
        return None
    try:
        return TcpInfo.decode(
            sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TcpInfo.HEAD.size)
        )
    except (OSError, struct.error):
        return None


class Transport:
    """A connected cleartext socket.

    protocol    what is spoken over it: "h2c" or "http/1.1"; under TLS "h2" or "http/1.1"
    committed   octets that wait inside the transport; call `push` when the socket is writable
    recv_octets most that one recv gives; TLS gives one record's
    """

    __slots__ = ("sock", "address", "tap", "protocol", "recv_octets")
    committed = b""

    def __init__(
        self, sock: socket.socket, address: Address, tap: Tap | None = None, protocol: str = H2C
    ) -> None:
        self.sock = sock
        self.address = address
        self.tap = tap
        self.protocol = protocol
        self.recv_octets = RECV_OCTETS

    @property
    def tls_version(self) -> str | None:
        """ "TLSv1.3" and the like; None in cleartext."""
        return None

    @property
    def cut_off(self) -> bool:
        """The end of the stream came without TLS's word for it: somebody may have cut it short."""
        return False

    def recv(self) -> bytes | None:
        """What has come, b"" at the end of the stream, None when nothing is there yet.

        Raises OSError when the connection is broken, TLSBroken where it is not the socket's fault.
        """
        try:
            data = self.sock.recv(self.recv_octets)
        except (BlockingIOError, InterruptedError):
            return None
        if self.tap is not None:
            self._tell(self.tap, True, data)
        return data

    def pending(self) -> int:
        """Octets that recv would give though the selector does not say so."""
        return 0

    def send(self, data: bytes) -> int:
        """Offer octets; how many of them were taken, from the start.  Raises OSError."""
        try:
            taken = self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        if self.tap is not None:
            self._tell(self.tap, False, data[:taken])
        return taken

    def push(self) -> bool:
        """Try the committed octets again; True when none are left.  Raises OSError."""
        return True

    def end_sending(self) -> None:
        """Tell the peer that nothing more comes.  A broken connection is no error here."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def drop_unsent(self) -> None:
        """Have `close` reset the connection: what the kernel holds would wait for minutes."""
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            return

    def path_state(self) -> str:
        """Of a silent connection: "path_dead", "peer_hung" or, where nobody can say, "unknown".

        It is told by what the kernel at the other end acknowledges; a relay has one, too.
        """
        info = read_tcp_info(self.sock)
        return "unknown" if info is None else info.path_state

    def close(self) -> None:
        self.sock.close()

    @staticmethod
    def _tell(tap: Tap, received: bool, octets: bytes) -> None:
        try:
            tap(received, octets)
        except OSError as error:  # else it would be taken for the socket's failure
            raise RuntimeError(f"the tap failed: {error}") from error


class TLSTransport(Transport):
    """A connected socket under TLS.  Call `handshake` until it is done.

    alpn       the protocols that `context` offers or accepts, which it cannot be asked
    protocol   what was chosen of them, once the handshake is done
    """

    __slots__ = ("_not_yet", "_ssl_ends", "committed", "_cut_off", "_alpn", "_ssl")

    def __init__(
        self,
        sock: socket.socket,
        address: Address,
        context: ssl.SSLContext,
        server_hostname: str | None = None,
        tap: Tap | None = None,
        alpn: Sequence[str] = H2_ALONE,
    ) -> None:
        import ssl

        # Bound once: an import statement in recv cost a sixth of a microsecond each time.
        # In OpenSSL's words and in the system's: nothing can be done yet.
        self._not_yet = (
            ssl.SSLWantReadError,
            ssl.SSLWantWriteError,
            BlockingIOError,
            InterruptedError,
        )
        self._ssl_ends = (ssl.SSLZeroReturnError, ssl.SSLEOFError)
        self.committed = b""
        self._cut_off = False
        self._alpn = alpn
        self._ssl = context.wrap_socket(
            sock,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
        )
        super().__init__(self._ssl, address, tap, H2)

    @property
    def tls_version(self) -> str | None:
        return self._ssl.version()

    @property
    def cut_off(self) -> bool:
        return self._cut_off

    def handshake(self) -> int:
        """One step: the selector events to wait for, 0 when TLS stands and a protocol is chosen.

        Raises TLSError, with the peer's or the certificate's fault in words; HandshakeCut when
        the connection broke before either was known.
        """
        import ssl

        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return selectors.EVENT_READ
        except ssl.SSLWantWriteError:
            return selectors.EVENT_WRITE
        except ssl.SSLCertVerificationError as error:
            raise TLSError(f"certificate not accepted: {error.verify_message}") from error
        except self._ssl_ends as error:
            raise HandshakeCut("TLS handshake cut off: the peer closed the connection") from error
        except ssl.SSLError as error:
            if _refuses_protocols(error):
                raise TLSError(self._alpn_fault("refused the handshake")) from error
            raise TLSError(f"TLS handshake failed: {_ssl_reason(error)}") from error
        except OSError as error:
            raise HandshakeCut(f"TLS handshake cut off: {error.strerror or error}") from error
        self._judge_choice()
        return 0

    def _judge_choice(self) -> None:
        """Which protocol ALPN has come to.  Raises TLSError where that is none we may speak."""
        # RFC 9113 §3.2 [alpn-h2], §3.3 [tls-negotiates]
        chosen = self._ssl.selected_alpn_protocol()
        if chosen != H2:
            # A server that has never heard of ALPN chooses nothing, and speaks HTTP/1.1.
            if HTTP1 not in self._alpn or chosen not in (None, HTTP1):
                raise TLSError(self._alpn_fault(f"chose {chosen or 'nothing'}"))
            self.protocol = HTTP1
            return
        cipher = self._ssl.cipher()
        assert cipher is not None
        # Our own contexts cannot come to this; one that a user has made may.
        fault = security_fault(self.tls_version, cipher[0], self._ssl.compression())
        if fault is not None:
            raise TLSError(fault)

    def _alpn_fault(self, deed: str) -> str:
        return f"the peer does not offer {' or '.join(self._alpn)} by ALPN (it {deed})"

    def recv(self) -> bytes | None:
        try:
            data = self._ssl.recv(RECV_OCTETS)
        except self._not_yet:
            return None
        except self._ssl_ends:
            self._cut_off = True
            data = b""
        except OSError as error:
            if getattr(error, "reason", None) is None:  # the socket's fault, not OpenSSL's
                raise
            # Under TLS 1.3 it is only now that a server can refuse our certificate, by an alert.
            raise TLSBroken(error.errno, f"TLS failed: {_ssl_reason(error)}") from error
        if self.tap is not None:
            self._tell(self.tap, True, data)
        return data

    def pending(self) -> int:
        return self._ssl.pending()

    def send(self, data: bytes) -> int:
        if self.committed and not self.push():
            return 0
        taken = 0
        while taken < len(data):
            record = data[taken : taken + TLS_SEND_OCTETS]
            try:
                taken += self._ssl.send(record)
            except self._not_yet:
                # OpenSSL has encrypted this record and will send it and no other: another
                # buffer offered in its place would be lost without a word.
                self.committed = record
                taken += len(record)
                break
        if self.tap is not None and taken:
            self._tell(self.tap, False, data[:taken])
        return taken

    def end_sending(self) -> None:
        try:
            # Sends close_notify, then looks for the peer's, which may come later or never.
            self._ssl.unwrap()
        except (OSError, ValueError):
            pass
        try:
            # SSLSocket.shutdown would drop the TLS state, and later reads would give ciphertext.
            socket.socket.shutdown(self._ssl, socket.SHUT_WR)
        except OSError:
            return

    def push(self) -> bool:
        while self.committed:
            try:
                self.committed = self.committed[self._ssl.send(self.committed) :]
            except self._not_yet:
                return False
        return True


def _ssl_reason(error: OSError) -> str:
    """OpenSSL's reason as words: "WRONG_VERSION_NUMBER" becomes "wrong version number"."""
    return (getattr(error, "reason", None) or str(error)).replace("_", " ").lower()


def _refuses_protocols(error: OSError) -> bool:
    """A handshake ended by RFC 7301 §3.2's alert: the server has none of what we offer."""
    # Not every OpenSSL and Python have a name for it; then it stands in the text.
    return "no application protocol" in _ssl_reason(error)


def security_fault(version: str | None, suite: str, compression: str | None) -> str | None:
    """Why HTTP/2 is not to be spoken over such a TLS connection; None: it may be.

    suite         as OpenSSL calls it: what matters is told by the name
    compression   its method, None for none
    """
    # RFC 9113 §9.2 [tls-1.2]
    if version in ("SSLv3", "TLSv1", "TLSv1.1"):
        return f"{version} is too old for HTTP/2, want TLSv1.2 or later"
    if version != "TLSv1.2":
        return None
    # RFC 9113 §9.2.1 [tls-no-compression]
    if compression is not None:
        return f"TLS compresses ({compression}), which HTTP/2 forbids"
    # RFC 9113 §9.2.2 [tls-1.2-suites], [tls-1.2-suites-lawful]: appendix A lists all suites without
    # an ephemeral key exchange or without an AEAD; those with ChaCha20 are younger than the list.
    ephemeral = suite.startswith(("ECDHE-", "DHE-"))
    if "CHACHA20" in suite or (ephemeral and ("GCM" in suite or "CCM" in suite)):
        return None
    return f"the cipher suite {suite} is prohibited under HTTP/2"


def client_tls(
    scheme: str,
    *,
    verify: bool = True,
    cafile: str | None = None,
    certfile: str | None = None,
    keyfile: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    alpn: Sequence[str] = H2_ALONE,
) -> ssl.SSLContext | None:
    """The context for URLs of a scheme: made of these arguments, or the user's own; None for http.

    alpn   what to offer, also by the user's own: see `client_context`

    Raises UsageError for arguments that do not go together.
    """
    if scheme != "https":
        # verify and cafile may well be said once for all of a program's URLs.
        if certfile is not None or keyfile is not None or ssl_context is not None:
            raise UsageError("certfile, keyfile and ssl_context are for https URLs")
        return None
    if ssl_context is None:
        return client_context(verify, cafile, certfile, keyfile, alpn)
    if not verify or cafile is not None or certfile is not None or keyfile is not None:
        raise UsageError(
            "ssl_context says what verify, cafile, certfile and keyfile would: leave them out"
        )
    import ssl

    if ssl_context.protocol == ssl.PROTOCOL_TLS_SERVER:
        raise UsageError("ssl_context is a server's, want a client's")
    _offer(ssl_context, alpn)
    return ssl_context


def client_context(
    verify: bool = True,
    cafile: str | None = None,
    certfile: str | None = None,
    keyfile: str | None = None,
    alpn: Sequence[str] = H2_ALONE,
) -> ssl.SSLContext:
    """A context that offers h2 and verifies certificates unless told otherwise.

    cafile     PEM file of certificates to trust instead of the system's
    certfile   PEM file of our own certificate, for servers that ask for one
    keyfile    PEM file of its private key, None: that is in certfile
    alpn       what to offer, the preferred first: "h2", "http/1.1" or both; TLSTransport must
               be told the same

    Raises UsageError when a file cannot be read or used, and for other protocols.
    """
    import ssl

    if keyfile is not None and certfile is None:
        raise UsageError(f"keyfile {keyfile} without a certfile")
    _check_key_log()
    try:
        context = ssl.create_default_context(cafile=cafile)
    except OSError as error:
        raise UsageError(f"cannot read certificates from {cafile}: {_file_fault(error)}") from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certfile is not None:
        _load_certificate(context, certfile, keyfile)
    _restrict(context)
    _offer(context, alpn)
    return context


def server_context(certfile: str, keyfile: str | None = None) -> ssl.SSLContext:
    """A context that accepts h2 with this certificate.  Raises UsageError for unreadable files."""
    import ssl

    _check_key_log()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load_certificate(context, certfile, keyfile)
    _restrict(context)
    _offer(context, H2_ALONE)
    return context


def _offer(context: ssl.SSLContext, alpn: Sequence[str]) -> None:
    protocols = [*alpn]
    if not protocols or not {*protocols} <= {H2, HTTP1}:
        raise UsageError(f"alpn of {alpn!r}, want h2, http/1.1 or both")
    # RFC 9113 §3.2 [alpn-h2]
    context.set_alpn_protocols(protocols)


def _check_key_log() -> None:
    """The default contexts write TLS secrets to SSLKEYLOGFILE; see that they can."""
    path = os.environ.get("SSLKEYLOGFILE")
    if path and not sys.flags.ignore_environment:
        try:
            open(path, "ab").close()
        except OSError as error:
            reason = error.strerror or error
            raise UsageError(f"cannot write to SSLKEYLOGFILE {path}: {reason}") from error


def _load_certificate(context: ssl.SSLContext, certfile: str, keyfile: str | None) -> None:
    where = certfile if keyfile is None else f"{certfile} and {keyfile}"

    def refuse() -> str:
        # Without this OpenSSL would ask on the terminal, in the middle of somebody's program.
        raise UsageError(f"cannot use the certificate in {where}: its private key is encrypted")

    try:
        context.load_cert_chain(certfile, keyfile, refuse)
    except OSError as error:
        raise UsageError(f"cannot use the certificate in {where}: {_file_fault(error)}") from error


def _file_fault(error: OSError) -> str:
    """Why a PEM file is of no use."""
    import ssl

    if not isinstance(error, ssl.SSLError):
        return error.strerror or str(error)
    if not error.reason:  # then its text is no more than a line number of the interpreter's
        return "a certificate or its private key is missing there, or not in PEM"
    return _ssl_reason(error)


def _restrict(context: ssl.SSLContext) -> None:
    import ssl

    # RFC 9113 §9.2 [tls-1.2]
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # RFC 9113 §9.2.1 [tls-ecdhe-sizes], §9.2.2 [tls-1.2-suites], [tls-1.2-mandatory]
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    # RFC 9113 §9.2.1 [tls-no-compression], [tls-no-renegotiation]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
