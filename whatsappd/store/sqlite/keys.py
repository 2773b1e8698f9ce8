"""API keys on disk: see `store.key_book`, which holds them all in memory."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable

import structlog
import trio

from whatsappd.clock import now_ms
from whatsappd.errors import StoreFailed
from whatsappd.model.access import KeyScope
from whatsappd.model.api_key import ApiKey
from whatsappd.model.audit import AuditNote
from whatsappd.store.key_book import KeyBook, KnownKey
from whatsappd.store.sqlite import consumers, webhooks
from whatsappd.store.sqlite.audit import insert_note
from whatsappd.store.sqlite.database import Database

log = structlog.get_logger()

#: Seconds between writes of when keys were last used: a request must not cost a write.
LAST_USED_EVERY_S = 60.0


class SqliteKeyRing:
    """All keys. Made by `open_keys`, once per database; `run` is started by the root."""

    def __init__(self, database: Database, book: KeyBook) -> None:
        self._database = database
        self._book = book
        self.follow = book.follow
        self.find = book.find
        self.deleted = book.deleted

    async def list_all(self) -> list[ApiKey]:
        await trio.lowlevel.checkpoint()
        return self._book.list_all()

    async def create(
        self,
        name: str,
        scope: KeyScope,
        companies: tuple[str, ...] | None,
        note: AuditNote | None = None,
    ) -> tuple[ApiKey, str]:
        made, text = self._book.new(name, scope, companies)
        key = made.key

        def write(conn: sqlite3.Connection) -> None:
            conn.execute(
                "INSERT INTO api_keys (id, name, scope, companies, created_ms, digest)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    *(key.id, name, str(scope), _companies_json(companies)),
                    *(key.created_ms, made.digest),
                ),
            )
            insert_note(conn, note, key.id)

        await self._database.write(write, lambda _done: self._book.add(made))
        return key, text

    async def revoke(self, identity: str, note: AuditNote | None = None) -> ApiKey:
        found = self._book.get(identity)

        def write(conn: sqlite3.Connection) -> None:
            delete(conn, identity)
            insert_note(conn, note, identity)

        # On disk first: a key that was reported revoked must not come back with the next start.
        await self._database.write(write, lambda _done: self._book.deleted([identity]))
        return found

    async def narrow(self, identity: str, companies: tuple[str, ...]) -> None:
        """From now on the key is for these companies only: see `KeyBook.narrowed`."""

        def write(conn: sqlite3.Connection) -> None:
            conn.execute(
                "UPDATE api_keys SET companies = ? WHERE id = ?",
                (_companies_json(companies), identity),
            )

        await self._database.write(write, lambda _done: self._book.narrowed(identity, companies))

    async def check(self, text: str) -> ApiKey:
        await trio.lowlevel.checkpoint()
        return self._book.check(text)

    async def run(self) -> None:
        try:
            while True:
                await trio.sleep(LAST_USED_EVERY_S)
                await self._write_used()
        finally:
            with trio.move_on_after(2, shield=True):
                await self._write_used()

    async def _write_used(self) -> None:
        used = self._book.take_used()
        if not used:
            return

        def write(conn: sqlite3.Connection) -> None:
            conn.executemany(
                "UPDATE api_keys SET last_used_ms = ? WHERE id = ?",
                [(time_ms, identity) for identity, time_ms in used.items()],
            )

        try:
            await self._database.write(write)
        except StoreFailed as error:
            log.warning("key_use_not_stored", reason=error.message)


def delete(conn: sqlite3.Connection, identity: str) -> None:
    """Delete a key with what was its own, in a function given to `Database.write`."""
    owner = f"key:{identity}"
    conn.execute("DELETE FROM api_keys WHERE id = ?", (identity,))
    consumers.forget_own(conn, owner)
    webhooks.end_owner(conn, owner)


def delete_only_for(conn: sqlite3.Connection, company: str) -> list[str]:
    """Delete the keys that are good for that company and for nothing else; their ids.

    As `delete`; tell `KeyBook.deleted` once it is on the disk.
    """
    found = conn.execute(
        "SELECT id FROM api_keys WHERE companies = ?", (_companies_json((company,)),)
    ).fetchall()
    for (identity,) in found:
        delete(conn, identity)
    return [identity for (identity,) in found]


async def open_keys(database: Database, *, clock: Callable[[], int] = now_ms) -> SqliteKeyRing:
    """The keys of `database`."""
    return SqliteKeyRing(database, KeyBook(await database.read(_load), clock))


def _load(conn: sqlite3.Connection) -> dict[str, KnownKey]:
    rows = conn.execute(
        "SELECT id, name, scope, companies, created_ms, last_used_ms, digest FROM api_keys"
    )
    return {
        identity: KnownKey(
            ApiKey(
                identity, name, KeyScope(scope), _companies(companies), created_ms, last_used_ms
            ),
            digest,
        )
        for identity, name, scope, companies, created_ms, last_used_ms, digest in rows
    }


def _companies(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(json.loads(text))


def _companies_json(companies: tuple[str, ...] | None) -> str | None:
    return None if companies is None else json.dumps(companies)
