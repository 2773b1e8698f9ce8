"""Decides whether a message may be sent now or has to wait: rate limits and the outreach guard.

A first message to a stranger has limits of its own, and waits while first messages are paused
(`rules.outreach_pause`). The dispatcher asks before each message and waits as told; `message.send`
with `no_queue` asks before it accepts. The limiter counts, and may be shared with other daemons.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Set
from typing import Any, NamedTuple

import structlog
import trio

from whatsappd.clock import settled_ms
from whatsappd.errors import StoreFailed
from whatsappd.limits.port import Limiter, LimitKey
from whatsappd.limits.settings import SendLimits
from whatsappd.model.durations import DAY_MS, HOUR_MS, MINUTE_MS
from whatsappd.model.event import SESSION_OUTREACH, Draft
from whatsappd.model.jid import LID_SERVER, USER_SERVER, parse_jid
from whatsappd.model.message import Row
from whatsappd.rules.outreach_pause import OutreachPause
from whatsappd.sessions.rate_holds import HoldScope
from whatsappd.store.port import DaemonStore

log = structlog.get_logger()

#: Waits are lengthened by up to this share, so that companies (and daemons that share a Redis) do
#: not all wake at once.
JITTER = 0.1

#: Why first messages wait after a 463.
PAUSED = "WhatsApp restricts writing to strangers (463): first messages are paused"

_PAUSE = "outreach_pause"


class PacingVerdict(NamedTuple):
    """Whether a message may be sent.

    Attributes:
        wait_ms: how long to wait before asking again; 0 if it may be sent now.
        reason: why it has to wait, for people.
        scope: what else has to wait for the same reason.
    """

    wait_ms: int
    reason: str = ""
    scope: HoldScope = HoldScope.CHAT


GO = PacingVerdict(0)


class PacingParts(NamedTuple):
    """The parts that all companies' `Pacing` objects share."""

    limiter: Limiter
    store: DaemonStore
    defaults: Callable[[], SendLimits]  # they may change while the daemon runs


class Pacing:
    """The limits of one company. Call `load` before anything else."""

    def __init__(self, company: str, shared: PacingParts) -> None:
        self.company = company
        self._shared = shared
        self._settings: dict[str, Any] = {}
        self._pause = OutreachPause()
        # Ids of rows that were counted before they were accepted, by chat, the oldest first. Behind
        # them, None for each that is yet to be accepted.
        self._prepaid: dict[str, list[str | None]] = {}
        self._version = 0
        self._changed = trio.Event()

    @property
    def limits(self) -> SendLimits:
        return self._shared.defaults().changed(self._settings)

    @property
    def paused_until_ms(self) -> int | None:
        """Until when first messages to strangers are paused; None if they are not."""
        return self._pause.until_ms if self._pause.is_on(settled_ms()) else None

    @property
    def version(self) -> int:
        """Grows whenever `check` or `admit` may answer otherwise than before."""
        return self._version

    async def wait_changed(self, version: int) -> None:
        """Wait until `version` is no longer what it was."""
        while self._version == version:
            await self._changed.wait()

    async def shift(self, by_ms: int) -> None:
        """Move the end of a pause by as much as the clock was set, so that it lasts as long.

        Raises:
            StoreFailed: it was moved, but not stored: a restarted daemon has the old time.
        """
        if self._pause.until_ms:
            self._pause = self._pause._replace(until_ms=self._pause.until_ms + by_ms)
            await self._shared.store.companies.put_settings(
                self.company, {_PAUSE: list(self._pause)}
            )

    def touch(self) -> None:
        """Wake those who wait in `wait_changed`, so that they ask again."""
        self._version += 1
        self._changed.set()
        self._changed = trio.Event()

    async def load(self) -> None:
        """Take up the company's settings, and what it sent just before this daemon began."""
        self._settings = await self._shared.store.companies.settings(self.company)
        until_ms, strikes = self._settings.get(_PAUSE, (0, 0))
        self._pause = OutreachPause(until_ms, strikes)
        now = settled_ms()
        for chat, sent_ms in await self._shared.store.outbox.view.sent_times(
            self.company, now - MINUTE_MS
        ):
            for key in self._keys(chat, is_cold=False):
                self._shared.limiter.restore(key, [sent_ms])
        cold_keys = self._cold_keys()
        most = max((key.limit for key in cold_keys), default=0)
        for sent_ms in await self._shared.store.outbox.view.cold_times(
            self.company, now - DAY_MS, most
        ):
            for key in cold_keys:
                if now - sent_ms < key.period_ms:
                    self._shared.limiter.restore(key, [sent_ms])

    async def configure(self, changes: dict[str, int | None]) -> SendLimits:
        """Change limits, durably; None gives a limit its default again.

        Raises:
            StoreFailed: nothing was changed.
        """

        def take(settings: dict[str, Any]) -> None:
            self._settings = settings  # its limits: a pause may have begun that is not stored yet
            self.touch()

        await self._shared.store.companies.put_settings(self.company, changes, take)
        return self.limits

    async def strangers(self, chats: Collection[str]) -> set[str]:
        """Those of `chats` that the company never exchanged a message with. Groups never count."""
        people = [chat for chat in chats if parse_jid(chat).server in (USER_SERVER, LID_SERVER)]
        return await self._shared.store.acquaintances.strangers(self.company, people)

    @property
    def prepaid_chats(self) -> Set[str]:
        """Chats with messages that the limits counted before they were accepted (`no_queue`)."""
        return self._prepaid.keys()

    async def prepay(self, chat: str) -> PacingVerdict:
        """Count a message before it is accepted; its row is not counted again when it is sent.

        Afterwards call `accepted` with its row, or `refund` if it was not accepted.
        """
        verdict = await self._count(chat, is_cold=bool(await self.strangers({chat})))
        if verdict.wait_ms == 0:
            self._prepaid.setdefault(chat, []).append(None)
            self.touch()
        return verdict

    def accepted(self, row: Row) -> None:
        """A message that was prepaid was accepted as `row`."""
        passages = self._prepaid.get(row.chat, [])
        if None in passages:  # else the dispatcher was faster
            passages[passages.index(None)] = row.id

    def refund(self, chat: str) -> None:
        """A message that was prepaid was not accepted. The limits go on counting it."""
        passages = self._prepaid.get(chat, [])
        if None in passages:
            passages.remove(None)
            self._keep_passages(chat, passages)

    async def forget_ended(self) -> None:
        """Forget prepaid rows that will not be sent any more.

        Otherwise later rows of the same chat would be sent uncounted in their place.

        Raises:
            StoreFailed: none was forgotten.
        """
        rows = {row for passages in self._prepaid.values() for row in passages if row is not None}
        if not rows:
            return
        ended = rows - await self._shared.store.outbox.view.still_queued(rows)
        for chat, passages in list(self._prepaid.items()):
            self._keep_passages(chat, [row for row in passages if row not in ended])

    def check(self, chat: str, *, is_cold: bool) -> PacingVerdict:
        """What `admit` would answer, as far as this process knows. Counts nothing."""
        if chat in self._prepaid:
            return GO
        now = settled_ms()
        if is_cold and self._pause.is_on(now):
            return self._paused(now)
        keys = self._keys(chat, is_cold=is_cold)
        return self._verdict(self._shared.limiter.check(keys, now), is_cold=is_cold, now=now)

    async def admit(self, chat: str, *, is_cold: bool) -> PacingVerdict:
        """Count one message to `chat` now, or say how long to wait and why."""
        if chat in self._prepaid:
            # Order is kept in a chat, so a row before the prepaid one may take its passage: that
            # one is counted in its turn then.
            self._keep_passages(chat, self._prepaid[chat][1:])
            return GO
        return await self._count(chat, is_cold=is_cold)

    async def _count(self, chat: str, *, is_cold: bool) -> PacingVerdict:
        now = settled_ms()
        if is_cold and self._pause.is_on(now):
            return self._paused(now)
        limiter, keys = self._shared.limiter, self._keys(chat, is_cold=is_cold)
        # What this process knows to be full need not be asked of others.
        wait_ms = limiter.check(keys, now) or await limiter.acquire(keys, now)
        return self._verdict(wait_ms, is_cold=is_cold, now=now)

    def _paused(self, now: int) -> PacingVerdict:
        return PacingVerdict(self._pause.until_ms - now, PAUSED, HoldScope.STRANGERS)

    def _verdict(self, wait_ms: int, *, is_cold: bool, now: int) -> PacingVerdict:
        if wait_ms == 0:
            return GO
        wait_ms += int(wait_ms * JITTER * random.random())
        # Of windows that other daemons filled, this one does not know which: it asks chat by chat.
        if self._shared.limiter.check(self._company_keys(), now):
            return PacingVerdict(wait_ms, "the company's rate limit is reached", HoldScope.COMPANY)
        if is_cold and self._shared.limiter.check(self._cold_keys(), now):
            return PacingVerdict(
                wait_ms, "the limit for first messages is reached", HoldScope.STRANGERS
            )
        return PacingVerdict(wait_ms, "the rate limit is reached", HoldScope.CHAT)

    def _keep_passages(self, chat: str, passages: list[str | None]) -> None:
        if passages:
            self._prepaid[chat] = passages
        else:
            self._prepaid.pop(chat, None)

    async def met(self, chats: Collection[str]) -> None:
        """Record that a message was exchanged with `chats`: they are no strangers any more."""
        try:
            await self._shared.store.acquaintances.add(self.company, chats)
        except StoreFailed as error:
            # They count as strangers a while longer, which costs speed and nothing else.
            log.warning("contacts_not_stored", company=self.company, reason=error.message)

    async def struck(self) -> None:
        """Pause first messages after WhatsApp answered 463, and log an event about it.

        If the store fails, the pause lasts only until the daemon restarts; the log says so.
        """
        self._pause = self._pause.struck(settled_ms())
        log.warning("outreach_paused", company=self.company, until_ms=self._pause.until_ms)
        data = {
            "paused": True,
            "until_ms": self._pause.until_ms,
            "strikes": self._pause.strikes,
            "reason": PAUSED,
        }
        try:
            await self._shared.store.companies.put_settings(
                self.company, {_PAUSE: list(self._pause)}
            )
            await self._shared.store.events.append(Draft(self.company, SESSION_OUTREACH, data))
        except StoreFailed as error:
            log.error("outreach_pause_not_stored", company=self.company, reason=error.message)

    def _keys(self, chat: str, *, is_cold: bool) -> list[LimitKey]:
        keys = self._company_keys()
        keys.append(LimitKey(f"{self.company}/{chat}", self.limits.per_phone_per_minute, MINUTE_MS))
        if is_cold:
            keys += self._cold_keys()
        return _switched_on(keys)

    def _company_keys(self) -> list[LimitKey]:
        return _switched_on([LimitKey(self.company, self.limits.per_minute, MINUTE_MS)])

    def _cold_keys(self) -> list[LimitKey]:
        limits = self.limits
        return _switched_on(
            [
                LimitKey(f"{self.company}//hour", limits.cold_per_hour, HOUR_MS),
                LimitKey(f"{self.company}//day", limits.cold_per_day, DAY_MS),
            ]
        )


def _switched_on(keys: list[LimitKey]) -> list[LimitKey]:
    return [key for key in keys if key.limit > 0]
