"""Places in the rate limit that were taken before their messages were accepted (`no_queue`)."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from whatsappd.clock import now_ms
from whatsappd.limits.memory import MemoryLimiter
from whatsappd.limits.settings import SendLimits
from whatsappd.model.content import Text
from whatsappd.model.message import NewMessage, OnUncertain, Row
from whatsappd.sessions.pacing import Pacing, PacingParts
from whatsappd.store.memory.store import store_in_memory
from whatsappd.store.memory.tables import MemoryTables
from whatsappd.store.port import Outbox

CHAT = "15550200@s.whatsapp.net"
LIMITS = SendLimits(per_minute=2, per_phone_per_minute=0, cold_per_hour=0, cold_per_day=0)


class World(NamedTuple):
    outbox: Outbox
    pacing: Pacing

    async def passes(self) -> bool:
        """Whether the dispatcher would let the next message of the chat go."""
        return (await self.pacing.admit(CHAT, is_cold=False)).wait_ms == 0

    async def row(self, expires_ms: int | None = None) -> Row:
        new = NewMessage("acme", CHAT, Text("x"), None, expires_ms, OnUncertain.ASK)
        return (await self.outbox.submissions.accept(new, 100))[0]

    async def prepaid_row(self, expires_ms: int | None = None) -> Row:
        assert (await self.pacing.prepay(CHAT)).wait_ms == 0
        row = await self.row(expires_ms)
        self.pacing.accepted(row)
        return row


@pytest.fixture
async def world() -> World:
    store = store_in_memory(MemoryTables())
    await store.companies.put_wanted("acme", True)
    pacing = Pacing("acme", PacingParts(MemoryLimiter(), store, lambda: LIMITS))
    await pacing.load()
    return World(store.outbox, pacing)


async def test_what_is_prepaid_is_counted_each_time(world: World) -> None:
    assert [(await world.pacing.prepay(CHAT)).wait_ms > 0 for _ in range(4)] == [
        *(False, False),
        *(True, True),
    ]
    assert [await world.passes() for _ in range(3)] == [True, True, False]


async def test_a_place_waits_for_its_message(world: World) -> None:
    await world.prepaid_row()
    assert (await world.pacing.prepay(CHAT)).wait_ms == 0  # this one is not accepted yet
    await world.pacing.forget_ended()
    assert [await world.passes() for _ in range(3)] == [True, True, False]
    assert not world.pacing.prepaid_chats


@pytest.mark.parametrize("end", ["cancelled", "expired", "failed", "begun"])
async def test_a_place_ends_with_its_message(world: World, end: str) -> None:
    row = await world.prepaid_row(now_ms() - 1 if end == "expired" else None)
    await world.prepaid_row()
    if end == "cancelled":
        await world.outbox.submissions.cancel(row.id)
    elif end == "failed":
        await world.outbox.handovers.fail(row.id, "the number is not on WhatsApp")
    elif end == "begun":
        await world.outbox.handovers.begin(row.id)
    await world.pacing.forget_ended()
    assert [await world.passes() for _ in range(2)] == [True, False]
    assert not world.pacing.prepaid_chats


async def test_a_place_is_given_back_once(world: World) -> None:
    await world.prepaid_row()
    assert (await world.pacing.prepay(CHAT)).wait_ms == 0
    for _ in range(2):  # the message that was accepted keeps its own
        world.pacing.refund(CHAT)
    assert [await world.passes() for _ in range(2)] == [True, False]
    assert not world.pacing.prepaid_chats
