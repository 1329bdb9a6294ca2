"""`h2lite demo`: the engine against itself, a server and a client in one process."""

from __future__ import annotations

import tempfile
import threading

from ..client import connect
from ..errors import UsageError
from ..server import Server
from ..transport import server_context
from . import DONE, LOSS
from .count import FrameCounts
from .routes import Routes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

PINGS = 5


def run(options: argparse.Namespace) -> int:
    """Serve on a free port, connect to it, ping it and fetch /healthz; show what was seen."""
    with tempfile.TemporaryDirectory(prefix="h2lite-") as folder:
        context = cafile = None
        try:
            from ..certs import make_certificate

            files = make_certificate(folder)
        except UsageError as error:
            print(f"In cleartext, since {error}")
        else:
            context, cafile = server_context(files.certfile, files.keyfile), files.cafile
        routes = Routes(None, FrameCounts())
        server = Server(
            routes, ssl_context=context, log=lambda line: print("  server:", line)
        )
        thread = threading.Thread(target=server.serve_forever, name="h2lite demo server")
        thread.start()
        try:
            return _show(server.url, cafile)
        finally:
            server.stop()
            thread.join()


def _show(url: str, cafile: str | None) -> int:
    print(f"A server listens on {url}")
    with connect(url, cafile=cafile) as connection:
        over = f"TLS ({connection.tls_version}, ALPN h2)" if cafile else "cleartext"
        print(f"A client is connected to {connection.address} over {over}")
        for seq in range(1, PINGS + 1):
            print(f"  PING {seq}: acknowledged after {connection.ping().rtt * 1e6:.0f} us")
        with connection.request("GET", "/healthz") as response:
            body = response.read()
            print(f"  GET /healthz: {response.status}, {body.decode().strip()!r}")
        print(f"  PING {PINGS + 1}: acknowledged after {connection.ping().rtt * 1e6:.0f} us")
    healthy = response.status == 200 and body == b"ok\n"
    print("It works." if healthy else "The answer is not the one expected.")
    return DONE if healthy else LOSS
