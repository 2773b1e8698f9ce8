"""A server with a table of plain methods, for each test that asks for one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from served import Behaviour, Served

from whatsappd.rpc.limits import DEFAULT_LIMITS, Limits
from whatsappd.rpc.listener import close_listener, open_listener
from whatsappd.rpc.server import allow_all, serve_rpc

Serve = Callable[..., Any]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """`async with serve(limits) as served:`; further arguments are those of `serve_rpc`."""

    @asynccontextmanager
    async def serve(
        limits: Limits = DEFAULT_LIMITS, allow: Any = allow_all, **options: Any
    ) -> AsyncIterator[Served]:
        behaviour = Behaviour()
        listener = open_listener(os.fspath(tmp_path / "rpc.sock"))
        try:
            async with trio.open_nursery() as nursery:
                start = partial(serve_rpc, allow=allow, limits=limits, **options)
                server = await nursery.start(start, listener.socket, behaviour.table())
                served = Served(listener, server, behaviour)
                try:
                    yield served
                finally:
                    for peer in served.peers:
                        peer.close()
                    nursery.cancel_scope.cancel()
        finally:
            close_listener(listener)

    return serve


@pytest.fixture
async def served(serve: Serve) -> AsyncIterator[Served]:
    async with serve() as served:
        yield served
