"""Calling in somebody's name: for those who are trusted to say whose."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from whatsappd.api.declaration import Declaration, NoParams, Result
from whatsappd.errors import Denied, InvalidParams
from whatsappd.rpc.client import open_client
from whatsappd.rpc.listener import close_listener, open_listener
from whatsappd.rpc.method import Call, Method, MethodTable
from whatsappd.rpc.server import serve_rpc
from whatsappd.wire.rpc import actor_named


async def _later(call: Call, _params: NoParams) -> Any:
    return call.actor


TABLE = MethodTable(
    [
        Method(
            Declaration("who.plain", NoParams, Result, "", writes=False),
            lambda call, _params: call.actor,
        ),
        Method(Declaration("who.later", NoParams, Result, "", writes=False), _later),
    ]
)


@pytest.mark.parametrize("method", ["who.plain", "who.later"])
@pytest.mark.parametrize("trusted", [True, False])
async def test_an_actor_is_taken_from_trusted_peers_only(
    tmp_path: Path, method: str, trusted: bool
) -> None:
    listener = open_listener(tmp_path / "s")
    try:
        async with trio.open_nursery() as nursery:
            serve = partial(serve_rpc, listener.socket, TABLE, may_speak=lambda _peer: trusted)
            await nursery.start(serve)
            async with open_client(tmp_path / "s") as client:
                assert await client.call(method) is None
                if trusted:
                    assert await client.request(method, {}, actor="key:ab") == "key:ab"
                else:
                    with pytest.raises(Denied):
                        await client.request(method, {}, actor="key:ab")
                assert await client.call(method) is None
            nursery.cancel_scope.cancel()
    finally:
        close_listener(listener)


@pytest.mark.parametrize(
    "second",
    [{}, {"actor": ""}, {"actor": 5}, {"actor": "a", "more": 1}, "key:a", None,
     {"actor": "x" * 101}, {"actor": "two\nlines"}],
)  # fmt: skip
def test_anything_else_behind_the_arguments_is_refused(second: Any) -> None:
    with pytest.raises(InvalidParams):
        actor_named([{}, second])
