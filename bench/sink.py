"""The other end of a transfer, where there is no Go to build go/sink.go: h2lite's server.

    python sink.py PORT

POST /discard takes what comes, GET /endless gives octets until the client has enough.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator

import h2lite

PIECE = bytes(64 * 1024)


def discard(content: Iterable[bytes]) -> Iterator[bytes]:
    for _ in content:
        yield b""  # not over yet


def handler(request: h2lite.Request) -> h2lite.Reply:
    if request.path == "/endless":
        return h2lite.Reply(200, itertools.repeat(PIECE))
    return h2lite.Reply(200, discard(request.content or ()))


if __name__ == "__main__":
    h2lite.Server(handler, port=int(sys.argv[1]), streamed=lambda _: True).serve_forever()
