"""The ten frame types of HTTP/2: their pictures, fields, octets and one-line texts.

One class a type, with `encode` and `decode`; a frame knows nothing of streams' states, of
HPACK, or of how large a frame the peer accepts: framer.py and connection.py judge that.
Grounds: RFC 9113 §4.1 (frame format) and §6 (frame definitions).

Every frame begins with the same 9 octets:

    +-----------------------------------------------+
    |                 Length (24)                   |
    +---------------+---------------+---------------+
    |   Type (8)    |   Flags (8)   |
    +-+-------------+---------------+-------------------------------+
    |R|                 Stream Identifier (31)                      |
    +=+=============================================================+
    |                   Frame Payload (0...)                      ...
    +---------------------------------------------------------------+
"""

from __future__ import annotations

from struct import Struct, unpack_from

from .errors import ErrorCode, PeerError, UsageError, check_error_code, error_name
from .settings import setting_name
from .value import Value

FRAME_HEADER_SIZE = 9
MAX_STREAM_ID = 2**31 - 1

FLAG_ACK = 0x1
FLAG_END_STREAM = 0x1
FLAG_END_HEADERS = 0x4
FLAG_PADDED = 0x8
FLAG_PRIORITY = 0x20

# The 24-bit length is read as 16 + 8 bits: one unpack for the whole header.
FRAME_HEADER = Struct(">HBBBI")
_U32 = Struct(">I")
_TWO_U32 = Struct(">II")
_SETTING = Struct(">HI")
_PRIORITY = Struct(">IB")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Octets: TypeAlias = bytes | memoryview


def encode_frame(type_: int, flags: int, stream_id: int, payload: Octets) -> bytes:
    """One frame's octets.

    payload   at most 2^24-1 octets
    Raises UsageError for a payload or a stream identifier that the header cannot hold.
    Source: RFC 9113 §4.1.
    """
    return encode_header(type_, flags, stream_id, len(payload)) + payload


def encode_header(type_: int, flags: int, stream_id: int, length: int) -> bytes:
    """The 9 octets before a payload of `length` octets; errors as `encode_frame`."""
    if length >> 24:
        raise UsageError(f"a frame payload of {length} octets, at most 16777215 fit")
    # RFC 9113 §4.1 [reserved-bit]
    if stream_id >> 31:
        raise UsageError(f"stream identifier {stream_id}, want 0 to {MAX_STREAM_ID}")
    return FRAME_HEADER.pack(length >> 8, length & 0xFF, type_, flags, stream_id)


def _on_stream(name: str, stream_id: int) -> None:
    """The frames that belong to one stream refuse stream 0."""
    # RFC 9113 §6.1 [data-stream-zero], §6.2 [headers-stream-zero],
    # §6.3 [priority-stream-zero], §6.4 [rst-stream-zero],
    # §6.6 [push-promise-stream-zero], §6.10 [continuation-stream-zero]
    if stream_id == 0:
        raise PeerError(ErrorCode.PROTOCOL_ERROR, f"{name} on stream 0")


def _on_connection(name: str, stream_id: int) -> None:
    """The frames that belong to the connection refuse every other stream."""
    # RFC 9113 §6.5 [settings-stream-nonzero], §6.7 [ping-stream-nonzero],
    # §6.8 [goaway-stream-nonzero]
    if stream_id != 0:
        raise PeerError(ErrorCode.PROTOCOL_ERROR, f"{name} on stream {stream_id}, want 0")


def _pad(payload: Octets, pad_length: int) -> tuple[int, bytes]:
    """The PADDED flag and the padded payload."""
    if not 0 <= pad_length <= 255:
        raise UsageError(f"pad_length {pad_length}, want 0 to 255")
    # RFC 9113 §6.1 [padding-zeros]
    return FLAG_PADDED, b"".join((bytes((pad_length,)), payload, bytes(pad_length)))


def _unpad(name: str, payload: Octets) -> tuple[Octets, int]:
    """A PADDED payload without its first octet and its padding, and the Pad Length."""
    # RFC 9113 §4.2 [frame-too-small]
    if not payload:
        raise PeerError(ErrorCode.FRAME_SIZE_ERROR, f"padded {name} without Pad Length")
    pad_length = payload[0]
    # RFC 9113 §6.1 [padding-too-long], §6.2, §6.6: the same rule for all three
    if pad_length >= len(payload):
        raise PeerError(
            ErrorCode.PROTOCOL_ERROR,
            f"{name} padding of {pad_length} octets in a payload of {len(payload)}",
        )
    # RFC 9113 §6.1 [padding-nonzero]: what the padding holds is not looked at.
    return payload[1 : len(payload) - pad_length], pad_length


class Frame(Value):
    """What all frames share.  A frame on the connection as a whole has `stream_id` 0."""

    __slots__ = ()
    TYPE = -1
    NAME = "FRAME"

    def encode(self) -> bytes:
        """The whole frame's octets, header included."""
        raise UsageError(f"{type(self).__name__} has no octets of its own")

    def details(self) -> str:
        """What the frame carries, for its one-line text."""
        return ""

    def __str__(self) -> str:
        stream_id = getattr(self, "stream_id", 0)
        return f"{self.NAME} stream={stream_id} {self.details()}".rstrip()


class DataFrame(Frame):
    """DATA: octets of a message's content.  (RFC 9113 §6.1)

        +---------------+
        |Pad Length? (8)|
        +---------------+-----------------------------------------------+
        |                            Data (*)                         ...
        +---------------------------------------------------------------+
        |                           Padding (*)                       ...
        +---------------------------------------------------------------+

    stream_id    never 0
    data         the content; a memoryview of the octets received when decoded by a Framer
    end_stream   True: the sender sends nothing more on this stream
    pad_length   octets of padding, 0 to 255; None: not padded (0 costs one octet more)
    """

    __slots__ = ("stream_id", "data", "end_stream", "pad_length")
    TYPE = 0x0
    NAME = "DATA"

    def __init__(
        self, stream_id: int, data: Octets, end_stream: bool = False, pad_length: int | None = None
    ) -> None:
        self.stream_id = stream_id
        self.data = data
        self.end_stream = end_stream
        self.pad_length = pad_length

    @property
    def flow_controlled_length(self) -> int:
        """Octets that count against both windows: padding and Pad Length included."""
        # RFC 9113 §6.1 [data-padding-counts]
        if self.pad_length is None:
            return len(self.data)
        return len(self.data) + 1 + self.pad_length

    def encode(self) -> bytes:
        flags, payload = 0, self.data
        if self.pad_length is not None:
            flags, payload = _pad(payload, self.pad_length)
        if self.end_stream:
            flags |= FLAG_END_STREAM
        return encode_frame(self.TYPE, flags, self.stream_id, payload)

    @classmethod
    def decode(cls, flags: int, stream_id: int, payload: Octets) -> DataFrame:
        _on_stream("DATA", stream_id)
        pad_length = None
        if flags & FLAG_PADDED:
            payload, pad_length = _unpad("DATA", payload)
        return cls(stream_id, payload, bool(flags & FLAG_END_STREAM), pad_length)

    def details(self) -> str:
        padding = "" if self.pad_length is None else f" pad_length={self.pad_length}"
        end = " END_STREAM" if self.end_stream else ""
        return f"octets={len(self.data)}{padding}{end}"


class Priority(Value):
    """The deprecated priority signal of HEADERS and PRIORITY.  (RFC 9113 §5.3.2)

    exclusive, stream_dependency   as sent; h2lite reads them and does nothing with them
    weight                         the octet on the wire, 0 to 255 (it stood for 1 to 256)
    """

    __slots__ = ("exclusive", "stream_dependency", "weight")

    def __init__(self, exclusive: bool, stream_dependency: int, weight: int) -> None:
        self.exclusive = exclusive
        self.stream_dependency = stream_dependency
        self.weight = weight

    def encode(self) -> bytes:
        """The 5 octets.  Raises UsageError for a value they cannot hold."""
        if self.stream_dependency >> 31 or self.weight >> 8:
            raise UsageError(f"{self!r} does not fit 31 and 8 bits")
        return _PRIORITY.pack(self.stream_dependency | self.exclusive << 31, self.weight)

    @classmethod
    def decode(cls, payload: Octets) -> Priority:
        """From the first 5 octets of `payload`, which the caller has counted."""
        dependency, weight = _PRIORITY.unpack_from(payload)
        return cls(bool(dependency >> 31), dependency & MAX_STREAM_ID, weight)

    def __str__(self) -> str:
        exclusive = " exclusive" if self.exclusive else ""
        return f"depends_on={self.stream_dependency}{exclusive} weight={self.weight}"


class HeadersFrame(Frame):
    """HEADERS: opens a stream, or carries a response's header or trailer section.  (§6.2)

        +---------------+
        |Pad Length? (8)|
        +-+-------------+-----------------------------------------------+
        |E|                 Stream Dependency? (31)                     |
        +-+-------------+-----------------------------------------------+
        |  Weight? (8)  |
        +---------------+-----------------------------------------------+
        |                  Field Block Fragment (*)                   ...
        +---------------------------------------------------------------+
        |                           Padding (*)                       ...
        +---------------------------------------------------------------+

    field_block   this frame's fragment of the field block
    end_stream    True: no DATA follows
    end_headers   False: CONTINUATION frames follow, and nothing else until they end
    priority      the deprecated signal, None when absent
    pad_length    as in DATA
    """

    __slots__ = ("stream_id", "field_block", "end_stream", "end_headers", "priority", "pad_length")
    TYPE = 0x1
    NAME = "HEADERS"

    def __init__(
        self,
        stream_id: int,
        field_block: Octets,
        end_stream: bool = False,
        end_headers: bool = True,
        priority: Priority | None = None,
        pad_length: int | None = None,
    ) -> None:
        self.stream_id = stream_id
        self.field_block = field_block
        self.end_stream = end_stream
        self.end_headers = end_headers
        self.priority = priority
        self.pad_length = pad_length

    def encode(self) -> bytes:
        flags, payload = 0, self.field_block
        if self.priority is not None:
            payload = self.priority.encode() + payload
            flags = FLAG_PRIORITY
        if self.pad_length is not None:
            padded, payload = _pad(payload, self.pad_length)
            flags |= padded
        if self.end_stream:
            flags |= FLAG_END_STREAM
        if self.end_headers:
            flags |= FLAG_END_HEADERS
        return encode_frame(self.TYPE, flags, self.stream_id, payload)

    @classmethod
    def decode(cls, flags: int, stream_id: int, payload: Octets) -> HeadersFrame:
        _on_stream("HEADERS", stream_id)
        priority = pad_length = None
        if flags & (FLAG_PADDED | FLAG_PRIORITY):
            if flags & FLAG_PADDED:
                payload, pad_length = _unpad("HEADERS", payload)
            if flags & FLAG_PRIORITY:
                # RFC 9113 §4.2 [frame-too-small]
                if len(payload) < 5:
                    raise PeerError(
                        ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for its priority fields"
                    )
                priority, payload = Priority.decode(payload), payload[5:]
        return cls(
            stream_id,
            payload,
            bool(flags & FLAG_END_STREAM),
            bool(flags & FLAG_END_HEADERS),
            priority,
            pad_length,
        )

    def details(self) -> str:
        flags = ""
        if self.end_stream:
            flags += " END_STREAM"
        if self.end_headers:
            flags += " END_HEADERS"
        priority = "" if self.priority is None else f" {self.priority}"
        padding = "" if self.pad_length is None else f" pad_length={self.pad_length}"
        return f"octets={len(self.field_block)}{flags}{priority}{padding}"


class PriorityFrame(Frame):
    """PRIORITY: deprecated; parsed so that a peer may still send it.  (RFC 9113 §6.3)

        +-+-------------------------------------------------------------+
        |E|                  Stream Dependency (31)                     |
        +-+-------------+-----------------------------------------------+
        |   Weight (8)  |
        +-+-------------+

    stream_id   the stream it speaks of, in any state
    priority    the signal
    """

    __slots__ = ("stream_id", "priority")
    TYPE = 0x2
    NAME = "PRIORITY"

    def __init__(self, stream_id: int, priority: Priority) -> None:
        self.stream_id = stream_id
        self.priority = priority

    def encode(self) -> bytes:
        return encode_frame(self.TYPE, 0, self.stream_id, self.priority.encode())

    @classmethod
    def decode(cls, flags: int, stream_id: int, payload: Octets) -> PriorityFrame:
        _on_stream("PRIORITY", stream_id)
        # RFC 9113 §6.3 [priority-length]
        if len(payload) != 5:
            raise PeerError(
                ErrorCode.FRAME_SIZE_ERROR,
                f"PRIORITY of {len(payload)} octets, want 5",
                stream_id,
            )
        return cls(stream_id, Priority.decode(payload))

    def details(self) -> str:
        return str(self.priority)


class RstStreamFrame(Frame):
    """RST_STREAM: ends one stream at once.  (RFC 9113 §6.4)

        +---------------------------------------------------------------+
        |                        Error Code (32)                        |
        +---------------------------------------------------------------+
    """

    __slots__ = ("stream_id", "error_code")
    TYPE = 0x3
    NAME = "RST_STREAM"

    def __init__(self, stream_id: int, error_code: int) -> None:
        self.stream_id = stream_id
        self.error_code = error_code

    def encode(self) -> bytes:
        check_error_code(self.error_code)
        return encode_frame(self.TYPE, 0, self.stream_id, _U32.pack(self.error_code))

    @classmethod
    def decode(cls, flags: int, stream_id: int, payload: Octets) -> RstStreamFrame:
        _on_stream("RST_STREAM", stream_id)
        # RFC 9113 §6.4 [rst-stream-length]
        if len(payload) != 4:
            raise PeerError(
                ErrorCode.FRAME_SIZE_ERROR, f"RST_STREAM of {len(payload)} octets, want 4"
            )
        return cls(stream_id, _U32.unpack(payload)[0])

    def details(self) -> str:
        return error_name(self.error_code)


class SettingsFrame(Frame):
    """SETTINGS: what the sender asks of its peer, or the acknowledgement.  (RFC 9113 §6.5)

        +-------------------------------+
        |       Identifier (16)         |
        +-------------------------------+-------------------------------+
        |                        Value (32)                             |
        +---------------------------------------------------------------+
        ... any number of these

    settings   (identifier, value) pairs in the order sent; an identifier may come twice
    ack        True: "your SETTINGS are applied", and no settings of its own
    """

    __slots__ = ("settings", "ack")
    TYPE = 0x4
    NAME = "SETTINGS"
    stream_id = 0

    def __init__(self, settings: tuple[tuple[int, int], ...] = (), ack: bool = False) -> None:
        self.settings = settings
        self.ack = ack

    def encode(self) -> bytes:
        if self.ack and self.settings:
            raise UsageError("a SETTINGS ack carries no settings")
        payload = b"".join([_SETTING.pack(*setting) for setting in self.settings])
        return encode_frame(self.TYPE, FLAG_ACK if self.ack else 0, 0, payload)

    @classmethod
    def decode(cls, flags: int, stream_id: int, payload: Octets) -> SettingsFrame:
        _on_connection("SETTINGS", stream_id)
        if flags & FLAG_ACK:
            # RFC 9113 §6.5 [settings-ack-empty]
            if payload:
                raise PeerError(
                    ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS ack of {len(payload)} octets, want 0"
                )
            return cls((), True)
        # RFC 9113 §6.5 [settings-length]
        if len(payload) % 6:
            raise PeerError(
                ErrorCode.FRAME_SIZE_ERROR,
                f"SETTINGS of {len(payload)} octets, want a multiple of 6",
            )
        return cls(tuple(_SETTING.iter_unpack(payload)))

    def details(self) -> str:
        if self.ack:
            return "ACK"
        return " ".join(f"{setting_name(key)}={value}" for key, value in self.settings)


class PushPromiseFrame(Frame):
    """PUSH_PROMISE: a server announces a stream; h2lite switches it off.  (RFC 9113 §6.6)

        +---------------+
        |Pad Length? (8)|
        +-+-------------+-----------------------------------------------+
        |R|                  Promised Stream ID (31)                    |
        +-+-------------------------------------------------------------+
        |                  Field Block Fragment (*)                   ...
        +---------------------------------------------------------------+
        |                           Padding (*)                       ...
        +---------------------------------------------------------------+
    """

    __slots__ = ("stream_id", "promised_stream_id", "field_block", "end_headers", "pad_length")
    TYPE = 0x5
    NAME = "PUSH_PROMISE"

    def __init__(
        self,
        stream_id: int,
        promised_stream_id: int,
        field_block: Octets,
        end_headers: bool = True,
        pad_length: int | None = None,
    ) -> None:
        self.stream_id = stream_id
        self.promised_stream_id = promised_stream_id
        self.field_block = field_block
        self.end_headers = end_headers
        self.pad_length = pad_length

    def encode(self) -> bytes:
        if self.promised_stream_id >> 31:
            raise UsageError(f"promised stream {self.promised_stream_id} is over {MAX_STREAM_ID}")
        payload: bytes = _U32.pack(self.promised_stream_id) + self.field_block
        flags = 0
        if self.pad_length is not None:
            flags, payload = _pad(payload, self.pad_length)
        if self.end_headers:
            flags |= FLAG_END_HEADERS
        return encode_frame(self.TYPE, flags, self.stream_id, payload)

    @classmethod
    def decode(cls, flags: int, stream_id: int, payload: Octets) -> PushPromiseFrame:
        _on_stream("PUSH_PROMISE", stream_id)
        pad_length = None
        if flags & FLAG_PADDED:
            payload, pad_length = _unpad("PUSH_PROMISE", payload)
        # RFC 9113 §4.2 [frame-too-small]
        if len(payload) < 4:
            raise PeerError(
                ErrorCode.FRAME_SIZE_ERROR, "PUSH_PROMISE too short for its promised stream"
            )
        promised = unpack_from(">I", payload)[0] & MAX_STREAM_ID
        return cls(stream_id, promised, payload[4:], bool(flags & FLAG_END_HEADERS), pad_length)

    def details(self) -> str:
        end = " END_HEADERS" if self.end_headers else ""
        padding = "" if self.pad_length is None else f" pad_length={self.pad_length}"
        return f"promised={self.promised_stream_id} octets={len(self.field_block)}{end}{padding}"


_PING_HEADER = encode_header(0x6, 0, 0, 8)
_PING_ACK_HEADER = encode_header(0x6, FLAG_ACK, 0, 8)


def encode_ping(opaque_data: Octets, ack: bool = False) -> bytes:
    """One PING's octets.  Raises UsageError unless there are 8 of opaque data."""
    if len(opaque_data) != 8:
        raise UsageError(f"opaque_data of {len(opaque_data)} octets, want 8")
    return (_PING_ACK_HEADER if ack else _PING_HEADER) + opaque_data


class PingFrame(Frame):
    """PING: is the peer alive, and how far away?  (RFC 9113 §6.7)

        +---------------------------------------------------------------+
        |                      Opaque Data (64)                         |
        +---------------------------------------------------------------+

    opaque_data   exactly 8 octets; the peer sends them back unchanged
    ack           True in the answer, False in the question
    """

    __slots__ = ("opaque_data", "ack")
    TYPE = 0x6
    NAME = "PING"
    stream_id = 0

    def __init__(self, opaque_data: Octets, ack: bool = False) -> None:
        self.opaque_data = opaque_data
        self.ack = ack

    def encode(self) -> bytes:
        return encode_ping(self.opaque_data, self.ack)

    @classmethod
    def decode(cls, flags: int, stream_id: int, payload: Octets) -> PingFrame:
        if stream_id:
            _on_connection("PING", stream_id)
        # RFC 9113 §6.7 [ping-length]
        if len(payload) != 8:
            raise PeerError(ErrorCode.FRAME_SIZE_ERROR, f"PING of {len(payload)} octets, want 8")
        return cls(payload, bool(flags & FLAG_ACK))

    def details(self) -> str:
        return f"opaque_data={bytes(self.opaque_data).hex()}{' ACK' if self.ack else ''}"


class GoAwayFrame(Frame):
    """GOAWAY: no new streams; up to `last_stream_id` may have been processed.  (RFC 9113 §6.8)

        +-+-------------------------------------------------------------+
        |R|                  Last-Stream-ID (31)                        |
        +-+-------------------------------------------------------------+
        |                      Error Code (32)                          |
        +---------------------------------------------------------------+
        |                  Additional Debug Data (*)                  ...
        +---------------------------------------------------------------+
    """

    __slots__ = ("last_stream_id", "error_code", "debug_data")
    TYPE = 0x7
    NAME = "GOAWAY"
    stream_id = 0

    def __init__(self, last_stream_id: int, error_code: int, debug_data: Octets = b"") -> None:
        self.last_stream_id = last_stream_id
        self.error_code = error_code
        self.debug_data = debug_data

    def encode(self) -> bytes:
        if self.last_stream_id >> 31:
            raise UsageError(f"last_stream_id {self.last_stream_id} is over {MAX_STREAM_ID}")
        check_error_code(self.error_code)
        payload = _TWO_U32.pack(self.last_stream_id, self.error_code) + self.debug_data
        return encode_frame(self.TYPE, 0, 0, payload)

    @classmethod
    def decode(cls, flags: int, stream_id: int, payload: Octets) -> GoAwayFrame:
        _on_connection("GOAWAY", stream_id)
        # RFC 9113 §4.2 [frame-too-small]
        if len(payload) < 8:
            raise PeerError(
                ErrorCode.FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} octets, want 8 or more"
            )
        last_stream_id, error_code = _TWO_U32.unpack_from(payload)
        return cls(last_stream_id & MAX_STREAM_ID, error_code, payload[8:])

    def details(self) -> str:
        debug = f" debug_data={bytes(self.debug_data)!r}" if self.debug_data else ""
        return f"last_stream_id={self.last_stream_id} {error_name(self.error_code)}{debug}"


class WindowUpdateFrame(Frame):
    """WINDOW_UPDATE: the sender takes that many octets more.  (RFC 9113 §6.9)

        +-+-------------------------------------------------------------+
        |R|              Window Size Increment (31)                     |
        +-+-------------------------------------------------------------+

    stream_id                0: the connection's window, else that stream's
    window_size_increment    octets, 1 to 2^31-1
    """

    __slots__ = ("stream_id", "window_size_increment")
    TYPE = 0x8
    NAME = "WINDOW_UPDATE"

    def __init__(self, stream_id: int, window_size_increment: int) -> None:
        self.stream_id = stream_id
        self.window_size_increment = window_size_increment

    def encode(self) -> bytes:
        if not 0 < self.window_size_increment <= 2**31 - 1:
            raise UsageError(f"increment {self.window_size_increment}, want 1 to 2147483647")
        return encode_frame(self.TYPE, 0, self.stream_id, _U32.pack(self.window_size_increment))

    @classmethod
    def decode(cls, flags: int, stream_id: int, payload: Octets) -> WindowUpdateFrame:
        # RFC 9113 §6.9 [window-update-length]
        if len(payload) != 4:
            raise PeerError(
                ErrorCode.FRAME_SIZE_ERROR, f"WINDOW_UPDATE of {len(payload)} octets, want 4"
            )
        increment = _U32.unpack(payload)[0] & 0x7FFFFFFF
        # RFC 9113 §6.9 [window-update-zero]: on stream 0 the reach is the connection.
        if increment == 0:
            raise PeerError(
                ErrorCode.PROTOCOL_ERROR, f"WINDOW_UPDATE of 0 on stream {stream_id}", stream_id
            )
        return cls(stream_id, increment)

    def details(self) -> str:
        return f"increment={self.window_size_increment}"


class ContinuationFrame(Frame):
    """CONTINUATION: the next fragment of a field block.  (RFC 9113 §6.10)

        +---------------------------------------------------------------+
        |                  Field Block Fragment (*)                   ...
        +---------------------------------------------------------------+
    """

    __slots__ = ("stream_id", "field_block", "end_headers")
    TYPE = 0x9
    NAME = "CONTINUATION"

    def __init__(self, stream_id: int, field_block: Octets, end_headers: bool = True) -> None:
        self.stream_id = stream_id
        self.field_block = field_block
        self.end_headers = end_headers

    def encode(self) -> bytes:
        flags = FLAG_END_HEADERS if self.end_headers else 0
        return encode_frame(self.TYPE, flags, self.stream_id, self.field_block)

    @classmethod
    def decode(cls, flags: int, stream_id: int, payload: Octets) -> ContinuationFrame:
        _on_stream("CONTINUATION", stream_id)
        return cls(stream_id, payload, bool(flags & FLAG_END_HEADERS))

    def details(self) -> str:
        return f"octets={len(self.field_block)}{' END_HEADERS' if self.end_headers else ''}"


class UnknownFrame(Frame):
    """A frame of a type RFC 9113 does not define: shown in traces, otherwise discarded.  (§5.5)

    type, flags, payload   as received
    """

    __slots__ = ("type", "flags", "stream_id", "payload")
    NAME = "UNKNOWN"

    def __init__(self, type_: int, flags: int, stream_id: int, payload: Octets) -> None:
        self.type = type_
        self.flags = flags
        self.stream_id = stream_id
        self.payload = payload

    def encode(self) -> bytes:
        return encode_frame(self.type, self.flags, self.stream_id, self.payload)

    def details(self) -> str:
        return f"type=0x{self.type:02x} flags=0x{self.flags:02x} octets={len(self.payload)}"


class OversizedFrame(Frame):
    """A frame larger than allowed, and skipped; nothing of its payload was kept.  (RFC 9113 §4.2)

    type     its type octet, one whose size concerns its stream alone
    length   octets of its payload
    """

    __slots__ = ("type", "stream_id", "length")
    NAME = "OVERSIZED"

    def __init__(self, type_: int, stream_id: int, length: int) -> None:
        self.type = type_
        self.stream_id = stream_id
        self.length = length

    def details(self) -> str:
        return f"type=0x{self.type:02x} octets={self.length}"


FRAME_CLASSES = (
    DataFrame,
    HeadersFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    PushPromiseFrame,
    PingFrame,
    GoAwayFrame,
    WindowUpdateFrame,
    ContinuationFrame,
)


def frame_name(type_: int) -> str:
    """The RFC's name of a frame type; one it does not define is shown as hexadecimal."""
    return FRAME_CLASSES[type_].NAME if type_ < len(FRAME_CLASSES) else f"0x{type_:02x}"


# Indexed by the type octet; bound once, so that decoding a frame costs one call.
_DECODE = tuple(frame_class.decode for frame_class in FRAME_CLASSES)


def decode_frame(type_: int, flags: int, stream_id: int, payload: Octets) -> Frame:
    """The frame behind one header and its whole payload.

    Unused flags are ignored.  Raises PeerError as the type's section of §6 says.
    """
    # RFC 9113 §4.1 [unknown-type]: kept as it came; whoever reads it discards it.
    if type_ >= len(_DECODE):
        return UnknownFrame(type_, flags, stream_id, payload)
    # RFC 9113 §4.1 [unused-flags]: each decode looks at the flags its type defines.
    return _DECODE[type_](flags, stream_id, payload)
