"""Looking at the outbox: single rows, lists, counts, waiting, and what limiters must remember.

The API, the sessions and the monitoring call it, as `store.port.OutboxView`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence, Set
from typing import Any

from whatsappd.model.message import OutboxState, Row
from whatsappd.store import outbox_ids
from whatsappd.store.outbox_bytes import OutboxBytes
from whatsappd.store.outbox_counts import OutboxCounts
from whatsappd.store.sqlite import outbox_reads, outbox_rows
from whatsappd.store.sqlite.database import Database


class SqliteOutboxView:
    def __init__(
        self,
        database: Database,
        counts: OutboxCounts,
        held: OutboxBytes,
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._counts = counts
        self._held = held
        self._clock = clock

    async def get(self, row_id: str) -> Row:
        return await self._database.read(lambda conn: outbox_rows.get(conn, row_id))

    async def list_rows(
        self,
        company: str | None = None,
        states: Collection[OutboxState] | None = None,
        *,
        before: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Sequence[Row]:
        before_id = None if before is None else outbox_ids.id_as_number(before)
        after_id = None if after is None else outbox_ids.id_as_number(after)
        among = None
        if company is not None or states is not None:
            among = self._counts.existing(company, states)
        return await self._database.query(
            lambda conn: outbox_reads.list_rows(conn, among, before_id, after_id, limit)
        )

    async def wait(self, row_id: str, states: Collection[OutboxState]) -> Row:
        with self._counts.waiting(row_id, states) as waiter:
            # First listen, then look: no change falls between.
            waiter.see(await self.get(row_id))
            return await waiter.result()

    async def wait_confirmed(self, company: str, since_ms: int) -> None:
        while True:
            version = self._counts.version(company)
            if not await self._database.read(
                lambda conn: outbox_reads.unconfirmed(conn, company, since_ms)
            ):
                return
            await self._counts.wait_changed(company, version)

    def counts(self, company: str) -> dict[OutboxState, int]:
        return self._counts.counts(company)

    def accepted(self, company: str) -> int:
        return self._counts.accepted(company)

    def entered(self, company: str) -> dict[OutboxState, int]:
        return self._counts.entered(company)

    def companies(self) -> list[str]:
        return self._counts.companies()

    async def oldest_queued(self) -> dict[str, int]:
        companies = [c for c in self.companies() if self._counts.has(c, OutboxState.QUEUED)]
        if not companies:
            return {}
        return await self._database.read(lambda conn: outbox_reads.oldest_queued(conn, companies))

    async def still_queued(self, row_ids: Collection[str]) -> Set[str]:
        now = self._clock()
        return await self._database.read(lambda conn: outbox_reads.still_queued(conn, row_ids, now))

    async def sent_times(self, company: str, since_ms: int) -> Sequence[tuple[str, int]]:
        return await self._database.read(
            lambda conn: outbox_reads.sent_times(conn, company, since_ms)
        )

    async def cold_times(self, company: str, since_ms: int, limit: int) -> Sequence[int]:
        return await self._database.read(
            lambda conn: outbox_reads.cold_times(conn, company, since_ms, limit)
        )

    def report_bytes(self) -> list[dict[str, Any]]:
        return self._held.report()
