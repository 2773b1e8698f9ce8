"""The companies: which there are, whether they should be running, and who they are on WhatsApp.

Sessions write here, and the daemon reads all of it at start to bring back what was running.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

from whatsappd.errors import UnknownCompany
from whatsappd.rules.account_binding import BoundAccount, Standing, is_same, standing
from whatsappd.store.port import AccountClaim, StoredCompany
from whatsappd.store.sqlite.acquaintances import SqliteAcquaintances, bring_back, put_away
from whatsappd.store.sqlite.database import Database

_COLUMNS = (
    "company, wanted, created_ms, settings, jid, lid, push_name, last_connected_ms, account,"
    " account_lid, claimed"
)


class SqliteCompanies:
    """The table of companies."""

    def __init__(
        self, database: Database, acquaintances: SqliteAcquaintances, clock: Callable[[], int]
    ) -> None:
        self._database = database
        self._acquaintances = acquaintances
        self._clock = clock

    async def all(self) -> list[StoredCompany]:
        return await self._database.read(_all)

    async def get(self, company: str) -> StoredCompany:
        return await self._database.read(lambda conn: _get(conn, company))

    async def put_wanted(self, company: str, wanted: bool) -> StoredCompany:

        def write(conn: sqlite3.Connection) -> StoredCompany:
            conn.execute(
                "INSERT INTO companies (company, wanted, created_ms) VALUES (?, ?, ?)"
                " ON CONFLICT (company) DO UPDATE SET wanted = excluded.wanted",
                (company, wanted, self._clock()),
            )
            return _get(conn, company)

        return await self._database.write(write)

    async def put_unwanted(self, company: str) -> StoredCompany:
        return await self._update(company, "wanted = ?", (False,))

    async def put_identity(
        self, company: str, *, jid: str | None, lid: str | None, push_name: str | None
    ) -> StoredCompany:
        return await self._update(company, "jid = ?, lid = ?, push_name = ?", (jid, lid, push_name))

    async def look_at_account(self, company: str, linked: BoundAccount) -> AccountClaim:
        return await self._database.read(lambda conn: _look_at_account(conn, company, linked))

    async def claim_account(self, company: str, linked: BoundAccount) -> AccountClaim:

        def write(conn: sqlite3.Connection) -> tuple[AccountClaim, bool]:
            found = _look_at_account(conn, company, linked)
            if found.standing is not Standing.OURS:
                return found, False
            before, lid = found.bound, linked.lid
            is_new = before is None or not is_same(before, linked)
            if before is not None and is_new:
                put_away(conn, company, _key(before))
            if is_new:
                bring_back(conn, company, _key(linked))
            elif before is not None:
                lid = lid or before.lid
            conn.execute(
                "UPDATE companies SET account = ?, account_lid = ?, claimed = 1 WHERE company = ?",
                (linked.jid, lid, company),
            )
            return found, is_new

        def written(done: tuple[AccountClaim, bool]) -> None:
            if done[1]:
                self._acquaintances.changed(company)

        found, _is_new = await self._database.write(write, written)
        return found

    async def give_account_up(self, company: str) -> None:
        await self._update(company, "claimed = 0", ())

    async def leave_account(self, company: str) -> StoredCompany:

        def write(conn: sqlite3.Connection) -> StoredCompany:
            bound = _get(conn, company).bound
            if bound is not None:
                put_away(conn, company, _key(bound))
            conn.execute(
                "UPDATE companies SET account = NULL, account_lid = NULL, claimed = 0"
                " WHERE company = ?",
                (company,),
            )
            return _get(conn, company)

        return await self._database.write(write, lambda _done: self._acquaintances.changed(company))

    async def put_connected(self, company: str, time_ms: int) -> StoredCompany:
        return await self._update(company, "last_connected_ms = ?", (time_ms,))

    async def settings(self, company: str) -> dict[str, Any]:
        return (await self.get(company)).settings

    async def put_settings(
        self,
        company: str,
        changes: Mapping[str, Any],
        then: Callable[[dict[str, Any]], object] | None = None,
    ) -> dict[str, Any]:

        def write(conn: sqlite3.Connection) -> dict[str, Any]:
            settings = {**_get(conn, company).settings, **changes}
            settings = {name: value for name, value in settings.items() if value is not None}
            conn.execute(
                "UPDATE companies SET settings = ? WHERE company = ?",
                (json.dumps(settings), company),
            )
            return settings

        return await self._database.write(write, then)

    async def _update(
        self, company: str, assignments: str, values: tuple[Any, ...]
    ) -> StoredCompany:
        def write(conn: sqlite3.Connection) -> StoredCompany:
            conn.execute(
                f"UPDATE companies SET {assignments} WHERE company = ?",  # noqa: S608 - ours
                (*values, company),
            )
            return _get(conn, company)

        return await self._database.write(write)


def _get(conn: sqlite3.Connection, company: str) -> StoredCompany:
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


def _all(conn: sqlite3.Connection) -> list[StoredCompany]:
    rows = conn.execute(f"SELECT {_COLUMNS} FROM companies ORDER BY company")  # noqa: S608 - ours
    return [_company(row) for row in rows]


def _company(row: tuple[Any, ...]) -> StoredCompany:
    company = StoredCompany._make(row)
    return company._replace(
        wanted=bool(company.wanted),
        settings=json.loads(row[3]),
        claimed=bool(company.claimed),
    )


def _look_at_account(conn: sqlite3.Connection, company: str, linked: BoundAccount) -> AccountClaim:
    known = _get(conn, company)
    found = conn.execute(
        "SELECT company FROM companies WHERE claimed = 1 AND company <> ?"
        " AND (account = ? OR account_lid = ?) LIMIT 1",
        (company, linked.jid, linked.lid),
    ).fetchone()
    owner = None if found is None else str(found[0])
    (waiting,) = conn.execute(
        "SELECT EXISTS (SELECT 1 FROM outbox WHERE company = ? AND state IN ('queued', 'sending'))",
        (company,),
    ).fetchone()
    answer = standing(
        known.bound, linked, claimed=known.claimed, owner=owner, has_waiting=bool(waiting)
    )
    return AccountClaim(answer, owner, known.bound)


def _key(account: BoundAccount) -> str:
    """The account as `former_contacts` names it."""
    return account.jid or account.lid or ""
