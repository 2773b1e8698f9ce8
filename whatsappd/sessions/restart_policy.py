"""When a session's worker is started again, and when that has been tried too often."""

from __future__ import annotations

import random

from whatsappd.rules.backoff import RestartIntensity, full_jitter
from whatsappd.sessions.settings import SessionSettings


class RestartPolicy:
    """One session's memory of its failures. Times are milliseconds of `clock.steady_ms`."""

    def __init__(self, settings: SessionSettings) -> None:
        self._settings = settings
        self._attempt = 0
        self._crashes = RestartIntensity(settings.crash_limit, settings.crash_window_ms)
        self._broken_off = RestartIntensity(settings.crash_limit, settings.crash_window_ms)
        self._connected_ms: int | None = None

    def forgive(self) -> None:
        """A person starts the session: forget the failures before that."""
        self._attempt = 0
        self._crashes.clear()

    def connected(self, at_ms: int) -> None:
        """It is connected; if that lasts `stable_ms`, the next pause is a short one again."""
        self._connected_ms = at_ms

    def crashed_too_often(self, at_ms: int) -> bool:
        """Count a crash. Returns whether there were too many within the window."""
        return self._crashes.exceeded(at_ms)

    def broke_off_too_often(self, at_ms: int) -> bool:
        """Count an event that ended a worker. Returns whether there were too many in the window."""
        return self._broken_off.exceeded(at_ms)

    def next_delay_ms(self, at_ms: int) -> int:
        """How long to wait before the next try, now that one failed."""
        settings = self._settings
        if self._connected_ms is not None and at_ms - self._connected_ms >= settings.stable_ms:
            self._attempt = 0
        self._connected_ms = None
        delay = full_jitter(
            self._attempt,
            base_ms=settings.retry_base_ms,
            cap_ms=settings.retry_cap_ms,
            chance=random.random(),
        )
        self._attempt += 1
        return delay
