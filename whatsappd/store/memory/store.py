"""The memory twin, for tests: all of `store.port` without a file. Nothing outlives it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from whatsappd.store.key_book import KeyBook
from whatsappd.store.memory.access import MemoryAuditRecords, MemoryKeyRing
from whatsappd.store.memory.companies import MemoryAcquaintances, MemoryCompanies, MemoryInbound
from whatsappd.store.memory.event_log import MemoryConsumers, MemoryEventLog
from whatsappd.store.memory.health import MemoryAlerts, MemoryHealth
from whatsappd.store.memory.outbox import make_outbox
from whatsappd.store.memory.outbox_changes import MemoryOutboxChanges
from whatsappd.store.memory.removals import ErasedParts, MemoryRemovals
from whatsappd.store.memory.tables import MemoryTables
from whatsappd.store.memory.webhooks import MemoryWebhooks
from whatsappd.store.outbox_bytes import OutboxBytes
from whatsappd.store.port import DaemonStore


def store_in_memory(
    tables: MemoryTables, directory: Callable[[str], Path] | None = None
) -> DaemonStore:
    """The store in `tables`, which are empty; once for each.

    Args:
        tables: its `refuse` lets operations fail, as a full disk does.
        directory: where a company's files are, which go when it is removed; None: it has none.
    """
    events = MemoryEventLog(tables)
    held = OutboxBytes()
    changes = MemoryOutboxChanges(tables, held)
    outbox = make_outbox(tables, changes, held)
    people = MemoryAcquaintances(tables)
    book = KeyBook({}, tables.clock)
    webhooks = MemoryWebhooks(tables, events)
    return DaemonStore(
        health=MemoryHealth(tables),
        events=events,
        consumers=MemoryConsumers(tables, events),
        outbox=outbox,
        inbound=MemoryInbound(tables, changes, people),
        companies=MemoryCompanies(tables, people),
        acquaintances=people,
        keys=MemoryKeyRing(tables, book),
        audit=MemoryAuditRecords(tables),
        alerts=MemoryAlerts(tables),
        webhooks=webhooks,
        removals=MemoryRemovals(tables, ErasedParts(events, outbox, webhooks, book), directory),
    )
