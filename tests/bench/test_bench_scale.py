"""From one company to two hundred: how long until all are connected, and what each costs.

The same accounts are brought back in growing numbers by a daemon that starts with cold files and
again with warm ones, and by a bare fork-server loop around neonize, all on the same sandbox and
cores. What grows must grow in a straight line: its slope is stated with its 95 % interval. The
last number of companies also shows what would limit a larger host. Nothing is asserted about time.
"""

from __future__ import annotations

import compileall
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))

from bare_loop import running_bare
from crowd import PARALLEL, Crowd, events_after
from daemons import Daemon, RunningSandbox, following, link, running_daemon, running_sandbox
from processes import Usage, children, cpu_s, total, usage, work, work_between
from trends import Trend, trend

from whatsappd.engines.neonize.fork.preload import library_path

pytestmark = pytest.mark.bench

Measure = Callable[..., None]

#: Eight numbers, because a trend takes as many; the first are the ones that get rows of their own.
SHOWN = (1, 10, 50, 100, 200)
SIZES = (1, 10, 25, 50, 75, 100, 150, 200)
SHORT_SIZES = (1, 5, 10, 15, 20, 30, 40, 50)
#: Messages of each company before its memory is measured.
TRAFFIC = 3
#: Seconds at rest, after those in which idle helper threads end (trio keeps them for ten).
REST, SHORT_REST, SETTLE = 30.0, 20.0, 12.0
#: A round of health checks begins as often, in seconds (the default).
HEALTH_INTERVAL = 30.0
#: Seconds for all to be connected; generous, because the machine may be busy.
PATIENCE = 180.0
ROOT = Path(__file__).parents[2]


class Boot(NamedTuple):
    """Seconds from the start of the process; processor time until all were connected."""

    ready: float
    connected: float
    cpu_s: dict[str, float]  # by part


class Rest(NamedTuple):
    """Of one part at rest."""

    cpu_percent: float  # of a core
    wake_ups: float  # a second


class Scale(NamedTuple):
    companies: int
    cold: Boot
    warm: Boot
    bare_connected: float
    fresh: Usage  # of all workers, just connected
    workers: Usage  # of all workers, after some traffic
    bare: Usage  # of all its processes, just connected
    daemon: Usage
    rest: dict[str, Rest]


class Parts(NamedTuple):
    """The processes of a running system."""

    daemon: int
    fork_server: int
    sandbox: int
    workers: list[int]

    def pids(self) -> dict[str, list[int]]:
        return {
            "the daemon": [self.daemon],
            "the fork server": [self.fork_server],
            "the sandbox": [self.sandbox],
            "the workers": self.workers,
        }


def forget(files: Iterable[Path]) -> None:
    """Drop files from the page cache, as after a reboot, as far as nobody has them mapped."""
    for file in files:
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


class Host:
    """A daemon and a sandbox whose number of companies grows."""

    def __init__(self, daemon: Daemon, sandbox: RunningSandbox) -> None:
        self._daemon = daemon
        self._sandbox = sandbox
        self._linked = 0

    async def grow(self, companies: int) -> None:
        """Link more companies, and stop the daemon."""
        async with self._daemon.client() as client, following(client) as events:
            limiter = trio.CapacityLimiter(PARALLEL)

            async def one(number: int) -> None:
                async with limiter:
                    await link(client, events, f"c{number}", Crowd(companies, 1).phone(number))

            async with trio.open_nursery() as nursery:
                for number in range(self._linked, companies):
                    nursery.start_soon(one, number)
        self._linked = companies
        await self.stop()

    async def stop(self) -> None:
        assert await self._daemon.stop() == 0

    async def boot(self) -> tuple[Boot, Parts]:
        sandbox_before = cpu_s([self._sandbox.pid])
        began, began_ms = time.monotonic(), time.time() * 1000
        await self._daemon.start()
        ready = time.monotonic() - began
        workers = await self._connected()
        [fork_server] = set(children(self._daemon.pid)) - set(workers)
        parts = Parts(self._daemon.pid, fork_server, self._sandbox.pid, workers)
        spent = {part: cpu_s(pids) for part, pids in parts.pids().items()}
        spent["the sandbox"] -= sandbox_before
        async with self._daemon.client() as client:
            seq = max(0, (await client.call("daemon.status"))["last_seq"] - 20 * self._linked)
            events, _ = await events_after(client, seq, ["session.state"])
        at_ms = max(one["time_ms"] for one in events if one["data"]["state"] == "connected")
        return Boot(ready, (at_ms - began_ms) / 1000, spent), parts

    async def _connected(self) -> list[int]:
        """Wait for it without costing the daemon much; the event log tells when it was."""
        with trio.fail_after(PATIENCE):
            async with self._daemon.client() as client:
                while True:
                    companies = (await client.call("daemon.status"))["companies"]
                    if all(company["state"] == "connected" for company in companies):
                        return [company["worker_pid"] for company in companies]
                    await trio.sleep(0.25)

    def forget_files(self) -> None:
        """What a boot reads: the programs, the library, and all state."""
        library = library_path().parent
        trees = [self._daemon.state_dir, ROOT / "whatsappd", library, Path(trio.__file__).parent]
        forget(file for tree in trees for file in tree.rglob("*"))

    async def exchange(self) -> None:
        """Each company writes to the next one, so that workers have seen some traffic."""
        crowd = Crowd(self._linked, 1)
        limiter = trio.CapacityLimiter(PARALLEL)
        async with self._daemon.client() as client, trio.open_nursery() as nursery:

            async def send(number: int) -> None:
                for index in range(TRAFFIC):
                    message = crowd.message(number, index)
                    text = f"{message['text']} of {self._linked}"
                    given = {**message, "text": text, "key": text}
                    # A lone company writes to itself, which no receipt answers.
                    wait = "delivered" if self._linked > 1 else "sent"
                    async with limiter:
                        await client.call("message.send", **given, wait=wait)

            for number in range(self._linked):
                nursery.start_soon(send, number)

    async def bare(self) -> tuple[float, Usage]:
        """The bare loop on the same accounts: seconds to all connected, and its memory."""
        clients = [
            {
                "name": f"c{number}",
                "database": str(self._daemon.state_dir / "companies" / f"c{number}" / "session.db"),
                "phones": [],
                "messages": 0,
            }
            for number in range(self._linked)
        ]
        began = time.monotonic()
        async with running_bare(self._sandbox.info, clients) as (_process, _lines, pids):
            return time.monotonic() - began, total(pids)


async def at_rest(parts: Parts, seconds: float) -> dict[str, Rest]:
    await trio.sleep(SETTLE)
    groups = parts.pids()
    began = time.monotonic()
    before = {part: work(pids) for part, pids in groups.items()}
    await trio.sleep(seconds)
    after = {part: work(pids) for part, pids in groups.items()}
    elapsed = time.monotonic() - began
    found = {}
    for part in groups:
        done = work_between(before[part], after[part])
        found[part] = Rest(100 * done.run_s / elapsed, done.wake_ups / elapsed)
    return found


async def scale(host: Host, companies: int, rest_s: float) -> tuple[Scale, Parts]:
    """One number of companies; the daemon still runs afterwards."""
    await host.grow(companies)
    bare_connected, bare = await host.bare()
    host.forget_files()
    cold, _ = await host.boot()
    await host.stop()
    warm, parts = await host.boot()
    fresh = total(parts.workers)
    await host.exchange()
    rest = await at_rest(parts, rest_s)
    workers, daemon = total(parts.workers), usage(parts.daemon)
    return (
        Scale(companies, cold, warm, bare_connected, fresh, workers, bare, daemon, rest),
        parts,
    )


async def test_scale(measured: Measure, *, is_short: bool) -> None:
    # Without compiled files a start compiles all modules: nobody who installs it sees that.
    for package in ("whatsappd", "whatsappctl"):
        compileall.compile_dir(ROOT / package, quiet=1)
    sizes, rest_s = (SHORT_SIZES, SHORT_REST) if is_short else (SIZES, REST)
    found: list[Scale] = []
    async with (
        running_sandbox() as sandbox,
        running_daemon("--sandbox-at", str(sandbox.info), "--log-level", "warning") as daemon,
    ):
        host = Host(daemon, sandbox)
        for companies in sizes:
            one, parts = await scale(host, companies, rest_s)
            found.append(one)
            if companies in SHOWN:
                say_boot(measured, one)
                say_memory(measured, one)
                say_rest(measured, one)
            if companies == sizes[-1]:
                await say_limits(measured, daemon, one, parts)
            # The next number begins with linking, which takes a daemon that runs.
    say_trends(measured, found)


def say_boot(measured: Measure, one: Scale) -> None:
    size = f"{one.companies} companies"
    aim = "under 5 s, better 2.5" if one.companies == 100 else None
    bare = {"beside": "by a bare loop", "reference": one.bare_connected}
    measured(f"process start to ready, cold files: {size}", one.cold.ready, "s")
    measured(f"process start to all connected, cold files: {size}", one.cold.connected, "s")
    measured(f"process start to ready: {size}", one.warm.ready, "s")
    measured(f"process start to all connected: {size}", one.warm.connected, "s", **bare, aim=aim)
    for part, spent in one.warm.cpu_s.items():
        measured(f"of it, processor time of {part}: {size}", spent, "s")


def say_memory(measured: Measure, one: Scale) -> None:
    size = f"{one.companies} companies"
    count = one.companies
    for what, of_all, aim in (
        ("just connected", one.fresh, None),
        ("after some traffic", one.workers, "18, better 13"),
    ):
        measured(
            f"private memory of a worker, {what}: {size}", of_all.private_mb / count, "MB",
            beside="in a bare loop, just connected", reference=one.bare.private_mb / count, aim=aim,
        )  # fmt: skip
        measured(
            f"PSS of a worker, {what}: {size}", of_all.proportional_mb / count, "MB",
            beside="in a bare loop, just connected", reference=one.bare.proportional_mb / count,
        )  # fmt: skip
    measured(f"private memory of the daemon: {size}", one.daemon.private_mb, "MB")
    measured(f"descriptors of the daemon: {size}", one.daemon.descriptors, "")
    measured(f"descriptors of a worker: {size}", one.workers.descriptors / count, "")
    measured(f"threads of a worker: {size}", one.workers.threads / count, "")


def say_rest(measured: Measure, one: Scale) -> None:
    for part, rest in one.rest.items():
        at = f"{part} at rest: {one.companies} companies"
        measured(f"processor time of {at}", rest.cpu_percent, "% of a core")
        measured(f"wake-ups of {at}", rest.wake_ups, "/s")
    ours = sum(rest.cpu_percent for part, rest in one.rest.items() if part != "the sandbox")
    measured(
        f"processor time of a company at rest: {one.companies} companies", ours / one.companies,
        "% of a core", aim="below 0.1",
    )  # fmt: skip


def say_trends(measured: Measure, found: list[Scale]) -> None:
    sizes = [float(one.companies) for one in found]
    lines: list[tuple[str, str, Callable[[Scale], float]]] = [
        ("time to all connected", "s", lambda one: one.warm.connected),
        ("time to all connected, cold files", "s", lambda one: one.cold.connected),
        ("time to all connected, bare loop", "s", lambda one: one.bare_connected),
        ("private memory of the workers", "MB", lambda one: one.workers.private_mb),
        ("PSS of the workers", "MB", lambda one: one.workers.proportional_mb),
        ("private memory of the daemon", "MB", lambda one: one.daemon.private_mb),
        ("descriptors of the daemon", "", lambda one: one.daemon.descriptors),
        ("descriptors of the workers", "", lambda one: one.workers.descriptors),
        ("threads of the workers", "", lambda one: one.workers.threads),
    ]
    for part in found[0].rest:
        # Of the fork server: the inverse is how many workers a core could fork in a second.
        boot = partial(_boot_cpu_ms, part=part)
        lines.append((f"processor time until connected of {part}", "ms", boot))
        lines.append(
            (f"processor time at rest of {part}", "% of a core", partial(_rest, part=part))
        )
    for what, unit, value in lines:
        line: Trend = trend(sizes, [value(one) for one in found])
        interval = f"(95 %: {line.low:.3g} to {line.high:.3g})"
        measured(f"each further company, {what} {interval}", line.slope, unit)


def _boot_cpu_ms(one: Scale, part: str) -> float:
    return 1000 * one.warm.cpu_s[part]


def _rest(one: Scale, part: str) -> float:
    return one.rest[part].cpu_percent


async def say_limits(measured: Measure, daemon: Daemon, one: Scale, parts: Parts) -> None:
    """What a host with many more would meet first, in parts."""
    size = f"{one.companies} companies"
    rest = one.rest["the daemon"]
    measured(
        f"processor time of the daemon a company at rest: {size}",
        rest.cpu_percent / one.companies, "% of a core",
    )  # fmt: skip
    async with daemon.client() as client:
        before = cpu_s([parts.daemon])
        calls = 20
        began = time.perf_counter()
        for _ in range(calls):
            status = await client.call("daemon.status")
        elapsed = time.perf_counter() - began
        measured(f"daemon.status: {size}", 1000 * elapsed / calls, "ms")
        measured(f"its answer as JSON: {size}", len(json.dumps(status)) / 1000, "kB")
        began = time.perf_counter()
        for _ in range(calls):
            await client.call("daemon.metrics")
        measured(f"a scrape: {size}", 1000 * (time.perf_counter() - began) / calls, "ms")
        spent = cpu_s([parts.daemon]) - before
        measured(f"processor time of one of either, mean: {size}", 500 * spent / calls, "ms")
        await trio.sleep(2 * HEALTH_INTERVAL)  # what was before does not count
        longest = await longest_wait(client)
    measured(
        f"longest wait for the event loop in a round of health checks: {size}", 1000 * longest, "ms"
    )


async def longest_wait(client: Any) -> float:
    """The daemon's own figure of this round of health checks and the last one, in seconds."""
    text: str = (await client.call("daemon.metrics"))["text"]
    [line] = [
        line for line in text.splitlines() if line.startswith("whatsappd_event_loop_longest_sec")
    ]
    return float(line.split()[-1])
