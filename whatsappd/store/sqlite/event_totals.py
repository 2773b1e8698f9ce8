"""How much of the event log is whose: events and bytes by company and type, kept as it grows.

`store.sqlite.event_log` owns it, in the writer thread. On disk it is counted anew every COUNT_EVERY
events only; opening the log adds what came since.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections import Counter
from collections.abc import Iterable
from operator import itemgetter
from typing import NamedTuple

#: Events between two moments when the totals are written. Opening the log reads so many.
COUNT_EVERY = 2000

_SIZE = itemgetter(1)


class CompanyAndType(NamedTuple):
    """What an event is filtered by."""

    company: str
    type: str


class DeletedEvent(NamedTuple):
    """An event that was deleted."""

    seq: int
    pair: CompanyAndType
    bytes: int


class EventTotals:
    """What the log holds just now, with what the running transaction adds and deletes."""

    def __init__(
        self, counted_seq: int, events: Counter[CompanyAndType], bytes_by_company: Counter[str]
    ) -> None:
        self._counted_seq = counted_seq
        self._counting: int | None = None
        self._events = events
        self._bytes = bytes_by_company
        self.total = sum(bytes_by_company.values())

    def of(self, company: str) -> int:
        """Packed bytes of the company's events."""
        return self._bytes[company]

    def largest(self) -> tuple[str, int]:
        """The company that holds most, and how much more it holds than the next one."""
        first, second = (*heapq.nlargest(2, self._bytes.items(), _SIZE), ("", 0), ("", 0))[:2]
        return first[0], first[1] - second[1]

    def companies(self) -> list[str]:
        return list(self._bytes)

    def pairs(self, company: str | None = None) -> list[CompanyAndType]:
        """All pairs that have events, or those of one company."""
        return [pair for pair in self._events if company is None or pair.company == company]

    def add(self, pair: CompanyAndType, size: int, count: int = 1) -> None:
        """Counts events that were staged; negative: that were taken back, or deleted."""
        self._events[pair] += count
        if not self._events[pair]:
            del self._events[pair]
        self._bytes[pair.company] += size
        if not self._bytes[pair.company]:
            del self._bytes[pair.company]
        self.total += size

    def uncount(self, conn: sqlite3.Connection, deleted: Iterable[DeletedEvent]) -> None:
        """Takes what was deleted from the totals on disk, as far as it is in them."""
        conn.executemany(
            "UPDATE event_totals SET events = events - 1, bytes = bytes - ?"
            " WHERE company = ? AND type = ?",
            [(each.bytes, *each.pair) for each in deleted if each.seq <= self._counted_seq],
        )

    def count(self, conn: sqlite3.Connection, last_seq: int) -> None:
        """Writes the totals if many events came since, after the events of the transaction."""
        if last_seq - self._counted_seq >= COUNT_EVERY:
            conn.execute(
                f"INSERT INTO event_totals {_NEWER} WHERE true"
                " ON CONFLICT DO UPDATE SET events = events + excluded.events,"
                " bytes = bytes + excluded.bytes",
                (self._counted_seq,),
            )
            conn.execute("UPDATE event_log SET counted_seq = ?", (last_seq,))
            self._counting = last_seq

    def settle(self, *, is_committed: bool) -> None:
        """The transaction of the last `count` is on disk, or was rolled back."""
        if is_committed and self._counting is not None:
            self._counted_seq = self._counting
        self._counting = None


#: company, type, events and bytes of the events behind a seq.
_NEWER = (
    "SELECT * FROM (SELECT company, type, count(*) AS events, sum(length(packed)) AS bytes"
    " FROM events WHERE seq > ? GROUP BY company, type)"
)


def load_totals(conn: sqlite3.Connection) -> EventTotals:
    (counted_seq,) = conn.execute("SELECT counted_seq FROM event_log").fetchone()
    events: Counter[CompanyAndType] = Counter()
    sizes: Counter[str] = Counter()
    found = conn.execute(f"SELECT * FROM event_totals UNION ALL {_NEWER}", (counted_seq,))  # noqa: S608
    for company, type_, count, size in found:
        if count:
            events[CompanyAndType(company, type_)] += count
            sizes[company] += size
    return EventTotals(counted_seq, events, sizes)
