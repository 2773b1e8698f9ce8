"""Translates a worker's events about the session itself into incidents of `rules.incidents`.

`worker_event_intake` calls it for each event that is about the session and not from WhatsApp. It
has no state.
"""

from __future__ import annotations

from typing import NamedTuple

from whatsappd.engines.protocol import (
    AccountBanned,
    ClientBrokenOff,
    ClientConnected,
    ClientDisconnected,
    ClientEnded,
    ClientEvent,
    ClientOutdated,
    DevicePaired,
    DeviceUnlinked,
    KeepaliveLost,
    KeepaliveRestored,
    LoginRefused,
    PairingEnd,
    PairingEnded,
    PairingRefused,
    QrShown,
    StreamFailed,
    StreamReplaced,
    UnreadableEvent,
)
from whatsappd.rules import incidents
from whatsappd.rules.incidents import Incident, plain
from whatsappd.rules.lifecycle import SessionCause


class Meaning(NamedTuple):
    """What an event means for the session.

    Attributes:
        incident: for the state machine; None if the event changes no state.
        error: what went wrong, in words, if that is all that the event tells.
    """

    incident: Incident | None = None
    error: str | None = None


#: Events that tell nothing but that they happened.
_PLAIN: dict[type[ClientEvent], SessionCause] = {
    QrShown: SessionCause.QR,
    DevicePaired: SessionCause.PAIRED,
    ClientConnected: SessionCause.CONNECTED,
    ClientDisconnected: SessionCause.DISCONNECTED,
    KeepaliveLost: SessionCause.KEEPALIVE_TIMEOUT,
    KeepaliveRestored: SessionCause.KEEPALIVE_RESTORED,
    StreamReplaced: SessionCause.STREAM_REPLACED,
    ClientOutdated: SessionCause.CLIENT_OUTDATED,
}


def meaning_of(event: ClientEvent, *, codes_ran_out: bool) -> Meaning:
    """What `event` means.

    Args:
        codes_ran_out: every QR code of this attempt was shown.
    """
    match event:
        case PairingEnded(end, detail):
            return _end_of_pairing(end, detail, codes_ran_out)
        case PairingRefused(error):
            return Meaning(incidents.pairing_refused(error))
        case DeviceUnlinked(_, reason):
            return Meaning(incidents.unlinked(reason))
        case AccountBanned(code, expire_s):
            return Meaning(incidents.banned(code, expire_s))
        case LoginRefused(reason, message):
            return Meaning(incidents.login_refused(reason, message))
        case ClientBrokenOff(field):
            return Meaning(incidents.broken_off(field))
        case ClientEnded(error):
            return Meaning(incidents.ended(error))
        case StreamFailed(code):
            # The server closes after it, which is the cause that counts.
            return Meaning(error=f"WhatsApp sent stream error {code}")
        case UnreadableEvent():
            return Meaning(error=event.error)
        case _:
            return Meaning(plain(_PLAIN[type(event)]))


def _end_of_pairing(end: PairingEnd, detail: str, codes_ran_out: bool) -> Meaning:
    """What the end of the QR codes means. No event follows it, as there is no account yet."""
    match end:
        case PairingEnd.NO_MULTIDEVICE:
            return Meaning(error="the phone has no linked devices enabled: update WhatsApp on it")
        case PairingEnd.OVER:
            over = SessionCause.PAIR_TIMEOUT if codes_ran_out else SessionCause.PAIR_INTERRUPTED
            return Meaning(plain(over))
        case PairingEnd.PASSKEY:
            return Meaning(plain(SessionCause.PASSKEY_ASKED))
        case PairingEnd.OUTDATED:
            return Meaning(plain(SessionCause.CLIENT_OUTDATED))
        case PairingEnd.UNEXPECTED:
            return Meaning(incidents.login_refused("before pairing", detail))
        case PairingEnd.REFUSED:
            return Meaning(incidents.pairing_refused(detail))
