"""Where a loaded shared library lies in this process's memory, from /proc/self/maps.

`token_extraction` reads the stanza tokens out of neonize's Go library, and `noise_root` replaces a
key in it. Standard library only: `noise_root` runs inside workers.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import NamedTuple

from whatsappd.errors import SandboxFailed


class MemoryMapping(NamedTuple):
    """One mapping of a library: the addresses `start` (included) to `end`, and its permissions."""

    start: int
    end: int
    readable: bool
    writable: bool

    def read(self) -> bytes:
        """A copy of its bytes. Ends the process with SIGSEGV if it is not `readable`."""
        return ctypes.string_at(self.start, self.end - self.start)


def mappings_of(library: Path) -> list[MemoryMapping]:
    """The mappings of a library that is loaded in this process, in address order.

    Raises:
        SandboxFailed: it is not loaded.
    """
    wanted = str(library.resolve())
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)  # addresses, permissions, offset, device, inode, path
        if len(fields) == 6 and fields[5] == wanted:
            start, _, end = fields[0].partition("-")
            permissions = fields[1]
            found.append(
                MemoryMapping(int(start, 16), int(end, 16), "r" in permissions, "w" in permissions)
            )
    if not found:
        raise SandboxFailed(f"{library} is not loaded in this process")
    return found
