"""One company's messages on their way from the outbox to its worker, in order.

A row is `sending`, durably, before the worker gets it; what became of it is recorded before the
next one is begun. While a hand-over runs it is shielded: cancelling it would only lose the answer.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import structlog
import trio

from whatsappd.clock import now_ms
from whatsappd.errors import (
    StoreFailed,
    TimedOut,
    UnknownMessage,
    WorkerFailed,
    WorkerGone,
    WrongState,
)
from whatsappd.model.jid import USER_SERVER, parse_jid
from whatsappd.model.message import Row
from whatsappd.model.session import SessionState
from whatsappd.rules.send_errors import REACHOUT_TIMELOCK, Fate, classify
from whatsappd.sessions.handover import settle_refusal
from whatsappd.sessions.pacing import Pacing
from whatsappd.sessions.session import Session
from whatsappd.sessions.settings import SessionSettings
from whatsappd.store.outbox import Handover, Outbox
from whatsappd.wire.worker import WorkerMethod

log = structlog.get_logger()

#: Rows looked up at a time. Order is per chat, so a postponed row ends its chat's turn only.
BATCH = 50
#: So many chats that have to wait mean that the company as a whole has to.
BLOCKED_CHATS = 3


class Dispatcher:
    """Runs beside its session, and hands over whenever that is connected."""

    def __init__(
        self, session: Session, outbox: Outbox, pacing: Pacing, settings: SessionSettings
    ) -> None:
        self._session = session
        self._pacing = pacing
        self._company = session.company
        self._outbox = outbox
        self._settings = settings
        self._log = log.bind(company=session.company)

    async def run(self) -> None:
        """Send what is queued until cancelled."""
        while True:
            if self._session.state is not SessionState.CONNECTED:
                await self._session.wait_changed()
                continue
            try:
                await self._send_what_is_due()
            except StoreFailed as error:
                self._log.error("dispatcher_waits_for_store", reason=error.message)
                await trio.sleep(self._settings.retry_store_s)

    async def _send_what_is_due(self) -> None:
        version = self._outbox.version(self._company)
        rows = await self._outbox.pending(self._company, BATCH)
        if not rows:
            await self._wait_for_work(version)
            return
        strangers = await self._pacing.strangers({row.chat for row in rows})
        # Chats whose turn is over for this round, and when the first of them may go on.
        postponed: set[str] = set()
        wait_ms: int | None = None
        for row in rows:
            if self._session.state is not SessionState.CONNECTED:
                return
            if row.chat in postponed:
                continue
            is_cold = row.chat in strangers
            if is_cold and not await self._exists(row):
                postponed.add(row.chat)
                continue
            verdict = await self._pacing.admit(row.chat, is_cold=is_cold)
            if verdict.wait_ms:
                postponed.add(row.chat)
                wait_ms = min(verdict.wait_ms, wait_ms or verdict.wait_ms)
                if len(postponed) >= BLOCKED_CHATS:
                    break
            elif await self._send(row):
                strangers.discard(row.chat)
            else:
                postponed.add(row.chat)
        if wait_ms is not None:
            began = trio.current_time()
            with trio.move_on_after(wait_ms / 1000):
                await self._outbox.wait_changed(self._company, self._outbox.version(self._company))
            self._session.counters.limiter_waits += 1
            self._session.counters.limiter_wait_s += trio.current_time() - began

    async def _exists(self, row: Row) -> bool:
        """Whether a stranger's number is on WhatsApp; if not, its row has failed.

        Writing to numbers that do not exist is what gets accounts banned first.
        """
        jid = parse_jid(row.chat)
        if jid.server != USER_SERVER:
            return True
        try:
            worker = self._session.connected_worker("looking a number up")
            with trio.move_on_after(self._settings.look_up_deadline_s):
                answer = await worker.call(WorkerMethod.LOOK_UP, phones=[jid.user])
                if jid.user in answer["on_whatsapp"]:
                    return True
                await self._outbox.failed(row.id, "the number is not on WhatsApp")
                return False
        except (WorkerFailed, WorkerGone, WrongState, UnknownMessage) as error:
            self._log.info("number_not_looked_up", id=row.id, reason=error.message)
        # Nobody said: the send itself will, and is refused where the number does not exist.
        return self._session.state is SessionState.CONNECTED

    async def _wait_for_work(self, version: int) -> None:
        due_ms = await self._outbox.next_due_ms(self._company)
        delay = float("inf") if due_ms is None else max(0, due_ms - now_ms()) / 1000
        with trio.move_on_after(delay):
            await self._outbox.wait_changed(self._company, version)

    async def _send(self, row: Row) -> bool:
        """Hand one row over; whether the next row of its chat may follow."""
        may_go_on = False
        async with self._session.handing_over:
            if self._session.state is not SessionState.CONNECTED:
                return False
            with trio.CancelScope(shield=True) as shield:
                try:
                    handover = await self._outbox.begin(row.id)
                except (WrongState, UnknownMessage):
                    return True  # cancelled or expired since it was looked up
                settle = await self._hand_over(handover)
                may_go_on = await self._record(settle, shield)
        return may_go_on

    async def _hand_over(self, handover: Handover) -> Callable[[], Awaitable[Row | None]]:
        """Let the worker send; what to record then."""
        row, secret = handover
        outbox = self._outbox
        try:
            worker = self._session.connected_worker("sending")
        except WrongState as error:
            reason = error.message
            return lambda: outbox.passing(row.id, reason, 0)
        try:
            answer = await worker.call(
                WorkerMethod.SEND,
                patience_s=self._settings.send_deadline_s,
                to=row.chat,
                text=row.text,
                secret=secret,
            )
        except WorkerFailed as error:
            return await self._refused(handover, error.message)
        except WorkerGone:
            return _leave_to_next_worker
        except TimedOut:
            # whatsmeow itself gives up earlier: this worker answers nothing any more.
            await self._session.replace_hung_worker()
            return _leave_to_next_worker
        return lambda: outbox.acknowledged(row.id, answer["message_id"], answer["timestamp_ms"])

    async def _refused(self, handover: Handover, error: str) -> Callable[[], Awaitable[Row | None]]:
        row, secret = handover
        verdict = classify(error)
        if verdict.code == REACHOUT_TIMELOCK:
            await self._pacing.struck()
            until_ms = self._pacing.paused_until_ms or 0
            return lambda: self._outbox.passing(row.id, verdict.reason, until_ms)
        message_id = await self._session.trace(secret) if verdict.fate is Fate.UNKNOWN else None
        chance = random.random()
        return lambda: settle_refusal(
            self._outbox, row, verdict, message_id=message_id, chance=chance
        )

    async def _record(
        self, settle: Callable[[], Awaitable[Row | None]], shield: trio.CancelScope
    ) -> bool:
        """Record an outcome, however long the disk refuses it; whether the chat may go on.

        If the daemon ends before the disk takes it, the next one finds it out (see `sessions.
        attempts`); so the first attempt is shielded, and the others need not hold up the end.
        """
        complained = False
        while True:
            try:
                row = await settle()
            except StoreFailed as error:
                if not complained:
                    self._log.error("outcome_waits_for_store", reason=error.message)
                complained = True
                shield.shield = False
                await trio.sleep(self._settings.retry_store_s)
                continue
            if row is None:
                return False
            if row.sent_ms is not None:
                await self._pacing.met([row.chat])
            self._log.debug("handed_over", id=row.id, state=str(row.state))
            return row.not_before_ms <= now_ms()


async def _leave_to_next_worker() -> None:
    """The row stays `sending`: the next worker asks the account's database what became of it."""
