"""The server's side of Noise: the handshake, and the encryption of all frames after it.

Noise_XX_25519_AESGCM_SHA256 (noiseprotocol.org), with the stream header as its prologue. Three
messages, each a protobuf `HandshakeMessage` (waWa6/WAWebProtobufsWa6.proto in whatsmeow):

    client -> server   ClientHello    e
    server -> client   ServerHello    e, ee, s, es, and as its payload a certificate chain
    client -> server   ClientFinish   s, se, and as its payload a ClientPayload (`server.login`)

The certificate chain (waCert) says whose the server's static key is. It has two certificates: the
root key signs the intermediate's, the intermediate key signs the server's. Clients have WhatsApp's
root key compiled in, and demand its serial 0; the sandbox has a root key of its own
(`neonize_library.noise_root`). Signatures are XEdDSA.

After the handshake each direction has an AES-256-GCM key and a counter, which is the nonce.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from whatsappd.sandbox.protocol import protobuf
from whatsappd.sandbox.protocol.violations import ProtocolViolation
from whatsappd.sandbox.protocol.xeddsa import XEdDsaSigner

_PATTERN = b"Noise_XX_25519_AESGCM_SHA256\0\0\0\0"

# HandshakeMessage
_CLIENT_HELLO, _SERVER_HELLO, _CLIENT_FINISH = 2, 3, 4
_EPHEMERAL, _STATIC, _PAYLOAD = 1, 2, 3  # ClientHello, ServerHello
_FINISH_STATIC, _FINISH_PAYLOAD = 1, 2  # ClientFinish

# CertChain, NoiseCertificate, NoiseCertificate.Details
_LEAF, _INTERMEDIATE = 1, 2
_DETAILS, _SIGNATURE = 1, 2
_SERIAL, _ISSUER_SERIAL, _KEY, _NOT_BEFORE, _NOT_AFTER = 1, 2, 3, 4, 5

_ROOT_SERIAL = 0  # clients demand it
_INTERMEDIATE_SERIAL = 1
_LEAF_SERIAL = 2
_DAY = 86_400
#: Seconds that a certificate is valid. They are made anew at each start of the sandbox.
_VALIDITY = 365 * _DAY


class NoiseIdentity:
    """The Noise keys of a server: `root`, which its clients must trust, and its static key.

    `root`, `static_public`: X25519 public keys, 32 bytes. `certificate_chain`: a protobuf
    `CertChain` for the static key, valid from a day ago to a year from now.
    """

    def __init__(
        self, root: XEdDsaSigner, intermediate: XEdDsaSigner, static: X25519PrivateKey
    ) -> None:
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


def _certificate(
    issuer: XEdDsaSigner, serial: int, issuer_serial: int, key: bytes, now: int
) -> bytes:
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


class NoiseTransport:
    """The encryption after the handshake. Each frame must pass once, in the order of the wire.

    The keys are 32 bytes, for AES-256-GCM.
    """

    def __init__(self, receive_key: bytes, send_key: bytes) -> None:
        self._receive = AESGCM(receive_key)
        self._send = AESGCM(send_key)
        self._received = 0
        self._sent = 0

    def encrypt(self, plaintext: bytes) -> bytes:
        """The next frame's payload for the client; 16 bytes longer."""
        nonce = self._sent.to_bytes(12, "big")
        self._sent += 1
        return self._send.encrypt(nonce, plaintext, None)

    def decrypt(self, ciphertext: bytes) -> bytes:
        """The plaintext of the client's next frame.

        Raises:
            ProtocolViolation: it was not encrypted with the client's key and counter.
        """
        nonce = self._received.to_bytes(12, "big")
        self._received += 1
        try:
            return self._receive.decrypt(nonce, ciphertext, None)
        except InvalidTag as error:
            raise ProtocolViolation("a frame does not decrypt") from error


class FinishedHandshake(NamedTuple):
    """What the client's last message brought, and the encryption from here on."""

    client_static: bytes  # the client's static X25519 public key, by which a login is recognised
    payload: bytes  # ClientPayload
    transport: NoiseTransport


class NoiseHandshake:
    """One handshake, as the server: `answer` the ClientHello, then `finish` with the ClientFinish.

    It cannot be used again after an error.
    """

    def __init__(self, identity: NoiseIdentity, prologue: bytes) -> None:
        """Args:
        prologue: the client's stream header, 4 bytes.
        """
        self._identity = identity
        self._ephemeral = X25519PrivateKey.generate()
        self._hash = _PATTERN
        self._salt = _PATTERN
        self._key = AESGCM(_PATTERN)
        self._counter = 0
        self._mix_hash(prologue)

    def answer(self, message: bytes) -> bytes:
        """The ServerHello that answers a ClientHello.

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

    def finish(self, message: bytes) -> FinishedHandshake:
        """Take the ClientFinish.

        Raises:
            ProtocolViolation: the message is no ClientFinish, or does not decrypt.
        """
        finish = protobuf.decode(message).message(_CLIENT_FINISH)
        client_static = self._decrypt(finish.data(_FINISH_STATIC))
        self._mix_shared_secret(self._ephemeral, client_static)
        payload = self._decrypt(finish.data(_FINISH_PAYLOAD))
        client_key, server_key = _expand(self._salt, b"")
        return FinishedHandshake(client_static, payload, NoiseTransport(client_key, server_key))

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
