"""Sockets that never block: one recv, one send, TLS by ssl with ALPN.

Octets only: no frames, no waiting; the loop says when to try.
Grounds: RFC 9113 §3.2, §3.3, §9.2.
"""

from __future__ import annotations

import selectors
import socket

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
        # RFC 9113 §3.2 [alpn-h2]
        chosen = self._ssl.selected_alpn_protocol()
        if chosen != "h2":
            raise TLSError(f"the peer does not offer h2 by ALPN (it chose {chosen or 'nothing'})")
        return 0

    def recv(self) -> bytes | None:
        try:
            data = self._ssl.recv(RECV_OCTETS)
        except self._ssl_errors:
            return None
        except self._ssl_ends:
            data = b""
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


def _ssl_reason(error: ssl.SSLError) -> str:
    """OpenSSL's reason as words: "WRONG_VERSION_NUMBER" becomes "wrong version number"."""
    return (error.reason or str(error)).replace("_", " ").lower()


def client_context(verify: bool = True, cafile: str | None = None) -> ssl.SSLContext:
    """A context that offers h2 and verifies certificates unless told otherwise.

    cafile   PEM file of certificates to trust instead of the system's
    Raises UsageError when the file cannot be read.
    """
    import ssl

    try:
        context = ssl.create_default_context(cafile=cafile)
    except OSError as error:
        raise UsageError(f"cannot read certificates from {cafile}: {_file_fault(error)}") from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    _restrict(context)
    return context


def server_context(certfile: str, keyfile: str | None = None) -> ssl.SSLContext:
    """A context that accepts h2 with this certificate.  Raises UsageError for unreadable files."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certfile, keyfile)
    except OSError as error:
        where = certfile if keyfile is None else f"{certfile} and {keyfile}"
        raise UsageError(f"cannot use the certificate in {where}: {_file_fault(error)}") from error
    _restrict(context)
    return context


def _file_fault(error: OSError) -> str:
    # An SSLError is an OSError too: its strerror is OpenSSL's text, with our source lines in it.
    return getattr(error, "reason", None) or error.strerror or str(error)


def _restrict(context: ssl.SSLContext) -> None:
    import ssl

    # RFC 9113 §9.2 [tls-1.2], §9.2.2 [tls-1.2-suites]
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    # RFC 9113 §9.2.1 [tls-no-compression], [tls-no-renegotiation]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["h2"])
