"""The wall clock, in the unit of all that is stored and sent: epoch milliseconds, as integers."""

from __future__ import annotations

import time


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def booted_ms() -> int:
    """When the host came up."""
    return now_ms() - time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
