"""Handing messages over to WhatsApp: what may go next, and what became of each attempt.

Each company's dispatcher calls it, as `store.port.OutboxHandovers`. What may follow what is in
`rules.delivery`; every change is one transaction with its `outbox.state` event.

**A crash during a hand-over.** WhatsApp's id of a message is known only after the ack, so a lost
attempt leaves a row that is `uncertain`. Receipts name message ids: a receipt resolves an
`uncertain` row only if the attempt's id is known. A receipt for an unknown id *in the same chat*
proves nothing: the phone, or another linked device of the account, may have written there too, and
calling a lost message delivered is the one error that nobody would notice. So ids are made
knowable instead. Each attempt has a secret of 32 random bytes (`Handover.secret`); sent along as
`messageContextInfo.messageSecret`, it is stored by whatsmeow together with the message id *before*
the frame goes out (`send.go`: PutMessageSecret). After a crash, whoever can read the session's
database looks the secret up: found, it tells the id (`identify`, `mark_uncertain(message_id=...)`);
absent, the attempt never got that far (`requeue_unsent`, `postpone`).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Sequence

from whatsappd.errors import UnknownMessage, WrongState
from whatsappd.model.message import OutboxState, Row
from whatsappd.rules.delivery import TOO_LATE, Cause
from whatsappd.store.outbox_counts import OutboxCounts
from whatsappd.store.port import Handover
from whatsappd.store.sqlite import outbox_reads, outbox_rows
from whatsappd.store.sqlite.database import Database
from whatsappd.store.sqlite.outbox_writes import OutboxWrites


class SqliteHandovers:
    def __init__(
        self,
        database: Database,
        writes: OutboxWrites,
        counts: OutboxCounts,
        clock: Callable[[], int],
        boot: str | None,
    ) -> None:
        self._boot = boot
        self._database = database
        self._writes = writes
        self._counts = counts
        self._clock = clock

    # --- what may go --------------------------------------------------------------------------

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
        # The dispatcher looks after every change, and nearly always this is the answer.
        if not self._counts.has(company, OutboxState.QUEUED):
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

    async def next_due_ms(self, company: str, looked_ms: int) -> int | None:
        if not self._counts.has(company, OutboxState.QUEUED):
            return None
        return await self._database.read(
            lambda conn: outbox_reads.next_due_ms(conn, company, looked_ms)
        )

    def version(self, company: str) -> int:
        return self._counts.version(company)

    async def wait_changed(self, company: str, version: int) -> int:
        return await self._counts.wait_changed(company, version)

    def replies(self, company: str) -> int:
        return self._counts.replies(company)

    async def readdress(self, company: str, address: str, account: str) -> Sequence[Row]:
        return await self._database.write(
            lambda conn: self._writes.readdress(conn, company, address, account)
        )

    # --- attempts -----------------------------------------------------------------------------

    async def begin(self, row_id: str) -> Handover:
        handover = await self._database.write(lambda conn: self._begin(conn, row_id))
        if handover is None:
            raise WrongState(f"message {row_id}: {TOO_LATE}", state=str(OutboxState.EXPIRED))
        return handover

    def _begin(self, conn: sqlite3.Connection, row_id: str) -> Handover | None:
        """Returns None if its time to live has passed."""
        row = outbox_rows.get(conn, row_id)
        now = self._clock()
        if row.expires_ms is not None and row.expires_ms <= now:
            self._writes.move(conn, row, Cause.EXPIRED, reason=TOO_LATE)
            return None
        secret = os.urandom(32)
        row = self._writes.move(conn, row, Cause.BEGUN, attempts=row.attempts + 1, handed_ms=now)
        outbox_rows.put_attempt(conn, row, secret, self._boot)
        return Handover(row, secret, of_this_boot=True)

    async def acknowledge(self, row_id: str, message_id: str, sent_ms: int) -> Row:
        return await self._database.write(
            lambda conn: self._acknowledge(conn, row_id, message_id, sent_ms)
        )

    async def acknowledge_and_begin(
        self, row_id: str, message_id: str, sent_ms: int, following: str
    ) -> tuple[Row, Handover | None]:
        def write(conn: sqlite3.Connection) -> tuple[Row, Handover | None]:
            row = self._acknowledge(conn, row_id, message_id, sent_ms)
            try:
                return row, self._begin(conn, following)
            except (WrongState, UnknownMessage):
                return row, None  # raised before anything of it was changed

        return await self._database.write(write)

    def _acknowledge(
        self, conn: sqlite3.Connection, row_id: str, message_id: str, sent_ms: int
    ) -> Row:
        return self._writes.acknowledge(conn, outbox_rows.get(conn, row_id), message_id, sent_ms)

    async def fail(self, row_id: str, reason: str) -> Row:
        return await self._move(row_id, Cause.REFUSED, reason)

    async def postpone(self, row_id: str, reason: str, not_before_ms: int) -> Row:
        return await self._move(row_id, Cause.POSTPONED, reason, not_before_ms)

    async def mark_uncertain(
        self, row_id: str, reason: str, *, message_id: str | None = None, not_before_ms: int = 0
    ) -> Row:
        return await self._database.write(
            lambda conn: self._writes.lose(
                conn, outbox_rows.get(conn, row_id), reason, message_id, not_before_ms
            )
        )

    async def mark_untraceable(self, row_id: str, reason: str) -> Row:
        def write(conn: sqlite3.Connection) -> Row:
            row = outbox_rows.get(conn, row_id)
            outbox_rows.put_attempt(conn, row, None, None)
            if row.state is not OutboxState.SENDING:
                return row
            return self._writes.lose(conn, row, reason)

        return await self._database.write(write)

    async def requeue_unsent(self, row_id: str, reason: str) -> Row:
        return await self._move(row_id, Cause.NEVER_SENT, reason)

    async def identify(self, row_id: str, message_id: str) -> Row:
        return await self._database.write(
            lambda conn: self._writes.identify(conn, outbox_rows.get(conn, row_id), message_id)
        )

    async def interrupted(self, company: str | None = None) -> Sequence[Handover]:
        found = await self._database.read(lambda conn: outbox_reads.interrupted(conn, company))
        return [
            Handover(row, secret, of_this_boot=boot is not None and boot == self._boot)
            for row, secret, boot in found
        ]

    async def _move(
        self, row_id: str, cause: Cause, reason: str | None, not_before_ms: int = 0
    ) -> Row:
        return await self._database.write(
            lambda conn: self._writes.move(
                conn,
                outbox_rows.get(conn, row_id),
                cause,
                reason=reason,
                not_before_ms=not_before_ms,
            )
        )
