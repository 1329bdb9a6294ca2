"""Full load on many connections, each checked every second, for as long as you like.

    python -m tests.soak --load 1000 --minutes 60 [--json FILE]

A connection that is used needs no PING, so the load moves over them: for a second each thread asks
some connections for all they give, then the next ones, and all others are silent and checked.
Requests differ, as do their header fields' places in HPACK's tables.  Throughput and memory are to
stay as they are, every second to have its checks, and no connection to be suspected of anything.

The server is crowd_server.py, in a process of its own.
"""

from __future__ import annotations

import gc
import itertools
import json
import threading
import time
from pathlib import Path
from statistics import fmean
from typing import Any

from h2lite.client import ConnectionPool
from h2lite.errors import H2liteError

from .crowd import CHECKED, CONTENT, crowd_server, crowd_urls, lacking, resident_octets

THREADS = 4
CONNECTIONS_A_THREAD = 4  # under load at a time
REQUESTS_AT_ONCE = 16  # on each of them
MOVES_EVERY_S = 1.0
SAMPLES_MIN = 20  # and one every ten seconds at least
SAMPLE_EVERY_S = 10.0
WARM_UP_SHARE = 0.1  # of the time, at most, for the load to have been everywhere
HANG_S = 60.0

# From the first tenth of the time to the last one.
THROUGHPUT_MIN = 0.8
JUDGED_S_MIN = 60.0  # in less, a tenth is no longer than what else a machine does for a moment
# An hour makes ten million requests and three million checks, so two octets a request are found.
RESIDENT_GROWTH_MAX = 16 * 2**20
# What is under way comes and goes by thousands; an object in a thousand requests is found.
OBJECTS_GROWTH_MAX = 10_000
# A check comes a second after the last octet, and later by what a busy process adds.
CHECKS_MIN = 0.7
SILENCE_S_MAX = 3.0  # so long that at least one was missed, though a busy machine stood still
FAULTS_MAX = 20


def tenths(samples: list[dict[str, Any]], name: str) -> tuple[float, float]:
    """A value's mean in the first tenth of the samples, and in the last one."""
    values = [sample[name] for sample in samples]
    tenth = max(1, len(values) // 10)
    return fmean(values[:tenth]), fmean(values[-tenth:])


def growth(samples: list[dict[str, Any]], name: str) -> float:
    first, last = tenths(samples, name)
    return last - first


def throughput_kept(samples: list[dict[str, Any]]) -> float:
    """How many times the first tenth's the last one's is."""
    first, last = tenths(samples, "requests_per_s")
    return last / first if first else 0.0


def judge(count: int, samples: list[dict[str, Any]]) -> list[str]:
    """What did not hold of so many connections."""
    if not samples:
        return ["nothing was seen"]
    last = samples[-1]
    silence = max(sample["silence_s"] for sample in samples)
    idle = max(0, count - THREADS * CONNECTIONS_A_THREAD)
    checks = fmean(sample["checks_per_s"] for sample in samples)
    kept = throughput_kept(samples)
    resident, objects = growth(samples, "resident_octets"), growth(samples, "objects")
    found = {
        f"{last['connections']} connections": last["connections"] != count,
        f"suspected, falsely suspected or dead: {last}": (
            last["suspects"] or last["false_suspects"] or last["deaths"]
        ),
        f"a check was missed: {silence:.2f} s of silence": silence >= SILENCE_S_MAX,
        f"{checks:.0f} checks a second of {idle} connections that nobody used": (
            checks < CHECKS_MIN * idle / CHECKED.ping_after_idle
        ),
        f"throughput: {kept:.2f} of what it was": (
            last["at"] >= JUDGED_S_MIN and kept < THROUGHPUT_MIN
        ),
        f"memory grew by {resident / 2**20:.1f} MiB": resident > RESIDENT_GROWTH_MAX,
        f"{objects:.0f} more objects than there were": objects > OBJECTS_GROWTH_MAX,
    }
    return [text for text, holds in found.items() if holds]


class Load:
    """One run, over when it is made.

    samples   what was seen, one after the other, ready for JSON:
              at (seconds), requests_per_s, checks_per_s, resident_octets, objects (as the garbage
              collector counts them), silence_s (the longest of any connection at that instant),
              and, since the beginning, pings_sent, pings_acked, suspects, false_suspects, deaths
    faults    what did not hold
    """

    def __init__(self, count: int, seconds: float) -> None:
        self.count = count
        self.seconds = seconds
        self.samples: list[dict[str, Any]] = []
        self.faults: list[str] = []
        if reason := lacking(count):
            self.faults.append(reason)
            return
        self._over = False
        self._requests = [0] * THREADS  # answered
        self._turns = itertools.count()
        with crowd_server() as port, ConnectionPool(health=CHECKED, idle_close=0.0) as pool:
            self._pool = pool
            self._urls = crowd_urls(port, count)
            for url in self._urls:
                pool.connect(url)
            threads = [
                threading.Thread(target=self._load, args=(number,), name=f"load {number}")
                for number in range(THREADS)
            ]
            for thread in threads:
                thread.start()
            try:
                self._watch()
            finally:
                self._over = True
                for thread in threads:
                    thread.join(HANG_S)
        self.faults += judge(count, self.samples)

    # -- the load ----------------------------------------------------------------------------

    def _load(self, number: int) -> None:
        try:
            while not self._over and len(self.faults) < FAULTS_MAX:
                begin = next(self._turns) * CONNECTIONS_A_THREAD
                places = range(begin, begin + CONNECTIONS_A_THREAD)
                urls = [self._urls[place % self.count] for place in places]
                self._ask(number, urls, time.monotonic() + MOVES_EVERY_S)
        except Exception as error:  # noqa: BLE001  told at the end
            self.faults.append(f"{threading.current_thread().name}: {error!r}")

    def _ask(self, number: int, urls: list[str], until: float) -> None:
        """All that these connections give, until then."""
        while not self._over and time.monotonic() < until:
            first = self._requests[number]
            futures = [
                self._pool.submit("GET", f"{url}/{number}/{first + index}")
                for url in urls
                for index in range(REQUESTS_AT_ONCE)
            ]
            for future in futures:
                try:
                    response = future.result(HANG_S)
                except H2liteError as error:
                    self.faults.append(f"a request ended in {error!r}")
                    continue
                if response.status != 200 or response.read() != CONTENT:
                    self.faults.append(f"a response was {response!r}, {response.read()[:40]!r}")
            self._requests[number] += len(futures)

    # -- what is seen ------------------------------------------------------------------------

    def _watch(self) -> None:
        round_s = self.count / (THREADS * CONNECTIONS_A_THREAD) * MOVES_EVERY_S
        time.sleep(min(round_s, WARM_UP_SHARE * self.seconds))
        every = min(SAMPLE_EVERY_S, self.seconds / SAMPLES_MIN)
        began = then = time.monotonic()
        requests, acked = sum(self._requests), self._pool.stats()["pings_acked"]
        ends = began + self.seconds
        while then < ends - every / 2 and len(self.faults) < FAULTS_MAX:
            due = began + (len(self.samples) + 1) * every
            time.sleep(max(0.0, due - time.monotonic()))
            now, before = time.monotonic(), (requests, acked)
            requests, stats = sum(self._requests), self._pool.stats()
            acked = stats["pings_acked"]
            gc.collect()  # what only waits for it is no growth
            heard_at = min(member.health.heard_at for member in self._pool._pool.members)
            sample = {
                "at": round(now - began, 3),
                "requests_per_s": round((requests - before[0]) / (now - then), 1),
                "checks_per_s": round((acked - before[1]) / (now - then), 1),
                "resident_octets": resident_octets(),
                "objects": len(gc.get_objects()),
                "silence_s": round(self._pool.clock() - heard_at, 3),
                "deaths": sum(stats["deaths"].values()),
            }
            for name in ("connections", "pings_sent", "pings_acked", "suspects", "false_suspects"):
                sample[name] = stats[name]
            self.samples.append(sample)
            then = now

    # -- what there is to tell ---------------------------------------------------------------

    def text(self) -> str:
        if not self.samples:
            return f"{self.count} connections, nothing was seen"
        last = self.samples[-1]
        rates = [sample["requests_per_s"] for sample in self.samples]
        checks = fmean(sample["checks_per_s"] for sample in self.samples)
        return (
            f"{self.count} connections, {last['at']:.0f} s: {fmean(rates):.0f} requests a second"
            f" ({min(rates):.0f} to {max(rates):.0f}, the last tenth"
            f" {throughput_kept(self.samples):.2f} of the first), {checks:.0f} checks a second\n"
            f"{last['resident_octets'] / 2**20:.1f} MiB resident"
            f" ({growth(self.samples, 'resident_octets') / 2**20:+.2f}), {last['objects']} objects"
            f" ({growth(self.samples, 'objects'):+.0f}); {last['pings_sent']} PINGs,"
            f" {last['pings_acked']} acks; {last['suspects']} suspects,"
            f" {last['false_suspects']} of them falsely, {last['deaths']} deaths;"
            f" {max(sample['silence_s'] for sample in self.samples):.2f} s of silence at most"
        )

    def write(self, path: Path) -> None:
        """The samples as JSON, a line for each, with what they mean nothing without."""
        from bench.figures import FREE, circumstances

        whole = {
            "job": "soak",
            **circumstances(FREE),
            "connections": self.count,
            "seconds": self.seconds,
            "faults": self.faults,
        }
        head = json.dumps(whole, indent=1).removesuffix("\n}")
        lines = ",\n".join("  " + json.dumps(sample) for sample in self.samples)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{head},\n "samples": [\n{lines}\n ]\n}}\n')
