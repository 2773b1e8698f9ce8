"""One gateway delivers at a time, and one that stands still loses its turn."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.fake_connection import FakeConnection
from whatsappd.api.declaration import NoParams
from whatsappd.errors import Denied, WrongState
from whatsappd.gateway.webhooks.turn import CONFIRM_EVERY, ConfirmedTurn
from whatsappd.handlers.webhook_delivery import WebhookDelivery
from whatsappd.rpc.method import Call
from whatsappd.rpc.peer_credentials import Peer
from whatsappd.rules.webhook_policy import TURN_S


class Gateway(FakeConnection):
    """A gateway's connection to the daemon."""

    def __init__(self, pid: int, nursery: trio.Nursery) -> None:
        super().__init__(Peer(pid, 0, 0), nursery)

    def asks(self, delivery: WebhookDelivery) -> None:
        delivery._deliver(Call(self.peer, self), NoParams())


class Quiet:
    """An event log and webhooks to which nothing happens."""

    last_seq = 0

    async def wait_beyond(self, _seq: int) -> int:
        await trio.sleep_forever()
        return 0

    def changed(self) -> trio.Event:
        return trio.Event()


async def test_who_confirms_keeps_the_turn_and_who_does_not_loses_it(
    mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    delivery = WebhookDelivery(Quiet(), Quiet())  # type: ignore[arg-type]
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
    turn = ConfirmedTurn(Quiet())  # type: ignore[arg-type]
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
