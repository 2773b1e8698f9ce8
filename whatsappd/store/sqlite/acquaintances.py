"""With whom a company has exchanged messages: what makes a message outreach, or not.

The dispatcher asks before it sends; sends and inbound messages add. Almost every question is about
somebody known already, so the known are remembered in memory, within a bound.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping

from whatsappd.clock import now_ms
from whatsappd.store.sqlite.database import Database

#: (company, chat) pairs remembered; about 200 bytes each.
REMEMBERED = 20_000
#: How exactly it is stored when somebody wrote last, in milliseconds: ten minutes.
WROTE_STEP_MS = 600_000


class SqliteAcquaintances:
    """The table `contacts`. Chats are JIDs without a device."""

    def __init__(self, database: Database) -> None:
        self._database = database
        #: When each of them is known to have written last; 0: not known.
        self._remembered: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._identities: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._followers: list[Callable[[str], object]] = []

    def follow(self, follower: Callable[[str], object]) -> None:
        self._followers.append(follower)

    def _tell(self, company: str) -> None:
        for follower in self._followers:
            follower(company)

    async def strangers(self, company: str, chats: Collection[str]) -> set[str]:
        unknown = {chat for chat in chats if (company, chat) not in self._remembered}
        if not unknown:
            return unknown
        found = await self._database.read(lambda conn: _find(conn, company, unknown))
        self._remember(company, found)
        return unknown - found

    async def add(self, company: str, chats: Collection[str]) -> None:
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
            self._tell(company)

    def writers(self, company: str, chats: Collection[str], time_ms: int) -> list[str]:
        """Those of `chats`, who wrote at `time_ms`, for whom `stage_wrote` would store that."""
        known = self._remembered
        return [
            chat for chat in chats if abs(time_ms - known.get((company, chat), 0)) >= WROTE_STEP_MS
        ]

    def stage_wrote(
        self, conn: sqlite3.Connection, company: str, chats: Collection[str], time_ms: int
    ) -> None:
        """These people wrote, in a function given to `Database.write`; then say `wrote`."""
        conn.executemany(
            "UPDATE contacts SET wrote_ms = ? WHERE company = ? AND chat = ?",
            [(time_ms, company, chat) for chat in chats],
        )

    def wrote(self, company: str, chats: Collection[str], time_ms: int) -> None:
        """What `stage_wrote` wrote is committed."""
        for chat in chats:
            self._remembered[company, chat] = time_ms

    def new_identities(self, company: str, identities: Iterable[tuple[str, str]]) -> dict[str, str]:
        """The phone numbers, by LID, of which `identified` was not told lately."""
        known = self._identities
        return {lid: number for lid, number in identities if known.get((company, lid)) != number}

    def identified(self, company: str, identities: Mapping[str, str]) -> None:
        """These numbers are stored as their LIDs'."""
        for lid, number in identities.items():
            self._identities[company, lid] = number
        while len(self._identities) > REMEMBERED:
            self._identities.popitem(last=False)

    def changed(self, company: str) -> None:
        """The company knows other people now, because its account changed."""
        self.forget(company)
        self._tell(company)

    def forget(self, company: str) -> None:
        """Forgets what is remembered of the company."""
        for memory in (self._remembered, self._identities):
            for known in [known for known in memory if known[0] == company]:
                memory.pop(known)

    def _remember(self, company: str, chats: Collection[str]) -> None:
        for chat in chats:
            self._remembered.setdefault((company, chat), 0)
        while len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)


def put_away(conn: sqlite3.Connection, company: str, account: str) -> None:
    """The company leaves `account`, whose acquaintances wait for its return. Then `forget` it.

    Nothing is known of the acquaintances of the next account, unless it was the company's before.
    """
    conn.execute(
        "INSERT OR REPLACE INTO former_contacts (company, account, chat, since_ms, wrote_ms)"
        " SELECT company, ?, chat, since_ms, wrote_ms FROM contacts WHERE company = ?",
        (account, company),
    )
    conn.execute("DELETE FROM contacts WHERE company = ?", (company,))


def bring_back(conn: sqlite3.Connection, company: str, account: str) -> None:
    """The company has `account` (again): its acquaintances are those that it had with it."""
    conn.execute(
        "INSERT OR REPLACE INTO contacts (company, chat, since_ms, wrote_ms)"
        " SELECT company, chat, since_ms, wrote_ms FROM former_contacts"
        " WHERE company = ? AND account = ?",
        (company, account),
    )
    conn.execute(
        "DELETE FROM former_contacts WHERE company = ? AND account = ?", (company, account)
    )


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
