"""The memory twin's event log and consumers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

import trio

from whatsappd.errors import InvalidParams, UnknownConsumer
from whatsappd.model.consumer import Consumer, is_webhook, owner_of, validate_consumer
from whatsappd.model.event import Draft, Event
from whatsappd.model.stored_event import EventBatch, EventBounds, LogFilter, StoredEvent
from whatsappd.rules.bounds import CONSUMERS, Holder, check_room
from whatsappd.store.memory.tables import MemoryTables
from whatsappd.store.outbox_counts import OutboxChange
from whatsappd.store.recent_events import MAX_READ_BYTES

#: Whose the deleted events of companies are that were removed; no company has that name.
_REMOVED = "*"


class MemoryEventLog:
    """See `store.port.EventLog`. All of it is in memory, so that `read_tail` always answers."""

    def __init__(self, tables: MemoryTables) -> None:
        self._tables = tables
        self._bounds = EventBounds()
        self._last_seq = 0
        self._grown = trio.Event()
        self.newest_at_opening_ms = 0
        self.deletions = 0
        tables.published.append(self._publish)

    def _publish(self, _changes: list[OutboxChange], logged: list[StoredEvent]) -> None:
        if logged:
            self._last_seq = logged[-1].seq
            self._grown.set()
            self._grown = trio.Event()

    @property
    def last_seq(self) -> int:
        return self._last_seq

    @property
    def first_seq(self) -> int:
        return min(self._tables.events, default=self._last_seq + 1)

    @property
    def tail_events(self) -> int:
        return len(self._tables.events)

    @property
    def tail_bytes(self) -> int:
        return sum(len(stored.packed) for stored in self._tables.events.values())

    async def append(self, *drafts: Draft) -> list[Event]:
        async with self._tables.writing("append"):
            made = self._tables.log(*drafts)
            self._make_room({draft.company for draft in drafts})
        return made

    async def wait_beyond(self, seq: int) -> int:
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
        async with self._tables.reading("read"):
            return self.read_tail(after, limit, companies=companies, types=types, codes=codes)

    def read_tail(
        self,
        after: int,
        limit: int,
        *,
        companies: Collection[str] | None = None,
        types: Collection[str] | None = None,
        codes: Collection[str] | None = None,
    ) -> EventBatch:
        self.existing(after, "after")
        gone = [
            seq
            for company, seq in self._tables.forgotten.items()
            if companies is None or company in companies
        ]
        newest_gone = max(gone, default=0)
        gap = newest_gone + 1 if newest_gone > after else None
        chosen, size = LogFilter(companies, types, codes), 0
        events: list[StoredEvent] = []
        for seq in sorted(self._tables.events):
            stored = self._tables.events[seq]
            if seq <= after or not chosen.accepts(stored.company, stored.type):
                continue
            size += len(stored.packed)
            if events and size > MAX_READ_BYTES:
                return EventBatch(events, events[-1].seq, gap)
            events.append(stored)
            if len(events) == limit:
                return EventBatch(events, seq, gap)
        return EventBatch(events, self._last_seq, gap)

    def existing(self, seq: int, field: str) -> int:
        """`seq`, if that event was logged, or is 0. Raises InvalidParams, which names `field`."""
        if 0 <= seq <= self._last_seq:
            return seq
        raise InvalidParams(
            f"{field}: there is no event {seq}: the log ends at {self._last_seq}",
            field=field,
            last=self._last_seq,
        )

    def keep(self, bounds: EventBounds) -> None:
        self._bounds = bounds

    async def retain(self) -> int:
        async with self._tables.writing("retain"):
            before = len(self._tables.events)
            if self._bounds.max_age_ms is not None:
                oldest_ms = self._tables.clock() - self._bounds.max_age_ms
                for seq in sorted(self._tables.events):
                    if self._tables.event_times[seq] >= oldest_ms:
                        break
                    self.delete([seq])
            self._make_room({each.company for each in self._tables.events.values()})
            return before - len(self._tables.events)

    def _make_room(self, companies: Iterable[str]) -> None:
        """Deletes what is beyond the bounds; whoever has most gives way to all."""
        sizes: Counter[str] = Counter()
        for stored in self._tables.events.values():
            sizes[stored.company] += len(stored.packed)
        bounds = self._bounds
        for company in companies:
            while (
                bounds.max_company_bytes is not None and sizes[company] > bounds.max_company_bytes
            ):
                sizes[company] -= self._delete_oldest(company)
        while bounds.max_bytes is not None and sum(sizes.values()) > bounds.max_bytes:
            [(company, _size)] = sizes.most_common(1)
            sizes[company] -= self._delete_oldest(company)

    def _delete_oldest(self, company: str) -> int:
        """Returns the bytes that it had."""
        seq = min(seq for seq, each in self._tables.events.items() if each.company == company)
        size = len(self._tables.events[seq].packed)
        self.delete([seq])
        return size

    def delete(self, seqs: Iterable[int]) -> None:
        """In a transaction: deletes these events, and remembers how far their companies' are."""
        for seq in seqs:
            company = self._tables.events.pop(seq).company
            del self._tables.event_times[seq]
            self._tables.forgotten[company] = max(seq, self._tables.forgotten.get(company, 0))
            self.deletions += 1

    def erase(self, company: str) -> int:
        """In a transaction: deletes a removed company's events; returns the newest one's number.

        For those who read all companies it is a gap; a new company of that name begins with none.
        """
        gone = [seq for seq, each in self._tables.events.items() if each.company == company]
        self.delete(gone)
        newest = self._tables.forgotten.pop(company, 0)
        if newest:
            forgotten = self._tables.forgotten
            forgotten[_REMOVED] = max(newest, forgotten.get(_REMOVED, 0))
        return max(gone, default=0)


class MemoryConsumers:
    """See `store.port.Consumers`."""

    def __init__(self, tables: MemoryTables, log: MemoryEventLog) -> None:
        self._tables = tables
        self._log = log

    async def place(self, name: str, after: int | None = None) -> int:
        validate_consumer(name)
        start = self._log.last_seq if after is None else self._log.existing(after, "after")
        async with self._tables.writing("place"):
            if name not in self._tables.consumers:
                self._check_room(name)
                now = self._tables.clock()
                self._tables.consumers[name] = Consumer(name, start, now, now)
            return self._tables.consumers[name].cursor

    def _check_room(self, name: str) -> None:
        counts, owner = self._count(), owner_of(name)
        is_ours = owner is None
        holder = Holder(owner or "uid:0", is_capped=not is_ours, may_use_kept=is_ours)
        if not is_webhook(name):
            check_room(CONSUMERS, holder, counts[holder.name], sum(counts.values()))

    def _count(self) -> Counter[str]:
        names = [name for name in self._tables.consumers if not is_webhook(name)]
        return Counter(owner_of(name) or "uid:0" for name in names)

    async def acknowledge(self, name: str, seq: int) -> int:
        self._log.existing(seq, "seq")
        async with self._tables.writing("acknowledge"):
            found = self._find(name)
            moved = found._replace(cursor=max(found.cursor, seq), acked_ms=self._tables.clock())
            self._tables.consumers[name] = moved
            return moved.cursor

    async def all(self) -> list[Consumer]:
        async with self._tables.reading("all"):
            return sorted(self._tables.consumers.values())

    async def forget(self, name: str) -> None:
        async with self._tables.writing("forget"):
            self._find(name)
            del self._tables.consumers[name]

    async def count_by_owner(self) -> dict[str, int]:
        async with self._tables.reading("count_by_owner"):
            return dict(self._count())

    def _find(self, name: str) -> Consumer:
        found = self._tables.consumers.get(name)
        if found is None:
            raise UnknownConsumer(
                f"there is no consumer {name!r:.80}: `events.subscribe` with its name makes one",
                consumer=name,
            )
        return found
