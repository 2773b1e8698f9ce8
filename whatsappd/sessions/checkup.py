"""Health checks of one session: asks its worker, looks at its files, and keeps the last result.

The session calls it in every round of health checks; `rules.session_health` judges the result.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import structlog
import trio

from whatsappd.clock import now_ms
from whatsappd.engines.port import EngineWorker
from whatsappd.errors import TimedOut, WorkerFailed, WorkerGone
from whatsappd.rules.session_health import Asked, HealthLimits, Judgement, Observation, judge
from whatsappd.sessions.counters import SessionCounters
from whatsappd.sessions.settings import SessionSettings
from whatsappd.state_directory import Place

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


async def ask(worker: EngineWorker, patience_s: float) -> HealthAnswer:
    """Ask a worker about itself and its connection, and wait at most `patience_s` for the answer.

    A worker that is silent because the daemon's store does not take its events is `HELD_UP`, which
    is not the worker's fault; another silent one is `SILENT`.
    """
    began = trio.current_time()
    try:
        with trio.move_on_after(patience_s) as longest:
            found = await worker.health()
        if longest.cancelled_caught:
            asked = Asked.HELD_UP if worker.is_held_up else Asked.SILENT
            return HealthAnswer(asked)
    except (WorkerFailed, WorkerGone, TimedOut):
        return HealthAnswer(Asked.GONE)
    took_ms = round((trio.current_time() - began) * 1000)
    return HealthAnswer(Asked.ANSWERED, found.connected, found.logged_in, took_ms)


class Checkups:
    """The health checks of one session. `last` is the last one, of whichever worker."""

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


class OpenedFiles:
    """The files that a session's worker opened, which must stay where they are.

    Both methods ask the disk: call them in a thread.
    """

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self.trouble: str | None = None  # what is wrong with them, in words
        self._paths = paths
        self._places: tuple[Place, ...] = ()

    def note(self) -> None:
        """A worker has opened them: these are they."""
        found: list[Place] = []
        for path in self._paths:
            with suppress(OSError):  # then it is said at the next check that there is none
                found.append(Place.of(path))
        self._places = tuple(found)

    def look(self) -> None:
        """Find out what is wrong with them."""
        troubles = ((place, place.trouble()) for place in self._places)
        self.trouble = next((f"{place.path} {words}" for place, words in troubles if words), None)
