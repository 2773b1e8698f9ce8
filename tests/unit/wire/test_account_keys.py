"""Which messages are an account's own business, and which keys ride on those between people."""

from __future__ import annotations

from typing import Any

import pytest
from neonize_protos import e2e

from whatsappd.errors import Malformed
from whatsappd.wire import account_keys
from whatsappd.wire.account_keys import is_plumbing, without_keys
from whatsappd.wire.protobuf import fields

KEY = b"thirty-two bytes of a secret key"


def key_share() -> Any:
    message = e2e.Message()
    protocol = message.protocolMessage
    protocol.type = e2e.ProtocolMessage.APP_STATE_SYNC_KEY_SHARE
    protocol.appStateSyncKeyShare.keys.add().keyData.keyData = KEY
    return message


def history_notification() -> Any:
    message = e2e.Message()
    message.protocolMessage.historySyncNotification.mediaKey = KEY
    return message


def within(inner: Any, *wrappers: str) -> Any:
    for name in wrappers:
        outer = e2e.Message()
        getattr(outer, name).message.CopyFrom(inner)
        inner = outer
    return inner


@pytest.mark.parametrize("made", [key_share, history_notification])
@pytest.mark.parametrize(
    "wrappers",
    [
        (),
        ("deviceSentMessage",),
        ("ephemeralMessage", "deviceSentMessage"),
        ("audioStickerMessage",),
    ],
    ids=lambda wrappers: "in ".join(wrappers) or "bare",
)
def test_keys_of_the_account_are_plumbing_however_they_are_wrapped(
    made: object, wrappers: tuple[str, ...]
) -> None:
    message = within(made(), *wrappers)  # type: ignore[operator]
    message.conversation = "Hello"
    assert is_plumbing(message.SerializeToString())
    assert KEY not in without_keys(message.SerializeToString())


def test_what_people_write_is_not() -> None:
    revoke = e2e.Message()
    revoke.protocolMessage.type = e2e.ProtocolMessage.REVOKE
    revoke.protocolMessage.key.ID = "3EB0"
    edit = e2e.Message()
    edit.protocolMessage.type = e2e.ProtocolMessage.MESSAGE_EDIT
    edit.protocolMessage.editedMessage.conversation = "better"
    image = e2e.Message()
    image.imageMessage.caption = "look"
    image.imageMessage.mediaKey = KEY
    for message in (revoke, edit, image, within(image, "viewOnceMessage")):
        packed = message.SerializeToString()
        assert not is_plumbing(packed)
        assert without_keys(packed) == packed


def test_keys_between_clients_are_taken_out_and_the_rest_stays() -> None:
    message = e2e.Message(conversation="Hello")
    message.senderKeyDistributionMessage.axolotlSenderKeyDistributionMessage = KEY
    message.messageContextInfo.messageSecret = KEY
    message.messageContextInfo.threadID.add()
    message.protocolMessage.type = e2e.ProtocolMessage.MESSAGE_EDIT
    message.protocolMessage.editedMessage.messageContextInfo.messageSecret = KEY
    message.protocolMessage.editedMessage.conversation = "better"
    kept = without_keys(message.SerializeToString())
    assert KEY not in kept
    found = e2e.Message.FromString(kept)
    assert found.conversation == "Hello"
    assert found.protocolMessage.editedMessage.conversation == "better"
    assert len(found.messageContextInfo.threadID) == 1


def test_the_numbers_are_those_of_the_installed_library() -> None:
    """A new version of the library may wrap messages, and share keys, in new fields."""
    fields_of = e2e.Message.DESCRIPTOR.fields
    wrappers = {
        field.number: inner.number
        for field in fields_of
        if field.message_type is not None
        for inner in field.message_type.fields
        if inner.message_type is e2e.Message.DESCRIPTOR
        and field.message_type.name in ("FutureProofMessage", "DeviceSentMessage")
    }
    assert wrappers == account_keys.WRAPPERS
    protocol = e2e.ProtocolMessage.DESCRIPTOR.fields_by_name
    names = (
        *("historySyncNotification", "appStateSyncKeyShare", "appStateSyncKeyRequest"),
        *("initialSecurityNotificationSettingSync", "appStateFatalExceptionNotification"),
        *("peerDataOperationRequestMessage", "peerDataOperationRequestResponseMessage"),
        *("lidMigrationMappingSyncMessage", "coexStateSync"),
        *("sharedDeviceContactHashKeyShare", "sharedDeviceContactHashKeyRequest"),
    )
    assert {protocol[name].number for name in names} == account_keys.PLUMBING_FIELDS
    keys = {
        field.number for field in fields_of if "istribut" in field.name or "KeyShare" in field.name
    }
    assert keys == account_keys.KEYS


@pytest.mark.parametrize(
    "data",
    [b"\x0a", b"\x0a\x05ab", b"\x0b", b"\xff" * 11, b"\x0d\1\2"],
    ids=lambda data: data.hex(),
)
def test_what_is_no_protobuf_is_refused(data: bytes) -> None:
    for look in (is_plumbing, without_keys, lambda each: list(fields(each))):
        with pytest.raises(Malformed):
            look(data)


def test_what_is_too_deep_is_refused_and_not_followed() -> None:
    message = e2e.Message(conversation="x").SerializeToString()
    for _ in range(200):
        message = account_keys.field(40, account_keys.field(1, message))
    for look in (is_plumbing, without_keys):
        with pytest.raises(Malformed, match="deep"):
            look(message)
