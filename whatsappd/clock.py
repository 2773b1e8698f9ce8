"""The daemon's three clocks, all in integer milliseconds.

- `now_ms` is the wall clock, for times that people read. It jumps when somebody or NTP sets it.
- `steady_ms` never jumps. It is for waiting, and for measuring durations in this process.
- `settled_ms` is for stored times that decide something later: when a message expires, until when
  first messages are paused, how old history is. It gives epoch milliseconds and does not jump with
  the wall clock. `sessions.clock_watch` moves it and the stored times together, so that no message
  expires or is delayed because somebody set the clock.
"""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

#: Set by the systemd unit.
BOOT_ID_VARIABLE = "HOST_BOOT_ID"
_BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")


def now_ms() -> int:
    """Epoch milliseconds."""
    return time.time_ns() // 1_000_000


def steady_ms() -> int:
    """Milliseconds since some moment before this process began; for differences only."""
    return time.monotonic_ns() // 1_000_000


class Moment(NamedTuple):
    """One moment by two of the clocks.

    What is shown to people is by the wall clock; what is waited for and judged is by the other one.
    """

    wall_ms: int
    steady_ms: int

    def after(self, delay_ms: int) -> Moment:
        return Moment(self.wall_ms + delay_ms, self.steady_ms + delay_ms)


def moment() -> Moment:
    """Now."""
    return Moment(now_ms(), steady_ms())


def settled_ms() -> int:
    """Epoch milliseconds, as if the wall clock had not been set since `follow` was called last."""
    return _even_ms() + _offset_ms


def jump_ms() -> int:
    """How far the wall clock is ahead of `settled_ms`; negative: behind."""
    return now_ms() - settled_ms()


def follow(jump_ms: int) -> None:
    """Move `settled_ms` by so much, from now on."""
    global _offset_ms  # noqa: PLW0603 - a process has one wall clock
    _offset_ms += jump_ms


def _even_ms() -> int:
    """Goes on while the host sleeps, as the wall clock does."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


@cache
def boot_id() -> str | None:
    """Names this run of the host's kernel: another one after each reboot, whatever the clock says.

    None: neither the kernel nor systemd tells it (the unit hides /proc/sys and sets the variable).
    """
    told = os.environ.get(BOOT_ID_VARIABLE, "")
    try:
        told = told or _BOOT_ID_FILE.read_text("ascii")
    except (OSError, ValueError):
        return None
    return told.strip().replace("-", "") or None  # systemd writes it without the dashes


_offset_ms = now_ms() - _even_ms()
