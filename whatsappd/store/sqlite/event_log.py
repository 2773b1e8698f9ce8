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

from whatsappd.clock import now_ms, settled_ms
from whatsappd.errors import InvalidParams
from whatsappd.model.event import Draft, Event
from whatsappd.model.stored_event import (
    EventBatch,
    EventBounds,
    LogFilter,
    StoredEvent,
)
from whatsappd.store.packed_event import packed_event
from whatsappd.store.recent_events import RecentEvents
from whatsappd.store.sqlite.database import Database
from whatsappd.store.sqlite.event_reads import read_disk
from whatsappd.store.sqlite.event_retention import (
    REMOVED,
    delete,
    forget_company,
    forgotten_up_to,
    older_than,
    oldest_of,
    that_make,
)
from whatsappd.store.sqlite.event_totals import (
    CompanyAndType,
    DeletedEvent,
    EventTotals,
    load_totals,
)
from whatsappd.store.sqlite.slices import Slice, in_slices, overwrite_deleted

#: Events that a transaction which logs some may delete beside twice as many as it logs.
TRIM_FEWEST = 20


class _State(NamedTuple):
    last_seq: int
    first_seq: int
    end: int
    newest_ms: int
    totals: EventTotals


class _Committed(NamedTuple):
    """What one transaction did to the log."""

    events: list[StoredEvent]
    deleted_up_to: int  # 0: nothing was deleted
    first_seq: int


class SqliteEventLog:
    """Made by `open_event_log`, once per database."""

    def __init__(
        self, database: Database, state: _State, tail: RecentEvents, clock: Callable[[], int] | None
    ) -> None:
        self._database = database
        self._clock = clock or now_ms
        self._deciding_clock = clock or settled_ms
        # the writer thread's
        self._last_staged = state.last_seq
        self._end = state.end
        self._pending: list[tuple[int, StoredEvent]] = []
        self._deleted: list[DeletedEvent] = []
        self._totals = state.totals
        self._oldest = state.first_seq
        # trio's, which the writer thread reads
        self._bounds = EventBounds()
        # trio's
        self._last_seq = state.last_seq
        self._first_seq = state.first_seq
        self._pairs = set(state.totals.pairs())
        self._tail = tail
        #: When the newest event was logged, as of opening the log; epoch milliseconds, 0: none.
        self.newest_at_opening_ms = state.newest_ms
        #: Grows whenever events are deleted: what was read before may hold some that are gone.
        self.deletions = 0
        self._grown = trio.Event()

    @property
    def last_seq(self) -> int:
        return self._last_seq

    @property
    def first_seq(self) -> int:
        return self._first_seq

    @property
    def tail_events(self) -> int:
        return len(self._tail)

    @property
    def tail_bytes(self) -> int:
        return self._tail.bytes

    # --- writing ------------------------------------------------------------------------------

    async def append(self, *drafts: Draft) -> list[Event]:
        return await self._database.write(lambda _conn: self.stage(drafts))

    def stage(self, drafts: Collection[Draft]) -> list[Event]:
        """In a function given to `Database.write`: logs `drafts` with what that function writes,
        all or nothing. Raises TooLarge."""
        time_ms = self._clock()
        events = []
        for draft in drafts:
            event = Event(self._last_staged + 1, time_ms, *draft)
            stored = packed_event(event, self._end)
            self._pending.append((time_ms, stored))
            self._totals.add(CompanyAndType(stored.company, stored.type), len(stored.packed))
            self._last_staged = stored.seq
            self._end = stored.end
            events.append(event)
        return events

    def mark(self) -> tuple[int, int]:
        return len(self._pending), len(self._deleted)

    def rewind(self, mark: tuple[int, int]) -> None:
        staged, deleted = mark
        if len(self._pending) > staged:
            _, first = self._pending[staged]
            self._last_staged = first.seq - 1
            self._end = first.position
            for _, stored in self._pending[staged:]:
                self._totals.add(
                    CompanyAndType(stored.company, stored.type), -len(stored.packed), -1
                )
            del self._pending[staged:]
        for each in self._deleted[deleted:]:
            self._totals.add(each.pair, each.bytes)
        del self._deleted[deleted:]
        self._totals.settle(is_committed=False)

    def flush(self, conn: sqlite3.Connection) -> None:
        if self._pending:
            conn.executemany(
                "INSERT INTO events (seq, time_ms, company, type, position, packed)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                ((stored.seq, time_ms, *stored[1:]) for time_ms, stored in self._pending),
            )
            # What is too much goes with what made it too much: the bounds hold at all times, and
            # whoever logs pays for it.
            self._trim(
                conn,
                {stored.company for _, stored in self._pending},
                TRIM_FEWEST + 2 * len(self._pending),
            )
            self._totals.count(conn, self._last_staged)
        if self._deleted:
            self._oldest = _first_seq(conn, self._last_staged)

    def committed(self) -> _Committed:
        events = [stored for _, stored in self._pending]
        deleted_up_to = max((each.seq for each in self._deleted), default=0)
        self._pending, self._deleted = [], []
        self._totals.settle(is_committed=True)
        return _Committed(events, deleted_up_to, self._oldest)

    def publish(self, payload: _Committed) -> None:
        if payload.events:
            self._tail.extend(payload.events)
            self._pairs.update(
                CompanyAndType(stored.company, stored.type) for stored in payload.events
            )
            self._last_seq = payload.events[-1].seq
            self._grown.set()
            self._grown = trio.Event()
        if payload.deleted_up_to:
            self._first_seq = payload.first_seq
            self._tail.forget(payload.deleted_up_to)
            self.deletions += 1

    def existing(self, seq: int, field: str) -> int:
        """`seq`, if that event was logged, or is 0. Raises InvalidParams, which names `field`."""
        if 0 <= seq <= self._last_seq:
            return seq
        raise InvalidParams(
            f"{field}: there is no event {seq}: the log ends at {self._last_seq}",
            field=field,
            last=self._last_seq,
        )

    # --- reading ------------------------------------------------------------------------------

    async def wait_beyond(self, seq: int) -> int:
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
        codes: Collection[str] | None = None,
    ) -> EventBatch:
        cursor = after
        while True:
            found = self.read_tail(cursor, limit, companies=companies, types=types, codes=codes)
            if found is None:
                break
            await trio.lowlevel.checkpoint()
            if found.events or found.last == self._last_seq:
                return found
            cursor = found.last
        chosen = LogFilter(companies, types, codes)
        pairs = None
        if not chosen.is_all:
            pairs = {pair for pair in self._pairs if chosen.accepts(*pair)}
        until = self._last_seq
        return await self._database.query(
            lambda conn: read_disk(conn, cursor, until, limit, companies, pairs)
        )

    def read_tail(
        self,
        after: int,
        limit: int,
        *,
        companies: Collection[str] | None = None,
        types: Collection[str] | None = None,
        codes: Collection[str] | None = None,
    ) -> EventBatch | None:
        if not 0 <= after <= self._last_seq:
            raise InvalidParams(
                f"after: there is no event {after}: the log ends at {self._last_seq}. Was the "
                "database restored, or is the cursor another daemon's?",
                field="after",
                last=self._last_seq,
            )
        if after == self._last_seq:
            return EventBatch([], after, None)
        # What was deleted lies before the tail: whoever is in it has no gap.
        return self._tail.read(after, limit, LogFilter(companies, types, codes))

    # --- retention ----------------------------------------------------------------------------

    def keep(self, bounds: EventBounds) -> None:
        self._bounds = bounds

    async def retain(self) -> int:
        bounds, now = self._bounds, self._deciding_clock()

        def old(conn: sqlite3.Connection, most: int, _after: object) -> Slice:
            assert bounds.max_age_ms is not None
            found = older_than(conn, now - bounds.max_age_ms, most)
            self._delete(conn, found)
            return Slice(len(found), len(found))

        def too_much(conn: sqlite3.Connection, most: int, _after: object) -> Slice:
            gone = self._trim(conn, self._totals.companies(), most)
            return Slice(most if gone else 0, gone)

        deleted = 0
        if bounds.max_age_ms is not None:
            deleted += await in_slices(self._database, old)
        return deleted + await in_slices(self._database, too_much)

    async def erase(self, company: str) -> int:
        """Deletes all events of a company that is being removed; returns how many.

        For those who read all companies it is a gap; a new company of that name begins with none.
        """

        def work(conn: sqlite3.Connection, most: int, _after: object) -> Slice:
            overwrite_deleted(conn)
            found = oldest_of(conn, self._totals.pairs(company), most)
            self._delete(conn, found, whose=REMOVED)
            return Slice(len(found), len(found))

        def forget(_done: None) -> None:
            self._pairs = {pair for pair in self._pairs if pair.company != company}

        deleted = await in_slices(self._database, work)
        await self._database.write(lambda conn: forget_company(conn, company), forget)
        return deleted

    def _trim(self, conn: sqlite3.Connection, companies: Collection[str], most: int) -> int:
        """Deletes what is beyond the bounds of `companies`, and of all; about `most` events at the
        most. Returns how many. Runs in the writer thread."""
        totals, bounds, gone = self._totals, self._bounds, 0
        if bounds.max_company_bytes is not None:
            for company in companies:
                over = totals.of(company) - bounds.max_company_bytes
                if over > 0 and gone < most:
                    gone += self._delete_oldest(conn, company, over, most - gone)
        while bounds.max_bytes is not None and gone < most:
            over = totals.total - bounds.max_bytes
            if over <= 0:
                break
            # Whoever has most comes down to the next one, and no further.
            company, lead = totals.largest()
            gone += self._delete_oldest(conn, company, min(over, max(lead, 1)), most - gone)
        return gone

    def _delete_oldest(self, conn: sqlite3.Connection, company: str, size: int, most: int) -> int:
        """Deletes the company's oldest events, `size` bytes or `most` of them; how many."""
        found = that_make(oldest_of(conn, self._totals.pairs(company), most), size)
        self._delete(conn, found)
        return len(found)

    def _delete(
        self, conn: sqlite3.Connection, found: list[DeletedEvent], *, whose: str | None = None
    ) -> None:
        delete(conn, found, whose=whose)
        self._totals.uncount(conn, found)
        for each in found:
            self._totals.add(each.pair, -each.bytes, -1)
        self._deleted += found


async def open_event_log(
    database: Database, *, clock: Callable[[], int] | None = None, tail: RecentEvents | None = None
) -> SqliteEventLog:
    """The log of `database`. Call it once per database, before anybody writes events.

    Args:
        clock: epoch milliseconds. Without one, events tell people the wall clock's time, and what
            is old goes by `settled_ms`.
        tail: for tests: one with other bounds.
    """
    log = SqliteEventLog(database, await database.read(_load), tail or RecentEvents(), clock)
    database.attach(log)
    return log


def _load(conn: sqlite3.Connection) -> _State:
    newest = conn.execute(
        "SELECT seq, position + length(packed), time_ms FROM events ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    last, end, newest_ms = newest or (0, 0, 0)
    # Numbers go on behind those that were deleted, too.
    last = max(last, forgotten_up_to(conn, None))
    return _State(last, _first_seq(conn, last), end, newest_ms, load_totals(conn))


def _first_seq(conn: sqlite3.Connection, last_seq: int) -> int:
    (first,) = conn.execute("SELECT min(seq) FROM events").fetchone()
    return last_seq + 1 if first is None else int(first)
