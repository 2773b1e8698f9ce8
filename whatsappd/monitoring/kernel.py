"""Asks the kernel about processes' memory and about disks. It blocks a little: call it in a thread.

Linux only, as the daemon is (proc(5)).
"""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import NamedTuple, Protocol


class Memory(NamedTuple):
    """Of one process, in bytes."""

    private: int  # its own, given back when it ends
    proportional: int  # PSS: its own, and its share of what it shares


class Disk(NamedTuple):
    free: int  # bytes that this user may still write
    total: int
    files_free: int | None = None  # that may still be made (inodes); None: as many as one likes
    path: str = ""  # where it was asked


class Process(Protocol):
    """One whose memory is asked for (`engines.port.KernelView`)."""

    def smaps_rollup(self) -> bytes | None: ...


def memory_of(process: Process) -> Memory | None:
    """The memory of a process; None if it is gone, or the kernel does not say."""
    text = process.smaps_rollup()
    if text is None:
        return None
    found = {}
    for line in text.splitlines()[1:]:
        name, _, value = line.partition(b":")
        found[name] = int(value.split()[0]) * 1024
    if b"Pss" not in found:
        return None
    private = found.get(b"Private_Clean", 0) + found.get(b"Private_Dirty", 0)
    return Memory(private, found[b"Pss"])


class _Reading(NamedTuple):
    process: Process
    at: float
    memory: Memory


class MemoryReader:
    """The memory of many processes, in bounded time however many they are.

    The kernel walks through all pages of a process for it, which takes milliseconds. So each call
    asks about those whose figures are oldest, for as long as it may, and answers for the others
    what was found before. Not for several threads at once.

    Args:
        within_s: how long one call may ask.
        fresh_s: younger figures are good enough.
    """

    def __init__(self, *, within_s: float = 0.1, fresh_s: float = 10.0) -> None:
        self._within_s = within_s
        self._fresh_s = fresh_s
        self._readings: dict[str, _Reading] = {}

    def read(self, processes: Mapping[str, Process]) -> dict[str, Memory]:
        """The memory of each process, by its name; those not asked yet are left out."""
        began = monotonic()
        self._readings = {
            name: reading
            for name, reading in self._readings.items()
            if processes.get(name) is reading.process
        }
        for name in sorted(processes, key=self._age_of):
            now = monotonic()
            if now - began > self._within_s or self._age_of(name) > now - self._fresh_s:
                break
            memory = memory_of(processes[name])
            if memory is None:
                self._readings.pop(name, None)
            else:
                self._readings[name] = _Reading(processes[name], now, memory)
        return {name: reading.memory for name, reading in self._readings.items()}

    def _age_of(self, name: str) -> float:
        """When it was asked last; long ago, if never."""
        reading = self._readings.get(name)
        return -math.inf if reading is None else reading.at


def disk_of(*paths: Path) -> Disk | None:
    """The disk that holds `paths`, or of several the one that is nearest to full.

    None: one of them does not answer. What is missing below the first path is left out.
    """
    fullest: Disk | None = None
    seen: set[int] = set()
    for number, path in enumerate(paths):
        try:
            device = path.stat().st_dev
            if device in seen:
                continue
            seen.add(device)
            found = os.statvfs(path)
        except FileNotFoundError:
            if number == 0:
                return None
            continue
        except OSError:
            return None
        disk = Disk(
            found.f_bavail * found.f_frsize,
            found.f_blocks * found.f_frsize,
            found.f_favail if found.f_files else None,
            str(path),
        )
        if fullest is None or _rank(disk) < _rank(fullest):
            fullest = disk
    return fullest


def _rank(disk: Disk) -> tuple[bool, int]:
    """The less, the nearer to full."""
    return disk.files_free != 0, disk.free


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1  # less the one that lists them


def descriptor_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
