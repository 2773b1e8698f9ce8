"""SQLite's errors in the words of `whatsappd.errors`, with what to do about them.

Called by the database and its writer. What is listed is the host's fault (disk, permissions, a
foreign process) and becomes `StoreFailed`; anything else is a defect of ours and stays a
`sqlite3.Error`.
"""

from __future__ import annotations

import sqlite3

from whatsappd.errors import StoreFailed

# Primary result codes (https://www.sqlite.org/rescode.html): the low byte of an extended one.
_WORDS = {
    sqlite3.SQLITE_FULL: (
        "the disk is full",
        "free space; nothing that was accepted is lost, and work goes on by itself",
    ),
    sqlite3.SQLITE_READONLY: (
        "the database is read-only",
        "mount the disk read-write and give the daemon's user write permission on the directory",
    ),
    sqlite3.SQLITE_CORRUPT: (
        "the database is damaged",
        "stop the daemon, run `whatsappd check`, and restore a backup",
    ),
    sqlite3.SQLITE_NOTADB: (
        "the file is no SQLite database",
        "stop the daemon, run `whatsappd check`, and restore a backup",
    ),
    sqlite3.SQLITE_IOERR: (
        "the disk failed to read or write",
        "look at the kernel's log (`dmesg`), then run `whatsappd check`",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "the database cannot be opened",
        "check that the directory exists and belongs to the daemon's user",
    ),
    sqlite3.SQLITE_PERM: (
        "the database may not be accessed",
        "check that the file belongs to the daemon's user",
    ),
    sqlite3.SQLITE_BUSY: (
        "another process holds the database locked",
        "only the daemon may write to it: find the other one with `fuser`",
    ),
    sqlite3.SQLITE_LOCKED: (
        "the database is locked",
        "only the daemon may write to it: find the other one with `fuser`",
    ),
    sqlite3.SQLITE_NOMEM: ("memory is short", "give the daemon more memory"),
}


def as_store_failed(error: BaseException) -> StoreFailed | None:
    """The `StoreFailed` that a failure of the host is; None for any other error."""
    code = getattr(error, "sqlite_errorcode", None)
    if not isinstance(error, sqlite3.Error) or code is None:
        return None
    words = _WORDS.get(code & 0xFF)
    if words is None:
        return None
    what, remedy = words
    return StoreFailed(f"{what} ({error}): {remedy}", sqlite=error.sqlite_errorname)
