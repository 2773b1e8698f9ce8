"""The memory twin's open alerts, and how it fares."""

from __future__ import annotations

from collections.abc import Sequence

from whatsappd.model.event import ALERT, Draft
from whatsappd.rules.alerts import AlertChange, AlertFinding, AlertKey
from whatsappd.store.memory.tables import MemoryTables


class MemoryAlerts:
    """See `store.port.OpenAlerts`."""

    def __init__(self, tables: MemoryTables) -> None:
        self._tables = tables

    async def all(self) -> dict[AlertKey, AlertFinding]:
        async with self._tables.reading("all"):
            return dict(self._tables.alerts)

    async def record(self, changes: Sequence[AlertChange]) -> None:
        async with self._tables.writing("record"):
            for change in changes:
                if change.is_raised and not self._is_there(change.key):
                    continue
                if change.is_raised:
                    found = AlertFinding(change.since_ms, change.detail)
                    self._tables.alerts[change.key] = found
                else:
                    self._tables.alerts.pop(change.key, None)
                company = change.key.company if self._is_there(change.key) else None
                self._tables.log(Draft(company or "", ALERT, change.as_wire()))

    def _is_there(self, key: AlertKey) -> bool:
        """Whether the alert's company exists, if it is a company's."""
        return key.company is None or key.company in self._tables.companies


class MemoryHealth:
    """See `store.port.StoreHealth`. Nothing is on a disk, so that it has no bytes there."""

    size = 0

    def __init__(self, tables: MemoryTables) -> None:
        self._tables = tables

    @property
    def trouble(self) -> str | None:
        return self._tables.trouble

    async def probe(self) -> None:
        async with self._tables.writing("probe"):
            pass

    async def answer(self) -> None:
        async with self._tables.reading("answer"):
            pass
