"""One company in the daemon: its session, its limits, and the two tasks that run them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from weakref import WeakValueDictionary

import trio

from whatsappd.sessions.dispatcher import Dispatcher
from whatsappd.sessions.pacing import Pacing
from whatsappd.sessions.session import CompanySession
from whatsappd.sessions.session_parts import SessionParts
from whatsappd.supervision import Supervision


class CompanyTasks:
    """A company's `session` and `dispatcher` tasks."""

    def __init__(
        self,
        session: CompanySession,
        pacing: Pacing,
        parts: SessionParts,
        supervision: Supervision,
    ) -> None:
        self.session = session
        self.pacing = pacing
        self._parts = parts
        self._supervision = supervision
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._ended.set()

    def begin(self, nursery: trio.Nursery) -> None:
        """Start the tasks. Each is started again after an error."""
        self._scope, self._ended = trio.CancelScope(), trio.Event()
        nursery.start_soon(self._run, self._scope, self._ended)

    async def end(self) -> None:
        """End the tasks, and the worker with them. `begin` may follow."""
        self._scope.cancel()
        await self._ended.wait()

    async def _run(self, scope: trio.CancelScope, ended: trio.Event) -> None:
        """An error in one task leaves the other alone."""
        session, parts = self.session, self._parts
        dispatcher = Dispatcher(session, parts.outbox, self.pacing, parts.settings)
        keep = partial(self._supervision.keep, company=session.company)
        try:
            with scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(keep, "dispatcher", dispatcher.run)
                    await keep("session", session.run)
        finally:
            ended.set()


class CompanyLocks:
    """A lock for each company: it is not made twice, and does not come back while it is removed."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, trio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def alone(self, company: str) -> AsyncIterator[None]:
        """Wait until nobody else changes whether the company exists, or runs."""
        lock = self._locks.setdefault(company, trio.Lock())
        async with lock:
            yield
