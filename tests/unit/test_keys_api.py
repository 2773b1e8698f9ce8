"""`key.follow`: what a connection may hold by asking again and again."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trio
import trio.testing

from whatsappd.api.declaration import NoParams
from whatsappd.handlers.keys import KeysApi
from whatsappd.model.access import KeyScope
from whatsappd.rpc.method import Call
from whatsappd.rpc.peer_credentials import Peer
from whatsappd.store.audit_trail import AuditTrail
from whatsappd.store.sqlite.audit import SqliteAuditRecords
from whatsappd.store.sqlite.database import open_database
from whatsappd.store.sqlite.keys import open_keys


async def test_a_connection_follows_the_keys_once_however_often_it_asks(tmp_path: Path) -> None:
    told: list[bytes] = []

    def offer(packed: bytes) -> bool:
        told.append(packed)
        return True

    async with open_database(tmp_path / "whatsappd.db") as database:
        keys = await open_keys(database)
        key, _text = await keys.create("shop", KeyScope.READ, None)
        api = KeysApi(keys, AuditTrail(SqliteAuditRecords(database)))
        async with trio.open_nursery() as nursery:
            connection: Any = SimpleNamespace(
                closed=False, start_soon=nursery.start_soon, offer_packed=offer
            )
            for _ in range(1000):
                api._follow(Call(Peer(1, os.geteuid(), os.getegid()), connection), NoParams())
            await trio.testing.wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            await keys.revoke(key.id)
            assert len(told) == 1
            nursery.cancel_scope.cancel()
        assert api._following == set()
