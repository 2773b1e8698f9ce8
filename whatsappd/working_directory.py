"""Leaving the directory that a process was started in, which may be anybody's.

Python runs code that it finds in its working directory, in more ways than one, and a directory that
is used cannot be unmounted. Relative paths go on meaning what they meant at the start.
"""

from __future__ import annotations

import os
from pathlib import Path

_PYTHONPATH = "PYTHONPATH"
_started_in: list[Path] = []


def from_start(path: Path) -> Path:
    """A path as whoever started this process meant it.

    Raises:
        FileNotFoundError: it is relative, to a directory that does not exist any more.
    """
    if path.is_absolute():
        return path
    return (_started_in[0] if _started_in else Path.cwd()) / path


def leave_starting_directory() -> None:
    """Work in / from now on, and have child processes find the same modules there."""
    if not _started_in:
        try:
            _started_in.append(Path.cwd())
        except FileNotFoundError:  # nothing relative can be meant, then
            _started_in.append(Path("/"))
    if given := os.environ.get(_PYTHONPATH):
        # An empty entry means the working directory.
        entries = [str(from_start(Path(entry))) for entry in given.split(os.pathsep) if entry]
        os.environ[_PYTHONPATH] = os.pathsep.join(entries)
    os.chdir("/")
