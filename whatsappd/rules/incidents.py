"""What happens to a session: the cause for `rules.lifecycle`, and a sentence for people.

`session.status` shows the sentence as `cause`. Causes with details have a function each; `plain`
makes the others.
"""

from __future__ import annotations

from typing import NamedTuple

from whatsappd.model.jid import USER_SERVER
from whatsappd.rules.lifecycle import SessionCause


class Incident(NamedTuple):
    cause: SessionCause
    words: str  # for people
    ban_ms: int = 0  # how long a ban lasts
    library_crashed: bool = False  # that is what ended the worker
    detail: str | None = None  # the part of the words that tells why, if that is kept


#: WhatsApp's logged-out reasons (`<failure reason=…>`, or 401 in a stream error).
_UNLINKED = {
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

#: No ban is longer than this, in milliseconds, whatever a broken worker says: ten years.
LONGEST_BAN_MS = 10 * 366 * 24 * 3600 * 1000

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


#: Why a session is unlinked that a person logs out.
UNLINKED_ON_REQUEST = "unlinked on request; start again to link anew"


def plain(cause: SessionCause) -> Incident:
    """A cause of which there is nothing more to tell."""
    return Incident(cause, _PLAIN[cause])


def unlinked(reason: int) -> Incident:
    """WhatsApp logged the device out, with this number."""
    words = _UNLINKED.get(reason, "WhatsApp logged the account out")
    return Incident(SessionCause.LOGGED_OUT, f"{words} ({reason}); start again to link it")


def banned(code: int, expire_s: int) -> Incident:
    words = _BANS.get(code, "a violation of the terms of service")
    return Incident(
        SessionCause.TEMPORARY_BAN,
        f"temporarily banned for {expire_s} s: {words}",
        ban_ms=min(expire_s * 1000, LONGEST_BAN_MS),
    )


def login_refused(reason: int | str | None, message: str) -> Incident:
    """`reason`: WhatsApp's number; None: unknown."""
    number = "unknown" if reason is None else reason
    words = f"WhatsApp refused the login ({number}: {message or 'no explanation given'})"
    return Incident(SessionCause.CONNECT_FAILURE, words)


def pairing_refused(error: str | None) -> Incident:
    words = f"pairing failed: {error}; start again for a new QR code"
    return Incident(SessionCause.PAIR_REFUSED, words)


def ended(error: str | None) -> Incident:
    """The client gave up connecting."""
    return Incident(SessionCause.ENDED, f"cannot connect: {error or 'the connection ended'}")


def exited(status: str, crash: str | None, broken: str | None) -> Incident:
    """The worker's process ended.

    Args:
        crash: the library's own words for why it ended it, if it did.
        broken: what it said that no worker says, if that is why.
    """
    words = f"the worker ended: {status}"
    if crash:
        words = f"the WhatsApp library crashed ({crash}); {status}"
    elif broken:
        words = f"the worker said what no worker says, and was ended: {broken}"
    return Incident(SessionCause.EXITED, words, library_crashed=bool(crash))


def recycled(why: str) -> Incident:
    words = f"recycled: {why}; a new worker takes over"
    return Incident(SessionCause.RECYCLED, words, detail=why)


def spawn_failed(error: str) -> Incident:
    return Incident(SessionCause.SPAWN_FAILED, f"no worker could be started: {error}")


def broken_off(field: str) -> Incident:
    """The library met an event that it cannot hand on; `field` is what it does not know."""
    return Incident(
        SessionCause.BROKEN_OFF,
        f"the WhatsApp library cannot hand on an event ({field} is unknown to it), nor any after "
        "it; a new worker takes over",
    )


def given_up(crashes: int, last: Incident) -> Incident:
    """The worker ended too often in a short time."""
    if last.library_crashed:
        return Incident(
            SessionCause.CRASHING,
            f"the WhatsApp library crashed {crashes} times in a short time, perhaps on a message "
            "that WhatsApp delivers again after each restart; `start` tries at once, a new version "
            f"may help; last: {last.words}",
        )
    return Incident(
        SessionCause.GIVE_UP,
        f"the worker ended {crashes} times in a short time; last: {last.words}",
    )


def account_taken(owner: str) -> Incident:
    """It is linked with the account of another company."""
    return Incident(
        SessionCause.ACCOUNT_TAKEN,
        f"linked with the account of company {owner}: nothing is sent or received here. `logout` "
        "one of the two, then start the other",
    )


def other_account(linked: str | None, bound: str | None) -> Incident:
    """It is linked with another number than the company's own."""
    return Incident(
        SessionCause.OTHER_ACCOUNT,
        f"linked with {_number(linked)}, and this company's account is {_number(bound)}: nothing "
        "is sent or received. If the other number is meant: `start --new-account`; if not: "
        "`logout` unlinks it",
    )


def account_refused(linked: str | None, owner: str) -> str:
    """Why a device that was just linked was unlinked again."""
    return (
        f"{_number(linked)} is the account of company {owner}, so this device was unlinked from "
        f"it. Link another phone, or `logout` {owner} first"
    )


def _number(jid: str | None) -> str:
    """`+15550100` for a phone number's JID; others as they are."""
    user, _, server = (jid or "an unknown number").partition("@")
    return f"+{user}" if server == USER_SERVER else jid or user
