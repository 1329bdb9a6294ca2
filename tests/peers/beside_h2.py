"""h2lite's core and python-hyper's h2 joined in memory, each in either role.

Both ends are driven by the same calls and tell what they see in the same words, so that a test can
hold what one end has sent against what the other has received.  No sockets, no clock.  Where h2
departs from RFC 9113 the driver goes round it, with the section beside it.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from h2lite import events as ev
from h2lite.connection import Connection
from h2lite.errors import ErrorCode
from h2lite.events import Event
from h2lite.frames import FRAME_HEADER_SIZE, GoAwayFrame
from h2lite.stream import Stream
from h2lite.value import Value
from tests.pair import drain

if TYPE_CHECKING:
    from h2lite.events import Fields

Cut = Callable[[bytes], Iterable[bytes]]

CLIENT_PREFACE_OCTETS = 24


class Seen(NamedTuple):
    """One event in the words that both ends share; ended: the peer's END_STREAM came with it."""

    kind: str
    stream_id: int
    value: Any
    ended: bool = False


class Message(Value):
    """One direction of a stream: sections in order as (kind, fields), content, and its end."""

    __slots__ = ("sections", "content", "ended")

    def __init__(
        self, *sections: tuple[str, Fields], content: bytes = b"", ended: bool = False
    ) -> None:
        self.sections = [*sections]
        self.content = bytearray(content)
        self.ended = ended

    def add_section(self, kind: str, fields: Fields, ended: bool) -> None:
        self.sections.append((kind, [*fields]))
        self.ended = ended

    def add_content(self, octets: bytes, ended: bool) -> None:
        self.content += octets
        self.ended = ended

    def begins(self, whole: Message) -> bool:
        """What was received is the beginning of what was sent, or all of it."""
        return (
            self.sections == whole.sections[: len(self.sections)]
            and whole.content.startswith(self.content)
            and (not self.ended or self == whole)
        )


class Exchange:
    """A request and its response, as one end knows them.

    reset       error code of the RST_STREAM this end has sent
    was_reset   error code of the RST_STREAM this end has received
    unread      octets received and not yet consumed, as this end counts them
    stream      h2lite's handle
    queue       content, (octets, END_STREAM), and trailers that wait for h2's windows
    pad         octets of padding in h2's DATA frames, None: frames without PADDED
    """

    def __init__(self, stream: Stream | None = None) -> None:
        self.sent = Message()
        self.received = Message()
        self.reset: int | None = None
        self.was_reset: int | None = None
        self.unread = 0
        self.stream = stream
        self.queue: deque[tuple[memoryview, bool] | Fields] = deque()
        self.pad: int | None = None

    @property
    def broken(self) -> bool:
        return self.reset is not None or self.was_reset is not None

    @property
    def complete(self) -> bool:
        return self.sent.ended and self.received.ended


class End(ABC):
    """One end of a connection.

    exchanges      {stream_id: Exchange} of all streams that ever were
    log            all events, in order
    pings          the values of the PINGs that were asked for, in order
    read_at_once   content is consumed as soon as it arrives
    """

    def __init__(self, client: bool) -> None:
        self.client = client
        self.exchanges: dict[int, Exchange] = {}
        self.log: list[Seen] = []
        self.pings: list[bytes] = []
        self.read_at_once = True

    # What a caller may do.

    @abstractmethod
    def request(self, fields: Fields, end: bool = True) -> Exchange: ...

    def respond(self, exchange: Exchange, fields: Fields, end: bool = False) -> None:
        """Send a header section, interim or final."""
        kind = "interim" if fields[0][1].startswith(b"1") else "response"
        self._send_section(exchange, fields, end)
        exchange.sent.add_section(kind, fields, end)

    def send(self, exchange: Exchange, octets: bytes, end: bool = False) -> None:
        """Send content, as windows allow."""
        self._send_content(exchange, octets, end)
        exchange.sent.add_content(octets, end)

    def send_trailers(self, exchange: Exchange, fields: Fields) -> None:
        self._send_trailers(exchange, fields)
        exchange.sent.add_section("trailers", fields, True)

    def consume(self, stream_id: int, octets: int) -> None:
        """Use up content that was received."""
        self.exchanges[stream_id].unread -= octets
        self._consume(stream_id, octets)

    def consume_all(self) -> None:
        for stream_id, exchange in self.exchanges.items():
            if exchange.unread:
                self.consume(stream_id, exchange.unread)

    @abstractmethod
    def reset_stream(self, exchange: Exchange, error_code: int = ErrorCode.CANCEL) -> None: ...

    def ping(self, opaque_data: bytes) -> None:
        self._ping(opaque_data)
        self.pings.append(opaque_data)

    def seen(self, kind: str) -> list[Any]:
        """The values of all events of one kind, in order."""
        return [seen.value for seen in self.log if seen.kind == kind]

    @abstractmethod
    def update_settings(self, settings: dict[int, int]) -> None: ...

    @abstractmethod
    def goaway(self, error_code: int, debug_data: bytes) -> None: ...

    @property
    @abstractmethod
    def may_open(self) -> bool:
        """A request would leave at once."""

    @property
    @abstractmethod
    def settings_under_way(self) -> int:
        """SETTINGS frames that await their ack."""

    # Octets.

    @abstractmethod
    def give(self) -> bytes:
        """All that can leave now."""

    def take(self, octets: bytes) -> None:
        """Receive octets and note what they say."""
        for seen in self._receive(octets):
            self.log.append(seen)
            self._note(seen)

    def _note(self, seen: Seen) -> None:
        kind, stream_id, value, ended = seen
        if kind == "request":
            self.exchanges[stream_id] = Exchange(self._stream(stream_id))
        if kind in ("request", "interim", "response", "trailers"):
            self.exchanges[stream_id].received.add_section(kind, value, ended)
        elif kind == "data":
            octets, flow_controlled = value
            exchange = self.exchanges[stream_id]
            exchange.received.add_content(octets, ended)
            exchange.unread += flow_controlled
            if self.read_at_once and exchange.unread:
                self.consume(stream_id, exchange.unread)
        elif kind == "reset":
            self.exchanges[stream_id].was_reset = value
            self.exchanges[stream_id].queue.clear()

    @abstractmethod
    def _receive(self, octets: bytes) -> Iterable[Seen]: ...

    @abstractmethod
    def _stream(self, stream_id: int) -> Stream | None: ...

    @abstractmethod
    def _send_section(self, exchange: Exchange, fields: Fields, end: bool) -> None: ...

    @abstractmethod
    def _send_content(self, exchange: Exchange, octets: bytes, end: bool) -> None: ...

    @abstractmethod
    def _send_trailers(self, exchange: Exchange, fields: Fields) -> None: ...

    @abstractmethod
    def _ping(self, opaque_data: bytes) -> None: ...

    @abstractmethod
    def _consume(self, stream_id: int, octets: int) -> None: ...


class Ours(End):
    """h2lite's end.

    waiting   requests that have not left yet, and have no stream identifier
    """

    def __init__(self, client: bool, settings: dict[int, int] | None = None) -> None:
        super().__init__(client)
        self.core = Connection(client, settings)
        self.waiting: list[Exchange] = []

    def request(self, fields: Fields, end: bool = True) -> Exchange:
        exchange = Exchange(self.core.send_request(fields, end))
        exchange.sent.add_section("request", fields, end)
        self.waiting.append(exchange)
        return exchange

    def reset_stream(self, exchange: Exchange, error_code: int = ErrorCode.CANCEL) -> None:
        self.core.reset_stream(_handle(exchange), error_code)
        exchange.reset = error_code

    def _ping(self, opaque_data: bytes) -> None:
        self.core.ping(opaque_data, 0.0)

    def update_settings(self, settings: dict[int, int]) -> None:
        self.core.update_settings(settings, 0.0)

    def goaway(self, error_code: int, debug_data: bytes) -> None:
        self.core.goaway(error_code, debug_data)

    @property
    def may_open(self) -> bool:
        return self.core.takes_requests

    @property
    def settings_under_way(self) -> int:
        return self.core.local_settings.unacked

    def give(self) -> bytes:
        return self._named(drain(self.core))

    def give_some(self, rng: random.Random) -> bytes:
        """What a socket with little room takes: the rest is put back."""
        octets = self.core.data_to_send(0.0, rng.choice((50, 1000, 20000, 65536)))
        taken = len(octets) if rng.random() < 0.7 else rng.randint(0, len(octets))
        if taken < len(octets):
            self.core.put_back(octets[taken:])
        return self._named(octets[:taken])

    def _named(self, octets: bytes) -> bytes:
        """Requests take their stream identifiers as they leave."""
        for exchange in self.waiting:
            if stream_id := _handle(exchange).stream_id:
                self.exchanges[stream_id] = exchange
        self.waiting = [
            exchange
            for exchange in self.waiting
            if not (_handle(exchange).stream_id or exchange.broken)
        ]
        return octets

    def _receive(self, octets: bytes) -> Iterator[Seen]:
        for event in self.core.receive_data(octets, 0.0):
            yield self._seen(event)

    @staticmethod
    def _seen(event: Event) -> Seen:
        match event:
            case ev.RequestReceived():
                return Seen("request", event.stream_id, event.fields, event.end_stream)
            case ev.InformationalReceived():
                return Seen("interim", event.stream_id, event.fields)
            case ev.ResponseReceived():
                return Seen("response", event.stream_id, event.fields, event.end_stream)
            case ev.TrailersReceived():
                return Seen("trailers", event.stream_id, event.fields, True)
            case ev.DataReceived():
                content = bytes(event.data), len(event.data)
                return Seen("data", event.stream_id, content, event.end_stream)
            case ev.StreamReset():
                assert event.by_peer, event
                return Seen("reset", event.stream_id, event.error_code)
            case ev.PingReceived():
                return Seen("ping", 0, event.opaque_data)
            case ev.PingAcked():
                return Seen("ping ack", 0, event.opaque_data)
            case ev.SettingsReceived():
                return Seen("settings", 0, event.changed)
            case ev.SettingsAcked():
                return Seen("settings ack", 0, None)
            case ev.WindowUpdated():
                return Seen("window", event.stream_id, None)
            case ev.GoAwayReceived():
                said = event.last_stream_id, event.error_code, event.debug_data
                return Seen("goaway", 0, said)
        raise AssertionError(event)

    def _stream(self, stream_id: int) -> Stream | None:
        return self.core.streams.get(stream_id)

    def _send_section(self, exchange: Exchange, fields: Fields, end: bool) -> None:
        self.core.send_response(_handle(exchange), fields, end)

    def _send_content(self, exchange: Exchange, octets: bytes, end: bool) -> None:
        self.core.send_data(_handle(exchange), octets, end)

    def _send_trailers(self, exchange: Exchange, fields: Fields) -> None:
        self.core.send_trailers(_handle(exchange), fields)

    def _consume(self, stream_id: int, octets: int) -> None:
        self.core.data_consumed(stream_id, octets)


class Theirs(End):
    """h2's end.

    settings         announced with the connection preface
    credit_by_hand   WINDOW_UPDATE for every consumption, instead of h2's own judgement
    options          of H2Configuration
    """

    def __init__(
        self,
        client: bool,
        settings: dict[int, int] | None = None,
        credit_by_hand: bool = False,
        **options: bool,
    ) -> None:
        super().__init__(client)
        reason = "h2 is in the peers' set: make peers"
        h2_config = pytest.importorskip("h2.config", reason=reason)
        h2_connection = pytest.importorskip("h2.connection", reason=reason)
        # The fields as they came: h2 would make one cookie line of many.
        options = {"normalize_inbound_headers": False, **options}
        config = h2_config.H2Configuration(client_side=client, **options)
        self.conn = h2_connection.H2Connection(config=config)
        self.conn.local_settings.update(settings or {})
        self.conn.initiate_connection()
        self.settings_sent = 1
        self.settings_acked = 0
        self.credit_by_hand = credit_by_hand
        self._preface_left = 0 if client else CLIENT_PREFACE_OCTETS
        self._arrived = bytearray()
        self._goaways: list[bytes] = []

    def request(self, fields: Fields, end: bool = True, **priority: Any) -> Exchange:
        stream_id = self.conn.get_next_available_stream_id()
        self.conn.send_headers(stream_id, fields, end, **priority)
        exchange = self.exchanges[stream_id] = Exchange()
        exchange.sent.add_section("request", fields, end)
        return exchange

    def reset_stream(self, exchange: Exchange, error_code: int = ErrorCode.CANCEL) -> None:
        exchange.queue.clear()
        self.conn.reset_stream(self._id(exchange), error_code)
        exchange.reset = error_code

    def _ping(self, opaque_data: bytes) -> None:
        self.conn.ping(opaque_data)

    def update_settings(self, settings: dict[int, int]) -> None:
        # RFC 9113 §6.5.3: an ack is that of the oldest SETTINGS.  h2 applies every value that
        # waits, whichever frame it was in, so it may have only one frame under way.
        assert self.settings_under_way == 0
        self.conn.update_settings(settings)
        self.settings_sent += 1

    def goaway(self, error_code: int, debug_data: bytes) -> None:
        self.conn.close_connection(error_code, debug_data)

    def goaway_and_go_on(self, last_stream_id: int) -> bytes:
        """The octets with which a server ends gracefully; to be given between give() and give().

        RFC 9113 §6.8: streams up to the last one go on after a GOAWAY.  h2 itself sends and
        receives nothing more after its close_connection.
        """
        return GoAwayFrame(last_stream_id, ErrorCode.NO_ERROR).encode()

    @property
    def may_open(self) -> bool:
        limit = self.conn.remote_settings.max_concurrent_streams
        return bool(self.conn.open_outbound_streams < limit)

    @property
    def settings_under_way(self) -> int:
        return self.settings_sent - self.settings_acked

    def give(self) -> bytes:
        for stream_id, exchange in self.exchanges.items():
            while exchange.queue and self._frame_one(stream_id, exchange):
                pass
        octets: bytes = self.conn.data_to_send()
        return octets

    def _frame_one(self, stream_id: int, exchange: Exchange) -> bool:
        """Send what is next in the queue, or a frame of it; False: the window is closed."""
        item = exchange.queue[0]
        if isinstance(item, list):
            self.conn.send_headers(stream_id, item, end_stream=True)
            exchange.queue.popleft()
            return True
        octets, end = item
        window = self.conn.local_flow_control_window(stream_id)
        if octets and window <= 0:
            return False
        room = max(0, min(window, self.conn.max_outbound_frame_size))
        pad = exchange.pad
        if pad is not None and room <= pad + 1:
            pad = None
        piece = octets[: room if pad is None else room - pad - 1]
        if len(piece) == len(octets):
            exchange.queue.popleft()
        else:
            exchange.queue[0] = octets[len(piece) :], end
            end = False
        self.conn.send_data(stream_id, piece, end, pad_length=pad)
        return True

    def release_goaway(self) -> None:
        """Let h2 read the GOAWAYs that were kept from it."""
        for frame in self._goaways:
            self._feed(frame)
        self._goaways.clear()

    def take(self, octets: bytes) -> None:
        """h2 is given whole frames, one at a time.

        RFC 9113 §6.5.3: values are in force from the ack on.  h2 goes on judging frame sizes by the
        old MAX_FRAME_SIZE until the end of the octets that the ack came in.
        RFC 9113 §6.8: what is under way goes on after a GOAWAY.  h2 would send and receive nothing
        more, so a GOAWAY is kept until `release_goaway`.
        """
        self._arrived += octets
        if self._preface_left:
            if len(self._arrived) < self._preface_left:
                return
            self.conn.receive_data(bytes(self._arrived[: self._preface_left]))
            del self._arrived[: self._preface_left]
            self._preface_left = 0
        while len(self._arrived) >= FRAME_HEADER_SIZE:
            end = FRAME_HEADER_SIZE + int.from_bytes(self._arrived[:3], "big")
            if len(self._arrived) < end:
                return
            frame = bytes(self._arrived[:end])
            del self._arrived[:end]
            if frame[3] == GoAwayFrame.TYPE:
                self._goaways.append(frame)
            else:
                self._feed(frame)

    def _feed(self, frame: bytes) -> None:
        super().take(frame)

    def _receive(self, octets: bytes) -> Iterator[Seen]:
        for event in self.conn.receive_data(octets):
            seen = self._seen(event)
            if seen is not None:
                yield seen

    def _seen(self, event: Any) -> Seen | None:
        match type(event).__name__:
            case "RequestReceived" | "ResponseReceived" | "TrailersReceived" as name:
                kind = name.removesuffix("Received").lower()
                return Seen(kind, event.stream_id, _plain(event), event.stream_ended is not None)
            case "InformationalResponseReceived":
                return Seen("interim", event.stream_id, _plain(event))
            case "DataReceived":
                content = event.data, event.flow_controlled_length
                return Seen("data", event.stream_id, content, event.stream_ended is not None)
            case "StreamReset":
                assert event.remote_reset, event
                return Seen("reset", event.stream_id, int(event.error_code))
            case "PingReceived":
                return Seen("ping", 0, event.ping_data)
            case "PingAckReceived":
                return Seen("ping ack", 0, event.ping_data)
            case "RemoteSettingsChanged":
                changed = event.changed_settings.values()
                return Seen("settings", 0, {int(one.setting): one.new_value for one in changed})
            case "SettingsAcknowledged":
                self.settings_acked += 1
                return Seen("settings ack", 0, None)
            case "WindowUpdated":
                return Seen("window", event.stream_id, None)
            case "ConnectionTerminated":
                debug_data = event.additional_data or b""
                said = event.last_stream_id, int(event.error_code), debug_data
                return Seen("goaway", 0, said)
            case "StreamEnded":  # said by the event before it
                return None
        raise AssertionError(event)

    def _id(self, exchange: Exchange) -> int:
        return next(key for key, value in self.exchanges.items() if value is exchange)

    def _stream(self, stream_id: int) -> Stream | None:
        return None

    def _send_section(self, exchange: Exchange, fields: Fields, end: bool) -> None:
        self.conn.send_headers(self._id(exchange), fields, end)

    def _send_content(self, exchange: Exchange, octets: bytes, end: bool) -> None:
        exchange.queue.append((memoryview(octets), end))

    def _send_trailers(self, exchange: Exchange, fields: Fields) -> None:
        exchange.queue.append([*fields])

    def _consume(self, stream_id: int, octets: int) -> None:
        if not self.credit_by_hand:
            self.conn.acknowledge_received_data(octets, stream_id)
            return
        self.conn.increment_flow_control_window(octets)
        exchange = self.exchanges[stream_id]
        if not (exchange.broken or exchange.received.ended):
            self.conn.increment_flow_control_window(octets, stream_id)


def _handle(exchange: Exchange) -> Stream:
    assert exchange.stream is not None
    return exchange.stream


def _plain(event: Any) -> Fields:
    """The fields as pairs of bytes, without HPACK's notes on them."""
    return [(bytes(name), bytes(value)) for name, value in event.headers]


class Link:
    """Both ends, and the octets on their way.

    cut   how what one end gives is cut for the other
    """

    def __init__(self, ours: Ours, theirs: Theirs, cut: Cut) -> None:
        self.ours, self.theirs, self.cut = ours, theirs, cut
        self.client: End = ours if ours.client else theirs
        self.server: End = theirs if ours.client else ours
        self.to_ours, self.to_theirs = bytearray(), bytearray()

    def pump(self) -> None:
        """Move octets both ways until both ends are quiet."""
        while self._move_all():
            pass

    def _move_all(self) -> bool:
        self.to_theirs += self.ours.give()
        self.to_ours += self.theirs.give()
        moved = bool(self.to_theirs or self.to_ours)
        for octets, end in ((self.to_theirs, self.theirs), (self.to_ours, self.ours)):
            arrived = bytes(octets)
            octets.clear()
            for piece in self.cut(arrived):
                end.take(piece)
        return moved

    def move_some(self, rng: random.Random) -> None:
        """Let one end give, and let some of what is under way arrive."""
        if rng.random() < 0.5:
            self.to_theirs += self.ours.give_some(rng)
            self._arrive(self.to_theirs, self.theirs, rng)
        else:
            self.to_ours += self.theirs.give()
            self._arrive(self.to_ours, self.ours, rng)

    def _arrive(self, octets: bytearray, end: End, rng: random.Random) -> None:
        count = len(octets) if rng.random() < 0.5 else rng.randint(0, len(octets))
        arrived = bytes(octets[:count])
        del octets[:count]
        for piece in self.cut(arrived):
            end.take(piece)

    def assert_agreement(self) -> None:
        """Both ends know the same of everything; call it when nothing is under way."""
        self._compare(_assert_same)

    def assert_agreement_so_far(self) -> None:
        """The same while content waits for a window."""
        self._compare(_assert_received_was_sent)

    def _compare(self, compare: Callable[[Exchange, Exchange], None]) -> None:
        for stream_id in {*self.client.exchanges, *self.server.exchanges}:
            asked = self.client.exchanges[stream_id]
            answered = self.server.exchanges.get(stream_id)
            if answered is None:
                # RFC 9113 §5.1.2: refused before anybody looked at it.
                assert asked.was_reset == ErrorCode.REFUSED_STREAM or asked.reset is not None
            else:
                compare(asked, answered)
        for end, other in ((self.ours, self.theirs), (self.theirs, self.ours)):
            assert other.seen("ping") == end.seen("ping ack") == end.pings
        self.assert_same_windows()

    def assert_same_windows(self) -> None:
        """What one end may still send is what the other expects."""
        core, conn = self.ours.core, self.theirs.conn
        receiving, sending = core._receive_window.size, core._send_window.size
        assert conn.outbound_flow_control_window == receiving
        assert conn.inbound_flow_control_window == sending
        # What is neither free nor unread was given back, or soon will be.
        window = core._receive_window
        assert window.size + window.owed + core._withheld == window.limit
        for stream_id, stream in core.streams.items():
            exchange = self.ours.exchanges[stream_id]
            if not exchange.received.ended:
                free = min(receiving, stream.receive_window.size)
                assert conn.local_flow_control_window(stream_id) == free
            if not exchange.sent.ended:
                free = min(sending, stream.send_window.size)
                assert conn.remote_flow_control_window(stream_id) == free


def _assert_received_was_sent(a: Exchange, b: Exchange) -> None:
    assert a.received.begins(b.sent)
    assert b.received.begins(a.sent)


def _assert_same(a: Exchange, b: Exchange) -> None:
    """Two ends' knowledge of one stream."""
    if not a.broken and not b.broken:
        assert a.received == b.sent
        assert b.received == a.sent
        return
    _assert_received_was_sent(a, b)
    for one, other in ((a, b), (b, a)):
        if one.was_reset is not None:
            assert other.reset == one.was_reset
        # It may have crossed the other's own reset, or the end of the stream.
        if one.reset is not None and other.was_reset is None:
            assert other.reset is not None or other.complete
