"""Device identities (ADV): how a phone vouches for a linked device, and the device for itself.

The phone signs the device's identity key; the proof that it was the phone that scanned the QR code
is an HMAC with the secret that only the code carried. The device answers with a signature of its
own. Other clients verify both when they first receive a message from the device. Messages: waAdv.
"""

from __future__ import annotations

import hmac
from typing import NamedTuple

from whatsappd.sandbox.protocol import protobuf
from whatsappd.sandbox.protocol.violations import ProtocolViolation
from whatsappd.sandbox.protocol.xeddsa import Signer, verify

# ADVDeviceIdentity
_RAW_ID, _TIMESTAMP, _KEY_INDEX = 1, 2, 3
# ADVSignedDeviceIdentity
_DETAILS, _ACCOUNT_KEY, _ACCOUNT_SIGNATURE, _DEVICE_SIGNATURE = 1, 2, 3, 4
# ADVSignedDeviceIdentityHMAC
_SIGNED, _HMAC = 1, 2
# ADVSignedKeyIndexList and ADVKeyIndexList
_LIST_DETAILS, _LIST_SIGNATURE = 1, 2
_LIST_RAW_ID, _LIST_TIMESTAMP, _LIST_CURRENT = 1, 2, 3

_ACCOUNT_PREFIX = b"\x06\x00"
_DEVICE_PREFIX = b"\x06\x01"
_KEY_INDEX_PREFIX = b"\x06\x02"


class PendingIdentity(NamedTuple):
    """A device's identity, signed by the phone and not yet by the device."""

    container: bytes  # ADVSignedDeviceIdentityHMAC, for <pair-success>
    details: bytes
    account_key: bytes
    device_key: bytes  # the device's identity key


def vouch(
    account: Signer, device_key: bytes, secret: bytes, *, raw_id: int, key_index: int, now: int
) -> PendingIdentity:
    """The phone's part.

    Args:
        account: the phone's identity key.
        device_key: the identity key that the QR code carried.
        secret: the ADV secret that the QR code carried.
        raw_id: the account's number for its list of devices.
        key_index: the device's place in that list.
        now: seconds since the epoch.
    """
    details = protobuf.encode({_RAW_ID: raw_id, _TIMESTAMP: now, _KEY_INDEX: key_index})
    signature = account.sign(_ACCOUNT_PREFIX + details + device_key)
    signed = protobuf.encode(
        {_DETAILS: details, _ACCOUNT_KEY: account.public, _ACCOUNT_SIGNATURE: signature}
    )
    container = protobuf.encode({_SIGNED: signed, _HMAC: hmac.digest(secret, signed, "sha256")})
    return PendingIdentity(container, details, account.public, device_key)


def check_device_signature(pending: PendingIdentity, answer: bytes) -> None:
    """Verify the device's part (`<pair-device-sign>`).

    Raises:
        ProtocolViolation: it is not this identity, or not signed by this device.
    """
    fields = protobuf.decode(answer)
    if fields.data(_DETAILS) != pending.details:
        raise ProtocolViolation("the device signed another identity than the phone")
    message = _DEVICE_PREFIX + pending.details + pending.device_key + pending.account_key
    if not verify(pending.device_key, message, fields.data(_DEVICE_SIGNATURE)):
        raise ProtocolViolation("the device's signature of its identity is wrong")


def key_index_list(account: Signer, *, raw_id: int, current: int, now: int) -> bytes:
    """The phone's signed statement about its list of devices, for device lists."""
    details = protobuf.encode({_LIST_RAW_ID: raw_id, _LIST_TIMESTAMP: now, _LIST_CURRENT: current})
    return protobuf.encode(
        {_LIST_DETAILS: details, _LIST_SIGNATURE: account.sign(_KEY_INDEX_PREFIX + details)}
    )
