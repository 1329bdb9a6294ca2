"""Field sections: HPACK by the hpack package, and what a well-formed message may hold.

The only importer of hpack, and only when the first field block needs it: a connection that
merely pings never loads it.  Grounds: RFC 9113 §4.3, §8.2, §8.3; RFC 7541.
"""

from __future__ import annotations

from .errors import ErrorCode, PeerError
from .settings import INITIAL_VALUES, SettingId

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hpack import Decoder, Encoder

    from .events import Fields

HEADER_TABLE_SIZE_MAX = INITIAL_VALUES[SettingId.HEADER_TABLE_SIZE]  # more costs memory per peer
FIELD_SECTION_OCTETS_MAX = 65536  # decoded, 32 octets a line included: no honest one is larger

# Values that must not be guessable from the sizes of later blocks (RFC 7541 §7.1.3).
_NEVER_INDEXED = frozenset((b"authorization", b"proxy-authorization"))

# RFC 9110 §5.6.2 (token) without upper case, and §5.5 (field value): what may not appear.
_NAME_OCTETS = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
_VALUE_FORBIDDEN = bytes([*range(9), *range(10, 32), 127])

_CONNECTION_SPECIFIC = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
_REQUEST_PSEUDO = frozenset((b":method", b":scheme", b":authority", b":path"))
_RESPONSE_PSEUDO = frozenset((b":status",))


class FieldEncoder:
    """Field sections to field blocks; one per connection, since its table has a history."""

    __slots__ = ("_encoder", "_table_size", "_smallest_size")

    def __init__(self) -> None:
        self._encoder: Encoder | None = None
        self._table_size = HEADER_TABLE_SIZE_MAX
        self._smallest_size = HEADER_TABLE_SIZE_MAX  # since the last block

    def set_table_size(self, octets: int) -> None:
        """The peer's HEADER_TABLE_SIZE; we never use more than HEADER_TABLE_SIZE_MAX."""
        self._table_size = min(octets, HEADER_TABLE_SIZE_MAX)
        self._smallest_size = min(self._smallest_size, self._table_size)

    def encode(self, fields: Fields) -> bytes:
        """One field block.  It has changed the table: it must be sent, or the connection closed."""
        if self._encoder is None:
            from hpack import Encoder

            self._encoder = Encoder()
        # RFC 9113 §4.3.1 [table-size-update]: hpack opens the block with each size it was given,
        # but takes the same one given twice for no change at all.
        for octets in (self._smallest_size, self._table_size):
            if octets != self._encoder.header_table_size:
                self._encoder.header_table_size = octets
        self._smallest_size = self._table_size
        return self._encoder.encode(
            [(name, value, name in _NEVER_INDEXED) for name, value in fields]
        )


class FieldDecoder:
    """Field blocks to field sections; every block must pass through, even an unwanted one."""

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder: Decoder | None = None

    def decode(self, block: bytes) -> Fields:
        """The (name, value) pairs in order.

        Raises PeerError, always a connection error: after it the tables no longer agree.
        """
        if self._decoder is None:
            from hpack import Decoder

            self._decoder = Decoder(max_header_list_size=FIELD_SECTION_OCTETS_MAX)
        from hpack import HPACKError, OversizedHeaderListError

        try:
            return [(name, value) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError:
            raise PeerError(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"field section over {FIELD_SECTION_OCTETS_MAX} octets",
            ) from None
        except HPACKError as error:
            # RFC 9113 §4.3 [decoding-error]
            raise PeerError(
                ErrorCode.COMPRESSION_ERROR, f"field block does not decode: {error}"
            ) from None


def request_fault(fields: Fields) -> str | None:
    """Why a request's header section is malformed; None: it is well-formed."""
    fault, pseudo = _split(fields, _REQUEST_PSEUDO)
    if fault:
        return fault
    if pseudo.get(b":method") == b"CONNECT":
        # RFC 9113 §8.5 [connect-pseudo]
        if set(pseudo) != {b":method", b":authority"}:
            return "CONNECT takes :method and :authority alone"
        return None
    # RFC 9113 §8.3.1 [request-pseudo]
    for name in (b":method", b":scheme", b":path"):
        if not pseudo.get(name):
            return f"{name.decode()} is missing or empty"
    return None


def response_fault(fields: Fields) -> str | None:
    """Why a response's header section is malformed; None: it is well-formed."""
    fault, pseudo = _split(fields, _RESPONSE_PSEUDO)
    if fault:
        return fault
    status = pseudo.get(b":status", b"")
    # RFC 9113 §8.3.2 [response-status]
    if len(status) != 3 or not status.isdigit() or not b"100" <= status <= b"599":
        return f":status of {status!r}"
    # RFC 9113 §8.6 [no-101]
    if status == b"101":
        return ":status 101 does not exist in HTTP/2"
    return None


def trailers_fault(fields: Fields) -> str | None:
    """Why a trailer section is malformed; None: it is well-formed."""
    # RFC 9113 §8.1 [trailers-no-pseudo]
    return _split(fields, frozenset())[0]


def _split(
    fields: Fields, allowed: frozenset[bytes]
) -> tuple[str | None, dict[bytes, bytes]]:
    """The first fault of a field section, and its pseudo-header fields."""
    pseudo: dict[bytes, bytes] = {}
    regular = False
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
    if name in _CONNECTION_SPECIFIC:
        return f"field {name!r} belongs to HTTP/1.1"
    # RFC 9113 §8.2.2 [te-trailers]
    if name == b"te" and value != b"trailers":
        return f"te of {value!r}, only 'trailers' may be sent"
    return None
