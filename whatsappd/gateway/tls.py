"""The gateway's certificate: read at the start, and anew at each SIGHUP.

A certificate that cannot be used is refused in words: at the start that ends the gateway, later the
one in force stays. Connections that are open keep the one they began with.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import structlog

from whatsappd.errors import InvalidParams

log = structlog.get_logger()


class Certificates:
    """`context` is for the next connection."""

    def __init__(self, cert: Path, key: Path) -> None:
        """Raises InvalidParams if they cannot be used."""
        self._cert = cert
        self._key = key
        self.context = server_context(cert, key)

    def reload(self) -> None:
        """Take what the files hold now, or say why not."""
        try:
            self.context = server_context(self._cert, self._key)
        except InvalidParams as error:
            log.error("certificate_kept", reason=error.message)
        else:
            log.info("certificate_reloaded", cert=str(self._cert), subject=_subject(self._cert))


def server_context(cert: Path, key: Path) -> ssl.SSLContext:
    """For TLS 1.2 and 1.3, and HTTP/1.1 in it.

    Raises:
        InvalidParams: a file cannot be read, is no PEM, is encrypted, or they do not belong
            together; the message names the option and the file.
    """
    for option, path in (("tls-cert", cert), ("tls-key", key)):
        try:
            text = path.read_bytes()
        except OSError as error:
            raise InvalidParams(
                f"{option}: cannot read {path}: {error.strerror or error}: the gateway's user "
                "must be able to read it, and to enter its directories",
                field=option,
            ) from error
        wanted = b"CERTIFICATE-----" if option == "tls-cert" else b"PRIVATE KEY-----"
        if wanted not in text:
            what = "certificate" if option == "tls-cert" else "private key"
            raise InvalidParams(
                f"{option}: {path} holds no {what} in PEM form (-----BEGIN …{wanted.decode()})",
                field=option,
            )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without an answer of ours OpenSSL would ask for a password on the terminal.
        context.load_cert_chain(cert, key, password=lambda: b"")
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        if "KEY_VALUES_MISMATCH" in str(error):
            reason = f"tls-key: {key} does not belong to the certificate in {cert}"
        elif b"ENCRYPTED" in text:
            reason = f"tls-key: {key} is encrypted: give one without a password"
        else:
            reason = f"tls-cert: {cert} and {key} cannot be used: {_words(error)}"
        raise InvalidParams(reason, field=reason.partition(":")[0]) from error
    return context


def _words(error: OSError | ValueError) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)


def _subject(cert: Path) -> str:
    """For the log: whose it is and until when. OpenSSL, which has taken it, reads more forms than
    the library that is asked here."""
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificates(cert.read_bytes())[0]
        return f"{found.subject.rfc4514_string()}, until {found.not_valid_after_utc:%Y-%m-%d %H:%M}"
    except (OSError, ValueError):
        return "unknown"
