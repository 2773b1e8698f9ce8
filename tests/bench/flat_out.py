"""Rounds of messages as fast as they go: by a daemon, and by a bare neonize loop on the same
accounts, sandbox and cores.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio
from bare_loop import running_bare
from crowd import Course, Crowd, all_connected, ring
from daemons import Daemon, RunningSandbox
from processes import cpu_s

from whatsappd.rpc.client import RpcClient

#: Requests in flight while messages are given to the daemon.
IN_FLIGHT = 100


class Round(NamedTuple):
    """One run of messages as fast as it goes: rates a second, and processor time in seconds."""

    sent: float
    arrived: float
    elapsed: float  # until the last one arrived
    clients_cpu: float  # of all processes with a neonize client together
    sandbox_cpu: float
    daemon_cpu: float


class FlatOut:
    """The same accounts, sandbox, cores and messages: by the daemon, and by a bare loop."""

    def __init__(self, daemon: Daemon, sandbox: RunningSandbox, crowd: Crowd, *, each: int) -> None:
        self._daemon = daemon
        self._sandbox = sandbox
        self._crowd = crowd
        self._each = each
        self._count = crowd.companies * each
        self._rounds = 0

    async def by_daemon(self) -> Round:
        """All messages are accepted as fast as they are taken, while the first ones go out."""
        workers = await all_connected(self._daemon)
        self._rounds += 1
        course = Course()
        async with self._daemon.client() as client:
            seq = (await client.call("daemon.status"))["last_seq"]
            limiter = trio.CapacityLimiter(IN_FLIGHT)
            async with (
                self._spending([*workers.values()]) as spent,
                trio.open_nursery() as nursery,
            ):
                for message in ring(self._crowd, self._each):
                    await limiter.acquire_on_behalf_of(message["key"])
                    nursery.start_soon(self._accept, client, message, limiter)
            await course.read_until(client, seq, self._count, patience=60)
        assert course.failed == {}
        assert course.doubled == []
        assert len(course.arrived) == len(course.delivered) == self._count
        return self._round(
            min(course.accepted.values()) / 1000,
            max(course.sent.values()) / 1000,
            max(map(max, course.arrived.values())) / 1000,
            spent,
        )

    async def by_bare_loop(self, *, is_tuned: bool) -> Round:
        """The daemon has stopped, so that its accounts are free. See `running_bare`."""
        clients = [
            {
                "name": name,
                "database": str(self._daemon.state_dir / "companies" / name / "session.db"),
                "phones": [
                    message["to"].removeprefix("+")
                    for partner in range(self._crowd.partners)
                    for message in [self._crowd.message(number, partner)]
                ],
                "messages": self._each,
            }
            for number, name in enumerate(self._crowd.names)
        ]
        async with running_bare(self._sandbox.info, clients, is_tuned=is_tuned) as (
            process,
            lines,
            pids,
        ):
            assert process.stdin is not None
            with trio.fail_after(120):
                async with self._spending(pids) as spent:
                    await process.stdin.send_all(b"go\n")
                seen = await lines.next()
                await process.stdin.send_all(b"end\n")
                await process.wait()
        assert [client["received"] for client in seen] == [self._each] * len(seen)
        return self._round(
            min(client["began"] for client in seen),
            max(client["sent"] for client in seen),
            max(client["arrived"] for client in seen),
            spent,
        )

    def _round(self, began: float, sent: float, arrived: float, spent: list[float]) -> Round:
        return Round(
            self._count / (sent - began), self._count / (arrived - began), arrived - began, *spent
        )

    async def _accept(
        self, client: RpcClient, message: dict[str, str], limiter: trio.CapacityLimiter
    ) -> None:
        text = f"{message['text']} {self._rounds}"
        try:
            await client.call("message.send", **{**message, "text": text, "key": text})
        finally:
            limiter.release_on_behalf_of(message["key"])

    @asynccontextmanager
    async def _spending(self, clients: list[int]) -> AsyncIterator[list[float]]:
        """Processor time from here until the sandbox has a receipt for every message: of the
        clients, of the sandbox, and of the daemon if it runs. It is asked what it knows, and
        nobody else, so that asking costs both kinds of round the same."""
        process = self._daemon.process
        daemon = [] if process is None or process.poll() is not None else [process.pid]
        groups = (clients, [self._sandbox.pid], daemon)
        before = await self._sandbox.stats()
        spent = [cpu_s(pids) for pids in groups]
        found: list[float] = []
        yield found
        with trio.fail_after(120):
            while True:
                stats = await self._sandbox.stats()
                done = [stats[name] - before[name] for name in ("accepted", "receipts")]
                if min(done) >= self._count:
                    break
                await trio.sleep(0.1)
        found += [cpu_s(pids) - then for pids, then in zip(groups, spent, strict=True)]
