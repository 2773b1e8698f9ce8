"""This gateway's turn to deliver webhooks, which only one gateway has at a time.

The daemon gives the turn, for `TURN_S` seconds (`webhook.deliver`). `deliverer` takes it and keeps
it; each `delivery` waits for it before an attempt. A gateway that cannot confirm its turn in time
loses it to the next one that asks.
"""

from __future__ import annotations

from math import inf

import trio

from whatsappd.api import webhooks as api
from whatsappd.api.declaration import NoParams
from whatsappd.errors import Unreachable
from whatsappd.gateway.daemon_link import DaemonCalls, ask
from whatsappd.rules.webhook_policy import TURN_S

#: Seconds between confirmations of the turn.
CONFIRM_EVERY = TURN_S / 3


class ConfirmedTurn:
    """Until when this process may deliver, as the daemon confirmed.

    A process that was frozen (SIGSTOP, a suspended machine) wakes up with an old confirmation. It
    waits for a new one before it delivers anything, as another gateway may deliver by now.
    """

    def __init__(self, client: DaemonCalls) -> None:
        self._client = client
        self._until = -inf
        self._confirmed = trio.Event()

    async def take(self) -> None:
        """Ask the daemon for the turn, or confirm it.

        Raises:
            WrongState: another process has it.
            Unreachable: the daemon does not answer in time.
        """
        asked_at = trio.current_time()
        with trio.move_on_after(TURN_S):
            await ask(self._client, api.DELIVER, NoParams())
            self.confirm(asked_at)
            return
        raise Unreachable(f"whatsappd did not answer within {TURN_S:g} s")

    async def keep(self) -> None:
        """Confirm the turn every CONFIRM_EVERY seconds, until cancelled. Raises as `take`."""
        while True:
            await trio.sleep(CONFIRM_EVERY)
            await self.take()

    def confirm(self, asked_at: float) -> None:
        """The daemon confirmed what it was asked for at `asked_at`, by trio's clock."""
        self._until = asked_at + TURN_S
        self._confirmed.set()
        self._confirmed = trio.Event()

    async def held(self) -> None:
        """Wait until the daemon has confirmed the turn lately."""
        while trio.current_time() >= self._until:
            await self._confirmed.wait()
