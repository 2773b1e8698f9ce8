"""A hundred companies under load: 1,000 messages a minute, and as fast as it goes.

Companies write to each other on one daemon, so that what one sends another receives. Times are
those of the daemon's own event log. Nothing is asserted about time; that nothing is lost or doubled
is.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))

from chaos import NO_LIMITS
from crowd import Course, Crowd, all_connected, settle_in
from daemons import Daemon, RunningSandbox, running_daemon, running_sandbox
from flat_out import FlatOut, Round
from processes import Usage, total

from whatsappd.rpc.client import RpcClient

Measure = Callable[..., None]

#: Steady load: messages a minute of all companies together, a third of what the limits allow.
A_MINUTE = 1000
COMPANIES = 100
#: Introduced within the default budget for first messages (20 an hour), so that it stays on.
PARTNERS = 5

#: Flat out: clients, what each sends in a round, and rounds of either kind.
CLIENTS = 20
EACH = 250
ROUNDS = 3


class Parts:
    """What each part of the system used since `begin`."""

    def __init__(self, daemon: Daemon, sandbox: RunningSandbox, workers: dict[str, int]) -> None:
        self._pids = {"the daemon": [daemon.pid], "the sandbox": [sandbox.pid]}
        self._pids["the workers"] = [*workers.values()]
        self._workers = len(workers)
        self.begin()

    def begin(self) -> None:
        self._began = time.monotonic()
        self._before = {part: total(pids) for part, pids in self._pids.items()}

    def say(self, measured: Measure, conditions: str) -> None:
        elapsed = time.monotonic() - self._began
        for part, pids in self._pids.items():
            now: Usage = total(pids)
            spent = now.cpu_s - self._before[part].cpu_s
            measured(
                f"processor time of {part}, {conditions}", 100 * spent / elapsed, "% of a core"
            )
            if part == "the workers":
                each = f"{part} each, {conditions}"
                measured(f"private memory of {each}", now.private_mb / self._workers, "MB")
                measured(f"PSS of {each}", now.proportional_mb / self._workers, "MB")
            else:
                measured(f"private memory of {part}, {conditions}", now.private_mb, "MB")
                measured(f"PSS of {part}, {conditions}", now.proportional_mb, "MB")


def say_latency(measured: Measure, what: str, spans_ms: list[int]) -> None:
    cuts = statistics.quantiles(spans_ms, n=100)
    for name, value in (("p50", cuts[49]), ("p95", cuts[94]), ("p99", cuts[98])):
        measured(f"{what}, {name}", value, "ms")


@pytest.mark.endurance
async def test_a_thousand_messages_a_minute(measured: Measure, *, is_short: bool) -> None:
    """The default limits stay on: 30 messages a minute and company, and the guard of strangers."""
    minutes = 1 if is_short else 5
    count = minutes * A_MINUTE
    crowd = Crowd(COMPANIES, PARTNERS)
    async with (
        running_sandbox() as sandbox,
        running_daemon("--sandbox-at", str(sandbox.info), "--log-level", "warning") as daemon,
    ):
        await settle_in(daemon, crowd)
        parts = Parts(daemon, sandbox, await all_connected(daemon))
        course = Course()
        async with daemon.client() as client:
            seq = (await client.call("daemon.status"))["last_seq"]
            parts.begin()
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                for number in range(count):
                    await trio.sleep_until(began + number * 60 / A_MINUTE)
                    message = crowd.message(number % COMPANIES, number // COMPANIES)
                    nursery.start_soon(_send, client, message)
            await course.read_until(client, seq, count, patience=60)
        conditions = f"{A_MINUTE} messages a minute"
        parts.say(measured, conditions)
    how = f"{COMPANIES} companies, {conditions}, {minutes} min"
    measured(f"accepted: {how}", len(course.accepted), "")
    measured("sent", len(course.sent), "", beside="accepted", reference=len(course.accepted))
    measured(
        "delivered", len(course.delivered), "", beside="accepted", reference=len(course.accepted)
    )
    measured("lost", count - len(course.arrived), "", aim="0")
    measured("doubled", len(course.doubled), "", aim="0")
    measured("failed, of those accepted", 100 * len(course.failed) / count, "%", aim="0")
    say_latency(measured, "accepted to sent", course.spans_ms(course.accepted, course.sent))
    say_latency(measured, "sent to delivered", course.spans_ms(course.sent, course.delivered))
    say_latency(
        measured, "accepted to delivered", course.spans_ms(course.accepted, course.delivered)
    )
    assert len(course.accepted) == count
    assert course.failed == {}
    assert (len(course.sent), len(course.delivered), len(course.arrived)) == (count, count, count)
    assert course.doubled == []


async def _send(client: RpcClient, message: dict[str, str]) -> None:
    await client.call("message.send", **message)


@pytest.mark.bench
async def test_as_fast_as_it_goes(measured: Measure) -> None:
    """The limits are off. Rounds alternate, so that what else the cores do meets both kinds."""
    crowd = Crowd(CLIENTS, PARTNERS)
    ours: list[Round] = []
    bare: list[Round] = []
    tuned: list[Round] = []
    async with (
        running_sandbox() as sandbox,
        running_daemon("--sandbox-at", str(sandbox.info), "--log-level", "warning") as daemon,
    ):
        await settle_in(daemon, crowd, **NO_LIMITS)
        flat_out = FlatOut(daemon, sandbox, crowd, each=EACH)
        for number in range(ROUNDS):
            if number:
                await daemon.start()
            ours.append(await flat_out.by_daemon())
            assert await daemon.stop() == 0
            bare.append(await flat_out.by_bare_loop(is_tuned=False))
            tuned.append(await flat_out.by_bare_loop(is_tuned=True))
    how = f"{CLIENTS} companies, flat out"
    say_rounds(measured, how, ours, bare, beside="by a bare neonize loop")
    # What keeping its promises costs the daemon, all else being equal.
    say_rounds(measured, how, ours, tuned, beside="by one with our workers' tuning")
    say_daemon(measured, how, ours)


def median(rounds: list[Round], value: Callable[[Round], float]) -> float:
    return statistics.median(map(value, rounds))


def say_rounds(
    measured: Measure, how: str, ours: list[Round], bare: list[Round], *, beside: str
) -> None:
    cores = len(os.sched_getaffinity(0))
    for what, value, unit, aim in (
        ("messages sent a second", lambda r: r.sent, "/s", "0.9 of bare; 400/s"),
        ("messages arrived a second", lambda r: r.arrived, "/s", None),
        ("processor time of a message, clients", _a_message("clients_cpu"), "ms", None),
        ("processor time of a message, the sandbox", _a_message("sandbox_cpu"), "ms", None),
        ("the sandbox's share of the cores", _share("sandbox_cpu", cores), "%", None),
        ("the clients' share of the cores", _share("clients_cpu", cores), "%", None),
    ):
        measured(
            f"{what}: {how}", median(ours, value), unit,
            beside=beside, reference=median(bare, value), aim=aim,
        )  # fmt: skip


def say_daemon(measured: Measure, how: str, ours: list[Round]) -> None:
    cores = len(os.sched_getaffinity(0))
    measured(
        f"processor time of a message, the daemon: {how}", median(ours, _a_message("daemon_cpu")),
        "ms",
    )  # fmt: skip
    measured(
        f"the daemon's share of the cores: {how}", median(ours, _share("daemon_cpu", cores)), "%"
    )
    # Well below 100 where nothing else runs: then something waits, and it is not a core.
    together = [
        sum(_share(part, cores)(one) for part in ("clients_cpu", "sandbox_cpu", "daemon_cpu"))
        for one in ours
    ]
    measured(f"all of them together: {how}", statistics.median(together), "% of the cores")


def _a_message(part: str) -> Callable[[Round], float]:
    return lambda one: 1000 * float(getattr(one, part)) / (one.arrived * one.elapsed)


def _share(part: str, cores: int) -> Callable[[Round], float]:
    return lambda one: 100 * float(getattr(one, part)) / one.elapsed / cores
