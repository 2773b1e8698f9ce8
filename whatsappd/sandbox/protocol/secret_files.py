"""The sandbox's files: with secrets, readable by the owner only, or its certificate, by all."""

from __future__ import annotations

from pathlib import Path

from whatsappd.files import PRIVATE, PUBLIC, write_file

PRIVATE_DIRECTORY = 0o700
PRIVATE_FILE = PRIVATE


def write_private(file: Path, content: bytes) -> None:
    """Write `content` to `file` with mode 0600, whole or not at all.

    Raises:
        FileNotWritten: it cannot be written.
    """
    write_file(file, content, mode=PRIVATE)


def write_public(file: Path, content: bytes) -> None:
    """As `write_private`, with mode 0644."""
    write_file(file, content, mode=PUBLIC)
