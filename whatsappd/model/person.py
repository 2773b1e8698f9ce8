"""Who writes and who is written to: persons with both their identities, and chats.

WhatsApp names people by phone number or by LID, which hides the number. Wherever both are known,
both are here, so that nobody has to work with a LID alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from whatsappd.model.jid import (
    BROADCAST_SERVER,
    GROUP_SERVER,
    LID_SERVER,
    NEWSLETTER_SERVER,
    USER_SERVER,
    Jid,
    parse_jid,
)

_NUMBER = re.compile(r"[1-9][0-9]{6,14}\Z")

ChatType = Literal["person", "group", "status", "channel", "broadcast", "other"]


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody's account. What is not known is None.

    `jid` is its address: of the phone number where that is known, else the LID, without a device.
    It is what `chat` is in rows of the outbox. `name` is what they call themselves.
    """

    jid: str | None
    lid: str | None = None
    phone: str | None = None  # +15550100
    name: str | None = None

    @property
    def addresses(self) -> frozenset[str]:
        """All JIDs of theirs that are known."""
        return frozenset(each for each in (self.jid, self.lid) if each)

    @property
    def identity(self) -> tuple[str, str] | None:
        """The LID and the JID of the phone number; None if one of them is not known."""
        if self.lid is None or self.phone is None or self.jid is None:
            return None
        return self.lid, self.jid


class Chat(Person, frozen=True, kw_only=True):
    """Where a message stands. `lid` and `phone` are those of the person, if it is one's."""

    type: ChatType


def person_of(*known: Jid | None, name: str | None = None) -> Person | None:
    """The person with these addresses; None if there is none."""
    found = _identities(known)
    return None if found["jid"] is None else Person(**found, name=name)


def chat_of(*known: Jid | None, name: str | None = None) -> Chat | None:
    """The chat with this address; a person may have two."""
    found = _identities(known)
    if found["jid"] is None:
        return None
    server = next(each.server for each in known if each is not None)
    return Chat(**found, name=name, type=_type_of(found["jid"], server))


def with_both_identities(
    data: dict[str, Any], other: Callable[[str], str | None]
) -> dict[str, Any]:
    """The data of an event, with what is known elsewhere of the persons in it.

    Args:
        other: the other JID of the person who has one, if it is known.
    """
    changed = {name: _completed(data.get(name), other) for name in ("chat", "sender")}
    if isinstance(reply := data.get("reply_to"), dict):
        changed["reply_to"] = {**reply, "sender": _completed(reply.get("sender"), other)}
    if mentions := data.get("mentions"):
        changed["mentions"] = [_completed(one, other) for one in mentions]
    return {**data, **{name: one for name, one in changed.items() if name in data}}


def _completed(one: Any, other: Callable[[str], str | None]) -> Any:
    """A person, or a chat, as a map."""
    if not isinstance(one, dict) or (one.get("lid") is None) == (one.get("phone") is None):
        return one  # both are known, or it is no person
    if (jid := one.get("jid")) is None or (found := other(jid)) is None:
        return one
    try:
        known = person_of(parse_jid(jid), parse_jid(found))
    except ValueError:  # no address, but the word of a worker
        return one
    if known is None or known.identity is None:
        return one
    return {**one, "jid": known.jid, "lid": known.lid, "phone": known.phone}


def _identities(known: tuple[Jid | None, ...]) -> dict[str, str | None]:
    accounts = [jid.account for jid in known if jid is not None]
    lid = next((jid for jid in accounts if jid.server == LID_SERVER), None)
    number = next((j for j in accounts if j.server == USER_SERVER and _NUMBER.match(j.user)), None)
    first = number or lid or (accounts[0] if accounts else None)
    return {
        "jid": None if first is None else str(first),
        "lid": None if lid is None else str(lid),
        "phone": None if number is None else f"+{number.user}",
    }


def _type_of(jid: str, server: str) -> ChatType:
    if jid == f"status@{BROADCAST_SERVER}":
        return "status"
    return _TYPES.get(server, "other")


_TYPES: dict[str, ChatType] = {
    USER_SERVER: "person",
    LID_SERVER: "person",
    GROUP_SERVER: "group",
    NEWSLETTER_SERVER: "channel",
    BROADCAST_SERVER: "broadcast",
}
