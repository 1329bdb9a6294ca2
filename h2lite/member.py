"""The pool's records: one connection, one PING, one origin.

Facts and the questions that follow from them; `pool.py` decides.
"""

from __future__ import annotations

from collections import deque

from .health import DEAD, SUSPECT
from .memo import NO_MEMO
from .retry import Backoff, Bucket
from .settings import SettingId
from .value import NO_ENTRIES, NOTHING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .call import Call
    from .connection import Connection
    from .errors import H2liteError
    from .health import Health, HealthPolicy
    from .http1 import Http1Connection
    from .origin import Origin


class Ping:
    """A PING that somebody asked for, and its answer.

    rtt_s        seconds there and back, None before
    queued_s     seconds before it could leave
    rescued_by   what came first after it was asked for, where that was not its ack, else ""
    error        why there is no answer
    over         there is one, or there will be none
    """

    __slots__ = (
        "over",
        "member",
        "opaque_data",
        "deadline",
        "timeout_s",
        "rtt_s",
        "queued_s",
        "rescued_by",
        "error",
    )

    def __init__(self, member: Member, timeout_s: float, now: float) -> None:
        self.member = member
        self.opaque_data = b""
        self.timeout_s = timeout_s
        self.deadline = now + timeout_s
        self.rtt_s: float | None = None
        self.queued_s = 0.0
        self.rescued_by = ""
        self.error: H2liteError | None = None
        self.over = False

    def fail(self, error: H2liteError) -> None:
        """There will be no answer."""
        self.error = error
        self.over = True


class Member:
    """One connection of the pool.

    number       in the order of dials, from 1
    connection   the sans-IO `Connection`
    health       its `Health`
    send         the pool's order to send what it has; one for all times
    link         what carries it, None where nothing does: the driver's
    draining     takes no new requests: a GOAWAY or RST_STREAM PROTOCOL_ERROR came, or its stream
                 identifiers are used up
    address      of the peer as text, "" until it is reached
    protocol     "h2", "h2c" or "http/1.1", "" until it is reached
    tls_version  "TLSv1.3" and the like, None in cleartext
    error        why it ended
    """

    __slots__ = (
        "site",
        "number",
        "connection",
        "health",
        "send",
        "link",
        "draining",
        "address",
        "protocol",
        "tls_version",
        "error",
        "state",
        "calls",
        "unsent",
        "pings",
        "probe",
        "late_probe",
        "held",
        "answered",
        "loss_judged",
        "ready_at",
        "unused_since",
        "armed",
        "pings_since_message",
        "_salt",
        "_ping_count",
    )

    def __init__(
        self, site: Site, number: int, connection: Connection, health: Health, salt: int
    ) -> None:
        self.site = site
        self.number = number
        self.connection: Connection | Http1Connection = connection
        self.health = health
        self.send: Any = None
        self.link: Any = None
        self.draining = False
        self.address = ""
        self.protocol = ""
        self.tls_version: str | None = None
        self.error: H2liteError | None = None
        self.state = health.state  # as it was last told
        self.calls: dict[int, Call] = NO_ENTRIES  # by stream, those whose HEADERS are encoded
        self.unsent: deque[Call] = NOTHING  # given to the connection, in its order
        self.pings: dict[bytes, Ping] = NO_ENTRIES
        self.probe = b""  # the health probe's value, b"": none is out
        self.late_probe = b""  # of a probe that other octets have ended, its ack still to come
        self.held = 0  # slots of streams that were cancelled while a probe was out
        self.answered = False  # it gave a response
        self.loss_judged = False  # what its loss means for the next dial is settled
        self.ready_at: float | None = None
        self.unused_since: float | None = None
        self.armed: float | None = None  # its earliest instant in the timers
        self.pings_since_message = 0
        self._salt = salt.to_bytes(4, "big")
        self._ping_count = 0

    @property
    def origin(self) -> Origin:
        return self.site.origin

    @property
    def is_up(self) -> bool:
        """The peer's SETTINGS have come."""
        return self.ready_at is not None

    def give(self, call: Call) -> None:
        """The call's stream has been queued on the connection."""
        if not self.unsent:
            self.unsent = deque()
        self.unsent.append(call)

    def take_sent(self) -> Call | None:
        """The next call whose HEADERS have left, once; it stands in `calls` from now on."""
        unsent = self.unsent
        if not unsent or not unsent[0].stream.stream_id:  # type: ignore[union-attr]
            return None
        call = unsent.popleft()
        if not unsent:
            self.unsent = NOTHING
        if not self.calls:
            self.calls = {}
        self.calls[call.stream.stream_id] = call  # type: ignore[union-attr]
        return call

    def __str__(self) -> str:
        origin = str(self.origin)
        return f"{origin} ({self.address})" if self.address not in ("", origin) else origin

    def __repr__(self) -> str:
        return f"<connection {self.number} to {self.origin}>"

    @property
    def takes_requests(self) -> bool:
        """It is routed to, or will be once it is up."""
        usable = not self.draining and self.connection.takes_requests and not self.is_abandoned
        return usable and self.health.state not in (SUSPECT, DEAD)

    @property
    def is_abandoned(self) -> bool:
        """All its slots are held by streams that were cancelled without a sign of life."""
        return self.held > 0 and self.held >= self._streams_max

    @property
    def room(self) -> int:
        """How many more requests could leave now."""
        if self.connection.reading_paused:  # nobody would read their responses
            return 0
        return self._streams_max - self.held - len(self.connection.streams) - len(self.unsent)

    @property
    def _streams_max(self) -> int:
        return self.connection.peer_settings[SettingId.MAX_CONCURRENT_STREAMS]

    def next_opaque(self) -> bytes:
        """Eight octets not used before on this connection, and not easily met by chance."""
        self._ping_count += 1
        return self._salt + self._ping_count.to_bytes(4, "big")

    def is_own(self, opaque_data: bytes) -> bool:
        """We have sent a PING with this value."""
        count = int.from_bytes(opaque_data[4:], "big")
        return opaque_data[:4] == self._salt and 0 < count <= self._ping_count


class Site:
    """What the pool knows of one origin: its connections, who waits, when it may be dialled."""

    __slots__ = (
        "origin",
        "policy",
        "members",
        "calls",
        "queue",
        "waited_for",
        "backoff",
        "bucket",
        "last_error",
        "is_http1",
        "asked",
    )

    def __init__(self, origin: Origin, policy: HealthPolicy, backoff: Backoff, now: float) -> None:
        self.origin = origin
        self.policy = policy
        self.members: list[Member] = []
        self.calls: dict[Call, None] = {}  # all that are not over
        self.queue: list[Call] = []  # of those, who wait for a connection, in their order
        self.waited_for = False  # the queue was not empty when its connections were last told
        self.backoff = backoff
        self.bucket = Bucket(now)
        self.last_error: H2liteError | None = None  # of the last dial
        self.asked = NO_MEMO  # request sections by what was asked, while a connection lives
        self.is_http1 = False  # its connections speak HTTP/1.1, a request at a time

    def serves(self, call: Call) -> bool:
        """A connection is up that takes the request, though perhaps not at once."""
        return any(m.takes_requests and m.is_up and call.may_use(m) for m in self.members)
