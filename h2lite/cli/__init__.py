"""The command line: `h2lite ping`, `get`, `serve`, `demo` and `doctor`.

Arguments in, exit codes and one-line errors out; each command's work is in its own module,
loaded when it is asked for.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys

from .. import __version__
from ..errors import (
    ConnectError,
    H2liteError,
    TLSError,
    UsageError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn, TextIO

_FULL = (errno.ENOSPC, errno.EIO, errno.EFBIG)  # what a disk says that takes no more
_EXHAUSTED = (errno.EMFILE, errno.ENFILE)  # not even a module of ours can be read then

DONE, LOSS, USAGE, NO_CONNECTION, NO_HTTP2, HTTP2_ERROR, OUT_OF_TIME = range(7)

# Of the demo: its silence and the bound of its checks fit in, and nobody watches longer.
DEMO_S_MIN, DEMO_S_MAX = 12, 120

_EPILOG = """\
exit codes: 0 done, 1 loss or unhealthy, 2 usage, 3 could not connect, 4 TLS failed or the peer
does not speak h2, 5 HTTP/2 error, GOAWAY or reset stream, 6 out of time"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code.  Never a traceback for what a user can mend."""
    options = _parser().parse_args(arguments)
    try:
        code = int(options.run(options))
        if sys.stdout is not None:
            sys.stdout.flush()  # here its fault can still be told
        return code
    except H2liteError as error:
        complain(f"h2lite: {describe(error)}")
        return exit_code(error)
    except KeyboardInterrupt:
        return 130  # as a shell reports a command ended by Ctrl-C
    except BrokenPipeError:
        drop(sys.stdout)  # whoever read it has gone
        return DONE
    except OSError as error:
        if error.errno in _EXHAUSTED:
            complain(f"h2lite: {error.strerror}")
            return NO_CONNECTION
        # What a command opens by name it answers for itself; this is our own output.
        if error.errno not in _FULL or error.filename is not None:
            raise
        drop(sys.stdout)
        complain(f"h2lite: cannot write to stdout: {error.strerror}")
        return USAGE


def check_output() -> None:
    """Raise UsageError where there is no stdout for what a command has to say."""
    if sys.stdout is None:
        raise UsageError("cannot write to stdout: it is closed")


def complain(line: str, end: str = "\n") -> None:
    """Say a line on stderr; where nobody takes it, the exit code has to do."""
    if sys.stderr is None:
        return  # print would take stdout in its place
    try:
        print(line, end=end, file=sys.stderr, flush=True)
    except H2liteError:  # the alarm of `get` is an OSError too
        raise
    except OSError:
        drop(sys.stderr)


def drop(stream: TextIO | None) -> None:
    """Nobody takes our output any more; what is still buffered must have somewhere to go."""
    if stream is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def exit_code(error: H2liteError) -> int:
    """The exit code promised for an error."""
    if isinstance(error, UsageError):
        return USAGE
    if isinstance(error, TimeoutError):
        return OUT_OF_TIME
    if isinstance(error, TLSError):
        return NO_HTTP2
    if isinstance(error, ConnectError):
        return NO_CONNECTION
    return HTTP2_ERROR


def describe(error: H2liteError) -> str:
    """One line: the address and the cause, and what to try next where there is such a thing."""
    text = printable(" ".join(str(error).split()))
    for sign, advice in _ADVICE:
        if sign in text.lower():
            return f"{text} ({advice})"
    return text


def printable(text: str) -> str:
    """A peer's text, made unable to steer a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def describe_size(octets: int) -> str:
    """A number of octets for people: 950 B, 1.5 MB."""
    size = float(octets)
    units = iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while size >= 1000 and unit != "TB":
        size, unit = size / 1000, next(units)
    return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"


_ADVICE = (
    ("connection refused", "is the server running, and on that port?"),
    ("certificate not accepted", "trust it with --cacert FILE, or skip the check with -k"),
    ("wrong version number", "the port speaks cleartext: try http://"),
    ("record layer failure", "the port speaks cleartext: try http://"),
    ("speaks http/1.1", "the server has no HTTP/2 in cleartext there: try https://"),
    ("does not offer h2", "the server has no HTTP/2 there"),
    ("cannot resolve", "check the name"),
    ("sent no http/2 settings", "the port may belong to another protocol"),
)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other failure is said; --help has the rest."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {printable(message)} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="h2lite",
        description="HTTP/2 on plain sockets: ping a server, get a page, serve a folder.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"h2lite {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_ping(commands.add_parser("ping", help="time PING frames, as ping(8) times packets"))
    _add_get(commands.add_parser("get", help="fetch a URL"))
    _add_serve(commands.add_parser("serve", help="serve a folder, and paths for trying a client"))
    _add_demo(commands.add_parser("demo", help="watch a connection die, and who notices"))
    _add_doctor(commands.add_parser("doctor", help="what a bug report should say of this machine"))
    return parser


def _add_ping(parser: argparse.ArgumentParser) -> None:
    parser.description = "Send PING frames on one HTTP/2 connection and time their acks."
    parser.epilog = "example: h2lite ping -c 5 -i 0.2 https://localhost:8443"
    _add_target(parser)
    parser.add_argument("-c", dest="count", metavar="N", type=_count, help="stop after N PINGs")
    parser.add_argument(
        "-i",
        dest="interval",
        metavar="SECONDS",
        type=_seconds,
        default=1.0,
        help="between one PING and the next (default 1)",
    )
    parser.add_argument(
        "-W",
        dest="patience",
        metavar="SECONDS",
        type=_positive,
        default=2.0,
        help="how long to wait for an ack (default 2)",
    )
    parser.add_argument("-q", dest="quiet", action="store_true", help="only the summary")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=_lazily("ping"))


def _add_get(parser: argparse.ArgumentParser) -> None:
    parser.description = "Fetch a URL over HTTP/2 and print the content; options are curl's."
    parser.epilog = "example: h2lite get -v https://localhost:8443/healthz"
    _add_target(parser)
    parser.add_argument("--cert", metavar="FILE", help="our own certificate (PEM), if asked for")
    parser.add_argument("--key", metavar="FILE", help="its private key (PEM), if not in that file")
    parser.add_argument(
        "-X", "--request", dest="method", metavar="METHOD", help="instead of GET, HEAD, POST or PUT"
    )
    parser.add_argument(
        "-H",
        "--header",
        dest="headers",
        metavar="LINE",
        action="append",
        default=[],
        help="send 'Name: value'; 'Name:' leaves out one that is sent by itself, 'Name;' sends it "
        "empty",
    )
    sent = parser.add_mutually_exclusive_group()
    sent.add_argument(
        "-d",
        "--data",
        dest="data",
        metavar="DATA",
        action="append",
        help="POST this form data, or @FILE's without its line ends (@-: stdin); more are joined "
        "by &",
    )
    sent.add_argument(
        "--json", metavar="DATA", action="append", help="POST this JSON, or @FILE's as it is"
    )
    sent.add_argument(
        "-T",
        "--upload-file",
        dest="upload",
        metavar="FILE",
        help="PUT this file (-: stdin); its name is added to a URL that ends in /",
    )
    sent.add_argument(
        "-I", "--head", dest="head", action="store_true", help="HEAD: print the fields alone"
    )
    parser.add_argument(
        "-o", "--output", dest="output", metavar="FILE", help="write the content there"
    )
    parser.add_argument(
        "-v", dest="verbose", action="store_true", help="show every frame in and out on stderr"
    )
    parser.add_argument(
        "--http1.1", dest="http1", action="store_true", help="HTTP/1.1 instead of HTTP/2"
    )
    parser.add_argument(
        "--connect-timeout",
        metavar="S",
        type=_positive,
        default=10.0,
        help="for name, TCP, TLS and SETTINGS (default 10)",
    )
    parser.add_argument(
        "--max-time", metavar="S", type=_positive, help="give everything up after that time"
    )
    _add_limit(parser)
    parser.set_defaults(run=_lazily("get"))


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Serve over HTTP/2 the files of a folder, and /healthz, /bytes/N, /delay/SECONDS, /echo, "
        "/headers and /stats."
    )
    parser.epilog = "example: h2lite serve --tls --port 8443 public/"
    parser.add_argument(
        "folder", metavar="DIR", nargs="?", help="whose files are served (without: none)"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address, or unix:/PATH, to listen on (127.0.0.1)"
    )
    parser.add_argument(
        "--port", type=_port, help="port to listen on, 0 for a free one (8080, with TLS 8443)"
    )
    parser.add_argument("--tls", action="store_true", help="TLS with a throwaway certificate")
    parser.add_argument("--cert", metavar="F", help="TLS with this certificate (PEM)")
    parser.add_argument("--key", metavar="F", help="its private key (PEM)")
    parser.add_argument(
        "--grace",
        metavar="SECONDS",
        type=_seconds,
        default=5.0,
        help="what open streams have to finish after the first Ctrl-C or SIGTERM (5)",
    )
    _add_limit(parser)
    parser.add_argument("-q", dest="quiet", action="store_true", help="no line for each request")
    parser.set_defaults(run=_lazily("serve"))


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Let live connections die without a word, and watch three clients that beat once a second: "
        "HTTP/2 without checks, HTTP/1.1, and HTTP/2 with checks.  All of it is in one process, "
        "without root and without network.  Exit code 1: it was not as it should have been."
    )
    parser.epilog = "example: h2lite demo --svg demo.svg"
    parser.add_argument(
        "--seconds",
        metavar="N",
        type=_demo_seconds,
        default=15,
        help=f"how long, {DEMO_S_MIN} to {DEMO_S_MAX} (default 15)",
    )
    parser.add_argument("--svg", metavar="FILE", help="draw the run there, too")
    parser.add_argument(
        "--blackhole",
        action="store_true",
        help="drop packets instead of freezing a relay, in a namespace of its own (Linux; needs "
        "unshare and nft)",
    )
    # What is inside of that namespace is told by this where outside is.
    parser.add_argument("--outside", metavar="NAMESPACE", help=argparse.SUPPRESS)
    parser.set_defaults(run=_lazily("demo"))


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show versions, the system's limits and timeouts, the environment and the health checks "
        "that follow from it, on a page to paste into a bug report; no secret is on it, and "
        "nothing is connected to.  Exit code 1: there is something to mend."
    )
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")
    parser.set_defaults(run=_lazily("doctor"))


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "url", metavar="URL", help="http:// (prior knowledge), https:// or unix:/SOCKET[:/TARGET]"
    )
    parser.add_argument(
        "-k", dest="insecure", action="store_true", help="accept any certificate"
    )
    parser.add_argument("--cacert", metavar="FILE", help="trust the certificates in FILE (PEM)")


def _add_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit",
        dest="limits",
        metavar="NAME=N",
        action="append",
        default=[],
        help="bear more or less of a peer than SECURITY.md says; a wrong NAME lists them",
    )


def _lazily(command: str) -> Callable[[argparse.Namespace], int]:
    """Load a command's module only when it runs: a ping should not wait for a server's code."""

    def run(options: argparse.Namespace) -> int:
        from importlib import import_module

        return int(import_module(f".{command}", __name__).run(options))

    return run


def _number(text: str, at_least: float, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    # The comparison is false for nan, and an endless wait is not what anybody means by inf.
    if not at_least <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value


def _seconds(text: str) -> float:
    return _number(text, 0.0, "a number of seconds, 0 or more")


def _positive(text: str) -> float:
    return _number(text, 1e-6, "a number of seconds above 0")


def _whole(text: str, low: int, high: int, what: str) -> int:
    digits = text.isascii() and text.isdigit() and len(text) <= 20
    if not digits or not low <= int(text) <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return int(text)


def _demo_seconds(text: str) -> int:
    what = f"a whole number of seconds, {DEMO_S_MIN} to {DEMO_S_MAX}"
    return _whole(text, DEMO_S_MIN, DEMO_S_MAX, what)


def _count(text: str) -> int:
    return _whole(text, 1, 10**12, "a whole number above 0")


def _port(text: str) -> int:
    return _whole(text, 0, 65535, "a port, 0 to 65535")
