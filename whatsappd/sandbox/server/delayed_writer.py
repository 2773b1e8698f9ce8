"""Latency: what is written to a client arrives a little later, in order."""

from __future__ import annotations

from collections import deque

import trio

from whatsappd.sandbox.server.tcp_channel import TcpChannel
from whatsappd.sandbox.state.switchboard import Switchboard


class DelayedWriter:
    """Writes to a channel `Switchboard.latency_s` seconds late. `run` needs a task of its own."""

    def __init__(self, channel: TcpChannel, board: Switchboard) -> None:
        self._channel = channel
        self._board = board
        # What was sent and has not arrived, with the time when it does (trio's clock).
        self._on_the_way: deque[tuple[float, bytes]] = deque()
        self._more = trio.Event()

    def write(self, data: bytes) -> None:
        """Let `data` arrive later, or at once if there is no latency. Never waits."""
        latency_s = self._board.latency_s
        if latency_s <= 0 and not self._on_the_way:
            self._channel.write(data)
            return
        self._on_the_way.append((trio.current_time() + latency_s, data))
        self._more.set()

    def finish(self) -> None:
        """Let everything that is on the way arrive now."""
        while self._on_the_way:
            self._channel.write(self._on_the_way.popleft()[1])

    async def run(self) -> None:
        """Let arrive what is written, until cancelled."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            while self._on_the_way:
                await trio.sleep_until(self._on_the_way[0][0])
                if self._on_the_way:
                    self._channel.write(self._on_the_way.popleft()[1])
