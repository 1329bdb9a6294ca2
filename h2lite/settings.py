"""SETTINGS: identifiers, defaults and bounds; what we asked, and what the peer asked.

Values only: no frames, no streams.  connection.py applies what changes here to windows, to
HPACK's tables and to the framer.  Grounds: RFC 9113 §6.5.
"""

from __future__ import annotations

from functools import lru_cache

from .errors import ErrorCode, PeerError, UsageError
from .value import NOTHING

MAX_WINDOW_SIZE = 2**31 - 1
MIN_MAX_FRAME_SIZE = 2**14
MAX_MAX_FRAME_SIZE = 2**24 - 1
UNLIMITED = 2**32 - 1  # where the RFC says "no limit": the largest value a setting can hold

# SETTINGS frames sent and not yet acknowledged; a peer that falls further behind is not reading.
SETTINGS_UNACKED_MAX = 16


class SettingId:
    """Setting identifiers (RFC 9113 §6.5.2)."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6


SETTING_NAMES = {key: name for name, key in vars(SettingId).items() if name.isupper()}

# RFC 9113 §6.5.2 [settings-initial-values], §6.5 [settings-supported]
INITIAL_VALUES = {
    SettingId.HEADER_TABLE_SIZE: 4096,
    SettingId.ENABLE_PUSH: 1,
    SettingId.MAX_CONCURRENT_STREAMS: UNLIMITED,
    SettingId.INITIAL_WINDOW_SIZE: 65535,
    SettingId.MAX_FRAME_SIZE: MIN_MAX_FRAME_SIZE,
    SettingId.MAX_HEADER_LIST_SIZE: UNLIMITED,
}


# The same by identifier; there is no setting 0.
_INITIAL = tuple(INITIAL_VALUES.get(number, 0) for number in range(max(INITIAL_VALUES) + 1))


@lru_cache(maxsize=64)
def _shared(values: tuple[int, ...]) -> tuple[int, ...]:
    """The same values, which most connections of a process have, as one object."""
    return values


def setting_name(identifier: int) -> str:
    """The RFC's name without SETTINGS_; an unknown identifier is shown as hexadecimal."""
    return SETTING_NAMES.get(identifier, f"0x{identifier:x}")


def check_setting(identifier: int, value: int, from_server: bool) -> None:
    """Judge one setting received; unknown identifiers pass.

    Raises PeerError, always a connection error.  Source: RFC 9113 §6.5.2.
    """
    if identifier == SettingId.ENABLE_PUSH:
        # RFC 9113 §6.5.2 [enable-push-range], [enable-push-server]
        if value > 1 or (value and from_server):
            raise PeerError(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH of {value}")
    elif identifier == SettingId.INITIAL_WINDOW_SIZE:
        # RFC 9113 §6.5.2 [initial-window-range]
        if value > MAX_WINDOW_SIZE:
            raise PeerError(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE of {value}")
    # RFC 9113 §6.5.2 [max-frame-size-range]
    elif identifier == SettingId.MAX_FRAME_SIZE and not (
        MIN_MAX_FRAME_SIZE <= value <= MAX_MAX_FRAME_SIZE
    ):
        raise PeerError(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE of {value}")


class PeerSettings(list[int]):
    """What the peer has asked of us, by identifier; in force from the moment it is received.

    `receive` alone changes it.  A list, since each stream looks four of them up: a method of our
    own for that cost a microsecond a request, and a dict takes twice the memory.
    """

    __slots__ = ("_from_server",)

    def __init__(self, from_server: bool) -> None:
        super().__init__(_INITIAL)
        self._from_server = from_server

    def receive(self, settings: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
        """Take one SETTINGS frame; return its changes of known settings, in order.

        A setting that comes twice may stand there twice: HPACK has to know the lowest value
        its table went through (RFC 7541 §4.2).
        Raises PeerError at the first value out of bounds; the connection is over then.
        """
        changes = []
        # RFC 9113 §6.5.3 [settings-in-order]
        for identifier, value in settings:
            check_setting(identifier, value, self._from_server)
            # RFC 9113 §6.5.2 [unknown-setting]
            if identifier in INITIAL_VALUES and self[identifier] != value:
                self[identifier] = value
                changes.append((identifier, value))
        return changes


class LocalSettings:
    """What we ask of the peer: in force once acknowledged, oldest SETTINGS first."""

    __slots__ = ("_of_server", "_values", "_unacked")

    def __init__(self, of_server: bool) -> None:
        self._of_server = of_server
        self._values = _INITIAL
        self._unacked: list[tuple[tuple[int, int], ...]] = NOTHING

    def __getitem__(self, identifier: int) -> int:
        """The value the peer has acknowledged."""
        return self._values[identifier]

    @property
    def unacked(self) -> int:
        """SETTINGS frames sent and not yet acknowledged."""
        return len(self._unacked)

    def sent(self, settings: tuple[tuple[int, int], ...]) -> None:
        """Remember one SETTINGS frame until its ack.

        Raises UsageError for a value the RFC forbids, or when SETTINGS_UNACKED_MAX wait.
        """
        if len(self._unacked) >= SETTINGS_UNACKED_MAX:
            raise UsageError(f"{SETTINGS_UNACKED_MAX} SETTINGS frames await their ack")
        for identifier, value in settings:
            # RFC 9113 §6.5.1: 16 and 32 bits.
            if not 0 <= identifier < 2**16 or not 0 <= value < 2**32:
                raise UsageError(f"setting {identifier}={value} does not fit its frame")
            # RFC 9113 §4.2 [frame-size-minimum]
            try:
                check_setting(identifier, value, self._of_server)
            except PeerError as error:
                raise UsageError(f"{error.message} is out of bounds") from None
        self._unacked = [*self._unacked, settings]

    def acked(self) -> dict[int, int]:
        """Put the oldest SETTINGS frame in force; return what changed, with the values before.

        Raises PeerError when none awaits an ack.
        """
        # RFC 9113 §6.5.3 [settings-ack-order]
        if not self._unacked:
            raise PeerError(ErrorCode.PROTOCOL_ERROR, "SETTINGS ack without SETTINGS")
        before, values = self._values, [*self._values]
        oldest, *others = self._unacked
        self._unacked = others or NOTHING
        for identifier, value in oldest:
            if identifier in INITIAL_VALUES:
                values[identifier] = value
        self._values = _shared(tuple(values))
        return {key: before[key] for key in INITIAL_VALUES if before[key] != values[key]}

    def announced(self, identifier: int) -> int:
        """The value we asked for last, acknowledged or not."""
        sent = [value for frame in self._unacked for key, value in frame if key == identifier]
        return sent[-1] if sent else self._values[identifier]

    def largest(self, identifier: int) -> int:
        """The largest value the peer may be using: the acknowledged one, or one on its way."""
        sent = [value for frame in self._unacked for key, value in frame if key == identifier]
        return max(self._values[identifier], *sent, 0)
