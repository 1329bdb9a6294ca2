"""Seconds of what `make soak` does for minutes, and what it is worth: it finds what is broken."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from .crowd import CHECKED, SILENCE_S_MAX, lacking
from .load import SAMPLES_MIN
from .soak import CLOSE_S_MAX, Scale

pytestmark = pytest.mark.scenario

ENDS_S = 150.0  # a call that hangs is told after 60


def soak(*arguments: str, plant: str = "") -> tuple[int, str]:
    """Exit code and output; `plant` is run before, in the same process."""
    run = f"{plant}\nimport os, tests.soak\ncode = tests.soak.main()\n"
    run += "tests.soak.sys.stdout.flush()\nos._exit(code)"
    done = subprocess.run(
        [sys.executable, "-bb", "-c", run, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=ENDS_S,
    )
    return done.returncode, done.stdout


@pytest.mark.timeout(ENDS_S + 10)
def test_soak():
    """Fifty threads share one pool while connections are frozen, reset, slowed and drained."""
    code, told = soak("--minutes", "0.0833")

    print(told)
    assert told.endswith(": no faults\n")
    assert code == 0


@pytest.mark.timeout(ENDS_S + 10)
def test_connect_and_kill():
    """200 connections are made, used and killed; `--cycles 10000` makes more."""
    code, told = soak("--cycles", "200")

    print(told)
    assert told.endswith(": no faults\n")
    assert code == 0


def test_pool_check_scale():
    """200 connections checked every second; `--connections 1000` looks at more."""
    if reason := lacking(200):
        pytest.skip(reason)

    seen = Scale(200, 5.0)

    print(seen.text())
    assert seen.faults == []
    assert (len(seen.pings), seen.stats["connections"], seen.stats["deaths"]) == (200, 200, {})
    assert CHECKED.ping_after_idle == 1.0
    assert min(seen.pings) >= 4
    assert seen.silence_s < SILENCE_S_MAX
    assert seen.close_s < CLOSE_S_MAX


def load_here() -> None:
    if reason := lacking(100):
        pytest.skip(reason)


@pytest.mark.timeout(ENDS_S + 10)
def test_load(tmp_path):
    """Full load on 100 connections that are checked every second; `make soak` has 1000."""
    load_here()
    code, told = soak(
        *("--load", "100", "--minutes", "0.0833", "--json", str(tmp_path / "soak.json"))
    )

    print(told)
    assert told.endswith(": no faults\n")
    assert code == 0
    kept = json.loads((tmp_path / "soak.json").read_text())
    assert (kept["job"], kept["connections"], kept["faults"]) == ("soak", 100, [])
    assert len(kept["samples"]) == SAMPLES_MIN
    assert sum(sample["requests_per_s"] for sample in kept["samples"]) > 0
    assert kept["samples"][-1]["suspects"] == 0
    assert kept["samples"][-1]["pings_acked"] > 300


PLANTS = {
    "a request stays in its table": (
        """
from h2lite.pool import Pool
from h2lite.member import Site
whole = Pool._close_call
def close(self, call):
    site, kept = call.site, call.number % 50 == 0
    whole(self, call)
    if kept:
        site.calls[call] = None
Pool._close_call = close
""",
        "left behind: {'requests': ",
    ),
    "memory is kept for each request": (
        """
from h2lite.call import Call
kept, made = [], Call.__init__
def init(self, *arguments, **options):
    kept.append(bytes(20000))
    made(self, *arguments, **options)
Call.__init__ = init
""",
        "memory grew by ",
    ),
    "a descriptor is left open": (
        """
import os
from h2lite.transport import Transport
whole = Transport.close
def close(self):
    os.dup(0)
    whole(self)
Transport.close = close
""",
        " descriptors, then ",
    ),
    "a caller is not woken": (
        """
from h2lite.engine import Engine
tests.soak.HANG_S = 3.0
whole = Engine.wait
def wait(self, done, item=None, *arguments, **options):
    while getattr(item, "number", 0) >= 50:
        tests.soak.time.sleep(0.1)
    return whole(self, done, item, *arguments, **options)
Engine.wait = wait
""",
        " has waited for 3 s",
    ),
    "a request is counted twice": (
        """
from h2lite.pool import Pool
whole = Pool.request
def request(self, call, now):
    whole(self, call, now)
    self.counters["requests"] += call.number == 50
Pool.request = request
""",
        "unsure), counted {'requests': ",
    ),
    "a response has another's content": (
        """
from h2lite.pool import Pool
whole = Pool.take_chunk
def take(self, call, now):
    chunk = whole(self, call, now)
    return chunk and (chunk.replace(b".", b"!") if call.number >= 50 else chunk)
Pool.take_chunk = take
""",
        "Broken: 200 b'",
    ),
    "an exception is not of the tree": (
        """
from h2lite.client import Response
whole = Response.read
def read(self):
    if self._exchange.call.number >= 50:
        raise KeyError("of nobody's")
    return whole(self)
Response.read = read
""",
        "KeyError: ",
    ),
}


@pytest.mark.timeout(ENDS_S + 10)
@pytest.mark.parametrize("plant", PLANTS)
def test_the_soak_finds(plant):
    hurry = "import tests.soak\ntests.soak.CALM_S = 4.0"
    code, told = soak("--minutes", "0.05", plant=hurry + PLANTS[plant][0])

    assert PLANTS[plant][1] in told
    assert code == 1


PLANTS_OF_LOAD = {
    "memory is kept for each request": (
        PLANTS["memory is kept for each request"][0],
        "memory grew by ",
    ),
    "an object is kept for each check": (
        """
from h2lite.health import Health
kept, whole = [], Health.wrote
def wrote(self, now, took, queued):
    kept.append([now])
    whole(self, now, took, queued)
Health.wrote = wrote
""",
        " more objects than there were",
    ),
    "connections are suspected": (
        """
from h2lite.health import Health
Health.soft_s = property(lambda self: 1e-6)
""",
        "suspected, falsely suspected or dead",
    ),
    "a connection is not checked": (
        """
from h2lite.health import Health
whole = Health._probe_deadline
def probe_deadline(self):
    due = whole(self)
    return None if due is None else due + 4.0
Health._probe_deadline = probe_deadline
""",
        "a check was missed",
    ),
}


@pytest.mark.timeout(ENDS_S + 10)
@pytest.mark.parametrize("plant", PLANTS_OF_LOAD)
def test_the_load_finds(plant):
    load_here()
    code, told = soak("--load", "100", "--minutes", "0.0833", plant=PLANTS_OF_LOAD[plant][0])

    assert PLANTS_OF_LOAD[plant][1] in told
    assert code == 1
