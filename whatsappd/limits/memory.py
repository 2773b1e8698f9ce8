"""Rate limits in memory: for a single daemon, and for one whose Redis is away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import trio

from whatsappd.limits.port import LimiterHealth, LimitKey
from whatsappd.rules.sliding_window import SlidingWindow

#: Below so many windows, nobody looks for empty ones.
_FEW = 1024


class MemoryLimiter:
    """Implements `limits.port.Limiter`. A window costs about 1 kB while something counts in it."""

    def __init__(self) -> None:
        self._windows: dict[str, SlidingWindow] = {}
        self._sweep_at = _FEW

    async def acquire(self, keys: Sequence[LimitKey], now_ms: int) -> int:
        await trio.lowlevel.checkpoint()
        return self.acquire_now(keys, now_ms)

    def acquire_now(self, keys: Sequence[LimitKey], now_ms: int) -> int:
        """`acquire` without a checkpoint."""
        wait = self.check(keys, now_ms)
        if wait == 0:
            self.record(keys, now_ms)
        return wait

    def check(self, keys: Sequence[LimitKey], now_ms: int) -> int:
        """What `acquire` would answer; counts nothing."""
        return max((self._window(key, now_ms).check(now_ms) for key in keys), default=0)

    def record(self, keys: Sequence[LimitKey], now_ms: int) -> None:
        """Counts one in all windows, whether they are full or not."""
        for key in keys:
            self._window(key, now_ms).record(now_ms)

    def restore(self, key: LimitKey, times_ms: Iterable[int]) -> None:
        for time_ms in times_ms:
            self._window(key, time_ms).record(time_ms)

    def shift(self, by_ms: int) -> None:
        for window in self._windows.values():
            window.shift(by_ms)

    def forget(self, company: str) -> None:
        for name in [name for name in self._windows if name.partition("/")[0] == company]:
            del self._windows[name]

    @property
    def health(self) -> LimiterHealth:
        return LimiterHealth("memory")

    def __len__(self) -> int:
        """Windows held."""
        return len(self._windows)

    def _window(self, key: LimitKey, now_ms: int) -> SlidingWindow:
        window = self._windows.get(key.name)
        if window is None:
            if len(self._windows) >= self._sweep_at:
                self._sweep(now_ms)
            window = self._windows[key.name] = SlidingWindow(key.limit, key.period_ms)
        else:
            window.limit = key.limit
            window.period_ms = key.period_ms
        return window

    def _sweep(self, now_ms: int) -> None:
        """Forgets empty windows. Doubling the threshold makes it cost nothing on average."""
        self._windows = {
            name: window for name, window in self._windows.items() if not window.is_empty(now_ms)
        }
        self._sweep_at = max(_FEW, 2 * len(self._windows))
