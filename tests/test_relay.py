"""The relay between two plain sockets: what it copies, what it holds back, how it breaks off.

Nothing here waits for silence: what a new connection has just carried there and back would have
come on the frozen one as well.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from h2lite import relay as relay_module
from h2lite.client import connect
from h2lite.dial import Dial
from h2lite.errors import PingTimeout, UsageError
from h2lite.loop import Loop, monotonic
from h2lite.relay import HELD_OCTETS_MAX, Relay
from h2lite.testing import Clock
from h2lite.transport import RECV_OCTETS, Transport

from .running import PATIENCE_S, exactly, needs_ipv6, serving

SMALL = 4096  # octets of a kernel's buffer


class Wire:
    """A relay, its target, and the clients that connect."""

    def __init__(self, listener: socket.socket, relay: Relay) -> None:
        self.listener = listener
        self.relay = relay
        self.socks: list[socket.socket] = []

    def client(self) -> socket.socket:
        return self._keep(socket.create_connection(("127.0.0.1", self.relay.port), PATIENCE_S))

    def target(self) -> socket.socket:
        return self._keep(self.listener.accept()[0])

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """Both ends of a connection that has carried something already."""
        client, target = self.client(), self.target()
        client.sendall(b"!")
        assert target.recv(100) == b"!"
        return client, target

    def probe(self) -> None:
        """Carry something there and back on a new connection."""
        client, target = self.connect()
        client.sendall(b"there")
        assert target.recv(100) == b"there"
        target.sendall(b"back")
        assert client.recv(100) == b"back"

    def _keep(self, sock: socket.socket) -> socket.socket:
        sock.settimeout(PATIENCE_S)
        self.socks.append(sock)
        return sock


@contextmanager
def wired(small: bool = False) -> Iterator[Wire]:
    """small: the kernels' receive buffers, the relay's and the target's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        if small:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        address = listener.getsockname()
        with Relay(address, receive_buffer=SMALL if small else None) as relay:
            wire = Wire(listener, relay)
            try:
                yield wire
            finally:
                for sock in wire.socks:
                    sock.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    with wired() as wire:
        yield wire


def is_silent(sock: socket.socket) -> bool:
    """Nothing has come, not even an end."""
    sock.setblocking(False)
    try:
        sock.recv(1)
    except BlockingIOError:
        return True
    finally:
        sock.settimeout(PATIENCE_S)
    return False


def was_reset(sock: socket.socket) -> bool:
    try:
        sock.recv(1)
    except ConnectionResetError:
        return True
    return False


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


def fill(sock: socket.socket) -> int:
    """Send until the socket takes no more; how many octets it took.

    It takes none for a moment while others make room: only a lasting refusal counts.
    """
    sock.settimeout(0.05)
    total = 0
    try:
        while True:
            total += sock.send(bytes(RECV_OCTETS))
    except TimeoutError:
        return total
    finally:
        sock.settimeout(PATIENCE_S)


def until_held(wire: Wire) -> None:
    """Wait until the relay holds something of its only connection."""
    (pair,) = wire.relay._pairs
    deadline = monotonic() + PATIENCE_S
    while not any(end._held for end in pair.ends):
        assert monotonic() < deadline
        wire.relay.rate(0)  # a call is done when it returns: a turn has passed


# -- copying -----------------------------------------------------------------------------------


def test_octets_cross_both_ways_on_each_connection(wire):
    first, second = wire.connect(), wire.connect()

    for client, target, octets in (*first, b"1"), (*second, b"2"):
        client.sendall(octets * 100_000)
        target.sendall(b"-" + octets)
        assert exactly(target, 100_000) == octets * 100_000
        assert exactly(client, 2) == b"-" + octets
    assert (wire.relay.connections, wire.relay.accepted) == (2, 2)


@needs_ipv6
def test_it_listens_and_dials_by_ipv6():
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        listener.settimeout(PATIENCE_S)
        with (
            Relay(("::1", listener.getsockname()[1]), host="::1") as relay,
            socket.create_connection(("::1", relay.port), PATIENCE_S) as client,
            listener.accept()[0] as target,
        ):
            client.sendall(b"x")
            assert target.recv(1) == b"x"


def test_a_fin_crosses_and_the_other_way_goes_on(wire):
    client, target = wire.connect()

    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    assert (exactly(target, 8), target.recv(1)) == (b"question", b"")
    target.sendall(b"answer")
    target.close()
    assert (exactly(client, 6), client.recv(1)) == (b"answer", b"")
    wire.probe()
    assert wire.relay.connections == 1


@pytest.mark.parametrize("who", [0, 1], ids=["client", "target"])
def test_an_rst_crosses(wire, who):
    ends = wire.connect()

    reset(ends[who])
    assert was_reset(ends[1 - who])
    wire.probe()
    assert wire.relay.connections == 1


def test_a_client_whose_target_refuses_is_closed():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with (
        Relay(address) as relay,
        socket.create_connection(("127.0.0.1", relay.port), PATIENCE_S) as client,
    ):
        assert client.recv(1) == b""
        assert (relay.connections, relay.accepted) == (0, 1)


def test_a_client_whose_target_cannot_even_be_dialled_is_closed():
    with (
        Relay(("255.255.255.255", 80)) as relay,  # broadcast: no TCP
        socket.create_connection(("127.0.0.1", relay.port), PATIENCE_S) as client,
    ):
        assert client.recv(1) == b""
        assert relay.connections == 0


def test_who_nobody_reads_from_is_held_up_and_loses_nothing():
    with wired(small=True) as wire:
        client, target = wire.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)

        sent = fill(client)
        (pair,) = wire.relay._pairs
        assert HELD_OCTETS_MAX <= pair.ends[1]._held < HELD_OCTETS_MAX + RECV_OCTETS
        assert exactly(target, sent) == bytes(sent)
        client.sendall(b"x")
        assert target.recv(1) == b"x"


def test_connections_past_the_limit_are_closed(wire, monkeypatch):
    monkeypatch.setattr(relay_module, "CONNECTIONS_MAX", 1)
    client, target = wire.connect()

    assert wire.client().recv(1) == b""
    assert (wire.relay.connections, wire.relay.accepted) == (1, 2)
    client.sendall(b"x")
    assert target.recv(1) == b"x"


# -- freezing ----------------------------------------------------------------------------------


def test_a_frozen_connection_is_silent_both_ways_and_goes_on_where_it_stopped(wire):
    client, target = wire.connect()
    client.sendall(b"1")
    assert target.recv(1) == b"1"
    assert wire.relay.frozen_at is None
    before = monotonic()

    wire.relay.freeze()
    assert before <= (wire.relay.frozen_at or 0) <= monotonic()
    client.sendall(b"2")
    client.shutdown(socket.SHUT_WR)
    target.sendall(b"3")
    wire.probe()
    assert is_silent(client)
    assert is_silent(target)
    assert wire.relay.connections == 2

    wire.relay.thaw()
    assert (target.recv(100), target.recv(1), client.recv(100)) == (b"2", b"", b"3")
    wire.probe()


def test_who_has_just_connected_is_frozen_too(wire):
    def connect_and_freeze() -> None:
        wire.client()
        wire.relay._freeze(False)

    # In the relay's thread, so that between the two it has no turn to see who is there.
    wire.relay._in_thread(connect_and_freeze)
    wire.socks[0].sendall(b"x")
    target = wire.target()

    wire.probe()
    assert is_silent(target)
    wire.relay.thaw()
    assert target.recv(1) == b"x"


def test_an_rst_does_not_cross_a_frozen_connection(wire):
    client, target = wire.connect()
    wire.relay.freeze()

    reset(target)
    wire.probe()
    assert is_silent(client)
    wire.relay.thaw()
    assert was_reset(client)


def test_what_a_frozen_connection_held_already_stays_held(wire):
    client, target = wire.connect()
    wire.relay.delay(0.02)
    client.sendall(b"x")
    until_held(wire)
    wire.relay.freeze()

    wire.probe()  # takes longer than was left of the delay
    wire.relay.rate(0)
    assert is_silent(target)
    wire.relay.thaw()
    assert target.recv(1) == b"x"


def test_new_connections_can_be_frozen_from_their_start(wire):
    old = wire.connect()
    wire.relay.freeze(new=True)
    client = wire.client()
    client.sendall(b"x")
    old[0].sendall(b"y")

    wire.relay.rate(0)  # a call is done when it returns: so was everything before it
    wire.listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        wire.listener.accept()
    assert wire.relay.connections == 2

    wire.listener.settimeout(PATIENCE_S)
    wire.relay.thaw()
    assert (old[1].recv(1), wire.target().recv(1)) == (b"y", b"x")
    wire.probe()


def test_a_small_receive_buffer_makes_a_frozen_clients_writes_block_soon():
    with wired(small=True) as wire:
        client, _ = wire.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
        wire.relay.freeze()

        assert fill(client) <= 65536


# -- breaking off ------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [False, True])
def test_reset_resets_both_ends_of_every_live_connection(wire, frozen):
    ends = (*wire.connect(), *wire.connect())
    if frozen:
        wire.relay.freeze()

    wire.relay.reset()
    assert [was_reset(end) for end in ends] == [True] * 4
    assert wire.relay.connections == 0
    wire.probe()


def test_a_connection_that_ends_at_both_ends_at_once_ends_once(wire):
    ends = wire.connect()

    def reset_both() -> None:
        for end in ends:
            reset(end)

    wire.relay._in_thread(reset_both)  # so that one turn sees both
    wire.probe()
    assert wire.relay.connections == 1


def test_a_connection_whose_client_went_while_it_was_frozen_ends_with_the_thaw(wire):
    client, target = wire.connect()
    wire.relay.delay(0.02)
    target.sendall(b"x")
    until_held(wire)
    wire.relay.freeze()
    reset(client)
    wire.probe()  # takes longer than was left of the delay

    wire.relay.thaw()
    assert was_reset(target)
    wire.probe()


def test_reset_ends_a_dial_that_is_under_way(wire, monkeypatch):
    class Pending(Dial):
        closed = False

        def start(self):
            return []

        def close(self):
            Pending.closed = True

    monkeypatch.setattr(relay_module, "Dial", Pending)
    client = wire.client()
    wire.relay.rate(0)
    assert wire.relay.connections == 1

    wire.relay.reset()
    assert was_reset(client)
    assert (wire.relay.connections, Pending.closed) == (0, True)


def test_reset_reaches_a_client_whose_target_has_not_heard_of_it(wire):
    wire.relay.freeze(new=True)
    client = wire.client()

    wire.relay.reset()
    assert was_reset(client)


def test_finish_is_a_fin_to_the_client_behind_what_is_on_its_way(wire):
    client, target = wire.connect()
    wire.relay.delay(0.03, "down")
    target.sendall(b"answer")
    until_held(wire)

    wire.relay.finish()
    assert (exactly(client, 6), client.recv(1)) == (b"answer", b"")
    client.sendall(b"more")
    assert exactly(target, 4) == b"more"
    client.close()
    assert target.recv(1) == b""
    wire.relay.finish()
    wire.relay.delay(0)
    wire.probe()
    assert wire.relay.connections == 1


def test_after_finish_nothing_the_target_says_is_copied(wire):
    client, target = wire.connect()
    wire.relay.finish()
    target.sendall(b"late")
    wire.relay.finish()

    wire.probe()
    assert client.recv(100) == b""
    client.sendall(b"more")
    assert exactly(target, 4) == b"more"


def test_a_frozen_client_hears_of_its_finish_after_the_thaw(wire):
    client, _ = wire.connect()
    wire.relay.freeze(new=True)
    new = wire.client()
    wire.relay.finish()
    wire.relay.finish()

    assert [len(pair.ends[0]._coming) for pair in wire.relay._pairs if pair.ends] == [1]
    assert is_silent(client)
    assert is_silent(new)
    wire.relay.thaw()
    assert (client.recv(1), new.recv(1)) == (b"", b"")


# -- slowness ----------------------------------------------------------------------------------


def test_a_delay_passes_before_each_octet_and_the_order_is_kept(wire):
    client, target = wire.connect()
    wire.relay.delay(0.1)
    began = monotonic()
    client.sendall(b"a")
    until_held(wire)

    wire.relay.delay(0)
    client.sendall(b"b")
    client.shutdown(socket.SHUT_WR)
    assert (exactly(target, 2), target.recv(1)) == (b"ab", b"")
    assert monotonic() - began >= 0.1


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("how", ["delay", "rate"])
def test_slowness_can_be_that_of_one_direction(wire, how, direction):
    ends = wire.connect()
    slow, fast = ends if direction == "up" else reversed(ends)
    if how == "delay":
        wire.relay.delay(60, direction)
    else:
        wire.relay.rate(0.01, direction)
        slow.sendall(b"1")  # after it the line is busy for 100 s
        assert fast.recv(1) == b"1"

    slow.sendall(b"2")
    fast.sendall(b"3")
    assert slow.recv(1) == b"3"
    until_held(wire)
    assert is_silent(fast)


def test_a_rate_is_kept_on_average(wire):
    client, target = wire.connect()
    wire.relay.rate(100_000)
    began = monotonic()

    client.sendall(bytes(20_000))
    assert exactly(target, 20_000) == bytes(20_000)
    assert 0.18 <= monotonic() - began < 2.0


def test_another_rate_holds_for_what_is_held_already(wire):
    client, target = wire.connect()
    wire.relay.rate(0.01)
    client.sendall(bytes(1000))
    assert target.recv(100) == b"\0"  # the next one is due in 100 s

    wire.relay.rate(0)
    assert exactly(target, 999) == bytes(999)


def test_a_turn_that_comes_late_is_made_up_for_and_a_long_block_is_not():
    clock = Clock(100.0)
    loop = Loop(clock)
    pace = relay_module._Pace()
    pace.octets_per_s = 1000.0
    relay = SimpleNamespace(_loop=loop, _paces={"up": pace, "down": pace})
    ours, client = socket.socketpair()
    theirs, target = socket.socketpair()
    with ours, client, theirs, target:
        pair = relay_module._Pair(relay, Transport(ours, ""))  # type: ignore[arg-type]
        pair.join(Transport(theirs, ""))
        pair.ends[1].take(bytes(1000), clock.now)
        came = [len(target.recv(1000))]
        for now in (100.012, 100.024, 100.032, 105.0):
            pair.ends[1].handle_deadline(now)
            came.append(len(target.recv(1000)))
        loop.close()

    assert came == [10, 10, 10, 10, 20]


# -- its life ----------------------------------------------------------------------------------


def test_close_ends_thread_listener_and_connections():
    with wired() as wire:
        client, target = wire.connect()
        wire.relay.close()

        assert not wire.relay._thread.is_alive()
        assert (client.recv(1), target.recv(1)) == (b"", b"")
        assert wire.relay.connections == 0
        with pytest.raises(ConnectionRefusedError):
            wire.client()
        wire.relay.close()
        with pytest.raises(UsageError, match=r"^the relay is closed$"):
            wire.relay.freeze()


def test_close_ends_a_frozen_connection_too(wire):
    wire.relay.freeze(new=True)
    client = wire.client()
    wire.relay.rate(0)

    wire.relay.close()
    assert client.recv(1) == b""


def test_close_returns_when_the_thread_has_ended(wire, monkeypatch):
    def close_slowly(close=wire.relay._listener.close) -> None:
        time.sleep(0.05)
        close()

    monkeypatch.setattr(wire.relay._listener, "close", close_slowly)
    wire.relay.close()
    assert not wire.relay._thread.is_alive()


def test_a_call_that_comes_while_the_thread_ends_returns(wire, monkeypatch):
    relay = wire.relay
    late = threading.Thread(target=lambda: relay.rate(0))

    def and_one_more(before=relay._do_posted) -> None:
        before()
        if relay._ending:
            late.start()
            while not relay._posted:
                time.sleep(0.001)

    monkeypatch.setattr(relay, "_do_posted", and_one_more)
    relay.close()
    late.join(PATIENCE_S)
    assert not late.is_alive()


def test_calls_from_many_threads_are_all_carried_out(wire):
    client, target = wire.connect()

    def shake() -> None:
        for _ in range(20):
            wire.relay.freeze()
            wire.relay.rate(0)
            wire.relay.thaw()

    threads = [threading.Thread(target=shake) for _ in range(4)]
    for thread in threads:
        thread.start()
    client.sendall(bytes(200_000))
    for thread in threads:
        thread.join(PATIENCE_S)
    assert exactly(target, 200_000) == bytes(200_000)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"target": "localhost:80"}, "target 'localhost:80', want (host, port)"),
        ({"target": ("a", 0)}, "port 0, want 1 to 65535"),
        ({"target": ("a", 65536)}, "port 65536, want 1 to 65535"),
        ({"target": ("a", "80")}, "port '80', want 1 to 65535"),
        ({"target": (None, 80)}, "target None, want a name or a numeric address"),
        ({"host": "unix:/x"}, "host 'unix:/x', want a name or a numeric address"),
        ({"port": -1}, "port -1, want 0 to 65535"),
        ({"receive_buffer": 0}, "receive_buffer of 0, want octets, above 0"),
        ({"receive_buffer": "4k"}, "receive_buffer of '4k', want octets, above 0"),
    ],
)
def test_a_wrong_argument_is_refused_in_words(arguments, sentence):
    before = threading.active_count()

    with pytest.raises(UsageError) as caught:
        Relay(**{"target": ("127.0.0.1", 80), **arguments})
    assert str(caught.value) == sentence
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("method", "arguments", "sentence"),
    [
        ("delay", (-1,), "delay of -1, want seconds, 0 (none) or more"),
        ("delay", (float("nan"),), "delay of nan, want seconds, 0 (none) or more"),
        ("delay", (float("inf"),), "delay of inf, want seconds, 0 (none) or more"),
        ("delay", ("1",), "delay of '1', want seconds, 0 (none) or more"),
        ("rate", (-1,), "rate of -1, want octets a second, 0 (no limit) or more"),
        ("delay", (1, "left"), "direction 'left', want \"up\", \"down\" or \"both\""),
        ("rate", (1, "left"), "direction 'left', want \"up\", \"down\" or \"both\""),
    ],
)
def test_a_wrong_pace_is_refused_and_changes_nothing(wire, method, arguments, sentence):
    with pytest.raises(UsageError) as caught:
        getattr(wire.relay, method)(*arguments)

    assert str(caught.value) == sentence
    paces = wire.relay._paces.values()
    assert [(pace.delay_s, pace.octets_per_s) for pace in paces] == [(0.0, 0.0)] * 2


def test_a_port_in_use_is_an_oserror_and_leaves_nothing(wire, monkeypatch):
    loop = Loop()
    monkeypatch.setattr(relay_module, "Loop", lambda clock: loop)
    before = threading.active_count()

    with pytest.raises(OSError, match="in use"):
        Relay(("127.0.0.1", 80), port=wire.relay.port)
    assert threading.active_count() == before
    assert loop._selector.get_map() is None  # closed


# -- under HTTP/2 ------------------------------------------------------------------------------


def test_pings_cross_it_and_none_is_answered_while_it_is_frozen():
    with (
        serving() as server,
        Relay(("127.0.0.1", server.port)) as relay,
        connect(f"http://127.0.0.1:{relay.port}") as connection,
    ):
        connection.ping()
        relay.freeze()
        with pytest.raises(PingTimeout):
            connection.ping(timeout=0.05)
        relay.thaw()
        connection.ping()
