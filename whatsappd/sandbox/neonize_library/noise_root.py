"""Replaces WhatsApp's Noise root key in neonize's Go library, in the memory of THIS process.

A worker does it after it loaded the library and before it connects, and only when the daemon was
started with `--sandbox`. The library verifies the server's Noise certificates with a root key that
is compiled in; here that key is replaced in memory, never on disk. (The other half of trusting a
sandbox, its private CA, is the environment variable SSL_CERT_FILE.)

Standard library only: it runs inside workers.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from whatsappd.errors import SandboxFailed
from whatsappd.sandbox.neonize_library.memory_mappings import mappings_of

#: The X25519 public key that signs the intermediate certificates of WhatsApp's Noise servers
#: (whatsmeow: handshake.go, `WACertPubKey`).
WHATSAPP_NOISE_ROOT = bytes.fromhex(
    "142375574d0a587166aae71ebe516437c4a28b73e3695c6ce1f7f9545da8ee6b"
)


def replace_noise_root(library: str | Path | ctypes.CDLL, new_root: bytes) -> None:
    """Replace WhatsApp's Noise root key by `new_root` in the loaded library.

    Args:
        library: the library's path, or its handle; it must be loaded already.
        new_root: 32 bytes, `SandboxInfo.noise_root_bytes`.

    Raises:
        SandboxFailed: the key is not in the library's writable memory exactly once: this version
            of the library is built differently, or the key was replaced before.
        ValueError: `new_root` does not have 32 bytes.
    """
    if len(new_root) != len(WHATSAPP_NOISE_ROOT):
        raise ValueError(f"the root key must have 32 bytes, not {len(new_root)}")
    path = Path(library._name if isinstance(library, ctypes.CDLL) else library)
    places = []
    for mapping in mappings_of(path):
        if not (mapping.readable and mapping.writable):
            continue
        content = mapping.read()
        offset = content.find(WHATSAPP_NOISE_ROOT)
        while offset >= 0:
            places.append(mapping.start + offset)
            offset = content.find(WHATSAPP_NOISE_ROOT, offset + 1)
    if len(places) != 1:
        raise SandboxFailed(
            f"WhatsApp's Noise root key was found {len(places)} times in the memory of {path.name} "
            "instead of once: this version of neonize is not one the sandbox knows"
        )
    ctypes.memmove(places[0], new_root, len(new_root))
