"""Looking into a company's own database, which its worker writes, and which may hold anything.

Used by `engines.neonize`, which knows its tables, and by backups and checks.
"""

from __future__ import annotations

import math
import sqlite3
import stat
import time
from pathlib import Path

from whatsappd.store.sqlite.connect import connect_uri

#: The longest value, and the longest SQL of a table, that is read from an account's database.
_ACCOUNT_VALUE_BYTES = 1 << 20
#: Steps of SQLite's machine between two looks at the time. Each step may be a slow one.
_STEPS = 200


def connect_account(path: Path, *, within_s: float = math.inf) -> sqlite3.Connection:
    """A connection that cannot write, to a company's own database.

    Its worker writes it, and a worker counts as lost: the file may hold anything. What it holds
    gets neither this process's memory, nor more of its time than it is given. Queries of it are to
    have a LIMIT.

    Args:
        within_s: seconds from now on after which every query fails.

    Raises:
        sqlite3.Error: it cannot be read, or is no file; or it has views, which the client library
            makes none of, and which could be queries without an end.
    """
    for suffix in ("", "-wal", "-shm", "-journal"):
        _refuse_what_is_no_file(path.with_name(path.name + suffix))
    conn = connect_uri(path, "mode=ro")
    try:
        until = time.monotonic() + within_s
        conn.set_progress_handler(lambda: time.monotonic() > until, _STEPS)
        conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _ACCOUNT_VALUE_BYTES)
        conn.execute("PRAGMA trusted_schema = OFF")
        # A file can ask for a cache of its own size, and has that until another is asked for.
        conn.execute("PRAGMA cache_size = -2000")
        views = conn.execute("SELECT 1 FROM sqlite_master WHERE type = 'view' LIMIT 1").fetchone()
        if views is not None:
            raise sqlite3.DatabaseError(f"{path} has views: the client library makes none")
    except BaseException:
        conn.close()
        raise
    return conn


def _refuse_what_is_no_file(path: Path) -> None:
    """A FIFO would be waited for, and a link leads to what is somebody else's."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise sqlite3.OperationalError(f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise sqlite3.DatabaseError(f"{path} is no regular file")
