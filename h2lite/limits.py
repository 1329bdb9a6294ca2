"""What a peer may make us keep, do and wait for, in numbers.

Numbers only: each is judged by whoever keeps what it bounds, connection.py for both roles,
http1.py for responses, server.py for what a server alone has.  Grounds: RFC 9113 §10.5, and
the attacks of the years since, which SECURITY.md names.
"""

from __future__ import annotations

from .errors import UsageError
from .value import Value

RESETS_PERIOD_S = 10.0  # what `Limits.resets` is counted in


class Limits(Value):
    """How much is borne of one peer; a server's, of all together where it says so.

    Counts are whole numbers from 1, times are seconds above 0, math.inf for no limit.

    Of both roles:
    field_section_octets   of one field section, decoded, and of its block: no honest one is larger
    continuations          CONTINUATION frames a field block: five hold 64 KiB
    empty_continuations    of them empty, in a row: they carry nothing
    settings_entries       settings a SETTINGS frame: there are a dozen
    answers_queued         acks and resets that wait for a peer which does not read them
    chatter                frames that move no message (PRIORITY, SETTINGS, GOAWAY, unknown ones,
                           PINGs beside ten others, WINDOW_UPDATE beyond ten for each DATA frame
                           or stream); honest peers send a few a second
    chatter_per_s          how many of them are forgiven each second
    empty_data             DATA frames in a row with neither content nor an end
    interim_responses      1xx before the final response: nobody has use for more
    stream_octets          unread on one stream: its window
    unread_octets          unread on one connection; past this only reading gives credit
    settings_timeout       silence until our SETTINGS are acknowledged
    field_block_timeout    for half a field block to become whole

    Of a server:
    streams                at once on one connection, and requests its handler is at work on: the
                           least that RFC 9113 §6.5.2 advises
    resets                 requests cut short within 10 s, by the client or through its fault
    request_octets         of one request's content that is handed over whole
    kept_octets            of all requests and responses of all clients: fields, unread content,
                           what is unsent.  Past it a request is refused of a client that has much
                           kept for long, and who has something unsent is answered no more
    queued_octets          unsent of the bodies of one connection: past this one is asked for more
                           only when that can leave at once; so it is past `kept_octets`
    connections            at once; further ones are closed at accept
    preface_timeout        for a client's preface and SETTINGS
    handshake_timeout      for TLS
    request_timeout        for a request's content that is handed over whole
    stall_timeout          for who neither takes what waits for it nor sends what it has begun
    stall_octets           that a reader must take in `stall_timeout`, so as not to be one of those
    idle_timeout           without an open stream

    Raises UsageError for what is no such number.
    """

    __slots__ = (
        "field_section_octets",
        "continuations",
        "empty_continuations",
        "settings_entries",
        "answers_queued",
        "chatter",
        "chatter_per_s",
        "empty_data",
        "interim_responses",
        "stream_octets",
        "unread_octets",
        "settings_timeout",
        "field_block_timeout",
        "streams",
        "resets",
        "request_octets",
        "kept_octets",
        "queued_octets",
        "connections",
        "preface_timeout",
        "handshake_timeout",
        "request_timeout",
        "stall_timeout",
        "stall_octets",
        "idle_timeout",
    )

    def __init__(
        self,
        *,
        field_section_octets: int = 65536,
        continuations: int = 16,
        empty_continuations: int = 2,
        settings_entries: int = 100,
        answers_queued: int = 1000,
        chatter: int = 2000,
        chatter_per_s: int = 200,
        empty_data: int = 100,
        interim_responses: int = 32,
        stream_octets: int = 2**20,
        unread_octets: int = 2**24,
        settings_timeout: float = 30.0,
        field_block_timeout: float = 10.0,
        streams: int = 100,
        resets: int = 200,
        request_octets: int = 2**20,
        kept_octets: int = 2**25,
        queued_octets: int = 2**20,
        connections: int = 1000,
        preface_timeout: float = 10.0,
        handshake_timeout: float = 10.0,
        request_timeout: float = 60.0,
        stall_timeout: float = 60.0,
        stall_octets: int = 1024,
        idle_timeout: float = 60.0,
    ) -> None:
        self.field_section_octets = field_section_octets
        self.continuations = continuations
        self.empty_continuations = empty_continuations
        self.settings_entries = settings_entries
        self.answers_queued = answers_queued
        self.chatter = chatter
        self.chatter_per_s = chatter_per_s
        self.empty_data = empty_data
        self.interim_responses = interim_responses
        self.stream_octets = stream_octets
        self.unread_octets = unread_octets
        self.settings_timeout = settings_timeout
        self.field_block_timeout = field_block_timeout
        self.streams = streams
        self.resets = resets
        self.request_octets = request_octets
        self.kept_octets = kept_octets
        self.queued_octets = queued_octets
        self.connections = connections
        self.preface_timeout = preface_timeout
        self.handshake_timeout = handshake_timeout
        self.request_timeout = request_timeout
        self.stall_timeout = stall_timeout
        self.stall_octets = stall_octets
        self.idle_timeout = idle_timeout
        for name in self.slots():
            check = _check_time if name.endswith("_timeout") else _check_count
            check(name, getattr(self, name))


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
        raise UsageError(f"{name} of {value!r}, want a whole number from 1 to 2^31-1")


def _check_time(name: str, value: object) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not value > 0:  # type: ignore[operator]
        raise UsageError(f"{name} of {value!r}, want seconds above 0, or inf for no limit")


def limits_from(pairs: list[str]) -> Limits:
    """Limits from NAME=VALUE texts, as a command line gives them; the others as they are.

    Raises UsageError for a name that is none, and for a value that cannot be.
    """
    values: dict[str, float] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        if name not in Limits.slots():
            raise UsageError(f"no limit is called {name!r}; there are: {', '.join(Limits.slots())}")
        try:
            values[name] = float(text) if name.endswith("_timeout") else int(text)
        except ValueError:
            kind = "seconds" if name.endswith("_timeout") else "a whole number"
            raise UsageError(f"{name} of {text!r}, want {kind}") from None
    return Limits(**values)  # type: ignore[arg-type]


DEFAULT_LIMITS = Limits()

