"""Reaching an origin: names, addresses, TLS; every failure in words, nothing left open."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from h2lite import dial as dial_module
from h2lite.certs import CertificateFiles, make_certificate
from h2lite.cli import describe
from h2lite.client import connect
from h2lite.dial import Dial, DialFailed, Dialled
from h2lite.errors import ConnectError, TLSError, UsageError
from h2lite.loop import Loop
from h2lite.origin import Origin
from h2lite.testing import Clock
from h2lite.transport import address_text, client_context, server_context
from h2lite.value import Value

from .running import PATIENCE_S, accepting, needs_unix, serving

LOCALHOST = "127.0.0.1"
Attempt = dial_module._Attempt


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    return make_certificate(str(tmp_path_factory.mktemp("certificate")))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((LOCALHOST, 0)) as listener:
        yield listener


@pytest.fixture
def refusing() -> Iterator[int]:
    """A port that is taken and on which nobody listens."""
    with socket.socket() as sock:
        sock.bind((LOCALHOST, 0))
        yield sock.getsockname()[1]


@contextmanager
def swallowing() -> Iterator[tuple[str, int]]:
    """Where a connection is neither accepted nor refused: a listener whose queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((LOCALHOST, 0))
        listener.listen(1)
        for _ in range(5):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()


@pytest.fixture
def black_hole() -> Iterator[tuple[str, int]]:
    with swallowing() as address:
        yield address


def family_of(address: tuple[Any, ...]) -> int:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def resolve_to(monkeypatch: pytest.MonkeyPatch, *answers: tuple[Any, ...] | Exception) -> list[str]:
    """Make names resolve to `answers`; the list returned names the threads that asked."""
    asked: list[str] = []
    system = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, **arguments: Any) -> list[Any]:
        if arguments["flags"] & socket.AI_NUMERICHOST:
            return system(host, port, **arguments)
        asked.append(threading.current_thread().name)
        found = []
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
            found.append((family_of(answer), socket.SOCK_STREAM, 6, "", answer))
        return found

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def outcome(loop: Loop, dial: Dial) -> Value:
    """Drive a dial to its end."""
    events = dial.start()
    deadline = loop.clock() + PATIENCE_S
    while not events:
        assert loop.clock() < deadline
        events = [event for _, event in loop.turn(deadline)]
    assert len(events) == 1
    return events[0]


def reach(
    loop: Loop, origin: Origin, context: ssl.SSLContext | None = None, **options: Any
) -> Any:
    """The transport of a dial that succeeds."""
    reached = outcome(loop, Dial(loop, origin, context, **options))
    assert isinstance(reached, Dialled), reached
    return reached.transport


def fault(loop: Loop, origin: Origin, context: ssl.SSLContext | None = None) -> ConnectError:
    """The error of a dial that fails; nothing is watched any more."""
    failed = outcome(loop, Dial(loop, origin, context))
    assert isinstance(failed, DialFailed), failed
    assert not loop._masks
    assert loop.next_deadline() is None
    return failed.error


# -- addresses ---------------------------------------------------------------------------------


def test_a_numeric_address_is_reached_without_asking_for_names(loop, listener, monkeypatch):
    asked = resolve_to(monkeypatch)

    transport = reach(loop, Origin("http", LOCALHOST, listener.getsockname()[1]))

    assert transport.address == listener.getsockname()
    assert (transport.protocol, transport.tls_version, asked) == ("h2c", None, [])
    transport.close()


def test_a_name_is_resolved_in_a_thread_of_its_own(loop, listener, monkeypatch):
    asked = resolve_to(monkeypatch, listener.getsockname())

    transport = reach(loop, Origin("http", "some.test", 1))

    assert transport.address == listener.getsockname()
    assert asked == ["h2lite resolves some.test"]
    transport.close()


def test_a_name_that_does_not_resolve_is_named(loop, monkeypatch):
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    resolve_to(monkeypatch, unknown)

    error = fault(loop, Origin("http", "nowhere.test", 80))

    assert str(error) == "cannot resolve nowhere.test: Name or service not known"
    assert error.__cause__ is unknown


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".test"])
def test_a_name_that_cannot_be_one_does_not_resolve(loop, host):
    error = fault(loop, Origin("http", host, 80))

    assert type(error) is ConnectError
    assert str(error).startswith(f"cannot resolve {host}: not a host name")


def test_a_refused_connection_names_origin_and_address(loop, refusing):
    error = fault(loop, Origin("http", LOCALHOST, refusing))

    origin = f"http://127.0.0.1:{refusing}"
    assert str(error) == (
        f"cannot connect to {origin}, connecting to 127.0.0.1:{refusing}: connection refused"
    )
    assert type(error) is ConnectError


def test_the_next_address_is_tried_when_one_refuses(loop, refusing, listener, monkeypatch):
    resolve_to(monkeypatch, (LOCALHOST, refusing), listener.getsockname())

    transport = reach(loop, Origin("http", "some.test", 1))

    assert transport.address == listener.getsockname()
    transport.close()


def test_the_last_address_gives_the_reason_when_all_refuse(loop, refusing, monkeypatch):
    with socket.socket() as last:
        last.bind((LOCALHOST, 0))
        port = last.getsockname()[1]
        resolve_to(monkeypatch, (LOCALHOST, refusing), (LOCALHOST, port))

        error = fault(loop, Origin("http", "some.test", 80))

    assert f"connecting to 127.0.0.1:{port}: connection refused" in str(error)


@pytest.mark.parametrize(
    ("found", "order"),
    [
        ("4a", "4a"),
        ("4a 4b 4c", "4a 4b 4c"),
        ("6a 6b 4a 4b", "6a 4a 6b 4b"),
        ("6a 6b 6c 4a", "6a 4a 6b 6c"),
        ("4a 6a 6b 6c", "4a 6a 6b 6c"),
        ("6a 6a 4a 6a 4a 4b", "6a 4a 4b"),
    ],
)
def test_the_families_take_turns_and_no_address_comes_twice(found, order):
    families = {"4": socket.AF_INET, "6": socket.AF_INET6}

    taken = dial_module._taking_turns([(families[one[0]], (one, 80)) for one in found.split()])

    assert taken == [(families[one[0]], (one, 80)) for one in order.split()]


def test_no_more_addresses_are_tried_than_the_limit_allows(loop, refusing, listener, monkeypatch):
    monkeypatch.setattr(dial_module, "ADDRESSES_MAX", 1)
    resolve_to(monkeypatch, (LOCALHOST, refusing), listener.getsockname())

    error = fault(loop, Origin("http", "some.test", 80))

    assert f"connecting to 127.0.0.1:{refusing}: connection refused" in str(error)


# -- attempts side by side ---------------------------------------------------------------------


CLIENT_HELLO = b"\x16\x03\x01"  # as TLS records begin that hold one


class Race:
    """A dial of a name under virtual time, begun and its name resolved."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *addresses: tuple[Any, ...],
        context: ssl.SSLContext | None = None,
    ) -> None:
        resolve_to(monkeypatch, *addresses)
        self.attempts: list[Any] = []
        monkeypatch.setattr(dial_module, "_Attempt", self.attempt)
        self.clock = Clock(100.0)
        self.loop = Loop(self.clock)
        self.dial = Dial(self.loop, Origin("https" if context else "http", "some.test", 1), context)
        self.events = self.dial.start()
        self.turn()

    def attempt(self, *arguments: Any) -> Any:
        self.attempts.append(Attempt(*arguments))
        return self.attempts[-1]

    def turn(self, patience: float = PATIENCE_S) -> list[Value]:
        """What one turn brings; with patience 0 only what is there now."""
        happened = self.loop.turn(self.clock.now + patience)
        assert all(source is self.dial for source, _ in happened)
        self.events = [event for _, event in happened]
        return self.events

    def advance(self, seconds: float) -> list[Value]:
        """Let time pass; what the deadlines bring."""
        self.clock.now += seconds
        return self.turn(0)

    def winner(self) -> Any:
        """The address of the transport that the next turns bring; nothing else is left."""
        while not self.events:
            self.turn()
        (reached,) = self.events
        assert isinstance(reached, Dialled), reached
        self.end(reached.transport.sock)
        reached.transport.close()
        return reached.transport.address

    def error(self) -> ConnectError:
        """The error that the next turns bring; nothing is left."""
        while not self.events:
            self.turn()
        (failed,) = self.events
        assert isinstance(failed, DialFailed), failed
        self.end()
        return failed.error

    def end(self, *left: socket.socket) -> None:
        """Nothing comes any more; what is open is what is left."""
        assert (self.loop._masks, self.loop.next_deadline()) == ({}, None)
        assert self.turn(0) == []
        sockets = [attempt._sock for attempt in self.attempts if attempt._sock is not None]
        assert [sock for sock in sockets if sock.fileno() != -1] == list(left)
        self.loop.close()


def test_the_second_address_is_tried_beside_the_first_after_250_ms(
    black_hole, listener, monkeypatch
):
    race = Race(monkeypatch, black_hole, listener.getsockname())
    silent = f"connecting to 127.0.0.1:{black_hole[1]}"
    assert race.advance(0.2499) == []
    assert race.dial.stage == silent

    assert race.advance(0.0002) == []

    assert race.dial.stage == f"{silent} (and 1 more)"
    assert race.winner() == listener.getsockname()


def test_each_next_address_has_its_own_250_ms(black_hole, listener, monkeypatch):
    with swallowing() as other:
        race = Race(monkeypatch, black_hole, other, listener.getsockname())
        race.advance(0.3)
        race.advance(0.24)
        assert race.dial.stage.endswith("(and 1 more)")

        race.advance(0.02)

        assert race.dial.stage.endswith("(and 2 more)")
        assert race.winner() == listener.getsockname()


def test_the_next_address_does_not_wait_when_one_refuses(refusing, listener, monkeypatch):
    race = Race(monkeypatch, (LOCALHOST, refusing), listener.getsockname())
    started = race.clock.now

    assert race.winner() == listener.getsockname()
    assert race.clock.now == started


def test_the_place_of_a_refused_one_is_taken_while_another_waits(
    black_hole, refusing, listener, monkeypatch
):
    race = Race(monkeypatch, black_hole, (LOCALHOST, refusing), listener.getsockname())

    race.advance(0.25)
    race.turn(0)

    assert race.dial.stage.endswith("(and 1 more)")
    assert race.loop.next_deadline() is None
    assert race.winner() == listener.getsockname()


def test_a_silent_address_is_waited_for_when_all_others_have_failed(
    black_hole, refusing, monkeypatch
):
    race = Race(monkeypatch, black_hole, (LOCALHOST, refusing))
    race.advance(0.25)

    assert race.turn(0) == []

    assert race.dial.stage == f"connecting to 127.0.0.1:{black_hole[1]}"
    race.dial.close()
    race.end()


def test_of_two_that_are_there_in_one_turn_the_first_wins(listener, monkeypatch):
    with socket.create_server((LOCALHOST, 0)) as other:
        race = Race(monkeypatch, listener.getsockname(), other.getsockname())
        race.dial.handle_deadline(race.clock.now)

        assert race.winner() == listener.getsockname()
        with other.accept()[0] as loser:
            assert loser.recv(1) == b""


def test_an_address_that_fails_at_once_leaves_the_others_their_time(
    black_hole, listener, monkeypatch
):
    # Broadcast is no address to connect to: the kernel says so without asking anybody.
    race = Race(monkeypatch, ("255.255.255.255", 80), black_hole, listener.getsockname())
    assert race.dial.stage == f"connecting to 127.0.0.1:{black_hole[1]}"

    race.advance(0.25)

    assert race.winner() == listener.getsockname()


def test_the_last_to_fail_leaves_no_deadline_behind(refusing, monkeypatch):
    race = Race(monkeypatch, (LOCALHOST, refusing), ("255.255.255.255", 80))

    assert "connecting to 255.255.255.255:80: " in str(race.error())


def test_a_dial_closed_in_the_middle_of_a_race_leaves_nothing(black_hole, listener, monkeypatch):
    race = Race(monkeypatch, black_hole, listener.getsockname(), ("127.0.0.9", 1))
    race.dial.handle_deadline(race.clock.now)

    race.dial.close()

    race.end()


def test_the_first_finished_handshake_wins_not_the_first_connection(files, listener, monkeypatch):
    """The first address takes connections and then says nothing."""
    with serving(ssl_context=server_context(files.certfile, files.keyfile)) as server:
        context = client_context(verify=False)
        reached = (LOCALHOST, server.port)
        race = Race(monkeypatch, listener.getsockname(), reached, context=context)
        race.turn(0)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert race.dial.stage == f"TLS handshake with {address}"

        race.advance(0.25)

        assert race.dial.stage == f"TLS handshake with {address} (and 1 more)"
        assert race.winner() == reached
        with listener.accept()[0] as loser:
            assert loser.makefile("rb").read().startswith(CLIENT_HELLO)


def test_a_slow_first_address_may_still_win(files, listener, monkeypatch):
    server = server_context(files.certfile, files.keyfile)

    def wake_up() -> None:
        # The winner closes with TLS's session tickets unread, which may make a reset of it.
        with (
            server.wrap_socket(listener.accept()[0], server_side=True) as sock,
            suppress(ConnectionResetError),
        ):
            sock.recv(1)

    with socket.create_server((LOCALHOST, 0)) as other:
        first, second = listener.getsockname(), other.getsockname()
        race = Race(monkeypatch, first, second, context=client_context(verify=False))
        race.turn(0)
        race.advance(0.25)
        race.turn(0)
        thread = threading.Thread(target=wake_up)
        thread.start()

        assert race.winner() == first

        thread.join(PATIENCE_S)
        with other.accept()[0] as loser:
            assert loser.makefile("rb").read().startswith(CLIENT_HELLO)


@pytest.mark.parametrize("how", ["end", "reset"])
def test_a_handshake_that_is_cut_off_goes_on_with_the_next_address(files, monkeypatch, how):
    def cut(sock: socket.socket) -> None:
        sock.recv(65536)  # what is left unread would make a reset of every close
        if how == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with (
        accepting(cut) as cutting,
        serving(ssl_context=server_context(files.certfile, files.keyfile)) as server,
    ):
        addresses = (LOCALHOST, cutting.port), (LOCALHOST, server.port)
        race = Race(monkeypatch, *addresses, context=client_context(verify=False))

        assert race.winner() == (LOCALHOST, server.port)


def test_a_certificate_that_is_refused_ends_the_whole_dial(files, listener, monkeypatch):
    """The others are the same server; one of them is still under way, one not begun."""
    with serving(ssl_context=server_context(files.certfile, files.keyfile)) as server:
        race = Race(
            monkeypatch,
            listener.getsockname(),
            (LOCALHOST, server.port),
            (LOCALHOST, 1),
            context=client_context(),
        )
        race.advance(0.25)

        error = race.error()

    assert type(error) is TLSError
    assert str(error).startswith(
        f"https://some.test:1 (127.0.0.1:{server.port}): certificate not accepted: "
    )


@pytest.mark.parametrize("cut_first", [True, False])
def test_a_handshake_cut_off_says_more_than_a_refused_connection(
    cut_first, refusing, monkeypatch
):
    with accepting(lambda sock: None) as cutting:
        addresses = [(LOCALHOST, cutting.port), (LOCALHOST, refusing)]
        if not cut_first:
            addresses.reverse()
        error = Race(monkeypatch, *addresses, context=client_context()).error()

    assert type(error) is TLSError
    assert str(error).startswith(
        f"https://some.test:1 (127.0.0.1:{cutting.port}): TLS handshake cut off: "
    )
    assert isinstance(error.__cause__, OSError)


@pytest.mark.scenario
def test_with_the_first_address_silent_the_second_is_connected_after_250_ms(
    black_hole, monkeypatch
):
    with serving() as server:
        resolve_to(monkeypatch, black_hole, (LOCALHOST, server.port))
        began = time.monotonic()

        with connect("http://some.test:1") as connection:
            took = time.monotonic() - began
            connection.ping()

    assert connection.address == f"127.0.0.1:{server.port}"
    assert 0.25 <= took < 1.0


# -- closed in between -------------------------------------------------------------------------


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Names do not resolve until the test is over, or calls this."""
    answer_now = threading.Event()
    system = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, **arguments: Any) -> list[Any]:
        if arguments["flags"] & socket.AI_NUMERICHOST:
            return system(host, port, **arguments)
        answer_now.wait(PATIENCE_S)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    def release() -> None:
        answer_now.set()
        for thread in threading.enumerate():
            if thread.name == "h2lite resolves slow.test":
                thread.join(PATIENCE_S)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield release
    release()


def test_a_name_that_takes_its_time_holds_up_no_other_dial(loop, listener, release):
    slow = Dial(loop, Origin("http", "slow.test", 80), None)
    assert slow.start() == []

    transport = reach(loop, Origin("http", LOCALHOST, listener.getsockname()[1]))

    assert slow.stage == "resolving the name"
    transport.close()
    slow.close()


def test_a_dial_closed_while_it_resolves_leaves_nothing_open(loop, release):
    before = sorted(os.listdir("/dev/fd"))
    dial = Dial(loop, Origin("http", "slow.test", 80), None)
    assert dial.start() == []

    dial.close()
    dial.close()

    release()
    assert sorted(os.listdir("/dev/fd")) == before
    assert loop.turn(loop.clock()) == []


def test_a_dial_closed_while_it_connects_leaves_nothing_open(loop, listener):
    before = sorted(os.listdir("/dev/fd"))
    dial = Dial(loop, Origin("http", LOCALHOST, listener.getsockname()[1]), None)
    assert dial.start() == []

    dial.close()

    assert sorted(os.listdir("/dev/fd")) == before
    assert loop.turn(loop.clock()) == []


# -- what the system says at once --------------------------------------------------------------


def saying(number: int, begins: bool) -> Callable[..., int]:
    """A connect_ex that says so, having begun or not."""
    system = socket.socket.connect_ex

    def connect_ex(sock: socket.socket, address: Any) -> int:
        if begins:
            system(sock, address)
        return number

    return connect_ex


def test_an_interrupted_connect_is_under_way(loop, listener, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect_ex", saying(errno.EINTR, begins=True))

    reach(loop, Origin("http", LOCALHOST, listener.getsockname()[1])).close()


@pytest.mark.skipif(sys.platform == "win32", reason="there it is the word for being under way")
def test_a_connect_for_which_the_system_has_no_room_fails_at_once(loop, listener, monkeypatch):
    """There is nothing to wait for: the selector would call it writable for ever."""
    monkeypatch.setattr(socket.socket, "connect_ex", saying(errno.EAGAIN, begins=False))
    origin = Origin("http", LOCALHOST, listener.getsockname()[1])

    assert str(fault(loop, origin)) == (
        f"cannot connect to {origin}, connecting to 127.0.0.1:{origin.port}:"
        f" {os.strerror(errno.EAGAIN).lower()}"
    )


@pytest.mark.parametrize("call", ["connect_ex", "getsockopt"])
def test_a_dial_that_is_interrupted_ends_and_says_so(loop, listener, monkeypatch, call):
    """Whoever waits for it would otherwise wait until his patience ends."""

    def interrupted(*_: object) -> Any:
        raise KeyboardInterrupt

    before = sorted(os.listdir("/dev/fd"))
    origin = Origin("http", LOCALHOST, listener.getsockname()[1])
    dial = Dial(loop, origin, None)
    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, call, interrupted)
        with pytest.raises(KeyboardInterrupt):
            outcome(loop, dial)
    [(source, event)] = loop.turn()

    assert isinstance(event, DialFailed)
    assert (source, str(event.error)) == (dial, f"cannot connect to {origin}: interrupted here")
    assert sorted(os.listdir("/dev/fd")) == before
    assert (loop._masks, loop.next_deadline()) == ({}, None)


# -- UNIX sockets ------------------------------------------------------------------------------


@pytest.fixture
def unix(short_path) -> Iterator[tuple[Origin, socket.socket]]:
    """An origin behind a UNIX socket, and the socket that listens there."""
    path = str(short_path / "app.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        yield Origin("http", "localhost", 80, path), listener


@needs_unix
def test_a_unix_socket_is_reached_without_asking_for_names(loop, unix, monkeypatch):
    asked = resolve_to(monkeypatch)
    origin, listener = unix
    listener.listen()

    transport = reach(loop, origin)

    assert (transport.address, transport.protocol, asked) == (origin.unix_path, "h2c", [])
    assert address_text(transport.address) == str(origin)
    transport.close()


@needs_unix
def test_a_unix_socket_that_is_not_there_or_not_served_is_named_once(loop, unix):
    origin, _ = unix
    missing = Origin("http", "localhost", 80, f"{origin.unix_path}.not")

    assert str(fault(loop, origin)) == f"cannot connect to {origin}: connection refused"
    assert str(fault(loop, missing)) == f"cannot connect to {missing}: no such file or directory"


@needs_unix
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere such a connection is refused")
def test_a_unix_socket_whose_queue_is_full_fails_at_once(loop, unix):
    """There is nothing to wait for: the selector would call it writable for ever."""
    origin, listener = unix
    listener.listen(0)
    with socket.socket(socket.AF_UNIX) as first:
        first.connect(origin.unix_path)

        error = fault(loop, origin)

    assert str(error) == f"cannot connect to {origin}: the server's queue is full"


def test_where_there_are_no_unix_sockets_the_caller_is_told(loop, monkeypatch):
    monkeypatch.delattr(socket, "AF_UNIX", raising=False)

    with pytest.raises(UsageError, match="no UNIX sockets"):
        Dial(loop, Origin("http", "localhost", 80, "/run/app.sock"), None)


# -- protocols ---------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["h2c", "http/1.1"])
def test_in_cleartext_the_protocol_is_what_the_caller_says(loop, listener, protocol):
    origin = Origin("http", LOCALHOST, listener.getsockname()[1])

    transport = reach(loop, origin, protocol=protocol)

    assert transport.protocol == protocol
    transport.close()


def test_another_protocol_in_cleartext_is_refused(loop):
    with pytest.raises(UsageError, match=r"protocol of 'h2' in cleartext, want h2c or http/1\.1"):
        Dial(loop, Origin("http", LOCALHOST, 80), None, protocol="h2")


@pytest.mark.parametrize(
    ("accepted", "chosen"), [(["h2"], "h2"), (["http/1.1"], "http/1.1"), ([], "http/1.1")]
)
def test_under_tls_the_protocol_is_what_the_server_chooses(loop, files, accepted, chosen):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certfile, files.keyfile)
    if accepted:
        server.set_alpn_protocols(accepted)
    alpn = ("h2", "http/1.1")

    def handshake(sock: socket.socket) -> None:
        with server.wrap_socket(sock, server_side=True) as tls:
            tls.recv(1)

    with accepting(handshake) as listening:
        origin = Origin("https", LOCALHOST, listening.port)
        context = client_context(cafile=files.cafile, alpn=alpn)
        transport = reach(loop, origin, context, alpn=alpn)
        transport.end_sending()
        transport.close()

    assert transport.protocol == chosen


# -- TLS ---------------------------------------------------------------------------------------


def test_tls_stands_with_a_certificate_that_is_trusted(loop, files):
    with serving(ssl_context=server_context(files.certfile, files.keyfile)) as server:
        transport = reach(
            loop, Origin("https", LOCALHOST, server.port), client_context(cafile=files.cafile)
        )

        assert (transport.protocol, transport.tls_version) == ("h2", "TLSv1.3")
        assert transport.address == (LOCALHOST, server.port)
        transport.close()


def test_any_certificate_will_do_when_none_is_verified(loop, files):
    with serving(ssl_context=server_context(files.certfile, files.keyfile)) as server:
        context = client_context(verify=False)

        reach(loop, Origin("https", LOCALHOST, server.port), context).close()


def test_an_unknown_certificate_is_refused(loop, files):
    with serving(ssl_context=server_context(files.certfile, files.keyfile)) as server:
        error = fault(loop, Origin("https", LOCALHOST, server.port), client_context())

    assert type(error) is TLSError
    assert str(error).startswith(
        f"https://127.0.0.1:{server.port} (127.0.0.1:{server.port}): certificate not accepted: "
    )
    assert "--cacert" in describe(error)


def test_a_certificate_for_another_name_is_refused(loop, tmp_path):
    files = make_certificate(str(tmp_path), ("other.test",))
    with serving(ssl_context=server_context(files.certfile, files.keyfile)) as server:
        error = fault(
            loop, Origin("https", LOCALHOST, server.port), client_context(cafile=files.cafile)
        )

    assert type(error) is TLSError
    assert "certificate not accepted: IP address mismatch" in str(error)


def test_an_expired_certificate_is_refused(loop, tmp_path):
    files = make_certificate(str(tmp_path), days=-1)
    with serving(ssl_context=server_context(files.certfile, files.keyfile)) as server:
        error = fault(
            loop, Origin("https", LOCALHOST, server.port), client_context(cafile=files.cafile)
        )

    assert type(error) is TLSError
    assert "certificate not accepted: certificate has expired" in str(error)


@pytest.mark.parametrize("protocols", [[], ["http/1.1"]])
def test_a_server_that_does_not_choose_h2_is_refused(loop, files, protocols):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certfile, files.keyfile)
    if protocols:
        context.set_alpn_protocols(protocols)

    def handshake(sock: socket.socket) -> None:
        try:
            with context.wrap_socket(sock, server_side=True) as tls:
                tls.recv(1)
        except OSError:
            return  # the client has seen enough

    with accepting(handshake) as listening:
        error = fault(
            loop, Origin("https", LOCALHOST, listening.port), client_context(cafile=files.cafile)
        )

    assert type(error) is TLSError
    assert "the peer does not offer h2 by ALPN (it chose nothing)" in str(error)


def test_a_cleartext_port_is_recognised_under_tls(loop):
    with serving() as server:
        error = fault(loop, Origin("https", LOCALHOST, server.port), client_context())

    assert type(error) is TLSError
    assert describe(error).endswith("(the port speaks cleartext: try http://)")


def test_a_server_that_hangs_up_during_the_handshake_is_a_tls_error(loop):
    with accepting(lambda sock: sock.recv(1)) as listening:
        error = fault(loop, Origin("https", LOCALHOST, listening.port), client_context())

    assert type(error) is TLSError
    assert "TLS handshake" in str(error)


def test_a_connection_reset_before_tls_could_begin_is_a_tls_error(loop, listener, monkeypatch):
    def refuse(*_: object) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(dial_module, "TLSTransport", refuse)
    port = listener.getsockname()[1]

    error = fault(loop, Origin("https", LOCALHOST, port), client_context())

    assert type(error) is TLSError
    assert str(error) == (
        f"https://127.0.0.1:{port} (127.0.0.1:{port}): "
        "TLS handshake cut off: Connection reset by peer"
    )
