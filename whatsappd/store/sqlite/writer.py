"""The one thread that writes: it commits whatever has gathered while the last commit ran.

`store.sqlite.database` owns it. An fsync costs about as much as a hundred inserts, so writers that
come at the same time share one transaction ("natural" group commit: nobody ever waits for company).
Should one of them raise, all are run again with a savepoint each, so that it takes nothing along.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import outcome
import structlog
import trio

from whatsappd.errors import Stopping, StoreFailed
from whatsappd.store.sqlite.sqlite_errors import as_store_failed

log = structlog.get_logger()

#: The most writes in one transaction. Bounds how long the first of them waits for the last.
MAX_BATCH = 1000

Write = Callable[[sqlite3.Connection], Any]
#: What follows a write in memory: called with what the write returned.
Then = Callable[[Any], object]
#: A participant's `publish`, and what to call it with.
Publication = tuple[Callable[[Any], None], Any]


class Participant(Protocol):
    """State beside the tables that must follow what the transaction does (the event log's tail,
    the outbox's counts). All but `publish` run in the writer thread."""

    def mark(self) -> Any:
        """Where the state is now: called before each write."""
        ...

    def rewind(self, mark: Any) -> None:
        """Back to `mark`: the write failed and its savepoint was rolled back."""
        ...

    def flush(self, conn: sqlite3.Connection) -> None:
        """Last statements before COMMIT."""
        ...

    def committed(self) -> Any:
        """The transaction is on disk. What this returns goes to `publish`."""
        ...

    def publish(self, payload: Any) -> None:
        """Called in trio, in the order of the commits, before any writer of the batch wakes."""
        ...


class Job:
    """One write under way. `result` stays None until it was committed or has failed."""

    __slots__ = ("is_answered", "result", "task", "then", "write")

    def __init__(self, write: Write, then: Then | None, task: trio.lowlevel.Task) -> None:
        self.write = write
        self.then = then
        self.task: trio.lowlevel.Task | None = task  # None: the waiter was cancelled
        self.result: outcome.Outcome[Any] | None = None
        self.is_answered = False  # handed to trio, by the writer's thread


class Writer:
    """Runs writes on `conn` in a thread of its own. Made in trio, where the results come back."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()
        self._participants: tuple[Participant, ...] = ()
        self._closed = False
        self._refused: str | None = None  # what one write of this transaction was refused
        #: What the disk refused last, in words; None once it takes writes again.
        self.trouble: str | None = None
        # A daemon thread: should trio die without closing the database, the process still ends.
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def attach(self, participant: Participant) -> None:
        """Adds a participant, from the next transaction on."""
        self._participants = (*self._participants, participant)

    async def write(self, write: Write, then: Then | None) -> Any:
        """What `write(conn)` returns, after COMMIT and `then`. See `Database.write`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise Stopping("the database is closed: the daemon is stopping")
        job = Job(write, then, trio.lowlevel.current_task())

        def abort(_raise_cancel: Any) -> trio.lowlevel.Abort:
            job.task = None  # the write goes on; nobody waits for it any more
            return trio.lowlevel.Abort.SUCCEEDED

        self._queue.put(job)
        return await trio.lowlevel.wait_task_rescheduled(abort)

    async def close(self) -> None:
        """Commits what was submitted, answers it, and ends the thread. Call it shielded."""
        self._closed = True
        self._queue.put(None)
        await trio.to_thread.run_sync(self._thread.join)
        # What the thread sent last may still wait for trio's next turn, and goes before this.
        delivered = trio.Event()
        self._token.run_sync_soon(delivered.set)
        await delivered.wait()

    # --- in the writer thread -----------------------------------------------------------------

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            jobs: list[Job] = [first]
            last: Job | None = first
            while last is not None and len(jobs) < MAX_BATCH:
                try:
                    last = self._queue.get_nowait()
                except Empty:
                    break
                if last is not None:
                    jobs.append(last)
            try:
                self._serve(jobs)
            except Exception as error:
                # A defect of ours. This thread is the only one that writes: it goes on, and
                # nobody waits for ever.
                log.error("writer_failed", jobs=len(jobs), exc_info=error)
                self._give_up(jobs, error)
            if last is None:
                break

    def _serve(self, jobs: list[Job]) -> None:
        participants = self._participants
        try:
            failure = self._transaction(jobs, participants, _bare)
        except _Raised:
            failure = self._transaction(jobs, participants, self._in_savepoint)
        if failure is None or len(jobs) == 1:
            self._answer(jobs, participants, failure)
            return
        # The transaction failed as a whole (a full disk, mostly). One large write must not take
        # the small ones along that would still fit: give each a transaction of its own.
        for job in jobs:
            job.result = None
            failure = self._transaction([job], participants, self._in_savepoint)
            self._answer([job], participants, failure)

    def _give_up(self, jobs: list[Job], error: Exception) -> None:
        """Answer those of `jobs` that have no answer yet with an error."""
        if self._conn.in_transaction:
            with suppress(sqlite3.Error):
                self._conn.execute("ROLLBACK")
        self.trouble = f"an error in whatsappd: {type(error).__name__}; its log has the traceback"
        left = [job for job in jobs if not job.is_answered]
        for job in left:
            job.is_answered = True
            job.result = outcome.Error(StoreFailed(self.trouble))
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(_deliver, left, [])

    def _transaction(
        self,
        jobs: list[Job],
        participants: tuple[Participant, ...],
        run: Callable[[sqlite3.Connection, Job, tuple[Participant, ...]], None],
    ) -> BaseException | None:
        """Runs `jobs` and commits. An error means that nothing of them is on disk.

        Raises:
            _Raised: `run` did; nothing of them is on disk either.
        """
        conn = self._conn
        marks = [participant.mark() for participant in participants]
        self._refused = None
        changes = conn.total_changes
        try:
            conn.execute("BEGIN IMMEDIATE")
            for job in jobs:
                run(conn, job, participants)
            for participant in participants:
                participant.flush(conn)
            conn.execute("COMMIT")
        except BaseException as error:
            _rewind(participants, marks)
            try:
                if conn.in_transaction:
                    conn.execute("ROLLBACK")
            except sqlite3.Error as second:
                error.add_note(f"and ROLLBACK failed: {second}")
            if isinstance(error, _Raised):
                raise
            failure = as_store_failed(error) or error
            self.trouble = str(failure)
            return failure
        if self._refused is not None or conn.total_changes != changes:  # else it proves nothing
            self.trouble = self._refused
        return None

    def _in_savepoint(
        self, conn: sqlite3.Connection, job: Job, participants: tuple[Participant, ...]
    ) -> None:
        """Sets `job.result`. Raises only if the whole transaction is gone."""
        marks = [participant.mark() for participant in participants]
        conn.execute("SAVEPOINT job")
        try:
            job.result = outcome.Value(job.write(conn))
        except BaseException as error:
            if not conn.in_transaction:
                raise  # SQLite rolled everything back by itself, as it may on a full disk
            conn.execute("ROLLBACK TO job")
            _rewind(participants, marks)
            refused = as_store_failed(error)
            if refused is not None:
                self._refused = refused.message
            job.result = outcome.Error(refused or error)
        conn.execute("RELEASE job")

    def _answer(
        self,
        jobs: list[Job],
        participants: tuple[Participant, ...],
        failure: BaseException | None,
    ) -> None:
        publications: list[Publication] = []
        if failure is None:
            publications = [(each.publish, each.committed()) for each in participants]
        else:
            assert len(jobs) == 1  # so that no two tasks raise the same exception object
            jobs[0].result = outcome.Error(failure)
        for job in jobs:
            job.is_answered = True
        # Once trio is gone, so is everybody who waited; what is committed stays committed.
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(_deliver, jobs, publications)


class _Raised(Exception):
    """A write raised, which may be its way to say no, or a full disk."""


def _bare(conn: sqlite3.Connection, job: Job, _participants: tuple[Participant, ...]) -> None:
    """Sets `job.result`, without the savepoint that almost no write needs."""
    try:
        job.result = outcome.Value(job.write(conn))
    except BaseException as error:
        raise _Raised from error


def _rewind(participants: tuple[Participant, ...], marks: list[Any]) -> None:
    for participant, mark in zip(participants, marks, strict=True):
        participant.rewind(mark)


def _deliver(jobs: list[Job], publications: list[Publication]) -> None:
    """In trio: publishes what was committed, does what follows from it, then wakes who waits."""
    for publish, payload in publications:
        try:
            publish(payload)
        except Exception as error:  # raised here, it would end the event loop
            log.error("not_published", exc_info=error)
    for job in jobs:
        # Also where nobody waits any more: what is on disk must be in force.
        if job.then is not None and isinstance(job.result, outcome.Value):
            try:
                job.then(job.result.value)
            except Exception as error:
                log.error("not_put_in_force", exc_info=error)
                job.result = outcome.Error(error)
    for job in jobs:
        if job.task is not None:
            assert job.result is not None
            trio.lowlevel.reschedule(job.task, job.result)
