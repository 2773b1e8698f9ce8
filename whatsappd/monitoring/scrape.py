"""Makes the text of all metrics whenever somebody asks for them.

The figures of the daemon's parts are read in trio, without a wait between two figures of one
company. A thread then asks the kernel and makes the text.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from importlib.metadata import version
from typing import NamedTuple

import trio

from whatsappd import __version__
from whatsappd.clock import now_ms
from whatsappd.engines import metrics as engines
from whatsappd.engines.port import KernelView
from whatsappd.errors import StoreFailed, UnknownCompany
from whatsappd.metric import Readings
from whatsappd.model.consumer import is_webhook
from whatsappd.monitoring import kernel, metrics
from whatsappd.monitoring.health_rounds import HealthRounds
from whatsappd.monitoring.metrics import ALL_METRICS, LoopFigures, WorkerMemory
from whatsappd.monitoring.watched import Watched
from whatsappd.rpc import metrics as rpc
from whatsappd.rpc.method import MethodTable
from whatsappd.rpc.own_descendants import DescendantCheck
from whatsappd.rpc.user_shares import ConnectionCounts
from whatsappd.rules.webhook_alerts import WebhookAlert
from whatsappd.sessions import metrics as sessions
from whatsappd.sessions.session import CompanySession
from whatsappd.store import metrics as store
from whatsappd.store.metrics import OutboxFigures, WebhookFigures, age_ms

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class SocketFigures(NamedTuple):
    """What is read of the socket and its callers.

    Attributes:
        subscriber_lags: how many events each subscription has not been given yet.
        descendants: counts the daemon's own descendants that were refused.
    """

    connections: ConnectionCounts
    table: MethodTable
    subscriber_lags: Callable[[], Sequence[int]]
    descendants: DescendantCheck


class _Stored(NamedTuple):
    """Figures that only the store has; empty while its disk fails, which another figure tells."""

    oldest_queued_ms: Mapping[str, int] = {}  # by company, in epoch milliseconds
    consumer_lags: Mapping[str, int] = {}
    webhooks: Sequence[WebhookFigures] = ()


class Scrape:
    """Makes the text of all metrics.

    Args:
        mode: `real` or `sandbox`.
    """

    def __init__(
        self, watched: Watched, health: HealthRounds, socket: SocketFigures, mode: str
    ) -> None:
        self._watched = watched
        self._store = watched.store
        self._health = health
        self._socket = socket
        self._mode = mode
        # One at a time: a second scraper waits instead of taking another thread's time.
        self._one = trio.CapacityLimiter(1)
        self._memory = kernel.MemoryReader()

    async def text(self, companies: frozenset[str] | None = None) -> str:
        """All metrics as Prometheus text.

        Figures that the store does not give, because its disk fails, are left out.

        Args:
            companies: only their figures and those of their webhooks are told, and no consumers',
                because a consumer's name tells whose it is. None: everything is told.
        """
        stored = await self._ask_store(companies)
        report = await self._health.report(companies)
        readings = Readings()
        readings.read(metrics.CHECKS, report.checks)
        self._read_daemon(readings, stored, companies)
        self._read_store(readings, stored)
        self._read_socket(readings)
        told = self._watched.sessions.of(companies)
        readings.read(sessions.SESSIONS, told)
        for session in told:
            # Hundreds of companies take milliseconds: others have their turn in between.
            await trio.lowlevel.checkpoint()
            with suppress(UnknownCompany):  # removed meanwhile
                self._read_company(readings, session, stored)
        views = {
            session.company: view
            for session in self._watched.sessions.pool.sessions()
            if (view := session.worker_view) is not None
        }
        companies_told = {session.company for session in told}
        return await trio.to_thread.run_sync(
            self._complete_and_render, readings, views, companies_told, limiter=self._one
        )

    async def _ask_store(self, companies: frozenset[str] | None) -> _Stored:
        stored = _Stored()
        try:
            stored = stored._replace(oldest_queued_ms=await self._store.outbox.oldest_queued())
            lags = {
                consumer.name: self._store.events.last_seq - consumer.cursor
                for consumer in await self._store.consumers.all()
                if companies is None and not is_webhook(consumer.name)
            }
            stored = stored._replace(consumer_lags=lags)
            return stored._replace(webhooks=await self._ask_webhooks(companies))
        except StoreFailed:
            return stored

    async def _ask_webhooks(self, companies: frozenset[str] | None) -> list[WebhookFigures]:
        """Of those that are enabled, and for these companies alone. Raises StoreFailed."""
        waiting = await self._store.webhooks.waiting_since()
        now = now_ms()
        return [
            WebhookFigures(
                webhook,
                lag_events=max(0, self._store.events.last_seq - webhook.cursor),
                oldest_age_ms=age_ms(waiting.get(webhook.id), now),
            )
            for webhook in await self._store.webhooks.all()
            if webhook.wanted.enabled and (companies is None or webhook.is_for(companies))
        ]

    def _read_daemon(
        self, readings: Readings, stored: _Stored, companies: frozenset[str] | None
    ) -> None:
        watched, health = self._watched, self._health
        alerts = {str(rule): count for rule, count in health.open_alerts().items()}
        alerts[WebhookAlert.FAILING] = sum(
            figures.webhook.paused_since_ms is not None for figures in stored.webhooks
        )
        tasks = [
            task
            for task in watched.supervision.tasks()
            if task.company is None or companies is None or task.company in companies
        ]
        living = trio.lowlevel.current_statistics().tasks_living
        loop = LoopFigures(health.loop_busy_s, health.loop_longest_ms / 1000, living)
        readings.read(metrics.DAEMON, None)
        readings.read(metrics.START, health.started_ms)
        readings.read(metrics.ALERTS, alerts)
        readings.read(metrics.EVENT_LOOP, loop)
        readings.read(metrics.SUPERVISION, tasks)
        readings.read(metrics.LOG, watched.host.log.dropped)
        readings.read(engines.FORK_SERVER, watched.sessions.engine.status)

    def _read_store(self, readings: Readings, stored: _Stored) -> None:
        readings.read(store.DATABASE, self._store.health.trouble)
        readings.read(store.EVENT_LOG, self._store.events)
        readings.read(store.CONSUMERS, stored.consumer_lags)
        readings.read(store.DELIVERER, self._store.deliverer_away_ms())
        for figures in stored.webhooks:
            readings.read(store.WEBHOOK, figures)

    def _read_socket(self, readings: Readings) -> None:
        socket = self._socket
        readings.read(rpc.CONNECTIONS, socket.connections)
        readings.read(rpc.DESCENDANTS, socket.descendants.refused)
        readings.read(rpc.METHODS, socket.table)
        readings.read(store.SUBSCRIBERS, socket.subscriber_lags())

    def _read_company(self, readings: Readings, session: CompanySession, stored: _Stored) -> None:
        """Raises UnknownCompany, before anything was read."""
        company, view, now = session.company, self._store.outbox, now_ms()
        pacing = self._watched.sessions.pool.pacing(company)
        outbox = OutboxFigures(
            company,
            accepted=view.accepted(company),
            entered=view.entered(company),
            rows=view.counts(company),
            oldest_queued_age_ms=age_ms(stored.oldest_queued_ms.get(company), now),
        )
        readings.read(sessions.SESSION, session)
        readings.read(sessions.INBOUND, session)
        readings.read(sessions.PACING, pacing)
        readings.read(store.OUTBOX, outbox)

    def _complete_and_render(
        self, readings: Readings, views: Mapping[str, KernelView], told: Set[str]
    ) -> str:
        """In a thread: ask the kernel, and make the text."""
        from whatsappd.monitoring.prometheus_text import render

        versions = {
            "version": __version__,
            "mode": self._mode,
            "neonize": version("neonize"),
            "python": platform.python_version(),
        }
        readings.read(metrics.INFO, versions)
        memory = self._memory.read(views)  # of all: it forgets those that it is not asked about
        for company in told & memory.keys():
            readings.read(metrics.WORKER_MEMORY, WorkerMemory(company, memory[company]))
        readings.read(store.DATABASE_SIZE, self._store.health.size)
        readings.read(metrics.DISK, self._watched.host.disk())
        return render(ALL_METRICS, readings)
