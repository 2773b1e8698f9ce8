"""The sandbox's SQLite file: accounts, devices, keys, groups and undelivered stanzas, as rows.

Writes gather in one transaction, which `commit` ends. The switchboard commits before it sends
anything, so no client ever holds an answer that a killed sandbox has forgotten. SQLite does not
sync to disk (`synchronous = OFF`): the data survive the end of the process, not of the machine.

Removals of delivered stanzas are gathered, too, and written with the next commit or the 256th
removal. If the sandbox is killed before, a client gets a stanza once more.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

from whatsappd.errors import SandboxFailed
from whatsappd.files import PRIVATE

_VERSION = 2
#: What each later version added.
_ADDED = {2: "CREATE TABLE alias (number TEXT PRIMARY KEY, phone TEXT NOT NULL);"}
_SCHEMA = """
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE account (
    phone TEXT PRIMARY KEY, lid TEXT NOT NULL UNIQUE, seed BLOB NOT NULL,
    raw_id INTEGER NOT NULL, name TEXT NOT NULL, next_device INTEGER NOT NULL);
CREATE TABLE device (
    row INTEGER PRIMARY KEY AUTOINCREMENT, phone TEXT NOT NULL, id INTEGER NOT NULL,
    noise_key BLOB NOT NULL, registration BLOB NOT NULL, identity BLOB NOT NULL,
    signed_id BLOB NOT NULL, signed_key BLOB NOT NULL, signature BLOB NOT NULL,
    key_index INTEGER NOT NULL, uploaded INTEGER NOT NULL, UNIQUE (phone, id));
CREATE TABLE prekey (
    device INTEGER NOT NULL, id BLOB NOT NULL, key BLOB NOT NULL,
    PRIMARY KEY (device, id)) WITHOUT ROWID;
CREATE TABLE queue (seq INTEGER PRIMARY KEY, device INTEGER NOT NULL, stanza BLOB NOT NULL);
CREATE TABLE accepted (seq INTEGER PRIMARY KEY, device INTEGER NOT NULL, id TEXT NOT NULL);
CREATE TABLE peer_group (
    id TEXT PRIMARY KEY, subject TEXT NOT NULL, creator TEXT NOT NULL,
    created INTEGER NOT NULL, participants TEXT NOT NULL);
PRAGMA user_version = 1;
"""

#: Removals that may wait for the next commit.
_MAX_REMOVALS = 256


class SandboxDatabase:
    """The open database. `registry`, `groups` and `switchboard` know what its rows mean."""

    def __init__(self, file: Path) -> None:
        """Open the database, or create it with mode 0600.

        Raises:
            SandboxFailed: the file is damaged, or a newer version of the sandbox wrote it.
        """
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, PRIVATE))
        self._removals: list[tuple[int]] = []
        try:
            self._db = sqlite3.connect(file, isolation_level=None, cached_statements=64)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = OFF")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
                version = 1
            for number in range(version + 1, _VERSION + 1):
                self._db.executescript(
                    f"BEGIN; {_ADDED[number]} PRAGMA user_version = {number}; COMMIT;"
                )
            if version > _VERSION:
                raise SandboxFailed(
                    f"{file} was written by another version of the sandbox: "
                    "use another directory, or remove this one"
                )
        except sqlite3.DatabaseError as error:
            raise SandboxFailed(f"{file} cannot be used: {error}") from error

    def close(self) -> None:
        """Commit, and close the file."""
        self._flush_removals()
        self.commit()
        self._db.close()

    def write(self, statement: str, *values: Any) -> int:
        """Execute one statement in the current transaction. Returns the rowid it inserted, or 0."""
        if not self._db.in_transaction:
            self._db.execute("BEGIN")
        return self._db.execute(statement, values).lastrowid or 0

    def write_many(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        """Execute one statement for each row in the current transaction."""
        if not self._db.in_transaction:
            self._db.execute("BEGIN")
        self._db.executemany(statement, rows)

    def read(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query, with what the current transaction has written."""
        return self._db.execute(statement, values).fetchall()

    def enqueue(self, device_row: int, stanza: bytes) -> int:
        """Keep a stanza for a device. Returns the number by which `dequeue` removes it."""
        return self.write("INSERT INTO queue (device, stanza) VALUES (?, ?)", device_row, stanza)

    def dequeue(self, seq: int) -> None:
        """Remove a stanza, with a later commit."""
        self._removals.append((seq,))

    def commit(self) -> None:
        """End the transaction: what was written survives the process. Removals may wait."""
        if len(self._removals) >= _MAX_REMOVALS or (self._removals and self._db.in_transaction):
            self._flush_removals()
        if self._db.in_transaction:
            self._db.execute("COMMIT")

    def _flush_removals(self) -> None:
        if self._removals:
            self.write_many("DELETE FROM queue WHERE seq = ?", self._removals)
            self._removals = []

    def setting(self, name: str) -> str | None:
        """The stored value of that name, or None."""
        rows = self.read("SELECT value FROM setting WHERE name = ?", name)
        return rows[0][0] if rows else None

    def set_setting(self, name: str, value: str) -> None:
        """Store a value under a name."""
        self.write("INSERT OR REPLACE INTO setting VALUES (?, ?)", name, value)
