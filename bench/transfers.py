"""Content on one stream, down and up, in cleartext and under TLS: time for a MiB.

movers.py says what each client does and checks.  The server is Go's net/http (go/server.go), or
h2lite's own (answering.py) without the peers; it has one core, the client the other.  Before
anything is timed each client moves CHECKED_OCTETS both ways, and the content itself is compared.

Timed: a round is one transfer of OCTETS by each client in turn, on connections that stay, and
gives one value.  Left out: connecting.
"""

from __future__ import annotations

import tempfile
import zlib
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.peers.servers import CLEAR, TLS, Ground

from .answering import BLOCK
from .figures import SPLIT, Measured, Options, compare, cores, on_core
from .getters import CORE, GO, H2, PUBLIC
from .movers import DOWN, MIB, MOVERS, UP, Crc, GoMover, Mover, variant
from .places import Place, start
from .variant import OURS, Sampled, Variant

PINNING = SPLIT
OCTETS = 256 * 2**20
CHECKED_OCTETS = 10_000_000  # not a multiple of any frame size, so that the last frame is short
ROUNDS_SHARE = 20  # of the rounds asked for, one in so many is run


def checked(name: str, place: Place) -> Mover:
    """A connected client that has shown that what it moves comes whole.

    Raises ModuleNotFoundError without its library.
    """
    blocks, rest = divmod(CHECKED_OCTETS, len(BLOCK))
    expected = zlib.crc32(BLOCK * blocks + BLOCK[:rest])
    mover = MOVERS[name](place)
    crc = Crc()
    came = mover.down(CHECKED_OCTETS, crc)
    if (came, crc.value) != (CHECKED_OCTETS, expected):
        raise AssertionError(f"{name} got {came} octets of CRC-32 {crc.value}")
    said = mover.up(CHECKED_OCTETS, "/sink/crc")
    if said != f"{CHECKED_OCTETS} {expected}":
        raise AssertionError(f"{name} sent what came as {said}")
    return mover


def measure(options: Options) -> list[Measured]:
    """Every client in both directions, in cleartext and under TLS."""
    our_core, their_core = cores(PINNING)
    results = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        ground = Ground(Path(folder))
        stack.callback(ground.stop)
        for security in (CLEAR, TLS):
            with on_core(their_core):
                server, place = first_server(ground, security, options)
            with on_core(our_core):
                results += compare_clients(server, security, ground, place, options)
    return results


def first_server(ground: Ground, security: str, options: Options) -> tuple[str, Place]:
    """Go's, where it is asked for and can be had, started on this thread's core; or ours."""
    if options.peers:
        try:
            return GO, start(ground, GO, security)
        except pytest.skip.Exception as reason:
            options.absent.add(f"{GO}: {reason}")
    return OURS, start(ground, OURS, security)


def compare_clients(
    server: str, security: str, ground: Ground, place: Place, options: Options
) -> list[Measured]:
    with ExitStack() as stack:
        variants: dict[str, list[Variant | Sampled]] = {DOWN: [], UP: []}
        for name in (CORE, PUBLIC, *((H2,) if options.peers else ())):
            try:
                mover = checked(name, place)
            except ModuleNotFoundError as error:
                options.absent.add(f"{name}: {error}")
                continue
            stack.callback(mover.close)
            for direction, among in variants.items():
                among.append(variant(name, mover, direction, OCTETS))
        if server == GO:
            for direction, among in variants.items():
                go = stack.enter_context(GoMover(ground, place, direction, OCTETS))
                among.append(go.sampled())
        results = []
        for direction, among in variants.items():
            what = f"transfers {server} {direction} {security}"
            rounds = max(1, options.rounds // ROUNDS_SHARE)
            results += compare(what, among, 1, rounds, operation="MiB", warm_up=0)
    return results


def summary(results: list[Measured]) -> list[str]:
    return [f"{one.what}: {one.variant} {MIB / one.p50:.2f} GB/s" for one in results]
