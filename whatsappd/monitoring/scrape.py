"""Gathering the figures when somebody asks for metrics; nothing is done in between.

The objects' own figures are copied in trio; the kernel is asked, and the text made, in a thread.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import NamedTuple

import trio

from whatsappd import __version__
from whatsappd.clock import now_ms
from whatsappd.engines.child_process import ProcessView
from whatsappd.errors import StoreFailed
from whatsappd.model.consumer import is_webhook
from whatsappd.monitoring import procfs
from whatsappd.monitoring.health import Check
from whatsappd.monitoring.loop import LoopClock
from whatsappd.monitoring.monitor import Monitor, Watched
from whatsappd.monitoring.snapshot import (
    CompanyFigures,
    MethodFigures,
    Snapshot,
    TaskFigures,
    WebhookFigures,
)
from whatsappd.rpc.method import MethodTable
from whatsappd.rpc.method_stats import Tally
from whatsappd.rpc.own_descendants import DescendantCheck
from whatsappd.rpc.server import RpcServer
from whatsappd.rules.alerts import AlertRule
from whatsappd.rules.webhooks import WebhookAlert
from whatsappd.sessions.session import CompanySession
from whatsappd.store.sqlite.events import EventLog


class Served(NamedTuple):
    """What exists only once the socket is served."""

    server: RpcServer
    table: MethodTable
    subscriber_lags: Callable[[], Sequence[int]]
    descent: DescendantCheck


class Scrape:
    """Makes metrics. `served` is set by the composition root."""

    def __init__(
        self, watched: Watched, monitor: Monitor, clock: LoopClock, events: EventLog, mode: str
    ) -> None:
        self._watched = watched
        self._monitor = monitor
        self._clock = clock
        self._events = events
        self._mode = mode
        # One at a time: a second scraper waits instead of taking another thread's time.
        self._one = trio.CapacityLimiter(1)
        self._memory = procfs.MemoryReader()
        self.served: Served | None = None

    async def text(self, companies: frozenset[str] | None = None) -> str:
        """All metrics as Prometheus text.

        Args:
            companies: those to tell about, and the webhooks of those alone; no consumers then, as
                their names tell whose they are. None: all.
        """
        watched = self._watched
        oldest: dict[str, int] = {}
        lags: dict[str, int] = {}
        webhooks: list[WebhookFigures] = []
        try:
            oldest = await watched.outbox.view.oldest_queued()
            for consumer in await self._events.list_consumers():
                if companies is None and not is_webhook(consumer.name):
                    lags[consumer.name] = self._events.last_seq - consumer.cursor
            webhooks = await self._webhooks(companies)
        except StoreFailed:
            pass  # the figures that say so are told all the same
        report = await self._monitor.report(companies)
        snapshot = self._snapshot(companies, report.checks, oldest, lags, webhooks)
        views = {
            session.company: view
            for session in watched.pool.sessions()
            if (view := session.worker_view) is not None
        }
        return await trio.to_thread.run_sync(
            self._complete_and_render, snapshot, views, limiter=self._one
        )

    def _complete_and_render(self, snapshot: Snapshot, views: Mapping[str, ProcessView]) -> str:
        """In a thread: ask the kernel, and make the text."""
        from whatsappd.monitoring.exposition import render

        memory = self._memory.read(views)
        versions = {"neonize": version("neonize"), "python": platform.python_version()}
        return render(
            snapshot._replace(
                versions={**snapshot.versions, **versions},
                companies=[
                    figures._replace(memory=memory.get(figures.company))
                    for figures in snapshot.companies
                ],
                database_bytes=self._watched.database.size,
                disk=procfs.disk_of(self._watched.state_dir),
            )
        )

    def _snapshot(
        self,
        companies: frozenset[str] | None,
        checks: Sequence[Check],
        oldest: dict[str, int],
        lags: dict[str, int],
        webhooks: Sequence[WebhookFigures],
    ) -> Snapshot:
        watched, served = self._watched, self.served
        alerts: dict[AlertRule | WebhookAlert, int] = dict(self._monitor.open_alerts().items())
        alerts[WebhookAlert.FAILING] = sum(figures.is_paused for figures in webhooks)
        return Snapshot(
            now_ms=now_ms(),
            started_ms=self._monitor.started_ms,
            versions={"version": __version__, "mode": self._mode},
            companies=[
                self._company(session, oldest.get(session.company))
                for session in watched.pool.sessions()
                if companies is None or session.company in companies
            ],
            alerts=alerts,
            checks={check.name: check.ok for check in checks},
            methods=_methods(served.table) if served else [],
            connections=served.server.connections if served else 0,
            connections_accepted=served.server.accepted if served else 0,
            connections_refused=served.server.refused if served else 0,
            descendants_refused=served.descent.refused if served else 0,
            fork_server_up=watched.fork_server.pid is not None,
            fork_server_restarts=watched.fork_server.restarts,
            first_seq=self._events.first_seq,
            last_seq=self._events.last_seq,
            tail_events=self._events.tail_events,
            tail_bytes=self._events.tail_bytes,
            subscriber_lags=served.subscriber_lags() if served else [],
            consumer_lags=lags,
            webhooks=webhooks,
            webhooks_delivered=watched.deliverer_away_ms() is None,
            database_bytes=0,
            database_trouble=watched.database.trouble is not None,
            log_dropped=watched.log.dropped,
            disk=None,
            supervised=[
                TaskFigures(
                    task=task.name,
                    company=task.company or "",
                    is_well=task.is_well,
                    failures=task.failures,
                    error=(task.error or "").partition(":")[0],
                    failed_ms=task.failed_ms,
                )
                for task in watched.supervision.tasks()
                if task.company is None or companies is None or task.company in companies
            ],
            tasks=trio.lowlevel.current_statistics().tasks_living,
            loop_busy_s=self._clock.busy_s,
            loop_longest_s=self._monitor.loop_longest_ms / 1000,
        )

    async def _webhooks(self, companies: frozenset[str] | None) -> list[WebhookFigures]:
        """Of those that are enabled, and for these companies alone. Raises StoreFailed."""
        waiting = await self._watched.webhooks.waiting_since()
        return [
            WebhookFigures(
                webhook=webhook.id,
                delivered=webhook.delivered,
                failures=webhook.failures,
                lag_events=max(0, self._events.last_seq - webhook.cursor),
                waiting_since_ms=waiting.get(webhook.id),
                is_paused=webhook.paused_since_ms is not None,
                dead_letters=webhook.dead_letters,
                gone=webhook.gone,
            )
            for webhook in await self._watched.webhooks.all()
            if webhook.wanted.enabled and (companies is None or webhook.is_for(companies))
        ]

    def _company(self, session: CompanySession, oldest_ms: int | None) -> CompanyFigures:
        company, counters = session.company, session.counters
        outbox = self._watched.outbox
        return CompanyFigures(
            company=company,
            state=session.state,
            is_wanted=session.wanted,
            is_well=session.judgement().ok,
            health_ok=counters.health_ok,
            health_failed=counters.health_failed,
            connections=counters.connections,
            reconnections=counters.reconnections,
            restarts=dict(counters.restarts),
            errors=counters.errors,
            last_error_ms=session.last_error_ms,
            last_inbound_ms=session.last_inbound_ms,
            qr_codes=counters.qr_codes,
            refused_calls=dict(counters.refused_calls),
            inbound=dict(counters.inbound),
            accepted=outbox.view.accepted(company),
            entered=outbox.view.entered(company),
            rows=outbox.view.counts(company),
            oldest_queued_ms=oldest_ms,
            limiter_waits=counters.limiter_waits,
            limiter_wait_s=counters.limiter_wait_s,
            is_outreach_paused=self._watched.pool.pacing(company).paused_until_ms is not None,
        )


def _methods(table: MethodTable) -> list[MethodFigures]:
    """Of the methods that were called; calls of what there is not are under `unknown`."""
    tallies: list[tuple[str, Tally]] = [(name, table[name].tally) for name in table]
    tallies.append(("unknown", table.unknown_tally))
    return [
        MethodFigures(name, tuple(tally.counts), tally.seconds, dict(tally.errors))
        for name, tally in tallies
        if tally.requests
    ]
