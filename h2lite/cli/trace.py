"""One readable line for every frame that crosses a connection; of HTTP/1.1, the heads' lines.

Reads the octets beside the connection, with framers and field decoders of its own, so that the
engine itself carries no tracing.
"""

from __future__ import annotations

import re

from ..errors import PeerError
from ..fields import FieldDecoder
from ..framer import CLIENT_PREFACE, Framer
from ..frames import ContinuationFrame, HeadersFrame
from ..settings import MAX_MAX_FRAME_SIZE
from . import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..frames import Frame

HEAD_OCTETS_MAX = 65536  # kept of a head that does not end
_HEAD = re.compile(rb"HTTP/1\.[01] \d{3}|[A-Z]+ \S+ HTTP/1\.1\r\n")

# Values that are not for a terminal that somebody may copy from.
_SECRET = frozenset((b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"))


class FrameTrace:
    """A tap (see transport.py) of a client that prints frames.

    out   called with each line; "<" what the server sent, ">" what we sent
    """

    def __init__(self, out: Callable[[str], object]) -> None:
        self._received: _Direction | _Heads = _Direction(out, "<", from_client=False)
        self._sent: _Direction | _Heads = _Direction(out, ">", from_client=True)
        self._out = out
        self._began = False

    def __call__(self, received: bool, octets: bytes) -> None:
        # A client speaks first, but in HTTP/2, where a server may.
        if not self._began and octets and not received and not _is_preface(octets):
            self._received, self._sent = _Heads(self._out, "<"), _Heads(self._out, ">")
        self._began = self._began or bool(octets)
        (self._received if received else self._sent).feed(octets)


def _is_preface(octets: bytes) -> bool:
    return octets.startswith(CLIENT_PREFACE[: len(octets)])


class _Heads:
    """One way of HTTP/1.1: heads line by line, content by its octets."""

    def __init__(self, out: Callable[[str], object], sign: str) -> None:
        self._out = out
        self._sign = sign
        self._head = b""
        self._in_content = False

    def feed(self, octets: bytes) -> None:
        # Each request's head begins a send of its own, and each response's a read.
        if self._in_content and _HEAD.match(octets):
            self._in_content = False
        if self._in_content:
            self._content(octets)
            return
        head, end, rest = (self._head + octets).partition(b"\r\n\r\n")
        if not end:
            self._head = head[:HEAD_OCTETS_MAX]
            return
        self._head = b""
        self._in_content = True
        for line in head.decode("latin-1").split("\r\n"):
            name, colon, _ = line.partition(":")
            hidden = colon and name.lower().encode("latin-1") in _SECRET
            self._say(f"{name}: (not shown)" if hidden else line)
        self._content(rest)

    def _content(self, octets: bytes) -> None:
        if octets:
            self._say(f"({len(octets)} octets of content)")

    def _say(self, text: str) -> None:
        self._out(f"{self._sign} {printable(text)}")


class _Direction:
    def __init__(self, out: Callable[[str], object], sign: str, from_client: bool) -> None:
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
            for name, value in self._decoder.decode(block).fields:
                shown = "(not shown)" if name in _SECRET else value.decode("latin-1")
                self._say(f"    {name.decode('latin-1')}: {shown}")

    def _say(self, text: str) -> None:
        self._out(f"{self._sign} {printable(text)}")
