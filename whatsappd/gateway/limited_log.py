"""A log for lines that strangers can cause: it writes so many a second at the most.

Whoever may connect may cause a line for each attempt. So each kind of line has a budget, for each
address and for all of them; what goes beyond it is counted, and the next line of that kind and
address that is written says how many were not.
"""

from __future__ import annotations

from typing import Any

import structlog
import trio

from whatsappd.rules.bounds import ALL_REFUSAL_LINES, REFUSAL_LINES, PaceBound
from whatsappd.rules.log_throttle import LogThrottle


class LimitedLog:
    """As a structlog logger, whose `address` says whom a line is about.

    Args:
        each: for one kind of line about one address.
        all: for one kind of line.
    """

    def __init__(self, *, each: PaceBound = REFUSAL_LINES, all: PaceBound = ALL_REFUSAL_LINES):
        self._log = structlog.get_logger()
        self._bounds = each, all
        # Made with the first line, because trio's clock begins anew with each run.
        self._lines: tuple[object, LogThrottle] | None = None

    def debug(self, event: str, **values: Any) -> None:
        self._write("debug", event, values)

    def info(self, event: str, **values: Any) -> None:
        self._write("info", event, values)

    def warning(self, event: str, **values: Any) -> None:
        self._write("warning", event, values)

    def error(self, event: str, **values: Any) -> None:
        self._write("error", event, values)

    def _write(self, level: str, event: str, values: dict[str, Any]) -> None:
        address = str(values.get("address") or "")
        left_out = self._paced().left_out(f"{level} {event}", address, now=trio.current_time())
        if left_out is None:
            return
        if left_out:
            values["left_out"] = left_out
        getattr(self._log, level)(event, **values)

    def _paced(self) -> LogThrottle:
        run = trio.lowlevel.current_trio_token()
        if self._lines is None or self._lines[0] is not run:
            self._lines = run, LogThrottle(*self._bounds)
        return self._lines[1]
