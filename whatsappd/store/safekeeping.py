"""Backup and check: what a person does with the database file.

`Database.backup` calls `backup` in a thread; `whatsappd check` calls `check`, also when no daemon
runs.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from whatsappd.errors import BadStateDirectory, InvalidParams
from whatsappd.store.connect import APPLICATION_ID, connect_new, connect_reader, connect_still
from whatsappd.store.failures import as_store_failed
from whatsappd.store.migrations import migrations, refuse_newer, schema_version
from whatsappd.store.rows import doubt_open_rows

#: Pages copied before a backup looks whether it was cancelled (8 MiB).
_PAGES = 2048


def backup(source: Path, target: Path, check_cancelled: Callable[[], object]) -> int:
    """See `Database.backup`. Runs in a thread; `check_cancelled` raises to give up."""
    partial = target.with_name(f".{target.name}.partial")
    try:
        # Takes the name at once, so that two backups cannot want the same one.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        raise InvalidParams(
            f"target: {target} exists, and a backup overwrites nothing: choose another name",
            field="target",
        ) from None
    except OSError as error:
        raise InvalidParams(
            f"target: cannot write {target}: {error.strerror}", field="target"
        ) from error
    try:
        with suppress(FileNotFoundError):
            partial.unlink()  # of a backup that a crash cut off
        _copy(source, partial, check_cancelled)
        partial.replace(target)
        _sync_directory(target.parent)
    except BaseException as error:
        for leftover in (partial, target):
            with suppress(FileNotFoundError):
                leftover.unlink()
        raise (as_store_failed(error) or error) from error
    return target.stat().st_size


def _copy(source: Path, partial: Path, check_cancelled: Callable[[], object]) -> None:
    with closing(connect_reader(source)) as reader, closing(connect_new(partial)) as copy:
        # An open read transaction pins one moment: without it, SQLite would begin anew whenever
        # the writer commits, and under load never end.
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
        copy.execute("PRAGMA synchronous = FULL")
        reader.backup(copy, pages=_PAGES, progress=lambda *_: check_cancelled() and None)
        doubt_open_rows(copy)
        copy.commit()
        # The copy took over the WAL mode. Without it, it is one file and nothing beside it.
        copy.execute("PRAGMA journal_mode = DELETE")


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
