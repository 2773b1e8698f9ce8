"""Makes the table of all methods of the daemon, with the handlers behind them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from whatsappd.api.daemon import SandboxPlace
from whatsappd.engines.port import Engine
from whatsappd.handlers.access import AccessControl
from whatsappd.handlers.auditing import audited
from whatsappd.handlers.backup import BackupApi
from whatsappd.handlers.daemon import DaemonApi, DaemonFacts
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
from whatsappd.monitoring.scrape import Scrape, SocketFigures
from whatsappd.monitoring.watched import Watched
from whatsappd.rpc.method import MethodTable
from whatsappd.rpc.own_descendants import DescendantCheck
from whatsappd.rpc.user_shares import Shares
from whatsappd.sessions.pool import Pool
from whatsappd.sessions.settings import SessionSettings
from whatsappd.store.audit_trail import AuditTrail
from whatsappd.store.port import BackupMaker, DaemonStore

if TYPE_CHECKING:
    from whatsappd.sandbox_process import SandboxHandle


class ApiParts(NamedTuple):
    """The parts of the daemon that handlers use; `app` fills it in."""

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
    watched: Watched


def build_table(parts: ApiParts, shares: Shares, descendants: DescendantCheck) -> MethodTable:
    """Make all handlers, and the table of their methods.

    Args:
        shares: what the socket's users have of it.
        descendants: refuses the daemon's own descendants.
    """
    table = MethodTable()
    access, store, sandbox = parts.access, parts.store, parts.sandbox
    facts = DaemonFacts(
        mode=parts.mode,
        state_dir=parts.state_dir,
        socket=parts.socket,
        sandbox=lambda: SandboxPlace(**sandbox.info.as_wire()) if sandbox else None,
        log_level=parts.log_level,
    )
    daemon = DaemonApi(facts, access, parts.pool, parts.engine, store.events, table, shares.counts)
    backup = BackupApi(parts.backups)
    events = EventsApi(store.events, store.consumers, access, parts.audit.record_repeatable)
    socket = SocketFigures(shares.counts, table, events.lags, descendants)
    scrape = Scrape(parts.watched, parts.health, socket, parts.mode)
    limits = LimitsApi(
        access,
        store,
        [backup.report, events.report, store.outbox.view.report_bytes, shares.report],
    )
    methods = [
        *daemon.methods(),
        *limits.methods(),
        *backup.methods(),
        *MonitoringApi(parts.health, scrape, access).methods(),
        *SessionsApi(parts.pool, events, access).methods(),
        *MessagesApi(parts.pool, store.outbox, parts.settings, access).methods(),
        *events.methods(),
        *KeysApi(store.keys, parts.audit).methods(),
        *WebhooksApi(store.webhooks, store.events, parts.webhook_delivery, access).methods(),
    ]
    if sandbox is not None:
        methods += forwarded_methods(lambda: sandbox.control)
    table.add(audited(methods, parts.audit))
    return table
