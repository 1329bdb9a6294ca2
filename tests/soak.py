"""A pool's life with real threads and sockets while everything around it breaks.

    python -m tests.soak --minutes 10              fifty threads share one pool (`make soak-chaos`)
    python -m tests.soak --load 1000 --minutes 10  full load, and checks every second (`make soak`)
    python -m tests.soak --connections 1000        each is checked every second
    python -m tests.soak --cycles 10000            connect, use, kill

What is decided at which instant is the simulation's to judge (`simulation.py`); here it is threads,
descriptors, memory and counters.  The seed repeats what is asked for and what is broken, not the
order in which threads come to it.  Each way ends by itself; the exit code is 1 when anything was
found, and where a call hangs every thread's stack is shown.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import io
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import tracemalloc
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from random import Random, SystemRandom
from socketserver import ThreadingMixIn
from typing import Any

import h2lite
from h2lite.certs import make_certificate
from h2lite.client import (
    ConnectionChanged,
    ConnectionPool,
    PooledConnection,
    RequestMoved,
    RequestRetried,
    Response,
)
from h2lite.errors import ConnectionLost, H2liteError, UsageError
from h2lite.exchange import Reply, Request
from h2lite.health import HealthPolicy
from h2lite.relay import Relay
from h2lite.server import Server
from h2lite.timeout import Timeout
from h2lite.transport import server_context

from .crowd import CHECKED, SILENCE_S_MAX, crowd_urls, lacking, resident_octets
from .load import Load

# Deaths are found in less than a second, so that a minute sees hundreds of them.
HEALTH = HealthPolicy(
    ping_after_idle=0.3,
    ping_timeout=0.5,
    stale_after=0.2,
    connect_timeout=1.5,
    write_stall=0.8,
    peer_not_reading=2.0,
)
STEPS = Timeout(read=3.0, write=3.0, pool=3.0)
HANG_S = 60.0  # no call may last as long: each has limits that are far below
OVERDUE_S_MAX = 5.0  # beyond a call's own total timeout; two busy cores cost a second at times
CALM_S = 10.0  # for what is under way to end once nobody asks for anything
REST_EVERY_S = 60.0
FAULTS_SHOWN_MAX = 20

# What may be left of memory from rest to rest, when nothing is under way and no connection is
# open.  What the interpreter keeps for later comes and goes by 100 KiB.  Ten minutes make 100 000
# requests on 7 000 connections, so a leak of 6 octets a request or of 80 a connection is found.
GROWTH_OCTETS_MAX = 524288
# What is not traced, OpenSSL's memory for one, shows here alone, beneath what the allocator keeps
# of its many threads' arenas: 50 MiB more after ten minutes than after half a one.
RESIDENT_GROWTH_MAX = 128 * 2**20
# A cycle that left one object behind would leave 16 octets or more.
CYCLE_GROWTH_OCTETS_MAX = 131072


class Broken(Exception):
    """Something did not hold."""


def wait_until(done: Callable[[], object], what: Callable[[], object]) -> None:
    """Wait for what must come soon.  Raises Broken with `what` there was instead."""
    deadline = time.monotonic() + CALM_S
    while not done():
        if time.monotonic() > deadline:
            raise Broken(str(what()))
        time.sleep(0.01)


class Faults:
    """What should not have happened, from any thread."""

    def __init__(self) -> None:
        self.count = 0
        self.texts: list[str] = []

    def add(self, text: str) -> None:
        self.count += 1
        if len(self.texts) < FAULTS_SHOWN_MAX:
            self.texts.append(text)

    def caught(self, error: BaseException, where: str) -> None:
        lines = traceback.format_exception(type(error), error, error.__traceback__)
        self.add(f"in {where}: {''.join(lines)}")

    def watch(self) -> None:
        """Hear of exceptions that nobody catches, and of resources that were not closed."""
        warnings.simplefilter("error")  # in a finalizer it comes to the hook of the unraisable
        sys.unraisablehook = lambda told: self.caught(
            told.exc_value or told.exc_type(), f"{told.err_msg or 'a finalizer of'} {told.object!r}"
        )
        threading.excepthook = lambda told: self.caught(
            told.exc_value or told.exc_type(), str(told.thread)
        )
        sys.excepthook = lambda kind, error, tb: self.caught(error, "a handler")


class Footprint:
    """What the process holds, when nothing is under way."""

    def __init__(self) -> None:
        gc.collect()
        self.descriptors = len(os.listdir("/dev/fd"))
        self.threads = sorted(thread.name for thread in threading.enumerate())
        self.octets = tracemalloc.get_traced_memory()[0]
        self.resident = resident_octets()

    def text(self) -> str:
        return (
            f"{self.descriptors} descriptors, {len(self.threads)} threads,"
            f" {self.octets / 2**20:.2f} MiB traced, {self.resident / 2**20:.0f} MiB resident"
        )

    def check(self, before: Footprint, octets_max: int | None) -> None:
        """Raise Broken where this is more than `before`; None: memory is not compared."""
        if self.descriptors != before.descriptors:
            raise Broken(f"{before.descriptors} descriptors, then {self.descriptors}")
        if self.threads != before.threads:
            raise Broken(f"threads {before.threads}, then {self.threads}")
        growth = self.octets - before.octets
        if octets_max is not None and growth > octets_max:
            raise Broken(f"memory grew by {growth} octets, {octets_max} at most")
        growth = self.resident - before.resident
        if octets_max is not None and growth > RESIDENT_GROWTH_MAX:
            raise Broken(f"the process grew by {growth} octets, {RESIDENT_GROWTH_MAX} at most")


def settled(before: Footprint, octets_max: int | None) -> Footprint:
    """The footprint, once what is ending has ended: kernel and threads take a moment."""
    deadline = time.monotonic() + CALM_S
    while True:
        now = Footprint()
        try:
            now.check(before, octets_max)
        except Broken:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return now


def tables(pool: ConnectionPool) -> dict[str, int]:
    """How much a pool has in each of its tables, but for connections that are merely open."""
    inner, engine = pool._pool, pool._engine
    with engine.lock:
        sites = list(inner._sites.values())
        members = inner.members
        links, dials = engine.driver.links, engine.driver._dials
        return {
            "requests": sum(len(site.calls) + len(site.queue) for site in sites),
            "on connections": sum(len(member.calls) + len(member.unsent) for member in members),
            "streams": sum(len(member.connection.streams) for member in members),
            "pings": sum(len(member.pings) for member in members),
            "watchers": len(engine.watchers) + len(engine.fed),
            "waiting threads": len(engine._waiting),
            "callbacks": len(engine._jobs) + engine._events_queued,
            "links of no connection": len(set(links) - set(members)),
            "dials of no connection": len(set(dials) - set(members)),
            "sources of nobody": len(engine.driver._members) - len(links) - len(dials),
        }


def closed_tables(pool: ConnectionPool) -> dict[str, int]:
    """What is left once all connections, or the pool itself, were closed."""
    driver = pool._engine.driver
    return {
        **tables(pool),
        "connections": len(pool._pool.members),
        "sources": len(driver._members),
        "links": len(driver.links),
        "dials": len(driver._dials),
    }


def empty(told: Callable[[], dict[str, int]]) -> None:
    wait_until(lambda: not any(told().values()), lambda: f"left behind: {told()}")


# -- what is asked, and the servers --------------------------------------------------------------


def content(tag: str, octets: int) -> bytes:
    """Content that no other request's is taken for."""
    return (tag.encode() * (octets // len(tag) + 1))[:octets]


def pieces(whole: bytes, size: int = 8192) -> Iterator[bytes]:
    for start in range(0, len(whole), size):
        yield whole[start : start + size]


def answer(request: Request) -> Reply:
    """/bytes/N/TAG, /stream/N/TAG in pieces, /slow/SECONDS/TAG, /echo/0/TAG."""
    _, what, number, tag = request.path.split("/")
    if what == "echo":
        return Reply(200, request.body)
    if what == "slow":
        return Reply(200, tag.encode(), delay=float(number))
    whole = content(tag, int(number))
    return Reply(200, whole if what == "bytes" else pieces(whole))


class _Http1Handler(BaseHTTPRequestHandler):
    """The same for HTTP/1.1."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length)
        if self.headers.get("transfer-encoding") == "chunked":
            body = self._read_chunks()
        request = Request([(b":method", self.command.encode())], body, "")
        request.path = self.path
        reply = answer(request)
        time.sleep(reply.delay)
        whole = reply.body if isinstance(reply.body, bytes) else b"".join(reply.body)
        self.send_response(200)
        self.send_header("content-length", str(len(whole)))
        self.end_headers()
        self.wfile.write(whole)

    do_POST = do_PUT = do_GET  # noqa: N815  the names that http.server looks for

    def _read_chunks(self) -> bytes:
        chunks = []
        while octets := int(self.rfile.readline() or b"0", 16):
            chunks.append(self.rfile.read(octets))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def log_message(self, *arguments: object) -> None:
        """Nobody asks."""


class _Http1Server(ThreadingMixIn, HTTPServer):
    daemon_threads = False  # so that server_close waits for them
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Http1Handler)
        self.port: int = self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that resets is no fault."""
        if not isinstance(sys.exc_info()[1], (OSError, ValueError)):
            sys.excepthook(*sys.exc_info())


class Target:
    """An origin: a server behind a relay that breaks what it carries."""

    name = "h2c"

    def __init__(self, ssl_context: Any = None) -> None:
        self.ssl_context = ssl_context
        self.retired: list[tuple[Server, threading.Thread]] = []
        self.restarts = 0
        self._serve(0)
        self.relay = Relay(("127.0.0.1", self.server.port), receive_buffer=65536)
        host = "https://localhost" if ssl_context else "http://127.0.0.1"
        self.url = f"{host}:{self.relay.port}"

    def _serve(self, port: int) -> None:
        self.server = Server(answer, port=port, ssl_context=self.ssl_context)
        self.thread = threading.Thread(target=self.server.serve_forever, name="server")
        self.thread.start()

    def restart(self, grace: float) -> None:
        """GOAWAY, and a new server on the same port, while the old one still finishes."""
        self.restarts += 1
        port = self.server.port
        self.server.stop(grace)
        self.retired.append((self.server, self.thread))
        deadline = time.monotonic() + CALM_S
        while True:
            try:
                self._serve(port)
            except OSError:  # it still listens
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
            else:
                return

    def repair(self) -> None:
        self.relay.thaw()
        self.relay.rate(0)
        self.relay.delay(0)
        for server, thread in self.retired:
            server.stop()
            thread.join(CALM_S)
        self.retired.clear()

    def left(self) -> dict[str, int]:
        """What is there of clients that have gone."""
        stats = self.server.stats()
        names = ("connections", "streams", "handlers")
        return {"relayed": self.relay.connections, **{name: stats[name] for name in names}}

    def close(self) -> None:
        self.repair()
        self.relay.close()
        self.server.stop()
        self.thread.join(CALM_S)


class Http1Target(Target):
    """The same with HTTP/1.1, which has no GOAWAY; a restart ends its connections."""

    name = "http/1.1"

    def _serve(self, port: int) -> None:
        self.http1 = _Http1Server()
        self.server = self.http1  # type: ignore[assignment]
        self.thread = threading.Thread(target=self.http1.serve_forever, args=(0.05,), name="server")
        self.thread.start()

    def restart(self, grace: float) -> None:
        self.restarts += 1
        self.relay.finish()

    def left(self) -> dict[str, int]:
        return {"relayed": self.relay.connections}

    def close(self) -> None:
        self.repair()
        self.relay.close()
        self.http1.shutdown()
        self.thread.join(CALM_S)
        self.http1.server_close()


class Chaos:
    """Breaks one target after the other; what it does to one lasts up to two seconds."""

    def __init__(self, targets: list[Target], random: Random) -> None:
        self.targets = targets
        self.random = random
        self.done: Counter[str] = Counter()
        self._mend_at: dict[Target, float] = {}

    def step(self) -> float:
        """Break or mend something; return the seconds until the next step."""
        now = time.monotonic()
        for target, at in [*self._mend_at.items()]:
            if now >= at:
                del self._mend_at[target]
                target.repair()
        whole = [target for target in self.targets if target not in self._mend_at]
        if whole:
            target = self.random.choice(whole)
            name = self.random.choice(
                ("freeze", "freeze", "freeze_new", "reset", "finish", "slow", "delay", "restart")
            )
            self.done[name] += 1
            self._mend_at[target] = now + self._break(target, name)
        return self.random.uniform(0.05, 0.3)

    def _break(self, target: Target, name: str) -> float:
        """Return how long it is to last."""
        random, relay = self.random, target.relay
        if name == "restart":
            target.restart(random.choice((0.0, 0.2, 1.0)))
            return 1.2
        if name in ("reset", "finish"):
            getattr(relay, name)()
            return 0.5
        if name == "slow":
            relay.rate(random.choice((2e4, 2e5)), random.choice(("up", "down", "both")))
        elif name == "delay":
            relay.delay(random.uniform(0.01, 0.4), random.choice(("up", "down", "both")))
        else:
            relay.freeze(new=name == "freeze_new")
        return random.uniform(0.1, 2.0)

    def calm(self) -> None:
        self._mend_at.clear()
        for target in self.targets:
            target.repair()


# -- fifty threads -------------------------------------------------------------------------------


class BodyBrokeOnPurpose(Exception):
    """What a request's body raises comes to its caller."""


class Watch:
    """What a pool tells of its connections, added up."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.moves = self.retries = 0
        self.closed_while_dialled = 0
        self.dead = bytearray()  # by number

    def __call__(self, event: object) -> None:
        if isinstance(event, RequestMoved):
            self.moves += 1
        elif isinstance(event, RequestRetried):
            self.retries += 1
        elif isinstance(event, ConnectionChanged) and event.after == "DEAD":
            number = event.connection.number
            self.dead.extend(bytes(max(0, number + 1 - len(self.dead))))
            self.dead[number] += 1
            if self.dead[number] > 1:
                self.faults.add(f"connection {number} died twice")
            self.closed_while_dialled += event.before == "CONNECTING" and event.cause == "local"


class Worker(threading.Thread):
    """Asks for one thing after another, and counts what becomes of it.

    busy_since   of the call under way, None between two
    parked       it waits for a rest to end
    """

    def __init__(self, soak: Soak, number: int) -> None:
        super().__init__(name=f"worker {number}", daemon=True)
        self.soak = soak
        self.random = Random(f"{soak.seed}/{number}")
        self.number = number
        self.tag = ""
        self.target = soak.targets[0]
        self.busy_since: float | None = None
        self.parked = False
        self.made: Counter[ConnectionPool] = Counter()
        self.unsure: Counter[ConnectionPool] = Counter()  # the pool may not have heard of it
        self.results = 0
        self.errors: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.longest = (0.0, "")
        self.overdue = (0.0, "")
        self.kind = ""
        self.paused_s = 0.0
        self.later: deque[tuple[Future[Response], bytes]] = deque()

    def run(self) -> None:
        kinds = [*KINDS]
        weights = [*KINDS.values()]
        while not self.soak.over:
            if not self.soak.goes_on.is_set():
                self._rest()
                continue
            kind = self.random.choices(kinds, weights)[0]
            self._do(kind)
            time.sleep(self.random.uniform(0.0, 0.02))
        self._rest()

    def _rest(self) -> None:
        while self.later:
            self._do(Worker.collect)
        self.parked = True
        while not (self.soak.goes_on.is_set() or self.soak.over):
            self.soak.goes_on.wait(0.1)
        self.parked = False

    def _do(self, kind: Callable[[Worker], None]) -> None:
        self.kind = kind.__name__
        self.kinds[self.kind] += 1
        self.tag = f"{self.number}.{self.kinds.total()}."
        self.target = self.random.choice(self.soak.targets)
        self.busy_since = began = time.monotonic()
        try:
            kind(self)
        except BaseException as error:  # noqa: BLE001  told at the end
            self.soak.faults.caught(error, f"{self.name}, {self.kind}")
        self.busy_since = None
        self.longest = max(self.longest, (time.monotonic() - began, self.kind))

    # -- one request and its outcome ---------------------------------------------------------

    @property
    def pool(self) -> ConnectionPool:
        return self.soak.pool_of(self.target)

    def _url(self, what: str, number: float = 0) -> str:
        return f"{self.target.url}/{what}/{number}/{self.tag}"

    def _octets(self) -> int:
        return self.random.choice((0, 1, 100, 5000, 70_000, 300_000))

    def _retries(self) -> int:
        """Few: the delays before the last ones are longer than anything else here."""
        return self.random.randrange(5)

    def _limits(self) -> Timeout | float:
        """A timeout of random size, in all or of a step; or the pool's."""
        drawn = self.random.random()
        if drawn < 0.4:
            return float(10 ** self.random.uniform(-2, 0.7))
        if drawn < 0.6:
            seconds = 10 ** self.random.uniform(-2, 0.5)
            return Timeout(read=seconds, write=seconds, pool=seconds, connect=seconds)
        return STEPS

    def _ask(self, work: Callable[[Any], object], limits: Timeout | float) -> None:
        """One request: it is made, and has a result or an error of the tree.

        work   is given its timeout
        """
        self.made[self.pool] += 1
        self.paused_s = 0.0
        began = time.monotonic()
        self._outcome(lambda: work(limits))
        if isinstance(limits, float):
            took = time.monotonic() - began - self.paused_s
            self.overdue = max(self.overdue, (took - limits, self.kind))

    def _outcome(self, work: Callable[[], object]) -> None:
        try:
            work()
        except UsageError:
            self.errors["UsageError"] += 1
            raise  # nothing is asked here that cannot be done
        except H2liteError as error:
            self.errors[_name(error)] += 1
        except (BodyBrokeOnPurpose, CancelledError) as error:
            self.errors[type(error).__name__] += 1
        except BaseException as error:
            self.errors[type(error).__name__] += 1
            raise
        else:
            self.results += 1

    def _get(self, url: str, limits: Any) -> Response:
        return self.pool.get(url, timeout=limits, retries=self._retries())

    def _pause(self, *seconds: float) -> None:
        """The caller takes his time."""
        pause = self.random.choice(seconds)
        self.paused_s += pause
        time.sleep(pause)

    def _is(self, response: Response, wanted: bytes) -> None:
        got = response.read()
        if response.status != 200 or got != wanted:
            raise Broken(f"{response.status} {got[:40]!r} ({len(got)}), want {wanted[:40]!r}")

    # -- what is asked for -------------------------------------------------------------------

    def get(self) -> None:
        octets = self._octets()
        url = self._url("bytes", octets)
        wanted = content(self.tag, octets)
        self._ask(lambda limits: self._is(self._get(url, limits), wanted), self._limits())

    def wait(self) -> None:
        url = self._url("slow", self.random.choice((0.0, 0.05, 0.3, 1.0)))
        wanted = self.tag.encode()
        self._ask(lambda limits: self._is(self._get(url, limits), wanted), self._limits())

    def upload(self) -> None:
        method = self.random.choice(("POST", "PUT"))
        whole = content(self.tag, self._octets())
        body = self.random.choice((whole, [*pieces(whole)], pieces(whole), io.BytesIO(whole)))
        options: dict[str, Any] = {
            "body": body,
            "idempotent": self.random.random() < 0.5,
            "retries": self._retries(),
        }
        url = self._url("echo")
        self._ask(
            lambda limits: self._is(
                self.pool.request(method, url, timeout=limits, **options), whole
            ),
            self._limits(),
        )

    def broken_body(self) -> None:
        def body() -> Iterator[bytes]:
            yield from pieces(content(self.tag, 20_000))
            raise BodyBrokeOnPurpose

        url = self._url("echo")
        self._ask(
            lambda limits: self.pool.post(url, body=body(), timeout=limits), self._limits()
        )

    def read_partly(self) -> None:
        octets = self._octets()
        url = self._url("stream", octets)
        wanted = content(self.tag, octets)

        def work(limits: Any) -> None:
            with self.pool.stream(
                "GET", url, timeout=limits, retries=self._retries()
            ) as response:
                got = b""
                for chunk in response.iter_bytes():
                    got += chunk
                    if self.random.random() < 0.2:
                        break
                    self._pause(0.0, 0.0, 0.05)
                if not wanted.startswith(got):
                    raise Broken(f"{got[:40]!r} ({len(got)}) is no part of {wanted[:40]!r}")

        self._ask(work, self._limits())

    def watch_stream(self) -> None:
        """Without a limit of its own: the connection's health sees to its end."""
        octets = self._octets()
        url = self._url("stream", octets)
        wanted = content(self.tag, octets)
        if self.target.name == "http/1.1":
            return  # it has no PING, and a frozen server is waited for as long as was asked

        def work(limits: Any) -> None:
            with self.pool.stream("GET", url, retries=self._retries()) as response:
                self._is(response, wanted)

        self._ask(work, STEPS)

    def submit(self) -> None:
        """A future that is cancelled, waited for, or left for later."""
        whole = content(self.tag, self._octets())
        body = self.random.choice((whole, io.BytesIO(whole)))
        limits = self._limits()
        self.made[self.pool] += 1
        future = self.pool.submit(
            "PUT",
            self._url("echo"),
            body=body,
            timeout=limits,
            idempotent=self.random.random() < 0.5,
            retries=self._retries(),
        )
        drawn = self.random.random()
        if drawn < 0.4:
            self._pause(0.0, 0.0, 0.01, 0.1)
            future.cancel()
        self.later.append((future, whole))
        if drawn < 0.8 or len(self.later) > 5:
            self.collect()

    def collect(self) -> None:
        while self.later:
            future, wanted = self.later.popleft()
            self._outcome(lambda: self._is(future.result(HANG_S), wanted))  # noqa: B023

    def pinned(self) -> None:
        """A request for one certain connection."""
        connections = self.pool.connections
        if not connections:
            return
        connection = self.random.choice(connections)
        wanted = self.tag.encode()
        path = f"/slow/0/{self.tag}"

        def work(limits: Any) -> None:
            try:
                self._is(connection.request("GET", path, timeout=limits, retries=2), wanted)
            except ConnectionLost:
                self.unsure[self.pool] += 1  # it had ended before, or ended on the way
                raise

        self._ask(work, self._limits())

    def ping(self) -> None:
        for connection in self.soak.pool.connections[:1]:
            try:
                connection.ping(timeout=10 ** self.random.uniform(-2, 0.5))
            except UsageError as error:
                if not str(error).endswith(("has ended", "is not up yet", "already")):
                    raise
            except H2liteError:
                pass

    def ping_all(self) -> None:
        for result in self.soak.pool.ping_all(timeout=10 ** self.random.uniform(-2, 0.5)):
            if (result.rtt is None) != (result.error is not None):
                raise Broken(f"{result!r} has neither an answer nor an error")

    def connect(self) -> None:
        try:
            self.pool.connect(self.target.url)
        except UsageError:
            raise
        except H2liteError:
            pass

    def close_one(self) -> None:
        for connection in self.pool.connections[-1:]:
            connection.close()

    def look(self) -> None:
        stats = self.pool.stats()
        if stats["pings_acked"] > stats["pings_sent"]:
            raise Broken(f"more acks than PINGs: {stats}")
        repr(self.pool.connections)

    def pool_of_ones_own(self) -> None:
        """Closed while it is asked for something: nothing of it stays unanswered."""
        if self.target.name == "http/1.1":
            return
        pool = ConnectionPool(
            health=HEALTH,
            cafile=self.soak.cafile,
            timeout=STEPS,
            background=self.random.random() < 0.5,
            on_event=lambda event: pool.stats(),  # callbacks may make calls
        )
        with pool:
            futures = [pool.submit("GET", self._url("slow", 0.05)) for _ in range(5)]
            self._pause(0.0, 0.01, 0.1)
        for future in futures:
            try:
                future.result(HANG_S)
            except UsageError:
                raise
            except H2liteError:
                pass
        empty(lambda: closed_tables(pool))


KINDS: dict[Callable[[Worker], None], int] = {
    Worker.get: 20,
    Worker.wait: 10,
    Worker.upload: 15,
    Worker.broken_body: 2,
    Worker.read_partly: 10,
    Worker.watch_stream: 5,
    Worker.submit: 15,
    Worker.pinned: 5,
    Worker.ping: 5,
    Worker.ping_all: 2,
    Worker.connect: 1,
    Worker.close_one: 1,
    Worker.look: 2,
    Worker.pool_of_ones_own: 1,
}


def _name(error: H2liteError) -> str:
    name = type(error).__name__
    return f"{name} ({error.cause})" if error.cause else name


class Soak:
    """One life.  `run` raises Broken for what does not add up; `faults` has the rest."""

    def __init__(self, seconds: float, seed: int, threads: int, faults: Faults) -> None:
        self.seconds = seconds
        self.seed = seed
        self.threads = threads
        self.faults = faults
        self.over = False
        self.workers: list[Worker] = []
        self.goes_on = threading.Event()
        self.lines: list[str] = []

    def run(self) -> None:
        # What is loaded once and kept is loaded before anything is counted.
        with tempfile.TemporaryDirectory() as folder:
            files = make_certificate(folder)
            self.cafile = files.cafile
            context = server_context(files.certfile, files.keyfile)
            self._warm_up(context)
            before = Footprint()
            self.targets = [Target(), Target(), Target(), Target(context), Http1Target()]
            self.watch, self.watch1 = Watch(self.faults), Watch(self.faults)
            self.pool = ConnectionPool(
                health=HEALTH, cafile=self.cafile, timeout=STEPS, on_event=self.watch
            )
            self.pool1 = ConnectionPool(
                health=HEALTH, http2=False, timeout=STEPS, on_event=self.watch1
            )
            self.chaos = Chaos(self.targets, Random(f"{self.seed}/chaos"))
            self.workers += [Worker(self, number) for number in range(self.threads)]
            for worker in self.workers:
                worker.start()
            self._live()
            self._end(before)

    def _warm_up(self, context: Any) -> None:
        target = Target(context)
        with ConnectionPool(cafile=self.cafile) as pool:
            pool.get(f"{target.url}/bytes/1/x")
        target.close()

    def pool_of(self, target: Target) -> ConnectionPool:
        return self.pool1 if target.name == "http/1.1" else self.pool

    # -- the life ----------------------------------------------------------------------------

    def _live(self) -> None:
        began = time.monotonic()
        ends = began + self.seconds
        first: Footprint | None = None
        rest_at = began + min(REST_EVERY_S / 2, self.seconds / 3)
        while True:
            self.goes_on.set()
            until = min(rest_at, ends)
            while (now := time.monotonic()) < until:
                self._look_after_workers(now)
                time.sleep(min(self.chaos.step(), until - now))
            rested = time.monotonic()
            self._rest()
            if first is None:
                first = Footprint()
                self.lines.append(f"first rest: {first.text()}")
                snapshot = tracemalloc.take_snapshot()
                first.octets = tracemalloc.get_traced_memory()[0]  # what the snapshot takes, too
            else:
                self._compare(first, snapshot)
            if until == ends:
                return
            ends += time.monotonic() - rested  # a rest is no part of what was asked for
            rest_at = time.monotonic() + REST_EVERY_S

    def _compare(self, first: Footprint, snapshot: tracemalloc.Snapshot) -> None:
        try:
            now = settled(first, GROWTH_OCTETS_MAX)
        except Broken:
            top = tracemalloc.take_snapshot().compare_to(snapshot, "lineno")[:15]
            self.faults.add("what grew:\n" + "\n".join(map(str, top)))
            raise
        self.lines.append(f"rest: {now.text()}, {(now.octets - first.octets) / 1024:+.0f} KiB")

    def _look_after_workers(self, now: float) -> None:
        # It also shows the stacks when the thread that looks is itself the one that hangs.
        faulthandler.dump_traceback_later(2 * HANG_S, exit=True)
        for worker in self.workers:
            since = worker.busy_since
            if since is not None and now - since > HANG_S:
                print(f"{worker.name} has waited for {now - since:.0f} s, seed {self.seed}")
                print("\n".join(self.faults.texts), flush=True)
                faulthandler.dump_traceback(all_threads=True)
                os._exit(1)

    def _rest(self) -> None:
        """Let everything end, and see that nothing is left of it."""
        self.goes_on.clear()
        self.chaos.calm()
        while not all(worker.parked for worker in self.workers):
            self._look_after_workers(time.monotonic())
            time.sleep(0.05)
        for pool in (self.pool, self.pool1):
            empty(lambda: tables(pool))  # noqa: B023
            for connection in pool.connections:
                connection.close()
            empty(lambda: closed_tables(pool))  # noqa: B023
        for target in self.targets:
            empty(target.left)
        self._count()

    def _count(self) -> None:
        """Every request is accounted for, and every connection."""
        outcomes = sum(worker.results + worker.errors.total() for worker in self.workers)
        made = sum(worker.made.total() for worker in self.workers)
        if outcomes != made:
            raise Broken(f"{made} requests, {outcomes} results and errors")
        for pool, watch in ((self.pool, self.watch), (self.pool1, self.watch1)):
            stats = pool.stats()
            made = sum(worker.made[pool] for worker in self.workers)
            unsure = sum(worker.unsure[pool] for worker in self.workers)
            if not made - unsure <= stats["requests"] <= made:
                raise Broken(f"{made} requests ({unsure} unsure), counted {stats}")
            dead = stats["dials_failed"] + sum(stats["deaths"].values())
            wait_until(
                lambda: watch.dead.count(1) == stats["dials"],  # noqa: B023
                lambda: f"{stats['dials']} dials, {watch.dead.count(1)} ends",  # noqa: B023
            )
            if stats["dials"] != dead + watch.closed_while_dialled + stats["connections"]:
                raise Broken(f"{stats}, {watch.closed_while_dialled} closed while dialled")
            told = (watch.moves, watch.retries, 0)
            counted = (stats["moves"], stats["retries"], stats["events_dropped"])
            if told != counted:
                raise Broken(f"moves, retries and drops {counted}, told {told}")
        overdue, what = max(worker.overdue for worker in self.workers)
        if overdue > OVERDUE_S_MAX:
            raise Broken(f"a call, {what}, ended {overdue:.1f} s after its timeout")

    def _end(self, before: Footprint) -> None:
        self.over = True
        for worker in self.workers:
            worker.join(CALM_S)
        for pool in (self.pool, self.pool1):
            pool.close()
            empty(lambda: {**closed_tables(pool), "timers": len(pool._pool.timers)})  # noqa: B023
        for target in self.targets:
            target.close()
        faulthandler.cancel_dump_traceback_later()
        self.lines.append(f"at the end: {settled(before, None).text()}")

    # -- what there is to tell ---------------------------------------------------------------

    def text(self) -> str:
        kinds: Counter[str] = Counter()
        errors: Counter[str] = Counter()
        for worker in self.workers:
            kinds += worker.kinds
            errors += worker.errors
        results = sum(worker.results for worker in self.workers)
        longest, what = max(worker.longest for worker in self.workers)
        overdue, late = max(worker.overdue for worker in self.workers)
        restarts = sum(target.restarts for target in self.targets)
        lines = [
            f"seed {self.seed}, {self.threads} threads, {self.seconds:.0f} s, {restarts} restarts",
            f"requests: {results + errors.total()}, {results} with a result",
            "errors: " + _counts(errors),
            "calls: " + _counts(kinds),
            "broken on purpose: " + _counts(self.chaos.done),
            f"longest call: {longest:.2f} s ({what})",
            f"latest after its timeout: {overdue:.2f} s ({late})",
        ]
        for name, pool in (("HTTP/2", self.pool), ("HTTP/1.1", self.pool1)):
            stats = pool.stats()
            calmed = stats.pop("calmed_origins")
            lines.append(f"{name} deaths: {_counts(stats.pop('deaths'))}")
            lines.append(f"{name} pool: {_counts(stats)}; calmed: {len(calmed)}")
        return "\n".join(lines + self.lines)


def _counts(counter: dict[str, int]) -> str:
    return ", ".join(f"{name} {counter[name]}" for name in sorted(counter)) or "none"


# -- many connections ----------------------------------------------------------------------------

CLOSE_S_MAX = 1.0


class Scale:
    """So many connections, one to an origin, each checked every second for so many seconds.

    The server runs in a process of its own; the pool's checks are its background thread's.

    pings              sent on each connection while it was looked at
    silence_s          the longest that was seen on any connection
    user_s, system_s   of CPU in this process for one check: PING, ack and what follows
    close_s            how long it took to close the pool
    """

    def __init__(self, count: int, seconds: float) -> None:
        self.count = count
        self.seconds = seconds
        self.silence_s = 0.0
        self.faults: list[str] = []
        serve = (sys.executable, "-m", "h2lite", "serve", "-q", "--host", "0.0.0.0", "--port", "0")
        with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                port = int(server.stdout.readline().split()[1].rpartition(":")[2])
                pool = ConnectionPool(health=CHECKED)
                try:
                    self._check(pool, port)
                finally:
                    began = time.monotonic()
                    pool.close()
                    self.close_s = time.monotonic() - began
                self._judge(pool)
            finally:
                server.kill()

    def _check(self, pool: ConnectionPool, port: int) -> None:
        for url in crowd_urls(port, self.count):
            pool.connect(url)
        members = pool._pool.members
        time.sleep(2 * CHECKED.ping_after_idle)  # the dials are over, and so is what they held up
        before = [member.health.pings for member in members]
        acked, used = pool.stats()["pings_acked"], resource.getrusage(resource.RUSAGE_SELF)
        ends = time.monotonic() + self.seconds
        while time.monotonic() < ends:
            time.sleep(0.1)
            heard_at = min(member.health.heard_at for member in members)
            self.silence_s = max(self.silence_s, pool.clock() - heard_at)
        now = resource.getrusage(resource.RUSAGE_SELF)
        self.stats = pool.stats()
        checks = max(1, self.stats["pings_acked"] - acked)
        self.user_s = (now.ru_utime - used.ru_utime) / checks
        self.system_s = (now.ru_stime - used.ru_stime) / checks
        after = [member.health.pings for member in members]
        self.pings = [new - old for old, new in zip(before, after, strict=True)]

    def _judge(self, pool: ConnectionPool) -> None:
        stats = self.stats
        least = int(self.seconds / SILENCE_S_MAX)
        found = {
            f"a check was missed: {self.silence_s:.2f} s of silence": (
                self.silence_s >= SILENCE_S_MAX or min(self.pings) < least
            ),
            f"suspects, false suspects or deaths: {stats}": (
                stats["suspects"] or stats["false_suspects"] or stats["deaths"]
            ),
            f"{stats['connections']} connections": stats["connections"] != self.count,
            f"close took {self.close_s:.2f} s": self.close_s >= CLOSE_S_MAX,
            f"left behind: {closed_tables(pool)}": any(closed_tables(pool).values()),
        }
        self.faults = [text for text, holds in found.items() if holds]

    def text(self) -> str:
        return (
            f"{self.count} connections, {self.seconds:.0f} s: {min(self.pings)} to"
            f" {max(self.pings)} PINGs each, {self.silence_s:.2f} s of silence at most,"
            f" {self.stats['suspects']} suspects, {self.user_s * 1e6:.0f} us of CPU a check and"
            f" {self.system_s * 1e6:.0f} us in the kernel, closed in {self.close_s:.3f} s"
        )


# -- connect, use, kill --------------------------------------------------------------------------

QUICK = HealthPolicy(ping_after_idle=0.05, ping_timeout=0.1, jitter=False)
WAYS = (*("reset", "finish", "close") * 6, "freeze", "restart")  # the last two take longer


class Cycles:
    """Connections that are made, used once and killed, one after the other.

    Every second one is a pool's, the others are `h2lite.connect`'s, with a pool and a thread of
    their own.  Raises Broken for what is left of them.
    """

    def __init__(self, count: int, seed: int) -> None:
        random = Random(seed)
        tracemalloc.start()
        start = Footprint()
        self.target = Target()
        self.done: Counter[str] = Counter()
        with ConnectionPool(health=QUICK) as self.pool:
            warm = max(count // 10, 2 * len(WAYS))  # caches are full by then
            for number in range(warm):
                self._cycle(number, WAYS[number % len(WAYS)])
            first = self._left()
            for number in range(warm, count):
                self._cycle(number, random.choice(WAYS))
            self._left()
            self.footprint = settled(first, CYCLE_GROWTH_OCTETS_MAX)
            self.growth = self.footprint.octets - first.octets
            self.stats = self.pool.stats()
        empty(lambda: {**closed_tables(self.pool), "timers": len(self.pool._pool.timers)})
        self.target.close()
        settled(start, None)

    def _left(self) -> Footprint:
        empty(lambda: closed_tables(self.pool))
        empty(self.target.left)
        self.target.repair()
        return Footprint()

    def _cycle(self, number: int, way: str) -> None:
        tag = f"{number}."
        url = self.target.url
        connection = h2lite.connect(url, health=QUICK) if number % 2 else self.pool.connect(url)
        try:
            reply = connection.request("GET", f"/bytes/100/{tag}")
            if reply.read() != content(tag, 100):
                raise Broken(f"{reply.read()!r} for {tag}")
            self._kill(connection, way)
        except H2liteError as error:
            self.done[f"{way}: {_name(error)}"] += 1
        else:
            raise Broken(f"{way}: the connection lives on")
        finally:
            self.target.relay.thaw()
            connection.close()

    def _kill(self, connection: PooledConnection, way: str) -> None:
        if way == "close":
            connection.close()
        elif way == "restart":
            self.target.restart(0.0)
        else:
            getattr(self.target.relay, way)()
        if way == "close" and connection._owns_pool:
            raise ConnectionLost("closed", cause="local")
        connection.watch(CALM_S)

    def text(self) -> str:
        deaths = _counts(self.stats["deaths"])
        return (
            f"{self.done.total()} cycles: {_counts(self.done)}\n{self.stats['dials']} dials of the"
            f" pool, deaths: {deaths}\n{self.footprint.text()}, {self.growth / 1024:+.0f} KiB"
        )


# -- the command ---------------------------------------------------------------------------------


def _above_0(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r}, want a number above 0")
    return number


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, want a whole number, 1 or more")
    return int(text)


def soak(minutes: float, seed: int, threads: int, faults: Faults) -> None:
    faults.watch()
    tracemalloc.start()
    life = Soak(minutes * 60, seed, threads, faults)
    try:
        life.run()
    finally:
        if life.workers:
            print(life.text(), flush=True)


def scale(count: int, seconds: float, faults: Faults) -> None:
    if reason := lacking(count):
        raise Broken(reason)
    seen = Scale(count, seconds)
    print(seen.text())
    for text in seen.faults:
        faults.add(text)


def load(count: int, minutes: float, faults: Faults, json_file: Path | None) -> None:
    faults.watch()
    seen = Load(count, minutes * 60)
    print(seen.text())
    for text in seen.faults:
        faults.add(text)
    if json_file is not None:
        seen.write(json_file)


def cycle(count: int, seed: int, faults: Faults) -> None:
    faults.watch()
    print(Cycles(count, seed).text())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--load", type=_count, help="connections, all used and checked, instead")
    way.add_argument("--connections", type=_count, help="checked every second, instead")
    way.add_argument("--cycles", type=_count, help="of connect, use and kill, instead")
    parser.add_argument(
        "--minutes", type=_above_0, default=10.0, help="of soaking, or of load (default 10)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="with --load: keep what was seen")
    parser.add_argument("--seconds", type=_above_0, default=10.0, help="with --connections")
    parser.add_argument("--seed", type=int, help="of what is asked and broken (default: drawn)")
    parser.add_argument("--threads", type=_count, default=50, help="of the soak (default 50)")
    given = parser.parse_args()
    seed = SystemRandom().randrange(2**32) if given.seed is None else given.seed
    faults = Faults()
    began = time.monotonic()
    try:
        if given.load:
            load(given.load, given.minutes, faults, given.json)
        elif given.connections:
            scale(given.connections, given.seconds, faults)
        elif given.cycles:
            cycle(given.cycles, seed, faults)
        else:
            soak(given.minutes, seed, given.threads, faults)
    except Exception as error:  # noqa: BLE001  threads that serve would keep the process from ending
        faults.caught(error, "the run")
    for text in faults.texts:
        print(text)
    took = time.monotonic() - began
    print(f"{took:.0f} s, seed {seed}: {faults.count or 'no'} fault{'s' * (faults.count != 1)}")
    return 1 if faults.count else 0


if __name__ == "__main__":
    # Threads that a fault has left behind must not keep the process from ending.
    code = main()
    sys.stdout.flush()
    os._exit(code)
