"""Real gateways against real daemons: processes, as anybody would start them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))

from daemons import running_daemon
from gateways import Stack, running_gateway


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    """A daemon in sandbox mode, and a gateway to it."""
    async with running_daemon("--sandbox") as daemon, running_gateway(daemon) as gateway:
        yield Stack(daemon, gateway)
