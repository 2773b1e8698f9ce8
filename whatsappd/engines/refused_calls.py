"""Counts the system calls that confined workers are refused, by answering them in the daemon.

The worker's thread waits for the answer, so a worker that makes many such calls slows down itself
and not the daemon.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from whatsappd.confinement.seccomp import RefusedCall, next_refused

#: Answered in so many seconds at the most: 640 a second, which takes the daemon 2 % of a core.
AT_ONCE = 32
WITHIN_S = 0.05


async def answer_refused(listener: int, take: Callable[[RefusedCall], None]) -> None:
    """Refuse, and give to `take`, each call until nobody is under the filter any more."""
    began, answered = trio.current_time(), 0
    while True:
        await trio.lowlevel.wait_readable(listener)
        if trio.current_time() - began > WITHIN_S:
            began, answered = trio.current_time(), 0
        if answered == AT_ONCE:
            await trio.sleep_until(began + WITHIN_S)
            began, answered = trio.current_time(), 0
        try:
            refused = next_refused(listener)
        except OSError:
            return  # its processes have ended
        if refused is not None:
            answered += 1
            take(refused)
