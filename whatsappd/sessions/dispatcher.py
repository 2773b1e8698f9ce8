"""One company's messages on their way from the outbox to its worker, in order.

A row is stored as `sending` before the worker gets it. Its outcome is recorded before the next row
is handed over, mostly in the transaction that begins the next one, which saves one write per
message. If the disk is full or fails then, the dispatcher tries to record the outcome until it
succeeds, and sends nothing meanwhile; a daemon that ends before that asks the account's database
at its next start (`handover`). A hand-over is shielded from cancellation, which would only lose its
answer.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import structlog
import trio

from whatsappd.clock import settled_ms
from whatsappd.engines.port import EngineWorker
from whatsappd.engines.protocol import SendFate, SendRefusal
from whatsappd.errors import (
    InvalidParams,
    StoreFailed,
    TimedOut,
    UnknownMessage,
    WorkerFailed,
    WorkerGone,
    WrongState,
)
from whatsappd.model.jid import parse_recipient
from whatsappd.model.message import OutboxState, Row
from whatsappd.rules.delivery import SENT_OR_BEYOND
from whatsappd.rules.reply_priority import REPLIES_IN_A_ROW
from whatsappd.sessions.counters import SessionCounters
from whatsappd.sessions.handover import settle_refusal
from whatsappd.sessions.pacing import Pacing
from whatsappd.sessions.rate_holds import RateHolds
from whatsappd.sessions.sendable_rows import LookUp, SendableRows
from whatsappd.sessions.settings import SessionSettings
from whatsappd.store.port import Handover, Outbox

log = structlog.get_logger()

#: Rows looked up at a time. Order is per chat, so a postponed row ends its chat's turn only.
BATCH = 50
#: After a look through a queue of which nothing may go, a pause this many times as long.
LOOK_PAUSE = 10
#: Looks that take less, in seconds, need no pause.
SHORT_LOOK = 0.05
#: Seconds for which an address that exists is not looked up again, and how many are remembered.
LOOKED_UP_S = 3600.0
LOOKED_UP = 10_000


class _Seen(NamedTuple):
    """How far the changes were seen, and when (epoch milliseconds)."""

    outbox: int
    pacing: int
    time_ms: int


class SendAck(NamedTuple):
    """WhatsApp's server took the row; see `OutboxHandovers.acknowledge`."""

    row_id: str
    message_id: str
    sent_ms: int


#: What to record about a hand-over. None: the next worker will know.
Settle = SendAck | Callable[[], Awaitable[Row | None]]


class SendingSession(Protocol):
    """The part of a session that its dispatcher knows; see `CompanySession`."""

    @property
    def company(self) -> str: ...

    @property
    def counters(self) -> SessionCounters: ...

    @property
    def can_send(self) -> bool: ...

    @property
    def handing_over(self) -> trio.Lock: ...

    async def wait_changed(self) -> None: ...

    def connected_worker(self, purpose: str) -> EngineWorker: ...

    async def trace(self, secret: bytes) -> str | None: ...

    async def replace_worker(self) -> None: ...

    async def replace_hung_worker(self) -> None: ...

    async def replace_stuck_worker(self) -> None: ...


class Dispatcher:
    """Sends what is queued whenever its session is connected. Runs beside it."""

    def __init__(
        self, session: SendingSession, outbox: Outbox, pacing: Pacing, settings: SessionSettings
    ) -> None:
        self._session = session
        self._pacing = pacing
        self._company = session.company
        self._outbox = outbox
        self._settings = settings
        self._log = log.bind(company=session.company)
        self._holds = RateHolds()
        self._seen_pacing = pacing.version
        self._is_handing_over = False
        self._replies_in_a_row = 0
        self._seen_replies = 0  # how many the outbox had marked when the queue was looked at
        self._looked_up: dict[str, float] = {}

    async def run(self) -> None:
        """Send what is queued until cancelled. After an error it may be run again."""
        while True:
            if self._is_handing_over:
                # What we know of that message was lost. The worker may still be sending it, and
                # only its successor can find out.
                log.error("hand_over_cut_off", company=self._company)
                await self._session.replace_worker()
                self._is_handing_over = False
            if not self._session.can_send:
                await self._session.wait_changed()
                continue
            try:
                await self._send_what_is_due()
            except StoreFailed as error:
                self._log.error("dispatcher_waits_for_store", reason=error.message)
                await trio.sleep(self._settings.retry_store_s)

    async def _send_what_is_due(self) -> None:
        """Send some of what may be sent now; wait if nothing may."""
        seen = _Seen(
            self._outbox.handovers.version(self._company), self._pacing.version, settled_ms()
        )
        if seen.pacing != self._seen_pacing:
            self._seen_pacing = seen.pacing
            self._holds.clear()
        began = trio.current_time()
        self._holds.expire(began)
        rows = await self._look()
        if rows:
            await self._send_batch(rows)
            return
        # A long queue of which nothing may go is not looked through at every change.
        looked = trio.current_time() - began
        if self._holds and looked > SHORT_LOOK:
            await trio.sleep(looked * LOOK_PAUSE)
        # Messages sent with no_queue also go while the company is rate-limited.
        is_idle = self._holds.company and not self._pacing.prepaid_chats
        await self._wait_for_turn(None if is_idle else seen)

    async def _look(self) -> Sequence[Row]:
        """The rows that may be sent now, the oldest first.

        Rows that the limits counted before they were accepted (`no_queue`) come before those that
        wait for the limits, and answers come before the rest.
        """
        await self._pacing.forget_ended()
        self._seen_replies = self._outbox.handovers.replies(self._company)
        prepaid = self._pacing.prepaid_chats
        if prepaid:
            rows = await self._outbox.handovers.pending(self._company, BATCH, only=prepaid)
            if rows:
                return rows
        if self._holds.company:
            return []
        is_others_turn = self._replies_in_a_row >= REPLIES_IN_A_ROW
        rows = await self._outbox.handovers.pending(
            self._company,
            1 if is_others_turn else BATCH,
            without=self._holds.chats,
            known_only=self._holds.strangers,
            others_first=is_others_turn,
        )
        if is_others_turn:
            self._replies_in_a_row = 0
        return rows

    def is_overtaken(self) -> bool:
        """Whether other rows than those of the last look are to be sent next."""
        if self._replies_in_a_row:
            return self._replies_in_a_row >= REPLIES_IN_A_ROW
        return self._outbox.handovers.replies(self._company) != self._seen_replies

    async def _send_batch(self, rows: Sequence[Row]) -> None:
        batch = SendableRows(
            rows,
            await self._pacing.strangers({row.chat for row in rows}),
            self._pacing,
            self._holds,
            dispatcher=self,
        )
        while self._session.can_send:
            row = await batch.next()
            if row is None:
                return
            await self._send(row, batch)

    async def _wait_for_turn(self, seen: _Seen | None) -> None:
        """Wait until a row may be sent that could not be sent before.

        Args:
            seen: the state in which the queue was looked at; None if changes of the queue do not
                matter, because the whole company has to wait.
        """
        waiting = bool(self._holds)
        began = trio.current_time()
        until = self._holds.until
        if seen is not None:
            due_ms = await self._outbox.handovers.next_due_ms(self._company, seen.time_ms)
            if due_ms is not None:
                until = min(until, began + max(0, due_ms - settled_ms()) / 1000)
        with trio.CancelScope(deadline=until):
            async with trio.open_nursery() as nursery:

                async def wake_after(wait: Callable[[], Awaitable[object]]) -> None:
                    await wait()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(
                    wake_after, partial(self._pacing.wait_changed, self._seen_pacing)
                )
                if seen is not None:
                    nursery.start_soon(
                        wake_after,
                        partial(self._outbox.handovers.wait_changed, self._company, seen.outbox),
                    )
        if waiting:
            self._session.counters.limiter_waits += 1
            self._session.counters.limiter_wait_s += trio.current_time() - began

    async def look_up(self, row: Row) -> LookUp:
        """Ask WhatsApp whether a stranger's address exists, and which account it belongs to.

        If it does not exist, the row fails without being sent, because accounts that write to
        numbers that do not exist are banned. If it belongs to an account with another address, the
        rows of both addresses become one chat.
        """
        now = trio.current_time()
        if now - self._looked_up.get(row.chat, -LOOKED_UP_S) < LOOKED_UP_S:
            return LookUp.EXISTS
        try:
            worker = self._session.connected_worker("looking a number up")
            with trio.move_on_after(self._settings.look_up_deadline_s):
                answer = await worker.look_up(row.chat)
                account = answer.accounts.get(row.chat)
                if account is None:
                    await self._outbox.handovers.fail(row.id, "this address is not on WhatsApp")
                    return LookUp.ENDED
                # A worker's word is checked: what is no address here would stop the whole queue.
                account = str(parse_recipient(account, field="account"))
                lid = answer.lids.get(row.chat)
                lid = None if lid is None else str(parse_recipient(lid, field="lid"))
                return await self._found(row, account, lid)
        except (WorkerFailed, WorkerGone, WrongState, UnknownMessage, InvalidParams) as error:
            self._log.info("number_not_looked_up", id=row.id, reason=error.message)
        # Nobody said: the send itself will, and is refused where the address does not exist.
        return LookUp.EXISTS if self._session.can_send else LookUp.ENDED

    async def _found(self, row: Row, account: str, lid: str | None) -> LookUp:
        """WhatsApp says that the address of `row` means `account`, whose LID is `lid`."""
        if len(self._looked_up) >= LOOKED_UP:
            self._looked_up.clear()
        self._looked_up[account] = trio.current_time()
        for address in {row.chat, lid} - {account, None}:
            await self._outbox.handovers.readdress(self._company, str(address), account)
        if lid is not None and not await self._pacing.strangers({lid}):
            # The company knows this person by the other identity.
            await self._pacing.met([account])
            return LookUp.MOVED
        return LookUp.EXISTS if account == row.chat else LookUp.MOVED

    async def _send(self, row: Row, batch: SendableRows) -> None:
        """Hand `row` over, and behind it those of the batch that may follow at once."""
        async with self._session.handing_over:
            if not self._session.can_send:
                batch.stop(row.chat)
                return
            with trio.CancelScope(shield=True) as shield:
                try:
                    handover: Handover | None = await self._outbox.handovers.begin(row.id)
                except (WrongState, UnknownMessage):
                    return  # cancelled or expired since it was looked up
                while handover is not None:
                    self._is_handing_over = True
                    chat = handover.row.chat
                    self._count_replies(handover.row)
                    settle = await self._hand_over(handover)
                    following = (
                        await self._following(batch) if isinstance(settle, SendAck) else None
                    )
                    settled, handover = await self._record(settle, following, shield)
                    self._is_handing_over = handover is not None
                    if following is not None and handover is None:
                        batch.stop(following.chat)  # taken out of the batch, and not begun
                    if settled is None or settled.state is OutboxState.QUEUED:
                        batch.stop(chat)  # it goes, or is heard of, before the later ones
                    elif settled.state in SENT_OR_BEYOND:
                        await self._pacing.met([chat])
                        batch.met(chat)

    def _count_replies(self, row: Row) -> None:
        self._replies_in_a_row = self._replies_in_a_row + 1 if row.is_reply else 0

    async def _following(self, batch: SendableRows) -> Row | None:
        """The row to begin in the transaction that records an ack.

        Returns None if no row may go, or if another task waits for the gap between two messages.
        """
        session = self._session
        is_wanted = session.handing_over.statistics().tasks_waiting > 0
        if is_wanted or not session.can_send:
            return None
        try:
            return await batch.next(to_known=True)
        except StoreFailed as error:
            # The ack is what counts now; the next look at the queue meets the same disk.
            self._log.info("next_not_looked_up", reason=error.message)
            return None

    async def _hand_over(self, handover: Handover) -> Settle:
        """Have the worker send a row; returns what to record about it."""
        row, secret, _ = handover
        outbox = self._outbox
        try:
            worker = self._session.connected_worker("sending")
        except WrongState as error:
            reason = error.message
            return lambda: outbox.handovers.postpone(row.id, reason, 0)
        try:
            answer = await worker.send(
                row.chat,
                row.content,
                secret,
                patience_s=self._settings.send_deadline_s,
                slow_s=self._settings.slow_ack_s,
                if_slow=partial(self._until_proved, handover),
            )
        except WorkerGone:
            return _leave_to_next_worker
        except TimedOut:
            # The library itself gives up earlier: this worker answers nothing any more.
            await self._session.replace_hung_worker()
            return _leave_to_next_worker
        if answer is None:
            # The library sends nothing else until it has the ack, or gives it up after 75 s.
            await self._session.replace_stuck_worker()
            return partial(outbox.view.get, row.id)
        if isinstance(answer, SendRefusal):
            return await self._refused(handover, answer)
        return SendAck(row.id, answer.message_id, answer.timestamp_ms)

    async def _until_proved(self, handover: Handover) -> None:
        """Return when a receipt has proved that WhatsApp has the message, and its ack is missing.

        Receipts name message ids, and this one's would come with the ack: so it is looked up. The
        row moves on as soon as there is a receipt.
        """
        pause_s = self._settings.slow_ack_s
        while not await self._is_proved(handover):
            # It is still being prepared, or the disk refuses: nothing tells when that is over.
            await trio.sleep(pause_s)
            pause_s *= 2
        await trio.sleep(self._settings.late_ack_s)

    async def _is_proved(self, handover: Handover) -> bool:
        """Wait for a receipt of an attempt under way; False if its id is not known yet."""
        row, secret, _ = handover
        message_id = await self._session.trace(secret)
        if message_id is None:
            return False
        try:
            await self._outbox.handovers.identify(row.id, message_id)
            settled = await self._outbox.view.wait(row.id, SENT_OR_BEYOND)
        except (StoreFailed, UnknownMessage) as error:
            self._log.info("attempt_not_identified", id=row.id, reason=error.message)
            return False
        self._log.info("ack_missing", id=row.id, state=str(settled.state))
        return True

    async def _refused(self, handover: Handover, refusal: SendRefusal) -> Settle:
        row, secret, _ = handover
        if refusal.fate is SendFate.RESTRICTED:
            await self._pacing.struck()
            until_ms = self._pacing.paused_until_ms or 0
            return lambda: self._outbox.handovers.postpone(row.id, refusal.reason, until_ms)
        message_id = await self._session.trace(secret) if refusal.fate is SendFate.UNKNOWN else None
        chance = random.random()
        return lambda: settle_refusal(
            self._outbox.handovers, row, refusal, message_id=message_id, chance=chance
        )

    async def _record(
        self, settle: Settle, following: Row | None, shield: trio.CancelScope
    ) -> tuple[Row | None, Handover | None]:
        """Record an outcome, and begin the attempt of `following` in the same transaction.

        If the disk refuses the write, this tries again until it succeeds. Only the first try is
        shielded, so the others do not delay the daemon's end: the next daemon finds the outcome out
        (see `handover`). The later tries do not begin `following` either.

        Returns:
            The row as it is then, or None if nothing is known about it; and the attempt that was
            begun, if any.
        """
        complained = False
        while True:
            try:
                row, handover = await self._settle(settle, following)
            except StoreFailed as error:
                if not complained:
                    self._log.error("outcome_waits_for_store", reason=error.message)
                complained = True
                following = None
                shield.shield = False
                await trio.sleep(self._settings.retry_store_s)
                continue
            except (WrongState, UnknownMessage) as error:
                # A receipt of an earlier attempt, or a person, was faster.
                self._log.info("outcome_overtaken", reason=error.message)
                row, handover = None, None
            shield.shield = True
            if row is not None:
                self._log.debug("handed_over", id=row.id, state=str(row.state))
            return row, handover

    async def _settle(
        self, settle: Settle, following: Row | None
    ) -> tuple[Row | None, Handover | None]:
        if not isinstance(settle, SendAck):
            return await settle(), None
        if following is None:
            return await self._outbox.handovers.acknowledge(*settle), None
        return await self._outbox.handovers.acknowledge_and_begin(*settle, following.id)


async def _leave_to_next_worker() -> None:
    """The row stays `sending`: the next worker asks the account's database what became of it."""
