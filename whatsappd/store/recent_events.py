"""The newest events, in memory: what live subscribers read without touching the disk.

Owned by the event log; lives in trio. Bounded by count and by bytes, whatever the history.
"""

from __future__ import annotations

from bisect import bisect_right

from whatsappd.model.stored_event import EventBatch, LogFilter, StoredEvent

#: A subscriber this far behind reads from the disk. 10,000 events are minutes of a busy daemon.
MAX_EVENTS = 10_000
MAX_BYTES = 8 << 20
#: The most packed bytes in one batch (but always one event).
MAX_READ_BYTES = 1 << 20
#: The most events that one read looks at when a filter drops most of them: a millisecond or two.
MAX_SCAN = 5000


class RecentEvents:
    """A run of consecutive events that ends with the newest one."""

    def __init__(self, *, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        # A list with a hole in front: a slice costs what it returns, a deque's would cost its
        # offset as well.
        self._events: list[StoredEvent] = []
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._events) - self._dropped

    @property
    def first_seq(self) -> int | None:
        """The oldest event held; None if there is none."""
        return self._events[self._dropped].seq if len(self) else None

    @property
    def bytes(self) -> int:
        """Packed bytes held."""
        return self._events[-1].end - self._events[self._dropped].position if len(self) else 0

    def extend(self, events: list[StoredEvent]) -> None:
        """Adds the events that follow the last one, and lets go of the oldest beyond the bounds."""
        held = self._events
        held.extend(events)
        dropped = max(self._dropped, len(held) - self._max_events)
        floor = held[-1].end - self._max_bytes if held else 0
        while dropped < len(held) - 1 and held[dropped].position < floor:
            dropped += 1
        if dropped > self._max_events // 4:  # now and then, so that it costs nothing a time
            del held[:dropped]
            dropped = 0
        else:
            for index in range(self._dropped, dropped):
                held[index] = _GONE  # its bytes go now, the place in the list later
        self._dropped = dropped

    def forget(self, seq: int) -> None:
        """Lets go of the events up to and including `seq`: retention deleted them."""
        first = self.first_seq
        if first is None or seq < first:
            return
        del self._events[: min(self._dropped + seq - first + 1, len(self._events))]
        self._dropped = 0

    def after(self, seq: int, limit: int, max_bytes: int) -> list[StoredEvent] | None:
        """Up to `limit` events behind `seq`, at most `max_bytes` but at least one.

        None if the tail does not reach back that far.
        """
        first = self.first_seq
        if first is None or seq < first - 1:
            return None
        begin = self._dropped + seq - first + 1
        found = self._events[begin : begin + limit]
        if found and found[-1].end - found[0].position > max_bytes:
            ceiling = found[0].position + max_bytes
            fits = bisect_right(found, ceiling, key=lambda stored: stored.end)
            found = found[: max(1, fits)]
        return found

    def read(self, after: int, limit: int, chosen: LogFilter) -> EventBatch | None:
        """The batch of the events behind `after`, of which at least one is held.

        None if the events held do not reach back that far. At most MAX_SCAN events are looked at,
        so that the batch may be empty although there is more.
        """
        found = self.after(after, limit if chosen.is_all else MAX_SCAN, MAX_READ_BYTES)
        if found is None:
            return None
        if chosen.is_all:
            return EventBatch(found, found[-1].seq, None)
        events = []
        for stored in found:
            if chosen.accepts(stored.company, stored.type):
                events.append(stored)
                if len(events) == limit:
                    return EventBatch(events, stored.seq, None)
        return EventBatch(events, found[-1].seq, None)


_GONE = StoredEvent(0, "", "", 0, b"")
