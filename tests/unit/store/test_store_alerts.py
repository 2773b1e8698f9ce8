"""Open alerts survive, and agree with the log."""

from __future__ import annotations

from pathlib import Path

from whatsappd.clock import now_ms
from whatsappd.rules.alerts import AlertChange, AlertFinding, AlertKey, AlertRule
from whatsappd.store.sqlite.acquaintances import SqliteAcquaintances
from whatsappd.store.sqlite.alerts import SqliteAlerts
from whatsappd.store.sqlite.companies import SqliteCompanies
from whatsappd.store.sqlite.database import open_database
from whatsappd.store.sqlite.event_log import open_event_log

DOWN = AlertKey(AlertRule.SESSION_DOWN, "acme")
DISK = AlertKey(AlertRule.DISK_NEARLY_FULL)


async def test_open_alerts_are_known_after_a_restart_and_cleared_ones_are_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "whatsappd.db"
    async with open_database(path) as database:
        await SqliteCompanies(database, SqliteAcquaintances(database), now_ms).put_wanted(
            "acme", True
        )
        alerts = SqliteAlerts(database, await open_event_log(database))
        assert await alerts.all() == {}
        await alerts.record(
            [AlertChange(DOWN, True, 5, "not connected"), AlertChange(DISK, True, 6, "full")]
        )
    async with open_database(path) as database:
        log = await open_event_log(database)
        alerts = SqliteAlerts(database, log)
        assert await alerts.all() == {
            DOWN: AlertFinding(5, "not connected"),
            DISK: AlertFinding(6, "full"),
        }
        await alerts.record([AlertChange(DOWN, False, 5, "it is over")])
        assert await alerts.all() == {DISK: AlertFinding(6, "full")}
        batch = await log.read(0, 10, types={"alert"})
        told = [(stored.event.company, stored.event.data["state"]) for stored in batch.events]
        assert told == [("acme", "raised"), ("", "raised"), ("acme", "cleared")]


async def test_a_rule_of_another_version_is_left_alone(tmp_path: Path) -> None:
    async with open_database(tmp_path / "whatsappd.db") as database:
        alerts = SqliteAlerts(database, await open_event_log(database))
        await database.write(
            lambda conn: conn.execute("INSERT INTO open_alerts VALUES ('newer', '', 1, 'x')")
        )
        assert await alerts.all() == {}
