"""Changes of many rows of the outbox: as time passes, by retention, when a company is removed.

Housekeeping, the pool and the clock watch call it, as `store.port.OutboxMaintenance`. Each is work
in slices (`store.sqlite.slices`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any

from whatsappd.model.message import OutboxState, Row
from whatsappd.rules.delivery import OPEN, TOO_LATE, Cause
from whatsappd.store import outbox_ids
from whatsappd.store.outbox_counts import OutboxCounts
from whatsappd.store.sqlite import outbox_rows
from whatsappd.store.sqlite.database import Database
from whatsappd.store.sqlite.outbox_writes import OutboxWrites
from whatsappd.store.sqlite.slices import Slice, Work, in_slices, overwrite_deleted

#: How long a receipt waits for a row with its message id. An ack is at most a restart away; the
#: rest is for ids that are only found when a company's session starts again.
EARLY_RECEIPT_MS = 3 * 24 * 3600 * 1000

_SELECT = f"SELECT {outbox_rows.COLUMNS} FROM outbox"  # noqa: S608 - our own column names


class SqliteOutboxMaintenance:
    def __init__(
        self,
        database: Database,
        writes: OutboxWrites,
        counts: OutboxCounts,
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._writes = writes
        self._counts = counts
        self._clock = clock

    async def expire(self, now_ms: int) -> int:
        return await in_slices(self._database, _expire(self._writes, now_ms))

    async def cancel_queued(self, company: str, reason: str) -> int:
        return await in_slices(self._database, _cancel(self._writes, company, reason))

    async def shift(self, by_ms: int) -> None:
        await self._database.write(lambda conn: _shift(conn, by_ms))

    async def retain(self, max_age_ms: int) -> int:
        now = self._clock()
        gone = await in_slices(self._database, _retain(self._writes, now - max_age_ms))
        await in_slices(self._database, partial(_forget_receipts, now - EARLY_RECEIPT_MS))
        return gone

    async def erase(self, company: str) -> int:
        """Deletes all rows of a company that is being removed, whatever their state; how many.

        No event tells of it. Whoever waits for one is given the row as it last was.
        """
        return await in_slices(self._database, _erase(self._writes, company))

    def forget(self, company: str) -> None:
        """The company was removed, and its rows are erased: its figures begin anew."""
        self._counts.forget(company)


def _expire(writes: OutboxWrites, now_ms: int) -> Work:
    """Ends the queued rows whose time has passed."""

    def work(conn: sqlite3.Connection, most: int, _after: Any) -> Slice:
        found = _find(
            conn,
            "state = 'queued' AND expires_ms IS NOT NULL AND expires_ms <= ? ORDER BY expires_ms",
            most,
            now_ms,
        )
        for row in found:
            writes.move(conn, row, Cause.EXPIRED, reason=TOO_LATE)
        return Slice(len(found), len(found))

    return work


def _cancel(writes: OutboxWrites, company: str, reason: str) -> Work:
    """Cancels what the company has queued."""

    def work(conn: sqlite3.Connection, most: int, _after: Any) -> Slice:
        found = _find(conn, "company = ? AND state = 'queued' ORDER BY id", most, company)
        for row in found:
            writes.move(conn, row, Cause.CANCELLED, reason=reason)
        return Slice(len(found), len(found))

    return work


def _retain(writes: OutboxWrites, before_ms: int) -> Work:
    """Deletes the finished rows that nothing changed since `before_ms`."""
    # Ids begin with their time, so that old rows are found without an index of their own.
    first_id = outbox_ids.first_id_at(before_ms)

    def work(conn: sqlite3.Connection, most: int, after: Any) -> Slice:
        # Behind the last one looked at: rows that stay must not be looked at in each slice again.
        found = _find(conn, "id > ? AND id < ? ORDER BY id", most, after or 0, first_id)
        gone = [row for row in found if row.updated_ms < before_ms and row.state not in OPEN]
        for row in gone:
            writes.remove(conn, row)
        return Slice(len(found), len(gone), int(found[-1].id, 16) if found else after)

    return work


def _erase(writes: OutboxWrites, company: str) -> Work:
    """Deletes all rows of the company, whatever their state."""

    def work(conn: sqlite3.Connection, most: int, _after: Any) -> Slice:
        overwrite_deleted(conn)
        found = _find(conn, "company = ?", most, company)
        for row in found:
            writes.erase(conn, row)
        return Slice(len(found), len(found))

    return work


def _forget_receipts(before_ms: int, conn: sqlite3.Connection, most: int, _after: Any) -> Slice:
    """Deletes the receipts from before `before_ms` that no row claimed."""
    found = conn.execute(
        "SELECT company, message_id FROM receipts WHERE received_ms < ? LIMIT ?", (before_ms, most)
    ).fetchall()
    conn.executemany("DELETE FROM receipts WHERE company = ? AND message_id = ?", found)
    return Slice(len(found), len(found))


def _find(conn: sqlite3.Connection, condition: str, most: int, *values: object) -> list[Row]:
    found = conn.execute(f"{_SELECT} WHERE {condition} LIMIT ?", (*values, most)).fetchall()
    return [outbox_rows.as_row(columns) for columns in found]


def _shift(conn: sqlite3.Connection, by_ms: int) -> None:
    """Move the times that queued rows wait for."""
    conn.execute(
        "UPDATE outbox SET expires_ms = expires_ms + ? WHERE state = ? AND expires_ms IS NOT NULL",
        (by_ms, str(OutboxState.QUEUED)),
    )
    conn.execute(
        "UPDATE outbox SET not_before_ms = max(1, not_before_ms + ?)"
        " WHERE state = ? AND not_before_ms > 0",
        (by_ms, str(OutboxState.QUEUED)),
    )
