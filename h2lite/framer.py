"""Octets in, frames out: size, order and preface, judged as early as the octets allow.

Feed it what `recv` returned, in any cuts; take frames until there is none.  It keeps no
stream state and decodes no field block.  Grounds: RFC 9113 §3.4, §4.1, §4.2, §4.3.
"""

from __future__ import annotations

from .errors import ErrorCode, PeerError
from .frames import (
    FRAME_HEADER,
    FRAME_HEADER_SIZE,
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PushPromiseFrame,
    SettingsFrame,
    decode_frame,
)
from .settings import MIN_MAX_FRAME_SIZE

# RFC 9113 §3.4 [client-preface]
CLIENT_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_DATA = DataFrame.TYPE
_SETTINGS = SettingsFrame.TYPE
_CONTINUATION = ContinuationFrame.TYPE
_WITH_FIELD_BLOCK = (HeadersFrame, ContinuationFrame, PushPromiseFrame)
_unpack_header = FRAME_HEADER.unpack_from


class Framer:
    """One direction of one connection.

    max_frame_size   largest payload accepted, in octets; may be raised at any time
    from_client      True: the client's 24 octets must come first
    """

    __slots__ = (
        "max_frame_size",
        "_preface",
        "_first",
        "_block_stream_id",
        "_data",
        "_at",
        "_held",
        "_held_octets",
        "_needed",
    )

    def __init__(
        self, max_frame_size: int = MIN_MAX_FRAME_SIZE, from_client: bool = False
    ) -> None:
        self.max_frame_size = max_frame_size
        self._preface = CLIENT_PREFACE if from_client else b""
        self._first = True
        self._block_stream_id = 0  # of the field block that has begun and not ended
        self._data = b""
        self._at = 0
        # An unfinished frame is held as the pieces it came in, and joined once it is whole:
        # joining at every recv would cost the square of its size.
        self._held: list[bytes] = []
        self._held_octets = 0
        self._needed = 0

    @property
    def held_octets(self) -> int:
        """Octets of an unfinished frame; at most max_frame_size + 9."""
        return self._held_octets

    def feed(self, data: bytes) -> None:
        """Take octets; `next_frame` must have returned None since the last feed."""
        if self._held:
            self._held.append(data)
            self._held_octets += len(data)
            if self._held_octets < self._needed:
                return
            data = b"".join(self._held)
            self._held.clear()
            self._held_octets = 0
        self._data = data
        self._at = 0

    def next_frame(self) -> Frame | None:
        """The next whole frame; None: feed more.

        Raises PeerError.  After a stream error the faulty frame is gone and the next call goes
        on behind it; after a connection error nothing more may be asked.
        """
        if self._preface and not self._take_preface():
            return None
        data = self._data
        start = self._at + FRAME_HEADER_SIZE
        if len(data) < start:
            self._hold(FRAME_HEADER_SIZE)
            return None
        high, low, type_, flags, stream_id = _unpack_header(data, self._at)
        length = high << 8 | low
        # RFC 9113 §4.1 [reserved-bit]
        stream_id &= 0x7FFFFFFF
        if self._first:
            self._check_first(data, type_, flags)
        # RFC 9113 §4.2 [frame-too-large]: judged before the payload is waited for.
        if length > self.max_frame_size:
            raise PeerError(
                ErrorCode.FRAME_SIZE_ERROR,
                f"frame of {length} octets, at most {self.max_frame_size} allowed",
            )
        if type_ == _CONTINUATION or self._block_stream_id:
            self._check_order(type_, stream_id)
        end = start + length
        if len(data) < end:
            self._hold(FRAME_HEADER_SIZE + length)
            return None
        self._at = end
        self._first = False
        # Content stays where recv put it; everything else is small and copied.
        payload = memoryview(data)[start:end] if type_ == _DATA else data[start:end]
        frame = decode_frame(type_, flags, stream_id, payload)
        if isinstance(frame, _WITH_FIELD_BLOCK):
            self._block_stream_id = 0 if frame.end_headers else stream_id
        return frame

    def _hold(self, needed: int) -> None:
        """Keep what is left until `needed` octets of it are there."""
        rest = self._data[self._at :]
        self._data = b""
        self._at = 0
        if rest:
            self._held.append(rest)
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

    def _check_first(self, data: bytes, type_: int, flags: int) -> None:
        """Each side begins with SETTINGS, and not with an ack."""
        # RFC 9113 §3.4 [first-frame-settings]
        if type_ == _SETTINGS and not flags & 0x1:
            return
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
