"""Work on many rows: in slices that others get in between, and that leave them most of the time."""

from __future__ import annotations

import sqlite3
from itertools import pairwise
from typing import Any

import pytest
import trio

from whatsappd.errors import StoreFailed
from whatsappd.store.sqlite import slices
from whatsappd.store.sqlite.database import Database
from whatsappd.store.sqlite.slices import FEWEST_ROWS, FIRST_ROWS, MOST_ROWS, Slice, in_slices


async def test_it_goes_on_behind_the_last_one_until_nothing_is_left(database: Database) -> None:
    begins: list[tuple[int, Any]] = []

    def work(_conn: sqlite3.Connection, most: int, after: Any) -> Slice:
        begins.append((most, after))
        first = 0 if after is None else after
        looked = min(most, 1000 - first)
        return Slice(looked, looked // 2, first + looked)

    assert await in_slices(database, work) == sum(
        min(most, 1000 - (after or 0)) // 2 for most, after in begins
    )
    assert begins[0] == (FIRST_ROWS, None)
    for (most, after), (_, following) in pairwise(begins):
        assert following == (after or 0) + most


@pytest.mark.parametrize(
    ("size", "took_s", "following"),
    [
        (100, 0.005, 100),
        (100, 0.0, 200),
        (100, 0.02, 25),
        (20, 1.0, FEWEST_ROWS),
        (MOST_ROWS, 0.0, MOST_ROWS),
    ],
)
def test_a_slice_is_as_large_as_fits_into_its_time(
    size: int, took_s: float, following: int
) -> None:
    assert slices._next_size(size, took_s) == following


async def test_it_rests_in_proportion_to_what_it_took(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    sleep = trio.sleep

    async def resting(seconds: float) -> None:
        rests.append(seconds)
        await sleep(0)

    monkeypatch.setattr(slices.trio, "sleep", resting)
    times = iter([0.0, 0.010, 10.0, 10.100, 20.0])
    monkeypatch.setattr(
        slices, "_timed", lambda work, most, after: lambda conn: (0.005, work(conn, most, after))
    )
    monkeypatch.setattr(slices, "perf_counter", lambda: next(times))
    left = iter([True, True, False])
    await in_slices(database, lambda _c, most, _a: Slice(most if next(left) else 0, 1))
    assert rests == [pytest.approx(0.030), pytest.approx(0.300)]


async def test_what_was_done_before_a_slice_that_fails_stays_done(database: Database) -> None:
    def work(conn: sqlite3.Connection, most: int, after: Any) -> Slice:
        if after == 2:
            raise sqlite3.OperationalError("nothing of SQLite's")
        name = f"consumer{after or 0}"
        conn.execute("INSERT INTO consumers VALUES (?, 0, 0, 0)", (name,))
        return Slice(most, 1, (after or 0) + 1)

    with pytest.raises(sqlite3.OperationalError):
        await in_slices(database, work)
    kept = await database.read(lambda conn: conn.execute("SELECT name FROM consumers").fetchall())
    assert kept == [("consumer0",), ("consumer1",)]


async def test_a_full_disk_is_told(database: Database) -> None:
    await database.write(lambda conn: conn.execute("PRAGMA max_page_count = 60").fetchone())

    def work(conn: sqlite3.Connection, most: int, after: Any) -> Slice:
        conn.execute("INSERT INTO consumers VALUES (?, 0, 0, 0)", ("x" * 1_000_000,))
        return Slice(most, 1)

    with pytest.raises(StoreFailed):
        await in_slices(database, work)
