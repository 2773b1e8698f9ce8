"""What arrives is stored with all that follows from it, once."""

from __future__ import annotations

import pytest

from whatsappd.errors import InvalidParams, TooLarge
from whatsappd.model.arrival import Arrival, Receipt
from whatsappd.model.content import Text
from whatsappd.model.event import MESSAGE_RECEIPT, MESSAGE_RECEIVED, Draft
from whatsappd.model.message import NewMessage, OutboxState
from whatsappd.store.port import DaemonStore

FRIEND = "15550200@s.whatsapp.net"


async def texts(store: DaemonStore) -> list[str]:
    batch = await store.events.read(0, 1000, types={MESSAGE_RECEIVED})
    return [stored.event.data["text"] for stored in batch.events]


def message(text: str, number: int | None) -> Arrival:
    return Arrival(Draft("acme", MESSAGE_RECEIVED, {"text": text}), number, people={FRIEND})


async def test_an_event_is_taken_once_by_its_number(store: DaemonStore) -> None:
    await store.inbound.take("acme", [message("a", 1), message("b", 2)])
    assert await store.inbound.taken("acme") == 2
    await store.inbound.take("acme", [message("a", 1), message("b", 2), message("c", 3)])
    await store.inbound.take("acme", [message("c", 3)])
    assert await texts(store) == ["a", "b", "c"]
    assert await store.inbound.taken("acme") == 3
    assert await store.inbound.taken("globex") == 0


async def test_events_without_a_number_are_always_taken(store: DaemonStore) -> None:
    await store.inbound.take("acme", [message("a", 5)])
    await store.inbound.take("acme", [message("b", None), message("b", None)])
    assert await texts(store) == ["a", "b", "b"]
    assert await store.inbound.taken("acme") == 5


async def test_a_receipt_reaches_its_row_together_with_its_event(store: DaemonStore) -> None:
    row, _ = await store.outbox.submissions.accept(NewMessage("acme", FRIEND, Text("hello")), 10)
    await store.outbox.handovers.begin(row.id)
    await store.outbox.handovers.acknowledge(row.id, "3EB0", 1)
    event = Draft("acme", MESSAGE_RECEIPT, {"message_ids": ["3EB0"]})
    receipt = Receipt(["3EB0"], "delivered", 2)
    await store.inbound.take("acme", [Arrival(event, 1, receipt)])
    assert (await store.outbox.view.get(row.id)).state is OutboxState.DELIVERED


async def test_all_of_it_is_stored_or_nothing(store: DaemonStore) -> None:
    huge = Arrival(Draft("acme", MESSAGE_RECEIVED, {"text": "x" * (1 << 20)}), 2)
    with pytest.raises(TooLarge):
        await store.inbound.take("acme", [message("a", 1), huge])
    assert await texts(store) == []
    assert await store.inbound.taken("acme") == 0
    assert await store.acquaintances.strangers("acme", [FRIEND]) == {FRIEND}


async def test_who_wrote_is_no_stranger_any_more(store: DaemonStore) -> None:
    assert await store.acquaintances.strangers("acme", [FRIEND]) == {FRIEND}
    await store.inbound.take("acme", [message("a", 1)])
    assert await store.acquaintances.strangers("acme", [FRIEND]) == set()


async def test_a_receipt_of_another_kind_leaves_nothing_behind(store: DaemonStore) -> None:
    with pytest.raises(InvalidParams, match="kind"):
        await store.inbound.take(
            "acme", [message("a", 1), Arrival(None, 2, Receipt(["3EB0"], "retry", 2))]
        )
    assert await texts(store) == []
    assert await store.inbound.taken("acme") == 0


async def test_who_wrote_is_answered_first(store: DaemonStore) -> None:
    for chat, text in (("15550300@s.whatsapp.net", "to others"), (FRIEND, "the answer")):
        await store.outbox.submissions.accept(NewMessage("acme", chat, Text(text)), 10)
    await store.inbound.take("acme", [message("a", 1)._replace(writers={FRIEND})])
    [row] = await store.outbox.handovers.pending("acme", 10)
    assert row.chat == FRIEND
    [row] = await store.outbox.handovers.pending("acme", 10, others_first=True)
    assert row.chat != FRIEND


async def test_a_person_whose_number_is_learnt_is_one_chat(store: DaemonStore) -> None:
    lid = "100200300@lid"
    row, _ = await store.outbox.submissions.accept(NewMessage("acme", lid, Text("hello")), 10)
    await store.inbound.take("acme", [message("a", 1)._replace(identity=(lid, FRIEND))])
    moved = await store.outbox.view.get(row.id)
    assert (moved.chat, moved.asked) == (FRIEND, lid)
    again, _ = await store.outbox.submissions.accept(NewMessage("acme", lid, Text("again")), 10)
    assert (again.chat, again.asked) == (FRIEND, lid)
