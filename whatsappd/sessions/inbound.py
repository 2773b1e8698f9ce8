"""What arrives from WhatsApp, on its way into the durable log.

whatsmeow acknowledges a message to WhatsApp before any handler ran, so the worker's pipe is the
only copy until the log has committed it: `take` does not return before that, and the worker waits.
"""

from __future__ import annotations

import structlog
import trio

from whatsappd.errors import StoreFailed
from whatsappd.model.event import (
    MESSAGE_RECEIPT,
    MESSAGE_RECEIVED,
    MESSAGE_UNDECRYPTABLE,
    Draft,
)
from whatsappd.model.jid import parse_jid
from whatsappd.store.contacts import Contacts
from whatsappd.store.events import EventLog
from whatsappd.store.outbox import Outbox
from whatsappd.wire.worker import Kind, WorkerEvent

log = structlog.get_logger()

_TYPES = {
    Kind.MESSAGE: MESSAGE_RECEIVED,
    Kind.RECEIPT: MESSAGE_RECEIPT,
    Kind.UNDECRYPTABLE: MESSAGE_UNDECRYPTABLE,
}

#: What a receipt tells of an outgoing message. "inactive": on the device, its user is away.
_OUTBOX_RECEIPTS = {
    "delivered": "delivered",
    "inactive": "delivered",
    "read": "read",
    "played": "played",
}


class InboundLog:
    """Writes the events of all sessions, in the order each session brings them."""

    def __init__(
        self, events: EventLog, outbox: Outbox, contacts: Contacts, *, retry_s: float
    ) -> None:
        self._events = events
        self._outbox = outbox
        self._contacts = contacts
        self._retry_s = retry_s

    async def append(self, drafts: list[Draft]) -> None:
        """Log events of our own making.

        Raises:
            StoreFailed: they are not logged.
        """
        await self._events.append(*drafts)

    async def take(self, company: str, events: list[WorkerEvent]) -> None:
        """Log what WhatsApp sent, and tell the outbox of receipts. Returns when it is durable.

        While the disk takes nothing it tries again for ever: there is no other copy.
        """
        if not events:
            return
        drafts = [Draft(company, _TYPES[event.kind], event.data) for event in events]
        complained = False
        while True:
            try:
                await self._events.append(*drafts)
                break
            except StoreFailed as error:
                if not complained:
                    log.error("inbound_waits_for_store", company=company, reason=error.message)
                complained = True
                await trio.sleep(self._retry_s)
        await self._take_people(company, events)
        for event in events:
            if event.kind is Kind.RECEIPT:
                await self._take_receipt(company, event)

    async def _take_people(self, company: str, events: list[WorkerEvent]) -> None:
        """Who wrote to the company, or was written to from its phone, is no stranger to it."""
        people = {
            str(parse_jid(address).account)
            for event in events
            if event.kind is Kind.MESSAGE and not event.data["is_group"]
            for address in (
                (event.data["chat"], event.data["recipient_alt"])
                if event.data["from_me"]
                else (event.data["sender"], event.data["sender_alt"])
            )
            if address
        }
        if people:
            try:
                await self._contacts.add(company, people)
            except StoreFailed as error:
                log.warning("contacts_not_stored", company=company, reason=error.message)

    async def _take_receipt(self, company: str, event: WorkerEvent) -> None:
        kind = _OUTBOX_RECEIPTS.get(event.data["receipt"])
        if kind is None or event.data["from_me"]:
            return  # a retry, or one of our own account's devices
        try:
            await self._outbox.receipt(
                company,
                event.data["message_ids"],
                kind,
                event.data["timestamp_ms"],
            )
        except StoreFailed as error:
            # The receipt itself is in the log; only the row's state lags behind.
            log.error("receipt_not_applied", company=company, reason=error.message)
