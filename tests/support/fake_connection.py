"""A caller's connection to the daemon, as handlers see it; a test reads what it was sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from whatsappd.rpc.peer_credentials import Peer


class FakeConnection:
    """An `rpc.method.Notifier`.

    Attributes:
        notified: the methods of the notifications, in order.
        sent: the packed notifications.
    """

    def __init__(self, peer: Peer, nursery: trio.Nursery) -> None:
        self.peer = peer
        self.closed = False
        self.notified: list[str] = []
        self.sent = b""
        self._nursery = nursery

    def start_soon(self, task: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        self._nursery.start_soon(task, *arguments)

    def bind_to(self, actor: str) -> None:
        pass

    async def notify(self, method: str, arguments: dict[str, Any]) -> None:
        self.notified.append(method)

    async def notify_packed(self, packed: bytes) -> None:
        self.sent += packed

    def offer_packed(self, packed: bytes) -> bool:
        self.sent += packed
        return True
