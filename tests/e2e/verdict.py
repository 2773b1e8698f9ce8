"""What became of every accepted message: at WhatsApp, and in its receiver's event log."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import trio
from chaos import Parties, Traffic
from daemons import Daemon

from whatsappd.rpc.client import RpcClient

SENT = {"sent", "delivered", "read", "played"}


class Arrivals:
    """What receivers' event log holds, as it is read."""

    def __init__(self) -> None:
        self.times: Counter[str] = Counter()  # by text
        self.ids: Counter[tuple[str, str]] = Counter()  # by receiver and WhatsApp's id
        self.order: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self._more = trio.Event()

    async def read(self, client: RpcClient) -> None:
        async for notice in client.notifications:
            if notice.method != "event":
                continue
            event = notice.arguments["event"]
            data = event["data"]
            sender, receiver, _number = data["text"].split()
            self.times[data["text"]] += 1
            self.ids[event["company"], data["message_id"]] += 1
            self.order[sender, receiver].append(data["text"])
            self._more.set()
            self._more = trio.Event()

    async def until(self, wanted: Callable[[], bool], *, patience: float) -> bool:
        with trio.move_on_after(patience):
            while not wanted():
                await self._more.wait()
        return wanted()

    @property
    def doubled(self) -> list[Any]:
        """Texts, and WhatsApp's ids, that were logged more than once."""
        return [what for counts in (self.times, self.ids) for what, n in counts.items() if n > 1]

    @property
    def out_of_order(self) -> list[tuple[str, str]]:
        """Neighbours of one chat that arrived the wrong way round."""
        return [
            (earlier, later)
            for texts in self.order.values()
            for earlier, later in itertools.pairwise(texts)
            if earlier >= later
        ]


@asynccontextmanager
async def arriving(daemon: Daemon) -> AsyncIterator[Arrivals]:
    """Everything that the companies of `daemon` ever got, and get."""
    arrivals = Arrivals()
    async with daemon.client() as client:
        await client.call("events.subscribe", after=0, types=["message.received"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(arrivals.read, client)
            yield arrivals
            nursery.cancel_scope.cancel()


async def changes_of_state(daemon: Daemon) -> list[dict[str, Any]]:
    """All events of type `session.state`, in the log's order."""
    found: list[dict[str, Any]] = []
    async with daemon.client() as client:
        after, last = 0, 1
        while after < last:
            page = await client.call("events.read", after=after, limit=500, types=["session.state"])
            found += page["events"]
            after, last = page["next"], page["last_seq"]
    return found


async def settled_rows(daemon: Daemon, people: Parties, *, patience: float) -> list[dict[str, Any]]:
    """All senders' rows, once none waits or is on its way."""
    with trio.fail_after(patience):
        async with daemon.client() as client:
            while True:
                rows = [row for name in people.companies for row in await _rows(client, name)]
                if not any(row["state"] in ("queued", "sending") for row in rows):
                    return rows
                await trio.sleep(0.5)


async def _rows(client: RpcClient, company: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    before = None
    while True:
        page = await client.call("message.list", company=company, limit=200, before=before)
        rows += page["rows"]
        before = page["next"]
        if before is None:
            return rows


class Verdict(NamedTuple):
    """What became of all accepted messages, by text.

    `lost` is what no receiver in peace has although it is not `uncertain`, and what WhatsApp never
    took. `died`: WhatsApp took it, and its receiver, under fire itself, does not have it.
    """

    accepted: set[str]
    sent: set[str]  # WhatsApp acknowledged it
    arrived: set[str]  # exactly once
    uncertain: set[str]  # reported so, whether it arrived or not
    lost: set[str]
    doubled: list[Any]
    died: set[str]

    @property
    def fates(self) -> list[tuple[str, int, str | None]]:
        """What became of how many, and what was aimed at."""
        return [
            ("messages accepted", len(self.accepted), None),
            ("arrived once", len(self.arrived), None),
            ("reported uncertain", len(self.uncertain), None),
            ("lost", len(self.lost), "0"),
            ("doubled", len(self.doubled), "0"),
            ("died with their receiver's worker", len(self.died), None),
        ]

    def receivers_of_dead(self) -> set[str]:
        return {text.split()[1] for text in self.died}


def judge(
    accepted: dict[str, str],
    rows: list[dict[str, Any]],
    at_witnesses: Arrivals,
    at_companies: Arrivals,
) -> Verdict:
    """Counts. An uncertain message may have arrived once, or not at all."""
    by_text = {row["text"]: row for row in rows}
    assert len(by_text) == len(rows)  # one row for each key
    assert {text: by_text[text]["id"] for text in accepted} == accepted
    times = at_witnesses.times + at_companies.times
    sent = {text for text, row in by_text.items() if row["state"] in SENT}
    uncertain = {text for text, row in by_text.items() if row["state"] == "uncertain"}
    missing = {text for text in sent if not times[text]}
    died = {text for text in missing if text.split()[1].startswith("company")}
    return Verdict(
        accepted=set(by_text),
        sent=sent,
        arrived={text for text in by_text if times[text] == 1},
        uncertain=uncertain,
        lost=(by_text.keys() - sent - uncertain) | (missing - died),
        doubled=[*at_witnesses.doubled, *at_companies.doubled],
        died=died,
    )


async def pass_judgement(
    traffic: Traffic, people: Parties, daemon: Daemon, peaceful: Daemon, *, patience: float
) -> tuple[Verdict, Arrivals]:
    """After the last mishap: wait for every fate, and judge; and what the witnesses got.

    Args:
        daemon: of the companies.
        peaceful: of the witnesses.
        patience: seconds until every message's fate is known.
    """
    await settled_rows(daemon, people, patience=patience)
    # Whoever has the last one of a chat has had all that were before it.
    await traffic.one_each()
    rows = await settled_rows(daemon, people, patience=patience)
    last = set(traffic.last.values())
    async with arriving(peaceful) as at_witnesses, arriving(daemon) as at_companies:
        both = (at_witnesses, at_companies)
        for arrivals, names in zip(both, (people.witnesses, people.companies), strict=True):
            ours = {text for text in last if text.split()[1] in names}
            await arrivals.until(lambda a=arrivals, t=ours: t <= a.times.keys(), patience=60)
        verdict = judge(traffic.accepted, rows, at_witnesses, at_companies)
    return verdict, at_witnesses
