"""Keys that an older version logged are gone after the start, from every page of the files."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from neonize_protos import e2e

from whatsappd.store.sqlite.connect import connect_writer
from whatsappd.store.sqlite.database import open_database
from whatsappd.store.sqlite.event_log import open_event_log
from whatsappd.store.sqlite.integrity import check
from whatsappd.store.sqlite.migrations import migrations
from whatsappd.wire.frames import pack, unpack

KEY = b"the app-state key of an account!"
MEDIA = b"the media key of a picture, kept"
SECRET = b"the secret of a poll, which goes"
DELETED = b"a key whose event was deleted..."

#: As versions before logged it, on a database of their last schema.
OLD_SCHEMA = 9


def key_share(key: bytes) -> bytes:
    message = e2e.Message()
    message.protocolMessage.type = e2e.ProtocolMessage.APP_STATE_SYNC_KEY_SHARE
    message.protocolMessage.appStateSyncKeyShare.keys.add().keyData.keyData = key
    return bytes(message.SerializeToString())


def image() -> bytes:
    message = e2e.Message()
    message.imageMessage.mediaKey = MEDIA
    message.messageContextInfo.messageSecret = SECRET
    return bytes(message.SerializeToString())


def received(content: str, raw: bytes | None) -> dict[str, Any]:
    data = {"message_id": "3A", "content": content, "text": "", "chat": "1@lid"}
    return data if raw is None else {**data, "raw": raw}


LOGGED: list[tuple[str, dict[str, Any]]] = [
    ("message.received", received("protocol", key_share(DELETED))),
    ("message.received", received("conversation", None)),
    ("message.received", received("protocol", key_share(KEY))),
    ("message.received", received("image", image())),
    ("message.received", {**received("protocol", key_share(KEY)), "shortened": True}),
    ("message.received", received("poll", b"\x0b no protobuf " + KEY)),
    ("message.receipt", {"message_ids": ["raw"]}),
    ("message.received", received("protocol", key_share(KEY) * 40)),
]


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Path]:
    """A database of an older version, whose daemon was killed: its write-ahead log is there."""
    path = tmp_path / "whatsappd.db"
    path.touch(0o600)
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute("PRAGMA journal_mode = WAL")
    for migration in migrations()[:OLD_SCHEMA]:
        conn.executescript(migration.sql)
    conn.execute(f"PRAGMA user_version = {OLD_SCHEMA}")
    position = 0
    for seq, (type_, data) in enumerate(LOGGED, 1):
        event = {"seq": seq, "time_ms": seq, "company": "acme", "type": type_, "data": data}
        packed = pack(event)
        row = (seq, seq, "acme", type_, position, packed)
        conn.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", row)
        position += len(packed)
    conn.execute(
        "INSERT INTO webhook_dead_letters"
        " (webhook, seq, time_ms, company, type, dead_ms, attempts, reason, event)"
        " SELECT 'w', seq, time_ms, company, type, 1, 1, 'no', packed FROM events WHERE seq = 3"
    )
    conn.execute("DELETE FROM events WHERE seq = 1")
    conn.execute("UPDATE event_log SET forgotten_seq = 1")
    yield path
    conn.close()


def bytes_of(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.iterdir())


async def test_keys_are_gone_from_every_page_and_the_log_has_no_hole(old: Path) -> None:
    before = bytes_of(old)
    for secret in (KEY, DELETED, SECRET, MEDIA):
        assert secret in before
    async with open_database(old) as database:
        log = await open_event_log(database)
        assert log.last_seq == len(LOGGED)
        found = (await log.read(1, 100)).events
        after = bytes_of(old)
    for secret in (KEY, DELETED, SECRET):
        assert secret not in after
        assert secret not in bytes_of(old)
    assert MEDIA in after
    assert [stored.seq for stored in found] == list(range(2, len(LOGGED) + 1))
    data = {stored.seq: stored.event.data for stored in found}
    assert data[2] == LOGGED[1][1]
    size = len(key_share(KEY))
    assert data[3] == {**received("protocol", None), "shortened": {"raw": size}}
    assert data[5]["shortened"] == {"raw": size}
    assert e2e.Message.FromString(data[4]["raw"]).imageMessage.mediaKey == MEDIA
    assert "raw" not in data[6]
    assert data[7] == {"message_ids": ["raw"]}
    assert check(old) == []


async def test_a_copy_that_waits_for_a_webhook_is_cleaned_too(old: Path) -> None:
    connect_writer(old).close()
    with contextlib.closing(sqlite3.connect(old)) as conn:
        [(event,)] = conn.execute("SELECT event FROM webhook_dead_letters")
        assert conn.execute("SELECT count(*) FROM erasures_due").fetchone() == (0,)
        totals = conn.execute("SELECT bytes FROM event_totals WHERE type = 'message.received'")
        sizes = conn.execute("SELECT sum(length(packed)) FROM events WHERE type LIKE '%received'")
        assert totals.fetchall() == sizes.fetchall()
    assert "raw" not in unpack(event)["data"]


async def test_a_disk_without_room_postpones_the_rest_to_the_next_start(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sqlite3.Connection.execute
    refused = sqlite3.OperationalError("database or disk is full")
    refused.sqlite_errorcode, refused.sqlite_errorname = sqlite3.SQLITE_FULL, "SQLITE_FULL"

    class Full(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if sql == "VACUUM":
                raise refused
            return real(self, sql, *values)

    connect = sqlite3.connect
    monkeypatch.setattr(
        "whatsappd.store.sqlite.connect.sqlite3.connect",
        lambda *a, **k: connect(*a, factory=Full, **k),
    )
    connect_writer(old).close()
    with contextlib.closing(connect(old)) as conn:
        assert conn.execute("SELECT count(*) FROM erasures_due").fetchone() == (1,)
    monkeypatch.undo()
    connect_writer(old).close()
    assert DELETED not in bytes_of(old)


async def test_a_new_database_is_not_written_twice(tmp_path: Path) -> None:
    connect_writer(tmp_path / "new.db").close()
    with contextlib.closing(sqlite3.connect(tmp_path / "new.db")) as conn:
        assert conn.execute("SELECT count(*) FROM erasures_due").fetchone() == (0,)
