"""Runs long-lived tasks: an error in one is logged and counted, and the task is started again.

The daemon and the gateway have one `Supervision` each. Tasks that run until the end are started
with `keep`; work that is done once in each round goes through `attempt`. Health and the metrics
read `tasks`.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar

import structlog
import trio

from whatsappd.clock import now_ms
from whatsappd.rules.backoff import full_jitter

log = structlog.get_logger()

#: The pause before a task begins anew: at most this long after its first failure, in milliseconds.
#: It doubles with each failure, up to the cap.
BASE_MS = 100
CAP_MS = 30_000
#: Seconds that a task must have run before its next failure counts as the first one again, and
#: before health calls it well.
STABLE_S = 60.0
#: Characters of an error that are kept.
MAX_ERROR = 300

#: The name of the supervised task that the present code belongs to; None: it belongs to none.
within: ContextVar[str | None] = ContextVar("supervised_task", default=None)


class Supervised:
    """The state of one task, and its failures so far. Only `Supervision` writes it."""

    __slots__ = (
        "company",
        "error",
        "failed_at",
        "failed_ms",
        "failures",
        "is_running",
        "name",
        "streak",
    )

    def __init__(self, name: str, company: str | None) -> None:
        self.name = name
        self.company = company  # whose it is; None: everybody's
        self.is_running = False
        self.failures = 0  # since this process began
        self.streak = 0  # of them, those without a stable time in between
        self.error: str | None = None  # the last one: its class and its words
        self.failed_ms: int | None = None  # when that was, in epoch milliseconds
        self.failed_at = 0.0  # the same by trio's clock

    @property
    def is_well(self) -> bool:
        """Whether it has not failed lately."""
        return self.streak == 0

    def __str__(self) -> str:
        return self.name if self.company is None else f"{self.name} of {self.company}"


class Supervision:
    """All supervised tasks of this process.

    Args:
        base_ms, cap_ms: the pauses, see `BASE_MS`.
        stable_s: see `STABLE_S`.
    """

    def __init__(
        self, *, base_ms: int = BASE_MS, cap_ms: int = CAP_MS, stable_s: float = STABLE_S
    ) -> None:
        self._base_ms = base_ms
        self._cap_ms = cap_ms
        self._stable_s = stable_s
        self._tasks: dict[tuple[str, str | None], Supervised] = {}

    def tasks(self) -> list[Supervised]:
        """Every task that runs or ran, in the order of their first start."""
        for task in self._tasks.values():
            self._settle(task)
        return list(self._tasks.values())

    async def keep(
        self,
        name: str,
        task: Callable[[], Awaitable[object]],
        *,
        company: str | None = None,
        fatal: tuple[type[Exception], ...] = (),
    ) -> None:
        """Run `task` until it returns or is cancelled; after an error start it again.

        The error is logged with its traceback, counted, and shown by `tasks`. Before the next start
        there is a pause, which grows with each failure until the task has run for a stable time.
        Times are monotonic.

        Args:
            company: whose task it is; None if it serves all companies.
            fatal: errors after which the task cannot go on; they are raised instead.
        """
        found = self._task(name, company)
        token = within.set(str(found))
        try:
            while True:
                found.is_running = True
                failed: Exception | None = None
                try:
                    await self._run(found, task)
                except* Exception as group:  # noqa: BLE001 - Cancelled beside it passes
                    failed = _only(group)
                if failed is None:
                    return
                found.is_running = False
                if isinstance(failed, fatal):
                    raise failed
                pause_ms = self._fail(found, failed)
                log.error(
                    "task_failed",
                    task=name,
                    company=company,
                    error=found.error,
                    failures=found.failures,
                    next_try_ms=pause_ms,
                    exc_info=failed,
                )
                del failed
                await trio.sleep(pause_ms / 1000)
        finally:
            found.is_running = False
            within.reset(token)

    async def attempt(
        self, name: str, task: Callable[[], Awaitable[object]], *, company: str | None = None
    ) -> bool:
        """Run `task` once. Returns whether it ended without an error.

        An error is logged and counted as by `keep`, and not raised: the caller goes on with its
        other work.
        """
        found = self._task(name, company)
        failed: Exception | None = None
        token = within.set(str(found))
        found.is_running = True
        try:
            await self._run(found, task)
        except* Exception as group:  # noqa: BLE001 - as above
            failed = _only(group)
        finally:
            found.is_running = False
            within.reset(token)
        if failed is None:
            return True
        self._fail(found, failed)
        log.error(
            "task_failed",
            task=name,
            company=company,
            error=found.error,
            failures=found.failures,
            exc_info=failed,
        )
        return False

    def forget(self, company: str) -> None:
        """The company was removed, and its tasks with it."""
        self._tasks = {key: task for key, task in self._tasks.items() if key[1] != company}

    async def _run(self, found: Supervised, task: Callable[[], Awaitable[object]]) -> None:
        """One run of a task. Tests put errors here."""
        await task()

    def _task(self, name: str, company: str | None) -> Supervised:
        return self._tasks.setdefault((name, company), Supervised(name, company))

    def _settle(self, task: Supervised) -> None:
        if task.streak and trio.current_time() - task.failed_at >= self._stable_s:
            task.streak = 0

    def _fail(self, task: Supervised, error: Exception) -> int:
        """Note a failure; the milliseconds to wait before the next run."""
        self._settle(task)
        pause_ms = full_jitter(
            task.streak, base_ms=self._base_ms, cap_ms=self._cap_ms, chance=random.random()
        )
        task.streak += 1
        task.failures += 1
        task.error = in_words(error)
        task.failed_ms = now_ms()
        task.failed_at = trio.current_time()
        return pause_ms


def summary(tasks: Sequence[Supervised]) -> tuple[bool, str, str | None]:
    """Whether the tasks are well, how they are in words, and what to do if they are not."""
    ill = [task for task in tasks if not task.is_well]
    if ill:
        words = [
            f"{task} failed {task.failures} times and "
            f"{'runs again' if task.is_running else 'begins anew'} ({task.error})"
            for task in ill[:5]
        ]
        if len(ill) > 5:
            words.append(f"and {len(ill) - 5} more")
        remedy = (
            "the log has the tracebacks (task_failed): mend what they name, or report them; this "
            "is over when a task has run for a minute"
        )
        return False, "; ".join(words), remedy
    detail = f"{sum(task.is_running for task in tasks)} run"
    failed = [task for task in tasks if task.failures]
    if failed:
        last = max(failed, key=lambda task: task.failed_at)
        failures = sum(task.failures for task in failed)
        detail += f"; {failures} failures since the start, the last: {last} ({last.error})"
    return True, detail, None


def in_words(error: BaseException) -> str:
    """An error's class and its own words, in one short line."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(in_words(each) for each in error.exceptions)[:MAX_ERROR]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:MAX_ERROR] if text else type(error).__name__


def _only(group: BaseException) -> Exception:
    """The error that nurseries wrapped; a group, if there are several."""
    error = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error
