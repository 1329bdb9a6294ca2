"""Transports: what TLS may be, ALPN, and octets through a real pair of sockets."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from h2lite.certs import CertificateFiles, make_certificate
from h2lite.errors import TLSError, UsageError
from h2lite.transport import (
    RECV_OCTETS,
    TLSTransport,
    Transport,
    address_text,
    client_context,
    prepare,
    server_context,
)

ADDRESS = ("127.0.0.1", 443)

# RFC 9113 appendix A prohibits, under TLS 1.2, every suite but the ephemeral ones with an AEAD.
LAWFUL_SUITES = {
    f"ECDHE-{key}-{cipher}"
    for key in ("RSA", "ECDSA")
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> CertificateFiles:
    return make_certificate(str(tmp_path_factory.mktemp("certificates")))


@pytest.fixture
def contexts(files) -> dict[str, ssl.SSLContext]:
    return {
        "client": client_context(cafile=files.cafile),
        "server": server_context(files.certfile, files.keyfile),
    }


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    pair = socket.socketpair()
    for sock in pair:
        prepare(sock)
    yield pair
    for sock in pair:
        sock.close()


@pytest.fixture
def tls(sockets) -> Iterator[Callable[..., TLSTransport]]:
    """Makes one end of the pair: the client's by the name it asks for, else the server's."""
    made: list[TLSTransport] = []

    def make(context: ssl.SSLContext, name: str | None = None) -> TLSTransport:
        made.append(TLSTransport(sockets[name is None], ADDRESS, context, name))
        return made[-1]

    yield make
    for end in made:
        end.close()


@pytest.fixture
def secured(tls, contexts) -> tuple[TLSTransport, TLSTransport]:
    """A client and a server whose handshake is done."""
    ends = tls(contexts["client"], "localhost"), tls(contexts["server"])
    shake(*ends)
    return ends


def shake(*ends: TLSTransport) -> None:
    """Step both handshakes until they are done; a few round trips are all they take."""
    waiting = list(ends)
    for _ in range(10):
        waiting = [end for end in waiting if end.handshake()]
        if not waiting:
            return
    pytest.fail("the handshake comes to no end")


# -- what TLS may be -----------------------------------------------------------------------


@pytest.mark.rfc("tls-1.2")
@pytest.mark.parametrize("side", ["client", "server"])
def test_tls_1_2_is_the_oldest_version(contexts, side):
    assert contexts[side].minimum_version == ssl.TLSVersion.TLSv1_2
    assert contexts[side].maximum_version == ssl.TLSVersion.MAXIMUM_SUPPORTED


@pytest.mark.rfc("tls-1.2-suites")
@pytest.mark.parametrize("side", ["client", "server"])
def test_under_tls_1_2_only_suites_the_rfc_allows_are_offered(contexts, side):
    names = {
        suite["name"] for suite in contexts[side].get_ciphers() if suite["protocol"] != "TLSv1.3"
    }

    # The one every HTTP/2 endpoint must have (§9.2.2).
    assert "ECDHE-RSA-AES128-GCM-SHA256" in names
    assert names <= LAWFUL_SUITES


@pytest.mark.rfc("tls-no-compression", "tls-no-renegotiation")
@pytest.mark.parametrize("side", ["client", "server"])
def test_compression_and_renegotiation_are_off(contexts, side):
    assert contexts[side].options & ssl.OP_NO_COMPRESSION
    assert contexts[side].options & ssl.OP_NO_RENEGOTIATION


def test_certificates_are_verified_unless_told_otherwise(files):
    strict, lax = client_context(), client_context(verify=False)

    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (lax.verify_mode, lax.check_hostname) == (ssl.CERT_NONE, False)


@pytest.mark.rfc("alpn-h2", "tls-1.2")
@pytest.mark.parametrize(
    ("version", "name"),
    [(ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")],
)
def test_alpn_chooses_h2_and_octets_cross(tls, contexts, version, name):
    contexts["client"].maximum_version = version
    client, server = tls(contexts["client"], "localhost"), tls(contexts["server"])

    shake(client, server)

    assert (client.tls_version, server.tls_version) == (name, name)
    assert (client.protocol, server.protocol) == ("h2", "h2")
    assert client._ssl.selected_alpn_protocol() == "h2"
    assert client.send(b"ping") == 4
    assert server.recv() == b"ping"
    assert server.recv() is None


@pytest.mark.rfc("alpn-h2")
@pytest.mark.parametrize("offered", [[], ["http/1.1"], ["h2c"]])
def test_a_server_without_h2_is_refused(tls, files, contexts, offered):
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.load_cert_chain(files.certfile, files.keyfile)
    other.set_alpn_protocols(offered)
    client = tls(contexts["client"], "localhost")
    server = tls(other)

    with pytest.raises(TLSError, match="does not offer h2 by ALPN"):
        shake(client, server)


@pytest.mark.rfc("alpn-h2")
def test_a_client_without_h2_is_refused(tls, files, contexts):
    other = ssl.create_default_context(cafile=files.cafile)
    client = tls(other, "localhost")
    server = tls(contexts["server"])
    client.handshake()

    server.handshake()
    client._ssl.do_handshake()

    with pytest.raises(TLSError, match="does not offer h2 by ALPN"):
        server.handshake()


@pytest.mark.rfc("tls-1.2-suites")
def test_a_peer_with_prohibited_suites_alone_is_refused(tls, files, contexts):
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.load_cert_chain(files.certfile, files.keyfile)
    other.maximum_version = ssl.TLSVersion.TLSv1_2
    other.set_ciphers("ECDHE+AES+SHA:@SECLEVEL=0")
    other.set_alpn_protocols(["h2"])
    client = tls(contexts["client"], "localhost")
    server = tls(other)

    with pytest.raises(TLSError, match="TLS handshake failed"):
        shake(client, server)


@pytest.mark.parametrize(
    ("name", "trusted", "fault"),
    [
        ("elsewhere.example", True, "elsewhere.example"),
        ("localhost", False, "unable to get local issuer certificate"),
    ],
)
def test_a_wrong_certificate_is_refused_in_words(tls, files, name, trusted, fault):
    client = client_context(cafile=files.cafile if trusted else None)
    server = server_context(files.certfile, files.keyfile)

    with pytest.raises(TLSError, match=f"certificate not accepted: .*{fault}"):
        shake(tls(client, name), tls(server))


def test_a_certificate_is_not_looked_at_when_told_so(tls, contexts):
    client = tls(client_context(verify=False), "elsewhere.example")

    shake(client, tls(contexts["server"]))

    assert client.tls_version == "TLSv1.3"


def test_a_peer_that_speaks_no_tls_is_refused_in_words(sockets, tls, contexts):
    client = tls(contexts["client"], "localhost")
    client.handshake()
    sockets[1].send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with pytest.raises(TLSError, match="TLS handshake failed: "):
        client.handshake()


def test_a_peer_that_hangs_up_in_the_handshake_is_a_tls_error(sockets, tls, contexts):
    client = tls(contexts["client"], "localhost")
    client.handshake()
    sockets[1].recv(RECV_OCTETS)
    sockets[1].close()

    with pytest.raises(TLSError, match="TLS handshake"):
        client.handshake()


def test_files_that_cannot_be_read_are_the_callers_mistake(tmp_path, files):
    missing = str(tmp_path / "missing.pem")
    junk = tmp_path / "junk.pem"
    Path(junk).write_text("no certificate", "ascii")

    for call in (
        lambda: client_context(cafile=missing),
        lambda: client_context(cafile=str(junk)),
        lambda: server_context(missing),
        lambda: server_context(str(junk), str(junk)),
        lambda: server_context(files.certfile, files.cafile),
    ):
        with pytest.raises(UsageError):
            call()


# -- octets --------------------------------------------------------------------------------


def test_a_cleartext_transport_takes_and_gives_without_blocking(sockets):
    seen: list[tuple[bool, bytes]] = []
    near = Transport(sockets[0], ADDRESS, lambda received, data: seen.append((received, data)))
    far = Transport(sockets[1], ADDRESS)

    assert near.recv() is None
    assert near.send(b"there") == 5
    assert far.recv() == b"there"
    assert far.send(b"back") == 4
    assert near.recv() == b"back"
    far.end_sending()
    assert near.recv() == b""

    assert seen == [(False, b"there"), (True, b"back"), (True, b"")]
    assert (near.protocol, near.tls_version, near.committed, near.pending()) == (
        "h2c", None, False, 0,
    )  # fmt: skip


def test_a_full_socket_takes_a_part_and_then_nothing(sockets):
    near, far = (Transport(sock, ADDRESS) for sock in sockets)
    data = bytes(range(256)) * 40_000

    taken = near.send(data)
    assert 0 < taken < len(data)
    while more := near.send(data[taken:]):
        taken += more

    received = bytearray()
    while octets := far.recv():
        received += octets
    assert received == data[:taken]


def test_octets_tls_has_taken_arrive_whole_and_first_though_the_socket_was_full(secured):
    client, server = secured
    data = bytes(range(256)) * 40_000

    taken = client.send(data)
    assert 0 < taken < len(data)
    assert client.committed
    assert client.send(b"let me pass") == 0

    received = bytearray()
    for _ in range(10_000):
        while octets := server.recv():
            received += octets
        if client.push():
            break
    assert not client.committed
    assert client.send(b"and then") == 8
    while octets := server.recv():
        received += octets
    assert received == data[:taken] + b"and then"


def test_octets_already_decrypted_are_pending(secured):
    client, server = secured
    client.send(bytes(100_000))

    first = server.recv()
    assert first
    rest = bytearray()
    while octets := server.recv():
        rest += octets
        assert len(octets) <= RECV_OCTETS

    assert len(first) + len(rest) == 100_000
    assert server.pending() == 0


@pytest.mark.parametrize("how", ["close_notify", "cut"])
def test_the_end_of_tls_is_the_end_of_the_stream(secured, how):
    client, server = secured
    while client.recv():
        pass
    if how == "cut":
        server.end_sending()
    else:
        with pytest.raises(ssl.SSLWantReadError):  # sent, and the peer's is awaited
            server._ssl.unwrap()

    assert client.recv() == b""


def test_a_tcp_socket_is_made_fit_for_frames():
    with socket.socket() as sock:
        prepare(sock)

        assert sock.getblocking() is False
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("127.0.0.1", 80), "127.0.0.1:80"),
        (("::1", 443, 0, 0), "[::1]:443"),
        ("/run/app.sock", "unix:/run/app.sock"),
        ("", "unix:"),
        (b"\0name", "unix:\0name"),
        (b"\0\xff", "unix:\0\\xff"),
    ],
)
def test_an_address_is_written_as_people_write_it(address, text):
    assert address_text(address) == text
