"""A disk without room, for a database of the test's own: SQLite refuses to let the file grow."""

from __future__ import annotations

from contextlib import suppress

from whatsappd.errors import StoreFailed
from whatsappd.model.event import SESSION_STATE, Draft
from whatsappd.store.sqlite.database import Database
from whatsappd.store.sqlite.event_log import SqliteEventLog


async def fill_up(database: Database, events: SqliteEventLog) -> None:
    """From now on, nothing that has an event can be written."""
    await _limit(database, 1)  # SQLite takes the present size for it
    with suppress(StoreFailed):
        while True:  # what is free inside of the file
            await events.append(Draft("acme", SESSION_STATE, {}))


async def make_room(database: Database) -> None:
    await _limit(database, 1_000_000)


async def _limit(database: Database, pages: int) -> None:
    await database.write(lambda conn: conn.execute(f"PRAGMA max_page_count = {pages}").fetchone())
