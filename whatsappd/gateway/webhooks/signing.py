"""PURE. The body and the headers of a delivery; the signature that proves where it comes from.

The form is that of Standard Webhooks (https://www.standardwebhooks.com), for which there are
libraries in most languages: `webhook-id`, `webhook-timestamp` and `webhook-signature`, where the
signature is HMAC-SHA256 over `id.timestamp.body`, with the secret's bytes behind `whsec_`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from whatsappd import __version__
from whatsappd.api.events import LoggedEvent
from whatsappd.gateway.answers import json_text


def body_of(event: LoggedEvent) -> bytes:
    """The event as JSON; the same bytes at every attempt. Binary values are base64."""
    return json_text(event).encode()


def id_of(event: LoggedEvent) -> str:
    """The same for every attempt to deliver an event, and for no other event.

    Its number alone could come again, if a daemon began anew with an empty database.
    """
    return f"evt_{event.seq}_{event.time_ms}"


def headers_for(secret: str, identity: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """All headers of a delivery. `timestamp_s`: of this attempt, in seconds since the epoch."""
    return {
        "Content-Type": "application/json",
        "User-Agent": f"whatsappd/{__version__}",
        "webhook-id": identity,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": f"v1,{signature(secret, identity, timestamp_s, body)}",
    }


def signature(secret: str, identity: str, timestamp_s: int, body: bytes) -> str:
    """The signature of a delivery, in base64. `secret`: as the webhook has it, `whsec_…`."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{identity}.{timestamp_s}.".encode() + body
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
