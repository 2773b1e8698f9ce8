"""What became of messages that an earlier worker was sending when it ended.

Every attempt carries a secret of the daemon's choosing (`messageContextInfo.messageSecret`), which
whatsmeow stores with the message's id before the frame leaves (`send.go`, PutMessageSecret). So
after a crash the account's own database tells: a secret that is there belongs to a message that
may have left, and names its id; one that is not there never got that far.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from pathlib import Path


def find_attempts(database: Path, secrets: Collection[bytes]) -> dict[bytes, str]:
    """The message ids of those attempts that whatsmeow began to send.

    Nobody else may be sending from this database meanwhile: hold the company's lock.

    Raises:
        sqlite3.Error: the database cannot be read; nothing is known then.
    """
    if not secrets or not database.exists():
        return {}
    connection = sqlite3.connect(f"file:{database.name}?mode=ro", uri=True)
    try:
        found: dict[bytes, str] = {}
        for secret in secrets:
            row = connection.execute(
                "SELECT message_id FROM whatsmeow_message_secrets WHERE key = ?", (secret,)
            ).fetchone()
            if row is not None:
                found[secret] = row[0]
        return found
    finally:
        connection.close()
