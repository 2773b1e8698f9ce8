"""Whom a company knows, in memory and on disk: both change together."""

from __future__ import annotations

from whatsappd.store.sqlite.acquaintances import SqliteAcquaintances
from whatsappd.store.sqlite.database import Database

FRIEND = "15550200@s.whatsapp.net"


async def test_what_is_remembered_follows_the_disk_also_if_the_caller_hangs_up(
    database: Database, hang_up
) -> None:
    acquaintances = SqliteAcquaintances(database)
    told: list[str] = []
    acquaintances.follow(told.append)
    await hang_up(acquaintances.add, "acme", [FRIEND])
    assert told == ["acme"]
    assert await acquaintances.strangers("acme", [FRIEND]) == set()
    await database.write(lambda conn: conn.execute("DELETE FROM contacts"))
    acquaintances.forget("acme")
    assert await acquaintances.strangers("acme", [FRIEND]) == {FRIEND}
