"""Named consumers: cursors that the daemon keeps for subscribers who come back.

Webhooks and API keys have consumers too, and use the functions in their own transactions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from whatsappd.errors import UnknownConsumer
from whatsappd.model.consumer import Consumer, is_webhook, owner_of, validate_consumer
from whatsappd.rules.bounds import CONSUMERS, Bound, Holder, check_room
from whatsappd.store.sqlite.database import Database
from whatsappd.store.sqlite.event_log import SqliteEventLog

#: Each is a row that somebody means to come back for; more of them is a script gone wrong. Webhooks
#: have a bound of their own.
BOUND: Bound = CONSUMERS

_COLUMNS = "name, cursor, created_ms, acked_ms"
_NO_WEBHOOK = "name NOT GLOB 'webhook:*'"
#: Of `name`: those of root and the daemon's own user.
_BARE = f"{_NO_WEBHOOK} AND name NOT GLOB 'key:*:*' AND name NOT GLOB 'uid:*:*'"


class SqliteConsumers:
    """See `store.port.Consumers`."""

    def __init__(self, database: Database, log: SqliteEventLog, clock: Callable[[], int]) -> None:
        self._database = database
        self._log = log
        self._clock = clock

    async def place(self, name: str, after: int | None = None) -> int:
        validate_consumer(name)
        start = self._log.last_seq if after is None else self._log.existing(after, "after")
        found = await self._database.read(lambda conn: find(conn, name))
        if found is None:
            found = await self._database.write(
                lambda conn: find_or_create(conn, name, start, self._clock())
            )
        return found.cursor

    async def acknowledge(self, name: str, seq: int) -> int:
        self._log.existing(seq, "seq")
        return await self._database.write(lambda conn: acknowledge(conn, name, seq, self._clock()))

    async def all(self) -> list[Consumer]:
        return await self._database.read(_list_all)

    async def forget(self, name: str) -> None:
        await self._database.write(lambda conn: _forget(conn, name))

    async def count_by_owner(self) -> dict[str, int]:
        return await self._database.read(_count_by_owner)


def find(conn: sqlite3.Connection, name: str) -> Consumer | None:
    sql = f"SELECT {_COLUMNS} FROM consumers WHERE name = ?"  # noqa: S608 - ours
    row = conn.execute(sql, (name,)).fetchone()
    return None if row is None else Consumer(*row)


def find_or_create(conn: sqlite3.Connection, name: str, cursor: int, now_ms: int) -> Consumer:
    """The consumer; a new one begins at `cursor`.

    Before consumers had owners, everybody who might do everything shared the bare names. Whoever
    now comes for one of those for the first time gets one of their own that begins where the shared
    one was, so nobody misses an event; the shared one stays as it is.

    Raises:
        InvalidParams: its owner has too many.
    """
    found = find(conn, name)
    if found is not None:
        return found
    owner = owner_of(name)
    if not is_webhook(name):
        _check_room(conn, owner)
    if owner is not None:
        shared = conn.execute(
            "SELECT cursor FROM consumers JOIN shared_consumers USING (name) WHERE name = ?",
            (name.removeprefix(f"{owner}:"),),
        ).fetchone()
        if shared is not None:
            [cursor] = shared
    made = Consumer(name, cursor, now_ms, now_ms)
    conn.execute(
        f"INSERT INTO consumers ({_COLUMNS}) VALUES (?, ?, ?, ?)",  # noqa: S608 - ours
        made,
    )
    return made


def _check_room(conn: sqlite3.Connection, owner: str | None) -> None:
    is_ours = owner is None
    holder = Holder(owner or "uid:0", is_capped=not is_ours, may_use_kept=is_ours)
    own, values = (_BARE, []) if is_ours else ("name GLOB ?", [f"{owner}:*"])
    held, total = (
        conn.execute(f"SELECT count(*) FROM consumers WHERE {which}", bound).fetchone()[0]  # noqa: S608 - ours
        for which, bound in ((own, values), (_NO_WEBHOOK, []))
    )
    check_room(BOUND, holder, held, total)


def acknowledge(conn: sqlite3.Connection, name: str, seq: int, now_ms: int) -> int:
    """Moves the cursor to `seq`, never back; returns where it is. Raises UnknownConsumer."""
    found = find(conn, name)
    if found is None:
        raise unknown(name)
    cursor = max(found.cursor, seq)
    conn.execute(
        "UPDATE consumers SET cursor = ?, acked_ms = ? WHERE name = ?", (cursor, now_ms, name)
    )
    return cursor


def _forget(conn: sqlite3.Connection, name: str) -> None:
    if conn.execute("DELETE FROM consumers WHERE name = ?", (name,)).rowcount == 0:
        raise unknown(name)
    conn.execute("DELETE FROM shared_consumers WHERE name = ?", (name,))


def forget_own(conn: sqlite3.Connection, owner: str) -> None:
    """Removes all that `owner`, such as `key:ID`, had of its own."""
    conn.execute("DELETE FROM consumers WHERE name GLOB ?", (f"{owner}:*",))


def _list_all(conn: sqlite3.Connection) -> list[Consumer]:
    sql = f"SELECT {_COLUMNS} FROM consumers ORDER BY name"  # noqa: S608 - ours
    return [Consumer(*row) for row in conn.execute(sql)]


def _count_by_owner(conn: sqlite3.Connection) -> dict[str, int]:
    """How many each owner has; root's and the daemon's own user's are under `uid:0`."""
    counts: dict[str, int] = {}
    for (name,) in conn.execute(f"SELECT name FROM consumers WHERE {_NO_WEBHOOK}"):  # noqa: S608 - ours
        owner = owner_of(name) or "uid:0"
        counts[owner] = counts.get(owner, 0) + 1
    return counts


def unknown(name: str) -> UnknownConsumer:
    return UnknownConsumer(
        f"there is no consumer {name!r:.80}: `events.subscribe` with its name makes one",
        consumer=name,
    )
