"""The schema, as numbered files of plain SQL, and how it is brought up to date.

Called by `store.sqlite.database` at open. A file is never edited once released: the next number
changes what it made. `PRAGMA user_version` holds the number of the last one applied.
"""

from __future__ import annotations

import re
import sqlite3
from importlib import resources
from typing import NamedTuple

from whatsappd.errors import BadStateDirectory

_FILE = re.compile(r"([0-9]{4})_[a-z0-9_]+\.sql\Z")


class Migration(NamedTuple):
    number: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """All of them, by number: 1, 2, 3 without a hole."""
    found = []
    for entry in resources.files(__name__).iterdir():
        if match := _FILE.match(entry.name):
            found.append(Migration(int(match[1]), entry.name, entry.read_text("utf-8")))
    found.sort()
    assert [migration.number for migration in found] == list(range(1, len(found) + 1))
    return found


def schema_version(conn: sqlite3.Connection) -> int:
    """The number of the last migration that `conn`'s database has had."""
    return int(conn.execute("PRAGMA user_version").fetchone()[0])


def migrate(conn: sqlite3.Connection) -> None:
    """Applies what is missing, each file in one transaction of its own.

    A crash between two files leaves a database that the next start brings further.

    Raises:
        BadStateDirectory: a newer whatsappd wrote the database.
        sqlite3.Error: a statement failed; that file's transaction was rolled back.
    """
    known = migrations()
    version = schema_version(conn)
    refuse_newer(version, known[-1].number)
    for migration in known[version:]:
        # `executescript` commits what is open before it begins, and knows no parameters. The
        # script is ours, so the number can be pasted.
        script = (
            f"BEGIN IMMEDIATE;\n{migration.sql}\n"
            f"PRAGMA user_version = {migration.number:d};\nCOMMIT;"
        )
        try:
            conn.executescript(script)
        except sqlite3.Error:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            raise


def refuse_newer(version: int, known: int) -> None:
    """Raises BadStateDirectory if `version` is beyond what this program knows."""
    if version > known:
        raise BadStateDirectory(
            f"the database has schema {version}, this whatsappd knows schemas up to {known}: "
            "it was written by a newer version. Install that version again, or restore a backup "
            "made before the upgrade",
            schema=version,
            known=known,
        )
