"""Interprets the end of neonize's `connect` and of its QR channel.

Both end with nothing but a text from Go, whatsmeow or neonize; only this module reads these texts.
Called by `client`.
"""

from __future__ import annotations

import re

from whatsappd.engines.protocol import (
    AccountBanned,
    ClientBrokenOff,
    ClientEnded,
    LoginRefused,
    PairingEnd,
)

#: How long to stay away after a ban of a kind (and length) that neonize does not pass on.
UNKNOWN_BAN_S = 3600

#: How neonize ends when Go cannot encode an event: Receipt.Type, if it has no name for the type.
_UNENCODABLE = re.compile(r"required field neonize\.([A-Za-z.]{1,80}) not set")

#: How whatsmeow's QR channel ends without an account (qrchan.go).
_PAIRING_ENDS = {
    "timeout": PairingEnd.OVER,
    "err-scanned-without-multidevice": PairingEnd.NO_MULTIDEVICE,
    "passkey-request": PairingEnd.PASSKEY,
    "passkey-confirmation": PairingEnd.PASSKEY,
    "err-client-outdated": PairingEnd.OUTDATED,
    "err-unexpected-state": PairingEnd.UNEXPECTED,
}


def end_of_connect(
    error: str | None,
) -> AccountBanned | LoginRefused | ClientBrokenOff | ClientEnded:
    """What it means that `connect` ended with `error`.

    neonize cannot encode a ban or a refusal whose number it does not know, and ends with the name
    of the field instead: the event it could not send is recognised by that.
    """
    text = error or ""
    if "neonize.TemporaryBan" in text:
        return AccountBanned(0, UNKNOWN_BAN_S)
    if "neonize.ConnectFailure" in text:
        return LoginRefused(None, "a number neonize lacks")
    if unknown := _UNENCODABLE.search(text):
        return ClientBrokenOff(unknown[1])
    return ClientEnded(_essence(text) if text else None)


def end_of_pairing(outcome: str) -> PairingEnd | None:
    """What the last word of the QR channel means; None: the phone accepted, and events follow."""
    return None if outcome == "success" else _PAIRING_ENDS.get(outcome, PairingEnd.REFUSED)


def _essence(error: str) -> str:
    """The end of whatsmeow's chain of errors, where the reason stands.

    "failed to dial …: failed to WebSocket dial: …: Get "https://…": dial tcp: lookup …: no such
    host" keeps what follows the URL.
    """
    _, quoted, rest = error.rpartition('": ')
    return rest if quoted else error
