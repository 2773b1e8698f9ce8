"""With whom a company has exchanged messages: what makes a message outreach, or not.

The dispatcher asks before it sends; sends and inbound messages add. Almost every question is about
somebody known already, so the known are remembered in memory, within a bound.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Collection

from whatsappd.clock import now_ms
from whatsappd.store.database import Database

#: (company, chat) pairs remembered; about 200 bytes each.
REMEMBERED = 20_000


class Contacts:
    """The table of contacts. Chats are JIDs without a device."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._remembered: OrderedDict[tuple[str, str], None] = OrderedDict()
        #: Called with a company that knows somebody new.
        self.on_new: Callable[[str], None] = lambda _company: None

    async def strangers(self, company: str, chats: Collection[str]) -> set[str]:
        """Those of `chats` with whom the company has never exchanged a message."""
        unknown = {chat for chat in chats if (company, chat) not in self._remembered}
        if not unknown:
            return unknown
        found = await self._database.read(lambda conn: _find(conn, company, unknown))
        self._remember(company, found)
        return unknown - found

    async def add(self, company: str, chats: Collection[str]) -> None:
        """From now on these are no strangers. Writes only what is new."""
        new = self.unknown(company, chats)
        if new:
            await self._database.write(
                lambda conn: self.stage(conn, company, new),
                lambda _done: self.added(company, new),
            )

    def unknown(self, company: str, chats: Collection[str]) -> list[str]:
        """Those of `chats` that `add` would write."""
        return [chat for chat in chats if (company, chat) not in self._remembered]

    def stage(self, conn: sqlite3.Connection, company: str, chats: Collection[str]) -> None:
        """`add` in a function given to `Database.write`; `added` belongs into its `then`."""
        _add(conn, company, chats)

    def added(self, company: str, chats: Collection[str]) -> None:
        """What `stage` wrote is committed."""
        if chats:
            self._remember(company, chats)
            self.on_new(company)

    async def remove_company(self, company: str) -> None:
        """Forget everybody the company knew."""

        def write(conn: sqlite3.Connection) -> None:
            conn.execute("DELETE FROM contacts WHERE company = ?", (company,))

        def forget(_done: None) -> None:
            for known in [known for known in self._remembered if known[0] == company]:
                del self._remembered[known]

        await self._database.write(write, forget)

    def _remember(self, company: str, chats: Collection[str]) -> None:
        for chat in chats:
            self._remembered[company, chat] = None
        while len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)


def _find(conn: sqlite3.Connection, company: str, chats: Collection[str]) -> set[str]:
    return {
        chat
        for chat in chats
        if conn.execute(
            "SELECT 1 FROM contacts WHERE company = ? AND chat = ?", (company, chat)
        ).fetchone()
    }


def _add(conn: sqlite3.Connection, company: str, chats: Collection[str]) -> None:
    now = now_ms()
    conn.executemany(
        "INSERT OR IGNORE INTO contacts (company, chat, since_ms) VALUES (?, ?, ?)",
        [(company, chat, now) for chat in chats],
    )
