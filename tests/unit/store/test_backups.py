"""A backup with accounts: one company's worker cannot keep the others' out of it."""

from __future__ import annotations

import io
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from whatsappd.restore import restore
from whatsappd.state_directory import REAL, StateDirectory
from whatsappd.store.sqlite.backup import SqliteBackups
from whatsappd.store.sqlite.connect import connect_writer


def damaged(account: Path) -> None:
    with account.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 2048)


def huge(account: Path) -> None:
    os.truncate(account, 1 << 42)  # a hole: it takes no room where it is


def no_database(account: Path) -> None:
    account.write_bytes(b"x" * 8192)


def a_view(account: Path) -> None:
    with closing(sqlite3.connect(account)) as connection:
        connection.execute("CREATE VIEW v AS SELECT 1")


def a_fifo_beside(account: Path) -> None:
    os.mkfifo(account.with_name("session.db-journal"))


def a_link(account: Path) -> None:
    account.unlink()
    account.symlink_to(account.parent.parent / "globex" / "session.db")


@pytest.mark.parametrize(
    "harm",
    [damaged, huge, no_database, a_view, a_fifo_beside, a_link],
    ids=lambda harm: harm.__name__,
)
async def test_an_account_that_cannot_be_copied_is_left_out_and_named(
    tmp_path: Path, harm: object
) -> None:
    state = StateDirectory(tmp_path / "state")
    state.prepare()
    connect_writer(state.database).close()
    for company in ("acme", "globex"):
        state.company(company).mkdir()
        with closing(sqlite3.connect(state.company(company) / "session.db")) as connection:
            connection.executescript(
                "CREATE TABLE t (a); CREATE INDEX i ON t (a); INSERT INTO t VALUES (1);"
            )
    assert callable(harm)
    harm(state.company("acme") / "session.db")
    made = SqliteBackups(state.database, state.backups, state.accounts, version="1", mode=REAL)
    file = io.BytesIO()
    async with made.taken(with_accounts=True) as backup:
        async for chunk in backup.chunks():
            file.write(chunk)
    assert backup.companies == ["globex"]
    assert backup.left_out.keys() == {"acme"}
    assert all(backup.left_out.values())
    assert list(state.backups.iterdir()) == []

    (tmp_path / "backup.tar").write_bytes(file.getvalue())
    restored = StateDirectory(tmp_path / "restored")
    restored.prepare()
    found = restore(
        tmp_path / "backup.tar", restored, tmp_path / "none.sock", mode=REAL, dry_run=False
    )
    assert found.companies == ["globex"]
