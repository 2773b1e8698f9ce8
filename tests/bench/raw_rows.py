"""The reference of what is durable: rows of the same size through the bare writer thread."""

from __future__ import annotations

import itertools
import sqlite3
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import trio

from whatsappd.store.sqlite.database import open_database

#: Seconds that each figure is taken for.
SECONDS = 3.0
TEXT = "x" * 200


class Rate(NamedTuple):
    """Calls a second, and how long one takes, in ms."""

    rate: float
    p50: float
    p99: float


def rate_of(times: list[float], elapsed: float) -> Rate:
    """From the seconds that each call took, and all of them together."""
    cuts = statistics.quantiles(times, n=100)
    return Rate(len(times) / elapsed, cuts[49] * 1000, cuts[98] * 1000)


def say_rates(
    measured: Callable[..., None], what: str, ours: Rate, raw: Rate, *, aim: str | None = None
) -> None:
    """Say a rate beside that of raw rows; `aim` is about the calls a second."""
    units = ("/s", "ms", "ms")
    for name, unit, mine, theirs in zip(("a second", "p50", "p99"), units, ours, raw, strict=True):
        measured(
            f"{what}, {name}",
            mine,
            unit,
            beside="raw rows",
            reference=theirs,
            aim=aim if name == "a second" else None,
        )


async def repeat(callers: int, call: Callable[[], Awaitable[object]]) -> Rate:
    """`callers` tasks repeat `call` for SECONDS."""
    times: list[float] = []
    begin = time.perf_counter()
    end = begin + SECONDS

    async def one() -> None:
        before = time.perf_counter()
        while before < end:
            await call()
            after = time.perf_counter()
            times.append(after - before)
            before = after

    async with trio.open_nursery() as nursery:
        for _ in range(callers):
            nursery.start_soon(one)
    return rate_of(times, time.perf_counter() - begin)


async def raw_rate(directory: Path, callers: int) -> Rate:
    """Rows of 300 bytes with two indexes, one transaction a caller."""
    numbers = itertools.count()

    def insert(conn: sqlite3.Connection) -> None:
        number = next(numbers)
        values = (number, f"key{number}", "acme", TEXT + "x" * 100)
        conn.execute("INSERT INTO raw VALUES (?, ?, ?, ?)", values)

    async with open_database(directory / f"raw{callers}.db") as database:
        for statement in (
            "CREATE TABLE raw (id INTEGER PRIMARY KEY, key UNIQUE, company, text)",
            "CREATE INDEX raw_company ON raw (company, id)",
        ):
            await database.write(lambda conn, statement=statement: conn.execute(statement))
        return await repeat(callers, lambda: database.write(insert))
