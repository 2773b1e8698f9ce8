"""Events of older versions, in the shape of today."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from message_shapes import MESSAGE, OLDER_MESSAGE

from whatsappd.model.message import Message, Source
from whatsappd.model.older_events import in_todays_shape


def test_a_text_keeps_all_that_it_says() -> None:
    found = in_todays_shape({**OLDER_MESSAGE, "odd": ["timestamp_ms"]})
    assert found == {**MESSAGE, "text": "Hello", "odd": ["timestamp_ms"]}
    assert in_todays_shape(found) is found
    assert in_todays_shape(MESSAGE) is MESSAGE


def test_both_identities_come_together() -> None:
    alt = "15550100:3@s.whatsapp.net"
    older = {**OLDER_MESSAGE, "sender": "1:3@lid", "sender_alt": alt, "push_name": "Ann"}
    found = msgspec.convert(in_todays_shape(older), Message)
    assert found.sender is not None
    assert found.chat is not None
    for one in (found.sender, found.chat):
        assert one.identity == ("1@lid", "15550100@s.whatsapp.net")
        assert (one.phone, one.name) == ("+15550100", "Ann")
    assert (found.device, found.origin, found.chat.type) == (3, None, "person")
    own = {**OLDER_MESSAGE, "chat": "2@lid", "recipient_alt": "15550200@s.whatsapp.net"}
    found = msgspec.convert(in_todays_shape({**own, "from_me": True}), Message)
    assert found.chat is not None
    assert (found.chat.phone, found.origin) == ("+15550200", "phone")


def test_what_was_no_text_is_unsupported_with_all_that_was_kept() -> None:
    older = {**OLDER_MESSAGE, "content": "image", "text": "A caption", "raw": b"\xff"}
    found = in_todays_shape({**older, "shortened": {"text": 9, "push_name": 8, "raw": 7, "x": 6}})
    assert found["content"] == {
        "kind": "unsupported", "type": "image", "text": "A caption", "raw": b"\xff",
    }  # fmt: skip
    assert found["text"] == "A caption"
    assert "raw" not in found
    assert found["shortened"] == {"content.text": 9, "sender.name": 8, "content.raw": 7, "x": 6}
    empty = in_todays_shape({**OLDER_MESSAGE, "text": ""})
    assert empty["content"] == {"kind": "unsupported", "type": "conversation"}
    long = in_todays_shape({**OLDER_MESSAGE, "text": "é" * 70_000})
    assert msgspec.convert(long, Message).content.short_text == "é" * 65_536
    assert long["shortened"] == {"content.text": 140_000}


def test_a_receipt_has_persons_too() -> None:
    source = {name: OLDER_MESSAGE[name] for name in ("chat", "sender", "sender_alt", "from_me")}
    older = {**source, "recipient_alt": None, "is_group": False, "message_ids": ["A"]}
    found = in_todays_shape(older)
    assert found["message_ids"] == ["A"]
    assert "content" not in found
    assert msgspec.convert(found, Source) == msgspec.convert(MESSAGE, Source)


@pytest.mark.parametrize("value", [None, 5, b"\xff", "no jid:x@", [], {}, "1@lid"])
def test_whatever_stands_there_does_no_harm(value: Any) -> None:
    for name in OLDER_MESSAGE:
        found = in_todays_shape({**OLDER_MESSAGE, name: value})
        assert found["message_id"] in ("A", value)
