"""Nothing accepted is lost, and nothing is sent twice: while everything is killed, and the network
drops, freezes and swallows acknowledgements.

Every accepted message arrives exactly once, except those that are reported `uncertain`. The figures
are printed; `pytest -m soak` runs it for ten minutes, with lost acks that run into whatsmeow's own
time-out of 75 s.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import trio
from chaos import (
    SENT,
    Misfortunes,
    Parties,
    Traffic,
    arriving,
    judge,
    link_all,
    operate,
    out_of_order,
    parties,
    settled_rows,
)
from daemons import RunningSandbox, running_daemon, running_sandbox

Figure = Callable[[str], None]

SEED = int(os.environ.get("WHATSAPPD_TEST_SEED", "20240611"))


async def run_chaos(
    figure: Figure,
    *,
    people: Parties,
    seconds: float,
    every: float,
    pause: float,
    longest: float,
    settle: float,
    lost_acks: int = 0,
) -> None:
    async with (
        running_sandbox() as sandbox,
        running_daemon("--sandbox-at", str(sandbox.info)) as peaceful,
        running_daemon("--sandbox-at", str(sandbox.info)) as daemon,
    ):
        await link_all(peaceful, people.receivers)
        await link_all(daemon, people.senders)
        traffic = Traffic(daemon, people, seed=SEED, pause=pause)
        misfortunes = Misfortunes(daemon, sandbox, people, seed=SEED, longest=longest)
        async with arriving(peaceful) as arrivals, trio.open_nursery() as operators:
            operators.start_soon(operate, daemon, people)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(traffic.run)
                nursery.start_soon(_lose_acks, sandbox, people, lost_acks, seconds)
                with trio.move_on_after(seconds):
                    await misfortunes.run(every=every)
                traffic.stop()
                await sandbox.fault("clear")
            rows = await settled_rows(daemon, people, patience=settle)
            sent = {row["text"] for row in rows if row["state"] in SENT}
            await arrivals.until(lambda: not sent - arrivals.times.keys(), patience=30)
            verdict = judge(traffic.accepted, rows, arrivals)
            stats = await sandbox.stats()
            operators.cancel_scope.cancel()
        figure(f"seed {SEED}: {verdict}")
        figure(f"misfortunes {dict(misfortunes.done)}; senders met {dict(traffic.errors)}")
        figure(
            f"at WhatsApp: {stats['accepted']} taken, {stats['resent']} frames again, "
            f"{stats['acks_withheld']} acks withheld, {stats['retries']} retries"
        )
        assert verdict.lost == []
        assert verdict.doubled == []
        assert out_of_order(arrivals) == []
        assert verdict.arrived_once + verdict.uncertain == verdict.accepted
        # WhatsApp itself took each of them once, and handed on whatever it took.
        assert stats["accepted"] == verdict.arrived_once + verdict.uncertain_arrived
        assert stats["defects"] == 0
        assert stats["violations"] == 0


async def _lose_acks(sandbox: RunningSandbox, people: Parties, count: int, seconds: float) -> None:
    """Acks that are lost while nobody dies: whatsmeow itself gives up, after 75 s."""
    phones = [*people.senders.values()]
    for number in range(count):
        await trio.sleep(seconds / (count + 1))
        await sandbox.fault("lose_acks", phone=phones[number % len(phones)], count=1)


async def test_every_accepted_message_arrives_once_or_is_reported_uncertain(figure: Figure) -> None:
    await run_chaos(
        figure,
        people=parties(3, 3),
        seconds=9,
        every=0.5,
        pause=0.03,
        longest=1.5,
        settle=60,
    )


@pytest.mark.soak
async def test_ten_minutes_of_chaos(figure: Figure) -> None:
    await run_chaos(
        figure,
        people=parties(6, 4),
        seconds=600,
        every=2.5,
        pause=0.5,
        longest=9,  # beyond the 5 s that whatsmeow waits for a new connection
        settle=400,
        lost_acks=12,
    )
