"""The only calls of `sqlite3.connect`: how a connection of ours is set up.

Paths go into URIs quoted, and the file exists with mode 0600 before SQLite sees it (`-wal` and
`-shm` take the mode of the file).
"""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

from whatsappd.errors import BadStateDirectory, StoreFailed
from whatsappd.store.sqlite import logged_account_keys, older_events
from whatsappd.store.sqlite.migrations import migrate
from whatsappd.store.sqlite.sqlite_errors import as_store_failed

#: How long SQLite itself waits for a lock that a foreign process holds.
BUSY_TIMEOUT_MS = 5000
#: The write-ahead log is cut back to this size once it was copied into the database.
WAL_LIMIT_BYTES = 16 << 20
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
        conn = connect_uri(path, "mode=rw")
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
            logged_account_keys.add_functions(conn)
            older_events.add_functions(conn)
            migrate(conn)
            logged_account_keys.erase_what_is_due(conn)
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
    return connect_uri(path, "mode=ro")


def connect_folder(path: Path) -> sqlite3.Connection:
    """A connection that folds the write-ahead log into the file beside the writer, and does nothing
    else. Raises `sqlite3.Error`."""
    return connect_uri(path, "mode=rw")


def connect_still(path: Path) -> sqlite3.Connection:
    """A connection to a file that nobody has open, which may lie on a read-only disk: where there
    is no write-ahead log, none is made. Raises `sqlite3.Error`."""
    return connect_uri(path, "mode=ro&immutable=1")


def connect_new(path: Path) -> sqlite3.Connection:
    """A connection to a new, private file, which must not exist (FileExistsError, OSError)."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
    return connect_uri(path, "mode=rw")


def connect_uri(path: Path, options: str) -> sqlite3.Connection:
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
