"""`h2lite get`: fetch one URL, content to stdout or a file, frames to stderr on request."""

from __future__ import annotations

import os
import sys
import time

from ..client import CONNECT_TIMEOUT_S, connect
from ..errors import ConnectTimeout, H2liteError, ReadTimeout, UsageError
from ..origin import parse_url
from . import DONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import BinaryIO

    from ..client import Response
    from .trace import FrameTrace


def run(options: argparse.Namespace) -> int:
    """Fetch; the exit code is 0 whatever the response's status is, as curl has it."""
    _, path = parse_url(options.url)
    tap = None
    if options.verbose:
        from .trace import FrameTrace

        tap = FrameTrace(sys.stderr)
    deadline = None if options.max_time is None else time.monotonic() + options.max_time
    try:
        _fetch(options, path, tap, deadline)
    except (ConnectTimeout, ReadTimeout) as error:
        if deadline is not None and time.monotonic() >= deadline:
            text = f"{options.url} not fetched within {options.max_time:g} s: {error}"
            raise ReadTimeout(text) from error
        raise
    return DONE


def _fetch(
    options: argparse.Namespace, path: str, tap: FrameTrace | None, deadline: float | None
) -> None:
    patience = CONNECT_TIMEOUT_S
    if deadline is not None:
        patience = min(patience, deadline - time.monotonic())
    with connect(
        options.url,
        timeout=patience,
        verify=not options.insecure,
        cafile=options.cacert,
        tap=tap,
    ) as connection:
        timeout = None if deadline is None else max(1e-6, deadline - time.monotonic())
        with connection.request("GET", path, timeout=timeout) as response:
            if options.output is None:
                _write_out(response)
            else:
                _write_file(response, options.output)


def _write_out(response: Response) -> None:
    try:
        _write(response, sys.stdout.buffer)
    except (H2liteError, BrokenPipeError):  # main() knows what to do with either
        raise
    except OSError as error:
        # What is still buffered must have somewhere to go, or the interpreter fails at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise UsageError(f"cannot write to stdout: {error.strerror or error}") from error


def _write_file(response: Response, path: str) -> None:
    try:
        with open(path, "wb") as file:
            _write(response, file)
    except H2liteError:  # some of them are OSErrors too, but not the file's
        raise
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error


def _write(response: Response, file: BinaryIO) -> None:
    for chunk in response.iter_bytes():
        file.write(chunk)
    file.flush()
