"""What /proc tells of this host's processes: who is whose child (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class FoundProcess(NamedTuple):
    pid: int
    parent: int
    has_ended: bool  # it waits for its parent to take notice (a zombie)


def all_processes() -> Iterator[FoundProcess]:
    """Every process that this one may see. Takes some milliseconds: call it in a thread."""
    for entry in os.listdir("/proc"):  # noqa: PTH208 - it has many entries, and few are wanted
        if not entry.isdecimal():
            continue
        with suppress(OSError, ValueError):  # it went away meanwhile
            # "4711 (a name) S 1 ...": the name may hold anything, parentheses too.
            status = Path(f"/proc/{entry}/stat").read_bytes().rpartition(b") ")[2]
            state, parent = status.split(maxsplit=2)[:2]
            yield FoundProcess(int(entry), int(parent), state in (b"Z", b"X"))


def descendants() -> set[int]:
    """The pids of the processes that this one started and of those that they did; no zombies."""
    parents = {each.pid: each.parent for each in all_processes() if not each.has_ended}
    found: set[int] = set()
    todo = {os.getpid()}
    while todo:
        todo = {pid for pid, parent in parents.items() if parent in todo} - found
        found |= todo
    return found


def ended_children() -> set[int]:
    """The pids of this process' children that have ended and were not waited for."""
    own = os.getpid()
    return {each.pid for each in all_processes() if each.parent == own and each.has_ended}
