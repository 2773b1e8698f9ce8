"""Asking one worker how it is; `rules.health` says what the answer means.

Called by `session` in every round of health checks.
"""

from __future__ import annotations

from typing import NamedTuple

import trio

from whatsappd.errors import TimedOut, WorkerFailed, WorkerGone
from whatsappd.rules.health import Asked, Judgement
from whatsappd.sessions.worker import Worker
from whatsappd.wire.worker import WorkerMethod


class Answer(NamedTuple):
    """What a worker said, or why it said nothing."""

    asked: Asked = Asked.NOT_ASKED
    socket_up: bool = False
    logged_in: bool = False
    took_ms: int = 0


class Checkup(NamedTuple):
    """A session's last check. `failures`: how many in a row were not well, this one included."""

    time_ms: int
    generation: int  # the worker it was about
    answer: Answer
    judgement: Judgement
    failures: int


async def ask(worker: Worker, patience_s: float) -> Answer:
    """How the worker and its connection are, after at most `patience_s` of its own time.

    Only while our store holds up what the worker brings, it is `HELD_UP` and not to blame.
    """
    began = trio.current_time()
    try:
        with trio.move_on_after(patience_s) as longest:
            found = await worker.call(WorkerMethod.HEALTH)
        if longest.cancelled_caught:
            asked = Asked.HELD_UP if worker.is_held_up else Asked.SILENT
            return Answer(asked)
    except (WorkerFailed, WorkerGone, TimedOut):
        return Answer(Asked.GONE)
    took_ms = round((trio.current_time() - began) * 1000)
    return Answer(Asked.ANSWERED, found["connected"], found["logged_in"], took_ms)
