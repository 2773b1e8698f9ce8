"""Stores events from WhatsApp in the event log, and tells which ones to confirm to the worker.

whatsmeow acknowledges a message to WhatsApp beside handing it on, so the worker has the only copy
until the log has committed it. It keeps each event until its number is confirmed
(`engines.neonize.worker.spool`), and what was taken before is left out by that number: `take`
returns the one to confirm.

There is no other search for duplicates: what WhatsApp delivers again, because an acknowledgement
got lost, whatsmeow recognises by the counter of the encryption and does not hand on. The tests that
kill workers under load check that no message id is logged twice.
"""

from __future__ import annotations

import structlog
import trio

from whatsappd.engines.decode import WorkerEvent
from whatsappd.engines.protocol import (
    ClientEvent,
    MessageForgotten,
    ReceiptArrived,
    UndecryptableArrived,
    UnreadableEvent,
)
from whatsappd.errors import StoreFailed
from whatsappd.model.arrival import Arrival, AskedAgain, Receipt
from whatsappd.model.event import (
    MESSAGE_RECEIPT,
    MESSAGE_RECEIVED,
    MESSAGE_UNDECRYPTABLE,
    MESSAGE_UNREADABLE,
    Draft,
)
from whatsappd.model.message import Message, Source
from whatsappd.model.person import Person
from whatsappd.rules.retry_receipts import RECEIPT_GRACE_MS
from whatsappd.store.port import EventLog, Inbound

log = structlog.get_logger()

_TYPES: dict[type[ClientEvent], str] = {
    Message: MESSAGE_RECEIVED,
    ReceiptArrived: MESSAGE_RECEIPT,
    UndecryptableArrived: MESSAGE_UNDECRYPTABLE,
    UnreadableEvent: MESSAGE_UNREADABLE,
}

#: What a receipt tells of an outgoing message. "inactive": on the device, its user is away.
_OUTBOX_RECEIPTS = {
    "delivered": "delivered",
    "inactive": "delivered",
    "read": "read",
    "played": "played",
}
#: The same of a note to self: our own devices are its recipients.
_RECEIPTS_OF_NOTES = {
    **_OUTBOX_RECEIPTS,
    "sender": "delivered",
    "read-self": "read",
    "played-self": "played",
}


#: Characters of a device's address that are shown to people; real ones have 40.
MAX_ADDRESS = 80


class InboundLog:
    """Writes the events of all sessions, in the order each session brings them."""

    def __init__(self, events: EventLog, inbound: Inbound, *, retry_s: float) -> None:
        self._events = events
        self._inbound = inbound
        self._retry_s = retry_s

    async def note(self, draft: Draft) -> None:
        """Log an event of the daemon's own. If the store fails, only the log says so."""
        try:
            await self._events.append(draft)
        except StoreFailed as error:
            log.error("event_not_logged", company=draft.company, reason=error.message)

    async def taken(self, company: str) -> int:
        """The number of the company's last event that is on disk: where its worker goes on.

        Raises:
            StoreFailed: the disk cannot be read.
        """
        return await self._inbound.taken(company)

    async def last_ms(self, company: str) -> int | None:
        """When the last of them was stored, in epoch milliseconds; None if none ever was."""
        return await self._inbound.last_ms(company)

    async def take(self, company: str, events: list[WorkerEvent]) -> int | None:
        """Store events from WhatsApp. Returns the last one's number when all of them are on disk.

        If the disk is full or fails, this tries again until it succeeds: there is no other copy.
        """
        if not events:
            return None
        arrivals = [arrival(company, event) for event in events]
        complained = False
        while True:
            try:
                await self._inbound.take(company, arrivals)
                return events[-1].number
            except StoreFailed as error:
                if not complained:
                    log.error("inbound_waits_for_store", company=company, reason=error.message)
                complained = True
                await trio.sleep(self._retry_s)


def is_own(event: ClientEvent) -> bool:
    """Whether it is a message that the account itself sent, from its phone or another device."""
    return isinstance(event, Message) and event.from_me


def arrival(company: str, told: WorkerEvent) -> Arrival:
    """What the store takes for an event from WhatsApp.

    Args:
        company: whose worker told it. What the event itself says of that is the worker's word.
    """
    event, number = told.event, told.number
    if isinstance(event, MessageForgotten):
        # That it was asked for is logged as a receipt, and what becomes of it as the outbox's.
        device = event.sender[:MAX_ADDRESS]
        asked_again = AskedAgain(event.message_id, event.chat, device, RECEIPT_GRACE_MS)
        return Arrival(None, number=number, asked_again=asked_again)
    draft = Draft(company, _TYPES[type(event)], told.data)
    match event:
        case Message():
            people = _people(event)
            return Arrival(
                draft._replace(data={**told.data, "text": event.content.short_text}),
                number=number,
                people=people,
                writers=() if event.from_me else people,
                identity=_identity(event),
            )
        case ReceiptArrived():
            return Arrival(draft, number=number, receipt=_receipt(event))
        case _:
            return Arrival(draft, number=number)


def _receipt(event: ReceiptArrived) -> Receipt | None:
    kinds = _OUTBOX_RECEIPTS
    if event.from_me:
        # Of our own account's devices only one matters: they are the recipients of a note to self.
        kinds = _RECEIPTS_OF_NOTES if _is_note_to_self(event) else {}
    kind = kinds.get(event.receipt)
    if kind is None:
        return None  # a retry, or what another device of ours read
    return Receipt(event.message_ids, kind, event.timestamp_ms)


def _is_note_to_self(source: Source) -> bool:
    if source.chat is None or source.sender is None:
        return False
    return bool(source.chat.addresses & source.sender.addresses)


def _people(message: Message) -> frozenset[str]:
    """The people who wrote to the company or were written to from its phone: no strangers now."""
    one = _other(message)
    return frozenset() if one is None or _is_of_many(message) else one.addresses


def _identity(message: Message) -> tuple[str, str] | None:
    """The LID and the phone number of whoever wrote, or was written to; None: one is not known."""
    one = message.sender if _is_of_many(message) else _other(message)
    return None if one is None else one.identity


def _other(message: Message) -> Person | None:
    """With whom the company has to do in a chat of two."""
    return message.chat if message.from_me else message.sender


def _is_of_many(message: Message) -> bool:
    return message.chat is not None and message.chat.type in ("group", "status", "broadcast")
