"""A running sandbox, and clients of the wire protocol that can be linked to its phones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from wire_client import LinkClient, NewClient, WireClient

from whatsappd.sandbox.server.sandbox import Sandbox


@pytest.fixture
async def sandbox(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Sandbox]:
    """A sandbox in this process; whatever its clients do, it must have had no defect."""
    running = Sandbox(tmp_path)
    await nursery.start(running.serve)
    yield running
    assert running.stats()["defects"] == 0


@pytest.fixture
async def new_client(sandbox: Sandbox, tmp_path: Path) -> AsyncIterator[NewClient]:
    """Makes clients without an account, which are closed in the end."""
    clients: list[WireClient] = []

    def new_client() -> WireClient:
        clients.append(WireClient(sandbox.info().port, tmp_path))
        return clients[-1]

    yield new_client
    for client in clients:
        await client.close()


@pytest.fixture
def link(sandbox: Sandbox, new_client: NewClient) -> LinkClient:
    """Makes a client that is linked to a phone and logged in."""

    async def link(phone: str) -> WireClient:
        return await (await new_client().pair(sandbox, phone)).log_in()

    return link
