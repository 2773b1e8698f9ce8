"""Finds out from the account's own database whether a message without an answer was sent.

Every attempt carries a secret of the daemon's choosing (`messageContextInfo.messageSecret`), which
whatsmeow stores with the message's id before the frame leaves (`send.go`, PutMessageSecret). So a
secret that is there belongs to a message that may have left, and names its id; one that is not
there never got that far. It proves nothing when the account was unlinked since, because whatsmeow
then deletes its secrets, nor when the file is none of whatsmeow's.

The daemon reads, never the worker: a process that holds two SQLite libraries (Go's and Python's)
loses the locks of one when the other closes the file (sqlite.org/howtocorrupt.html, section 2.2.1).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

import structlog
import trio

from whatsappd.engines.port import AttemptEvidence
from whatsappd.errors import StoreFailed
from whatsappd.store.sqlite.account_database import connect_account

log = structlog.get_logger()

#: Seconds for looking everything up. A million secrets take one.
_WITHIN_S = 10.0
#: The longest id of a message that is believed; real ones have 32 characters.
_MAX_ID = 256


async def find_attempts(
    database: Path, secrets: Collection[bytes], *, jid: str | None
) -> AttemptEvidence:
    """Look `secrets` up in the account's database, which its worker may be using.

    Args:
        jid: the linked device's, at the time of the attempts; None: there is none any more.

    Raises:
        StoreFailed: the database cannot be read; nothing is known then.
    """
    if not secrets:
        return AttemptEvidence({}, proves_absence=False)
    try:
        return await trio.to_thread.run_sync(_find, database, secrets, jid)
    except sqlite3.Error as error:
        raise StoreFailed(f"{database} cannot be read: {error}") from error


def _find(database: Path, secrets: Collection[bytes], jid: str | None) -> AttemptEvidence:
    """The file is the worker's, and may be made to do harm: see `connect_account`."""
    if not database.exists():
        return AttemptEvidence({}, proves_absence=False)
    found: dict[bytes, str] = {}
    try:
        with closing(connect_account(database, within_s=_WITHIN_S)) as connection:
            connection.execute("BEGIN")  # one moment for all of it
            is_linked = connection.execute(
                "SELECT 1 FROM whatsmeow_device WHERE jid = ? LIMIT 1", (jid,)
            ).fetchone()
            for secret in secrets:
                row = connection.execute(
                    "SELECT message_id FROM whatsmeow_message_secrets WHERE key = ?"
                    " ORDER BY rowid DESC LIMIT 1",  # no index has it, but it is among the newest
                    (secret,),
                ).fetchone()
                if row is None:
                    continue
                if not isinstance(row[0], str) or len(row[0]) > _MAX_ID:
                    raise sqlite3.DatabaseError("an id of a message is none")
                found[secret] = row[0]
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and not _took_too_long(error):
            raise  # busy, or the disk: another time it may be read
        log.warning("account_not_believed", database=str(database), reason=str(error))
        return AttemptEvidence(
            {}, proves_absence=False, why_not="the account's database cannot be read"
        )
    return AttemptEvidence(found, proves_absence=is_linked is not None)


def _took_too_long(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT
