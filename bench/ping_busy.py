"""PING round trips on a connection that uploads, or downloads, at full speed meanwhile.

Timed: one PING and its ack, back to back, beside one endless stream; with "beside none" the same
without it.  ping_transfers.py says what each client does; the server is go/sink.go, or without
the peers sink.py, on a core of its own.  "moved" lines say how much went beside the PINGs,
"queued" lines how much of a PING's time passed before it could leave.

A PING waits behind all that was written before it: in the client's own buffer, in the kernel's
send queue, in the path and in the server's receive queue.  h2lite keeps the first two short:
PINGs leave before what the streams have queued, and TCP_NOTSENT_LOWAT has the kernel ask for more
only when less than 128 KiB of it has not been sent.  On loopback nothing stays unsent, so what is
seen is the server's queue: empty as long as the server is the faster one, else as much as its
HTTP/2 windows allow, 4 MiB here.  The send queue is what counts where the path is the slowest
part, as in "slow upload": through slow_path.py, at 100 MB/s.  "ping(), no lowat" is the same
client without the option.

Clients with two threads share one core among them: that a PING waits for its thread's turn there,
up to a slice of the scheduler's, is in their p99.  Left out: TLS.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from tests.peers.servers import HOST, Ground, accepts, free_port

from .figures import SPLIT, Measured, Options, compare, cores, measured, on_core
from .go_programs import GO_SOURCES
from .ping_clients import CORE, PUBLIC
from .ping_peers import GO, H2, GoPinger
from .ping_servers import Target
from .ping_transfers import (
    DOWNLOAD,
    NONE,
    UPLOAD,
    CoreExchange,
    H2Exchange,
    LoopBeside,
    OursBeside,
)
from .variant import Sampled

PINNING = SPLIT
NO_LOWAT = f"{PUBLIC}, no lowat"
SLOW_OCTETS_A_SECOND = 100e6
MEGABYTES_A_SECOND = "MB/s"
SINK_PROGRAM = Path(__file__).with_name("sink.py")
SLOW_PATH_PROGRAM = Path(__file__).with_name("slow_path.py")


class Case(NamedTuple):
    """What goes on beside the PINGs.

    calls                a round
    rounds_a_long_one    how many of other jobs' rounds one of this takes the time of
    """

    name: str
    load: str
    is_slow: bool = False
    calls: int = 100
    rounds_a_long_one: int = 5


CASES = (
    Case("none", NONE),
    Case("upload", UPLOAD),
    Case("download", DOWNLOAD),
    Case("slow upload", UPLOAD, is_slow=True, calls=10, rounds_a_long_one=20),
)


class Beside(Protocol):
    rates: list[float]

    def samples(self, calls: int) -> list[float]: ...


def start_sink(ground: Ground, go: bool) -> Target:
    """Start go/sink.go, or sink.py; skips where Go is wanted and not installed."""
    port = free_port()
    if go:
        argv = [ground.go_program("sink", GO_SOURCES), "-address", f"{HOST}:{port}"]
    else:
        argv = [sys.executable, str(SINK_PROGRAM), str(port)]
    ground.start("sink", argv, ground.folder).wait_until(lambda: accepts(port))
    return Target(f"http://{HOST}:{port}", None)


def start_slow_path(ground: Ground, place: Target) -> Target:
    port = free_port()
    rate = str(SLOW_OCTETS_A_SECOND)
    server_port = place.url.rpartition(":")[2]
    argv = [sys.executable, "-I", str(SLOW_PATH_PROGRAM), str(port), server_port, rate]
    ground.start("slow path", argv, ground.folder).wait_until(lambda: accepts(port))
    return Target(f"http://{HOST}:{port}", None)


def measure(options: Options) -> list[Measured]:
    """Ours beside Go's and h2's; p50 and p99 are what matters."""
    ours, theirs = cores(PINNING)
    results = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        stack.enter_context(on_core(ours))
        ground = Ground(Path(folder))
        stack.callback(ground.stop)
        with on_core(theirs):
            try:
                place = start_sink(ground, options.peers)
            except pytest.skip.Exception as reason:
                options.absent.add(f"{GO}: {reason}")
                place = start_sink(ground, False)
            slow_place = start_slow_path(ground, place)
        for case in CASES:
            where = slow_place if case.is_slow else place
            results += measure_case(ground, where, case, options)
    return results


def measure_case(ground: Ground, place: Target, case: Case, options: Options) -> list[Measured]:
    what = f"ping beside {case.name}"
    with ExitStack() as stack:
        clients = beside(stack, ground, place, case.load, options)
        variants = [Sampled(name, client.samples) for name, client in clients.items()]
        rounds = -(-options.rounds // case.rounds_a_long_one)
        results = compare(what, variants, case.calls, rounds, operation="PING", warm_up=2)
    if case.load == NONE:
        return results
    for name, client in clients.items():
        rates = [rate / 1e6 for rate in client.rates]
        results.append(
            measured(f"{what}, moved", name, rates, unit=MEGABYTES_A_SECOND, rounds=rates)
        )
    for name, client in clients.items():
        if isinstance(client, OursBeside):
            results.append(measured(f"{what}, queued", name, client.queued, operation="PING"))
    return results


def beside(
    stack: ExitStack, ground: Ground, place: Target, load: str, options: Options
) -> dict[str, Beside]:
    clients: dict[str, Beside] = {
        PUBLIC: OursBeside(place, load),
        CORE: LoopBeside(CoreExchange, place, load),
    }
    if load == UPLOAD:
        clients[NO_LOWAT] = OursBeside(place, load, lowat=False)
    if not options.peers:
        return clients
    if find_spec("h2") is None:
        options.absent.add(f"{H2}: install h2 from PyPI")
    else:
        clients[H2] = LoopBeside(H2Exchange, place, load)
    try:
        pinger = GoPinger(ground.go_program("pinger", GO_SOURCES), place, load)
    except pytest.skip.Exception as reason:
        options.absent.add(f"{GO}: {reason}")
        return clients
    stack.callback(pinger.close)
    clients[GO] = pinger
    return clients
