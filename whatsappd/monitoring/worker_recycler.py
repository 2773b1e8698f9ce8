"""Looks at what workers use, and has those replaced that use too much (`rules.worker_recycling`).

Called by `health_rounds` in each round of health checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import structlog
import trio

from whatsappd.clock import steady_ms
from whatsappd.confinement.resolver import resolver_file
from whatsappd.engines.port import EngineWorker
from whatsappd.monitoring import kernel
from whatsappd.monitoring.watched import Watched
from whatsappd.rules.worker_recycling import WorkerUse, choose
from whatsappd.sessions.session import CompanySession

log = structlog.get_logger()

#: A confined worker can read the old file only, and would look for name servers that are gone.
_RESOLVER_REPLACED = "a new /etc/resolv.conf, which it cannot read"


class WorkerRecycler:
    def __init__(self, watched: Watched) -> None:
        self._pool = watched.sessions.pool
        self._limits = watched.settings.recycling
        self._supervision = watched.supervision
        self._memory = kernel.MemoryReader()

    async def look(self) -> None:
        """One round: a few of the workers that use too much are recycled, if any do."""
        limits = self._limits()
        sessions = {session.company: session for session in self._pool.sessions()}
        workers = {
            company: worker
            for company, session in sessions.items()
            if (worker := session.recyclable) is not None
        }
        uses = await trio.to_thread.run_sync(self._ask_kernel, workers, limits.are_off)
        async with trio.open_nursery() as nursery:
            for company, words in choose(uses, limits).items():
                nursery.start_soon(
                    partial(
                        self._supervision.attempt,
                        "recycling",
                        partial(self._recycle, sessions[company], words),
                        company=company,
                    )
                )

    async def _recycle(self, session: CompanySession, words: str) -> None:
        if not await session.recycle(words):
            log.info("worker_not_recycled_yet", company=session.company, why=words)

    def _ask_kernel(
        self, workers: Mapping[str, EngineWorker], are_off: bool
    ) -> dict[str, WorkerUse]:
        resolver = resolver_file()
        outdated = {
            company: _RESOLVER_REPLACED
            for company, worker in workers.items()
            if worker.resolver is not None and worker.resolver != resolver
        }
        if are_off:
            workers = {company: workers[company] for company in outdated}
        views = {company: worker.view for company, worker in workers.items() if worker.view}
        memory = self._memory.read(views)
        now = steady_ms()
        return {
            company: WorkerUse(
                age_ms=now - worker.started_at_ms,
                memory=memory[company].private if company in memory else None,
                descriptors=worker.view.count_descriptors() if worker.view else None,
                threads=worker.view.count_threads() if worker.view else None,
                outdated=outdated.get(company),
            )
            for company, worker in workers.items()
        }
