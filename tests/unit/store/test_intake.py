"""What arrives is stored with all that follows from it, once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from whatsappd.clock import now_ms
from whatsappd.errors import TooLarge
from whatsappd.model.arrival import Arrival, Receipt
from whatsappd.model.content import Text
from whatsappd.model.event import MESSAGE_RECEIPT, MESSAGE_RECEIVED, Draft
from whatsappd.model.message import NewMessage, OutboxState
from whatsappd.store.port import Outbox
from whatsappd.store.sqlite.acquaintances import SqliteAcquaintances
from whatsappd.store.sqlite.companies import SqliteCompanies
from whatsappd.store.sqlite.database import open_database
from whatsappd.store.sqlite.event_log import SqliteEventLog, open_event_log
from whatsappd.store.sqlite.inbound import SqliteInbound
from whatsappd.store.sqlite.outbox import open_outbox

FRIEND = "15550200@s.whatsapp.net"


class Store:
    def __init__(
        self,
        intake: SqliteInbound,
        log: SqliteEventLog,
        outbox: Outbox,
        contacts: SqliteAcquaintances,
        companies: SqliteCompanies,
    ) -> None:
        self.intake = intake
        self.log = log
        self.outbox = outbox
        self.contacts = contacts
        self.companies = companies

    async def texts(self) -> list[str]:
        batch = await self.log.read(0, 1000, types={MESSAGE_RECEIVED})
        return [stored.event.data["text"] for stored in batch.events]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_database(tmp_path / "whatsappd.db") as database:
        log = await open_event_log(database)
        outbox = await open_outbox(database, log)
        contacts = SqliteAcquaintances(database)
        intake = SqliteInbound(database, log, outbox.writes, contacts)
        yield Store(
            intake,
            log,
            outbox,
            contacts,
            SqliteCompanies(database, SqliteAcquaintances(database), now_ms),
        )


def message(text: str, number: int | None) -> Arrival:
    return Arrival(Draft("acme", MESSAGE_RECEIVED, {"text": text}), number, people={FRIEND})


async def test_an_event_is_taken_once_by_its_number(store: Store) -> None:
    await store.intake.take("acme", [message("a", 1), message("b", 2)])
    assert await store.intake.taken("acme") == 2
    await store.intake.take("acme", [message("a", 1), message("b", 2), message("c", 3)])
    await store.intake.take("acme", [message("c", 3)])
    assert await store.texts() == ["a", "b", "c"]
    assert await store.intake.taken("acme") == 3
    assert await store.intake.taken("globex") == 0


async def test_events_without_a_number_are_always_taken(store: Store) -> None:
    await store.intake.take("acme", [message("a", 5)])
    await store.intake.take("acme", [message("b", None), message("b", None)])
    assert await store.texts() == ["a", "b", "b"]
    assert await store.intake.taken("acme") == 5


async def test_a_receipt_reaches_its_row_together_with_its_event(store: Store) -> None:
    row, _ = await store.outbox.submissions.accept(NewMessage("acme", FRIEND, Text("hello")), 10)
    await store.outbox.handovers.begin(row.id)
    await store.outbox.handovers.acknowledge(row.id, "3EB0", 1)
    event = Draft("acme", MESSAGE_RECEIPT, {"message_ids": ["3EB0"]})
    receipt = Receipt(["3EB0"], "delivered", 2)
    await store.intake.take("acme", [Arrival(event, 1, receipt)])
    assert (await store.outbox.view.get(row.id)).state is OutboxState.DELIVERED


async def test_all_of_it_is_stored_or_nothing(store: Store) -> None:
    huge = Arrival(Draft("acme", MESSAGE_RECEIVED, {"text": "x" * (1 << 20)}), 2)
    with pytest.raises(TooLarge):
        await store.intake.take("acme", [message("a", 1), huge])
    assert await store.texts() == []
    assert await store.intake.taken("acme") == 0
    assert await store.contacts.strangers("acme", [FRIEND]) == {FRIEND}


async def test_who_wrote_is_no_stranger_any_more(store: Store) -> None:
    assert await store.contacts.strangers("acme", [FRIEND]) == {FRIEND}
    await store.intake.take("acme", [message("a", 1)])
    assert await store.contacts.strangers("acme", [FRIEND]) == set()
