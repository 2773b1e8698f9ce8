"""Converts events that versions before 2026-12 logged into the present form.

Such events lie in logs and in spools. They named chats and people by one JID each, with the other
one beside it (`sender_alt`, `recipient_alt`), and a content by its protobuf field alone.
"""

from __future__ import annotations

from typing import Any

import msgspec

from whatsappd.model.content import MAX_TEXT, Receivable, Text, Unsupported
from whatsappd.model.jid import Jid, parse_jid
from whatsappd.model.message import source_of

#: What an event has that was written before, and none since.
_MARKS = ("sender_alt", "recipient_alt", "is_group")
_PLAIN_TEXTS = ("conversation", "extendedText")
#: How the marks of `wire.shortening` name fields now.
_RENAMED = {"text": "content.text", "push_name": "sender.name", "raw": "content.raw"}


def in_todays_shape(data: dict[str, Any]) -> dict[str, Any]:
    """The data of an event about a message or a receipt; itself if it is of today already."""
    if not all(mark in data for mark in _MARKS):
        return data
    name = _text_or_none(data.get("push_name"))
    source = source_of(
        chat=_jid(data.get("chat")),
        sender=_jid(data.get("sender")),
        sender_alt=_jid(data["sender_alt"]),
        recipient_alt=_jid(data["recipient_alt"]),
        from_me=bool(data.get("from_me")),
        name=name,
    )
    rest = {key: value for key, value in data.items() if key not in (*_MARKS, "push_name", "raw")}
    told = {**rest, **msgspec.to_builtins(source)}
    if isinstance(shortened := data.get("shortened"), dict):
        told["shortened"] = {_RENAMED.get(key, key): size for key, size in shortened.items()}
    if isinstance(data.get("content"), str):
        told |= _message(data, told.get("shortened", {}))
    return told


def _message(data: dict[str, Any], shortened: dict[str, Any]) -> dict[str, Any]:
    """What a message has beside its source."""
    text, raw = _text_or_none(data.get("text")) or "", data.get("raw")
    content: Receivable = Unsupported(
        data["content"], text, raw if isinstance(raw, bytes) else None
    )
    told: dict[str, Any] = {}
    if text and data["content"] in _PLAIN_TEXTS:
        content = Text(text[:MAX_TEXT])
        if len(text) > MAX_TEXT:
            told["shortened"] = {"content.text": len(text.encode()), **shortened}
    return {
        **told,
        "content": content.as_wire(),
        "reply_to": None,
        "mentions": [],
        "forwarded": 0,
        "expires_s": 0,
        "view_once": False,
    }


def _jid(address: Any) -> Jid | None:
    try:
        return parse_jid(address) if isinstance(address, str) else None
    except ValueError:
        return None


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
