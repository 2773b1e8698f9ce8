"""A session whose account is not its company's: it is held before it has a worker."""

from __future__ import annotations

import trio
from session_world import World

from whatsappd.clock import now_ms
from whatsappd.model.session import SessionState
from whatsappd.rules.account_binding import BoundAccount
from whatsappd.store.sqlite.acquaintances import SqliteAcquaintances
from whatsappd.store.sqlite.companies import SqliteCompanies
from whatsappd.store.sqlite.database import Database

LINKED = BoundAccount("15550100@s.whatsapp.net", None)  # as the world's session is


async def until(world: World, state: SessionState) -> None:
    with trio.fail_after(10):
        while world.session.state is not state:
            await world.session.wait_changed()


async def test_an_account_that_another_company_has_is_never_connected(
    world: World, database: Database
) -> None:
    """As in a database from before, where two companies share one."""
    companies = SqliteCompanies(database, SqliteAcquaintances(database), now_ms)
    await companies.put_wanted("globex", False)  # that it is stopped makes no difference
    await companies.claim_account("globex", LINKED)
    await world.session.start()
    await until(world, SessionState.HELD)
    assert "the account of company globex" in world.session.cause
    assert world.engine.spawned == 0
    # It goes on when the other one has given it up.
    await companies.give_account_up("globex")
    await world.session.start()
    await until(world, SessionState.CONNECTING)
    assert world.engine.spawned == 1
    await world.session.stop()


async def test_another_number_is_never_connected_until_it_is_meant(
    world: World, database: Database
) -> None:
    companies = SqliteCompanies(database, SqliteAcquaintances(database), now_ms)
    await companies.claim_account("acme", BoundAccount("15550300@s.whatsapp.net", None))
    await world.session.start()
    await until(world, SessionState.HELD)
    assert "+15550100" in world.session.cause
    assert "+15550300" in world.session.cause
    assert world.engine.spawned == 0
    await companies.leave_account("acme")
    await world.session.start()
    await until(world, SessionState.CONNECTING)
    await world.session.stop()
