"""What a client is told of a round trip beside what the wire shows, on the same PINGs.

    wire           from the tap's sight of the PING to its sight of the ack; the tap is called as
                   soon as `send` and `recv` have returned
    rtt            PingResult.rtt
    rtt - wire     their difference, PING by PING
    checks - wire  after some health checks: the connection's smoothed rtt, from which a check's
                   soft deadline is made, less the wire's times smoothed alike (RFC 6298 §2)

Left out: what the kernel takes before and after those two calls, which no client sees.
"""

from __future__ import annotations

import time
from statistics import median

import h2lite
from h2lite.frames import FRAME_HEADER_SIZE, PingFrame

from .figures import Measured, measured, median_ratio
from .ping_servers import TIMEOUT_S, Target

WIRE, RTT, RTT_LESS_WIRE, CHECKS_LESS_WIRE = "wire", "rtt", "rtt - wire", "checks - wire"
CHECK_EVERY_S = 0.005
CHECKED_S = 0.1  # a round
ROUNDS_A_CHECKED_ONE = 10
NS_A_SECOND = 1e9
PING_SIZE = FRAME_HEADER_SIZE + 8
TYPE_AT = 3  # in a frame header


class WireTap:
    """Nanoseconds between each PING and its ack; one at a time."""

    def __init__(self) -> None:
        self.took: list[int] = []
        self._sent_at = 0

    def __call__(self, received: bool, octets: bytes) -> None:
        now = time.perf_counter_ns()
        # Nothing else crosses an idle connection, once its first PING has been answered.
        if len(octets) != PING_SIZE or octets[TYPE_AT] != PingFrame.TYPE:
            return
        if received:
            self.took.append(now - self._sent_at)
        else:
            self._sent_at = now


def measure(what: str, place: Target, calls: int, rounds: int) -> list[Measured]:
    pairs = pinged(place, calls, rounds)
    values = {
        WIRE: [[wire for wire, _ in of_round] for of_round in pairs],
        RTT: [[rtt for _, rtt in of_round] for of_round in pairs],
        RTT_LESS_WIRE: [[rtt - wire for wire, rtt in of_round] for of_round in pairs],
        CHECKS_LESS_WIRE: [[one] for one in checked(place, -(-rounds // ROUNDS_A_CHECKED_ONE))],
    }
    medians = {name: [median(of_round) for of_round in values[name]] for name in values}
    return [
        measured(
            what,
            name,
            [value for of_round in values[name] for value in of_round],
            operation="PING",
            # A difference has no ratio.
            to_floor=median_ratio(medians[name], medians[WIRE]) if name in (WIRE, RTT) else None,
            rounds=medians[name],
        )
        for name in values
    ]


def pinged(place: Target, calls: int, rounds: int) -> list[list[tuple[float, float]]]:
    """(wire, rtt) in nanoseconds of each PING, by rounds."""
    tap = WireTap()
    pairs: list[list[tuple[float, float]]] = []
    with h2lite.connect(place.url, cafile=place.cafile, timeout=TIMEOUT_S, tap=tap) as connection:
        connection.ping(TIMEOUT_S)  # its ack may have come along with that of SETTINGS
        for _ in range(rounds):
            tap.took.clear()
            told = [connection.ping(TIMEOUT_S).rtt for _ in range(calls)]
            rtts = [rtt * NS_A_SECOND for rtt in told if rtt is not None]
            pairs.append([*zip(tap.took, rtts, strict=True)])
    return pairs


def checked(place: Target, rounds: int) -> list[float]:
    """Nanoseconds by which the smoothed rtt differs from the wire's, after each round of checks."""
    tap = WireTap()
    policy = h2lite.HealthPolicy(ping_after_idle=CHECK_EVERY_S, jitter=False)
    differences = []
    # Without a thread no check is under way between two calls of `watch`.
    with h2lite.connect(
        place.url,
        cafile=place.cafile,
        timeout=TIMEOUT_S,
        health=policy,
        background=False,
        tap=tap,
    ) as connection:
        connection.ping(TIMEOUT_S)
        assert connection.rtt is not None
        wire = connection.rtt * NS_A_SECOND  # both begin at the same sample
        for _ in range(rounds):
            tap.took.clear()
            connection.watch(CHECKED_S)
            if not tap.took:
                raise AssertionError(f"no check in {CHECKED_S} s")
            wire = smoothed(wire, tap.took)
            differences.append(connection.rtt * NS_A_SECOND - wire)
    return differences


def smoothed(before: float, samples: list[int]) -> float:
    """Drawn by each sample an eighth of the way to it."""
    for sample in samples:
        before += (sample - before) / 8
    return before
