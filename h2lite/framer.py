"""Octets in, frames out: size, order and preface, judged as early as the octets allow.

Feed it what `recv` returned, in any cuts; take frames until there is none.  It keeps no
stream state and decodes no field block.  Grounds: RFC 9113 §3.4, §4.1, §4.2, §4.3.
"""

from __future__ import annotations

from .body import gather
from .errors import ErrorCode, PeerError
from .frames import (
    FLAG_ACK,
    FLAG_END_HEADERS,
    FRAME_HEADER,
    FRAME_HEADER_SIZE,
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    OversizedFrame,
    PriorityFrame,
    PushPromiseFrame,
    SettingsFrame,
    decode_frame,
)
from .settings import MIN_MAX_FRAME_SIZE
from .value import NOTHING

# RFC 9113 §3.4 [client-preface]
CLIENT_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_DATA = DataFrame.TYPE
_SETTINGS = SettingsFrame.TYPE
_CONTINUATION = ContinuationFrame.TYPE
_WITH_FIELD_BLOCK = frozenset((HeadersFrame.TYPE, PushPromiseFrame.TYPE, _CONTINUATION))
# Types of RFC 9113 whose size concerns one stream; so it is with all types it does not define.
_STREAM_WIDE = (DataFrame.TYPE, PriorityFrame.TYPE)
_unpack_header = FRAME_HEADER.unpack_from


class Framer:
    """One direction of one connection.

    max_frame_size   largest payload accepted, in octets; may be raised at any time
    from_client      True: the client's 24 octets must come first

    half             part of a frame is held, which is one of a field block
    """

    __slots__ = (
        "max_frame_size",
        "half",
        "_preface",
        "_skip",
        "_before_frames",
        "_block_stream_id",
        "_data",
        "_size",
        "_at",
        "_held",
        "_held_octets",
        "_needed",
    )

    def __init__(
        self, max_frame_size: int = MIN_MAX_FRAME_SIZE, from_client: bool = False
    ) -> None:
        self.max_frame_size = max_frame_size
        self.half = False
        self._preface = CLIENT_PREFACE if from_client else b""
        self._skip = 0  # octets of an oversized frame's payload still to be passed over
        self._before_frames = True  # something has to be seen to before the next frame
        self._block_stream_id = 0  # of the field block that has begun and not ended
        self._data = b""
        self._size = 0
        self._at = 0
        # An unfinished frame is held as the pieces it came in, and joined once it is whole:
        # joining at every recv would cost the square of its size.
        self._held: list[bytes | bytearray] = NOTHING
        self._held_octets = 0
        self._needed = 0

    @property
    def held_octets(self) -> int:
        """Octets of an unfinished frame; at most max_frame_size + 9."""
        return self._held_octets

    def feed(self, data: bytes) -> None:
        """Take octets; `next_frame` must have returned None since the last feed."""
        if self._held:
            gather(self._held, data)
            self._held_octets += len(data)
            if self._held_octets < self._needed:
                return
            data = b"".join(self._held)
            self._held = NOTHING
            self._held_octets = 0
            self.half = False
        self._data = data
        self._size = len(data)
        self._at = 0

    def next_frame(self) -> Frame | None:
        """The next whole frame; None: feed more.

        Raises PeerError.  After a stream error the faulty frame is gone and the next call goes
        on behind it; after a connection error nothing more may be asked.
        """
        if self._before_frames and not self._ready_for_frames():
            return None
        data, size = self._data, self._size
        start = self._at + FRAME_HEADER_SIZE
        if size < start:
            if size == self._at:  # nothing is left, as behind nine of ten
                self._data = b""
                self._size = self._at = 0
            else:
                self._hold(FRAME_HEADER_SIZE)
            return None
        high, low, type_, flags, stream_id = _unpack_header(data, self._at)
        length = high << 8 | low
        # RFC 9113 §4.1 [reserved-bit]
        stream_id &= 0x7FFFFFFF
        if type_ == _CONTINUATION or self._block_stream_id:
            self._check_order(type_, stream_id)
        # RFC 9113 §4.2 [frame-too-large]: judged before the payload is waited for.
        if length > self.max_frame_size:
            return self._skip_frame(type_, stream_id, length)
        end = start + length
        if size < end:
            self._hold(FRAME_HEADER_SIZE + length)
            self.half = type_ in _WITH_FIELD_BLOCK
            return None
        self._at = end
        # Content stays where recv put it; everything else is small and copied.
        payload = memoryview(data)[start:end] if type_ == _DATA else data[start:end]
        frame = decode_frame(type_, flags, stream_id, payload)
        # Looked up by number: an isinstance here cost a tenth of parsing a PING.
        if type_ in _WITH_FIELD_BLOCK:
            self._block_stream_id = 0 if flags & FLAG_END_HEADERS else stream_id
        return frame

    def _ready_for_frames(self) -> bool:
        """What stands before the next frame: the preface at first, then an oversized payload.

        True when a frame header comes next; what is needed for that may not be there yet.
        """
        if self._preface and not self._take_preface():
            return False
        if self._skip:
            skipped = min(self._skip, self._size - self._at)
            self._skip -= skipped
            self._at += skipped
            self._before_frames = self._skip > 0
        elif self._size - self._at >= FRAME_HEADER_SIZE:
            _, _, type_, flags, _ = _unpack_header(self._data, self._at)
            self._check_first(type_, flags)
            self._before_frames = False
        return True

    def _skip_frame(self, type_: int, stream_id: int, length: int) -> OversizedFrame:
        """A frame over the limit: pass over its payload, where its size concerns one stream."""
        # RFC 9113 §4.2 [frame-too-large-connection]
        if stream_id == 0 or (type_ <= _CONTINUATION and type_ not in _STREAM_WIDE):
            raise PeerError(
                ErrorCode.FRAME_SIZE_ERROR,
                f"frame of {length} octets, at most {self.max_frame_size} allowed",
            )
        self._at += FRAME_HEADER_SIZE
        self._skip = length
        self._before_frames = True
        return OversizedFrame(type_, stream_id, length)

    def _hold(self, needed: int) -> None:
        """Keep what is left until `needed` octets of it are there."""
        rest = self._data[self._at :]
        self._data = b""
        self._size = self._at = 0
        if rest:
            self._held = [rest]
            self._held_octets = len(rest)
            self._needed = needed

    def _take_preface(self) -> bool:
        """Match as much of the client's preface as there is; True once it is complete."""
        offered = self._data[self._at : self._at + len(self._preface)]
        # RFC 9113 §3.4 [preface-invalid]: at the first wrong octet, not after 24.
        if not self._preface.startswith(offered):
            raise PeerError(ErrorCode.PROTOCOL_ERROR, "no HTTP/2 connection preface")
        self._at += len(offered)
        self._preface = self._preface[len(offered) :]
        return not self._preface

    def _check_first(self, type_: int, flags: int) -> None:
        """Each side begins with SETTINGS, and not with an ack."""
        # RFC 9113 §3.4 [first-frame-settings]
        if type_ == _SETTINGS and not flags & FLAG_ACK:
            return
        data = self._data[self._at :]
        if data.startswith(b"HTTP/"):
            raise PeerError(ErrorCode.PROTOCOL_ERROR, "the peer speaks HTTP/1.1, not HTTP/2")
        raise PeerError(
            ErrorCode.PROTOCOL_ERROR, f"the peer begins with {data[:9]!r}, not with SETTINGS"
        )

    def _check_order(self, type_: int, stream_id: int) -> None:
        """A field block is contiguous: HEADERS or PUSH_PROMISE, then only its CONTINUATIONs."""
        # RFC 9113 §6.10 [continuation-alone]
        if not self._block_stream_id:
            raise PeerError(
                ErrorCode.PROTOCOL_ERROR, f"CONTINUATION on stream {stream_id} continues nothing"
            )
        # RFC 9113 §4.3 [field-block-contiguous]
        if type_ != _CONTINUATION or stream_id != self._block_stream_id:
            raise PeerError(
                ErrorCode.PROTOCOL_ERROR,
                f"frame type {type_} on stream {stream_id} inside the field block of "
                f"stream {self._block_stream_id}",
            )
