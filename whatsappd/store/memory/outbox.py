"""The memory twin's outbox, by who uses it: see `store.port.Outbox`."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence, Set
from typing import Any, NamedTuple

from whatsappd.errors import InvalidParams, UnknownMessage, WrongState
from whatsappd.model.jid import LID_SERVER, USER_SERVER
from whatsappd.model.message import NewMessage, OutboxState, Row
from whatsappd.rules.delivery import DECISIONS, OPEN, TOO_LATE, Cause
from whatsappd.rules.outreach_pause import LONGEST_PAUSE_MS
from whatsappd.store import outbox_ids
from whatsappd.store.memory.outbox_changes import MemoryOutboxChanges
from whatsappd.store.memory.tables import Attempt, MemoryTables
from whatsappd.store.outbox_bytes import OutboxBytes
from whatsappd.store.outbox_counts import OutboxCounts
from whatsappd.store.port import Handover

#: How long a receipt waits for a row with its message id.
EARLY_RECEIPT_MS = 3 * 24 * 3600 * 1000


class MemoryOutbox(NamedTuple):
    submissions: MemorySubmissions
    handovers: MemoryHandovers
    view: MemoryOutboxView
    maintenance: MemoryOutboxMaintenance
    bytes: OutboxBytes


def make_outbox(
    tables: MemoryTables, changes: MemoryOutboxChanges, held: OutboxBytes
) -> MemoryOutbox:
    counts = OutboxCounts({})
    tables.published.append(lambda changed, _logged: counts.publish(changed))
    tables.published.append(lambda changed, _logged: held.follow(changed))
    return MemoryOutbox(
        MemorySubmissions(tables, changes),
        MemoryHandovers(tables, changes, counts),
        MemoryOutboxView(tables, changes, counts, held),
        MemoryOutboxMaintenance(tables, changes, counts),
        held,
    )


def _is_late(row: Row, now_ms: int) -> bool:
    return row.expires_ms is not None and row.expires_ms <= now_ms


class MemorySubmissions:
    def __init__(self, tables: MemoryTables, changes: MemoryOutboxChanges) -> None:
        self._tables = tables
        self._changes = changes

    async def accept(self, new: NewMessage, queue_limit: int) -> tuple[Row, bool]:
        async with self._tables.writing("accept"):
            return self._changes.accept(new, queue_limit)

    async def find(self, new: NewMessage) -> Row | None:
        async with self._tables.reading("find"):
            return self._changes.find(new)

    async def cancel(self, row_id: str) -> Row:
        async with self._tables.writing("cancel"):
            row = self._changes.get(row_id)
            return self._changes.move(row, Cause.CANCELLED, reason="cancelled")

    async def resolve(self, row_id: str, decision: str) -> Row:
        cause = DECISIONS.get(decision)
        if cause is None:
            raise InvalidParams(
                f"decision: {decision!r:.40} is none of {', '.join(DECISIONS)}", field="decision"
            )
        reason = "decided by a person" if cause is Cause.DECIDED_FAILED else None
        async with self._tables.writing("resolve"):
            return self._changes.move(self._changes.get(row_id), cause, reason=reason)


class MemoryHandovers:
    def __init__(
        self, tables: MemoryTables, changes: MemoryOutboxChanges, counts: OutboxCounts
    ) -> None:
        self._tables = tables
        self._changes = changes
        self._counts = counts

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
        async with self._tables.reading("pending"):
            may_go = [
                row
                for row in self._not_held_back(company)
                if (only is None or row.chat in only)
                and row.chat not in without
                and (not known_only or not self._is_stranger(row))
            ]
        for is_reply in (False, True) if others_first else (True, False):
            found = [row for row in may_go if row.is_reply is is_reply]
            if found:
                return found[:limit]
        return []

    def _not_held_back(self, company: str) -> list[Row]:
        now, blocked, found = self._tables.clock(), set(), []
        for row in sorted(self._tables.rows.values(), key=lambda row: row.id):
            if row.company != company:
                continue
            is_queued = row.state is OutboxState.QUEUED and not _is_late(row, now)
            if row.state is OutboxState.SENDING or (is_queued and self._waits(row, now)):
                blocked.add(row.chat)
            elif is_queued and row.chat not in blocked:
                found.append(row)
        return found

    def _waits(self, row: Row, now_ms: int) -> bool:
        """Whether it is postponed: not by a clock that was far ahead."""
        return now_ms < row.not_before_ms <= now_ms + LONGEST_PAUSE_MS

    def _is_stranger(self, row: Row) -> bool:
        is_person = row.chat.endswith((f"@{USER_SERVER}", f"@{LID_SERVER}"))
        return is_person and (row.company, row.chat) not in self._tables.people

    async def next_due_ms(self, company: str, looked_ms: int) -> int | None:
        async with self._tables.reading("next_due_ms"):
            return min(
                (
                    row.not_before_ms
                    for row in self._tables.rows.values()
                    if row.company == company and self._waits(row, looked_ms)
                ),
                default=None,
            )

    def version(self, company: str) -> int:
        return self._counts.version(company)

    async def wait_changed(self, company: str, version: int) -> int:
        return await self._counts.wait_changed(company, version)

    def replies(self, company: str) -> int:
        return self._counts.replies(company)

    async def readdress(self, company: str, address: str, account: str) -> Sequence[Row]:
        async with self._tables.writing("readdress"):
            return self._changes.readdress(company, address, account)

    async def begin(self, row_id: str) -> Handover:
        async with self._tables.writing("begin"):
            handover = self._begin(row_id)
        if handover is None:
            raise WrongState(f"message {row_id}: {TOO_LATE}", state=str(OutboxState.EXPIRED))
        return handover

    def _begin(self, row_id: str) -> Handover | None:
        """Returns None if its time to live has passed."""
        row, now = self._changes.get(row_id), self._tables.clock()
        if _is_late(row, now):
            self._changes.move(row, Cause.EXPIRED, reason=TOO_LATE)
            return None
        row = self._changes.move(row, Cause.BEGUN, attempts=row.attempts + 1, handed_ms=now)
        secret = os.urandom(32)
        self._tables.attempts[row.id] = Attempt(secret, of_this_boot=True)
        return Handover(row, secret, of_this_boot=True)

    async def acknowledge(self, row_id: str, message_id: str, sent_ms: int) -> Row:
        async with self._tables.writing("acknowledge"):
            return self._changes.acknowledge(self._changes.get(row_id), message_id, sent_ms)

    async def acknowledge_and_begin(
        self, row_id: str, message_id: str, sent_ms: int, following: str
    ) -> tuple[Row, Handover | None]:
        async with self._tables.writing("acknowledge_and_begin"):
            row = self._changes.acknowledge(self._changes.get(row_id), message_id, sent_ms)
            try:
                return row, self._begin(following)
            except (WrongState, UnknownMessage):
                return row, None  # raised before anything of it was changed

    async def fail(self, row_id: str, reason: str) -> Row:
        async with self._tables.writing("fail"):
            return self._changes.move(self._changes.get(row_id), Cause.REFUSED, reason=reason)

    async def postpone(self, row_id: str, reason: str, not_before_ms: int) -> Row:
        async with self._tables.writing("postpone"):
            row = self._changes.get(row_id)
            return self._changes.move(
                row, Cause.POSTPONED, reason=reason, not_before_ms=not_before_ms
            )

    async def mark_uncertain(
        self, row_id: str, reason: str, *, message_id: str | None = None, not_before_ms: int = 0
    ) -> Row:
        async with self._tables.writing("mark_uncertain"):
            return self._changes.lose(self._changes.get(row_id), reason, message_id, not_before_ms)

    async def mark_untraceable(self, row_id: str, reason: str) -> Row:
        async with self._tables.writing("mark_untraceable"):
            row = self._changes.get(row_id)
            self._changes.forget_attempt(row)
            return self._changes.lose(row, reason) if row.state is OutboxState.SENDING else row

    async def requeue_unsent(self, row_id: str, reason: str) -> Row:
        async with self._tables.writing("requeue_unsent"):
            return self._changes.move(self._changes.get(row_id), Cause.NEVER_SENT, reason=reason)

    async def identify(self, row_id: str, message_id: str) -> Row:
        async with self._tables.writing("identify"):
            return self._changes.identify(self._changes.get(row_id), message_id)

    async def interrupted(self, company: str | None = None) -> Sequence[Handover]:
        async with self._tables.reading("interrupted"):
            return [
                Handover(row, attempt.secret, attempt.of_this_boot)
                for row in sorted(self._tables.rows.values(), key=lambda row: row.id)
                if (company is None or row.company == company)
                and _is_unknown(row)
                and (attempt := self._tables.attempts.get(row.id)) is not None
                and attempt.secret is not None
            ]


def _is_unknown(row: Row) -> bool:
    """Whether the last attempt's fate is unknown, and no receipt can tell it."""
    is_lost = row.state is OutboxState.UNCERTAIN and row.message_id is None
    return row.state is OutboxState.SENDING or is_lost


class MemoryOutboxView:
    def __init__(
        self,
        tables: MemoryTables,
        changes: MemoryOutboxChanges,
        counts: OutboxCounts,
        held: OutboxBytes,
    ) -> None:
        self._tables = tables
        self._changes = changes
        self._counts = counts
        self._held = held

    async def get(self, row_id: str) -> Row:
        async with self._tables.reading("get"):
            return self._changes.get(row_id)

    async def list_rows(
        self,
        company: str | None = None,
        states: Collection[OutboxState] | None = None,
        *,
        before: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Sequence[Row]:
        for place in (before, after):
            if place is not None:
                outbox_ids.id_as_number(place)
        async with self._tables.reading("list_rows"):
            found = [
                row
                for row in self._tables.rows.values()
                if (company is None or row.company == company)
                and (states is None or row.state in states)
                and (before is None or row.id < before)
                and (after is None or row.id > after)
            ]
        return sorted(found, key=lambda row: row.id, reverse=after is None)[:limit]

    async def wait(self, row_id: str, states: Collection[OutboxState]) -> Row:
        with self._counts.waiting(row_id, states) as waiter:
            waiter.see(await self.get(row_id))
            return await waiter.result()

    async def wait_confirmed(self, company: str, since_ms: int) -> None:
        while True:
            version = self._counts.version(company)
            rows = self._handed(company, since_ms)
            if not any(row.state is OutboxState.SENT for row in rows):
                return
            await self._counts.wait_changed(company, version)

    def _handed(self, company: str, since_ms: int) -> list[Row]:
        """The rows that were handed to WhatsApp since then, in that order."""
        found = [
            row
            for row in self._tables.rows.values()
            if row.company == company and row.handed_ms is not None and row.handed_ms >= since_ms
        ]
        return sorted(found, key=lambda row: row.handed_ms or 0)

    def counts(self, company: str) -> dict[OutboxState, int]:
        return self._counts.counts(company)

    def accepted(self, company: str) -> int:
        return self._counts.accepted(company)

    def entered(self, company: str) -> dict[OutboxState, int]:
        return self._counts.entered(company)

    def companies(self) -> list[str]:
        return self._counts.companies()

    async def oldest_queued(self) -> dict[str, int]:
        async with self._tables.reading("oldest_queued"):
            found: dict[str, int] = {}
            for row in sorted(self._tables.rows.values(), key=lambda row: row.id):
                if row.state is OutboxState.QUEUED:
                    found.setdefault(row.company, row.created_ms)
            return found

    async def still_queued(self, row_ids: Collection[str]) -> Set[str]:
        now = self._tables.clock()
        async with self._tables.reading("still_queued"):
            return {
                row.id
                for row in self._tables.rows.values()
                if row.id in row_ids and row.state is OutboxState.QUEUED and not _is_late(row, now)
            }

    async def sent_times(self, company: str, since_ms: int) -> Sequence[tuple[str, int]]:
        async with self._tables.reading("sent_times"):
            return [(row.chat, row.handed_ms or 0) for row in self._handed(company, since_ms)]

    async def cold_times(self, company: str, since_ms: int, limit: int) -> Sequence[int]:
        async with self._tables.reading("cold_times"):
            found = [
                row.handed_ms or 0
                for row in self._handed(company, since_ms)
                if row.chat.endswith((f"@{USER_SERVER}", f"@{LID_SERVER}"))
                and self._was_stranger(row)
            ]
            return found[::-1][:limit]

    def _was_stranger(self, row: Row) -> bool:
        person = self._tables.people.get((row.company, row.chat))
        return person is None or person.since_ms >= (row.handed_ms or 0)

    def report_bytes(self) -> list[dict[str, Any]]:
        return self._held.report()


class MemoryOutboxMaintenance:
    def __init__(
        self, tables: MemoryTables, changes: MemoryOutboxChanges, counts: OutboxCounts
    ) -> None:
        self._tables = tables
        self._changes = changes
        self._counts = counts

    async def expire(self, now_ms: int) -> int:
        async with self._tables.writing("expire"):
            late = [row for row in self._queued() if _is_late(row, now_ms)]
            for row in late:
                self._changes.move(row, Cause.EXPIRED, reason=TOO_LATE)
            return len(late)

    async def cancel_queued(self, company: str, reason: str) -> int:
        async with self._tables.writing("cancel_queued"):
            queued = [row for row in self._queued() if row.company == company]
            for row in queued:
                self._changes.move(row, Cause.CANCELLED, reason=reason)
            return len(queued)

    def _queued(self) -> list[Row]:
        rows = sorted(self._tables.rows.values(), key=lambda row: row.id)
        return [row for row in rows if row.state is OutboxState.QUEUED]

    async def shift(self, by_ms: int) -> None:
        async with self._tables.writing("shift"):
            for row in self._queued():
                expires_ms = None if row.expires_ms is None else row.expires_ms + by_ms
                due_ms = max(1, row.not_before_ms + by_ms) if row.not_before_ms else 0
                self._tables.rows[row.id] = row._replace(
                    expires_ms=expires_ms, not_before_ms=due_ms
                )

    async def retain(self, max_age_ms: int) -> int:
        now = self._tables.clock()
        async with self._tables.writing("retain"):
            gone = [
                row
                for row in self._tables.rows.values()
                if row.updated_ms < now - max_age_ms
                and row.created_ms < now - max_age_ms
                and row.state not in OPEN
            ]
            for row in gone:
                self._changes.erase(row)
            for which, receipt in list(self._tables.receipts.items()):
                if receipt.received_ms < now - EARLY_RECEIPT_MS:
                    del self._tables.receipts[which]
            return len(gone)

    def erase(self, company: str) -> None:
        """In a transaction: deletes all rows of a company that is being removed."""
        for row in [row for row in self._tables.rows.values() if row.company == company]:
            self._changes.erase(row)

    def forget(self, company: str) -> None:
        """The company was removed, and its rows are erased: its figures begin anew."""
        self._counts.forget(company)
