"""A real store, and a session that runs on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from session_world import World, make_world

from whatsappd.store.sqlite.database import Database, open_database


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "whatsappd.db") as database:
        yield database


@pytest.fixture
async def world(database: Database, tmp_path: Path, nursery: trio.Nursery) -> World:
    return await make_world(database, tmp_path, nursery)
