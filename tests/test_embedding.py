"""A pool inside somebody else's event loop: its descriptor, its deadline and poll()."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import time
from typing import Any

import pytest

from h2lite.client import ConnectionPool
from h2lite.errors import ConnectionLost, UsageError
from h2lite.events import RequestReceived
from h2lite.exchange import Reply, Request
from h2lite.health import HealthPolicy

from .running import PATIENCE_S, Peer, peering, serving
from .test_engine import slow


class Embedded:
    """A pool as asyncio's loop drives it: a reader on its descriptor, a timer for its deadline."""

    def __init__(self, pool: ConnectionPool) -> None:
        self.pool = pool
        self.loop = asyncio.get_running_loop()
        self.polls = 0
        self._timer: asyncio.TimerHandle | None = None
        self.loop.add_reader(pool.fileno(), self._poll)
        self._poll()

    def _poll(self) -> None:
        self.polls += 1
        self.pool.poll(0.0)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.pool.next_deadline()
        if deadline is not None:
            delay = max(0.0, deadline - self.pool.clock())
            self._timer = self.loop.call_later(delay, self._poll)

    def close(self) -> None:
        self.loop.remove_reader(self.pool.fileno())
        if self._timer is not None:
            self._timer.cancel()


def test_asyncio_drives_a_pool_among_other_work():
    async def main() -> tuple[list[int], int, int]:
        with serving(slow) as server, ConnectionPool(background=False) as pool:
            embedded = Embedded(pool)
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    await asyncio.sleep(0.005)
                    ticks += 1

            ticking = asyncio.create_task(tick())
            futures = [
                asyncio.wrap_future(pool.submit("GET", f"{server.url}/{index / 50}"))
                for index in range(8)
            ]
            responses = await asyncio.wait_for(asyncio.gather(*futures), PATIENCE_S)
            ticking.cancel()
            embedded.close()
            return [response.status for response in responses], ticks, embedded.polls

    statuses, ticks, polls = asyncio.run(main())

    assert statuses == [200] * 8
    assert ticks >= 5  # the other work went on
    assert polls < 200  # and nobody span


def falls_silent(peer: Peer) -> None:
    """Reads a request and says nothing any more; whoever gives it up resets the connection."""
    peer.until(RequestReceived)
    with contextlib.suppress(ConnectionResetError):
        while peer.sock.recv(65536):
            pass


def test_checks_are_made_by_the_deadline_alone():
    """A dead connection is found though its descriptor never becomes readable."""
    policy = HealthPolicy(ping_after_idle=0.1, ping_timeout=0.1, jitter=False)

    async def main() -> list[str]:
        events: list[Any] = []
        with (
            peering(falls_silent) as peer,
            ConnectionPool(background=False, health=policy, on_event=events.append) as pool,
        ):
            embedded = Embedded(pool)
            future = asyncio.wrap_future(pool.submit("POST", peer.url))
            with pytest.raises(ConnectionLost, match="is dead"):
                await asyncio.wait_for(future, PATIENCE_S)
            embedded.close()
        return [event.after for event in events]

    assert asyncio.run(main()) == ["LIVE", "PROBING", "DEAD"]  # soft and hard fall together


def test_poll_returns_as_soon_as_something_happens():
    with serving(slow) as server, ConnectionPool(background=False) as pool:
        future = pool.submit("GET", f"{server.url}/0.05")
        began = time.monotonic()
        while not future.done():
            pool.poll(PATIENCE_S)
        assert time.monotonic() - began < PATIENCE_S / 2


def test_poll_waits_no_longer_than_it_is_told():
    with serving(slow) as server, ConnectionPool(background=False) as pool:
        pool.get(server.url)
        began = time.monotonic()
        pool.poll(0.02)
        assert 0.01 < time.monotonic() - began < PATIENCE_S / 2


@pytest.mark.parametrize("timeout", [-1.0, float("nan")])
def test_poll_takes_no_time_that_is_none(timeout):
    with ConnectionPool(background=False) as pool, pytest.raises(UsageError, match="timeout of"):
        pool.poll(timeout)


def test_a_pool_with_a_thread_has_no_descriptor_to_watch():
    with ConnectionPool() as pool, pytest.raises(UsageError, match="background=False"):
        pool.fileno()


def test_a_selector_without_a_descriptor_says_so():
    with ConnectionPool(background=False) as pool:
        pool._engine.loop._selector.close()
        pool._engine.loop._selector = selectors.SelectSelector()
        with pytest.raises(OSError, match="SelectSelector has no descriptor"):
            pool.fileno()


def test_a_pool_with_nothing_to_do_has_no_deadline():
    with ConnectionPool(background=False) as pool:
        assert pool.next_deadline() is None


def test_an_answer_in_pieces_is_read_between_polls():
    def pieces(request: Request) -> Reply:
        return Reply(200, iter([b"a" * 1000] * 50))

    with (
        serving(pieces) as server,
        ConnectionPool(background=False) as pool,
        pool.stream("GET", server.url) as response,
    ):
        pool.poll(0.01)
        assert sum(map(len, response.iter_bytes())) == 50_000
