"""Finishes the removal of companies that was interrupted, by deleting what is left of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import structlog
import trio

from whatsappd.errors import StoreFailed
from whatsappd.sessions.company_tasks import CompanyLocks
from whatsappd.store.port import Removals

log = structlog.get_logger()

#: Seconds between attempts to delete what is left of removed companies, while the disk refuses.
RETRY_REMOVAL_S = 60.0


class RemovedCompanies:
    """Deletes the remains of removed companies.

    Args:
        exists: whether a company of that name exists again: then nothing of it is deleted.
    """

    def __init__(
        self, removals: Removals, locks: CompanyLocks, exists: Callable[[str], bool]
    ) -> None:
        self._removals = removals
        self._locks = locks
        self._exists = exists
        self._is_left = trio.Event()  # something of a company

    async def run(self) -> None:
        """Delete what the last daemon's end, the disk, or a caller that hung up has left."""
        while True:
            self._is_left = trio.Event()
            again_in = math.inf
            try:
                pending = await self._removals.pending()
            except StoreFailed as error:
                log.error("companies_not_removed", reason=error.message)
                pending, again_in = [], RETRY_REMOVAL_S
            for company in pending:
                try:
                    await self._finish(company)
                except StoreFailed as error:  # of one company: the others go nevertheless
                    log.error("company_not_removed", company=company, reason=error.message)
                    again_in = RETRY_REMOVAL_S
            with trio.move_on_after(again_in):
                await self._is_left.wait()

    async def finish(self, company: str) -> None:
        """Delete what is left of a company; `run` does it if whoever waits for this hangs up.

        Raises:
            StoreFailed: the disk refused something; `run` tries again.
        """
        is_done = False
        try:
            await self._finish(company)
            is_done = True
        finally:
            if not is_done:
                self._is_left.set()

    async def _finish(self, company: str) -> None:
        async with self._locks.alone(company):
            if not self._exists(company):  # else `start` has finished it, and made a new one
                await self._removals.finish(company)
        log.info("company_removed", company=company)
