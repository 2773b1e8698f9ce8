"""Tells deliveries when the daemon's event log has grown. `deliverer` is notified, and says so."""

from __future__ import annotations

import trio


class LogFeed:
    """The newest event of the log, as the daemon notified."""

    def __init__(self) -> None:
        self._last_seq = 0
        self._grown = trio.Event()

    def publish(self, last_seq: int) -> None:
        """The log has grown up to this event: wake all that wait."""
        self._last_seq = max(last_seq, self._last_seq)
        self._grown.set()
        self._grown = trio.Event()

    async def wait_beyond(self, seq: int) -> None:
        """Wait until there is an event behind `seq`."""
        await trio.lowlevel.checkpoint()
        while self._last_seq <= seq:
            await self._grown.wait()
