"""Keys that older versions logged, and how they are taken out of a database: see migration 14.

`wire.account_keys` tells which messages hold any. Backups that were made before have them still.
"""

from __future__ import annotations

import sqlite3

import structlog

from whatsappd.errors import Malformed, TooLarge
from whatsappd.store.sqlite.sqlite_errors import as_store_failed
from whatsappd.wire.account_keys import is_plumbing, without_keys
from whatsappd.wire.frames import pack, unpack
from whatsappd.wire.shortening import marked

log = structlog.get_logger()


def add_functions(conn: sqlite3.Connection) -> None:
    """What migrations call."""
    conn.create_function("without_keys", 1, event_without_keys, deterministic=True)


def event_without_keys(packed: bytes) -> bytes:
    """A packed event without the keys in its `raw`; as it is, if there are none."""
    try:
        event = unpack(packed)
        data = event["data"]
        raw = data["raw"]
        assert isinstance(raw, bytes)
    except (Malformed, TooLarge, TypeError, KeyError, AssertionError):
        return packed  # not as any version of ours wrote it
    try:
        kept = None if is_plumbing(raw) else without_keys(raw)
    except Malformed:  # nobody knows which keys are in it
        kept = None
    if kept == raw:
        return packed
    if kept is not None:
        return pack({**event, "data": {**data, "raw": kept}})
    rest = {name: value for name, value in data.items() if name != "raw"}
    if not isinstance(rest.get("shortened", {}), dict):
        del rest["shortened"]  # as older versions wrote it
    return pack({**event, "data": marked(rest, {"raw": len(raw)}, set())})


def erase_what_is_due(conn: sqlite3.Connection) -> None:
    """Have the file written anew, if a migration asked for it, so that nothing is left in pages and
    in a write-ahead log that are free.

    It takes as much room as the database again, for a while. Where there is none, it is tried at
    the next start.
    """
    try:
        if not conn.execute("SELECT count(*) FROM erasures_due").fetchone()[0]:
            return
        log.info("database_written_anew", why="what was deleted is erased")
        conn.execute("VACUUM")
        (is_busy, *_) = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if not is_busy:
            conn.execute("DELETE FROM erasures_due")
    except sqlite3.Error as error:
        reason = as_store_failed(error)
        if reason is None:
            raise
        log.warning("database_not_written_anew", reason=reason.message)
