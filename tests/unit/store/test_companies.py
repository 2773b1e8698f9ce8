"""The companies' table: what a restart must remember of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from whatsappd.clock import now_ms
from whatsappd.errors import UnknownCompany
from whatsappd.store.sqlite.acquaintances import SqliteAcquaintances
from whatsappd.store.sqlite.companies import SqliteCompanies
from whatsappd.store.sqlite.database import Database, open_database


async def test_what_is_wanted_survives_a_restart(path: Path) -> None:
    async with open_database(path) as database:
        companies = SqliteCompanies(database, SqliteAcquaintances(database), now_ms)
        await companies.put_wanted("acme", True)
        await companies.put_wanted("globex", True)
        await companies.put_wanted("globex", False)
    async with open_database(path) as database:
        stored = await SqliteCompanies(database, SqliteAcquaintances(database), now_ms).all()
    assert [(row.company, row.wanted) for row in stored] == [("acme", True), ("globex", False)]


async def test_wanting_it_again_keeps_the_rest(database: Database, clock) -> None:
    companies = SqliteCompanies(database, SqliteAcquaintances(database), clock)
    made = await companies.put_wanted("acme", False)
    assert made.created_ms == clock.now_ms
    assert made.jid is None
    identity = {"jid": "15550100@s.whatsapp.net", "lid": "1@lid", "push_name": "Acme"}
    await companies.put_identity("acme", **identity)
    await companies.put_connected("acme", 123)
    await companies.put_settings("acme", {"per_minute": 10, "color": "red"})
    assert await companies.put_settings("acme", {"color": None}) == {"per_minute": 10}
    clock.now_ms += 1
    again = await companies.put_wanted("acme", True)
    assert again == made._replace(
        wanted=True, settings={"per_minute": 10}, last_connected_ms=123, **identity
    )
    assert await companies.settings("acme") == {"per_minute": 10}


async def test_an_unknown_company_is_an_error_that_names_it(database: Database) -> None:
    companies = SqliteCompanies(database, SqliteAcquaintances(database), now_ms)
    for call in (
        companies.get("acme"),
        companies.settings("acme"),
        companies.put_settings("acme", {}),
        companies.put_identity("acme", jid=None, lid=None, push_name=None),
        companies.put_connected("acme", 1),
    ):
        with pytest.raises(UnknownCompany, match="'acme'"):
            await call
