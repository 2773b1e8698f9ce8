"""neonize's protobuf events as plain maps: no protobuf object leaves the worker.

Times become integer milliseconds since the epoch, JIDs strings. Each function's result is the
`data` of the `wire.worker.Kind` it serves.
"""

from __future__ import annotations

from typing import Any

from whatsappd.model.jid import Jid

#: The receipt types that whatsmeow tells apart, by neonize's enum number. "inactive" is a delivery
#: to a device whose user is away: it was delivered all the same.
_RECEIPTS = {
    1: "delivered",
    2: "sender",
    3: "retry",
    4: "read",
    5: "read-self",
    6: "played",
    7: "played-self",
    8: "server-error",
    9: "inactive",
    10: "peer_msg",
    11: "hist_sync",
}

#: Messages that carry only key material between clients; a person never sees them.
_SILENT = {"senderKeyDistributionMessage", "messageContextInfo"}


def jid_text(jid: Any) -> str | None:
    """A neonize JID as text; None where there is none."""
    if jid is None or jid.IsEmpty or not jid.Server:
        return None
    return str(Jid(jid.User, jid.Server, jid.Device))


def message(event: Any) -> dict[str, Any] | None:
    """A received (or own, sent elsewhere) message. None for pure key distribution.

    `content` is the protobuf field that holds it, without "Message" (`conversation`,
    `extendedText`, `image`, ...); `text` is its text or caption. `raw` holds the serialized
    message for everything but plain text, because media keys exist nowhere else.
    """
    fields = [field.name for field, _ in event.Message.ListFields() if field.name not in _SILENT]
    if not fields:
        return None
    info = event.Info
    content = fields[0].removesuffix("Message")
    data = {
        "message_id": info.ID,
        "timestamp_ms": info.Timestamp,
        "push_name": info.Pushname or None,
        "content": content,
        "text": _text(event.Message),
        "edit": info.Edit or None,
        "retry_count": event.RetryCount,
        **_source(info.MessageSource),
    }
    if content not in ("conversation", "extendedText"):
        data["raw"] = event.Message.SerializeToString()
    return data


def receipt(event: Any) -> dict[str, Any]:
    return {
        "message_ids": list(event.MessageIDs),
        "receipt": _RECEIPTS.get(event.Type, f"type-{event.Type}"),
        "timestamp_ms": event.Timestamp * 1000,
        **_source(event.MessageSource),
    }


def undecryptable(event: Any) -> dict[str, Any]:
    info = event.Info
    return {
        "message_id": info.ID,
        "timestamp_ms": info.Timestamp,
        "unavailable": event.IsUnavailable,
        **_source(info.MessageSource),
    }


#: neonize numbers its ConnectFailureReason enum from 1; these are WhatsApp's numbers.
_FAILURES = {
    1: 400,
    2: 401,
    3: 402,
    4: 403,
    5: 406,
    6: 405,
    7: 409,
    8: 500,
    9: 501,
    10: 503,
}


def connect_failure(event: Any) -> dict[str, Any]:
    """`reason` is the number in `<failure reason=…>`. (A number that neonize has no name for never
    arrives here: its event cannot be encoded, and `connect` ends with that error.)"""
    return {"reason": _FAILURES.get(event.Reason, event.Reason), "message": event.Message}


def logged_out(event: Any) -> dict[str, Any]:
    return {
        "on_connect": event.OnConnect,
        "reason": _FAILURES.get(event.Reason, event.Reason),
    }


#: neonize numbers its TempBanReason enum from 1; these are WhatsApp's numbers.
_BANS = {1: 101, 2: 102, 3: 103, 4: 104, 5: 106}


def temporary_ban(event: Any) -> dict[str, Any]:
    return {"code": _BANS.get(event.Code, event.Code), "expire_s": event.Expire}


def _source(source: Any) -> dict[str, Any]:
    return {
        "chat": jid_text(source.Chat),
        "sender": jid_text(source.Sender),
        "sender_alt": jid_text(source.SenderAlt),
        "recipient_alt": jid_text(source.RecipientAlt),
        "from_me": source.IsFromMe,
        "is_group": source.IsGroup,
    }


def _text(content: Any) -> str:
    if content.conversation:
        return str(content.conversation)
    if content.HasField("extendedTextMessage"):
        return str(content.extendedTextMessage.text)
    for field, value in content.ListFields():
        if field.message_type is not None and "caption" in field.message_type.fields_by_name:
            return str(value.caption)
    return ""
