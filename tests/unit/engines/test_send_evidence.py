"""The account's database is its worker's, and a worker counts as lost: the daemon reads it, and is
not harmed by what it finds."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio

from whatsappd.engines.neonize import send_evidence
from whatsappd.engines.neonize.send_evidence import find_attempts
from whatsappd.engines.port import AttemptEvidence

SECRET = b"s" * 32
JID = "15550100:3@s.whatsapp.net"
DEVICE = "CREATE TABLE whatsmeow_device (jid);"
SECRETS = "CREATE TABLE whatsmeow_message_secrets (key, message_id);"
NUMBERS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n{})"


def database(path: Path, script: str) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path


async def test_what_an_honest_worker_left_is_believed(tmp_path: Path) -> None:
    rows = (
        f"INSERT INTO whatsmeow_device VALUES ('{JID}');"
        f"INSERT INTO whatsmeow_message_secrets VALUES (x'{SECRET.hex()}', 'AC01');"
    )
    path = database(tmp_path / "session.db", DEVICE + SECRETS + rows)
    assert await find_attempts(path, [SECRET, b"other"], jid=JID) == AttemptEvidence(
        {SECRET: "AC01"}, proves_absence=True
    )
    other = await find_attempts(path, [SECRET], jid="15550200:1@s.whatsapp.net")
    assert not other.proves_absence


@pytest.mark.parametrize(
    "script",
    [
        f"CREATE VIEW whatsmeow_device AS {NUMBERS.format('')} SELECT '{JID}' || x AS jid FROM n;"
        + SECRETS,
        DEVICE + f"CREATE VIEW whatsmeow_message_secrets AS {NUMBERS.format('')}"
        " SELECT x'00' || x AS key, hex(zeroblob(100000)) AS message_id, x AS rowid FROM n;",
        "CREATE TABLE whatsmeow_device (x, jid AS (hex(zeroblob(50000)) || x));"
        "INSERT INTO whatsmeow_device (x) "
        + NUMBERS.format(" WHERE x < 200000")
        + " SELECT x FROM n;"
        + SECRETS,
        DEVICE + SECRETS + f"INSERT INTO whatsmeow_message_secrets VALUES (x'{SECRET.hex()}', 5);",
    ],
    ids=["endless devices", "endless secrets", "slow", "an id that is none"],
)
async def test_one_that_was_made_to_do_harm_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(send_evidence, "_WITHIN_S", 0.05)
    path = database(tmp_path / "session.db", script)
    with trio.fail_after(5):
        found = await find_attempts(path, [SECRET], jid=JID)
    assert (found.message_ids, found.proves_absence) == ({}, False)
    assert "cannot be read" in found.why_not


@pytest.mark.parametrize("suffix", ["", "-wal"])
async def test_what_is_no_file_is_not_opened(tmp_path: Path, suffix: str) -> None:
    """Opening a FIFO waits for whoever has its other end."""
    path = database(tmp_path / "session.db", DEVICE + SECRETS)
    pipe = path.with_name(path.name + suffix)
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    with trio.fail_after(5):
        found = await find_attempts(path, [SECRET], jid=JID)
    assert not found.proves_absence
