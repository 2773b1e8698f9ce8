"""Leaving the directory that a long-running process was started in.

Such a directory may be anybody's: a file system could not be unmounted, and Python programs started
in it would run code found there. Relative paths go on meaning what they meant at the start.
"""

from __future__ import annotations

import os
from pathlib import Path

_started_in: list[Path] = []


def starting_directory() -> Path:
    """Where this process was started, also after `leave_starting_directory`.

    Raises:
        FileNotFoundError: it does not exist any more.
    """
    return _started_in[0] if _started_in else Path.cwd()


def from_start(path: Path) -> Path:
    """A path as whoever started this process meant it.

    Raises:
        FileNotFoundError: it is relative, to a directory that does not exist any more.
    """
    return path if path.is_absolute() else starting_directory() / path


def leave_starting_directory() -> None:
    """Work in / from now on."""
    if not _started_in:
        try:
            _started_in.append(Path.cwd())
        except FileNotFoundError:  # nothing relative can be meant, then
            _started_in.append(Path("/"))
    os.chdir("/")
