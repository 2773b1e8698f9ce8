"""What arrives from WhatsApp, all of it or nothing: the event, what a receipt tells the outbox,
whom the company knows from now on, and how far the worker's numbering was taken.

`sessions.inbound` calls it. One transaction, because WhatsApp tells everything once: a receipt that
was logged and not applied would leave its row behind for ever.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import NamedTuple

from whatsappd.clock import now_ms
from whatsappd.model.event import Draft
from whatsappd.store.contacts import Contacts
from whatsappd.store.database import Database
from whatsappd.store.events import EventLog
from whatsappd.store.outbox import Outbox


class Receipt(NamedTuple):
    """`kind` is delivered, read or played; `time_ms` epoch milliseconds."""

    message_ids: Sequence[str]
    kind: str
    time_ms: int


class Arrival(NamedTuple):
    """One event from a worker, with what follows from it."""

    draft: Draft
    number: int | None = None  # the worker's; None: it is not numbered
    receipt: Receipt | None = None
    people: Collection[str] = ()


class Intake:
    def __init__(
        self, database: Database, log: EventLog, outbox: Outbox, contacts: Contacts
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

        def write(conn: sqlite3.Connection) -> None:
            taken = _taken(conn, company)
            fresh = [
                arrival for arrival in arrivals if arrival.number is None or arrival.number > taken
            ]
            self._log.stage([arrival.draft for arrival in fresh])
            for receipt in (arrival.receipt for arrival in fresh):
                if receipt is not None:
                    self._outbox.stage_receipt(conn, company, *receipt)
            self._contacts.stage(conn, company, people)
            last = max((arrival.number or 0 for arrival in fresh), default=0)
            if last > taken:
                conn.execute(
                    "INSERT OR REPLACE INTO inbound VALUES (?, ?, ?)", (company, last, now_ms())
                )

        await self._database.write(write, lambda _done: self._contacts.added(company, people))


def _taken(conn: sqlite3.Connection, company: str) -> int:
    row = conn.execute("SELECT taken FROM inbound WHERE company = ?", (company,)).fetchone()
    return 0 if row is None else int(row[0])
