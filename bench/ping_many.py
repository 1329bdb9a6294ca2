"""PING round trips on one of many connections that one pool holds open and checks.

Timed: `ping()` on the first of them, back to back, while the pool checks every one once a second;
"floor" is the bare exchange on a connection beside the pool's.  load: how many the pool holds.
All of it on one core, so what the checks cost, at both ends, is in the figures of both.  The
server is nghttpd, or without the peers echo.py with a thread a connection, which is held to
ECHO_COUNT_MAX.  Left out: opening them, and memory.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import h2lite
from h2lite.origin import parse_url
from tests.peers.servers import CLEAR, Ground

from .figures import SAME, Measured, Options, compare, cores, on_core
from .ping_clients import PUBLIC, FloorClient
from .ping_servers import ECHO, NGHTTPD, TIMEOUT_S, Target, target
from .variant import FLOOR, Variant

PINNING = SAME
COUNTS = (1, 100, 1_000, 10_000)
ECHO_COUNT_MAX = 1_000
CALLS = 150  # a round
# A timeout that a machine under full load keeps, too: none is to die of the bench.
POLICY = h2lite.HealthPolicy(ping_after_idle=1.0, ping_timeout=10.0)
DIALS_AT_ONCE = 100  # a listener's backlog is 128 or more
OPEN_S_MAX = 60.0
DESCRIPTORS_BESIDE = 200  # of whatever else this process and the server have open


def measure(options: Options) -> list[Measured]:
    results = []
    server = NGHTTPD if options.peers else ECHO
    most = raise_descriptors(max(COUNTS) + DESCRIPTORS_BESIDE) - DESCRIPTORS_BESIDE
    with (
        on_core(cores(PINNING)[0]),
        tempfile.TemporaryDirectory() as folder,
        ExitStack() as stack,
    ):
        ground = Ground(Path(folder))
        stack.callback(ground.stop)
        try:
            place = target(ground, server, CLEAR)
        except pytest.skip.Exception as reason:
            options.absent.add(f"{server}: {reason}")
            server, place = ECHO, target(ground, ECHO, CLEAR)
        if server == ECHO:
            most = min(most, ECHO_COUNT_MAX)
        for count in COUNTS:
            if count > most:
                options.absent.add(f"{count} connections to {server}: {most} at most")
                continue
            results += measure_count(f"ping of many {server}", place, count, options.rounds)
    return results


def measure_count(what: str, place: Target, count: int, rounds: int) -> list[Measured]:
    with holding(place, count) as connections:
        floor = FloorClient(place)
        first = connections[0]
        variants = [
            Variant(FLOOR, floor.ping, floor.holds),
            Variant(PUBLIC, lambda: first.ping(TIMEOUT_S), lambda answer: answer.rtt is not None),
        ]
        try:
            results = compare(what, variants, CALLS, rounds, operation="PING", load=count)
        finally:
            floor.close()
        confirm_checked(connections)
    return results


def confirm_checked(connections: list[h2lite.PooledConnection]) -> None:
    """See that each has had an answer to a check, and none has been lost."""
    deadline = time.monotonic() + 2 * POLICY.ping_after_idle + POLICY.ping_timeout
    while unchecked := [one for one in connections if one.rtt is None]:
        if time.monotonic() > deadline:
            raise AssertionError(f"{len(unchecked)} of {len(connections)} were never checked")
        time.sleep(0.05)
    lost = [one for one in connections if one.error is not None]
    if lost:
        raise AssertionError(f"{len(lost)} of {len(connections)} were lost: {lost[0].error}")


@contextmanager
def holding(place: Target, count: int) -> Iterator[list[h2lite.PooledConnection]]:
    """A pool's connections to one origin, all of them up."""
    with h2lite.ConnectionPool(
        health=POLICY,
        idle_close=0.0,
        connections_per_origin_max=count,
        cafile=place.cafile,
    ) as pool:
        pool.connect(place.url)
        deadline = time.monotonic() + OPEN_S_MAX
        for upto in (*range(DIALS_AT_ONCE, count, DIALS_AT_ONCE), count):
            dial(pool, place.url, upto - len(pool.connections))
            while any(one.state == "CONNECTING" for one in pool.connections):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not all of {upto} connections in {OPEN_S_MAX} s")
                time.sleep(0.001)
        yield pool.connections


def dial(pool: h2lite.ConnectionPool, url: str, count: int) -> None:
    """Begin further dials.

    By themselves pools do so only when more requests wait than their connections have room for.
    """
    origin, _ = parse_url(url)
    engine, core = pool._engine, pool._pool
    with engine.lock:
        now = engine.loop.clock()
        for _ in range(count):
            core._dial(core._site(origin, now), now)
        engine.settle()


def raise_descriptors(wanted: int) -> int:
    """Have so many descriptors allowed, if the system lets us; returns how many are."""
    try:
        import resource
    except ImportError:  # not on this system, nor the limit
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else soft
