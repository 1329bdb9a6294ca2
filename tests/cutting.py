"""Octets cut in every way a socket may cut them, so that tests can show it makes no difference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from h2lite.errors import PeerError
from h2lite.framer import Framer
from h2lite.frames import Frame

Outcome = TypeVar("Outcome")
Fault = tuple[int, int]  # error code; stream identifier, 0 for the connection


def cuts(octets: bytes) -> Iterator[list[bytes]]:
    """Whole, octet by octet, in two at every place, and in two with nothing in between."""
    yield [octets]
    yield [octets[at : at + 1] for at in range(len(octets))]
    for at in range(len(octets) + 1):
        yield [octets[:at], octets[at:]]
    middle = len(octets) // 2
    yield [octets[:middle], b"", octets[middle:]]


def same_for_all_cuts(octets: bytes, feed: Callable[[list[bytes]], Outcome]) -> Outcome:
    """What `feed` makes of the octets, having asserted that no cut changes it."""
    whole, *others = cuts(octets)
    outcome = feed(whole)
    for pieces in others:
        assert feed(pieces) == outcome, [piece.hex() for piece in pieces]
    return outcome


def drain(framer: Framer, pieces: list[bytes]) -> list[Frame | Fault]:
    """Feed the pieces; all frames and faults, up to the first connection error."""
    found: list[Frame | Fault] = []
    for piece in pieces:
        framer.feed(piece)
        while True:
            try:
                frame = framer.next_frame()
            except PeerError as error:
                found.append((error.error_code, error.stream_id))
                if error.stream_id == 0:
                    return found
                continue
            if frame is None:
                break
            found.append(frame)
    return found


def frames_of(
    octets: bytes, max_frame_size: int = 16384, from_client: bool = False
) -> list[Frame | Fault]:
    """What a new framer makes of the octets, the same for every cut."""
    return same_for_all_cuts(
        octets, lambda pieces: drain(Framer(max_frame_size, from_client), pieces)
    )
