"""The demo's lanes: a client each that beats once a second, what happens to it, what that comes to.

A lane does not know how its connection is made to die.  Instants are seconds since the run began.
"""

from __future__ import annotations

import math
import threading
from itertools import pairwise

from ..client import ConnectionChanged, ConnectionPool
from ..errors import H2liteError
from ..loop import monotonic
from ..value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..health import HealthPolicy

BEAT_S = 1.0
BEAT_TIMEOUT_S = 0.8  # shorter than a beat, so that each has its own second


class Beat(Value):
    """One beat.

    ended   None while it waits for its answer
    fault   what it was lost by, "" where it was not
    """

    __slots__ = ("began", "ended", "fault")

    def __init__(self, began: float, ended: float | None = None, fault: str = "") -> None:
        self.began = began
        self.ended = ended
        self.fault = fault


class Change(Value):
    """A connection, by its number in the lane, has changed its state, as ConnectionChanged says."""

    __slots__ = ("at", "connection", "before", "after", "cause")

    def __init__(self, at: float, connection: int, before: str, after: str, cause: str) -> None:
        self.at = at
        self.connection = connection
        self.before = before
        self.after = after
        self.cause = cause


class Record:
    """What has happened in a lane.

    missing     what would have to be installed for it, "" where it runs
    frozen_at   the connection that was live then is silent from there on; None: not yet
    beats       each is replaced when it ends
    dials       counted at the end of the run
    """

    def __init__(self, name: str, missing: str = "") -> None:
        self.name = name
        self.missing = missing
        self.frozen_at: float | None = None
        self.beats: list[Beat] = []
        self.changes: list[Change] = []
        self.dials = 0

    @property
    def state(self) -> str:
        """Of the newest connection that was reached, as its pool sees it; "" before the first."""
        number = max((change.connection for change in self.changes), default=0)
        states = [change.after for change in self.changes if change.connection == number]
        return states[-1] if states else ""


class Measures(Value):
    """What a lane's record comes to.

    beats       that have ended
    lost        of these, without an answer
    gap         (from, to), the longest time without an answer; the end of the run ends one, too
    detected    (seconds from the freeze, SUSPECT or DEAD), whichever came first; None: neither
    recovered   seconds from the freeze to the first answer of a beat begun after it; None: none
    cause       of the first death after the freeze, "" without one
    """

    __slots__ = ("beats", "lost", "gap", "detected", "recovered", "cause")

    def __init__(
        self,
        beats: int,
        lost: int,
        gap: tuple[float, float],
        detected: tuple[float, str] | None,
        recovered: float | None,
        cause: str,
    ) -> None:
        self.beats = beats
        self.lost = lost
        self.gap = gap
        self.detected = detected
        self.recovered = recovered
        self.cause = cause

    @property
    def gap_s(self) -> float:
        return self.gap[1] - self.gap[0]


def measure(record: Record, end: float) -> Measures:
    """Sum a record up; `end` is that of the run."""
    ended = [beat for beat in record.beats if beat.ended is not None]
    answered = [beat for beat in ended if not beat.fault]
    instants = [0.0, *(beat.ended or 0.0 for beat in answered), end]
    gap = max(pairwise(instants), key=lambda pair: pair[1] - pair[0])
    detected: tuple[float, str] | None = None
    recovered: float | None = None
    cause = ""
    if record.frozen_at is not None:
        frozen_at = record.frozen_at
        for change in record.changes:
            if change.at >= frozen_at and change.after in ("SUSPECT", "DEAD"):
                detected = detected or (change.at - frozen_at, change.after)
                cause = cause or change.cause
        after = [beat for beat in answered if beat.began >= frozen_at]
        if after and after[0].ended is not None:
            recovered = after[0].ended - frozen_at
    return Measures(len(ended), len(ended) - len(answered), gap, detected, recovered, cause)


class Lane:
    """A client with a pool and a thread of its own.

    url      whither it beats
    http2    False: by HTTP/1.1
    beats    how many there are
    """

    def __init__(
        self, record: Record, url: str, health: HealthPolicy, http2: bool, beats: int
    ) -> None:
        self.record = record
        self._url = url
        self._beats = beats
        self._began = 0.0
        self._ended_at = math.inf
        self._over = threading.Event()
        self._pool = ConnectionPool(
            health=health,
            http2=http2,
            timeout=BEAT_TIMEOUT_S,
            trust_env=False,  # it is all in this process: no proxy, no other times
            on_event=self._note,
        )
        self._thread = threading.Thread(
            target=self._run, name=f"h2lite demo, {record.name}", daemon=True
        )

    def start(self, began: float) -> None:
        """Beat from the instant `began` on, on the clock of `loop.monotonic`."""
        self._began = began
        self._thread.start()

    @property
    def is_beating(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """End it, in the middle of a beat if need be; what comes of that is not recorded."""
        self._ended_at = self._now()
        self._over.set()
        self.record.dials = self._pool.stats()["dials"]
        self._pool.close()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        number = 0
        while number < self._beats:
            if self._over.wait(max(0.0, self._began + number * BEAT_S - monotonic())):
                return
            self._beat()
            # One that overran its second takes the next one's place, and does not delay others.
            number = max(number + 1, math.ceil(self._now() / BEAT_S))

    def _beat(self) -> None:
        beat = Beat(self._now())
        beats = self.record.beats
        beats.append(beat)
        fault = ""
        try:
            status = self._pool.put(self._url).status
            if status != 204:
                fault = f"status {status}"
        except H2liteError as error:
            fault = type(error).__name__
        if not self._over.is_set():
            beats[-1] = Beat(beat.began, self._now(), fault)

    def _note(self, event: Value) -> None:
        if not isinstance(event, ConnectionChanged):
            return
        at, number = event.at - self._began, event.connection.number
        if at < self._ended_at:
            change = Change(at, number, event.before, event.after, event.cause)
            self.record.changes.append(change)

    def _now(self) -> float:
        return monotonic() - self._began
