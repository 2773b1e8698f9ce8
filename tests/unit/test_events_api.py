"""`events.*` without a socket: whose consumers are whose."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from fake_connection import FakeConnection

from whatsappd.api.declaration import plain
from whatsappd.clock import now_ms
from whatsappd.errors import Denied, InvalidParams, TooManyRequests, UnknownConsumer
from whatsappd.handlers.access import AccessControl
from whatsappd.handlers.events import MAX_SUBSCRIPTIONS, EventsApi
from whatsappd.model.access import AccessRule, Subject
from whatsappd.model.event import Draft
from whatsappd.model.webhook import WebhookConfig
from whatsappd.rpc.method import Call
from whatsappd.rpc.peer_credentials import Peer
from whatsappd.rules.bounds import SUBSCRIPTIONS, Places
from whatsappd.store.sqlite import consumers
from whatsappd.store.sqlite.consumers import SqliteConsumers
from whatsappd.store.sqlite.database import Database, open_database
from whatsappd.store.sqlite.event_log import SqliteEventLog, open_event_log
from whatsappd.store.sqlite.webhooks import SqliteWebhooks

OWNER = Peer(1, os.geteuid(), os.getegid())
GUEST = Peer(2, os.geteuid() + 1, os.getegid())


class Connection(FakeConnection):
    """A caller's connection, with nobody who reads from it."""

    def __init__(self, peer: Peer, nursery: trio.Nursery) -> None:
        super().__init__(peer, nursery)
        self.call = Call(peer, self)

    def bind_to(self, actor: str) -> None:
        assert actor == self.call.actor


class World:
    def __init__(
        self,
        database: Database,
        log: SqliteEventLog,
        webhooks: SqliteWebhooks,
        nursery: trio.Nursery,
    ) -> None:
        self.database = database
        self.nursery = nursery
        self.log = log
        self.webhooks = webhooks
        access = AccessControl(OWNER.uid)
        access.use(
            [AccessRule(Subject.USER, GUEST.uid, "guest", frozenset({"acme"}), read_only=True)]
        )
        self.consumers = SqliteConsumers(database, log, now_ms)
        self.api = EventsApi(log, self.consumers, access)
        self._methods = {method.name: method for method in self.api.methods()}
        self.owner = Connection(OWNER, nursery)
        self.guest = Connection(GUEST, nursery)

    def key(self, identity: str) -> Connection:
        """A connection of the gateway's that calls for that API key."""
        connection = Connection(OWNER, self.nursery)
        connection.call = connection.call._replace(actor=f"key:{identity}")
        return connection

    async def call(self, who: Connection, method: str, **arguments: Any) -> Any:
        found = self._methods[method]
        answer = found.handler(who.call, found.parse([arguments]))
        return plain(await answer if found.is_async else answer)


@pytest.fixture
async def world(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[World]:
    async with open_database(tmp_path / "whatsappd.db") as database:
        log = await open_event_log(database)
        await log.append(*[Draft("acme", "alert", {"n": n}) for n in range(5)])
        yield World(database, log, SqliteWebhooks(database, log, now_ms), nursery)
        nursery.cancel_scope.cancel()


async def test_nobody_moves_a_webhooks_cursor_but_its_deliverer(world: World) -> None:
    made = await world.webhooks.create(WebhookConfig("https://shop.example/"), 0)
    name = f"webhook:{made.id}"
    for who in (world.owner, world.guest):
        with pytest.raises(InvalidParams, match="webhook"):
            await world.call(who, "events.ack", consumer=name, seq=5)
        with pytest.raises(InvalidParams, match="webhook"):
            await world.call(who, "events.subscribe", consumer="webhook:new")
    assert (await world.webhooks.get(made.id)).cursor == 0
    assert [consumer.name for consumer in await world.consumers.all()] == [name]


async def test_a_consumer_is_forgotten_by_whose_it_is(world: World) -> None:
    for who in (world.owner, world.guest):
        await world.call(who, "events.subscribe", consumer="crm")
    assert await world.call(world.guest, "events.forget", consumer="crm") == {"consumer": "crm"}
    assert [consumer.name for consumer in await world.consumers.all()] == ["crm"]
    with pytest.raises(UnknownConsumer):
        await world.call(world.guest, "events.forget", consumer="crm")
    made = await world.webhooks.create(WebhookConfig("https://shop.example/"), 0)
    with pytest.raises(InvalidParams, match="webhook"):
        await world.call(world.owner, "events.forget", consumer=f"webhook:{made.id}")
    # Whoever may do everything also tidies up after others.
    await world.call(world.guest, "events.subscribe", consumer="crm")
    await world.call(world.owner, "events.forget", consumer=f"uid:{GUEST.uid}:crm")
    await world.call(world.owner, "events.forget", consumer="crm")
    assert [consumer.name for consumer in await world.consumers.all()] == [f"webhook:{made.id}"]


async def test_nobody_has_so_many_consumers_that_others_get_none(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = consumers.BOUND._replace(each=3, all=14, kept=5)
    monkeypatch.setattr(consumers, "BOUND", few)

    async def make(who: Connection, most: int, refusal: str) -> None:
        for number in range(most):
            await world.call(who, "events.subscribe", consumer=f"crm{number}")
        with pytest.raises(InvalidParams, match=refusal) as told:
            await world.call(who, "events.subscribe", consumer="crm:x")
        assert told.value.data["field"] == "consumer"
        await world.call(who, "events.forget", consumer="crm0")
        await world.call(who, "events.subscribe", consumer="crm:x")
        await world.call(who, "events.subscribe", consumer="crm1")  # there already

    for who in (world.guest, world.key("abcd1234"), world.key("other123")):
        await make(who, 3, r"holds 3 of 3 consumers.*forget")
    await make(world.owner, 5, "together hold 14 of 14 consumers")
    for _ in range(6):
        await world.webhooks.create(WebhookConfig("https://shop.example/"), 0)


async def test_a_consumer_is_its_makers_and_nobody_elses(world: World) -> None:
    first, second = world.key("abcd1234"), world.key("other123")
    await world.log.append(*[Draft("acme", "alert", {"n": n}) for n in range(5)])
    for who in (world.owner, world.guest, first):
        assert (await world.call(who, "events.subscribe", consumer="crm", after=0))["after"] == 0
    with pytest.raises(UnknownConsumer):
        await world.call(second, "events.ack", consumer="crm", seq=9)
    with pytest.raises(UnknownConsumer):
        await world.call(second, "events.forget", consumer="crm")
    assert await world.call(first, "events.ack", consumer="crm", seq=7) == {"cursor": 7}
    assert {each.name: each.cursor for each in await world.consumers.all()} == {
        "crm": 0,
        f"uid:{GUEST.uid}:crm": 0,
        "key:abcd1234:crm": 7,
    }
    # Another's whole name is just a name of one's own.
    await world.call(second, "events.subscribe", consumer="uid:0:crm", after=0)
    assert await world.call(second, "events.ack", consumer="uid:0:crm", seq=9) == {"cursor": 9}
    assert "key:other123:uid:0:crm" in {each.name for each in await world.consumers.all()}


async def test_who_used_a_shared_consumer_goes_on_where_it_was(world: World) -> None:
    await world.call(world.owner, "events.subscribe", consumer="crm", after=0)
    await world.call(world.owner, "events.ack", consumer="crm", seq=3)

    def as_before_the_migration(conn: sqlite3.Connection) -> None:
        conn.execute("INSERT INTO shared_consumers VALUES ('crm')")

    await world.database.write(as_before_the_migration)
    key = world.key("abcd1234")
    assert (await world.call(key, "events.subscribe", consumer="crm"))["after"] == 3
    assert await world.call(key, "events.ack", consumer="crm", seq=5) == {"cursor": 5}
    assert (await world.consumers.place("crm")) == 3
    # New ones of that name begin as new ones do.
    await world.call(world.owner, "events.forget", consumer="crm")
    await world.call(world.owner, "events.subscribe", consumer="crm", after=1)
    assert (await world.call(world.guest, "events.subscribe", consumer="crm"))["after"] == 5


async def test_qr_codes_are_for_those_who_may_link(world: World) -> None:
    await world.log.append(
        Draft("acme", "session.qr", {"qr": "2@secret"}), Draft("acme", "alert", {"n": 9})
    )
    page = await world.call(world.guest, "events.read", after=5)
    assert ([each["type"] for each in page["events"]], page["next"]) == (["alert"], 7)
    page = await world.call(world.guest, "events.read", after=5, limit=1)
    assert [each["seq"] for each in page["events"]] == [7]
    for method in ("events.read", "events.subscribe"):
        with pytest.raises(Denied, match="may link"):
            await world.call(world.guest, method, after=0, types=["session.qr"])
    page = await world.call(world.owner, "events.read", after=5, types=["session.qr"])
    assert page["events"][0]["data"]["qr"] == "2@secret"
    for who in (world.guest, world.owner):
        await world.call(who, "events.subscribe", after=5)
    await trio.testing.wait_all_tasks_blocked()
    assert b"2@secret" not in world.guest.sent
    assert b"2@secret" in world.owner.sent
    assert world.guest.sent.count(b"alert") == 1


async def test_codes_that_a_reader_may_not_see_cost_nothing_to_skip(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A company that waits to be linked logs one every 20 seconds, for as long as retention keeps.
    many = [Draft("acme", "session.qr", {"qr": "2@secret"})] * 300
    await world.log.append(*many, Draft("acme", "alert", {"n": 9}))
    asked = 0
    query = world.database.query

    async def counted(read: Callable[[sqlite3.Connection], Any]) -> Any:
        nonlocal asked
        asked += 1
        return await query(read)

    monkeypatch.setattr(world.database, "query", counted)
    world.log._tail.forget(world.log.last_seq)  # as if others' events had pushed them out
    page = await world.call(world.guest, "events.read", after=5, limit=1)
    assert [each["seq"] for each in page["events"]] == [306]
    assert asked == 1


async def test_a_connection_has_a_bounded_number_of_subscriptions(world: World) -> None:
    many = [
        (await world.call(world.owner, "events.subscribe"))["subscription"]
        for _ in range(MAX_SUBSCRIPTIONS)
    ]
    assert many == list(range(1, MAX_SUBSCRIPTIONS + 1))
    with pytest.raises(TooManyRequests, match="unsubscribe"):
        await world.call(world.owner, "events.subscribe", consumer="crm")
    assert await world.consumers.all() == []  # nothing was done by halves
    with pytest.raises(TooManyRequests):
        world.api.watch(world.owner.call, "acme", after=0)
    assert len(world.api.lags()) == MAX_SUBSCRIPTIONS
    # Others have their own.
    assert (await world.call(world.guest, "events.subscribe"))["subscription"] == 1
    await world.call(world.owner, "events.unsubscribe", subscription=7)
    await trio.testing.wait_all_tasks_blocked()
    assert (await world.call(world.owner, "events.subscribe"))["subscription"] == 7


async def test_one_user_has_so_many_subscriptions_on_all_connections(world: World) -> None:
    world.api._places = Places(SUBSCRIPTIONS._replace(each=3, all=9, kept=2))
    guests = [Connection(GUEST, world.nursery) for _ in range(2)]
    for guest in (guests[0], guests[0], guests[1]):
        await world.call(guest, "events.subscribe")
    with pytest.raises(TooManyRequests, match="holds 3 of 3 subscriptions"):
        await world.call(guests[1], "events.subscribe", consumer="crm")
    assert await world.consumers.all() == []
    for _ in range(6):
        await world.call(world.owner, "events.subscribe")
    [report] = world.api.report()
    assert (report["held"], report["holders"][0]["held"]) == (9, 6)
    await world.call(guests[0], "events.unsubscribe", subscription=1)
    await trio.testing.wait_all_tasks_blocked()
    assert world.api.report()[0]["held"] == 8


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
