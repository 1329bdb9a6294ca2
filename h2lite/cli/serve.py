"""`h2lite serve`: the files of a folder, and /healthz."""

from __future__ import annotations

import os
import signal
import sys
import tempfile

from ..errors import ConnectError, UsageError
from ..exchange import Reply
from ..server import Server
from ..transport import server_context
from . import DONE, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    import ssl

    from ..exchange import Request

TEXT = (("content-type", "text/plain; charset=utf-8"),)


def run(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    if (options.cert is None) != (options.key is None):
        raise UsageError("--cert and --key go together")
    if options.tls and options.cert:
        raise UsageError("--tls makes a certificate of its own: leave out --cert and --key")
    handler = Handler(options.folder)
    with tempfile.TemporaryDirectory(prefix="h2lite-") as folder:
        context, advice = _context(options, folder)
        port = options.port
        if port is None:
            port = 8080 if context is None else 8443
        server = _listen(handler, options, port, context)
        # Both end the loop, not the process: what is open is told, and the folder is removed.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: server.stop())
        print(f"serving {server.url} (Ctrl-C ends it){advice}", flush=True)
        server.serve_forever()
    return DONE


def _listen(
    handler: Handler, options: argparse.Namespace, port: int, context: ssl.SSLContext | None
) -> Server:
    log = None if options.quiet else _log
    try:
        return Server(handler, host=options.host, port=port, ssl_context=context, log=log)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConnectError(f"cannot listen on {options.host} port {port}: {reason}") from error


def _context(
    options: argparse.Namespace, folder: str
) -> tuple[ssl.SSLContext | None, str]:
    """The TLS context asked for, and how to trust it."""
    if options.cert:
        return server_context(options.cert, options.key), ""
    if not options.tls:
        return None, ""
    from ..certs import make_certificate

    files = make_certificate(folder)
    return server_context(files.certfile, files.keyfile), f"; to trust it: --cacert {files.cafile}"


def _log(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)


class Handler:
    """Answers GET and HEAD for /healthz and for the files of a folder, when there is one."""

    def __init__(self, folder: str | None) -> None:
        self._root: str | None = None
        if folder is not None:
            if not os.path.isdir(folder):
                raise UsageError(f"{folder} is not a folder")
            self._root = os.path.realpath(folder)

    def __call__(self, request: Request) -> Reply:
        if request.method not in ("GET", "HEAD"):
            return Reply(405, b"only GET and HEAD\n", (*TEXT, ("allow", "GET, HEAD")))
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return Reply(200, b"ok\n", TEXT)
        file = self._find(path)
        if file is None:
            return Reply(404, b"not found\n", TEXT)
        return _file_reply(file)

    def _find(self, path: str) -> str | None:
        """The file a request path stands for; None when there is none in the folder."""
        from urllib.parse import unquote

        if self._root is None:
            return None
        name = unquote(path)
        if "\0" in name:
            return None
        file = os.path.join(self._root, name.lstrip("/"))
        if os.path.isdir(file):
            file = os.path.join(file, "index.html")
        # Resolved first and compared then: neither ".." nor a link leads out of the folder.
        file = os.path.realpath(file)
        if os.path.commonpath((file, self._root)) != self._root:
            return None
        return file if os.path.isfile(file) else None


def _file_reply(path: str) -> Reply:
    import mimetypes

    try:
        file = open(path, "rb")  # noqa: SIM115  the server closes what it sends
    except OSError:
        return Reply(403, b"not readable\n", TEXT)
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    size = os.fstat(file.fileno()).st_size
    return Reply(200, file, (("content-type", kind), ("content-length", str(size))))
