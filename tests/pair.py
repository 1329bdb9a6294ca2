"""Two cores joined in memory, and one core against octets written by hand.

No sockets and no clock: octets go from `data_to_send` to `receive_data` in any cuts, and time is
a number the test holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hpack import Encoder

from h2lite.connection import Connection
from h2lite.events import Event
from h2lite.framer import CLIENT_PREFACE
from h2lite.frames import FRAME_HEADER, FRAME_HEADER_SIZE, Frame, SettingsFrame, decode_frame

if TYPE_CHECKING:
    from h2lite.events import Fields

GET: Fields = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"example.org"),
    (b":path", b"/"),
]
POST: Fields = [(b":method", b"POST"), *GET[1:]]
OK: Fields = [(b":status", b"200"), (b"server", b"a")]
TRAILERS: Fields = [(b"checksum", b"0")]

CUT_OCTETS_MAX = 10_000  # given in pieces as short as was asked for
LONG_PIECE_OCTETS = 997



def pieces(octets: bytes, cut: int | None) -> Iterator[bytes]:
    """The octets in pieces of `cut`; None: whole.

    Behind the first CUT_OCTETS_MAX they are as long as a prime number, which falls everywhere in
    a frame: megabytes octet by octet took half a minute, and longer where others compute.
    """
    step = cut or len(octets) or 1
    fine = range(0, min(len(octets), CUT_OCTETS_MAX), step)
    yield from (octets[at : at + step] for at in fine)
    step = max(step, LONG_PIECE_OCTETS)
    for at in range(len(fine) * fine.step, len(octets), step):
        yield octets[at : at + step]


def drain(core: Connection, now: float = 0.0) -> bytes:
    """All that a core wants to send, until it is quiet."""
    parts = []
    while octets := core.data_to_send(now):
        parts.append(octets)
    return b"".join(parts)


def exchange(
    client: Connection, server: Connection, now: float = 0.0, cut: int | None = None
) -> tuple[list[Event], list[Event]]:
    """Move octets both ways until both are quiet; the events of the client and of the server."""
    seen: tuple[list[Event], list[Event]] = ([], [])
    while client.has_output or server.has_output:
        for sender, receiver, events in ((client, server, seen[1]), (server, client, seen[0])):
            for piece in pieces(drain(sender, now), cut):
                events += receiver.receive_data(piece, now)
    return seen


def connected(
    client_settings: dict[int, int] | None = None, server_settings: dict[int, int] | None = None
) -> tuple[Connection, Connection]:
    """A client and a server that have exchanged their prefaces and acknowledged them."""
    client = Connection(client=True, settings=client_settings)
    server = Connection(client=False, settings=server_settings)
    exchange(client, server)
    return client, server


def begun(
    client: bool, settings: dict[int, int] | None = None, peer: dict[int, int] | None = None
) -> Connection:
    """One core whose peer is written by hand; prefaces and their acks have crossed.

    settings   announced by the core
    peer       announced by its peer
    """
    core = Connection(client=client, settings=settings)
    drain(core)
    preface = b"" if client else CLIENT_PREFACE
    hello = SettingsFrame(tuple((peer or {}).items())).encode() + SettingsFrame(ack=True).encode()
    core.receive_data(preface + hello, 0.0)
    drain(core)
    return core


def wire(*frames: Frame | bytes) -> bytes:
    """The octets of frames, in order."""
    return b"".join(frame if isinstance(frame, bytes) else frame.encode() for frame in frames)


def feed(
    core: Connection, *frames: Frame | bytes, now: float = 0.0, cut: int | None = None
) -> list[Any]:
    """Give a core its peer's frames; the events, of whatever class the test expects."""
    events: list[Event] = []
    for piece in pieces(wire(*frames), cut):
        events += core.receive_data(piece, now)
    return events


def parse(octets: bytes) -> list[Any]:
    """Whole frames, without a judgement on their order."""
    frames = []
    at = 0
    while at < len(octets):
        high, low, type_, flags, stream_id = FRAME_HEADER.unpack_from(octets, at)
        start, at = at + FRAME_HEADER_SIZE, at + FRAME_HEADER_SIZE + (high << 8 | low)
        assert at <= len(octets), f"the last frame is cut: {octets[-100:].hex()}"
        frames.append(decode_frame(type_, flags, stream_id, octets[start:at]))
    return frames


def sent(core: Connection, now: float = 0.0) -> list[Any]:
    """All that a core wants to send, as frames; its preface has gone before."""
    return parse(drain(core, now))


def block(fields: Fields) -> bytes:
    """A field block that refers to nothing before it, so it is good anywhere in a connection."""
    octets: bytes = Encoder().encode(fields)
    return octets
