"""The store, on disk and in memory: every test here passes on both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from whatsappd.store.memory.store import store_in_memory
from whatsappd.store.memory.tables import MemoryTables
from whatsappd.store.port import DaemonStore, Outbox
from whatsappd.store.sqlite.database import open_database
from whatsappd.store.sqlite.store import store_in


@pytest.fixture(params=["sqlite", "memory"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock
) -> AsyncIterator[DaemonStore]:
    if request.param == "memory":
        yield store_in_memory(MemoryTables(clock), tmp_path.joinpath)
        return
    async with open_database(tmp_path / "whatsappd.db") as database:
        yield await store_in(database, tmp_path.joinpath, clock=clock)


@pytest.fixture
def outbox(store: DaemonStore) -> Outbox:
    return store.outbox
