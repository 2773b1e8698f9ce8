"""Work on many rows, a slice at a time, so that those who send meanwhile notice little of it.

Each slice is a transaction of its own, sized by how long the last one took. After it the work
rests, so that it has the writer thread for at most a quarter of the time. Retention, expiry and
the removal of a company use this.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

import trio

from whatsappd.store.sqlite.database import Database

#: Seconds that one slice aims to take: about as long as a busy commit.
SLICE_S = 0.005
#: The part of the writer thread's time that work in slices gets, at the most.
SHARE = 0.25
#: Rows in one slice: the first one's, and the bounds of the others.
FIRST_ROWS, FEWEST_ROWS, MOST_ROWS = 100, 10, 2000


class Slice(NamedTuple):
    """What one slice did.

    `last` is where the next one goes on, in whatever form the work understands.
    """

    looked: int  # rows; fewer than it was allowed to look at: nothing is left
    done: int  # rows changed or deleted
    last: Any = None


#: `(conn, most, after)`: changes or deletes some of the next `most` rows behind `after`, which is
#: None for the first slice and then the `last` of the one before. Runs in the writer thread.
Work = Callable[[sqlite3.Connection, int, Any], Slice]


async def in_slices(database: Database, work: Work) -> int:
    """Repeats `work` until nothing is left; returns how many rows were changed or deleted.

    Cancelled, or if a slice fails, the slices before it stay done.

    Raises:
        StoreFailed: the disk refused a slice.
    """
    most, after, done = FIRST_ROWS, None, 0
    while True:
        began = perf_counter()
        took, found = await database.write(_timed(work, most, after))
        done, after = done + found.done, found.last
        if found.looked < most:
            return done
        most = _next_size(most, took)
        # The commit and what it waited for count too: they are what others wait for.
        await trio.sleep((perf_counter() - began) * (1 - SHARE) / SHARE)


def _timed(
    work: Work, most: int, after: Any
) -> Callable[[sqlite3.Connection], tuple[float, Slice]]:
    def write(conn: sqlite3.Connection) -> tuple[float, Slice]:
        began = perf_counter()
        found = work(conn, most, after)
        return perf_counter() - began, found

    return write


def _next_size(size: int, took_s: float) -> int:
    """Rows for the next slice, so that it takes about SLICE_S; at most twice as many."""
    fitting = size * SLICE_S / max(took_s, SLICE_S / 2)
    return max(FEWEST_ROWS, min(MOST_ROWS, round(fitting)))


def overwrite_deleted(conn: sqlite3.Connection) -> None:
    """What is deleted from here on is overwritten with zeros, whole pages included. (It stays so:
    deleting is rare enough for what that costs.)"""
    conn.execute("PRAGMA secure_delete = ON").fetchone()
