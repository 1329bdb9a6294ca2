"""Reaching an origin: names, addresses, TLS; every failure in words, nothing left open."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from h2lite import dial as dial_module
from h2lite.certs import CertificateFiles, make_certificate
from h2lite.cli import describe
from h2lite.dial import Dial, DialFailed, Dialled
from h2lite.errors import ConnectError, TLSError
from h2lite.loop import Loop
from h2lite.origin import Origin
from h2lite.transport import client_context, server_context
from h2lite.value import Value

from .running import PATIENCE_S, accepting, serving

LOCALHOST = "127.0.0.1"


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


def resolve_to(monkeypatch: pytest.MonkeyPatch, *answers: tuple[str, int] | Exception) -> list[str]:
    """Make names resolve to `answers`; the list returned names the threads that asked."""
    asked: list[str] = []
    system = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, **arguments: Any) -> list[Any]:
        if arguments["flags"] & socket.AI_NUMERICHOST:
            return system(host, port, **arguments)
        asked.append(threading.current_thread().name)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", answer) for answer in answers]

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


def reach(loop: Loop, origin: Origin, context: ssl.SSLContext | None = None) -> Any:
    """The transport of a dial that succeeds."""
    reached = outcome(loop, Dial(loop, origin, context))
    assert isinstance(reached, Dialled), reached
    return reached.transport


def fault(loop: Loop, origin: Origin, context: ssl.SSLContext | None = None) -> ConnectError:
    """The error of a dial that fails; nothing is watched any more."""
    failed = outcome(loop, Dial(loop, origin, context))
    assert isinstance(failed, DialFailed), failed
    assert not loop._masks
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


def test_a_dial_closed_while_it_resolves_leaves_nothing_open(loop, monkeypatch):
    answer_now = threading.Event()

    def getaddrinfo(host: str, port: int, **arguments: Any) -> list[Any]:
        if not arguments["flags"] & socket.AI_NUMERICHOST:
            answer_now.wait(PATIENCE_S)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    before = sorted(os.listdir("/dev/fd"))
    dial = Dial(loop, Origin("http", "slow.test", 80), None)
    assert dial.start() == []

    dial.close()
    dial.close()

    answer_now.set()
    for thread in threading.enumerate():
        if thread.name == "h2lite resolves slow.test":
            thread.join(PATIENCE_S)
    assert sorted(os.listdir("/dev/fd")) == before


def test_a_dial_closed_while_it_connects_leaves_nothing_open(loop, listener):
    before = sorted(os.listdir("/dev/fd"))
    dial = Dial(loop, Origin("http", LOCALHOST, listener.getsockname()[1]), None)
    assert dial.start() == []

    dial.close()

    assert sorted(os.listdir("/dev/fd")) == before
    assert loop.turn(loop.clock()) == []


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
