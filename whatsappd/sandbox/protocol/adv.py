"""Device identities (ADV): how a phone vouches for a linked device, and the device confirms it.

The phone signs the device's identity key (`vouch`). That the phone scanned the QR code of this very
device is proved by an HMAC, whose key is a secret that only the QR code carried. The device answers
with a signature of its own (`check_device_signature`). Clients verify both signatures with the
first message that they get from the device, and learn from `key_index_list` which devices the
phone still vouches for.

Messages and fields: waAdv/WAAdv.proto in whatsmeow; what is signed: pair.go.
"""

from __future__ import annotations

import hmac
from typing import NamedTuple

from whatsappd.sandbox.protocol import protobuf
from whatsappd.sandbox.protocol.violations import ProtocolViolation
from whatsappd.sandbox.protocol.xeddsa import XEdDsaSigner, verify

# ADVDeviceIdentity
_RAW_ID, _TIMESTAMP, _KEY_INDEX = 1, 2, 3
# ADVSignedDeviceIdentity
_DETAILS, _ACCOUNT_KEY, _ACCOUNT_SIGNATURE, _DEVICE_SIGNATURE = 1, 2, 3, 4
# ADVSignedDeviceIdentityHMAC
_SIGNED, _HMAC = 1, 2
# ADVSignedKeyIndexList and ADVKeyIndexList
_LIST_DETAILS, _LIST_SIGNATURE = 1, 2
_LIST_RAW_ID, _LIST_TIMESTAMP, _LIST_CURRENT = 1, 2, 3

# What is signed begins with two bytes that say what it is.
_ACCOUNT_PREFIX = b"\x06\x00"
_DEVICE_PREFIX = b"\x06\x01"
_KEY_INDEX_PREFIX = b"\x06\x02"


class PendingIdentity(NamedTuple):
    """A device's identity that the phone has signed and the device has not."""

    container: bytes  # ADVSignedDeviceIdentityHMAC, for <pair-success>
    details: bytes  # ADVDeviceIdentity
    account_key: bytes  # the phone's identity key
    device_key: bytes  # the device's identity key


def vouch(
    account: XEdDsaSigner,
    device_key: bytes,
    secret: bytes,
    *,
    raw_id: int,
    key_index: int,
    now: int,
) -> PendingIdentity:
    """Sign a device's identity as its phone.

    Args:
        account: the phone's identity key.
        device_key: the device's identity key, from the QR code (32 bytes).
        secret: the ADV secret, from the QR code (32 bytes).
        raw_id: a number that the account keeps for its list of devices.
        key_index: the device's number in that list, from 1.
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
    """Verify the ADVSignedDeviceIdentity that a device answers in `<pair-device-sign>`.

    Raises:
        ProtocolViolation: it is another identity than the phone signed, or another key signed it.
    """
    fields = protobuf.decode(answer)
    if fields.data(_DETAILS) != pending.details:
        raise ProtocolViolation("the device signed another identity than the phone")
    message = _DEVICE_PREFIX + pending.details + pending.device_key + pending.account_key
    if not verify(pending.device_key, message, fields.data(_DEVICE_SIGNATURE)):
        raise ProtocolViolation("the device's signature of its identity is wrong")


def key_index_list(account: XEdDsaSigner, *, raw_id: int, current: int, now: int) -> bytes:
    """An ADVSignedKeyIndexList: the phone says that indexes up to `current` are valid.

    It goes into `<key-index-list>` beside every device list. `now`: seconds since the epoch.
    """
    details = protobuf.encode({_LIST_RAW_ID: raw_id, _LIST_TIMESTAMP: now, _LIST_CURRENT: current})
    return protobuf.encode(
        {_LIST_DETAILS: details, _LIST_SIGNATURE: account.sign(_KEY_INDEX_PREFIX + details)}
    )
