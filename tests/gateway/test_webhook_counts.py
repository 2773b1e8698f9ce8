"""What a webhook's deliverer reports is counted once, also when it is stopped in the middle."""

from __future__ import annotations

import ssl
from itertools import count
from typing import Any

import pytest
import trio
from receivers import running_receiver

from whatsappd.api.webhooks import WebhookWork
from whatsappd.errors import StoreFailed
from whatsappd.gateway.webhooks import delivery
from whatsappd.gateway.webhooks.deliverer import DEFAULT_POLICY
from whatsappd.gateway.webhooks.delivery import Delivering, Delivery
from whatsappd.gateway.webhooks.log_feed import LogFeed
from whatsappd.gateway.webhooks.receivers import Receivers
from whatsappd.gateway.webhooks.turn import ConfirmedTurn
from whatsappd.rules.webhook_policy import Policy
from whatsappd.store.webhook_rows import new_secret

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

    async def request(
        self, method: str, arguments: dict[str, Any], /, *, actor: str | None = None
    ) -> dict[str, Any]:
        assert actor is None  # in its own name
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
        return {"cursor": arguments["cursor"]}

    def counted(self) -> int:
        taken = self.reports[1:] if self.refuses_first else self.reports
        return sum(report["delivered"] for report in taken)


def a_webhook(url: str) -> WebhookWork:
    return WebhookWork(
        **{"id": "5pk2wczu", "revision": 1, "url": url, "secret": new_secret(), "owner": None},
        **{"companies": None, "types": ["alert"], "description": "", "allow_private": True},
        **{"enabled": True, "state": "ok", "created_ms": 1, "updated_ms": 1, "last_error": None},
        **{"cursor": 0, "behind": 5, "delivered": 0, "failures": 0, "gone": 0},
        **{"dead_letters": 0, "dead_bytes": 0, "last_success_ms": None},
        **{"failing_since_ms": None, "paused_since_ms": None},
    )


def a_process(daemon: ScriptedDaemon, policy: Policy = DEFAULT_POLICY) -> Delivering:
    """What a process that delivers has, and that it has the turn."""
    turn = ConfirmedTurn(daemon)
    turn.confirm(trio.current_time())
    return Delivering(
        daemon,
        LogFeed(),
        turn,
        Receivers(policy, ssl.create_default_context(), allow_private=False),
    )


async def deliver(daemon: ScriptedDaemon) -> None:
    """Deliver EVENTS, until the daemon was told of them; then stop."""
    async with running_receiver() as receiver:
        delivering = Delivery(a_webhook(receiver.url), a_process(daemon))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(delivering.run)
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


async def test_a_clock_that_is_set_does_not_pause_a_webhook(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only how long the receiver really failed counts; the time of day is for people."""
    daemon = ScriptedDaemon()
    daemon.refuses_first = True
    years = count(0, 10**11)
    monkeypatch.setattr(delivery, "_now_ms", lambda: next(years))
    async with running_receiver() as receiver, trio.open_nursery() as nursery:
        receiver.answer = lambda _event: 500
        policy = DEFAULT_POLICY._replace(base_ms=1, cap_ms=5, attempts=10_000)
        nursery.start_soon(Delivery(a_webhook(receiver.url), a_process(daemon, policy)).run)
        with trio.fail_after(20):
            while sum(report["failures"] for report in daemon.reports[1:]) < 3:
                await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    assert daemon.reports[-1]["failing_since_ms"] is not None
    assert daemon.reports[-1]["paused_since_ms"] is None
