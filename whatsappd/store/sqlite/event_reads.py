"""Reading the event log from the disk, with a cursor: how a batch is filled.

Statements only, for `store.sqlite.event_log`, which runs them on a reader.
"""

from __future__ import annotations

import heapq
import itertools
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Set

from whatsappd.model.stored_event import EventBatch, StoredEvent
from whatsappd.store.recent_events import MAX_READ_BYTES, MAX_SCAN
from whatsappd.store.sqlite.event_retention import forgotten_up_to
from whatsappd.store.sqlite.event_totals import CompanyAndType

#: Companies and types asked for beyond which MAX_SCAN events are tried first: each
#: costs some 20 microseconds to be looked for in the index, and with so many there are mostly some.
MANY_PAIRS = 200

_SELECT = "SELECT seq, company, type, position, packed FROM events"


def read_disk(
    conn: sqlite3.Connection,
    after: int,
    until: int,
    limit: int,
    companies: Collection[str] | None,
    pairs: Set[CompanyAndType] | None,
) -> EventBatch:
    """The batch of the events behind `after` up to `until`, from one snapshot of the disk.

    It is empty only if there is nothing to find; then `last` is `until`.

    Args:
        companies: those asked for, for the gap. None: all.
        pairs: the companies and types asked for, as far as they have events. None: all.
    """
    forgotten = forgotten_up_to(conn, companies)
    gap = forgotten + 1 if forgotten > after else None
    if pairs is None:
        return _filled(_all(conn, after, until, limit), until, limit, gap)
    if len(pairs) > MANY_PAIRS:
        looked = list(_all(conn, after, until, MAX_SCAN))
        found = [stored for stored in looked if (stored.company, stored.type) in pairs]
        reached = looked[-1].seq if len(looked) == MAX_SCAN else until
        if found or reached == until:
            return _filled(found, reached, limit, gap)
        after = reached
    return _filled(_merged(conn, after, until, limit, pairs), until, limit, gap)


def _filled(found: Iterable[StoredEvent], until: int, limit: int, gap: int | None) -> EventBatch:
    events: list[StoredEvent] = []
    size = 0
    for stored in found:
        size += len(stored.packed)
        if events and size > MAX_READ_BYTES:
            return EventBatch(events, events[-1].seq, gap)
        events.append(stored)
        if len(events) == limit:
            return EventBatch(events, stored.seq, gap)
    return EventBatch(events, until, gap)


def _all(conn: sqlite3.Connection, after: int, until: int, limit: int) -> Iterator[StoredEvent]:
    sql = f"{_SELECT} WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
    return map(StoredEvent._make, conn.execute(sql, (after, until, limit)))


def _merged(
    conn: sqlite3.Connection, after: int, until: int, limit: int, pairs: Set[CompanyAndType]
) -> Iterator[StoredEvent]:
    """The events of `pairs` in order. The index has each pair's in order: nothing else is read."""
    runs = [
        conn.execute(
            "SELECT seq FROM events WHERE company = ? AND type = ? AND seq > ? AND seq <= ?"
            " ORDER BY seq LIMIT ?",
            (*pair, after, until, limit),
        )
        for pair in pairs
    ]
    for seq in itertools.islice(heapq.merge(*runs), limit):
        yield StoredEvent._make(conn.execute(f"{_SELECT} WHERE seq = ?", seq).fetchone())
