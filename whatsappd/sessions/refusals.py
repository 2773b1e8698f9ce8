"""The system calls that a confined worker is refused: the daemon answers them, and so can count.

The worker's thread waits for the answer, so a worker that makes such calls all the time is slowed
down, and not the daemon.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from whatsappd.confinement.seccomp import Refused, next_refused

#: Answered in one go, and the pause after it: 640 a second at the most, which takes the daemon 1 %.
_AT_ONCE = 32
_PAUSE_S = 0.05


async def answer_refused(listener: int, take: Callable[[Refused], None]) -> None:
    """Refuse, and give to `take`, each call until nobody is under the filter any more."""
    while True:
        await trio.lowlevel.wait_readable(listener)
        for _ in range(_AT_ONCE):
            try:
                refused = next_refused(listener)
            except OSError:
                return  # its processes have ended
            if refused is None:
                break
            take(refused)
        else:
            await trio.sleep(_PAUSE_S)
