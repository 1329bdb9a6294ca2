"""Clients that watch one connection, each as its authors mean it to be used: who finds it dead?

    python -m bench.watchers NAME URL PING_AFTER PING_TIMEOUT PATIENCE

Each makes one request and says `ready`; then, when it happens, `dead NS`, where NS is the instant
by time.time_ns.  A line on standard input has it ask again, at once after each failure, until there
is an answer: `answered NS FAILURES`, or `unanswered NS FAILURES` when PATIENCE seconds are over.
go/watcher.go does the same for Go.

    grpcio    a channel with keepalive; it is dead when the channel is no longer READY.  With
              grpc.keepalive_timeout_ms alone, grpcio 1.85 gives a PING 60 s for its ack; the
              setting that counts is grpc.http2.ping_timeout_ms, so it has both
    httpx     a Client with HTTP/2 and a timeout of PATIENCE; it has no PINGs, so nothing but a
              request's timeout can tell, and no connection is ever said to be dead
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any


def say(*words: object) -> None:
    # In one piece: two threads may have something to say.
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def answer(ask: Callable[[], bool], patience: float) -> None:
    """Obey standard input."""
    if not ask():
        raise SystemExit("the first request failed")
    say("ready")
    for _ in sys.stdin:
        ends = time.monotonic() + patience
        failures = 0
        while not (answered := ask()):
            failures += 1
            if time.monotonic() >= ends:
                break
        say("answered" if answered else "unanswered", time.time_ns(), failures)


def grpcio(url: str, ping_after: float, ping_timeout: float, patience: float) -> None:
    import grpc

    channel = grpc.insecure_channel(
        url.removeprefix("http://").rstrip("/"),
        [
            ("grpc.keepalive_time_ms", int(ping_after * 1000)),
            ("grpc.keepalive_timeout_ms", int(ping_timeout * 1000)),
            ("grpc.http2.ping_timeout_ms", int(ping_timeout * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.enable_http_proxy", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
        ],
    )
    was_ready = False

    def changed(state: Any) -> None:
        nonlocal was_ready
        if was_ready and state is not grpc.ChannelConnectivity.READY:
            was_ready = False
            say("dead", time.time_ns())
        was_ready = was_ready or state is grpc.ChannelConnectivity.READY

    def ask() -> bool:
        try:
            channel.unary_unary("/bench/ask")(b"", timeout=patience)
        except grpc.RpcError:
            return False
        return True

    channel.subscribe(changed)
    answer(ask, patience)


def httpx(url: str, ping_after: float, ping_timeout: float, patience: float) -> None:
    import httpx as package

    client = package.Client(http1=False, http2=True, timeout=patience)

    def ask() -> bool:
        try:
            return bool(client.get(url).status_code == 200)
        except package.HTTPError:
            return False

    answer(ask, patience)


CLIENTS: dict[str, Callable[[str, float, float, float], None]] = {
    "grpcio": grpcio,
    "httpx": httpx,
}


if __name__ == "__main__":
    CLIENTS[sys.argv[1]](sys.argv[2], *map(float, sys.argv[3:]))
