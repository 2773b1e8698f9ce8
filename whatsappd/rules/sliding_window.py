"""The exact sliding window: at most `limit` in any `period_ms`, and never fewer than allowed.

The limiter in memory (`limits.memory`) keeps one for each company and each number; the one in
Redis (`limits.redis`) does the same in a script.
"""

from __future__ import annotations

from bisect import bisect_right, insort


class SlidingWindow:
    """The times of what was let through. A time leaves the window `period_ms` after it came.

    Should the clock go back, what was recorded counts as if it had happened now: the window stays
    closed a little longer, but never longer than one period.
    """

    __slots__ = ("_times", "limit", "period_ms")

    def __init__(self, limit: int, period_ms: int) -> None:
        self.limit = limit  # may be changed at any time
        self.period_ms = period_ms
        self._times: list[int] = []  # ascending; about as many as the limit

    def check(self, now_ms: int) -> int:
        """0 if one more may pass at `now_ms`, else the milliseconds until one may."""
        times = self._times
        if times and times[-1] > now_ms:
            late = bisect_right(times, now_ms)
            times[late:] = [now_ms] * (len(times) - late)
        del times[: bisect_right(times, now_ms - self.period_ms)]
        if len(times) < self.limit:
            return 0
        if self.limit < 1:
            return self.period_ms  # nothing may ever pass; ask again when it may have changed
        return times[-self.limit] + self.period_ms - now_ms

    def record(self, now_ms: int) -> None:
        """Lets one through at `now_ms`, also when `check` says that it should wait."""
        insort(self._times, now_ms)

    def shift(self, by_ms: int) -> None:
        """The clock was set by so much: what was let through happened as long ago as before."""
        self._times = [time + by_ms for time in self._times]

    def is_empty(self, now_ms: int) -> bool:
        """Whether nothing of what it holds counts any more."""
        return not self._times or self._times[-1] <= now_ms - self.period_ms
