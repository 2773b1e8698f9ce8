"""What a worker's news mean for its session: an incident, in the words of `rules.incidents`.

Called by `session` for each event that is not from WhatsApp. It decides nothing and changes
nothing.
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
    """`incident`, if the news is one; `error`: what went wrong, if that is all."""

    incident: Incident | None = None
    error: str | None = None


#: News that tell no more than that it happened.
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
    """The QR codes came to their end, and no event ever follows: there is no account."""
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
