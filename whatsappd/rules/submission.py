"""Reasons to refuse a message: its key was used for another message, or the queue is full."""

from __future__ import annotations

from whatsappd.errors import KeyConflict, QueueFull
from whatsappd.model.message import NewMessage, Row


def check_repetition(known: Row, new: NewMessage) -> None:
    """Whether `new` is the message that `known` was made of, which has the same key.

    Raises:
        KeyConflict: it has other content.
    """
    if known.content == new.content and new.chat in (known.recipient, known.chat):
        return
    raise KeyConflict(
        f"key {new.key!r:.80} was used for another message ({known.id}): "
        "give each message a key of its own",
        key=new.key,
        id=known.id,
    )


def queue_full(company: str, waiting: int, limit: int) -> QueueFull:
    """The error for one more message of a company that has `waiting` queued messages."""
    return QueueFull(
        f"{waiting} messages of {company} wait to be sent, and the limit is "
        f"{limit}: wait until some were sent, or cancel some",
        queued=waiting,
        limit=limit,
    )
