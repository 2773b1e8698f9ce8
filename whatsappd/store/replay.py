"""Reading the event log with a cursor: what a batch is, and how one is filled.

Called by `store.events`, with events from the tail in memory or from the disk.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import NamedTuple

from whatsappd.store.tail import StoredEvent

#: The most packed bytes in one batch (but always one event).
MAX_READ_BYTES = 1 << 20
#: The most events that one read looks at when a filter drops most of them: about 5 ms.
MAX_SCAN = 5000


class Batch(NamedTuple):
    """What one read brought.

    `last` is the next cursor: the seq of the last event looked at, which a filter may have left
    out of `events`. `gap` is the first seq that still exists when events between the cursor and
    it are gone, else None.
    """

    events: list[StoredEvent]
    last: int
    gap: int | None


class Filter(NamedTuple):
    """Which events are asked for. None: all companies, or all types."""

    companies: Collection[str] | None
    types: Collection[str] | None

    def accepts(self, stored: StoredEvent) -> bool:
        return (self.companies is None or stored.company in self.companies) and (
            self.types is None or stored.type in self.types
        )


def choose(
    candidates: list[StoredEvent], limit: int, chosen: Filter | None, gap: int | None
) -> Batch:
    """The batch that consecutive `candidates` (at least one, within MAX_READ_BYTES) make."""
    if chosen is None:
        events = candidates[:limit]
        return Batch(events, events[-1].seq, gap)
    events = []
    for stored in candidates:
        if chosen.accepts(stored):
            events.append(stored)
            if len(events) == limit:
                return Batch(events, stored.seq, gap)
    return Batch(events, candidates[-1].seq, gap)


def read_disk(
    conn: sqlite3.Connection,
    after: int,
    until: int,
    limit: int,
    chosen: Filter | None,
    gap: int | None,
) -> Batch:
    """The batch of the events behind `after` up to `until`, from one snapshot of the disk."""
    (forgotten,) = conn.execute("SELECT forgotten_seq FROM event_log").fetchone()
    if after < forgotten:  # retention went on since the caller looked
        after = forgotten
        gap = forgotten + 1
    events: list[StoredEvent] = []
    size = 0
    rows = conn.execute(
        "SELECT seq, company, type, position, packed FROM events"
        " WHERE seq > ? AND seq <= ? ORDER BY seq",
        (after, until),
    )
    for row in rows:
        stored = StoredEvent._make(row)
        if chosen is None or chosen.accepts(stored):
            size += len(stored.packed)
            if events and size > MAX_READ_BYTES:
                break
            events.append(stored)
        after = stored.seq
        if len(events) == limit:
            break
    return Batch(events, after, gap)
