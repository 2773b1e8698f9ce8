"""The only calls of `sqlite3.connect`: how a connection of ours is set up.

Used by the store, and for accounts by `engines.neonize.send_evidence`. Paths go into URIs quoted,
and the file exists with mode 0600 before SQLite sees it (`-wal` and `-shm` take the mode of the
file).
"""

from __future__ import annotations

import math
import os
import sqlite3
import stat
import time
from pathlib import Path

from whatsappd.errors import BadStateDirectory, StoreFailed
from whatsappd.store.sqlite import old_keys, older_events
from whatsappd.store.sqlite.failures import as_store_failed
from whatsappd.store.sqlite.migrations import migrate

#: How long SQLite itself waits for a lock that a foreign process holds.
BUSY_TIMEOUT_MS = 5000
#: The write-ahead log is cut back to this size once it was copied into the database.
WAL_LIMIT_BYTES = 16 << 20
#: The longest value, and the longest SQL of a table, that is read from an account's database.
_ACCOUNT_VALUE_BYTES = 1 << 20
#: Steps of SQLite's machine between two looks at the time. Each step may be a slow one.
_STEPS = 200
#: PRAGMA application_id of our databases: "wapd". Migration 1 sets it.
APPLICATION_ID = 0x77617064


def connect_writer(path: Path) -> sqlite3.Connection:
    """The connection that may write, with the schema brought up to date.

    Raises:
        BadStateDirectory: the file cannot be made or opened there, holds something else, or a
            newer version wrote it.
        StoreFailed: the file is damaged, or its disk is full or read-only.
    """
    _make_private(path)
    try:
        conn = _connect(path, "mode=rw")
        try:
            _refuse_foreign(conn, path)
            # WAL: readers and the writer do not block each other. FULL: every COMMIT is synced.
            conn.execute("PRAGMA journal_mode = WAL")
            conn.execute("PRAGMA synchronous = FULL")
            conn.execute("PRAGMA foreign_keys = ON")
            # Deleted rows are overwritten in pages that are written anyway.
            conn.execute("PRAGMA secure_delete = FAST").fetchone()
            conn.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES:d}")
            # A migration may sort a million rows for an index: not in memory.
            conn.execute("PRAGMA temp_store = FILE")
            old_keys.add_functions(conn)
            older_events.add_functions(conn)
            migrate(conn)
            old_keys.erase_what_is_due(conn)
            # Savepoints keep the pages they change in a temporary journal: in memory, please.
            conn.execute("PRAGMA temp_store = MEMORY")
        except BaseException:
            conn.close()
            raise
    except sqlite3.Error as error:
        raise _opening_failed(path, error) from error
    return conn


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write. Raises `sqlite3.Error`."""
    return _connect(path, "mode=ro")


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
    conn = _connect(path, "mode=ro")
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


def connect_folder(path: Path) -> sqlite3.Connection:
    """A connection that folds the write-ahead log into the file beside the writer, and does nothing
    else. Raises `sqlite3.Error`."""
    return _connect(path, "mode=rw")


def connect_still(path: Path) -> sqlite3.Connection:
    """A connection to a file that nobody has open, which may lie on a read-only disk: where there
    is no write-ahead log, none is made. Raises `sqlite3.Error`."""
    return _connect(path, "mode=ro&immutable=1")


def connect_new(path: Path) -> sqlite3.Connection:
    """A connection to a new, private file, which must not exist (FileExistsError, OSError)."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
    return _connect(path, "mode=rw")


def _connect(path: Path, options: str) -> sqlite3.Connection:
    conn = sqlite3.connect(
        f"{path.absolute().as_uri()}?{options}",
        uri=True,
        timeout=BUSY_TIMEOUT_MS / 1000,
        isolation_level=None,  # transactions are begun and ended by us alone
        check_same_thread=False,  # each connection is used by one thread at a time
    )
    try:
        conn.execute("PRAGMA temp_store = MEMORY")
    except BaseException:
        conn.close()
        raise
    return conn


def _make_private(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BadStateDirectory(f"{path} is no regular file: move it away", path=str(path))
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise BadStateDirectory(
            f"cannot open the database {path}: {error.strerror}. "
            "Check that the directory exists, belongs to the daemon's user and is writable",
            path=str(path),
        ) from error


def _refuse_foreign(conn: sqlite3.Connection, path: Path) -> None:
    is_empty = conn.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if not is_empty and conn.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise BadStateDirectory(
            f"{path} is a database of another program: move it away, or choose another "
            "state directory",
            path=str(path),
        )


def _opening_failed(path: Path, error: sqlite3.Error) -> StoreFailed | sqlite3.Error:
    store_failed = as_store_failed(error)
    if store_failed is None:
        return error
    return StoreFailed(f"cannot open {path}: {store_failed.message}", **store_failed.data)
