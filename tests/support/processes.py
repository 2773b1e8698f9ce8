"""What processes use, as the kernel counts it (proc(5)); of any process of this user."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from whatsappd.monitoring.procfs import memory_of

_TICKS = os.sysconf("SC_CLK_TCK")
#: Places in /proc/PID/stat, behind the name: proc(5) counts from 1, and the name is the second.
_UTIME, _STIME, _THREADS = 11, 12, 17


class Usage(NamedTuple):
    """Of one process, or of several together."""

    cpu_s: float  # since it started, its own and the kernel's for it
    private_mb: float
    proportional_mb: float  # PSS: with its share of what it shares
    descriptors: int
    threads: int


def usage(pid: int) -> Usage:
    """What a process uses now.

    Raises:
        FileNotFoundError, ProcessLookupError: it is gone.
    """
    process = Path(f"/proc/{pid}")
    fields = (process / "stat").read_text().rpartition(") ")[2].split()
    descriptors = sum(1 for _ in (process / "fd").iterdir())
    memory = memory_of(pid)
    if memory is None:
        raise ProcessLookupError(pid)
    return Usage(
        (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS,
        memory.private / 1e6,
        memory.proportional / 1e6,
        descriptors,
        int(fields[_THREADS]),
    )


def total(pids: Iterable[int]) -> Usage:
    """What processes use together. Raises as `usage` does."""
    columns = zip(*map(usage, pids), strict=True)
    return Usage(*map(sum, columns))


def cpu_s(pids: Iterable[int]) -> float:
    """Processor time of processes that all still run, cheaply: nothing is asked about memory."""
    spent = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        spent += int(fields[_UTIME]) + int(fields[_STIME])
    return spent / _TICKS


def run_s(pids: Iterable[int]) -> float:
    """Processor time of the threads that live now, to the nanosecond: for processes at rest, which
    use less than a tick of the clock that `cpu_s` reads."""
    spent = 0
    for thread in _threads(pids):
        with suppress(FileNotFoundError, ProcessLookupError):
            spent += int((thread / "schedstat").read_text().split()[0])
    return spent / 1e9


def wake_ups(pids: Iterable[int]) -> int:
    """How often the threads that live now gave up the processor to wait, since each began: whoever
    waits will be woken."""
    found = 0
    for thread in _threads(pids):
        with suppress(FileNotFoundError, ProcessLookupError):
            lines = (thread / "status").read_text().splitlines()
            [switches] = [line for line in lines if line.startswith("voluntary_ctxt")]
            found += int(switches.split()[1])
    return found


def children(pid: int) -> list[int]:
    """The processes that a process is the parent of."""
    return [
        int(child)
        for thread in _threads([pid])
        for child in (thread / "children").read_text().split()
    ]


def _threads(pids: Iterable[int]) -> Iterator[Path]:
    for pid in pids:
        yield from Path(f"/proc/{pid}/task").iterdir()
