"""What processes use, as the kernel counts it (proc(5)); of any process of this user."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from whatsappd.monitoring.kernel import memory_of

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


class Running(NamedTuple):
    """A process whose files in /proc may be read, because we are root or it is as any other."""

    pid: int

    def smaps_rollup(self) -> bytes | None:
        try:
            return Path(f"/proc/{self.pid}/smaps_rollup").read_bytes()
        except OSError:
            return None


def usage(pid: int) -> Usage:
    """What a process uses now.

    Raises:
        FileNotFoundError, ProcessLookupError: it is gone.
    """
    process = Path(f"/proc/{pid}")
    fields = (process / "stat").read_text().rpartition(") ")[2].split()
    descriptors = sum(1 for _ in (process / "fd").iterdir())
    memory = memory_of(Running(pid))
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


class Work(NamedTuple):
    """Of one thread, or of several together."""

    run_s: float  # processor time, to the nanosecond: at rest it is less than a tick of `cpu_s`
    wake_ups: int  # how often it gave up the processor to wait: whoever waits will be woken


def work(pids: Iterable[int]) -> dict[str, Work]:
    """What the threads that live now did since each began."""
    found = {}
    for thread in _threads(pids):
        with suppress(FileNotFoundError, ProcessLookupError):
            spent = int((thread / "schedstat").read_text().split()[0])
            lines = (thread / "status").read_text().splitlines()
            [switches] = [line for line in lines if line.startswith("voluntary_ctxt")]
            found[str(thread)] = Work(spent / 1e9, int(switches.split()[1]))
    return found


def work_between(before: dict[str, Work], after: dict[str, Work]) -> Work:
    """What was done between two looks, but for that of threads that ended in between."""
    nothing = Work(0.0, 0)
    pairs = [(now, before.get(thread, nothing)) for thread, now in after.items()]
    return Work(
        sum(now.run_s - then.run_s for now, then in pairs),
        sum(now.wake_ups - then.wake_ups for now, then in pairs),
    )


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
