"""A crowd of companies that write to each other, for the benchmarks: linked, and introduced.

Companies are `c0`, `c1`, …; each writes to the ones after it, in a ring, so that all send and
receive alike. A text names its sender, its receiver and a number, and occurs once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import trio
from daemons import PATIENCE, Daemon, following, link

from whatsappd.rpc.client import RpcClient

#: Companies linked at the same time.
PARALLEL = 8
#: Events of one page.
_PAGE = 500
#: Outbox states at which an attempt has come to its end without having been sent.
FAILURES = frozenset({"failed", "expired", "cancelled", "uncertain"})


class Crowd(NamedTuple):
    """`partners`: how many of the others each one writes to."""

    companies: int
    partners: int

    @property
    def names(self) -> list[str]:
        return [f"c{number}" for number in range(self.companies)]

    def phone(self, number: int) -> str:
        return f"+1555{number % self.companies:07d}"

    def message(self, sender: int, number: int) -> dict[str, str]:
        """The `number`th message of a sender: arguments for `message.send`."""
        receiver = (sender + 1 + number % self.partners) % self.companies
        text = f"c{sender} c{receiver} {number:06}"
        return {"company": f"c{sender}", "to": self.phone(receiver), "text": text, "key": text}


async def settle_in(daemon: Daemon, crowd: Crowd, **limits: int) -> None:
    """Link everybody, set `limits`, and let each write once to each partner: from then on they know
    each other, and what first messages cost is behind them."""
    async with daemon.client() as client, following(client) as events:
        limiter = trio.CapacityLimiter(PARALLEL)

        async def one(number: int) -> None:
            async with limiter:
                await link(client, events, f"c{number}", crowd.phone(number))
                if limits:
                    await client.call("session.configure", company=f"c{number}", **limits)

        async with trio.open_nursery() as nursery:
            for number in range(crowd.companies):
                nursery.start_soon(one, number)
        for number in range(crowd.partners):
            async with trio.open_nursery() as nursery:
                for sender in range(crowd.companies):
                    nursery.start_soon(_introduce, client, crowd.message(sender, number), limiter)


async def _introduce(
    client: RpcClient, message: dict[str, str], limiter: trio.CapacityLimiter
) -> None:
    text = f"{message['text']} hello"
    async with limiter:
        row = await client.call(
            "message.send", **{**message, "text": text, "key": text, "wait": "delivered"}
        )
    assert row["state"] == "delivered", row


async def all_connected(daemon: Daemon) -> dict[str, int]:
    """Wait until every company is connected; their workers' pids."""
    with trio.fail_after(PATIENCE):
        async with daemon.client() as client:
            while True:
                companies = (await client.call("daemon.status"))["companies"]
                if all(company["state"] == "connected" for company in companies):
                    return {company["company"]: company["worker_pid"] for company in companies}
                await trio.sleep(0.05)


async def events_after(
    client: RpcClient, seq: int, types: Sequence[str]
) -> tuple[list[dict[str, Any]], int]:
    """All events since `seq`, and where to go on."""
    found: list[dict[str, Any]] = []
    while True:
        page = await client.call("events.read", after=seq, limit=_PAGE, types=list(types))
        found += page["events"]
        seq = page["next"]
        if seq >= page["last_seq"]:
            return found, seq


class Course:
    """What became of messages, by the daemon's own event log: when each got how far."""

    def __init__(self) -> None:
        self.accepted: dict[str, int] = {}  # epoch milliseconds, by row id
        self.sent: dict[str, int] = {}
        self.delivered: dict[str, int] = {}
        self.failed: dict[str, str] = {}  # the state, by row id
        self.arrived: dict[str, list[int]] = {}  # when, by text

    async def read(self, client: RpcClient, seq: int) -> int:
        """Take what was logged since `seq`; where to go on."""
        found, seq = await events_after(client, seq, ("outbox.state", "message.received"))
        for event in found:
            data, at_ms = event["data"], event["time_ms"]
            if event["type"] == "message.received":
                self.arrived.setdefault(data["text"], []).append(at_ms)
                continue
            match data["state"]:
                case "queued" if data["previous"] is None:
                    self.accepted[data["id"]] = at_ms
                case "sent":
                    self.sent.setdefault(data["id"], at_ms)
                case "delivered" | "read" | "played":
                    self.delivered.setdefault(data["id"], at_ms)
                    self.sent.setdefault(data["id"], at_ms)
                case state if state in FAILURES:
                    self.failed[data["id"]] = state
        return seq

    async def read_until(self, client: RpcClient, seq: int, count: int, *, patience: float) -> int:
        """Read on until `count` messages are accounted for at both ends, or patience ends."""
        with trio.move_on_after(patience):
            while True:
                seq = await self.read(client, seq)
                ended = len(self.delivered.keys() | self.failed.keys())
                if ended >= count and len(self.arrived) + len(self.failed) >= count:
                    break
                await trio.sleep(0.2)
        return seq

    @property
    def doubled(self) -> list[str]:
        return [text for text, times in self.arrived.items() if len(times) > 1]

    def spans_ms(self, begun: dict[str, int], ended: dict[str, int]) -> list[int]:
        return [ended[row] - begun[row] for row in begun if row in ended]


def ring(crowd: Crowd, each: int) -> Iterator[dict[str, str]]:
    """`each` messages of every company, all companies in turn."""
    for number, sender in itertools.product(range(each), range(crowd.companies)):
        yield crowd.message(sender, number)
