"""An open database with its event log, on a clock that tests set."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import busy_writer as writer
import pytest
import trio

from whatsappd.store.sqlite.database import Database, open_database
from whatsappd.store.sqlite.event_log import SqliteEventLog, open_event_log


class Clock:
    """Epoch milliseconds that move only when told."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "whatsappd.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    async with open_database(path) as database:
        yield database


@pytest.fixture
async def log(database: Database, clock: Clock) -> SqliteEventLog:
    return await open_event_log(database, clock=clock)


BusyWriter = Callable[[], AbstractAsyncContextManager[trio.Nursery]]


@pytest.fixture
def busy_writer(database: Database) -> BusyWriter:
    """`async with busy_writer() as nursery`: while inside, the writer is in the middle of a
    transaction. What the nursery starts gathers for the next one, which begins at the end."""

    return partial(writer.busy_writer, database)


HangUp = Callable[..., Awaitable[None]]


@pytest.fixture
def hang_up(database: Database) -> HangUp:
    """`await hang_up(call, *arguments)`: cancel the call while its write waits for the writer;
    returns when that write is committed."""

    async def hang_up(call: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        assert await writer.hang_up(database, call, *arguments)

    return hang_up
