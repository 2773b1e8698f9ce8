"""A daemon's database as an older version made it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from whatsappd.store.sqlite.migrations import migrations


@contextlib.contextmanager
def older_database(path: Path, schema: int) -> Iterator[sqlite3.Connection]:
    """A new file at `path`, to be filled: `schema` is the number of its last migration."""
    path.touch(0o600)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as conn:
        for name in ("without_keys", "in_todays_shape"):
            conn.create_function(name, 1, bytes)  # there is nothing yet for them to change
        for migration in migrations()[:schema]:
            conn.executescript(migration.sql)
        conn.execute(f"PRAGMA user_version = {schema}")
        yield conn
