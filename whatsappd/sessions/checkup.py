"""Asking one worker how it is, and keeping what came of it; `rules.health` judges.

Called by `session` in every round of health checks.
"""

from __future__ import annotations

from typing import NamedTuple

import structlog
import trio

from whatsappd.clock import now_ms
from whatsappd.engines.protocol import WorkerMethod
from whatsappd.engines.worker_process import WorkerProcess
from whatsappd.errors import TimedOut, WorkerFailed, WorkerGone
from whatsappd.rules.health import Asked, HealthLimits, Judgement, Observation, judge
from whatsappd.sessions.counters import SessionCounters
from whatsappd.sessions.settings import SessionSettings

log = structlog.get_logger()


class HealthAnswer(NamedTuple):
    """What a worker said, or why it said nothing."""

    asked: Asked = Asked.NOT_ASKED
    socket_up: bool = False
    logged_in: bool = False
    took_ms: int = 0


class Checkup(NamedTuple):
    """A session's last check. `failures`: how many in a row were not well, this one included."""

    time_ms: int  # when, in epoch milliseconds
    at_ms: int  # the same by `clock.steady_ms`
    generation: int  # the worker it was about
    answer: HealthAnswer
    judgement: Judgement
    failures: int


async def ask(worker: WorkerProcess, patience_s: float) -> HealthAnswer:
    """How the worker and its connection are, after at most `patience_s` of its own time.

    Only while our store holds up what the worker brings, it is `HELD_UP` and not to blame.
    """
    began = trio.current_time()
    try:
        with trio.move_on_after(patience_s) as longest:
            found = await worker.call(WorkerMethod.HEALTH)
        if longest.cancelled_caught:
            asked = Asked.HELD_UP if worker.is_held_up else Asked.SILENT
            return HealthAnswer(asked)
    except (WorkerFailed, WorkerGone, TimedOut):
        return HealthAnswer(Asked.GONE)
    took_ms = round((trio.current_time() - began) * 1000)
    return HealthAnswer(Asked.ANSWERED, found["connected"], found["logged_in"], took_ms)


class Checkups:
    """One session's. `last` is the last one, of whichever worker."""

    def __init__(self, company: str, settings: SessionSettings, counters: SessionCounters) -> None:
        self.last: Checkup | None = None
        self._company = company
        self._counters = counters
        self._limits = HealthLimits(
            settle_ms=settings.settle_ms,
            connect_ms=settings.connect_deadline_ms,
            silence_ms=settings.silence_limit_ms,
        )

    def take(self, seen: Observation, generation: int, answer: HealthAnswer) -> Judgement:
        """Judge what a check found, and keep it."""
        last = self.last
        before = last.judgement.disagreements if last and last.generation == generation else 0
        judgement = self.judge(seen._replace(disagreements=before))
        failures = 0 if judgement.ok else (last.failures if last else 0) + 1
        self.last = Checkup(now_ms(), seen.now_ms, generation, answer, judgement, failures)
        if judgement.ok:
            self._counters.health_ok += 1
        else:
            self._counters.health_failed += 1
            if failures == 1:
                log.info("session_not_well", company=self._company, why=judgement.detail)
        return judgement

    def judge(self, seen: Observation) -> Judgement:
        return judge(self._company, seen, self._limits)

    def answer_about(self, generation: int, since_ms: int) -> HealthAnswer:
        """The last answer, if it is about this worker in the state that began at `since_ms`
        (of `clock.steady_ms`)."""
        last = self.last
        if last is None or last.generation != generation or last.at_ms < since_ms:
            return HealthAnswer()
        return last.answer
