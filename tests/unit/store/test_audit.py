"""The audit trail: in order, bounded, written without making anybody wait."""

from __future__ import annotations

import trio

from whatsappd.errors import StoreFailed
from whatsappd.store import audit
from whatsappd.store.audit import AuditTrail, Line
from whatsappd.store.database import Database


def line(number: int, company: str | None = "acme") -> Line:
    return Line(number, "uid:0", 1, "message.send", company, f"m{number}", "ok")


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
    trail = AuditTrail(database)
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
    trail = AuditTrail(database)
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
    monkeypatch.setattr(audit, "RETRY_S", 0.01)
    monkeypatch.setattr(audit, "MAX_PENDING", 5)
    real = database.write
    refused = trio.Event()

    async def full(write):
        refused.set()
        raise StoreFailed("the disk is full")

    monkeypatch.setattr(database, "write", full)
    trail = AuditTrail(database)
    nursery.start_soon(trail.run)
    for number in range(8):
        trail.record(line(number))
    await refused.wait()
    monkeypatch.setattr(database, "write", real)
    lines = await written(trail, 5)
    assert [each["time_ms"] for each in lines] == [3, 4, 5, 6, 7]
    nursery.cancel_scope.cancel()


async def test_old_lines_go(database: Database, monkeypatch) -> None:
    monkeypatch.setattr(audit, "MAX_LINES", 10)
    monkeypatch.setattr(audit, "MAX_BATCH", 10)
    monkeypatch.setattr(audit, "_TRIM_EVERY", 10)
    trail = AuditTrail(database)
    for number in range(100):
        trail.record(line(number))
    await trail._flush()
    lines = await trail.read(after=0, limit=1000, company=None)
    assert [each["time_ms"] for each in lines] == list(range(90, 100))
