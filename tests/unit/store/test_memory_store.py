"""What the twin in memory has beside the contract: it fails when it is told to."""

from __future__ import annotations

import pytest

from whatsappd.errors import StoreFailed, WrongState
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
    tables.refuse("read", StoreFailed("the disk failed to read"))
    with pytest.raises(StoreFailed, match="failed to read"):
        await store.events.read(0, 1)


async def test_a_refusal_can_be_counted_and_of_any_kind() -> None:
    tables = MemoryTables()
    store = store_in_memory(tables)
    tables.refuse("find", WrongState("it was faster"), times=2)
    for _ in range(2):
        with pytest.raises(WrongState):
            await store.outbox.submissions.find(NEW)
    assert tables.trouble is None
    assert await store.outbox.submissions.find(NEW) is None


async def test_something_happens_once_before_a_caller_has_its_answer() -> None:
    tables = MemoryTables()
    store = store_in_memory(tables)
    told: list[int] = []
    tables.meanwhile("append", lambda: told.append(store.events.last_seq))
    for _ in range(2):
        await store.events.append(Draft("acme", "alert", {}))
    assert told == [1]
