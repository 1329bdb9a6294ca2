"""One request and its reply, as a handler sees them, and the steps that lead from one to the other.

User code runs here and only here: the handler, then its reply's body piece by piece, each step
where the server says, in its own thread or in a worker.  No sockets, no frames.
"""

from __future__ import annotations

import math
import sys

from .body import Pieces, next_piece
from .fields import Section, join_cookies, octet_pairs, section_size, text_pairs
from .loop import Source
from .memo import Memo
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from typing_extensions import Self

    from .events import Fields
    from .fields import Pairs
    from .frames import Octets
    from .loop import Link
    from .stream import Stream


LINE_OCTETS = 200  # that a field line takes beside what it is counted as: it is kept as text, too
AGE_S_MAX = 10.0  # of a request, where hoarders are looked for: some are meant to last


class Request(Value):
    """What a client asked.

    method, scheme, authority, path   as text; path includes the query
    headers                           regular fields as (name, value) pairs of text
    trailers                          the same, a list that is filled when the content has ended
    body                              the content, whole; b"" where it comes as `content`
    content                           `Content` where the server was told to stream it, else None
    address                           the client's address and port as text
    """

    __slots__ = (
        "method",
        "scheme",
        "authority",
        "path",
        "headers",
        "trailers",
        "body",
        "content",
        "address",
    )

    def __init__(self, fields: Fields, body: bytes, address: str) -> None:
        pseudo = dict(field for field in fields if field[0].startswith(b":"))
        self.method = pseudo[b":method"].decode("latin-1")
        self.scheme = pseudo.get(b":scheme", b"").decode("latin-1")
        self.authority = pseudo.get(b":authority", b"").decode("latin-1")
        self.path = pseudo.get(b":path", b"").decode("latin-1")
        self.headers = text_pairs(join_cookies(fields))
        self.trailers: list[tuple[str, str]] = []
        self.body = body
        self.content: Content | None = None
        self.address = address

    def again(self) -> Request:
        """The same, asked once more."""
        request = object.__new__(Request)
        request.method = self.method
        request.scheme = self.scheme
        request.authority = self.authority
        request.path = self.path
        request.headers = [*self.headers]
        request.trailers = []
        request.body = b""
        request.content = None
        request.address = self.address
        return request


class Reply(Value):
    """What to answer.

    body       octets, a file open for reading octets (closed afterwards), or an iterator of octets
    headers    (name, value) pairs of text; content-length is added for octets
    trailers   the same, read when the body has ended: its iterator may fill the list it gave
    delay      seconds to wait before anything of it is sent

    An iterator is asked for its next piece when the client has taken most of those before.  One
    that has nothing yet yields b"": it is asked again when more of the request has come, or
    after a short while.
    """

    __slots__ = ("status", "body", "headers", "trailers", "delay")

    def __init__(
        self,
        status: int = 200,
        body: bytes | BinaryIO | Iterator[bytes] = b"",
        headers: Pairs = (),
        trailers: Pairs = (),
        delay: float = 0.0,
    ) -> None:
        self.status = status
        self.body = body
        self.headers = headers
        self.trailers = trailers
        self.delay = delay


class Content:
    """A request's content while it comes: an iterator of octets that ends when the content does.

    In a worker's thread the next piece is waited for (b"".join(content) is all of it); in the
    server's own, which must not wait, b"" stands for "nothing yet".  What is taken gives the
    client credit to send as much again, so its window alone holds up a request nobody reads.
    Raises ConnectionResetError when the client has given the request up.
    """

    __slots__ = ("_pieces", "_taken", "_came", "_ended", "_given_up")

    def __init__(
        self, taken: Callable[[int], object], came: threading.Condition | None = None
    ) -> None:
        """taken: told the octets of each piece that is read; came: guards a reader's wait."""
        self._pieces = Pieces()
        self._taken = taken
        self._came = came
        self._ended = False
        self._given_up = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if self._came is None:
            return self._take()
        with self._came:
            # Nothing here can be missed: whoever adds to it notifies under the same lock.
            self._came.wait_for(lambda: self._pieces or self._ended)
            return self._take()

    def _take(self) -> bytes:
        if self._given_up:
            raise ConnectionResetError("the client gave the request up")
        if self._pieces:
            piece = self._pieces.take()
            self._taken(len(piece))
            return piece
        if self._ended:
            raise StopIteration
        return b""

    def add(self, piece: Octets) -> None:
        """More has come."""
        self._change(piece)

    def end(self) -> None:
        """All has come."""
        self._change(ended=True)

    def give_up(self) -> int:
        """Nothing more will come, and nothing more is read; return the octets nobody took."""
        untaken = sum(map(len, self._pieces))
        self._change(ended=True, given_up=True)
        return untaken

    def _change(self, piece: Octets = b"", ended: bool = False, given_up: bool = False) -> None:
        if self._came is None:
            self._set(piece, ended, given_up)
            return
        with self._came:
            self._set(piece, ended, given_up)
            self._came.notify_all()

    def _set(self, piece: Octets, ended: bool, given_up: bool) -> None:
        if piece:
            self._pieces.add(piece)
        self._ended = self._ended or ended
        if given_up:
            self._given_up = True
            self._pieces.clear()
            # It leads to whoever made this: a ring that only the collector would find, and late.
            self._taken = _taken_by_nobody


def _taken_by_nobody(octets: int) -> None:
    """What is told where nobody reads any more."""


class Exchange(Source):
    """A request and the reply to it; `work` is one step of the user's side.

    link        the connection it came on
    stream      where the reply goes
    repeats     what is known of replies; None where no thread but the server's may look at it
    started     the handler was asked
    working     a step is under way: in a worker, or waiting for one
    queued      it waits for one, and can be taken back
    answered    the reply's header section is queued
    waiting     the body had nothing yet
    over        nothing of it will be sent any more
    begun_at    when its header section came; seconds
    kept        octets of its fields and content that the server holds
    reply       the handler's answer, None before
    section     the reply's field section
    piece       what the last step took from the body; None: it has ended
    failed      a step raised
    body_closed the reply's body needs no further step
    """

    __slots__ = (
        "link",
        "stream",
        "request",
        "repeats",
        "chunks",
        "octets",
        "started",
        "working",
        "queued",
        "answered",
        "waiting",
        "over",
        "begun_at",
        "kept",
        "reply",
        "section",
        "piece",
        "failed",
        "body_closed",
    )

    def __init__(
        self,
        link: Link,
        stream: Stream,
        request: Request,
        begun_at: float,
        repeats: Repeats | None = None,
    ) -> None:
        self.link = link
        self.stream = stream
        self.request = request
        self.repeats = repeats
        self.chunks = Pieces()  # of content that is handed over whole
        self.octets = 0
        self.started = False
        self.working = False
        self.queued = False
        self.answered = False
        self.waiting = False
        self.over = False
        self.begun_at = begun_at
        self.kept = 0
        self.reply: Reply | None = None
        self.section = _NO_SECTION
        self.piece: bytes | None = None
        self.failed = False
        self.body_closed = False

    def age(self, now: float) -> float:
        """Seconds it has been here, as far as that counts against it."""
        return min(now - self.begun_at, AGE_S_MAX)

    def hoard(self, now: float) -> float:
        """How much is kept for it, times how long."""
        return self.kept * self.age(now)

    def work(self, handler: Callable[[Request], Reply]) -> None:
        """Ask the handler; the next time, its reply's body for a piece; once over, close that.

        Whatever the user's code raises is reported and noted in `failed`.
        """
        closes = self.over
        try:
            if closes:
                self.body_closed = True
                close_body(self.reply)
            elif self.reply is None:
                self._ask(handler)
            else:
                self.piece = next_piece(self.reply.body)
        except Exception:  # noqa: BLE001  the user's fault is reported, and costs one stream
            self.failed = True
            if closes or not self.over:  # a reader of content that was given up is at no fault
                sys.excepthook(*sys.exc_info())

    def _ask(self, handler: Callable[[Request], Reply]) -> None:
        reply = None
        try:
            reply = handler(self.request)
            repeats = self.repeats
            self.section = response_section(reply) if repeats is None else repeats.section(reply)
        except BaseException:
            close_body(reply)
            raise
        self.reply = reply

    def handle_deadline(self, now: float) -> list[Value]:
        return [Due()]


class Due(Value):
    """What an exchange has waited for is over: a reply's delay, or a body's having nothing yet."""

    __slots__ = ()


class Repeats:
    """What one client has asked and was answered: it will ask again, and texts need no new look.

    Of the one thread that serves.
    """

    __slots__ = ("_requests", "_sections")

    def __init__(self) -> None:
        self._requests = Memo()
        self._sections = Memo()

    def request(self, fields: Fields, address: str) -> tuple[Request, int]:
        """The request that a field section makes, and the octets of memory it takes, about."""
        key = tuple(fields)
        known: tuple[Request, int] | None = self._requests.get(key)
        if known is None:
            octets = section_size(fields) + LINE_OCTETS * len(fields)
            known = Request(fields, b"", address), octets
            self._requests.keep(key, known, octets)
        request, octets = known
        return request.again(), octets

    def section(self, reply: Reply) -> Section:
        """As `response_section`."""
        body, headers = reply.body, reply.headers
        if not isinstance(body, bytes) or reply.delay or not isinstance(headers, (list, tuple)):
            return response_section(reply)
        key = reply.status, tuple(headers), len(body)
        try:
            known: Section | None = self._sections.get(key)
        except TypeError:  # pairs that are lists, say
            return response_section(reply)
        if known is None:
            known = response_section(reply)
            self._sections.keep(key, known, known.weight)
        return known


def response_section(reply: Reply) -> Section:
    """A reply's field section.  Raises what a reply that is none deserves."""
    fields = [(b":status", str(reply.status).encode()), *octet_pairs(reply.headers)]
    body = reply.body
    if not 0 <= reply.delay < math.inf:
        raise ValueError(f"a reply's delay of {reply.delay!r}, want seconds")
    if isinstance(body, bytes):
        # RFC 9110 §8.6: a 204 has none, and that of a 304 speaks of another response.
        if reply.status not in (204, 304) and all(name != b"content-length" for name, _ in fields):
            fields.append((b"content-length", str(len(body)).encode()))
    elif not hasattr(body, "read") and not hasattr(body, "__next__"):
        raise TypeError(f"a reply's body of {type(body)}, want octets, a file or an iterator")
    return Section(fields)


_NO_SECTION = Section(())


def close_body(reply: object) -> None:
    """Close a reply's body, where it is something that can be closed."""
    close = getattr(getattr(reply, "body", None), "close", None)
    if close is not None:
        close()
