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
from whatsappd.rules.binding import BoundAccount, Standing, is_same, standing
from whatsappd.store.sqlite import acquaintances
from whatsappd.store.sqlite.database import Database

_COLUMNS = (
    "company, wanted, created_ms, settings, jid, lid, push_name, last_connected_ms, account,"
    " account_lid, claimed"
)


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
    account: str | None  # the account it is bound to, or was linked with last, without a device
    account_lid: str | None
    claimed: bool  # whether that account is the company's own, and no other's

    @property
    def bound(self) -> BoundAccount | None:
        """None: it was never linked, or `start --new-account` ended what was."""
        if self.account is None and self.account_lid is None:
            return None
        return BoundAccount(self.account, self.account_lid)


class AccountClaim(NamedTuple):
    """What a company is to the account that it is linked with.

    `owner`: the other company that has it, if it is taken. `bound`: the company's own account.
    """

    standing: Standing
    owner: str | None
    bound: BoundAccount | None


class Companies:
    """The table of companies."""

    def __init__(self, database: Database, *, clock: Callable[[], int] = now_ms) -> None:
        self._database = database
        self._clock = clock
        #: Called with a company whose contacts are other ones now, because its account is.
        self.on_account: Callable[[str], None] = lambda _company: None

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

    async def look_at_account(self, company: str, linked: BoundAccount) -> AccountClaim:
        """What the company is to `linked`; nothing is changed. Raises UnknownCompany."""
        return await self._database.read(lambda conn: _look_at_account(conn, company, linked))

    async def claim_account(self, company: str, linked: BoundAccount) -> AccountClaim:
        """The same, and if the account may be the company's, it is from now on.

        The contacts that the company had with another account are put away, and come back with it.

        Raises:
            UnknownCompany: there is no such company.
            StoreFailed: nothing was changed.
        """

        def write(conn: sqlite3.Connection) -> tuple[AccountClaim, bool]:
            found = _look_at_account(conn, company, linked)
            if found.standing is not Standing.OURS:
                return found, False
            before, lid = found.bound, linked.lid
            is_new = before is None or not is_same(before, linked)
            if before is not None and is_new:
                acquaintances.put_away(conn, company, _key(before))
            if is_new:
                acquaintances.bring_back(conn, company, _key(linked))
            elif before is not None:
                lid = lid or before.lid
            conn.execute(
                "UPDATE companies SET account = ?, account_lid = ?, claimed = 1 WHERE company = ?",
                (linked.jid, lid, company),
            )
            return found, is_new

        def written(done: tuple[AccountClaim, bool]) -> None:
            if done[1]:
                self.on_account(company)

        found, _is_new = await self._database.write(write, written)
        return found

    async def give_account_up(self, company: str) -> None:
        """Another company may have the account now. What was written for it is still told from
        what is written for another: see `rules.binding`. Raises UnknownCompany."""
        await self._update(company, "claimed = 0", ())

    async def leave_account(self, company: str) -> Company:
        """The company may be linked with any account next. Its contacts are put away.

        Raises:
            UnknownCompany: there is no such company.
            StoreFailed: nothing was changed.
        """

        def write(conn: sqlite3.Connection) -> Company:
            bound = _get(conn, company).bound
            if bound is not None:
                acquaintances.put_away(conn, company, _key(bound))
            conn.execute(
                "UPDATE companies SET account = NULL, account_lid = NULL, claimed = 0"
                " WHERE company = ?",
                (company,),
            )
            return _get(conn, company)

        return await self._database.write(write, lambda _done: self.on_account(company))

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
    company = Company._make(row)
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
