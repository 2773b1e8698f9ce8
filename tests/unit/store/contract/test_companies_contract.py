"""What is stored of companies: wishes, settings, and whose account they are linked with."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from whatsappd.errors import UnknownCompany
from whatsappd.model.content import Text
from whatsappd.model.message import NewMessage
from whatsappd.rules.account_binding import BoundAccount, Standing
from whatsappd.store.port import Companies, DaemonStore

OWN = BoundAccount("15550100@s.whatsapp.net", "100@lid")
OTHER = BoundAccount("15550300@s.whatsapp.net", "300@lid")
FRIEND = "15550200@s.whatsapp.net"


@pytest.fixture
async def companies(store: DaemonStore) -> Companies:
    await store.companies.put_wanted("acme", True)
    await store.companies.put_wanted("globex", False)
    return store.companies


async def test_what_is_wanted_and_configured_is_kept(companies: Companies, clock) -> None:
    made = await companies.get("acme")
    assert (made.created_ms, made.jid, made.bound) == (clock.now_ms, None, None)
    identity = {"jid": "15550100@s.whatsapp.net", "lid": "1@lid", "push_name": "Acme"}
    await companies.put_identity("acme", **identity)
    await companies.put_connected("acme", 123)
    told: list[dict[str, Any]] = []
    await companies.put_settings("acme", {"per_minute": 10, "color": "red"}, told.append)
    assert await companies.put_settings("acme", {"color": None}) == {"per_minute": 10}
    assert told == [{"per_minute": 10, "color": "red"}]
    clock.now_ms += 1
    assert await companies.put_wanted("acme", True) == made._replace(
        settings={"per_minute": 10}, last_connected_ms=123, **identity
    )
    assert [(each.company, each.wanted) for each in await companies.all()] == [
        *(("acme", True), ("globex", False)),
    ]


async def test_an_unknown_company_is_an_error_that_names_it(companies: Companies) -> None:
    for call in (
        companies.get("nobody"),
        companies.settings("nobody"),
        companies.put_settings("nobody", {}),
        companies.put_unwanted("nobody"),
        companies.put_connected("nobody", 1),
        companies.claim_account("nobody", OWN),
    ):
        with pytest.raises(UnknownCompany, match="'nobody'"):
            await call


async def test_of_two_that_claim_one_account_at_once_one_gets_it(companies: Companies) -> None:
    found = {}

    async def claim(company: str) -> None:
        found[company] = await companies.claim_account(company, OWN)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(claim, "acme")
        nursery.start_soon(claim, "globex")
    [winner] = [name for name, each in found.items() if each.standing is Standing.OURS]
    [loser] = {"acme", "globex"} - {winner}
    assert (found[loser].standing, found[loser].owner) == (Standing.TAKEN, winner)
    assert (await companies.get(winner)).bound == OWN
    assert (await companies.get(loser)).bound is None


async def test_what_waits_for_one_account_does_not_go_to_another(
    store: DaemonStore, companies: Companies
) -> None:
    await companies.claim_account("acme", OWN)
    await companies.give_account_up("acme")
    row, _ = await store.outbox.submissions.accept(NewMessage("acme", FRIEND, Text("first")), 10)
    assert (await companies.look_at_account("acme", OTHER)).standing is Standing.OTHER
    assert (await companies.claim_account("acme", OTHER)).standing is Standing.OTHER
    assert (await companies.get("acme")).bound == OWN
    await store.outbox.submissions.cancel(row.id)
    assert (await companies.claim_account("acme", OTHER)).standing is Standing.OURS


async def test_whom_a_company_knows_is_kept_by_account(
    store: DaemonStore, companies: Companies
) -> None:
    told: list[str] = []
    store.acquaintances.follow(told.append)

    async def knows() -> bool:
        return not await store.acquaintances.strangers("acme", [FRIEND])

    await companies.claim_account("acme", OWN)
    await store.acquaintances.add("acme", [FRIEND])
    assert await knows()
    told.clear()
    await companies.leave_account("acme")
    assert told == ["acme"]
    assert not await knows()
    await companies.claim_account("acme", OTHER)
    assert not await knows()
    await companies.claim_account("acme", OTHER)  # as at each reconnection
    await companies.give_account_up("acme")
    await companies.claim_account("acme", OWN)
    assert await knows()
