"""Chats that are rate-limited now, and until when: the dispatcher's memory of refusals.

Without it, every look at a long queue would ask the limiter about each row again.
"""

from __future__ import annotations

import math
from collections.abc import Set
from enum import Enum


class HoldScope(Enum):
    """What has to wait: one chat, all people the company does not know, or the whole company."""

    CHAT = "chat"
    STRANGERS = "strangers"
    COMPANY = "company"


class RateHolds:
    """One company's rate-limited chats. Times are seconds of trio's clock."""

    def __init__(self) -> None:
        self._company = 0.0
        self._strangers = 0.0
        self._chats: dict[str, float] = {}

    def __bool__(self) -> bool:
        return self.until < math.inf

    def add(self, scope: HoldScope, chat: str, until: float) -> None:
        if scope is HoldScope.COMPANY:
            self._company = until
        elif scope is HoldScope.STRANGERS:
            self._strangers = until
        else:
            self._chats[chat] = until

    def clear(self) -> None:
        """The limits changed: ask again."""
        self._company = self._strangers = 0.0
        self._chats.clear()

    def expire(self, now: float) -> None:
        """Forget the holds that are over at `now`."""
        self._company = self._company if self._company > now else 0.0
        self._strangers = self._strangers if self._strangers > now else 0.0
        self._chats = {chat: until for chat, until in self._chats.items() if until > now}

    @property
    def company(self) -> bool:
        return self._company > 0

    @property
    def strangers(self) -> bool:
        return self._strangers > 0

    @property
    def chats(self) -> Set[str]:
        return self._chats.keys()

    @property
    def until(self) -> float:
        """When the first hold is over; infinity without any."""
        times = [*self._chats.values(), self._company, self._strangers]
        return min((time for time in times if time > 0), default=math.inf)
