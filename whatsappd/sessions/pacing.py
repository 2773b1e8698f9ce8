"""When one company's next message may go: rate limits, and the outreach guard.

The dispatcher asks before each hand-over and waits as told; `message.send` with `no_queue` asks
before it accepts. The windows are the limiter's, which may be shared with other daemons.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import structlog

from whatsappd.clock import now_ms
from whatsappd.errors import StoreFailed
from whatsappd.limits.port import Limiter, LimitKey
from whatsappd.model.event import SESSION_OUTREACH, Draft
from whatsappd.model.jid import LID_SERVER, USER_SERVER, parse_jid
from whatsappd.rules.outreach import DAY_MS, HOUR_MS, MINUTE_MS, Pause, SendLimits
from whatsappd.store.companies import Companies
from whatsappd.store.contacts import Contacts
from whatsappd.store.events import EventLog
from whatsappd.store.outbox import Outbox

log = structlog.get_logger()

#: Waits are lengthened by up to this share, so that companies (and daemons that share a Redis) do
#: not all wake at once.
JITTER = 0.1

_PAUSE = "outreach_pause"


class Verdict(NamedTuple):
    """Wait `wait_ms` (0: go) because of `reason`."""

    wait_ms: int
    reason: str | None = None


class Shared(NamedTuple):
    """What all companies' pacing works with."""

    limiter: Limiter
    companies: Companies
    contacts: Contacts
    events: EventLog
    outbox: Outbox
    defaults: Callable[[], SendLimits]  # they may change while the daemon runs


class Pacing:
    """One company's. `load` must have run."""

    def __init__(self, company: str, shared: Shared) -> None:
        self.company = company
        self._shared = shared
        self._settings: dict[str, Any] = {}
        self._pause = Pause()
        self._prepaid: Counter[str] = Counter()  # by chat: counted before they were accepted

    @property
    def limits(self) -> SendLimits:
        return self._shared.defaults().changed(self._settings)

    @property
    def paused_until_ms(self) -> int | None:
        """Until when no first message goes out; None while they may."""
        return self._pause.until_ms if self._pause.is_on(now_ms()) else None

    async def load(self) -> None:
        """Take up the company's settings, and what it sent just before this daemon began."""
        self._take(await self._shared.companies.settings(self.company))
        now = now_ms()
        for chat, sent_ms in await self._shared.outbox.sent_times(self.company, now - MINUTE_MS):
            for key in self._keys(chat, is_cold=False):
                self._shared.limiter.restore(key, [sent_ms])

    async def configure(self, changes: dict[str, int | None]) -> SendLimits:
        """Change limits, durably; None gives a limit its default again.

        Raises:
            StoreFailed: nothing was changed.
        """
        self._take(await self._shared.companies.put_settings(self.company, changes))
        return self.limits

    def _take(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        until_ms, strikes = settings.get(_PAUSE, (0, 0))
        self._pause = Pause(until_ms, strikes)

    async def strangers(self, chats: Collection[str]) -> set[str]:
        """Those of `chats` whom a first message would be outreach. Groups never are."""
        people = [chat for chat in chats if parse_jid(chat).server in (USER_SERVER, LID_SERVER)]
        return await self._shared.contacts.strangers(self.company, people)

    async def prepay(self, chat: str) -> Verdict:
        """`admit` a message that is yet to be accepted: its row will pass without counting again.

        Should it not be accepted after all, call `refund`.
        """
        verdict = await self.admit(chat, is_cold=bool(await self.strangers({chat})))
        if verdict.wait_ms == 0:
            self._prepaid[chat] += 1
        return verdict

    def refund(self, chat: str) -> None:
        """Take back the passage of `prepay`; what was counted stays counted."""
        self._prepaid[chat] -= 1

    async def admit(self, chat: str, *, is_cold: bool) -> Verdict:
        """Count one message to `chat` now, or say how long to wait and why."""
        if self._prepaid[chat] > 0:
            self._prepaid[chat] -= 1
            return Verdict(0)
        now = now_ms()
        if is_cold and self._pause.is_on(now):
            return Verdict(
                self._pause.until_ms - now,
                "WhatsApp restricts writing to strangers (463): first messages are paused",
            )
        wait_ms = await self._shared.limiter.acquire(self._keys(chat, is_cold=is_cold), now)
        if wait_ms == 0:
            return Verdict(0)
        wait_ms += int(wait_ms * JITTER * random.random())
        kind = "the limit for first messages" if is_cold else "the rate limit"
        return Verdict(wait_ms, f"{kind} is reached")

    async def met(self, chats: Collection[str]) -> None:
        """A message was exchanged with these: they are strangers no longer."""
        try:
            await self._shared.contacts.add(self.company, chats)
        except StoreFailed as error:
            # They count as strangers a while longer, which costs speed and nothing else.
            log.warning("contacts_not_stored", company=self.company, reason=error.message)

    async def struck(self) -> None:
        """WhatsApp answered 463: pause first messages, and say so."""
        self._pause = self._pause.struck(now_ms())
        log.warning("outreach_paused", company=self.company, until_ms=self._pause.until_ms)
        data = {"paused": True, "until_ms": self._pause.until_ms, "strikes": self._pause.strikes}
        try:
            await self._shared.companies.put_settings(self.company, {_PAUSE: list(self._pause)})
            await self._shared.events.append(Draft(self.company, SESSION_OUTREACH, data))
        except StoreFailed as error:
            log.error("outreach_pause_not_stored", company=self.company, reason=error.message)

    def _keys(self, chat: str, *, is_cold: bool) -> list[LimitKey]:
        limits = self.limits
        keys = [
            LimitKey(self.company, limits.per_minute, MINUTE_MS),
            LimitKey(f"{self.company}/{chat}", limits.per_phone_per_minute, MINUTE_MS),
        ]
        if is_cold:
            keys.append(LimitKey(f"{self.company}//hour", limits.cold_per_hour, HOUR_MS))
            keys.append(LimitKey(f"{self.company}//day", limits.cold_per_day, DAY_MS))
        return [key for key in keys if key.limit > 0]
