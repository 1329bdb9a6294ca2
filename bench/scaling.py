"""Does anything grow worse than the work it does: streams, connections, octets, field lines?

Timed: one unit of the same work, where ten and a hundred times as much of it is done at once; "x
first" is how many times its least load's time a unit takes, and should not be above 1.

    streams       a GET and its response of three octets, with so many streams open at once; a
                  client's core and a server's in memory
    connections   the processor's time for one check, with so many connections checked once a
                  second (as in checks.py)
    octets        a MiB of a download on one stream, over loopback from `h2lite serve` on the other
                  core, where the whole is so many
    field lines   one line of a request's field section of so many lines, encoded, decoded and
                  checked, cores in memory: the same section each time, which HPACK's table holds
                  as far as its 4 096 octets go, and one whose values all differ each time

Left out: what a load costs once, as the first request on a connection does; and the peers.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from h2lite import Connection, ConnectionPool, Limits
from h2lite.events import DataReceived, RequestReceived
from tests.crowd import crowd_server, lacking
from tests.pair import GET, OK, exchange
from tests.peers.servers import STOP_S_MAX, Ground

from .checks import cpu_per_check
from .crowds import Crowds
from .figures import (
    FOLDER,
    SPLIT,
    WARM_UP_CALLS,
    Measured,
    Options,
    cores,
    measured,
    median_ratio,
    on_core,
    turn,
)
from .variant import OURS, Variant

PINNING = SPLIT
STREAMS = (1, 10, 100, 1000)
CONNECTIONS = (10, 100, 1000)
MIB = (1, 16, 256)
LINES = (10, 100, 1000)
UNITS_A_TURN = 256  # and once at least
ROUNDS_SHARE, SLOW_ROUNDS_SHARE = 10, 50  # of the rounds asked for, where a turn takes that long
WORSE = 1.15  # times its least load's, or its neighbour's: more than one run differs from another
CONTENT = b"ok\n"


def grown(
    what: str,
    operation: str,
    rounds: int,
    variants: dict[int, Variant],
    warm_up: int = WARM_UP_CALLS,
) -> list[Measured]:
    """Measure the same work at several loads, in turns."""
    found: dict[int, list[list[float]]] = {load: [] for load in variants}
    for _ in range(rounds):
        for load, variant in variants.items():
            calls = max(1, UNITS_A_TURN // variant.operations)
            found[load].append(turn(variant, calls, warm_up))
    medians = {load: [median(times) for times in of_load] for load, of_load in found.items()}
    least = medians[min(medians)]
    return [
        measured(
            what,
            OURS,
            [*itertools.chain.from_iterable(of_load)],
            operation=operation,
            to_floor=median_ratio(medians[load], least),
            rounds=medians[load],
            load=load,
        )
        for load, of_load in found.items()
    ]


# -- streams and field lines -----------------------------------------------------------------------


def cores_in_memory() -> tuple[Connection, Connection]:
    client = Connection(client=True)
    server = Connection(client=False, limits=Limits(streams=max(STREAMS)))
    exchange(client, server)
    return client, server


def gets(client: Connection, server: Connection, sections: list[Any]) -> int:
    """So many GETs at once; how many were answered with CONTENT."""
    for fields in sections:
        client.send_request(fields)
    _, asked = exchange(client, server)
    for event in asked:
        if isinstance(event, RequestReceived):
            stream = server.streams[event.stream_id]
            server.send_response(stream, OK)
            server.send_data(stream, CONTENT, end_stream=True)
    answers, _ = exchange(client, server)
    right = 0
    for answer in answers:
        if isinstance(answer, DataReceived):
            right += answer.data == CONTENT
            client.data_consumed(answer.stream_id, len(CONTENT))
    return right


def streams(count: int) -> Variant:
    client, server = cores_in_memory()
    sections = [GET] * count
    return Variant(
        OURS, lambda: gets(client, server, sections), lambda right: right == count, count
    )


def field_lines(count: int, differing: bool) -> Variant:
    client, server = cores_in_memory()
    # Made beforehand: the lines are the caller's work.
    numbers = range(10_000, 10_064) if differing else [10_000]
    sections = itertools.cycle([_section(count, number) for number in numbers])

    def run() -> tuple[Any, Any]:
        section = next(sections)
        client.send_request(section)
        _, asked = exchange(client, server)
        (request,) = (event for event in asked if isinstance(event, RequestReceived))
        server.send_response(server.streams[request.stream_id], OK, end_stream=True)
        exchange(client, server)
        return section, request.fields

    return Variant(OURS, run, lambda seen: [*seen[0]] == [*seen[1]], count)


def _section(lines: int, number: int) -> Any:
    return [
        *GET,
        *((b"x-field-%d" % line, b"value %d of %d" % (number, line)) for line in range(lines)),
    ]


# -- octets ----------------------------------------------------------------------------------------


@contextmanager
def serving(core: int | None) -> Iterator[str]:
    """The URL of `h2lite serve` on that core."""
    argv = [sys.executable, "-m", "h2lite", "serve", "-q", "--port", "0"]
    with on_core(core):
        server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=FOLDER.parent)
    try:
        assert server.stdout is not None
        yield server.stdout.readline().split()[1].rstrip("/")
    finally:
        server.terminate()
        server.communicate(timeout=STOP_S_MAX)


def download(pool: ConnectionPool, url: str, mib: int) -> Variant:
    octets = mib * 2**20

    def run() -> int:
        with pool.stream("GET", f"{url}/bytes/{octets}") as response:
            return sum(map(len, response.iter_bytes()))

    return Variant(OURS, run, lambda came: came == octets, mib)


# -- the whole -------------------------------------------------------------------------------------


def measure(options: Options) -> list[Measured]:
    ours, theirs = cores(PINNING)
    slow_rounds = max(1, options.rounds // SLOW_ROUNDS_SHARE)
    rounds = max(1, options.rounds // ROUNDS_SHARE)
    with on_core(ours), ExitStack() as stack:
        results = grown("streams", "GET", rounds, each(STREAMS, streams))
        for name, differing in (("repeated", False), ("differing", True)):
            results += grown(
                f"field lines {name}",
                "line",
                rounds,
                each(LINES, lambda count: field_lines(count, differing)),  # noqa: B023
            )
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        port = stack.enter_context(crowd_server(theirs))
        crowds = Crowds(Ground(Path(folder)), port, options)
        results += connections(crowds, options, slow_rounds)
        url = stack.enter_context(serving(theirs))
        pool = stack.enter_context(ConnectionPool())
        downloads = each(MIB, lambda mib: download(pool, url, mib))
        return results + grown("octets", "MiB", rounds, downloads, warm_up=1)


def each(loads: tuple[int, ...], variant: Callable[[int], Variant]) -> dict[int, Variant]:
    return {load: variant(load) for load in loads}


def connections(crowds: Crowds, options: Options, rounds: int) -> list[Measured]:
    if reason := lacking(max(CONNECTIONS)):
        options.absent.add(f"{max(CONNECTIONS)} connections: {reason}")
        return []
    every = [
        *itertools.chain.from_iterable(
            cpu_per_check(crowds, "connections", count, rounds, peers=()) for count in CONNECTIONS
        )
    ]
    least = every[0].rounds
    return [one._replace(to_floor=median_ratio(one.rounds, least)) for one in every]


def summary(results: list[Measured]) -> list[str]:
    """Each load's time for a unit beside that of the load before it."""
    lines = []
    for what, group in itertools.groupby(results, key=lambda one: one.what):
        one_by_one = [*group]
        for less, more in itertools.pairwise(one_by_one):
            times = more.p50 / less.p50
            if times > WORSE:
                lines.append(
                    f"{what}: from {less.load} to {more.load} a {more.operation} takes "
                    f"{times:.2f} x as long"
                )
    return lines or ["nothing grows worse than its work does"]
