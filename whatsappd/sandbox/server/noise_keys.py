"""The sandbox's Noise keys on disk: a JSON file with three secret keys, in hexadecimal.

They are kept so that clients that trust the sandbox's root key trust it again after a restart.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from whatsappd.files import PRIVATE, write_file
from whatsappd.sandbox.protocol.noise import NoiseIdentity
from whatsappd.sandbox.protocol.xeddsa import XEdDsaSigner

_NAMES = ("root", "intermediate", "static")
_KEY_SIZE = 32


def load_noise_identity(file: Path) -> NoiseIdentity:
    """The identity whose keys are in `file`; if it does not exist, a new one, which is then kept.

    Raises:
        FileNotWritten: there was none, and the new one cannot be written.
    """
    try:
        keys = {name: bytes.fromhex(value) for name, value in json.loads(file.read_text()).items()}
    except FileNotFoundError:
        keys = {name: os.urandom(_KEY_SIZE) for name in _NAMES}
        content = json.dumps({name: key.hex() for name, key in keys.items()})
        write_file(file, content.encode(), mode=PRIVATE)
    return NoiseIdentity(
        XEdDsaSigner(keys["root"]),
        XEdDsaSigner(keys["intermediate"]),
        X25519PrivateKey.from_private_bytes(keys["static"]),
    )
