"""Sessions that come and go leave nothing behind in the daemon."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import trio
from daemons import following, link, running_daemon

ROUNDS = 200
#: Growth of the daemon's private memory that is no leak: caches that fill once, fragmentation.
SLACK_KB = 2_048


class Held(NamedTuple):
    """What a process holds, as the kernel counts it."""

    descriptors: int
    threads: int
    children: int


def held_by(pid: int) -> Held:
    status = Path(f"/proc/{pid}/status").read_text()
    [threads] = [line.split()[1] for line in status.splitlines() if line.startswith("Threads:")]
    children = sum(
        len((task / "children").read_text().split()) for task in Path(f"/proc/{pid}/task").iterdir()
    )
    return Held(len(list(Path(f"/proc/{pid}/fd").iterdir())), int(threads), children)


def private_kb(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))


def grew(before: Held, after: Held) -> bool:
    return any(now > then for now, then in zip(after, before, strict=True))


async def settled(pid: int, before: Held) -> Held:
    """What the process holds, once idle helper threads and just-ended children are gone."""
    with trio.move_on_after(15):
        while grew(before, held_by(pid)):
            await trio.sleep(0.1)
    return held_by(pid)


async def test_starting_and_stopping_a_session_200_times_leaves_nothing_behind() -> None:
    async with (
        running_daemon("--sandbox") as daemon,
        daemon.client() as client,
        following(client) as events,
    ):
        await link(client, events, "acme", "+15550100")

        async def rounds(count: int) -> None:
            for _ in range(count):
                start = len(events.seen)
                await client.call("session.stop", company="acme")
                await client.call("session.start", company="acme")
                await events.state("acme", "connected", start=start)

        await rounds(20)  # fills what fills once
        before = held_by(daemon.pid)
        before_kb = private_kb(daemon.pid)
        await rounds(ROUNDS)
        after = await settled(daemon.pid, before)
        grown_kb = private_kb(daemon.pid) - before_kb
        print(f"{ROUNDS} rounds: {before} -> {after}, private memory {grown_kb:+d} kB")
        assert not grew(before, after)
        assert grown_kb < SLACK_KB
