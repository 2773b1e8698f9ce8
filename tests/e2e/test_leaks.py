"""Sessions that come and go leave nothing behind in the daemon and its fork server."""

from __future__ import annotations

import pytest
from daemons import in_sandbox, link
from held import grew, held_by, private_kb, settled

ROUNDS = 200
FEWER_ROUNDS = 10
#: Growth of the daemon's private memory that is no leak: caches that fill once, fragmentation.
SLACK_KB = 2_048


async def test_starting_and_stopping_a_session_leaves_nothing_behind() -> None:
    await leaves_nothing_behind(FEWER_ROUNDS)


@pytest.mark.endurance
async def test_starting_and_stopping_a_session_200_times_leaves_nothing_behind() -> None:
    await leaves_nothing_behind(ROUNDS)


async def leaves_nothing_behind(of_rounds: int) -> None:
    async with in_sandbox() as (daemon, client, events):
        await link(client, events, "acme", "+15550100")

        async def rounds(count: int) -> None:
            for _ in range(count):
                start = len(events.seen)
                await client.call("session.stop", company="acme")
                await client.call("session.start", company="acme")
                await events.state("acme", "connected", start=start)

        await rounds(10)  # fills what fills once
        fork_server = (await client.call("daemon.status"))["fork_server"]["pid"]
        before = held_by(daemon.pid)
        before_it = held_by(fork_server)
        before_kb = private_kb(daemon.pid)
        await rounds(of_rounds)
        after = await settled(lambda: held_by(daemon.pid), before)
        grown_kb = private_kb(daemon.pid) - before_kb
        print(f"{of_rounds} rounds: {before} -> {after}, private memory {grown_kb:+d} kB")
        assert not grew(before, after)
        assert not grew(before_it, held_by(fork_server))
        assert grown_kb < SLACK_KB
