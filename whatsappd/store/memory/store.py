"""The memory twin, for tests: the parts of `store.port` that sessions and their tests use.

API keys, webhooks and removals have no twin: what they promise is tested on the real store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from whatsappd.clock import now_ms
from whatsappd.store.memory.companies import MemoryAcquaintances, MemoryCompanies, MemoryInbound
from whatsappd.store.memory.event_log import MemoryConsumers, MemoryEventLog
from whatsappd.store.memory.outbox import MemoryOutbox, make_outbox
from whatsappd.store.memory.outbox_changes import MemoryOutboxChanges
from whatsappd.store.memory.tables import MemoryTables
from whatsappd.store.port import StoreParts


class MemoryStore(NamedTuple):
    """`tables.refuse` lets an operation fail."""

    tables: MemoryTables
    events: MemoryEventLog
    consumers: MemoryConsumers
    outbox: MemoryOutbox
    inbound: MemoryInbound
    companies: MemoryCompanies
    acquaintances: MemoryAcquaintances


def memory_store(clock: Callable[[], int] = now_ms) -> MemoryStore:
    """An empty store."""
    tables = MemoryTables(clock)
    events = MemoryEventLog(tables)
    changes = MemoryOutboxChanges(tables)
    outbox = make_outbox(tables, changes)
    people = MemoryAcquaintances(tables)
    return MemoryStore(
        tables,
        events,
        MemoryConsumers(tables, events),
        outbox,
        MemoryInbound(tables, changes, people),
        MemoryCompanies(tables, people),
        people,
    )


if TYPE_CHECKING:
    _TWIN: StoreParts = memory_store()
