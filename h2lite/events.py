"""What a Connection reports: values, complete when made and never changed after.

Octets of content are memoryviews of what was received: copy what outlives the turn.
Fields are lists of (name, value) pairs of bytes, in the order received.
"""

from __future__ import annotations

from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .frames import Octets

    Fields = list[tuple[bytes, bytes]]


class Event(Value):
    """Base of all events."""

    __slots__ = ()


class SettingsReceived(Event):
    """The peer's SETTINGS are applied, and the ack is queued.

    changed   the known settings whose value changed, {identifier: new value}
    """

    __slots__ = ("changed",)

    def __init__(self, changed: dict[int, int]) -> None:
        self.changed = changed


class SettingsAcked(Event):
    """The peer has applied our oldest unacknowledged SETTINGS."""

    __slots__ = ()


class RequestReceived(Event):
    """A client opened a stream (server role).  end_stream: no content follows."""

    __slots__ = ("stream_id", "fields", "end_stream")

    def __init__(self, stream_id: int, fields: Fields, end_stream: bool) -> None:
        self.stream_id = stream_id
        self.fields = fields
        self.end_stream = end_stream


class InformationalReceived(Event):
    """An interim 1xx response; the final one is still to come (client role)."""

    __slots__ = ("stream_id", "status", "fields")

    def __init__(self, stream_id: int, status: int, fields: Fields) -> None:
        self.stream_id = stream_id
        self.status = status
        self.fields = fields


class ResponseReceived(Event):
    """The final response's header section (client role).  end_stream: no content follows."""

    __slots__ = ("stream_id", "status", "fields", "end_stream")

    def __init__(self, stream_id: int, status: int, fields: Fields, end_stream: bool) -> None:
        self.stream_id = stream_id
        self.status = status
        self.fields = fields
        self.end_stream = end_stream


class DataReceived(Event):
    """Content.  Call `Connection.data_consumed(stream_id, len(data))` once it is used up."""

    __slots__ = ("stream_id", "data", "end_stream")

    def __init__(self, stream_id: int, data: Octets, end_stream: bool) -> None:
        self.stream_id = stream_id
        self.data = data
        self.end_stream = end_stream


class TrailersReceived(Event):
    """The trailer section; the stream's content is complete."""

    __slots__ = ("stream_id", "fields")

    def __init__(self, stream_id: int, fields: Fields) -> None:
        self.stream_id = stream_id
        self.fields = fields


class StreamReset(Event):
    """A stream ended before its time.

    error_code   of the RST_STREAM; REFUSED_STREAM for a stream that a GOAWAY left out
    by_peer      False: we reset it, because the peer broke a rule on it
    """

    __slots__ = ("stream_id", "error_code", "by_peer", "reason")

    def __init__(self, stream_id: int, error_code: int, by_peer: bool, reason: str = "") -> None:
        self.stream_id = stream_id
        self.error_code = error_code
        self.by_peer = by_peer
        self.reason = reason


class PingReceived(Event):
    """The peer sent a PING; its ack is queued ahead of everything else."""

    __slots__ = ("opaque_data",)

    def __init__(self, opaque_data: bytes) -> None:
        self.opaque_data = opaque_data


class PingAcked(Event):
    """The peer answered a PING.

    rtt_s      seconds from the data_to_send that let it out to the receive_data that got the ack
    queued_s   seconds it waited here before that
    """

    __slots__ = ("opaque_data", "rtt_s", "queued_s")

    def __init__(self, opaque_data: bytes, rtt_s: float, queued_s: float) -> None:
        self.opaque_data = opaque_data
        self.rtt_s = rtt_s
        self.queued_s = queued_s


class UnknownPingAcked(Event):
    """A PING ack that answers nothing we are waiting for; ignored, and worth counting."""

    __slots__ = ("opaque_data",)

    def __init__(self, opaque_data: bytes) -> None:
        self.opaque_data = opaque_data


class GoAwayReceived(Event):
    """The peer takes no new streams; those up to `last_stream_id` may still be answered."""

    __slots__ = ("last_stream_id", "error_code", "debug_data")

    def __init__(self, last_stream_id: int, error_code: int, debug_data: bytes) -> None:
        self.last_stream_id = last_stream_id
        self.error_code = error_code
        self.debug_data = debug_data


class WindowUpdated(Event):
    """The peer takes more: on one stream, or, stream_id 0, on the connection."""

    __slots__ = ("stream_id",)

    def __init__(self, stream_id: int) -> None:
        self.stream_id = stream_id


class ConnectionFailed(Event):
    """The peer broke a rule of the connection; a GOAWAY is queued and nothing more is accepted.

    error_code, reason   what the GOAWAY says
    """

    __slots__ = ("error_code", "reason")

    def __init__(self, error_code: int, reason: str) -> None:
        self.error_code = error_code
        self.reason = reason


class OctetsReceived(Event):
    """Octets came that complete nothing worth an event of its own; the peer lives."""

    __slots__ = ()


class ConnectionEnded(Event):
    """The transport ended.

    reason   "eof": the peer closed its side; else what the transport said
    cause    eof, reset, path_dead (the kernel gave up), tls, local or unknown
    """

    __slots__ = ("reason", "cause")

    def __init__(self, reason: str, cause: str) -> None:
        self.reason = reason
        self.cause = cause
