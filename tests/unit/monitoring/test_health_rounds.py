"""Rounds of health checks: alerts wait for a store that fails, and what was open stays open."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import msgpack
import pytest
import trio
import trio.testing
from fake_engine import FakeEngine

from whatsappd.engines.port import EngineStatus
from whatsappd.handlers.monitoring import shown_health
from whatsappd.limits.port import LimiterHealth
from whatsappd.logs.writer import LogWriter
from whatsappd.model.session import SessionState
from whatsappd.monitoring.event_loop_clock import LoopClock
from whatsappd.monitoring.health_rounds import HealthRounds
from whatsappd.monitoring.settings import AlertSettings, RecycleSettings
from whatsappd.monitoring.watched import (
    Watched,
    WatchedHost,
    WatchedSessions,
    WatchedStore,
    WatchSettings,
)
from whatsappd.rules.alerts import AlertFinding, AlertKey, AlertRule
from whatsappd.store.memory.store import store_in_memory
from whatsappd.store.memory.tables import MemoryTables
from whatsappd.supervision import Supervision

STORE = AlertKey(AlertRule.STORE_FAILING)
REMOVED = AlertKey(AlertRule.SESSION_DOWN, "removed")
OLD = AlertKey(AlertRule.QUEUE_OLD, "acme")


class World:
    """Sessions of which nothing is known but their names, above a store in memory."""

    def __init__(self) -> None:
        self.tables = MemoryTables()
        self.store = store_in_memory(self.tables)
        self.companies: list[str] = []
        self.hangs = False
        self.rounds = 0
        self.again = trio.Event()

    def watched(self, interval_s: float) -> Watched:
        store = self.store
        return Watched(
            store=WatchedStore(
                health=store.health,
                events=store.events,
                consumers=store.consumers,
                outbox=store.outbox.view,
                alerts=store.alerts,
                webhooks=store.webhooks,
                deliverer_away_ms=lambda: None,
            ),
            sessions=WatchedSessions(
                pool=self,
                engine=FakeEngine(status=EngineStatus(pid=1, is_ready=True)),
                limiter=lambda: LimiterHealth("memory"),
            ),
            host=WatchedHost(Path("/"), places=[], log=LogWriter(2)),
            settings=WatchSettings(
                alerts=lambda: AlertSettings(disk_free_bytes=0),
                recycling=lambda: RecycleSettings(memory=0, descriptors=0, threads=0),
                interval_s=interval_s,
            ),
            supervision=Supervision(),
        )

    def fill_disk(self) -> None:
        """The store takes no writes, and has found that out."""
        self.tables.refuse("probe")
        self.tables.refuse("record")
        self.tables.trouble = "the disk is full"

    # --- the pool

    def sessions(self) -> list[object]:
        return [
            SimpleNamespace(
                company=company,
                wanted=True,
                state=SessionState.CONNECTED,
                cause="connected",
                down_ms=None,
                directory=Path("/"),
                recyclable=None,
                counters=SimpleNamespace(crashes_ms=()),
                refused_calls={"socket": 3} if company == "globex" else {},
            )
            for company in self.companies
        ]

    async def check_health(self) -> None:
        self.rounds += 1
        self.again.set()
        self.again = trio.Event()
        if self.hangs:
            await trio.sleep_forever()

    async def some_rounds(self) -> None:
        """Wait until at least one whole round has passed."""
        until = self.rounds + 2
        with trio.fail_after(10):
            while self.rounds < until:
                await self.again.wait()

    def told(self) -> list[tuple[AlertKey, bool, int]]:
        """The alerts in the log: which, whether raised, and since when."""
        found = []
        for stored in self.tables.events.values():
            data = msgpack.unpackb(stored.packed)["data"]
            key = AlertKey(AlertRule(data["rule"]), data["company"])
            found.append((key, data["state"] == "raised", data["since_ms"]))
        return found

    def changes(self) -> list[tuple[AlertKey, bool]]:
        return [(key, is_raised) for key, is_raised, _ in self.told()]


@pytest.fixture
def world() -> World:
    return World()


async def test_an_alert_about_the_store_is_logged_when_the_store_takes_it(
    world: World, nursery: trio.Nursery
) -> None:
    health = HealthRounds(world.watched(0.005), LoopClock())
    nursery.start_soon(health.run)
    world.fill_disk()
    await world.some_rounds()
    assert world.told() == []
    assert health.open_alerts()[AlertRule.STORE_FAILING] == 1  # but health and metrics tell it
    report = await health.report()
    assert not report.healthy
    world.tables.take("probe")
    await world.some_rounds()
    world.tables.take("record")
    await world.some_rounds()
    assert world.changes() == [(STORE, True), (STORE, False)]
    assert (await health.report()).healthy


async def test_a_store_that_does_not_answer_is_a_finding_and_no_error(world: World) -> None:
    world.tables.refuse("all")
    report = await HealthRounds(world.watched(30), LoopClock()).report()
    [webhooks] = [check for check in report.checks if check.name == "webhooks"]
    assert not webhooks.ok
    assert webhooks.remedy


async def test_who_is_bound_to_some_companies_is_told_no_other_one_and_no_path(
    world: World,
) -> None:
    world.companies = ["globex"]
    health = HealthRounds(world.watched(30), LoopClock())
    report = await health.report(frozenset({"acme"}))
    assert "globex" not in str(shown_health(report))
    checks = {check.name: check for check in report.checks}
    assert checks["confinement"].ok
    assert "are free" in checks["disk"].detail
    assert "(/" not in checks["disk"].detail


async def test_what_was_open_before_the_start_is_not_raised_again(
    world: World, nursery: trio.Nursery
) -> None:
    world.tables.alerts = {STORE: AlertFinding(5, "full"), REMOVED: AlertFinding(6, "down")}
    world.tables.refuse("probe")
    world.tables.trouble = "the disk is full"
    nursery.start_soon(HealthRounds(world.watched(0.005), LoopClock()).run)
    await world.some_rounds()
    assert world.changes() == [(REMOVED, False)]
    world.tables.take("probe")
    await world.some_rounds()
    assert world.changes() == [(REMOVED, False), (STORE, False)]
    assert world.told()[1][2] == 5


async def test_an_alert_about_a_queue_that_cannot_be_read_is_not_over(
    world: World, nursery: trio.Nursery
) -> None:
    world.tables.alerts = {OLD: AlertFinding(5, "2 messages wait")}
    world.companies = ["acme"]
    world.tables.refuse("oldest_queued")
    health = HealthRounds(world.watched(0.005), LoopClock())
    nursery.start_soon(health.run)
    await world.some_rounds()
    assert world.told() == []
    assert health.open_alerts()[AlertRule.QUEUE_OLD] == 1
    world.tables.take("oldest_queued")
    await world.some_rounds()
    assert world.changes() == [(OLD, False)]


async def test_rounds_that_do_not_end_are_what_the_watchdog_is_for(world: World) -> None:
    clock = trio.testing.MockClock()

    async def main() -> None:
        health = HealthRounds(world.watched(30), LoopClock())
        async with trio.open_nursery() as rounds:
            rounds.start_soon(health.run)
            await trio.testing.wait_all_tasks_blocked()
            world.hangs = True
            clock.jump(31)
            await trio.testing.wait_all_tasks_blocked()
            assert world.rounds == 1
            assert health.is_alive
            clock.jump(200)
            assert not health.is_alive
            rounds.cancel_scope.cancel()

    world.again = trio.Event()
    await trio.to_thread.run_sync(lambda: trio.run(main, clock=clock))
