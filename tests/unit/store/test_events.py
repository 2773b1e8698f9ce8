"""The event log: gapless numbers, replay then live, bounded memory, consumers and retention."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from whatsappd.clock import now_ms
from whatsappd.errors import InvalidParams, TooLarge, UnknownConsumer
from whatsappd.model.event import (
    ALERT,
    MAX_EVENT_BYTES,
    MESSAGE_RECEIVED,
    SESSION_STATE,
    Draft,
    Event,
)
from whatsappd.model.stored_event import EventBounds, StoredEvent
from whatsappd.store.recent_events import MAX_READ_BYTES, MAX_SCAN, RecentEvents
from whatsappd.store.sqlite.consumers import SqliteConsumers
from whatsappd.store.sqlite.database import Database, open_database
from whatsappd.store.sqlite.event_log import SqliteEventLog, open_event_log
from whatsappd.store.sqlite.integrity import check
from whatsappd.wire.frames import MessagePackReader


def draft(index: int, company: str = "acme", type_: str = SESSION_STATE) -> Draft:
    return Draft(company, type_, {"index": index})


async def fill(log: SqliteEventLog, count: int, **where: str) -> None:
    for start in range(0, count, 1000):
        await log.append(
            *(draft(index, **where) for index in range(start, min(start + 1000, count)))
        )


async def kept(log: SqliteEventLog, **bounds: int) -> int:
    log.keep(EventBounds(**bounds))
    return await log.retain()


async def drain(log: SqliteEventLog, after: int = 0, limit: int = 100, **filters) -> list[Event]:
    events: list[Event] = []
    while after < log.last_seq:
        batch = await log.read(after, limit, **filters)
        assert batch.last > after
        assert batch.gap is None
        events += [stored.event for stored in batch.events]
        after = batch.last
    return events


async def test_events_are_numbered_from_one_and_stamped(log: SqliteEventLog, clock) -> None:
    assert log.last_seq == 0
    events = await log.append(draft(0), draft(1, "globex", ALERT))
    assert events == [
        Event(1, clock.now_ms, "acme", SESSION_STATE, {"index": 0}),
        Event(2, clock.now_ms, "globex", ALERT, {"index": 1}),
    ]
    assert log.last_seq == 2
    assert await drain(log) == events


async def test_a_stored_event_carries_the_bytes_subscribers_get(log: SqliteEventLog) -> None:
    (event,) = await log.append(draft(7))
    (stored,) = (await log.read(0, 10)).events
    assert MessagePackReader().feed(stored.packed) == [event.as_wire()]


async def test_numbers_go_on_after_a_restart(path: Path) -> None:
    async with open_database(path) as database:
        first = await open_event_log(database)
        await fill(first, 3)
    async with open_database(path) as database:
        second = await open_event_log(database)
        assert second.last_seq == 3
        await second.append(draft(3))
        assert [event.data["index"] for event in await drain(second)] == [0, 1, 2, 3]
    assert check(path) == []


async def test_a_failed_write_leaves_no_hole(
    database: Database, log: SqliteEventLog, busy_writer
) -> None:

    async def fail() -> None:
        def write(conn: sqlite3.Connection) -> None:
            log.stage([draft(98), draft(99)])
            raise RuntimeError("after staging")

        with pytest.raises(RuntimeError):
            await database.write(write)

    async with busy_writer() as nursery:
        nursery.start_soon(log.append, draft(0))
        nursery.start_soon(fail)
        nursery.start_soon(log.append, draft(1))
    await log.append(draft(2))
    events = await drain(log)
    assert [event.seq for event in events] == [1, 2, 3, 4][:3]
    assert {event.data["index"] for event in events} == {0, 1, 2}


async def test_a_failed_transaction_leaves_no_hole(database: Database, log: SqliteEventLog) -> None:
    await database.write(lambda conn: conn.execute("PRAGMA max_page_count = 60").fetchone())
    outcomes = []

    async def attempt(size: int) -> None:
        try:
            await log.append(Draft("acme", ALERT, {"text": "x" * size}))
            outcomes.append(size)
        except Exception as error:
            outcomes.append(type(error).__name__)

    async with trio.open_nursery() as nursery:
        for size in (10, 400_000, 20):
            nursery.start_soon(attempt, size)
    assert sorted(map(str, outcomes)) == ["10", "20", "StoreFailed"]
    assert [event.seq for event in await drain(log)] == [1, 2]
    assert log.last_seq == 2
    await log.append(draft(0))
    assert check(database.path) == []


async def test_writers_at_the_same_time_make_one_order(log: SqliteEventLog) -> None:
    async def write(worker: int) -> None:
        for index in range(50):
            await log.append(draft(index, f"company{worker}"))

    async with trio.open_nursery() as nursery:
        for worker in range(20):
            nursery.start_soon(write, worker)
    events = await drain(log)
    assert [event.seq for event in events] == list(range(1, 1001))
    for worker in range(20):
        own = [event.data["index"] for event in events if event.company == f"company{worker}"]
        assert own == list(range(50))


async def test_replay_then_live_has_no_gap_and_no_duplicate(database: Database, clock) -> None:
    # A tail so small that subscribers move between disk and memory all the time.
    log = await open_event_log(
        database, clock=clock, tail=RecentEvents(max_events=20, max_bytes=10**6)
    )
    total = 600
    results: list[list[int]] = []

    async def subscribe(after: int, limit: int) -> None:
        seen: list[int] = []
        cursor = after
        while cursor < total:
            await log.wait_beyond(cursor)
            batch = await log.read(cursor, limit)
            assert batch.gap is None
            seen += [stored.seq for stored in batch.events]
            cursor = batch.last
        assert seen == list(range(after + 1, total + 1))
        results.append(seen)

    async with trio.open_nursery() as nursery:
        await fill(log, 100)
        for after, limit in ((0, 7), (0, 100), (50, 1), (100, 1000)):
            nursery.start_soon(subscribe, after, limit)
        for index in range(100, total, 4):
            await log.append(*(draft(index + step) for step in range(4)))
    assert len(results) == 4


async def test_filters_by_company_and_type(database: Database, clock) -> None:
    for tail in (RecentEvents(), RecentEvents(max_events=1)):  # from memory, then from the disk
        log = await open_event_log(database, clock=clock, tail=tail)
        after = log.last_seq
        for index in range(60):
            await log.append(
                draft(
                    index, "acme" if index % 3 else "globex", ALERT if index % 2 else SESSION_STATE
                )
            )
        found = await drain(log, after, 7, companies={"globex"}, types={ALERT})
        assert [event.data["index"] for event in found] == list(range(3, 60, 6))
        assert await drain(log, after, types={MESSAGE_RECEIVED}) == []
        assert len(await drain(log, after, companies={"acme", "globex"})) == 60


async def test_a_filter_that_drops_all_still_moves_on(database: Database, clock) -> None:
    log = await open_event_log(database, clock=clock, tail=RecentEvents(max_events=1))
    await fill(log, MAX_SCAN + 10)
    assert await log.read(0, 10, companies={"nobody"}) == ([], log.last_seq, None)


async def test_a_batch_is_bounded_in_bytes_but_never_empty(database: Database, clock) -> None:
    for tail in (RecentEvents(), RecentEvents(max_events=1)):
        log = await open_event_log(database, clock=clock, tail=tail)
        after = log.last_seq
        for _ in range(5):
            await log.append(Draft("acme", ALERT, {"text": "x" * 400_000}))
        batch = await log.read(after, 100)
        assert len(batch.events) == 2
        assert sum(len(stored.packed) for stored in batch.events) <= MAX_READ_BYTES
        assert len(await drain(log, after)) == 5


async def test_an_event_that_fits_no_message_is_refused(log: SqliteEventLog) -> None:
    with pytest.raises(TooLarge):
        await log.append(Draft("acme", ALERT, {"text": "x" * MAX_EVENT_BYTES}))
    await log.append(draft(0))
    assert log.last_seq == 1


async def test_a_cursor_beyond_the_end_is_refused(log: SqliteEventLog) -> None:
    await fill(log, 3)
    for after in (4, -1):
        with pytest.raises(InvalidParams, match="ends at 3"):
            await log.read(after, 10)
    assert await log.read(3, 10) == ([], 3, None)


async def test_consumers_keep_their_cursor_across_restarts(path: Path) -> None:
    async with open_database(path) as database:
        log = await open_event_log(database)
        consumers = SqliteConsumers(database, log, now_ms)
        await fill(log, 10)
        assert await consumers.place("billing") == 10
        assert await consumers.place("audit", after=2) == 2
        assert await consumers.acknowledge("audit", 5) == 5
        assert await consumers.acknowledge("audit", 3) == 5
        with pytest.raises(InvalidParams, match="ends at 10"):
            await consumers.acknowledge("audit", 11)
    async with open_database(path) as database:
        log = await open_event_log(database)
        consumers = SqliteConsumers(database, log, now_ms)
        assert await consumers.place("audit", after=9) == 5
        listed = await consumers.all()
        assert [(consumer.name, consumer.cursor) for consumer in listed] == [
            ("audit", 5),
            ("billing", 10),
        ]
        await consumers.forget("audit")
        for call in (consumers.forget("audit"), consumers.acknowledge("audit", 1)):
            with pytest.raises(UnknownConsumer):
                await call
        with pytest.raises(InvalidParams, match="consumer"):
            await consumers.place("no spaces")


async def test_retention_by_age_tells_the_gap(log: SqliteEventLog, clock) -> None:
    await fill(log, 1200)
    clock.now_ms += 10_000
    await fill(log, 5)
    assert await kept(log, max_age_ms=5_000) == 1200
    assert log.first_seq == 1201
    batch = await log.read(3, 2)
    assert [stored.seq for stored in batch.events] == [1201, 1202]
    assert batch.gap == 1201
    assert (await log.read(1200, 10)).gap is None
    assert (await log.read(1202, 10)).gap is None
    assert await kept(log, max_age_ms=5_000) == 0


async def test_retention_by_size_keeps_the_newest_that_fit(log: SqliteEventLog, database) -> None:
    await fill(log, 2000)
    size = len((await log.read(1999, 1)).events[0].packed)
    await kept(log, max_bytes=size * 100)
    assert 90 <= log.last_seq - log.first_seq + 1 <= 101
    assert check(database.path) == []


async def test_numbers_go_on_when_everything_was_forgotten(path: Path, clock) -> None:
    async with open_database(path) as database:
        log = await open_event_log(database, clock=clock)
        await fill(log, 10)
        clock.now_ms += 1000
        assert await kept(log, max_age_ms=1) == 10
        assert await log.read(0, 5) == ([], 10, 11)
    async with open_database(path) as database:
        log = await open_event_log(database, clock=clock)
        assert log.last_seq == 10
        assert (await log.append(draft(0)))[0].seq == 11
        assert [event.seq for event in await drain(log, 10)] == [11]
    assert check(path) == []


async def test_readers_during_retention_are_told_honestly(database: Database, clock) -> None:
    log = await open_event_log(database, clock=clock, tail=RecentEvents(max_events=1))
    await fill(log, 5000)
    clock.now_ms += 1000
    await fill(log, 10)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(kept, log, max_age_ms=500))
        cursor = 0
        while cursor < log.last_seq:
            batch = await log.read(cursor, 50)
            expected = batch.gap if batch.gap is not None else cursor + 1
            assert [stored.seq for stored in batch.events][:1] == [expected]
            cursor = batch.last


async def test_retention_lets_writers_in(log: SqliteEventLog, clock) -> None:
    await fill(log, 5000)
    clock.now_ms += 1000
    appended_at: list[int] = []

    async def write() -> None:
        while log.first_seq < 5000:
            await log.append(draft(0))
            appended_at.append(log.first_seq)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await kept(log, max_age_ms=500)
    assert len(set(appended_at)) >= 5


def stored(seq: int, position: int, size: int) -> StoredEvent:
    return StoredEvent(seq, "acme", ALERT, position, b"x" * size)


@given(
    st.lists(st.lists(st.integers(1, 50), max_size=8), max_size=30),
    st.integers(1, 12),
    st.integers(1, 200),
)
@settings(deadline=None)
def test_the_tail_is_a_bounded_run_of_the_newest(
    batches: list[list[int]], max_events: int, max_bytes: int
) -> None:
    tail = RecentEvents(max_events=max_events, max_bytes=max_bytes)
    everything: list[StoredEvent] = []
    for sizes in batches:
        added = []
        for size in sizes:
            position = (added or everything)[-1].end if added or everything else 0
            added.append(stored(len(everything) + len(added) + 1, position, size))
        everything += added
        tail.extend(list(added))
        assert len(tail) <= max_events
        assert tail.bytes <= max_bytes or len(tail) == 1
        if not everything:
            assert tail.after(0, 5, 10**6) is None
            continue
        last = everything[-1].seq
        assert len(tail) >= 1
        for after in range(last + 1):
            found = tail.after(after, 3, 60)
            if after < last - len(tail):
                assert found is None
                continue
            assert found is not None
            assert found == everything[after : after + len(found)]
            assert found or after == last
            assert len(found) == 1 or sum(len(event.packed) for event in found) <= 60


@given(st.integers(1, 30), st.integers(0, 35))
def test_the_tail_forgets_what_retention_deleted(count: int, seq: int) -> None:
    tail = RecentEvents(max_events=20)
    tail.extend([stored(index + 1, index * 10, 10) for index in range(count)])
    tail.forget(seq)
    first = max(seq + 1, count - 19)
    assert tail.first_seq == (first if first <= count else None)
    tail.extend([stored(count + 1, count * 10, 10)])
    assert (tail.after(count, 5, 1000) or [])[0].seq == count + 1
