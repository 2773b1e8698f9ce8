"""Makes the health report: all checks, and each session's health, at one moment.

`daemon.health` and the metrics ask for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
import trio

from whatsappd.errors import StoreFailed
from whatsappd.model.webhook import StoredWebhook
from whatsappd.monitoring import health_checks as checks
from whatsappd.monitoring import kernel
from whatsappd.monitoring.health_checks import Check, HealthReport, health_of
from whatsappd.monitoring.watched import Watched, WatchedHost, WatchedStore
from whatsappd.sessions.session import CompanySession

log = structlog.get_logger()


async def report_health(
    watched: Watched,
    *,
    rounds_are_alive: bool,
    loop_longest_ms: int,
    companies: frozenset[str] | None = None,
) -> HealthReport:
    """Make the health report.

    Args:
        rounds_are_alive, loop_longest_ms: see `health_rounds.HealthRounds`.
        companies: report these companies only, without other companies' names and without paths;
            None: report everything.
    """
    store, host = watched.store, watched.host
    thresholds = watched.settings.alerts()
    told = watched.sessions.of(companies)
    disk, descriptors, places = await trio.to_thread.run_sync(_ask_kernel, host, told)
    if disk is not None and companies is not None:
        disk = disk._replace(path="")
    webhooks = await _webhooks(store, companies)
    engine = watched.sessions.engine.status
    sessions = [health_of(session) for session in told]
    found = [
        checks.check_store(store.health.trouble),
        checks.check_fork_server(engine),
        checks.check_confinement(engine, told),
        checks.check_event_loop(loop_longest_ms, thresholds),
        checks.check_disk(disk, thresholds, store.health.trouble),
        places,
        checks.check_rounds(rounds_are_alive),
        checks.check_descriptors(descriptors, kernel.descriptor_limit()),
        checks.check_log(host.log.trouble, host.log.dropped),
        checks.check_limiter(watched.sessions.limiter()),
        checks.check_tasks(watched.supervision.tasks(), companies),
        checks.check_webhooks(webhooks, store.deliverer_away_ms()),
        checks.check_sessions(sessions),
    ]
    return HealthReport(found, sessions)


def _ask_kernel(
    host: WatchedHost, sessions: Sequence[CompanySession]
) -> tuple[kernel.Disk | None, int, Check]:
    """In a thread."""
    places = checks.check_places(host.places)
    return host.disk(sessions), kernel.open_descriptors(), places


async def _webhooks(
    store: WatchedStore, companies: frozenset[str] | None
) -> list[StoredWebhook] | None:
    """The webhooks of these companies alone; None if the store fails."""
    try:
        found = await store.webhooks.all()
    except StoreFailed as error:
        log.error("webhooks_not_read", reason=error.message)
        return None
    return [each for each in found if companies is None or each.is_for(companies)]
