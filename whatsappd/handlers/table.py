"""All methods of the daemon, in one table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from whatsappd.api.daemon import SandboxPlace
from whatsappd.engines.port import Engine
from whatsappd.handlers.access import AccessControl
from whatsappd.handlers.auditing import audited
from whatsappd.handlers.backup import BackupApi
from whatsappd.handlers.daemon import DaemonApi
from whatsappd.handlers.events import EventsApi
from whatsappd.handlers.keys import KeysApi
from whatsappd.handlers.limits import LimitsApi
from whatsappd.handlers.messages import MessagesApi
from whatsappd.handlers.monitoring import MonitoringApi
from whatsappd.handlers.sandbox import forwarded_methods
from whatsappd.handlers.sessions import SessionsApi
from whatsappd.handlers.webhook_delivery import WebhookDelivery
from whatsappd.handlers.webhooks import WebhooksApi
from whatsappd.monitoring.health_rounds import HealthRounds
from whatsappd.monitoring.scrape import Scrape
from whatsappd.rpc.method import MethodTable
from whatsappd.sessions.pool import Pool
from whatsappd.sessions.settings import SessionSettings
from whatsappd.store.audit_trail import AuditTrail
from whatsappd.store.port import BackupMaker, DaemonStore

if TYPE_CHECKING:
    from whatsappd.sandbox_process import SandboxHandle


class ApiParts(NamedTuple):
    """What the methods work on; `app` fills it in."""

    access: AccessControl
    mode: str
    state_dir: Path
    socket: Path
    store: DaemonStore
    audit: AuditTrail
    webhook_delivery: WebhookDelivery
    pool: Pool
    engine: Engine
    sandbox: SandboxHandle | None
    settings: SessionSettings
    backups: BackupMaker
    log_level: Callable[[str | None], str]
    health: HealthRounds
    scrape: Scrape


def build_table(parts: ApiParts) -> tuple[MethodTable, DaemonApi, EventsApi, LimitsApi]:
    """The table, and those parts of it that know or learn about the server once that runs."""
    limits = LimitsApi(parts.access, parts.store)
    backup = BackupApi(parts.backups)
    limits.reporters.append(lambda: [backup.places.report()])
    events = EventsApi(
        parts.store.events, parts.store.consumers, parts.access, parts.audit.record_repeatable
    )
    sandbox = parts.sandbox
    daemon = DaemonApi(
        access=parts.access,
        mode=parts.mode,
        state_dir=parts.state_dir,
        socket=parts.socket,
        pool=parts.pool,
        events=parts.store.events,
        engine=parts.engine,
        sandbox=lambda: SandboxPlace(**sandbox.info.as_wire()) if sandbox else None,
        log_level=parts.log_level,
    )
    methods = [
        *daemon.methods(),
        *limits.methods(),
        *backup.methods(),
        *MonitoringApi(parts.health, parts.scrape, parts.access).methods(),
        *SessionsApi(parts.pool, events, parts.access).methods(),
        *MessagesApi(parts.pool, parts.store.outbox, parts.settings, parts.access).methods(),
        *events.methods(),
        *KeysApi(parts.store.keys, parts.audit).methods(),
        *WebhooksApi(
            parts.store.webhooks, parts.store.events, parts.webhook_delivery, parts.access
        ).methods(),
    ]
    if sandbox is not None:
        methods += forwarded_methods(lambda: sandbox.control)
    table = MethodTable(audited(methods, parts.audit))
    daemon.method_names = list(table)
    limits.reporters += [events.report, parts.store.outbox.view.report_bytes]
    return table, daemon, events, limits
