"""Deleting the oldest events, a bounded step at a time. Called by `store.events`."""

from __future__ import annotations

import sqlite3

#: Events deleted in one transaction: about as long as a busy commit.
STEP = 500


def forget_step(
    conn: sqlite3.Connection, end: int, oldest_ms: int | None, max_bytes: int | None
) -> tuple[int, bool]:
    """Deletes up to STEP events that are older than `oldest_ms`, or beyond `max_bytes` counted
    from the log's `end`. Runs in the writer thread.

    Returns:
        The seq up to which everything is gone, and whether there may be more to delete.
    """
    (forgotten,) = conn.execute("SELECT forgotten_seq FROM event_log").fetchone()
    rows = conn.execute(
        "SELECT seq, time_ms, position, position + length(packed) FROM events ORDER BY seq LIMIT ?",
        (STEP,),
    ).fetchall()
    forgotten_end = None
    for seq, time_ms, position, row_end in rows:
        is_old = oldest_ms is not None and time_ms < oldest_ms
        is_too_much = max_bytes is not None and end - position > max_bytes
        if not is_old and not is_too_much:
            break
        forgotten, forgotten_end = seq, row_end
    if forgotten_end is None:
        return forgotten, False
    conn.execute("DELETE FROM events WHERE seq <= ?", (forgotten,))
    conn.execute(
        "UPDATE event_log SET forgotten_seq = ?, forgotten_end = ?", (forgotten, forgotten_end)
    )
    return forgotten, rows[-1][0] == forgotten
