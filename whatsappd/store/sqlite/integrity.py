"""Whether a database is sound: `check`, for `whatsappd check` and `whatsappd restore`.

It changes nothing, and may run beside the daemon.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from whatsappd.errors import BadStateDirectory
from whatsappd.store.sqlite.connect import APPLICATION_ID, connect_reader, connect_still
from whatsappd.store.sqlite.migrations import migrations, refuse_newer, schema_version
from whatsappd.store.sqlite.sqlite_errors import as_store_failed


def check_account(path: Path) -> list[str]:
    """What is wrong with a company's own database, which is the client library's, one finding
    each; empty if it is sound. As `check`, it changes nothing."""
    return _try_to(_damage, path)


def check(path: Path) -> list[str]:
    """What is wrong with the database at `path`, one finding each; empty if it is sound.

    Reads the whole file (seconds per gigabyte). Changes nothing, and may run beside the daemon.
    """
    return _try_to(_findings, path)


def _try_to(look: Callable[[sqlite3.Connection], list[str]], path: Path) -> list[str]:
    if not path.exists():
        return [f"{path} does not exist"]
    try:
        try:
            return _look(look, connect_reader(path))
        except sqlite3.OperationalError:
            # Even a reader makes a `-wal` beside the file, which a read-only disk refuses.
            if os.access(path.parent, os.W_OK) or path.with_name(path.name + "-wal").exists():
                raise
            return _look(look, connect_still(path))
    except sqlite3.Error as error:
        return [str(as_store_failed(error) or error)]


def _look(look: Callable[[sqlite3.Connection], list[str]], conn: sqlite3.Connection) -> list[str]:
    with closing(conn):
        conn.execute("BEGIN")
        return look(conn)


def _damage(conn: sqlite3.Connection) -> list[str]:
    return [str(line) for (line,) in conn.execute("PRAGMA integrity_check(100)") if line != "ok"]


def _findings(conn: sqlite3.Connection) -> list[str]:
    if conn.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        return ["this is no database of whatsappd"]
    found = _damage(conn)
    if found:
        return found  # what a damaged file says about its rows is worth nothing
    version, known = schema_version(conn), migrations()[-1].number
    try:
        refuse_newer(version, known)
    except BadStateDirectory as error:
        return [error.message]
    found += [
        f"table {table}: row {row} refers to a row of {parent} that does not exist"
        for table, row, parent, _ in conn.execute("PRAGMA foreign_key_check")
    ]
    if version < known:
        return found  # the next start brings it up to date
    (forgotten, deleted) = conn.execute(
        "SELECT coalesce(max(seq), 0), coalesce(sum(events), 0) FROM forgotten_events"
    ).fetchone()
    count, last = conn.execute("SELECT count(*), coalesce(max(seq), 0) FROM events").fetchone()
    if count + deleted != max(last, forgotten):
        found.append(
            f"the event log has a hole: {count} events are there and {deleted} were deleted, but "
            f"they are numbered up to {max(last, forgotten)}"
        )
    return found
