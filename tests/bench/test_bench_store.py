"""The store's speed, each figure beside its reference in the same run.

`pytest -m bench tests/bench/test_bench_store.py -s` prints the figures. They depend on the disk
and on who else works there: the ratio to the raw writer thread is what to look at.
"""

from __future__ import annotations

import gc
import itertools
import os
import sqlite3
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from whatsappd.limits.memory import MemoryLimiter
from whatsappd.limits.port import LimitKey
from whatsappd.model.event import MESSAGE_RECEIVED, Draft
from whatsappd.model.message import NewMessage
from whatsappd.store.database import open_database
from whatsappd.store.events import open_event_log
from whatsappd.store.outbox import Outbox, open_outbox

pytestmark = pytest.mark.bench

SECONDS = 3.0
TEXT = "x" * 200


class Figures:
    """Calls a second and how long one takes."""

    def __init__(self, name: str, times: list[float], elapsed: float) -> None:
        self.name = name
        self.rate = len(times) / elapsed
        cuts = statistics.quantiles(times, n=100)
        self.p50, self.p99 = cuts[49] * 1000, cuts[98] * 1000

    def __str__(self) -> str:
        times = f"p50 {self.p50:6.2f} ms   p99 {self.p99:6.2f} ms"
        return f"{self.name:<44}{self.rate:>10,.0f}/s   {times}"


async def measure(name: str, callers: int, call: Callable[[], Awaitable[object]]) -> Figures:
    """`callers` tasks repeat `call` for SECONDS."""
    times: list[float] = []
    begin = time.perf_counter()
    end = begin + SECONDS

    async def repeat() -> None:
        before = time.perf_counter()
        while before < end:
            await call()
            after = time.perf_counter()
            times.append(after - before)
            before = after

    async with trio.open_nursery() as nursery:
        for _ in range(callers):
            nursery.start_soon(repeat)
    return Figures(name, times, time.perf_counter() - begin)


def resident_mb() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def accept_next(outbox: Outbox, numbers: Iterator[int]) -> None:
    number = next(numbers)
    new = NewMessage("acme", f"{number % 500}@s.whatsapp.net", TEXT, f"key{number}")
    await outbox.accept(new, 10**9)


async def test_durable_sends_beside_the_raw_writer_thread(tmp_path: Path, capsys) -> None:
    numbers = itertools.count()

    def raw_insert(conn: sqlite3.Connection) -> None:
        number = next(numbers)
        conn.execute(
            "INSERT INTO raw VALUES (?, ?, ?, ?)",
            (number, f"key{number}", "acme", TEXT + "x" * 100),
        )

    figures = []
    for callers in (1, 100):
        async with open_database(tmp_path / f"raw{callers}.db") as database:
            await database.write(
                lambda conn: conn.execute(
                    "CREATE TABLE raw (id INTEGER PRIMARY KEY, key UNIQUE, company, text)"
                )
            )
            await database.write(
                lambda conn: conn.execute("CREATE INDEX raw_company ON raw (company, id)")
            )
            raw = await measure(
                f"raw row, 300 bytes, 2 indexes, {callers} callers",
                callers,
                lambda: database.write(raw_insert),
            )
        async with open_database(tmp_path / f"outbox{callers}.db") as database:
            log = await open_event_log(database)
            outbox = await open_outbox(database, log)

            accepted = await measure(
                f"outbox.accept (row + event), {callers} callers",
                callers,
                partial(accept_next, outbox, numbers),
            )
        figures += [raw, accepted]
    with capsys.disabled():
        print("\n" + "\n".join(map(str, figures)))
        print(f"{'accept / raw, 100 callers':<44}{figures[3].rate / figures[2].rate:>10.2f}")
    assert figures[3].rate > 1000  # a guard against something absurd, not the aim


async def test_memory_does_not_grow_with_history(tmp_path: Path, capsys) -> None:
    total, step = 1_000_000, 2_000
    data = {"chat": "15550100@s.whatsapp.net", "sender": "15550100@s.whatsapp.net", "text": TEXT}
    report = []
    async with open_database(tmp_path / "events.db") as database:
        log = await open_event_log(database)
        outbox = await open_outbox(database, log)
        begin = time.perf_counter()
        for index in range(0, total, step):
            await log.append(*[Draft("acme", MESSAGE_RECEIVED, data)] * step)
            if index in (100_000, total - step):
                report.append((index + step, resident_mb()))
        appended = total / (time.perf_counter() - begin)

        async def accept(count: int) -> None:
            for index in range(count):
                await outbox.accept(NewMessage("acme", f"{index % 500}@lid", TEXT), 10**9)

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(accept, 1000)
        with_rows = resident_mb()

        begin = time.perf_counter()
        cursor = count = 0
        while cursor < log.last_seq:
            batch = await log.read(cursor, 1000)
            cursor = batch.last
            count += len(batch.events)
        replayed = count / (time.perf_counter() - begin)
        after_replay = resident_mb()
        size = database.size / 1e6
    begin = time.perf_counter()
    async with open_database(tmp_path / "events.db") as database:
        log = await open_event_log(database)
        await open_outbox(database, log)
        opened = (time.perf_counter() - begin) * 1000
    with capsys.disabled():
        print()
        for events, megabytes in report:
            print(f"resident after {events:>9,} events {megabytes:8.1f} MB")
        print(f"resident with 100,000 rows more {with_rows:8.1f} MB")
        print(f"resident after a replay of all {after_replay:9.1f} MB")
        print(f"appended {appended:,.0f}/s, replayed {replayed:,.0f}/s, {size:,.0f} MB on disk")
        print(f"opened again in {opened:.0f} ms")
    assert report[1][1] - report[0][1] < 20
    assert after_replay - report[0][1] < 40


async def test_fan_out_to_100_subscribers(tmp_path: Path, capsys) -> None:
    total, subscribers = 20_000, 100
    delivered = 0

    async with open_database(tmp_path / "events.db") as database:
        log = await open_event_log(database)

        async def subscribe() -> None:
            nonlocal delivered
            cursor = 0
            while cursor < total:
                await log.wait_beyond(cursor)
                batch = await log.read(cursor, 1000)
                b"".join([stored.packed for stored in batch.events])
                delivered += len(batch.events)
                cursor = batch.last

        data = {"chat": "15550100@s.whatsapp.net", "text": TEXT}
        begin = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(subscribers):
                nursery.start_soon(subscribe)
            for _ in range(0, total, 100):
                await log.append(*[Draft("acme", MESSAGE_RECEIVED, data)] * 100)
        elapsed = time.perf_counter() - begin
    assert delivered == total * subscribers
    with capsys.disabled():
        print(
            f"\n{delivered / elapsed:,.0f} deliveries/s from the log to {subscribers} subscribers"
        )


async def test_the_limiter_in_memory(capsys) -> None:
    limiter = MemoryLimiter()
    count = 100_000
    keys = [
        [LimitKey("acme", 10**9, 60_000), LimitKey(f"acme:{index}", 5, 60_000)]
        for index in range(count)
    ]
    before = resident_mb()
    begin = time.perf_counter()
    for index, pair in enumerate(keys):
        limiter.acquire_now(pair, index // 100)
    elapsed = time.perf_counter() - begin
    with capsys.disabled():
        print(
            f"\nlimiter in memory: {elapsed / count * 1e9:,.0f} ns a call of two windows, "
            f"{(resident_mb() - before) * 1e6 / count:,.0f} bytes a window"
        )
