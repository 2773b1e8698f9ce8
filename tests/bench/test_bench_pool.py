"""What people use today beside whatsappd: all companies in one Node process, with Baileys.

Both talk to the same sandbox on the same cores in the same run. The comparison is of whole systems:
whatsappd keeps every message on disk and every company in a process of its own, the pool does
neither. Needs node and npm, and installs the library for the run.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from chaos import link_all, parties
from crowd import all_connected
from daemons import Daemon, RunningSandbox, running_daemon, running_sandbox
from node_pool import NodePool, install, missing, running_pool
from processes import cpu_s, total, usage
from verdict import SENT, arriving

from whatsappd.sandbox.info_file import read_info

pytestmark = pytest.mark.bench

#: Seconds that each system sends as fast as it can.
SECONDS = 10.0
#: Of the faults: messages of each sender, the pause between two, how long a link takes to die, and
#: how often one begins to; in seconds.
MESSAGES = 200
PAUSE = 0.15
FROZEN = 5.0
EVERY = 3.0
SENDERS = 5


@pytest.fixture(scope="module")
def baileys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the library is installed, for this run."""
    if absent := missing():
        pytest.skip(f"{absent} is not installed")
    directory = tmp_path_factory.mktemp("pool") / "node"
    if trouble := trio.run(install, directory):
        pytest.skip(f"npm cannot install the library here: {trouble}")
    return directory


class Pool:
    """The Node pool's accounts, linked; started anew whenever it is entered."""

    def __init__(self, installed: Path, sandbox: RunningSandbox, accounts: Path) -> None:
        self._sandbox = sandbox
        self._open = partial(running_pool, installed, read_info(sandbox.info), accounts)

    async def link(self, companies: dict[str, str]) -> None:
        async with self._open() as pool:
            for company, phone in companies.items():
                start = len(pool.seen)
                await pool.tell("open", companies=[company])
                [shown] = await pool.until(lambda event: event["event"] == "qr", start=start)
                await self._sandbox.control.call("sandbox.scan", qr=shown["qr"], phone=phone)
                await pool.until(lambda event: event["event"] == "connected", start=start)
            await trio.sleep(1)  # it writes its files behind our back

    @asynccontextmanager
    async def connected(self, companies: dict[str, str]) -> AsyncIterator[NodePool]:
        async with self._open() as pool:
            await pool.tell("open", companies=[*companies])
            await pool.until(lambda event: event["event"] == "connected", count=len(companies))
            yield pool


def ring(companies: dict[str, str]) -> list[tuple[str, str]]:
    """Each company writes to the next one."""
    phones = [*companies.values()]
    return list(zip(companies, phones[1:] + phones[:1], strict=True))


async def exchange(daemon: Daemon, companies: dict[str, str]) -> tuple[list[float], float]:
    """Each company sends, one after another, when WhatsApp has the one before: ms, and seconds."""
    times: list[float] = []
    began = time.perf_counter()

    async def keep_sending(company: str, phone: str) -> None:
        async with daemon.client() as client:
            while time.perf_counter() - began < SECONDS:
                start = time.perf_counter()
                await client.call("message.send", company=company, to=phone, text="x", wait="sent")
                times.append((time.perf_counter() - start) * 1000)

    async with trio.open_nursery() as nursery:
        for company, phone in ring(companies):
            nursery.start_soon(keep_sending, company, phone)
    return times, time.perf_counter() - began


@pytest.mark.parametrize("companies", [10, 50])
async def test_a_pool_in_one_process(
    baileys: Path, tmp_path: Path, measured: Callable[..., None], companies: int
) -> None:
    ours, theirs = parties(companies, companies)
    async with (
        running_sandbox() as sandbox,
        running_daemon("--sandbox-at", str(sandbox.info), "--log-level", "warning") as daemon,
    ):
        await link_all(daemon, ours)
        pool = Pool(baileys, sandbox, tmp_path / "accounts")
        await pool.link(theirs)

        await daemon.stop()
        began = time.perf_counter()
        await daemon.start()
        workers = await all_connected(daemon)
        daemon_ready = time.perf_counter() - began
        everything = [*workers.values(), daemon.pid, await fork_server(daemon)]
        await exchange_once(daemon, ours)
        daemon_mb = total(everything).proportional_mb
        cpu = cpu_s(everything)
        times, elapsed = await exchange(daemon, ours)
        daemon_cpu = (cpu_s(everything) - cpu) / len(times) * 1000

        began = time.perf_counter()
        async with pool.connected(theirs) as node:
            pool_ready = time.perf_counter() - began
            pairs = [(company, f"{to[1:]}@s.whatsapp.net") for company, to in ring(theirs)]
            await node.tell("exchange", pairs=pairs, seconds=1)
            await node.until(lambda event: event["event"] == "exchanged")
            pool_mb = usage(node.process.pid).proportional_mb
            start = len(node.seen)
            await node.tell("exchange", pairs=pairs, seconds=SECONDS)
            [done] = await node.until(lambda event: event["event"] == "exchanged", start=start)

    def beside(what: str, ours: float, theirs: float, unit: str) -> None:
        name = "Baileys pool"
        measured(f"{companies} companies, {what}", ours, unit, beside=name, reference=theirs)

    node_times = done["times"]
    beside("process start to all connected", daemon_ready, pool_ready, "s")
    beside("memory (PSS) of all processes", daemon_mb, pool_mb, "MB")
    beside(
        "messages acknowledged by WhatsApp, one in flight each",
        len(times) / elapsed,
        len(node_times) / (done["elapsed_ms"] / 1000),
        "/s",
    )
    beside("processor time a message", daemon_cpu, done["cpu_ms"] / len(node_times), "ms")
    beside("send to ack, p50", statistics.median(times), statistics.median(node_times), "ms")


async def fork_server(daemon: Daemon) -> int:
    async with daemon.client() as client:
        return int((await client.call("daemon.status"))["fork_server"]["pid"])


async def exchange_once(daemon: Daemon, companies: dict[str, str]) -> None:
    """First messages make encryption sessions; the pool has a second for that, too."""
    async with daemon.client() as client, trio.open_nursery() as nursery:
        for company, phone in ring(companies):
            send = partial(client.call, company=company, to=phone, text="x", wait="delivered")
            nursery.start_soon(send, "message.send")


@asynccontextmanager
async def dying_links(sandbox: RunningSandbox, phones: list[str]) -> AsyncIterator[None]:
    """One connection after another, in the same order for both systems."""
    chance = random.Random(7)

    async def freeze() -> None:
        while True:
            await trio.sleep(EVERY)
            await sandbox.fault("freeze", phone=chance.choice(phones), seconds=FROZEN, cut=True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(freeze)
        yield
        nursery.cancel_scope.cancel()


def texts(company: str, receiver: str) -> list[str]:
    return [f"{company} {receiver} {number:06}" for number in range(MESSAGES)]


async def through_the_daemon(
    daemon: Daemon, sandbox: RunningSandbox, senders: dict[str, str], receivers: dict[str, str]
) -> set[str]:
    """What was reported as sent."""
    said: set[str] = set()

    async def send(company: str, receiver: str, phone: str) -> None:
        async with daemon.client() as client, trio.open_nursery() as nursery:

            async def one(text: str) -> None:
                row = await client.call(
                    "message.send", company=company, to=phone, text=text, wait="sent"
                )
                assert row["state"] in SENT, row
                said.add(text)

            for text in texts(company, receiver):
                nursery.start_soon(one, text)
                await trio.sleep(PAUSE)

    async with dying_links(sandbox, [*senders.values()]), trio.open_nursery() as nursery:
        for company, (receiver, phone) in zip(senders, receivers.items(), strict=True):
            nursery.start_soon(send, company, receiver, phone)
    return said


async def through_the_pool(
    node: NodePool, sandbox: RunningSandbox, senders: dict[str, str], receivers: dict[str, str]
) -> set[str]:
    """What was reported as sent."""
    start = len(node.seen)

    async def send(company: str, receiver: str, phone: str) -> None:
        for text in texts(company, receiver):
            await node.tell(
                "send", id=text, company=company, to=f"{phone[1:]}@s.whatsapp.net", text=text
            )
            await trio.sleep(PAUSE)

    async with dying_links(sandbox, [*senders.values()]):
        async with trio.open_nursery() as nursery:
            for company, (receiver, phone) in zip(senders, receivers.items(), strict=True):
                nursery.start_soon(send, company, receiver, phone)
        ended = await node.until(
            lambda event: event["event"] in ("sent", "failed"),
            count=SENDERS * MESSAGES,
            start=start,
        )
    return {event["id"] for event in ended if event["event"] == "sent"}


async def test_dying_links(baileys: Path, tmp_path: Path, measured: Callable[..., None]) -> None:
    """Connections freeze, and are cut some seconds later: as mobile links and NATs die."""
    ours, receivers = parties(SENDERS, SENDERS)
    theirs = {f"node-{name}": f"+1555030{number:04}" for number, name in enumerate(ours)}
    async with (
        running_sandbox() as sandbox,
        running_daemon("--sandbox-at", str(sandbox.info)) as peaceful,
        running_daemon("--sandbox-at", str(sandbox.info)) as daemon,
    ):
        await link_all(peaceful, receivers)
        await link_all(daemon, ours)
        pool = Pool(baileys, sandbox, tmp_path / "accounts")
        await pool.link(theirs)
        async with arriving(peaceful) as arrivals:
            said = await through_the_daemon(daemon, sandbox, ours, receivers)
            async with pool.connected(theirs) as node:
                node_said = await through_the_pool(node, sandbox, theirs, receivers)
                await arrivals.until(
                    lambda: not (said | node_said) - arrivals.times.keys(), patience=30
                )
    figures = {
        "reported as sent": [len(said), len(node_said)],
        "of these lost": [
            sum(not arrivals.times[text] for text in each) for each in (said, node_said)
        ],
        "of these doubled": [
            sum(arrivals.times[text] > 1 for text in each) for each in (said, node_said)
        ],
    }
    for what, (daemons, pools) in figures.items():
        measured(
            f"{SENDERS * MESSAGES} messages over dying links, {what}",
            daemons,
            "messages",
            beside="Baileys pool",
            reference=pools,
        )
    assert figures["of these lost"][0] == figures["of these doubled"][0] == 0
    assert len(said) == SENDERS * MESSAGES
