"""Makes the Go library of THIS process trust a sandbox instead of WhatsApp.

The worker calls it, after it loaded the library and before it connects, and only when the daemon
itself was started with `--sandbox`. The library checks the server's Noise certificate against a
root key that is compiled in; the key is replaced in memory, never on disk. (The other half of
trusting a sandbox, the private CA, is the environment variable SSL_CERT_FILE.)

Standard library only.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from whatsappd.errors import SandboxFailed
from whatsappd.sandbox.protocol.loaded_libraries import mappings_of

#: The public key that signs the intermediate certificates of WhatsApp's Noise servers.
WHATSAPP_NOISE_ROOT = bytes.fromhex(
    "142375574d0a587166aae71ebe516437c4a28b73e3695c6ce1f7f9545da8ee6b"
)


def replace_noise_root(library: str | Path | ctypes.CDLL, new_root: bytes) -> None:
    """Replace WhatsApp's Noise root key by `new_root` in the loaded library.

    Args:
        library: the path of the library, or its handle; it must be loaded already.
        new_root: 32 bytes, `SandboxInfo.noise_root` as bytes.

    Raises:
        SandboxFailed: the key is not in the library's writable memory exactly once, which means
            that this version of the library is built differently (or was treated already).
        ValueError: `new_root` has not 32 bytes.
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
