"""Retention by company: nobody pushes out what another has, and readers learn what is gone."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from whatsappd.model.event import ALERT, MESSAGE_RECEIVED, SESSION_STATE, Draft
from whatsappd.model.stored_event import EventBounds
from whatsappd.store.recent_events import RecentEvents
from whatsappd.store.sqlite.database import Database, open_database
from whatsappd.store.sqlite.event_log import SqliteEventLog, open_event_log
from whatsappd.store.sqlite.event_totals import COUNT_EVERY, load_totals
from whatsappd.store.sqlite.integrity import check

TYPES = (ALERT, MESSAGE_RECEIVED, SESSION_STATE)


def draft(company: str, size: int = 100, type_: str = MESSAGE_RECEIVED) -> Draft:
    return Draft(company, type_, {"text": "x" * size})


async def everything(log: SqliteEventLog, **filters) -> list[tuple[int, str, str]]:
    """(seq, company, type) of all events, read page by page by `last`."""
    found, after = [], 0
    while after < log.last_seq:
        batch = await log.read(after, 7, **filters)
        assert batch.last > after
        assert batch.events or batch.last == log.last_seq
        found += [(event.seq, event.company, event.type) for event in batch.events]
        after = batch.last
    return found


async def held(log: SqliteEventLog) -> Counter[str]:
    """Packed bytes by company, as they are on disk."""
    rows = await log._database.read(
        lambda conn: conn.execute(
            "SELECT company, sum(length(packed)) FROM events GROUP BY company"
        ).fetchall()
    )
    return Counter(dict(rows))


async def test_what_one_company_logs_deletes_nothing_of_another(
    log: SqliteEventLog, database
) -> None:
    log.keep(EventBounds(max_bytes=100_000))
    await log.append(*(draft("quiet") for _ in range(50)))
    for _ in range(300):
        await log.append(draft("loud", 5000), draft("loud", 10))
    assert len(await everything(log, companies={"quiet"})) == 50
    sizes = await held(log)
    assert sizes.total() <= 100_000
    assert sizes["loud"] > 80_000
    assert check(database.path) == []


async def test_the_bound_of_a_company_holds_after_each_write(log: SqliteEventLog) -> None:
    log.keep(EventBounds(max_company_bytes=20_000))
    for number in range(100):
        await log.append(
            *(draft("acme", 3000, TYPES[number % 3]) for _ in range(number % 5)), draft("globex", 1)
        )
        assert (await held(log))["acme"] <= 20_000
    assert len(await everything(log, companies={"globex"})) == 100
    newest = await everything(log, companies={"acme"})
    assert newest[-1][0] >= log.last_seq - 1
    assert len({type_ for _, _, type_ in newest}) > 1


async def test_companies_with_less_than_their_share_lose_nothing(log: SqliteEventLog) -> None:
    log.keep(EventBounds(max_bytes=90_000))
    for number in range(200):
        await log.append(draft("large", 1000), draft("larger", 2000))
        if number % 10 == 0:
            await log.append(draft("small", 1000))
    sizes = await held(log)
    assert sizes.total() <= 90_000
    assert len(await everything(log, companies={"small"})) == 20
    assert abs(sizes["large"] - sizes["larger"]) < 5000


async def test_the_gap_is_told_to_those_who_asked_for_what_is_gone(log: SqliteEventLog) -> None:
    log.keep(EventBounds(max_company_bytes=2000))
    await log.append(draft("quiet"))
    await log.append(*(draft("loud") for _ in range(50)))
    kept = [seq for seq, company, _ in await everything(log) if company == "loud"]
    assert kept == list(range(kept[0], 52))
    for companies in (None, {"loud"}, {"loud", "quiet"}):
        assert (await log.read(0, 5, companies=companies)).gap == kept[0]
    assert (await log.read(0, 5, companies={"quiet"})).gap is None
    assert (await log.read(0, 5, companies={"new"})).gap is None
    # What outlived them still comes.
    assert (await log.read(0, 1)).events[0].company == "quiet"
    assert (await log.read(kept[0] - 1, 5)).gap is None


async def test_a_restart_knows_how_much_is_kept(path: Path) -> None:
    bounds = EventBounds(max_company_bytes=30_000)
    for _ in range(3):
        async with open_database(path) as database:
            log = await open_event_log(database)
            log.keep(bounds)
            for _ in range(100):
                await log.append(draft("acme", 500), draft("globex", 50))
            last = log.last_seq
            assert (await held(log))["acme"] <= 30_000
            loaded = await database.read(load_totals)
            assert loaded.of("acme") == (await held(log))["acme"]
            assert loaded.total == (await held(log)).total()
        assert check(path) == []
    async with open_database(path) as database:
        log = await open_event_log(database)
        assert log.last_seq == last
        assert log.first_seq == (await everything(log))[0][0]


async def test_totals_survive_being_counted_now_and_then(path: Path, clock) -> None:
    async with open_database(path) as database:
        log = await open_event_log(database, clock=clock)
        log.keep(EventBounds(max_company_bytes=100_000))
        for _ in range(COUNT_EVERY // 100 + 3):
            await log.append(*(draft(f"co{n % 3}", 10 * n) for n in range(100)))
            loaded = await database.read(load_totals)
            sizes = await held(log)
            assert {name: loaded.of(name) for name in sizes} == dict(sizes)
        clock.now_ms += 1000
        await log.append(draft("co1"))
        log.keep(EventBounds(max_age_ms=500))
        await log.retain()
        loaded = await database.read(load_totals)
        assert (loaded.companies(), loaded.total) == (["co1"], (await held(log))["co1"])
    assert check(path) == []


async def test_a_write_that_fails_takes_its_deletions_back(
    database: Database, log: SqliteEventLog, busy_writer
) -> None:
    log.keep(EventBounds(max_company_bytes=5000))
    await log.append(*(draft("acme") for _ in range(20)))
    before = await held(log)

    def too_much(conn: sqlite3.Connection) -> None:
        log.stage([draft("acme", 4000)])
        raise RuntimeError("after staging")

    async def fail() -> None:
        with pytest.raises(RuntimeError, match="after"):
            await database.write(too_much)

    async with busy_writer() as nursery:
        nursery.start_soon(fail)
        nursery.start_soon(log.append, draft("globex"))
    sizes = await held(log)
    assert sizes["acme"] == before["acme"]
    loaded = await database.read(load_totals)
    assert loaded.of("acme") == sizes["acme"] == log._totals.of("acme")
    assert check(database.path) == []


async def test_a_smaller_bound_is_worked_down_to(log: SqliteEventLog, database) -> None:
    await log.append(*(draft(f"co{n % 4}") for n in range(2000)))
    log.keep(EventBounds(max_bytes=20_000))
    assert await log.retain() > 1500
    sizes = await held(log)
    assert sizes.total() <= 20_000
    assert max(sizes.values()) - min(sizes.values()) < 500
    assert log.first_seq == (await everything(log))[0][0]
    assert check(database.path) == []


FEW = ("acme", "globex", "initech")


@given(
    st.lists(
        st.tuples(st.sampled_from(FEW), st.sampled_from(TYPES), st.integers(0, 600)),
        min_size=1,
        max_size=60,
    ),
    st.one_of(st.none(), st.sets(st.sampled_from((*FEW, "nobody")))),
    st.one_of(st.none(), st.sets(st.sampled_from(TYPES))),
    st.sampled_from((1, 5, 10_000)),
    st.sampled_from((None, 3000, 8000)),
)
@settings(deadline=None, max_examples=25)
def test_whoever_pages_gets_all_that_was_asked_for_and_always_moves(
    tmp_path_factory: pytest.TempPathFactory,
    logged: list[tuple[str, str, int]],
    companies: Collection[str] | None,
    types: Collection[str] | None,
    tail_events: int,
    bound: int | None,
) -> None:
    path = tmp_path_factory.mktemp("log") / "whatsappd.db"

    async def run() -> None:
        async with open_database(path) as database:
            log = await open_event_log(database, tail=RecentEvents(max_events=tail_events))
            log.keep(EventBounds(max_company_bytes=bound))
            for company, type_, size in logged:
                await log.append(draft(company, size, type_))
            there = await everything(log)
            expected = [
                each
                for each in there
                if (companies is None or each[1] in companies)
                and (types is None or each[2] in types)
            ]
            assert await everything(log, companies=companies, types=types) == expected
            # Whoever goes on behind the last event they handled, as REST clients do.
            found, after = [], 0
            while events := (await log.read(after, 3, companies=companies, types=types)).events:
                found += [(event.seq, event.company, event.type) for event in events]
                after = events[-1].seq
            assert found == expected
            # Without bounds nothing is missing; with them a gap says so, or nothing is.
            missing = [
                seq
                for seq, (company, type_, _) in enumerate(logged, 1)
                if (seq, company, type_) not in there
                and (companies is None or company in companies)
            ]
            gap = (await log.read(0, 1, companies=companies, types=types)).gap
            assert gap == (missing[-1] + 1 if missing else None)

    trio.run(run)


async def test_no_filter_costs_more_with_more_events(database: Database, clock) -> None:
    """In steps of SQLite's virtual machine: to look at all events takes several for each."""
    log = await open_event_log(database, clock=clock, tail=RecentEvents(max_events=1))
    for _ in range(20):
        await log.append(*(draft(f"co{n % 20}", 5, TYPES[n % 2]) for n in range(1000)))
    await log.append(draft("rare", 5, SESSION_STATE))
    steps = [0]

    def counted() -> int:
        steps[0] += 1
        return 0

    original = database.query

    async def query(read):
        def counting(conn: sqlite3.Connection):
            conn.set_progress_handler(counted, 1)
            return read(conn)

        return await original(counting)

    database.query = query  # type: ignore[method-assign]
    for filters, count in (
        ({"companies": {"nobody"}}, 0),
        ({"types": {"lifecycle"}}, 0),
        ({"types": {SESSION_STATE}}, 1),
        ({"companies": {"rare", "co3"}, "types": {SESSION_STATE}}, 1),
        ({"companies": {"co3"}}, 10),
        ({}, 10),
    ):
        steps[0] = 0
        assert len((await log.read(0, 10, **filters)).events) == count
        assert steps[0] < 5000, filters


async def test_a_database_of_before_knows_what_it_deleted(path: Path) -> None:
    """Migration 11, from a log whose first three events retention had deleted."""
    from whatsappd.store.sqlite.migrations import migrations

    conn = sqlite3.connect(path, isolation_level=None)
    for migration in migrations()[:10]:
        conn.executescript(migration.sql)
    conn.execute("PRAGMA user_version = 10")
    conn.execute("UPDATE event_log SET forgotten_seq = 3, forgotten_end = 30")
    conn.execute("INSERT INTO companies (company, wanted, created_ms) VALUES ('acme', 1, 1)")
    for seq in range(4, 9):
        conn.execute(
            "INSERT INTO events VALUES (?, 1, 'acme', 'alert', ?, ?)", (seq, seq * 10, b"\x80" * 10)
        )
    conn.close()
    async with open_database(path) as database:
        log = await open_event_log(database)
        assert (log.first_seq, log.last_seq) == (4, 8)
        assert log._totals.of("acme") == 50
        for companies in (None, {"acme"}):
            batch = await log.read(0, 10, companies=companies)
            assert ([event.seq for event in batch.events], batch.gap) == ([4, 5, 6, 7, 8], 4)
        assert (await log.read(0, 10, companies={"new"})).gap is None
    assert check(path) == []
