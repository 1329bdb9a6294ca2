"""Error codes of RFC 9113 §7 and the one tree of exceptions.

Three kinds, never mixed: `UsageError` is the caller's mistake and changes nothing;
`PeerError` is the peer's and stays inside the core, which answers it with RST_STREAM or
GOAWAY; the others tell a user of the blocking client what became of a call.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Self


class ErrorCode:
    """Why a stream was reset or a connection ended (RFC 9113 §7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


ERROR_NAMES = {code: name for name, code in vars(ErrorCode).items() if name.isupper()}


def check_error_code(error_code: int) -> None:
    """Raise UsageError for what is no 32-bit error code."""
    if not 0 <= error_code < 2**32:
        raise UsageError(f"error code {error_code}, want 0 to 2^32-1")


def error_name(error_code: int) -> str:
    """The RFC's name of a code; a code the RFC does not know is shown as hexadecimal."""
    # RFC 9113 §7 [unknown-error-code]
    return ERROR_NAMES.get(error_code, f"0x{error_code:x}")


class H2liteError(Exception):
    """Base of everything h2lite raises on purpose.

    cause             of a connection's death, where that is what ended the call; else ""
    maybe_processed   the request had left, so the peer may have acted on it
    connection        on which it happened, where there was one: a `PooledConnection`
    """

    cause = ""
    maybe_processed = False
    connection: Any = None

    @property
    def safe_to_retry(self) -> bool:
        """The same request may be made again: the peer has not acted on it."""
        return not self.maybe_processed

    def again(self) -> Self:
        """The same as a new exception, so that tracebacks of several callers do not mix."""
        copy = type(self).__new__(type(self))
        copy.args = self.args
        vars(copy).update(vars(self))
        copy.__cause__ = self.__cause__
        return copy


class UsageError(H2liteError, ValueError):
    """The caller asked for something that cannot be done; nothing was changed or sent."""

    @property
    def safe_to_retry(self) -> bool:
        return False  # the same call would be refused again


class LocalProtocolError(UsageError):
    """The caller asked for something that RFC 9113 forbids us to send."""


class PeerError(H2liteError):
    """The peer broke a rule.  Inside the core only: it becomes RST_STREAM or GOAWAY.

    error_code   an `ErrorCode`
    stream_id    0 for a connection error (RFC 9113 §5.4.1), else the stream (§5.4.2)
    """

    def __init__(self, error_code: int, message: str, stream_id: int = 0) -> None:
        super().__init__(message)
        self.error_code = error_code
        self.message = message
        self.stream_id = stream_id


class ConnectError(H2liteError):
    """No connection came about: no such name, refused, unreachable."""


class TLSError(ConnectError):
    """TCP stood, but TLS failed or the peer does not speak HTTP/2."""


class ConnectTimeout(ConnectError, TimeoutError):
    """TCP, TLS and the peer's SETTINGS did not all come within the connect timeout."""


class ReadTimeout(H2liteError, TimeoutError):
    """The response did not come, did not end or stood still for longer than was allowed."""


class WriteTimeout(H2liteError, TimeoutError):
    """The peer took none of the request's content for longer than was allowed."""


class ResponseTooLarge(H2liteError):
    """A response that was to be read whole has more content than is kept; stream it instead."""


class RequestCancelled(H2liteError):
    """The caller gave the request up."""


class PoolTimeout(H2liteError, TimeoutError):
    """No connection had room for the request within its time, or too many wait already."""


class PingTimeout(H2liteError, TimeoutError):
    """A PING was not answered in time; the connection itself was left as it is."""


class ConnectionLost(H2liteError, ConnectionError):
    """The connection ended before the call did.

    error_code   the code of the peer's GOAWAY, None when it ended without one
    cause        path_dead, peer_hung, peer_not_reading, write_stall, eof, reset, goaway,
                 protocol_error, tls, local or unknown
    """

    def __init__(
        self, message: str, error_code: int | None = None, cause: str = "unknown"
    ) -> None:
        super().__init__(message)
        self.error_code = error_code
        self.cause = cause


class RemoteProtocolError(H2liteError):
    """The peer broke RFC 9113, so the connection was closed with a GOAWAY.

    error_code   the code we sent
    """

    def __init__(self, message: str, error_code: int) -> None:
        super().__init__(message)
        self.error_code = error_code


class StreamReset(H2liteError):
    """One stream was reset; its connection goes on.

    error_code   the code of the RST_STREAM, or of the GOAWAY that left the stream out
    """

    def __init__(self, message: str, error_code: int) -> None:
        super().__init__(message)
        self.error_code = error_code
