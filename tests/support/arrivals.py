"""What WhatsApp tells of messages that were sent, as a worker's events bring it into the store."""

from __future__ import annotations

from collections.abc import Sequence

from whatsappd.model.arrival import Arrival, AskedAgain, Receipt
from whatsappd.store.port import Inbound
from whatsappd.store.sqlite.acquaintances import SqliteAcquaintances
from whatsappd.store.sqlite.database import Database
from whatsappd.store.sqlite.event_log import SqliteEventLog
from whatsappd.store.sqlite.inbound import SqliteInbound
from whatsappd.store.sqlite.outbox import SqliteOutbox


def intake_of(database: Database, log: SqliteEventLog, outbox: SqliteOutbox) -> SqliteInbound:
    """An intake beside the outbox, in the same database."""
    return SqliteInbound(database, log, outbox.writes, SqliteAcquaintances(database))


async def receive(
    intake: Inbound, company: str, message_ids: Sequence[str], kind: str, time_ms: int = 1
) -> None:
    """A receipt for these messages arrives."""
    await intake.take(company, [Arrival(None, receipt=Receipt(message_ids, kind, time_ms))])


async def ask_again(intake: Inbound, company: str, message_id: str, chat: str, device: str) -> None:
    """A device says that it could not read the message, which goes again without delay."""
    await intake.take(company, [Arrival(None, asked_again=AskedAgain(message_id, chat, device, 0))])
