"""The outbox in the writer thread: each change of a row by the table, with its event.

The outbox's parts and `store.sqlite.inbound` call it inside functions given to `Database.write`. A
change, its event and the counts that follow from it are one transaction.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

from whatsappd.model.message import NewMessage, OnUncertain, OutboxState, Row
from whatsappd.rules.delivery import (
    OPEN,
    RECEIPTS,
    SENT_OR_BEYOND,
    Cause,
    advances,
    moved,
    receipt_cause,
)
from whatsappd.rules.reply_priority import is_reply_to
from whatsappd.rules.retry_receipts import answer_retry_receipt
from whatsappd.rules.submission import accepted_row, check_repetition, queue_full
from whatsappd.store import outbox_ids
from whatsappd.store.outbox_bytes import OutboxBytes
from whatsappd.store.outbox_counts import OutboxChange
from whatsappd.store.outbox_events import outbox_event
from whatsappd.store.sqlite import aliases, outbox_rows
from whatsappd.store.sqlite.event_log import SqliteEventLog
from whatsappd.store.sqlite.outbox_reads import Loaded

#: Receipts of one company that wait for their row: the newest. An ack is some messages away.
MAX_EARLY_RECEIPTS = 10_000


class OutboxWrites:
    """Owned by the writer thread, all but `publish`."""

    def __init__(
        self,
        log: SqliteEventLog,
        loaded: Loaded,
        held: OutboxBytes,
        *,
        clock: Callable[[], int],
        publish: Callable[[list[OutboxChange]], None],
    ) -> None:
        self._log = log
        self._held = held
        self._clock = clock
        self._last_id = loaded.last_id
        # rows queued or being sent, by company
        self._waiting = Counter(
            {
                company: sum(counts[state] for state in _WAITING)
                for company, counts in loaded.counts.items()
            }
        )
        self._early: dict[str, int] = {}  # receipts without a row, or a few more
        self._pending: list[OutboxChange] = []
        self.publish = publish

    # --- what follows the transaction ---------------------------------------------------------

    def mark(self) -> int:
        return len(self._pending)

    def rewind(self, mark: int) -> None:
        while len(self._pending) > mark:
            self._count(self._pending.pop(), -1)

    def flush(self, conn: sqlite3.Connection) -> None:
        """Nothing is left to write."""

    def committed(self) -> list[OutboxChange]:
        changes, self._pending = self._pending, []
        return changes

    def _note(self, change: OutboxChange) -> None:
        self._pending.append(change)
        self._count(change, +1)

    def _count(self, change: OutboxChange, sign: int) -> None:
        if change.before in _WAITING:
            self._waiting[change.row.company] -= sign
        if change.row.state in _WAITING and not change.is_gone:
            self._waiting[change.row.company] += sign
        self._held.count(change, sign)

    # --- changes ------------------------------------------------------------------------------

    def accept(
        self, conn: sqlite3.Connection, new: NewMessage, queue_limit: int
    ) -> tuple[Row, bool]:
        """The row of `new`, and whether it was made just now. Raises KeyConflict, QueueFull."""
        waiting = self._waiting[new.company]
        if waiting >= queue_limit:
            known = self.find(conn, new)
            if known is not None:
                return known, False
            raise queue_full(new.company, waiting, queue_limit)
        now = self._clock()
        self._last_id = outbox_ids.new_id(self._last_id, now, random.random())
        chat = aliases.account_of(conn, new.company, new.chat, now)
        row = accepted_row(
            new,
            outbox_ids.id_as_text(self._last_id),
            chat,
            now,
            wrote_ms=_wrote_ms(conn, new.company, chat),
        )
        if not outbox_rows.insert(conn, row):
            known = self.find(conn, new)
            assert known is not None
            return known, False
        self._log.stage([outbox_event(None, "accepted", row)])
        self._held.check(row)
        self._note(OutboxChange(None, row))
        return row, True

    def find(self, conn: sqlite3.Connection, new: NewMessage) -> Row | None:
        """The row that was made of `new` before. Raises KeyConflict. Runs in any thread."""
        if new.key is None:
            return None
        known = outbox_rows.find(conn, outbox_rows.SELECT_BY_KEY, new.company, new.key)
        if known is not None:
            check_repetition(known, new)
        return known

    def move(
        self,
        conn: sqlite3.Connection,
        row: Row,
        cause: Cause,
        **changes: Any,
    ) -> Row:
        """Changes the row's state as the table says. Raises WrongState if it says nothing.

        Among `changes`, `reason` and `not_before_ms` belong to the new state (see `moved`).
        """
        changed = outbox_rows.update(conn, row, {**moved(row, cause, self._clock()), **changes})
        self._log.stage([outbox_event(row.state, str(cause), changed)])
        self._note(OutboxChange(row.state, changed))
        return changed

    def readdress(
        self, conn: sqlite3.Connection, company: str, address: str, account: str
    ) -> list[Row]:
        """`address` means `account`: what is open and goes to it goes to the account from now on.

        Returns the rows that this changed.
        """
        aliases.put(conn, company, address, account, self._clock())
        is_reply = is_reply_to(_wrote_ms(conn, company, account), self._clock())
        changed = []
        for row in outbox_rows.find_open(conn, company, address):
            changes = {"chat": account, "asked": row.recipient, "is_reply": is_reply}
            changed.append(self._noted(outbox_rows.update(conn, row, changes), "addressed"))
        if is_reply:
            self.answers(conn, company, [account])
        return changed

    def answers(self, conn: sqlite3.Connection, company: str, chats: Collection[str]) -> None:
        """These people just wrote: what is open and goes to them goes before the others."""
        for chat in chats:
            for row in outbox_rows.find_open(conn, company, chat):
                if not row.is_reply:
                    # No event: nothing happened to the message.
                    self._note(
                        OutboxChange(row.state, outbox_rows.update(conn, row, {"is_reply": True}))
                    )

    def acknowledge(self, conn: sqlite3.Connection, row: Row, message_id: str, sent_ms: int) -> Row:
        """The server took it: `sent`, and what receipts that came before the ack make of it."""
        known: dict[str, Any] = {"message_id": message_id, "sent_ms": sent_ms}
        if row.state not in SENT_OR_BEYOND:
            row = self.move(conn, row, Cause.ACKNOWLEDGED, **known)
        elif row.message_id in (None, message_id):
            # A receipt or a person was faster. Nothing new, but the id and the time.
            row = outbox_rows.update(conn, row, known)
        else:
            return row  # the ack of another attempt than the one that is known to have arrived
        return self._early_receipt(conn, row)

    def lose(
        self,
        conn: sqlite3.Connection,
        row: Row,
        reason: str,
        message_id: str | None = None,
        not_before_ms: int = 0,
    ) -> Row:
        """Nobody knows the attempt's fate: `uncertain`, and `queued` again if that was chosen."""
        row = self.move(conn, row, Cause.LOST, reason=reason, lost_attempts=row.lost_attempts + 1)
        if message_id is not None:
            row = self.identify(conn, row, message_id)
        if row.state is OutboxState.UNCERTAIN and row.on_uncertain is OnUncertain.RESEND:
            row = self.move(
                conn,
                row,
                Cause.DECIDED_RESEND,
                reason=f"to be sent again, as the sender chose: {reason}",
                not_before_ms=not_before_ms,
            )
        return row

    def identify(self, conn: sqlite3.Connection, row: Row, message_id: str) -> Row:
        """An attempt's message id became known without an ack: receipts can find the row now."""
        if row.state not in OPEN:
            return row  # the question was settled meanwhile
        row = outbox_rows.update(conn, row, {"message_id": message_id})
        return self._early_receipt(conn, row)

    def receipt(
        self,
        conn: sqlite3.Connection,
        company: str,
        message_ids: Sequence[str],
        kind: str,
        time_ms: int,
    ) -> None:
        """A receipt (`delivered`, `read` or `played`) for some of the company's messages.

        A row never moves back. Ids that no row knows are kept for EARLY_RECEIPT_MS, for an ack that
        is still to come. In a group, the first member's receipt counts.

        Raises:
            InvalidParams: another kind.
        """
        cause = receipt_cause(kind)
        for message_id in message_ids:
            row = self.find_sent(conn, company, message_id)
            if row is None:
                self._keep_receipt(conn, company, message_id, cause, time_ms)
            else:
                self._apply(conn, row, cause)

    def find_sent(self, conn: sqlite3.Connection, company: str, message_id: str) -> Row | None:
        """The row that was sent under WhatsApp's id `message_id`, the last time or before it."""
        return outbox_rows.find(
            conn, outbox_rows.SELECT_BY_MESSAGE, company, message_id
        ) or outbox_rows.find(conn, outbox_rows.SELECT_BY_FORMER, company, message_id)

    def asked_again(
        self,
        conn: sqlite3.Connection,
        company: str,
        message_id: str,
        chat: str,
        device: str,
        wait_ms: int,
    ) -> None:
        """A device could not read a message, and WhatsApp's library has forgotten it.

        If no device is known to have it, it is sent again after `wait_ms`: `rules.retry_receipts`.
        Otherwise the row says who does not. Nothing happens if no row was sent to `chat` under that
        id: anybody may send receipts, and name any id.
        """
        row = self.find_sent(conn, company, message_id)
        now = self._clock()
        if row is None or row.chat not in (chat, aliases.account_of(conn, company, chat, now)):
            return
        if row.state in (OutboxState.SENDING, OutboxState.UNCERTAIN):
            # Who cannot read it has it, so the server took it.
            row = self.move(conn, row, Cause.ACKNOWLEDGED, sent_ms=row.handed_ms)
        answer = answer_retry_receipt(row, message_id, device, now)
        if answer.sends_anew:
            self.move(
                conn,
                row,
                Cause.ASKED_AGAIN,
                reason=answer.reason,
                not_before_ms=now + wait_ms,
                former_message_id=message_id,
                message_id=None,
            )
        elif answer.reason not in (None, row.reason):
            changes = {"reason": answer.reason, "updated_ms": now}
            self._noted(outbox_rows.update(conn, row, changes), str(Cause.ASKED_AGAIN))

    def remove(self, conn: sqlite3.Connection, row: Row) -> None:
        """Deletes a row that is finished. No event: it happened long ago."""
        assert row.state not in OPEN
        self.erase(conn, row)

    def erase(self, conn: sqlite3.Connection, row: Row) -> None:
        """Deletes a row in any state: its company is being removed."""
        conn.execute("DELETE FROM outbox WHERE id = ?", (int(row.id, 16),))
        self._note(OutboxChange(row.state, row, is_gone=True))

    def _noted(self, row: Row, cause: str) -> Row:
        """Tell of a change that leaves the row in its state."""
        self._log.stage([outbox_event(row.state, cause, row)])
        self._note(OutboxChange(row.state, row))
        return row

    def _apply(self, conn: sqlite3.Connection, row: Row, cause: Cause) -> Row | None:
        # Otherwise it is older than the one known, or the row was given up.
        return self.move(conn, row, cause) if advances(row.state, cause) else None

    def _early_receipt(self, conn: sqlite3.Connection, row: Row) -> Row:
        where = (row.company, row.message_id)
        found = conn.execute(
            "SELECT cause FROM receipts WHERE company = ? AND message_id = ?", where
        ).fetchone()
        if found is None:
            return row
        conn.execute("DELETE FROM receipts WHERE company = ? AND message_id = ?", where)
        return self._apply(conn, row, Cause(found[0])) or row

    def _keep_receipt(
        self, conn: sqlite3.Connection, company: str, message_id: str, cause: Cause, time_ms: int
    ) -> None:
        known = conn.execute(
            "SELECT cause FROM receipts WHERE company = ? AND message_id = ?",
            (company, message_id),
        ).fetchone()
        if known is None or RECEIPTS.index(cause) > RECEIPTS.index(Cause(known[0])):
            conn.execute(
                "INSERT OR REPLACE INTO receipts VALUES (?, ?, ?, ?, ?)",
                (company, message_id, cause, time_ms, self._clock()),
            )
            self._bound_receipts(conn, company)

    def _bound_receipts(self, conn: sqlite3.Connection, company: str) -> None:
        """One more is kept. Anybody can send receipts for messages that there never were."""
        if company not in self._early:
            self._early[company] = _count_receipts(conn, company)
        else:
            self._early[company] += 1
        if self._early[company] <= MAX_EARLY_RECEIPTS:
            return
        # Some more than must go, so that this is seldom.
        conn.execute(
            "DELETE FROM receipts WHERE company = ?1 AND message_id IN (SELECT message_id FROM"
            " receipts WHERE company = ?1 ORDER BY received_ms LIMIT ?2)",
            (company, self._early[company] - MAX_EARLY_RECEIPTS * 9 // 10),
        )
        self._early[company] = _count_receipts(conn, company)


def _count_receipts(conn: sqlite3.Connection, company: str) -> int:
    [count] = conn.execute("SELECT count(*) FROM receipts WHERE company = ?", (company,)).fetchone()
    return int(count)


_WAITING = frozenset({OutboxState.QUEUED, OutboxState.SENDING})


def _wrote_ms(conn: sqlite3.Connection, company: str, chat: str) -> int:
    """When the company's contact last wrote, in epoch milliseconds; 0: never, as far as known."""
    found = conn.execute(
        "SELECT wrote_ms FROM contacts WHERE company = ? AND chat = ?", (company, chat)
    ).fetchone()
    return 0 if found is None else int(found[0])
