"""The receivers of a gateway's webhooks: how they are reached, and which have just recovered.

The deliverer makes one `Receivers`, which all its deliveries share.
"""

from __future__ import annotations

import ssl
from collections.abc import Hashable
from contextlib import AbstractAsyncContextManager

import trio

from whatsappd.api.webhooks import WebhookWork
from whatsappd.gateway.webhooks.post import Receiver, open_receiver
from whatsappd.rules.webhook_policy import Policy


class Recoveries:
    """Receivers that took an event after they had failed: whoever waits for one tries at once."""

    def __init__(self) -> None:
        self._waited_for: dict[Hashable, trio.Event] = {}

    def happened(self, origin: Hashable) -> None:
        """Wake all that wait for that receiver."""
        event = self._waited_for.pop(origin, None)
        if event is not None:
            event.set()

    async def wait(self, origin: Hashable, until: float) -> bool:
        """Whether it recovers before `until`, by trio's clock."""
        event = self._waited_for.setdefault(origin, trio.Event())
        with trio.move_on_at(until):
            await event.wait()
            return True
        return False


class Receivers:
    """Opens the receiver of a webhook.

    Args:
        policy: how receivers are treated.
        tls: trusts the certificates that receivers may have.
        allow_private: let every webhook reach addresses that are not on the Internet.
    """

    def __init__(self, policy: Policy, tls: ssl.SSLContext, *, allow_private: bool) -> None:
        self.policy = policy
        self.recoveries = Recoveries()
        self._tls = tls
        self._allow_private = allow_private

    def open(self, webhook: WebhookWork) -> AbstractAsyncContextManager[Receiver]:
        """The receiver of a webhook, with connections of its own.

        Raises:
            InvalidParams: the webhook's URL cannot be read.
        """
        return open_receiver(
            webhook.url,
            webhook.secret,
            allow_private=self._allow_private or webhook.allow_private,
            timeout_s=self.policy.timeout_ms / 1000,
            tls=self._tls,
        )
