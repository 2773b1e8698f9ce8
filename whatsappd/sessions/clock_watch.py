"""Notices that the wall clock was set, and moves stored times along with it.

Started by `app`. What the daemon waits for goes by clocks that never jump. What is stored for later
(when a message expires, or may be tried again) is in the wall clock's time: it is moved along.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
import trio

from whatsappd import clock

log = structlog.get_logger()

#: Seconds between two looks.
LOOK_EVERY_S = 5.0
#: A smaller difference is the clock's own drift, or NTP's slow correction of it. Milliseconds.
DRIFT_MS = 2_000
#: A clock that is so much ahead, in milliseconds, must stay there for a while before it is
#: believed: by it, all history may be old enough to be deleted.
DOUBTED_MS = 24 * 3600 * 1000
DOUBT_S = 3600.0


class ClockWatch:
    """Both arguments get the milliseconds by which the clock was set.

    Args:
        move_stored: moves what is stored, all of it or, with StoreFailed, nothing.
        move_held: moves what is held in memory.
    """

    def __init__(
        self,
        move_stored: Callable[[int], Awaitable[object]],
        move_held: Callable[[int], Awaitable[object]],
    ) -> None:
        self._move_stored = move_stored
        self._move_held = move_held
        self._seen: tuple[int, float] | None = None  # a jump, and when it was seen first

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            await trio.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Follow the wall clock, if it was set.

        Raises:
            StoreFailed: what is stored cannot be moved now; the next look tries again.
        """
        jump = clock.jump_ms()
        if abs(jump) <= DRIFT_MS:
            clock.follow(jump)
            self._seen = None
            return
        if self._seen is None or abs(jump - self._seen[0]) > DRIFT_MS:
            self._seen = jump, trio.current_time()
            log.warning("clock_was_set", by_s=round(jump / 1000))
        if jump > DOUBTED_MS and trio.current_time() - self._seen[1] < DOUBT_S:
            return
        await self._move_stored(jump)
        clock.follow(jump)
        self._seen = None
        await self._move_held(jump)
        log.info("clock_followed", by_s=round(jump / 1000))
