"""Webhook deliveries a second to a receiver on loopback, and what one costs the gateway.

A real gateway process reads a backlog from a real daemon. One company's events leave one after the
other, as their order demands; four companies use the four connections that a receiver is given. The
receiver is this process, and takes its share of the two cores.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "e2e"), str(TESTS / "gateway")]

from daemons import running_daemon  # noqa: E402
from gateways import make_events, running_gateway  # noqa: E402
from processes import cpu_s  # noqa: E402
from receivers import running_receiver  # noqa: E402

MESSAGES = 1000  # two events each

pytestmark = pytest.mark.bench


@pytest.mark.parametrize("companies", [1, 4])
async def test_deliveries_a_second(companies: int, measured: Callable[..., None]) -> None:
    async with running_daemon("--sandbox") as daemon, running_receiver() as receiver:
        for number in range(companies):
            await make_events(daemon, f"c{number}", MESSAGES // companies)
        async with daemon.client() as client:
            await client.call(
                "webhook.create", url=receiver.url, allow_private=True, after=0,
                types=["outbox.state"],
            )  # fmt: skip
        async with running_gateway(daemon) as gateway:
            assert gateway.process is not None
            await receiver.until(lambda: receiver.received)
            first, began = len(receiver.received), time.perf_counter()
            cpu = cpu_s([gateway.process.pid])
            await receiver.until(lambda: len(receiver.received) >= 2 * MESSAGES)
            seconds = time.perf_counter() - began
            count = len(receiver.received) - first
            cost = (cpu_s([gateway.process.pid]) - cpu) / count
    rate = count / seconds
    measured(f"webhook deliveries, {companies} companies", rate, "/s")
    measured(f"the gateway's processor time a delivery, {companies} companies", 1000 * cost, "ms")
    assert rate > 50
