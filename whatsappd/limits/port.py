"""What the dispatcher knows of a limiter, whichever keeps the windows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol


class LimitKey(NamedTuple):
    """One window: at most `limit` in any `period_ms`. The limit may differ from call to call."""

    name: str  # e.g. a company, or a company and a number
    limit: int
    period_ms: int


class LimiterHealth(NamedTuple):
    """How the limits are kept just now, for `daemon.health` and the log."""

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
        """What `acquire` would return as far as this process knows by itself; counts nothing."""
        ...

    def restore(self, key: LimitKey, times_ms: Iterable[int]) -> None:
        """Tells what was sent before this process began, from the outbox."""
        ...

    def shift(self, by_ms: int) -> None:
        """The clock that `now_ms` is of was set by so much: nothing else changes."""
        ...

    def forget(self, company: str) -> None:
        """Drops the windows of a company that was removed, as far as this process has them. Those
        in Redis end by themselves, a day later at the latest."""
        ...

    @property
    def health(self) -> LimiterHealth: ...
