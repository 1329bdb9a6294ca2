"""Frames of one type, parsed and serialised: h2lite, its floor, and hyperframe.

Timed: a frame in either direction.  Parse: from the octets of one recv (several frames of one
type, up to 64 KiB) to typed and validated frame objects, one after the other.  Serialise: from
field values to octets, the frame object made each time, for that is what a sender does with
either library.

    floor        unpack each header, cut off each payload; pack a header, append the payload:
                 no types, no checks, no objects
    h2lite       Framer.feed, then next_frame until None; Frame(...).encode()
    hyperframe   Frame.parse_frame_header and parse_body on slices of a memoryview, as h2's own
                 buffer does it; Frame(...).serialize()

Left out: sockets, what a connection does with a frame, and HPACK: a field block is octets here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from h2lite.framer import Framer
from h2lite.frames import (
    FRAME_HEADER,
    FRAME_HEADER_SIZE,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from .figures import SAME, Measured, Options, compare, cores, median_ratio, on_core
from .variant import FLOOR, OURS, Variant

if TYPE_CHECKING:
    from types import ModuleType

HYPERFRAME = "hyperframe"
PARSE, SERIALISE = "parse", "serialise"
DIRECTIONS = (PARSE, SERIALISE)
PINNING = SAME
CALLS = 30  # a round, of up to FRAMES_MAX frames each
FRAMES_MAX = 16  # in one timed call, so that reading the clock is no part of the result
RECV_OCTETS = 65536

OPAQUE_DATA = bytes(range(8))
FIELD_BLOCK = bytes(range(60))  # about what a request takes once HPACK knows its fields
SETTINGS = ((2, 0), (3, 100), (4, 2**20), (6, 65536))
SHORT, LONG = bytes(100), bytes(16384)
LONG_DATA = "DATA 16 KiB"


class Case(NamedTuple):
    """One frame, made by h2lite and, given its module, by hyperframe."""

    make: Callable[[], Frame]
    make_hyperframe: Callable[[Any], Any]

    @property
    def octets(self) -> bytes:
        return self.make().encode()

    @property
    def frames(self) -> int:
        """How many of it one recv brings, or FRAMES_MAX."""
        return min(FRAMES_MAX, RECV_OCTETS // len(self.octets))


CASES = {
    "PING": Case(
        lambda: PingFrame(OPAQUE_DATA),
        lambda module: module.PingFrame(0, opaque_data=OPAQUE_DATA),
    ),
    "WINDOW_UPDATE": Case(
        lambda: WindowUpdateFrame(1, 65535),
        lambda module: module.WindowUpdateFrame(1, window_increment=65535),
    ),
    "HEADERS": Case(
        lambda: HeadersFrame(1, FIELD_BLOCK, end_stream=True),
        lambda module: module.HeadersFrame(1, FIELD_BLOCK, flags=("END_STREAM", "END_HEADERS")),
    ),
    "SETTINGS": Case(
        lambda: SettingsFrame(SETTINGS),
        lambda module: module.SettingsFrame(0, settings=dict(SETTINGS)),
    ),
    "DATA": Case(
        lambda: DataFrame(1, SHORT),
        lambda module: module.DataFrame(1, SHORT),
    ),
    LONG_DATA: Case(
        lambda: DataFrame(1, LONG),
        lambda module: module.DataFrame(1, LONG),
    ),
}


def hyperframe() -> ModuleType:
    """hyperframe's frames.  Raises ModuleNotFoundError outside the peers' environment."""
    from hyperframe import frame

    return frame  # type: ignore[no-any-return]


def variant(name: str, direction: str, case: Case) -> Variant:
    """FLOOR, OURS or HYPERFRAME on one case.  Raises ModuleNotFoundError without hyperframe."""
    return _BUILDERS[name, direction](case)


def _floor_parse(case: Case) -> Variant:
    recv: bytes | memoryview = case.octets * case.frames
    if isinstance(case.make(), DataFrame):
        recv = memoryview(recv)  # content need not be copied
    unpack = FRAME_HEADER.unpack_from

    def run() -> bytes | memoryview:
        at = 0
        while at < len(recv):
            high, low, _, _, _ = unpack(recv, at)
            start = at + FRAME_HEADER_SIZE
            at = start + (high << 8 | low)
            payload = recv[start:at]
        return payload

    expected = case.octets[FRAME_HEADER_SIZE:]
    return Variant(FLOOR, run, lambda payload: payload == expected, case.frames)


def _our_parse(case: Case) -> Variant:
    recv = case.octets * case.frames
    framer = Framer()
    framer.feed(SettingsFrame().encode())  # with which every peer begins
    while framer.next_frame() is not None:
        pass

    def run() -> Frame | None:
        framer.feed(recv)
        last = None
        while True:
            frame = framer.next_frame()
            if frame is None:
                return last
            last = frame

    expected = case.make()
    return Variant(
        OURS, run, lambda frame: frame == expected and not framer.held_octets, case.frames
    )


def _hyperframe_parse(case: Case) -> Variant:
    recv = case.octets * case.frames
    parse_header = hyperframe().Frame.parse_frame_header

    def run() -> Any:
        rest = memoryview(recv)
        while rest:
            frame, length = parse_header(rest[:FRAME_HEADER_SIZE])
            end = FRAME_HEADER_SIZE + length
            frame.parse_body(rest[FRAME_HEADER_SIZE:end])
            rest = rest[end:]
        return frame

    return Variant(
        HYPERFRAME, run, lambda frame: bool(frame.serialize() == case.octets), case.frames
    )


def _floor_serialise(case: Case) -> Variant:
    payload = case.octets[FRAME_HEADER_SIZE:]
    header = FRAME_HEADER.unpack_from(case.octets)
    pack = FRAME_HEADER.pack

    def make() -> bytes:
        return pack(*header) + payload

    return _repeat(FLOOR, make, case)


def _our_serialise(case: Case) -> Variant:
    make = case.make
    return _repeat(OURS, lambda: make().encode(), case)


def _hyperframe_serialise(case: Case) -> Variant:
    make, module = case.make_hyperframe, hyperframe()
    return _repeat(HYPERFRAME, lambda: make(module).serialize(), case)


def _repeat(name: str, make: Callable[[], bytes], case: Case) -> Variant:
    times = range(case.frames)

    def run() -> bytes:
        for _ in times:
            octets = make()
        return octets

    expected = case.octets
    return Variant(name, run, lambda octets: octets == expected, case.frames)


_BUILDERS: dict[tuple[str, str], Callable[[Case], Variant]] = {
    (FLOOR, PARSE): _floor_parse,
    (OURS, PARSE): _our_parse,
    (HYPERFRAME, PARSE): _hyperframe_parse,
    (FLOOR, SERIALISE): _floor_serialise,
    (OURS, SERIALISE): _our_serialise,
    (HYPERFRAME, SERIALISE): _hyperframe_serialise,
}


def measure(options: Options) -> list[Measured]:
    """Every case in both directions."""
    results = []
    with on_core(cores(PINNING)[0]):
        for direction in DIRECTIONS:
            for name, case in CASES.items():
                variants = [variant(kind, direction, case) for kind in (FLOOR, OURS)]
                if options.peers:
                    try:
                        variants.append(variant(HYPERFRAME, direction, case))
                    except ModuleNotFoundError as error:
                        options.absent.add(f"{HYPERFRAME}: {error}")
                what = f"{direction} {name}"
                results += compare(what, variants, CALLS, options.rounds, operation="frame")
    return results


def summary(results: list[Measured]) -> list[str]:
    """How many times h2lite's time hyperframe takes: a line for each direction."""
    by_name = {(one.what, one.variant): one.rounds for one in results}
    lines = []
    for direction in DIRECTIONS:
        times = {
            case: median_ratio(
                by_name[f"{direction} {case}", HYPERFRAME], by_name[f"{direction} {case}", OURS]
            )
            for case in CASES
            if (f"{direction} {case}", HYPERFRAME) in by_name
        }
        if not times:
            continue
        each = ", ".join(f"{case} {ratio:.2f}" for case, ratio in times.items())
        long_data = times.pop(LONG_DATA)
        mean = math.prod(times.values()) ** (1 / len(times))
        lines.append(
            f"{direction}: hyperframe takes {mean:.2f} x h2lite's time (geometric mean of the "
            f"{len(times)} types; {LONG_DATA} {long_data:.2f} x)\n    {each}"
        )
    return lines
