"""Servers of small answers, under h2load: requests a second, as nanoseconds a request.

Each server (places.py) answers the same 13 octets with a few fields, `date` among them, in
cleartext, from one process on one core; h2load asks from the other core.  nghttpd shows how much
more h2load could ask for.  Every response is a 2xx with its content whole.

Timed: a round is one run of h2load against each server in turn, and gives one value: the time
h2load says all its requests took, connecting included, for each request.  Left out: TLS, and the
servers' start.
"""

from __future__ import annotations

import re
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.peers.servers import Ground, command, run

from .answering import CONTENT
from .figures import SPLIT, Measured, Options, compare, cores, on_core
from .places import GO, H2, HYPERCORN, NGHTTPD, Place, start
from .variant import OURS, Sampled

PINNING = SPLIT
SHAPES = ((1, 100), (100, 10))  # connections, streams at once on each
# In one run of h2load: a tenth of a second or more, and several of each of its streams.
REQUESTS = {OURS: 3000, GO: 6000, H2: 2000, HYPERCORN: 1500, NGHTTPD: 20000}
PEERS = (GO, H2, HYPERCORN, NGHTTPD)
ROUNDS_SHARE = 5  # of the rounds asked for, one in so many is run


class Load:
    """h2load's run against one server."""

    def __init__(self, place: Place, requests: int, connections: int, streams: int) -> None:
        self._requests = requests
        self._argv = [
            command("h2load", "Debian package nghttp2-client"),
            f"-n{requests}",
            f"-c{connections}",
            f"-m{streams}",
            f"{place.url}/small",
        ]

    def run(self) -> float:
        """The nanoseconds a request took; every one has its answer, a 2xx, and all the content."""
        said = run(*self._argv).stdout.decode()
        asked = self._requests
        found = re.search(r"finished in \S+, ([\d.]+) req/s", said)
        if (
            found is None
            or f"{asked} succeeded, 0 failed, 0 errored, 0 timeout" not in said
            or f"status codes: {asked} 2xx, 0 3xx, 0 4xx, 0 5xx" not in said
            or f"({asked * len(CONTENT)}) data" not in said
        ):
            raise AssertionError(f"{self._argv} said {said}")
        return 1e9 / float(found[1])


def sampled(name: str, load: Load) -> Sampled:
    return Sampled(name, lambda times: [load.run() for _ in range(times)])


def measure(options: Options) -> list[Measured]:
    """Every server under every shape of load."""
    our_core, their_core = cores(PINNING)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        ground = Ground(Path(folder))
        stack.callback(ground.stop)
        places = {}
        with on_core(their_core):
            for name in (OURS, *PEERS) if options.peers else (OURS,):
                try:
                    places[name] = start(ground, name)
                except pytest.skip.Exception as reason:
                    options.absent.add(f"{name}: {reason}")
        stack.enter_context(on_core(our_core))
        results = []
        for connections, streams in SHAPES:
            try:
                loads = {
                    name: Load(place, REQUESTS[name], connections, streams)
                    for name, place in places.items()
                }
            except pytest.skip.Exception as reason:
                options.absent.add(f"h2load: {reason}")
                break
            results += compare(
                f"serving -c{connections} -m{streams}",
                [sampled(name, load) for name, load in loads.items()],
                1,
                max(1, options.rounds // ROUNDS_SHARE),
                operation="request",
                warm_up=0,
                load=connections * streams,
            )
    return results


def summary(results: list[Measured]) -> list[str]:
    return [f"{one.what}: {one.variant} {1e9 / one.p50:,.0f} requests a second" for one in results]
