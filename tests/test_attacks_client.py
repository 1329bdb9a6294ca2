"""The client against servers that mean it ill: each call ends on time, and says what happened.

Every evil server is a raw socket that sends what it likes; meanwhile the same pool asks an honest
one, which must be answered all along.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from h2lite.cli import get, main
from h2lite.client import ConnectionPool
from h2lite.errors import (
    ConnectTimeout,
    ErrorCode,
    H2liteError,
    ReadTimeout,
    RemoteProtocolError,
    ResponseTooLarge,
    StreamReset,
)
from h2lite.frames import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
    encode_frame,
)
from h2lite.timeout import Timeout

from .attacks import Bystander, Memory, literal, needs_proc
from .pair import block, wire
from .running import PATIENCE_S, accepting, exactly, serving

pytestmark = [pytest.mark.scenario, needs_proc, pytest.mark.timeout(30)]

TOTAL_S = 1.0  # the caller's patience
LATE_S_MAX = 2.0  # beyond it: the machine is shared
EVIL_S = 5.0  # how long an evil server goes on
SLOWEST_S_MAX = 2.0  # of the honest server's answers meanwhile
GROWTH_MAX = 48 * 2**20  # of the test's own process, evil server included
GET_RESIDENT_MAX = 120 * 2**20  # of an `h2lite get`, interpreter included

OK = block([(b":status", b"200")])
EARLY = block([(b":status", b"103"), (b"link", b"</a.css>")])
LARGEST = 2**31 - 1

Script = Callable[[socket.socket], None]


def send(sock: socket.socket, *frames: Frame | bytes) -> None:
    sock.sendall(wire(*frames))


def begin(sock: socket.socket) -> None:
    """Greet the client, and have its request: stream 1."""
    exactly(sock, 24)
    send(sock, SettingsFrame())
    while True:
        head = exactly(sock, 9)
        exactly(sock, int.from_bytes(head[:3], "big"))
        if head[3] == HeadersFrame.TYPE:
            return


def again(sock: socket.socket, octets: bytes, pause: float = 0.0) -> None:
    """The same again and again, unread whatever the client says, until it has gone."""
    deadline = time.monotonic() + EVIL_S
    sock.settimeout(EVIL_S)
    with suppress(OSError):
        while time.monotonic() < deadline:
            sock.sendall(octets)
            if pause:
                time.sleep(pause)


def listen_on(sock: socket.socket) -> None:
    """Read until the client has gone."""
    with suppress(OSError):
        while sock.recv(65536):
            pass


def flooding(*frames: Frame | bytes, before: tuple[Frame | bytes, ...] = ()) -> Script:
    """After the request, `before` once and then the frames for ever."""
    octets = wire(*frames)
    many = octets * max(1, 16384 // len(octets))

    def script(sock: socket.socket) -> None:
        begin(sock)
        with suppress(OSError):
            send(sock, *before)
        again(sock, many)

    return script


def ticking(octets: bytes, *before: Frame | bytes) -> Script:
    """After the request, `before` and then the octets now and then."""

    def script(sock: socket.socket) -> None:
        begin(sock)
        send(sock, *before)
        again(sock, octets, 0.05)

    return script


def saying(*frames: Frame | bytes) -> Script:
    """After the request these frames, and then nothing more."""

    def script(sock: socket.socket) -> None:
        begin(sock)
        with suppress(OSError):
            send(sock, *frames)
        listen_on(sock)

    return script


def mute(sock: socket.socket) -> None:
    listen_on(sock)


def http1(sock: socket.socket) -> None:
    sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    listen_on(sock)


def half_settings(sock: socket.socket) -> None:
    sock.sendall(SettingsFrame(((3, 100),)).encode()[:12])
    listen_on(sock)


def wrong_acks(sock: socket.socket) -> None:
    """Every PING is answered, and with another one's octets."""
    begin(sock)
    with suppress(OSError, EOFError):
        while True:
            head = exactly(sock, 9)
            exactly(sock, int.from_bytes(head[:3], "big"))
            if head[3] == PingFrame.TYPE:
                send(sock, PingFrame(b"mistaken", ack=True))


HEADERS_OK = HeadersFrame(1, OK)
BOMB = literal(b"bomb", b"x" * 3900, indexed=True)
# More DATA than the windows that the client has announced: 1 MiB for the stream.
TOO_MUCH = b"".join([DataFrame(1, bytes(16384)).encode()] * 65)

CALM = ErrorCode.ENHANCE_YOUR_CALM
PROTOCOL = ErrorCode.PROTOCOL_ERROR
FLOW = ErrorCode.FLOW_CONTROL_ERROR

# What each does -> what the call says: a class of errors and, where it has one, the code.
EVIL: dict[str, tuple[Script, type[H2liteError], int | None]] = {
    "endless 1xx": (flooding(HeadersFrame(1, EARLY)), StreamReset, CALM),
    "endless CONTINUATION": (
        flooding(
            ContinuationFrame(1, literal(b"a", b"b"), end_headers=False),
            before=(HeadersFrame(1, OK, end_headers=False),),
        ),
        RemoteProtocolError,
        CALM,
    ),
    "full CONTINUATIONs": (
        flooding(
            ContinuationFrame(1, literal(b"a", b"b" * 16000), end_headers=False),
            before=(HeadersFrame(1, OK, end_headers=False),),
        ),
        RemoteProtocolError,
        CALM,
    ),
    "empty CONTINUATIONs": (
        flooding(
            ContinuationFrame(1, b"", end_headers=False),
            before=(HeadersFrame(1, OK, end_headers=False),),
        ),
        RemoteProtocolError,
        CALM,
    ),
    "endless SETTINGS": (flooding(SettingsFrame()), RemoteProtocolError, CALM),
    "endless PING": (flooding(PingFrame(b"pingping")), RemoteProtocolError, CALM),
    "endless empty DATA": (
        flooding(DataFrame(1, b""), before=(HEADERS_OK,)), RemoteProtocolError, CALM
    ),
    "endless RST_STREAM": (
        flooding(RstStreamFrame(1, ErrorCode.INTERNAL_ERROR)),
        StreamReset,
        ErrorCode.INTERNAL_ERROR,
    ),
    "endless PRIORITY": (
        flooding(encode_frame(2, 0, 3, bytes(4) + b"\x0f")), RemoteProtocolError, CALM
    ),
    "endless unknown frames": (
        flooding(encode_frame(0xEE, 0, 0, b"?")), RemoteProtocolError, CALM
    ),
    "endless WINDOW_UPDATE": (flooding(WindowUpdateFrame(0, 1)), RemoteProtocolError, CALM),
    "HPACK bomb": (
        saying(HeadersFrame(1, OK + BOMB + b"\xbe" * 12000)), RemoteProtocolError, CALM
    ),
    "PUSH_PROMISE": (saying(PushPromiseFrame(1, 2, OK)), RemoteProtocolError, PROTOCOL),
    "unsolicited PING acks": (
        flooding(PingFrame(b"unasked!", ack=True)), RemoteProtocolError, CALM
    ),
    "wrong PING acks": (wrong_acks, ReadTimeout, None),
    "rising GOAWAY": (
        flooding(
            *(GoAwayFrame(last, ErrorCode.NO_ERROR) for last in (1, 3, 5, LARGEST)),
            before=(GoAwayFrame(0, ErrorCode.NO_ERROR),),
        ),
        StreamReset,
        ErrorCode.REFUSED_STREAM,
    ),
    "DATA on an idle stream": (saying(DataFrame(3, b"x")), RemoteProtocolError, PROTOCOL),
    "HEADERS on an idle stream": (saying(HeadersFrame(3, OK)), RemoteProtocolError, PROTOCOL),
    "DATA before HEADERS": (saying(DataFrame(1, b"x")), StreamReset, PROTOCOL),
    "window overflow of the connection": (
        saying(WindowUpdateFrame(0, LARGEST)), RemoteProtocolError, FLOW
    ),
    "window overflow of the stream": (saying(WindowUpdateFrame(1, LARGEST)), StreamReset, FLOW),
    "WINDOW_UPDATE of 0": (saying(encode_frame(8, 0, 1, bytes(4))), StreamReset, PROTOCOL),
    "an octet a tick": (ticking(DataFrame(1, b"x").encode(), HEADERS_OK), ReadTimeout, None),
    "a PING a tick": (ticking(PingFrame(b"tick....").encode()), ReadTimeout, None),
    "half a field block": (saying(HeadersFrame(1, OK, end_headers=False)), ReadTimeout, None),
    "half a frame": (saying(HeadersFrame(1, OK).encode()[:10]), ReadTimeout, None),
    "no word": (mute, ConnectTimeout, None),
    "half a SETTINGS": (half_settings, ConnectTimeout, None),
    "HTTP/1.1": (http1, H2liteError, None),
}


def outcome_of(
    pool: ConnectionPool, url: str, **options: Any
) -> tuple[H2liteError, float]:
    """The error a request ends with, and the seconds until then."""
    began = time.monotonic()
    with pytest.raises(H2liteError) as caught:
        pool.request("GET", url, timeout=Timeout(total=TOTAL_S), **options)
    return caught.value, time.monotonic() - began


@pytest.mark.parametrize("name", EVIL)
def test_a_call_to_an_evil_server_ends_on_time_and_says_why(name, record_property):
    script, kind, code = EVIL[name]
    memory = Memory(os.getpid())
    with (
        serving() as honest,
        accepting(script) as evil,
        ConnectionPool(trust_env=False) as pool,
        Bystander(honest.url, "/", fresh_every=0, pool=pool) as bystander,
    ):
        error, seconds = outcome_of(pool, evil.url, retries=0)
        slowest = bystander.slowest

    record_property("seconds", seconds)
    record_property("slowest_s", slowest)
    record_property("growth", memory.growth)
    assert isinstance(error, kind), repr(error)
    assert code is None or getattr(error, "error_code", None) == code, repr(error)
    assert str(error)
    assert seconds < TOTAL_S + LATE_S_MAX
    assert bystander.failures == []
    assert slowest < SLOWEST_S_MAX
    assert memory.growth < GROWTH_MAX


def test_retries_do_not_outlast_the_total_timeout():
    """The first connection refuses the request; nobody accepts the next one."""
    refusing = saying(GoAwayFrame(0, ErrorCode.NO_ERROR))
    with accepting(refusing) as evil, ConnectionPool(trust_env=False) as pool:
        _, seconds = outcome_of(pool, evil.url)

    assert seconds < TOTAL_S + LATE_S_MAX


def test_an_endless_body_is_too_large_to_be_read_whole():
    octets = DataFrame(1, bytes(16384)).encode()

    def endless(sock: socket.socket) -> None:
        begin(sock)
        send(sock, HEADERS_OK)
        _send_as_allowed(sock, octets)

    memory = Memory(os.getpid())
    with accepting(endless) as evil, ConnectionPool(
        trust_env=False, content_octets_max=2**20
    ) as pool:
        error, seconds = outcome_of(pool, evil.url, retries=0)

    assert isinstance(error, ResponseTooLarge)
    assert seconds < TOTAL_S + LATE_S_MAX
    assert memory.growth < GROWTH_MAX


def test_an_endless_body_that_is_streamed_ends_with_the_total_timeout():
    octets = DataFrame(1, bytes(16384)).encode()

    def endless(sock: socket.socket) -> None:
        begin(sock)
        send(sock, HEADERS_OK)
        _send_as_allowed(sock, octets)

    memory = Memory(os.getpid())
    began = time.monotonic()
    with (
        accepting(endless) as evil,
        ConnectionPool(trust_env=False) as pool,
        pool.stream("GET", evil.url, timeout=Timeout(total=TOTAL_S)) as response,
        pytest.raises(ReadTimeout),
    ):
        for _ in response.iter_bytes():
            pass

    assert time.monotonic() - began < TOTAL_S + LATE_S_MAX
    assert memory.growth < GROWTH_MAX


def test_data_beyond_the_window_is_refused():
    """The client reads nothing of it, so no window is given back."""

    def too_much(sock: socket.socket) -> None:
        begin(sock)
        with suppress(OSError):
            send(sock, HEADERS_OK, TOO_MUCH)
        listen_on(sock)

    with (
        accepting(too_much) as evil,
        ConnectionPool(trust_env=False) as pool,
        pool.stream("GET", evil.url, timeout=Timeout(total=TOTAL_S)) as response,
    ):
        time.sleep(0.3)
        with pytest.raises(StreamReset) as caught:
            response.read()

    assert caught.value.error_code == FLOW


def _send_as_allowed(sock: socket.socket, octets: bytes) -> None:
    """DATA of stream 1 for ever, within the client's windows."""
    cost = len(octets) - 9
    windows = {0: 65535 + (2**22 - 65535), 1: 2**20}
    data = b""
    sock.settimeout(EVIL_S)
    deadline = time.monotonic() + EVIL_S
    with suppress(OSError):
        while time.monotonic() < deadline:
            if min(windows.values()) >= cost:
                sock.sendall(octets)
                for key in windows:
                    windows[key] -= cost
                continue
            piece = sock.recv(65536)
            if not piece:
                return
            data += piece
            while len(data) >= 9 and len(data) >= 9 + (length := int.from_bytes(data[:3], "big")):
                if data[3] == WindowUpdateFrame.TYPE:
                    stream_id = int.from_bytes(data[5:9], "big")
                    windows[stream_id] += int.from_bytes(data[9:13], "big")
                data = data[9 + length :]


# -- the command -------------------------------------------------------------------------------


def endless_body(sock: socket.socket) -> None:
    begin(sock)
    send(sock, HEADERS_OK)
    _send_as_allowed(sock, DataFrame(1, bytes(16384)).encode())


COMMAND_EVIL = {
    **{
        name: EVIL[name][0]
        for name in (
            "endless 1xx",
            "endless CONTINUATION",
            "endless SETTINGS",
            "endless PING",
            "endless empty DATA",
            "endless RST_STREAM",
            "HPACK bomb",
            "PUSH_PROMISE",
            "unsolicited PING acks",
            "rising GOAWAY",
            "an octet a tick",
            "half a field block",
            "no word",
        )
    },
    "an endless body": endless_body,
    "HTTP/1.1": http1,
}


@pytest.mark.parametrize("name", COMMAND_EVIL)
def test_h2lite_get_ends_on_time_with_one_clear_line(name, record_property):
    with accepting(COMMAND_EVIL[name]) as evil:
        began = time.monotonic()
        argv = [sys.executable, "-m", "h2lite", "get", "--max-time", f"{TOTAL_S:g}", evil.url]
        with subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            assert process.stderr is not None
            try:
                told = process.stderr.read().decode()
                _, status, usage = os.wait4(process.pid, 0)
            except BaseException:
                process.kill()
                raise
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - began

    record_property("seconds", seconds)
    record_property("resident", usage.ru_maxrss * 1024)
    assert told.startswith("h2lite: "), told
    assert len(told.splitlines()) == 1
    # It was the peer, not our own output: a connection's end must not hide that.
    assert "stood still" not in told
    assert process.returncode not in (0, 1, -9), told
    assert seconds < TOTAL_S + 2 * LATE_S_MAX, told  # an interpreter starts, too
    assert usage.ru_maxrss * 1024 < GET_RESIDENT_MAX


def test_h2lite_get_tells_the_fault_though_the_alarm_rings_in_its_wake(monkeypatch, capsys):
    monkeypatch.setattr(get, "ALARM_SLACK_S", 0.05)  # while the pool's end lingers for 0.25 s

    with accepting(EVIL["an octet a tick"][0]) as evil:
        code = main(["get", "--max-time", "0.3", evil.url])

    assert code not in (0, 1)
    told = capsys.readouterr().err
    assert told.startswith(f"h2lite: {evil.url} not fetched within 0.3 s: ")
    assert "did not finish the response in time" in told


assert PATIENCE_S > EVIL_S
