"""Removing a company: all that is kept of it goes, and a new one of its name finds nothing.

Messages with their keys, events, receipts, inbound numbers, acquaintances, open alerts, dead
letters, and the company's directory go. So do API keys and webhooks that were for it alone; those
that were for others too lose it from their lists. The numbers of its events are given to no others:
the log's numbering has no hole, and readers of all companies are told of a gap.

The audit trail stays: it tells who did what, and holds no texts, phone numbers or secrets.

It begins with one transaction, after which the company is none any more: the keys that were for it
alone are revoked in it, and its webhooks are told nothing more. The rest goes in slices; killed in
between, the daemon goes on after its next start. Deleted rows are overwritten in the
database's file and its write-ahead log. The directory's files are unlinked: what a disk or a file
system keeps of those is its own business.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from whatsappd.clock import now_ms
from whatsappd.errors import UnknownWebhook
from whatsappd.model.audit import AuditNote
from whatsappd.model.webhook import WebhookConfig
from whatsappd.store.company_directory import remove_directory
from whatsappd.store.sqlite.acquaintances import SqliteAcquaintances
from whatsappd.store.sqlite.audit import insert_note
from whatsappd.store.sqlite.database import Database
from whatsappd.store.sqlite.event_log import SqliteEventLog
from whatsappd.store.sqlite.keys import SqliteKeyRing, delete_only_for
from whatsappd.store.sqlite.outbox_maintenance import SqliteOutboxMaintenance
from whatsappd.store.sqlite.slices import Slice, in_slices, overwrite_deleted
from whatsappd.store.sqlite.webhooks import SqliteWebhooks, stop_only_for

#: Tables with a column `company` whose rows go in another way, and the audit trail.
_NOT_PLAIN = frozenset(
    {
        *("outbox", "events", "event_totals", "forgotten_events", "webhook_dead_letters"),
        *("companies", "removals", "audit"),
    }
)


class RemovableParts(NamedTuple):
    """The parts of the store that hold something of a company in memory, too."""

    log: SqliteEventLog
    outbox: SqliteOutboxMaintenance
    acquaintances: SqliteAcquaintances
    keys: SqliteKeyRing
    webhooks: SqliteWebhooks


class SqliteRemovals:
    """`directory(company)` is where the company's files are."""

    def __init__(
        self, database: Database, parts: RemovableParts, directory: Callable[[str], Path]
    ) -> None:
        self._database = database
        self._parts = parts
        self._directory = directory

    async def pending(self) -> list[str]:
        found = await self._database.read(
            lambda conn: conn.execute("SELECT company FROM removals ORDER BY company").fetchall()
        )
        return [company for (company,) in found]

    async def begin(self, company: str, note: AuditNote | None = None) -> None:

        def write(conn: sqlite3.Connection) -> list[str]:
            conn.execute("INSERT OR IGNORE INTO removals VALUES (?, ?)", (company, now_ms()))
            conn.execute("DELETE FROM companies WHERE company = ?", (company,))
            stop_only_for(conn, company)
            insert_note(conn, note, None)
            return delete_only_for(conn, company)

        def tell(revoked: list[str]) -> None:
            self._parts.keys.deleted(revoked)
            self._parts.webhooks.look_again()

        await self._database.write(write, tell)

    async def finish(self, company: str) -> None:
        # The account's keys first: a company of the same name must never find them.
        await remove_directory(self._directory(company))
        await self._narrow_keys(company)
        # In slices, before the webhooks go, and what they had left with them.
        await in_slices(self._database, _dead_letters(company))
        await self._end_webhooks(company)
        for table, columns in (await self._database.read(_plain_tables)).items():
            await in_slices(self._database, _of_table(table, columns, company))
        await self._parts.outbox.erase(company)
        newest = await self._database.read(partial(_newest_event, company=company))
        # After all that may log something of it.
        await self._parts.log.erase(company)
        # Whoever delivers has read some of it, and would go on trying as long as it takes.
        await self._parts.webhooks.read_anew(newest)
        # Those that came meanwhile. From now on none comes any more: see `dead_letters.insert`.
        await in_slices(self._database, _dead_letters(company))

        def write(conn: sqlite3.Connection) -> None:
            conn.execute("DELETE FROM removals WHERE company = ?", (company,))

        def forget(_done: None) -> None:
            self._parts.acquaintances.forget(company)
            self._parts.outbox.forget(company)

        await self._database.write(write, forget)
        await self._database.fold()

    async def _narrow_keys(self, company: str) -> None:
        for key in await self._parts.keys.list_all():
            if key.companies is None or company not in key.companies:
                continue
            left = tuple(each for each in key.companies if each != company)
            if left:
                await self._parts.keys.narrow(key.id, left)
            else:  # made since `begin`
                await self._parts.keys.revoke(key.id)

    async def _end_webhooks(self, company: str) -> None:
        for webhook in await self._parts.webhooks.all():
            wanted = webhook.wanted.companies
            if wanted is None or company not in wanted:
                continue
            try:
                if len(wanted) == 1:
                    await self._parts.webhooks.remove(webhook.id)
                else:
                    await self._parts.webhooks.update(
                        webhook.id, partial(_without, company=company)
                    )
            except UnknownWebhook:
                continue  # somebody else removed it meanwhile


def _newest_event(conn: sqlite3.Connection, *, company: str) -> int:
    (newest,) = conn.execute("SELECT max(seq) FROM events WHERE company = ?", (company,)).fetchone()
    return newest or 0


def _without(wanted: WebhookConfig, *, company: str) -> WebhookConfig:
    assert wanted.companies is not None
    return wanted._replace(companies=tuple(each for each in wanted.companies if each != company))


def _plain_tables(conn: sqlite3.Connection) -> dict[str, list[str]]:
    """The tables whose rows of a company are simply deleted, with their keys: all that have a
    column `company`, so that one that is added one day is not forgotten."""
    found: dict[str, list[str]] = {}
    tables = conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in tables:
        columns = conn.execute("SELECT name, pk FROM pragma_table_info(?)", (table,)).fetchall()
        if "company" in (name for name, _ in columns) and table not in _NOT_PLAIN:
            found[table] = [name for name, place in columns if place] or ["rowid"]
    return found


def _of_table(table: str, columns: list[str], company: str) -> Callable[..., Slice]:
    names, same = ", ".join(columns), " AND ".join(f"{column} = ?" for column in columns)
    select = f"SELECT {names} FROM {table} WHERE company = ? LIMIT ?"  # noqa: S608 - the schema's
    delete = f"DELETE FROM {table} WHERE {same}"  # noqa: S608 - as above

    def work(conn: sqlite3.Connection, most: int, _after: Any) -> Slice:
        overwrite_deleted(conn)
        found = conn.execute(select, (company, most)).fetchall()
        conn.executemany(delete, found)
        return Slice(len(found), len(found))

    return work


def _dead_letters(company: str) -> Callable[..., Slice]:
    def work(conn: sqlite3.Connection, most: int, after: Any) -> Slice:
        overwrite_deleted(conn)
        looked = conn.execute(
            "SELECT id, company FROM webhook_dead_letters WHERE id > ? ORDER BY id LIMIT ?",
            (after or 0, most),
        ).fetchall()
        gone = [(identity,) for identity, whose in looked if whose == company]
        conn.executemany("DELETE FROM webhook_dead_letters WHERE id = ?", gone)
        return Slice(len(looked), len(gone), looked[-1][0] if looked else after)

    return work
