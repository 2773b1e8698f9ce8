"""The outbox of one database: its parts, by who uses them, and what they share.

`accept` and the rest are in `outbox_submissions`, `outbox_handovers`, `outbox_view` and
`outbox_maintenance`; all of them change rows by `outbox_writes`, in the writer thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from whatsappd.clock import boot_id, now_ms, settled_ms
from whatsappd.store.outbox_bytes import OutboxBytes
from whatsappd.store.outbox_counts import OutboxCounts
from whatsappd.store.sqlite import outbox_reads
from whatsappd.store.sqlite.database import Database
from whatsappd.store.sqlite.event_log import SqliteEventLog
from whatsappd.store.sqlite.outbox_handovers import SqliteHandovers
from whatsappd.store.sqlite.outbox_maintenance import SqliteOutboxMaintenance
from whatsappd.store.sqlite.outbox_submissions import SqliteSubmissions
from whatsappd.store.sqlite.outbox_view import SqliteOutboxView
from whatsappd.store.sqlite.outbox_writes import OutboxWrites


class SqliteOutbox(NamedTuple):
    """`writes` is for those in the store who change rows in transactions of their own."""

    submissions: SqliteSubmissions
    handovers: SqliteHandovers
    view: SqliteOutboxView
    maintenance: SqliteOutboxMaintenance
    writes: OutboxWrites
    bytes: OutboxBytes


async def open_outbox(
    database: Database,
    log: SqliteEventLog,
    *,
    clock: Callable[[], int] | None = None,
    boot: str | None = None,
) -> SqliteOutbox:
    """The outbox of `database`. Call it once per database, after `open_event_log`.

    Args:
        clock: epoch milliseconds. Without one, rows tell people the wall clock's time, and what
            is decided goes by `settled_ms`.
        boot: names the boot of the host; without one, `clock.boot_id` does.
    """
    loaded = await database.read(outbox_reads.load)
    held = OutboxBytes()
    await database.read(lambda conn: outbox_reads.load_bytes(conn, loaded.counts, held))
    counts = OutboxCounts(loaded.counts)
    writes = OutboxWrites(log, loaded, held, clock=clock or now_ms, publish=counts.publish)
    database.attach(writes)
    decides_by = clock or settled_ms
    return SqliteOutbox(
        SqliteSubmissions(database, writes),
        SqliteHandovers(database, writes, counts, decides_by, boot or boot_id()),
        SqliteOutboxView(database, counts, held, decides_by),
        SqliteOutboxMaintenance(database, writes, counts, decides_by),
        writes,
        held,
    )
