"""What a core holds: every octet and every item that can be reached from it, and how much may be.

`held` walks; `allowance` adds up the documented limits, and `overfull` looks at them one by one.
Code, classes and the constants of HPACK are no state, and what the core's own user has given it to
send is the user's.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from h2lite import connection, memo
from h2lite.connection import Connection
from h2lite.fields import HEADER_TABLE_SIZE_MAX
from h2lite.limits import DEFAULT_LIMITS
from h2lite.settings import SETTINGS_UNACKED_MAX, SettingId

ANSWER_OCTETS = 17  # a PING ack, the largest of the frames that a peer provokes
# Of one stream: itself in `streams`, in the round of those with DATA, its end and its trailers.
ITEMS_OF_STREAM = 10
MEMOS = 3  # sections and lines of the encoder, sections of the decoder
OWN_ITEMS = 500  # what stands there anyway: the maps of settings, HPACK's table of Huffman codes
OWN_OCTETS = 1000  # the preface, a PING begun and such


class Held(NamedTuple):
    octets: int
    items: int


def held(core: Connection) -> Held:
    """The octets of all byte strings, and the items of all containers, each counted once."""
    octets = items = 0
    seen: set[int] = set()
    waiting: list[Any] = [core]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, (bytes, bytearray)):
            octets += len(thing)
        elif isinstance(thing, memoryview):
            waiting.append(thing.obj)
        elif isinstance(thing, (list, tuple, set, frozenset, deque)):
            items += len(thing)
            waiting += thing
        elif isinstance(thing, dict):
            items += len(thing)
            waiting += [*thing, *thing.values()]
        elif type(thing).__module__.partition(".")[0] in ("h2lite", "hpack"):
            waiting += parts(thing)
    return Held(octets, items)


def parts(thing: Any) -> list[Any]:
    """The values of an instance's slots and attributes."""
    slots = [name for base in type(thing).__mro__ for name in vars(base).get("__slots__", ())]
    return [
        *[getattr(thing, name) for name in slots if hasattr(thing, name)],
        *getattr(thing, "__dict__", {}).values(),
    ]


def allowance(core: Connection, streams: int, fed: int, queued: int = 0) -> Held:
    """The most that may be held.

    streams   that may be open at once: our MAX_CONCURRENT_STREAMS, or a client's own requests
    fed       the octets of the longest piece of input, which the core keeps until the next
    queued    the octets that the core's user has given it and that may not have left yet
    """
    largest = core.local_settings.largest
    frame = core._framer.max_frame_size + 9
    block = (DEFAULT_LIMITS.continuations + 1) * frame
    tables = max(4096, largest(SettingId.HEADER_TABLE_SIZE)) + HEADER_TABLE_SIZE_MAX
    answers = DEFAULT_LIMITS.answers_queued + connection.PINGS_IN_FLIGHT_MAX
    goaways = frame + 2 * connection.DEBUG_DATA_OCTETS_MAX
    memos = MEMOS * memo.OCTETS_MAX
    octets = OWN_OCTETS + frame + block + tables + ANSWER_OCTETS * answers + goaways + fed + queued
    octets += 2 * memos  # what is remembered, and by what it is found again
    items = (
        OWN_ITEMS
        + frame  # held octet by octet
        + DEFAULT_LIMITS.continuations
        + tables // 32 * 3  # RFC 7541 §4.1: an entry is 32 octets and more; a pair in a row
        + answers
        + connection.RESETS_REMEMBERED_MAX
        + connection.SKIPS_REMEMBERED_MAX
        + SETTINGS_UNACKED_MAX * 20
        + streams * ITEMS_OF_STREAM
        + memos // 32 * 4 + MEMOS * memo.ENTRIES_MAX * 10  # of a section, its lines, itself
    )
    return Held(octets, items)


def overfull(core: Connection, streams: int) -> list[str]:
    """The parts of a core that hold more than their own limit says."""
    parts_and_limits = {
        "streams": (len(core.streams), streams),
        "resets": (len(core._resets), connection.RESETS_REMEMBERED_MAX),
        "skips": (len(core._skips), connection.SKIPS_REMEMBERED_MAX),
        "pings": (len(core._pings), connection.PINGS_IN_FLIGHT_MAX),
        "fragments": (len(core._fragments), DEFAULT_LIMITS.continuations + 1),
        "settings": (core.local_settings.unacked, SETTINGS_UNACKED_MAX),
        "answers": (len(core._urgent), DEFAULT_LIMITS.answers_queued + 1),
        "held": (core._framer.held_octets, core._framer.max_frame_size + 9),
    }
    return [name for name, (now, most) in parts_and_limits.items() if now > most]
