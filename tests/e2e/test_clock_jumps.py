"""The wall clock jumps by years, in both directions, while messages flow and workers die."""

from __future__ import annotations

import json
import os
import random
import signal
from typing import Any

import trio
from clocks import WallClock
from daemons import PATIENCE, Daemon, in_sandbox, link

from whatsappd.rpc.client import RpcClient

ACME, GLOBEX = "+15550100", "+15550200"
JUMPS = (-45, 800, 0, -3000, 1, 0.01, 0)


def lines(daemon: Daemon, event: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in daemon.log().splitlines() if line.startswith("{")]
    return [line for line in found if line["event"] == event]


async def test_nothing_waits_ends_or_expires_because_of_it() -> None:
    clocks: list[WallClock] = []

    def prepare(daemon: Daemon) -> None:
        clocks.append(WallClock(daemon.directory, daemon.environment))

    settings = (
        "limits.per_company_per_minute=10",
        "sessions.retry_base=100ms",
        "sessions.crash_limit=100",
    )
    arguments = [part for each in settings for part in ("--set", each)]
    async with in_sandbox(*arguments, prepare=prepare) as (daemon, client, events):
        [clock] = clocks
        await link(client, events, "acme", ACME)
        await link(client, events, "globex", GLOBEX)
        # One that waits for a session that is stopped, for an hour at the most.
        await client.call("session.stop", company="globex")
        waits = await client.call(
            "message.send", company="globex", to=ACME, text="within an hour", ttl_ms=3_600_000
        )
        # More than may be sent in a minute: a clock that jumps makes room for none of them.
        rows = [
            (await client.call("message.send", company="acme", to=GLOBEX, text=f"{n}"))["id"]
            for n in range(14)
        ]
        chance = random.Random(11)
        kills = 0
        for days in JUMPS:
            await trio.sleep(chance.random() / 4)
            clock.set_off(days=days)
            status = await client.call("session.status", company="acme")
            if status["worker_pid"]:
                start = len(events.seen)
                os.kill(status["worker_pid"], signal.SIGKILL)
                kills += 1
                with trio.fail_after(PATIENCE):
                    await events.state("acme", "connected", start=start)
            with trio.fail_after(PATIENCE):
                while not await followed(daemon, days):
                    await trio.sleep(0.05)
        sent = [row for row in rows if (await state_of(client, row)) not in ("queued", "sending")]
        # A message that a killed worker did not come to has had its place.
        assert 10 - kills <= len(sent) <= 10
        assert await state_of(client, waits["id"]) == "queued"
        await client.call("session.start", company="globex")
        found = await client.call("message.wait", id=waits["id"], **{"for": "sent"})
        assert found["state"] == "sent"
        health = await client.call("daemon.health")
        [tasks] = [check for check in health["checks"] if check["name"] == "tasks"]
        assert tasks["ok"], tasks


async def followed(daemon: Daemon, days: float) -> bool:
    """Whether the daemon has noticed where the clock is now. (One that is far ahead is doubted.)"""
    seen = sum(line["by_s"] for line in lines(daemon, "clock_followed"))
    if abs(seen - days * 86400) < 2:
        return True
    told = lines(daemon, "clock_was_set")
    return bool(told) and abs(seen + told[-1]["by_s"] - days * 86400) < 2


async def state_of(client: RpcClient, row: str) -> str:
    return str((await client.call("message.get", id=row))["state"])
