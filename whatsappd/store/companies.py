"""The companies: which there are, whether they should be running, and who they are on WhatsApp.

Sessions write here, and the daemon reads all of it at start to bring back what was running.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from whatsappd.clock import now_ms
from whatsappd.errors import UnknownCompany
from whatsappd.store.database import Database

_COLUMNS = "company, wanted, created_ms, settings, jid, lid, push_name, last_connected_ms"


class Company(NamedTuple):
    """A company as it is stored. Times are epoch milliseconds."""

    company: str
    wanted: bool  # should be running, also after a reboot
    created_ms: int
    settings: dict[str, Any]  # what was configured for it alone; plain JSON values
    jid: str | None
    lid: str | None
    push_name: str | None
    last_connected_ms: int | None


class Companies:
    """The table of companies."""

    def __init__(self, database: Database, *, clock: Callable[[], int] = now_ms) -> None:
        self._database = database
        self._clock = clock

    async def all(self) -> list[Company]:
        """Every company, by name."""
        return await self._database.read(_all)

    async def get(self, company: str) -> Company:
        """One company. Raises UnknownCompany."""
        return await self._database.read(lambda conn: _get(conn, company))

    async def put_wanted(self, company: str, wanted: bool) -> Company:
        """Stores whether it should be running, and makes it if it is new."""

        def write(conn: sqlite3.Connection) -> Company:
            conn.execute(
                "INSERT INTO companies (company, wanted, created_ms) VALUES (?, ?, ?)"
                " ON CONFLICT (company) DO UPDATE SET wanted = excluded.wanted",
                (company, wanted, self._clock()),
            )
            return _get(conn, company)

        return await self._database.write(write)

    async def put_unwanted(self, company: str) -> Company:
        """Stores that it should not be running. Raises UnknownCompany."""
        return await self._update(company, "wanted = ?", (False,))

    async def put_identity(
        self, company: str, *, jid: str | None, lid: str | None, push_name: str | None
    ) -> Company:
        """Stores who it is on WhatsApp; all None after an unlinking. Raises UnknownCompany."""
        return await self._update(company, "jid = ?, lid = ?, push_name = ?", (jid, lid, push_name))

    async def put_connected(self, company: str, time_ms: int) -> Company:
        """Stores when it was last connected. Raises UnknownCompany."""
        return await self._update(company, "last_connected_ms = ?", (time_ms,))

    async def settings(self, company: str) -> dict[str, Any]:
        """What was configured for it alone. Raises UnknownCompany."""
        return (await self.get(company)).settings

    async def put_settings(
        self,
        company: str,
        changes: Mapping[str, Any],
        then: Callable[[dict[str, Any]], object] | None = None,
    ) -> dict[str, Any]:
        """Changes the named settings (None removes one); returns all. Raises UnknownCompany.

        Args:
            then: given all of them when they are stored; see `Database.write`.
        """

        def write(conn: sqlite3.Connection) -> dict[str, Any]:
            settings = {**_get(conn, company).settings, **changes}
            settings = {name: value for name, value in settings.items() if value is not None}
            conn.execute(
                "UPDATE companies SET settings = ? WHERE company = ?",
                (json.dumps(settings), company),
            )
            return settings

        return await self._database.write(write, then)

    async def remove(self, company: str) -> None:
        """Forgets the company. Its events and messages stay. Raises UnknownCompany."""

        def write(conn: sqlite3.Connection) -> None:
            _get(conn, company)
            conn.execute("DELETE FROM companies WHERE company = ?", (company,))
            # The workers of a new company of that name count from 1 again.
            conn.execute("DELETE FROM inbound WHERE company = ?", (company,))

        await self._database.write(write)

    async def _update(self, company: str, assignments: str, values: tuple[Any, ...]) -> Company:
        def write(conn: sqlite3.Connection) -> Company:
            conn.execute(
                f"UPDATE companies SET {assignments} WHERE company = ?",  # noqa: S608 - ours
                (*values, company),
            )
            return _get(conn, company)

        return await self._database.write(write)


def _get(conn: sqlite3.Connection, company: str) -> Company:
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM companies WHERE company = ?",  # noqa: S608 - ours
        (company,),
    ).fetchone()
    if row is None:
        raise UnknownCompany(
            f"there is no company {company!r}: `whatsappctl start {company}` makes it",
            company=company,
        )
    return _company(row)


def _all(conn: sqlite3.Connection) -> list[Company]:
    rows = conn.execute(f"SELECT {_COLUMNS} FROM companies ORDER BY company")  # noqa: S608 - ours
    return [_company(row) for row in rows]


def _company(row: tuple[Any, ...]) -> Company:
    name, wanted, created_ms, settings, *rest = row
    return Company(name, bool(wanted), created_ms, json.loads(settings), *rest)
