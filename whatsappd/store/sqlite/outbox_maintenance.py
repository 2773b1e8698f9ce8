"""Changes of many rows of the outbox: after a start, as time passes, by retention.

Each is work in slices (`store.sqlite.slices`), which `store.sqlite.outbox` starts.
"""

from __future__ import annotations

import sqlite3
from functools import partial
from typing import Any

from whatsappd.model.message import OutboxState, Row
from whatsappd.rules.delivery import OPEN, Cause
from whatsappd.store.sqlite import outbox_rows
from whatsappd.store.sqlite.outbox_writes import Ledger
from whatsappd.store.sqlite.slices import Slice, Work, overwrite_deleted

#: Why a row expired.
TOO_LATE = "its time to live passed before it could be sent"
#: How long a receipt waits for a row with its message id. An ack is at most a restart away; the
#: rest is for ids that are only found when a company's session starts again.
EARLY_RECEIPT_MS = 3 * 24 * 3600 * 1000

_SELECT = f"SELECT {outbox_rows.COLUMNS} FROM outbox"  # noqa: S608 - our own column names


def expire(ledger: Ledger, now_ms: int) -> Work:
    """Ends the queued rows whose time has passed."""

    def work(conn: sqlite3.Connection, most: int, _after: Any) -> Slice:
        found = _find(
            conn,
            "state = 'queued' AND expires_ms IS NOT NULL AND expires_ms <= ? ORDER BY expires_ms",
            most,
            now_ms,
        )
        for row in found:
            ledger.move(conn, row, Cause.EXPIRED, reason=TOO_LATE)
        return Slice(len(found), len(found))

    return work


def cancel(ledger: Ledger, company: str, reason: str) -> Work:
    """Cancels what the company has queued."""

    def work(conn: sqlite3.Connection, most: int, _after: Any) -> Slice:
        found = _find(conn, "company = ? AND state = 'queued' ORDER BY id", most, company)
        for row in found:
            ledger.move(conn, row, Cause.CANCELLED, reason=reason)
        return Slice(len(found), len(found))

    return work


def retain(ledger: Ledger, before_ms: int) -> Work:
    """Deletes the finished rows that nothing changed since `before_ms`."""
    # Ids begin with their time, so that old rows are found without an index of their own.
    first_id = outbox_rows.first_id_at(before_ms)

    def work(conn: sqlite3.Connection, most: int, after: Any) -> Slice:
        # Behind the last one looked at: rows that stay must not be looked at in each slice again.
        found = _find(conn, "id > ? AND id < ? ORDER BY id", most, after or 0, first_id)
        gone = [row for row in found if row.updated_ms < before_ms and row.state not in OPEN]
        for row in gone:
            ledger.remove(conn, row)
        return Slice(len(found), len(gone), int(found[-1].id, 16) if found else after)

    return work


def erase(ledger: Ledger, company: str) -> Work:
    """Deletes all rows of the company, whatever their state."""

    def work(conn: sqlite3.Connection, most: int, _after: Any) -> Slice:
        overwrite_deleted(conn)
        found = _find(conn, "company = ?", most, company)
        for row in found:
            ledger.erase(conn, row)
        return Slice(len(found), len(found))

    return work


def forget_receipts(before_ms: int) -> Work:
    """Deletes the receipts from before `before_ms` that no row claimed."""
    return partial(_forget_receipts, before_ms)


def _forget_receipts(before_ms: int, conn: sqlite3.Connection, most: int, _after: Any) -> Slice:
    found = conn.execute(
        "SELECT company, message_id FROM receipts WHERE received_ms < ? LIMIT ?", (before_ms, most)
    ).fetchall()
    conn.executemany("DELETE FROM receipts WHERE company = ? AND message_id = ?", found)
    return Slice(len(found), len(found))


def recover_step(conn: sqlite3.Connection, ledger: Ledger, reason: str) -> list[Row]:
    """Rows that are still `sending` have lost their attempt; some of them, as they are then."""
    found = _find(conn, "state = 'sending' ORDER BY id", 500)
    return [ledger.lost(conn, row, reason) for row in found]


def _find(conn: sqlite3.Connection, condition: str, most: int, *values: object) -> list[Row]:
    found = conn.execute(f"{_SELECT} WHERE {condition} LIMIT ?", (*values, most)).fetchall()
    return [outbox_rows.as_row(columns) for columns in found]


def shift(conn: sqlite3.Connection, by_ms: int) -> None:
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
