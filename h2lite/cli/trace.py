"""One readable line for every frame that crosses a connection.

Reads the octets beside the connection, with framers and field decoders of its own, so that the
engine itself carries no tracing.
"""

from __future__ import annotations

from ..errors import PeerError
from ..fields import FieldDecoder
from ..framer import CLIENT_PREFACE, Framer
from ..frames import ContinuationFrame, HeadersFrame
from ..settings import MAX_MAX_FRAME_SIZE
from . import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from ..frames import Frame

# Values that are not for a terminal that somebody may copy from.
_SECRET = frozenset((b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"))


class FrameTrace:
    """A tap (see transport.py) of a client that prints frames.

    out   where the lines go; "<" what the server sent, ">" what we sent
    """

    def __init__(self, out: TextIO) -> None:
        self._received = _Direction(out, "<", from_client=False)
        self._sent = _Direction(out, ">", from_client=True)

    def __call__(self, received: bool, octets: bytes) -> None:
        (self._received if received else self._sent).feed(octets)


class _Direction:
    def __init__(self, out: TextIO, sign: str, from_client: bool) -> None:
        self._out = out
        self._sign = sign
        self._framer = Framer(MAX_MAX_FRAME_SIZE, from_client)
        self._decoder = FieldDecoder()
        self._block = b""
        self._preface = from_client
        self._over = False

    def feed(self, octets: bytes) -> None:
        if self._over:
            return
        self._framer.feed(octets)
        if self._preface:
            self._preface = False
            self._say(f"connection preface octets={len(CLIENT_PREFACE)}")
        while True:
            try:
                frame = self._framer.next_frame()
                if frame is None:
                    return
                self._show(frame)
            except PeerError as error:
                self._say(f"not understood: {error.message}")
                if not error.stream_id:
                    self._over = True
                    return

    def _show(self, frame: Frame) -> None:
        self._say(str(frame))
        if not isinstance(frame, (HeadersFrame, ContinuationFrame)):
            return
        self._block += frame.field_block
        if frame.end_headers:
            block, self._block = self._block, b""
            for name, value in self._decoder.decode(block):
                shown = "(not shown)" if name in _SECRET else value.decode("latin-1")
                self._say(f"    {name.decode('latin-1')}: {shown}")

    def _say(self, text: str) -> None:
        print(self._sign, printable(text), file=self._out)
