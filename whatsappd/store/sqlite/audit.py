"""The audit trail's table: lines by kind, each kind with a budget of its own.

`store.audit_trail` gathers lines for it; changes of keys, webhooks and companies write theirs in
their own transactions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from whatsappd.clock import settled_ms
from whatsappd.model.audit import AuditNote, AuditRecord
from whatsappd.store.audit_trail import MAX_AGE_MS, MAX_LINES
from whatsappd.store.sqlite.database import Database

#: Lines written between two looks at what is old enough to go.
_TRIM_EVERY = 10_000

_FIELDS = "time_ms, actor, pid, method, company, subject, outcome, times"
_INSERT = f"INSERT INTO audit ({_FIELDS}, kind) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - ours
_KINDS = tuple(MAX_LINES)


def insert(conn: sqlite3.Connection, lines: Iterable[AuditRecord]) -> None:
    """Writes lines, in a function given to `Database.write`."""
    conn.executemany(_INSERT, [(*line, _KINDS.index(line.kind)) for line in lines])


def insert_note(conn: sqlite3.Connection, note: AuditNote | None, subject: str | None) -> None:
    """Writes the line of a change in its transaction; nothing without a note."""
    if note is not None:
        insert(conn, [note(subject)])


class SqliteAuditRecords:
    """See `store.port.AuditRecords`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._written = _TRIM_EVERY  # the first batch trims too

    async def append(self, lines: Sequence[AuditRecord]) -> None:
        await self._database.write(lambda conn: self._append(conn, lines))

    def _append(self, conn: sqlite3.Connection, lines: Sequence[AuditRecord]) -> None:
        insert(conn, lines)
        self._written += len(lines)
        if self._written >= _TRIM_EVERY:
            self._written = 0
            conn.execute(
                "DELETE FROM audit WHERE time_ms < ?",
                (min(lines[-1].time_ms, settled_ms()) - MAX_AGE_MS,),
            )
            for kind, most in enumerate(MAX_LINES.values()):
                conn.execute(
                    "DELETE FROM audit WHERE kind = ? AND id <="
                    " (SELECT id FROM audit WHERE kind = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
                    (kind, kind, most),
                )

    async def read(
        self, *, after: int | None, limit: int, company: str | None
    ) -> list[dict[str, Any]]:
        where: list[str] = []
        values: list[Any] = []
        if after is not None:
            where.append("id > ?")
            values.append(after)
        if company is not None:
            where.append("company = ?")
            values.append(company)
        order = "ASC" if after is not None else "DESC"
        chosen = f"WHERE {' AND '.join(where)}" if where else ""
        sql = f"SELECT id, {_FIELDS} FROM audit {chosen} ORDER BY id {order} LIMIT ?"  # noqa: S608 - ours

        def read(conn: sqlite3.Connection) -> list[dict[str, Any]]:
            rows = conn.execute(sql, (*values, limit)).fetchall()
            return [
                {"id": identity, **AuditRecord(*columns)._asdict()}
                for identity, *columns in (rows if after is not None else reversed(rows))
            ]

        return await self._database.query(read)
