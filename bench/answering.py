"""A server in Python for benches, in a process of its own: what bench/go/server.go answers.

    python -m bench.answering h2lite|h2 PORT [CERTFILE KEYFILE]

    /small           13 octets
    /items/WHATEVER  2 octets, and the field x-item that says WHATEVER
    /octets/COUNT    so many octets, BLOCK again and again
    /sink            reads the content, and answers how many octets it was
    /sink/crc        the same, and their CRC-32

`h2` is the h2 library on bare sockets by selectors, in cleartext; it answers /small alone,
whatever is asked.  It ends soon after the process that started it.
"""

from __future__ import annotations

import os
import selectors
import socket
import ssl
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

from h2lite.exchange import Reply, Request
from h2lite.limits import Limits
from h2lite.server import Server

HOST = "127.0.0.1"
CONTENT = b"a small file\n"
ITEM_CONTENT = b"ok"
STREAMS_MAX = 1000
BLOCK = bytes(number % 251 for number in range(65536))
RECV_OCTETS = 65536
FIELDS = [("content-type", "text/plain"), ("cache-control", "max-age=3600")]


class Clock:
    """The field date, made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def date(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._text = formatdate(second, usegmt=True)
        return self._text


CLOCK = Clock()


def answer(request: Request) -> Reply:
    """h2lite's handler."""
    path = request.path.partition("?")[0]
    fields = [*FIELDS, ("date", CLOCK.date())]
    if path == "/small":
        return Reply(200, CONTENT, fields)
    if path.startswith("/items/"):
        return Reply(200, ITEM_CONTENT, [*fields, ("x-item", path.removeprefix("/items/"))])
    if path.startswith("/octets/"):
        octets = int(path.removeprefix("/octets/"))
        return Reply(200, pieces(octets), [*fields, ("content-length", str(octets))])
    if path in ("/sink", "/sink/crc"):
        return Reply(200, taken(request, path == "/sink/crc"), fields)
    return Reply(404)


def pieces(octets: int) -> Iterator[bytes]:
    """So many octets, a BLOCK at a time."""
    while octets >= len(BLOCK):
        yield BLOCK
        octets -= len(BLOCK)
    if octets:
        yield BLOCK[:octets]


def taken(request: Request, with_crc: bool) -> Iterator[bytes]:
    """Read the content as it comes, then say what it was."""
    octets = crc = 0
    for piece in request.content or ():
        octets += len(piece)
        if with_crc:
            crc = zlib.crc32(piece, crc)
        yield b""  # nothing to say yet
    yield (f"{octets} {crc}" if with_crc else str(octets)).encode()


def serve_h2lite(port: int, context: ssl.SSLContext | None) -> None:
    Server(
        answer,
        host=HOST,
        port=port,
        ssl_context=context,
        limits=Limits(streams=STREAMS_MAX),
        streamed=lambda request: request.path.startswith("/sink"),
    ).serve_forever()


class H2Server:
    """The h2 library: every connection in one selector, each recv answered by one send."""

    def __init__(self, port: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server((HOST, port))
        self._selector.register(self._listener, selectors.EVENT_READ)

    def serve_forever(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    self._accept()
                else:
                    self._converse(key.fileobj, key.data)

    def _accept(self) -> None:
        from h2.config import H2Configuration
        from h2.connection import H2Connection
        from h2.settings import SettingCodes

        sock, _ = self._listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        connection.local_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = STREAMS_MAX
        connection.initiate_connection()
        sock.sendall(connection.data_to_send())
        self._selector.register(sock, selectors.EVENT_READ, connection)

    def _converse(self, sock: Any, connection: Any) -> None:
        from h2.events import RequestReceived

        data = sock.recv(RECV_OCTETS)
        if not data:
            self._selector.unregister(sock)
            sock.close()
            return
        fields = [
            (b":status", b"200"),
            *((name.encode(), value.encode()) for name, value in FIELDS),
            (b"date", CLOCK.date().encode()),
            (b"content-length", str(len(CONTENT)).encode()),
        ]
        for event in connection.receive_data(data):
            if isinstance(event, RequestReceived):
                connection.send_headers(event.stream_id, fields)
                connection.send_data(event.stream_id, CONTENT, end_stream=True)
        sock.sendall(connection.data_to_send())


def end_with_parent() -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)


def main(kind: str, port: int, certificate: list[str]) -> None:
    threading.Thread(target=end_with_parent, daemon=True).start()
    if kind == "h2":
        H2Server(port).serve_forever()
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        context.set_alpn_protocols(["h2"])
    serve_h2lite(port, context)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
