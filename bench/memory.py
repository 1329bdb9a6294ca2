"""How much memory does an idle connection take that is checked once a second?

Timed: nothing. A client opens CONNECTIONS of them in cleartext, each to an origin of its own (and
h2lite once more, all to one: what the pool keeps of an origin is no part of that), and lets every
one be checked; then it asks one GET on each, and lets them be checked again.  A figure
is what the process has more than with a single connection that was used, for each of the others.

    heap       Python's, as tracemalloc counts it, in a process of its own; Go's, with the stacks of
               its goroutines, after a collection
    resident   what the system counts for the whole process, without tracemalloc

crowd_clients.py says what each client does.  httpx has no connection without a request, and its
pool looks through all of them for each, so it has HTTPX_CONNECTIONS; the heap of grpcio is none of
Python's.

Left out: the kernel's socket buffers, and TLS, whose state is OpenSSL's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.crowd import crowd_server, lacking
from tests.peers.servers import Ground

from .crowds import GO, GRPCIO, H2, HTTPX, ONE_ORIGIN, OURS, Crowd, Crowds
from .figures import OCTETS, SPLIT, Measured, Options, cores, measured, median_ratio, on_core

PINNING = SPLIT
CONNECTIONS, HTTPX_CONNECTIONS = 1000, 100
ROUNDS_SHARE = 100  # of the rounds asked for: it hardly differs from one to the next
PERIOD_S = 1.0
CHECKED_S = 1.5  # after which every connection has been checked, jitter included
HEAP, RESIDENT = "heap", "resident"
BEFORE, AFTER = "before request", "after request"


def measure(options: Options, connections: int = CONNECTIONS) -> list[Measured]:
    if reason := lacking(connections):
        options.absent.add(f"{connections} connections: {reason}")
        return []
    ours, theirs = cores(PINNING)
    with on_core(ours), tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        port = stack.enter_context(crowd_server(theirs))
        crowds = Crowds(Ground(Path(folder)), port, options)
        names = crowds.present(OURS, ONE_ORIGIN, GO, H2, GRPCIO, HTTPX)
        found: dict[tuple[str, str], list[float]] = {}
        for _ in range(max(1, options.rounds // ROUNDS_SHARE)):
            for name in names:
                for what, octets in one_turn(crowds, name, connections):
                    found.setdefault((what, name), []).append(octets)
    return [
        line(f"{kind} {when}", name, found, connections)
        for kind in (HEAP, RESIDENT)
        for when in (BEFORE, AFTER)
        for name in names
        if (f"{kind} {when}", name) in found
    ]


def line(
    what: str, name: str, found: dict[tuple[str, str], list[float]], connections: int
) -> Measured:
    values = found[what, name]
    return measured(
        what,
        name,
        values,
        unit=OCTETS,
        operation="connection",
        to_floor=median_ratio(values, found[what, OURS]),
        rounds=values,
    )


def one_turn(crowds: Crowds, name: str, connections: int) -> Iterator[tuple[str, float]]:
    """(what, octets a connection), as far as the client has a figure."""
    if name == HTTPX:
        connections = min(connections, HTTPX_CONNECTIONS)
    kinds = {HEAP: True, RESIDENT: False}
    if name == GO:
        kinds = {HEAP: False, RESIDENT: False}
    if name == GRPCIO:
        del kinds[HEAP]
    for kind, trace in kinds.items():
        with crowds.start(name, PERIOD_S, trace) as crowd:
            crowd.tell("connect", 1)
            crowd.tell("request")
            first = held(crowd, kind)
            crowd.tell("connect", connections)
            if name != HTTPX:
                yield f"{kind} {BEFORE}", (held(crowd, kind) - first) / connections
            crowd.tell("request")
            yield f"{kind} {AFTER}", (held(crowd, kind) - first) / connections


def held(crowd: Crowd, kind: str) -> int:
    crowd.tell("window", CHECKED_S)
    return crowd.tell("memory")[kind]


def summary(results: list[Measured]) -> list[str]:
    return [
        f"{one.what}: {one.variant} {one.p50 / 1024:.1f} KiB a connection" for one in results
    ]
