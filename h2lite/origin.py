"""Origins and URLs: whom to talk to, and what to ask for.

Text in, values out; no name is resolved here.  Grounds: RFC 9110 §4.2 and §7.1, RFC 3986; for
unix: URLs, which no RFC knows, nginx's form of them.
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit

from .errors import UsageError
from .value import Value

DEFAULT_PORTS = {"http": 80, "https": 443}
# What Linux has room for beside the NUL; where it is less, macOS has 103, the system says so.
UNIX_PATH_OCTETS_MAX = 107
ORIGINS_KNOWN_MAX = 256  # that need not be parsed again


class Origin(Value):
    """A scheme, a host and a port: what one connection serves (RFC 9110 §4.3.1).

    scheme      "http" (HTTP/2 with prior knowledge) or "https" (HTTP/2 by ALPN)
    host        a name or a numeric address, IPv6 without brackets
    port        1 to 65535
    unix_path   the UNIX socket by which it is reached instead, None for TCP
    """

    __slots__ = ("scheme", "host", "port", "unix_path")

    def __init__(self, scheme: str, host: str, port: int, unix_path: str | None = None) -> None:
        self.scheme = scheme
        self.host = host
        self.port = port
        self.unix_path = unix_path

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)

    def __hash__(self) -> int:
        # As Value's, without asking for the names of the slots: each request looks its origin up.
        return hash((self.scheme, self.host, self.port, self.unix_path))

    @property
    def authority(self) -> str:
        """Host and port as :authority has them; the scheme's own port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        if self.unix_path is not None:
            return f"unix:{self.unix_path}"
        return f"{self.scheme}://{self.authority}"


def parse_url(url: str) -> tuple[Origin, str]:
    """The origin and the request target (path and query) of an http, https or unix URL.

    `unix:/run/app.sock:/healthz` is a socket's absolute path and, after the first colon, the
    target; the path is taken as it stands, nothing in it is percent-decoded.

    Raises UsageError that says what is wrong with it.
    """
    if url[:5].lower() == "unix:":
        return _parse_unix(url)
    # All behind the first slash is the target as it stands, unless it has a fragment or ends with
    # a query of nothing; so what names the origin is looked at once for all of its URLs.
    at = url.find("/", url.find("://") + 3)
    if at > 0 and "#" not in url and url[-1] != "?" and "?" not in url[:at]:
        try:
            origin = _parse_origin(url[:at])
        except UsageError:
            return _parse(url)  # says what is wrong with all of it
        _check_text(url, url[at:])
        return origin, url[at:]
    return _parse(url)


@lru_cache(maxsize=ORIGINS_KNOWN_MAX)
def _parse_origin(url: str) -> Origin:
    """The origin of a URL without path and query: nothing that is anybody's secret stays here."""
    return _parse(url)[0]


def _parse(url: str) -> tuple[Origin, str]:
    # RFC 9113 §8.3.1 [path-not-empty], and §8.2.1: what :path could not carry is refused here.
    _check_text(url, url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"bad URL {url!r}: {error}") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise UsageError(f"bad URL {url!r}: it begins with none of http://, https:// and unix:/")
    if not parts.hostname:
        raise UsageError(f"bad URL {url!r}: no host")
    # RFC 9113 §8.3.1 [authority-no-userinfo]
    if "@" in parts.netloc:
        raise UsageError(f"bad URL {url!r}: no user or password belongs in it")
    if port == 0:
        raise UsageError(f"bad URL {url!r}: port 0")
    origin = Origin(parts.scheme, parts.hostname, port or DEFAULT_PORTS[parts.scheme])
    target = parts.path or "/"
    return origin, f"{target}?{parts.query}" if parts.query else target


def _parse_unix(url: str) -> tuple[Origin, str]:
    path, colon, target = url[5:].partition(":")
    # A relative path would mean another socket after a chdir, and a pool dials again.
    if not path.startswith("/"):
        raise UsageError(f"bad URL {url!r}: unix: and the absolute path of a socket")
    try:
        octets = path.encode("utf-8", "surrogateescape")  # as the system's file names are
    except UnicodeEncodeError as error:
        raise UsageError(f"bad URL {url!r}: {error}") from None
    if b"\0" in octets:
        raise UsageError(f"bad URL {url!r}: no path has a NUL in it")
    if len(octets) > UNIX_PATH_OCTETS_MAX:
        raise UsageError(
            f"bad URL {url!r}: a path of {len(octets)} octets, a socket's has at most"
            f" {UNIX_PATH_OCTETS_MAX}"
        )
    target = target.partition("#")[0]
    if colon and not target.startswith("/"):
        raise UsageError(f"bad URL {url!r}: what follows the second colon begins with /")
    _check_text(url, target)
    return Origin("http", "localhost", DEFAULT_PORTS["http"], path), target or "/"


def _check_text(url: str, part: str) -> None:
    if not part.isascii() or not part.isprintable() or " " in part:
        raise UsageError(f"bad URL {url!r}: percent-encode blanks and what is not ASCII")
