"""Which account an address means, as far as WhatsApp said: other spellings of a number, and LIDs.

Some numbers have an account under another number (Brazil's ninth digit, Mexico's 52 and 521,
Argentina's 54 and 549), and every person has a LID beside their number. One person is one chat, so
the outbox keeps rows under the account: the number where it is known, else the LID.

Statements only: `store.sqlite.outbox_writes` runs them, with what follows for the outbox's rows.
"""

from __future__ import annotations

import sqlite3

from whatsappd.model.jid import LID_SERVER

#: How long a look-up's answer is believed, in milliseconds: 30 days. A LID keeps its person.
FRESH_MS = 30 * 24 * 3600 * 1000


def account_of(conn: sqlite3.Connection, company: str, address: str, now_ms: int) -> str:
    """The account that `address` (a JID without a device) means; itself if nothing else is known.

    What was said too long ago counts as not known, so that it is asked again.
    """
    found = conn.execute(
        "SELECT account, checked_ms FROM aliases WHERE company = ? AND address = ?",
        (company, address),
    ).fetchone()
    if found is None:
        return address
    account, checked_ms = found
    is_fresh = abs(now_ms - checked_ms) < FRESH_MS or address.endswith(f"@{LID_SERVER}")
    return str(account) if is_fresh else address


def other_identity(conn: sqlite3.Connection, company: str, jid: str) -> str | None:
    """The phone number's JID of a LID, or the LID of a number; None: it is not known."""
    if jid.endswith(f"@{LID_SERVER}"):
        found = conn.execute(
            "SELECT account FROM aliases WHERE company = ? AND address = ?", (company, jid)
        ).fetchone()
        return None if found is None or found[0].endswith(f"@{LID_SERVER}") else str(found[0])
    found = conn.execute(
        "SELECT address FROM aliases WHERE company = ? AND account = ? AND address LIKE ?",
        (company, jid, f"%@{LID_SERVER}"),
    ).fetchone()
    return None if found is None else str(found[0])


def put(conn: sqlite3.Connection, company: str, address: str, account: str, now_ms: int) -> None:
    """WhatsApp says that `address` means `account`, which is an account of its own from now on."""
    conn.execute("DELETE FROM aliases WHERE company = ? AND address = ?", (company, account))
    conn.execute(
        "UPDATE aliases SET account = ? WHERE company = ? AND account = ?",
        (account, company, address),
    )
    conn.execute(
        "INSERT OR REPLACE INTO aliases (company, address, account, checked_ms)"
        " VALUES (?, ?, ?, ?)",
        (company, address, account, now_ms),
    )
