"""XEdDSA: signatures by, and verified with, X25519 keys (Signal's "The XEdDSA and VXEdDSA").

WhatsApp signs certificates, device identities and prekeys with Curve25519 keys. A signer of ours
keeps an Ed25519 key, publishes its Montgomery form, and signs as usual; the sign of the Edwards
point, which the Montgomery form loses, travels in the top bit of the signature.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_P = 2**255 - 19
_SIGN = 0x80

SIGNATURE_SIZE = 64
KEY_SIZE = 32


class Signer:
    """A key pair: `public` is the X25519 (Montgomery) public key, 32 bytes."""

    def __init__(self, seed: bytes | None = None) -> None:
        """Args:
        seed: 32 secret bytes, from which the same key comes again; None for a new key.
        """
        self.seed = os.urandom(KEY_SIZE) if seed is None else seed
        self._key = Ed25519PrivateKey.from_private_bytes(self.seed)
        edwards = self._key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        self._sign_bit = edwards[31] & _SIGN
        self.public = _to_montgomery(edwards)

    def sign(self, message: bytes) -> bytes:
        signature = bytearray(self._key.sign(message))
        signature[63] |= self._sign_bit
        return bytes(signature)


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is one of `message` by the X25519 key `public`."""
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
    # u = -1 has no image; 0 to the power p-2 is 0, which then verifies nothing.
    y = (u - 1) * pow(u + 1, _P - 2, _P) % _P
    edwards = bytearray(y.to_bytes(KEY_SIZE, "little"))
    edwards[31] |= sign_bit
    return bytes(edwards)
