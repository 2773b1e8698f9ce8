"""Events that a webhook's receiver refused, with copies of them.

Statements only, for `store.sqlite.webhooks`, which runs them in the writer thread or on a reader.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from whatsappd.model.webhook import NewDeadLetter, StoredDeadLetter
from whatsappd.store.webhook_rows import MAX_REASON, unknown_letter
from whatsappd.wire.frames import pack

_DECODER = msgspec.msgpack.Decoder(dict[str, Any])
_COLUMNS = "id, webhook, seq, time_ms, company, type, dead_ms, attempts, reason, resend"


def insert(
    conn: sqlite3.Connection, webhook: str, refused: Iterable[NewDeadLetter], now: int
) -> None:
    """Those that are there already (a report that came twice) stay as they are.

    Left out are events of companies that were removed: whoever delivers may still have some. Such
    an event is not in the log, and no retention of its company deleted it.
    """
    kept = [each for each in refused if _is_kept(conn, each.event)]
    conn.executemany(
        "INSERT OR IGNORE INTO webhook_dead_letters"
        " (webhook, seq, time_ms, company, type, dead_ms, attempts, reason, event)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [_row(webhook, each, now) for each in kept],
    )


def _is_kept(conn: sqlite3.Connection, event: dict[str, Any]) -> bool:
    (is_kept,) = conn.execute(
        "SELECT EXISTS (SELECT 1 FROM events WHERE seq = ?1)"
        " OR EXISTS (SELECT 1 FROM forgotten_events WHERE company = ?2 AND seq >= ?1)",
        (event["seq"], event["company"]),
    ).fetchone()
    return bool(is_kept)


def _row(webhook: str, refused: NewDeadLetter, now: int) -> tuple[Any, ...]:
    event = refused.event
    return (
        webhook,
        event["seq"],
        event["time_ms"],
        event["company"],
        event["type"],
        now,
        refused.attempts,
        refused.reason[:MAX_REASON],
        pack(event),
    )


def list_some(
    conn: sqlite3.Connection, webhook: str, after: int, limit: int
) -> list[StoredDeadLetter]:
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM webhook_dead_letters"  # noqa: S608 - ours
        " WHERE webhook = ? AND id > ? ORDER BY id LIMIT ?",
        (webhook, after, limit),
    )
    return [StoredDeadLetter(*columns) for columns in rows]


def mark(conn: sqlite3.Connection, webhook: str, letters: Collection[int] | None) -> int:
    """To be sent again. Raises UnknownDeadLetter."""
    sql = "UPDATE webhook_dead_letters SET resend = 1 WHERE webhook = ?"
    return _each(conn, sql, webhook, letters)


def delete(conn: sqlite3.Connection, webhook: str, letters: Collection[int] | None) -> int:
    """Raises UnknownDeadLetter."""
    return _each(conn, "DELETE FROM webhook_dead_letters WHERE webhook = ?", webhook, letters)


def _each(conn: sqlite3.Connection, sql: str, webhook: str, letters: Collection[int] | None) -> int:
    if letters is None:
        return conn.execute(sql, (webhook,)).rowcount
    for letter in letters:
        if not conn.execute(f"{sql} AND id = ?", (webhook, letter)).rowcount:
            raise unknown_letter(webhook, letter)
    return len(letters)


def due(conn: sqlite3.Connection, webhook: str) -> tuple[int, dict[str, Any]] | None:
    row = conn.execute(
        "SELECT id, event FROM webhook_dead_letters"
        " WHERE webhook = ? AND resend = 1 ORDER BY id LIMIT 1",
        (webhook,),
    ).fetchone()
    return None if row is None else (row[0], _DECODER.decode(row[1]))


def with_due(conn: sqlite3.Connection) -> list[str]:
    sql = "SELECT DISTINCT webhook FROM webhook_dead_letters WHERE resend = 1"
    return [row[0] for row in conn.execute(sql)]


def deliver(conn: sqlite3.Connection, webhook: str, letter: int) -> bool:
    """It arrived after all; whether it was still there."""
    sql = "DELETE FROM webhook_dead_letters WHERE webhook = ? AND id = ?"
    return conn.execute(sql, (webhook, letter)).rowcount > 0


def refuse_again(conn: sqlite3.Connection, webhook: str, letter: int, reason: str) -> None:
    conn.execute(
        "UPDATE webhook_dead_letters SET resend = 0, attempts = attempts + 1, reason = ?"
        " WHERE webhook = ? AND id = ?",
        (reason[:MAX_REASON], webhook, letter),
    )
