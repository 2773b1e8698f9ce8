"""To whom a message can be sent, as far as the address alone can tell."""

from __future__ import annotations

import pytest

from whatsappd.errors import InvalidParams
from whatsappd.model.jid import parse_recipient


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("+1 (555) 010-0100", "15550100100@s.whatsapp.net"),
        ("15550100@s.whatsapp.net", "15550100@s.whatsapp.net"),
        ("15550100@c.us", "15550100@s.whatsapp.net"),  # as older programs write it
        ("1234@lid", "1234@lid"),
        ("1234-5678@g.us", "1234-5678@g.us"),
    ],
)
def test_what_can_be_sent_to(text: str, address: str) -> None:
    assert str(parse_recipient(text)) == address


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("status@broadcast", "broadcast lists"),
        ("15550100@broadcast", "broadcast lists"),
        ("120363000000000001@newsletter", "channels"),
        ("867051314767696@bot", "bots"),
        ("15550100@hosted", "write to the phone number"),
        ("1234@hosted.lid", "write to the LID"),
        ("15550100:3@s.whatsapp.net", "leave out the part behind the colon"),
        ("1234:3@lid", "leave out the part behind the colon"),
        ("15550100:3@c.us", "leave out the part behind the colon"),
        ("123@s.whatsapp.net", "international phone number"),  # too short
        ("1234567890123456@s.whatsapp.net", "international phone number"),  # too long
        ("0155501000@s.whatsapp.net", "international phone number"),
        ("1" * 21 + "@lid", "international phone number"),
        ("0@lid", "international phone number"),
        ("abc@lid", "international phone number"),
        ("1234@msgr", "international phone number"),
        ("@s.whatsapp.net", "international phone number"),
    ],
)
def test_what_cannot_be_sent_to_says_why(text: str, why: str) -> None:
    with pytest.raises(InvalidParams, match="to: ") as refused:
        parse_recipient(text)
    assert why in refused.value.message
