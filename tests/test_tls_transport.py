"""TLS on a socket that is nearly always full: no octet is lost, doubled or put out of order."""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress

import pytest

from h2lite import transport as transport_module
from h2lite.certs import CertificateFiles, make_certificate
from h2lite.connection import Connection
from h2lite.errors import TLSError, UsageError
from h2lite.events import ConnectionEnded, PingReceived
from h2lite.framer import CLIENT_PREFACE
from h2lite.frames import SettingsFrame
from h2lite.loop import Link, Loop
from h2lite.testing import Clock
from h2lite.transport import (
    TLSTransport,
    Transport,
    client_context,
    client_tls,
    prepare,
    server_context,
)

TINY_OCTETS = 2048  # the kernel makes a little more of it, still less than one record
OCTETS = random.Random(7).randbytes(400_000)

Pair = tuple[TLSTransport, TLSTransport]


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory):
    files = make_certificate(str(tmp_path_factory.mktemp("certificate")))
    return client_context(cafile=files.cafile), server_context(files.certfile, files.keyfile)


@pytest.fixture
def pair(contexts) -> Iterator[Pair]:
    """A client's and a server's transport, the handshake done."""
    ends = socket.socketpair()
    for end in ends:
        prepare(end)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, TINY_OCTETS)
    client = TLSTransport(ends[0], ("server", 1), contexts[0], "localhost")
    server = TLSTransport(ends[1], ("client", 1), contexts[1])
    waiting = [client, server]
    while waiting:
        waiting = [end for end in waiting if end.handshake()]
    # The server's session tickets, left unread, would make a close of this end a reset.
    assert client.recv() is None
    yield client, server
    client.close()
    server.close()


def drain(transport: TLSTransport) -> bytes:
    octets = b""
    while data := transport.recv():
        octets += data
    return octets


@pytest.mark.parametrize("seed", range(5))
def test_committed_octets_arrive_once_and_in_order_whatever_is_offered_next(pair, seed):
    """As the loop does it: push first, then other octets, in cuts of any size."""
    client, server = pair
    chance = random.Random(seed)
    sent, arrived, commitments = 0, b"", 0
    while len(arrived) < len(OCTETS):
        if not client.committed or client.push():
            sent += client.send(OCTETS[sent : sent + chance.choice((1, 17, 3000, 16384, 65536))])
            commitments += bool(client.committed)
        if chance.random() < 0.4:
            arrived += drain(server)

    assert arrived == OCTETS
    assert commitments > 10
    assert not client.committed


def test_a_send_while_octets_are_committed_pushes_them_first(pair):
    client, server = pair
    sent = 0
    while not client.committed:
        sent += client.send(OCTETS[sent : sent + 20000])

    assert client.send(b"not taken") == 0
    assert not client.push()
    arrived = drain(server)
    while client.send(b"taken") == 0:
        arrived += drain(server)
    while not client.push():
        arrived += drain(server)
    assert arrived + drain(server) == OCTETS[:sent] + b"taken"


def test_the_tap_sees_each_octet_once_in_clear(pair):
    client, server = pair
    seen: dict[bool, bytes] = {True: b"", False: b""}

    def tap(received: bool, octets: bytes) -> None:
        seen[received] += octets

    client.tap = server.tap = tap
    sent, arrived = 0, b""
    while len(arrived) < 100_000:
        if not client.committed or client.push():
            sent += client.send(OCTETS[sent:100_000])
        arrived += drain(server)

    assert seen == {True: OCTETS[:100_000], False: OCTETS[:100_000]}


def test_octets_that_tls_holds_are_pending(pair):
    client, server = pair
    client.send(b"0123456789")
    assert server.sock.recv(1) == b"0"

    assert server.pending() == 9
    assert server.recv() == b"123456789"
    assert (server.pending(), server.recv()) == (0, None)


def test_one_turn_reads_all_that_tls_holds(pair, monkeypatch):
    """The selector does not see decrypted octets: what one recv left would wait for ever."""
    monkeypatch.setattr(transport_module, "RECV_OCTETS", 7)
    client, server = pair
    loop = Loop(Clock())
    connection = Connection(client=False)
    link = Link(loop, server, connection)
    peer = Connection(client=True)
    peer.ping(b"12345678", 0.0)
    octets = peer.data_to_send(0.0)
    assert octets.startswith(CLIENT_PREFACE)
    assert client.send(octets) == len(octets)

    kinds = [type(event).__name__ for _, event in loop.turn(None)]

    assert kinds == ["SettingsReceived", "WindowUpdated", "PingReceived"]
    link.end("the test is over")
    loop.close()


@pytest.mark.parametrize("notify", [True, False])
def test_the_peers_close_is_the_end_of_the_stream(pair, notify):
    client, server = pair
    server.recv()
    client.send(b"last words")
    if notify:
        with pytest.raises(OSError):  # noqa: PT011  it sends its close_notify and waits for ours
            client.sock.unwrap()
    client.close()

    assert server.recv() == b"last words"
    assert server.recv() == b""


def test_a_link_over_tls_ends_when_the_peer_closes(pair):
    client, server = pair
    loop = Loop(Clock())
    link = Link(loop, server, Connection(client=False))
    client.close()

    assert loop.turn(None) == [(link, ConnectionEnded("eof", "eof"))]
    loop.close()


def test_a_reset_under_tls_keeps_the_systems_words(pair, monkeypatch):
    """As ssl reports it from Python 3.13 on; before, it takes a reset for an end."""
    reset = ConnectionResetError(104, "Connection reset by peer")

    def recv(octets: int) -> bytes:
        raise reset

    monkeypatch.setattr(pair[0].sock, "recv", recv)

    with pytest.raises(ConnectionResetError) as caught:
        pair[0].recv()

    assert caught.value is reset


@pytest.mark.rfc("preface-over-tls")
def test_each_end_begins_with_its_preface_before_the_other_has_said_a_word(pair):
    loop = Loop(Clock())
    links = [Link(loop, pair[0], Connection(client=True)), Link(loop, pair[1], Connection(False))]

    loop.flush()

    from_client, from_server = drain(pair[1]), drain(pair[0])
    assert from_client.startswith(CLIENT_PREFACE)
    assert from_client[len(CLIENT_PREFACE) + 3] == SettingsFrame.TYPE
    assert from_server[3] == SettingsFrame.TYPE
    for link in links:
        link.end("the test is over")
    loop.close()


def test_what_the_peer_says_after_we_ended_sending_is_still_decrypted(pair):
    client, server = pair
    seen: list[bytes] = []
    loop = Loop(Clock())
    peer, core = Connection(client=True), Connection(client=False)
    link = Link(loop, server, core)
    client.send(peer.data_to_send(0.0))
    loop.turn(None)
    core.goaway()  # graceful: the connection still takes frames
    link.finish()
    loop.flush()
    server.tap = lambda received, octets: seen.append(octets)
    peer.ping(b"12345678", 0.0)
    ping = peer.data_to_send(0.0)
    client.send(ping)

    events = [event for _, event in loop.turn(None)]

    link.end("")
    loop.close()
    assert seen == [ping]
    assert events == [PingReceived(b"12345678")]


# -- which protocol ----------------------------------------------------------------------------

BOTH = ("h2", "http/1.1")
NO_APPLICATION_PROTOCOL = b"\x15\x03\x03\x00\x02\x02\x78"  # a TLS alert, fatal, number 120


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    return make_certificate(str(tmp_path_factory.mktemp("protocols")))


def met(
    files: CertificateFiles,
    offered: tuple[str, ...],
    accepted: list[str],
    suites: str | None = None,
    own: ssl.SSLContext | None = None,
) -> TLSTransport:
    """The client's end, closed, after a handshake with a server that prefers in its own order."""
    context = own or client_context(cafile=files.cafile, alpn=offered)
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.load_cert_chain(files.certfile, files.keyfile)
    if accepted:
        other.set_alpn_protocols(accepted)
    if suites is not None:
        other.maximum_version = ssl.TLSVersion.TLSv1_2
        other.set_ciphers(suites)
    left, right = socket.socketpair()
    prepare(left)
    prepare(right)
    client = TLSTransport(left, ("server", 1), context, "localhost", alpn=offered)
    server = other.wrap_socket(right, server_side=True, do_handshake_on_connect=False)
    with client.sock, server:
        while client.handshake():
            with suppress(ssl.SSLWantReadError):
                server.do_handshake()
    return client


@pytest.mark.parametrize(
    ("offered", "accepted", "chosen"),
    [
        (BOTH, ["h2", "http/1.1"], "h2"),
        (BOTH, ["http/1.1", "h2"], "http/1.1"),
        (BOTH, ["http/1.1"], "http/1.1"),
        (BOTH, [], "http/1.1"),
        (["http/1.1"], ["h2", "http/1.1"], "http/1.1"),
        (["http/1.1"], [], "http/1.1"),
    ],
)
def test_the_server_chooses_of_what_is_offered(files, offered, accepted, chosen):
    assert met(files, offered, accepted).protocol == chosen


@pytest.mark.rfc("alpn-h2")
@pytest.mark.parametrize("accepted", [[], ["http/1.1"]])
def test_http_1_1_that_was_not_offered_is_refused(files, accepted):
    with pytest.raises(TLSError) as caught:
        met(files, ("h2",), accepted)

    assert str(caught.value) == "the peer does not offer h2 by ALPN (it chose nothing)"


@pytest.mark.parametrize(
    ("offered", "names"), [(("h2",), "h2"), (BOTH, "h2 or http/1.1")], ids=["h2", "both"]
)
def test_a_server_that_refuses_all_that_is_offered_is_told_in_words(files, offered, names):
    ends = socket.socketpair()
    context = client_context(cafile=files.cafile, alpn=offered)
    prepare(ends[0])
    client = TLSTransport(ends[0], ("server", 1), context, "localhost", alpn=offered)
    with client.sock, ends[1]:
        client.handshake()
        ends[1].sendall(NO_APPLICATION_PROTOCOL)

        with pytest.raises(TLSError) as caught:
            client.handshake()

    told = f"the peer does not offer {names} by ALPN (it refused the handshake)"
    assert str(caught.value) == told


@pytest.mark.rfc("tls-1.2-suites")
def test_the_suites_that_http_2_prohibits_are_http_1_1s_own_affair(files):
    own = ssl.create_default_context(cafile=files.cafile)
    own.set_alpn_protocols([*BOTH])
    suites = "ECDHE+AES+SHA256:!AESGCM"

    assert met(files, BOTH, ["http/1.1"], suites, own).protocol == "http/1.1"
    with pytest.raises(TLSError, match="prohibited under HTTP/2"):
        met(files, BOTH, ["h2"], suites, own)


@pytest.mark.parametrize("alpn", [(), ("h3",), ("h2", "http/1.0"), "h2"])
def test_other_protocols_are_not_offered(alpn):
    with pytest.raises(UsageError, match=r"want h2, http/1\.1 or both"):
        client_context(alpn=alpn)
    with pytest.raises(UsageError, match=r"want h2, http/1\.1 or both"):
        client_tls("https", ssl_context=ssl.create_default_context(), alpn=alpn)


def test_a_context_of_ones_own_offers_what_it_is_told_to(files):
    own = ssl.create_default_context(cafile=files.cafile)
    own.set_alpn_protocols(["h2"])
    assert client_tls("https", ssl_context=own, alpn=("http/1.1",)) is own

    assert met(files, ("http/1.1",), ["h2", "http/1.1"], own=own).protocol == "http/1.1"


def test_a_context_for_urls_offers_what_it_is_told_to(files):
    made = client_tls("https", cafile=files.cafile, alpn=BOTH)

    assert met(files, BOTH, ["http/1.1", "h2"], own=made).protocol == "http/1.1"


@pytest.mark.parametrize("notify", [True, False])
def test_an_end_without_the_peers_word_for_it_is_told_from_one_with_it(pair, notify):
    """Content that ends with the connection may have been cut short (RFC 9112 §9.8)."""
    client, server = pair
    server.recv()
    assert not server.cut_off
    if notify:
        client.end_sending()
    client.close()

    assert server.recv() == b""
    assert server.cut_off is not notify


def test_in_cleartext_nobody_can_tell():
    ends = socket.socketpair()
    with ends[0], ends[1]:
        assert not Transport(ends[0], ("server", 1)).cut_off
