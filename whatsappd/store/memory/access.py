"""The memory twin's API keys, and its audit trail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio

from whatsappd.model.access import KeyScope
from whatsappd.model.api_key import ApiKey
from whatsappd.model.audit import AuditNote, AuditRecord
from whatsappd.model.consumer import owner_of
from whatsappd.rules.webhook_policy import without_codes
from whatsappd.store.audit_trail import MAX_AGE_MS, MAX_LINES
from whatsappd.store.key_book import KeyBook
from whatsappd.store.memory.tables import MemoryTables


class MemoryKeyRing:
    """See `store.port.KeyRing`. Keys are in the book alone: it is changed after the transaction."""

    def __init__(self, tables: MemoryTables, book: KeyBook) -> None:
        self._tables = tables
        self._book = book
        self.follow = book.follow
        self.find = book.find

    async def list_all(self) -> list[ApiKey]:
        await trio.lowlevel.checkpoint()
        return self._book.list_all()

    async def create(
        self,
        name: str,
        scope: KeyScope,
        companies: tuple[str, ...] | None,
        note: AuditNote | None = None,
    ) -> tuple[ApiKey, str]:
        made, text = self._book.new(name, scope, companies)
        async with self._tables.writing("create"):
            self._tables.note_change(note, made.key.id)
        self._book.add(made)
        return made.key, text

    async def revoke(self, identity: str, note: AuditNote | None = None) -> ApiKey:
        found = self._book.get(identity)
        async with self._tables.writing("revoke"):
            end_key(self._tables, identity)
            self._tables.note_change(note, identity)
        self._book.deleted([identity])
        return found

    async def check(self, text: str) -> ApiKey:
        await trio.lowlevel.checkpoint()
        return self._book.check(text)

    async def run(self) -> None:
        """Nothing is stored: the book is all there is."""
        await trio.sleep_forever()


def end_key(tables: MemoryTables, identity: str) -> None:
    """In a transaction: what was the key's own goes, and its webhooks are told no QR codes."""
    owner = f"key:{identity}"
    for name in [name for name in tables.consumers if owner_of(name) == owner]:
        del tables.consumers[name]
    for known in list(tables.webhooks.values()):
        wanted = without_codes(known.wanted)
        if known.owner == owner and wanted != known.wanted:
            tables.webhooks[known.id] = known._replace(revision=known.revision + 1, wanted=wanted)


class MemoryAuditRecords:
    """See `store.port.AuditRecords`."""

    def __init__(self, tables: MemoryTables) -> None:
        self._tables = tables

    async def append(self, lines: Sequence[AuditRecord]) -> None:
        async with self._tables.writing("append"):
            for line in lines:
                self._tables.add_audit_line(line)
            self._trim(lines[-1].time_ms - MAX_AGE_MS)

    def _trim(self, oldest_ms: int) -> None:
        left = dict(MAX_LINES)
        for number, line in reversed(list(self._tables.audit.items())):
            left[line.kind] -= 1
            if line.time_ms < oldest_ms or left[line.kind] < 0:
                del self._tables.audit[number]

    async def read(
        self, *, after: int | None, limit: int, company: str | None
    ) -> list[dict[str, Any]]:
        async with self._tables.reading("read"):
            found = [
                {"id": number, **line._asdict()}
                for number, line in self._tables.audit.items()
                if number > (after or 0) and (company is None or line.company == company)
            ]
        return found[:limit] if after is not None else found[-limit:]
