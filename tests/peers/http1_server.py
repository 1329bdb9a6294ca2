"""The standard library's HTTP/1.1 server under TLS: a port of 127.0.0.1, a folder, cert and key."""

from __future__ import annotations

import functools
import ssl
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer


class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"


def main() -> None:
    port, folder, certfile, keyfile = sys.argv[1:]
    handler = functools.partial(Handler, directory=folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certfile, keyfile)
    with ThreadingHTTPServer(("127.0.0.1", int(port)), handler) as server:
        # The handshake is the connection's own thread's affair: it must not hold up the others.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        server.serve_forever()


if __name__ == "__main__":
    main()
