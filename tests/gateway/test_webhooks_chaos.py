"""Webhooks when all goes wrong at once: refusals, silence, receivers that vanish, SIGKILL."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from daemons import PATIENCE, running_daemon
from gateways import make_events
from receivers import running_receiver

PROCESS = Path(__file__).with_name("deliverer_process.py")
COMPANIES = ("acme", "globex", "initech")


@pytest.mark.parametrize(
    ("messages", "kills"), [(100, 3), pytest.param(1000, 25, marks=pytest.mark.soak)]
)
async def test_nothing_is_lost_and_the_order_holds(messages: int, kills: int) -> None:
    chance = random.Random(messages)
    async with running_daemon("--sandbox") as daemon, running_receiver() as receiver:

        def answer(_event: dict[str, Any]) -> int:
            return chance.choice([200, 200, 200, 200, 200, 429, 500, 503])

        async def dawdle(_event: dict[str, Any]) -> None:
            if chance.random() < 0.01:
                await trio.sleep(0.5)  # longer than the deliverer waits

        receiver.answer, receiver.before = answer, dawdle
        async with daemon.client() as client:
            await client.call(
                "webhook.create", url=receiver.url, allow_private=True, after=0,
                companies=list(COMPANIES),
            )  # fmt: skip

        async def until_handled(count: int) -> None:
            await receiver.until(lambda: len(receiver.received) >= count)

        async def produce() -> None:
            for company in COMPANIES:
                await make_events(daemon, company, messages)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce)
            for _ in range(kills):
                process = await _start(daemon.socket)
                await until_handled(len(receiver.received) + chance.randrange(20, 100))
                if chance.random() < 0.3:
                    receiver.stop()
                    await trio.sleep(0.1)  # deliveries fail meanwhile
                    await receiver.start()
                process.kill()
                await process.wait()
        process = await _start(daemon.socket)
        try:
            receiver.answer = lambda _event: 200
            async with daemon.client() as client:
                page: dict[str, Any] = {"next": 0, "last_seq": 1}
                log: list[dict[str, Any]] = []
                while page["next"] < page["last_seq"]:
                    page = await client.call("events.read", after=page["next"], limit=500)
                    log += [each for each in page["events"] if each["company"]]
                [webhook] = (await client.call("webhook.list"))["webhooks"]
                with trio.fail_after(PATIENCE):
                    while webhook["cursor"] < log[-1]["seq"]:
                        await trio.sleep(0.05)
                        webhook = await client.call("webhook.get", id=webhook["id"])
        finally:
            process.kill()
            await process.wait()
        assert webhook["dead_letters"] == 0
        for company in COMPANIES:
            arrived = [each["seq"] for each in receiver.accepted if each["company"] == company]
            assert list(dict.fromkeys(arrived)) == [
                each["seq"] for each in log if each["company"] == company
            ]


async def _start(socket: Path) -> trio.Process:
    return await trio.lowlevel.open_process(
        [sys.executable, str(PROCESS), str(socket)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
