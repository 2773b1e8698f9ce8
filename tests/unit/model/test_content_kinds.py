"""What a message says: the kinds, and how each door refuses what is none."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from whatsappd.api.checking import checked
from whatsappd.api.messages import SendMessage
from whatsappd.errors import InvalidParams
from whatsappd.handlers.messages import _content_of
from whatsappd.manual.topics import read
from whatsappd.model.content import (
    MAX_TEXT,
    Receivable,
    Sendable,
    Text,
    Unsupported,
    kinds_of,
    sendable_from,
)

HELLO = {"kind": "text", "text": "Hello"}


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = {"kind": "text", "text": value}
    return value


#: What is no content, and what the complaint names.
HOSTILE: dict[str, tuple[Any, str, str]] = {
    "no map": ("Hello", "content", "object"),
    "a list": ([HELLO], "content", "object"),
    "a number": (5, "content", "object"),
    "empty": ({}, "content.kind", "is missing (accepted: text"),
    "no kind": ({"text": "Hello"}, "content.kind", "is missing (accepted: text"),
    "an unknown kind": ({"kind": "smell", "text": "x"}, "content.kind", "(accepted: text"),
    "a kind that only arrives": (
        {"kind": "unsupported", "type": "image"}, "content.kind", "(accepted: text",
    ),
    "a kind that is no text": ({"kind": 5, "text": "x"}, "content.kind", "(accepted: text"),
    "a kind that is a map": ({"kind": {}, "text": "x"}, "content.kind", "(accepted: text"),
    "a kind of a megabyte": ({"kind": "k" * 1_000_000}, "content.kind", "(accepted: text"),
    "no text": ({"kind": "text"}, "content", "text"),
    "an empty text": ({"kind": "text", "text": ""}, "content.text", ">= 1"),
    "a text too long": ({"kind": "text", "text": "x" * (MAX_TEXT + 1)}, "content.text", "65536"),
    "a text of bytes": ({"kind": "text", "text": b"x"}, "content.text", "`str`"),
    "a text that is a list": ({"kind": "text", "text": ["x"]}, "content.text", "`str`"),
    "a field too many": ({**HELLO, "url": "file:///etc/passwd"}, "content", "url"),
    "deep": (nested(500), "content.text", "`str`"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_content_is_refused_with_its_place(name: str) -> None:
    value, place, word = HOSTILE[name]
    arguments = {"company": "acme", "to": "+15550100", "content": value}
    for ask in (
        lambda: checked(arguments, SendMessage),
        lambda: sendable_from(value),
    ):
        with pytest.raises(InvalidParams) as caught:
            ask()
        assert caught.value.message.startswith(f"{place}: "), caught.value.message
        assert word in caught.value.message
        assert len(caught.value.message) < 600
        assert caught.value.data["field"] == "content"


def test_text_is_short_for_content_of_kind_text() -> None:
    asked = {"company": "acme", "to": "+15550100"}
    short = checked({**asked, "text": "Hello"}, SendMessage)
    long = checked({**asked, "content": HELLO}, SendMessage)
    assert _content_of(short) == _content_of(long) == sendable_from(HELLO) == Text("Hello")
    longest = {"kind": "text", "text": "\U0001f600" * MAX_TEXT}
    assert sendable_from(longest).as_wire() == longest


@pytest.mark.parametrize("both", [True, False])
def test_one_of_the_two_is_given(both: bool) -> None:
    given = {"text": "Hello", "content": HELLO} if both else {}
    params = checked({"company": "acme", "to": "+15550100", **given}, SendMessage)
    with pytest.raises(InvalidParams) as caught:
        _content_of(params)
    for word in ("text", "content"):
        assert word in caught.value.message


@pytest.mark.parametrize(
    "content",
    [Text("Hello"), Unsupported("image", "A caption", b"\xff\x00"), Unsupported("poll")],
)
def test_a_content_survives_the_wire(content: Receivable) -> None:
    wire = content.as_wire()
    assert wire["kind"] == content.kind
    assert msgspec.convert(wire, Receivable) == content
    assert content.short_text in ("Hello", "A caption", "")


def test_every_kind_has_a_name_of_its_own() -> None:
    assert "text" in kinds_of(Sendable)
    assert len(set(kinds_of(Receivable))) == len(kinds_of(Receivable))


def test_the_guides_name_every_kind() -> None:
    guide = read("events")
    for kind in kinds_of(Receivable):
        assert f"| `{kind}` |" in guide, kind
    sent = read("sending").partition("Kinds that can be sent: ")[2].partition(".")[0]
    assert sent == ", ".join(f"`{kind}`" for kind in kinds_of(Sendable))
