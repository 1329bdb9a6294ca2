"""How soon is a dead connection found, and a request that comes after its death answered?

    python -m bench.detection [--phases N] [--json FILE]

A relay freezes a live connection, each time at another phase of its PINGs' cycle (its kernel goes
on acknowledging, so nothing but a PING can tell), and lets new connections in.  R = P = 1 s.

Timed: from the freeze,

    found      until the connection is given up: at least P, at most R + P, by the policy
    late       how much of that is beyond R + P

and from the request, which is made on the connection 0.5 s after the freeze, and at once again
whenever it fails:

    answered   until its answer, which has come by another connection

h2lite has jitter off, and stale_after at 0.5 s, so that it holds that request back; the others are
told the same R and P (watchers.py says how), and have no stale_after.  httpx has no PINGs: all it
has is a request's timeout, PATIENCE_S here, after which that connection is used again; for it
`found` is how long it was looked at without having found anything.

The phases of one client are lived side by side, each with a relay of its own, and the peers' each
with a process of its own.

Left out: a peer whose kernel is gone too, or has reset the connection, which other means can tell.
"""

from __future__ import annotations

import argparse
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pytest

from h2lite import ConnectionChanged, ConnectionPool, HealthPolicy, Reply, Request
from h2lite.relay import Relay
from tests.peers.servers import STOP_S_MAX, Ground
from tests.running import serving

from .figures import FOLDER, FREE, SECONDS, Measured, Options, measured, median_ratio
from .go_programs import GO_SOURCES
from .variant import OURS

R_S = P_S = 1.0
STALE_AFTER_S = 0.5
LATE_S = 0.02  # what the loop may add
PHASES = 20
ROUNDS_SHARE = 10  # of the rounds asked for, and no more phases than PHASES
ATTEMPTS_AT_ONCE = 10
POLICY = HealthPolicy(
    ping_after_idle=R_S, ping_timeout=P_S, stale_after=STALE_AFTER_S, jitter=False
)
PATIENCE_S = 6.0
START_S_MAX = 30.0
PINNING = FREE
GO, GRPCIO, HTTPX = "go", "grpcio", "httpx"
MODULES = {GRPCIO: "grpc", HTTPX: "httpx"}
FINDERS = (GO, GRPCIO)  # of the peers
GRPC_PATH = "/bench/ask"  # of watchers.py


class Found(NamedTuple):
    """Seconds from the freeze."""

    found: float
    cause: str
    answered: float


def handler(request: Request) -> Reply:
    """An answer to whoever asks: to grpcio an empty message, and that all is well."""
    if request.path == GRPC_PATH:
        fields = [("content-type", "application/grpc")]
        return Reply(200, bytes(5), fields, trailers=[("grpc-status", "0")])
    return Reply(200, b"hello\n")


# -- h2lite --------------------------------------------------------------------------------------


def live(phase: float, port: int) -> Found:
    """One freeze, `phase` of R after an octet came: (found, cause) idle; answered with a GET."""
    with ThreadPoolExecutor(2) as threads:
        idle = threads.submit(freeze, phase, port, False)
        asked = threads.submit(freeze, phase, port, True)
        found, cause, _ = idle.result()
        return Found(found, cause, asked.result().answered)


def freeze(phase: float, port: int, asks: bool) -> Found:
    died = threading.Event()
    deaths: list[Any] = []

    def on_event(event: Any) -> None:
        if isinstance(event, ConnectionChanged) and event.after == "DEAD":
            deaths.append(event)
            died.set()

    with ExitStack() as stack:
        relay = stack.enter_context(Relay(("127.0.0.1", port)))
        pool = stack.enter_context(ConnectionPool(health=POLICY, on_event=on_event))
        url = f"http://127.0.0.1:{relay.port}/"
        pool.get(url)
        time.sleep(phase * R_S)
        relay.freeze()
        frozen_at = relay.frozen_at
        assert frozen_at is not None
        answered = 0.0
        if asks:
            time.sleep(STALE_AFTER_S)
            asked_at = pool.clock()
            assert pool.get(url).status == 200
            answered = pool.clock() - asked_at
        assert died.wait(PATIENCE_S)
        (death,) = deaths
        return Found(death.at - frozen_at, death.cause, answered)


# -- the peers -----------------------------------------------------------------------------------


class Watching:
    """A peer's process, and when it said what: seconds on time.time's clock."""

    def __init__(self, argv: list[str]) -> None:
        self._process = subprocess.Popen(
            argv,
            cwd=FOLDER.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._heard: dict[str, queue.Queue[float]] = {
            word: queue.Queue() for word in ("ready", "dead", "answered", "unanswered")
        }
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            word, *rest = line.split()
            self._heard[word].put(int(rest[0]) / 1e9 if rest else time.time())

    def hear(self, word: str, patience: float) -> float | None:
        """When it was said; None: it was not, in so many seconds."""
        try:
            return self._heard[word].get(timeout=patience)
        except queue.Empty:
            return None

    def ask(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("ask\n")
        self._process.stdin.flush()

    def close(self) -> None:
        self._process.kill()
        self._process.wait(STOP_S_MAX)
        self._thread.join(STOP_S_MAX)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def live_of_peer(name: str, argv: list[str], phase: float, port: int) -> Found:
    """As `live`; where nothing is found or answered in PATIENCE_S, so many seconds."""
    with ThreadPoolExecutor(2) as threads:
        idle = threads.submit(freeze_peer, argv, phase, port, False)
        asked = threads.submit(freeze_peer, argv, phase, port, True)
        found, answered = idle.result(), asked.result()
    if name in FINDERS and not P_S - LATE_S <= found < PATIENCE_S:
        raise AssertionError(f"{name} has found a dead connection after {found} s")
    return Found(found, "", answered)


def freeze_peer(argv: list[str], phase: float, port: int, asks: bool) -> float:
    """Seconds until the connection is found dead, or an answer has come."""
    with ExitStack() as stack:
        relay = stack.enter_context(Relay(("127.0.0.1", port)))
        url = f"http://127.0.0.1:{relay.port}/"
        peer = Watching([url if word == "URL" else word for word in argv])
        stack.callback(peer.close)
        if peer.hear("ready", START_S_MAX) is None:
            raise AssertionError(f"{argv} is not ready")
        time.sleep(phase * R_S)
        relay.freeze()
        began = time.time()
        if not asks:
            found_at = peer.hear("dead", PATIENCE_S)
            return PATIENCE_S if found_at is None else found_at - began
        time.sleep(STALE_AFTER_S)
        asked_at = time.time()
        peer.ask()
        answered_at = peer.hear("answered", 2 * PATIENCE_S)
        return 2 * PATIENCE_S if answered_at is None else answered_at - asked_at


def command_of(name: str, ground: Ground) -> list[str]:
    """A peer's command with URL in place of the URL; skips the test where it is not installed."""
    policy = [f"{R_S}", f"{P_S}"]
    if name == GO:
        return [ground.go_program("watcher", GO_SOURCES), "URL", *policy]
    pytest.importorskip(MODULES[name])
    return [sys.executable, "-m", f"{__package__}.watchers", name, "URL", *policy, f"{PATIENCE_S}"]


# -- the whole -----------------------------------------------------------------------------------


def freezes(phases: int = PHASES) -> list[Found]:
    """Every phase once, from 0 to just below R."""
    with serving(handler) as server, ThreadPoolExecutor(ATTEMPTS_AT_ONCE) as threads:
        every = [index / phases for index in range(phases)]
        return list(threads.map(lambda phase: live(phase, server.port), every))


def freezes_of_peer(name: str, argv: list[str], phases: int) -> list[Found]:
    with serving(handler) as server, ThreadPoolExecutor(ATTEMPTS_AT_ONCE) as threads:
        every = [index / phases for index in range(phases)]
        return list(
            threads.map(lambda phase: live_of_peer(name, argv, phase, server.port), every)
        )


def measure(options: Options) -> list[Measured]:
    """Every client's every phase; a round is a phase."""
    phases = max(2, min(PHASES, options.rounds // ROUNDS_SHARE))
    found = {OURS: freezes(phases)}
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(Path(folder))
        for name in (GO, GRPCIO, HTTPX) if options.peers else ():
            try:
                argv = command_of(name, ground)
            except pytest.skip.Exception as reason:
                options.absent.add(f"{name}: {reason}")
            else:
                found[name] = freezes_of_peer(name, argv, phases)
    results = []
    for what in ("found", "late", "answered"):
        of_ours = values_of(what, found[OURS])
        for name, lives in found.items():
            if what == "late" and name == HTTPX:
                continue  # nothing was found
            values = values_of(what, lives)
            results.append(
                measured(
                    what,
                    name,
                    values,
                    unit=SECONDS,
                    operation="freeze",
                    # Being late is best when it is 0, and nothing is twice as much as that.
                    to_floor=None if what == "late" else median_ratio(values, of_ours),
                    rounds=values,
                )
            )
    return results


def values_of(what: str, lives: list[Found]) -> list[float]:
    if what == "late":
        return [max(0.0, one.found - R_S - P_S) for one in lives]
    return [getattr(one, what) for one in lives]


def summary(results: list[Measured]) -> list[str]:
    return [
        f"{one.what}: {one.variant} {min(one.rounds):.3f} to {max(one.rounds):.3f} s"
        for one in results
    ]


def text(results: list[Found]) -> str:
    found = sorted(result.found for result in results)
    answered = sorted(result.answered for result in results)
    lines = [f"R = P = {R_S:g} s, {len(results)} phases; seconds from the freeze, or the request"]
    for what, values, least, most in (
        ("found", found, P_S, R_S + P_S),
        ("answered", answered, 0.0, P_S),
    ):
        late = max(0.0, values[-1] - most)
        lines.append(
            f"{what:9} min {values[0]:.3f}  median {median(values):.3f}  max {values[-1]:.3f}"
            f"   by the policy {least:g} to {most:g}; late by {late * 1e3:.1f} ms at most"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.detection")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--phases", type=int, default=PHASES)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    results = freezes(options.phases)
    print(text(results))
    if options.json:
        with open(options.json, "w") as file:
            json.dump([result._asdict() for result in results], file, indent=1)


if __name__ == "__main__":
    main()
