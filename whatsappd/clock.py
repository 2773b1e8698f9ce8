"""The wall clock, in the unit of all that is stored and sent: epoch milliseconds, as integers."""

from __future__ import annotations

import time


def now_ms() -> int:
    return time.time_ns() // 1_000_000
