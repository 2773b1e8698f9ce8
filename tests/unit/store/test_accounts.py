"""Which account a company has, in the database: claims, old databases, whom it knows with which."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import trio

from whatsappd.clock import now_ms
from whatsappd.model.content import Text
from whatsappd.model.message import NewMessage
from whatsappd.rules.account_binding import BoundAccount, Standing
from whatsappd.store.sqlite.acquaintances import SqliteAcquaintances
from whatsappd.store.sqlite.companies import SqliteCompanies
from whatsappd.store.sqlite.database import Database, open_database
from whatsappd.store.sqlite.event_log import open_event_log
from whatsappd.store.sqlite.migrations import migrations
from whatsappd.store.sqlite.outbox import open_outbox
from whatsappd.store.sqlite.store import store_in

OWN = BoundAccount("15550100@s.whatsapp.net", "100@lid")
OTHER = BoundAccount("15550300@s.whatsapp.net", "300@lid")
FRIEND = "15550200@s.whatsapp.net"


@pytest.fixture
async def companies(database: Database) -> SqliteCompanies:
    companies = SqliteCompanies(database, SqliteAcquaintances(database), now_ms)
    await companies.put_wanted("acme", True)
    await companies.put_wanted("globex", True)
    return companies


async def test_of_two_that_claim_one_account_at_once_one_gets_it(
    companies: SqliteCompanies,
) -> None:
    found = {}

    async def claim(company: str) -> None:
        found[company] = await companies.claim_account(company, OWN)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(claim, "acme")
        nursery.start_soon(claim, "globex")
    standings = sorted(each.standing.name for each in found.values())
    assert standings == ["OURS", "TAKEN"]
    [winner] = [name for name, each in found.items() if each.standing is Standing.OURS]
    [loser] = {"acme", "globex"} - {winner}
    assert found[loser].owner == winner
    assert (await companies.get(winner)).bound == OWN
    assert (await companies.get(loser)).bound is None


@pytest.mark.parametrize(
    "linked", [OWN, BoundAccount(OWN.jid, None), BoundAccount("15550999@s.whatsapp.net", OWN.lid)]
)
async def test_either_identity_of_an_account_is_taken(
    companies: SqliteCompanies, linked: BoundAccount
) -> None:
    await companies.claim_account("acme", OWN)
    claim = await companies.claim_account("globex", linked)
    assert (claim.standing, claim.owner) == (Standing.TAKEN, "acme")


async def remove(database: Database, acquaintances: SqliteAcquaintances, company: str) -> None:
    """Remove a company, as the daemon does."""
    store = await store_in(database, lambda company: Path("/nonexistent") / company)
    removals = store.removals
    await removals.begin(company)
    await removals.finish(company)


async def test_an_account_is_free_when_it_is_given_up_or_its_company_is_removed(
    companies: SqliteCompanies, database: Database
) -> None:
    await companies.claim_account("acme", OWN)
    await companies.give_account_up("acme")
    assert (await companies.claim_account("globex", OWN)).standing is Standing.OURS
    # The first company knows whose messages it has, all the same.
    assert (await companies.look_at_account("acme", OWN)).owner == "globex"
    await remove(database, SqliteAcquaintances(database), "globex")
    assert (await companies.claim_account("acme", OWN)).standing is Standing.OURS


async def test_a_changed_number_is_the_same_account(companies: SqliteCompanies) -> None:
    await companies.claim_account("acme", OWN)
    moved = BoundAccount("15550999@s.whatsapp.net", OWN.lid)
    assert (await companies.claim_account("acme", moved)).standing is Standing.OURS
    assert (await companies.get("acme")).bound == moved
    # A LID that is not told does not end what is known.
    await companies.claim_account("acme", moved._replace(lid=None))
    assert (await companies.get("acme")).bound == moved


async def test_what_waits_keeps_another_number_out_also_after_a_logout(
    companies: SqliteCompanies, database: Database
) -> None:
    outbox = await open_outbox(database, await open_event_log(database))
    await companies.claim_account("acme", OWN)
    await companies.give_account_up("acme")
    row, _ = await outbox.submissions.accept(NewMessage("acme", FRIEND, Text("from the first")), 10)
    assert (await companies.claim_account("acme", OTHER)).standing is Standing.OTHER
    assert (await companies.get("acme")).bound == OWN
    await outbox.submissions.cancel(row.id)
    assert (await companies.claim_account("acme", OTHER)).standing is Standing.OURS


async def test_whom_a_company_knows_is_kept_by_account(
    companies: SqliteCompanies, database: Database
) -> None:
    acquaintances = SqliteAcquaintances(database)
    companies = SqliteCompanies(database, acquaintances, now_ms)

    async def knows() -> bool:
        return not await acquaintances.strangers("acme", [FRIEND])

    await companies.claim_account("acme", OWN)
    await acquaintances.add("acme", [FRIEND])
    assert await knows()
    await companies.leave_account("acme")
    assert not await knows()
    await companies.claim_account("acme", OTHER)
    assert not await knows()
    await companies.claim_account("acme", OTHER)  # as at each reconnection
    await companies.give_account_up("acme")
    await companies.claim_account("acme", OWN)
    assert await knows()
    # And it is forgotten with the company.
    await remove(database, acquaintances, "acme")
    await companies.put_wanted("acme", True)
    await companies.claim_account("acme", OWN)
    assert not await knows()


async def test_where_two_companies_had_one_account_the_oldest_keeps_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = migrations()
    [number] = [each.number for each in known if "identity" in each.name]

    def fill(conn: sqlite3.Connection) -> None:
        conn.executemany(
            "INSERT INTO companies (company, wanted, created_ms, jid, lid) VALUES (?, 1, ?, ?, ?)",
            [
                ("late", 3, "15550100:9@s.whatsapp.net", "100:9@lid"),
                ("first", 1, "15550100:3@s.whatsapp.net", "100:3@lid"),
                ("by_lid", 2, "15550999:3@s.whatsapp.net", "100:4@lid"),
                ("alone", 4, "15550300:1@s.whatsapp.net", None),
                ("unlinked", 0, None, None),
            ],
        )

    with monkeypatch.context() as before:
        before.setattr("whatsappd.store.sqlite.migrations.migrations", lambda: known[: number - 1])
        async with open_database(path) as database:
            await database.write(fill)
    async with open_database(path) as database:
        companies = SqliteCompanies(database, SqliteAcquaintances(database), now_ms)
        bound = {each.company: (each.bound, each.claimed) for each in await companies.all()}
        assert bound == {
            "first": (OWN, True),
            "alone": (BoundAccount("15550300@s.whatsapp.net", None), True),
            "late": (None, False),
            "by_lid": (None, False),
            "unlinked": (None, False),
        }
        found = await companies.look_at_account("late", OWN)
        assert (found.standing, found.owner) == (Standing.TAKEN, "first")
