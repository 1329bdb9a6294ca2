"""Clients of many connections, each checked once a second: what checks cost, and what is held.

    python -m bench.crowd_clients NAME PORT PERIOD [--trace]

Each is a process of its own that does what it is told on standard input, and answers each command
with a line of JSON (go/crowd.go does the same for Go):

    connect N    dial so many more connections, each to an address of its own
    request      one GET on each of those
    window S     wait so many seconds: {"checks": PINGs answered, "cpu_ns": of this process}
    memory       {"heap": octets, "resident": octets}; the heap is 0 without --trace, which makes
                 everything slow

PERIOD is the silence in seconds before a PING, 0: none.  The server is tests/crowd_server.py.

    h2lite    a ConnectionPool as it comes, its checks made by its thread
    h2lite, one origin   the same, but all connections lead to the first address: what a connection
              takes without what the pool keeps of an origin
    h2        the h2 library's connections in one selectors loop that PINGs each once a second; it
              judges nothing, and a connection that does not answer would never be missed
    httpx     a Client with HTTP/2; it knows no checks, so it is asked what it holds alone
    grpcio    channels with keepalive, whose memory is not Python's; a request to this server ends
              in an error once the response has come
"""

from __future__ import annotations

import gc
import json
import selectors
import socket
import sys
import time
import tracemalloc
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol

from tests.crowd import CONTENT, allow_descriptors, crowd_urls, resident_octets

from .crowds import ONE_ORIGIN, OURS
from .ping_many import dial

PING_TIMEOUT_S = 5.0
TIMEOUT_S = 10.0
RECV_OCTETS = 65536
CONNECTIONS_MAX = 10_001
DESCRIPTORS_BESIDE = 100


class Client(Protocol):
    """connect and request are done when they return; so many checks have been answered."""

    def __init__(self, period: float) -> None: ...
    def connect(self, urls: list[str]) -> None: ...
    def request(self) -> None: ...
    def window(self, seconds: float) -> None: ...
    @property
    def checks(self) -> int: ...


class OurClient:
    """A pool as users have it."""

    def __init__(self, period: float) -> None:
        from h2lite import ConnectionPool, HealthPolicy

        policy = HealthPolicy(ping_after_idle=period, ping_timeout=PING_TIMEOUT_S)
        self._pool = ConnectionPool(health=policy, idle_close=0.0)

    def connect(self, urls: list[str]) -> None:
        for url in urls:
            self._pool.connect(url)
        self._urls = urls

    def request(self) -> None:
        for url in self._urls:
            assert self._pool.get(f"{url}/").read() == CONTENT

    def window(self, seconds: float) -> None:
        time.sleep(seconds)

    @property
    def checks(self) -> int:
        stats = self._pool.stats()
        if stats["deaths"] or stats["suspects"]:
            raise AssertionError(f"connections were suspected, or died: {stats}")
        return int(stats["pings_acked"])


class OneOriginClient(OurClient):
    """The same, its connections to one origin."""

    def connect(self, urls: list[str]) -> None:
        if not self._pool.connections:
            self._pool.connect(urls[0])
            self._url = urls[0]
            urls = urls[1:]
        dial(self._pool, self._url, len(urls))
        while not all(one.state == "LIVE" for one in self._pool.connections):
            time.sleep(0.01)
        self._count = len(urls)

    def request(self) -> None:
        for connection in self._pool.connections[-self._count or None :]:
            assert connection.request("GET", "/").read() == CONTENT


class H2Peer:
    """One connection of the h2 library's."""

    __slots__ = ("sock", "connection", "settled", "content")

    def __init__(self, url: str) -> None:
        from h2.config import H2Configuration
        from h2.connection import H2Connection

        host, port = url.removeprefix("http://").split(":")
        self.sock = socket.create_connection((host, int(port)), TIMEOUT_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.connection = H2Connection(H2Configuration(client_side=True))
        self.connection.initiate_connection()
        self.flush()
        self.settled = False
        self.content = b""

    def flush(self) -> None:
        data = self.connection.data_to_send()
        if data:
            self.sock.send(data)


class H2Client:
    """As plain as it gets: they are all due in the order in which they were answered."""

    def __init__(self, period: float) -> None:
        from h2.events import DataReceived, PingAckReceived, SettingsAcknowledged

        self._period = period
        self._acked, self._settled, self._data = PingAckReceived, SettingsAcknowledged, DataReceived
        self._selector = selectors.DefaultSelector()
        self._asked: list[H2Peer] = []
        self._due: deque[tuple[float, H2Peer]] = deque()
        self.checks = 0

    def connect(self, urls: list[str]) -> None:
        self._asked = []
        for url in urls:
            peer = H2Peer(url)
            self._asked.append(peer)
            self._selector.register(peer.sock, selectors.EVENT_READ, peer)
            while not peer.settled:
                self._turn(time.monotonic() + TIMEOUT_S)
            if self._period:
                self._due.append((time.monotonic() + self._period, peer))

    def request(self) -> None:
        for peer in self._asked:
            head = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
            peer.connection.send_headers(1, head, end_stream=True)
            peer.flush()
            while not peer.content:
                self._turn(time.monotonic() + TIMEOUT_S)
            assert peer.content == CONTENT

    def window(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._turn(until)

    def _turn(self, until: float) -> None:
        if self._due:
            until = min(until, self._due[0][0])
        for key, _ in self._selector.select(max(0.0, until - time.monotonic())):
            peer = key.data
            for event in peer.connection.receive_data(peer.sock.recv(RECV_OCTETS)):
                if isinstance(event, self._acked):
                    self.checks += 1
                    self._due.append((time.monotonic() + self._period, peer))
                elif isinstance(event, self._settled):
                    peer.settled = True
                elif isinstance(event, self._data):
                    peer.content += event.data
            peer.flush()
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            _, peer = self._due.popleft()
            peer.connection.ping(b"01234567")
            peer.flush()


class HttpxClient:
    """It connects by asking, so there is no connection before its first request."""

    checks = 0

    def __init__(self, period: float) -> None:
        import httpx

        limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=None, keepalive_expiry=None
        )
        self._client = httpx.Client(http1=False, http2=True, limits=limits, timeout=TIMEOUT_S)

    def connect(self, urls: list[str]) -> None:
        self._urls = urls

    def request(self) -> None:
        for url in self._urls:
            assert self._client.get(f"{url}/").content == CONTENT

    def window(self, seconds: float) -> None:
        time.sleep(seconds)


class GrpcioClient:
    """Whether its PINGs are answered shows in its channels' staying READY alone."""

    checks = 0

    def __init__(self, period: float) -> None:
        self._options = [
            ("grpc.keepalive_time_ms", int(period * 1000)),
            ("grpc.keepalive_timeout_ms", int(PING_TIMEOUT_S * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.enable_http_proxy", 0),
        ]
        self._channels: list[Any] = []

    def connect(self, urls: list[str]) -> None:
        import grpc

        first = len(self._channels)
        for url in urls:
            channel = grpc.insecure_channel(url.removeprefix("http://"), self._options)
            grpc.channel_ready_future(channel).result(TIMEOUT_S)
            self._channels.append(channel)
        self._asked = self._channels[first:]

    def request(self) -> None:
        import grpc

        for channel in self._asked:
            try:
                channel.unary_unary("/a/b")(b"", timeout=TIMEOUT_S)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNKNOWN:  # 200, and no gRPC
                    raise
            else:
                raise AssertionError("a server that speaks no gRPC has answered by it")

    def window(self, seconds: float) -> None:
        time.sleep(seconds)


CLIENTS: dict[str, type[Client]] = {
    OURS: OurClient,
    ONE_ORIGIN: OneOriginClient,
    "h2": H2Client,
    "httpx": HttpxClient,
    "grpcio": GrpcioClient,
}


def obey(client: Client, urls: Iterator[str], line: str) -> dict[str, int]:
    """Do what one line says; `urls` are those that nothing leads to yet."""
    command, *arguments = line.split()
    if command == "connect":
        client.connect([*islice(urls, int(arguments[0]))])
    elif command == "request":
        client.request()
    elif command == "window":
        checks, used = client.checks, time.process_time_ns()
        client.window(float(arguments[0]))
        return {"checks": client.checks - checks, "cpu_ns": time.process_time_ns() - used}
    else:
        assert command == "memory", command
        gc.collect()
        return {"heap": tracemalloc.get_traced_memory()[0], "resident": resident_octets()}
    return {}


def main(name: str, port: str, period: str, *options: str) -> None:
    if "--trace" in options:
        tracemalloc.start()
    if reason := allow_descriptors(CONNECTIONS_MAX + DESCRIPTORS_BESIDE):
        print(reason, file=sys.stderr)
    client = CLIENTS[name](float(period))
    urls = iter(crowd_urls(int(port), CONNECTIONS_MAX))
    for line in sys.stdin:
        print(json.dumps(obey(client, urls, line)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
