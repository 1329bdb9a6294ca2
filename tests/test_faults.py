"""Faults of our own side: system calls that fail at every place, user code that raises, Ctrl-C.

One call that a side makes of its sockets goes wrong, the first, then the second and so on, until
a run passes without.  What was asked then succeeds or fails by a named error, the next request
and other connections go on, and nothing is left.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import os
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import h2lite
from h2lite.certs import CertificateFiles, make_certificate
from h2lite.client import ConnectionPool, Response, connect
from h2lite.exchange import Reply, Request
from h2lite.loop import Loop, monotonic
from h2lite.server import Server
from h2lite.transport import server_context

from .running import PATIENCE_S, serving
from .test_engine import QUIET, descriptors, in_thread, threads, until

# Whose calls go wrong, by the name of the thread that makes them.
CLIENT, SERVER = "MainThread", "server under test"
# What either calls of its sockets; those of ssl have some of their own.
CALLS = ("connect_ex", "accept", "do_handshake", "recv", "send", "setsockopt", "shutdown")
CALLS_MAX = 200  # far more than a run makes, so that a loop without end fails
SKIPPED_S_MAX = 2.0  # of one wait: back-offs and lingering, and nobody's patience with a peer
BODY = bytes(range(256)) * 2

# Given the socket, the call's name and the call itself.
GoWrong = Callable[[Any, str, Callable[[], Any]], Any]

both_sides = pytest.mark.parametrize("side", [CLIENT, SERVER], ids=["client", "server"])
with_and_without_tls = pytest.mark.parametrize("secure", [False, True], ids=["cleartext", "TLS"])


class Fault:
    """Has one call of a side's TCP sockets go wrong, once.

    wrong   called in its place
    """

    def __init__(self, side: str, wrong: GoWrong) -> None:
        self._side = side
        self._wrong = wrong
        self._left = 0
        self._armed = False

    def arm(self, nth: int) -> None:
        self._left = nth
        self._armed = True

    def disarm(self) -> bool:
        """Whether it has happened."""
        self._armed = False
        return self._left == 0

    def patch(self, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...] = CALLS) -> None:
        for name in names:
            if name in vars(ssl.SSLSocket):
                self._patch(monkeypatch, ssl.SSLSocket, name)
            if hasattr(socket.socket, name):
                self._patch(monkeypatch, socket.socket, name)

    def _patch(self, monkeypatch: pytest.MonkeyPatch, kind: Any, name: str) -> None:
        original = getattr(kind, name)

        def patched(sock: Any, *arguments: Any) -> Any:
            def call() -> Any:
                return original(sock, *arguments)

            # The loop's own waker is no TCP socket.
            return self.reached(sock, name, call) if sock.family == socket.AF_INET else call()

        monkeypatch.setattr(kind, name, patched)

    def reached(self, sock: Any, name: str, call: Callable[[], Any]) -> Any:
        if self._armed and self._left and threading.current_thread().name == self._side:
            self._left -= 1
            if not self._left:
                return self._wrong(sock, name, call)
        return call()


class Clock:
    """The system's; a wait of a pool's own, in which nothing comes, is skipped."""

    def __init__(self) -> None:
        self._skipped = 0.0

    def __call__(self) -> float:
        return monotonic() + self._skipped

    def skip(self, seconds: float) -> None:
        self._skipped += seconds

    def select(self, loop: Loop, patience: float | None) -> list[Any]:
        """As `Loop.select`."""
        if patience is None or patience > SKIPPED_S_MAX:
            return Loop.select(loop, patience)
        ready = Loop.select(loop, 0.0)
        if not ready:
            self.skip(patience)
        return ready


@contextmanager
def at_rest() -> Iterator[None]:
    """What is open and who runs is the same before and after."""
    before = descriptors(), threads()
    yield
    until(lambda: (descriptors(), threads()) == before)


def assert_nothing_is_left(pool: ConnectionPool) -> None:
    """Of a pool that is closed: no connection, no call, no timer, nobody who waits."""
    engine, driver = pool._engine, pool._engine.driver
    assert (pool._pool.members, len(pool._pool.timers), len(engine.loop._timers)) == ([], 0, 0)
    assert (engine.watchers, engine.fed, engine._waiting, len(engine._jobs)) == ({}, {}, {}, 0)
    assert (driver.links, driver._dials, driver._members) == ({}, {}, {})
    assert (engine.loop._masks, engine._driving) == ({}, None)


def is_idle(server: Server, others: int = 0) -> bool:
    """It serves so many connections, and neither asks a handler nor has a stream open."""
    stats = server.stats()
    return (stats["connections"], stats["streams"], stats["handlers"]) == (others, 0, 0)


def answer(request: Request) -> Reply:
    return Reply(200, request.body or b"hello\n")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    return make_certificate(str(tmp_path_factory.mktemp("certificate")))


class Scene:
    """A server, a connection that has no part in it, and a pool for each run.

    url       the server's
    said      for each request of the last run, the error or None
    """

    def __init__(self, server: Server, other: Any, cafile: str) -> None:
        self._server = server
        self._other = other
        self._cafile = cafile
        # Not before each run: the server may be late to accept a connection of the last one.
        self._before = descriptors(), threads()
        self.url = server.url
        self.said: list[BaseException | None] = []

    @contextmanager
    def pooled(self, **options: Any) -> Iterator[ConnectionPool]:
        """A pool; nothing of it is left when the block has ended, and the others go on."""
        clock = Clock()
        options.setdefault("background", False)
        pool = ConnectionPool(health=QUIET, clock=clock, cafile=self._cafile, **options)
        pool._engine.loop.select = lambda patience: clock.select(  # type: ignore[method-assign]
            pool._engine.loop, patience
        )
        self._clock = clock
        try:
            yield pool
        finally:
            with contextlib.suppress(KeyboardInterrupt, LookupError):
                pool.close()
            pool.close()
        until(lambda: is_idle(self._server, others=1))
        until(lambda: (descriptors(), threads()) == self._before)
        assert_nothing_is_left(pool)

    def run(self, pool: ConnectionPool, errors: tuple[type[BaseException], ...]) -> None:
        """A GET, a POST with content in pieces, and a GET."""
        self.said = []
        for ask, content in (
            (lambda: pool.get(self.url), b"hello\n"),
            (lambda: pool.post(self.url, body=iter([BODY, BODY])), BODY * 2),
            (lambda: pool.get(self.url), b"hello\n"),
        ):
            self.said.append(self._attempt(ask, content, errors))
            if self.said[-1] is not None:
                self._clock.skip(60.0)  # no back-off is in the next one's way
            for connection in pool.connections:
                assert connection._member.connection.streams == {}

    def _attempt(
        self, ask: Callable[[], Response], content: bytes, errors: tuple[type[BaseException], ...]
    ) -> BaseException | None:
        try:
            response = ask()
        except errors as error:
            return error
        assert (response.status, response.read()) == (200, content)
        return None

    def ping_the_other(self) -> None:
        self._other.ping()


@contextmanager
def scene(secure: bool, files: CertificateFiles) -> Iterator[Scene]:
    context = server_context(files.certfile, files.keyfile) if secure else None
    with (
        at_rest(),
        serving(answer, ssl_context=context) as server,
        connect(server.url, cafile=files.cafile, health=QUIET, background=False) as other,
    ):
        other.ping()  # all that was to be said at its beginning has been read
        yield Scene(server, other, files.cafile)


def each_call(
    scene: Scene,
    fault: Fault,
    errors: tuple[type[BaseException], ...] = (h2lite.H2liteError,),
    **options: Any,
) -> Iterator[Scene]:
    """One run after the other, each with a fault one call later, until it is not reached."""
    for nth in range(1, CALLS_MAX):
        fault.arm(nth)
        with scene.pooled(**options) as pool:
            scene.run(pool, errors)
        reached = fault.disarm()
        scene.ping_the_other()
        yield scene
        if not reached:
            return
    raise AssertionError(f"more than {CALLS_MAX} calls")


# -- system calls ------------------------------------------------------------------------------


def failing(number: int) -> GoWrong:
    """The system says no, for good where there was a connection."""

    def wrong(sock: Any, name: str, call: Callable[[], Any]) -> Any:
        if name in ("recv", "send", "do_handshake"):
            with contextlib.suppress(OSError):  # the peer was faster
                _socket.socket.shutdown(sock, socket.SHUT_RDWR)
        if name == "connect_ex":
            return number
        raise OSError(number, os.strerror(number))

    return wrong


@with_and_without_tls
@both_sides
@pytest.mark.parametrize("number", [errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT])
def test_a_call_that_fails_costs_one_request_at_most_wherever_it_is(
    side, secure, number, files, monkeypatch
):
    fault = Fault(side, failing(number))
    with scene(secure, files) as this:
        fault.patch(monkeypatch)
        for run in each_call(this, fault):
            assert run.said.count(None) >= 2
        assert run.said == [None] * 3


def spurious(kind: type[OSError]) -> GoWrong:
    """The selector, or the system, was wrong: there is nothing to be done yet."""

    def wrong(sock: Any, name: str, call: Callable[[], Any]) -> Any:
        raise kind

    return wrong


@both_sides
@pytest.mark.parametrize("kind", [BlockingIOError, InterruptedError])
def test_a_call_that_could_do_nothing_yet_costs_nothing(side, kind, files, monkeypatch):
    fault = Fault(side, spurious(kind))
    with scene(False, files) as this:
        fault.patch(monkeypatch, ("accept", "recv", "send"))
        for run in each_call(this, fault, ()):
            assert run.said == [None] * 3


@both_sides
@pytest.mark.parametrize(
    "kind", [ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError, InterruptedError]
)
def test_a_call_of_tls_that_could_do_nothing_yet_costs_nothing(side, kind, files, monkeypatch):
    """OpenSSL has words of its own for these, and is not asked for any others."""
    fault = Fault(side, spurious(kind))
    with scene(True, files) as this:
        fault.patch(monkeypatch, ("recv", "send"))
        for run in each_call(this, fault, ()):
            assert run.said == [None] * 3


# -- one octet at a time -----------------------------------------------------------------------


@with_and_without_tls
@pytest.mark.parametrize(
    "sides", [[CLIENT], [SERVER], [CLIENT, SERVER]], ids=["client", "server", "both"]
)
def test_everything_goes_one_octet_at_a_time(secure, sides, files, monkeypatch):
    kind: Any = ssl.SSLSocket if secure else socket.socket
    system_recv, system_send = kind.recv, kind.send
    longest = []

    def is_short(sock: socket.socket) -> bool:
        return sock.family == socket.AF_INET and threading.current_thread().name in sides

    def recv(sock: Any, octets: int) -> bytes:
        data: bytes = system_recv(sock, 1 if is_short(sock) else octets)
        longest.append(len(data) if is_short(sock) else 0)
        return data

    def send(sock: Any, data: bytes) -> int:
        taken: int = system_send(sock, data[:1] if is_short(sock) else data)
        longest.append(taken if is_short(sock) else 0)
        return taken

    with scene(secure, files) as this:
        monkeypatch.setattr(kind, "recv", recv)
        monkeypatch.setattr(kind, "send", send)
        with this.pooled() as pool:
            this.run(pool, ())
        assert max(longest) == 1


# -- nothing is left of descriptors and threads ------------------------------------------------


def none_left(*arguments: object, **options: object) -> Any:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def no_thread(*arguments: object) -> Any:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("way", ["get", "submit", "connect"])
@pytest.mark.parametrize(
    ("what", "failing_call"),
    [("h2lite.loop.socket.socketpair", none_left), ("threading.Thread.start", no_thread)],
    ids=["a descriptor", "a thread"],
)
def test_without_room_for_its_thread_a_pool_says_so_and_has_one_later(
    way, what, failing_call, files, monkeypatch
):
    def ask(pool: ConnectionPool) -> None:
        if way == "get":
            pool.get(this.url)
        elif way == "submit":
            pool.submit("GET", this.url).result(PATIENCE_S)
        else:
            pool.connect(this.url)

    with scene(False, files) as this, this.pooled(background=True) as pool:
        with monkeypatch.context() as patched:
            patched.setattr(what, failing_call)
            with pytest.raises(h2lite.ConnectError, match="no thread to check connections: "):
                ask(pool)
        assert (pool.connections, pool._engine.watchers) == ([], {})
        ask(pool)
        assert threads() == {"h2lite checks connections"}


def test_a_pool_closes_though_no_descriptor_is_left(files, monkeypatch):
    with scene(False, files) as this:
        monkeypatch.setattr("h2lite.loop.socket.socketpair", none_left)
        with this.pooled() as pool:
            this.run(pool, ())


def test_a_pool_for_which_no_descriptor_is_left_is_a_connect_error(monkeypatch):
    monkeypatch.setattr("h2lite.loop.selectors.DefaultSelector", none_left)
    with pytest.raises(h2lite.ConnectError, match="cannot watch connections: "):
        connect("http://127.0.0.1:1")


# -- Ctrl-C ------------------------------------------------------------------------------------


def interrupted_before(sock: Any, name: str, call: Callable[[], Any]) -> Any:
    raise KeyboardInterrupt


def interrupted_after(sock: Any, name: str, call: Callable[[], Any]) -> Any:
    call()  # what it gave is lost
    raise KeyboardInterrupt


@with_and_without_tls
@pytest.mark.parametrize("wrong", [interrupted_before, interrupted_after])
@pytest.mark.parametrize("background", [False, True], ids=["alone", "background"])
def test_an_interrupt_costs_one_request_at_most_wherever_it_is(
    secure, wrong, background, files, monkeypatch
):
    fault = Fault(CLIENT, wrong)
    select = Loop.select

    def patched(loop: Loop, patience: float | None) -> Any:
        return fault.reached(loop, "select", lambda: select(loop, patience))

    with scene(secure, files) as this:
        fault.patch(monkeypatch, (*CALLS, "getsockopt"))
        monkeypatch.setattr(Loop, "select", patched)
        for run in each_call(this, fault, (KeyboardInterrupt,), background=background):
            assert run.said.count(None) >= 2


# -- the user's code, at the client ------------------------------------------------------------

KINDS = [LookupError, KeyboardInterrupt, SystemExit]


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What sys.unraisablehook is told."""
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(args.exc_type))
    return told


@pytest.mark.parametrize("kind", [LookupError, KeyboardInterrupt])
@pytest.mark.parametrize("background", [False, True], ids=["alone", "background"])
def test_a_tap_that_raises_costs_one_request_at_most_wherever_it_is(kind, background, files):
    def wrong(sock: Any, name: str, call: Callable[[], Any]) -> Any:
        raise kind

    fault = Fault(CLIENT, wrong)

    def tap(received: bool, octets: bytes) -> None:
        fault.reached(None, "tap", lambda: None)

    with scene(False, files) as this:
        for run in each_call(this, fault, (kind,), background=background, tap=tap):
            assert run.said.count(None) >= 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("after", [0, 1, 20])
def test_what_a_body_raises_costs_its_stream_alone(kind, after, files):
    def pieces() -> Iterator[bytes]:
        yield from [bytes(10_000)] * after
        raise kind

    with scene(False, files) as this, this.pooled() as pool:
        with pytest.raises(kind):
            pool.post(this.url, body=pieces())
        this.run(pool, ())
        assert pool.stats()["dials"] == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("background", [False, True], ids=["alone", "background"])
def test_what_the_event_callback_raises_costs_nothing_that_is_under_way(
    kind, background, files, unraisable
):
    """An exception is reported; Ctrl-C and sys.exit() go to whoever drives, or are reported."""
    told = []

    def on_event(event: Any) -> None:
        told.append(event.after)
        raise kind

    with scene(False, files) as this:
        pool = ConnectionPool(health=QUIET, background=background, on_event=on_event)
        said = []
        for _ in range(4):
            try:
                said.append(pool.get(this.url).status)
            except kind:
                said.append(0)
        with contextlib.suppress(kind):
            pool.close()
        with contextlib.suppress(kind):
            pool.close()
        until(lambda: told == ["LIVE", "DEAD"])
        assert_nothing_is_left(pool)
    assert said.count(0) <= (kind is not LookupError)
    assert set(unraisable) <= {kind}
    assert len(unraisable) == 2 or kind is not LookupError


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("background", [False, True], ids=["alone", "background"])
def test_what_a_futures_callback_raises_costs_nothing_that_is_under_way(
    kind, background, files, unraisable, caplog
):
    """concurrent.futures logs an exception, and lets the others through."""

    def callback(future: Any) -> None:
        raise kind

    with (
        scene(False, files) as this,
        ConnectionPool(health=QUIET, background=background) as pool,
    ):
        futures = [pool.submit("GET", this.url) for _ in range(3)]
        futures[0].add_done_callback(callback)
        raised = 0
        while not all(future.done() for future in futures):
            try:
                pool.poll(0.05)
            except kind:
                raised += 1
        assert [future.result().read() for future in futures] == [b"hello\n"] * 3
        assert pool.get(this.url).status == 200
    assert_nothing_is_left(pool)
    logged = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert [*logged, *unraisable, *[kind] * raised] == [kind]


# -- the user's code, at the server ------------------------------------------------------------


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What sys.excepthook is told."""
    told: list[Any] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, *_: told.append(kind))
    return told


@pytest.mark.parametrize("error", [LookupError, OSError])
@pytest.mark.parametrize("where", ["factory", "tap"])
def test_a_tap_of_the_server_that_raises_is_reported_and_told_no_more(reported, where, error):
    told: list[bytes] = []

    def tap(received: bool, octets: bytes) -> None:
        told.append(octets)
        raise error

    def factory() -> Callable[[bool, bytes], None]:
        if where == "factory":
            raise error
        return tap

    with (
        serving(answer, tap=factory) as server,
        connect(server.url, health=QUIET, background=False) as connection,
    ):
        assert connection.request("GET", "/", retries=0).read() == b"hello\n"
    assert reported == [error]
    assert len(told) == (where == "tap")


PLACES = ("handler", "body", "close")  # of the user's code that may run in another thread


class Broken:
    """A handler whose code raises at one place.

    place   of PLACES, or log
    """

    def __init__(self, kind: type[BaseException], place: str) -> None:
        self._kind = kind
        self._place = place

    def raise_at(self, place: str) -> None:
        if place == self._place:
            raise self._kind

    def __call__(self, request: Request) -> Reply:
        if request.path != "/broken":
            return answer(request)
        self.raise_at("handler")
        return Reply(200, self._pieces())

    def _pieces(self) -> Iterator[bytes]:
        try:
            yield b"begun "
            self.raise_at("body")
            yield bytes(2**21)  # more than a window, so that it is closed before its end
            yield b"the end"
        finally:
            self.raise_at("close")

    def log(self, line: str) -> None:
        if "/broken" in line:
            self.raise_at("log")


@pytest.mark.parametrize(
    ("kind", "threads", "place"),
    [
        *((LookupError, count, place) for count in (0, 2) for place in (*PLACES, "log")),
        *((kind, 2, place) for kind in KINDS[1:] for place in PLACES),
    ],
)
def test_what_the_servers_user_raises_costs_one_request(kind, threads, place, reported):
    broken = Broken(kind, place)
    with (
        at_rest(),
        serving(broken, threads=threads, log=broken.log) as server,
        connect(server.url, health=QUIET, background=False) as other,
        connect(server.url, health=QUIET, background=False) as connection,
    ):
        for _ in range(4):  # more than there are threads
            if place == "handler":
                assert connection.request("GET", "/broken").status == 500
            elif place == "body":
                with pytest.raises(h2lite.StreamReset, match="INTERNAL_ERROR"):
                    connection.request("GET", "/broken")
            else:
                with connection.stream("GET", "/broken") as response:
                    assert next(response.iter_bytes())
            assert connection.request("GET", "/").read() == b"hello\n"
            assert other.request("GET", "/").read() == b"hello\n"
        until(lambda: is_idle(server, others=2))
    assert reported == [kind] * 4


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("place", [*PLACES, "log"])
def test_what_ends_a_serving_thread_leaves_nothing(kind, place):
    """Without other threads, Ctrl-C and sys.exit() end the server itself."""
    broken = Broken(kind, place)
    told: list[BaseException] = []

    def serve() -> None:
        try:
            server.serve_forever()
        except BaseException as error:  # noqa: BLE001  looked at by the test
            told.append(error)

    with at_rest():
        server = Server(broken, log=broken.log)
        thread = in_thread(serve)
        with (
            connect(server.url, health=QUIET, background=False) as connection,
            contextlib.suppress(h2lite.H2liteError),
            connection.stream("GET", "/broken") as response,
        ):
            next(response.iter_bytes())
            response.close()
            connection.watch(PATIENCE_S)
        thread.join(PATIENCE_S)
    assert [type(error) for error in told] == [kind]
    assert (server._clients, len(server._loop._timers), server._loop._masks) == ({}, 0, {})
