"""`events.*` without a socket: whose consumers are whose."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from whatsappd.api.access import AccessControl
from whatsappd.api.events import EventsApi
from whatsappd.errors import InvalidParams
from whatsappd.model.access import AccessRule, Subject
from whatsappd.model.event import Draft
from whatsappd.rpc.method import Call
from whatsappd.rpc.peer import Peer
from whatsappd.store.database import open_database
from whatsappd.store.events import EventLog, open_event_log
from whatsappd.store.webhooks import Wanted, Webhooks

OWNER = Peer(1, os.geteuid(), os.getegid())
GUEST = Peer(2, os.geteuid() + 1, os.getegid())


class Connection:
    """A caller's connection, with nobody who reads from it."""

    closed = False

    def __init__(self, peer: Peer, nursery: trio.Nursery) -> None:
        self.peer = peer
        self.start_soon = nursery.start_soon
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
