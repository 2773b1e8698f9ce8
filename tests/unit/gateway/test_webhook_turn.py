"""One gateway delivers at a time, and one that stands still loses its turn."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from fake_connection import FakeConnection
from trio.testing import MockClock, wait_all_tasks_blocked

from whatsappd.api.declaration import NoParams
from whatsappd.errors import Denied, WrongState
from whatsappd.gateway.webhooks.turn import CONFIRM_EVERY, ConfirmedTurn
from whatsappd.handlers.webhook_delivery import WebhookDelivery
from whatsappd.rpc.method import Call
from whatsappd.rpc.peer_credentials import Peer
from whatsappd.rules.webhook_policy import TURN_S
from whatsappd.store.memory.store import store_in_memory
from whatsappd.store.memory.tables import MemoryTables


class Gateway(FakeConnection):
    """A gateway's connection to the daemon."""

    def __init__(self, pid: int, nursery: trio.Nursery) -> None:
        super().__init__(Peer(pid, 0, 0), nursery)

    def asks(self, delivery: WebhookDelivery) -> None:
        delivery._deliver(Call(self.peer, self), NoParams())


class Silent:
    """A connection to a daemon that does not answer."""

    async def request(
        self, _method: str, _arguments: dict[str, Any], /, *, actor: str | None = None
    ) -> Any:
        await trio.sleep_forever()


async def test_who_confirms_keeps_the_turn_and_who_does_not_loses_it(
    mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    store = store_in_memory(MemoryTables())
    delivery = WebhookDelivery(store.webhooks, store.events)
    first, second = Gateway(1, nursery), Gateway(2, nursery)
    first.asks(delivery)
    for _ in range(5):
        mock_clock.jump(TURN_S - 0.1)
        with pytest.raises(WrongState, match="process 1"):
            second.asks(delivery)
        first.asks(delivery)
    # It stands still, and nobody else is there: it keeps the turn.
    mock_clock.jump(10 * TURN_S)
    first.asks(delivery)
    # It stands still while another asks.
    mock_clock.jump(TURN_S)
    second.asks(delivery)
    with pytest.raises(WrongState, match="process 2"):
        first.asks(delivery)
    with pytest.raises(Denied):
        delivery._only_deliverer(Call(first.peer, first))
    await wait_all_tasks_blocked()
    assert delivery.is_up
    assert delivery.away_ms() is None
    nursery.cancel_scope.cancel()


async def test_what_was_frozen_waits_for_a_new_confirmation(mock_clock: MockClock) -> None:
    turn = ConfirmedTurn(Silent())
    turn.confirm(trio.current_time())
    await turn.held()
    mock_clock.jump(TURN_S + 1)  # as after a SIGSTOP
    gone_on = trio.Event()

    async def deliver() -> None:
        await turn.held()
        gone_on.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliver)
        await wait_all_tasks_blocked()
        assert not gone_on.is_set()
        # An answer to what was asked before it was frozen confirms nothing.
        turn.confirm(trio.current_time() - TURN_S)
        await wait_all_tasks_blocked()
        assert not gone_on.is_set()
        turn.confirm(trio.current_time())
        await gone_on.wait()


def test_a_confirmation_may_be_missed_without_losing_the_turn() -> None:
    assert 2 * CONFIRM_EVERY < TURN_S
