"""The ASGI application that hypercorn serves in benches: what bench/go/server.go says to /small."""

from __future__ import annotations

from typing import Any

CONTENT = b"a small file\n"
HEADERS = [
    (b"content-type", b"text/plain"),
    (b"cache-control", b"max-age=3600"),
    (b"content-length", b"13"),
]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": CONTENT})
