"""Where a loaded shared library lies in this process's memory.

`dictionary` reads the stanza tokens out of neonize's Go library, and `trust` replaces the root key
in it; both look through /proc/self/maps. Standard library only: `trust` runs inside workers.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import NamedTuple

from whatsappd.errors import SandboxFailed


class Mapping(NamedTuple):
    """One mapping of a library: addresses `start` to `end`, and what may be done there."""

    start: int
    end: int
    readable: bool
    writable: bool

    def read(self) -> bytes:
        return ctypes.string_at(self.start, self.end - self.start)


def mappings_of(library: Path) -> list[Mapping]:
    """The mappings of a library that is loaded in this process, in address order.

    Raises:
        SandboxFailed: it is not loaded.
    """
    wanted = str(library.resolve())
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == wanted:
            start, _, end = fields[0].partition("-")
            rights = fields[1]
            found.append(Mapping(int(start, 16), int(end, 16), "r" in rights, "w" in rights))
    if not found:
        raise SandboxFailed(f"{library} is not loaded in this process")
    return found
