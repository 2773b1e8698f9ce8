"""What the event log and its consumers promise: one order without a hole, and told gaps."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from whatsappd.errors import InvalidParams, TooLarge, UnknownConsumer
from whatsappd.model.event import ALERT, SESSION_QR, SESSION_STATE, Draft
from whatsappd.model.stored_event import EventBounds
from whatsappd.store.port import DaemonStore


async def fill(store: DaemonStore, count: int, company: str = "acme", size: int = 0) -> None:
    for number in range(count):
        await store.events.append(Draft(company, ALERT, {"number": number, "text": "x" * size}))


async def seqs(store: DaemonStore, after: int = 0, limit: int = 1000, **chosen: Any) -> list[int]:
    batch = await store.events.read(after, limit, **chosen)
    return [stored.seq for stored in batch.events]


async def test_numbers_have_no_hole_whoever_writes_at_once(store: DaemonStore) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(fill, store, 5, f"company{number}")
    assert store.events.last_seq == 50
    assert await seqs(store) == list(range(1, 51))


async def test_all_drafts_of_an_append_are_logged_or_none(store: DaemonStore) -> None:
    with pytest.raises(TooLarge):
        await store.events.append(
            Draft("acme", ALERT, {}), Draft("acme", ALERT, {"text": "x" * (1 << 20)})
        )
    assert store.events.last_seq == 0
    await fill(store, 1)
    assert await seqs(store) == [1]


async def test_a_reader_goes_on_where_the_last_batch_ended(store: DaemonStore) -> None:
    await fill(store, 5)
    first = await store.events.read(0, 2)
    assert ([each.seq for each in first.events], first.last, first.gap) == ([1, 2], 2, None)
    rest = await store.events.read(first.last, 10)
    assert [each.seq for each in rest.events] == [3, 4, 5]
    assert (await store.events.read(5, 10)).events == []
    with pytest.raises(InvalidParams, match="after"):
        await store.events.read(6, 1)


async def test_a_filter_leaves_out_companies_types_and_codes(store: DaemonStore) -> None:
    await store.events.append(
        Draft("acme", ALERT, {}), Draft("acme", SESSION_QR, {}), Draft("globex", SESSION_QR, {}),
        Draft("globex", SESSION_STATE, {}),
    )  # fmt: skip
    assert await seqs(store, companies=["acme"]) == [1, 2]
    assert await seqs(store, types=[SESSION_QR]) == [2, 3]
    assert await seqs(store, codes=["globex"]) == [1, 3, 4]
    assert await seqs(store, companies=["globex"], types=[SESSION_QR], codes=[]) == []


async def test_whoever_waits_is_woken_by_what_is_logged(store: DaemonStore) -> None:
    seen: list[int] = []

    async def follow() -> None:
        seen.append(await store.events.wait_beyond(0))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await fill(store, 1)
    assert seen == [1]


async def test_what_is_too_old_is_deleted_and_its_readers_are_told(
    store: DaemonStore, clock
) -> None:
    await fill(store, 3)
    clock.now_ms += 1000
    await fill(store, 2)
    store.events.keep(EventBounds(max_age_ms=500))
    assert await store.events.retain() == 3
    assert store.events.first_seq == 4
    batch = await store.events.read(1, 10)
    assert ([each.seq for each in batch.events], batch.gap) == ([4, 5], 4)
    assert (await store.events.read(3, 10)).gap is None
    await fill(store, 1)
    assert store.events.last_seq == 6  # deleted numbers are given to nobody


async def test_what_a_company_logs_deletes_nothing_of_a_smaller_one(store: DaemonStore) -> None:
    await fill(store, 2, "small", size=1000)
    store.events.keep(EventBounds(max_company_bytes=5000))
    await fill(store, 30, "large", size=1000)
    assert await seqs(store, companies=["small"]) == [1, 2]
    assert 0 < len(await seqs(store, companies=["large"])) < 5


async def test_a_consumer_keeps_its_place(store: DaemonStore) -> None:
    await fill(store, 10)
    consumers = store.consumers
    assert await consumers.place("billing") == 10
    assert await consumers.place("crm", after=2) == 2
    assert await consumers.acknowledge("crm", 5) == 5
    assert await consumers.acknowledge("crm", 3) == 5
    assert await consumers.place("crm", after=9) == 5
    with pytest.raises(InvalidParams, match="ends at 10"):
        await consumers.acknowledge("crm", 11)
    assert [(each.name, each.cursor) for each in await consumers.all()] == [
        *(("billing", 10), ("crm", 5)),
    ]
    assert await consumers.count_by_owner() == {"uid:0": 2}
    await consumers.forget("crm")
    for call in (consumers.forget("crm"), consumers.acknowledge("crm", 1)):
        with pytest.raises(UnknownConsumer):
            await call
    with pytest.raises(InvalidParams, match="consumer"):
        await consumers.place("no spaces")
