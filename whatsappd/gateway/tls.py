"""The gateway's certificate: read at the start, and anew at each SIGHUP.

A certificate that cannot be used is refused in words: at the start that ends the gateway, later the
one in force stays. Connections that are open keep the one they began with.
"""

from __future__ import annotations

import errno
import os
import ssl
import stat
from pathlib import Path

import structlog
import trio

from whatsappd.errors import InvalidParams
from whatsappd.gateway.settings import GatewaySettings

log = structlog.get_logger()

#: Seconds for reading the files at a reload.
READ_WITHIN = 10.0


class Certificates:
    """`context` is for the next connection."""

    def __init__(self, cert: Path, key: Path) -> None:
        """Raises InvalidParams if they cannot be used."""
        self._cert = cert
        self._key = key
        self.context = server_context(cert, key)
        # What hangs keeps its thread: there is one of them at the most.
        self._reading = trio.CapacityLimiter(1)

    async def reload(self) -> None:
        """Take what the files hold now, or say why not. A disk that hangs stops nobody else."""
        with trio.move_on_after(READ_WITHIN) as late:
            try:
                self.context, subject = await trio.to_thread.run_sync(
                    self._read, limiter=self._reading, abandon_on_cancel=True
                )
            except InvalidParams as error:
                log.error("certificate_kept", reason=error.message)
            else:
                log.info("certificate_reloaded", cert=str(self._cert), subject=subject)
        if late.cancelled_caught:
            reason = f"reading the files takes longer than {READ_WITHIN:g} s: what are they on?"
            log.error("certificate_kept", reason=reason)

    def _read(self) -> tuple[ssl.SSLContext, str]:
        return server_context(self._cert, self._key), _subject(self._cert)


def certificates_of(settings: GatewaySettings) -> Certificates | None:
    """What TLS shows; None without TLS.

    Raises:
        InvalidParams: the files cannot be used.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Certificates(settings.tls_cert, settings.tls_key)


def server_context(cert: Path, key: Path) -> ssl.SSLContext:
    """For TLS 1.2 and 1.3, and HTTP/1.1 in it.

    Raises:
        InvalidParams: a file cannot be read, is no PEM, is encrypted, or they do not belong
            together; the message names the option and the file.
    """
    for option, path in (("tls-cert", cert), ("tls-key", key)):
        try:
            text = _content(path)
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


def _content(path: Path) -> bytes:
    """What a file holds. A pipe or device is refused: whoever reads one may wait for ever.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    # Else opening a pipe would wait for somebody who writes.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return file.read()


def _words(error: OSError | ValueError) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)


def _subject(cert: Path) -> str:
    """For the log: whose it is and until when. OpenSSL, which has taken it, reads more forms than
    the library that is asked here."""
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificates(_content(cert))[0]
        return f"{found.subject.rfc4514_string()}, until {found.not_valid_after_utc:%Y-%m-%d %H:%M}"
    except (OSError, ValueError):
        return "unknown"
