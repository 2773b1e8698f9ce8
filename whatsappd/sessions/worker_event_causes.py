"""What a worker's news mean for its session: the cause, in the words of `rules.lifecycle`.

Called by `session` for each event that is not inbound. It decides nothing and changes nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from whatsappd.engines.protocol import EventKind, WorkerEvent
from whatsappd.rules.causes import cause_of_end
from whatsappd.rules.lifecycle import SessionCause


class Meaning(NamedTuple):
    """`cause` with its data, if the news is one; `error`: what went wrong, if that is all."""

    cause: SessionCause | None = None
    data: dict[str, Any] | None = None
    error: str | None = None


#: News that are causes as they stand.
_CAUSES = {
    EventKind.QR: SessionCause.QR,
    EventKind.PAIRED: SessionCause.PAIRED,
    EventKind.PAIR_ERROR: SessionCause.PAIR_REFUSED,
    EventKind.CONNECTED: SessionCause.CONNECTED,
    EventKind.DISCONNECTED: SessionCause.DISCONNECTED,
    EventKind.KEEPALIVE_TIMEOUT: SessionCause.KEEPALIVE_TIMEOUT,
    EventKind.KEEPALIVE_RESTORED: SessionCause.KEEPALIVE_RESTORED,
    EventKind.LOGGED_OUT: SessionCause.LOGGED_OUT,
    EventKind.STREAM_REPLACED: SessionCause.STREAM_REPLACED,
    EventKind.TEMPORARY_BAN: SessionCause.TEMPORARY_BAN,
    EventKind.CONNECT_FAILURE: SessionCause.CONNECT_FAILURE,
    EventKind.CLIENT_OUTDATED: SessionCause.CLIENT_OUTDATED,
}


def meaning_of(event: WorkerEvent, *, codes_ran_out: bool) -> Meaning:
    """What `event` means.

    Args:
        codes_ran_out: every QR code of this attempt was shown.
    """
    match event.kind:
        case EventKind.LOGIN:
            return _end_of_login(event.data, codes_ran_out)
        case EventKind.STREAM_ERROR:
            # The server closes after it, which is the cause that counts.
            return Meaning(error=f"WhatsApp sent stream error {event.data['code']}")
        case EventKind.UNREADABLE:
            return Meaning(error=event.data["error"])
        case EventKind.ENDED:
            cause, data = cause_of_end(event.data["error"])
            return Meaning(cause, data)
        case kind:
            return Meaning(_CAUSES[kind], event.data)


def _end_of_login(data: dict[str, Any], codes_ran_out: bool) -> Meaning:
    """The end of whatsmeow's QR channel.

    After "success" the events follow. After anything else none ever does: neonize waits for an
    account before it hands on events, and there will be none.
    """
    outcome, detail = data["outcome"], data["detail"] or data["outcome"]
    match outcome:
        case "success":
            return Meaning()
        case "err-scanned-without-multidevice":
            return Meaning(error="the phone has no linked devices enabled: update WhatsApp on it")
        case "timeout":
            cause = SessionCause.PAIR_TIMEOUT if codes_ran_out else SessionCause.PAIR_INTERRUPTED
        case "passkey-request" | "passkey-confirmation":
            cause = SessionCause.PASSKEY_ASKED
        case "err-client-outdated":
            cause = SessionCause.CLIENT_OUTDATED
        case "err-unexpected-state":
            cause = SessionCause.CONNECT_FAILURE
        case _:
            cause = SessionCause.PAIR_REFUSED
    return Meaning(cause, {"error": detail, "reason": "before pairing", "message": detail})
