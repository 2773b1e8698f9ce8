"""Nothing accepted is lost, nothing is sent twice, everything heals and nothing leaks: while all is
killed, stands still or is misled by its clock, the disk is full, and the network drops, freezes,
refuses, and delays and swallows acknowledgements.

Companies write to each other and to witnesses in peace (`chaos`) while a script does things to
them (`mishaps`). Every accepted message arrives exactly once, except those that are reported
`uncertain`, and those that died with their receiver's worker (`test_inbound_loss`). Three sizes: a
few companies for some seconds by default, 20 for a minute (`-m endurance --short`), 100 for ten
minutes (`-m endurance`), there with lost acks that run into whatsmeow's own time-out of 75 s. The
seed is that of WHATSAPPD_TEST_SEED.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import trio
from chaos import Operator, Traffic, link_all, parties, until_connected
from clocks import WallClock
from daemons import Daemon, RunningSandbox, running_daemon, running_sandbox
from held import grew, held_by, processes_with, settled
from mishaps import Mishaps, recoveries
from verdict import Arrivals, Verdict, changes_of_state, pass_judgement

Say = Callable[..., None]

SEED = int(os.environ.get("WHATSAPPD_TEST_SEED", "20240611"))
#: In the environment of the companies' daemon and all that descends from it: workers get what
#: Python might read.
MARK = "PYTHON_CHAOS_TEST"


class Scale(NamedTuple):
    """How much happens. Times in seconds.

    Attributes:
        seconds: of mishaps; at the least until each kind had its turn.
        every: the mean pause between two.
        longest: of a freeze, a delay, a refusal.
        pause: the mean one of a sender between two messages of a chat.
        lost_acks: that nobody dies of.
        settles: patience until every message's fate is known.
        connects: patience until everybody is connected.
    """

    companies: int
    witnesses: int
    seconds: float
    every: float
    longest: float
    pause: float
    lost_acks: int = 0
    settles: float = 90
    connects: float = 90


FEW = Scale(4, 2, seconds=5, every=0.4, longest=1.0, pause=0.06)
SHORT = Scale(20, 4, seconds=60, every=0.75, longest=2.5, pause=1.0)
# Beyond the 5 s that whatsmeow waits for a new connection before it gives a message up.
LONG = Scale(
    100, 10, seconds=600, every=3, longest=9, pause=6, lost_acks=12, settles=600, connects=300
)


class Holdings(NamedTuple):
    """What is held in peace, with everybody connected."""

    processes: int  # of the daemon, itself included
    daemon_descriptors: int
    daemon_threads: int
    daemon_children: int
    sandbox_descriptors: int
    sandbox_threads: int


async def holdings(
    daemon: Daemon, sandbox: RunningSandbox, before: Holdings | None = None
) -> Holdings:
    """What is held; given `before`, once what goes by itself is gone."""

    def count() -> Holdings:
        ours, theirs = held_by(daemon.pid), held_by(sandbox.pid)
        return Holdings(
            len(processes_with(MARK, str(daemon.directory))),
            *ours,
            theirs.descriptors,
            theirs.threads,
        )

    return count() if before is None else await settled(count, before)


class Outcome(NamedTuple):
    verdict: Verdict
    mishaps: Mishaps
    traffic: Traffic
    recoveries: dict[str, list[float]]
    before: Holdings
    after: Holdings
    in_order: Arrivals
    stats: dict[str, Any]
    started_by_hand: list[str]


async def run_chaos(scale: Scale) -> Outcome:
    people = parties(scale.companies, scale.witnesses)
    clocks: list[WallClock] = []

    def prepare(daemon: Daemon) -> None:
        daemon.environment[MARK] = str(daemon.directory)
        clocks.append(WallClock(daemon.directory, daemon.environment))

    async with (
        running_sandbox() as sandbox,
        running_daemon("--sandbox-at", str(sandbox.info)) as peaceful,
        running_daemon("--sandbox-at", str(sandbox.info), prepare=prepare) as daemon,
    ):
        await link_all(peaceful, people.witnesses)
        await link_all(daemon, people.companies)
        # What a daemon holds is compared with what another one held, at the same age.
        await daemon.stop()
        await daemon.start()
        await until_connected(daemon, people.companies, patience=scale.connects)
        traffic = Traffic(daemon, people, seed=SEED, pause=scale.pause)
        await traffic.one_each()
        before = await holdings(daemon, sandbox)

        [clock] = clocks
        mishaps = Mishaps(daemon, sandbox, people, clock, seed=SEED, longest=scale.longest)
        operator = Operator(daemon)
        async with trio.open_nursery() as duty:
            duty.start_soon(operator.run)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(traffic.run)
                nursery.start_soon(mishaps.lose_acks, scale.lost_acks, scale.seconds)
                await mishaps.run(seconds=scale.seconds, every=scale.every)
                traffic.stop()
                await sandbox.fault("clear")
            await until_connected(daemon, people.companies, patience=scale.connects)
            duty.cancel_scope.cancel()
        verdict, at_witnesses = await pass_judgement(
            traffic, people, daemon, peaceful, patience=scale.settles
        )
        times = recoveries(mishaps.done, await changes_of_state(daemon))
        return Outcome(
            verdict,
            mishaps,
            traffic,
            {**times, "kill_fork_server": mishaps.fork_server_away},
            before,
            await holdings(daemon, sandbox, before),
            at_witnesses,
            await sandbox.stats(),
            operator.started,
        )


def tell(outcome: Outcome, figure: Say) -> None:
    verdict, mishaps, stats = outcome.verdict, outcome.mishaps, outcome.stats
    figure(f"seed {SEED}: {len(mishaps.done)} mishaps: {dict(mishaps.counts)}")
    figure(
        f"{len(verdict.accepted)} accepted: {len(verdict.arrived)} arrived once, "
        f"{len(verdict.uncertain)} uncertain ({len(verdict.uncertain & verdict.arrived)} of them "
        f"arrived), {len(verdict.lost)} lost, {len(verdict.doubled)} doubled, "
        f"{len(verdict.died)} died with their receiver's worker"
    )
    figure(
        f"at WhatsApp: {stats['accepted']} taken, {stats['resent']} frames again, "
        f"{stats['acks_withheld']} acks withheld, {stats['dials_refused']} dials refused, "
        f"{stats['retries']} retries"
    )
    figure(
        f"senders met {dict(outcome.traffic.errors)}; {len(outcome.started_by_hand)} sessions had "
        "crashed too often and were started by hand"
    )


def tabulate(outcome: Outcome, measured: Say, name: str) -> None:
    measured(f"{name}: mishaps", len(outcome.mishaps.done), "")
    for what, count, aim in outcome.verdict.fates:
        measured(f"{name}: {what}", count, "", aim=aim)
    for kind, times in sorted(outcome.recoveries.items()):
        what = "another fork server begun" if kind == "kill_fork_server" else "connected again"
        for percent in (50, 95):
            value = sorted(times)[math.ceil(percent / 100 * len(times)) - 1]
            measured(f"{what} after {kind}, p{percent} of {len(times)}", value, "s")
    for what, now, then in zip(Holdings._fields, outcome.after, outcome.before, strict=True):
        words = f"{what.replace('_', ' ')} afterwards"
        measured(words, now, "", beside="before", reference=then, aim="no more")


def check(outcome: Outcome, scale: Scale) -> None:
    verdict = outcome.verdict
    assert verdict.lost == set()
    assert verdict.doubled == []
    assert outcome.in_order.out_of_order == []
    assert verdict.arrived | verdict.uncertain | verdict.died == verdict.accepted
    # Only a worker that is killed loses what it got; see `test_inbound_loss`.
    assert verdict.receivers_of_dead() <= outcome.mishaps.killed
    # WhatsApp itself took each of them once, and no other.
    stats = outcome.stats
    known = len(verdict.sent | (verdict.uncertain & verdict.arrived))
    assert known <= stats["accepted"] <= len(verdict.sent | verdict.uncertain)
    assert (stats["defects"], stats["violations"]) == (0, 0)
    assert not grew(outcome.before, outcome.after), (outcome.before, outcome.after)
    # One process a company, the fork server, and the daemon.
    assert outcome.after.processes == scale.companies + 2


async def test_every_accepted_message_arrives_once_or_is_reported_uncertain(figure: Say) -> None:
    outcome = await run_chaos(FEW)
    tell(outcome, figure)
    check(outcome, FEW)


@pytest.mark.endurance
async def test_companies_that_write_to_each_other_outlive_chaos(
    figure: Say, measured: Say, is_short: bool
) -> None:
    scale = SHORT if is_short else LONG
    outcome = await run_chaos(scale)
    tell(outcome, figure)
    tabulate(outcome, measured, f"{scale.companies} companies, {scale.seconds} s")
    check(outcome, scale)
