"""The data of a received message, as workers make it today, and as they did before."""

from __future__ import annotations

from typing import Any

#: As `engines.neonize.worker.decode_events` makes it.
MESSAGE: dict[str, Any] = {
    "chat": {"jid": "1@lid", "lid": "1@lid", "phone": None, "name": None, "type": "person"},
    "sender": {"jid": "1@lid", "lid": "1@lid", "phone": None, "name": None},
    **{"from_me": False, "device": 0, "origin": None, "message_id": "A", "timestamp_ms": 1},
    "content": {"kind": "text", "text": "Hello"},
    **{"reply_to": None, "mentions": [], "forwarded": 0, "expires_s": 0, "view_once": False},
    **{"edit": None, "retry_count": 0},
}
#: The part of it that receipts have, too.
SOURCE = {name: MESSAGE[name] for name in ("chat", "sender", "from_me", "device", "origin")}
#: As versions before 2026-12 made it.
OLDER_MESSAGE: dict[str, Any] = {
    **{"message_id": "A", "timestamp_ms": 1, "push_name": None, "content": "conversation"},
    **{"text": "Hello", "edit": None, "retry_count": 0, "chat": "1@lid", "sender": "1@lid"},
    **{"sender_alt": None, "recipient_alt": None, "from_me": False, "is_group": False},
}


def saying(text: str, **changed: Any) -> dict[str, Any]:
    return {**MESSAGE, "content": {"kind": "text", "text": text}, **changed}
