"""Who drives: the pool's loop, turned by whichever thread waits, and by one of its own.

One thread drives at a time: it turns the loop until its own answer is there, then hands over to
one that waits.  While nobody waits, a thread in the background drives, so that checks go on and
peers are answered; it takes over only after a pause, and callers never pay for waking it.
The lock guards the pool and the loop; no user code runs under it but the tap, and nobody waits
under it.  A signal handler or a finalizer may come in the middle of a call of its own thread:
what it closes is closed after that call, and anything else it asks for is refused.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from threading import get_ident

from .drive import Driver
from .errors import ConnectError, UsageError
from .orders import Deliver, Rewind, StateChanged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .call import Call
    from .loop import Loop
    from .pool import Pool
    from .value import Value

# Longer than a program takes between two calls in a row, shorter than any peer's patience.
LINGER_S = 0.005
RECENT_S = 0.001  # what has come since then, the next request may still meet
EVENTS_QUEUED_MAX = 10_000  # for a callback that is slow; past it they are counted and dropped
CLOSE_S_MAX = 2.0  # for connections to see their GOAWAY off; each lingers 0.25 s at most


class Watcher:
    """Whom a thread tells what has come of a call; its methods are called under the lock."""

    __slots__ = ()

    def delivered(self) -> None:
        """Something has come of it."""

    def rewind(self) -> None:
        """Its content is wanted again from the start."""

    @property
    def wants_step(self) -> bool:
        """Its owner's thread has something to do for it, outside of the lock."""
        return False

    def turned(self) -> None:
        """A turn has ended; told those in `Engine.fed` alone."""


class _Place:
    """A thread that waits while another one drives.

    item   what it waits for, None: for its turn only
    """

    __slots__ = ("item", "watcher", "gate", "called")

    def __init__(self, item: object, watcher: Watcher | None) -> None:
        self.item = item
        self.watcher = watcher
        self.gate = threading.Lock()
        self.gate.acquire()
        self.called = False

    def call(self) -> None:
        """Have the thread look again; under the engine's lock."""
        if not self.called:
            self.called = True
            self.gate.release()


class Engine:
    """A `Driver` that many threads share.

    background   keep a thread that drives while nobody waits
    on_notice    given what the pool told; its result is called without the lock, in order, None:
                 nothing is to be called
    """

    def __init__(
        self,
        loop: Loop,
        pool: Pool,
        dial: Callable[[Loop, Any], Any],
        *,
        background: bool,
        on_notice: Callable[[Value], Callable[[], object] | None] | None = None,
    ) -> None:
        self._set_lock()
        self.loop = loop
        self.pool = pool
        self.driver = Driver(loop, pool, dial)
        self.watchers: dict[Call, Watcher] = {}  # of calls that somebody is told of
        self.fed: dict[Watcher, None] = {}  # whose content whoever drives is to give
        self.dropped_events = 0
        self.is_embedded = False  # somebody watches the loop's descriptor
        self._background = background
        self._on_notice = on_notice
        self._thread: threading.Thread | None = None
        self._driving: int | None = None  # the thread that drives
        self._drives = 0  # how often one began to
        self._due: float | None = None  # when the one that drives looks again by itself
        self._turned_at = 0.0
        self._waiting: dict[_Place, None] = {}
        self._jobs: deque[tuple[Callable[[], object], bool]] = deque()
        self._events_queued = 0
        self._jobs_run = False  # a thread is at it
        self._bell = threading.Lock()
        self._bell.acquire()
        self._bell_wanted = False
        self._closing = False
        self._closed = False
        self._abandoned = False
        self._forked = False
        _ENGINES.add(self)
        if not loop.is_live:
            loop.open_waker()

    def _set_lock(self) -> None:
        self._lock = threading.RLock()  # it knows its owner; nothing enters it twice
        self._is_owned: Callable[[], bool] = self._lock._is_owned  # type: ignore[attr-defined]

    # -- for whoever calls the pool --------------------------------------------------------

    @property
    def lock(self) -> threading.RLock:
        """Guards the pool and the loop.  Raises UsageError in the thread that holds it already."""
        self._check_outside()
        return self._lock

    def _check_outside(self) -> None:
        if self._is_owned():
            raise UsageError(
                "called from inside of a call of the same thread's: by a tap, a signal handler or"
                " a finalizer"
            )

    def postpones(self, job: Callable[[], object]) -> bool:
        """In the middle of a call of this thread's, have it called after that; else False."""
        if not self._is_owned():
            return False
        self._jobs.append((job, False))
        self.loop.wake()
        return True

    def check_open(self) -> None:
        """Raise UsageError where nothing can be asked of it any more."""
        self.check_usable()
        if self._closing:
            raise UsageError("the pool is closed")

    def check_usable(self) -> None:
        """Raise UsageError in a child process: nothing here is its own."""
        if self._forked:
            raise UsageError("this pool belongs to the parent process: make one after the fork")

    @property
    def is_over(self) -> bool:
        """It is closed, or will be in a moment."""
        return self._closing or self._closed

    def settle(self) -> None:
        """Carry out what a call of the pool's has led to; the last thing done under the lock."""
        try:
            self.driver.flush()
        except BaseException:
            self.driver.recover()
            self._tell()
            raise
        self._tell()
        if self._driving is None or self._driving == get_ident():
            if self.is_embedded:
                self.loop.wake()  # whoever watches the descriptor looks at the deadlines then
            return
        self._open_waker()
        now = self.loop.clock()
        patience = self._patience(self.loop.patience(None, now))
        sooner = patience is not None and (self._due is None or now + patience < self._due)
        if sooner or not self.loop.is_live:
            self.loop.wake()

    def look(self) -> None:
        """See what has come, unless a thread does so all the time: without the lock.

        A connection that the peer has closed is not to be given the next request.
        """
        # Read without the lock: whoever drives, or has driven, since then has looked, too.
        now = self.loop.clock()
        if self._driving is None and now - self._turned_at >= RECENT_S:
            self._check_outside()
            self.turn(now)

    def start(self) -> None:
        """Have the background thread run, where there is to be one; under the lock.

        Raises ConnectError where the system has no room for it.
        """
        if self._background and self._thread is None:
            thread = threading.Thread(
                target=self._serve, name="h2lite checks connections", daemon=True
            )
            try:
                self.loop.open_waker()
                thread.start()
            except (OSError, RuntimeError) as error:  # no descriptor, or no thread, is left
                reason = getattr(error, "strerror", None) or error
                raise ConnectError(f"no thread to check connections: {reason}") from error
            self._thread = thread

    def wait(
        self,
        done: Callable[[], object],
        item: object = None,
        deadline: float | None = None,
        watcher: Watcher | None = None,
    ) -> bool:
        """Drive, or wait while another thread does, until `done()`; False: `deadline` came first.

        done      asked under the lock, which the caller does not hold
        item      the Call, Ping or Member that `done` looks at; None: nothing is told of it
        watcher   return, too, when it wants a step
        The last turn begins after the deadline: what had come by then is read before judging.
        """
        me = get_ident()
        late = False
        place = None
        ready = None
        began = 0.0
        clock = self.loop.clock
        try:
            while True:
                # Held from the end of one turn to the beginning of the next.
                with self._lock:
                    if ready is not None and not self._closed:
                        self._turned_at = began
                        self.driver.end(ready, began)
                        self._tell()
                    # As it is now: without the lock, what `done` looks at changes.
                    is_done = bool(done() or (watcher is not None and watcher.wants_step))
                    ends = is_done or late or self._closed
                    drives = self._driving is None or self._driving == me
                    if ends:
                        self._leave(me)
                    elif ready is not None and self._jobs and not self._jobs_run:
                        drives = False  # what the turn has queued is called before the next one
                    elif drives:
                        if self._driving is None:
                            self._driving = me
                            self._drives += 1
                        late = deadline is not None and clock() >= deadline
                        began, patience = self.driver.begin(deadline)
                        if self._jobs:
                            patience = self._patience(patience)
                        self._due = None if patience is None else began + patience
                    else:
                        place = _Place(item, watcher)
                        self._park(place)
                ready = None
                if not ends:
                    if drives:
                        try:
                            ready = self.loop.select(patience)
                        except (OSError, ValueError):
                            if not self._closed:  # by a signal handler, in the middle of the wait
                                raise
                            ready = []
                    elif place is not None:
                        self._stand(place, deadline)
                        late = deadline is not None and clock() >= deadline
                        place = None
                if self._jobs and ready is None:
                    self._run_jobs(me)
                if ends:
                    return is_done
        except BaseException:
            with self._lock:
                if place is not None:
                    self._waiting.pop(place, None)
                try:
                    if not self._closed:
                        self.driver.recover()
                        self._tell()
                finally:
                    self._leave(me)
            raise

    def _patience(self, patience: float | None) -> float | None:
        """Nobody waits for anything while something is to be called."""
        return 0.0 if self._jobs and not self._jobs_run else patience

    def turn(self, deadline: float) -> None:
        """One turn; where another thread drives, wait until that has called something."""
        turns = iter((False, True))
        self.wait(lambda: next(turns), deadline=deadline)

    def embed(self) -> int:
        """The descriptor to watch in a loop of somebody else's; under the lock."""
        fileno = self.loop.fileno()
        self.loop.open_waker()
        self.is_embedded = True
        return fileno

    def queue(self, job: Callable[[], object]) -> None:
        """Have something called without the lock, after what was queued before; under the lock."""
        self._jobs.append((job, False))

    def next_deadline(self) -> float | None:
        """When a turn has something to do, if nothing comes before; seconds on the loop's clock."""
        with self.lock:
            now, patience = self.driver.begin(None)
            patience = self._patience(patience)
            return None if patience is None else now + patience

    def abandon(self) -> None:
        """Nobody holds the pool any more; safe wherever the collector may call it."""
        self._abandoned = True
        self.loop.wake()

    def close(self) -> None:
        """End everything; a second call does nothing."""
        if self.postpones(self.close):
            return
        with self._lock:
            if self._closing or self._closed:
                return
            self._closing = True
        try:
            self._part()
        finally:
            self._end()

    def _part(self) -> None:
        """End requests and connections, and give the peers time to read of it."""
        with self._lock:
            self.pool.close(self.loop.clock())
            self.settle()
            self._call_all()
            self._ring()
            self.loop.wake()
        self.wait(lambda: self.driver.is_idle, self, self.loop.clock() + CLOSE_S_MAX)

    def _end(self) -> None:
        """Close what is left once nobody drives; all that others waited for has ended."""
        me = get_ident()
        with self._lock:
            self._call_all()
            self._open_waker()
            self.loop.wake()
        while not self._closed:
            self.wait(lambda: self._driving in (None, me), self)
            with self._lock:
                if self._driving in (None, me):
                    self.driver.close()
                    self.loop.close()
                    self._closed = True
                    self._call_all()
        if self._thread not in (None, threading.current_thread()):
            self._thread.join(CLOSE_S_MAX)  # not for ever: it may be in a callback
        self._run_jobs(me)

    # -- turns -----------------------------------------------------------------------------

    def _tell(self) -> None:
        """Wake who waits for what the pool told, and queue what is to be called."""
        told = self.driver.told
        while told:
            # Taken away once it is heard: an exception in between costs nobody his answer.
            self._hear(told[0])
            told.popleft()
        if self._waiting or self.fed:
            self._ask_for_steps()
        if self._closing and self.driver.is_idle:
            self._call_those(self)

    def _hear(self, notice: Value) -> None:
        kind = type(notice)
        if kind is Deliver:
            item = notice.item  # type: ignore[attr-defined]
            watcher = self.watchers.get(item)
            if watcher is not None:
                watcher.delivered()
                if item.over:
                    self.watchers.pop(item, None)
                    self.fed.pop(watcher, None)
            if self._waiting:
                self._call_those(item)
            return
        if kind is Rewind:
            watcher = self.watchers.get(notice.call)  # type: ignore[attr-defined]
            if watcher is not None:  # None: it is over by now
                watcher.rewind()
            return
        if kind is StateChanged:
            self._call_those(notice.member)  # type: ignore[attr-defined]
        self._queue_event(notice)

    def _ask_for_steps(self) -> None:
        """Have content given by those whose turn it is."""
        for place in self._waiting:
            if place.watcher is not None and place.watcher.wants_step:
                place.call()
        for watcher in self.fed:
            watcher.turned()

    def _call_all(self) -> None:
        for place in self._waiting:
            place.call()

    def _call_those(self, item: object) -> None:
        for place in self._waiting:
            if place.item is item:
                place.call()

    def _queue_event(self, notice: Value) -> None:
        if self._on_notice is None:
            return
        if self._events_queued >= EVENTS_QUEUED_MAX:
            self.dropped_events += 1
            return
        job = self._on_notice(notice)
        if job is not None:
            self._events_queued += 1
            self._jobs.append((job, True))

    def _park(self, place: _Place) -> None:
        """Wait for one's turn; under the lock."""
        self._waiting[place] = None
        self._open_waker()
        if self._thread is not None and self._driving == self._thread.ident:
            self.loop.wake()  # it drives only while nobody else would

    def _open_waker(self) -> None:
        """Have whoever drives be woken; where no descriptor is left, it looks again by itself."""
        try:
            self.loop.open_waker()
        except OSError:
            return

    def _stand(self, place: _Place, deadline: float | None) -> None:
        """Wait until called, or until `deadline`; without the lock."""
        patience = -1.0
        if deadline is not None:
            patience = min(max(0.0, deadline - self.loop.clock()), threading.TIMEOUT_MAX)
        try:
            place.gate.acquire(timeout=patience)
        finally:
            with self._lock:
                self._waiting.pop(place, None)

    def _leave(self, me: int) -> None:
        """The thread waits no more: let another one drive; under the lock."""
        if self._driving == me:
            self._driving = None
        if self._driving is None and not self._closed:
            for place in self._waiting:
                place.call()
                return
            if self._bell_wanted:
                self._ring()

    def _ring(self) -> None:
        """The background thread stands by for the end of a long drive; this was it."""
        if self._bell_wanted:
            self._bell_wanted = False
            self._bell.release()

    def _run_jobs(self, me: int) -> None:
        """Call what was queued, in order, unless another thread is at it."""
        with self._lock:
            if self._jobs_run:
                return
            self._jobs_run = True
            self._leave(me)  # a callback may take its time, and may wait for an answer itself
        try:
            while True:
                with self._lock:
                    if not self._jobs:
                        # At once: what another thread queues from here on is its own to call.
                        self._jobs_run = False
                        self._call_those(None)  # who polls meanwhile may have waited for it
                        return
                    job, is_event = self._jobs.popleft()
                    self._events_queued -= is_event
                try:
                    job()
                except Exception as error:  # noqa: BLE001  the user's fault is reported, no more
                    _Unraisable(error)
        except BaseException:
            self._jobs_run = False
            raise

    # -- in the background -----------------------------------------------------------------

    def _serve(self) -> None:
        """Drive while nobody else does: the background thread."""
        seen = -1
        while not self._closing:
            if self._abandoned:
                self.close()
                return
            with self._lock:
                now = self.loop.clock()
                is_free = self._driving is None
                is_same = self._drives == seen
                seen = self._drives
                patience = self._patience(self.loop.patience(None, now))
                pause = LINGER_S if patience is None or not is_free else min(LINGER_S, patience)
                if not is_free and is_same:
                    self._bell_wanted = True  # a long drive: its end is worth a bell
            if is_free and (is_same or not pause):
                try:
                    self.wait(
                        lambda: self._waiting or self._closing or self._abandoned, self._thread
                    )
                except BaseException as error:  # noqa: BLE001  there is no caller to tell
                    _Unraisable(error)
                seen = -1
            else:
                self._bell.acquire(timeout=-1.0 if self._bell_wanted else pause)

    # -- forks -----------------------------------------------------------------------------

    def after_fork_in_child(self) -> None:
        """Close this process's copies of the descriptors; the parent's connections go on."""
        if self._closed:
            return
        self._forked = self._closed = True
        self._set_lock()  # a thread that is not here may have held the old one
        self.driver.close_after_fork()


# Every engine that may have something to end when the interpreter does, or to leave after a fork.
_ENGINES: weakref.WeakSet[Engine] = weakref.WeakSet()


class _Unraisable:
    """Hands an exception to sys.unraisablehook as soon as it is dropped.

    The hook's argument is of a type that Python code cannot make; what a `__del__` raises comes
    to the hook by itself.
    """

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __del__(self) -> None:
        raise self.error


def _close_all() -> None:
    for engine in list(_ENGINES):
        engine.close()


def _after_fork_in_child() -> None:
    for engine in list(_ENGINES):
        engine.after_fork_in_child()


def _register() -> None:
    import atexit

    atexit.register(_close_all)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork_in_child)


_register()
