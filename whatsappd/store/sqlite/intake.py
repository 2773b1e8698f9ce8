"""What arrives from WhatsApp, all of it or nothing: the event, what a receipt tells the outbox,
whom the company knows from now on, and how far the worker's numbering was taken.

`sessions.inbound` calls it. One transaction, because WhatsApp tells everything once: a receipt that
was logged and not applied would leave its row behind for ever.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from whatsappd.clock import now_ms
from whatsappd.model.event import MESSAGE_TYPES, Draft
from whatsappd.model.person import with_both_identities
from whatsappd.store.sqlite import aliases
from whatsappd.store.sqlite.acquaintances import Contacts
from whatsappd.store.sqlite.database import Database
from whatsappd.store.sqlite.events import EventLog
from whatsappd.store.sqlite.outbox_writes import OutboxWrites


class Receipt(NamedTuple):
    """`kind` is delivered, read or played; `time_ms` epoch milliseconds."""

    message_ids: Sequence[str]
    kind: str
    time_ms: int


class AskedAgain(NamedTuple):
    """A device (a JID) could not read a message, and WhatsApp's library has forgotten it."""

    message_id: str
    chat: str  # of the receipt, by which whoever asks is known to be the recipient
    device: str
    wait_ms: int  # before it is sent anew


class Arrival(NamedTuple):
    """One event from a worker, with what follows from it."""

    draft: Draft | None  # None: it is told by what follows from it
    number: int | None = None  # the worker's; None: it is not numbered
    receipt: Receipt | None = None
    people: Collection[str] = ()
    writers: Collection[str] = ()  # those of the people who wrote to the company
    identity: tuple[str, str] | None = None  # somebody's LID and phone-number JID
    asked_again: AskedAgain | None = None


class Intake:
    def __init__(
        self, database: Database, log: EventLog, outbox: OutboxWrites, contacts: Contacts
    ) -> None:
        self._database = database
        self._log = log
        self._outbox = outbox
        self._contacts = contacts

    async def taken(self, company: str) -> int:
        """The number of the last event that was taken; 0 if there never was one.

        Asked in the writer's turn: what a cancelled `take` left to be written counts.
        """
        return await self._database.write(lambda conn: _taken(conn, company))

    async def last_ms(self, company: str) -> int | None:
        """When anything was taken last, in epoch milliseconds; None if nothing ever was."""

        def read(conn: sqlite3.Connection) -> int | None:
            row = conn.execute(
                "SELECT time_ms FROM inbound WHERE company = ?", (company,)
            ).fetchone()
            return None if row is None else row[0]

        return await self._database.read(read)

    async def take(self, company: str, arrivals: Sequence[Arrival]) -> None:
        """Returns when all of it is durable. What was taken before is left out.

        Raises:
            StoreFailed: nothing of it was stored.
        """
        people = self._contacts.unknown(
            company, {person for arrival in arrivals for person in arrival.people}
        )
        now = now_ms()
        writers = self._contacts.writers(
            company, {person for arrival in arrivals for person in arrival.writers}, now
        )
        identities = self._contacts.new_identities(
            company, [each.identity for each in arrivals if each.identity is not None]
        )

        def write(conn: sqlite3.Connection) -> None:
            taken = _taken(conn, company)
            fresh = [
                arrival for arrival in arrivals if arrival.number is None or arrival.number > taken
            ]
            self._log.stage(
                [
                    _identified(conn, each.draft, identities)
                    for each in fresh
                    if each.draft is not None
                ]
            )
            for lid, number in identities.items():
                self._outbox.readdress(conn, company, lid, number)
            for arrival in fresh:
                if arrival.receipt is not None:
                    self._outbox.receipt(conn, company, *arrival.receipt)
                if arrival.asked_again is not None:
                    self._outbox.asked_again(conn, company, *arrival.asked_again)
            self._contacts.stage(conn, company, people)
            if writers:
                self._contacts.stage_wrote(conn, company, writers, now)
                self._outbox.answers(conn, company, writers)
            last = max((arrival.number or 0 for arrival in fresh), default=0)
            if last > taken:
                conn.execute(
                    "INSERT OR REPLACE INTO inbound VALUES (?, ?, ?)", (company, last, now)
                )

        def stored(_done: None) -> None:
            self._contacts.added(company, people)
            self._contacts.wrote(company, writers, now)
            self._contacts.identified(company, identities)

        await self._database.write(write, stored)


def _identified(conn: sqlite3.Connection, draft: Draft, new: Mapping[str, str]) -> Draft:
    """The draft, with both identities of each person whom the company knows by both."""
    if draft.type not in MESSAGE_TYPES:
        return draft

    def other(jid: str) -> str | None:
        return new.get(jid) or aliases.other_identity(conn, draft.company, jid)

    return draft._replace(data=with_both_identities(draft.data, other))


def _taken(conn: sqlite3.Connection, company: str) -> int:
    row = conn.execute("SELECT taken FROM inbound WHERE company = ?", (company,)).fetchone()
    return 0 if row is None else int(row[0])
