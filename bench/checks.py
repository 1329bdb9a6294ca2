"""What does it cost to check connections once a second, and does it slow requests down?

Timed: the processor's time, user and system, that a process takes whose connections are all idle
and checked once a second, for one check: the PING, its ack and whatever follows; less what the same
client takes when nothing is checked.  With 1, 100, 1 000 and 10 000 connections, each to an origin
of its own (crowd_clients.py says what each client does; h2 judges nothing).  A process lives for
one turn and has checked every connection once before it is looked at.

And a pool's GETs on one connection, with BESIDE idle connections beside it: checks off, after 30 s
of silence, and after 1 s, for a second each: one after the other, and AT_ONCE at a time.

Left out: the server's time (tests/crowd_server.py, on the other core), and how long an ack takes.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from h2lite import ConnectionPool, HealthPolicy, Response
from tests.crowd import CONTENT, crowd_server, crowd_urls, lacking
from tests.peers.servers import Ground

from .crowds import GO, H2, OURS, Crowds
from .figures import NS, SPLIT, Measured, Options, cores, measured, median_ratio, on_core

PINNING = SPLIT
CPU = "cpu per check"
COUNTS = (1, 100, 1000, 10_000)
BUDGETED = 1000  # connections, of the budget
ROUNDS_SHARE = 50  # of the rounds asked for: a turn takes seconds
PERIOD_S = 1.0
SETTLE_S = 1.5  # after which every connection has been checked, jitter included
WINDOW_S = 2.0
CHECKS_MIN = 0.8  # of those that are due; with jitter they come up to 1.15 s apart
TRIES_MAX = 5

OFF, SELDOM, OFTEN = "off", "30 s", "1 s"
PERIODS = {OFF: 0.0, SELDOM: 30.0, OFTEN: PERIOD_S}
ASK_S = 1.0
BESIDE = 1000
AT_ONCE = 100
ONE_BY_ONE, TOGETHER = "get beside checks", f"gets {AT_ONCE} at once beside checks"


def measure(options: Options, counts: tuple[int, ...] = COUNTS) -> list[Measured]:
    ours, theirs = cores(PINNING)
    rounds = max(1, options.rounds // ROUNDS_SHARE)
    with on_core(ours), tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        port = stack.enter_context(crowd_server(theirs))
        crowds = Crowds(Ground(Path(folder)), port, options)
        results = []
        for count in counts:
            if reason := lacking(count):
                options.absent.add(f"{count} connections: {reason}")
                continue
            what = CPU if count == BUDGETED else f"{CPU} of {count}"
            results += cpu_per_check(crowds, what, count, rounds)
        beside = min(BESIDE, max(counts))
        if not lacking(beside):
            results += requests_beside_checks(port, beside, rounds)
    return results


# -- CPU -----------------------------------------------------------------------------------------


def cpu_per_check(
    crowds: Crowds, what: str, count: int, rounds: int, peers: tuple[str, ...] = (GO, H2)
) -> list[Measured]:
    names = crowds.present(OURS, *peers)
    # So many take long to dial, and as so many checks go into one figure, it varies less.
    rounds = max(1, rounds // 2) if count > BUDGETED else rounds
    idle = {name: idle_cpu(crowds, name, count) for name in names}
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            found[name].append(one_turn(crowds, name, count, idle[name]))
    return [
        measured(
            what,
            name,
            values,
            unit=NS,
            operation="check",
            to_floor=median_ratio(values, found[OURS]),
            rounds=values,
            load=count,
        )
        for name, values in found.items()
    ]


def idle_cpu(crowds: Crowds, name: str, count: int) -> float:
    """Nanoseconds a second that so many connections take which nobody checks."""
    with crowds.start(name, 0.0) as crowd:
        crowd.tell("connect", count)
        crowd.tell("window", SETTLE_S)
        return crowd.tell("window", WINDOW_S)["cpu_ns"] / WINDOW_S


def one_turn(crowds: Crowds, name: str, count: int, idle_ns: float) -> float:
    """Nanoseconds of CPU for one check.

    A turn in which the machine had no time for as many checks as were due is no turn: it is
    repeated.  Raises AssertionError when that happens each time.
    """
    for _ in range(TRIES_MAX):
        with crowds.start(name, PERIOD_S) as crowd:
            crowd.tell("connect", count)
            crowd.tell("window", SETTLE_S)
            seen = crowd.tell("window", WINDOW_S)
        if seen["checks"] >= CHECKS_MIN * count * int(WINDOW_S / PERIOD_S):
            return (seen["cpu_ns"] - idle_ns * WINDOW_S) / seen["checks"]
    raise AssertionError(f"{name}, {count} connections: {seen}")


# -- requests ------------------------------------------------------------------------------------


def requests_beside_checks(port: int, beside: int, rounds: int) -> list[Measured]:
    found: dict[tuple[str, str], list[list[float]]] = {}
    for _ in range(rounds):
        for name, period in PERIODS.items():
            for what, times in ask(port, beside, period):
                found.setdefault((what, name), []).append(times)
    results = []
    for what in (ONE_BY_ONE, TOGETHER):
        of_off = [median(times) for times in found[what, OFF]]
        for name in PERIODS:
            medians = [median(times) for times in found[what, name]]
            results.append(
                measured(
                    what,
                    name,
                    [*itertools.chain.from_iterable(found[what, name])],
                    operation="GET",
                    to_floor=median_ratio(medians, of_off),
                    rounds=medians,
                )
            )
    return results


def ask(port: int, beside: int, period: float) -> Iterator[tuple[str, list[float]]]:
    """Each way to ask, with the nanoseconds that a GET took by it."""
    asked, *others = crowd_urls(port, beside + 1)
    policy = HealthPolicy(ping_after_idle=period, ping_timeout=5.0)
    with ConnectionPool(health=policy, idle_close=0.0) as pool:
        for url in (asked, *others):
            pool.connect(url)
        time.sleep(SETTLE_S)
        yield ONE_BY_ONE, repeat(lambda: [pool.get(f"{asked}/")], 1)
        yield TOGETHER, repeat(lambda: at_once(pool, f"{asked}/"), AT_ONCE)
        stats = pool.stats()
        assert not stats["suspects"], stats
        assert bool(stats["pings_acked"] > beside) is (period == PERIOD_S), stats


def at_once(pool: ConnectionPool, url: str) -> list[Response]:
    futures = [pool.submit("GET", url) for _ in range(AT_ONCE)]
    return [future.result() for future in futures]


def repeat(run: Callable[[], list[Response]], operations: int) -> list[float]:
    """For a while; each answer is looked at outside of the timed part."""
    times = []
    ends = time.perf_counter() + ASK_S
    while time.perf_counter() < ends:
        begun = time.perf_counter_ns()
        responses = run()
        times.append((time.perf_counter_ns() - begun) / operations)
        assert all(one.status == 200 and one.read() == CONTENT for one in responses)
    return times


def summary(results: list[Measured]) -> list[str]:
    return [
        f"{one.what}: {one.variant} {one.p50 / 1000:.1f} us of CPU"
        for one in results
        if one.load is not None
    ]
