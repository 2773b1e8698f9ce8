"""The two clocks, both in integer milliseconds.

`now_ms` is the wall clock: for people, and for what is stored and sent. It may jump by years, when
somebody or NTP sets it. `steady_ms` never jumps: whatever this process waits for, or measures
between two moments of its own life, goes by it.
"""

from __future__ import annotations

import time


def now_ms() -> int:
    """Epoch milliseconds."""
    return time.time_ns() // 1_000_000


def steady_ms() -> int:
    """Milliseconds since some moment before this process began; for differences only."""
    return time.monotonic_ns() // 1_000_000


def booted_ms() -> int:
    """When the host came up."""
    return now_ms() - time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
