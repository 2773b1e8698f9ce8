"""Persons and chats: both identities, wherever both are known."""

from __future__ import annotations

from typing import Any

import pytest
from message_shapes import MESSAGE

from whatsappd.model.jid import parse_jid
from whatsappd.model.person import Chat, Person, chat_of, person_of, with_both_identities

LID, NUMBER = parse_jid("123:7@lid"), parse_jid("15550100:7@s.whatsapp.net")


@pytest.mark.parametrize("known", [(LID, NUMBER), (NUMBER, None, LID)])
def test_a_person_has_both_identities_in_any_order(known: tuple[None, ...]) -> None:
    found = person_of(*known, name="Ann")
    assert found == Person(
        jid="15550100@s.whatsapp.net", lid="123@lid", phone="+15550100", name="Ann"
    )
    assert found.addresses == {"15550100@s.whatsapp.net", "123@lid"}
    assert found.identity == ("123@lid", "15550100@s.whatsapp.net")


def test_what_is_not_known_is_none() -> None:
    assert person_of(None, None) is None
    assert chat_of(None) is None
    assert person_of(LID) == Person(jid="123@lid", lid="123@lid")
    assert person_of(NUMBER) == Person(jid="15550100@s.whatsapp.net", phone="+15550100")
    for one in (person_of(LID), person_of(NUMBER)):
        assert one is not None
        assert one.identity is None
    odd = person_of(parse_jid("a b@s.whatsapp.net"))
    assert odd == Person(jid="a b@s.whatsapp.net")


@pytest.mark.parametrize(
    ("jid", "type_"),
    [
        ("15550100@s.whatsapp.net", "person"),
        ("123@lid", "person"),
        ("1234-5678@g.us", "group"),
        ("status@broadcast", "status"),
        ("1234@broadcast", "broadcast"),
        ("1234@newsletter", "channel"),
        ("a b@example.com", "other"),
    ],
)
def test_a_chat_says_what_it_is(jid: str, type_: str) -> None:
    found = chat_of(parse_jid(jid))
    assert isinstance(found, Chat)
    assert (found.jid, found.type) == (jid, type_)


def test_what_is_known_elsewhere_of_a_person_is_added_wherever_one_stands() -> None:
    known = {"1@lid": "15550100@s.whatsapp.net", "15550200@s.whatsapp.net": "2@lid"}
    both: dict[str, Any] = {
        "jid": "15550100@s.whatsapp.net", "lid": "1@lid", "phone": "+15550100", "name": None,
    }  # fmt: skip
    number = {"jid": "15550200@s.whatsapp.net", "lid": None, "phone": "+15550200", "name": "Bo"}
    stranger = {"jid": "3@lid", "lid": "3@lid", "phone": None, "name": None}
    reply = {"message_id": "B", "sender": number, "content": None}
    data = {**MESSAGE, "reply_to": reply, "mentions": [stranger, MESSAGE["sender"]]}
    found = with_both_identities(data, known.get)
    assert found["sender"] == both
    assert found["chat"] == {**both, "type": "person"}
    assert found["reply_to"] == {**reply, "sender": {**number, "lid": "2@lid"}}
    assert found["mentions"] == [stranger, both]
    changed = {name: found[name] for name in ("sender", "chat", "reply_to", "mentions")}
    assert found == {**data, **changed}


@pytest.mark.parametrize("value", [None, {"jid": None, "lid": None}, {"jid": "1-2@g.us"}])
def test_who_is_no_person_stays_so(value: Any) -> None:
    data = {"chat": value, "of": "message"}
    assert with_both_identities(data, lambda jid: "1@lid") == data


def test_of_a_person_whose_address_is_none_nothing_is_looked_up() -> None:
    """Of addresses there is only the worker's word, and it may be a lie."""
    nobody = {"jid": None, "lid": "7@lid", "phone": None, "name": None}
    nonsense = {**nobody, "jid": "x:y@lid"}
    told: dict[str, Any] = {
        "chat": nobody,
        "sender": nonsense,
        "mentions": [nobody, nonsense],
        "reply_to": {"message_id": "M", "sender": nobody, "content": None},
    }
    known = {"x:y@lid": "15550100@s.whatsapp.net"}
    assert with_both_identities(told, known.__getitem__) == told
