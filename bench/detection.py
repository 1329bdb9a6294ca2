"""How soon is a dead connection found, and a request that comes after its death answered?

    python -m bench.detection [--phases N] [--json FILE]

A relay freezes a live connection, each time at another phase of its PINGs' cycle (its kernel goes
on acknowledging, so nothing but a PING can tell), and lets new connections in.  R = P = 1 s,
stale_after 0.5 s, jitter off.  Measured from the freeze, on the pool's own clock:

    found      until the connection is DEAD: at least P, at most R + P, by the policy
    answered   a GET made on the connection once it is stale: until its answer, which has come by
               another one.  At most the soft deadline (here as long as P) and one dial

The phases are lived side by side, each with a pool and a relay of its own.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from statistics import median
from typing import Any, NamedTuple

from h2lite import ConnectionChanged, ConnectionPool, HealthPolicy
from h2lite.relay import Relay
from tests.running import serving

R_S = P_S = 1.0
STALE_AFTER_S = 0.5
LATE_S = 0.02  # what the loop may add
PHASES = 20
ATTEMPTS_AT_ONCE = 10
POLICY = HealthPolicy(
    ping_after_idle=R_S, ping_timeout=P_S, stale_after=STALE_AFTER_S, jitter=False
)
PATIENCE_S = 10.0


class Found(NamedTuple):
    """Seconds from the freeze."""

    found: float
    cause: str
    answered: float


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


def measure(phases: int = PHASES) -> list[Found]:
    """Every phase once, from 0 to just below R."""
    with serving() as server, ThreadPoolExecutor(ATTEMPTS_AT_ONCE) as threads:
        every = [index / phases for index in range(phases)]
        return list(threads.map(lambda phase: live(phase, server.port), every))


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
    parser.add_argument("--phases", type=int, default=PHASES)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    results = measure(options.phases)
    print(text(results))
    if options.json:
        with open(options.json, "w") as file:
            json.dump([result._asdict() for result in results], file, indent=1)


if __name__ == "__main__":
    main()
