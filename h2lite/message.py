"""What users write of requests and read of responses: fields as text, bodies in their forms.

Between text and the octets of a field section; nothing is sent here.
Grounds: RFC 9113 §8.2, §8.3.1; RFC 9110 §5, §7.2.
"""

from __future__ import annotations

from .body import octets_left
from .errors import UsageError
from .fields import octet_pairs, text_pairs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from .body import Body
    from .events import Fields
    from .fields import Pairs
    from .origin import Origin

    HeaderPairs = Mapping[str, str] | Pairs


class Headers:
    """A response's fields as text, in order; names compare without regard to case."""

    __slots__ = ("_fields", "_text")

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._text: list[tuple[str, str]] | None = None  # until somebody asks

    @property
    def _pairs(self) -> list[tuple[str, str]]:
        if self._text is None:
            self._text = text_pairs(self._fields)
        return self._text

    def get(self, name: str, default: str | None = None) -> str | None:
        """The values of a field, joined by ", "; `default` when it is absent."""
        values = self.get_all(name)
        return ", ".join(values) if values else default

    def get_all(self, name: str) -> list[str]:
        """Every value of a field, line by line."""
        lowered = name.lower()
        return [value for key, value in self._pairs if key == lowered]

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: str) -> bool:
        return bool(self.get_all(name))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __repr__(self) -> str:
        return f"Headers({self._pairs!r})"


class Source:
    """A request's content that is given piece by piece: a file, or an iterable of octets.

    is_rewindable   it can be given again from its start
    """

    __slots__ = ("is_rewindable", "_body", "_pieces", "_start")

    def __init__(self, body: Any) -> None:
        self._body = body
        self._start = 0
        if hasattr(body, "read"):
            self.is_rewindable = octets_left(body) is not None
            if self.is_rewindable:
                self._start = body.tell()
            self._pieces: object = body
        else:
            self._pieces = iter(body)
            # An iterable that is not its own iterator can be gone through again.
            self.is_rewindable = self._pieces is not body

    @property
    def pieces(self) -> object:
        """What `next_piece` takes."""
        return self._pieces

    def rewind(self) -> None:
        """Give it again from its start."""
        if hasattr(self._body, "read"):
            self._body.seek(self._start)
        else:
            self._pieces = iter(self._body)


def check_body(body: object) -> Body:
    """A request's body, or UsageError for what can be none."""
    if isinstance(body, bytes):
        return body
    if isinstance(body, (bytearray, memoryview)):
        return bytes(body)  # it may change before it has left
    if isinstance(body, str) or not (hasattr(body, "read") or hasattr(body, "__iter__")):
        text = f"a body of {type(body).__name__}, want octets, a file or an iterable of octets"
        raise UsageError(text)
    return body  # type: ignore[return-value]


def request_fields(
    origin: Origin, method: str, path: str, headers: HeaderPairs, body_octets: int | None
) -> Fields:
    """The field section of a request, pseudo-header fields first.

    body_octets   of content; content-length is added where they are known, not 0, and it is not
                  among the headers
    Raises UsageError for text that no field can carry and for a second Host.
    """
    pairs = [*(headers.items() if hasattr(headers, "items") else headers)]
    # RFC 9113 §8.3.1 [authority-sent]: a Host that the caller gives becomes :authority.
    hosts = [value for name, value in pairs if name.lower() == "host"] or [origin.authority]
    try:
        fields = [
            (b":method", method.encode("ascii")),
            (b":scheme", origin.scheme.encode("ascii")),
            (b":authority", hosts[0].encode("ascii")),
            (b":path", path.encode("ascii")),
            *octet_pairs((name, value) for name, value in pairs if name.lower() != "host"),
        ]
    except UnicodeEncodeError as error:
        raise UsageError(f"not representable in a field: {error}") from None
    if len(hosts) > 1:
        raise UsageError("more than one Host")
    if body_octets and not any(name == b"content-length" for name, _ in fields):
        fields.append((b"content-length", str(body_octets).encode()))
    return fields
