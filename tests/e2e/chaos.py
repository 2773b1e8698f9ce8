"""Who takes part in the chaos tests: companies under fire, witnesses, senders that never give up.

Everything is done to the daemon of the *companies*: they write to each other, each to the next one
in a ring, and to the witnesses. The *witnesses* live in a daemon of their own that is left in
peace: what an innocent receiver got is the measure of what was sent. (What a receiver that is
killed can itself lose is measured in `test_inbound_loss`.) Nobody writes to whoever writes to him:
whatsmeow itself loses messages of two that write to each other at the same moment.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any, NamedTuple

import trio
from daemons import Daemon, following, link

from whatsappd.errors import WhatsappdError

#: Switches every limit off: this is about delivery, not about pace.
NO_LIMITS = {"per_minute": 0, "per_phone_per_minute": 0, "cold_per_hour": 0, "cold_per_day": 0}
#: Companies that are linked at the same time.
PARALLEL = 8
#: Seconds between a sender's attempts while nobody answers.
RETRY_EVERY = 0.2


class Chat(NamedTuple):
    """Who writes to whom."""

    sender: str
    receiver: str
    phone: str  # the receiver's

    def text(self, number: int) -> str:
        return f"{self.sender} {self.receiver} {number:06}"


class Parties(NamedTuple):
    """Names, with their phone numbers."""

    companies: dict[str, str]
    witnesses: dict[str, str]

    @property
    def chats(self) -> list[Chat]:
        """Each company writes to the next one, and to one witness."""
        names, witnesses = [*self.companies], [*self.witnesses]
        found = []
        for number, name in enumerate(names):
            following = names[(number + 1) % len(names)]
            witness = witnesses[number % len(witnesses)]
            found.append(Chat(name, following, self.companies[following]))
            found.append(Chat(name, witness, self.witnesses[witness]))
        return found


def parties(companies: int, witnesses: int) -> Parties:
    assert companies > 2  # two would write to each other
    return Parties(
        {f"company{number}": f"+1555010{number:04}" for number in range(companies)},
        {f"witness{number}": f"+1555020{number:04}" for number in range(witnesses)},
    )


async def link_all(daemon: Daemon, companies: dict[str, str]) -> None:
    """Links them, without limits."""
    limiter = trio.CapacityLimiter(PARALLEL)
    async with daemon.client() as client, following(client) as events:

        async def one(company: str, phone: str) -> None:
            async with limiter:
                await link(client, events, company, phone)
                await client.call("session.configure", company=company, **NO_LIMITS)

        async with trio.open_nursery() as nursery:
            for company, phone in companies.items():
                nursery.start_soon(one, company, phone)


async def until_connected(daemon: Daemon, companies: dict[str, str], *, patience: float) -> None:
    """Wait until every one of them is connected."""
    waiting: list[Any] = []
    with trio.move_on_after(patience):
        while True:
            async with daemon.client() as client:
                sessions = (await client.call("session.list"))["sessions"]
            waiting = [each for each in sessions if each["state"] != "connected"]
            if not waiting and {each["company"] for each in sessions} == companies.keys():
                return
            await trio.sleep(0.05)
    raise AssertionError(f"not connected after {patience} s: {waiting}")


class Traffic:
    """Senders, one for each chat, that retry with the same key on any error."""

    def __init__(self, daemon: Daemon, people: Parties, *, seed: int, pause: float) -> None:
        self.accepted: dict[str, str] = {}  # row id by text
        self.last: dict[Chat, str] = {}  # the newest text
        self.errors: Counter[str] = Counter()
        self._daemon = daemon
        self._people = people
        self._seed = seed
        self._pause = pause
        self._numbers: Counter[Chat] = Counter()
        self._stopping = False

    async def run(self) -> None:
        """Until `stop`, and then until everything begun is accepted."""
        async with trio.open_nursery() as nursery:
            for chat in self._people.chats:
                nursery.start_soon(self._send_on, chat)

    def stop(self) -> None:
        self._stopping = True

    async def one_each(self) -> None:
        """One message in each chat, delivered. Only while there is peace."""

        async def send(chat: Chat) -> None:
            await self._send_next(chat, "delivered", patience=math.inf)

        async with trio.open_nursery() as nursery:
            for chat in self._people.chats:
                nursery.start_soon(send, chat)

    async def _send_on(self, chat: Chat) -> None:
        chance = random.Random(f"{self._seed} {chat}")
        while not self._stopping:
            # Most do not wait; some do, and some of those lose their patience.
            wait = chance.choice(["queued", "queued", "queued", "sent", "delivered"])
            await self._send_next(chat, wait, patience=chance.choice([0.05, 0.5, 2.0]))
            await trio.sleep(chance.random() * 2 * self._pause)

    async def _send_next(self, chat: Chat, wait: str, *, patience: float) -> None:
        self._numbers[chat] += 1
        text = chat.text(self._numbers[chat])
        message = {"company": chat.sender, "to": chat.phone, "text": text, "key": text}
        self.accepted[text] = await self._send(message, wait, patience)
        self.last[chat] = text

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
                await trio.sleep(RETRY_EVERY)


class Operator:
    """The person on duty: starts what gave up after too many crashes, and nothing else."""

    def __init__(self, daemon: Daemon) -> None:
        self.started: list[str] = []
        self._daemon = daemon

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(0.5)
            try:
                async with self._daemon.client() as client:
                    for status in (await client.call("session.list"))["sessions"]:
                        if status["state"] == "failed":
                            await client.call("session.start", company=status["company"])
                            self.started.append(status["company"])
            except WhatsappdError:
                continue  # the daemon is just being killed
