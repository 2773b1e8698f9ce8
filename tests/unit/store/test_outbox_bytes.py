"""Nobody fills the disk with messages that never leave: bounds by company and by sender."""

from __future__ import annotations

from pathlib import Path

from whatsappd.errors import QueueFull
from whatsappd.model.content import Text
from whatsappd.model.message import NewMessage
from whatsappd.store.outbox_bytes import OVERHEAD
from whatsappd.store.sqlite.database import Database, open_database
from whatsappd.store.sqlite.event_log import open_event_log
from whatsappd.store.sqlite.outbox import SqliteOutbox, open_outbox

LIMIT = 100_000
TEXT = "x" * 9000


async def opened(database: Database) -> SqliteOutbox:
    outbox = await open_outbox(database, await open_event_log(database))
    bounds = outbox.bytes
    bounds.company_bound = bounds.company_bound._replace(each=2 * LIMIT)
    bounds.caller_bound = bounds.caller_bound._replace(each=LIMIT)
    return outbox


def message(owner: str | None, company: str = "acme", key: str | None = None) -> NewMessage:
    return NewMessage(company, "15550100@s.whatsapp.net", Text(TEXT), key=key, owner=owner)


async def fill(
    outbox: SqliteOutbox, owner: str | None, company: str = "acme"
) -> tuple[int, QueueFull]:
    """Send and cancel until it is refused: how often that went, and the refusal."""
    for number in range(1000):
        try:
            row, _ = await outbox.submissions.accept(message(owner, company), 10_000)
        except QueueFull as error:
            return number, error
        await outbox.submissions.cancel(row.id)
    raise AssertionError("nobody refused it")


async def test_who_sends_and_cancels_in_turn_does_not_fill_the_disk(path: Path) -> None:
    async with open_database(path) as database:
        outbox = await opened(database)
        first, _ = await outbox.submissions.accept(message("key:one", key="first"), 10_000)
        times, error = await fill(outbox, "key:one")
        assert times == LIMIT // (len(TEXT) + OVERHEAD) - 1
        assert "key one holds" in error.message
        assert f"of {LIMIT} bytes of messages that wait or were given up" in error.message
        # What was accepted before is still answered, and others of the company still send.
        assert await outbox.submissions.accept(message("key:one", key="first"), 10_000) == (
            first,
            False,
        )
        assert (await fill(outbox, "key:two"))[0] > 5
        _, error = await fill(outbox, None)
        assert "company acme holds" in error.message
        assert (await fill(outbox, "key:three", "globex"))[0] > 5
    # It is counted anew after a restart, and what is deleted counts no more.
    async with open_database(path) as database:
        outbox = await opened(database)
        assert (await fill(outbox, "key:one", "globex"))[0] == 0
        await outbox.submissions.cancel(first.id)
        await outbox.maintenance.retain(-1)
        assert [each["held"] for each in outbox.view.report_bytes()] == [0, 0]
        assert (await fill(outbox, "key:one", "globex"))[0] > 5
