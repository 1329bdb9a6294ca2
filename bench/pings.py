"""PING round trips: every client against every server, in cleartext and under TLS.

Timed: one PING and its ack on an open connection of an idle client, back to back.
ping_clients.py and ping_peers.py say what each client does; all ask the same server in the same
way, and the first one is the floor.  The servers are echo.py and nghttpd.  Left out: connecting,
the TLS handshake, SETTINGS, and, since all run on one core, the waking of an idle one:
ping_split.py has that.

"rtt" lines, see ping_rtt.py: what PingResult.rtt and the health check report beside the wire.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.peers.servers import CLEAR, TLS, Ground

from . import ping_rtt
from .figures import SAME, SPLIT, Measured, Options, compare, cores, on_core
from .go_programs import GO_SOURCES
from .ping_clients import (
    ALONE,
    CORE,
    EMBEDDED,
    PUBLIC,
    SPINNING,
    THREADED,
    AloneClient,
    Client,
    CoreClient,
    EmbeddedClient,
    FloorClient,
    PublicClient,
    SpinningClient,
    ThreadedClient,
)
from .ping_peers import (
    GO,
    H2,
    H2_ASYNCIO,
    JH2,
    GoPinger,
    H2AsyncioClient,
    H2Client,
    Jh2Client,
)
from .ping_servers import ECHO, NGHTTPD, Target, target
from .variant import FLOOR, Sampled, Variant

PINNING = SAME
CALLS = 100  # a round

CLIENTS: dict[str, type[Client]] = {
    FLOOR: FloorClient,
    CORE: CoreClient,
    PUBLIC: PublicClient,
    THREADED: ThreadedClient,
    ALONE: AloneClient,
    EMBEDDED: EmbeddedClient,
    SPINNING: SpinningClient,
    H2: H2Client,
    JH2: Jh2Client,
}
OURS = (FLOOR, CORE, PUBLIC, THREADED, ALONE, EMBEDDED)
# Who looks again and again needs a core for it: on one core the server would wait for that.
OURS_APART = (*OURS, SPINNING)
PEERS = (GO, H2, H2_ASYNCIO, JH2)
LIBRARIES = {H2: "h2", H2_ASYNCIO: "h2", JH2: "jh2"}  # what a peer needs of PyPI


@contextmanager
def variant(name: str, ground: Ground, place: Target) -> Iterator[Variant | Sampled]:
    """A connected client.  Raises ModuleNotFoundError or skips where a peer is not installed."""
    if name in CLIENTS:
        client = CLIENTS[name](place)
        try:
            yield Variant(name, client.ping, client.holds)
        finally:
            client.close()
        return
    sampled: GoPinger | H2AsyncioClient
    if name == GO:
        sampled = GoPinger(ground.go_program("pinger", GO_SOURCES), place)
    else:
        sampled = H2AsyncioClient(place)
    try:
        yield Sampled(name, sampled.samples)
    finally:
        sampled.close()


def measure(options: Options, pinning: str = PINNING) -> list[Measured]:
    """Every client against every server, then what is reported beside the wire."""
    results = []
    servers = [ECHO, *([NGHTTPD] if options.peers else [])]
    ours, theirs = cores(pinning)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        stack.enter_context(on_core(ours))
        ground = Ground(Path(folder))
        stack.callback(ground.stop)
        for server in servers:
            for security in (CLEAR, TLS):
                try:
                    with on_core(theirs):
                        place = target(ground, server, security)
                except pytest.skip.Exception as reason:
                    options.absent.add(f"{server}: {reason}")
                    continue
                what = f"{server} {security}"
                clients = OURS_APART if pinning == SPLIT else OURS
                results += compare_clients(f"ping {what}", clients, ground, place, options)
                results += ping_rtt.measure(f"rtt {what}", place, CALLS, options.rounds)
    return results


def compare_clients(
    what: str, clients: Sequence[str], ground: Ground, place: Target, options: Options
) -> list[Measured]:
    with ExitStack() as stack:
        variants = []
        for client in [*clients, *(PEERS if options.peers else ())]:
            try:
                variants.append(stack.enter_context(variant(client, ground, place)))
            except (ModuleNotFoundError, pytest.skip.Exception) as error:
                options.absent.add(f"{client}: {error}")
        return compare(what, variants, CALLS, options.rounds, operation="PING")
