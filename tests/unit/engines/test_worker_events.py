"""The one door where protobuf ends: whatever strangers wrote, what comes out is plain."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neonize_protos import e2e, neonize

from whatsappd.engines.decode import decode_event
from whatsappd.engines.neonize.worker import decode_events
from whatsappd.model.message import Message
from whatsappd.wire.frames import pack, unpack
from whatsappd.wire.shortening import MAX_ITEMS, bounded

BROKEN = b"ok \xf0\x9f"


def jid(user: str | bytes = "15550100", server: str = "lid", device: int = 0) -> bytes:
    """Serialized by hand: protobuf's own setters refuse what is no UTF-8."""
    user = user.encode() if isinstance(user, str) else user
    return (
        _bytes(1, user)
        + _numbers((2, 0), (3, device), (4, 0))
        + _bytes(5, server)
        + _numbers((6, 0))
    )


def source(**changed: bytes) -> bytes:
    fields = {"chat": jid(), "sender": jid(device=3), **changed}
    return _bytes(1, fields["chat"]) + _bytes(2, fields["sender"]) + _numbers((3, 0), (4, 0))


def message(
    content: bytes,
    *,
    name: bytes = b"Ann",
    message_id: bytes = b"3EB0",
    ms: int = 1_700_000_000_000,
    category: str = "",
    of: bytes | None = None,
    edit: bytes = b"",
) -> Any:
    """A `Message` event whose message has these bytes."""
    info = _bytes(1, source() if of is None else of) + _bytes(2, message_id) + _numbers((3, 0))
    info += _bytes(4, "text") + _bytes(5, name) + _numbers((6, ms)) + _bytes(7, category)
    info += _numbers((8, 0)) + _bytes(9, "") + _bytes(10, edit)
    flags = _numbers(*((number, 0) for number in range(3, 10)))
    return neonize.Message.FromString(_bytes(1, info) + _bytes(2, content) + flags)


def told(event: Any) -> dict[str, Any]:
    """What the daemon makes of it."""
    data = decode_events.message(event)
    assert data is not None
    arguments = {
        "company": "acme",
        "kind": "message",
        "data": unpack(pack(bounded(data))),
        "number": 1,
    }
    taken = decode_event(arguments)
    assert isinstance(taken.event, Message)
    return taken.data


def test_texts_that_are_no_utf8_come_with_replacement_characters() -> None:
    found = told(message(_bytes(1, BROKEN), name=b"\xff\xfe", message_id=b"3EB\xff", edit=b"\xff"))
    assert found["content"] == {"kind": "text", "text": "ok �"}
    assert found["sender"]["name"] == "��"
    assert found["message_id"] == "3EB�"
    assert found["edit"] == "�"
    place = e2e.ImageMessage.DESCRIPTOR.fields_by_name["caption"].number
    caption = told(message(_bytes(3, _bytes(place, BROKEN))))
    assert caption["content"]["text"] == "ok �"
    assert (caption["content"]["kind"], caption["content"]["type"]) == ("unsupported", "image")
    extended = told(message(_bytes(6, _bytes(1, BROKEN))))
    assert extended["content"] == {"kind": "text", "text": "ok �"}


def test_addresses_that_are_no_addresses_do_no_harm() -> None:
    of = source(chat=jid(b"a b\xff\0", "example.com", 65535), sender=jid("9" * 10_000))
    found = told(message(_bytes(1, "Hello"), of=of))
    assert found["chat"]["jid"] == "a b�\0@example.com"
    assert found["chat"]["type"] == "other"
    assert found["sender"] == {"jid": None, "lid": None, "phone": None, "name": "Ann"}
    assert found["shortened"] == {"sender.jid": 10_004, "sender.lid": 10_004}


@pytest.mark.parametrize(
    "ms", [0, -1, -62_135_596_800_000, 2**63 - 1, -(2**63), 253_402_300_800_000]
)
def test_a_time_that_cannot_be_is_replaced_by_ours(ms: int) -> None:
    before_ms = time.time_ns() // 1_000_000
    found = told(message(_bytes(1, "Hello"), ms=ms))
    assert found["timestamp_ms"] >= before_ms
    assert found["odd"] == ["timestamp_ms"]
    assert "odd" not in told(message(_bytes(1, "Hello"), ms=253_402_300_799_999))


def test_the_accounts_own_keys_are_no_message() -> None:
    share = e2e.Message()
    share.protocolMessage.type = e2e.ProtocolMessage.APP_STATE_SYNC_KEY_SHARE
    share.protocolMessage.appStateSyncKeyShare.keys.add().keyData.keyData = b"k" * 32
    assert decode_events.message(message(share.SerializeToString())) is None
    both = e2e.Message(conversation="Hello")
    both.MergeFrom(share)
    assert decode_events.message(message(both.SerializeToString())) is None
    assert decode_events.message(message(_bytes(1, "anything"), category="peer")) is None


def test_what_is_kept_of_a_message_holds_no_key_but_its_medias() -> None:
    image = e2e.Message()
    image.imageMessage.mediaKey = b"m" * 32
    image.messageContextInfo.messageSecret = b"s" * 32
    image.senderKeyDistributionMessage.axolotlSenderKeyDistributionMessage = b"d" * 32
    raw = told(message(image.SerializeToString()))["content"]["raw"]
    assert b"m" * 32 in raw
    assert b"s" * 32 not in raw
    assert b"d" * 32 not in raw


def test_a_message_too_large_to_keep_says_so() -> None:
    image = e2e.Message()
    image.imageMessage.JPEGThumbnail = b"x" * 1_000_000
    found = told(message(image.SerializeToString()))
    assert found["content"] == {"kind": "unsupported", "type": "image"}
    assert found["shortened"]["content.raw"] > 1_000_000


def context(**changed: Any) -> Any:
    return e2e.ContextInfo(**changed)


def test_a_text_says_what_it_answers_whom_it_names_and_where_it_is_from() -> None:
    asked = e2e.Message(conversation="q" * 5000)
    about = context(
        stanzaID="3EB1", participant="123:4@lid", quotedMessage=asked, isForwarded=True,
        mentionedJID=["15550100@s.whatsapp.net", "no jid:x@lid"], expiration=604_800,
    )  # fmt: skip
    answer = e2e.Message(extendedTextMessage=e2e.ExtendedTextMessage(text="a", contextInfo=about))
    found = told(message(answer.SerializeToString()))
    assert found["content"] == {"kind": "text", "text": "a"}
    assert found["reply_to"]["message_id"] == "3EB1"
    assert found["reply_to"]["sender"]["jid"] == "123@lid"
    assert found["reply_to"]["content"] == {"kind": "text", "text": "q" * 1024}
    assert [each["phone"] for each in found["mentions"]] == ["+15550100"]
    assert (found["forwarded"], found["expires_s"]) == (1, 604_800)
    about.forwardingScore = 5
    about.quotedMessage.CopyFrom(e2e.Message())
    answer.extendedTextMessage.contextInfo.CopyFrom(about)
    found = told(message(answer.SerializeToString()))
    assert (found["forwarded"], found["reply_to"]["content"]) == (5, None)
    plain = told(message(_bytes(1, "Hello")))
    assert (plain["reply_to"], plain["mentions"], plain["forwarded"]) == (None, [], 0)


def test_what_a_text_names_without_end_is_bounded() -> None:
    deep = e2e.Message(conversation="end")
    for _ in range(20):
        inner = context(stanzaID="3EB1", quotedMessage=deep)
        deep = e2e.Message(extendedTextMessage=e2e.ExtendedTextMessage(text="x", contextInfo=inner))
    deep.extendedTextMessage.contextInfo.mentionedJID.extend(["1" * 200 + "@lid"] * 20_000)
    deep.extendedTextMessage.contextInfo.stanzaID = "i" * 100_000
    found = told(message(deep.SerializeToString()))
    assert found["content"] == {"kind": "text", "text": "x"}
    assert found["reply_to"]["content"] == {"kind": "text", "text": "x"}
    assert 0 < len(found["mentions"]) <= MAX_ITEMS
    assert found["shortened"]["mentions"] == 20_000
    assert found["shortened"]["reply_to.message_id"] == 100_000


def test_an_empty_text_says_nothing_that_is_understood() -> None:
    found = told(message(_bytes(6, _bytes(1, ""))))
    assert (found["content"]["kind"], found["content"]["type"]) == ("unsupported", "extendedText")


def test_a_message_of_every_kind_is_told() -> None:
    """An empty one of each, and one that has them all."""
    everything = b""
    for field in e2e.Message.DESCRIPTOR.fields:
        assert field.message_type is not None or field.name == "conversation"
        content = _bytes(field.number, "")
        everything += content
        data = decode_events.message(message(content))
        if data is not None:
            pack(data)
    assert decode_events.message(message(everything)) is not None


def receipt(*ids: bytes, kind: int = 4, time_s: int = 1_700_000_000) -> list[dict[str, Any]]:
    packed = _bytes(1, source()) + b"".join(_bytes(2, each) for each in ids)
    return list(
        decode_events.receipt(neonize.Receipt.FromString(packed + _numbers((3, time_s), (4, kind))))
    )


def test_a_receipt_for_many_messages_comes_as_several() -> None:
    ids = [f"3EB0{number:08}" for number in range(10_001)]
    found = receipt(*(each.encode() for each in ids))
    assert [each for data in found for each in data["message_ids"]] == ids
    assert {len(data["message_ids"]) for data in found} == {MAX_ITEMS, 1}
    assert all(data["receipt"] == "read" for data in found)


def test_ids_that_no_message_of_ours_has_are_left_out() -> None:
    [found] = receipt(b"i" * 10_000, b"3EB\xff", b"")
    assert found["message_ids"] == ["3EB�", ""]
    assert found["shortened"] == {"message_ids": 3}


@pytest.mark.parametrize("time_s", [0, 2**63 - 1, -(2**63)])
def test_a_receipts_time_fits(time_s: int) -> None:
    [found] = receipt(b"3EB0", time_s=time_s)
    assert found["odd"] == ["timestamp_ms"]
    pack(found)


@pytest.mark.parametrize("kind", [10, 11])
def test_receipts_of_plumbing_are_not_told(kind: int) -> None:
    assert receipt(b"3EB0", kind=kind) == []


@given(st.binary(max_size=200))
def test_whatever_a_message_holds_it_is_told_or_refused_by_protobuf(content: bytes) -> None:
    try:
        event = message(content)
    except Exception as error:
        assert type(error).__name__ == "DecodeError"  # noqa: PT017 -- the others are the finding
        return
    data = decode_events.message(event)
    if data is not None:
        told(event)


def _numbers(*fields: tuple[int, int]) -> bytes:
    return b"".join(_varint(number << 3) + _varint(value & 2**64 - 1) for number, value in fields)


def _bytes(number: int, value: bytes | str) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))
