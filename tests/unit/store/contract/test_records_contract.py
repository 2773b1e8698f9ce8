"""The audit trail's lines, open alerts, and how the store fares."""

from __future__ import annotations

from whatsappd.model.audit import AuditRecord
from whatsappd.model.event import ALERT
from whatsappd.rules.alerts import AlertChange, AlertFinding, AlertKey, AlertRule
from whatsappd.store.audit_trail import MAX_AGE_MS
from whatsappd.store.port import DaemonStore

DOWN = AlertKey(AlertRule.SESSION_DOWN, "acme")
FULL = AlertKey(AlertRule.DISK_NEARLY_FULL)


def line(time_ms: int, subject: str, company: str | None = "acme") -> AuditRecord:
    return AuditRecord(time_ms, "uid:0", 1, "message.send", company, subject, "ok")


async def test_lines_are_read_in_order_the_newest_or_those_behind_one(store: DaemonStore) -> None:
    lines = [line(MAX_AGE_MS + number, f"M{number}") for number in range(4)]
    await store.audit.append([*lines, line(MAX_AGE_MS + 9, "others", "globex")])
    newest = await store.audit.read(after=None, limit=2, company="acme")
    assert [each["subject"] for each in newest] == ["M2", "M3"]
    behind = await store.audit.read(after=newest[0]["id"], limit=9, company=None)
    assert [each["subject"] for each in behind] == ["M3", "others"]
    assert [each["subject"] for each in await store.audit.read(after=0, limit=2, company=None)] == [
        *("M0", "M1"),
    ]


async def test_lines_that_are_too_old_are_not_kept(store: DaemonStore) -> None:
    await store.audit.append([line(1, "old"), line(MAX_AGE_MS + 2, "new")])
    kept = await store.audit.read(after=0, limit=9, company=None)
    assert [each["subject"] for each in kept] == ["new"]


async def test_an_alert_is_open_until_it_is_cleared(store: DaemonStore) -> None:
    await store.companies.put_wanted("acme", True)
    raised = [AlertChange(DOWN, True, 5, "it is down"), AlertChange(FULL, True, 6, "1 % left")]
    await store.alerts.record(raised)
    assert await store.alerts.all() == {
        DOWN: AlertFinding(5, "it is down"),
        FULL: AlertFinding(6, "1 % left"),
    }
    await store.alerts.record([AlertChange(DOWN, False, 5, "it is back")])
    assert set(await store.alerts.all()) == {FULL}
    told = (await store.events.read(0, 9, types=[ALERT])).events
    assert [(each.company, each.event.data["state"]) for each in told] == [
        *(("acme", "raised"), ("", "raised"), ("acme", "cleared")),
    ]


async def test_a_sound_store_takes_writes_and_answers(store: DaemonStore) -> None:
    await store.health.probe()
    await store.health.answer()
    assert store.health.trouble is None
    assert store.events.last_seq == 0
