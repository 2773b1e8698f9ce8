"""Reading the outbox: what may be sent next, lists, and what a restart must know.

Statements only, for `store.outbox`, which runs them on a reader.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection
from typing import Any, NamedTuple

from whatsappd.model.message import OutboxState, Row
from whatsappd.store import rows


class Loaded(NamedTuple):
    """What the outbox keeps in memory."""

    last_id: int
    counts: dict[str, Counter[OutboxState]]


def load(conn: sqlite3.Connection) -> Loaded:
    (last_id,) = conn.execute("SELECT coalesce(max(id), 0) FROM outbox").fetchone()
    counts: dict[str, Counter[OutboxState]] = {}
    for company, state, count in conn.execute(
        "SELECT company, state, count(*) FROM outbox GROUP BY company, state"
    ):
        counts.setdefault(company, Counter())[OutboxState(state)] = count
    return Loaded(last_id, counts)


def pending(conn: sqlite3.Connection, company: str, limit: int, now_ms: int) -> list[Row]:
    """The queued rows that may be sent now, oldest first.

    Order is kept per chat: a row that is being sent, or waits for its next try, holds back the
    later ones of its chat, and no others.
    """
    # The oldest row that holds back each chat.
    blocked: dict[str, int] = {}
    for query, values in (
        (
            "SELECT chat, id FROM outbox WHERE company = ? AND state = 'sending'",
            (company,),
        ),
        (
            "SELECT chat, id FROM outbox WHERE company = ? AND not_before_ms > 0"
            " AND not_before_ms > ? AND state = 'queued'"
            " AND (expires_ms IS NULL OR expires_ms > ?)",
            (company, now_ms, now_ms),
        ),
    ):
        for chat, row_id in conn.execute(query, values):
            blocked[chat] = min(row_id, blocked.get(chat, row_id))
    found: list[Row] = []
    for columns in conn.execute(
        f"SELECT {rows.COLUMNS} FROM outbox WHERE company = ? AND state = 'queued'"  # noqa: S608
        " AND (expires_ms IS NULL OR expires_ms > ?) ORDER BY id",
        (company, now_ms),
    ):
        row = rows.as_row(columns)
        if columns[0] < blocked.get(row.chat, 1 << 63):
            found.append(row)
            if len(found) == limit:
                break
    return found


def next_due_ms(conn: sqlite3.Connection, company: str, now_ms: int) -> int | None:
    """When the next row that waits for its next try may be sent."""
    (due,) = conn.execute(
        "SELECT min(not_before_ms) FROM outbox WHERE company = ? AND not_before_ms > 0"
        " AND not_before_ms > ?",
        (company, now_ms),
    ).fetchone()
    return None if due is None else int(due)


def list_rows(
    conn: sqlite3.Connection,
    company: str | None,
    states: Collection[OutboxState] | None,
    before: int | None,
    after: int | None,
    limit: int,
) -> list[Row]:
    """Newest first; oldest first behind `after`."""
    conditions = ["1"]
    values: list[Any] = []
    if company is not None:
        conditions.append("company = ?")
        values.append(company)
    if states is not None:
        conditions.append(f"state IN ({', '.join('?' * len(states))})")
        values += states
    if before is not None:
        conditions.append("id < ?")
        values.append(before)
    if after is not None:
        conditions.append("id > ?")
        values.append(after)
    found = conn.execute(
        f"SELECT {rows.COLUMNS} FROM outbox WHERE {' AND '.join(conditions)}"  # noqa: S608
        f" ORDER BY id {'DESC' if after is None else 'ASC'} LIMIT ?",
        (*values, limit),
    )
    return [rows.as_row(columns) for columns in found]


def oldest_queued_ms(conn: sqlite3.Connection, company: str) -> int | None:
    found = conn.execute(
        "SELECT created_ms FROM outbox WHERE company = ? AND state = 'queued' ORDER BY id LIMIT 1",
        (company,),
    ).fetchone()
    return None if found is None else int(found[0])


def sent_times(conn: sqlite3.Connection, company: str, since_ms: int) -> list[tuple[str, int]]:
    return conn.execute(
        "SELECT chat, handed_ms FROM outbox WHERE company = ? AND handed_ms IS NOT NULL"
        " AND handed_ms >= ? ORDER BY handed_ms",
        (company, since_ms),
    ).fetchall()


def interrupted(conn: sqlite3.Connection, company: str | None) -> list[tuple[Row, bytes]]:
    """Rows with an attempt whose fate and message id are unknown, with that attempt's secret."""
    found = conn.execute(
        f"SELECT {rows.COLUMNS}, secret FROM outbox"  # noqa: S608 - our own column names
        " WHERE (state = 'sending' OR state = 'uncertain' AND message_id IS NULL)"
        " AND secret IS NOT NULL AND (? IS NULL OR company = ?) ORDER BY id",
        (company, company),
    )
    return [(rows.as_row(columns[:-1]), columns[-1]) for columns in found]
