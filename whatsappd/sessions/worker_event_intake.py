"""Takes what a company's workers report: logs WhatsApp's events, acts on those about the session.

`worker_life` calls it. Events about the session become incidents, which go to the session.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

import structlog
import trio

from whatsappd.clock import moment, now_ms
from whatsappd.engines.decode import WorkerEvent
from whatsappd.engines.protocol import (
    KINDS,
    ClientConnected,
    ClientEvent,
    DevicePaired,
    EventKind,
    QrShown,
    UnreadableEvent,
)
from whatsappd.model.event import SESSION_QR, Draft
from whatsappd.rules.incidents import Incident
from whatsappd.sessions.account_guard import AccountGuard
from whatsappd.sessions.identity import SessionIdentity
from whatsappd.sessions.inbound import is_own
from whatsappd.sessions.pairing_codes import PairingCodes
from whatsappd.sessions.session_machine import SessionMachine
from whatsappd.sessions.session_parts import SessionParts
from whatsappd.sessions.session_record import SessionRecord
from whatsappd.sessions.worker_event_causes import meaning_of

log = structlog.get_logger()


class IncidentHandler(Protocol):
    """Takes an incident to the session (see `CompanySession`).

    `generation` is the worker's that the incident is about; None: the present one's.
    """

    def __call__(self, incident: Incident, generation: int | None = None) -> Awaitable[None]: ...


class WorkerEventIntake:
    """Takes the events of one session's workers, one worker after the other."""

    def __init__(
        self,
        record: SessionRecord,
        parts: SessionParts,
        machine: SessionMachine,
        happened: IncidentHandler,
    ) -> None:
        self.pairing = PairingCodes()
        self.guard = AccountGuard(record.company, parts.companies)
        self._company = record.company
        self._record = record
        self._inbound = parts.inbound
        self._machine = machine
        #: Takes incidents to the session.
        self.happened = happened
        self._unlink_now = trio.Event()

    async def prepare(self, generation: int) -> trio.Event | None:
        """Get ready for a new worker.

        Returns:
            An event that is set when the worker's task has to unlink the device. None if no worker
            may be started; an incident has told why.

        Raises:
            StoreFailed: the store does not say whether the account is the company's.
        """
        self.pairing.begin()
        self._unlink_now = trio.Event()
        refusal = await self.guard.look(self._record.identity, generation)
        if refusal is not None:
            await self.happened(refusal, generation)
            return None
        return self._unlink_now

    async def take(self, events: list[WorkerEvent], generation: int) -> int | None:
        """Log events from WhatsApp, and act on those about the session, in order.

        Returns the number of the last event that is on disk now; None if no further one is.
        """
        inbound = self._inbound
        messages: list[WorkerEvent] = []
        taken: int | None = None
        for told in events:
            if told.is_from_whatsapp and self.guard.is_foreign(generation):
                continue  # not confirmed either: the worker keeps it, for whom it may concern
            if told.is_from_whatsapp and not is_own(told.event):
                self._machine.counters.inbound[KINDS[type(told.event)]] += 1
            if isinstance(told.event, UnreadableEvent):
                self._note_unreadable(told.event)
            if told.is_inbound:
                self._record.last_inbound_ms = now_ms()
                messages.append(told)
                continue
            taken = await inbound.take(self._company, messages) or taken
            messages = []
            await self._act_on(told.event, generation)
        return await inbound.take(self._company, messages) or taken

    def _note_unreadable(self, event: UnreadableEvent) -> None:
        """Log it when their number has doubled: a contact can send thousands."""
        count = self._machine.counters.inbound[EventKind.UNREADABLE]
        if count & (count - 1) == 0:
            log.warning(
                "event_unreadable",
                company=self._company,
                of=event.of,
                reason=event.error,
                so_far=count,
            )

    async def _act_on(self, event: ClientEvent, generation: int) -> None:
        meaning = meaning_of(event, codes_ran_out=self.pairing.ran_out)
        if meaning.error is not None:
            self._machine.note_error(meaning.error, moment())
        match event:
            case DevicePaired():
                self.guard.paired(event, generation)
            case ClientConnected():
                if not await self._admit(event, generation):
                    return
        if meaning.incident is not None:
            await self.happened(meaning.incident, generation)
        if isinstance(event, QrShown):
            await self._show_qr(event.code, generation)

    async def _admit(self, told: ClientConnected, generation: int) -> bool:
        """Whether a worker that is connected may go on, with the account that it has."""
        identity = SessionIdentity(told.jid, told.lid, told.push_name)
        if generation == self._machine.generation:
            found = await self.guard.admit(told, self._record.identity, generation)
            if found.unlinks:
                self._machine.unlink_words = found.unlink_words or self._machine.unlink_words
                self._unlink_now.set()
            if found.takes_identity:
                await self._record.identify(identity)
            if found.incident is not None:
                await self.happened(found.incident, generation)
            if not found.may_go_on:
                return False
            if found.account is not None:
                self._record.note_account(found.account)
        if told.jid is not None:  # else the worker could not read who it is
            await self._record.identify(identity)
        return True

    async def _show_qr(self, code: str, generation: int) -> None:
        if generation != self._machine.generation:
            return
        shown = self.pairing.show(code, now_ms())
        self._machine.counters.qr_codes += 1
        await self._inbound.note(Draft(self._company, SESSION_QR, shown.as_event()))
