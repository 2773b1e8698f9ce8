"""What the chaos tests are made of: senders that never give up, a seeded script of misfortunes,
and the count of what became of each message.

The receivers live in a daemon of their own that is left in peace: what an innocent receiver got is
the measure of what was sent. (What a receiver itself can lose is measured in
`test_inbound_loss`.)
"""

from __future__ import annotations

import itertools
import os
import random
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import trio
from daemons import Daemon, RunningSandbox, following, link

from whatsappd.errors import WhatsappdError
from whatsappd.rpc.client import RpcClient

#: Switches every limit off: this is about delivery, not about pace.
NO_LIMITS = {"per_minute": 0, "per_phone_per_minute": 0, "cold_per_hour": 0, "cold_per_day": 0}
SENT = {"sent", "delivered", "read", "played"}


class Parties(NamedTuple):
    """Companies by name, with their phone numbers."""

    senders: dict[str, str]
    receivers: dict[str, str]


def parties(senders: int, receivers: int) -> Parties:
    return Parties(
        {f"sender{number}": f"+1555010{number:04}" for number in range(senders)},
        {f"receiver{number}": f"+1555020{number:04}" for number in range(receivers)},
    )


async def link_all(daemon: Daemon, companies: dict[str, str]) -> None:
    """Links them, without limits."""
    async with daemon.client() as client, following(client) as events:
        for company, phone in companies.items():
            await link(client, events, company, phone)
            await client.call("session.configure", company=company, **NO_LIMITS)


class Traffic:
    """Senders, one for each company and chat, that retry with the same key on any error."""

    def __init__(self, daemon: Daemon, people: Parties, *, seed: int, pause: float) -> None:
        self.accepted: dict[str, str] = {}  # row id by text
        self.errors: Counter[str] = Counter()
        self._daemon = daemon
        self._people = people
        self._seed = seed
        self._pause = pause
        self._stopping = False

    async def run(self) -> None:
        """Until `stop`, and then until everything begun is accepted."""
        async with trio.open_nursery() as nursery:
            for company in self._people.senders:
                for receiver, phone in self._people.receivers.items():
                    nursery.start_soon(self._send_on, company, receiver, phone)

    def stop(self) -> None:
        self._stopping = True

    async def _send_on(self, company: str, receiver: str, phone: str) -> None:
        chance = random.Random(f"{self._seed} {company} {receiver}")
        number = 0
        while not self._stopping:
            number += 1
            text = f"{company} {receiver} {number:06}"
            message = {"company": company, "to": phone, "text": text, "key": text}
            # Most do not wait; some do, and some of those lose their patience.
            wait = chance.choice(["queued", "queued", "queued", "sent", "delivered"])
            patience = chance.choice([0.05, 0.5, 2.0])
            self.accepted[text] = await self._send(message, wait, patience)
            await trio.sleep(chance.random() * 2 * self._pause)

    async def _send(self, message: dict[str, str], wait: str, patience: float) -> str:
        while True:
            try:
                async with self._daemon.client() as client:
                    if wait != "queued":
                        with trio.move_on_after(patience):
                            await client.call("message.send", wait=wait, **message)
                        wait = "queued"  # from here on it is a repetition, which answers at once
                    row = await client.call("message.send", wait=wait, **message)
                    return str(row["id"])
            except WhatsappdError as error:
                self.errors[error.name] += 1
                await trio.sleep(0.05)


class Misfortunes:
    """The script: what goes wrong, when, and to whom. The seed decides all of it."""

    def __init__(
        self, daemon: Daemon, sandbox: RunningSandbox, people: Parties, *, seed: int, longest: float
    ) -> None:
        self.done: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._daemon = daemon
        self._sandbox = sandbox
        self._people = people
        self._longest = longest  # of a freeze, in seconds
        self._deck: list[Callable[[], Awaitable[None]]] = []

    def _draw(self) -> Callable[[], Awaitable[None]]:
        """From a shuffled deck, so that each kind has its turn also in a short run."""
        if not self._deck:
            self._deck = [
                *[self._kill_worker] * 4,
                *[self._kill_daemon] * 2,
                *[self._kill_fork_server] * 1,
                *[self._drop] * 2,
                *[self._freeze] * 2,
                *[self._delay_ack] * 1,
                *[self._lose_ack_and_kill] * 2,
            ]
            self._chance.shuffle(self._deck)
        return self._deck.pop()

    async def run(self, *, every: float) -> None:
        """One after the other until cancelled."""
        while True:
            await trio.sleep(every * (0.5 + self._chance.random()))
            what = self._draw()
            # What was begun is finished: a daemon that was killed is started again.
            with trio.CancelScope(shield=True):
                await what()
            self.done[what.__name__.strip("_")] += 1

    def _somebody(self) -> tuple[str, str]:
        return self._chance.choice([*self._people.senders.items()])

    async def _kill_worker(self) -> None:
        await self._kill(self._somebody()[0])

    async def _kill(self, company: str) -> None:
        pid = (await self._call("session.status", company=company))["worker_pid"]
        if pid is not None:
            os.kill(pid, signal.SIGKILL)

    async def _kill_daemon(self) -> None:
        await self._daemon.stop(signal.SIGKILL)
        await self._daemon.start()

    async def _kill_fork_server(self) -> None:
        pid = (await self._call("daemon.status"))["fork_server"]["pid"]
        if pid is not None:
            os.kill(pid, signal.SIGKILL)

    async def _drop(self) -> None:
        await self._sandbox.fault("drop", phone=self._somebody()[1])

    async def _freeze(self) -> None:
        seconds = 0.2 + self._chance.random() * self._longest
        await self._sandbox.fault("freeze", phone=self._somebody()[1], seconds=seconds, cut=True)

    async def _delay_ack(self) -> None:
        seconds = self._chance.random() * self._longest
        await self._sandbox.fault("delay_acks", phone=self._somebody()[1], seconds=seconds, count=1)

    async def _lose_ack_and_kill(self) -> None:
        """WhatsApp takes a message, and its sender dies before it could know."""
        company, phone = self._somebody()
        before = (await self._sandbox.stats())["acks_withheld"]
        await self._sandbox.fault("lose_acks", phone=phone, count=1)
        with trio.move_on_after(2) as patience:  # nobody may be sending just now
            while (await self._sandbox.stats())["acks_withheld"] == before:
                await trio.sleep(0.02)
        if patience.cancelled_caught:
            await self._sandbox.fault("clear")  # later it would meet somebody who lives
        await self._kill(company)

    async def _call(self, method: str, **arguments: Any) -> Any:
        async with self._daemon.client() as client:
            return await client.call(method, **arguments)


async def operate(daemon: Daemon, people: Parties) -> None:
    """The person on duty: starts what gave up after too many crashes. Runs until cancelled."""
    while True:
        await trio.sleep(0.5)
        try:
            async with daemon.client() as client:
                for status in (await client.call("session.list"))["sessions"]:
                    if status["state"] in ("failed", "backing_off"):
                        await client.call("session.start", company=status["company"])
        except WhatsappdError:
            continue  # the daemon is just being killed


class Arrivals:
    """What the receivers' event log holds, as it grows."""

    def __init__(self) -> None:
        self.times: Counter[str] = Counter()  # by text
        self.order: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self.ids: Counter[str] = Counter()
        self._more = trio.Event()

    async def read(self, client: RpcClient) -> None:
        async for notice in client.notifications:
            if notice.method != "event":
                continue
            data = notice.arguments["event"]["data"]
            sender, receiver, _number = data["text"].split()
            self.times[data["text"]] += 1
            self.ids[data["message_id"]] += 1
            self.order[sender, receiver].append(data["text"])
            self._more.set()
            self._more = trio.Event()

    async def until(self, wanted: Callable[[], bool], *, patience: float) -> bool:
        with trio.move_on_after(patience):
            while not wanted():
                await self._more.wait()
        return wanted()


@asynccontextmanager
async def arriving(daemon: Daemon) -> AsyncIterator[Arrivals]:
    """Everything the receivers of `daemon` get from now on."""
    arrivals = Arrivals()
    async with daemon.client() as client:
        await client.call("events.subscribe", types=["message.received"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(arrivals.read, client)
            yield arrivals
            nursery.cancel_scope.cancel()


async def all_rows(client: RpcClient, company: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    before = None
    while True:
        page = await client.call("message.list", company=company, limit=200, before=before)
        rows += page["rows"]
        before = page["next"]
        if before is None:
            return rows


async def settled_rows(daemon: Daemon, people: Parties, *, patience: float) -> list[dict[str, Any]]:
    """All senders' rows, once none waits or is on its way."""
    with trio.fail_after(patience):
        async with daemon.client() as client:
            while True:
                rows = [
                    row for company in people.senders for row in await all_rows(client, company)
                ]
                if not any(row["state"] in ("queued", "sending") for row in rows):
                    return rows
                await trio.sleep(0.2)


class Verdict(NamedTuple):
    """What became of all accepted messages."""

    accepted: int
    arrived_once: int
    uncertain: int  # reported so, whether they arrived or not
    uncertain_arrived: int
    lost: list[str]
    doubled: list[str]
    states: Counter[str]

    def __str__(self) -> str:
        return (
            f"{self.accepted} accepted: {self.arrived_once} arrived once, "
            f"{self.uncertain} uncertain ({self.uncertain_arrived} of them arrived), "
            f"{len(self.lost)} lost, {len(self.doubled)} doubled; "
            f"states {dict(self.states)}"
        )


def judge(accepted: dict[str, str], rows: list[dict[str, Any]], arrivals: Arrivals) -> Verdict:
    """Counts. An uncertain message may have arrived once, or not at all."""
    by_text = {row["text"]: row for row in rows}
    assert len(by_text) == len(rows)  # one row for each key
    assert {text: by_text[text]["id"] for text in accepted} == accepted
    uncertain = {text for text, row in by_text.items() if row["state"] == "uncertain"}
    return Verdict(
        accepted=len(rows),
        arrived_once=sum(arrivals.times[text] == 1 for text in by_text if text not in uncertain),
        uncertain=len(uncertain),
        uncertain_arrived=sum(arrivals.times[text] == 1 for text in uncertain),
        lost=[text for text in by_text if not arrivals.times[text] and text not in uncertain],
        doubled=[text for text in arrivals.times if arrivals.times[text] > 1],
        states=Counter(row["state"] for row in rows),
    )


def out_of_order(arrivals: Arrivals) -> list[tuple[str, str]]:
    """Neighbours of one company and chat that arrived the wrong way round."""
    return [
        (earlier, later)
        for texts in arrivals.order.values()
        for earlier, later in itertools.pairwise(texts)
        if earlier >= later
    ]
