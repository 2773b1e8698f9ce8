"""What happened to a session, in words a person can act on.

Called by `sessions.session` for every transition; the text is what `status` shows as `cause`.
"""

from __future__ import annotations

import re
from typing import Any

from whatsappd.model.jid import USER_SERVER
from whatsappd.rules.lifecycle import SessionCause

#: whatsmeow's logged-out reasons (`<failure reason=…>`, or 401 in a stream error).
_LOGGED_OUT = {
    401: "the device was unlinked from the phone",
    403: "the phone's own account was logged out or locked",
    406: "WhatsApp logged the account out (often a ban)",
}

#: `<failure reason="402" code=…>`.
_BANS = {
    101: "too many messages to people who do not have this number",
    102: "too many people blocked this number",
    103: "too many groups with people who do not have this number",
    104: "the same message to too many people",
    106: "too many messages to a broadcast list",
}

#: How long to stay away after a ban of a kind (and length) that neonize does not pass on.
UNKNOWN_BAN_S = 3600
#: No ban is longer than this, in milliseconds, whatever a broken worker says: ten years.
LONGEST_BAN_MS = 10 * 366 * 24 * 3600 * 1000

#: How neonize ends when Go cannot encode an event: Receipt.Type, if it has no name for the type.
_UNENCODABLE = re.compile(r"required field neonize\.([A-Za-z.]{1,80}) not set")

_PLAIN = {
    SessionCause.START: "started",
    SessionCause.TAKE_OVER: "started, taking the account back",
    SessionCause.STOP: "stopped",
    SessionCause.RETRY_DUE: "trying again",
    SessionCause.OPENED: "connecting to WhatsApp",
    SessionCause.QR: "waiting for the QR code to be scanned",
    SessionCause.PAIRED: "the phone accepted; logging in",
    SessionCause.PAIR_TIMEOUT: "nobody scanned the QR code in time; start again for a new one",
    SessionCause.PAIR_INTERRUPTED: "the connection was lost during pairing",
    SessionCause.PASSKEY_ASKED: (
        "this account asks for a passkey to link a device, which is not supported: it cannot be "
        "linked"
    ),
    SessionCause.CONNECTED: "connected",
    SessionCause.DISCONNECTED: "the connection was lost; reconnecting",
    SessionCause.KEEPALIVE_TIMEOUT: "WhatsApp does not answer pings",
    SessionCause.KEEPALIVE_RESTORED: "WhatsApp answers pings again",
    SessionCause.STREAM_REPLACED: (
        "another process connected with this account; end it, then start with --take-over"
    ),
    SessionCause.UNLINK: "connecting, to unlink the device",
    SessionCause.CLIENT_OUTDATED: (
        "WhatsApp refuses this client version (405): upgrade neonize, then start again"
    ),
    SessionCause.HUNG: "the worker does not answer; it was replaced",
    SessionCause.DEFECT: "an error in whatsappd ended it; the daemon's log has the traceback",
    SessionCause.SILENT: "WhatsApp was not reached for too long; the worker was replaced",
}


def describe(cause: SessionCause, data: dict[str, Any]) -> str:
    """The sentence for `cause`; `data` is the worker event's."""
    match cause:
        case SessionCause.LOGGED_OUT:
            reason = data.get("reason")
            words = _LOGGED_OUT.get(reason or 0, "WhatsApp logged the account out")
            return f"{words} ({reason}); start again to link it"
        case SessionCause.OTHER_ACCOUNT | SessionCause.ACCOUNT_TAKEN:
            return _not_ours(cause, data)
        case SessionCause.TEMPORARY_BAN:
            words = _BANS.get(data.get("code", 0), "a violation of the terms of service")
            return f"temporarily banned for {data.get('expire_s')} s: {words}"
        case SessionCause.CONNECT_FAILURE:
            message = data.get("message") or "no explanation given"
            return f"WhatsApp refused the login ({data.get('reason')}: {message})"
        case SessionCause.PAIR_REFUSED:
            return f"pairing failed: {data.get('error')}; start again for a new QR code"
        case SessionCause.ENDED:
            return f"cannot connect: {_essence(data.get('error'))}"
        case SessionCause.EXITED:
            return _how_it_ended(data)
        case SessionCause.RECYCLED:
            return f"recycled: {data.get('why')}; a new worker takes over"
        case SessionCause.SPAWN_FAILED:
            return f"no worker could be started: {data.get('error')}"
        case SessionCause.BROKEN_OFF:
            return (
                f"the WhatsApp library cannot hand on an event ({data.get('field')} is unknown to "
                "it), nor any after it; a new worker takes over"
            )
        case SessionCause.CRASHING:
            return (
                f"the WhatsApp library crashed {data.get('crashes')} times in a short time, "
                "perhaps on a message that WhatsApp delivers again after each restart; `start` "
                f"tries at once, a new version may help; last: {data.get('last')}"
            )
        case SessionCause.GIVE_UP:
            return f"the worker ended {data.get('crashes')} times in a short time; last: " + str(
                data.get("last")
            )
    return _PLAIN[cause]


def _how_it_ended(data: dict[str, Any]) -> str:
    if crash := data.get("crash"):
        return f"the WhatsApp library crashed ({crash}); {data.get('status')}"
    if broken := data.get("broken"):
        return f"the worker said what no worker says, and was ended: {broken}"
    return f"the worker ended: {data.get('status')}"


def _not_ours(cause: SessionCause, data: dict[str, Any]) -> str:
    if cause is SessionCause.ACCOUNT_TAKEN:
        return (
            f"linked with the account of company {data.get('owner')}: nothing is sent or received "
            "here. `logout` one of the two, then start the other"
        )
    return (
        f"linked with {_number(data.get('linked'))}, and this company's account is "
        f"{_number(data.get('bound'))}: nothing is sent or received. If the other number is meant: "
        "`start --new-account`; if not: `logout` unlinks it"
    )


def account_refused(linked: str | None, owner: str) -> str:
    """Why a device that was just linked was unlinked again."""
    return (
        f"{_number(linked)} is the account of company {owner}, so this device was unlinked from "
        f"it. Link another phone, or `logout` {owner} first"
    )


#: Why a session is unlinked that a person logs out.
UNLINKED_ON_REQUEST = "unlinked on request; start again to link anew"


def cause_of_end(error: str | None) -> tuple[SessionCause, dict[str, Any]]:
    """What it means that neonize's `connect` ended.

    neonize cannot encode a ban or a refusal whose number it does not know, and ends with the name
    of the field instead: the event it could not send is recognised by that.
    """
    text = error or ""
    if "neonize.TemporaryBan" in text:
        return SessionCause.TEMPORARY_BAN, {"code": 0, "expire_s": UNKNOWN_BAN_S}
    if "neonize.ConnectFailure" in text:
        return SessionCause.CONNECT_FAILURE, {
            "reason": "unknown",
            "message": "a number neonize lacks",
        }
    if unknown := _UNENCODABLE.search(text):
        return SessionCause.BROKEN_OFF, {"field": unknown[1]}
    return SessionCause.ENDED, {"error": error}


def ban_ms(data: dict[str, Any]) -> int:
    """How long a ban lasts, in milliseconds; `data` is the worker event's."""
    return min(int(data.get("expire_s") or 0) * 1000, LONGEST_BAN_MS)


def _number(jid: str | None) -> str:
    """`+15550100` for a phone number's JID; others as they are."""
    user, _, server = (jid or "an unknown number").partition("@")
    return f"+{user}" if server == USER_SERVER else jid or user


def _essence(error: str | None) -> str:
    """The end of whatsmeow's chain of errors, where the reason stands.

    "failed to dial …: failed to WebSocket dial: …: Get "https://…": dial tcp: lookup …: no such
    host" keeps what follows the URL.
    """
    if not error:
        return "the connection ended"
    _, quoted, rest = error.rpartition('": ')
    return rest if quoted else error
