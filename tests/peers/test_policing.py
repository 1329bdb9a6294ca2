"""etcd and grpcio count PINGs and end who sends too many: a pool learns it the first time."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from h2lite.client import ConnectionChanged, ConnectionPool, OriginCalmed
from h2lite.errors import ConnectionLost
from h2lite.health import HealthPolicy

from .servers import CLEAR, POLICE, Ground

if TYPE_CHECKING:
    from h2lite.client import Response

# The watched minute, and the start of the servers before it.
pytestmark = [pytest.mark.peer, pytest.mark.timeout(150)]

WATCHED_S = 60.0
SOON_S = 15.0  # four PINGs 0.05 s apart, on a loaded machine
REQUEST_EVERY_S = 3.0  # over stale_after, so that a PING goes before each
HEALTH = HealthPolicy(ping_after_idle=0.05, ping_timeout=10.0, stale_after=2.0)

GRPC = {"content-type": "application/grpc", "te": "trailers"}
EMPTY = bytes(5)  # a message of gRPC's: not compressed, no octets
SERVING = b"\0\0\0\0\2\x08\1"


class Client:
    """A pool of one gRPC server, with a stream left open or without one, and what it was told."""

    def __init__(self, url: str, has_stream: bool) -> None:
        self.url = url
        self.has_stream = has_stream
        self.events: list[Any] = []
        self.pool = ConnectionPool(health=HEALTH, on_event=self.events.append)
        self.watch: Response | None = None

    def call(self, method: str) -> Response:
        """Of the health service, its response streamed."""
        url = f"{self.url}/grpc.health.v1.Health/{method}"
        return self.pool.stream("POST", url, headers=GRPC, body=EMPTY)

    def check(self) -> None:
        response = self.call("Check")
        assert (response.status, response.read()) == (200, SERVING)

    def open(self) -> None:
        """A connection, with the stream that belongs on it."""
        if self.has_stream:
            self.watch = self.call("Watch")
            assert next(self.watch.iter_bytes()) == SERVING
        else:
            self.check()

    def provoke(self) -> None:
        """Be ended for the PINGs of HEALTH."""
        self.open()
        if self.watch is not None:
            # etcd's stream ends with its connection, grpcio's by trailers: 14 is UNAVAILABLE.
            assert _ending(self.watch) in ("goaway", "14")
        deadline = time.monotonic() + SOON_S
        while not self.causes:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    @property
    def calmed(self) -> int:
        return sum(isinstance(event, OriginCalmed) for event in self.events)

    @property
    def causes(self) -> list[str]:
        """Of its connections' deaths."""
        return [
            event.cause
            for event in self.events
            if isinstance(event, ConnectionChanged) and event.after == "DEAD"
        ]


def _ending(response: Response) -> str:
    """The cause of death or, at an end in peace, gRPC's status."""
    try:
        response.read()
    except ConnectionLost as error:
        return error.cause
    return response.trailers["grpc-status"]


def test_one_goaway_for_too_many_pings_and_no_second_in_a_minute(ground: Ground) -> None:
    with ExitStack() as stack:
        clients = [
            Client(ground.url_of(name, CLEAR), has_stream)
            for name in POLICE
            for has_stream in (False, True)
        ]
        for client in clients:
            stack.enter_context(client.pool)
            client.provoke()
        lost = [client.pool.stats()["pings_sent"] for client in clients]

        for client in clients:
            client.open()
        ends = time.monotonic() + WATCHED_S
        while time.monotonic() < ends:
            time.sleep(REQUEST_EVERY_S)
            for client in clients:
                if client.has_stream:
                    client.check()

        for client in clients:
            client.check()  # on the connection that has been there all the time
        stats = [client.pool.stats() for client in clients]
        for client in clients:
            assert (client.calmed, client.causes) == (1, ["goaway"])
            assert list(client.pool.stats()["calmed_origins"]) == [client.url]

    assert [(seen["dials"], seen["deaths"]) for seen in stats] == [(2, {"goaway": 1})] * 4
    # gRPC's servers bear two PINGs too many.  What their own frames put off leaves a few more.
    assert all(4 <= pings <= 8 for pings in lost), lost
    # Idle: one PING before the last request.  With a stream: one before each request.
    since = [seen["pings_sent"] - before for seen, before in zip(stats, lost, strict=True)]
    assert since[0] == since[2] == 1
    assert min(since[1], since[3]) >= WATCHED_S / REQUEST_EVERY_S / 2, since
