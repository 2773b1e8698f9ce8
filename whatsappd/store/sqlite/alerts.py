"""Open alerts, kept together with the events that raised them.

`monitoring.alert_watch` decides and records here; after a restart it begins with the open ones.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from whatsappd.model.event import ALERT, Draft
from whatsappd.rules.alerts import AlertChange, AlertFinding, AlertKey, AlertRule
from whatsappd.store.sqlite.database import Database
from whatsappd.store.sqlite.event_log import SqliteEventLog


class SqliteAlerts:
    """See `store.port.OpenAlerts`."""

    def __init__(self, database: Database, log: SqliteEventLog) -> None:
        self._database = database
        self._log = log

    async def all(self) -> dict[AlertKey, AlertFinding]:
        return await self._database.read(_all)

    async def record(self, changes: Sequence[AlertChange]) -> None:

        def write(conn: sqlite3.Connection) -> None:
            taken = [each for each in changes if not each.is_raised or _is_there(conn, each.key)]
            for change in taken:
                _apply(conn, change)
            self._log.stage([_draft(conn, change) for change in taken])

        await self._database.write(write)


def _draft(conn: sqlite3.Connection, change: AlertChange) -> Draft:
    """The event of a company's alert is that company's; others belong to none. So do those that
    end because their company was removed: a new one of its name has nothing to do with them."""
    company = change.key.company if _is_there(conn, change.key) else None
    return Draft(company or "", ALERT, change.as_wire())


def _is_there(conn: sqlite3.Connection, key: AlertKey) -> bool:
    """Whether the alert's company exists, if it is a company's."""
    if key.company is None:
        return True
    found = conn.execute("SELECT 1 FROM companies WHERE company = ?", (key.company,)).fetchone()
    return found is not None


def _apply(conn: sqlite3.Connection, change: AlertChange) -> None:
    rule, company = str(change.key.rule), change.key.company or ""
    if change.is_raised:
        conn.execute(
            "INSERT OR REPLACE INTO open_alerts VALUES (?, ?, ?, ?)",
            (rule, company, change.since_ms, change.detail),
        )
    else:
        conn.execute("DELETE FROM open_alerts WHERE rule = ? AND company = ?", (rule, company))


def _all(conn: sqlite3.Connection) -> dict[AlertKey, AlertFinding]:
    known = {str(rule): rule for rule in AlertRule}
    return {
        AlertKey(known[rule], company or None): AlertFinding(since_ms, detail)
        for rule, company, since_ms, detail in conn.execute("SELECT * FROM open_alerts")
        if rule in known
    }
