"""Backups: consistent copies of databases while they are in use, and the bytes of a whole backup.

A copy is made beside the database first, in a file without a name, and read from there: so a reader
may be as slow as it likes, and nothing is left of a copy whose process was killed.
`handlers.backup` hands the bytes to whoever asked.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import BinaryIO

import structlog
import trio

from whatsappd.clock import now_ms
from whatsappd.errors import StoreFailed
from whatsappd.store.backup_archive import (
    DATABASE,
    END,
    MANIFEST,
    FileEntry,
    Manifest,
    account_name,
    header,
    padding,
)
from whatsappd.store.sqlite.account_database import connect_account
from whatsappd.store.sqlite.connect import connect_new, connect_reader
from whatsappd.store.sqlite.migrations import schema_version
from whatsappd.store.sqlite.outbox_rows import doubt_open_rows
from whatsappd.store.sqlite.sqlite_errors import as_store_failed

log = structlog.get_logger()

#: Pages copied before a copy looks whether it was cancelled, and rests (2 MiB).
_PAGES = 512
#: The part of the time for which it rests then, so that the disk has time for others.
_REST = 0.3
#: Bytes that stay free on the disk beside the copies: messages go on being accepted meanwhile.
KEPT_FREE = 64 << 20
#: Seconds for checking a copied account. One of a gigabyte takes ten.
_CHECK_WITHIN_S = 120.0
#: Bytes of one chunk.
CHUNK = 128 << 10


class SqliteBackups:
    """Makes backups of one daemon's databases.

    Args:
        database: the daemon's.
        directory: for copies under way; made if it is missing, and emptied.
        accounts: the companies' databases that there are, by company.
        version, mode: what the manifest says of the daemon.
    """

    def __init__(
        self,
        database: Path,
        directory: Path,
        accounts: Callable[[], Mapping[str, Path]],
        *,
        version: str,
        mode: str,
    ) -> None:
        self._database = database
        self._directory = directory
        self._accounts = accounts
        self._version = version
        self._mode = mode
        directory.mkdir(mode=0o700, exist_ok=True)
        for leftover in directory.iterdir():
            leftover.unlink()

    @asynccontextmanager
    async def taken(self, *, with_accounts: bool) -> AsyncIterator[SqliteBackup]:
        """A backup of this moment. Its copies are gone when the block ends, however it ends.

        Each account is copied as it is between two of its own transactions, as a crash would leave
        it; the daemon's database after them, so that it holds whatever they took in. An account
        that cannot be read, is damaged or has no room is left out: its worker may have seen to
        that, and the others' backup must not fail for it, nor be refused by `restore`.

        Raises:
            StoreFailed: there is no room for the copies, or a database cannot be read.
        """
        self._check_room()
        left_out: dict[str, str] = {}
        async with AsyncExitStack() as stack:
            files: dict[str, BinaryIO] = {}
            for company, path in _smallest_first(self._accounts() if with_accounts else {}):
                try:
                    self._check_room(path)
                    files[account_name(company)] = stack.enter_context(
                        await self._copied(path, _refuse_damaged, connect_account)
                    )
                except FileNotFoundError:
                    pass  # the company was removed meanwhile
                except (StoreFailed, sqlite3.Error) as error:
                    left_out[company] = reason = str(error)
                    log.error("account_not_in_backup", company=company, reason=reason)
            files = dict(sorted(files.items()))
            files[DATABASE] = stack.enter_context(
                await self._copied(self._database, doubt_open_rows)
            )
            schema = await trio.to_thread.run_sync(_schema_of, self._database)
            manifest = Manifest(self._version, now_ms(), self._mode, schema, {})
            yield SqliteBackup(files, manifest, with_accounts, left_out)

    def _check_room(self, *more: Path) -> None:
        """Raises StoreFailed: there is none for copies of the daemon's database and of `more`."""
        needed = KEPT_FREE + sum(map(_size, (self._database, *more)))
        free = shutil.disk_usage(self._directory).free
        if free < needed:
            raise StoreFailed(
                f"a backup needs {needed >> 20} MiB free on the disk of {self._directory}, for "
                f"copies, and there are {free >> 20}: make room"
            )

    async def _copied(
        self,
        source: Path,
        change: Callable[[sqlite3.Connection], None],
        connect: Callable[[Path], sqlite3.Connection] = connect_reader,
    ) -> BinaryIO:
        """A copy of `source`, open for reading, without a name."""
        target = self._directory / f"{os.urandom(8).hex()}.db"
        try:
            await trio.to_thread.run_sync(
                copy_database, source, target, trio.from_thread.check_cancelled, change, connect
            )
            return target.open("rb")
        finally:
            target.unlink(missing_ok=True)


class SqliteBackup:
    """A backup that was taken: `chunks` are its bytes."""

    def __init__(
        self,
        files: Mapping[str, BinaryIO],
        manifest: Manifest,
        is_archive: bool,
        left_out: Mapping[str, str],
    ) -> None:
        self._files = files
        self._manifest = manifest
        self._is_archive = is_archive
        self.left_out = left_out  # companies whose accounts are not in it, and why
        self.bytes = 0
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of what `chunks` has given so far; hex."""
        return self._digest.hexdigest()

    @property
    def companies(self) -> list[str]:
        """The companies whose accounts are in it."""
        return self._manifest.companies

    async def chunks(self) -> AsyncIterator[bytes]:
        """All of it, in order, in chunks of CHUNK bytes at the most; once."""
        async for chunk in self._archive() if self._is_archive else self._content(DATABASE):
            self._digest.update(chunk)
            self.bytes += len(chunk)
            yield chunk

    async def _archive(self) -> AsyncIterator[bytes]:
        for name, file in self._files.items():
            size = os.fstat(file.fileno()).st_size
            yield header(name, size, self._manifest.created_ms)
            digest = hashlib.sha256()
            async for chunk in self._content(name):
                digest.update(chunk)
                yield chunk
            yield padding(size)
            self._manifest.files[name] = FileEntry(size, digest.hexdigest())
        manifest = self._manifest.as_json()
        yield header(MANIFEST, len(manifest), self._manifest.created_ms)
        for start in range(0, len(manifest), CHUNK):
            yield manifest[start : start + CHUNK]
        yield padding(len(manifest)) + END

    async def _content(self, name: str) -> AsyncIterator[bytes]:
        while chunk := await trio.to_thread.run_sync(self._files[name].read, CHUNK):
            yield chunk


def copy_database(
    source: Path,
    target: Path,
    check_cancelled: Callable[[], object],
    change: Callable[[sqlite3.Connection], None] = doubt_open_rows,
    connect: Callable[[Path], sqlite3.Connection] = connect_reader,
) -> int:
    """Copies the database `source`, which others may write to meanwhile, to the new file `target`.

    The copy is one consistent moment, in a single file of mode 0600; returns its bytes. Whoever
    cancels or fails is left with nothing. Runs in a thread.

    Args:
        check_cancelled: raises to give up.
        change: what to change in the copy; may raise.
        connect: opens `source`.

    Raises:
        FileNotFoundError: there is no `source`.
        FileExistsError: there is a `target`.
        StoreFailed: the disk is full, or `source` cannot be read.
    """
    source.stat()
    made = connect_new(target)
    try:
        with closing(made) as copy, closing(connect(source)) as reader:
            # An open read transaction pins one moment: without it, SQLite would begin anew
            # whenever somebody commits, and under load never end.
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
            began = time.monotonic()

            def rest(*_pages: int) -> None:
                nonlocal began
                check_cancelled()
                time.sleep((time.monotonic() - began) * _REST)
                began = time.monotonic()

            reader.backup(copy, pages=_PAGES, progress=rest)
            # The copy took over the WAL mode. Without it, it is one file and nothing beside it. A
            # copy that fails is thrown away: it needs no journal, and no sync.
            copy.execute("PRAGMA journal_mode = DELETE")
            copy.execute("PRAGMA journal_mode = OFF")
            copy.execute("PRAGMA synchronous = OFF")
            copy.execute("BEGIN")
            change(copy)
            copy.execute("COMMIT")
    except BaseException as error:
        target.unlink(missing_ok=True)
        raise (as_store_failed(error) or error) from error
    return target.stat().st_size


def _refuse_damaged(copy: sqlite3.Connection) -> None:
    """`restore` refuses a backup with a damaged account, all of it."""
    until = time.monotonic() + _CHECK_WITHIN_S
    copy.set_progress_handler(lambda: time.monotonic() > until, 1000)
    copy.execute("PRAGMA trusted_schema = OFF")
    (found,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
    copy.set_progress_handler(None, 0)
    if found != "ok":
        raise StoreFailed(f"it is damaged ({found:.200})")


def _smallest_first(accounts: Mapping[str, Path]) -> list[tuple[str, Path]]:
    """So that one that takes all the room takes it from nobody."""
    return sorted(accounts.items(), key=lambda each: (_size(each[1]), each[0]))


def _size(database: Path) -> int:
    """In bytes, with its write-ahead log."""
    size = 0
    for suffix in ("", "-wal"):
        with suppress(FileNotFoundError):
            size += database.with_name(database.name + suffix).stat().st_size
    return size


def _schema_of(database: Path) -> int:
    with closing(connect_reader(database)) as conn:
        return schema_version(conn)
