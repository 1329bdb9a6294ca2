"""What a server bears of its clients: time, memory, connections; on real sockets.

The limits are made short, so that what takes a minute by default is seen within a second.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import pytest

from h2lite import connect
from h2lite.accept import Listener
from h2lite.connection import Connection
from h2lite.errors import ErrorCode
from h2lite.events import (
    ConnectionFailed,
    DataReceived,
    GoAwayReceived,
    PingAcked,
    ResponseReceived,
    StreamReset,
)
from h2lite.exchange import Reply, Request
from h2lite.framer import CLIENT_PREFACE
from h2lite.frames import (
    DataFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from h2lite.limits import Limits
from h2lite.loop import READ, Loop
from h2lite.server import Server, _kept_size
from h2lite.settings import SettingId
from h2lite.value import Value
from tests.pair import GET, POST, block, wire
from tests.running import PATIENCE_S, hello, serving

SHORT_S = 0.2  # a limit that is to be reached
SOON_S = 3.0  # by when it must have shown, on a loaded machine

E = TypeVar("E", bound=Value)


class Client:
    """A client's core on a blocking socket; what it does not say by itself is written by hand."""

    def __init__(self, server: Server, settings: dict[int, int] | None = None) -> None:
        self.sock = socket.create_connection(("127.0.0.1", server.port), PATIENCE_S)
        self.core = Connection(client=True, settings=settings)
        self.events: list[Value] = []
        self.flush()

    def flush(self) -> None:
        while octets := self.core.data_to_send(0.0):
            self.sock.sendall(octets)

    def receive(self) -> bool:
        """Take what has come, and answer; False: the server has closed the connection."""
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            return False
        self.events += self.core.receive_data(data, 0.0)
        if data:
            self.flush()
        return bool(data)

    def until(self, kind: type[E]) -> E:
        """The first such event that has not been given yet."""
        while True:
            for at, event in enumerate(self.events):
                if isinstance(event, kind):
                    del self.events[: at + 1]
                    return event
            assert self.receive(), f"closed before a {kind.__name__}"

    def closed_after(self) -> float:
        """Seconds until the server has closed the connection."""
        began = time.monotonic()
        while self.receive():
            pass
        return time.monotonic() - began


@contextmanager
def client_of(server: Server, settings: dict[int, int] | None = None) -> Iterator[Client]:
    client = Client(server, settings)
    with client.sock:
        yield client


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def path(text: bytes) -> list[tuple[bytes, bytes]]:
    return [*GET[:3], (b":path", text)]


# -- time ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [b"", CLIENT_PREFACE[:9], CLIENT_PREFACE, CLIENT_PREFACE + SettingsFrame().encode()[:5]],
    ids=["nothing", "half a preface", "no SETTINGS", "half a SETTINGS"],
)
def test_a_client_that_never_gets_to_its_settings_is_closed(said):
    lines: list[str] = []
    with (
        serving(limits=Limits(preface_timeout=SHORT_S), log=lines.append) as server,
        socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as sock,
    ):
        sock.sendall(said)
        began = time.monotonic()
        while sock.recv(65536):
            pass
        assert SHORT_S - 0.05 <= time.monotonic() - began < SOON_S
        until(lambda: server.stats()["connections"] == 0)
    assert [line.partition(" ")[2] for line in lines] == ["no preface and SETTINGS in 0.2 s"]


@pytest.mark.parametrize("dribbled", [False, True], ids=["silent", "octet by octet"])
def test_half_a_field_block_is_not_waited_for_long(dribbled):
    with (
        serving(limits=Limits(field_block_timeout=SHORT_S)) as server,
        client_of(server) as client,
    ):
        octets = wire(HeadersFrame(1, block([*POST, (b"x", b"a" * 200)])))
        began = time.monotonic()
        client.sock.sendall(octets[:50])
        if dribbled:
            client.sock.settimeout(SHORT_S / 10)
            for octet in octets[50:-1]:
                try:
                    client.sock.send(bytes([octet]))
                    if not client.receive():
                        break
                except TimeoutError:
                    continue
                except ConnectionError:
                    break
        else:
            client.closed_after()
        assert SHORT_S - 0.05 <= time.monotonic() - began < SOON_S
        goaway = next(event for event in client.events if isinstance(event, GoAwayReceived))
        assert goaway.debug_data == b"half a field block for 0.2 s"


def test_an_idle_connection_is_closed_in_two_phases_and_pings_do_not_keep_it():
    with (
        serving(limits=Limits(idle_timeout=SHORT_S)) as server,
        client_of(server) as client,
    ):
        stream = client.core.send_request(GET)
        client.flush()
        client.until(ResponseReceived)
        began = time.monotonic()
        said = []
        client.sock.settimeout(0.02)
        while True:
            try:
                if not client.receive():
                    break
            except TimeoutError:
                client.core.ping(b"am here!", 0.0)
                client.flush()
                client.sock.settimeout(PATIENCE_S)
                client.until(PingAcked)
                client.sock.settimeout(0.02)
            said += [event for event in client.events if isinstance(event, GoAwayReceived)]
            client.events.clear()
        assert SHORT_S - 0.05 <= time.monotonic() - began < SOON_S
        assert [event.last_stream_id for event in said] == [2**31 - 1, stream.stream_id]
        assert {event.error_code for event in said} == {ErrorCode.NO_ERROR}


def test_a_request_that_crosses_with_the_farewell_is_answered():
    """Two GOAWAYs: what was sent before the first one came is still taken."""
    with (
        serving(limits=Limits(idle_timeout=SHORT_S)) as server,
        client_of(server) as client,
    ):
        while not client.core.goaway_received:  # read it, and do not answer yet
            client.core.receive_data(client.sock.recv(65536), 0.0)
        client.sock.sendall(wire(HeadersFrame(1, block(GET), True)))  # as if it had left before
        client.flush()
        data = b""
        while b"hello" not in data:
            data += client.sock.recv(65536)
            assert data
        while client.sock.recv(65536):
            pass


def test_a_client_that_does_not_say_goodbye_is_left():
    with serving(limits=Limits(idle_timeout=SHORT_S)) as server:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as sock:
            sock.sendall(CLIENT_PREFACE + SettingsFrame().encode())
            began = time.monotonic()
            while sock.recv(65536):
                pass
            assert time.monotonic() - began < SOON_S
        until(lambda: server.stats()["connections"] == 0)


def test_a_connection_with_an_open_stream_is_not_idle():
    go_on = threading.Event()

    def slow(request: Request) -> Reply:
        go_on.wait(PATIENCE_S)
        return Reply(200, b"late\n")

    limits = Limits(idle_timeout=SHORT_S / 4)
    with serving(slow, threads=1, limits=limits) as server, connect(server.url) as connection:
        timer = threading.Timer(SHORT_S * 2, go_on.set)
        timer.start()
        assert connection.request("GET", "/").read() == b"late\n"
        timer.join()


def test_content_that_does_not_come_in_time_is_answered_408():
    with (
        serving(limits=Limits(request_timeout=SHORT_S)) as server,
        client_of(server) as client,
    ):
        stream = client.core.send_request(POST, end_stream=False)
        for _ in range(3):
            client.core.send_data(stream, b"more")
            client.flush()
            time.sleep(SHORT_S / 5)  # what comes does not put it off
        assert client.until(ResponseReceived).status == 408
        client.core.ping(b"goes on?", 0.0)
        client.flush()
        client.until(PingAcked)


def streamed(request: Request) -> bool:
    return True


def reading(request: Request) -> Reply:
    assert request.content is not None
    return Reply(200, b"%d" % sum(map(len, request.content)))


def echoing(request: Request) -> Reply:
    assert request.content is not None
    return Reply(200, request.content)


@pytest.mark.parametrize(("handler", "threads"), [(reading, 1), (echoing, 0), (echoing, 1)])
def test_streamed_content_that_stands_still_is_given_up(handler, threads):
    limits = Limits(stall_timeout=SHORT_S)
    with (
        serving(handler, threads=threads, streamed=streamed, limits=limits) as server,
        client_of(server) as client,
    ):
        stream = client.core.send_request(POST, end_stream=False)
        for _ in range(4):  # slow, but it moves
            client.core.send_data(stream, b"more")
            client.flush()
            time.sleep(SHORT_S / 3)
        began = time.monotonic()
        reset = client.until(StreamReset)
        assert (reset.stream_id, reset.error_code) == (1, ErrorCode.CANCEL)
        assert time.monotonic() - began < SOON_S
        until(lambda: server.stats()["handlers"] == 0)


def test_content_that_the_handler_does_not_read_is_not_its_clients_fault():
    go_on = threading.Event()

    def late(request: Request) -> Reply:
        go_on.wait(PATIENCE_S)
        return reading(request)

    limits = Limits(stall_timeout=SHORT_S / 4)
    with (
        serving(late, threads=1, streamed=streamed, limits=limits) as server,
        connect(server.url) as connection,
    ):
        timer = threading.Timer(SHORT_S * 2, go_on.set)
        timer.start()
        assert connection.request("POST", "/", body=bytes(3 * 2**20)).read() == b"3145728"
        timer.join()


def large(request: Request) -> Reply:
    if request.path == "/large":
        return Reply(200, iter([bytes(65536)] * 64))
    return hello(request)


@pytest.mark.parametrize(
    "crumbs", [0, 1], ids=["takes nothing", "takes an octet at a time"]
)
def test_a_stream_whose_reader_takes_next_to_nothing_is_reset(crumbs):
    limits = Limits(stall_timeout=SHORT_S)
    with (
        serving(large, limits=limits) as server,
        client_of(server, {SettingId.INITIAL_WINDOW_SIZE: 1000}) as client,
    ):
        client.core.send_request(path(b"/large"))
        client.flush()
        began = time.monotonic()
        client.sock.settimeout(SHORT_S / 10)
        while not any(isinstance(event, StreamReset) for event in client.events):
            assert time.monotonic() - began < SOON_S
            try:
                assert client.receive()
            except TimeoutError:
                if crumbs:
                    client.sock.sendall(WindowUpdateFrame(1, crumbs).encode())
        client.sock.settimeout(PATIENCE_S)
        client.core.send_request(GET)
        client.flush()
        assert client.until(ResponseReceived).status == 200


def test_a_stream_whose_reader_is_slow_is_not_reset():
    limits = Limits(stall_timeout=SHORT_S)
    with (
        serving(large, limits=limits) as server,
        client_of(server, {SettingId.INITIAL_WINDOW_SIZE: 2**20}) as client,
    ):
        client.core.send_request(path(b"/large"))
        client.flush()
        began, octets = time.monotonic(), 0
        while octets < 64 * 65536:
            data = client.until(DataReceived)
            octets += len(data.data)
            client.core.data_consumed(1, len(data.data))
            client.flush()
            time.sleep(0.002)
        assert time.monotonic() - began > 2 * SHORT_S


def test_a_socket_that_takes_nothing_is_closed_and_nothing_of_it_stays():
    lines: list[str] = []
    limits = Limits(stall_timeout=SHORT_S)
    with serving(large, limits=limits, log=lines.append) as server:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with sock:
            sock.settimeout(PATIENCE_S)
            sock.connect(("127.0.0.1", server.port))
            wide = SettingsFrame(((SettingId.INITIAL_WINDOW_SIZE, 2**31 - 1),))
            sock.sendall(
                CLIENT_PREFACE + wire(wide, WindowUpdateFrame(0, 2**30))
                + b"".join(
                    wire(HeadersFrame(at, block(path(b"/large")), True)) for at in (1, 3, 5)
                )
            )
            until(lambda: server.stats()["connections"] == 1)
            began = time.monotonic()
            until(lambda: server.stats()["connections"] == 0)
            assert time.monotonic() - began < SOON_S
        connect(server.url).close()
    assert lines[-1].endswith(" takes nothing that is sent to it")


def test_a_request_that_is_never_sent_whole_is_forgotten_after_its_answer():
    """A 413 has left, and the rest of the request neither comes nor is given up."""
    limits = Limits(stall_timeout=SHORT_S, request_octets=10)
    with serving(limits=limits) as server, client_of(server) as client:
        stream = client.core.send_request(POST, end_stream=False)
        client.core.send_data(stream, bytes(11))
        client.flush()
        assert client.until(ResponseReceived).status == 413
        reset = client.until(StreamReset)
        assert (reset.stream_id, reset.error_code) == (1, ErrorCode.NO_ERROR)


# -- memory ----------------------------------------------------------------------------------


def test_where_all_together_keep_too_much_whoever_has_most_is_refused(monkeypatch):
    monkeypatch.setattr("h2lite.exchange.AGE_S_MAX", 1e-6)  # all are as old as counts
    limits = Limits(kept_octets=100_000)
    with serving(limits=limits) as server, ExitStack() as stack:
        clients = [stack.enter_context(client_of(server)) for _ in range(3)]
        streams = [client.core.send_request(POST, end_stream=False) for client in clients]
        for client, stream, octets in zip(clients, streams, (30_000, 50_000, 30_000), strict=True):
            client.core.send_data(stream, bytes(octets))
            client.flush()
            client.core.ping(b"all came", 0.0)
            client.flush()
            client.until(PingAcked)
        assert clients[1].until(ResponseReceived).status == 503

        for at in (0, 2):
            clients[at].core.send_data(streams[at], b"", end_stream=True)
            clients[at].flush()
            assert clients[at].until(ResponseReceived).status == 200
        clients[1].core.send_request(GET)  # there is room again
        clients[1].flush()
        assert clients[1].until(ResponseReceived).status == 200
    assert server._kept_octets == 0


def test_where_all_together_keep_too_much_who_has_held_it_for_long_is_refused_first():
    lines: list[str] = []
    limits = Limits(kept_octets=100_000)
    with serving(limits=limits, log=lines.append) as server, ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(client_of(server))
            client.core.send_data(client.core.send_request(POST, end_stream=False), bytes(25_000))
            client.flush()
        time.sleep(SHORT_S)
        with connect(server.url) as other:
            assert other.request("POST", "/", body=bytes(50_000)).status == 200
    assert any(line.endswith(" gave more than the server can keep") for line in lines)


def test_fields_are_kept_too_so_a_few_octets_cannot_ask_for_much():
    """Each of these requests is 40 octets long and holds 8 KiB."""
    entered = threading.Semaphore(0)
    go_on = threading.Event()

    def waiting(request: Request) -> Reply:
        entered.release()
        go_on.wait(PATIENCE_S)
        return Reply()

    limits = Limits(kept_octets=100_000)
    with serving(waiting, threads=1, limits=limits) as server, client_of(server) as client:
        big = [*GET, (b"x", b"a" * 2000)] + [(b"x", b"a" * 2000)] * 3
        for _ in range(20):
            client.core.send_request(big)
        client.flush()
        kept = 100_000 // _kept_size(big)
        refused = [client.until(ResponseReceived).status for _ in range(20 - kept)]
        assert set(refused) == {503}
        go_on.set()
        assert {client.until(ResponseReceived).status for _ in range(kept)} == {200}
    assert server._kept_octets == 0


@pytest.mark.parametrize("threads", [0, 1])
def test_content_that_a_handler_does_not_read_counts_too(threads):
    def lazy(request: Request) -> Reply:
        if request.content is None:
            return hello(request)
        asked.set()  # before, a 503 would be its answer
        return Reply(200, iter(lambda: b"", None))  # never reads, never ends

    asked = threading.Event()
    limits = Limits(kept_octets=100_000)
    with (
        serving(lazy, threads=threads, streamed=streamed, limits=limits) as server,
        client_of(server) as client,
    ):
        stream = client.core.send_request(POST, end_stream=False)
        client.flush()
        assert asked.wait(PATIENCE_S)
        client.core.send_data(stream, bytes(110_000))
        client.flush()
        reset = client.until(StreamReset)
        assert reset.error_code == ErrorCode.ENHANCE_YOUR_CALM
        client.core.send_request(GET)
        client.flush()
        assert client.until(ResponseReceived).status == 200
    assert server._kept_octets == 0


def test_bodies_are_asked_for_no_more_than_a_connection_may_have_queued():
    pulled: list[int] = []

    def endless(request: Request) -> Reply:
        def body() -> Iterator[bytes]:
            while True:
                pulled.append(1)
                yield bytes(65536)

        return Reply(200, body()) if request.path == "/endless" else hello(request)

    limits = Limits(queued_octets=300_000)
    with (
        serving(endless, limits=limits) as server,
        client_of(server, {SettingId.INITIAL_WINDOW_SIZE: 0}) as client,
    ):
        for _ in range(20):
            client.core.send_request(path(b"/endless"))
        client.flush()
        for _ in range(20):
            client.until(ResponseReceived)
        client.core.ping(b"all came", 0.0)
        client.flush()
        client.until(PingAcked)
        assert len(pulled) == 5  # 300 000 octets, begun by the fifth

        # One that is read goes on, whatever waits for the others.
        client.core.streams[39].receive_window.size += 200_000
        client.sock.sendall(WindowUpdateFrame(39, 200_000).encode())
        octets = 0
        while octets < 200_000:
            data = client.until(DataReceived)
            assert data.stream_id == 39
            octets += len(data.data)


def test_where_memory_is_short_a_body_is_asked_for_what_can_leave_at_once():
    pulled = {"/mute": 0, "/other": 0}

    def endless(request: Request) -> Reply:
        def body() -> Iterator[bytes]:
            for _ in range(100):
                pulled[request.path] += 1
                yield bytes(65536)

        return Reply(200, body())

    limits = Limits(kept_octets=300_000)
    with (
        serving(endless, limits=limits) as server,
        client_of(server, {SettingId.INITIAL_WINDOW_SIZE: 0}) as mute,
        connect(server.url) as other,
    ):
        for _ in range(20):
            mute.core.send_request(path(b"/mute"))
        mute.flush()
        for _ in range(20):
            mute.until(ResponseReceived)
        mute.core.ping(b"all came", 0.0)
        mute.flush()
        mute.until(PingAcked)
        assert pulled["/mute"] == 5

        assert len(other.request("GET", "/other").read()) == 100 * 65536
        assert pulled == {"/mute": 5, "/other": 100}


def test_who_does_not_read_is_answered_no_more_where_memory_is_short():
    asked: list[str] = []

    def handler(request: Request) -> Reply:
        asked.append(request.path)
        return Reply(200, bytes(50_000))

    limits = Limits(queued_octets=100_000, kept_octets=200_000)
    with (
        serving(handler, limits=limits) as server,
        client_of(server, {SettingId.INITIAL_WINDOW_SIZE: 0}) as mute,
        client_of(server) as other,
    ):
        for _ in range(20):
            mute.core.send_request(path(b"/mute"))
        mute.flush()
        for _ in range(4):
            mute.until(ResponseReceived)
        mute.core.ping(b"no more?", 0.0)
        mute.flush()
        mute.until(PingAcked)
        assert len(asked) == 4

        other.core.send_request(GET)
        other.flush()
        assert other.until(ResponseReceived).status == 200
        mute.core.update_settings({SettingId.INITIAL_WINDOW_SIZE: 50_000}, 0.0)
        mute.flush()  # it reads, and the rest is asked for
        for _ in range(16):
            mute.until(ResponseReceived)
    assert len(asked) == 21
    assert (server._queued_octets, server._kept_octets) == (0, 0)


@pytest.mark.parametrize("gone", [False, True], ids=["is here", "has gone"])
def test_what_waits_for_a_worker_is_given_back_with_its_client(gone):
    """And while that is here, it is its own requests that are refused."""
    go_on = threading.Event()

    def waiting(request: Request) -> Reply:
        go_on.wait(PATIENCE_S)
        return Reply(200, b"done")

    limits = Limits(kept_octets=100_000)
    with (
        serving(waiting, threads=1, limits=limits) as server,
        ExitStack() as stack,
        client_of(server) as other,
    ):
        hoarder = stack.enter_context(client_of(server))
        hoarder.core.ping(b"a window", 0.0)
        hoarder.flush()
        hoarder.until(PingAcked)
        for _ in range(3):
            stream = hoarder.core.send_request(POST, end_stream=False)
            hoarder.core.send_data(stream, bytes(31_000), end_stream=True)
        hoarder.flush()
        until(lambda: server._kept_octets > 93_000)
        if gone:
            stack.close()
            until(lambda: server.stats()["connections"] == 1)
            assert server._kept_octets < 40_000  # the one that a worker is at
        for _ in range(10):
            other.core.send_request(GET)
        other.flush()
        until(lambda: server.stats()["requests"] == 13)
        go_on.set()
        assert [other.until(ResponseReceived).status for _ in range(10)] == [200] * 10
    assert server._kept_octets == 0


def test_stock_is_taken_when_a_client_resets_and_says_nothing_more():
    limits = Limits(idle_timeout=SHORT_S)
    with (
        serving(lambda request: Reply(200, bytes(500_000)), limits=limits) as server,
        client_of(server, {SettingId.INITIAL_WINDOW_SIZE: 0}) as client,
    ):
        client.core.send_request(GET)
        client.flush()
        until(lambda: server._queued_octets > 400_000)
        client.sock.sendall(RstStreamFrame(1, ErrorCode.CANCEL).encode())
        until(lambda: server._queued_octets == 0)
        assert client.closed_after() < SOON_S  # as one that is idle


def test_many_requests_that_were_held_start_without_a_ladder_of_calls():
    def handler(request: Request) -> Reply:
        return Reply(200, bytes(200_000) if request.path == "/big" else b"small")

    limits = Limits(streams=400, kept_octets=190_000)
    with (
        serving(handler, limits=limits) as server,
        client_of(server, {SettingId.INITIAL_WINDOW_SIZE: 0}) as client,
    ):
        client.core.send_request(path(b"/big"))
        client.flush()
        client.until(ResponseReceived)
        for _ in range(399):
            client.core.send_request(path(b"/small"))
        client.flush()
        until(lambda: server.stats()["requests"] + server.stats()["streams"] >= 400)
        client.sock.sendall(RstStreamFrame(1, ErrorCode.CANCEL).encode())
        client.core.update_settings({SettingId.INITIAL_WINDOW_SIZE: 1000}, 0.0)
        client.flush()
        statuses = [client.until(ResponseReceived).status for _ in range(399)]
        assert statuses.count(200) > 150  # all that are kept: six calls a request
        until(lambda: server.stats()["streams"] == 0)
    assert (server._kept_octets, server._queued_octets) == (0, 0)


def test_an_upload_that_others_keep_from_coming_is_not_taken_for_a_stalled_one():
    def handler(request: Request) -> Reply:
        if request.path == "/unread":
            return Reply(200, iter(lambda: b"", None))
        return reading(request) if request.content is None else Reply(200, request.content)

    limits = Limits(stall_timeout=SHORT_S, unread_octets=2 * 2**20)
    with (
        serving(handler, streamed=streamed, limits=limits) as server,
        client_of(server) as client,
    ):
        unread = [(b":method", b"POST"), *path(b"/unread")[1:]]
        for _ in range(7):
            stream = client.core.send_request(unread, end_stream=False)
            client.core.send_data(stream, bytes(2**20))
        client.flush()
        late = client.core.send_request(POST, end_stream=False)
        client.core.send_data(late, b"it cannot leave")
        client.flush()
        client.sock.settimeout(SHORT_S / 10)
        ends_at = time.monotonic() + 4 * SHORT_S
        while time.monotonic() < ends_at:
            try:
                assert client.receive()
            except TimeoutError:
                continue
        reset = [event.stream_id for event in client.events if isinstance(event, StreamReset)]
        assert late.stream_id not in reset


def test_a_request_that_the_server_holds_back_is_not_told_that_it_is_late():
    limits = Limits(request_timeout=SHORT_S, kept_octets=100_000)
    with (
        serving(lambda request: Reply(200, bytes(150_000)), limits=limits) as server,
        client_of(server, {SettingId.INITIAL_WINDOW_SIZE: 0}) as client,
    ):
        client.core.send_request(GET)
        client.flush()
        client.until(ResponseReceived)
        client.core.send_request(GET)
        client.flush()
        time.sleep(2 * SHORT_S)
        client.core.update_settings({SettingId.INITIAL_WINDOW_SIZE: 200_000}, 0.0)
        client.flush()
        assert client.until(ResponseReceived).status == 200


def test_a_reader_that_uploads_in_crumbs_still_has_to_read():
    limits = Limits(stall_timeout=SHORT_S)
    with (
        serving(large, streamed=streamed, limits=limits) as server,
        client_of(server, {SettingId.INITIAL_WINDOW_SIZE: 0}) as client,
    ):
        stream = client.core.send_request(
            [(b":method", b"POST"), *path(b"/large")[1:]], end_stream=False
        )
        client.flush()
        client.sock.settimeout(SHORT_S / 10)
        began = time.monotonic()
        while not any(isinstance(event, StreamReset) for event in client.events):
            assert time.monotonic() - began < SOON_S
            client.core.send_data(stream, b"x")
            client.flush()
            try:
                client.receive()
            except TimeoutError:
                continue


def test_replies_past_what_all_may_have_are_not_asked_for():
    limits = Limits(kept_octets=200_000)
    with (
        serving(lambda request: Reply(200, bytes(90_000)), limits=limits) as server,
        ExitStack() as stack,
    ):
        for _ in range(5):
            client = stack.enter_context(client_of(server, {SettingId.INITIAL_WINDOW_SIZE: 0}))
            for _ in range(3):
                client.core.send_request(GET)
            client.core.ping(b"all came", 0.0)
            client.flush()
            client.until(PingAcked)
        # As much as all may have, and past it one for each who has none.
        assert server._queued_octets < 200_000 + 5 * 91_000


def test_a_client_that_takes_no_field_section_of_ours_is_at_fault_itself(monkeypatch):
    reported: list[object] = []
    monkeypatch.setattr(sys, "excepthook", lambda *error: reported.append(error))
    lines: list[str] = []
    with serving(log=lines.append) as server, client_of(server) as client:
        client.core.update_settings({SettingId.MAX_HEADER_LIST_SIZE: 1}, 0.0)
        for _ in range(2):
            client.core.send_request(GET)
        client.flush()
        assert client.until(StreamReset).error_code == ErrorCode.INTERNAL_ERROR
    assert reported == []
    assert any(line.endswith(" takes no field section of that size") for line in lines)


# -- connections -----------------------------------------------------------------------------

NEAR_THE_END = """
import resource, socket, sys
from h2lite import Server, Reply, connect
import threading
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
server = Server(lambda request: Reply(200, open("/dev/null", "rb")))
thread = threading.Thread(target=server.serve_forever)
thread.start()
with connect(server.url) as connection:
    socks = []
    while True:
        try:
            socks.append(socket.create_connection(("127.0.0.1", server.port)))
        except OSError:
            break
    socks.pop().close()
    print(connection.request("GET", "/").status, server.stats()["connections"])
    for sock in socks:
        sock.close()
server.stop()
thread.join()
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are not bounded so")
def test_the_last_descriptors_are_kept_for_who_is_open():
    done = subprocess.run(
        [sys.executable, "-c", NEAR_THE_END], capture_output=True, text=True, timeout=30
    )
    assert done.stderr == ""
    status, connections = done.stdout.split()
    assert status == "200"
    assert int(connections) < 32


def test_a_flood_that_is_calmed_is_told_why():
    lines: list[str] = []
    with serving(log=lines.append) as server, client_of(server) as client:
        client.core.send_request(POST, end_stream=False)
        client.flush()
        client.sock.sendall(DataFrame(1, b"").encode() * 101)
        goaway = client.until(GoAwayReceived)
        assert goaway.error_code == ErrorCode.ENHANCE_YOUR_CALM
        client.closed_after()
    assert [line.partition(" ")[2] for line in lines] == ["over 100 empty DATA in a row"]
    assert not [event for event in client.events if isinstance(event, ConnectionFailed)]


def test_who_is_turned_away_for_a_descriptor_does_not_keep_it_until_the_turn_ends():
    """A handler that ran in the same turn, before them, found none left."""
    loop = Loop()
    spare = socket.socket()  # the next descriptors are higher than this one
    listener = Listener(loop, "127.0.0.1", 0, descriptors_max=spare.fileno())
    assert isinstance(listener.address, tuple)
    clients = [socket.create_connection(("127.0.0.1", listener.address[1])) for _ in range(3)]

    assert listener.ready(READ, 0.0) == []

    for client in clients:
        client.settimeout(PATIENCE_S)
        assert client.recv(1) == b""
        client.close()
    listener.close()
    spare.close()
    loop.close()
