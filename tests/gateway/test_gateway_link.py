"""The way to the daemon is shared, and what takes long does not hold it up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from whatsappd.api.declaration import Concerns, Declaration, NoParams, Result
from whatsappd.errors import Denied
from whatsappd.gateway.daemon_link import MAX_IN_FLIGHT, DaemonLink
from whatsappd.rpc.listener import close_listener, open_listener
from whatsappd.rpc.method import Call, Method, MethodTable
from whatsappd.rpc.server import serve_rpc

SLOW = [
    *("session.start", "session.stop", "session.restart", "session.logout", "session.remove"),
    "webhook.test",
]


class Anything(msgspec.Struct, forbid_unknown_fields=True):
    id: str


class Daemon:
    """Answers `key.check`, and never what is slow: `begun` are the methods and their actors."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, str | None]] = []
        self._more = trio.Event()

    async def until_begun(self, count: int) -> None:
        with trio.fail_after(20):
            while len(self.begun) < count:
                await self._more.wait()

    def table(self) -> MethodTable:
        return MethodTable(
            [
                _method("daemon.hello", lambda *_: {"methods": [], "pid": 1, "mode": "sandbox"}),
                _method("key.check", lambda *_: "checked"),
                _method("events.subscribe", _deny),
                *(_method(name, self._slow(name)) for name in SLOW),
            ]
        )

    def _slow(self, name: str) -> Any:
        async def handle(call: Call, params: Anything) -> None:
            if params.id == "denied":
                _deny()
            self.begun.append((name, call.actor))
            self._more.set()
            self._more = trio.Event()
            await trio.sleep_forever()

        return handle


def _deny(*_: Any) -> None:
    raise Denied("not for you")


def _method(name: str, handler: Any) -> Method:
    params = NoParams if name == "daemon.hello" else Anything
    return Method(
        Declaration(name, params, Result, "", writes=False, concerns=Concerns.NONE), handler
    )


@asynccontextmanager
async def linked(daemon: Daemon, path: Path) -> AsyncIterator[DaemonLink]:
    listener = open_listener(path)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_rpc, listener.socket, daemon.table()))
            link = DaemonLink(path)
            nursery.start_soon(link.run)
            yield link
            nursery.cancel_scope.cancel()
    finally:
        close_listener(listener)


async def test_what_takes_long_holds_nobody_up(tmp_path: Path) -> None:
    daemon = Daemon()
    count = MAX_IN_FLIGHT + len(SLOW)
    async with linked(daemon, tmp_path / "d.sock") as link, trio.open_nursery() as slow:
        for number in range(count):
            name = SLOW[number % len(SLOW)]
            slow.start_soon(partial(link.request, name, {"id": "x"}, actor="key:a"))
        with trio.fail_after(5):
            assert await link.request("key.check", {"id": "x"}, actor=None) == "checked"
        await daemon.until_begun(count)
        assert set(daemon.begun) == {(name, "key:a") for name in SLOW}
        slow.cancel_scope.cancel()


@pytest.mark.parametrize("is_slow", [True, False])
async def test_what_the_daemon_refuses_on_a_connection_of_its_own_is_refused(
    tmp_path: Path, is_slow: bool
) -> None:
    """It is no trouble with the connection, which would be a reason to come again."""
    async with linked(Daemon(), tmp_path / "d.sock") as link:

        async def subscribe() -> None:
            async with link.connection() as client:
                await client.request("events.subscribe", {"id": "denied"})

        stop = partial(link.request, "session.stop", {"id": "denied"}, actor="key:a")
        with pytest.raises(Denied, match="not for you"):
            await (stop if is_slow else subscribe)()
