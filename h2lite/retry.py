"""Trying again: when a request may be repeated, and when an origin may be dialled again.

Numbers in, instants out; no clock, and randomness is an argument.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Before each repetition: the first at once, since most refusals are a restart or a race.
RETRY_DELAYS_S = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
RETRIES_MAX = len(RETRY_DELAYS_S)
RETRY_SPREAD = 0.1  # upward, so that what was refused together does not come back together

# Methods whose repetition the peer must be able to bear (RFC 9110 §9.2.1, §9.2.2).
SAFE_METHODS = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE"))
IDEMPOTENT_METHODS = SAFE_METHODS | {b"PUT", b"DELETE"}

TOKENS_MAX = 10.0  # repetitions of one origin's requests at once
TOKENS_PER_S = 1.0
TOKENS_PER_REQUEST = 0.2  # so that in the long run a fifth of the requests may be repeated

GOOD_LIFE_S = 10.0  # a connection that lived as long says that dialling works
PROMPT_SPREAD_S = 0.1  # clients that lost one server together come back within this
FIRST_DELAY_S = 1.0
DELAY_GROWTH = 1.6
DELAY_S_MAX = 10.0
GROWTHS_MAX = 10  # past this the longest delay is reached; outages of days overflow no power
DELAY_SPREAD = 0.2  # both ways
CROWD = 3  # deaths within CROWD_S: the server is overrun, or restarts
CROWD_S = 1.0


class Bucket:
    """Tokens for the repetitions of one origin's requests.  Full at first."""

    __slots__ = ("_tokens", "_at")

    def __init__(self, now: float) -> None:
        self._tokens = TOKENS_MAX
        self._at = now

    def earn(self) -> None:
        """A request was made."""
        self._tokens = min(TOKENS_MAX, self._tokens + TOKENS_PER_REQUEST)

    def take(self, now: float) -> bool:
        """Take a token; False when there is none."""
        self._tokens = min(TOKENS_MAX, self._tokens + (now - self._at) * TOKENS_PER_S)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Backoff:
    """When one origin may be dialled next.

    uniform   a number in [0, 1), another each time; None: nothing is spread
    due       the next dial may begin; seconds
    """

    __slots__ = ("due", "_uniform", "_failures", "_deaths")

    def __init__(self, uniform: Callable[[], float] | None) -> None:
        self.due = 0.0
        self._uniform = uniform
        self._failures = 0
        self._deaths: list[float] = []  # the last few

    def failed(self, now: float) -> None:
        """A dial failed, or its connection was lost before it was of any use."""
        self._failures += 1
        self._delay(now)

    def proved(self) -> None:
        """A response came, or a connection has had a good life: dialling works."""
        self._failures = 0

    def replace(self, now: float) -> None:
        """A connection that worked is lost or doubted: dial at once."""
        spread = self._uniform() * PROMPT_SPREAD_S if self._uniform else 0.0
        self.due = now + spread
        if self._is_crowded(now):
            self._delay(now)

    def died(self, now: float) -> None:
        """A connection died, whatever of; told before what follows from that."""
        self._deaths = [*self._deaths[1 - CROWD :], now]

    def dialled(self, now: float) -> None:
        """A dial succeeded: where many have died at once, the next one is not to follow at once."""
        if self._is_crowded(now):
            self._delay(now)

    def _delay(self, now: float) -> None:
        uniform = self._uniform() if self._uniform else 0.5
        growth = DELAY_GROWTH ** min(max(0, self._failures - 1), GROWTHS_MAX)
        delay = min(FIRST_DELAY_S * growth, DELAY_S_MAX)
        if self._is_crowded(now):
            self.due = now + uniform * delay
        else:
            self.due = now + delay * (1 + (2 * uniform - 1) * DELAY_SPREAD)

    def _is_crowded(self, now: float) -> bool:
        deaths = self._deaths
        full = len(deaths) == CROWD and deaths[-1] - deaths[0] <= CROWD_S
        return full and now - deaths[-1] < GOOD_LIFE_S
