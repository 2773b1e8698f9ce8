"""The audit trail: in order, bounded, written without making anybody wait."""

from __future__ import annotations

import math

import trio
import trio.testing

from whatsappd.errors import StoreFailed
from whatsappd.model.audit import AuditRecord
from whatsappd.store import audit_trail
from whatsappd.store.audit_trail import AuditTrail
from whatsappd.store.sqlite import audit
from whatsappd.store.sqlite.audit import SqliteAuditRecords
from whatsappd.store.sqlite.database import Database


def line(number: int, company: str | None = "acme") -> AuditRecord:
    return AuditRecord(number, "uid:0", 1, "message.send", company, f"m{number}", "ok")


async def written(trail: AuditTrail, count: int) -> list[dict]:
    with trio.fail_after(10):
        while True:
            found = await trail.read(after=0, limit=10_000, company=None)
            if len(found) >= count:
                return found
            await trio.sleep(0.005)


async def test_lines_are_read_in_order_by_cursor_and_by_company(
    database: Database, nursery: trio.Nursery
) -> None:
    trail = AuditTrail(SqliteAuditRecords(database))
    nursery.start_soon(trail.run)
    for number in range(10):
        trail.record(line(number, "acme" if number % 2 else "globex"))
    lines = await written(trail, 10)
    assert [each["time_ms"] for each in lines] == list(range(10))
    assert await trail.read(after=lines[3]["id"], limit=2, company=None) == lines[4:6]
    assert await trail.read(after=None, limit=3, company=None) == lines[-3:]
    assert await trail.read(after=None, limit=2, company="acme") == [lines[7], lines[9]]
    nursery.cancel_scope.cancel()


async def test_what_is_pending_at_the_end_is_written(database: Database) -> None:
    trail = AuditTrail(SqliteAuditRecords(database))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trail.run)
        await trio.lowlevel.checkpoint()
        for number in range(2500):
            trail.record(line(number))
        nursery.cancel_scope.cancel()
    assert len(await trail.read(after=0, limit=10_000, company=None)) == 2500


async def test_lines_wait_for_a_full_disk_and_the_oldest_are_lost_first(
    database: Database, nursery: trio.Nursery, monkeypatch
) -> None:
    monkeypatch.setattr(audit_trail, "RETRY_S", 0.01)
    monkeypatch.setattr(audit_trail, "MAX_PENDING", 5)
    real = database.write
    refused = trio.Event()

    async def full(write):
        refused.set()
        raise StoreFailed("the disk is full")

    monkeypatch.setattr(database, "write", full)
    trail = AuditTrail(SqliteAuditRecords(database))
    nursery.start_soon(trail.run)
    for number in range(8):
        trail.record(line(number))
    await refused.wait()
    monkeypatch.setattr(database, "write", real)
    lines = await written(trail, 5)
    assert [each["time_ms"] for each in lines] == [3, 4, 5, 6, 7]
    nursery.cancel_scope.cancel()


async def test_old_lines_go(database: Database, monkeypatch) -> None:
    monkeypatch.setitem(audit_trail.MAX_LINES, "message", 10)
    monkeypatch.setattr(audit_trail, "MAX_BATCH", 10)
    monkeypatch.setattr(audit, "_TRIM_EVERY", 10)
    trail = AuditTrail(SqliteAuditRecords(database))
    for number in range(100):
        trail.record(line(number))
    await trail._flush()
    lines = await trail.read(after=0, limit=1000, company=None)
    assert [each["time_ms"] for each in lines] == list(range(90, 100))


async def test_no_flood_of_one_kind_pushes_out_the_others(
    database: Database, monkeypatch, autojump_clock
) -> None:
    for kind in audit_trail.MAX_LINES:
        monkeypatch.setitem(audit_trail.MAX_LINES, kind, 20)
    monkeypatch.setattr(audit, "_TRIM_EVERY", 1)
    trail = AuditTrail(SqliteAuditRecords(database))
    made = AuditRecord(1, "uid:0", 1, "key.create", None, "abc", "ok")
    trail.record(made)
    for number in range(500):
        trail.record(line(number))
        failed = line(number, f"company{number}")._replace(outcome="denied", actor=f"uid:{number}")
        trail.record(failed)
    await trail._flush()
    found = await trail.read(after=0, limit=1000, company=None)
    assert [each["method"] for each in found].count("key.create") == 1
    assert sum(each["outcome"] == "ok" for each in found) == 21
    assert sum(each["outcome"] == "denied" for each in found) == 20


async def test_what_is_repeated_is_counted_and_not_written_again_and_again(
    database: Database, monkeypatch
) -> None:
    clock = trio.testing.MockClock()
    monkeypatch.setattr(trio, "current_time", clock.current_time)
    trail = AuditTrail(SqliteAuditRecords(database))
    refused = line(1)._replace(outcome="denied")
    for _ in range(1000):
        trail.record(refused)
        trail.record(refused._replace(method="session.stop"))
    clock.jump(audit_trail.REPEATS_FOR + 1)
    trail._sum_up(clock.current_time() - audit_trail.REPEATS_FOR)
    trail.record(refused)
    await trail._flush()
    found = await trail.read(after=0, limit=1000, company=None)
    assert [(each["method"], each["times"]) for each in found] == [
        ("message.send", 1), ("session.stop", 1), ("message.send", 999), ("session.stop", 999),
        ("message.send", 1),
    ]  # fmt: skip


async def test_a_caller_who_fails_in_ever_new_ways_gets_few_lines(database: Database) -> None:
    trail = AuditTrail(SqliteAuditRecords(database))
    for number in range(20_000):
        trail.record(line(number, f"company{number}")._replace(outcome="denied"))
    other = line(1, "globex")._replace(outcome="denied", actor="uid:1001")
    trail.record(other)
    trail._sum_up(math.inf)
    await trail._flush()
    found = await trail.read(after=0, limit=1000, company=None)
    own = [each for each in found if each["actor"] == "uid:0"]
    assert len(own) < 40
    assert sum(each["times"] for each in own) == 20_000
    assert (own[-1]["method"], own[-1]["outcome"]) == ("*", "several")
    assert [each["company"] for each in found if each["actor"] == "uid:1001"] == ["globex"]
