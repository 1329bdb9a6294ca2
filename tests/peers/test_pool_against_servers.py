"""A ConnectionPool and real servers: requests, PINGs and a graceful close; HTTP/1.1 where it must.

HTTP/1.1 is spoken to nginx, which offers both, and to one that offers nothing else.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from h2lite.client import ConnectionChanged, ConnectionPool
from h2lite.errors import UsageError
from h2lite.loop import LINGER_S

from .servers import CLEAR, HTTP1, SERVERS, TLS, TLS_1_2, Ground, sha256

if TYPE_CHECKING:
    from collections.abc import Iterator

# The first test that needs a Go program waits for its compiler.
pytestmark = [pytest.mark.peer, pytest.mark.timeout(300)]

PAIRS = [(name, security) for name in SERVERS for security in (CLEAR, TLS)]
PAIRS.append(("nginx", TLS_1_2))


@pytest.fixture(params=PAIRS, ids="-".join)
def url(request: pytest.FixtureRequest, ground: Ground) -> str:
    return ground.url_of(*request.param)


def pool_for(ground: Ground, **options: Any) -> ConnectionPool:
    return ConnectionPool(cafile=ground.files.cafile, timeout=20.0, **options)


def test_requests_share_one_connection_that_answers_pings_and_is_closed_in_peace(
    ground: Ground, url: str
) -> None:
    changes: list[Any] = []
    with pool_for(ground, on_event=changes.append) as pool, ThreadPoolExecutor(8) as threads:
        small = list(threads.map(lambda _: pool.get(f"{url}/small"), range(40)))
        big = pool.get(f"{url}/big")
        missing = pool.get(f"{url}/nowhere")
        (result,) = pool.ping_all()
        (connection,) = pool.connections
        stats = pool.stats()
        began = time.monotonic()
        pool.close()
        took = time.monotonic() - began

    assert [(r.status, r.read()) for r in small] == [(200, b"a small file\n")] * 40
    assert (big.status, sha256(big.read())) == (200, sha256(ground.big))
    assert (missing.status, missing.http_version) == (404, "HTTP/2")
    assert result.error is None
    assert result.rtt is not None
    assert connection.protocol == ("h2c" if url.startswith("http:") else "h2")
    assert (stats["requests"], stats["dials"], stats["retries"]) == (42, 1, 0)
    states = [event.after for event in changes if isinstance(event, ConnectionChanged)]
    assert (states[0], states[-1]) == ("LIVE", "DEAD")
    assert pool.stats()["deaths"] == {"local": 1}
    assert took < 2 * LINGER_S + 1.0


# -- HTTP/1.1 over TLS -------------------------------------------------------------------------


@pytest.fixture(params=["http2=False", "DISABLE_HTTP2", "ALPN", "no ALPN"])
def over_http1(
    request: pytest.FixtureRequest, ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[ConnectionPool, str]]:
    """A pool that speaks HTTP/1.1 to a server's URL, for one reason or the other."""
    name, security, options = {
        "http2=False": ("nginx", TLS, {"http2": False}),
        "DISABLE_HTTP2": ("nginx", TLS, {}),
        "ALPN": ("nginx", HTTP1, {}),
        "no ALPN": ("python", TLS, {}),
    }[request.param]
    if request.param == "DISABLE_HTTP2":
        monkeypatch.setenv("DISABLE_HTTP2", "1")
    url = ground.url_of(name, security)
    with pool_for(ground, **options) as pool:
        yield pool, url


def test_http1_serves_a_request_at_a_time_on_each_connection(
    ground: Ground, over_http1: tuple[ConnectionPool, str]
) -> None:
    pool, url = over_http1
    for _ in range(5):
        response = pool.get(f"{url}/small")
        assert (response.status, response.read()) == (200, b"a small file\n")
    assert response.http_version == "HTTP/1.1"
    (connection,) = pool.connections
    assert (connection.protocol, connection.tls_version) == ("http/1.1", "TLSv1.3")
    assert pool.stats()["dials"] == 1

    with ThreadPoolExecutor(4) as threads:
        big = list(threads.map(lambda _: pool.get(f"{url}/big"), range(4)))
    assert {sha256(response.read()) for response in big} == {sha256(ground.big)}
    assert 1 < pool.stats()["dials"] <= 4

    assert pool.head(f"{url}/big").headers["content-length"] == str(len(ground.big))
    assert pool.get(f"{url}/nowhere").status == 404
    assert {str(result.error).partition(" speaks ")[2] for result in pool.ping_all()} == {
        "HTTP/1.1, which has no PING"
    }
    with pytest.raises(UsageError, match="no PING"):
        pool.connections[0].ping()
    pool.close()
    assert set(pool.stats()["deaths"]) <= {"local"}
