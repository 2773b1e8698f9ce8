"""An hour of steady traffic with faults: whether anything grows that should not.

A few messages a second, while connections are dropped and frozen, workers killed and sessions
restarted. What each process holds is sampled all the time; the slopes, after a warm-up, are said
with their 95 % intervals. Nothing may grow with confidence by more than caches and fragmentation
explain, and nothing may be lost or doubled. With --short it takes five minutes.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))

from chaos import Operator, Parties, Traffic, link_all, parties
from daemons import Daemon, RunningSandbox, running_daemon, running_sandbox
from processes import usage
from trends import trend
from verdict import pass_judgement

from whatsappd.errors import WhatsappdError
from whatsappd.rpc.client import RpcClient

pytestmark = pytest.mark.endurance

SEED = int(os.environ.get("WHATSAPPD_TEST_SEED", "20240611"))

#: Seconds between two messages of a chat, on average.
PAUSE = 6.0
#: The daemon keeps its newest 10,000 events in memory; it has them from the beginning, so that
#: their gathering is not taken for a leak.
EVENTS_IN_MEMORY = 10_000


class Plan(NamedTuple):
    """Of one form of the test; in seconds."""

    lasts: float
    warm_up: float  # not part of the trends
    sample_every: float
    fault_every: float
    #: How many times its slack a quantity may grow. Memory settles in the first ten minutes, which
    #: the hour does not look at; a leak worth the name grows by tens of MB in five.
    tolerance: float


HOUR = Plan(lasts=3600, warm_up=600, sample_every=10, fault_every=8, tolerance=1)
SHORT = Plan(lasts=300, warm_up=60, sample_every=4, fault_every=4, tolerance=2)


class Quantity(NamedTuple):
    """`slack`: growth over the whole run that is no leak; None: it grows with the traffic."""

    unit: str
    slack: float | None


QUANTITIES = {
    "daemon: private memory": Quantity("MB", 2.0),
    "daemon: descriptors": Quantity("", 3),
    "daemon: threads": Quantity("", 2),
    "daemon: tasks": Quantity("", 3),
    "fork server: private memory": Quantity("MB", 0.5),
    "fork server: descriptors": Quantity("", 0.5),
    # It remembers the fates of the last 20,000 messages, and has none at the beginning.
    "sandbox: private memory": Quantity("MB", None),
    "sandbox: descriptors": Quantity("", 3),
    "sandbox: threads": Quantity("", 2),
    "database": Quantity("MB", None),
    # Of those that are never killed; what neonize itself leaks is in them.
    "worker: private memory": Quantity("MB", None),
    "worker: descriptors": Quantity("", None),
    "worker: threads": Quantity("", None),
}


class Samples:
    """What everything held, over time."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.times: dict[str, list[float]] = defaultdict(list)
        self.values: dict[str, list[float]] = defaultdict(list)

    def _add(self, found: dict[str, float]) -> None:
        now = time.monotonic() - self._began
        for name, value in found.items():
            self.times[name].append(now)
            self.values[name].append(value)

    async def gather(
        self, daemon: Daemon, sandbox: RunningSandbox, steady: Parties, *, every: float
    ) -> None:
        """Until cancelled."""
        while True:
            try:
                async with daemon.client() as client:
                    await self._sample(client, daemon, sandbox, steady)
            except (FileNotFoundError, ProcessLookupError):
                pass  # somebody ended just then: the next sample is as good
            await trio.sleep(every)

    async def _sample(
        self, client: RpcClient, daemon: Daemon, sandbox: RunningSandbox, steady: Parties
    ) -> None:
        status = await client.call("daemon.status")
        metrics = _plain_metrics((await client.call("daemon.metrics"))["text"])
        of_daemon = usage(daemon.pid)
        of_sandbox = usage(sandbox.pid)
        workers = [
            usage(company["worker_pid"])
            for company in status["companies"]
            if company["company"] in steady.companies and company["state"] == "connected"
        ]
        self._add(
            {
                "daemon: private memory": of_daemon.private_mb,
                "daemon: descriptors": of_daemon.descriptors,
                "daemon: threads": of_daemon.threads,
                "daemon: tasks": metrics["whatsappd_tasks"],
                "sandbox: private memory": of_sandbox.private_mb,
                "sandbox: descriptors": of_sandbox.descriptors,
                "sandbox: threads": of_sandbox.threads,
                "database": metrics["whatsappd_database_size_bytes"] / 1e6,
            }
        )
        if len(workers) == len(steady.companies):
            self._add(
                {
                    "worker: private memory": statistics.fmean(w.private_mb for w in workers),
                    "worker: descriptors": statistics.fmean(w.descriptors for w in workers),
                    "worker: threads": statistics.fmean(w.threads for w in workers),
                }
            )
        if (fork_server := status["fork_server"]["pid"]) is not None:
            found = usage(fork_server)
            self._add(
                {
                    "fork server: private memory": found.private_mb,
                    "fork server: descriptors": found.descriptors,
                }
            )

    def say(self, measured: Callable[..., None], plan: Plan) -> list[str]:
        """Say all slopes; those that grew more than they may."""
        leaks = []
        for name, (unit, once) in QUANTITIES.items():
            slack = None if once is None else once * plan.tolerance
            pairs = [
                (at / 3600, value)
                for at, value in zip(self.times[name], self.values[name], strict=True)
                if at >= plan.warm_up
            ]
            hours = [at for at, _ in pairs]
            found = trend(hours, [value for _, value in pairs])
            grown = found.low * (hours[-1] - hours[0])
            what = (
                f"{name}: slope (95 %: {found.low:+.3g} to {found.high:+.3g}; "
                f"level {found.level:.1f}, {len(pairs)} samples)"
            )
            aim = None if slack is None else f"under {slack:g} {unit} in the run".replace("  ", " ")
            measured(what, found.slope, f"{unit}/h", aim=aim)
            if slack is not None and grown > slack:
                leaks.append(f"{what} grew by at least {grown:.2f} {unit}")
        return leaks


def _plain_metrics(text: str) -> dict[str, float]:
    """Those without labels."""
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return {line[0]: float(line[1]) for line in lines if len(line) == 2 and "{" not in line[0]}


class Faults:
    """One after the other, to companies of both kinds; those of `steady` are not killed."""

    def __init__(
        self, daemon: Daemon, sandbox: RunningSandbox, people: Parties, steady: Parties
    ) -> None:
        self.done: Counter[str] = Counter()
        self.killed: set[str] = set()  # companies whose worker was
        self._chance = random.Random(SEED)
        self._daemon = daemon
        self._sandbox = sandbox
        self._everybody = [*people.companies.items()]
        self._others = [
            item for item in people.companies.items() if item[0] not in steady.companies
        ]

    async def run(self, *, every: float) -> None:
        """Until cancelled."""
        kinds: list[Callable[[], Awaitable[None]]] = [
            *[self._drop] * 4, *[self._freeze] * 2, self._kill_worker, self._restart,
        ]  # fmt: skip
        while True:
            for what in self._chance.sample(kinds, len(kinds)):
                await trio.sleep(every * (0.5 + self._chance.random()))
                with trio.CancelScope(shield=True):
                    try:
                        await what()
                    except WhatsappdError as error:
                        self.done[error.name] += 1
                        continue
                self.done[what.__name__.strip("_")] += 1

    async def _drop(self) -> None:
        await self._sandbox.fault("drop", phone=self._chance.choice(self._everybody)[1])

    async def _freeze(self) -> None:
        phone = self._chance.choice(self._everybody)[1]
        seconds = 0.2 + 3 * self._chance.random()
        await self._sandbox.fault("freeze", phone=phone, seconds=seconds, cut=True)

    async def _kill_worker(self) -> None:
        company = self._chance.choice(self._others)[0]
        pid = (await self._call("session.status", company=company))["worker_pid"]
        if pid is not None:
            self.killed.add(company)
            os.kill(pid, signal.SIGKILL)

    async def _restart(self) -> None:
        await self._call("session.restart", company=self._chance.choice(self._others)[0])

    async def _call(self, method: str, **arguments: Any) -> Any:
        async with self._daemon.client() as client:
            return await client.call(method, **arguments)


async def fill_memory(daemon: Daemon, company: str) -> None:
    """As many events as the daemon holds: messages that are cancelled before they can go."""
    async with daemon.client() as client:
        await client.call("session.stop", company=company)
        limiter = trio.CapacityLimiter(50)

        async def one(number: int) -> None:
            async with limiter:
                row = await client.call(
                    "message.send", company=company, to="+15550999", text=f"to cancel {number}"
                )
                await client.call("message.cancel", id=row["id"])

        async with trio.open_nursery() as nursery:
            for number in range(EVENTS_IN_MEMORY // 2):
                nursery.start_soon(one, number)
        await client.call("session.start", company=company)


async def test_nothing_grows(measured: Callable[..., None], *, is_short: bool) -> None:
    plan = SHORT if is_short else HOUR
    people = parties(6, 2)
    steady = Parties(dict([*people.companies.items()][:3]), {})
    spare = {"spare": "+15550998"}
    async with (
        running_sandbox() as sandbox,
        running_daemon("--sandbox-at", str(sandbox.info)) as peaceful,
        running_daemon("--sandbox-at", str(sandbox.info), "--log-level", "warning") as daemon,
    ):
        await link_all(peaceful, people.witnesses)
        await link_all(daemon, {**people.companies, **spare})
        await fill_memory(daemon, "spare")
        traffic = Traffic(daemon, people, seed=SEED, pause=PAUSE)
        faults = Faults(daemon, sandbox, people, steady)
        samples = Samples()
        async with trio.open_nursery() as duty:
            duty.start_soon(Operator(daemon).run)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(traffic.run)
                with trio.move_on_after(plan.lasts):
                    async with trio.open_nursery() as watching:
                        watching.start_soon(
                            lambda: samples.gather(daemon, sandbox, steady, every=plan.sample_every)
                        )
                        await faults.run(every=plan.fault_every)
                traffic.stop()
                await sandbox.fault("clear")
            duty.cancel_scope.cancel()
        verdict, at_witnesses = await pass_judgement(
            traffic, people, daemon, peaceful, patience=200
        )
        stats = await sandbox.stats()
        leaks = samples.say(measured, plan)
    faulty = ", ".join(f"{count} {kind}" for kind, count in sorted(faults.done.items()))
    measured(f"faults in {plan.lasts / 60:g} min ({faulty})", faults.done.total(), "")
    for what, count, aim in verdict.fates:
        measured(what, count, "", aim=aim)
    assert verdict.lost == set()
    assert verdict.doubled == []
    assert at_witnesses.out_of_order == []
    assert verdict.arrived | verdict.uncertain | verdict.died == verdict.accepted
    assert verdict.receivers_of_dead() <= faults.killed
    assert (stats["defects"], stats["violations"]) == (0, 0)
    assert leaks == []
