"""How long until all companies are connected again, and what each costs in memory.

References, from the same kind of loopback server on two cores: a bare fork-server loop around
neonize brought 50 companies back in 1.0 s; a pool in one Node process brought 100 back in 3.6 s.
Aims: 100 companies in under 5 s (better 2.5 s); at most 18 MB private memory a worker (better 13).
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import pytest
import trio

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))

from daemons import Daemon, following, link, running_daemon

pytestmark = pytest.mark.bench

#: Companies linked at the same time.
PARALLEL = 8


def private_mb(pid: int) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kilobytes = sum(
        int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_")
    )
    return kilobytes / 1024


def phone(number: int) -> str:
    return f"+1555{number:07d}"


async def link_all(daemon: Daemon, companies: int) -> None:
    async with daemon.client() as client, following(client) as events:
        limiter = trio.CapacityLimiter(PARALLEL)

        async def one(number: int) -> None:
            async with limiter:
                await link(client, events, f"c{number}", phone(number))

        async with trio.open_nursery() as nursery:
            for number in range(companies):
                nursery.start_soon(one, number)


async def all_connected(daemon: Daemon) -> list[int]:
    """Wait until every company is connected; the workers' pids."""
    async with daemon.client() as client:
        while True:
            status = await client.call("daemon.status")
            if all(company["state"] == "connected" for company in status["companies"]):
                return [company["worker_pid"] for company in status["companies"]]
            await trio.sleep(0.02)


async def exchange(daemon: Daemon, companies: int) -> None:
    """Each company writes to the next one, so that workers have seen some traffic."""
    async with daemon.client() as client, trio.open_nursery() as nursery:
        for number in range(companies):

            async def send(number: int = number) -> None:
                for text in ("one", "two", "three"):
                    await client.call(
                        "message.send",
                        company=f"c{number}",
                        to=phone((number + 1) % companies),
                        text=text,
                        wait="delivered",
                    )

            nursery.start_soon(send)


@pytest.mark.parametrize("companies", [1, 10, 50, 100])
async def test_bench_boot(companies: int) -> None:
    async with running_daemon("--sandbox", "--log-level", "warning") as daemon:
        began = time.monotonic()
        await link_all(daemon, companies)
        linked = time.monotonic() - began
        assert await daemon.stop() == 0
        began = time.monotonic()
        await daemon.start()
        ready = time.monotonic() - began
        pids = await all_connected(daemon)
        connected = time.monotonic() - began
        await exchange(daemon, companies)
        private = [private_mb(pid) for pid in pids]
        print(
            f"\n{companies:4d} companies: linked in {linked:.2f} s; after a restart ready in "
            f"{ready:.2f} s, all connected in {connected:.2f} s; private memory a worker "
            f"{statistics.mean(private):.1f} MB (max {max(private):.1f}), "
            f"the daemon {private_mb(daemon.pid):.1f} MB"
        )
        assert len(pids) == companies
