"""Events that an older version logged have the shape of today after the start."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from message_shapes import MESSAGE, OLDER_MESSAGE
from older_database import older_database

from whatsappd.store.sqlite.connect import connect_writer
from whatsappd.store.sqlite.database import open_database
from whatsappd.store.sqlite.event_log import open_event_log
from whatsappd.store.sqlite.integrity import check
from whatsappd.wire.frames import pack

#: The last schema of versions that logged so.
OLDER_SCHEMA = 18
LOGGED: list[tuple[str, dict[str, Any]]] = [
    ("message.received", OLDER_MESSAGE),
    ("message.received", {"no": "message of any version"}),
    ("session.state", {"state": "connected"}),
    ("message.received", {**OLDER_MESSAGE, "content": "image", "raw": b"\xff"}),
]


@pytest.fixture
def older(tmp_path: Path) -> Path:
    path = tmp_path / "whatsappd.db"
    with older_database(path, OLDER_SCHEMA) as conn:
        conn.execute("PRAGMA journal_mode = WAL")
        position = 0
        for seq, (type_, data) in enumerate(LOGGED, 1):
            event = {"seq": seq, "time_ms": seq, "company": "acme", "type": type_, "data": data}
            packed = pack(event)
            row = (seq, seq, "acme", type_, position, packed)
            conn.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", row)
            position += len(packed)
        conn.execute("UPDATE event_log SET counted_seq = ?", (len(LOGGED),))
        conn.execute(
            "INSERT INTO event_totals SELECT company, type, count(*), sum(length(packed))"
            " FROM events GROUP BY company, type"
        )
        conn.execute(
            "INSERT INTO webhooks (id, revision, url, description, allow_private, enabled, secret,"
            " created_ms, updated_ms) VALUES ('w', 1, 'https://example.com', '', 0, 1, 's', 1, 1)"
        )
        conn.execute(
            "INSERT INTO webhook_dead_letters"
            " (webhook, seq, time_ms, company, type, dead_ms, attempts, reason, event)"
            " SELECT 'w', seq, time_ms, company, type, 1, 1, 'no', packed FROM events WHERE seq = 1"
        )
    return path


async def test_readers_of_the_log_meet_one_shape(older: Path) -> None:
    async with open_database(older) as database:
        log = await open_event_log(database)
        found = (await log.read(0, 100)).events
        assert log.last_seq == len(LOGGED)
    data = [stored.event.data for stored in found]
    assert data[0] == {**MESSAGE, "text": "Hello"}
    assert data[1:3] == [LOGGED[1][1], LOGGED[2][1]]
    assert data[3]["content"]["raw"] == b"\xff"
    assert data[3]["text"] == "Hello"
    assert check(older) == []


def test_what_counts_bytes_counts_those_of_today(older: Path) -> None:
    connect_writer(older).close()
    with contextlib.closing(sqlite3.connect(older)) as conn:
        for counted, there in (
            ("SELECT bytes FROM event_totals ORDER BY type",
             "SELECT sum(length(packed)) FROM events GROUP BY type ORDER BY type"),
            ("SELECT dead_bytes FROM webhooks",
             "SELECT sum(length(event)) FROM webhook_dead_letters"),
            ("SELECT event FROM webhook_dead_letters",
             "SELECT packed FROM events WHERE seq = 1"),
        ):  # fmt: skip
            assert conn.execute(counted).fetchall() == conn.execute(there).fetchall()
