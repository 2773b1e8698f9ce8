"""What arrives from WhatsApp, all of it or nothing: the event, what a receipt tells the outbox,
whom the company knows from now on, and how far the worker's numbering was taken.

`sessions.inbound` calls it. One transaction, because WhatsApp tells everything once: a receipt that
was logged and not applied would leave its row behind for ever.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from whatsappd.clock import now_ms
from whatsappd.model.arrival import Arrival
from whatsappd.model.event import MESSAGE_TYPES, Draft
from whatsappd.model.person import with_both_identities
from whatsappd.store.sqlite import aliases
from whatsappd.store.sqlite.acquaintances import SqliteAcquaintances
from whatsappd.store.sqlite.database import Database
from whatsappd.store.sqlite.event_log import SqliteEventLog
from whatsappd.store.sqlite.outbox_writes import OutboxWrites


class SqliteInbound:
    def __init__(
        self,
        database: Database,
        log: SqliteEventLog,
        outbox: OutboxWrites,
        acquaintances: SqliteAcquaintances,
    ) -> None:
        self._database = database
        self._log = log
        self._outbox = outbox
        self._acquaintances = acquaintances

    async def taken(self, company: str) -> int:
        # Asked in the writer's turn: what a cancelled `take` left to be written counts.
        return await self._database.write(lambda conn: _taken(conn, company))

    async def last_ms(self, company: str) -> int | None:

        def read(conn: sqlite3.Connection) -> int | None:
            row = conn.execute(
                "SELECT time_ms FROM inbound WHERE company = ?", (company,)
            ).fetchone()
            return None if row is None else row[0]

        return await self._database.read(read)

    async def take(self, company: str, arrivals: Sequence[Arrival]) -> None:
        people = self._acquaintances.unknown(
            company, {person for arrival in arrivals for person in arrival.people}
        )
        now = now_ms()
        writers = self._acquaintances.writers(
            company, {person for arrival in arrivals for person in arrival.writers}, now
        )
        identities = self._acquaintances.new_identities(
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
            self._acquaintances.stage(conn, company, people)
            if writers:
                self._acquaintances.stage_wrote(conn, company, writers, now)
                self._outbox.answers(conn, company, writers)
            last = max((arrival.number or 0 for arrival in fresh), default=0)
            if last > taken:
                conn.execute(
                    "INSERT OR REPLACE INTO inbound VALUES (?, ?, ?)", (company, last, now)
                )

        def stored(_done: None) -> None:
            self._acquaintances.added(company, people)
            self._acquaintances.wrote(company, writers, now)
            self._acquaintances.identified(company, identities)

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
