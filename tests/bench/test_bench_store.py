"""The store without a daemon around it: accepted messages a second; and the limiter in memory.

The figures depend on the disk and on who else works there: the ratio to the raw writer thread is
what to look at. What the store costs a daemon's memory is in `test_bench_sends`.
"""

from __future__ import annotations

import gc
import itertools
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from raw_rows import TEXT, raw_rate, repeat, say_rates

from whatsappd.limits.memory import MemoryLimiter
from whatsappd.limits.port import LimitKey
from whatsappd.model.content import Text
from whatsappd.model.message import NewMessage
from whatsappd.store.port import Outbox
from whatsappd.store.sqlite.database import open_database
from whatsappd.store.sqlite.event_log import open_event_log
from whatsappd.store.sqlite.outbox import open_outbox

pytestmark = pytest.mark.bench

KEYS = 100_000


async def accept_next(outbox: Outbox, numbers: Iterator[int]) -> None:
    number = next(numbers)
    new = NewMessage("acme", f"{number % 500}@s.whatsapp.net", Text(TEXT), f"key{number}")
    await outbox.submissions.accept(new, 10**9)


@pytest.mark.parametrize("callers", [1, 100])
async def test_durable_sends_beside_the_raw_writer_thread(
    tmp_path: Path, measured: Callable[..., None], callers: int
) -> None:
    raw = await raw_rate(tmp_path, callers)
    async with open_database(tmp_path / "outbox.db") as database:
        log = await open_event_log(database)
        outbox = await open_outbox(database, log)
        accepted = await repeat(callers, partial(accept_next, outbox, itertools.count()))
    say_rates(
        measured, f"outbox.submissions.accept (row and event), {callers} callers", accepted, raw
    )
    assert accepted.rate > 100  # a guard against something absurd, not the aim


def resident_bytes() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_the_limiter_in_memory(measured: Callable[..., None]) -> None:
    limiter = MemoryLimiter()
    keys = [
        [LimitKey("acme", 10**9, 60_000), LimitKey(f"acme:{index}", 5, 60_000)]
        for index in range(KEYS)
    ]
    before = resident_bytes()
    began = time.perf_counter()
    for index, pair in enumerate(keys):
        limiter.acquire_now(pair, index // 100)
    elapsed = time.perf_counter() - began
    measured("limiter in memory, a call of two windows", elapsed / KEYS * 1e9, "ns")
    measured("limiter in memory, a window", (resident_bytes() - before) / KEYS, "bytes")
