"""The pool's scenarios: who dials and when, who waits, and what a standstill may not break.

On virtual time, with servers by script; every instant is exact.  The real `Dial` races real
addresses, under a clock that the test holds.  Grounds: RFC 9113 §5.1.2, §6.7, §9.1; RFC 8305 §5.
"""

from __future__ import annotations

import gc
import socket
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from h2lite import events as ev
from h2lite.call import Call
from h2lite.errors import (
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    ErrorCode,
    RemoteProtocolError,
    RequestCancelled,
    TLSError,
)
from h2lite.frames import PingFrame, WindowUpdateFrame
from h2lite.health import LIVE, STATE_NAMES, HealthPolicy
from h2lite.loop import LINGER_S
from h2lite.orders import Deliver, StateChanged
from h2lite.settings import SettingId
from h2lite.testing import Answer, Seen, VirtualServer, World

from .test_dial import LOCALHOST, Race, swallowing

SOON_S = 0.001  # all that follows at once has happened by then
HOLD = Answer(hold=True)
OK = (200, True, None)
NO_DEATH: dict[str, int] = {}


def about(instants: Any) -> Any:
    """What floats add up to."""
    return pytest.approx(instants)


def held(seen: Seen) -> Answer:
    return HOLD


def ends(call: Call) -> tuple[int, bool, type | None]:
    """What became of a request: its status, whether it is complete, its error's class."""
    return call.status, call.ended, None if call.error is None else type(call.error)


def came(server: VirtualServer) -> list[tuple[float, int, int]]:
    """The requests that came: instant, connection, stream."""
    return [(seen.at, seen.line.number, seen.stream_id) for seen in server.seen]


def ping_instants(server: VirtualServer) -> list[float]:
    return [at for at, *_ in server.pings]


def changes(world: World) -> list[tuple[float, int, str, str]]:
    """Each change of state: instant, connection, state, cause."""
    return [
        (at, told.member.number, STATE_NAMES[told.after], told.cause)
        for at, told in world.told(StateChanged)
    ]


def gaps(instants: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(instants)]


def poll(world: World) -> None:
    """Look once: what has come is read, then judged."""
    for _ in range(3):
        world.turn(world.clock.now)


# -- one dial for all --------------------------------------------------------------------------


def test_dial_coalesce():
    world = World()
    server = world.serve(delay_s=0.01)
    calls = [world.request(server) for _ in range(10)]

    world.run(1.0)
    world.pool.close(world.clock.now)
    world.run(2.0)

    assert [ends(call) for call in calls] == [OK] * 10
    # Handshake 40 ms, SETTINGS 10 ms, HEADERS 10 ms.
    assert came(server) == [(about(0.06), 1, stream) for stream in range(1, 20, 2)]
    assert (server.dials, len(server.lines)) == ([0.0], 1)
    assert [change[1:] for change in changes(world)] == [(1, "LIVE", ""), (1, "DEAD", "local")]
    assert (server.lines[0].client.is_closed, world.driver.is_idle) == (True, True)


def test_dial_owner_cancel():
    world = World()
    server = world.serve(delay_s=0.1)
    first = world.request(server)
    second = world.request(server)
    world.run(0.2)

    world.cancel(first)
    world.run(1.0)

    assert (ends(first), ends(second)) == ((0, False, RequestCancelled), OK)
    assert (server.dials, len(server.seen)) == ([0.0], 1)


def test_dial_owner_cancel_leaves_the_dial_to_the_next():
    world = World()
    server = world.serve(delay_s=0.1)
    first = world.request(server)
    world.run(0.2)
    world.cancel(first)
    world.run(0.3)

    second = world.request(server)
    world.run(0.7 + SOON_S)

    assert (ends(second), server.dials) == (OK, [0.0])
    assert [seen.at for seen in server.seen] == [about(0.6)]


# -- the peer's limit --------------------------------------------------------------------------


def test_max_streams_queue():
    world = World()
    server = world.serve()
    server.settings = {SettingId.MAX_CONCURRENT_STREAMS: 2}
    server.answer = lambda seen: Answer(delay_s=2.0) if len(server.seen) == 1 else HOLD
    calls = [world.request(server) for _ in range(4)]
    world.run(1.0)

    world.cancel(calls[2])

    assert str(calls[2].error) == "the request was cancelled"
    world.run(3.0)
    assert [ends(call) for call in calls] == [
        OK,
        (0, False, None),
        (0, False, RequestCancelled),
        (0, False, None),
    ]
    assert [(seen.at, seen.stream_id, seen.tag) for seen in server.seen] == [
        (0.0, 1, "1"),
        (0.0, 3, "2"),
        (2.0, 5, "4"),
    ]
    assert server.dials == [0.0]


def test_max_streams_low():
    world = World()
    server = world.serve()
    server.settings = {SettingId.MAX_CONCURRENT_STREAMS: 1}
    server.answer = lambda seen: Answer(delay_s=1.0)
    calls = [world.request(server) for _ in range(3)]

    world.run(3.0 + SOON_S)

    assert [ends(call) for call in calls] == [OK] * 3
    assert came(server) == [(0.0, 1, 1), (1.0, 1, 3), (2.0, 1, 5)]
    assert server.dials == [0.0]


def test_checkout_never_blocks():
    world = World()
    blocked = world.serve("blocked.test", capacity_octets=4096)
    quick = world.serve("quick.test")
    first = world.request(blocked)
    world.run(1.0)
    blocked.reads = False
    upload = world.request(blocked, "POST", bytes(60_000))
    world.run(2.0)
    assert (ends(first), blocked.lines[0].up.room) == (OK, 0)

    call = world.request(quick)
    behind = world.request(blocked)
    world.run(2.0 + SOON_S)

    assert (ends(call), came(quick)) == (OK, [(2.0, 1, 1)])
    assert (ends(upload), ends(behind)) == ((0, False, None), (0, False, None))
    assert (blocked.lines[0].up.room, len(blocked.seen)) == (0, 1)


def test_recheck_after_await():
    """Whoever has waited for a PING's answer asks the pool again, not its memory."""
    world = World()
    server = world.serve(delay_s=0.1)
    world.request(server)
    world.run(1.0)
    (member,) = world.pool.members
    ping = world.pool.ping(member, world.clock.now, timeout_s=5.0)
    world.run(1.05)

    server.peers[0].kill()
    while not ping.over:
        world.turn()
    call = world.request(server)

    assert isinstance(ping.error, ConnectionLost)
    assert (ping.error.cause, world.clock.now) == ("reset", about(1.15))
    world.run(3.0)
    assert (ends(call), call.retries) == (OK, 0)
    assert [line for _, line, _ in came(server)] == [1, 2]
    assert [at for at, told in world.told(Deliver) if told.item is ping] == [about(1.15)]


# -- we stand still ourselves ------------------------------------------------------------------


@pytest.mark.parametrize("where", ["between turns", "in the wait", "behind the wait"])
def test_loop_stall(where, monkeypatch):
    """P + 2 s with the ack in the kernel's queue: it is read before anything is judged."""
    world = World()
    server = world.serve(delay_s=0.05)
    server.answer = held
    call = world.request(server)
    world.run(30.26)  # SETTINGS came at 0.25, so the PING left at 30.25
    assert changes(world)[-1] == (about(30.25), 1, "PROBING", "")

    if where == "between turns":
        world.stall(17.0)
    elif where == "in the wait":
        world.selector.oversleep_s = 17.0
    else:
        select = world.selector.select

        def select_then_stop(timeout: float | None) -> Any:
            ready = select(timeout)
            world.stall(17.0)
            return ready

        with monkeypatch.context() as patch:
            patch.setattr(world.selector, "select", select_then_stop)
            world.turn(30.3)
    world.run(60.0)

    assert [change for change in changes(world) if change[2] in ("SUSPECT", "DEAD")] == []
    assert world.pool.stats()["deaths"] == NO_DEATH
    assert ends(call) == (0, False, None)
    server.peers[0].respond(server.seen[0])
    world.run(61.0)
    assert (ends(call), server.dials) == (OK, [0.0])


def test_loop_stall_polled_every_7_s():
    """As `poll_rarely`, for whom there is a request under way: it is told of the death."""
    world = World(HealthPolicy(stale_after=0.0, jitter=False))
    server = world.serve()
    server.answer = held
    call = world.request(server, "POST")
    world.run(0.0 + SOON_S)
    server.lines[0].blackhole()

    for at in range(7, 78, 7):
        world.network.advance(float(at))
        poll(world)

    assert isinstance(call.error, ConnectionLost)
    assert (call.error.cause, world.clock.now) == ("path_dead", 77.0)


@pytest.mark.parametrize("stopped_at", [5.0, 29.9, 30.26, 30.3, 30.36, 44.0])
def test_client_sigstop(stopped_at):
    """The client stands still for 2 P, a PING being due, out, or answered; nobody is doubted."""
    world = World()
    server = world.serve(delay_s=0.05)
    server.answer = lambda seen: Answer(body=b"abcd", pieces=4, body_gap_s=25.0)
    call = world.request(server)
    world.run(stopped_at)

    world.stall(30.0)
    world.run(150.0)

    assert (ends(call), world.bodies[call]) == (OK, b"abcd")
    stats = world.pool.stats()
    assert (stats["deaths"], stats["suspects"], server.dials) == (NO_DEATH, 0, [0.0])


@pytest.mark.parametrize("stopped_at", [0.1, 0.22])
def test_client_sigstop_during_a_dial(stopped_at):
    """Before TCP stands, and before the peer's SETTINGS: what waits for them waits on."""
    world = World()
    server = world.serve(delay_s=0.05)
    call = world.request(server)
    world.run(stopped_at)

    world.stall(30.0)
    world.run(60.0)

    assert (ends(call), server.dials) == (OK, [0.0])
    assert world.pool.stats()["dials_failed"] == 0


@pytest.mark.parametrize("where", ["between turns", "in the wait"])
def test_suspend_jump(where):
    """600 s have passed at once.  Nobody knows what is left, so nothing leaves before an octet."""
    world = World(idle_close=0.0)
    alive, gone = world.serve("alive.test", delay_s=0.05), world.serve("gone.test", delay_s=0.05)
    for server in (alive, gone):
        world.request(server)
    world.run(20.0)

    if where == "between turns":
        world.stall(600.0)
        gone.lines[0].blackhole()
    else:
        gone.lines[0].blackhole()
        world.selector.oversleep_s = 600.0
        world.turn(20.0)
    assert world.clock.now == 620.0
    calls = [world.request(server, "POST", b"body") for server in (alive, gone)]
    world.run(630.0)

    assert [ends(call) for call in calls] == [OK, OK]
    # One round trip for the PING, then half of one for the request.
    assert came(alive)[1:] == [(about(620.15), 1, 3)]
    assert (ping_instants(alive), alive.dials) == ([about(620.05)], [0.0])
    # Without a sample of the round trip the soft deadline is 3 s; then a dial.
    assert gone.dials == [0.0, 623.0]
    assert [(line, stream) for _, line, stream in came(gone)] == [(1, 1), (2, 1)]
    gone_member = world.pool.members[1]
    assert [change[0::2] for change in changes(world) if change[1] == gone_member.number][1:] == [
        (620.0, "PROBING"),
        (623.0, "SUSPECT"),
    ]


# -- dialling again ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_mass_death(seed):
    world = World(HealthPolicy(), seed=seed, connections_per_origin_max=50)
    server = world.serve(delay_s=0.005)
    server.settings = {SettingId.MAX_CONCURRENT_STREAMS: 1}
    server.answer = held
    for _ in range(50):
        world.request(server, "POST")
    world.run(20.0)
    assert len(world.pool.members) == 50
    waiting = [world.request(server) for _ in range(20)]
    server.answer = lambda seen: Answer()
    world.run(21.0)
    dialled = len(server.dials)

    for index, peer in enumerate([*server.peers]):
        world.network.later(0.002 * index, peer.kill)
    world.run(60.0)

    dials = server.dials[dialled:]
    assert world.pool.stats()["deaths"] == {"reset": 50}
    assert [ends(call) for call in waiting] == [OK] * 20
    assert dialled == 50
    assert len([at for at in dials if at <= 21.0 + 0.1]) <= 2
    # One after another: SETTINGS of the last are here before the next begins.
    assert all(gap >= 0.02 for gap in gaps(dials))


def keep_asking(world: World, server: VirtualServer, until: float, every_s: float) -> None:
    """Have a request wait at any instant, whatever becomes of those before it."""
    while world.clock.now < until:
        world.request(server, "POST")
        world.run_for(every_s)


BACKOFF_S = [1.0, 1.6, 2.56, 4.096, 6.5536, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0]


def test_backoff_curve():
    world = World()
    server = world.serve()
    server.is_listening = False

    keep_asking(world, server, until=90.0, every_s=0.25)

    assert gaps(server.dials[:12]) == about(BACKOFF_S)
    assert world.pool.stats()["dials_failed"] == len(server.dials)


@pytest.mark.parametrize("seed", range(5))
def test_backoff_curve_spread(seed):
    world = World(HealthPolicy(), seed=seed)
    server = world.serve()
    server.is_listening = False

    keep_asking(world, server, until=110.0, every_s=0.25)

    drawn = [gap / least for gap, least in zip(gaps(server.dials[:12]), BACKOFF_S, strict=True)]
    assert all(0.8 - 1e-9 <= ratio <= 1.2 + 1e-9 for ratio in drawn)
    assert min(drawn) < 1.0 < max(drawn)


@pytest.mark.parametrize("how", ["GOAWAY", "FIN", "RST"])
def test_flap(how):
    """A connection that came up is no proof: it has not been of any use."""
    world = World()
    server = world.serve()

    def flap(seen: Seen) -> Answer:
        if seen.stream_id == 1:
            (peer,) = server.peers
            ends = {"GOAWAY": lambda: peer.goaway(0), "FIN": peer.close, "RST": peer.kill}
            server.later(0.05, ends[how])
        return HOLD

    server.answer = flap
    keep_asking(world, server, until=30.0, every_s=0.25)

    expected = [delay + 0.05 for delay in BACKOFF_S]
    assert gaps(server.dials) == about(expected[: len(server.dials) - 1])
    assert len(server.dials) == 7


@pytest.mark.parametrize(("lived_s", "back_off_s"), [(10.0, 0.0), (9.9, 1.0)])
def test_backoff_reset(lived_s, back_off_s):
    world = World()
    server = world.serve()
    server.answer = held
    world.request(server)
    world.run(lived_s)

    server.peers[0].kill()
    world.run(20.0)

    assert server.dials == [0.0, about(lived_s + back_off_s)]


@pytest.mark.parametrize("seed", range(5))
def test_backoff_reset_after_failures(seed):
    """What had grown is forgotten: the next dial comes within 100 ms, the one after in 1 s."""
    world = World(HealthPolicy(), seed=seed)
    server = world.serve()
    server.is_listening = False
    keep_asking(world, server, until=12.0, every_s=0.25)
    server.is_listening = True
    server.answer = held
    keep_asking(world, server, until=25.0, every_s=1.0)
    up_at = server.dials[-1]
    world.run(up_at + 10.001)
    server.is_listening = False

    lost_at = world.clock.now
    server.peers[0].kill()
    keep_asking(world, server, until=lost_at + 1.5, every_s=0.05)

    first, second = server.dials[-2:]
    assert lost_at <= first <= lost_at + 0.1
    assert 0.8 <= second - first <= 1.2


# -- idle connections --------------------------------------------------------------------------


def test_idle_reads_served(monkeypatch):
    world = World()
    server = world.serve(delay_s=0.05)
    world.request(server)
    world.run(5.0)
    (peer,) = server.peers
    heard: list[tuple[float, Any]] = []
    monkeypatch.setattr(peer, "_on_event", lambda event: heard.append((world.clock.now, event)))

    peer.connection.ping(b"12345678", world.clock.now)
    peer.connection.update_settings({SettingId.MAX_CONCURRENT_STREAMS: 7}, world.clock.now)
    peer.start()
    world.run(6.0)

    assert [(at, type(event)) for at, event in heard] == [
        (about(5.1), ev.PingAcked),
        (about(5.1), ev.SettingsAcked),
    ]
    assert heard[0][1].opaque_data == b"12345678"
    monkeypatch.undo()
    call = world.request(server)
    world.run(7.0)
    assert (ends(call), server.dials) == (OK, [0.0])
    (member,) = world.pool.members
    assert member.connection.peer_settings[SettingId.MAX_CONCURRENT_STREAMS] == 7


def test_eof_while_idle():
    world = World()
    server = world.serve(delay_s=0.05)
    world.request(server)
    world.run(5.0)

    server.peers[0].close()
    world.run(5.05 + SOON_S)
    assert world.pool.members == []
    call = world.request(server)
    world.run(6.0)

    assert (ends(call), call.retries) == (OK, 0)
    assert [line for _, line, _ in came(server)] == [1, 2]
    assert server.dials == [0.0, about(5.05 + SOON_S)]
    assert changes(world)[1] == (about(5.05), 1, "DEAD", "eof")
    assert world.pool.stats()["deaths"] == {"eof": 1}


def test_tls_close_hang():
    """A peer that never reads our GOAWAY, nor answers our end, is waited for no longer."""
    world = World()
    server = world.serve()
    server.answer = held
    call = world.request(server, "POST")
    world.run(5.0)
    line = server.lines[0]
    line.blackhole()

    world.pool.close(world.clock.now)
    world.run(5.0 + LINGER_S - SOON_S)
    assert isinstance(call.error, ConnectionLost)
    assert (call.error.cause, world.driver.is_idle, line.client.is_closed) == (
        "local",
        False,
        False,
    )
    world.run(5.0 + LINGER_S)

    assert (LINGER_S, world.driver.is_idle, line.client.is_closed) == (0.25, True, True)
    assert world.loop.next_deadline() is None


@pytest.mark.parametrize("how", ["refused", "eof", "reset"])
def test_first_conn_error_surfaces(how):
    world = World()
    server = world.serve(delay_s=0.1)
    server.is_listening = how != "refused"
    server.sends_settings = False
    call = world.request(server)
    world.run(0.45)
    if how == "eof":
        server.peers[0].close()
    elif how == "reset":
        server.peers[0].kill()
    world.run(0.6)

    failed_at = 0.4 if how == "refused" else 0.55
    assert type(call.error) is (ConnectError if how == "refused" else TLSError)
    assert str(call.error) == {
        "refused": "cannot connect to https://a.test: refused",
        "eof": "https://a.test (virtual:0): HTTP/2 did not begin: the peer closed the connection",
        "reset": "https://a.test (virtual:0): HTTP/2 did not begin: connection reset by peer",
    }[how]
    assert [at for at, _ in world.told(Deliver)] == [about(failed_at)]
    server.is_listening = server.sends_settings = True
    second = world.request(server)
    world.run(3.0)
    assert (ends(second), server.dials) == (OK, [0.0, about(failed_at + 1.0)])
    stats = world.pool.stats()
    assert (stats["dials_failed"], stats["deaths"]) == (1, NO_DEATH)


# -- many, and slow ones -----------------------------------------------------------------------


@pytest.fixture
def without_collector() -> Iterator[None]:
    """Of garbage there is none here, and looking for it among 10 000 connections takes seconds."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.timeout(300)
def test_pool_check_scale(without_collector):
    """500 origins of 20 connections, all of them opened within the first second."""
    world = World(HealthPolicy(), connections_per_origin_max=20, idle_close=0.0)
    servers = [world.serve(f"{number}.test", delay_s=0.001) for number in range(500)]
    for server in servers:
        server.settings = {SettingId.MAX_CONCURRENT_STREAMS: 1}
        server.answer = lambda seen: Answer(delay_s=0.5)
        for _ in range(20):
            world.request(server)

    world.run(70.0)

    assert (len(world.pool.members), world.pool.stats()["deaths"]) == (10_000, NO_DEATH)
    asked: dict[Any, list[float]] = {}
    for server in servers:
        for at, line, _ in server.pings:
            asked.setdefault(line, []).append(at)
    assert len(asked) == 10_000
    for instants in asked.values():
        first, *later = gaps(instants)
        assert instants[0] <= 31.0
        assert 30.0 <= first <= 35.5  # the response came behind some of the first PINGs
        assert all(30.0 <= gap <= 34.51 for gap in later)
        assert instants[-1] > 70.0 - 34.51
    seconds = Counter(int(at) for instants in asked.values() for at in instants)
    assert sorted(seconds) == [*range(70)]
    assert max(seconds.values()) / (sum(seconds.values()) / 70) <= 1.5


def test_never_paused_reads():
    """One stream that nobody reads fills its own window and holds up nothing else."""
    world = World()
    server = world.serve(delay_s=0.01)
    body = bytes(2**22)
    server.answer = lambda seen: Answer(body=body if len(server.seen) == 1 else b"ok")
    slow = world.request(server, "POST")
    world.unread.add(slow)
    world.run(75.0)

    (member,) = world.pool.members
    window = sum(map(len, slow.chunks))
    assert (window, ends(slow)) == (2**20, (200, False, None))
    assert (member.health.state, world.pool.stats()["deaths"]) == (LIVE, NO_DEATH)
    assert len(server.pings) == 2
    other = world.request(server)
    world.run(76.0)
    assert (ends(other), world.bodies[other]) == (OK, b"ok")
    octets = 0
    while not slow.ended:
        while (chunk := world.pool.take_chunk(slow, world.clock.now)) is not None:
            octets += len(chunk)
        world.run_for(0.1)
    assert octets + sum(map(len, slow.chunks)) == len(body)
    assert (ends(slow), server.dials) == (OK, [0.0])


def test_unanswered_send_probed():
    """The last octet is the end of a response at 0; the peer falls silent behind it."""
    world = World()
    server = world.serve(delay_s=0.125)
    world.request(server)
    world.run(0.875)  # handshake, SETTINGS, HEADERS, response: 7 times the delay
    assert changes(world) == [(0.625, 1, "LIVE", "")]
    (member,) = world.pool.members
    assert member.health.heard_at == 0.875
    server.lines[0].blackhole(up=False, down=True)

    world.run(1.875)
    call = world.request(server, "POST")
    world.run(100.0)

    # Instants of the row, from 0.875 on.
    assert changes(world)[1:] == [
        (11.875, 1, "PROBING", ""),
        (14.875, 1, "SUSPECT", ""),
        (26.875, 1, "DEAD", "path_dead"),
    ]
    assert ping_instants(server) == [12.0]
    assert isinstance(call.error, ConnectionLost)
    assert (call.error.cause, call.error.maybe_processed) == ("path_dead", True)


def test_unanswered_send_probed_only_where_nothing_came_since():
    """A response that came in the instant in which its request left is an answer, too."""
    world = World()
    server = world.serve()
    world.request(server)

    world.run(29.0)

    assert (ping_instants(server), changes(world)) == ([], [(0.0, 1, "LIVE", "")])


# -- causes ------------------------------------------------------------------------------------


def silent_path(world: World, server: VirtualServer) -> None:
    server.lines[0].blackhole()


def silent_peer(world: World, server: VirtualServer) -> None:
    server.stop()


def blocked_write(world: World, server: VirtualServer) -> None:
    server.reads = False
    world.request(server, "PUT", bytes(60_000))


def deaf_peer(world: World, server: VirtualServer) -> None:
    blocked_write(world, server)
    for second in range(60):
        world.network.later(second, lambda: server.peers[0].send(WindowUpdateFrame(0, 1).encode()))


def fin(world: World, server: VirtualServer) -> None:
    server.peers[0].close()


def rst(world: World, server: VirtualServer) -> None:
    server.peers[0].kill()


def goaway(world: World, server: VirtualServer) -> None:
    peer = server.peers[0]
    peer.goaway(1, ErrorCode.INTERNAL_ERROR)
    peer.close()


def protocol_error(world: World, server: VirtualServer) -> None:
    server.peers[0].send(b"\0\0\x08\6\0\0\0\0\3" + b"12345678")  # PING on stream 3


def close(world: World, server: VirtualServer) -> None:
    world.pool.close(world.clock.now)


@pytest.mark.parametrize(
    ("event", "cause", "error", "died_at"),
    [
        (silent_path, "path_dead", ConnectionLost, 25.0),
        (silent_peer, "peer_hung", ConnectionLost, 25.0),
        (blocked_write, "write_stall", ConnectionLost, 16.0),
        (deaf_peer, "peer_not_reading", ConnectionLost, 61.0),
        (fin, "eof", ConnectionLost, 1.0),
        (rst, "reset", ConnectionLost, 1.0),
        (goaway, "goaway", ConnectionLost, 1.0),
        (protocol_error, "protocol_error", RemoteProtocolError, 1.0),
        (close, "local", ConnectionLost, 1.0),
    ],
)
def test_cause_matrix(event, cause, error, died_at):
    world = World()
    server = world.serve(capacity_octets=4096)
    server.answer = held
    call = world.request(server, "POST")
    world.run(1.0)

    event(world, server)
    world.run(62.0)

    assert [(at, c) for at, n, after, c in changes(world) if (n, after) == (1, "DEAD")] == [
        (died_at, cause)
    ]
    assert world.pool.stats()["deaths"] == {cause: 1}
    assert call.error is not None
    assert (type(call.error), call.error.cause) == (error, cause)
    assert call.error.maybe_processed is True


# -- names and addresses -----------------------------------------------------------------------


def test_resolver_hangs():
    """A dial that does not end, whatever it waits for, is its own origin's affair."""
    world = World(HealthPolicy(ping_after_idle=0.2, connect_timeout=1.0, jitter=False))
    hangs, other = world.serve("hangs.test"), world.serve("other.test")
    hangs.is_reachable = False
    world.request(other)
    world.run(0.05)

    lost = world.request(hangs)
    calls = []
    for _ in range(12):
        calls.append(world.request(other))
        world.run_for(0.1)

    assert [ends(call) for call in calls] == [OK] * 12
    assert [seen.at for seen in other.seen[1:]] == about(
        [0.05 + 0.1 * count for count in range(12)]
    )
    assert other.dials == [0.0]
    assert type(lost.error) is ConnectTimeout
    assert (world.pool.stats()["dials_failed"], len(world.pool.members)) == (1, 1)
    assert [at for at, told in world.told(Deliver) if told.item is lost] == [about(1.05)]


def test_resolver_hangs_while_others_are_asked():
    world = World(HealthPolicy(ping_after_idle=0.2, connect_timeout=1.0, jitter=False))
    hangs, other = world.serve("hangs.test"), world.serve("other.test")
    hangs.is_reachable = False
    world.request(other)
    world.request(hangs)

    world.run(1.1)

    assert ping_instants(other) == about([0.2, 0.4, 0.6, 0.8, 1.0])


def test_first_address_silent(monkeypatch):
    with swallowing() as silent, socket.create_server((LOCALHOST, 0)) as listener:
        race = Race(monkeypatch, silent, listener.getsockname())
        began = race.clock.now
        assert race.advance(0.25 - 0.0001) == []
        assert not race.dial.stage.endswith("(and 1 more)")
        race.clock.now = began + 0.25

        assert race.turn(0) == []

        assert race.dial.stage.endswith("(and 1 more)")
        assert race.winner() == listener.getsockname()
        assert race.clock.now == began + 0.25


# -- one round trip ----------------------------------------------------------------------------


def test_request_held_then_sent():
    world = World()
    server = world.serve(delay_s=0.05)
    world.request(server)
    world.run(20.0)

    call = world.request(server, "POST", b"body")
    world.run(20.2 + SOON_S)

    assert ends(call) == OK
    assert ping_instants(server) == [about(20.05)]
    assert [seen.at for seen in server.seen[1:]] == [about(20.15)]
    stats = world.pool.stats()
    assert (server.dials, stats["moves"], stats["retries"]) == ([0.0], 0, 0)


def test_late_ack_after_rescue():
    world = World()
    server = world.serve()
    server.acks_pings = False
    server.answer = lambda seen: Answer(body=b"ab", pieces=2, body_gap_s=31.0)
    world.request(server)
    world.run(31.5)
    (member,) = world.pool.members
    health = member.health
    assert (ping_instants(server), health.rescues, health.late_acks) == ([30.0], 1, 0)

    world.run(50.0)
    server.peers[0].send(PingFrame(server.pings[0][2], ack=True).encode())
    world.run(50.0 + SOON_S)

    assert (health.late_acks, health.late_rtt_s, health.srtt_s) == (1, 20.0, None)
    assert (health.pings, health.acks, health.rescues, health.suspects) == (1, 0, 1, 0)
    stats = world.pool.stats()
    assert (stats["late_acks"], stats["unknown_acks"], stats["rescues"]) == (1, 0, 1)
    server.peers[0].send(PingFrame(server.pings[0][2], ack=True).encode())
    world.run(50.0 + 2 * SOON_S)
    assert (health.late_acks, health.late_rtt_s, health.state) == (1, 20.0, LIVE)


def test_poll_rarely():
    world = World()
    server = world.serve(delay_s=0.001)
    world.request(server)
    world.run(1.0)
    server.lines[0].blackhole(up=False, down=True)

    states = []
    for at in range(7, 78, 7):
        world.network.advance(float(at))
        poll(world)
        states += [(at, STATE_NAMES[member.health.state]) for member in world.pool.members]

    assert ping_instants(server) == [about(35.001)]
    assert [(at, after, cause) for at, _, after, cause in changes(world)[1:]] == [
        (35.0, "PROBING", ""),
        (42.0, "SUSPECT", ""),
        (77.0, "DEAD", "path_dead"),
    ]
    assert states[-3:] == [(56, "SUSPECT"), (63, "SUSPECT"), (70, "SUSPECT")]


@pytest.mark.parametrize("heard_at", [57.0, 62.9, 70.0])
def test_poll_rarely_and_the_peer_was_only_slow(heard_at):
    """What the renewal at 56 s is for: an ack that came meanwhile is read first."""
    world = World()
    server = world.serve(delay_s=0.001)
    world.request(server)
    world.run(1.0)
    line = server.lines[0]
    line.blackhole(up=False, down=True)
    world.network.later(heard_at - 1.0, line.mend)

    for at in range(7, 78, 7):
        world.network.advance(float(at))
        poll(world)

    assert world.pool.stats()["deaths"] == NO_DEATH
    assert world.pool.stats()["pings_acked"] == 1
