"""The interface of a rate limiter, which `sessions.pacing` uses; in memory or in Redis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol


class LimitKey(NamedTuple):
    """One window: at most `limit` in any `period_ms`. The limit may differ from call to call."""

    name: str  # e.g. a company, or a company and a number
    limit: int
    period_ms: int


class LimiterHealth(NamedTuple):
    """Where the windows are kept now, for `daemon.health` and the log."""

    kind: str  # "memory" or "redis"
    trouble: str | None = None  # why the windows are not shared at present
    since_ms: int | None = None  # since when

    def as_wire(self) -> dict[str, Any]:
        return self._asdict()


class Limiter(Protocol):
    """Sliding windows, exact. Implemented by `limits.memory` and `limits.redis`."""

    async def acquire(self, keys: Sequence[LimitKey], now_ms: int) -> int:
        """Counts one in the windows of all `keys`, or, if one of them is full, in none.

        Returns:
            0 if it was counted, else the milliseconds after which it is worth asking again.
        """
        ...

    def check(self, keys: Sequence[LimitKey], now_ms: int) -> int:
        """What `acquire` would return by this process's own counts. Counts nothing."""
        ...

    def restore(self, key: LimitKey, times_ms: Iterable[int]) -> None:
        """Counts messages that were sent before this process started (from the outbox)."""
        ...

    def shift(self, by_ms: int) -> None:
        """Moves all windows by as much as the clock behind `now_ms` was set."""
        ...

    def forget(self, company: str) -> None:
        """Drops this process's windows of a company that was removed.

        Those in Redis end by themselves, after a day at most.
        """
        ...

    @property
    def health(self) -> LimiterHealth: ...
