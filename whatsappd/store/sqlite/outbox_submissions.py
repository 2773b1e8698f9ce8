"""What senders do with the outbox: accept a message, cancel it, decide about an uncertain one.

The API calls it, as `store.port.OutboxSubmissions`.
"""

from __future__ import annotations

from whatsappd.errors import InvalidParams
from whatsappd.model.message import NewMessage, Row
from whatsappd.rules.delivery import DECISIONS, Cause
from whatsappd.store.sqlite import outbox_rows
from whatsappd.store.sqlite.database import Database
from whatsappd.store.sqlite.outbox_writes import OutboxWrites


class SqliteSubmissions:
    def __init__(self, database: Database, writes: OutboxWrites) -> None:
        self._database = database
        self._writes = writes

    async def accept(self, new: NewMessage, queue_limit: int) -> tuple[Row, bool]:
        return await self._database.write(lambda conn: self._writes.accept(conn, new, queue_limit))

    async def find(self, new: NewMessage) -> Row | None:
        return await self._database.read(lambda conn: self._writes.find(conn, new))

    async def cancel(self, row_id: str) -> Row:
        return await self._move(row_id, Cause.CANCELLED, "cancelled")

    async def resolve(self, row_id: str, decision: str) -> Row:
        cause = DECISIONS.get(decision)
        if cause is None:
            raise InvalidParams(
                f"decision: {decision!r:.40} is none of {', '.join(DECISIONS)}", field="decision"
            )
        reason = "decided by a person" if cause is Cause.DECIDED_FAILED else None
        return await self._move(row_id, cause, reason)

    async def _move(self, row_id: str, cause: Cause, reason: str | None) -> Row:
        return await self._database.write(
            lambda conn: self._writes.move(
                conn, outbox_rows.get(conn, row_id), cause, reason=reason
            )
        )
