"""One request on its way through a pool, and what has come of it.

A record: the pool writes it, whoever made the request reads it.  It decides nothing.
"""

from __future__ import annotations

import math
from collections import deque

from .body import BODY_QUEUED_OCTETS, Pieces
from .fields import Section
from .retry import RETRIES_MAX
from .timeout import NO_LIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .errors import H2liteError
    from .events import Fields
    from .frames import Octets
    from .origin import Origin
    from .stream import Stream
    from .timeout import Timeout


class Call:
    """A request and its response.

    origin       whom it is for
    fields       as `Connection.send_request` takes them, pseudo-header fields first
    content      all of the request's content; None: `Pool.send_content` gives it in pieces
    rewindable   content in pieces can be given again from its start
    idempotent   a lost PUT or DELETE may be repeated
    deadline     the whole exchange ends by then; None: never
    limits       `Timeout` of its steps; `total` is not looked at, `deadline` says it
    pinned       the one connection that may serve it, None: any
    retries_max  repetitions at most; the pool has a limit of its own

    status, response_fields    of the final response, 0 and [] before
    interim                    (status, fields) of each 1xx response before it
    chunks                     the response's content that nobody has taken yet
    response_trailers          complete once `ended`
    ended                      the response is complete
    error                      why there is none, or no more of it
    retries                    repetitions so far; moves of what had not left are none
    """

    __slots__ = (
        "origin",
        "section",
        "method",
        "content",
        "rewindable",
        "idempotent",
        "deadline",
        "limits",
        "pinned",
        "retries_max",
        "status",
        "response_fields",
        "interim",
        "chunks",
        "response_trailers",
        "ended",
        "error",
        "retries",
        "number",
        "site",
        "member",
        "stream",
        "sent_at",
        "progress_at",
        "maybe_processed",
        "avoid",
        "misdirected",
        "retry_at",
        "connect_due",
        "room_due",
        "renewed",
        "armed",
        "pieces",
        "given",
        "content_ended",
        "trailers",
    )

    def __init__(
        self,
        origin: Origin,
        fields: Fields | Section,
        content: bytes | None = b"",
        *,
        rewindable: bool = False,
        idempotent: bool = False,
        deadline: float | None = None,
        limits: Timeout = NO_LIMITS,
        pinned: Any = None,
        retries_max: int = RETRIES_MAX,
    ) -> None:
        self.origin = origin
        self.section = fields if isinstance(fields, Section) else Section(fields)
        lines = self.section.fields
        self.method = next((value for name, value in lines if name == b":method"), b"")
        self.content = content
        self.rewindable = rewindable
        self.idempotent = idempotent
        self.deadline = deadline
        self.limits = limits
        self.pinned = pinned
        self.retries_max = retries_max
        self.retries = 0
        self.number = 0  # the pool's, in the order requests were made
        self.site: Any = None  # what the pool knows of the origin
        self.avoid: Any = None  # the connection that said 421
        self.misdirected = False  # one has said so
        self.maybe_processed = False  # an attempt that is over may have been acted on
        self.error: H2liteError | None = None
        self.ended = False
        self.response_trailers: Fields = []
        self.chunks = Pieces()
        self.forget_response()
        self.connect_due: float | None = None  # waits for a dial no longer than this
        self.room_due: float | None = None  # waits for room no longer than this
        self.renewed = False  # which was put off once, for a standstill of our own
        self.retry_at: float | None = None  # waits to be repeated
        self.armed: float | None = None  # its instant in the timers, none of its own is earlier
        # Content in pieces: those that no stream has taken, whether any was given, the end.
        self.pieces: deque[Octets] = deque()
        self.given = False
        self.content_ended = content is not None
        self.trailers: Fields | None = None
        self.leave()

    def leave(self) -> None:
        """It is on no connection (any more)."""
        self.member: Any = None
        self.stream: Stream | None = None
        self.sent_at: float | None = None  # its HEADERS were encoded and given to the socket
        self.progress_at = 0.0  # something of it was sent, came or was asked for

    def forget_response(self) -> None:
        """What has come so far is not the answer."""
        self.status = 0
        self.response_fields: Fields = []
        self.interim: list[tuple[int, Fields]] = []
        self.chunks.clear()

    def may_use(self, member: Any) -> bool:
        """A connection that is not ruled out: it said 421, or another one is asked for."""
        return member is not self.avoid and self.pinned in (None, member)

    @property
    def over(self) -> bool:
        """Nothing more will come of it."""
        return self.ended or self.error is not None

    @property
    def begun(self) -> bool:
        """Something of a response has come."""
        return bool(self.status or self.interim)

    @property
    def replayable(self) -> bool:
        """The request can be sent again from its start."""
        return self.content is not None or self.rewindable or not self.given

    @property
    def wants_content(self) -> bool:
        """Content in pieces runs low: give more.  Nothing tells of it, so ask after every turn."""
        stream = self.stream
        runs_low = stream is not None and stream.queued_octets < BODY_QUEUED_OCTETS
        return runs_low and not self.content_ended and not self.over

    @property
    def step_s(self) -> float:
        """Seconds that the next step has at least; inf: no step has a limit."""
        read, write = self.limits.read, self.limits.write
        if read is None or (write is not None and write < read):
            read = write
        return math.inf if read is None else read

    def next_deadline(self) -> float | None:
        """When something of it is to be judged.

        Progress puts that off without a word, so ask again before acting on it.
        """
        waits = (self.deadline, self.connect_due, self.room_due, self.retry_at, self.step_due)
        due = [at for at in waits if at is not None]
        return min(due) if due else None

    @property
    def step_due(self) -> float | None:
        """When the peer will have taken too long for the step at hand; None: nothing to judge."""
        stream = self.stream
        if self.sent_at is None or stream is None or self.over:
            return None
        if stream.queued_octets:
            limit = self.limits.write
        elif (self.content_ended or self.begun) and not self.chunks:
            limit = self.limits.read
        else:  # its own side is to give content, or to read some
            return None
        return None if limit is None else max(self.progress_at, stream.sent_at) + limit
