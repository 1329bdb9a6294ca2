"""`h2lite get`: one request and its response, with curl's options."""

from __future__ import annotations

import os
import posixpath
import signal
import sys
import time
from urllib.parse import quote

from .. import __version__
from ..body import next_piece, octets_left
from ..client import ConnectionPool
from ..errors import (
    ConnectTimeout,
    H2liteError,
    PoolTimeout,
    ReadTimeout,
    UsageError,
    WriteTimeout,
)
from ..limits import limits_from
from ..loop import LINGER_S
from ..origin import parse_url
from . import DONE, check_output, complain, describe_size, drop, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from types import FrameType
    from typing import BinaryIO

    from typing_extensions import Self

    from ..client import PooledConnection, Response
    from .trace import FrameTrace

PROGRESS_AFTER_S = 1.0
PROGRESS_EVERY_S = 0.2
# For the loop's own deadlines, which know better what they waited for, and for the pool's end
# after one of them: it may linger over a connection whose peer does not close it.
ALARM_SLACK_S = 0.2 + LINGER_S

_FORM = "application/x-www-form-urlencoded"
_JSON = "application/json"


def run(options: argparse.Namespace) -> int:
    """Fetch; the exit code is 0 whatever the response's status is, as curl has it."""
    deadline = None if options.max_time is None else time.monotonic() + options.max_time
    tap = None
    if options.verbose:
        from .trace import FrameTrace

        tap = FrameTrace(complain)
    try:
        with _Alarm(options.max_time), _Ask(options) as ask:
            _fetch(options, ask, tap, deadline)
    except (ConnectTimeout, PoolTimeout, ReadTimeout, WriteTimeout) as caught:
        error: H2liteError = caught
        if isinstance(caught, _Rung) and isinstance(caught.__context__, H2liteError):
            # It went off in the pool's end after a fault, and that is what there is to tell.
            error = caught.__context__
        elif isinstance(caught, _Rung):
            # Somebody does not take our output: what is still buffered must not wait for him.
            drop(sys.stdout)
        if deadline is not None and time.monotonic() >= deadline:
            text = f"{options.url} not fetched within {options.max_time:g} s: {error}"
            raise ReadTimeout(text) from error
        raise error from error.__cause__
    return DONE


class _Ask:
    """The request that the options ask for; as a context manager, it closes what it opened."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.url: str = options.url
        self.content = b""
        self.file: BinaryIO | None = None  # where content comes from that is sent by and by
        self.length: int | None = None  # of that, where it is known
        method = "HEAD" if options.head else "GET"
        added = {"user-agent": f"h2lite/{__version__}", "accept": "*/*"}
        if options.data is not None:
            method, added["content-type"] = "POST", _FORM
            self.content = b"&".join(_data(text, as_it_is=False) for text in options.data)
        elif options.json is not None:
            method, added["content-type"], added["accept"] = "POST", _JSON, _JSON
            self.content = b"".join(_data(text, as_it_is=True) for text in options.json)
        elif options.upload is not None:
            method = "PUT"
            self.url = _named(self.url, options.upload)
        self.method: str = method if options.method is None else options.method
        _, self.path = parse_url(self.url)
        self.headers = _headers(options.headers, added)
        if options.upload is not None:
            self.file = _open(options.upload)
            self.length = octets_left(self.file)
            if self.length is not None and not _has(self.headers, "content-length"):
                self.headers.append(("content-length", str(self.length)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()


def _fetch(
    options: argparse.Namespace, ask: _Ask, tap: FrameTrace | None, deadline: float | None
) -> None:
    patience = options.connect_timeout
    if deadline is not None:
        patience = min(patience, max(1e-6, deadline - time.monotonic()))
    with ConnectionPool(
        http2=False if options.http1 else None,
        connect_timeout=patience,
        verify=not options.insecure,
        cafile=options.cacert,
        certfile=options.cert,
        keyfile=options.key,
        limits=limits_from(options.limits),
        tap=tap,
    ) as pool:
        connection = pool.connect(ask.url)
        timeout = None if deadline is None else max(1e-6, deadline - time.monotonic())
        if options.output == "-":  # as curl has it: stdout
            options.output = None
        if options.output is None:
            check_output()
        to_terminal = options.output is None and sys.stdout.isatty()
        with _Progress(shown=not options.verbose and not to_terminal) as progress:
            _exchange(connection, options, ask, timeout, progress)


def _exchange(
    connection: PooledConnection,
    options: argparse.Namespace,
    ask: _Ask,
    timeout: float | None,
    progress: _Progress,
) -> None:
    body = ask.content if ask.file is None else progress.sent(ask.file, ask.length)
    with connection.stream(
        ask.method, ask.path, headers=ask.headers, body=body, timeout=timeout, retries=0
    ) as response:
        if options.head:
            head = f"{response.http_version} {response.status}\n"
            head += "".join(f"{name}: {value}\n" for name, value in response.headers)
            pieces = iter([printable_lines(head).encode()])
        else:
            pieces = progress.received(response)
        if options.output is None:
            _write_out(pieces)
        else:
            _write_file(pieces, options.output)


def printable_lines(text: str) -> str:
    """Lines of a peer's text, made unable to steer a terminal."""
    return "".join(printable(line) + "\n" for line in text.splitlines())


# -- what is sent ------------------------------------------------------------------------------


def _open(path: str) -> BinaryIO:
    """A file to be sent; "-": stdin."""
    try:
        if path == "-":
            if sys.stdin is None:
                raise ValueError("stdin is closed")
            return open(sys.stdin.fileno(), "rb", closefd=False)
        return open(path, "rb")
    except (OSError, ValueError) as error:  # a ValueError: stdin is closed
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read {path}: {reason}") from error


def _data(text: str, *, as_it_is: bool) -> bytes:
    """What -d or --json was given: the text itself, or with an @ a file's content."""
    if not text.startswith("@"):
        return os.fsencode(text)
    try:
        with _open(text[1:]) as file:
            content = file.read()
    except OSError as error:
        raise UsageError(f"cannot read {text[1:]}: {error.strerror or error}") from error
    return content if as_it_is else content.translate(None, b"\r\n\0")


def _read(file: BinaryIO) -> bytes | None:
    """The next piece of an upload; its fault is not to be taken for one of the output."""
    try:
        return next_piece(file)
    except H2liteError:  # the alarm's is an OSError too, but not the file's
        raise
    except OSError as error:
        raise UsageError(f"cannot read the upload: {error.strerror or error}") from error


def _named(url: str, file: str) -> str:
    """A URL that ends in / is a folder: the file is put there under its own name."""
    name = os.path.basename(file)
    if not url.endswith("/") or file == "-" or not name:
        # http://host is http://host/, where a file can be put too.
        if url.count("/") == 2 and url[:5] != "unix:" and file != "-" and name:
            return f"{url}/{quote(name)}"
        return url
    return posixpath.join(url, quote(name))


def _has(headers: list[tuple[str, str]], name: str) -> bool:
    return any(given.lower() == name for given, _ in headers)


def _headers(lines: list[str], added: dict[str, str]) -> list[tuple[str, str]]:
    """The fields of -H lines, and those of `added` that no line replaces or leaves out."""
    given: list[tuple[str, str]] = []
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.strip()
        if not colon and name.endswith(";") and len(name) > 1:
            name = name[:-1]
            given.append((name, ""))
        elif not colon or not name:
            raise UsageError(f"bad header {line!r}: it has the form 'Name: value'")
        elif value.strip():
            given.append((name, value.strip()))
        added.pop(name.lower(), None)
    return [*added.items(), *given]


# -- what comes --------------------------------------------------------------------------------


def _write_out(pieces: Iterator[bytes]) -> None:
    try:
        _write(pieces, sys.stdout.buffer)
    except (H2liteError, BrokenPipeError):  # main() knows what to do with either
        raise
    except OSError as error:
        # What is still buffered must have somewhere to go, or the interpreter fails at its end.
        drop(sys.stdout)
        raise UsageError(f"cannot write to stdout: {error.strerror or error}") from error


def _write_file(pieces: Iterator[bytes], path: str) -> None:
    try:
        with open(path, "wb") as file:
            _write(pieces, file)
    except H2liteError:  # some of them are OSErrors too, but not the file's
        raise
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error


def _write(pieces: Iterator[bytes], file: BinaryIO) -> None:
    for piece in pieces:
        file.write(piece)
        file.flush()  # who reads along sees it now, and a late error has lost nothing


class _Progress:
    """One line on a terminal's stderr about what takes over a second."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown and sys.stderr is not None and sys.stderr.isatty()
        self._began = time.monotonic()
        self._next = self._began + PROGRESS_AFTER_S
        self._printed = False
        self._octets = {"sent": 0, "received": 0}
        self._total: dict[str, int | None] = {"sent": None, "received": None}

    def sent(self, file: BinaryIO, length: int | None) -> Iterator[bytes]:
        """The content of a file, watched as it is read."""
        self._total["sent"] = length
        while (piece := _read(file)) is not None:
            self.count("sent", len(piece))
            yield piece

    def received(self, response: Response) -> Iterator[bytes]:
        """A response's content, watched as it comes."""
        length = response.headers.get("content-length")
        self._total["received"] = int(length) if length else None
        for piece in response.iter_bytes():
            self.count("received", len(piece))
            yield piece

    def count(self, way: str, octets: int) -> None:
        self._octets[way] += octets
        now = time.monotonic()
        if self._shown and now >= self._next:
            self._next = now + PROGRESS_EVERY_S
            self._printed = True
            complain("\r" + self._line(now) + "\x1b[K", end="")

    def _line(self, now: float) -> str:
        parts = []
        for way, octets in self._octets.items():
            total = self._total[way]
            if octets:
                of = f" of {describe_size(total)}" if total else ""
                parts.append(f"{describe_size(octets)}{of} {way}")
        rate = sum(self._octets.values()) / (now - self._began)
        return f"{', '.join(parts)}, {describe_size(int(rate))}/s"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._printed:
            complain("\r" + self._line(time.monotonic()) + "\x1b[K")


# -- the end of all patience -------------------------------------------------------------------


class _Rung(ReadTimeout):
    """The alarm went off while something else than the network was waited for."""


class _Alarm:
    """Ends, where the system has such a timer, what no deadline of a loop can reach.

    A read from a stdin that says nothing, a write to a pipe that nobody empties.  It goes off
    again and again, as an exception may be lost in code that must not be interrupted.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds if hasattr(signal, "setitimer") else None

    def __enter__(self) -> None:
        if self._seconds is not None:
            self._before = signal.signal(signal.SIGALRM, self._ring)
            signal.setitimer(signal.ITIMER_REAL, self._seconds + ALARM_SLACK_S, 1.0)

    def __exit__(self, *_: object) -> None:
        if self._seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, self._before)

    def _ring(self, number: int, frame: FrameType | None) -> None:
        raise _Rung("the input or the output of this command stood still")
