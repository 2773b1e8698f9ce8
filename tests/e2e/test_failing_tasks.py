"""Each supervised task of the daemon fails once, while companies are connected and messages flow.

Which tasks there are is taken from the running daemon and from the code, so that a new one cannot
be forgotten here.
"""

from __future__ import annotations

import ast
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import trio
from daemons import PATIENCE, Daemon, following, link, running_daemon
from faults import Faults

from whatsappd.rpc.client import RpcClient

ROOT = Path(__file__).parent.parent.parent / "whatsappd"
ACME, GLOBEX = "+15550100", "+15550200"
ERRORS = ("OSError", "StoreFailed", "KeyError")
#: What runs only where it is set up, and what needs nothing but that.
SETTINGS = {
    "WHATSAPPD_SESSIONS_HEALTH_INTERVAL": "2s",
    "WHATSAPPD_SESSIONS_HEALTH_DEADLINE": "2s",
    "WHATSAPPD_SESSIONS_RETRY_BASE": "50ms",
    "WHATSAPPD_SESSIONS_CRASH_LIMIT": "100",
    "WHATSAPPD_LIMITS_REDIS_URL": "redis://127.0.0.1:1",
    "WHATSAPPD_LIMITS_PER_COMPANY_PER_MINUTE": "0",
    "WHATSAPPD_LIMITS_PER_PHONE_PER_MINUTE": "0",
    "WATCHDOG_USEC": "2000000",
}
#: Tasks that end when they have done their work, or that run in rounds.
IN_ROUNDS = {"health_checks", "health_check", "recycler", "store_probe", "alerts"}
ONCE = {"boot", "recycling"}
#: Those of the gateway, which `tests/gateway` lets fail.
GATEWAY = {"link", "deliverer", "http"}


def names_in_code() -> set[str]:
    """The first argument of every `keep` and `attempt`, also where they are handed on."""
    found: set[str] = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = [node.func, *node.args]
            for place, what in enumerate(called):
                name = getattr(what, "attr", getattr(what, "id", None))
                rest = called[place + 1 :]
                if name not in ("keep", "attempt") or not rest:
                    continue
                if isinstance(rest[0], ast.Constant) and isinstance(rest[0].value, str):
                    found.add(rest[0].value)
    return found


@asynccontextmanager
async def failing_daemon() -> AsyncIterator[tuple[Daemon, Faults]]:
    made: list[Faults] = []
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def prepare(daemon: Daemon) -> None:
        made.append(Faults(daemon.directory, daemon.environment, command="run"))
        listening.bind(str(daemon.directory / "notify"))
        daemon.environment |= {**SETTINGS, "NOTIFY_SOCKET": str(daemon.directory / "notify")}

    async def listen() -> None:
        with trio.socket.from_stdlib_socket(listening) as heard:
            while True:
                await heard.recv(4096)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        async with running_daemon("--sandbox", prepare=prepare) as daemon:
            yield daemon, made[0]
        nursery.cancel_scope.cancel()


class Traffic:
    """Messages from each to the other, one after the other, until it is told to end."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.sent: list[tuple[str, str]] = []
        self.is_over = False

    async def run(self, company: str, to: str) -> None:
        async with self._daemon.client() as client:
            while not self.is_over:
                text = f"{company} {len(self.sent)}"
                row = await client.call("message.send", company=company, to=to, text=text)
                self.sent.append((row["id"], text))
                await trio.sleep(0.1)


async def tasks_check(client: RpcClient) -> dict[str, Any]:
    checks = (await client.call("daemon.health"))["checks"]
    [check] = [each for each in checks if each["name"] == "tasks"]
    return dict(check)


async def failures(client: RpcClient) -> dict[tuple[str, str], int]:
    text = (await client.call("daemon.metrics"))["text"]
    found: dict[tuple[str, str], int] = {}
    for line in text.splitlines():
        if line.startswith("whatsappd_task_failures_total{"):
            labels, value = line.rsplit(" ", 1)
            company, task = (part.split('"')[1] for part in labels.split(",", 1))
            found[task, company] = round(float(value))
    return found


async def until_happened(faults: Faults) -> None:
    with trio.fail_after(PATIENCE):
        while faults.waiting():
            await trio.sleep(0.02)


async def test_each_task_may_fail_and_is_back_and_nothing_is_lost() -> None:
    async with (
        failing_daemon() as (daemon, faults),
        daemon.client() as client,
        following(client) as events,
    ):
        await link(client, events, "acme", ACME)
        await link(client, events, "globex", GLOBEX)
        # It only waits for its end; what it starts is supervised.
        assert faults.unsupervised() == ["whatsappd.rpc.server.serve_rpc"]
        tasks = {*faults.running(), *((name, "") for name in IN_ROUNDS - {"health_check"})}
        tasks |= {("health_check", "acme"), ("health_check", "globex")}
        assert {name for name, _ in tasks} == names_in_code() - ONCE - GATEWAY
        traffic = Traffic(daemon)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(traffic.run, "acme", GLOBEX)
            nursery.start_soon(traffic.run, "globex", ACME)
            kinds = cycle(ERRORS)
            for task in sorted(tasks):
                if task[0] in IN_ROUNDS:
                    faults.put(*task, next(kinds), "put in by a test")
            for task in sorted(tasks):
                if task[0] in IN_ROUNDS or task[0] == "sandbox":
                    continue
                start = len(events.seen)
                faults.put(*task, next(kinds), "put in by a test")
                await until_happened(faults)
                if task[0] in ("session", "pool"):
                    for company in {task[1] or "acme", task[1] or "globex"}:
                        await events.state(company, "connected", start=start)
            traffic.is_over = True
        assert len(traffic.sent) > 20
        for identity, text in traffic.sent:
            with trio.fail_after(PATIENCE):
                row = await client.call("message.wait", id=identity, **{"for": "delivered"})
            assert row["state"] == "delivered", (text, row)
            await events.until(lambda event, text=text: event["data"].get("text") == text)
        arrived = [
            event["data"]["text"] for event in events.seen if event["type"] == "message.received"
        ]
        assert sorted(arrived) == sorted(text for _, text in traffic.sent)
        # The sandbox, and with it all connections, when nothing is under way any more.
        start = len(events.seen)
        faults.put("sandbox", "", next(kinds), "put in by a test")
        for company in ("acme", "globex"):
            await events.state(company, "connected", start=start)
        with trio.fail_after(PATIENCE):
            lasting = {task for task in tasks if task[0] not in IN_ROUNDS}
            while not lasting <= {*faults.running()}:
                await trio.sleep(0.02)
        assert set(await failures(client)) >= tasks
        assert daemon.process is not None
        assert daemon.process.poll() is None
        told = await tasks_check(client)
        assert "put in by a test" in told["detail"]
        assert told["remedy"]


async def test_bringing_back_and_recycling_may_fail_too() -> None:
    async with failing_daemon() as (daemon, faults):
        async with daemon.client() as client, following(client) as events:
            await link(client, events, "acme", ACME)
        assert await daemon.stop() == 0
        faults.first(
            ("boot", "acme", "StoreFailed", "the disk is full"),
            ("recycling", "acme", "OSError", "put in by a test"),
        )
        daemon.arguments += ("--set", "sessions.recycle_descriptors=10")
        daemon.arguments += ("--set", "sessions.recycle_rest=1s")
        await daemon.start()
        async with daemon.client() as client, following(client) as events:
            await events.state("acme", "connected")
            assert (await failures(client))["boot", "acme"] == 1
            await until_happened(faults)
            await events.until(lambda event: event["data"].get("why") == "recycled")
