"""neonize's protobuf events as plain maps: no protobuf object leaves the worker.

Nothing else in the worker reads protobuf events. Strangers wrote them: texts may not be UTF-8,
times may be impossible, messages may be nested without end. Each function's result
is the `data` of one `engines.protocol.EventKind`; times are integer milliseconds since the
epoch, JIDs strings. What is merely too large is the business of `wire.shortening`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec

from whatsappd.engines.neonize.worker.contents import decoded, quoted, text, visible_fields
from whatsappd.engines.protocol import AccountBanned, DeviceUnlinked, KeepaliveLost, LoginRefused
from whatsappd.errors import Malformed
from whatsappd.model.content import Unsupported
from whatsappd.model.jid import Jid, parse_jid
from whatsappd.model.message import Reply, source_of
from whatsappd.model.person import person_of
from whatsappd.wire.account_keys import is_plumbing, without_keys
from whatsappd.wire.shortening import MAX_BYTES, MAX_ITEMS, MAX_NAME, SHORTENED, marked

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
#: Receipts of what an account's own devices tell each other.
_PLUMBING_RECEIPTS = frozenset({"peer_msg", "hist_sync"})
#: What the own phone sends to its linked devices: see `wire.account_keys`.
_PEER = "peer"

#: The end of year 9999, which is where calendars end; from 1 on, as `0` says that there is none.
_LAST_MS = 253_402_300_799_999


def jid_text(jid: Any) -> str | None:
    """A neonize JID as text; None where there is none."""
    found = _jid(jid)
    return None if found is None else str(found)


def message(event: Any) -> dict[str, Any] | None:
    """A received (or own, sent elsewhere) message: a `model.message.Message` as a map.

    None for what no person sees: keys that clients distribute, and what the account's own devices
    tell each other. What is not understood has `raw`, the serialized message, because media keys
    exist nowhere else; other keys are taken out of it.
    """
    info = event.Info
    fields = visible_fields(event.Message)
    if not fields or text(info.Category) == _PEER:
        return None
    content = decoded(event.Message, fields[0])
    about: dict[str, Any] = {}
    if len(fields) > 1 or isinstance(content, Unsupported):
        try:
            raw = _without_keys(event.Message)
        except _IsPlumbing:
            return None
        if isinstance(content, Unsupported):
            if isinstance(raw, bytes):
                content = msgspec.structs.replace(content, raw=raw)
            else:
                about[SHORTENED] = {"content.raw": raw}
    data = {
        **_source(info.MessageSource, text(info.Pushname) or None),
        "message_id": text(info.ID),
        "content": content.as_wire(),
        **_context(event.Message, fields[0]),
        "view_once": event.IsViewOnce or event.IsViewOnceV2 or event.IsViewOnceV2Extension,
        "edit": text(info.Edit) or None,
        "retry_count": event.RetryCount,
        **about,
    }
    return _timed(data, info.Timestamp)


def receipt(event: Any) -> Iterator[dict[str, Any]]:
    """A receipt, as several where it is for more messages than one event should hold."""
    kind = _RECEIPTS.get(event.Type, f"type-{event.Type}")
    if kind in _PLUMBING_RECEIPTS:
        return
    told = [text(each) for each in event.MessageIDs]
    # No message of ours has an id of this length.
    ids = [each for each in told if len(each) <= MAX_NAME]
    about = {"receipt": kind, **_source(event.MessageSource)}
    if len(ids) < len(told):
        about[SHORTENED] = {"message_ids": len(told)}
    for start in range(0, len(ids), MAX_ITEMS):
        data = {"message_ids": ids[start : start + MAX_ITEMS], **about}
        yield _timed(data, event.Timestamp * 1000)


def undecryptable(event: Any) -> dict[str, Any] | None:
    info = event.Info
    if text(info.Category) == _PEER:
        return None
    data = {
        "message_id": text(info.ID),
        "unavailable": event.IsUnavailable,
        **_source(info.MessageSource),
    }
    return _timed(data, info.Timestamp)


def unreadable(of: str, error: str, source: Any, message_id: Any, size: int) -> dict[str, Any]:
    """An event that could not be taken over; what is known of it all the same.

    Args:
        of: its kind.
        error: what was wrong.
        source: its MessageSource; None if that cannot be read, either.
        message_id: None likewise.
        size: the event's, in bytes.
    """
    data: dict[str, Any] = {
        "of": of,
        "error": error,
        "size": size,
        "message_id": None if message_id is None else text(message_id),
    }
    return data if source is None else {**data, **_source(source)}


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


def login_refused(event: Any) -> LoginRefused:
    """`reason` is the number in `<failure reason=…>`. (A number that neonize has no name for never
    arrives here: its event cannot be encoded, and `connect` ends with that error.)"""
    return LoginRefused(_FAILURES.get(event.Reason, event.Reason), text(event.Message))


def device_unlinked(event: Any) -> DeviceUnlinked:
    return DeviceUnlinked(event.OnConnect, _FAILURES.get(event.Reason, event.Reason))


#: neonize numbers its TempBanReason enum from 1; these are WhatsApp's numbers.
_BANS = {1: 101, 2: 102, 3: 103, 4: 104, 5: 106}


def account_banned(event: Any) -> AccountBanned:
    return AccountBanned(_BANS.get(event.Code, event.Code), event.Expire)


def keepalive_lost(event: Any) -> KeepaliveLost:
    return KeepaliveLost(event.ErrorCount, event.LastSuccess * 1000)


def _timed(data: dict[str, Any], time_ms: int) -> dict[str, Any]:
    """`data` with its time; with ours, and a mark, where it names none that can be."""
    if 0 < time_ms <= _LAST_MS:
        return {**data, "timestamp_ms": time_ms}
    now_ms = time.time_ns() // 1_000_000
    return marked({**data, "timestamp_ms": now_ms}, {}, {"timestamp_ms"})


def _source(source: Any, name: str | None = None) -> dict[str, Any]:
    """A `model.message.Source`. `name` is what the sender calls themselves."""
    told = source_of(
        chat=_jid(source.Chat),
        sender=_jid(source.Sender),
        sender_alt=_jid(source.SenderAlt),
        recipient_alt=_jid(source.RecipientAlt),
        from_me=bool(source.IsFromMe),
        name=name,
    )
    plain_map: dict[str, Any] = msgspec.to_builtins(told)
    return plain_map


def _context(message: Any, field: str) -> dict[str, Any]:
    """What a message says beside its content: what it answers, whom it names, where it is from."""
    content = getattr(message, field)
    if not hasattr(content, "contextInfo"):
        return _NO_CONTEXT
    context = content.contextInfo
    reply = None
    if context.stanzaID:
        quote = quoted(context.quotedMessage)
        reply = msgspec.to_builtins(
            Reply(
                message_id=text(context.stanzaID),
                sender=person_of(_parsed(context.participant)),
                content=quote,
            )
        )
    mentioned = [person_of(_parsed(jid)) for jid in context.mentionedJID]
    return {
        "reply_to": reply,
        "mentions": [msgspec.to_builtins(each) for each in mentioned if each is not None],
        "forwarded": max(context.forwardingScore, int(context.isForwarded)),
        "expires_s": context.expiration,
    }


_NO_CONTEXT: dict[str, Any] = {"reply_to": None, "mentions": [], "forwarded": 0, "expires_s": 0}


def _jid(jid: Any) -> Jid | None:
    if jid is None or jid.IsEmpty or not jid.Server:
        return None
    return Jid(text(jid.User), text(jid.Server), jid.Device)


def _parsed(address: Any) -> Jid | None:
    try:
        return parse_jid(text(address))
    except ValueError:
        return None


class _IsPlumbing(Exception):
    """It is no message between people."""


def _without_keys(content: Any) -> bytes | int:
    """A serialized message; its length, if it is too large or nobody knows which keys are in it.

    Raises:
        _IsPlumbing: see there.
    """
    serialized: bytes = content.SerializeToString()
    try:
        if is_plumbing(serialized):
            raise _IsPlumbing
        raw = without_keys(serialized)
    except Malformed:
        return len(serialized)
    return raw if len(raw) <= MAX_BYTES else len(raw)
