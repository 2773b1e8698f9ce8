"""Noise, certificates, pairing identities, and replacing the root key: the trust of the sandbox."""

from __future__ import annotations

import hmac
import ssl
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from wire_client import HEADER, NoiseClient

from whatsappd.errors import SandboxFailed
from whatsappd.sandbox.neonize_library.noise_root import replace_noise_root
from whatsappd.sandbox.protocol import adv, protobuf
from whatsappd.sandbox.protocol.noise import NoiseHandshake, NoiseIdentity
from whatsappd.sandbox.protocol.violations import ProtocolViolation
from whatsappd.sandbox.protocol.xeddsa import XEdDsaSigner, verify
from whatsappd.sandbox.server.noise_keys import load_noise_identity
from whatsappd.sandbox.server.tls_certificates import load_authority, server_context


@pytest.fixture
def identity(tmp_path: Path) -> NoiseIdentity:
    return load_noise_identity(tmp_path / "noise.json")


@pytest.fixture
def client() -> NoiseClient:
    """The client's side of the handshake, which shares no code with the server's."""
    return NoiseClient()


def test_a_handshake_with_an_independent_client(
    identity: NoiseIdentity, client: NoiseClient
) -> None:
    handshake = NoiseHandshake(identity, HEADER)
    last, server_static, chain = client.finish(handshake.answer(client.hello()), b"payload")
    finished = handshake.finish(last)
    assert finished.payload == b"payload"
    assert finished.client_static == client.static.public_key().public_bytes_raw()
    send, receive = (AESGCM(key) for key in client.hkdf(b""))
    for number in range(3):
        nonce = bytes(8) + number.to_bytes(4, "big")
        assert finished.transport.decrypt(send.encrypt(nonce, b"up", None)) == b"up"
        assert receive.decrypt(nonce, finished.transport.encrypt(b"down"), None) == b"down"

    leaf, intermediate = (protobuf.decode(chain).message(number) for number in (1, 2))
    assert verify(identity.root, intermediate.data(1), intermediate.data(2))
    issuer, details = protobuf.decode(intermediate.data(1)), protobuf.decode(leaf.data(1))
    assert issuer.number(2) == 0
    assert details.number(2) == issuer.number(1)
    assert verify(issuer.data(3), leaf.data(1), leaf.data(2))
    assert details.data(3) == server_static


def test_the_identity_is_kept_and_private(tmp_path: Path) -> None:
    file = tmp_path / "noise.json"
    first = load_noise_identity(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    second = load_noise_identity(file)
    assert (second.root, second.static_public) == (first.root, first.static_public)


@pytest.mark.parametrize("damage", ["hello", "finish", "other prologue"])
def test_a_damaged_handshake_is_a_violation(
    identity: NoiseIdentity, client: NoiseClient, damage: str
) -> None:
    handshake = NoiseHandshake(identity, b"WA\x06\x02" if damage == "other prologue" else HEADER)
    if damage == "hello":
        with pytest.raises(ProtocolViolation):
            handshake.answer(b"")
        return
    answer = handshake.answer(client.hello())
    if damage == "other prologue":
        with pytest.raises(Exception):  # noqa: B017, PT011  # the client notices, by its own means
            client.finish(answer, b"")
        return
    last, _, _ = client.finish(answer, b"payload")
    with pytest.raises(ProtocolViolation):
        handshake.finish(last[:-1] + bytes([last[-1] ^ 1]))


def test_frames_must_decrypt(identity: NoiseIdentity, client: NoiseClient) -> None:
    handshake = NoiseHandshake(identity, HEADER)
    finished = handshake.finish(client.finish(handshake.answer(client.hello()), b"")[0])
    with pytest.raises(ProtocolViolation):
        finished.transport.decrypt(b"not encrypted at all")


# --- TLS --------------------------------------------------------------------------------------


def test_the_ca_is_kept_and_signs_for_whatsapp_only_in_this_directory(tmp_path: Path) -> None:
    files = tmp_path / "ca.pem", tmp_path / "ca.key"
    authority = load_authority(*files)
    assert load_authority(*files).certificate == authority.certificate
    assert stat.S_IMODE(files[1].stat().st_mode) == 0o600
    server = server_context(authority, tmp_path / "server.pem")
    assert stat.S_IMODE((tmp_path / "server.pem").stat().st_mode) == 0o600
    client = ssl.create_default_context(cafile=str(files[0]))
    for host in ("web.whatsapp.com", "mmg.whatsapp.net"):
        shake_hands(client, server, host)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(client, server, "example.com")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(ssl.create_default_context(), server, "web.whatsapp.com")


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> None:
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(down, up, server_hostname=host),
        server.wrap_bio(up, down, server_side=True),
    ]
    while ends:
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)


def test_a_damaged_ca_is_named(tmp_path: Path) -> None:
    for name in ("ca.pem", "ca.key"):
        (tmp_path / name).write_text("damaged")
    with pytest.raises(SandboxFailed, match=r"ca\.pem"):
        load_authority(tmp_path / "ca.pem", tmp_path / "ca.key")


# --- ADV --------------------------------------------------------------------------------------


def test_a_device_confirms_what_the_phone_vouched_for() -> None:
    phone, device = XEdDsaSigner(), XEdDsaSigner()
    secret = b"s" * 32
    pending = adv.vouch(phone, device.public, secret, raw_id=7, key_index=3, now=1000)
    container = protobuf.decode(pending.container)
    assert container.data(2) == hmac.digest(secret, container.data(1), "sha256")
    signed = protobuf.decode(container.data(1))
    assert verify(phone.public, b"\x06\x00" + signed.data(1) + device.public, signed.data(3))

    message = b"\x06\x01" + signed.data(1) + device.public + phone.public
    answer = {1: signed.data(1), 3: signed.data(3), 4: device.sign(message)}
    adv.check_device_signature(pending, protobuf.encode(answer))
    for change in ({1: b"other"}, {4: XEdDsaSigner().sign(message)}, {4: b""}):
        with pytest.raises(ProtocolViolation):
            adv.check_device_signature(pending, protobuf.encode({**answer, **change}))


# --- trust ------------------------------------------------------------------------------------


def test_only_a_library_with_the_root_key_can_be_made_to_trust() -> None:
    with pytest.raises(SandboxFailed, match="not loaded"):
        replace_noise_root("/nonexistent/library.so", bytes(32))
    with pytest.raises(ValueError, match="32 bytes"):
        replace_noise_root("/nonexistent/library.so", b"short")
    import _ssl

    with pytest.raises(SandboxFailed, match="0 times"):
        replace_noise_root(_ssl.__file__, bytes(32))
