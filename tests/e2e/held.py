"""What processes hold, as the kernel counts it: for tests of what is left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import trio

from whatsappd.store.sqlite.database import READERS

Counts = TypeVar("Counts", bound=tuple[int, ...])

#: Seconds until idle helper threads are gone (trio keeps them for ten), and just-ended children.
SETTLES_WITHIN = 15
#: A connection has the file and its log open; all of them share its index.
MOST_OF_DATABASE = 2 * (READERS + 1) + 1


class Held(NamedTuple):
    """By one process.

    Attributes:
        descriptors: but for those of its database, which it opens more connections to when it
            first reads several things at a time. How many is bounded, and looked at here.
    """

    descriptors: int
    threads: int
    children: int


def held_by(pid: int) -> Held:
    status = Path(f"/proc/{pid}/status").read_text()
    [threads] = [line.split()[1] for line in status.splitlines() if line.startswith("Threads:")]
    children = sum(
        len((task / "children").read_text().split()) for task in Path(f"/proc/{pid}/task").iterdir()
    )
    names = [_name(descriptor) for descriptor in Path(f"/proc/{pid}/fd").iterdir()]
    of_database = [name for name in names if "/whatsappd.db" in name]
    assert len(of_database) <= MOST_OF_DATABASE, of_database
    return Held(len(names) - len(of_database), int(threads), children)


def _name(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except FileNotFoundError:  # closed meanwhile
        return ""


def private_kb(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))


def processes_with(variable: str, value: str) -> set[int]:
    """The pids of all processes that were started with this in their environment, and of what they
    forked: also of those whose parents are gone."""
    wanted = f"{variable}={value}".encode()
    found = set()
    for directory in Path("/proc").iterdir():
        if not directory.name.isdecimal():
            continue
        try:
            if wanted in (directory / "environ").read_bytes().split(b"\0"):
                found.add(int(directory.name))
        except OSError:
            continue  # it has just ended
    return found


def grew(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    return any(now > then for now, then in zip(after, before, strict=True))


async def settled(count: Callable[[], Counts], before: Counts) -> Counts:
    """What is counted, once what goes by itself is gone."""
    with trio.move_on_after(SETTLES_WITHIN):
        while grew(before, count()):
            await trio.sleep(0.1)
    return count()
