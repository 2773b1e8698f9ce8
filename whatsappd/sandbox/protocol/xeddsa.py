"""XEdDSA: signatures made with, and verified by, X25519 keys.

WhatsApp signs certificates, device identities and prekeys with the keys that it also uses for key
agreement (Signal: "The XEdDSA and VXEdDSA Signature Schemes"; whatsmeow: util/keys, which uses
libsignal). Here a signer keeps an Ed25519 key, publishes its X25519 (Montgomery) form and signs
with Ed25519 (RFC 8032). The Montgomery form loses the sign of the Edwards point, so that bit
travels as the top bit of the signature.
"""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_P = 2**255 - 19
_SIGN = 0x80

SIGNATURE_SIZE = 64
KEY_SIZE = 32


class XEdDsaSigner:
    """A key pair that signs: `public` is its X25519 public key, 32 bytes."""

    def __init__(self, seed: bytes | None = None) -> None:
        """Args:
        seed: 32 secret bytes; the same seed makes the same key pair. None: a new one.
        """
        self.seed = secrets.token_bytes(KEY_SIZE) if seed is None else seed
        self._key = Ed25519PrivateKey.from_private_bytes(self.seed)
        edwards = self._key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        self._sign_bit = edwards[31] & _SIGN
        self.public = _to_montgomery(edwards)

    def sign(self, message: bytes) -> bytes:
        """The signature of `message`, 64 bytes."""
        signature = bytearray(self._key.sign(message))
        signature[63] |= self._sign_bit
        return bytes(signature)


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` was made of `message` by the owner of the X25519 key `public`.

    False also for keys and signatures that are malformed, or have the wrong size.
    """
    if len(public) != KEY_SIZE or len(signature) != SIGNATURE_SIZE:
        return False
    edwards = _to_edwards(public, signature[63] & _SIGN)
    plain = bytearray(signature)
    plain[63] &= ~_SIGN & 0xFF
    try:
        Ed25519PublicKey.from_public_bytes(edwards).verify(bytes(plain), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _to_montgomery(edwards: bytes) -> bytes:
    y = int.from_bytes(edwards, "little") & (1 << 255) - 1
    u = (1 + y) * pow(1 - y, -1, _P) % _P
    return u.to_bytes(KEY_SIZE, "little")


def _to_edwards(montgomery: bytes, sign_bit: int) -> bytes:
    u = int.from_bytes(montgomery, "little") & (1 << 255) - 1
    # u = -1 is on no Edwards point: its inverse, 0 to the power p-2, is 0, which verifies nothing.
    y = (u - 1) * pow(u + 1, _P - 2, _P) % _P
    edwards = bytearray(y.to_bytes(KEY_SIZE, "little"))
    edwards[31] |= sign_bit
    return bytes(edwards)
