"""How long to wait before the next try, and when to stop trying.

Sessions, the fork server, the dispatcher and the Redis limiter ask here. Times and chance are
arguments.
"""

from __future__ import annotations

from collections import deque


def full_jitter(attempt: int, *, base_ms: int, cap_ms: int, chance: float) -> int:
    """Milliseconds to wait before the next try: exponential, capped, with full jitter.

    Full jitter (a uniform draw from nothing to the whole wait) spreads those who failed together
    best, at the price of some short waits.

    Args:
        attempt: failures so far, from 0.
        base_ms: the longest wait after the first failure; it doubles with each further one.
        cap_ms: the longest wait of all.
        chance: uniform in [0, 1).
    """
    # An exponent beyond the cap changes nothing, and a huge one would cost.
    ceiling = min(cap_ms, base_ms << min(attempt, 32))
    return int(ceiling * chance)


class RestartIntensity:
    """Tells when something is restarted too often: more than `limit` times within `window_ms`.

    A person should look at it then. (OTP's supervisors call these intensity and period.)
    """

    def __init__(self, limit: int, window_ms: int) -> None:
        self._limit = limit
        self._window_ms = window_ms
        self._times: deque[int] = deque(maxlen=limit + 1)

    def exceeded(self, now_ms: int) -> bool:
        """Counts one more at `now_ms`; whether that is more than the limit."""
        self._times.append(now_ms)
        return len(self._times) > self._limit and now_ms - self._times[0] < self._window_ms

    def clear(self) -> None:
        """Forgets the restarts so far: a person started it."""
        self._times.clear()
