"""Accepting a message: the row it becomes, and reasons to refuse it (its key was used for another
message, or the queue is full)."""

from __future__ import annotations

from whatsappd.errors import KeyConflict, QueueFull
from whatsappd.model.message import NewMessage, OutboxState, Row
from whatsappd.rules.reply_priority import is_reply_to


def accepted_row(new: NewMessage, row_id: str, chat: str, now_ms: int, *, wrote_ms: int) -> Row:
    """The queued row of `new`, accepted at `now_ms`.

    Args:
        chat: the account that `new.chat` means.
        wrote_ms: when that account last wrote to the company; 0: never.
    """
    return Row(
        id=row_id,
        company=new.company,
        chat=chat,
        content=new.content,
        key=new.key,
        state=OutboxState.QUEUED,
        reason=None,
        attempts=0,
        not_before_ms=0,
        expires_ms=new.expires_ms,
        on_uncertain=new.on_uncertain,
        message_id=None,
        created_ms=now_ms,
        updated_ms=now_ms,
        sent_ms=None,
        owner=new.owner,
        asked=None if chat == new.chat else new.chat,
        is_reply=is_reply_to(wrote_ms, now_ms),
    )


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
