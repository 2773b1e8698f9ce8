"""The event log: everything that happened, under one global sequence number without a hole.

Sessions, outbox and workers append; subscribers read with a cursor each, from the tail in memory
or from the disk, and are woken once per commit. An event is durable before anybody sees it.

Two threads meet here. What begins with `stage` and the participant's methods run in the writer
thread and own `_last_staged`, `_end` and `_pending`; all else belongs to trio.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection
from typing import NamedTuple

import trio

from whatsappd.clock import now_ms
from whatsappd.errors import InvalidParams, TooLarge
from whatsappd.model.event import Draft, Event
from whatsappd.store import consumers
from whatsappd.store.consumers import Consumer
from whatsappd.store.database import Database
from whatsappd.store.replay import MAX_READ_BYTES, MAX_SCAN, Batch, Filter, choose, read_disk
from whatsappd.store.retention import forget_step
from whatsappd.store.tail import StoredEvent, Tail
from whatsappd.wire.frames import pack

#: The largest event, packed. It must fit into an RPC message with room for what is around it.
MAX_EVENT_BYTES = 512 * 1024


class _State(NamedTuple):
    last_seq: int
    end: int
    forgotten_seq: int
    newest_ms: int


class EventLog:
    """Made by `open_event_log`, once per database."""

    def __init__(
        self, database: Database, state: _State, tail: Tail, clock: Callable[[], int]
    ) -> None:
        self._database = database
        self._clock = clock
        # the writer thread's
        self._last_staged = state.last_seq
        self._end = state.end
        self._pending: list[tuple[int, StoredEvent]] = []
        # trio's
        self._last_seq = state.last_seq
        self._forgotten_seq = state.forgotten_seq
        self._tail = tail
        #: When the newest event was logged, as of opening the log; epoch milliseconds, 0: none.
        self.newest_at_opening_ms = state.newest_ms
        self._grown = trio.Event()

    @property
    def last_seq(self) -> int:
        """The newest event's number; 0 if there never was one."""
        return self._last_seq

    @property
    def first_seq(self) -> int:
        """The oldest event that still exists; `last_seq + 1` if there is none."""
        return self._forgotten_seq + 1

    @property
    def tail_events(self) -> int:
        """Events held in memory."""
        return len(self._tail)

    @property
    def tail_bytes(self) -> int:
        return self._tail.bytes

    # --- writing ------------------------------------------------------------------------------

    async def append(self, *drafts: Draft) -> list[Event]:
        """Logs `drafts` in this order, with nothing between them; returns them when durable.

        Raises:
            TooLarge: one exceeds MAX_EVENT_BYTES.
            StoreFailed: the disk did not take them. None was logged.
        """
        return await self._database.write(lambda _conn: self.stage(drafts))

    def stage(self, drafts: Collection[Draft]) -> list[Event]:
        """In a function given to `Database.write`: logs `drafts` with what that function writes,
        all or nothing. Raises as `append` does."""
        time_ms = self._clock()
        events = []
        for draft in drafts:
            event = Event(self._last_staged + 1, time_ms, *draft)
            packed = pack(event.as_wire())
            if len(packed) > MAX_EVENT_BYTES:
                raise TooLarge(
                    f"an event of type {event.type} has {len(packed)} bytes; "
                    f"the limit is {MAX_EVENT_BYTES}",
                    limit=MAX_EVENT_BYTES,
                )
            stored = StoredEvent(event.seq, event.company, event.type, self._end, packed)
            self._pending.append((time_ms, stored))
            self._last_staged = stored.seq
            self._end = stored.end
            events.append(event)
        return events

    def mark(self) -> int:
        return len(self._pending)

    def rewind(self, mark: int) -> None:
        if len(self._pending) > mark:
            _, first = self._pending[mark]
            self._last_staged = first.seq - 1
            self._end = first.position
            del self._pending[mark:]

    def flush(self, conn: sqlite3.Connection) -> None:
        if self._pending:
            conn.executemany(
                "INSERT INTO events (seq, time_ms, company, type, position, packed)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                ((stored.seq, time_ms, *stored[1:]) for time_ms, stored in self._pending),
            )

    def committed(self) -> list[StoredEvent]:
        events = [stored for _, stored in self._pending]
        self._pending = []
        return events

    def publish(self, payload: list[StoredEvent]) -> None:
        if payload:
            self._tail.extend(payload)
            self._last_seq = payload[-1].seq
            self._grown.set()
            self._grown = trio.Event()

    # --- reading ------------------------------------------------------------------------------

    async def wait_beyond(self, seq: int) -> int:
        """Waits until the log has an event behind `seq`; returns `last_seq`.

        A checkpoint also when there is one already.
        """
        if self._last_seq > seq:
            await trio.lowlevel.checkpoint()
        while self._last_seq <= seq:
            await self._grown.wait()
        return self._last_seq

    async def read(
        self,
        after: int,
        limit: int,
        *,
        companies: Collection[str] | None = None,
        types: Collection[str] | None = None,
    ) -> Batch:
        """The events behind the cursor `after`, in order: at most `limit`, and MAX_READ_BYTES.

        Go on with `Batch.last`; it reaches `last_seq` when there is no more. From memory where
        the tail reaches back that far, without leaving trio; else from the disk. A filter may
        leave `events` empty although there is more: at most MAX_SCAN events are looked at.

        Args:
            after: 0 begins with the oldest that exists.
            companies: those companies' events only. None: all.
            types: those types' events only. None: all.

        Raises:
            InvalidParams: `after` lies beyond the newest event: the cursor is of another log (or
                the database was restored from a backup).
            StoreFailed: the disk cannot be read.
        """
        found = self.read_tail(after, limit, companies=companies, types=types)
        if found is not None:
            await trio.lowlevel.checkpoint()
            return found
        gap = None
        if after < self._forgotten_seq:
            after = self._forgotten_seq
            gap = after + 1
        chosen = None if companies is None and types is None else Filter(companies, types)
        until = min(after + (limit if chosen is None else MAX_SCAN), self._last_seq)
        return await self._database.read(
            lambda conn: read_disk(conn, after, until, limit, chosen, gap)
        )

    def read_tail(
        self,
        after: int,
        limit: int,
        *,
        companies: Collection[str] | None = None,
        types: Collection[str] | None = None,
    ) -> Batch | None:
        """What `read` returns, at once, if it is in memory; else None."""
        if not 0 <= after <= self._last_seq:
            raise InvalidParams(
                f"after: there is no event {after}: the log ends at {self._last_seq}. Was the "
                "database restored, or is the cursor another daemon's?",
                field="after",
                last=self._last_seq,
            )
        gap = None
        if after < self._forgotten_seq:
            after = self._forgotten_seq
            gap = after + 1
        if after == self._last_seq:
            return Batch([], after, gap)
        chosen = None if companies is None and types is None else Filter(companies, types)
        found = self._tail.after(after, limit if chosen is None else MAX_SCAN, MAX_READ_BYTES)
        return None if found is None else choose(found, limit, chosen, gap)

    # --- named consumers ----------------------------------------------------------------------

    async def consumer(self, name: str, after: int | None = None) -> int:
        """The cursor of the consumer `name`.

        A new one begins behind `after`, or at the present end; a known one keeps its cursor.

        Raises:
            InvalidParams: the name or `after` cannot be, or there are too many consumers.
        """
        consumers.validate_name(name)
        start = self._last_seq if after is None else self._existing(after, "after")
        found = await self._database.read(lambda conn: consumers.find(conn, name))
        if found is None:
            found = await self._database.write(
                lambda conn: consumers.find_or_create(conn, name, start, self._clock())
            )
        return found.cursor

    async def ack(self, name: str, seq: int) -> int:
        """Moves the cursor of `name` to `seq`, never back; returns where it is.

        Raises:
            UnknownConsumer: nobody made it.
            InvalidParams: `seq` lies beyond the newest event.
        """
        self._existing(seq, "seq")
        return await self._database.write(
            lambda conn: consumers.acknowledge(conn, name, seq, self._clock())
        )

    async def list_consumers(self) -> list[Consumer]:
        return await self._database.read(consumers.list_all)

    async def forget(self, name: str) -> None:
        """Removes the consumer. Raises UnknownConsumer if there is none."""
        await self._database.write(lambda conn: consumers.forget(conn, name))

    def _existing(self, seq: int, field: str) -> int:
        if 0 <= seq <= self._last_seq:
            return seq
        raise InvalidParams(
            f"{field}: there is no event {seq}: the log ends at {self._last_seq}",
            field=field,
            last=self._last_seq,
        )

    # --- retention ----------------------------------------------------------------------------

    async def retain(self, max_age_ms: int | None, max_bytes: int | None) -> int:
        """Deletes the oldest events beyond the bounds; returns how many.

        Deletes in small transactions, between which others write. Cancelled, it has deleted some.
        Consumers that have not read them are told by `Batch.gap`. The space is used again; the
        file does not shrink.

        Args:
            max_age_ms: events older than this go. None: age does not matter.
            max_bytes: the oldest go until the packed events fit. None: size does not matter.
        """
        before = self._forgotten_seq
        oldest_ms = None if max_age_ms is None else self._clock() - max_age_ms
        more = True
        while more:
            _, more = await self._database.write(
                lambda conn: forget_step(conn, self._end, oldest_ms, max_bytes), self._forgotten
            )
        return self._forgotten_seq - before

    def _forgotten(self, step: tuple[int, bool]) -> None:
        self._forgotten_seq, _more = step
        self._tail.forget(self._forgotten_seq)


async def open_event_log(
    database: Database, *, clock: Callable[[], int] = now_ms, tail: Tail | None = None
) -> EventLog:
    """The log of `database`. Call it once per database, before anybody writes events.

    Args:
        clock: epoch milliseconds.
        tail: for tests: one with other bounds.
    """
    log = EventLog(database, await database.read(_load), tail or Tail(), clock)
    database.attach(log)
    return log


def _load(conn: sqlite3.Connection) -> _State:
    forgotten, end = conn.execute("SELECT forgotten_seq, forgotten_end FROM event_log").fetchone()
    newest = conn.execute(
        "SELECT seq, position + length(packed), time_ms FROM events ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    last, end, newest_ms = newest or (forgotten, end, 0)
    return _State(last, end, forgotten, newest_ms)
