"""Picks the rows that may be sent next, from the rows of one look at a company's queue.

The dispatcher takes one after the other. The order within a chat is kept: a row that may not be
sent yet holds back the later rows of its chat, and no others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from enum import Enum, auto
from typing import Protocol

import trio

from whatsappd.model.message import Row
from whatsappd.sessions.pacing import GO, PacingVerdict
from whatsappd.sessions.rate_holds import HoldScope, RateHolds


class LookUp(Enum):
    """The result of looking up a stranger's address."""

    EXISTS = auto()
    ENDED = auto()  # nobody has the address, or it cannot be told now: the row does not go
    MOVED = auto()  # it means another account, or somebody known: rows are to be looked at anew


class PacingPort(Protocol):
    """What `SendableRows` asks of the company's limits: see `sessions.pacing.Pacing`."""

    def check(self, chat: str, *, is_cold: bool) -> PacingVerdict: ...

    async def admit(self, chat: str, *, is_cold: bool) -> PacingVerdict: ...


class DispatcherPort(Protocol):
    """What `SendableRows` asks of its dispatcher."""

    async def look_up(self, row: Row) -> LookUp:
        """Finds out whether a stranger's address is on WhatsApp; its row is next."""
        ...

    def is_overtaken(self) -> bool:
        """Whether other rows than these are to go first now."""
        ...


class SendableRows:
    """Gives the rows of one look at the queue, one after the other, as the limits allow.

    Rows that are rate-limited are added to `holds`.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        strangers: Collection[str],
        pacing: PacingPort,
        holds: RateHolds,
        dispatcher: DispatcherPort,
    ) -> None:
        self._rows = deque(rows)
        self._strangers = set(strangers)
        self._stopped: set[str] = set()  # chats whose order forbids their next row
        self._pacing = pacing
        self._holds = holds
        self._dispatcher = dispatcher

    async def next(self, *, to_known: bool = False) -> Row | None:
        """The next row that may be sent, already counted by the limits.

        Returns None if none of these rows may be sent now.

        Args:
            to_known: return None also if the next row goes to a stranger, whose address must be
                looked up first.
        """
        while self._rows and not self._dispatcher.is_overtaken():
            row = self._rows[0]
            is_cold = row.chat in self._strangers
            if is_cold and to_known:
                return None
            self._rows.popleft()
            if row.chat in self._stopped:
                continue
            # Nobody's number is looked up before its turn has come, or written to without.
            verdict = self._pacing.check(row.chat, is_cold=True) if is_cold else GO
            if verdict.wait_ms == 0:
                found = await self._dispatcher.look_up(row) if is_cold else LookUp.EXISTS
                if found is LookUp.ENDED:
                    self.stop(row.chat)
                    continue
                if found is LookUp.MOVED:
                    self._rows.clear()
                    return None
                verdict = await self._pacing.admit(row.chat, is_cold=is_cold)
                if verdict.wait_ms == 0:
                    return row
            self._holds.add(verdict.scope, row.chat, trio.current_time() + verdict.wait_ms / 1000)
            if verdict.scope is HoldScope.COMPANY:
                self._rows.clear()
            else:
                self.stop(row.chat)
        return None

    def stop(self, chat: str) -> None:
        """No later row of `chat` may go."""
        self._stopped.add(chat)

    def met(self, chat: str) -> None:
        """A message went to `chat`, who is no stranger any more."""
        self._strangers.discard(chat)
