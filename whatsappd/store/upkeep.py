"""Changes of many rows of the outbox: after a start, as time passes, by retention.

Each is a step of bounded size that `store.outbox` repeats until nothing is left, so that other
writers get in between.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from whatsappd.model.message import Row
from whatsappd.rules.delivery import Cause
from whatsappd.store import rows
from whatsappd.store.database import Database
from whatsappd.store.ledger import Ledger

#: Why a row expired.
TOO_LATE = "its time to live passed before it could be sent"
#: Rows changed in one transaction.
STEP = 500
#: How long a receipt waits for a row with its message id. An ack is at most a restart away; the
#: rest is for ids that are only found when a company's session starts again.
EARLY_RECEIPT_MS = 3 * 24 * 3600 * 1000

_SELECT = f"SELECT {rows.COLUMNS} FROM outbox"  # noqa: S608 - our own column names


async def in_steps(
    database: Database, step: Callable[[sqlite3.Connection], list[Row]]
) -> list[Row]:
    """Runs `step` in transactions of its own until it finds no more rows; returns them all.

    Cancelled, it has done some of the steps.
    """
    done: list[Row] = []
    while found := await database.write(step):
        done += found
    return done


def recover_step(conn: sqlite3.Connection, ledger: Ledger, reason: str) -> list[Row]:
    found = _find(conn, "state = 'sending' ORDER BY id")
    return [ledger.lost(conn, row, reason) for row in found]


def expire_step(conn: sqlite3.Connection, ledger: Ledger, now_ms: int) -> list[Row]:
    found = _find(
        conn,
        "state = 'queued' AND expires_ms IS NOT NULL AND expires_ms <= ? ORDER BY expires_ms",
        now_ms,
    )
    return [ledger.move(conn, row, Cause.EXPIRED, reason=TOO_LATE) for row in found]


def cancel_step(conn: sqlite3.Connection, ledger: Ledger, company: str, reason: str) -> list[Row]:
    found = _find(conn, "company = ? AND state = 'queued' ORDER BY id", company)
    return [ledger.move(conn, row, Cause.CANCELLED, reason=reason) for row in found]


def retain_step(conn: sqlite3.Connection, ledger: Ledger, before_ms: int) -> list[Row]:
    # Ids begin with their time, so that old rows are found without an index of their own.
    found = _find(
        conn,
        "id < ? AND updated_ms < ? AND state NOT IN ('queued', 'sending', 'uncertain') ORDER BY id",
        rows.first_id_at(before_ms),
        before_ms,
    )
    for row in found:
        ledger.remove(conn, row)
    return found


def forget_receipts(conn: sqlite3.Connection, now_ms: int) -> int:
    """Deletes the receipts that no row claimed in time; returns how many."""
    return conn.execute(
        "DELETE FROM receipts WHERE received_ms < ?", (now_ms - EARLY_RECEIPT_MS,)
    ).rowcount


def _find(conn: sqlite3.Connection, condition: str, *values: object) -> list[Row]:
    found = conn.execute(f"{_SELECT} WHERE {condition} LIMIT ?", (*values, STEP)).fetchall()
    return [rows.as_row(columns) for columns in found]
