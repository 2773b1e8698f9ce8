"""TLS for the loopback server: a private CA, and a certificate for WhatsApp's host names.

Clients trust the CA through SSL_CERT_FILE, which must name `ca.pem` before their library is loaded.
The CA is kept, so clients trust it again after a restart of the sandbox. The server's certificate
is made anew at each start, so it never expires.
"""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from whatsappd.errors import SandboxFailed
from whatsappd.files import PRIVATE, PUBLIC, write_file

#: The names that the certificate is for.
HOST_NAMES = ("web.whatsapp.com", "*.whatsapp.com", "*.whatsapp.net", "localhost")

_CA_LIFETIME = datetime.timedelta(days=3650)
#: Clients accept at most 825 days.
_LEAF_LIFETIME = datetime.timedelta(days=365)


class PrivateAuthority(NamedTuple):
    """The private CA: whoever trusts it, trusts this sandbox for all of `HOST_NAMES`."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def load_authority(certificate_file: Path, key_file: Path) -> PrivateAuthority:
    """The CA in these PEM files; if one is missing, a new one, which is then kept.

    The key's file has mode 0600, the certificate's 0644.

    Raises:
        SandboxFailed: a file is damaged.
        FileNotWritten: the new CA cannot be written.
    """
    if not (certificate_file.exists() and key_file.exists()):
        authority = _new_authority()
        write_file(key_file, _key_pem(authority.key), mode=PRIVATE)
        write_file(certificate_file, _pem(authority.certificate), mode=PUBLIC)
        return authority
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    except ValueError as error:
        raise SandboxFailed(
            f"{certificate_file} or {key_file} is damaged: remove both, and start again"
        ) from error
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return PrivateAuthority(certificate, key)


def server_context(authority: PrivateAuthority, chain_file: Path) -> ssl.SSLContext:
    """A TLS context for the server, with a new certificate.

    Python's ssl loads certificates from files only, so key and certificate go through `chain_file`
    (mode 0600).
    """
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = _builder(HOST_NAMES[0], authority.certificate.subject, key, _LEAF_LIFETIME)
    leaf = leaf.add_extension(
        x509.SubjectAlternativeName([x509.DNSName(name) for name in HOST_NAMES]), critical=False
    ).add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    certificate = leaf.sign(authority.key, hashes.SHA256())
    write_file(chain_file, _key_pem(key) + _pem(certificate), mode=PRIVATE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    # Tickets would be sent after each handshake, and no client resumes a session.
    context.num_tickets = 0
    context.load_cert_chain(chain_file)
    return context


def _new_authority() -> PrivateAuthority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = "whatsappd sandbox (private, for this directory only)"
    builder = _builder(name, None, key, _CA_LIFETIME)
    builder = builder.add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    ).add_extension(
        x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        ),
        critical=True,
    )
    return PrivateAuthority(builder.sign(key, hashes.SHA256()), key)


def _builder(
    name: str,
    issuer: x509.Name | None,
    key: ec.EllipticCurvePrivateKey,
    lifetime: datetime.timedelta,
) -> x509.CertificateBuilder:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A day of slack for clocks that differ.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + lifetime)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
