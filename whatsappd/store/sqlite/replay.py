"""Reading the event log with a cursor: what a batch is, and how one is filled.

Called by `store.sqlite.events`, with events from the tail in memory or from the disk.
"""

from __future__ import annotations

import heapq
import itertools
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Set
from typing import NamedTuple

from whatsappd.model.event import SESSION_QR
from whatsappd.store.recent_events import StoredEvent
from whatsappd.store.sqlite.holdings import Pair
from whatsappd.store.sqlite.retention import forgotten_up_to

#: The most packed bytes in one batch (but always one event).
MAX_READ_BYTES = 1 << 20
#: The most events that one read of the tail looks at when a filter drops most of them: a
#: millisecond or two. From the disk, it looks at the events that it returns only.
MAX_SCAN = 5000
#: Companies and types asked for beyond which a read from the disk tries MAX_SCAN events first: each
#: costs some 20 microseconds to be looked for in the index, and with so many there are mostly some.
MANY_PAIRS = 200

_SELECT = "SELECT seq, company, type, position, packed FROM events"


class Batch(NamedTuple):
    """What one read brought.

    `last` is the next cursor: every event up to it that was asked for is in `events`, or was
    handed out before. `gap` is a number above the cursor when events that were asked for are gone
    that lay between the two, else None; those in between that still exist do come.
    """

    events: list[StoredEvent]
    last: int
    gap: int | None


class Filter(NamedTuple):
    """Which events are asked for. None: all companies, all types, or all companies' QR codes."""

    companies: Collection[str] | None
    types: Collection[str] | None
    codes: Collection[str] | None = None

    @property
    def is_all(self) -> bool:
        return self.companies is None and self.types is None and self.codes is None

    def accepts(self, stored: StoredEvent) -> bool:
        return self.has(stored.company, stored.type)

    def has(self, company: str, type_: str) -> bool:
        return (
            (self.companies is None or company in self.companies)
            and (self.types is None or type_ in self.types)
            and (self.codes is None or type_ != SESSION_QR or company in self.codes)
        )


def choose(candidates: list[StoredEvent], limit: int, chosen: Filter | None) -> Batch:
    """The batch that consecutive `candidates` (at least one, within MAX_READ_BYTES) make."""
    if chosen is None:
        events = candidates[:limit]
        return Batch(events, events[-1].seq, None)
    events = []
    for stored in candidates:
        if chosen.accepts(stored):
            events.append(stored)
            if len(events) == limit:
                return Batch(events, stored.seq, None)
    return Batch(events, candidates[-1].seq, None)


def read_disk(
    conn: sqlite3.Connection,
    after: int,
    until: int,
    limit: int,
    companies: Collection[str] | None,
    pairs: Set[Pair] | None,
) -> Batch:
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


def _filled(found: Iterable[StoredEvent], until: int, limit: int, gap: int | None) -> Batch:
    events: list[StoredEvent] = []
    size = 0
    for stored in found:
        size += len(stored.packed)
        if events and size > MAX_READ_BYTES:
            return Batch(events, events[-1].seq, gap)
        events.append(stored)
        if len(events) == limit:
            return Batch(events, stored.seq, gap)
    return Batch(events, until, gap)


def _all(conn: sqlite3.Connection, after: int, until: int, limit: int) -> Iterator[StoredEvent]:
    sql = f"{_SELECT} WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
    return map(StoredEvent._make, conn.execute(sql, (after, until, limit)))


def _merged(
    conn: sqlite3.Connection, after: int, until: int, limit: int, pairs: Set[Pair]
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
