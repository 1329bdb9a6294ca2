"""What the kernel is asked to watch, and what it tells of a silent connection."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from h2lite.dial import Dial, Dialled
from h2lite.errors import UsageError
from h2lite.health import HealthPolicy
from h2lite.loop import Loop
from h2lite.origin import Origin
from h2lite.transport import (
    SocketOptions,
    TcpInfo,
    Transport,
    check_user_timeout,
    prepare,
    read_tcp_info,
)

from .running import needs_unix, serving, tcp_pair

ADDRESS = ("127.0.0.1", 443)

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="what Linux tells and takes")


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    pair = tcp_pair()
    yield pair
    for sock in pair:
        sock.close()


class Recording:
    """A TCP socket that remembers what was set on it."""

    family = socket.AF_INET

    def __init__(self) -> None:
        self.options: list[tuple[int, int, int]] = []

    def setblocking(self, blocking: bool) -> None:
        pass

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self.options.append((level, option, value))


def prepared(options: SocketOptions) -> list[tuple[int, int, int]]:
    sock = Recording()
    prepare(sock, options)  # type: ignore[arg-type]
    return sock.options


def keepalive(sock: socket.socket) -> list[int]:
    """On or off, idle, interval and count, as the kernel has them."""
    names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    on = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    return [on, *(sock.getsockopt(socket.IPPROTO_TCP, name) for name in names)]


# -- what may be asked -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("keepalive_idle", (1, 32767), (0, -1, 32768, 1.5, 60.0, "60", None)),
        ("keepalive_interval", (1, 32767), (0, -1, 32768, 1.5, "15", None)),
        ("keepalive_count", (1, 127), (0, -1, 128, 1.5, "4", None)),
    ],
)
def test_keepalive_takes_whole_numbers_in_the_kernels_bounds(name, good, bad):
    for value in good:
        assert getattr(SocketOptions(**{name: value}), name) == value
    for value in bad:
        with pytest.raises(UsageError, match=rf"^{name} of {value!r}, want .*, 1 to {good[1]}$"):
            SocketOptions(**{name: value})


def test_user_timeout_takes_seconds(monkeypatch):
    monkeypatch.setattr(socket, "TCP_USER_TIMEOUT", 18, raising=False)
    for good in (0, 0.0, 0.001, 75, 2147483.647):
        assert SocketOptions(user_timeout=good).user_timeout == good
    bads: list[Any] = [-1, -0.001, 2147483.648, float("nan"), float("inf"), "75", None]
    for bad in bads:
        with pytest.raises(UsageError, match=r"^user_timeout of .*, want seconds, 0 \(off\) to 21"):
            SocketOptions(user_timeout=bad)


def test_a_user_timeout_that_nobody_would_keep_is_refused(monkeypatch):
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT", raising=False)

    assert SocketOptions().user_timeout == 0
    with pytest.raises(UsageError, match=r"^user_timeout: .* has no TCP_USER_TIMEOUT$"):
        SocketOptions(user_timeout=75)


@pytest.mark.parametrize(
    ("policy", "least"),
    [
        (HealthPolicy(), 75.0),
        (HealthPolicy(ping_timeout=2.5, peer_not_reading=10), 12.5),
        (HealthPolicy(peer_not_reading=0), 15.0),
    ],
)
def test_a_user_timeout_is_no_shorter_than_the_policys_patience(monkeypatch, policy, least):
    monkeypatch.setattr(socket, "TCP_USER_TIMEOUT", 18, raising=False)
    check_user_timeout(SocketOptions(user_timeout=0), policy)
    check_user_timeout(SocketOptions(user_timeout=least), policy)

    with pytest.raises(UsageError) as caught:
        check_user_timeout(SocketOptions(user_timeout=least - 0.5), policy)
    assert str(caught.value) == (
        f"user_timeout of {least - 0.5:g} s, want 0 (off) or at least peer_not_reading +"
        f" ping_timeout, {least:g} s: the kernel would end a connection whose peer lives and"
        " merely reads slowly"
    )


# -- what is set -------------------------------------------------------------------------------


@on_linux
def test_the_kernel_has_what_was_asked_for(sockets):
    prepare(sockets[0], SocketOptions(True, 7, 3, 2, 0.0015))

    assert keepalive(sockets[0]) == [1, 7, 3, 2]
    assert sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2  # ms, up


@on_linux
def test_by_default_keepalive_is_a_backstop_and_the_user_timeout_off(sockets):
    prepare(sockets[0], SocketOptions())

    assert keepalive(sockets[0]) == [1, 60, 15, 4]
    assert sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


@pytest.mark.parametrize("options", [None, SocketOptions(keepalive=False)])
def test_without_keepalive_the_socket_keeps_its_own(sockets, options):
    prepare(sockets[0], options)

    assert sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


@needs_unix
def test_a_unix_socket_is_left_alone():
    left, right = socket.socketpair()
    with left, right:
        prepare(left, SocketOptions())

        assert left.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


def test_where_keepidle_has_another_name_it_is_set_by_that(monkeypatch):
    monkeypatch.delattr(socket, "TCP_KEEPIDLE", raising=False)
    monkeypatch.setattr(socket, "TCP_KEEPALIVE", 0x10, raising=False)

    assert (socket.IPPROTO_TCP, 0x10, 60) in prepared(SocketOptions())


def test_what_a_system_cannot_set_is_left_to_it(monkeypatch):
    for name in ("KEEPIDLE", "KEEPALIVE", "KEEPINTVL", "KEEPCNT", "NOTSENT_LOWAT"):
        monkeypatch.delattr(socket, f"TCP_{name}", raising=False)

    assert prepared(SocketOptions()) == [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    ]


@on_linux
@pytest.mark.parametrize(
    ("options", "set_"), [(None, [1, 60, 15, 4]), (SocketOptions(True, 9, 8, 7), [1, 9, 8, 7])]
)
def test_a_dial_sets_them_on_its_connection(options, set_):
    loop = Loop()
    with serving() as server:
        dial = Dial(loop, Origin("http", "127.0.0.1", server.port), None, options=options)
        events = dial.start()
        while not events:
            events = [event for _, event in loop.turn()]
        (reached,) = events
        assert isinstance(reached, Dialled)

        assert keepalive(reached.transport.sock) == set_
        reached.transport.close()
    loop.close()


# -- what is told ------------------------------------------------------------------------------


def blob(
    state: int = 1, retransmits: int = 0, probes: int = 0, backoff: int = 0, unacked: int = 0
) -> bytes:
    """The head of a struct tcp_info; whatever is not looked at is full of ones."""
    head = struct.pack("=8B", state, 255, retransmits, probes, backoff, 255, 255, 255)
    return head + b"\xff" * 16 + struct.pack("=I", unacked) + b"\xff" * 4


class Silent(socket.socket):
    """A socket whose TCP_INFO is what the test says."""

    def __init__(self, info: bytes) -> None:
        super().__init__()
        self.info = info

    def getsockopt(self, level: int, option: int, size: int = 0) -> bytes:  # type: ignore[override]
        return self.info[:size]


def test_tcp_info_is_read_from_its_head():
    assert TcpInfo.decode(blob(1, 2, 3, 4, 5)) == TcpInfo(1, 2, 3, 4, 5)


@on_linux
@pytest.mark.parametrize(
    ("info", "state"),
    [
        (blob(unacked=1, retransmits=1, backoff=1), "path_dead"),
        (blob(unacked=1, backoff=1), "path_dead"),
        (blob(unacked=1, retransmits=1), "path_dead"),
        (blob(unacked=7), "unknown"),
        (blob(), "peer_hung"),
        (blob(backoff=3, probes=1), "peer_hung"),  # its window is closed, and it says so
        (blob(backoff=3, probes=2), "path_dead"),  # its window was closed, and it says no more
        (blob(state=2, unacked=1, retransmits=1), "unknown"),
        (blob(state=7), "unknown"),
        (blob()[:27], "unknown"),
        (b"", "unknown"),
    ],
)
def test_what_is_acknowledged_tells_a_dead_path_from_a_peer_that_hangs(info, state):
    with Silent(info) as sock:
        assert Transport(sock, ADDRESS).path_state() == state


@on_linux
def test_a_peer_that_is_connected_and_says_nothing_hangs(sockets):
    transport = Transport(sockets[0], ADDRESS)
    assert transport.path_state() == "peer_hung"

    sockets[0].send(b"octets that nobody reads")

    # The other end's kernel takes them; over loopback it acknowledges before send returns.
    assert read_tcp_info(sockets[0]) == TcpInfo(1, 0, 0, 0, 0)
    assert transport.path_state() == "peer_hung"


def test_of_a_closed_socket_nothing_is_known(sockets):
    transport = Transport(sockets[0], ADDRESS)
    transport.close()

    assert read_tcp_info(sockets[0]) is None
    assert transport.path_state() == "unknown"


def test_of_a_socket_that_is_not_connected_nothing_is_known():
    with socket.socket() as sock:
        assert Transport(sock, ADDRESS).path_state() == "unknown"


@needs_unix
def test_of_a_unix_socket_nothing_is_known():
    left, right = socket.socketpair()
    with left, right:
        assert read_tcp_info(left) is None
        assert Transport(left, "").path_state() == "unknown"


def test_on_other_systems_nothing_is_known(sockets, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")

    assert read_tcp_info(sockets[0]) is None
    assert Transport(sockets[0], ADDRESS).path_state() == "unknown"
