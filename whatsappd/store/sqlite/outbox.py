"""The outbox: every accepted message, durable before the sender has its answer.

The API accepts into it, each company's dispatcher takes rows from it and tells what became of
them, workers' receipts come in here. What may follow what is in `rules.delivery`; every change is
one transaction with its `outbox.state` event.

**A crash during a hand-over.** WhatsApp's id of a message is known only after the ack, so a lost
attempt leaves a row that is `uncertain`. Receipts name message ids: a receipt resolves an
`uncertain` row only if the attempt's id is known. A receipt for an unknown id *in the same chat*
proves nothing: the phone, or another linked device of the account, may have written there too, and
calling a lost message delivered is the one error that nobody would notice. So ids are made
knowable instead. Each attempt has a secret of 32 random bytes (`Handover.secret`); sent along as
`messageContextInfo.messageSecret`, it is stored by whatsmeow together with the message id *before*
the frame goes out (`send.go`: PutMessageSecret). After a crash, whoever can read the session's
database looks the secret up: found, it tells the id (`identified`, `uncertain(message_id=...)`);
absent, the attempt never got that far (`never_sent`, `passing`).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Sequence, Set
from typing import NamedTuple

from whatsappd.clock import boot_id, now_ms, settled_ms
from whatsappd.errors import InvalidParams, UnknownMessage, WrongState
from whatsappd.model.message import NewMessage, OutboxState, Row
from whatsappd.rules.delivery import RECEIPTS, Cause
from whatsappd.store.outbox_counts import Waiter, Watch
from whatsappd.store.sqlite import aliases, outbox_maintenance, outbox_reads, outbox_rows
from whatsappd.store.sqlite.database import Database
from whatsappd.store.sqlite.events import EventLog
from whatsappd.store.sqlite.outbox_maintenance import TOO_LATE
from whatsappd.store.sqlite.outbox_writes import Ledger
from whatsappd.store.sqlite.slices import in_slices
from whatsappd.store.sqlite.stored_bytes import StoredBytes

#: What `resolve` may decide.
DECISIONS = {
    "sent": Cause.DECIDED_SENT,
    "resend": Cause.DECIDED_RESEND,
    "failed": Cause.DECIDED_FAILED,
}


class Handover(NamedTuple):
    """One attempt: the row, and the secret that identifies the attempt afterwards.

    `of_this_boot`: the host did not go down since, as far as is known.
    """

    row: Row
    secret: bytes
    of_this_boot: bool


class Outbox:
    """Made by `open_outbox`, once per database.

    Methods that change a row raise UnknownMessage, WrongState (the table does not allow it from
    the row's state) and StoreFailed, and return the row as it is then, durably.
    """

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        watch: Watch,
        clock: Callable[[], int],
        stored: StoredBytes,
        boot: str | None,
    ) -> None:
        self.stored = stored
        self._boot = boot
        self._database = database
        self._ledger = ledger
        self._watch = watch
        self._clock = clock

    # --- senders ------------------------------------------------------------------------------

    async def accept(self, new: NewMessage, queue_limit: int) -> tuple[Row, bool]:
        """The row of `new`, durable, and whether it was made just now.

        With a `key`, the same company, key and content (chat and text) give the same row, any
        number of times, for as long as the row is kept; the queue may be full meanwhile.

        Raises:
            KeyConflict: the key was used for other content.
            QueueFull: `queue_limit` rows of the company are queued or being sent, or what it or
                its sender has on disk and never sent is too much (`store.sqlite.stored_bytes`).
            StoreFailed: the disk did not take it. It was not accepted.
        """
        return await self._database.write(lambda conn: self._ledger.accept(conn, new, queue_limit))

    async def cancel(self, row_id: str) -> Row:
        """A queued row will not be sent."""
        return await self._move(row_id, Cause.CANCELLED, reason="cancelled")

    async def resolve(self, row_id: str, decision: str) -> Row:
        """A person decides about an uncertain row: `sent`, `resend` or `failed`.

        Raises:
            InvalidParams: another decision.
        """
        cause = DECISIONS.get(decision)
        if cause is None:
            raise InvalidParams(
                f"decision: {decision!r:.40} is none of {', '.join(DECISIONS)}", field="decision"
            )
        reason = "decided by a person" if cause is Cause.DECIDED_FAILED else None
        return await self._move(row_id, cause, reason=reason)

    # --- the dispatcher -----------------------------------------------------------------------

    async def pending(
        self,
        company: str,
        limit: int,
        *,
        only: Collection[str] | None = None,
        without: Collection[str] = (),
        known_only: bool = False,
        others_first: bool = False,
    ) -> Sequence[Row]:
        """The rows that may be handed over now, oldest first; order is kept per chat.

        Either answers to people who wrote lately, if there are any (see `rules.priority`), or
        others: never both at once.

        Args:
            only: these chats, if given.
            without: chats to leave out.
            known_only: leave out people with whom the company never exchanged a message.
            others_first: answers only if there is nothing else.
        """
        # The dispatcher looks after every change, and nearly always this is the answer.
        if not self._watch.has(company, OutboxState.QUEUED):
            return []
        now = self._clock()
        return await self._database.read(
            lambda conn: outbox_reads.pending(
                conn,
                company,
                limit,
                now,
                only=only,
                without=without,
                known_only=known_only,
                others_first=others_first,
            )
        )

    async def account_of(self, company: str, address: str) -> str:
        """The account that `address` (a JID without a device) means, as far as is known."""
        now = self._clock()
        return await self._database.read(
            lambda conn: aliases.account_of(conn, company, address, now)
        )

    async def addressed(self, company: str, address: str, account: str) -> Sequence[Row]:
        """WhatsApp says that `address` means `account`: open rows go there from now on.

        Returns the rows that this changed.
        """
        return await self._database.write(
            lambda conn: self._ledger.addressed(conn, company, address, account)
        )

    def stage_addressed(
        self, conn: sqlite3.Connection, company: str, address: str, account: str
    ) -> None:
        """`addressed`, in a function given to `Database.write`."""
        self._ledger.addressed(conn, company, address, account)

    def stage_answers(self, conn: sqlite3.Connection, company: str, chats: Collection[str]) -> None:
        """In a function given to `Database.write`: these people wrote, and answers go first."""
        self._ledger.answers(conn, company, chats)

    def replies(self, company: str) -> int:
        """Grows whenever there is one more answer that is queued (see `rules.priority`)."""
        return self._watch.replies(company)

    async def next_due_ms(self, company: str, looked_ms: int) -> int | None:
        """When the next row is due that was postponed beyond `looked_ms` (epoch milliseconds).

        Ask with a time before the look at `pending` that found nothing: what came due since would
        be neither in that look nor in this answer.
        """
        if not self._watch.has(company, OutboxState.QUEUED):
            return None
        return await self._database.read(
            lambda conn: outbox_reads.next_due_ms(conn, company, looked_ms)
        )

    def version(self, company: str) -> int:
        """Grows with every change of the company's rows; see `wait_changed`."""
        return self._watch.version(company)

    async def wait_changed(self, company: str, version: int) -> int:
        """Waits until a row of the company changed since `version`; returns the new version.

        Take the version first, then look at the rows, then wait: no change is missed.
        """
        return await self._watch.wait_changed(company, version)

    async def begin(self, row_id: str) -> Handover:
        """`sending`: call it before the worker gets the row, and hand over only if it returns.

        A row whose time to live has passed becomes `expired` instead, and WrongState is raised.
        """
        handover = await self._database.write(lambda conn: self._begin(conn, row_id))
        if handover is None:
            raise WrongState(f"message {row_id}: {TOO_LATE}", state=str(OutboxState.EXPIRED))
        return handover

    def _begin(self, conn: sqlite3.Connection, row_id: str) -> Handover | None:
        """None: its time to live has passed."""
        row = outbox_rows.get(conn, row_id)
        now = self._clock()
        if row.expires_ms is not None and row.expires_ms <= now:
            self._ledger.move(conn, row, Cause.EXPIRED, reason=TOO_LATE)
            return None
        secret = os.urandom(32)
        row = self._ledger.move(conn, row, Cause.BEGUN, attempts=row.attempts + 1, handed_ms=now)
        conn.execute(
            "UPDATE outbox SET secret = ?, boot_id = ? WHERE id = ?",
            (secret, self._boot, int(row.id, 16)),
        )
        return Handover(row, secret, of_this_boot=True)

    async def acknowledged(self, row_id: str, message_id: str, sent_ms: int) -> Row:
        """WhatsApp's server took it. Receipts that came earlier are applied at once."""
        return await self._database.write(
            lambda conn: self._acknowledged(conn, row_id, message_id, sent_ms)
        )

    async def acknowledged_and_begun(
        self, row_id: str, message_id: str, sent_ms: int, following: str
    ) -> tuple[Row, Handover | None]:
        """`acknowledged`, and `begin` of the row `following`, in one transaction.

        None instead of its attempt: it was cancelled meanwhile, or its time to live has passed.
        """

        def write(conn: sqlite3.Connection) -> tuple[Row, Handover | None]:
            row = self._acknowledged(conn, row_id, message_id, sent_ms)
            try:
                return row, self._begin(conn, following)
            except (WrongState, UnknownMessage):
                return row, None  # raised before anything of it was changed

        return await self._database.write(write)

    def _acknowledged(
        self, conn: sqlite3.Connection, row_id: str, message_id: str, sent_ms: int
    ) -> Row:
        return self._ledger.acknowledged(conn, outbox_rows.get(conn, row_id), message_id, sent_ms)

    async def failed(self, row_id: str, reason: str) -> Row:
        """It will never be sent: refused for good."""
        return await self._move(row_id, Cause.REFUSED, reason=reason)

    async def passing(self, row_id: str, reason: str, not_before_ms: int) -> Row:
        """It was certainly not sent, and is queued again for `not_before_ms`."""
        return await self._move(row_id, Cause.POSTPONED, reason=reason, not_before_ms=not_before_ms)

    async def uncertain(
        self, row_id: str, reason: str, *, message_id: str | None = None, not_before_ms: int = 0
    ) -> Row:
        """Nobody knows whether it was sent. If the sender chose `resend`, it is queued again.

        Args:
            message_id: WhatsApp's id of the attempt, if it is known: receipts then resolve it.
            not_before_ms: when a resend may be tried.
        """
        return await self._database.write(
            lambda conn: self._ledger.lost(
                conn, outbox_rows.get(conn, row_id), reason, message_id, not_before_ms
            )
        )

    async def untraceable(self, row_id: str, reason: str) -> Row:
        """What could have told the attempt's fate is gone: nobody will ask for it again."""

        def write(conn: sqlite3.Connection) -> Row:
            row = outbox_rows.get(conn, row_id)
            conn.execute("UPDATE outbox SET secret = NULL WHERE id = ?", (int(row.id, 16),))
            if row.state is not OutboxState.SENDING:
                return row
            return self._ledger.lost(conn, row, reason)

        return await self._database.write(write)

    async def never_sent(self, row_id: str, reason: str) -> Row:
        """Proof turned up that an uncertain row was not sent: it is queued again."""
        return await self._move(row_id, Cause.NEVER_SENT, reason=reason)

    async def identified(self, row_id: str, message_id: str) -> Row:
        """WhatsApp's id of an attempt became known without an ack."""
        return await self._database.write(
            lambda conn: self._ledger.identified(conn, outbox_rows.get(conn, row_id), message_id)
        )

    async def receipt(
        self, company: str, message_ids: Sequence[str], kind: str, time_ms: int
    ) -> Sequence[Row]:
        """A receipt (`delivered`, `read` or `played`) for some of the company's messages.

        Returns the rows it changed. A row never moves back. Ids that no row knows are kept for
        EARLY_RECEIPT_MS, for an ack that is still to come. In a group, the first member's receipt
        counts.

        Raises:
            InvalidParams: another kind.
        """
        return await self._database.write(
            lambda conn: self.stage_receipt(conn, company, message_ids, kind, time_ms)
        )

    def stage_receipt(
        self,
        conn: sqlite3.Connection,
        company: str,
        message_ids: Sequence[str],
        kind: str,
        time_ms: int,
    ) -> Sequence[Row]:
        """`receipt`, in a function given to `Database.write`."""
        if kind not in RECEIPTS:
            raise InvalidParams(
                f"kind: {kind!r:.40} is none of {', '.join(RECEIPTS)}", field="kind"
            )
        cause = Cause(kind)
        changed = [
            self._ledger.receipt(conn, company, message_id, cause, time_ms)
            for message_id in message_ids
        ]
        return [row for row in changed if row is not None]

    async def asked_again(
        self, company: str, message_id: str, chat: str, device: str, wait_ms: int
    ) -> Row | None:
        """A device could not read a message, and WhatsApp's library has forgotten it.

        Args:
            chat: of the receipt that says so.
            device: whose receipt it is, a JID.
            wait_ms: before it is sent anew, if it is.

        Returns the row as it is then; None if no row was sent to that chat under that id.
        """
        return await self._database.write(
            lambda conn: self._ledger.asked_again(conn, company, message_id, chat, device, wait_ms)
        )

    def stage_asked_again(
        self,
        conn: sqlite3.Connection,
        company: str,
        message_id: str,
        chat: str,
        device: str,
        wait_ms: int,
    ) -> None:
        """`asked_again`, in a function given to `Database.write`."""
        self._ledger.asked_again(conn, company, message_id, chat, device, wait_ms)

    # --- start, time --------------------------------------------------------------------------

    async def interrupted(self, company: str | None = None) -> Sequence[Handover]:
        """The rows that are `sending` or `uncertain` without a known id, with their attempts'
        secrets: whom to look up in the session's database after a crash."""

        found = await self._database.read(lambda conn: outbox_reads.interrupted(conn, company))
        return [
            Handover(row, secret, of_this_boot=boot is not None and boot == self._boot)
            for row, secret, boot in found
        ]

    async def recover(
        self, reason: str = "the daemon ended while it was being sent"
    ) -> Sequence[Row]:
        """At start, when no worker runs: every row that is still `sending` has lost its attempt.

        Returns them as they are now: `uncertain`, or `queued` where the sender chose `resend`.
        """

        done: list[Row] = []
        while found := await self._database.write(
            lambda conn: outbox_maintenance.recover_step(conn, self._ledger, reason)
        ):
            done += found
        return done

    async def expire(self, now: int) -> int:
        """Ends the queued rows whose time passed at `now` (epoch milliseconds); how many."""
        return await in_slices(self._database, outbox_maintenance.expire(self._ledger, now))

    async def cancel_queued(self, company: str, reason: str) -> int:
        """Cancels all that the company has queued; returns how many."""
        return await in_slices(
            self._database, outbox_maintenance.cancel(self._ledger, company, reason)
        )

    async def shift(self, by_ms: int) -> None:
        """The clock was set by so much: what waits in the queue expires, and is due, as before.

        Raises:
            StoreFailed: nothing was changed.
        """
        await self._database.write(lambda conn: outbox_maintenance.shift(conn, by_ms))

    async def retain(self, max_age_ms: int) -> int:
        """Deletes finished rows (and receipts without a row) that nothing changed for so long.

        Their keys are forgotten with them. Returns how many rows went. Takes its time: see
        `store.sqlite.slices`.
        """
        now = self._clock()
        gone = await in_slices(
            self._database, outbox_maintenance.retain(self._ledger, now - max_age_ms)
        )
        await in_slices(
            self._database,
            outbox_maintenance.forget_receipts(now - outbox_maintenance.EARLY_RECEIPT_MS),
        )
        return gone

    async def erase(self, company: str) -> int:
        """Deletes all rows of a company that is being removed, whatever their state; how many.

        No event tells of it. Whoever waits for one is given the row as it last was.
        """
        return await in_slices(self._database, outbox_maintenance.erase(self._ledger, company))

    def forget(self, company: str) -> None:
        """The company was removed, and its rows are erased: its figures begin anew."""
        self._watch.forget(company)

    # --- looking ------------------------------------------------------------------------------

    async def get(self, row_id: str) -> Row:
        return await self._database.read(lambda conn: outbox_rows.get(conn, row_id))

    async def list_rows(
        self,
        company: str | None = None,
        states: Collection[OutboxState] | None = None,
        *,
        before: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Sequence[Row]:
        """Rows, newest first; with `after`, oldest first. Page with the last row's id.

        Takes milliseconds, whatever is asked for and however many rows there are.

        Raises:
            TimedOut: see `Database.query`.
        """
        before_id = None if before is None else outbox_rows.id_as_number(before)
        after_id = None if after is None else outbox_rows.id_as_number(after)
        among = None
        if company is not None or states is not None:
            among = self._watch.existing(company, states)
        return await self._database.query(
            lambda conn: outbox_reads.list_rows(conn, among, before_id, after_id, limit)
        )

    async def wait(self, row_id: str, states: Collection[OutboxState]) -> Row:
        """The row, as soon as it is in one of `states`, or can no longer get there.

        Being cancelled changes nothing about the row. A row that retention deletes meanwhile is
        returned as it last was.
        """
        waiter = Waiter(states)
        # First listen, then look: no change falls between.
        self._watch.subscribe(row_id, waiter)
        try:
            waiter.see(await self.get(row_id))
            return await waiter.result()
        finally:
            self._watch.unsubscribe(row_id, waiter)

    def counts(self, company: str) -> dict[OutboxState, int]:
        """The company's rows by state, from memory; states without any are left out."""
        return self._watch.counts(company)

    def accepted(self, company: str) -> int:
        """Rows accepted since the daemon started."""
        return self._watch.accepted(company)

    def entered(self, company: str) -> dict[OutboxState, int]:
        """How often one of the company's rows came into a state since the daemon started.

        A row that is postponed comes into `queued` and `sending` again.
        """
        return self._watch.entered(company)

    def companies(self) -> list[str]:
        """The companies that have rows, from memory."""
        return self._watch.companies()

    async def oldest_queued_ms(self, company: str) -> int | None:
        """When the row at the head of the queue was accepted; None: nothing is queued."""
        return await self._database.read(lambda conn: outbox_reads.oldest_queued_ms(conn, company))

    async def oldest_queued(self) -> dict[str, int]:
        """`oldest_queued_ms` of every company that has something queued."""
        companies = [c for c in self._watch.companies() if OutboxState.QUEUED in self.counts(c)]
        if not companies:
            return {}
        found = await self._database.read(
            lambda conn: {c: outbox_reads.oldest_queued_ms(conn, c) for c in companies}
        )
        return {company: time_ms for company, time_ms in found.items() if time_ms is not None}

    async def cold_times(self, company: str, since_ms: int, limit: int) -> Sequence[int]:
        """When rows were handed to WhatsApp since then that were a first message to somebody.

        The newest `limit` of them.
        """
        return await self._database.read(
            lambda conn: outbox_reads.cold_times(conn, company, since_ms, limit)
        )

    async def find(self, new: NewMessage) -> Row | None:
        """The row that `accept` made of the same key before; None if there is none.

        Raises:
            KeyConflict: it was made of other content.
        """
        return await self._database.read(lambda conn: self._ledger.find(conn, new))

    async def still_queued(self, row_ids: Collection[str]) -> Set[str]:
        """Those of the rows that are queued, and whose time has not passed."""
        now = self._clock()
        return await self._database.read(lambda conn: outbox_reads.still_queued(conn, row_ids, now))

    async def wait_confirmed(self, company: str, since_ms: int) -> None:
        """Wait until every message that was handed to WhatsApp since then has a receipt."""
        while True:
            version = self.version(company)
            if not await self._database.read(
                lambda conn: outbox_reads.unconfirmed(conn, company, since_ms)
            ):
                return
            await self.wait_changed(company, version)

    async def sent_times(self, company: str, since_ms: int) -> Sequence[tuple[str, int]]:
        """(chat, time) of the rows handed to WhatsApp since then: a limiter's memory.

        Of a row that was tried several times, the last attempt.
        """
        return await self._database.read(
            lambda conn: outbox_reads.sent_times(conn, company, since_ms)
        )

    # ------------------------------------------------------------------------------------------

    async def _move(
        self, row_id: str, cause: Cause, *, reason: str | None, not_before_ms: int = 0
    ) -> Row:
        return await self._database.write(
            lambda conn: self._ledger.move(
                conn,
                outbox_rows.get(conn, row_id),
                cause,
                reason=reason,
                not_before_ms=not_before_ms,
            )
        )


async def open_outbox(
    database: Database,
    log: EventLog,
    *,
    clock: Callable[[], int] | None = None,
    boot: str | None = None,
) -> Outbox:
    """The outbox of `database`. Call it once per database, after `open_event_log`.

    Args:
        clock: epoch milliseconds. Without one, rows tell people the wall clock's time, and what
            is decided goes by `settled_ms`.
        boot: names the boot of the host; without one, `clock.boot_id` does.
    """
    loaded = await database.read(outbox_reads.load)
    watch = Watch(loaded.counts)
    waiting = {
        company: counts[OutboxState.QUEUED] + counts[OutboxState.SENDING]
        for company, counts in loaded.counts.items()
    }
    stored = StoredBytes()
    await database.read(lambda conn: stored.load(conn, loaded.counts))
    ledger = Ledger(
        log,
        clock=clock or now_ms,
        last_id=loaded.last_id,
        waiting=waiting,
        publish=watch.publish,
        stored=stored,
    )
    database.attach(ledger)
    return Outbox(database, ledger, watch, clock or settled_ms, stored, boot or boot_id())
