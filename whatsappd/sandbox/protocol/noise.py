"""The Noise handshake, as its server: Noise_XX_25519_AESGCM_SHA256 (the Noise specification).

The three handshake messages are protobuf (`HandshakeMessage` of waWa6); what Noise encrypts in the
second is a certificate chain that ends in WhatsApp's root key, here in the sandbox's own. After
the third message, `Transport` holds one AES-GCM key and one counter for each direction.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from whatsappd.sandbox.protocol import protobuf
from whatsappd.sandbox.protocol.secret_files import write_private
from whatsappd.sandbox.protocol.violations import ProtocolViolation
from whatsappd.sandbox.protocol.xeddsa import Signer

_PATTERN = b"Noise_XX_25519_AESGCM_SHA256\0\0\0\0"
_KEY_SIZE = 32

# HandshakeMessage
_CLIENT_HELLO, _SERVER_HELLO, _CLIENT_FINISH = 2, 3, 4
_EPHEMERAL, _STATIC, _PAYLOAD = 1, 2, 3  # ClientHello, ServerHello
_FINISH_STATIC, _FINISH_PAYLOAD = 1, 2  # ClientFinish

# CertChain, NoiseCertificate, NoiseCertificate.Details
_LEAF, _INTERMEDIATE = 1, 2
_DETAILS, _SIGNATURE = 1, 2
_SERIAL, _ISSUER_SERIAL, _KEY, _NOT_BEFORE, _NOT_AFTER = 1, 2, 3, 4, 5

#: Clients insist that the root's serial is 0.
_ROOT_SERIAL = 0
_INTERMEDIATE_SERIAL = 1
_LEAF_SERIAL = 2
_DAY = 86_400
#: Certificates are made anew at each start, so a year outlives every run.
_VALIDITY = 365 * _DAY


class NoiseIdentity:
    """The sandbox's Noise keys: its root, which clients must trust, and its static key."""

    def __init__(self, root: Signer, intermediate: Signer, static: X25519PrivateKey) -> None:
        self.root = root.public
        self.static = static
        self.static_public = static.public_key().public_bytes_raw()
        now = int(time.time())
        self.certificate_chain = protobuf.encode(
            {
                _LEAF: _certificate(
                    intermediate, _LEAF_SERIAL, _INTERMEDIATE_SERIAL, self.static_public, now
                ),
                _INTERMEDIATE: _certificate(
                    root, _INTERMEDIATE_SERIAL, _ROOT_SERIAL, intermediate.public, now
                ),
            }
        )


def load_identity(file: Path) -> NoiseIdentity:
    """The identity kept in `file` (mode 0600); a new one, which is then kept, if there is none."""
    try:
        keys = {name: bytes.fromhex(value) for name, value in json.loads(file.read_text()).items()}
    except FileNotFoundError:
        keys = {name: os.urandom(_KEY_SIZE) for name in ("root", "intermediate", "static")}
        write_private(file, json.dumps({name: key.hex() for name, key in keys.items()}).encode())
    return NoiseIdentity(
        Signer(keys["root"]),
        Signer(keys["intermediate"]),
        X25519PrivateKey.from_private_bytes(keys["static"]),
    )


def _certificate(issuer: Signer, serial: int, issuer_serial: int, key: bytes, now: int) -> bytes:
    details = protobuf.encode(
        {
            _SERIAL: serial,
            _ISSUER_SERIAL: issuer_serial,
            _KEY: key,
            _NOT_BEFORE: now - _DAY,
            _NOT_AFTER: now + _VALIDITY,
        }
    )
    return protobuf.encode({_DETAILS: details, _SIGNATURE: issuer.sign(details)})


class Transport:
    """The encrypted frames after the handshake. Frames must be taken in order, each once."""

    def __init__(self, receive_key: bytes, send_key: bytes) -> None:
        self._receive = AESGCM(receive_key)
        self._send = AESGCM(send_key)
        self._received = 0
        self._sent = 0

    def encrypt(self, plaintext: bytes) -> bytes:
        nonce = self._sent.to_bytes(12, "big")
        self._sent += 1
        return self._send.encrypt(nonce, plaintext, None)

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Raises: ProtocolViolation: it was not encrypted with the client's key and counter."""
        nonce = self._received.to_bytes(12, "big")
        self._received += 1
        try:
            return self._receive.decrypt(nonce, ciphertext, None)
        except InvalidTag as error:
            raise ProtocolViolation("a frame does not decrypt") from error


class Finished(NamedTuple):
    """What the third message brought: who the client says it is, and the keys from here on."""

    client_static: bytes
    payload: bytes  # ClientPayload
    transport: Transport


class Handshake:
    """One handshake: `answer` for the first message, `finish` for the third."""

    def __init__(self, identity: NoiseIdentity, prologue: bytes) -> None:
        """Args:
        prologue: the stream header the client sent (`WA`, version, dictionary version).
        """
        self._identity = identity
        self._ephemeral = X25519PrivateKey.generate()
        self._hash = _PATTERN
        self._salt = _PATTERN
        self._key = AESGCM(_PATTERN)
        self._counter = 0
        self._mix_hash(prologue)

    def answer(self, message: bytes) -> bytes:
        """The server's message (e, ee, s, es, and the certificate chain) for the client's (e).

        Raises:
            ProtocolViolation: the message is no ClientHello.
        """
        hello = protobuf.decode(message).message(_CLIENT_HELLO)
        client_ephemeral = hello.data(_EPHEMERAL)
        self._mix_hash(client_ephemeral)
        ephemeral = self._ephemeral.public_key().public_bytes_raw()
        self._mix_hash(ephemeral)
        self._mix_shared_secret(self._ephemeral, client_ephemeral)
        static = self._encrypt(self._identity.static_public)
        self._mix_shared_secret(self._identity.static, client_ephemeral)
        payload = self._encrypt(self._identity.certificate_chain)
        return protobuf.encode(
            {
                _SERVER_HELLO: protobuf.encode(
                    {_EPHEMERAL: ephemeral, _STATIC: static, _PAYLOAD: payload}
                )
            }
        )

    def finish(self, message: bytes) -> Finished:
        """What the client's last message (s, se, and its payload) brought.

        Raises:
            ProtocolViolation: the message is no ClientFinish, or does not decrypt.
        """
        finish = protobuf.decode(message).message(_CLIENT_FINISH)
        client_static = self._decrypt(finish.data(_FINISH_STATIC))
        self._mix_shared_secret(self._ephemeral, client_static)
        payload = self._decrypt(finish.data(_FINISH_PAYLOAD))
        client_key, server_key = _expand(self._salt, b"")
        return Finished(client_static, payload, Transport(client_key, server_key))

    def _mix_hash(self, data: bytes) -> None:
        self._hash = hashlib.sha256(self._hash + data).digest()

    def _mix_shared_secret(self, private: X25519PrivateKey, public: bytes) -> None:
        try:
            secret = private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as error:
            raise ProtocolViolation("the handshake carries an unusable key") from error
        self._salt, key = _expand(self._salt, secret)
        self._key = AESGCM(key)
        self._counter = 0

    def _encrypt(self, plaintext: bytes) -> bytes:
        ciphertext = self._key.encrypt(self._nonce(), plaintext, self._hash)
        self._mix_hash(ciphertext)
        return ciphertext

    def _decrypt(self, ciphertext: bytes) -> bytes:
        try:
            plaintext = self._key.decrypt(self._nonce(), ciphertext, self._hash)
        except (InvalidTag, ValueError) as error:
            raise ProtocolViolation("the handshake does not decrypt") from error
        self._mix_hash(ciphertext)
        return plaintext

    def _nonce(self) -> bytes:
        nonce = self._counter.to_bytes(12, "big")
        self._counter += 1
        return nonce


def _expand(salt: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """HKDF-SHA256 (RFC 5869) with an empty info and 64 bytes of output, halved."""
    extracted = hmac.digest(salt, secret, "sha256")
    first = hmac.digest(extracted, b"\x01", "sha256")
    return first, hmac.digest(extracted, first + b"\x02", "sha256")
