"""The parts of the daemon that health checks, alerts and metrics look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from whatsappd.engines.port import Engine
from whatsappd.limits.port import LimiterHealth
from whatsappd.logs.writer import LogWriter
from whatsappd.monitoring import kernel
from whatsappd.monitoring.settings import AlertSettings, RecycleSettings
from whatsappd.sessions.pacing import Pacing
from whatsappd.sessions.session import CompanySession
from whatsappd.state_directory import Place
from whatsappd.store.port import (
    Consumers,
    EventLog,
    OpenAlerts,
    OutboxView,
    StoreHealth,
    WebhookStore,
)
from whatsappd.supervision import Supervision


class WatchedStore(NamedTuple):
    """What is on disk. `deliverer_away_ms`: for how long nobody has delivered webhooks, or None."""

    health: StoreHealth
    events: EventLog
    consumers: Consumers
    outbox: OutboxView
    alerts: OpenAlerts
    webhooks: WebhookStore
    deliverer_away_ms: Callable[[], int | None]


class WatchedPool(Protocol):
    """What is watched of `sessions.pool.Pool`."""

    def sessions(self) -> list[CompanySession]:
        """All sessions, by company."""
        ...

    def pacing(self, company: str, /) -> Pacing:
        """A company's limits. Raises UnknownCompany."""
        ...

    async def check_health(self) -> None:
        """One round: ask every session's worker how it is."""
        ...


class WatchedSessions(NamedTuple):
    """The companies' sessions, and what they all rely on."""

    pool: WatchedPool
    engine: Engine
    limiter: Callable[[], LimiterHealth]

    def of(self, companies: frozenset[str] | None) -> list[CompanySession]:
        """Those of `companies`, by company; None: all."""
        return [
            session
            for session in self.pool.sessions()
            if companies is None or session.company in companies
        ]


class WatchedHost(NamedTuple):
    """The files in use, and the log. `places` must stay where they are."""

    state_dir: Path
    places: Sequence[Place]
    log: LogWriter

    def disk(self, sessions: Sequence[CompanySession] = ()) -> kernel.Disk | None:
        """The state directory's disk; if one of these sessions' own is fuller, that one.

        Asks the disks: call it in a thread.
        """
        return kernel.disk_of(self.state_dir, *(session.directory for session in sessions))


class WatchSettings(NamedTuple):
    """The thresholds are asked anew each time: they may change while the daemon runs."""

    alerts: Callable[[], AlertSettings]
    recycling: Callable[[], RecycleSettings]
    interval_s: float  # between two rounds of health checks


class Watched(NamedTuple):
    store: WatchedStore
    sessions: WatchedSessions
    host: WatchedHost
    settings: WatchSettings
    supervision: Supervision
