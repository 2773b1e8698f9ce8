"""Callers who hang up while something is changed: what was begun is brought to its end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from busy_writer import busy_writer, hang_up
from fake_engine import FakeEngine, FakeWorker

from whatsappd.engines.protocol import ClientConnected
from whatsappd.errors import UnknownCompany
from whatsappd.limits.memory import MemoryLimiter
from whatsappd.limits.settings import SendLimits
from whatsappd.model.session import SessionState
from whatsappd.sessions.inbound import InboundLog
from whatsappd.sessions.pacing import PacingParts
from whatsappd.sessions.pool import Pool
from whatsappd.sessions.session_parts import SessionParts
from whatsappd.sessions.settings import SessionSettings
from whatsappd.state_directory import StateDirectory
from whatsappd.store.port import Removals
from whatsappd.store.sqlite.companies import SqliteCompanies
from whatsappd.store.sqlite.database import Database, open_database
from whatsappd.store.sqlite.store import store_in
from whatsappd.supervision import Supervision


class World:
    def __init__(
        self, database: Database, companies: SqliteCompanies, removals: Removals, pool: Pool
    ) -> None:
        self.removals = removals
        self.database = database
        self.companies = companies
        self.pool = pool


@asynccontextmanager
async def world(path: Path, *workers: FakeWorker) -> AsyncIterator[World]:
    """A pool that knows one company, which was never started."""
    async with open_database(path / "whatsappd.db") as database:
        store = await store_in(database, StateDirectory(path).company)
        companies = store.companies
        await companies.put_wanted("acme", True)
        pool = Pool(
            state=StateDirectory(path),
            sessions=SessionParts(
                engine=FakeEngine(*workers),
                companies=companies,
                inbound=InboundLog(store.events, store.inbound, retry_s=1),
                outbox=store.outbox,
                settings=SessionSettings(start_jitter_s=1e6),  # it is not brought back in time
            ),
            removals=store.removals,
            pacing=PacingParts(MemoryLimiter(), store, SendLimits),
            foreign_children=set,
            supervision=Supervision(),
        )
        await pool.load()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.run)
            await trio.testing.wait_all_tasks_blocked()
            yield World(database, companies, store.removals, pool)
            nursery.cancel_scope.cancel()


async def test_limits_that_were_stored_are_in_force(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        pacing = here.pool.pacing("acme")
        version = pacing.version
        await hang_up(here.database, pacing.configure, {"per_minute": 7})
        assert (await here.companies.settings("acme"))["per_minute"] == 7
        assert pacing.limits.per_minute == 7
        assert pacing.version > version  # what waits is looked at again


async def test_limits_leave_a_pause_alone_that_began_meanwhile(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        pacing = here.pool.pacing("acme")
        async with busy_writer(here.database) as nursery:
            nursery.start_soon(pacing.configure, {"per_minute": 7})
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(pacing.struck)
            await trio.testing.wait_all_tasks_blocked()
        assert pacing.paused_until_ms is not None


async def test_a_removal_is_brought_to_its_end(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        directory = tmp_path / "companies" / "acme"
        directory.mkdir(parents=True)

        async def remove() -> None:
            await here.pool.remove("acme", force=False)

        await hang_up(here.database, remove)
        with pytest.raises(UnknownCompany):
            here.pool.get("acme")
        assert await here.companies.all() == []
        # What is left of it goes whoever waits for that.
        with trio.fail_after(10):
            while await here.removals.pending():
                await trio.testing.wait_all_tasks_blocked()
        assert not directory.exists()


async def test_a_session_that_was_unlinked_is_not_wanted_any_more(tmp_path: Path) -> None:
    worker = FakeWorker(brings=[ClientConnected("15550100:1@s.whatsapp.net", None, "Ann")])
    async with world(tmp_path, worker) as here:
        session = await here.pool.start("acme", take_over=False)
        with trio.fail_after(10):
            while session.state is not SessionState.CONNECTED:
                await session.wait_changed()
        assert session.wanted
        await hang_up(here.database, here.pool.logout, "acme")
        assert session.state in (SessionState.LOGGED_OUT, SessionState.STOPPED)
        assert not (await here.companies.get("acme")).wanted
        assert not session.wanted


@pytest.mark.parametrize("verb", ["stop", "start", "restart", "configure"])
async def test_a_company_that_is_removed_never_comes_back(tmp_path: Path, verb: str) -> None:
    """Whatever is asked of it meanwhile, and whichever of the two is ahead at any moment."""
    for ahead in range(-12, 13, 3):
        directory = tmp_path / str(ahead)
        directory.mkdir()
        async with world(directory) as here:
            pool = here.pool
            calls = {
                "stop": partial(pool.stop, "acme"),
                "start": partial(pool.start, "acme", take_over=False),
                "restart": partial(pool.restart, "acme"),
                "configure": partial(pool.pacing("acme").configure, {"per_minute": 7}),
            }

            async def after(steps: int, call: Callable[[], Awaitable[object]]) -> None:
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                with suppress(UnknownCompany):
                    await call()

            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(after, max(0, ahead), calls[verb])
                    nursery.start_soon(
                        after, max(0, -ahead), partial(pool.remove, "acme", force=True)
                    )
            assert await here.companies.all() == []
            assert pool.sessions() == []
