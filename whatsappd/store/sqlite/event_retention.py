"""How much of the event log is kept, and deleting the oldest events.

Each company has its own history: what one of them logs never deletes an event of another that has
less than its share. A company's events are deleted from its oldest on, so that one number says how
far they are gone.
"""

from __future__ import annotations

import heapq
import itertools
import sqlite3
from collections.abc import Collection, Iterable

from whatsappd.store.sqlite.event_totals import CompanyAndType, DeletedEvent

#: Stands for all companies that were removed, in the table of what is gone. No company's name.
REMOVED = "*"


def oldest_of(
    conn: sqlite3.Connection, pairs: Collection[CompanyAndType], most: int
) -> list[DeletedEvent]:
    """The oldest `most` events of `pairs`, as what they will be when they are deleted."""
    runs = [
        conn.execute(
            "SELECT seq, company, type, length(packed) FROM events"
            " WHERE company = ? AND type = ? ORDER BY seq LIMIT ?",
            (*pair, most),
        )
        for pair in pairs
    ]
    return [_deleted(row) for row in itertools.islice(heapq.merge(*runs), most)]


def older_than(conn: sqlite3.Connection, time_ms: int, most: int) -> list[DeletedEvent]:
    """The oldest `most` events up to the first that is not older than `time_ms`."""
    found = conn.execute(
        "SELECT seq, company, type, length(packed), time_ms FROM events ORDER BY seq LIMIT ?",
        (most,),
    )
    return [_deleted(row[:4]) for row in itertools.takewhile(lambda row: row[4] < time_ms, found)]


def that_make(found: Iterable[DeletedEvent], size: int) -> list[DeletedEvent]:
    """As many of `found`, from the first on, as make `size` bytes."""
    chosen: list[DeletedEvent] = []
    for each in found:
        if size <= 0:
            break
        chosen.append(each)
        size -= each.bytes
    return chosen


def delete(
    conn: sqlite3.Connection, deleted: Collection[DeletedEvent], *, whose: str | None = None
) -> None:
    """Deletes those events, and keeps how far their companies' (or those of `whose`) are gone."""
    conn.executemany("DELETE FROM events WHERE seq = ?", [(each.seq,) for each in deleted])
    conn.executemany(
        "INSERT INTO forgotten_events VALUES (?, ?, 1) ON CONFLICT DO UPDATE"
        " SET seq = max(seq, excluded.seq), events = events + 1",
        [(whose or each.pair.company, each.seq) for each in deleted],
    )


def forget_company(conn: sqlite3.Connection, company: str) -> None:
    """What was deleted of a company that is removed counts as that of all such companies."""
    conn.execute(
        "INSERT INTO forgotten_events SELECT ?, seq, events FROM forgotten_events WHERE company = ?"
        " ON CONFLICT DO UPDATE"
        " SET seq = max(seq, excluded.seq), events = events + excluded.events",
        (REMOVED, company),
    )
    conn.execute("DELETE FROM forgotten_events WHERE company = ?", (company,))
    conn.execute("DELETE FROM event_totals WHERE company = ?", (company,))


def forgotten_up_to(conn: sqlite3.Connection, companies: Collection[str] | None) -> int:
    """The newest event of `companies` (None: of anybody) that was deleted; 0: none was."""
    found = conn.execute("SELECT company, seq FROM forgotten_events")
    return max((seq for name, seq in found if companies is None or name in companies), default=0)


def _deleted(row: tuple[int, str, str, int]) -> DeletedEvent:
    seq, company, type_, size = row
    return DeletedEvent(seq, CompanyAndType(company, type_), size)
