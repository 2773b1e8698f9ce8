"""The store in SQLite: everything that `store.port` promises, in one database.

The composition root opens it; tests of the store open it by parts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from whatsappd.clock import now_ms
from whatsappd.store.port import DaemonStore
from whatsappd.store.sqlite.acquaintances import SqliteAcquaintances
from whatsappd.store.sqlite.alerts import SqliteAlerts
from whatsappd.store.sqlite.audit import SqliteAuditRecords
from whatsappd.store.sqlite.companies import SqliteCompanies
from whatsappd.store.sqlite.consumers import SqliteConsumers
from whatsappd.store.sqlite.database import Database, open_database
from whatsappd.store.sqlite.event_log import open_event_log
from whatsappd.store.sqlite.inbound import SqliteInbound
from whatsappd.store.sqlite.keys import open_keys
from whatsappd.store.sqlite.outbox import open_outbox
from whatsappd.store.sqlite.removal import RemovableParts, SqliteRemovals
from whatsappd.store.sqlite.webhooks import SqliteWebhooks


@asynccontextmanager
async def open_sqlite_store(
    path: Path,
    directory: Callable[[str], Path],
    *,
    clock: Callable[[], int] | None = None,
) -> AsyncIterator[DaemonStore]:
    """The store in the database at `path`, made if it is missing; closed in order at the end.

    Args:
        directory: where a company's files are, which go when it is removed.
        clock: epoch milliseconds; see `open_outbox`.

    Raises:
        BadStateDirectory: the file cannot be used, or a newer version wrote it.
        StoreFailed: the file is damaged, or its disk is full or read-only.
    """
    async with open_database(path) as database:
        yield await store_in(database, directory, clock=clock)


async def store_in(
    database: Database, directory: Callable[[str], Path], *, clock: Callable[[], int] | None = None
) -> DaemonStore:
    """The store in an open database; once per database."""
    events = await open_event_log(database, clock=clock)
    outbox = await open_outbox(database, events, clock=clock)
    tells = clock or now_ms
    acquaintances = SqliteAcquaintances(database)
    keys = await open_keys(database, clock=tells)
    webhooks = SqliteWebhooks(database, events, tells)
    return DaemonStore(
        health=database,
        events=events,
        consumers=SqliteConsumers(database, events, tells),
        outbox=outbox,
        inbound=SqliteInbound(database, events, outbox.writes, acquaintances),
        companies=SqliteCompanies(database, acquaintances, tells),
        acquaintances=acquaintances,
        keys=keys,
        audit=SqliteAuditRecords(database),
        alerts=SqliteAlerts(database, events),
        webhooks=webhooks,
        removals=SqliteRemovals(
            database,
            RemovableParts(events, outbox.maintenance, acquaintances, keys, webhooks),
            directory,
        ),
    )
