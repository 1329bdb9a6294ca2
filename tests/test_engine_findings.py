"""What went wrong between threads, callbacks and signals once, each as a test of its own."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import math
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import h2lite
from h2lite.client import ConnectionPool, _Exchange
from h2lite.engine import CLOSE_S_MAX
from h2lite.errors import UsageError
from h2lite.events import PingAcked, RequestReceived, SettingsAcked
from h2lite.exchange import Reply, Request
from h2lite.frames import DataFrame, HeadersFrame
from h2lite.loop import Loop
from h2lite.settings import SettingId

from .pair import block
from .running import PATIENCE_S, Listening, Peer, accepting, hello, peering, serving
from .test_engine import QUIET, descriptors, in_thread, slow, threads, until

SOON_S = 1.5  # far more than any of it takes, far less than what it must not wait for
OK = [(b":status", b"200")]


@contextmanager
def mute() -> Iterator[Listening]:
    """A peer that takes a request and then neither reads nor says anything."""
    over = threading.Event()

    def script(sock: socket.socket) -> None:
        with contextlib.suppress(ConnectionError, EOFError):  # it may be left before it is asked
            peer = Peer(sock)
            peer.flush()
            peer.until(RequestReceived)
            over.wait(PATIENCE_S)

    with accepting(script) as peer:
        try:
            yield peer
        finally:
            over.set()


def is_asked(pool: ConnectionPool) -> Callable[[], bool]:
    """A request of the pool's is under way, and its thread drives."""
    return lambda: any(connection.requests for connection in pool.connections) and (
        pool._engine._driving is not None
    )


def asking(pool: ConnectionPool, url: str, said: list[Any], **options: Any) -> threading.Thread:
    """A thread that asks; what becomes of it is said."""

    def ask() -> None:
        try:
            said.append(pool.get(url, **options).status)
        except BaseException as error:  # noqa: BLE001  looked at by the test
            said.append(error)

    return in_thread(ask)


# -- a thread that drives hears of what others ask ---------------------------------------------


def test_closing_ends_a_drive_at_once_without_a_thread_in_the_background():
    said: list[Any] = []
    with mute() as peer:
        pool = ConnectionPool(background=False, health=QUIET)
        thread = asking(pool, peer.url, said, timeout=PATIENCE_S)
        until(is_asked(pool))
        time.sleep(0.02)  # it waits in the selector by now
        began, worked = time.monotonic(), time.thread_time()
        pool.close()
        assert time.monotonic() - began < SOON_S
        assert time.thread_time() - worked < 0.2  # it waited for that, and did not spin
        thread.join(PATIENCE_S)
    assert isinstance(said[0], h2lite.ConnectionLost)


def test_a_deadline_set_meanwhile_is_judged_in_time_without_a_thread_in_the_background():
    said: list[Any] = []
    with mute() as peer, ConnectionPool(background=False, health=QUIET) as pool:
        thread = asking(pool, peer.url, said, timeout=4)
        until(is_asked(pool))
        time.sleep(0.02)
        began = time.monotonic()
        future = pool.submit("GET", peer.url, timeout=0.05)
        with pytest.raises(h2lite.ReadTimeout):
            future.result(PATIENCE_S)
        assert time.monotonic() - began < SOON_S
        pool.close()
        thread.join(PATIENCE_S)


@pytest.mark.parametrize("background", [True, False])
def test_a_future_that_fails_at_once_is_told_at_once(background):
    """Nothing comes on any socket: whoever drives must be woken to tell it."""
    said: list[Any] = []
    pool = ConnectionPool(background=background, queued_max=0, health=QUIET)
    with accepting_one_request() as peer, pool:
        pool.connect(peer.url)
        thread = asking(pool, peer.url, said, timeout=4)
        until(is_asked(pool))
        time.sleep(0.02)
        began = time.monotonic()
        future = pool.submit("GET", peer.url)  # one is under way, and none may wait
        with pytest.raises(h2lite.PoolTimeout, match="wait for"):
            future.result(PATIENCE_S)
        assert time.monotonic() - began < SOON_S
        pool.close()
        thread.join(PATIENCE_S)


@contextmanager
def accepting_one_request() -> Iterator[Listening]:
    """As `mute`, and it takes one request at a time."""
    over = threading.Event()

    def script(sock: socket.socket) -> None:
        peer = Peer(sock)
        settings = {SettingId.MAX_CONCURRENT_STREAMS: 1}
        peer.core = type(peer.core)(client=False, settings=settings)
        peer.flush()
        peer.until(RequestReceived)
        over.wait(PATIENCE_S)

    with accepting(script) as peer:
        try:
            yield peer
        finally:
            over.set()


def test_a_job_that_is_queued_while_the_last_one_ends_is_called():
    """Nothing comes on any socket afterwards that would have it called."""
    called: list[str] = []
    with ConnectionPool(background=False) as pool:
        engine = pool._engine
        lock = engine._lock

        class Watched:
            """The engine's lock; as it is left with the queue empty, another thread queues."""

            def __enter__(self) -> None:
                lock.acquire()

            def __exit__(self, *exc: object) -> None:
                late = called == ["first"] and not engine._jobs
                lock.release()
                if late:
                    called.append("second queued")
                    thread = in_thread(queue_another)
                    thread.join(PATIENCE_S)

        def queue_another() -> None:
            engine._jobs.append((lambda: called.append("second"), False))
            engine._run_jobs(threading.get_ident())

        engine.queue(lambda: called.append("first"))
        engine._lock = Watched()  # type: ignore[assignment]
        engine._run_jobs(threading.get_ident())
        engine._lock = lock
    assert called == ["first", "second queued", "second"]


def test_poll_comes_back_when_another_thread_saw_to_something():
    with serving(slow) as server, ConnectionPool(background=False, health=QUIET) as pool:
        said: list[Any] = []
        thread = asking(pool, f"{server.url}/4", said, timeout=3)
        until(is_asked(pool))
        future = pool.submit("GET", f"{server.url}/0.05")
        began = time.monotonic()
        while not future.done():
            pool.poll(3.0)
        assert time.monotonic() - began < SOON_S
        pool.close()
        thread.join(PATIENCE_S)


# -- exceptions --------------------------------------------------------------------------------


def test_the_background_thread_outlives_what_is_raised_in_it(monkeypatch):
    reported: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: reported.append(told.exc_value))
    armed = threading.Event()

    def tap(received: bool, octets: bytes) -> None:
        if received and armed.is_set():
            armed.clear()
            raise LookupError("tap")

    def ask(peer: Peer) -> None:
        peer.until(SettingsAcked)
        armed.set()
        peer.core.ping(b"peer's  ", 0.0)
        peer.flush()
        with contextlib.suppress(ConnectionError, EOFError):
            peer.until(PingAcked)

    with serving() as server, ConnectionPool(health=QUIET, tap=tap) as pool:
        with peering(ask) as peer:
            pool.connect(peer.url)
            until(lambda: pool.stats()["deaths"])
        assert threads() == {"h2lite checks connections"}
        assert [str(error) for error in reported] == ["tap"]
        assert pool.submit("GET", server.url).result(PATIENCE_S).status == 200


def test_a_driver_that_cannot_even_recover_still_hands_over(monkeypatch):
    said: list[Any] = []
    armed: list[int] = []

    def tap(received: bool, octets: bytes) -> None:
        if received and armed and armed[0] == threading.get_ident():
            raise KeyboardInterrupt

    with serving(slow) as server, ConnectionPool(background=False, tap=tap, health=QUIET) as pool:
        pool.connect(server.url)
        recover = pool._engine.driver.recover

        def interrupted() -> Any:
            recover()
            if armed and armed[0] == threading.get_ident():
                raise KeyboardInterrupt
            return []

        monkeypatch.setattr(pool._engine.driver, "recover", interrupted)
        thread = asking(pool, f"{server.url}/0.05", said)
        until(is_asked(pool))
        assert thread.ident is not None
        armed.append(thread.ident)
        thread.join(PATIENCE_S)
        assert [type(each) for each in said] == [KeyboardInterrupt]
        assert pool._engine._driving is None
        assert pool.get(server.url, timeout=PATIENCE_S).status == 200


def test_a_thread_that_is_interrupted_as_it_begins_to_wait_leaves_no_place_behind(monkeypatch):
    """Whoever leaves would hand over to nobody, and the others would wait for ever."""
    said: list[Any] = []
    with serving(slow) as server, ConnectionPool(background=False, health=QUIET) as pool:
        pool.connect(server.url)
        engine = pool._engine
        thread = asking(pool, f"{server.url}/0.1", said)
        until(is_asked(pool))

        def interrupted(*arguments: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(engine, "_stand", interrupted)
            with pytest.raises(KeyboardInterrupt):
                pool.get(f"{server.url}/0.2")
        assert not engine._waiting
        thread.join(PATIENCE_S)
    assert said == [200]


@pytest.mark.parametrize("background", [True, False])
def test_closing_closes_whatever_is_raised_meanwhile(background):
    armed: list[bool] = []

    def tap(received: bool, octets: bytes) -> None:
        if armed:
            raise LookupError("tap")

    with serving() as server:
        before = descriptors(), threads()
        pool = ConnectionPool(tap=tap, health=QUIET, background=background)
        pool.get(server.url)
        armed.append(True)
        with pytest.raises(LookupError):
            pool.close()
        pool.close()
        # The server's end of it may take a moment.
        until(lambda: (descriptors(), threads()) == before)


@pytest.mark.parametrize("way", ["request", "submit"])
def test_a_request_whose_call_raised_is_not_sent_again(way):
    paths: list[str] = []
    armed: list[bool] = []

    def note(request: Request) -> Reply:
        paths.append(request.path)
        return Reply(200)

    def tap(received: bool, octets: bytes) -> None:
        if armed and not received:
            armed.clear()
            raise LookupError("tap")

    with serving(note) as server, ConnectionPool(tap=tap, background=False) as pool:
        pool.get(f"{server.url}/first")
        armed.append(True)
        with pytest.raises(LookupError):
            getattr(pool, way)("GET", f"{server.url}/second")
        assert pool._engine.watchers == {}
        pool.get(f"{server.url}/third")
    # What had left when it raised may have arrived.
    assert paths in (["/first", "/third"], ["/first", "/second", "/third"])


def test_an_answer_that_turns_out_malformed_is_never_seen_without_a_status(monkeypatch):
    """Another thread may read on between the header section and the caller's seeing it."""
    go = threading.Event()

    def malformed(peer: Peer) -> None:
        peer.until(RequestReceived)
        fields = block([*OK, (b"content-length", b"9")])
        peer.sock.sendall(HeadersFrame(1, fields).encode())
        go.wait(PATIENCE_S)
        peer.sock.sendall(DataFrame(1, b"short", True).encode())
        peer.serve()

    wait = _Exchange.wait

    def and_read_on(self: _Exchange, done: Callable[[], object]) -> None:
        wait(self, done)
        go.set()
        while self.call.error is None:
            self.pool.poll(PATIENCE_S)

    monkeypatch.setattr(_Exchange, "wait", and_read_on)
    with (
        peering(malformed) as peer,
        ConnectionPool(background=False, health=QUIET) as pool,
        pytest.raises(h2lite.StreamReset, match="malformed"),
    ):
        pool.stream("GET", peer.url)


# -- callbacks and futures ---------------------------------------------------------------------


def test_a_callback_that_never_comes_back_does_not_keep_the_pool_from_closing():
    entered, over = threading.Event(), threading.Event()

    def on_event(event: Any) -> None:
        entered.set()
        over.wait(PATIENCE_S)

    with serving() as server:
        pool = ConnectionPool(on_event=on_event, health=QUIET)
        pool.submit("GET", server.url)
        assert entered.wait(PATIENCE_S)
        began = time.monotonic()
        pool.close()
        took = time.monotonic() - began
        over.set()
    assert took < 2 * CLOSE_S_MAX + SOON_S


def test_a_cancelled_future_counts_as_done_for_those_who_wait_for_several():
    with mute() as peer, ConnectionPool(health=QUIET) as pool:
        futures = [pool.submit("GET", peer.url) for _ in range(2)]
        until(is_asked(pool))
        futures[0].cancel()
        done, _ = concurrent.futures.wait(futures, SOON_S, concurrent.futures.FIRST_COMPLETED)
        assert done == {futures[0]}
        futures[1].cancel()
        assert list(concurrent.futures.as_completed(futures, SOON_S))


def test_submit_takes_trailers_with_octets():
    seen: list[Any] = []

    def note(request: Request) -> Reply:
        seen.append((request.body, request.trailers))
        return Reply(200)

    with serving(note) as server, ConnectionPool() as pool:
        future = pool.submit("PUT", server.url, body=b"abc", trailers=[("sum", "1")])
        assert future.result(PATIENCE_S).status == 200
    assert seen == [(b"abc", [("sum", "1")])]


def test_a_pool_with_a_callback_that_is_dropped_ends_without_a_word(capfd):
    with serving() as server:
        before = descriptors(), threads()
        pool: ConnectionPool | None = ConnectionPool(on_event=print, health=QUIET)
        assert pool is not None
        pool.get(server.url)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # recorded, it would keep the pool
            del pool
            gc.collect()
            until(lambda: (descriptors(), threads()) == before)
    assert "Traceback" not in capfd.readouterr().err


def drop_unread(pool: ConnectionPool, url: str) -> None:
    """Ask, wait until a good deal of the answer is there, or all of it, and forget it."""
    response = pool.stream("GET", url)
    call = response._exchange.call
    until(lambda: call.ended or len(call.chunks) >= 50)


@pytest.mark.parametrize("ended", [True, False])
def test_responses_that_are_dropped_unread_starve_nobody_on_their_connection(ended):
    """Each counted as unread for ever, until no window was left for the others."""
    pieces = [bytes(16_000)] * (49 if ended else 200)

    def answer(request: Request) -> Reply:
        return Reply(200, iter(pieces))

    with serving(answer) as server, ConnectionPool(health=QUIET) as pool:
        connection = pool.connect(server.url)
        for _ in range(25):  # of 0.8 MB each, more than its window in all
            drop_unread(pool, server.url)
        assert len(pool.get(server.url, timeout=PATIENCE_S).read()) == 16_000 * len(pieces)
        assert connection._member.connection._unread == 0
        assert pool.stats()["dials"] == 1


# -- signals and the collector: a call from inside of another ---------------------------------


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no such signals here")
def test_a_signal_handler_may_close_the_pool_while_its_thread_drives():
    """As a SIGTERM handler does."""
    with mute() as peer, ConnectionPool(background=False, health=QUIET) as pool:
        before = signal.signal(signal.SIGUSR1, lambda number, frame: pool.close())
        try:
            thread = in_thread(lambda: interrupt_while(is_asked(pool)))
            with pytest.raises(h2lite.ConnectionLost, match="the pool was closed"):
                pool.get(peer.url, timeout=PATIENCE_S)
            thread.join(PATIENCE_S)
        finally:
            signal.signal(signal.SIGUSR1, before)


def interrupt_while(done: Callable[[], bool]) -> None:
    """Send the main thread a signal once something is so."""
    until(done)
    time.sleep(0.02)  # it waits in the selector by now
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)


@pytest.mark.parametrize("what", ["pool", "response", "future", "connection"])
def test_closing_in_the_middle_of_a_call_of_the_same_thread_waits_for_its_end(what):
    """The collector and signals come anywhere, under the pool's lock too: no deadlock."""
    closing: list[Callable[[], object]] = []

    def tap(received: bool, octets: bytes) -> None:
        while closing:
            closing.pop()()  # the tap is called under the lock, as a __del__ may be

    with mute() as peer, serving() as server:
        pool = ConnectionPool(background=False, health=QUIET, tap=tap)
        with pool:
            connection = pool.connect(server.url)
            future = pool.submit("GET", peer.url)
            response = pool.stream("GET", server.url)
            closing.append(
                {
                    "pool": pool.close,
                    "response": response.close,
                    "future": future.cancel,
                    "connection": connection.close,
                }[what]
            )
            with contextlib.suppress(h2lite.ConnectionLost):
                pool.get(server.url, timeout=PATIENCE_S)
            assert closing == []
            if what == "pool":
                assert pool.is_closed
            if what == "future":
                assert future.cancelled()


def test_any_other_call_in_the_middle_of_a_call_is_refused():
    said: list[Any] = []

    def tap(received: bool, octets: bytes) -> None:
        try:
            said.append(pool.stats())
        except h2lite.UsageError as error:
            said.append(str(error))

    with serving() as server, ConnectionPool(background=False, health=QUIET, tap=tap) as pool:
        pool.get(server.url)
    assert said
    assert all(str(each).startswith("called from inside of a call") for each in said)


# -- selectors without a descriptor, as Windows has --------------------------------------------


@pytest.mark.parametrize("kind", ["SelectSelector", "PollSelector"])
@pytest.mark.parametrize("background", [True, False])
def test_a_selector_that_does_not_heed_changes_is_woken_for_them(kind, background, monkeypatch):
    """A thread waits in it for one connection while others dial theirs."""
    if not hasattr(selectors, kind):
        pytest.skip(f"no {kind} here")
    monkeypatch.setattr(
        "h2lite.client.Loop", lambda clock, spin: Loop(clock, getattr(selectors, kind)())
    )
    said: list[Any] = []
    with serving(slow) as server, serving() as other:
        pool = ConnectionPool(background=background, health=QUIET)
        thread = asking(pool, f"{server.url}/0.2", said)
        until(is_asked(pool))
        began = time.monotonic()
        assert pool.get(other.url, timeout=PATIENCE_S).status == 200
        assert pool.submit("GET", other.url).result(PATIENCE_S).status == 200
        assert time.monotonic() - began < SOON_S
        thread.join(PATIENCE_S)
        pool.close()
    assert said == [200]


@pytest.mark.parametrize("what", ["a descriptor", "a thread"])
def test_a_dial_for_which_nothing_is_left_fails_as_any_other(what, monkeypatch):
    """And costs nothing else of what was to be done in that turn."""

    def none_left(*arguments: object, **options: object) -> Any:
        raise OSError(24, "Too many open files")

    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with serving() as server, ConnectionPool(background=False, health=QUIET) as pool:
        pool.get(server.url)
        before = descriptors()
        with monkeypatch.context() as patched:
            if what == "a thread":
                patched.setattr(threading.Thread, "start", no_thread)
            else:
                patched.setattr("h2lite.dial.socket.socketpair", none_left)
            with pytest.raises(h2lite.ConnectError, match=r"open files|new thread"):
                pool.get(f"http://name.invalid:{server.port}/")
        assert descriptors() == before
        assert pool.get(server.url).status == 200


# -- the end of the interpreter ----------------------------------------------------------------

AT_EXIT = """
import sys, threading, time
import h2lite
pool = h2lite.ConnectionPool(background={background})
{work}
"""


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("work", ["an idle connection", "a request in a daemon thread", "a future"])
def test_a_program_ends_at_once_and_without_a_word_whatever_its_pool_does(background, work):
    with serving(slow) as server:
        code = {
            "an idle connection": "pool.get(URL)",
            "a request in a daemon thread": (
                "pool.get(URL)\n"
                "def ask():\n"
                "    try: pool.get(URL + '/9', timeout=None)\n"
                "    except h2lite.ConnectionLost: pass\n"
                "threading.Thread(target=ask, daemon=True).start()\n"
                "while not pool.connections[0].requests: time.sleep(0.001)\n"
            ),
            "a future": "future = pool.submit('GET', URL + '/9')",
        }[work].replace("URL", repr(server.url))
        code += "\nprint(time.monotonic(), flush=True)"
        program = AT_EXIT.format(background=background, work=code)
        ended = subprocess.run(
            [sys.executable, "-X", "dev", "-c", program],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        assert time.monotonic() - float(ended.stdout) < SOON_S


def test_a_request_in_the_middle_of_a_call_turns_nothing():
    """By a signal handler, say, of a thread that holds the lock and drives nothing yet."""
    with serving(hello) as server, ConnectionPool(background=False) as pool:
        pool.get(server.url)
        engine = pool._engine
        engine._turned_at = -math.inf  # so that the next request would look first
        with engine._lock:
            with pytest.raises(UsageError, match="called from inside"):
                pool.get(server.url)
            assert engine._driving is None
        assert engine._turned_at == -math.inf


def test_an_interrupt_while_the_alarm_is_set_loses_no_deadline(monkeypatch):
    with ConnectionPool(background=False) as pool:
        driver, timers = pool._engine.driver, pool._pool.timers
        item = object()
        timers.set(item, 1e9)
        monkeypatch.setattr(driver.loop, "set_deadline", interrupted)
        with pytest.raises(KeyboardInterrupt):
            driver.flush()
        monkeypatch.undo()

        driver.flush()

        assert driver.loop.next_deadline() == 1e9
        timers.set(item, None)


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt
