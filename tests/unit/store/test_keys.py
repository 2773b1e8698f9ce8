"""API keys: shown once, stored hashed, checked without a write."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import trio

from whatsappd.errors import Denied, StoreFailed, UnknownKey
from whatsappd.model.access import KeyScope
from whatsappd.model.audit import AuditRecord
from whatsappd.store.audit_trail import AuditTrail
from whatsappd.store.sqlite.audit import SqliteAuditRecords
from whatsappd.store.sqlite.database import Database, open_database
from whatsappd.store.sqlite.keys import open_keys


async def test_a_key_is_known_after_a_restart_and_its_text_is_nowhere_on_disk(path: Path) -> None:
    async with open_database(path) as database:
        key, text = await (await open_keys(database)).create("shop", KeyScope.SEND, ("acme",))
    stored = b"".join(each.read_bytes() for each in path.parent.iterdir())
    assert text.encode() not in stored
    assert text.split("_", 2)[2].encode() not in stored
    async with open_database(path) as database:
        assert (await (await open_keys(database)).check(text))[:4] == key[:4]


async def test_a_revoked_key_is_refused_also_after_a_restart(path: Path) -> None:
    async with open_database(path) as database:
        keys = await open_keys(database)
        key, text = await keys.create("shop", KeyScope.READ, None)
        _, other = await keys.create("other", KeyScope.READ, None)
        await keys.revoke(key.id)
        with pytest.raises(Denied):
            await keys.check(text)
        with pytest.raises(UnknownKey):
            await keys.revoke(key.id)
    async with open_database(path) as database:
        keys = await open_keys(database)
        with pytest.raises(Denied):
            await keys.check(text)
        assert (await keys.check(other)).name == "other"


async def test_a_key_whose_revoker_hangs_up_is_revoked_all_the_same(
    database: Database, hang_up
) -> None:
    keys = await open_keys(database)
    key, text = await keys.create("shop", KeyScope.READ, None)
    await hang_up(keys.revoke, key.id)
    with pytest.raises(Denied):
        await keys.check(text)
    assert await keys.list_all() == await (await open_keys(database)).list_all() == []
    await hang_up(keys.create, "nobody's", KeyScope.READ, None)
    assert [key.name for key in await keys.list_all()] == ["nobody's"]
    assert await keys.list_all() == await (await open_keys(database)).list_all()


async def test_use_is_remembered_without_a_write_and_stored_when_the_daemon_ends(
    path: Path, clock
) -> None:
    async with open_database(path) as database:
        keys = await open_keys(database, clock=clock)
        _, text = await keys.create("shop", KeyScope.READ, None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keys.run)
            clock.now_ms += 5
            log = path.with_name(path.name + "-wal")
            before = log.stat().st_size
            for _ in range(1000):
                await keys.check(text)
            assert log.stat().st_size == before
            assert (await keys.list_all())[0].last_used_ms == clock.now_ms
            nursery.cancel_scope.cancel()
    async with open_database(path) as database:
        assert (await (await open_keys(database)).list_all())[0].last_used_ms == clock.now_ms


async def test_a_key_that_the_disk_did_not_take_does_not_exist(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = await open_keys(database)

    async def full(*_arguments: object) -> None:
        raise StoreFailed("the disk is full")

    monkeypatch.setattr(database, "write", full)
    with pytest.raises(StoreFailed):
        await keys.create("shop", KeyScope.READ, None)
    assert await keys.list_all() == []


async def test_the_digest_is_all_that_is_stored(database: Database) -> None:
    keys = await open_keys(database)
    await keys.create("shop", KeyScope.READ, None)

    def columns(conn: sqlite3.Connection) -> list[str]:
        return [row[1] for row in conn.execute("PRAGMA table_info(api_keys)")]

    assert "digest" in await database.read(columns)


async def test_a_key_and_its_line_of_the_audit_trail_are_one_transaction(
    database: Database,
) -> None:
    keys = await open_keys(database)
    noted: list[str] = []

    def full(identity: str | None) -> AuditRecord:
        noted.append(identity)
        raise StoreFailed("the disk is full")

    with pytest.raises(StoreFailed):
        await keys.create("shop", KeyScope.SEND, None, full)
    assert noted
    assert await keys.list_all() == await (await open_keys(database)).list_all() == []

    def note(identity: str | None) -> AuditRecord:
        return AuditRecord(1, "uid:0", 1, "key", None, identity, "ok")

    key, text = await keys.create("shop", KeyScope.SEND, None, note)
    with pytest.raises(StoreFailed):
        await keys.revoke(key.id, full)
    assert (await keys.check(text)).id == key.id  # still in force, as nothing says that it is not
    await keys.revoke(key.id, note)
    lines = await AuditTrail(SqliteAuditRecords(database)).read(after=0, limit=10, company=None)
    assert [each["subject"] for each in lines] == [key.id, key.id]
