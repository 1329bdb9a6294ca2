"""Small GETs on one connection, many at once: fields the same, differing, or with a long token.

getters.py says what each client does and checks.  The server is nghttpd, which is faster than
every client here; Go's net/http where that is missing, h2lite's own without the peers.  It has
one core, the client the other.  one_by_one.py has GETs one after the other.

    repeated    every request has the same fields, every response those of the one before
    differing   the path differs each time, and so does one field of the response
    token       as repeated, with an authorization field of 900 octets

Timed: a round is so many GETs of each client in turn, and gives one value: the time of them all,
divided by how many they are.  Left out: connecting, and the first GET.
"""

from __future__ import annotations

import base64
import random
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.peers.servers import Ground

from .answering import CONTENT, ITEM_CONTENT
from .figures import SPLIT, Measured, Options, compare, cores, on_core
from .getters import (
    CORE,
    GETTERS,
    GO,
    H2,
    HTTPX,
    JH2,
    POLL,
    PUBLIC,
    GoGetter,
    Task,
)
from .places import NGHTTPD, Place, start
from .variant import OURS, Sampled, Variant

PINNING = SPLIT
TOKEN = "Bearer " + base64.urlsafe_b64encode(random.Random(900).randbytes(670)).decode()[:893]
REPEATED = "repeated"
AT_ONCE = 100
TASKS = {
    REPEATED: Task("/small", CONTENT, AT_ONCE),
    "differing": Task("/items/", ITEM_CONTENT, AT_ONCE, differing=True),
    "token": Task("/small", CONTENT, AT_ONCE, token=TOKEN),
}
STREAMS = (1, 10, AT_ONCE, 1000)  # with repeated fields
# In a round: a twentieth of a second or more of each.
GETS = {CORE: 1000, PUBLIC: 1000, POLL: 1000, GO: 3000, H2: 400, JH2: 600, HTTPX: 200}
ROUNDS_SHARE = 5  # of the rounds asked for, one in so many is run
PEERS = (GO, H2, JH2, HTTPX)


def measure(options: Options) -> list[Measured]:
    """Every client at every task."""
    # h2lite's own server, without the peers, makes each GET take twice as long.
    rounds = max(1, options.rounds // (ROUNDS_SHARE if options.peers else 2 * ROUNDS_SHARE))
    results = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        ground = Ground(Path(folder))
        stack.callback(ground.stop)
        our_core, their_core = cores(PINNING)
        with on_core(their_core):
            server, place = first_server(ground, options)
        with on_core(our_core):
            for name, task in TASKS.items():
                for streams in STREAMS if name == REPEATED else (AT_ONCE,):
                    results += compare_at_once(
                        f"gets {server} {name}",
                        ground,
                        place,
                        task._replace(streams=streams),
                        options,
                        rounds if streams <= AT_ONCE else max(1, rounds // 4),
                    )
    return results


def first_server(ground: Ground, options: Options) -> tuple[str, Place]:
    """The fastest server there is, started on this thread's core."""
    for name in (NGHTTPD, GO) if options.peers else ():
        try:
            return name, start(ground, name)
        except pytest.skip.Exception as reason:
            options.absent.add(f"{name}: {reason}")
    return OURS, start(ground, OURS)


def gets_at_once(client: str, streams: int) -> int:
    """How many GETs a round: with many streams, each has several; with one, each takes longer."""
    count = GETS[client]
    if client == HTTPX:
        return count  # it never has more than AT_ONCE open
    return count // 4 if streams == 1 else max(count, 2 * streams)


def compare_at_once(
    what: str, ground: Ground, place: Place, task: Task, options: Options, rounds: int
) -> list[Measured]:
    with ExitStack() as stack:
        variants: list[Variant | Sampled] = []
        for client in (CORE, PUBLIC, POLL, *(PEERS if options.peers else ())):
            count = gets_at_once(client, task.streams)
            try:
                variants.append(variant(stack, client, ground, place, task, count))
            except (ModuleNotFoundError, pytest.skip.Exception) as reason:
                options.absent.add(f"{client}: {reason}")
        return compare(
            what, variants, 1, rounds, operation="GET", warm_up=0, load=float(task.streams)
        )


def variant(
    stack: ExitStack, client: str, ground: Ground, place: Place, task: Task, count: int
) -> Variant | Sampled:
    """A client that is connected until the stack ends.

    Raises ModuleNotFoundError without its library; skips the test without Go.
    """
    if client == GO:
        return stack.enter_context(GoGetter(ground, place, task)).at_once(count)
    getter = GETTERS[client](place, task)
    stack.callback(getter.close)
    return Variant(client, lambda: getter.gets(count), lambda right: right == count, count)


def summary(results: list[Measured]) -> list[str]:
    return [
        f"{one.what} x {one.load:g}: {one.variant} {1e9 / one.p50:,.0f} GETs a second"
        for one in results
    ]
