"""What a pool asks of its driver, and what it tells its program: values, in order.

Dial, Send, Finish and Abort are to be carried out; the others are told.
"""

from __future__ import annotations

from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .call import Call
    from .errors import H2liteError
    from .health import HealthPolicy
    from .member import Member, Ping
    from .origin import Origin


class Dial(Value):
    """Reach the member's origin and put its Connection on the transport."""

    __slots__ = ("member",)

    def __init__(self, member: Member) -> None:
        self.member = member


class Send(Value):
    """The member's Connection has, or may have, something to send."""

    __slots__ = ("member",)

    def __init__(self, member: Member) -> None:
        self.member = member


class Finish(Value):
    """Send what the member has queued, a GOAWAY among it, then close."""

    __slots__ = ("member",)

    def __init__(self, member: Member) -> None:
        self.member = member


class Abort(Value):
    """Close the member's transport, or give its dial up, at once; nothing more is sent."""

    __slots__ = ("member",)

    def __init__(self, member: Member) -> None:
        self.member = member


class Deliver(Value):
    """Something has come of a `Call` or a `Ping`: tell who waits for it."""

    __slots__ = ("item",)

    def __init__(self, item: Call | Ping) -> None:
        self.item = item


class Rewind(Value):
    """A call is repeated: give its content in pieces again, from the start."""

    __slots__ = ("call",)

    def __init__(self, call: Call) -> None:
        self.call = call


class StateChanged(Value):
    """A connection's health changed.

    cause   of its death, or of its dial's failure (connect_timeout among others); "" otherwise
    """

    __slots__ = ("member", "before", "after", "cause")

    def __init__(self, member: Member, before: int, after: int, cause: str) -> None:
        self.member = member
        self.before = before
        self.after = after
        self.cause = cause


class Moved(Value):
    """A request that had not left goes elsewhere."""

    __slots__ = ("call", "member")

    def __init__(self, call: Call, member: Member) -> None:
        self.call = call
        self.member = member


class Retried(Value):
    """A request is repeated, `delay_s` seconds from now, because of `error`."""

    __slots__ = ("call", "delay_s", "error")

    def __init__(self, call: Call, delay_s: float, error: H2liteError) -> None:
        self.call = call
        self.delay_s = delay_s
        self.error = error


class Calmed(Value):
    """An origin complained of too many PINGs: few are sent to it from now on."""

    __slots__ = ("origin", "policy")

    def __init__(self, origin: Origin, policy: HealthPolicy) -> None:
        self.origin = origin
        self.policy = policy
