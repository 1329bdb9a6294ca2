"""`h2lite serve`: a folder's files and the paths of routes.py, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import contextlib
import signal
import tempfile

from ..errors import ConnectError, UsageError
from ..limits import limits_from
from ..server import Server
from ..transport import server_context
from . import DONE, complain, printable
from .count import FrameCounts
from .routes import Routes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    import ssl


def run(options: argparse.Namespace) -> int:
    """Serve; the first signal lets streams finish within the grace time, the second does not."""
    if (options.cert is None) != (options.key is None):
        raise UsageError("--cert and --key go together")
    if options.tls and options.cert:
        raise UsageError("--tls makes a certificate of its own: leave out --cert and --key")
    counts = FrameCounts()
    routes = Routes(options.folder, counts)
    # Until the server can end itself, SIGTERM ends this as Ctrl-C does: the folder is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as leaving:
        context, advice = _context(options, leaving)
        routes.server = server = _listen(routes, counts, options, context)
        graces = [0.0, options.grace]
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: server.stop(graces.pop() if graces else 0.0))
        print(f"serving {server.url} (Ctrl-C ends it){advice}", flush=True)
        server.serve_forever()
    return DONE


def _listen(
    routes: Routes,
    counts: FrameCounts,
    options: argparse.Namespace,
    context: ssl.SSLContext | None,
) -> Server:
    port = options.port
    if port is None:
        port = 8080 if context is None else 8443
    try:
        return Server(
            routes,
            streamed=routes.streamed,
            limits=limits_from(options.limits),
            host=options.host,
            port=port,
            ssl_context=context,
            log=None if options.quiet else _log,
            tap=counts.tap,
        )
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        where = options.host
        if not where.lower().startswith("unix:"):
            where = f"{where} port {port}"
        raise ConnectError(f"cannot listen on {where}: {reason}") from error


def _context(
    options: argparse.Namespace, leaving: contextlib.ExitStack
) -> tuple[ssl.SSLContext | None, str]:
    """The TLS context asked for, and how to trust it; what is left by `leaving` was made for it."""
    if options.cert:
        return server_context(options.cert, options.key), ""
    if not options.tls:
        return None, ""
    from ..certs import make_certificate

    try:
        folder = leaving.enter_context(tempfile.TemporaryDirectory(prefix="h2lite-"))
        files = make_certificate(folder)
    except OSError as error:
        raise UsageError(f"cannot write a certificate: {error.strerror or error}") from error
    return server_context(files.certfile, files.keyfile), f"; to trust it: --cacert {files.cafile}"


def _log(line: str) -> None:
    complain(printable(line))
