"""What a message's content may come from: octets, a file, or an iterator of octets.

Asked for one piece at a time, so that no more of it is in memory than a stream has queued.
"""

from __future__ import annotations

from collections import deque

from .errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, MutableSequence
    from typing import BinaryIO, TypeAlias

    Body: TypeAlias = bytes | BinaryIO | Iterable[bytes]

# Kept queued for one stream: enough for a turn's send, little enough for a thousand streams.
BODY_QUEUED_OCTETS = 65536
BODY_RETRY_S = 0.05  # until a body that had nothing yet is asked again
# A peer may send an octet a frame: pieces up to so many octets are gathered, else each would cost
# fifty times what it holds.
GATHERED_OCTETS = 1024


def gather(pieces: MutableSequence[bytes | bytearray], piece: bytes | memoryview) -> None:
    """Put one more piece behind the others; it is copied where it is no bytes."""
    if pieces and len(piece) <= GATHERED_OCTETS and len(pieces[-1]) <= GATHERED_OCTETS:
        last = pieces[-1]
        if isinstance(last, bytes):
            last = pieces[-1] = bytearray(last)
        last += piece
    else:
        pieces.append(bytes(piece))


class Pieces(deque["bytes | bytearray"]):
    """Content that has come and that nobody has taken yet, in order."""

    __slots__ = ()

    def add(self, piece: bytes | memoryview) -> None:
        """More has come."""
        gather(self, piece)

    def take(self) -> bytes:
        """The next of it; IndexError when there is none."""
        return bytes(self.popleft())

    def join(self) -> bytes:
        """All of it, which stays."""
        return b"".join(self)


def next_piece(body: object) -> bytes | None:
    """The next octets of a file or an iterator; None: it has ended.

    Raises UsageError for what are no octets, and whatever reading raises.
    """
    if hasattr(body, "read"):
        # read1 gives what a pipe has by now; read would wait until it has all it was asked for.
        piece = getattr(body, "read1", body.read)(BODY_QUEUED_OCTETS)
        if piece is None:  # a file that does not block, and has nothing yet
            return b""
        if len(piece) == 0:
            return None
    else:
        piece = next(body, None)  # type: ignore[call-overload]
    if piece is None or isinstance(piece, bytes):
        return piece
    if isinstance(piece, (bytearray, memoryview)):
        return bytes(piece)  # it may change before it has left
    raise UsageError(f"a body gives {type(piece).__name__}, want octets")


def octets_left(body: object) -> int | None:
    """How many octets a file holds from here on; None where nobody knows."""
    seekable = getattr(body, "seekable", None)
    if seekable is None or not seekable():
        return None
    try:
        here: int = body.tell()  # type: ignore[attr-defined]
        end: int = body.seek(0, 2)  # type: ignore[attr-defined]
        body.seek(here)  # type: ignore[attr-defined]
    except OSError:  # some files of /proc say that they are seekable, and are not
        return None
    return end - here if end > here else 0
