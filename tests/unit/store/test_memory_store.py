"""What the twin in memory has beside the contract: it fails when it is told to."""

from __future__ import annotations

import pytest

from whatsappd.errors import StoreFailed
from whatsappd.model.content import Text
from whatsappd.model.event import Draft
from whatsappd.model.message import NewMessage, OutboxState
from whatsappd.store.memory.store import store_in_memory
from whatsappd.store.memory.tables import MemoryTables

NEW = NewMessage("acme", "15550100@s.whatsapp.net", Text("hello"))


async def test_an_operation_that_is_refused_leaves_nothing_behind() -> None:
    tables = MemoryTables()
    store = store_in_memory(tables)
    row, _ = await store.outbox.submissions.accept(NEW, 10)
    tables.refuse("accept")
    with pytest.raises(StoreFailed, match="the disk is full"):
        await store.outbox.submissions.accept(NEW, 10)
    assert tables.trouble == "the disk is full"
    assert store.outbox.view.counts("acme") == {OutboxState.QUEUED: 1}
    await store.outbox.handovers.begin(row.id)  # others succeed
    tables.take("accept")
    await store.outbox.submissions.accept(NEW, 10)
    assert tables.trouble is None
    assert store.events.last_seq == 3


async def test_a_look_can_be_refused() -> None:
    tables = MemoryTables()
    store = store_in_memory(tables)
    await store.events.append(Draft("acme", "alert", {}))
    tables.refuse("read", "the disk failed to read")
    with pytest.raises(StoreFailed, match="failed to read"):
        await store.events.read(0, 1)
