"""Reading the outbox: what may be sent next, lists, and what a restart must know.

Statements only, for the outbox's parts, which run them on a reader.
"""

from __future__ import annotations

import heapq
import itertools
import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from whatsappd.model.jid import LID_SERVER, USER_SERVER
from whatsappd.model.message import OutboxState, Row
from whatsappd.rules.outreach_pause import LONGEST_PAUSE_MS
from whatsappd.store import outbox_ids
from whatsappd.store.outbox_bytes import COUNTED, OVERHEAD, OutboxBytes
from whatsappd.store.sqlite import outbox_rows

#: No row is postponed for longer; one that seems to be, a clock did that was ahead, and it may go.
LONGEST_WAIT_MS = LONGEST_PAUSE_MS

# Conditions on a row of the outbox: its chat is one person's, and somebody the company knows.
_IS_PERSON = f"(chat LIKE '%@{USER_SERVER}' OR chat LIKE '%@{LID_SERVER}')"
_IS_KNOWN = (
    "EXISTS (SELECT 1 FROM contacts"
    " WHERE contacts.company = outbox.company AND contacts.chat = outbox.chat)"
)


class Loaded(NamedTuple):
    """What the outbox keeps in memory."""

    last_id: int
    counts: dict[str, Counter[OutboxState]]


def load(conn: sqlite3.Connection) -> Loaded:
    (last_id,) = conn.execute("SELECT coalesce(max(id), 0) FROM outbox").fetchone()
    counts: dict[str, Counter[OutboxState]] = {}
    for company, state, count in conn.execute(
        "SELECT company, state, count(*) FROM outbox GROUP BY company, state"
    ):
        counts.setdefault(company, Counter())[OutboxState(state)] = count
    return Loaded(last_id, counts)


def pending(
    conn: sqlite3.Connection,
    company: str,
    limit: int,
    now_ms: int,
    *,
    only: Collection[str] | None,
    without: Collection[str],
    known_only: bool,
    others_first: bool = False,
) -> list[Row]:
    """The queued rows that may be sent now, oldest first: answers, or others if there are none.

    Order is kept per chat: a row that is being sent, or waits for its next try, holds back the
    later ones of its chat, and no others.

    Args:
        only: these chats, if given.
        without: chats to leave out.
        known_only: leave out people with whom the company never exchanged a message.
        others_first: others, or answers if there are none.
    """
    # The oldest row that holds back each chat.
    blocked: dict[str, int] = {}
    for query, values in (
        (
            "SELECT chat, id FROM outbox WHERE company = ? AND state = 'sending'",
            (company,),
        ),
        (
            "SELECT chat, id FROM outbox WHERE company = ? AND not_before_ms > 0"
            " AND not_before_ms > ? AND not_before_ms <= ? AND state = 'queued'"
            " AND (expires_ms IS NULL OR expires_ms > ?)",
            (company, now_ms, now_ms + LONGEST_WAIT_MS, now_ms),
        ),
    ):
        for chat, row_id in conn.execute(query, values):
            blocked[chat] = min(row_id, blocked.get(chat, row_id))
    query = "company = ? AND state = 'queued' AND (expires_ms IS NULL OR expires_ms > ?)"
    asked: list[Any] = [company, now_ms]
    if only is not None:
        query += " AND chat IN (SELECT value FROM json_each(?))"
        asked.append(json.dumps(list(only)))
    if without:
        query += " AND chat NOT IN (SELECT value FROM json_each(?))"
        asked.append(json.dumps(list(without)))
    if known_only:
        query += f" AND ({_IS_KNOWN} OR NOT {_IS_PERSON})"
    for is_reply in (0, 1) if others_first else (1, 0):
        found: list[Row] = []
        # Answers are few among many: without their own index, all rows would be looked at.
        table = "outbox INDEXED BY outbox_replies" if is_reply else "outbox"
        for columns in conn.execute(
            f"SELECT {outbox_rows.COLUMNS} FROM {table} WHERE {query}"  # noqa: S608 - our own words
            f" AND is_reply = {is_reply} ORDER BY id",
            asked,
        ):
            row = outbox_rows.as_row(columns)
            if columns[0] < blocked.get(row.chat, 1 << 63):
                found.append(row)
                if len(found) == limit:
                    break
        if found:
            return found
    return []


def next_due_ms(conn: sqlite3.Connection, company: str, now_ms: int) -> int | None:
    """When the next row that waits for its next try may be sent."""
    (due,) = conn.execute(
        "SELECT min(not_before_ms) FROM outbox WHERE company = ? AND not_before_ms > 0"
        " AND not_before_ms > ? AND not_before_ms <= ?",
        (company, now_ms, now_ms + LONGEST_WAIT_MS),
    ).fetchone()
    return None if due is None else int(due)


def still_queued(conn: sqlite3.Connection, row_ids: Collection[str], now_ms: int) -> set[str]:
    found = conn.execute(
        "SELECT id FROM outbox WHERE id IN (SELECT value FROM json_each(?)) AND state = 'queued'"
        " AND (expires_ms IS NULL OR expires_ms > ?)",
        (json.dumps([outbox_ids.id_as_number(row_id) for row_id in row_ids]), now_ms),
    )
    return {outbox_ids.id_as_text(number) for (number,) in found}


def list_rows(
    conn: sqlite3.Connection,
    among: Collection[tuple[str, OutboxState]] | None,
    before: int | None,
    after: int | None,
    limit: int,
) -> list[Row]:
    """Newest first; oldest first behind `after`.

    Args:
        among: rows of these companies in these states. None: all rows.
    """
    first, last = 0 if after is None else after + 1, (1 << 63) - 1 if before is None else before - 1
    order = "DESC" if after is None else "ASC"
    if among is None:
        found = conn.execute(
            f"SELECT {outbox_rows.COLUMNS} FROM outbox WHERE id BETWEEN ? AND ?"  # noqa: S608 - ours
            f" ORDER BY id {order} LIMIT ?",
            (first, last, limit),
        )
        return [outbox_rows.as_row(columns) for columns in found]
    # The index has the rows of each company and state in order. To merge these runs costs one look
    # into the index for each, and sorts nothing.
    ids = (
        f"SELECT id FROM outbox WHERE company = ? AND state = ? AND id BETWEEN ? AND ?"  # noqa: S608
        f" ORDER BY id {order} LIMIT ?"
    )
    runs = [conn.execute(ids, (*pair, first, last, limit)) for pair in among]
    merged = heapq.merge(*runs, reverse=after is None)
    return [
        outbox_rows.as_row(conn.execute(outbox_rows.SELECT_BY_ID, row_id).fetchone())
        for row_id in itertools.islice(merged, limit)
    ]


def oldest_queued(conn: sqlite3.Connection, companies: Iterable[str]) -> dict[str, int]:
    """When the head of each company's queue was accepted; those without a queue are left out."""
    sql = "SELECT created_ms FROM outbox WHERE company = ? AND state = 'queued' ORDER BY id LIMIT 1"
    heads = ((company, conn.execute(sql, (company,)).fetchone()) for company in companies)
    return {company: int(head[0]) for company, head in heads if head is not None}


def sent_times(conn: sqlite3.Connection, company: str, since_ms: int) -> list[tuple[str, int]]:
    return conn.execute(
        "SELECT chat, handed_ms FROM outbox WHERE company = ? AND handed_ms IS NOT NULL"
        " AND handed_ms >= ? ORDER BY handed_ms",
        (company, since_ms),
    ).fetchall()


def unconfirmed(conn: sqlite3.Connection, company: str, since_ms: int) -> int:
    """How many rows that were handed to WhatsApp since then have no receipt yet."""
    [count] = conn.execute(
        "SELECT count(*) FROM outbox WHERE company = ? AND handed_ms >= ? AND state = ?",
        (company, since_ms, OutboxState.SENT),
    ).fetchone()
    return int(count)


def cold_times(conn: sqlite3.Connection, company: str, since_ms: int, limit: int) -> list[int]:
    """The newest `limit`."""
    return [
        handed_ms
        for (handed_ms,) in conn.execute(
            "SELECT handed_ms FROM outbox LEFT JOIN contacts USING (company, chat)"  # noqa: S608
            " WHERE company = ? AND handed_ms >= ? AND (since_ms IS NULL OR since_ms >= handed_ms)"
            f" AND {_IS_PERSON} ORDER BY handed_ms DESC LIMIT ?",
            (company, since_ms, limit),
        )
    ]


def interrupted(
    conn: sqlite3.Connection, company: str | None
) -> list[tuple[Row, bytes, str | None]]:
    """Rows with an attempt whose fate and message id are unknown, with its secret and boot."""
    # By company also for all of them: the index begins with it.
    companies = "SELECT DISTINCT company FROM outbox" if company is None else "SELECT ?"
    found = conn.execute(
        f"SELECT {outbox_rows.COLUMNS}, secret, boot_id FROM outbox"  # noqa: S608 - our own column names
        f" WHERE company IN ({companies}) AND state IN ('sending', 'uncertain')"
        " AND (state = 'sending' OR message_id IS NULL) AND secret IS NOT NULL ORDER BY id",
        () if company is None else (company,),
    )
    return [(outbox_rows.as_row(columns[:-2]), *columns[-2:]) for columns in found]


def load_bytes(conn: sqlite3.Connection, companies: Iterable[str], held: OutboxBytes) -> None:
    """Counts what is on disk of messages that never left."""
    states = ", ".join(f"'{state}'" for state in sorted(COUNTED))
    sql = (
        "SELECT owner, sum(length(CAST(content AS BLOB))), count(*) FROM outbox"  # noqa: S608 - ours
        f" WHERE company = ? AND state IN ({states}) GROUP BY owner"
    )
    for company in companies:
        for owner, size, count in conn.execute(sql, (company,)):
            held.add(company, owner, size + count * OVERHEAD)
