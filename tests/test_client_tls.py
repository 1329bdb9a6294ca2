"""connect() under TLS: client certificates, a context of the user's own, SNI, the key log."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from h2lite.certs import CertificateFiles, make_certificate
from h2lite.client import connect
from h2lite.errors import TLSError, UsageError
from h2lite.transport import client_context, client_tls, server_context

from .running import needs_unix, serving


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    return make_certificate(str(tmp_path_factory.mktemp("certificate")))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    return make_certificate(str(tmp_path_factory.mktemp("other")))


@pytest.fixture
def context(files: CertificateFiles) -> ssl.SSLContext:
    """A server's."""
    return server_context(files.certfile, files.keyfile)


def together(folder: Path, files: CertificateFiles) -> str:
    """One file of a certificate and its key."""
    path = folder / "both.pem"
    path.write_bytes(Path(files.certfile).read_bytes() + Path(files.keyfile).read_bytes())
    return str(path)


def encrypted(folder: Path, files: CertificateFiles) -> str:
    """The key under a passphrase."""
    key = serialization.load_pem_private_key(Path(files.keyfile).read_bytes(), None)
    path = folder / "encrypted.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"sesame"),
        )
    )
    return str(path)


# -- client certificates -----------------------------------------------------------------------


@pytest.mark.parametrize("in_one_file", [True, False])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_certificate_is_shown_to_a_server_that_asks(
    files, other, context, tmp_path, version, in_one_file
):
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(other.cafile)
    context.maximum_version = version
    ours: dict[str, Any]
    if in_one_file:
        ours = {"certfile": together(tmp_path, other)}
    else:
        ours = {"certfile": other.certfile, "keyfile": other.keyfile}

    with (
        serving(ssl_context=context) as server,
        connect(server.url, cafile=files.cafile, **ours) as connection,
    ):
        connection.ping()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_that_asks_in_vain_is_a_tls_error_in_words(files, context, version):
    """Under TLS 1.3 it says so only when our handshake is done."""
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(files.cafile)
    context.maximum_version = version

    with serving(ssl_context=context) as server, pytest.raises(TLSError) as caught:
        connect(server.url, cafile=files.cafile)

    assert "alert" in str(caught.value)
    assert "_ssl.c" not in str(caught.value)


def test_files_that_make_no_certificate_are_named(files, other, tmp_path):
    missing = str(tmp_path / "missing.pem")
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate", "ascii")
    secret = encrypted(tmp_path, files)
    for certfile, keyfile, reason in (
        (missing, None, "No such file or directory"),
        (files.certfile, missing, "No such file or directory"),
        (str(junk), None, "missing there, or not in PEM"),
        (files.certfile, None, "missing there, or not in PEM"),
        (files.certfile, str(junk), "missing there, or not in PEM"),
        (files.certfile, other.keyfile, "key values mismatch"),
        (files.certfile, secret, "its private key is encrypted"),
    ):
        where = certfile if keyfile is None else f"{certfile} and {keyfile}"
        for make in (
            lambda cert, key: connect("https://localhost:1", certfile=cert, keyfile=key),
            server_context,
        ):
            with pytest.raises(UsageError) as caught:
                make(certfile, keyfile)

            assert str(caught.value).startswith(f"cannot use the certificate in {where}: ")
            assert str(caught.value).endswith(reason)


def test_a_key_without_a_certificate_is_the_callers_mistake(files):
    with pytest.raises(UsageError, match="without a certfile"):
        connect("https://localhost:1", keyfile=files.keyfile)


# -- a context of the user's own ---------------------------------------------------------------


def test_a_context_of_ones_own_offers_h2_alone_and_is_else_as_it_was(files, context):
    """Such a server would choose http/1.1 of the two."""
    context.set_alpn_protocols(["http/1.1", "h2"])
    own = ssl.create_default_context(cafile=files.cafile)
    own.set_alpn_protocols(["http/1.1", "h2"])
    own.minimum_version = ssl.TLSVersion.TLSv1_3
    suites, options = own.get_ciphers(), own.options

    with (
        serving(ssl_context=context) as server,
        connect(server.url, ssl_context=own) as connection,
    ):
        connection.ping()

    assert connection.protocol == "h2"
    assert own.minimum_version == ssl.TLSVersion.TLSv1_3
    assert (own.get_ciphers(), own.options) == (suites, options)
    assert (own.verify_mode, own.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_a_context_of_ones_own_decides_whom_to_trust(other, context):
    own = ssl.create_default_context(cafile=other.cafile)

    with (
        serving(ssl_context=context) as server,
        pytest.raises(TLSError, match="certificate not accepted"),
    ):
        connect(server.url, ssl_context=own)


@pytest.mark.parametrize(
    "beside",
    [{"verify": False}, {"cafile": "ca.pem"}, {"certfile": "cert.pem"}, {"keyfile": "key.pem"}],
)
def test_a_context_of_ones_own_stands_alone(beside):
    own = ssl.create_default_context()

    with pytest.raises(UsageError, match="leave them out"):
        connect("https://localhost:1", ssl_context=own, **beside)


def test_a_servers_context_is_no_clients(context):
    with pytest.raises(UsageError, match="want a client's"):
        connect("https://localhost:1", ssl_context=context)


# -- without TLS -------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["http://localhost:1", "unix:/app.sock"])
@pytest.mark.parametrize("name", ["certfile", "keyfile", "ssl_context"])
def test_what_is_meant_for_one_server_is_refused_without_tls(url, name):
    arguments: dict[str, Any] = {name: ssl.create_default_context()}

    with pytest.raises(UsageError, match="are for https URLs"):
        connect(url, **arguments)


@needs_unix
@pytest.mark.parametrize("where", ["http", "unix"])
def test_what_is_said_once_for_all_urls_says_nothing_without_tls(short_path, where):
    host = "127.0.0.1" if where == "http" else f"unix:{short_path}/app.sock"
    with (
        serving(host=host) as server,
        connect(server.url, verify=False, cafile="/nowhere/ca.pem") as connection,
    ):
        connection.ping()


# -- the key log -------------------------------------------------------------------------------


def test_both_sides_append_their_secrets_to_the_key_log(files, monkeypatch, tmp_path):
    path = tmp_path / "keys.log"
    path.write_text("# mine\n", "ascii")
    monkeypatch.setenv("SSLKEYLOGFILE", str(path))

    with (
        serving(ssl_context=server_context(files.certfile, files.keyfile)) as server,
        connect(server.url, cafile=files.cafile) as connection,
    ):
        connection.ping()

    lines = path.read_text("ascii").splitlines()
    assert lines[0] == "# mine"
    secrets = [line.split()[1:] for line in lines if line.startswith("CLIENT_TRAFFIC_SECRET_0 ")]
    assert len(secrets) == 2
    assert secrets[0] == secrets[1]


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_key_log_that_cannot_be_written_is_named(files, monkeypatch, tmp_path, side):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path))
    make: Callable[[], object] = {
        "client": client_context,
        "server": lambda: server_context(files.certfile, files.keyfile),
    }[side]

    with pytest.raises(UsageError) as caught:
        make()

    assert str(caught.value) == f"cannot write to SSLKEYLOGFILE {tmp_path}: Is a directory"


def test_a_key_log_is_no_matter_without_tls_and_to_a_context_of_ones_own(monkeypatch, tmp_path):
    own = ssl.create_default_context()
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path))

    assert client_tls("http") is None
    assert client_tls("https", ssl_context=own) is own


# -- SNI ---------------------------------------------------------------------------------------


@pytest.mark.rfc("tls-sni")
@pytest.mark.parametrize(
    ("host", "told"),
    [("localhost", "localhost"), ("LOCALHOST.", "localhost"), ("127.0.0.1", None)],
)
def test_a_server_is_told_the_name_it_is_called_by_and_no_number(
    files, context, monkeypatch, host, told
):
    system = socket.getaddrinfo
    monkeypatch.setattr(  # not every resolver knows localhost with its dot
        socket, "getaddrinfo", lambda host, *rest, **more: system(host.rstrip("."), *rest, **more)
    )
    names: list[str | None] = []

    def note(sock: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        names.append(name)

    context.sni_callback = note
    with serving(ssl_context=context) as server:
        connect(f"https://{host}:{server.port}", cafile=files.cafile).close()

    assert ssl.HAS_SNI
    assert names == [told]
