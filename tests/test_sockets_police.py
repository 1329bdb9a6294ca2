"""Scenarios of too many PINGs on real sockets: a server that counts them, and says so once.

The exact instants are held by the virtual twins in test_scenarios_retry.py; etcd and grpcio
themselves are met in tests/peers/test_policing.py.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from h2lite.client import ConnectionChanged, ConnectionPool, OriginCalmed
from h2lite.errors import ConnectionLost, ErrorCode

from .running import PATIENCE_S, policing
from .test_engine import until
from .test_sockets_silence import Watch, checks

pytestmark = pytest.mark.scenario

R = 0.2
MIN_GAP_S = 2.0  # R, and each probe, is far below it


def calmed(told: Watch) -> list[tuple[str, float | None]]:
    return [
        (str(event.origin), event.found_within)
        for event in told.events
        if isinstance(event, OriginCalmed)
    ]


def causes(told: Watch) -> list[str]:
    """Of the deaths so far."""
    return [
        event.cause
        for event in told.events
        if isinstance(event, ConnectionChanged) and event.after == "DEAD"
    ]


def test_too_many_pings():
    """One connection is lost; the next ones, used and idle, send no PING in 5 s."""
    told = Watch()
    with (
        policing(MIN_GAP_S) as police,
        ConnectionPool(health=checks(R, 3.0), on_event=told) as pool,
    ):
        assert pool.get(police.url).status == 200
        until(lambda: calmed(told))

        # Twice: the second time what was learned is older than the connection.
        for _ in range(2):
            deadline = time.monotonic() + 2.5
            while time.monotonic() < deadline:
                assert pool.get(police.url).status == 200
                time.sleep(6 * R)  # four PINGs would leave meanwhile
            (connection,) = pool.connections
            connection.close()
        stats = pool.stats()

    assert (police.kills, len(police.pings)) == (1, 3)
    # The first came after a response and was free, the next three were too soon.
    assert [len(pings) for pings in police.pings] == [4, 0, 0]
    assert calmed(told) == [(police.url, 303.0)]
    assert stats["calmed_origins"] == {police.url: 303.0}
    assert (causes(told), stats["deaths"]) == (
        ["goaway", "local", "local"], {"goaway": 1, "local": 2}
    )


def test_too_many_pings_until_it_is_forgotten():
    """`forget_origin` begins anew, on the connection that is there; then it is learned again."""
    told = Watch()
    with (
        policing(MIN_GAP_S) as police,
        ConnectionPool(health=checks(R, 3.0), on_event=told) as pool,
    ):
        assert pool.get(police.url).status == 200
        until(lambda: calmed(told))
        assert pool.get(police.url).status == 200
        time.sleep(3 * R)
        assert police.pings[1:] == [[]]

        pool.forget_origin(police.url)

        assert pool.stats()["calmed_origins"] == {}
        until(lambda: len(calmed(told)) == 2)
        assert (police.kills, pool.stats()["deaths"]) == (2, {"goaway": 2})
        assert pool.stats()["calmed_origins"] == {police.url: 303.0}


def test_too_many_pings_with_requests_under_way():
    """They lose their connection: a GET is repeated on the next one, a POST is not."""
    told = Watch()
    with (
        policing(MIN_GAP_S) as police,
        ConnectionPool(health=checks(R, 3.0), on_event=told) as pool,
    ):
        get = pool.submit("GET", f"{police.url}/held")
        post = pool.submit("POST", f"{police.url}/held", body=b"once")
        answer: Any = get.result(PATIENCE_S)
        with pytest.raises(ConnectionLost) as caught:
            post.result(PATIENCE_S)
        stats = pool.stats()

    assert answer.status == 200
    error = caught.value
    assert (error.cause, error.maybe_processed) == ("goaway", True)
    assert error.error_code == ErrorCode.ENHANCE_YOUR_CALM
    assert str(error).endswith("said GOAWAY ENHANCE_YOUR_CALM b'too_many_pings'")
    assert sorted(police.asked) == ["GET /held", "GET /held", "POST /held"]
    assert (police.kills, stats["dials"], stats["retries"]) == (1, 2, 1)
    assert stats["deaths"] == {"goaway": 1}
