"""The event that tells of a message's change."""

from __future__ import annotations

from whatsappd.model.event import OUTBOX_STATE, Draft
from whatsappd.model.message import OutboxState, Row


def outbox_event(previous: OutboxState | None, cause: str, row: Row) -> Draft:
    """Of the content only its kind: events are kept and forwarded more widely than messages."""
    return Draft(
        row.company,
        OUTBOX_STATE,
        {
            "id": row.id,
            "key": row.key,
            "kind": row.content.kind,
            "chat": row.chat,
            "asked": row.asked,
            "state": str(row.state),
            "previous": None if previous is None else str(previous),
            "cause": cause,
            "reason": row.reason,
            "message_id": row.message_id,
            "former_message_id": row.former_message_id,
            "attempts": row.attempts,
            "not_before_ms": row.not_before_ms,
            "sent_ms": row.sent_ms,
        },
    )
