"""A store whose writer is in the middle of a transaction, and callers who hang up meanwhile.

Only the store on disk has a writer that goes on when its caller is cancelled, so these tests need
it: the memory twin is done with a change before anybody can hang up.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from whatsappd.store.sqlite.database import Database


@asynccontextmanager
async def busy_writer(database: Database) -> AsyncIterator[trio.Nursery]:
    """While inside, the writer is in the middle of a transaction. What the nursery starts gathers
    for the next one, which begins at the end."""
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


async def hang_up(database: Database, call: Callable[..., Awaitable[Any]], *arguments: Any) -> bool:
    """Cancels the call while its write waits for the writer; returns when that is committed.

    Returns whether the call ended by it: not if it had to be brought to its end.
    """
    scope = trio.CancelScope()

    async def caller() -> None:
        with scope:
            await call(*arguments)

    async with busy_writer(database) as nursery:
        nursery.start_soon(caller)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
    await database.write(lambda _conn: None)
    return scope.cancelled_caught
