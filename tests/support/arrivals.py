"""What WhatsApp tells of messages that were sent, as a worker's events bring it into the store."""

from __future__ import annotations

from collections.abc import Sequence

from whatsappd.store.sqlite.acquaintances import Contacts
from whatsappd.store.sqlite.intake import Arrival, AskedAgain, Intake, Receipt
from whatsappd.store.sqlite.outbox import SqliteOutbox


def intake_of(outbox: SqliteOutbox) -> Intake:
    """An intake beside the outbox, in the same database."""
    database, writes = outbox.submissions._database, outbox.writes
    return Intake(database, writes._log, writes, Contacts(database))


async def receive(
    intake: Intake, company: str, message_ids: Sequence[str], kind: str, time_ms: int = 1
) -> None:
    """A receipt for these messages arrives."""
    await intake.take(company, [Arrival(None, receipt=Receipt(message_ids, kind, time_ms))])


async def ask_again(intake: Intake, company: str, message_id: str, chat: str, device: str) -> None:
    """A device says that it could not read the message, which goes again without delay."""
    await intake.take(company, [Arrival(None, asked_again=AskedAgain(message_id, chat, device, 0))])
