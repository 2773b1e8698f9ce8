"""What the QR code of a device that wants to be linked says, and how phone numbers are written.

The text is `[URL#]reference,noise key,identity key,ADV secret[,client type]`, the keys in base64
(whatsmeow: pair.go, `makeQRData`).
"""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple

from whatsappd.errors import InvalidParams, SandboxFailed
from whatsappd.model.jid import USER_SERVER, parse_recipient

_KEY_SIZE = 32


class LinkingQrCode(NamedTuple):
    """The content of a QR code. The keys and the secret have 32 bytes each."""

    reference: str  # which of the server's references the client shows
    noise_key: bytes  # the static key of its handshake
    identity: bytes  # its identity key
    secret: bytes  # the key of the HMAC that proves the scan (`protocol.adv`)


def parse_qr_code(text: str) -> LinkingQrCode:
    """Read the text of a QR code.

    Raises:
        SandboxFailed: it is not the code of a device that wants to be linked.
    """
    parts = text.strip().rpartition("#")[2].split(",")
    try:
        reference, *rest = parts[:4]
        noise_key, identity, secret = (base64.b64decode(part, validate=True) for part in rest)
    except (ValueError, binascii.Error) as error:
        raise SandboxFailed(
            "that is not the QR code of a device that wants to be linked: pass the whole text"
        ) from error
    if not len(noise_key) == len(identity) == len(secret) == _KEY_SIZE:
        raise SandboxFailed("the QR code is damaged: its keys have the wrong size")
    return LinkingQrCode(reference, noise_key, identity, secret)


def normalise_phone(text: str) -> str:
    """The digits of an international phone number, as in `+1 (555) 01-00`.

    Raises:
        InvalidParams: it is no phone number.
    """
    jid = parse_recipient(text, field="phone")
    if jid.server != USER_SERVER:
        raise InvalidParams(f"phone: {text!r:.80} is no phone number", field="phone")
    return jid.user
