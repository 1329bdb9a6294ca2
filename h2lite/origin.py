"""Origins and URLs: whom to talk to, and what to ask for.

Text in, values out; no name is resolved here.  Grounds: RFC 9110 §4.2 and §7.1, RFC 3986.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from .errors import UsageError
from .value import Value

DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(Value):
    """A scheme, a host and a port: what one connection serves (RFC 9110 §4.3.1).

    scheme   "http" (HTTP/2 with prior knowledge) or "https" (HTTP/2 by ALPN)
    host     a name or a numeric address, IPv6 without brackets
    port     1 to 65535
    """

    __slots__ = ("scheme", "host", "port")

    def __init__(self, scheme: str, host: str, port: int) -> None:
        self.scheme = scheme
        self.host = host
        self.port = port

    @property
    def authority(self) -> str:
        """Host and port as :authority has them; the scheme's own port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def parse_url(url: str) -> tuple[Origin, str]:
    """The origin and the request target (path and query) of an http or https URL.

    Raises UsageError that says what is wrong with it.
    """
    # RFC 9113 §8.3.1 [path-not-empty], and §8.2.1: what :path could not carry is refused here.
    if not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError(f"bad URL {url!r}: percent-encode blanks and what is not ASCII")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"bad URL {url!r}: {error}") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise UsageError(f"bad URL {url!r}: it begins with neither http:// nor https://")
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
