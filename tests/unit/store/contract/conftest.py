"""The store, on disk and in memory: every test here passes on both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from whatsappd.store.memory.store import memory_store
from whatsappd.store.port import Outbox, StoreParts
from whatsappd.store.sqlite.database import open_database
from whatsappd.store.sqlite.store import store_in


@pytest.fixture(params=["sqlite", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock) -> AsyncIterator[StoreParts]:
    if request.param == "memory":
        yield memory_store(clock)
        return
    async with open_database(tmp_path / "whatsappd.db") as database:
        yield await store_in(database, tmp_path.joinpath, clock=clock)


@pytest.fixture
def outbox(store: StoreParts) -> Outbox:
    return store.outbox
