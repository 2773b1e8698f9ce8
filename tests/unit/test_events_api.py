"""`events.*` without a socket: whose consumers are whose."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from whatsappd.api.access import AccessControl
from whatsappd.api.events import MAX_SUBSCRIPTIONS, EventsApi
from whatsappd.errors import InvalidParams, TooManyRequests, UnknownConsumer
from whatsappd.model.access import AccessRule, Subject
from whatsappd.model.event import Draft
from whatsappd.rpc.method import Call
from whatsappd.rpc.peer import Peer
from whatsappd.store import consumers
from whatsappd.store.database import open_database
from whatsappd.store.events import EventLog, open_event_log
from whatsappd.store.webhooks import Wanted, Webhooks

OWNER = Peer(1, os.geteuid(), os.getegid())
GUEST = Peer(2, os.geteuid() + 1, os.getegid())


class Connection:
    """A caller's connection, with nobody who reads from it."""

    def __init__(self, peer: Peer, nursery: trio.Nursery) -> None:
        self.peer = peer
        self.closed = False
        self.start_soon: Callable[..., Any] = nursery.start_soon
        self.call = Call(peer, self)  # type: ignore[arg-type]


class World:
    def __init__(self, log: EventLog, webhooks: Webhooks, nursery: trio.Nursery) -> None:
        self.log = log
        self.webhooks = webhooks
        access = AccessControl(OWNER.uid)
        access.use(
            [AccessRule(Subject.USER, GUEST.uid, "guest", frozenset({"acme"}), read_only=True)]
        )
        self.api = EventsApi(log, access)
        self._methods = {method.name: method for method in self.api.methods()}
        self.owner = Connection(OWNER, nursery)
        self.guest = Connection(GUEST, nursery)

    async def call(self, who: Connection, method: str, **arguments: Any) -> Any:
        found = self._methods[method]
        answer = found.handler(who.call, found.parse([arguments]))
        return await answer if found.is_async else answer


@pytest.fixture
async def world(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[World]:
    async with open_database(tmp_path / "whatsappd.db") as database:
        log = await open_event_log(database)
        await log.append(*[Draft("acme", "alert", {"n": n}) for n in range(5)])
        yield World(log, Webhooks(database, log), nursery)
        nursery.cancel_scope.cancel()


async def test_nobody_moves_a_webhooks_cursor_but_its_deliverer(world: World) -> None:
    made = await world.webhooks.create(Wanted("https://shop.example/"), 0)
    name = f"webhook:{made.id}"
    for who in (world.owner, world.guest):
        with pytest.raises(InvalidParams, match="webhook"):
            await world.call(who, "events.ack", consumer=name, seq=5)
        with pytest.raises(InvalidParams, match="webhook"):
            await world.call(who, "events.subscribe", consumer="webhook:new")
    assert (await world.webhooks.get(made.id)).cursor == 0
    assert [consumer.name for consumer in await world.log.list_consumers()] == [name]


async def test_a_consumer_is_forgotten_by_whose_it_is(world: World) -> None:
    for who in (world.owner, world.guest):
        await world.call(who, "events.subscribe", consumer="crm")
    assert await world.call(world.guest, "events.forget", consumer="crm") == {"consumer": "crm"}
    assert [consumer.name for consumer in await world.log.list_consumers()] == ["crm"]
    with pytest.raises(UnknownConsumer):
        await world.call(world.guest, "events.forget", consumer="crm")
    made = await world.webhooks.create(Wanted("https://shop.example/"), 0)
    with pytest.raises(InvalidParams, match="webhook"):
        await world.call(world.owner, "events.forget", consumer=f"webhook:{made.id}")
    # Whoever may do everything also tidies up after others.
    await world.call(world.guest, "events.subscribe", consumer="crm")
    await world.call(world.owner, "events.forget", consumer=f"uid:{GUEST.uid}:crm")
    await world.call(world.owner, "events.forget", consumer="crm")
    assert [consumer.name for consumer in await world.log.list_consumers()] == [
        f"webhook:{made.id}"
    ]


async def test_nobody_has_so_many_consumers_that_others_get_none(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "MAX_CONSUMERS", 5)
    monkeypatch.setattr(consumers, "MAX_OWN", 3)

    async def make(who: Connection, prefix: str, most: int) -> None:
        for number in range(most):
            await world.call(who, "events.subscribe", consumer=f"{prefix}{number}")
        with pytest.raises(InvalidParams, match=f"{most} consumers.*forget"):
            await world.call(who, "events.subscribe", consumer=f"{prefix}x")
        await world.call(who, "events.forget", consumer=f"{prefix}0")
        await world.call(who, "events.subscribe", consumer=f"{prefix}x")
        await world.call(who, "events.subscribe", consumer=f"{prefix}1")  # there already

    await make(world.guest, "crm:", 3)
    await make(world.owner, "key:abcd1234:", 3)  # the gateway, for a key
    await make(world.owner, "key:other123:", 3)
    await make(world.owner, "shared:", 5)
    for _ in range(6):
        await world.webhooks.create(Wanted("https://shop.example/"), 0)


async def test_a_connection_has_a_bounded_number_of_subscriptions(world: World) -> None:
    many = [
        (await world.call(world.owner, "events.subscribe"))["subscription"]
        for _ in range(MAX_SUBSCRIPTIONS)
    ]
    assert many == list(range(1, MAX_SUBSCRIPTIONS + 1))
    with pytest.raises(TooManyRequests, match="unsubscribe"):
        await world.call(world.owner, "events.subscribe", consumer="crm")
    assert await world.log.list_consumers() == []  # nothing was done by halves
    with pytest.raises(TooManyRequests):
        world.api.watch(world.owner.call, "acme", after=0)
    assert len(world.api.lags()) == MAX_SUBSCRIPTIONS
    # Others have their own.
    assert (await world.call(world.guest, "events.subscribe"))["subscription"] == 1
    await world.call(world.owner, "events.unsubscribe", subscription=7)
    await trio.testing.wait_all_tasks_blocked()
    assert (await world.call(world.owner, "events.subscribe"))["subscription"] == 7


async def test_subscriptions_that_are_asked_for_at_once_are_bounded_too(world: World) -> None:
    refused: list[TooManyRequests] = []

    async def subscribe() -> None:
        try:
            await world.call(world.owner, "events.subscribe", after=5)
        except TooManyRequests as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(MAX_SUBSCRIPTIONS + 5):
            nursery.start_soon(subscribe)
    assert len(refused) == 5
    assert refused[0].data == {"limit": MAX_SUBSCRIPTIONS}


async def test_nothing_is_kept_of_a_subscription_on_a_connection_that_is_gone(
    world: World,
) -> None:
    world.guest.closed = True
    world.guest.start_soon = lambda *_arguments: None
    for number in range(MAX_SUBSCRIPTIONS + 1):
        answer = await world.call(world.guest, "events.subscribe")
        assert answer["subscription"] == 1, number
