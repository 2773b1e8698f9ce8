"""The database: a writer thread and a few readers.

Everything in `store` goes through it. WAL with `synchronous=FULL`: an answer means that the row
survives a power cut.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from time import monotonic
from typing import TypeVar

import trio

from whatsappd.errors import Stopping, TimedOut
from whatsappd.store.sqlite.connect import connect_folder, connect_reader, connect_writer
from whatsappd.store.sqlite.sqlite_errors import as_store_failed
from whatsappd.store.sqlite.writer import Participant, Writer

T = TypeVar("T")

#: Reads of the daemon's own at the same time. More would only queue at the disk, and each holds a
#: thread.
READERS = 2
#: Queries of callers at the same time, beside those.
QUERIES = 2
#: Seconds that a query may take. The longest that we know of takes tens of milliseconds.
QUERY_S = 5.0
#: Steps of SQLite's virtual machine between two looks at the time: well below a millisecond.
_STEPS = 10_000


@asynccontextmanager
async def open_database(path: Path) -> AsyncIterator[Database]:
    """The database at `path`, made if it is missing; closed in order at the end.

    Raises:
        BadStateDirectory: the file cannot be used, or a newer version wrote it.
        StoreFailed: the file is damaged, or its disk is full or read-only.
    """
    conn = await trio.to_thread.run_sync(connect_writer, path)
    database = Database(path, conn)
    try:
        yield database
    finally:
        await database.aclose()


class Database:
    """An open database. Made by `open_database`."""

    def __init__(self, path: Path, conn: sqlite3.Connection) -> None:
        self.path = path
        self._conn = conn
        self._writer = Writer(conn)
        self._limiter = trio.CapacityLimiter(READERS)
        self._querying = trio.CapacityLimiter(QUERIES)
        self._readers: list[sqlite3.Connection] = []  # those that nobody uses just now
        self._closed = False

    def attach(self, participant: Participant) -> None:
        """Lets `participant` follow the transactions from the next one on."""
        self._writer.attach(participant)

    @property
    def trouble(self) -> str | None:
        """What the disk refused last, in words; None once it takes writes again."""
        return self._writer.trouble

    @property
    def size(self) -> int:
        """Bytes on disk, the write-ahead log included."""
        total = 0
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                total += self.path.with_name(self.path.name + suffix).stat().st_size
        return total

    async def probe(self) -> None:
        """Write something that changes nothing, so that `trouble` tells how the disk is now.

        Raises:
            StoreFailed: it takes no writes.
        """

        def there_and_back(conn: sqlite3.Connection) -> None:
            # An UPDATE to the same value writes nothing.
            conn.execute("UPDATE event_log SET counted_seq = counted_seq + 1")
            conn.execute("UPDATE event_log SET counted_seq = counted_seq - 1")

        await self.write(there_and_back)

    async def answer(self) -> None:
        """See `store.port.StoreHealth`."""
        await self.write(lambda _conn: None)

    async def write(
        self,
        write: Callable[[sqlite3.Connection], T],
        then: Callable[[T], object] | None = None,
    ) -> T:
        """What `write(conn)` returns, once it is committed and synced.

        `write` runs in the writer thread, in a savepoint of its own. It must not commit, and must
        have no effect but through `conn` and the participants: when a transaction fails as a
        whole, its writes are run a second time, one by one. An error that it raises is raised
        here and undoes only its own statements.

        Cancellation before the call prevents the write. A waiter that is cancelled later does not
        undo it: it will be committed, as after an answer that got lost on the way. So whatever
        must follow a commit in memory does not belong behind the call, where it would be left out
        for a caller who hung up, but into `then`.

        Args:
            then: called in trio with what `write` returned, once that is committed and before
                anybody wakes, in the order of the commits; not if it failed. It must not raise.

        Raises:
            StoreFailed: the disk is full, read-only or damaged. Nothing of `write` was kept, all
                that was answered before is, and the next write that fits succeeds.
            Stopping: the database is closed.
        """
        return await self._writer.write(write, then)  # type: ignore[no-any-return]

    async def read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """What `read(conn)` returns, in a thread, on one read-only snapshot of what is committed.

        Cancellable while it waits for a thread, not while it runs: keep it short.

        Raises:
            StoreFailed: the disk cannot be read, or the database is damaged.
            Stopping: the database is closed.
        """
        if self._closed:
            raise Stopping("the database is closed: the daemon is stopping")
        return await trio.to_thread.run_sync(self._read, read, limiter=self._limiter)

    async def query(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """`read`, for what a caller asks for: it holds up nobody but other queries.

        The dispatchers and all else that the daemon does by itself `read`; callers who list, page
        and search wait for each other only.

        Raises:
            TimedOut: it took longer than QUERY_S seconds and was given up.
            StoreFailed, Stopping: as `read` does.
        """
        if self._closed:
            raise Stopping("the database is closed: the daemon is stopping")
        return await trio.to_thread.run_sync(self._query, read, limiter=self._querying)

    def _query(self, read: Callable[[sqlite3.Connection], T]) -> T:
        until = monotonic() + QUERY_S

        def bounded(conn: sqlite3.Connection) -> T:
            conn.set_progress_handler(lambda: monotonic() > until, _STEPS)
            try:
                return read(conn)
            finally:
                conn.set_progress_handler(None, 0)

        try:
            return self._read(bounded)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            raise TimedOut(
                f"this would take longer than {QUERY_S:g} s: ask for fewer companies, states or "
                "types at a time"
            ) from error

    def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        try:
            conn = self._reader()
            try:
                conn.execute("BEGIN")
                try:
                    return read(conn)
                finally:
                    conn.execute("ROLLBACK")
            finally:
                self._readers.append(conn)
        except sqlite3.Error as error:
            raise (as_store_failed(error) or error) from error

    def _reader(self) -> sqlite3.Connection:
        try:
            return self._readers.pop()  # atomic; the limiters bound how many there can be
        except IndexError:
            return connect_reader(self.path)

    async def fold(self) -> None:
        """Put the write-ahead log into the file and cut it to nothing, so that what was deleted is
        not left in it. If somebody reads meanwhile, some of it stays until it is written over."""

        def cut() -> None:
            with closing(connect_folder(self.path)) as conn:
                conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

        await trio.to_thread.run_sync(cut)

    async def aclose(self) -> None:
        """Commits what was submitted, then closes. Not cancellable; bounded by the disk."""
        if self._closed:
            return
        self._closed = True
        with trio.CancelScope(shield=True):
            await self._writer.close()
            for limiter in (self._limiter, self._querying):  # wait for the reads that still run
                for _ in range(int(limiter.total_tokens)):
                    await limiter.acquire_on_behalf_of(object())
            for conn in self._readers:
                conn.close()
            # Last, because the last one to close folds the write-ahead log into the file.
            await trio.to_thread.run_sync(self._conn.close)
