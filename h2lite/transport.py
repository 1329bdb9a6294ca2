"""Sockets that never block: one recv, one send, TLS by ssl with ALPN.

Octets only: no frames, no waiting; the loop says when to try.
Grounds: RFC 9113 §3.2, §3.3, §9.2.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import sys

from .errors import TLSError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from typing import Any, TypeAlias

    # What a socket calls an address: host and port first, more for IPv6; a UNIX socket's is its
    # path, empty for the end that has none, octets for a name that is no file.
    Address: TypeAlias = tuple[Any, ...] | str | bytes
    # Sees every octet as it crosses: True for those received, False for those sent.
    Tap: TypeAlias = Callable[[bool, bytes], None]

RECV_OCTETS = 65536
TLS_SEND_OCTETS = 16384  # one TLS record; what a send that wants to write commits us to
# Without it the kernel swallows megabytes, and a PING waits behind them.
NOTSENT_LOWAT = 128 * 1024


class HandshakeCut(TLSError):
    """The connection ended during the handshake, without a verdict on certificate or protocol."""


def address_text(address: Address) -> str:
    """An address as people write it; "unix:" alone is the client's end of a UNIX socket."""
    if isinstance(address, bytes):
        return f"unix:{address.decode('utf-8', 'backslashreplace')}"
    if isinstance(address, str):
        return f"unix:{address}"
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_unix_sockets() -> None:
    """Raise UsageError where there are no UNIX sockets."""
    if not hasattr(socket, "AF_UNIX"):
        raise UsageError("this system's Python has no UNIX sockets")


def prepare(sock: socket.socket) -> None:
    """Make a stream socket fit for frames: no blocking, no Nagle, a short kernel queue."""
    sock.setblocking(False)
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    notsent_lowat = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if notsent_lowat is not None:
        sock.setsockopt(socket.IPPROTO_TCP, notsent_lowat, NOTSENT_LOWAT)


class Transport:
    """A connected cleartext socket."""

    __slots__ = ("sock", "address", "tap")

    protocol = "h2c"

    def __init__(self, sock: socket.socket, address: Address, tap: Tap | None = None) -> None:
        self.sock = sock
        self.address = address
        self.tap = tap

    @property
    def tls_version(self) -> str | None:
        """ "TLSv1.3" and the like; None in cleartext."""
        return None

    @property
    def committed(self) -> bool:
        """Octets wait inside the transport; call `push` when the socket is writable."""
        return False

    def recv(self) -> bytes | None:
        """What has come, b"" at the end of the stream, None when nothing is there yet.

        Raises OSError when the connection is broken.
        """
        try:
            data = self.sock.recv(RECV_OCTETS)
        except (BlockingIOError, InterruptedError):
            return None
        if self.tap is not None:
            self.tap(True, data)
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
            self.tap(False, data[:taken])
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
        """Of a silent connection: "path_dead", "peer_hung" or, where nobody can say, "unknown"."""
        return "unknown"

    def close(self) -> None:
        self.sock.close()


class TLSTransport(Transport):
    """A connected socket under TLS.  Call `handshake` until it is done."""

    __slots__ = ("_ssl_errors", "_ssl_ends", "_committed", "_ssl")

    protocol = "h2"

    def __init__(
        self,
        sock: socket.socket,
        address: Address,
        context: ssl.SSLContext,
        server_hostname: str | None = None,
        tap: Tap | None = None,
    ) -> None:
        import ssl

        # Bound once: an import statement in recv cost a sixth of a microsecond each time.
        self._ssl_errors = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
        self._ssl_ends = (ssl.SSLZeroReturnError, ssl.SSLEOFError)
        self._committed = b""
        self._ssl = context.wrap_socket(
            sock,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
            do_handshake_on_connect=False,
        )
        super().__init__(self._ssl, address, tap)

    @property
    def tls_version(self) -> str | None:
        return self._ssl.version()

    @property
    def committed(self) -> bool:
        return bool(self._committed)

    def handshake(self) -> int:
        """One step: the selector events to wait for, 0 when TLS stands and "h2" was chosen.

        Raises TLSError, with the peer's or the certificate's fault in words; HandshakeCut when
        the connection broke before either was known.
        """
        import ssl

        want_read, want_write = self._ssl_errors
        try:
            self._ssl.do_handshake()
        except want_read:
            return selectors.EVENT_READ
        except want_write:
            return selectors.EVENT_WRITE
        except ssl.SSLCertVerificationError as error:
            raise TLSError(f"certificate not accepted: {error.verify_message}") from error
        except self._ssl_ends as error:
            raise HandshakeCut("TLS handshake cut off: the peer closed the connection") from error
        except ssl.SSLError as error:
            raise TLSError(f"TLS handshake failed: {_ssl_reason(error)}") from error
        except OSError as error:
            raise HandshakeCut(f"TLS handshake cut off: {error.strerror or error}") from error
        # RFC 9113 §3.2 [alpn-h2], §3.3 [tls-negotiates]
        chosen = self._ssl.selected_alpn_protocol()
        if chosen != "h2":
            raise TLSError(f"the peer does not offer h2 by ALPN (it chose {chosen or 'nothing'})")
        cipher = self._ssl.cipher()
        assert cipher is not None
        # Our own contexts cannot come to this; one that a user has made may.
        fault = security_fault(self.tls_version, cipher[0], self._ssl.compression())
        if fault is not None:
            raise TLSError(fault)
        return 0

    def recv(self) -> bytes | None:
        try:
            data = self._ssl.recv(RECV_OCTETS)
        except self._ssl_errors:
            return None
        except self._ssl_ends:
            data = b""
        except OSError as error:
            if getattr(error, "reason", None) is None:  # the socket's fault, not OpenSSL's
                raise
            # Under TLS 1.3 it is only now that a server can refuse our certificate, by an alert.
            raise OSError(error.errno, f"TLS failed: {_ssl_reason(error)}") from error
        if self.tap is not None:
            self.tap(True, data)
        return data

    def pending(self) -> int:
        return self._ssl.pending()

    def send(self, data: bytes) -> int:
        if self._committed and not self.push():
            return 0
        taken = 0
        while taken < len(data):
            record = data[taken : taken + TLS_SEND_OCTETS]
            try:
                taken += self._ssl.send(record)
            except self._ssl_errors:
                # OpenSSL has encrypted this record and will send it and no other: another
                # buffer offered in its place would be lost without a word.
                self._committed = record
                taken += len(record)
                break
        if self.tap is not None and taken:
            self.tap(False, data[:taken])
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
        while self._committed:
            try:
                self._committed = self._committed[self._ssl.send(self._committed) :]
            except self._ssl_errors:
                return False
        return True


def _ssl_reason(error: OSError) -> str:
    """OpenSSL's reason as words: "WRONG_VERSION_NUMBER" becomes "wrong version number"."""
    return (getattr(error, "reason", None) or str(error)).replace("_", " ").lower()


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
) -> ssl.SSLContext | None:
    """The context for URLs of a scheme: made of these arguments, or the user's own; None for http.

    Raises UsageError for arguments that do not go together.
    """
    if scheme != "https":
        # verify and cafile may well be said once for all of a program's URLs.
        if certfile is not None or keyfile is not None or ssl_context is not None:
            raise UsageError("certfile, keyfile and ssl_context are for https URLs")
        return None
    if ssl_context is None:
        return client_context(verify, cafile, certfile, keyfile)
    if not verify or cafile is not None or certfile is not None or keyfile is not None:
        raise UsageError(
            "ssl_context says what verify, cafile, certfile and keyfile would: leave them out"
        )
    import ssl

    if ssl_context.protocol == ssl.PROTOCOL_TLS_SERVER:
        raise UsageError("ssl_context is a server's, want a client's")
    # RFC 9113 §3.2 [alpn-h2]
    ssl_context.set_alpn_protocols(["h2"])
    return ssl_context


def client_context(
    verify: bool = True,
    cafile: str | None = None,
    certfile: str | None = None,
    keyfile: str | None = None,
) -> ssl.SSLContext:
    """A context that offers h2 and verifies certificates unless told otherwise.

    cafile     PEM file of certificates to trust instead of the system's
    certfile   PEM file of our own certificate, for servers that ask for one
    keyfile    PEM file of its private key, None: that is in certfile

    Raises UsageError when a file cannot be read or used.
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
    return context


def server_context(certfile: str, keyfile: str | None = None) -> ssl.SSLContext:
    """A context that accepts h2 with this certificate.  Raises UsageError for unreadable files."""
    import ssl

    _check_key_log()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load_certificate(context, certfile, keyfile)
    _restrict(context)
    return context


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
    context.set_alpn_protocols(["h2"])
