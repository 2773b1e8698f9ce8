"""What the memory twin holds, and its transactions: all of a change, or nothing.

A test tells it to refuse an operation by name (`refuse`), as a full disk would.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import trio

from whatsappd.clock import now_ms
from whatsappd.errors import StoreFailed, WhatsappdError
from whatsappd.model.audit import AuditNote, AuditRecord
from whatsappd.model.consumer import Consumer
from whatsappd.model.event import Draft, Event
from whatsappd.model.message import Row
from whatsappd.model.stored_event import StoredEvent
from whatsappd.model.webhook import StoredDeadLetter, StoredWebhook
from whatsappd.rules.alerts import AlertFinding, AlertKey
from whatsappd.store.outbox_counts import OutboxChange
from whatsappd.store.packed_event import packed_event
from whatsappd.store.port import StoredCompany


class Attempt(NamedTuple):
    """The last attempt of a row: its secret, if somebody may still ask for it."""

    secret: bytes | None
    of_this_boot: bool


class EarlyReceipt(NamedTuple):
    """A receipt for a message that no row knows (yet)."""

    kind: str
    received_ms: int


class KnownPerson(NamedTuple):
    """Since when a company knows somebody, and when they last wrote; 0: never."""

    since_ms: int
    wrote_ms: int = 0


class KeptLetter(NamedTuple):
    """A dead letter with its event, which has `size` bytes."""

    letter: StoredDeadLetter
    event: dict[str, Any]
    size: int


class Refusal(NamedTuple):
    error: WhatsappdError
    times: int | None


class MemoryTables:
    """The tables, by name. Values are never changed in place: a transaction copies the tables."""

    def __init__(self, clock: Callable[[], int] = now_ms) -> None:
        self.clock = clock
        self.rows: dict[str, Row] = {}
        self.attempts: dict[str, Attempt] = {}
        self.receipts: dict[tuple[str, str], EarlyReceipt] = {}
        self.aliases: dict[tuple[str, str], tuple[str, int]] = {}
        self.events: dict[int, StoredEvent] = {}
        self.event_times: dict[int, int] = {}
        self.forgotten: dict[str, int] = {}
        self.consumers: dict[str, Consumer] = {}
        self.companies: dict[str, StoredCompany] = {}
        self.people: dict[tuple[str, str], KnownPerson] = {}
        self.former_people: dict[tuple[str, str, str], KnownPerson] = {}
        self.taken: dict[str, tuple[int, int]] = {}
        self.alerts: dict[AlertKey, AlertFinding] = {}
        self.webhooks: dict[str, StoredWebhook] = {}
        self.letters: dict[int, KeptLetter] = {}
        self.removals: dict[str, int] = {}
        self.audit: dict[int, AuditRecord] = {}
        self.last_id = 0
        self.last_letter = 0
        self.last_line = 0
        self.last_seq = 0
        self.end = 0
        #: Why the last write was refused, in words; None once writes are taken again.
        self.trouble: str | None = None
        #: Told after each transaction: the changes of rows, and the events that it logged.
        self.published: list[Callable[[list[OutboxChange], list[StoredEvent]], None]] = []
        self._changes: list[OutboxChange] = []
        self._logged: list[StoredEvent] = []
        self._refused: dict[str, Refusal] = {}
        self._meanwhile: dict[str, Callable[[], object]] = {}

    def refuse(
        self, operation: str, error: WhatsappdError | None = None, *, times: int | None = None
    ) -> None:
        """Lets `operation`, such as `accept`, fail until `take` is called.

        Args:
            error: what is raised; None: StoreFailed, because the disk is full.
            times: how often it fails; None: until `take`.
        """
        self._refused[operation] = Refusal(error or StoreFailed("the disk is full"), times)

    def meanwhile(self, operation: str, happen: Callable[[], object]) -> None:
        """Calls `happen` once: when the next `operation` is done, and its caller does not have the
        answer yet."""
        self._meanwhile[operation] = happen

    def take(self, operation: str) -> None:
        """Lets `operation` succeed again."""
        self._refused.pop(operation, None)

    @asynccontextmanager
    async def reading(self, operation: str) -> AsyncIterator[None]:
        """A look at the tables. Raises StoreFailed if the operation is to fail."""
        await trio.lowlevel.checkpoint()
        refusal = self._next_refusal(operation)
        if refusal is not None:
            raise refusal
        yield
        self._done(operation)

    @asynccontextmanager
    async def writing(self, operation: str) -> AsyncIterator[None]:
        """A transaction: what happens in it is undone if it raises, and told once it is done.

        The block must not await. Raises StoreFailed if the operation is to fail.
        """
        await trio.lowlevel.checkpoint()
        refusal = self._next_refusal(operation)
        if isinstance(refusal, StoreFailed):
            self.trouble = refusal.message
        if refusal is not None:
            raise refusal
        before = {
            name: dict(value) if isinstance(value, dict) else value
            for name, value in vars(self).items()
            if not name.startswith("_") and name not in ("clock", "published")
        }
        try:
            yield
        except BaseException:
            vars(self).update(before)
            self._changes, self._logged = [], []
            raise
        self.trouble = None
        changes, self._changes = self._changes, []
        logged, self._logged = self._logged, []
        for publish in self.published:
            publish(changes, logged)
        self._done(operation)

    def _next_refusal(self, operation: str) -> WhatsappdError | None:
        refusal = self._refused.get(operation)
        if refusal is None:
            return None
        if refusal.times is not None:
            left = refusal.times - 1
            self._refused[operation] = refusal._replace(times=left)
            if left == 0:
                self.take(operation)
        return refusal.error

    def _done(self, operation: str) -> None:
        happen = self._meanwhile.pop(operation, None)
        if happen is not None:
            happen()

    def note_change(self, note: AuditNote | None, subject: str | None) -> None:
        """In a transaction: the audit trail's line of what it does; nothing without a note."""
        if note is not None:
            self.add_audit_line(note(subject))

    def add_audit_line(self, line: AuditRecord) -> None:
        """In a transaction."""
        self.last_line += 1
        self.audit[self.last_line] = line

    def note(self, change: OutboxChange) -> None:
        """In a transaction: a row has changed."""
        self._changes.append(change)

    def log(self, *drafts: Draft) -> list[Event]:
        """In a transaction: logs `drafts`. Raises TooLarge."""
        made = []
        for draft in drafts:
            event = Event(self.last_seq + 1, self.clock(), *draft)
            stored = packed_event(event, self.end)
            self.events[stored.seq] = stored
            self.event_times[stored.seq] = event.time_ms
            self.last_seq, self.end = stored.seq, stored.end
            self._logged.append(stored)
            made.append(event)
        return made
