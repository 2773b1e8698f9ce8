"""The outbox table's statements: rows to columns and back.

All that reads or changes the table goes through it. A row's `id` is an integer on disk (it is the
table's order) and 16 hex digits everywhere else.
"""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from whatsappd.errors import unknown_message
from whatsappd.model.content import Sendable
from whatsappd.model.message import OnUncertain, OutboxState, Row
from whatsappd.store import outbox_ids

COLUMNS = ", ".join(Row._fields)
_VALUES = ", ".join("?" * len(Row._fields))
_decoder = msgspec.json.Decoder(Sendable)

_SELECT = f"SELECT {COLUMNS} FROM outbox"  # noqa: S608 - our own column names
SELECT_BY_ID = f"{_SELECT} WHERE id = ?"
SELECT_BY_KEY = f"{_SELECT} WHERE company = ? AND key = ?"
SELECT_BY_MESSAGE = f"{_SELECT} WHERE company = ? AND message_id = ?"
SELECT_BY_FORMER = f"{_SELECT} WHERE company = ? AND former_message_id = ?"
SELECT_OPEN_OF_CHAT = (
    f"{_SELECT} WHERE company = ? AND chat = ? AND state IN ('queued', 'sending', 'uncertain')"
)
SELECT_BY_STATE = f"{_SELECT} WHERE company = ? AND state = ? ORDER BY id"
INSERT = (
    f"INSERT INTO outbox ({COLUMNS}) VALUES ({_VALUES})"  # noqa: S608 - our own
    " ON CONFLICT (company, key) WHERE key IS NOT NULL DO NOTHING"
)


def packed(content: Sendable) -> bytes:
    """A content as it is stored, in UTF-8.

    JSON, because SQLite looks into it (the column `kind`, and migrations), and people can read it.
    """
    return msgspec.json.encode(content)


def as_row(columns: tuple[Any, ...]) -> Row:
    row = Row._make(columns)
    return row._replace(
        id=outbox_ids.id_as_text(columns[0]),
        content=_decoder.decode(row.content),  # type: ignore[arg-type]  # JSON until here
        state=OutboxState(row.state),
        on_uncertain=OnUncertain(row.on_uncertain),
        is_reply=bool(row.is_reply),
    )


def find(conn: sqlite3.Connection, query: str, *values: Any) -> Row | None:
    """The one row that `query` (one of the SELECTs above) finds."""
    columns = conn.execute(query, values).fetchone()
    return None if columns is None else as_row(columns)


def find_open(conn: sqlite3.Connection, company: str, chat: str) -> list[Row]:
    """The rows to a chat of which something is left to do or to decide, oldest first."""
    found = conn.execute(f"{SELECT_OPEN_OF_CHAT} ORDER BY id", (company, chat))
    return [as_row(columns) for columns in found]


def get(conn: sqlite3.Connection, row_id: str) -> Row:
    """The row. Raises UnknownMessage."""
    row = find(conn, SELECT_BY_ID, outbox_ids.id_as_number(row_id))
    if row is None:
        raise unknown_message(row_id)
    return row


def insert(conn: sqlite3.Connection, row: Row) -> bool:
    """Whether the row is new: not if its key was used before."""
    stored = row._replace(id=int(row.id, 16), content=packed(row.content).decode())  # type: ignore[arg-type]
    return conn.execute(INSERT, stored).rowcount == 1


def update(conn: sqlite3.Connection, row: Row, changes: dict[str, Any]) -> Row:
    """Writes `changes` (by column) to the row; returns it changed."""
    assignments = ", ".join(f"{column} = ?" for column in changes)
    conn.execute(
        f"UPDATE outbox SET {assignments} WHERE id = ?",  # noqa: S608 - our own column names
        (*changes.values(), int(row.id, 16)),
    )
    return row._replace(**changes)


def put_attempt(conn: sqlite3.Connection, row: Row, secret: bytes | None, boot: str | None) -> None:
    """Stores the secret of the row's last attempt, and the boot of the host that it was made under.

    No secret: nobody will ask for it again.
    """
    conn.execute(
        "UPDATE outbox SET secret = ?, boot_id = ? WHERE id = ?", (secret, boot, int(row.id, 16))
    )


def doubt_open_rows(copy: sqlite3.Connection) -> None:
    """In a backup: what waited to be sent will have been sent by the time of a restore.

    So a daemon that goes on from it asks, rather than sends again: but for rows whose senders chose
    a duplicate. The attempts' secrets go, because later attempts had others.
    """
    reason = "restored from a backup: it may have been sent since"
    copy.execute(
        "UPDATE outbox SET state = 'uncertain', reason = ?, not_before_ms = 0,"
        " lost_attempts = lost_attempts + 1 WHERE state IN ('queued', 'sending')"
        " AND on_uncertain = 'ask'",
        (reason,),
    )
    copy.execute("UPDATE outbox SET state = 'queued' WHERE state = 'sending'")
    copy.execute("UPDATE outbox SET secret = NULL WHERE secret IS NOT NULL")
