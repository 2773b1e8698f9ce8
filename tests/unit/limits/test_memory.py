"""What only the limiter in memory promises."""

from __future__ import annotations

from whatsappd.limits.memory import MemoryLimiter
from whatsappd.limits.port import LimitKey

NOW = 1_700_000_000_000


async def test_what_was_sent_before_a_restart_counts() -> None:
    limiter = MemoryLimiter()
    key = LimitKey("acme", 3, 60_000)
    limiter.restore(key, [NOW - 90_000, NOW - 50_000, NOW - 100])
    assert await limiter.acquire([key], NOW) == 0
    assert await limiter.acquire([key], NOW) == 10_000


async def test_empty_windows_are_forgotten() -> None:
    limiter = MemoryLimiter()
    for index in range(50_000):
        key = LimitKey(f"acme:{index}", 5, 1000)
        assert limiter.acquire_now([key], NOW + index) == 0
    assert len(limiter) < 5000


async def test_windows_in_use_are_kept() -> None:
    limiter = MemoryLimiter()
    keys = [LimitKey(f"acme:{index}", 1, 60_000) for index in range(5000)]
    assert all(limiter.acquire_now([key], NOW) == 0 for key in keys)
    assert all(limiter.acquire_now([key], NOW + 1) > 0 for key in keys)
