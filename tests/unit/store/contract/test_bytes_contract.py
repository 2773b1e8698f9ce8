"""Nobody fills the store with messages that never leave: bounds by company and by sender."""

from __future__ import annotations

import pytest

from whatsappd.errors import QueueFull
from whatsappd.model.content import Text
from whatsappd.model.message import NewMessage, Row
from whatsappd.store.memory.outbox import MemoryOutbox
from whatsappd.store.outbox_bytes import OVERHEAD, size_of
from whatsappd.store.port import DaemonStore, Outbox
from whatsappd.store.sqlite.outbox import SqliteOutbox

TEXT = "x" * 9000
ROOM = 5 * (len(TEXT) + 2 * OVERHEAD)


@pytest.fixture
def outbox(store: DaemonStore) -> Outbox:
    """One sender has room for five messages, one company for ten."""
    assert isinstance(store.outbox, SqliteOutbox | MemoryOutbox)
    held = store.outbox.bytes
    held.caller_bound = held.caller_bound._replace(each=ROOM)
    held.company_bound = held.company_bound._replace(each=2 * ROOM)
    return store.outbox


async def accept(outbox: Outbox, owner: str | None, company: str = "acme") -> Row:
    new = NewMessage(company, "15550100@s.whatsapp.net", Text(TEXT), owner=owner)
    return (await outbox.submissions.accept(new, 1000))[0]


async def test_what_is_given_up_counts_until_it_is_deleted(outbox: Outbox) -> None:
    rows = [await accept(outbox, "key:one") for _ in range(5)]
    for row in rows:
        await outbox.submissions.cancel(row.id)
    with pytest.raises(QueueFull, match=r"key one holds .* bytes of messages that wait"):
        await accept(outbox, "key:one", "globex")
    assert [each["held"] for each in outbox.view.report_bytes()] == [5 * size_of(rows[0])] * 2
    await outbox.maintenance.retain(-1)
    assert [each["held"] for each in outbox.view.report_bytes()] == [0, 0]
    await accept(outbox, "key:one")


async def test_a_company_is_bounded_whoever_sends(outbox: Outbox) -> None:
    for _ in range(10):
        await accept(outbox, None)
    with pytest.raises(QueueFull, match="company acme holds"):
        await accept(outbox, None)
    await accept(outbox, None, "globex")


async def test_what_was_sent_counts_no_more(outbox: Outbox) -> None:
    for number in range(30):
        row = await accept(outbox, "key:one")
        await outbox.handovers.begin(row.id)
        await outbox.handovers.acknowledge(row.id, f"M{number}", 1)
    assert [each["held"] for each in outbox.view.report_bytes()] == [0, 0]
    for _ in range(5):
        await accept(outbox, "key:one")
    with pytest.raises(QueueFull):
        await accept(outbox, "key:one")


async def test_what_was_refused_is_not_there(outbox: Outbox) -> None:
    for _ in range(5):
        await accept(outbox, "key:one")
    before = outbox.view.report_bytes()
    with pytest.raises(QueueFull):
        await accept(outbox, "key:one")
    assert outbox.view.report_bytes() == before
    assert sum(outbox.view.counts("acme").values()) == 5
