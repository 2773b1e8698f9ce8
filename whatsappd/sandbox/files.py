"""Files with secrets: written whole or not at all, and readable by the owner only."""

from __future__ import annotations

import os
from pathlib import Path

PRIVATE_DIRECTORY = 0o700
PRIVATE_FILE = 0o600
PUBLIC_FILE = 0o644


def write_private(file: Path, content: bytes) -> None:
    """Write `content` to `file` with mode 0600, atomically."""
    _write(file, content, PRIVATE_FILE)


def write_public(file: Path, content: bytes) -> None:
    """Write `content` to `file` with mode 0644, atomically."""
    _write(file, content, PUBLIC_FILE)


def _write(file: Path, content: bytes, mode: int) -> None:
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    # O_EXCL: the mode counts only for a file that this call creates.
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        os.fchmod(stream.fileno(), mode)
    partial.replace(file)
