"""Named consumers: cursors that the daemon keeps for subscribers who come back.

Statements only, for `store.events`, which runs them in the writer thread or on a reader.
"""

from __future__ import annotations

import re
import sqlite3
from typing import Any, NamedTuple

from whatsappd.errors import InvalidParams, UnknownConsumer
from whatsappd.model.consumer import is_webhook, owner_of

_NAME = re.compile(r"[A-Za-z0-9._:@-]{1,64}\Z")
#: Each is a row that somebody means to come back for; more of them is a script gone wrong. Shared
#: ones, and those of one user or one key: nobody fills up the room of others. Webhooks have a bound
#: of their own.
MAX_CONSUMERS = 1000
MAX_OWN = 100

#: Of `name`: those that are nobody's own, and no webhook's.
_SHARED = "name NOT GLOB 'key:*:*' AND name NOT GLOB 'uid:*:*' AND name NOT GLOB 'webhook:*'"


class Consumer(NamedTuple):
    """A named cursor: `cursor` is the seq of the last event it acknowledged."""

    name: str
    cursor: int
    created_ms: int
    acked_ms: int

    def as_wire(self) -> dict[str, Any]:
        return self._asdict()


def validate_name(name: str) -> str:
    """`name` if it can name a consumer, else InvalidParams."""
    if _NAME.match(name):
        return name
    raise InvalidParams(
        f"consumer: {name!r:.80} is no consumer's name: use 1 to 64 characters of "
        "A-Z, a-z, 0-9 and '._:@-'",
        field="consumer",
    )


def find(conn: sqlite3.Connection, name: str) -> Consumer | None:
    row = conn.execute("SELECT * FROM consumers WHERE name = ?", (name,)).fetchone()
    return None if row is None else Consumer(*row)


def find_or_create(conn: sqlite3.Connection, name: str, cursor: int, now_ms: int) -> Consumer:
    """The consumer; a new one begins at `cursor`.

    Raises:
        InvalidParams: its owner has too many.
    """
    found = find(conn, name)
    if found is not None:
        return found
    if not is_webhook(name):
        _check_room(conn, owner_of(name))
    made = Consumer(name, cursor, now_ms, now_ms)
    conn.execute("INSERT INTO consumers VALUES (?, ?, ?, ?)", made)
    return made


def _check_room(conn: sqlite3.Connection, owner: str | None) -> None:
    limit, whose, condition, values = MAX_CONSUMERS, "", _SHARED, []
    if owner is not None:
        limit, whose, condition, values = MAX_OWN, f" of {owner}", "name GLOB ?", [f"{owner}:*"]
    sql = f"SELECT count(*) FROM consumers WHERE {condition}"  # noqa: S608 - ours
    (count,) = conn.execute(sql, values).fetchone()
    if count >= limit:
        raise InvalidParams(
            f"consumer: there are {count} consumers{whose} already: forget those that nobody uses "
            "(`whatsappctl events forget NAME`)",
            field="consumer",
        )


def acknowledge(conn: sqlite3.Connection, name: str, seq: int, now_ms: int) -> int:
    """Moves the cursor to `seq`, never back; returns where it is."""
    found = find(conn, name)
    if found is None:
        raise unknown(name)
    cursor = max(found.cursor, seq)
    conn.execute(
        "UPDATE consumers SET cursor = ?, acked_ms = ? WHERE name = ?", (cursor, now_ms, name)
    )
    return cursor


def forget(conn: sqlite3.Connection, name: str) -> None:
    if conn.execute("DELETE FROM consumers WHERE name = ?", (name,)).rowcount == 0:
        raise unknown(name)


def forget_own(conn: sqlite3.Connection, owner: str) -> None:
    """Removes all that `owner`, such as `key:ID`, had of its own."""
    conn.execute("DELETE FROM consumers WHERE name GLOB ?", (f"{owner}:*",))


def list_all(conn: sqlite3.Connection) -> list[Consumer]:
    return [Consumer(*row) for row in conn.execute("SELECT * FROM consumers ORDER BY name")]


def unknown(name: str) -> UnknownConsumer:
    return UnknownConsumer(
        f"there is no consumer {name!r:.80}: `events.subscribe` with its name makes one",
        consumer=name,
    )
