"""What an event may hold: one place shortens, and says so."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsappd.model.event import MAX_EVENT_BYTES, MESSAGE_RECEIVED, Event
from whatsappd.wire import shortening
from whatsappd.wire.frames import pack, unpack
from whatsappd.wire.shortening import bounded

MESSAGE: dict[str, Any] = {
    **{"message_id": "A", "timestamp_ms": 1, "edit": None, "retry_count": 0, "from_me": False},
    "content": {"kind": "text", "text": "Grüße 👍\0\x1b[31m"},
    "chat": {"jid": "1@lid", "lid": "1@lid", "phone": None, "name": None, "type": "person"},
    "sender": {"jid": "1@lid", "lid": "1@lid", "phone": None, "name": "Ann"},
    "mentions": [],
}


def test_what_fits_is_left_as_it_is() -> None:
    assert bounded(MESSAGE) is MESSAGE
    longest = {**MESSAGE, "content": {"kind": "text", "text": "👍" * 65_536}}
    assert bounded(longest) is longest


@pytest.mark.parametrize("name", ["name", "text", "edit", "quoted", "vcard", "error"])
@pytest.mark.parametrize("letter", ["x", "é", "👍"])
def test_a_text_is_cut_between_two_characters(name: str, letter: str) -> None:
    data = {**MESSAGE, name: letter * 1_000_000}
    found = bounded(data)
    assert found["shortened"] == {name: len(data[name].encode())}
    assert found[name]
    assert data[name].startswith(found[name])
    assert len(found[name].encode()) <= shortening.LONGER_TEXTS.get(name, shortening.MAX_TEXT)
    assert {**found, name: data[name]} == {**data, "shortened": found["shortened"]}


def test_an_address_is_whole_or_not_there() -> None:
    long = "1" * 10_000 + "@lid"
    found = bounded({**MESSAGE, "chat": long, "sender": {**MESSAGE["sender"], "jid": long}})
    assert found["chat"] is None
    assert found["sender"] == {**MESSAGE["sender"], "jid": None}
    assert found["shortened"] == {"chat": 10_004, "sender.jid": 10_004}


def test_a_text_within_a_content_is_cut_as_one_beside_it() -> None:
    quote = {"message_id": "B", "content": {"kind": "text", "text": "x" * 100_000}}
    found = bounded(
        {**MESSAGE, "content": {"kind": "text", "text": "x" * 300_000}, "reply_to": quote}
    )
    assert found["content"]["text"] == found["reply_to"]["content"]["text"] == "x" * 65_536
    assert found["shortened"] == {"content.text": 300_000, "reply_to.content.text": 100_000}


def test_lists_are_cut_by_items_and_what_is_too_deep_is_left_out() -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    options = [{"name": "o" * 2000}] * 5000
    found = bounded({**MESSAGE, "options": options, "deep": deep})
    assert 0 < len(found["options"]) < shortening.MAX_ITEMS
    assert found["shortened"]["options"] == 5000
    assert found["shortened"]["options.name"] == 2000
    assert len(bounded({"ids": ["3EB0"] * 5000})["ids"]) == shortening.MAX_ITEMS
    assert found["odd"] == ["deep"]
    assert len(pack(found)) < MAX_EVENT_BYTES


def test_an_event_of_many_large_parts_loses_bytes_first_and_then_the_largest() -> None:
    content = {"kind": "unsupported", "text": "👍" * 65_536, "raw": b"r" * 250_000}
    found = bounded({**MESSAGE, "content": content})
    assert "raw" not in found["content"]
    assert found["content"]["text"] == content["text"]
    assert found["shortened"] == {"content.raw": 250_000}
    people = [{"jid": "1" * 200, "lid": "1" * 200, "phone": "1" * 200}] * 1000
    found = bounded({**MESSAGE, "content": content, "mentions": people})
    assert found["content"]["text"] == content["text"]
    assert 0 < len(found["mentions"]) < 1000
    assert found["shortened"] == {"content.raw": 250_000, "mentions": 1000}


@pytest.mark.parametrize("value", [2**63, -(2**64), float("nan"), float("inf"), object(), {5}])
def test_what_nobody_can_store_is_replaced(value: object) -> None:
    found = bounded({**MESSAGE, "retry_count": value})
    assert found["odd"] == ["retry_count"]
    assert not found["retry_count"]


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20)
    | st.binary(max_size=20) | st.sampled_from(("x" * 300_000, "\udc80" * 900, b"y" * 300_000)),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(["chat", "message_ids", "text", "content", "a", "b"]), values)
)
def test_whatever_comes_fits_into_the_log_and_is_left_alone_the_second_time(
    data: dict[str, Any],
) -> None:
    found = bounded(data)
    packed = pack(Event(2**40, 2**42, "c" * 50, MESSAGE_RECEIVED, found).as_wire())
    assert len(packed) <= MAX_EVENT_BYTES
    assert unpack(pack(found)) == found
    assert bounded(found) == found
