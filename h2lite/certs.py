"""Throwaway certificates for tests, benches and `h2lite serve --tls`.

X.509 is the cryptography package's (extra `certs`); nothing here is meant to outlive a process.
"""

from __future__ import annotations

import datetime
import ipaddress
import os

from .errors import UsageError
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
VALID_DAYS = 7


class CertificateFiles(Value):
    """Paths of PEM files: who signed (to be trusted), the certificate, its private key."""

    __slots__ = ("cafile", "certfile", "keyfile")

    def __init__(self, cafile: str, certfile: str, keyfile: str) -> None:
        self.cafile = cafile
        self.certfile = certfile
        self.keyfile = keyfile


def make_certificate(
    folder: str, names: tuple[str, ...] = LOCAL_NAMES, *, days: int = VALID_DAYS
) -> CertificateFiles:
    """Make an authority, and a certificate signed by it, in `folder`.

    names   host names and numeric addresses it is good for
    days    how long it is valid; negative: it has expired already
    Raises UsageError when the cryptography package is missing.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID
    except ModuleNotFoundError as error:
        raise UsageError(
            "certificates need the cryptography package: pip install 'h2lite[certs]'"
        ) from error
    ca_key = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("h2lite throwaway authority")
    ca = _builder(ca_name, ca_name, ca_key.public_key(), ca_key.public_key(), days, authority=True)
    leaf = _builder(
        _name(names[0]), ca_name, key.public_key(), ca_key.public_key(), days, authority=False
    )
    # For a client too, so that a test of client certificates needs no other kind.
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    leaf = leaf.add_extension(
        x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
    ).add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return _write(folder, _sign(ca, ca_key), _sign(leaf, ca_key), key)


def _name(common_name: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    days: int,
    *,
    authority: bool,
) -> x509.CertificateBuilder:
    """What the authority and its certificate have in common."""
    from cryptography import x509

    # An hour of slack: clocks of one machine and its containers differ.
    now = datetime.datetime.now(datetime.timezone.utc)
    start = now - datetime.timedelta(days=max(0, -days), hours=1)
    usage = x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(max(start, now + datetime.timedelta(days=days)))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False
        )
    )


def _sign(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import hashes, serialization

    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _write(
    folder: str, ca_pem: bytes, cert_pem: bytes, key: ec.EllipticCurvePrivateKey
) -> CertificateFiles:
    from cryptography.hazmat.primitives import serialization

    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    files = CertificateFiles(
        *(os.path.join(folder, name) for name in ("ca.pem", "cert.pem", "key.pem"))
    )
    for path, pem in ((files.cafile, ca_pem), (files.certfile, cert_pem), (files.keyfile, key_pem)):
        # The key is for its owner's eyes only, from the moment the file exists.
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(pem)
    return files
