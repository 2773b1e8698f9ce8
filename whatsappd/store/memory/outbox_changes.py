"""Each change of a row in the memory twin, by the table of `rules.delivery`, with its event.

Called inside transactions of `store.memory.tables`.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

from whatsappd.errors import unknown_message
from whatsappd.model.jid import LID_SERVER
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
from whatsappd.store.memory.tables import Attempt, EarlyReceipt, MemoryTables
from whatsappd.store.outbox_bytes import OutboxBytes
from whatsappd.store.outbox_counts import OutboxChange
from whatsappd.store.outbox_events import outbox_event

_WAITING = (OutboxState.QUEUED, OutboxState.SENDING)
#: How long a look-up's answer is believed, in milliseconds. A LID keeps its person.
_FRESH_MS = 30 * 24 * 3600 * 1000


class MemoryOutboxChanges:
    def __init__(self, tables: MemoryTables, held: OutboxBytes) -> None:
        self._tables = tables
        self._held = held

    def get(self, row_id: str) -> Row:
        outbox_ids.id_as_number(row_id)
        row = self._tables.rows.get(row_id)
        if row is None:
            raise unknown_message(row_id)
        return row

    def find(self, new: NewMessage) -> Row | None:
        """The row that was made of `new` before. Raises KeyConflict."""
        for row in self._tables.rows.values():
            if new.key is not None and (row.company, row.key) == (new.company, new.key):
                check_repetition(row, new)
                return row
        return None

    def accept(self, new: NewMessage, queue_limit: int) -> tuple[Row, bool]:
        known = self.find(new)
        if known is not None:
            return known, False
        waiting = sum(row.state in _WAITING for row in self._of(new.company))
        if waiting >= queue_limit:
            raise queue_full(new.company, waiting, queue_limit)
        now = self._tables.clock()
        self._tables.last_id = outbox_ids.new_id(self._tables.last_id, now, random.random())
        chat = self.account_of(new.company, new.chat)
        row = accepted_row(
            new,
            outbox_ids.id_as_text(self._tables.last_id),
            chat,
            now,
            wrote_ms=self._wrote_ms(new.company, chat),
        )
        self._held.check(row)
        self._put(row, None, "accepted")
        return row, True

    def move(self, row: Row, cause: Cause, **changes: Any) -> Row:
        """Changes the row's state as the table says. Raises WrongState if it says nothing."""
        changed = row._replace(**{**moved(row, cause, self._tables.clock()), **changes})
        return self._put(changed, row.state, str(cause))

    def acknowledge(self, row: Row, message_id: str, sent_ms: int) -> Row:
        if row.state not in SENT_OR_BEYOND:
            row = self.move(row, Cause.ACKNOWLEDGED, message_id=message_id, sent_ms=sent_ms)
        elif row.message_id in (None, message_id):
            row = self._tables.rows[row.id] = row._replace(message_id=message_id, sent_ms=sent_ms)
        else:
            return row  # the ack of another attempt than the one that is known to have arrived
        return self._early_receipt(row)

    def lose(
        self, row: Row, reason: str, message_id: str | None = None, not_before_ms: int = 0
    ) -> Row:
        row = self.move(row, Cause.LOST, reason=reason, lost_attempts=row.lost_attempts + 1)
        if message_id is not None:
            row = self.identify(row, message_id)
        if row.state is OutboxState.UNCERTAIN and row.on_uncertain is OnUncertain.RESEND:
            why = f"to be sent again, as the sender chose: {reason}"
            return self.move(row, Cause.DECIDED_RESEND, reason=why, not_before_ms=not_before_ms)
        return row

    def identify(self, row: Row, message_id: str) -> Row:
        if row.state not in OPEN:
            return row
        row = self._tables.rows[row.id] = row._replace(message_id=message_id)
        return self._early_receipt(row)

    def forget_attempt(self, row: Row) -> None:
        """Nobody will ask for the attempt's secret again."""
        self._tables.attempts[row.id] = Attempt(None, of_this_boot=True)

    def receipt(self, company: str, message_ids: Collection[str], kind: str) -> None:
        cause = receipt_cause(kind)
        for message_id in message_ids:
            row = self.find_sent(company, message_id)
            known = self._tables.receipts.get((company, message_id))
            if row is not None:
                self._apply(row, cause)
            elif known is None or RECEIPTS.index(cause) > RECEIPTS.index(Cause(known.kind)):
                now = self._tables.clock()
                self._tables.receipts[company, message_id] = EarlyReceipt(kind, now)

    def find_sent(self, company: str, message_id: str) -> Row | None:
        """The row that was sent under that id, the last time or before it."""
        for which in ("message_id", "former_message_id"):
            for row in self._of(company):
                if getattr(row, which) == message_id:
                    return row
        return None

    def asked_again(
        self, company: str, message_id: str, chat: str, device: str, wait_ms: int
    ) -> None:
        row, now = self.find_sent(company, message_id), self._tables.clock()
        if row is None or row.chat not in (chat, self.account_of(company, chat)):
            return
        if row.state in (OutboxState.SENDING, OutboxState.UNCERTAIN):
            row = self.move(row, Cause.ACKNOWLEDGED, sent_ms=row.handed_ms)
        answer = answer_retry_receipt(row, message_id, device, now)
        if answer.sends_anew:
            self.move(
                row,
                Cause.ASKED_AGAIN,
                reason=answer.reason,
                not_before_ms=now + wait_ms,
                former_message_id=message_id,
                message_id=None,
            )
        elif answer.reason not in (None, row.reason):
            told = row._replace(reason=answer.reason, updated_ms=now)
            self._put(told, row.state, str(Cause.ASKED_AGAIN))

    def readdress(self, company: str, address: str, account: str) -> list[Row]:
        aliases, now = self._tables.aliases, self._tables.clock()
        aliases.pop((company, account), None)
        for (whose, known), (meant, since_ms) in list(aliases.items()):
            if (whose, meant) == (company, address):
                aliases[whose, known] = (account, since_ms)
        aliases[company, address] = (account, now)
        is_reply = is_reply_to(self._wrote_ms(company, account), now)
        changed = [
            self._put(
                row._replace(chat=account, asked=row.recipient, is_reply=is_reply),
                row.state,
                "addressed",
            )
            for row in self._open_of(company, address)
        ]
        if is_reply:
            self.answers(company, [account])
        return changed

    def answers(self, company: str, chats: Collection[str]) -> None:
        """These people just wrote: what is open and goes to them goes before the others."""
        for chat in chats:
            for row in self._open_of(company, chat):
                if not row.is_reply:
                    changed = self._tables.rows[row.id] = row._replace(is_reply=True)
                    self._tables.note(OutboxChange(row.state, changed))

    def erase(self, row: Row) -> None:
        del self._tables.rows[row.id]
        self._tables.attempts.pop(row.id, None)
        self._tables.note(OutboxChange(row.state, row, is_gone=True))

    def account_of(self, company: str, address: str) -> str:
        """The account that the address means, as far as is known and fresh."""
        account, since_ms = self._tables.aliases.get((company, address), (address, 0))
        is_fresh = self._tables.clock() - since_ms < _FRESH_MS
        return account if is_fresh or address.endswith(f"@{LID_SERVER}") else address

    def _wrote_ms(self, company: str, chat: str) -> int:
        person = self._tables.people.get((company, chat))
        return 0 if person is None else person.wrote_ms

    def _of(self, company: str) -> list[Row]:
        return [row for row in self._tables.rows.values() if row.company == company]

    def _open_of(self, company: str, chat: str) -> list[Row]:
        return [row for row in self._of(company) if row.chat == chat and row.state in OPEN]

    def _put(self, row: Row, previous: OutboxState | None, cause: str) -> Row:
        self._tables.rows[row.id] = row
        self._tables.log(outbox_event(previous, cause, row))
        self._tables.note(OutboxChange(previous, row))
        return row

    def _apply(self, row: Row, cause: Cause) -> Row:
        return self.move(row, cause) if advances(row.state, cause) else row

    def _early_receipt(self, row: Row) -> Row:
        found = self._tables.receipts.pop((row.company, row.message_id or ""), None)
        return row if found is None else self._apply(row, Cause(found.kind))
