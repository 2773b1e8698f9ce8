"""What a webhook's deliverer reports is counted once, also when it is stopped in the middle."""

from __future__ import annotations

import ssl
from typing import Any

import trio
from receivers import running_receiver

from whatsappd.errors import StoreFailed
from whatsappd.gateway.webhooks.deliverer import DEFAULT_POLICY, ConfirmedTurn, LogFeed
from whatsappd.gateway.webhooks.delivery import Delivering, Delivery, Recoveries
from whatsappd.store.sqlite.webhooks import new_secret

EVENTS = [
    {"seq": seq, "time_ms": 5, "company": "acme", "type": "alert", "data": {}}
    for seq in range(1, 6)
]


class ScriptedDaemon:
    """The daemon as a delivery sees it. What becomes of the first report, a test says."""

    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []
        self.refuses_first = False
        self.was_told = trio.Event()

    async def call(self, method: str, /, **arguments: Any) -> dict[str, Any]:
        if method == "events.read":
            left = [event for event in EVENTS if event["seq"] > arguments["after"]]
            return {"events": left, "next": len(EVENTS), "last_seq": len(EVENTS), "gap": None}
        self.reports.append(arguments)
        if len(self.reports) == 1:
            if self.refuses_first:
                raise StoreFailed("the disk is full")
            self.was_told.set()
            await trio.sleep_forever()  # it took the report; its answer does not come any more
        self.was_told.set()
        return {}

    def counted(self) -> int:
        taken = self.reports[1:] if self.refuses_first else self.reports
        return sum(report["delivered"] for report in taken)


async def deliver(daemon: ScriptedDaemon) -> None:
    """Deliver EVENTS, until the daemon was told of them; then stop."""
    async with running_receiver() as receiver:
        webhook = {
            **{"id": "5pk2wczu", "revision": 1, "url": receiver.url, "secret": new_secret()},
            **{"companies": None, "types": None, "allow_private": True, "cursor": 0},
            **{"failing_since_ms": None, "paused_since_ms": None},
        }
        turn = ConfirmedTurn()
        turn.confirm(trio.current_time())
        shared = Delivering(
            daemon,  # type: ignore[arg-type]
            LogFeed(),
            turn,
            Recoveries(),
            DEFAULT_POLICY,
            ssl.create_default_context(),
            allow_private=False,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Delivery(webhook, shared).run)
            await receiver.until(lambda: len(receiver.accepted) == len(EVENTS))
            with trio.fail_after(30):
                await daemon.was_told.wait()
            nursery.cancel_scope.cancel()


async def test_a_report_whose_answer_is_not_waited_for_is_not_told_again() -> None:
    daemon = ScriptedDaemon()
    await deliver(daemon)
    assert daemon.counted() == len(EVENTS)
    assert daemon.reports[-1]["cursor"] == len(EVENTS)


async def test_a_report_that_was_refused_is_told_again() -> None:
    daemon = ScriptedDaemon()
    daemon.refuses_first = True
    await deliver(daemon)
    assert daemon.counted() == len(EVENTS)
