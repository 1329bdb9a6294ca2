"""Transports: what TLS may be, ALPN, and octets through a real pair of sockets."""

from __future__ import annotations

import datetime
import socket
import ssl
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from h2lite.certs import CertificateFiles, make_certificate
from h2lite.errors import TLSError, UsageError
from h2lite.transport import (
    RECV_OCTETS,
    TLSTransport,
    Transport,
    address_text,
    client_context,
    prepare,
    security_fault,
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


@pytest.mark.rfc("tls-1.2", "tls-1.2-suites", "tls-1.2-suites-lawful", "tls-no-compression")
@pytest.mark.parametrize(
    ("version", "suite", "compression", "fault"),
    [
        ("TLSv1.3", "TLS_AES_128_GCM_SHA256", None, None),
        ("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", None, None),
        ("TLSv1.2", "ECDHE-ECDSA-AES256-CCM8", None, None),
        ("TLSv1.2", "ECDHE-ARIA128-GCM-SHA256", None, None),
        ("TLSv1.2", "ECDHE-RSA-CHACHA20-POLY1305", None, None),
        ("TLSv1.2", "DHE-RSA-AES256-GCM-SHA384", None, None),
        ("TLSv1.2", "DHE-PSK-AES128-CCM", None, None),
        ("TLSv1.2", "PSK-CHACHA20-POLY1305", None, None),
        ("TLSv1.2", "AES128-GCM-SHA256", None, "the cipher suite AES128-GCM-SHA256 is prohibited"),
        ("TLSv1.2", "ADH-AES128-GCM-SHA256", None, "ADH-AES128-GCM-SHA256 is prohibited"),
        ("TLSv1.2", "RSA-PSK-AES128-GCM-SHA256", None, "RSA-PSK-AES128-GCM-SHA256 is prohibited"),
        ("TLSv1.2", "ECDHE-RSA-AES128-SHA256", None, "ECDHE-RSA-AES128-SHA256 is prohibited"),
        ("TLSv1.2", "DHE-RSA-CAMELLIA256-SHA", None, "DHE-RSA-CAMELLIA256-SHA is prohibited"),
        ("TLSv1.2", "AECDH-NULL-SHA", None, "AECDH-NULL-SHA is prohibited"),
        ("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", "zlib", "TLS compresses (zlib)"),
        ("TLSv1.1", "ECDHE-RSA-AES128-SHA", None, "TLSv1.1 is too old"),
        ("TLSv1", "ECDHE-RSA-AES128-SHA", None, "TLSv1 is too old"),
        ("SSLv3", "AES128-SHA", None, "SSLv3 is too old"),
    ],
)
def test_what_the_rfc_prohibits_is_a_fault_and_nothing_else_is(version, suite, compression, fault):
    found = security_fault(version, suite, compression)

    assert (found is None) if fault is None else (fault in str(found))


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


@pytest.mark.rfc("alpn-h2", "tls-negotiates")
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


def plain_contexts(
    files: CertificateFiles, version: ssl.TLSVersion, suites: str
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A client's and a server's context as other people make them, for one TLS version."""
    client = ssl.create_default_context(cafile=files.cafile)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certfile, files.keyfile)
    for context in (client, server):
        context.set_ciphers(suites)
        context.set_alpn_protocols(["h2"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the old ones are: as they should
            context.minimum_version = context.maximum_version = version
    return client, server


@pytest.mark.rfc("tls-1.2", "tls-1.2-suites")
@pytest.mark.parametrize(
    ("version", "suites", "fault"),
    [
        (ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0", "TLSv1.1 is too old for HTTP/2"),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES128-SHA is prohibited"),
    ],
)
def test_contexts_of_other_peoples_making_are_held_to_the_rfc(tls, files, version, suites, fault):
    """At both ends: each finds out when its own handshake is done."""
    client, server = plain_contexts(files, version, suites)
    ends = [tls(client, "localhost"), tls(server)]
    faults = []

    for _ in range(10):
        for end in list(ends):
            try:
                end.handshake()
            except TLSError as error:
                faults.append(str(error))
                ends.remove(end)

    assert ends == []
    assert all(fault in found for found in faults), faults


@pytest.mark.rfc("tls-1.2-suites-lawful")
@pytest.mark.parametrize(
    "suite", ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-CCM", "ECDHE+CHACHA20"]
)
def test_suites_the_rfc_allows_are_taken(tls, files, suite):
    client, server = plain_contexts(files, ssl.TLSVersion.TLSv1_2, suite)

    shake(tls(client, "localhost"), tls(server))


@pytest.fixture(scope="module")
def rsa_files(tmp_path_factory) -> CertificateFiles:
    """A certificate with an RSA key that signs itself."""
    folder = tmp_path_factory.mktemp("rsa")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "cert.pem").write_bytes(certificate.public_bytes(encoding))
    (folder / "key.pem").write_bytes(
        key.private_bytes(encoding, kind, serialization.NoEncryption())
    )
    cert = str(folder / "cert.pem")
    return CertificateFiles(cert, cert, str(folder / "key.pem"))


@pytest.mark.rfc("tls-1.2-mandatory")
@pytest.mark.parametrize("ours", ["client", "server"])
def test_the_mandatory_suite_is_supported_with_p_256(tls, rsa_files, ours):
    suite = "ECDHE-RSA-AES128-GCM-SHA256"
    client, server = plain_contexts(rsa_files, ssl.TLSVersion.TLSv1_2, suite)
    server.set_ecdh_curve("prime256v1")
    if ours == "client":
        client = client_context(cafile=rsa_files.cafile)
    else:
        server = server_context(rsa_files.certfile, rsa_files.keyfile)
        client.set_ecdh_curve("prime256v1")
    ends = tls(client, "localhost"), tls(server)

    shake(*ends)

    assert [end.sock.cipher()[0] for end in ends] == [suite, suite]


@pytest.mark.rfc("tls-ecdhe-sizes")
@pytest.mark.parametrize("curve", ["prime256v1", "secp384r1", "secp521r1"])
@pytest.mark.parametrize("ours", ["client", "server"])
def test_ephemeral_keys_of_every_usual_size_are_taken(tls, rsa_files, curve, ours):
    client, server = plain_contexts(rsa_files, ssl.TLSVersion.TLSv1_2, "ECDHE+AESGCM")
    if ours == "client":
        client = client_context(cafile=rsa_files.cafile)
        server.set_ecdh_curve(curve)
    else:
        server = server_context(rsa_files.certfile, rsa_files.keyfile)
        client.set_ecdh_curve(curve)

    shake(tls(client, "localhost"), tls(server))


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
        "h2c", None, b"", 0,
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
