"""The audit trail: who sent, and who changed sessions and keys.

`api.auditing` records a line for each such call, whatever came of it; `daemon.audit` reads them.
A line costs its caller no wait: lines gather for a moment, so it is on disk some 50 milliseconds
after the answer, and only a crash of the host or a SIGKILL in that moment loses it. No message
text, phone number or secret is in it.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from functools import partial
from typing import Any, NamedTuple

import structlog
import trio

from whatsappd.errors import StoreFailed
from whatsappd.store.database import Database

log = structlog.get_logger()

#: Lines held while the disk takes none; then the oldest are lost, and the log says so.
MAX_PENDING = 10_000
#: Lines of one transaction.
MAX_BATCH = 1000
#: Seconds for which lines gather: a transaction of its own for each would halve the pace of whoever
#: sends one message after the other.
GATHER_S = 0.05
#: Seconds between attempts while the disk takes nothing.
RETRY_S = 1.0
#: How long lines are kept, and how many: about 100 MB.
MAX_AGE_MS = 90 * 24 * 3600 * 1000
MAX_LINES = 1_000_000
#: Lines written between two looks at what is old enough to go.
_TRIM_EVERY = 10_000

_COLUMNS = "id, time_ms, actor, pid, method, company, subject, outcome"


class Line(NamedTuple):
    """One call. `time_ms` is when it was answered, in epoch milliseconds.

    `actor` is `uid:1000` for a process on this host (then `pid` is its own), and what the gateway
    says for its callers: `key:ID` (then `pid` is the gateway's).
    """

    time_ms: int
    actor: str
    pid: int
    method: str
    company: str | None
    subject: str | None  # a message's id, or a key's
    outcome: str  # "ok", or the error's name


class AuditTrail:
    """The trail of one database. `run` is started by the composition root."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: deque[Line] = deque()
        self._more = trio.Event()
        self._lost = 0
        self._written = _TRIM_EVERY  # the first batch trims too

    def record(self, line: Line) -> None:
        """Take a line; it is written as soon as the writer is free."""
        if len(self._pending) >= MAX_PENDING:
            self._pending.popleft()
            self._lost += 1
        self._pending.append(line)
        self._more.set()

    async def run(self) -> None:
        """Write lines until cancelled; what is pending then is written before the end."""
        try:
            while True:
                await self._more.wait()
                await trio.sleep(GATHER_S)
                if not await self._flush():
                    await trio.sleep(RETRY_S)
        finally:
            with trio.move_on_after(3, shield=True):
                await self._flush()

    async def _flush(self) -> bool:
        """Write everything that is pending; whether the disk took it."""
        while self._pending:
            batch = [self._pending.popleft() for _ in range(min(MAX_BATCH, len(self._pending)))]
            try:
                await self._database.write(partial(self._write, batch=batch))
            except StoreFailed as error:
                self._pending.extendleft(reversed(batch))
                log.error("audit_not_written", reason=error.message, lines=len(self._pending))
                return False
            except trio.Cancelled:
                # The writer may or may not have begun; a line twice is better than none.
                self._pending.extendleft(reversed(batch))
                raise
            if self._lost:
                log.error("audit_lines_lost", lines=self._lost)
                self._lost = 0
        self._more = trio.Event()
        return True

    def _write(self, conn: sqlite3.Connection, batch: list[Line]) -> None:
        conn.executemany(
            "INSERT INTO audit (time_ms, actor, pid, method, company, subject, outcome)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            batch,
        )
        self._written += len(batch)
        if self._written >= _TRIM_EVERY:
            self._written = 0
            conn.execute(
                "DELETE FROM audit WHERE time_ms < ? OR id <= (SELECT max(id) FROM audit) - ?",
                (batch[-1].time_ms - MAX_AGE_MS, MAX_LINES),
            )

    async def read(
        self, *, after: int | None, limit: int, company: str | None
    ) -> list[dict[str, Any]]:
        """Lines with their ids, in order: those behind `after`; without it, the newest."""
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
        sql = f"SELECT {_COLUMNS} FROM audit {chosen} ORDER BY id {order} LIMIT ?"  # noqa: S608 - ours

        def read(conn: sqlite3.Connection) -> list[dict[str, Any]]:
            rows = conn.execute(sql, (*values, limit)).fetchall()
            return [
                {"id": identity, **Line(*columns)._asdict()}
                for identity, *columns in (rows if after is not None else reversed(rows))
            ]

        return await self._database.query(read)
