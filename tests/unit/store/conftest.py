"""An open database with its event log, on a clock that tests set."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

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

    @asynccontextmanager
    async def busy() -> AsyncIterator[trio.Nursery]:
        entered, gate = threading.Event(), threading.Event()

        def hold(_conn: object) -> None:
            entered.set()
            assert gate.wait(10)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(database.write, hold)
            await trio.to_thread.run_sync(entered.wait)
            try:
                yield nursery
                await trio.testing.wait_all_tasks_blocked()
            finally:
                gate.set()

    return busy


HangUp = Callable[..., Awaitable[None]]


@pytest.fixture
def hang_up(database: Database, busy_writer: BusyWriter) -> HangUp:
    """`await hang_up(call, *arguments)`: cancel the call while its write waits for the writer;
    returns when that write is committed."""

    async def hang_up(call: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        async with busy_writer():
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(call, *arguments)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            assert scope.cancelled_caught
        await database.write(lambda _conn: None)

    return hang_up
