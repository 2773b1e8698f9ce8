"""Recognises keys and other messages between an account's own devices, which are never stored.

A phone shares keys with its linked devices by messages, in the protocol's own form: the keys of the
app state, where the history lies and with which key. Whoever has them reads the account's chats.
So such a message is no message here: it is not logged, stored, counted or forwarded. Messages
between people carry keys as well (those of a group's senders, the secret that poll votes are
encrypted with); `without_keys` takes these out of what is kept.

Used by the worker before it hands an event on, by its spool for what an older version left there,
and by the store for what an older version logged. The numbers are those of WAWebProtobufsE2E (in
neonize 0.5.2); a test compares them.
"""

from __future__ import annotations

from collections.abc import Callable

from whatsappd.wire.protobuf import field, fields

#: Fields of `Message`.
_PROTOCOL = 12
_DEVICE_SENT = 31
_CONTEXT = 35
#: senderKeyDistributionMessage, fastRatchetKeySenderKeyDistributionMessage, groupRootKeyShare,
#: rootSecretDistributeMessage.
KEYS = frozenset({2, 15, 123, 127})
#: Those that hold another message, and in which of their fields (DeviceSentMessage,
#: FutureProofMessage).
WRAPPERS = {
    _DEVICE_SENT: 2,
    **dict.fromkeys(
        (37, 40, 53, 55, 58, 59, 62, 67, 74, 85, 87, 90, 91, 92, 93, 95, 96, 99, 100, 101, 103, 104,
         106, 116, 118, 126, 131, 132, 133, 134),
        1,
    ),
}  # fmt: skip
#: messageSecret and botMessageSecret of MessageContextInfo.
_SECRETS = frozenset({3, 6})

#: Fields of `ProtocolMessage`.
_TYPE = 2
_EDITED = 14
#: historySyncNotification, appStateSyncKeyShare, appStateSyncKeyRequest,
#: initialSecurityNotificationSettingSync, appStateFatalExceptionNotification,
#: peerDataOperationRequestMessage and -ResponseMessage, lidMigrationMappingSyncMessage,
#: coexStateSync, sharedDeviceContactHashKeyShare and -Request.
PLUMBING_FIELDS = frozenset({6, 7, 8, 9, 10, 16, 17, 23, 33, 36, 37})
#: The same as types, and EPHEMERAL_SYNC_RESPONSE, MSG_FANOUT_BACKFILL_REQUEST.
PLUMBING_TYPES = frozenset({4, 5, 6, 7, 8, 9, 10, 16, 17, 22, 37, 40, 41})
#: Of a protocol message between people, what is kept: what it is about, timers, edits, labels.
_PEOPLES = frozenset({1, _TYPE, 4, 5, 11, _EDITED, 15, 18, 20, 24, 27, 29, 30})


def is_plumbing(message: bytes) -> bool:
    """Whether a serialized `Message` is one that an account's own devices exchange.

    Raises:
        Malformed: it is no protobuf, or too deep.
    """
    return _is_plumbing(message, 0)


def _is_plumbing(message: bytes, depth: int) -> bool:
    for number, value, _ in fields(message, depth):
        if not isinstance(value, bytes):
            continue
        if number == _PROTOCOL:
            for inner, content, _ in fields(value, depth):
                if inner in PLUMBING_FIELDS or (inner == _TYPE and content in PLUMBING_TYPES):
                    return True
        elif number in WRAPPERS:
            for inner, content, _ in fields(value, depth):
                if inner != WRAPPERS[number] or not isinstance(content, bytes):
                    continue
                if _is_plumbing(content, depth + 1):
                    return True
    return False


def without_keys(message: bytes) -> bytes:
    """A serialized `Message` without the keys in it; those for its media stay.

    Raises:
        Malformed: it is no protobuf, or too deep.
    """
    return _without_keys(message, 0)


def _without_keys(message: bytes, depth: int) -> bytes:
    return b"".join(
        _cleaned(number, value, depth) if isinstance(value, bytes) else stands
        for number, value, stands in fields(message, depth)
        if number not in KEYS
    )


def _cleaned(number: int, content: bytes, depth: int) -> bytes:
    """The field `number` of a `Message`."""
    if number == _CONTEXT:
        content = _only(content, lambda inner: inner not in _SECRETS, depth)
    elif number == _PROTOCOL:
        content = _only(content, lambda inner: inner in _PEOPLES, depth)
        content = _cleaned_within(content, _EDITED, depth)
    elif number in WRAPPERS:
        content = _cleaned_within(content, WRAPPERS[number], depth)
    return field(number, content)


def _cleaned_within(message: bytes, place: int, depth: int) -> bytes:
    """`message` with the `Message` in its field `place` cleaned."""
    return b"".join(
        field(number, _without_keys(value, depth + 1))
        if number == place and isinstance(value, bytes)
        else stands
        for number, value, stands in fields(message, depth)
    )


def _only(message: bytes, keep: Callable[[int], bool], depth: int) -> bytes:
    return b"".join(stands for number, _, stands in fields(message, depth) if keep(number))
