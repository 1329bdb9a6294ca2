"""Who drives: hand-over between threads, the one in the background, callbacks, forks, the end."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

import h2lite
from h2lite.client import ConnectionChanged, ConnectionPool, connect
from h2lite.engine import EVENTS_QUEUED_MAX, LINGER_S
from h2lite.errors import ConnectionLost, UsageError
from h2lite.events import PingAcked, RequestReceived, SettingsAcked
from h2lite.exchange import Reply, Request
from h2lite.health import HealthPolicy

from .running import PATIENCE_S, Peer, peering, serving

QUIET = HealthPolicy(ping_after_idle=0)  # nothing is sent that a test has not asked for


def slow(request: Request) -> Reply:
    """/SECONDS: an answer after so long."""
    return Reply(200, b"ok", delay=float(request.path[1:] or 0))


def until(done: Callable[[], Any]) -> None:
    """Wait for another thread to do something."""
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def descriptors() -> list[str]:
    return sorted(os.listdir("/dev/fd"))


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("h2lite")}


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


# -- who drives --------------------------------------------------------------------------------


@pytest.mark.parametrize("background", [True, False])
def test_threads_that_wait_are_answered_whoever_drives(background):
    """Each answer comes at another time, so that the driver changes again and again."""
    answers: list[bytes] = []
    with serving(slow) as server, ConnectionPool(background=background) as pool:

        def ask(seconds: float) -> Callable[[], None]:
            return lambda: answers.append(pool.get(f"{server.url}/{seconds}").read())

        asking = [in_thread(ask(index / 100)) for index in range(12)]
        for thread in asking:
            thread.join(PATIENCE_S)

        assert answers == [b"ok"] * 12
        assert pool.stats()["dials"] == 1


def test_a_driver_that_leaves_hands_over_to_one_that_waits():
    """Without a thread in the background nobody else would take over."""
    with serving(slow) as server, ConnectionPool(background=False) as pool:
        pool.connect(server.url)
        long = in_thread(lambda: pool.get(f"{server.url}/0.3"))
        until(lambda: pool._engine._driving is not None)
        short = in_thread(lambda: pool.get(f"{server.url}/0.1"))
        until(lambda: pool._engine._waiting)
        with pytest.raises(h2lite.ReadTimeout):
            pool.get(f"{server.url}/5", timeout=0.05)

        long.join(PATIENCE_S)
        short.join(PATIENCE_S)
        assert not long.is_alive()
        assert not short.is_alive()


def test_what_a_wait_is_for_counts_as_it_was_under_the_lock(monkeypatch):
    """The background thread looks at a table that another thread may empty a moment later."""
    with ConnectionPool(background=False) as pool:
        engine, waiting = pool._engine, [object()]
        leave = engine._leave

        def leave_and_empty(me: int) -> None:
            leave(me)
            waiting.clear()

        monkeypatch.setattr(engine, "_leave", leave_and_empty)
        assert engine.wait(lambda: waiting) is True
        monkeypatch.undo()


def test_an_interrupted_driver_costs_its_connection_and_hands_over():
    """Ctrl-C between a recv and its meaning; another thread's GET is repeated elsewhere."""
    armed: list[int] = []
    faults: list[BaseException] = []

    def tap(received: bool, octets: bytes) -> None:
        if received and armed and armed[0] == threading.get_ident():
            armed.clear()
            raise KeyboardInterrupt

    with serving(slow) as server, ConnectionPool(background=False, tap=tap) as pool:
        pool.connect(server.url)

        def drive() -> None:
            try:
                pool.get(f"{server.url}/9")
            except KeyboardInterrupt as error:
                faults.append(error)

        driving = in_thread(drive)
        until(lambda: pool._engine._driving is not None)
        assert driving.ident is not None
        armed.append(driving.ident)
        assert pool.get(f"{server.url}/0.1").status == 200
        driving.join(PATIENCE_S)

        assert [type(fault) for fault in faults] == [KeyboardInterrupt]
        assert (pool.stats()["dials"], pool.stats()["deaths"]) == (2, {"local": 1})


def test_the_background_thread_answers_a_peer_while_nobody_calls():
    answered = threading.Event()

    def ask(peer: Peer) -> None:
        peer.until(SettingsAcked)
        peer.core.ping(b"peer's  ", 0.0)
        peer.flush()
        peer.until(PingAcked)
        answered.set()
        peer.serve()

    with peering(ask) as peer, connect(peer.url, health=QUIET):
        assert answered.wait(PATIENCE_S)


def test_the_background_thread_leaves_calls_in_a_row_to_their_caller():
    with serving() as server, connect(server.url, health=QUIET) as connection:
        engine = connection._pool._engine
        connection.ping()
        drives = engine._drives
        for _ in range(20):
            connection.ping()

        assert engine._drives - drives <= 20 + 1  # once, where this thread was held up


def test_the_background_thread_takes_over_after_a_pause_and_gives_way_again():
    with serving() as server, connect(server.url, health=QUIET) as connection:
        engine = connection._pool._engine
        thread = engine._thread
        assert thread is not None
        for _ in range(3):
            until(lambda: engine._driving == thread.ident)
            connection.ping()
            assert engine._driving != thread.ident or LINGER_S < 0.05


def test_a_pool_without_requests_has_no_thread_and_one_without_background_never():
    before = threads()
    with serving() as server:
        with ConnectionPool() as pool:
            assert threads() == before
            pool.get(server.url)
            assert threads() == before | {"h2lite checks connections"}
        assert threads() == before
        with ConnectionPool(background=False) as pool:
            pool.get(server.url)
            assert threads() == before


def test_checks_go_on_in_the_background():
    policy = HealthPolicy(ping_after_idle=0.05, ping_timeout=1.0, jitter=False)
    with serving() as server, connect(server.url, health=policy) as connection:
        until(lambda: connection._pool.stats()["pings_acked"] >= 3)
        assert connection.state in ("LIVE", "PROBING")


# -- callbacks ---------------------------------------------------------------------------------


def test_events_are_told_in_order_and_with_the_connection():
    events: list[Any] = []
    with serving() as server, ConnectionPool(on_event=events.append, health=QUIET) as pool:
        pool.get(server.url)
        (connection,) = pool.connections
    assert [(event.before, event.after, event.cause) for event in events] == [
        ("CONNECTING", "LIVE", ""),
        ("LIVE", "DEAD", "local"),
    ]
    assert all(event.connection == connection for event in events)


def test_a_callback_may_make_calls_of_its_own():
    told: list[Any] = []
    with serving() as server:

        def on_event(event: Any) -> None:
            if isinstance(event, ConnectionChanged) and event.after == "LIVE":
                told.append(pool.get(server.url).status)
                told.append(event.connection.ping(timeout=PATIENCE_S).error)

        with ConnectionPool(on_event=on_event, health=QUIET) as pool:
            assert pool.get(server.url).status == 200
            until(lambda: len(told) == 2)
    assert told == [200, None]


def test_what_a_callback_raises_is_reported_and_harms_nobody(monkeypatch):
    reported: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: reported.append(told.exc_value))

    def on_event(event: Any) -> None:
        raise LookupError(event.after)

    with serving() as server, ConnectionPool(on_event=on_event, health=QUIET) as pool:
        assert pool.get(server.url).status == 200
        assert pool.get(server.url).status == 200
    assert [str(error) for error in reported] == ["LIVE", "DEAD"]


def test_events_past_the_limit_are_dropped_and_counted():
    with serving() as server, ConnectionPool(on_event=print, background=False) as pool:
        pool._engine._events_queued = EVENTS_QUEUED_MAX  # as if the callback had been slow
        pool.get(server.url)
        assert pool.stats()["events_dropped"] == 1


# -- futures -----------------------------------------------------------------------------------


def test_a_future_has_the_response_read_whole():
    with serving(slow) as server, ConnectionPool() as pool:
        futures = [pool.submit("GET", f"{server.url}/{index / 100}") for index in range(5)]
        assert [future.result(PATIENCE_S).read() for future in futures] == [b"ok"] * 5


def test_a_future_has_what_a_call_would_have_raised():
    with ConnectionPool() as pool, serving() as server:
        port = server.port
    with ConnectionPool() as pool:
        future = pool.submit("GET", f"http://127.0.0.1:{port}/")
        with pytest.raises(h2lite.ConnectError, match="connection refused"):
            future.result(PATIENCE_S)


def test_a_future_that_is_cancelled_cancels_its_request():
    resets: list[Any] = []

    def silent(peer: Peer) -> None:
        peer.until(RequestReceived)
        resets.append(peer.until(h2lite.events.StreamReset))
        peer.serve()

    with peering(silent) as peer, ConnectionPool() as pool:
        future = pool.submit("GET", peer.url)
        until(lambda: pool.connections and pool.connections[0].requests)
        time.sleep(0.02)
        assert future.cancel()
        until(lambda: resets)
    assert resets[0].error_code == h2lite.ErrorCode.CANCEL


def test_a_future_needs_nobody_but_poll(tmp_path):
    """A file's content is read by whoever drives."""
    path = tmp_path / "content"
    path.write_bytes(bytes(range(256)) * 2000)

    def echo(request: Request) -> Reply:
        return Reply(200, request.body)

    with serving(echo) as server, ConnectionPool(background=False) as pool, path.open("rb") as file:
        future = pool.submit("PUT", server.url, body=file)
        deadline = time.monotonic() + PATIENCE_S
        while not future.done() and time.monotonic() < deadline:
            pool.poll(0.5)
        assert future.result(0).read() == path.read_bytes()


@pytest.mark.parametrize("body", [iter([b"a"]), [b"a"]], ids=["an iterator", "a list"])
def test_submit_takes_no_body_that_only_its_callers_thread_may_go_through(body):
    with ConnectionPool() as pool, pytest.raises(UsageError, match="seekable file"):
        pool.submit("PUT", "http://127.0.0.1:1/", body=body)


def test_a_file_that_fails_fails_its_future():
    class Broken:
        def seekable(self) -> bool:
            return True

        def tell(self) -> int:
            return 0

        def seek(self, where: int, whence: int = 0) -> int:
            return 100 if whence else where

        def read(self, octets: int) -> bytes:
            raise OSError("the disk is gone")

    with serving() as server, ConnectionPool() as pool:
        future = pool.submit("PUT", server.url, body=Broken())  # type: ignore[arg-type]
        with pytest.raises(OSError, match="the disk is gone"):
            future.result(PATIENCE_S)
        assert pool.get(server.url).status == 200


# -- the end -----------------------------------------------------------------------------------


def test_closing_leaves_no_descriptor_and_no_thread():
    before = descriptors(), threads()
    with serving() as one, serving() as two:
        at_work = descriptors(), threads()
        for _ in range(3):
            with ConnectionPool() as pool:
                pool.get(one.url)
                pool.get(two.url)
            assert (descriptors(), threads()) == at_work
    assert (descriptors(), threads()) == before


def test_closing_ends_what_others_wait_for():
    faults: list[BaseException] = []
    with serving(slow) as server:
        pool = ConnectionPool()
        pool.connect(server.url)

        def ask() -> None:
            try:
                pool.get(f"{server.url}/9", timeout=None)
            except ConnectionLost as error:
                faults.append(error)

        asking = [in_thread(ask) for _ in range(5)]
        until(lambda: pool.connections[0].requests == 5)
        pool.close()
        pool.close()
        for thread in asking:
            thread.join(PATIENCE_S)
    assert [str(fault) for fault in faults] == ["the pool was closed"] * 5
    with pytest.raises(UsageError, match="the pool is closed"):
        pool.get(server.url)


def test_a_pool_that_is_dropped_says_so_and_ends():
    with serving() as server:
        before = descriptors(), threads()
        pool: ConnectionPool | None = ConnectionPool()
        assert pool is not None
        pool.get(server.url)
        with pytest.warns(ResourceWarning, match="was not closed"):  # noqa: PT031
            del pool
            gc.collect()
        until(lambda: (descriptors(), threads()) == before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # just that is tested
@pytest.mark.parametrize("background", [True, False])
def test_a_child_is_told_and_touches_nothing(background):
    with serving() as server, ConnectionPool(background=background) as pool:
        pool.get(server.url)
        connection = pool.connections[0]
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:  # the child: no assertion here, what it saw goes through the pipe
            with ExitStack() as leaving:
                leaving.callback(os._exit, 0)
                said = []
                for call in (lambda: pool.get(server.url), connection.ping, pool.ping_all):
                    try:
                        call()
                    except UsageError as error:
                        said.append(str(error))
                pool.close()
                os.write(write, "\n".join(said).encode())
        os.close(write)
        with os.fdopen(read) as told:
            said = told.read().splitlines()
        os.waitpid(pid, 0)

        assert said == ["this pool belongs to the parent process: make one after the fork"] * 3
        assert connection.ping(timeout=PATIENCE_S).error is None
        assert pool.get(server.url).status == 200
        assert pool.stats()["dials"] == 1
