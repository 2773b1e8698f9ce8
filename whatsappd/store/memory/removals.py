"""The memory twin's removals of companies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from whatsappd.model.audit import AuditNote
from whatsappd.store.company_directory import remove_directory
from whatsappd.store.key_book import KeyBook
from whatsappd.store.memory.access import end_key
from whatsappd.store.memory.event_log import MemoryEventLog
from whatsappd.store.memory.outbox import MemoryOutbox
from whatsappd.store.memory.tables import MemoryTables
from whatsappd.store.memory.webhooks import MemoryWebhooks


class ErasedParts(NamedTuple):
    """The parts of the twin that hold something of a company."""

    events: MemoryEventLog
    outbox: MemoryOutbox
    webhooks: MemoryWebhooks
    book: KeyBook


class MemoryRemovals:
    """See `store.port.Removals`. `directory(company)` is where the company's files are, if any."""

    def __init__(
        self, tables: MemoryTables, parts: ErasedParts, directory: Callable[[str], Path] | None
    ) -> None:
        self._tables = tables
        self._parts = parts
        self._directory = directory

    async def pending(self) -> list[str]:
        async with self._tables.reading("pending"):
            return sorted(self._tables.removals)

    async def begin(self, company: str, note: AuditNote | None = None) -> None:
        only_for = [key.id for key in self._parts.book.list_all() if key.companies == (company,)]
        async with self._tables.writing("begin"):
            self._tables.removals[company] = self._tables.clock()
            self._tables.companies.pop(company, None)
            self._parts.webhooks.stop_only_for(company)
            for identity in only_for:
                end_key(self._tables, identity)
            self._tables.note_change(note, None)
        self._parts.book.deleted(only_for)
        self._parts.webhooks.look_again()

    async def finish(self, company: str) -> None:
        if self._directory is not None:
            await remove_directory(self._directory(company))
        events, outbox, webhooks, book = self._parts
        async with self._tables.writing("finish"):
            keys = {key.id: key.companies for key in book.list_all() if key.companies is not None}
            left = {
                identity: _without(companies, company)
                for identity, companies in keys.items()
                if company in companies
            }
            for identity, companies in left.items():
                if not companies:  # made since `begin`
                    end_key(self._tables, identity)
            webhooks.erase_company(company)
            outbox.maintenance.erase(company)
            self._forget_rest(company)
            webhooks.read_anew(events.erase(company))
            self._tables.removals.pop(company, None)
        for identity, companies in left.items():
            if companies:
                book.narrowed(identity, companies)
            else:
                book.deleted([identity])
        outbox.maintenance.forget(company)
        webhooks.look_again()

    def _forget_rest(self, company: str) -> None:
        """What is kept by company alone."""
        tables = self._tables
        tables.taken.pop(company, None)
        for pairs in (tables.receipts, tables.aliases, tables.people):
            for pair in [pair for pair in pairs if pair[0] == company]:
                del pairs[pair]
        for person in [each for each in tables.former_people if each[0] == company]:
            del tables.former_people[person]
        for alert in [alert for alert in tables.alerts if alert.company == company]:
            del tables.alerts[alert]


def _without(companies: tuple[str, ...], company: str) -> tuple[str, ...]:
    return tuple(each for each in companies if each != company)
