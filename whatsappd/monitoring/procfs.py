"""What the kernel tells about processes and disks. All of it blocks a little: call it in a thread.

Linux only, as the daemon is (proc(5)).
"""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import NamedTuple


class Memory(NamedTuple):
    """Of one process, in bytes."""

    private: int  # its own, given back when it ends
    proportional: int  # PSS: its own, and its share of what it shares


class Disk(NamedTuple):
    free: int  # bytes that this user may still write
    total: int


def memory_of(pid: int) -> Memory | None:
    """The memory of a process; None if it is gone, or the kernel does not say."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_bytes()
    except OSError:
        return None
    found = {}
    for line in text.splitlines()[1:]:
        name, _, value = line.partition(b":")
        found[name] = int(value.split()[0]) * 1024
    if b"Pss" not in found:
        return None
    private = found.get(b"Private_Clean", 0) + found.get(b"Private_Dirty", 0)
    return Memory(private, found[b"Pss"])


def memory_of_all(pids: Mapping[str, int], within_s: float) -> dict[str, Memory]:
    """The memory of each process by its name here, of as many as can be asked within the time.

    The kernel walks through a process's pages for it: about half a millisecond for a worker.
    """
    deadline = monotonic() + within_s
    found: dict[str, Memory] = {}
    for name, pid in pids.items():
        if monotonic() > deadline:
            break
        memory = memory_of(pid)
        if memory is not None:
            found[name] = memory
    return found


def disk_of(path: Path) -> Disk | None:
    """The disk that holds `path`; None if it does not answer."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return Disk(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1  # less the one that lists them


def descriptor_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
