"""What a worker's news mean for its session: the cause, in the words of `rules.lifecycle`.

Called by `session` for each event that is not inbound. It decides nothing and changes nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from whatsappd.engines.protocol import Kind, WorkerEvent
from whatsappd.rules.causes import cause_of_end
from whatsappd.rules.lifecycle import Cause


class Meaning(NamedTuple):
    """`cause` with its data, if the news is one; `error`: what went wrong, if that is all."""

    cause: Cause | None = None
    data: dict[str, Any] | None = None
    error: str | None = None


#: News that are causes as they stand.
_CAUSES = {
    Kind.QR: Cause.QR,
    Kind.PAIRED: Cause.PAIRED,
    Kind.PAIR_ERROR: Cause.PAIR_REFUSED,
    Kind.CONNECTED: Cause.CONNECTED,
    Kind.DISCONNECTED: Cause.DISCONNECTED,
    Kind.KEEPALIVE_TIMEOUT: Cause.KEEPALIVE_TIMEOUT,
    Kind.KEEPALIVE_RESTORED: Cause.KEEPALIVE_RESTORED,
    Kind.LOGGED_OUT: Cause.LOGGED_OUT,
    Kind.STREAM_REPLACED: Cause.STREAM_REPLACED,
    Kind.TEMPORARY_BAN: Cause.TEMPORARY_BAN,
    Kind.CONNECT_FAILURE: Cause.CONNECT_FAILURE,
    Kind.CLIENT_OUTDATED: Cause.CLIENT_OUTDATED,
}


def meaning_of(event: WorkerEvent, *, codes_ran_out: bool) -> Meaning:
    """What `event` means.

    Args:
        codes_ran_out: every QR code of this attempt was shown.
    """
    match event.kind:
        case Kind.LOGIN:
            return _end_of_login(event.data, codes_ran_out)
        case Kind.STREAM_ERROR:
            # The server closes after it, which is the cause that counts.
            return Meaning(error=f"WhatsApp sent stream error {event.data['code']}")
        case Kind.UNREADABLE:
            return Meaning(error=event.data["error"])
        case Kind.ENDED:
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
            cause = Cause.PAIR_TIMEOUT if codes_ran_out else Cause.PAIR_INTERRUPTED
        case "passkey-request" | "passkey-confirmation":
            cause = Cause.PASSKEY_ASKED
        case "err-client-outdated":
            cause = Cause.CLIENT_OUTDATED
        case "err-unexpected-state":
            cause = Cause.CONNECT_FAILURE
        case _:
            cause = Cause.PAIR_REFUSED
    return Meaning(cause, {"error": detail, "reason": "before pairing", "message": detail})
