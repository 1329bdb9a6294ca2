"""Field sections: HPACK by the hpack package, and what a well-formed message may hold.

The only importer of hpack, and only when the first field block needs it: a connection that
merely pings never loads it.  Grounds: RFC 9113 §4.3, §8.2, §8.3; RFC 7541.
"""

from __future__ import annotations

from .errors import ErrorCode, PeerError
from .limits import DEFAULT_LIMITS
from .memo import LINE_OCTETS, NO_MEMO, Memo
from .settings import INITIAL_VALUES, UNLIMITED, SettingId

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TypeAlias

    from hpack import Decoder, Encoder

    from .events import Fields

    Pairs: TypeAlias = Iterable[tuple[str, str]]
    Lines: TypeAlias = Sequence[tuple[bytes, bytes]]

HEADER_TABLE_SIZE_MAX = INITIAL_VALUES[SettingId.HEADER_TABLE_SIZE]  # more costs memory per peer
HUFFMAN_OCTETS_MAX = 256  # of a value: hpack's coder takes the square of them, 64 KiB two seconds

MISSES_MAX = 3  # lines of one name in a row that were not in the table: the next will not be
NAMES_MAX = 64  # whose misses are counted

# Values that must not be guessable from the sizes of later blocks (RFC 7541 §7.1.3).
_NEVER_INDEXED = frozenset((b"authorization", b"proxy-authorization"))

# RFC 9110 §5.6.2 (token) without upper case, and §5.5 (field value): what may not appear.
_NAME_OCTETS = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
_TOKEN_OCTETS = _NAME_OCTETS + b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_VALUE_FORBIDDEN = bytes([*range(9), *range(10, 32), 127])
# RFC 3986 §3.1 (scheme), and of §3.2 and §3.3 what would end an authority or a path too early.
_SCHEME_OCTETS = b"+-.0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_AUTHORITY_FORBIDDEN = b" \t/?#"
_PATH_FORBIDDEN = b" \t#"

CONNECTION_SPECIFIC = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
_REQUEST_PSEUDO = frozenset((b":method", b":scheme", b":authority", b":path"))
_RESPONSE_PSEUDO = frozenset((b":status",))


def load_hpack() -> None:
    """Load hpack now: a server that has run out of descriptors could not do it later."""
    import hpack  # noqa: F401


class Section:
    """A field section and what follows from it, worked out once however often it is sent or comes.

    fields     (name, value) pairs in order
    size       octets as MAX_HEADER_LIST_SIZE counts them (RFC 9113 §6.5.2)
    declared   its content-length, None when there is none
    method     of a request, else b""
    status     of a response, else 0

    The last three are told once it has been judged well-formed.
    """

    __slots__ = ("fields", "size", "declared", "method", "status", "_judged", "_fault", "_coded")

    def __init__(self, fields: Iterable[tuple[bytes, bytes]]) -> None:
        self.fields = tuple(fields)
        self.size = section_size(self.fields)
        self.declared: int | None = None
        self.method = b""
        self.status = 0
        self._judged: object = None  # by which rules, None: not yet
        self._fault: str | None = None
        # What FieldEncoder made of it: by which one, at which state of its table, and the block.
        self._coded: tuple[FieldEncoder | None, int, bytes] = (None, 0, b"")

    @property
    def weight(self) -> int:
        """Octets of memory, about."""
        return self.size + LINE_OCTETS * len(self.fields)

    def request_fault(self) -> str | None:
        """Why it is malformed as a request's header section; None: it is well-formed."""
        return self._fault if self._judged is request_fault else self._judge(request_fault)

    def response_fault(self) -> str | None:
        """The same of a response's."""
        return self._fault if self._judged is response_fault else self._judge(response_fault)

    def trailers_fault(self) -> str | None:
        """The same of a trailer section."""
        return self._fault if self._judged is trailers_fault else self._judge(trailers_fault)

    def _judge(self, rules: Callable[[Lines], str | None]) -> str | None:
        self._judged, self._fault = rules, rules(self.fields)
        if self._fault is None:
            self.declared = declared_length(self.fields)
            for name, value in self.fields:
                if name == b":method":
                    self.method = value
                elif name == b":status":
                    self.status = int(value)
        return self._fault


class FieldEncoder:
    """Field sections to field blocks; one per connection, since its table has a history.

    What left the dynamic table as it was says the same again, until the table changes; so lines
    and blocks are kept that long, and coded once: a 900-octet token took hpack 200 us a request.
    """

    __slots__ = (
        "_encoder",
        "_table_size",
        "_smallest_size",
        "_resized",
        "_sections",
        "_lines",
        "_state",
        "_misses",
        "_unindexed",
        "_passed",
    )

    def __init__(self) -> None:
        self._encoder: Encoder | None = None
        self._table_size = HEADER_TABLE_SIZE_MAX
        self._smallest_size = HEADER_TABLE_SIZE_MAX  # since the last block
        self._resized = False
        self._sections = self._lines = NO_MEMO
        self._state = 0  # of the table: another number after each change
        # By name: how many lines in a row were not in the table, then the last one of those.
        self._misses: dict[bytes, int] = NO_MEMO
        self._unindexed: dict[bytes, bytes] = NO_MEMO
        self._passed = False  # the block at hand has such a line, which is not to stay as it is

    def set_table_size(self, octets: int) -> None:
        """The peer's HEADER_TABLE_SIZE; we never use more than HEADER_TABLE_SIZE_MAX."""
        self._table_size = min(octets, HEADER_TABLE_SIZE_MAX)
        self._smallest_size = min(self._smallest_size, self._table_size)
        self._resized = True

    def section(self, fields: Iterable[tuple[bytes, bytes]] | Section) -> Section:
        """The fields as a Section, the same one as before where they are the same."""
        if isinstance(fields, Section):
            return fields
        key = tuple(fields)
        section: Section | None = self._sections.get(key)
        if section is None:
            section = Section(key)
            if self._sections is NO_MEMO:
                self._sections = Memo()
            self._sections.keep(key, section, section.weight)
        return section

    def encode(self, fields: Iterable[tuple[bytes, bytes]] | Section) -> bytes:
        """One field block.  It has changed the table: it must be sent, or the connection closed."""
        section = fields if isinstance(fields, Section) else self.section(fields)
        maker, state, block = section._coded
        if maker is self and state == self._state and not self._resized:
            return block
        begin = self._size_updates() if self._encoder is None or self._resized else b""
        state, lines = self._state, self._lines
        self._passed = False
        block = begin + b"".join(
            [lines.get(line) or self._encode_line(line) for line in section.fields]
        )
        if state == self._state and not self._passed and not begin:
            section._coded = self, state, block
        return block

    def _size_updates(self) -> bytes:
        """What a block begins with where the table's size has changed."""
        if self._encoder is None:
            from hpack import Encoder

            self._encoder = Encoder()
            self._lines, self._misses, self._unindexed = Memo(), {}, {}
        # RFC 9113 §4.3.1 [table-size-update]: hpack opens the block with each size it was given,
        # but takes the same one given twice for no change at all.
        for octets in (self._smallest_size, self._table_size):
            if octets != self._encoder.header_table_size:
                self._encoder.header_table_size = octets
        self._smallest_size = self._table_size
        self._resized = False
        updates = self._encoder.encode([])
        if updates:
            self._changed()
        return updates

    def _encode_line(self, line: tuple[bytes, bytes]) -> bytes:
        """One field line, by hpack."""
        assert self._encoder is not None
        name, value = line
        secret = name in _NEVER_INDEXED
        literal = secret or self._is_passing(name, value)
        octets: bytes = self._encoder.add(line, literal, len(value) <= HUFFMAN_OCTETS_MAX)
        # RFC 7541 §6.2.1: 01 is a literal that goes into the table. §6.1: 1 is what is in a table.
        # Whatever else a line begins with leaves the tables alone, too.
        if octets[0] & 0xC0 == 0x40:
            self._changed()
            self._misses[name] = self._misses.get(name, 0) + 1
        elif octets[0] & 0x80 or secret:
            self._misses.pop(name, None)
            self._lines.keep(line, octets, LINE_OCTETS + len(name) + 2 * len(value))
        else:
            self._passed = True
        return octets

    def _is_passing(self, name: bytes, value: bytes) -> bool:
        """The name has another value each time: in the table they would only drive others out.

        hpack offers no "without indexing", so such a line is marked as never to be indexed.
        """
        if len(self._misses) > NAMES_MAX:
            self._misses.clear()
            self._unindexed.clear()
        if self._misses.get(name, 0) < MISSES_MAX:
            return False
        before, self._unindexed[name] = self._unindexed.get(name), value
        return before != value  # one that comes twice in a row may come a third time

    def _changed(self) -> None:
        """The table has changed: what was coded before may mean something else now."""
        self._state += 1
        self._lines.clear()


class FieldDecoder:
    """Field blocks to field sections; every block must pass through, even an unwanted one.

    octets_max   of one section, decoded, as MAX_HEADER_LIST_SIZE counts them

    A block that left the dynamic table as it was means the same again, until the table changes.
    """

    __slots__ = ("_octets_max", "_decoder", "_table_size", "_smallest_size", "_sections")

    def __init__(self, octets_max: int = DEFAULT_LIMITS.field_section_octets) -> None:
        self._octets_max = octets_max
        self._decoder: Decoder | None = None
        self._table_size = INITIAL_VALUES[SettingId.HEADER_TABLE_SIZE]
        self._smallest_size = self._table_size  # since the last block
        self._sections = NO_MEMO

    def set_table_size(self, octets: int) -> None:
        """Our HEADER_TABLE_SIZE: the most the peer's encoder may use from its next block on."""
        self._sections.clear()
        self._table_size = octets
        self._smallest_size = min(self._smallest_size, octets)
        if self._decoder is not None:
            self._decoder.max_allowed_table_size = octets

    def decode(self, block: bytes) -> Section:
        """The field section, its (name, value) pairs in order.

        Raises PeerError, always a connection error: after it the tables no longer agree.
        """
        section: Section | None = self._sections.get(block)
        if section is not None:
            return section
        if self._decoder is None:
            from hpack import Decoder

            self._sections = Memo()
            self._decoder = Decoder(max_header_list_size=self._octets_max)
            self._decoder.max_allowed_table_size = self._table_size
        if self._smallest_size < self._decoder.header_table_size:
            self._check_size_update(block)
        self._smallest_size = self._table_size
        # The entries of hpack's table, the newest first: a line that is inserted makes another one
        # the newest, or, where it is larger than the table, leaves none.
        entries = self._decoder.header_table.dynamic_entries
        newest = entries[0] if entries else None
        section = Section(self._decode(self._decoder, block))
        # RFC 7541 §6.3: a size update, 001, may drive entries out and leave the newest one.
        if (entries[0] if entries else None) is not newest or _is_size_update(block):
            self._sections.clear()
        else:
            self._sections.keep(block, section, section.weight)
        return section

    def _decode(self, decoder: Decoder, block: bytes) -> Lines:
        from hpack import OversizedHeaderListError

        try:
            return [(name, value) for name, value in decoder.decode(block, raw=True)]
        except OversizedHeaderListError:
            # RFC 9113 §10.5.1 [field-section-bounded], §4.3 [decoding-refused]
            raise PeerError(
                ErrorCode.ENHANCE_YOUR_CALM, f"field section over {self._octets_max} octets"
            ) from None
        except Exception as error:  # noqa: BLE001  whatever octets make of the decoder, is theirs
            # RFC 9113 §4.3 [decoding-error]
            # hpack's own words may show the octets, or where they are in memory.
            raise PeerError(
                ErrorCode.COMPRESSION_ERROR, f"field block does not decode: {type(error).__name__}"
            ) from None

    def _check_size_update(self, block: bytes) -> None:
        """The block must begin with a size update, to no more than the table was reduced to."""
        # RFC 9113 §4.3.1 [table-size-reduced]: though it may have been raised again since; hpack
        # looks at the size that holds now.
        if not _is_size_update(block) or _table_size_of(block) > self._smallest_size:
            raise PeerError(
                ErrorCode.COMPRESSION_ERROR, "field block without the table size update that is due"
            )


def _is_size_update(block: bytes) -> bool:
    """The block begins with a table size update (RFC 7541 §6.3: 001, then the size)."""
    return block[:1] != b"" and block[0] & 0xE0 == 0x20


def _table_size_of(block: bytes) -> int:
    """What the size update says with which a block begins (RFC 7541 §5.1, five bits of prefix)."""
    size = block[0] & 0x1F
    if size < 0x1F:
        return size
    for at, octet in enumerate(block[1:5]):
        size += (octet & 0x7F) << 7 * at
        if not octet & 0x80:
            return size
    return UNLIMITED


def section_size(fields: Lines) -> int:
    """Octets of a field section as MAX_HEADER_LIST_SIZE counts them (RFC 9113 §6.5.2)."""
    return sum([len(name) + len(value) for name, value in fields]) + 32 * len(fields)


def declared_length(fields: Lines) -> int | None:
    """The content-length of a well-formed section; None when there is none."""
    for name, value in fields:
        if name == b"content-length":
            return int(value)
    return None


def content_of_response(status: int, declared: int | None, answers_head: bool) -> int | None:
    """Octets of content a response is to have; None: as many as come."""
    # RFC 9113 §8.1.1 [no-content]: these have none, whatever content-length says.
    if answers_head or status in (204, 304):
        return 0
    return declared


def join_cookies(fields: Lines) -> Lines:
    """The fields with all cookie lines made one, at the place of the first."""
    # RFC 9113 §8.2.3 [cookie-joined]
    crumbs = [value for name, value in fields if name == b"cookie"]
    if len(crumbs) < 2:
        return fields
    first = next(index for index, field in enumerate(fields) if field[0] == b"cookie")
    joined = [field for field in fields if field[0] != b"cookie"]
    joined.insert(first, (b"cookie", b"; ".join(crumbs)))
    return joined


def text_pairs(fields: Lines) -> list[tuple[str, str]]:
    """Regular fields as text; pseudo-header fields are left out."""
    return [
        (name.decode("ascii"), value.decode("latin-1"))
        for name, value in fields
        if not name.startswith(b":")
    ]


def octet_pairs(pairs: Pairs) -> Fields:
    """(name, value) pairs of text as a field section has them: octets, names in lower case.

    Raises UnicodeEncodeError for what no field can hold.
    """
    # RFC 9113 §8.2 [field-name-lowered]
    return [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in pairs]


def request_fault(fields: Lines) -> str | None:
    """Why a request's header section is malformed; None: it is well-formed."""
    fault, pseudo = _split(fields, _REQUEST_PSEUDO)
    if fault:
        return fault
    method = pseudo.get(b":method", b"")
    # RFC 9113 §8.3.1 [request-pseudo]
    if not method:
        return ":method is missing or empty"
    # RFC 9113 §8.3.1 [method-token]
    if method.translate(None, _TOKEN_OCTETS):
        return f":method of {method!r}"
    authority = pseudo.get(b":authority")
    if authority is not None:
        fault = _authority_fault(authority, fields)
        if fault:
            return fault
    if method == b"CONNECT":
        # RFC 9113 §8.5 [connect-pseudo]
        if authority is None or len(pseudo) != 2:
            return "CONNECT takes :method and :authority alone"
        host, _, port = authority.rpartition(b":")
        if not host or not port.isdigit():
            return f":authority of {authority!r} for CONNECT, want host:port"
        return None
    scheme = pseudo.get(b":scheme")
    if not scheme:
        return ":scheme is missing or empty"
    path = pseudo.get(b":path")
    if not path:
        return ":path is missing or empty"
    # RFC 9113 §8.3.1 [request-values]
    if not scheme[:1].isalpha() or scheme.translate(None, _SCHEME_OCTETS):
        return f":scheme of {scheme!r}"
    if len(path.translate(None, _PATH_FORBIDDEN)) != len(path):
        return f":path of {path!r}"
    # RFC 9113 §8.3.1 [path-form], [options-asterisk]
    if scheme.lower() in (b"http", b"https") and path[:1] != b"/" and (
        (method, path) != (b"OPTIONS", b"*")
    ):
        return f":path of {path!r}"
    return None


def _authority_fault(authority: bytes, fields: Lines) -> str | None:
    # RFC 9113 §8.3.1 [authority-no-userinfo], [authority-not-empty], [request-values]
    if (
        not authority
        or b"@" in authority
        or len(authority.translate(None, _AUTHORITY_FORBIDDEN)) != len(authority)
    ):
        return f":authority of {authority!r}"
    for name, value in fields:
        # RFC 9113 §8.3.1 [host-differs], [host-differs-sent], [host-not-used]
        if name == b"host" and value.lower() != authority.lower():
            return f"host {value!r} differs from :authority {authority!r}"
    return None


def response_fault(fields: Lines) -> str | None:
    """Why a response's header section is malformed; None: it is well-formed."""
    fault, pseudo = _split(fields, _RESPONSE_PSEUDO)
    if fault:
        return fault
    status = pseudo.get(b":status", b"")
    # RFC 9113 §8.3.2 [response-status]
    if len(status) != 3 or not status.isdigit() or status < b"100":
        return f":status of {status!r}"
    # RFC 9113 §8.6 [no-101]
    if status == b"101":
        return ":status 101 does not exist in HTTP/2"
    return None


def trailers_fault(fields: Lines) -> str | None:
    """Why a trailer section is malformed; None: it is well-formed."""
    # RFC 9113 §8.1 [trailers-no-pseudo]
    return _split(fields, frozenset())[0]


def _split(
    fields: Lines, allowed: frozenset[bytes]
) -> tuple[str | None, dict[bytes, bytes]]:
    """The first fault of a field section, and its pseudo-header fields."""
    pseudo: dict[bytes, bytes] = {}
    regular = length_seen = False
    for name, value in fields:
        if name[:1] == b":":
            # RFC 9113 §8.3 [pseudo-unknown], [pseudo-repeated], [pseudo-late]
            if name not in allowed:
                return f"pseudo-header field {name!r} does not belong here", pseudo
            if name in pseudo:
                return f"pseudo-header field {name!r} comes twice", pseudo
            if regular:
                return f"pseudo-header field {name!r} comes after a regular one", pseudo
            pseudo[name] = value
        else:
            regular = True
            fault = _name_fault(name, value)
            if fault:
                return fault, pseudo
            if name == b"content-length":
                # RFC 9113 §8.1.1 [content-length-valid]
                if length_seen or not value.isdigit() or len(value) > 18:
                    return f"content-length of {value!r}", pseudo
                length_seen = True
        # RFC 9113 §8.2.1 [field-value]
        if len(value.translate(None, _VALUE_FORBIDDEN)) != len(value):
            return f"value of {name!r} holds a forbidden octet", pseudo
        if value[:1] in _BLANK or value[-1:] in _BLANK:
            return f"value of {name!r} begins or ends with white space", pseudo
    return None, pseudo


_BLANK = frozenset((b" ", b"\t"))


def _name_fault(name: bytes, value: bytes) -> str | None:
    # RFC 9113 §8.2.1 [field-name], §8.2 [field-name-lowercase]
    if not name or name.translate(None, _NAME_OCTETS):
        return f"field name {name!r} holds a forbidden octet"
    # RFC 9113 §8.2.2 [connection-specific]
    if name in CONNECTION_SPECIFIC:
        return f"field {name!r} belongs to HTTP/1.1"
    # RFC 9113 §8.2.2 [te-trailers]
    if name == b"te" and value.lower() != b"trailers":
        return f"te of {value!r}, only 'trailers' may be sent"
    return None
