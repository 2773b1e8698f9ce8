"""Resending dead letters that fails is tried again after a pause, and not at once for ever."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing

pytest.importorskip("httpcore", reason="the extra `gateway` is not installed")

from whatsappd.errors import StoreFailed
from whatsappd.gateway.webhooks.deliverer import (
    DEFAULT_POLICY,
    DEFECT_PAUSE,
    Deliverer,
)
from whatsappd.gateway.webhooks.delivery import Delivering
from whatsappd.gateway.webhooks.log_feed import LogFeed
from whatsappd.gateway.webhooks.receivers import Receivers
from whatsappd.gateway.webhooks.turn import ConfirmedTurn
from whatsappd.store.sqlite.webhooks import new_secret

WEBHOOK = {
    **{"id": "5pk2wczu", "revision": 1, "url": "https://hooks.example/", "secret": new_secret()},
    **{"companies": None, "types": ["alert"], "description": "", "allow_private": False},
    **{"enabled": False, "state": "disabled", "created_ms": 1, "updated_ms": 1, "owner": None},
    **{"cursor": 0, "behind": 0, "delivered": 0, "failures": 0, "gone": 0, "last_error": None},
    **{"dead_letters": 1, "dead_bytes": 9, "last_success_ms": None},
    **{"failing_since_ms": None, "paused_since_ms": None},
}


class FailingDaemon:
    """A daemon that has a dead letter to resend, and cannot read it."""

    def __init__(self) -> None:
        self.asked_at: list[float] = []

    @property
    def notifications(self) -> AsyncIterator[Any]:
        return self._none()

    async def _none(self) -> AsyncIterator[Any]:
        await trio.sleep_forever()
        yield None

    async def request(self, method: str, _arguments: object, *, actor: str | None = None) -> Any:
        await trio.lowlevel.checkpoint()
        if method == "webhook.work":
            return {"webhooks": [WEBHOOK], "resend": [WEBHOOK["id"]], "tests": []}
        assert method == "webhook.next_resend"
        assert len(self.asked_at) < 100, "it asks without a pause"
        self.asked_at.append(trio.current_time())
        raise StoreFailed("the disk is full")


async def test_resending_that_fails_begins_anew_after_a_pause(
    autojump_clock: trio.testing.MockClock,
) -> None:
    daemon: Any = FailingDaemon()
    receivers = Receivers(DEFAULT_POLICY, ssl.create_default_context(), allow_private=False)
    shared = Delivering(daemon, LogFeed(), ConfirmedTurn(daemon), receivers)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Deliverer(daemon, shared).run)
        await trio.sleep(2.5 * DEFECT_PAUSE)
        nursery.cancel_scope.cancel()
    assert daemon.asked_at == pytest.approx([0, DEFECT_PAUSE, 2 * DEFECT_PAUSE])
