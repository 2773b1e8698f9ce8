"""The one task that watches: every 30 s a round of health checks, and what follows from it.

Started by `app`. Whoever wants to know how the daemon is asks here, between the rounds too.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import structlog
import trio

from whatsappd.clock import now_ms, steady_ms
from whatsappd.engines.port import Engine
from whatsappd.errors import StoreFailed
from whatsappd.limits.port import LimiterHealth
from whatsappd.logs.writer import LogWriter
from whatsappd.model.message import OutboxState
from whatsappd.monitoring import health, kernel
from whatsappd.monitoring.event_loop_clock import LoopClock
from whatsappd.monitoring.health import Check, HealthReport, health_of
from whatsappd.monitoring.settings import AlertSettings, RecycleSettings
from whatsappd.monitoring.worker_recycler import Recycler
from whatsappd.rules.alerts import (
    LOOP_WINDOWS,
    AlertChange,
    AlertKey,
    AlertRule,
    HostFacts,
    SessionFacts,
    changes,
    findings,
)
from whatsappd.sessions.pool import Pool
from whatsappd.sessions.session import CompanySession
from whatsappd.state_directory import Place
from whatsappd.store.port import Outbox
from whatsappd.store.sqlite.alerts import Alerts
from whatsappd.store.sqlite.database import Database
from whatsappd.store.sqlite.webhooks import Webhook, Webhooks
from whatsappd.supervision import Supervision

log = structlog.get_logger()

#: Rounds that may be missed before the monitor, and with it the daemon, counts as stuck.
_MISSED_ROUNDS = 3
#: Changes that wait for the store to take them. Rules that flap for days must not fill the memory.
_MAX_UNRECORDED = 1000


class Watched(NamedTuple):
    """What is watched. What is a callable is asked anew each time.

    `deliverer_away_ms`: for how long nobody has delivered webhooks; None: somebody does.
    """

    state_dir: Path
    places: Sequence[Place]  # files that must stay where they are
    database: Database
    outbox: Outbox
    pool: Pool
    engine: Engine
    alerts: Alerts
    webhooks: Webhooks
    deliverer_away_ms: Callable[[], int | None]
    thresholds: Callable[[], AlertSettings]
    recycling: Callable[[], RecycleSettings]
    limiter: Callable[[], LimiterHealth]
    interval_s: float
    supervision: Supervision
    log: LogWriter


class _Now(NamedTuple):
    """One moment by both clocks (`clock`)."""

    wall: int
    steady: int

    def ago(self, duration_ms: int) -> int:
        """The wall clock's time of what was `duration_ms` before."""
        return self.wall - duration_ms


class _Waiting(NamedTuple):
    """A company's oldest queued message: how old it was when it was first seen to be that."""

    created_ms: int  # by the wall clock of then
    age_then_ms: int
    seen_at_ms: int  # by the steady one

    @classmethod
    def seen(cls, before: _Waiting | None, created_ms: int, now: _Now) -> _Waiting:
        if before is not None and before.created_ms == created_ms:
            return before
        return cls(created_ms, max(0, now.wall - created_ms), now.steady)

    def age_ms(self, now: _Now) -> int:
        return self.age_then_ms + now.steady - self.seen_at_ms


class Monitor:
    """`run` must be running; `report` can be asked at any time."""

    def __init__(self, watched: Watched, clock: LoopClock) -> None:
        self._watched = watched
        self._clock = clock
        self._recycler = Recycler(watched.pool, watched.recycling, watched.supervision)
        self.started_ms = now_ms()
        self._started_at_ms = steady_ms()
        self._delays_ms: deque[int] = deque(maxlen=LOOP_WINDOWS)
        self._round_at = trio.current_time()
        self._open: dict[AlertKey, int] | None = None  # None: not read yet
        self._waiting: dict[str, _Waiting] = {}
        self._unrecorded: deque[AlertChange] = deque(maxlen=_MAX_UNRECORDED)

    async def run(self) -> None:
        """Look at everything once in an interval, until cancelled.

        An error in one part of a round costs that part, and the next round tries it again.
        """
        watched, attempt = self._watched, self._watched.supervision.attempt
        while True:
            due = trio.current_time() + watched.interval_s
            await trio.sleep_until(due)
            late_s = trio.current_time() - due
            await attempt("health_checks", watched.pool.check_health)
            await attempt("recycler", self._recycler.look)
            self._delays_ms.append(round(max(late_s, self._clock.take_longest()) * 1000))
            await attempt("store_probe", self._prove_store)
            await attempt("alerts", self._look_for_alerts)
            self._round_at = trio.current_time()

    @property
    def is_alive(self) -> bool:
        """Whether rounds end when they should: what systemd's watchdog is to be told.

        False only when a restart may help. A disk that is full, or a session that is down, is told
        by the report and by alerts instead.
        """
        patience_s = _MISSED_ROUNDS * self._watched.interval_s + 30
        return trio.current_time() - self._round_at < patience_s

    @property
    def loop_longest_ms(self) -> int:
        """The longest time that everything had to wait, in this and the last round."""
        return max(round(self._clock.longest_s * 1000), *[0, *self._delays_ms][-1:])

    def open_alerts(self) -> Mapping[AlertRule, int]:
        """How many alerts of each rule are open."""
        counts = Counter(key.rule for key in self._open or ())
        return {rule: counts[rule] for rule in AlertRule}

    async def report(self, companies: frozenset[str] | None = None) -> HealthReport:
        """How everything is now.

        Args:
            companies: the sessions to tell about; None: all. With some, nothing names another, nor
                tells where things are kept.
        """
        watched = self._watched
        thresholds = watched.thresholds()
        told = [
            session
            for session in watched.pool.sessions()
            if companies is None or session.company in companies
        ]
        directories = [session.directory for session in told]
        disk, descriptors, places = await trio.to_thread.run_sync(self._ask_kernel, directories)
        if disk is not None and companies is not None:
            disk = disk._replace(path="")
        webhooks = await self._webhooks()
        if webhooks is not None and companies is not None:
            webhooks = [each for each in webhooks if each.is_for(companies)]
        sessions = [health_of(session) for session in told]
        checks = [
            health.check_store(watched.database.trouble),
            health.check_fork_server(watched.engine.status),
            health.check_confinement(watched.engine.status, told),
            health.check_event_loop(self.loop_longest_ms, thresholds),
            health.check_disk(disk, thresholds, watched.database.trouble),
            places,
            health.check_rounds(self.is_alive),
            health.check_descriptors(descriptors, kernel.descriptor_limit()),
            health.check_log(watched.log.trouble, watched.log.dropped),
            health.check_limiter(watched.limiter()),
            health.check_tasks(watched.supervision.tasks(), companies),
            health.check_webhooks(webhooks, watched.deliverer_away_ms()),
            health.check_sessions(sessions),
        ]
        return HealthReport(checks, sessions)

    async def _webhooks(self) -> list[Webhook] | None:
        try:
            return await self._watched.webhooks.all()
        except StoreFailed as error:
            log.error("webhooks_not_read", reason=error.message)
            return None

    def _ask_kernel(self, directories: Sequence[Path]) -> tuple[kernel.Disk | None, int, Check]:
        places = health.check_places(self._watched.places)
        return self._disk(directories), kernel.open_descriptors(), places

    def _disk(self, directories: Sequence[Path]) -> kernel.Disk | None:
        """Companies may be kept on disks of their own."""
        return kernel.disk_of(self._watched.state_dir, *directories)

    async def _prove_store(self) -> None:
        """After a refused write nobody may come to write again: find out whether it is over."""
        database = self._watched.database
        if database.trouble is not None:
            try:
                await database.probe()
            except StoreFailed as error:
                log.debug("store_still_failing", reason=error.message)

    # --- alerts -------------------------------------------------------------------------------

    async def _look_for_alerts(self) -> None:
        watched = self._watched
        if self._open is None:
            known = await watched.alerts.all()
            self._open = {key: found.since_ms for key, found in known.items()}
        was_open = self._open
        oldest: dict[str, int] | None = None
        try:
            oldest = await watched.outbox.view.oldest_queued()
        except StoreFailed as error:
            log.error("queue_not_read", reason=error.message)
        directories = [session.directory for session in watched.pool.sessions()]
        disk = await trio.to_thread.run_sync(self._disk, directories)
        now = _Now(now_ms(), steady_ms())
        host = HostFacts(
            now_ms=now.wall,
            started_ms=now.ago(now.steady - self._started_at_ms),
            disk_free_bytes=disk.free if disk else None,
            disk_files_free=disk.files_free if disk else None,
            store_trouble=watched.database.trouble,
            loop_delays_ms=tuple(self._delays_ms),
            queue_unread=oldest is None,
        )
        self._waiting = {
            company: _Waiting.seen(self._waiting.get(company), created_ms, now)
            for company, created_ms in (oldest or {}).items()
        }
        sessions = [self._facts(session, now) for session in watched.pool.sessions()]
        found = findings(host, sessions, watched.thresholds(), was_open.keys())
        for change in list(changes(was_open, found)):
            self._take(change, was_open)
        await self._record()

    def _facts(self, session: CompanySession, now: _Now) -> SessionFacts:
        """Times of this daemon's own life are told as if the wall clock had never been set."""
        company, down_ms = session.company, session.down_ms
        waiting = self._waiting.get(company)
        return SessionFacts(
            company=company,
            wanted=session.wanted,
            state=session.state,
            cause=session.cause,
            down_since_ms=None if down_ms is None else now.ago(down_ms),
            oldest_queued_ms=None if waiting is None else now.ago(waiting.age_ms(now)),
            queued=self._watched.outbox.view.counts(company).get(OutboxState.QUEUED, 0),
            crashes_ms=[now.ago(now.steady - at_ms) for at_ms in session.counters.crashes_ms],
        )

    def _take(self, change: AlertChange, is_open: dict[AlertKey, int]) -> None:
        key = change.key
        if change.is_raised:
            is_open[key] = change.since_ms
            log.warning("alert_raised", rule=key.rule, company=key.company, detail=change.detail)
        else:
            del is_open[key]
            log.info("alert_cleared", rule=key.rule, company=key.company)
        self._unrecorded.append(change)

    async def _record(self) -> None:
        """Log what changed. While the store takes nothing it waits here, in order."""
        if not self._unrecorded:
            return
        changes = tuple(self._unrecorded)
        try:
            await self._watched.alerts.record(changes)
        except StoreFailed as error:
            log.error("alerts_not_logged", reason=error.message, waiting=len(changes))
            return
        self._unrecorded.clear()
