"""What `h2lite serve` answers: /healthz, paths for trying a client out, and a folder's files."""

from __future__ import annotations

import json
import math
import os
from urllib.parse import unquote

from ..body import BODY_QUEUED_OCTETS
from ..errors import UsageError
from ..exchange import Reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..exchange import Request
    from ..server import Server
    from .count import FrameCounts

BYTES_MAX = 2**40  # of /bytes/N
DELAY_S_MAX = 3600.0  # of /delay/SECONDS
# What /bytes/N repeats: a length that no frame size divides, so that octets lost or doubled show.
PATTERN = bytes(range(251)) * 261

TEXT = (("content-type", "text/plain; charset=utf-8"),)
JSON = (("content-type", "application/json"),)
OCTETS = (("content-type", "application/octet-stream"),)

HELP = b"""\
/healthz         ok
/bytes/N         N octets
/delay/SECONDS   an answer after that time
/echo            the request's content, back as it comes
/headers         the request's fields, as JSON
/stats           what the server is busy with, as JSON
"""


class Routes:
    """The handler: GET and HEAD for all paths, and any method for /echo and /headers.

    folder   whose files are served beside these paths, which come first; None: no files
    counts   the frames that /stats reports
    """

    def __init__(self, folder: str | None, counts: FrameCounts) -> None:
        self.server: Server | None = None  # whose /stats are asked; there once it listens
        self._counts = counts
        self._root: str | None = None
        if folder is not None:
            if not os.path.isdir(folder):
                raise UsageError(f"{folder} is not a folder")
            self._root = os.path.realpath(folder)

    def streamed(self, request: Request) -> bool:
        """Whether content is wanted as it comes."""
        return _path(request) == "/echo"

    def __call__(self, request: Request) -> Reply:
        path = _path(request)
        if path == "/echo":
            return _echo(request)
        if path == "/headers":
            return _headers(request)
        if request.method not in ("GET", "HEAD"):
            return Reply(405, b"only GET and HEAD\n", (*TEXT, ("allow", "GET, HEAD")))
        if path == "/healthz":
            return Reply(200, b"ok\n", TEXT)
        if path == "/stats":
            return self._stats()
        first, _, argument = path[1:].partition("/")
        if first in _WITH_ARGUMENT and "/" not in argument:
            return _WITH_ARGUMENT[first](argument)
        file = self._find(path)
        if file is not None:
            return _file_reply(file)
        if path == "/":
            return Reply(200, HELP, TEXT)
        return Reply(404, b"not found\n", TEXT)

    def _stats(self) -> Reply:
        stats: dict[str, object] = {} if self.server is None else {**self.server.stats()}
        stats["frames"] = self._counts.by_name()
        return Reply(200, _json(stats), JSON)

    def _find(self, path: str) -> str | None:
        """The file a request path stands for; None when there is none in the folder."""
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


def _path(request: Request) -> str:
    return request.path.partition("?")[0]


def _echo(request: Request) -> Reply:
    """The content back as it comes, of the type it came with, and its trailers behind it."""
    names = ("content-type", "content-length")
    fields = [(name, value) for name, value in request.headers if name in names]
    if request.content is None:
        return Reply(200, request.body, fields)
    return Reply(200, request.content, fields, trailers=request.trailers)


def _headers(request: Request) -> Reply:
    """The request as it was understood; fields as pairs, since a name may come twice."""
    told = {
        "method": request.method,
        "scheme": request.scheme,
        "authority": request.authority,
        "path": request.path,
        "headers": request.headers,
    }
    return Reply(200, _json(told), JSON)


def _bytes(argument: str) -> Reply:
    digits = argument.isascii() and argument.isdigit() and len(argument) <= 15
    if not digits or int(argument) > BYTES_MAX:
        return Reply(400, f"/bytes/N: N from 0 to {BYTES_MAX}\n".encode(), TEXT)
    octets = int(argument)
    return Reply(200, _pattern(octets), (*OCTETS, ("content-length", str(octets))))


def _pattern(octets: int) -> Iterator[bytes]:
    for _ in range(octets // len(PATTERN)):
        yield PATTERN
    yield PATTERN[: octets % len(PATTERN)]


def _delay(argument: str) -> Reply:
    try:
        seconds = float(argument)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= DELAY_S_MAX:
        text = f"/delay/SECONDS: from 0 to {DELAY_S_MAX:g}\n"
        return Reply(400, text.encode(), TEXT)
    return Reply(200, f"after {seconds:g} s\n".encode(), TEXT, delay=seconds)


_WITH_ARGUMENT: dict[str, Callable[[str], Reply]] = {"bytes": _bytes, "delay": _delay}


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


def _file_reply(path: str) -> Reply:
    import mimetypes

    try:
        with open(path, "rb") as file:
            facts = os.fstat(file.fileno())
    except OSError:
        return Reply(403, b"not readable\n", TEXT)
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    headers = (("content-type", kind), ("content-length", str(facts.st_size)))
    return Reply(200, _file_pieces(path, facts), headers)


def _file_pieces(path: str, facts: os.stat_result) -> Iterator[bytes]:
    """A file's content, as long as it was.

    It is open only while a piece is read: clients that do not read could hold all descriptors.
    """
    for at in range(0, facts.st_size, BODY_QUEUED_OCTETS):
        with open(path, "rb") as file:
            if not os.path.samestat(os.fstat(file.fileno()), facts):
                raise OSError(f"{path} was replaced while it was sent")
            file.seek(at)
            wanted = min(BODY_QUEUED_OCTETS, facts.st_size - at)
            piece = file.read(wanted)
        if len(piece) < wanted:
            raise OSError(f"{path} was cut short while it was sent")
        yield piece
