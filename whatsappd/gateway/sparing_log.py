"""Log lines that strangers can cause, so many a second at the most.

Whoever may connect may cause a line for each attempt. So each kind of line has a budget; what goes
beyond it is counted, and the next line that is written says how many were not.
"""

from __future__ import annotations

from typing import Any

import structlog
import trio

#: Lines of one kind at once, and a second from then on.
BURST = 50
PER_SECOND = 5.0


class SparingLog:
    """As a structlog logger. One budget for each event's name."""

    def __init__(self, *, burst: int = BURST, per_second: float = PER_SECOND) -> None:
        self._log = structlog.get_logger()
        self._burst = burst
        self._per_second = per_second
        self._budgets: dict[str, _Budget] = {}

    def debug(self, event: str, **values: Any) -> None:
        self._write("debug", event, values)

    def info(self, event: str, **values: Any) -> None:
        self._write("info", event, values)

    def warning(self, event: str, **values: Any) -> None:
        self._write("warning", event, values)

    def error(self, event: str, **values: Any) -> None:
        self._write("error", event, values)

    def _write(self, level: str, event: str, values: dict[str, Any]) -> None:
        budget = self._budgets.get(f"{level} {event}")
        if budget is None:
            budget = self._budgets[f"{level} {event}"] = _Budget(self._burst, trio.current_time())
        left_out = budget.take(trio.current_time(), self._burst, self._per_second)
        if left_out is None:
            return
        if left_out:
            values["left_out"] = left_out
        getattr(self._log, level)(event, **values)


class _Budget:
    def __init__(self, tokens: float, now: float) -> None:
        self._tokens = tokens
        self._at = now
        self._left_out = 0

    def take(self, now: float, burst: int, per_second: float) -> int | None:
        """How many were left out before this one; None: this one is as well."""
        self._tokens = min(burst, self._tokens + (now - self._at) * per_second)
        self._at = now
        if self._tokens < 1:
            self._left_out += 1
            return None
        self._tokens -= 1
        left_out, self._left_out = self._left_out, 0
        return left_out
