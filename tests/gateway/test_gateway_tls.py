"""TLS: HTTP/1.1 alone in it, certificates that change while it serves, and refusals in words."""

from __future__ import annotations

import errno
import os
import signal
import ssl
from pathlib import Path

import pytest
import trio
from certificates import certificate
from gateways import Gateway, Stack

from whatsappd.errors import InvalidParams
from whatsappd.gateway.tls import Certificates, server_context

LIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


async def connect(port: int, offers: list[str]) -> trio.SSLStream[trio.SocketStream]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(offers)
    tcp = await trio.open_tcp_stream("127.0.0.1", port)
    stream = trio.SSLStream(tcp, context, https_compatible=True)
    await stream.do_handshake()
    return stream


async def shown(port: int) -> bytes:
    async with await connect(port, []) as stream:
        return stream.getpeercert(binary_form=True) or b""


async def test_a_new_certificate_is_taken_and_a_bad_one_is_not(
    stack: Stack, tmp_path: Path
) -> None:
    cert, key = certificate(tmp_path)
    gateway = Gateway(tmp_path, stack.daemon.socket, "--tls-cert", str(cert), "--tls-key", str(key))
    await gateway.start()
    assert gateway.process is not None

    async def reload(event: str) -> dict[str, object]:
        before = len(gateway.log())
        gateway.process.send_signal(signal.SIGHUP)
        with trio.fail_after(20):
            while True:
                for line in gateway.lines(before):
                    if line["event"] == event:
                        return line
                await trio.sleep(0.02)

    try:
        first = await shown(gateway.port)
        async with await connect(gateway.port, ["h2", "http/1.1"]) as old:
            assert old.selected_alpn_protocol() == "http/1.1"
            certificate(tmp_path)  # the same files
            await reload("certificate_reloaded")
            second = await shown(gateway.port)
            assert second != first
            await old.send_all(LIVE)
            assert b"200" in await old.receive_some(1000)
            key.write_text("no key at all")
            kept = await reload("certificate_kept")
            assert str(key) in str(kept["reason"])
            assert await shown(gateway.port) == second
        # Whoever speaks nothing but HTTP/2 is told so in the words of HTTP/1.1.
        async with await connect(gateway.port, ["h2"]) as new:
            assert new.selected_alpn_protocol() is None
            await new.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert (await new.receive_some(1000)).startswith(b"HTTP/1.1 505")
    finally:
        assert await gateway.stop() == 0


def test_files_that_cannot_be_used_are_refused_in_words(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    server_context(cert, key)
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    _, other_key = certificate(elsewhere)
    empty = tmp_path / "empty.pem"
    empty.touch()
    encrypted = tmp_path / "encrypted.pem"
    from cryptography.hazmat.primitives import serialization

    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    encrypted.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for given_cert, given_key, field, said in [
        (tmp_path / "none.pem", key, "tls-cert", "No such file"),
        (tmp_path, key, "tls-cert", "Is a directory"),
        (empty, key, "tls-cert", "holds no certificate"),
        (key, key, "tls-cert", "holds no certificate"),
        (broken, key, "tls-cert", "cannot be used"),
        (cert, tmp_path / "none.pem", "tls-key", "No such file"),
        (cert, empty, "tls-key", "holds no private key"),
        (cert, other_key, "tls-key", "does not belong"),
        (cert, encrypted, "tls-key", "is encrypted"),
    ]:
        with pytest.raises(InvalidParams, match=said) as refused:
            server_context(given_cert, given_key)
        assert refused.value.data["field"] == field
        assert str(given_cert) in refused.value.message or str(given_key) in refused.value.message


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read_is_refused_in_words(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    key.chmod(0)
    with pytest.raises(InvalidParams, match="Permission denied"):
        server_context(cert, key)


async def test_a_form_that_only_openssl_reads_is_taken(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    certificates = Certificates(cert, key)
    before = certificates.context
    cert.write_text(cert.read_text().replace(" CERTIFICATE-", " TRUSTED CERTIFICATE-"))
    await certificates.reload()
    assert certificates.context is not before


async def test_a_file_that_goes_while_it_is_read_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a tool does that renews certificates, and removes the old ones first."""
    certificates = Certificates(*certificate(tmp_path))
    before = certificates.context

    def gone(*_given: object, **_named: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", gone)
    await certificates.reload()
    assert certificates.context is before
