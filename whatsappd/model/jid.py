"""JIDs: the addresses of WhatsApp.

A JID is `user@server`, or `user:device@server` for one device of a user. A person has two: the
phone-number JID (`15550100@s.whatsapp.net`) and the LID (`123456@lid`), which hides the number.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from whatsappd.errors import InvalidParams

USER_SERVER = "s.whatsapp.net"
LID_SERVER = "lid"
GROUP_SERVER = "g.us"
LEGACY_USER_SERVER = "c.us"
BROADCAST_SERVER = "broadcast"
NEWSLETTER_SERVER = "newsletter"

# E.164 allows 15 digits; the shortest real international numbers have 7.
_PHONE = re.compile(r"\+?[1-9][0-9]{6,14}\Z")
_SEPARATORS = re.compile(r"[ ().\-]")
#: Servers a message may be sent to, and whom each has: a phone number, a LID, a group (old ones
#: have their maker's number and a time).
RECIPIENT_SERVERS = {
    USER_SERVER: re.compile(r"[1-9][0-9]{6,14}\Z"),
    LID_SERVER: re.compile(r"[1-9][0-9]{0,19}\Z"),
    GROUP_SERVER: re.compile(r"[0-9][0-9-]{0,40}\Z"),
}
#: Why messages cannot be sent to others.
_OTHER_SERVERS = {
    BROADCAST_SERVER: "broadcast lists are not supported",
    NEWSLETTER_SERVER: "channels are not supported",
    "bot": "bots are not supported",
    "hosted": "it names a device in Meta's cloud; write to the phone number",
    "hosted.lid": "it names a device in Meta's cloud; write to the LID",
}


class Jid(NamedTuple):
    """One address. `device` 0 is the account itself (or its phone), others are linked devices."""

    user: str
    server: str
    device: int = 0

    def __str__(self) -> str:
        if self.device:
            return f"{self.user}:{self.device}@{self.server}"
        return f"{self.user}@{self.server}" if self.user else self.server

    @property
    def account(self) -> Jid:
        """The same user without the device."""
        return Jid(self.user, self.server)

    @property
    def is_group(self) -> bool:
        return self.server == GROUP_SERVER


def parse_jid(text: str) -> Jid:
    """The JID that `text` (`user@server`, `user:device@server` or `server`) names.

    Raises:
        ValueError: the text is no JID.
    """
    user, at, server = text.rpartition("@")
    if not server or (at and not user):
        raise ValueError(f"{text!r} is no JID")
    user, colon, device = user.partition(":")
    if not colon:
        return Jid(user, server)
    if not device.isdecimal() or not device.isascii() or int(device) > 0xFFFF:
        raise ValueError(f"{text!r} is no JID: the device must be 0 to 65535")
    return Jid(user, server, int(device))


def parse_recipient(text: str, *, field: str = "to") -> Jid:
    """The address a person means: `+15550100`, `1 (555) 010-0100`, or a full JID.

    Raises:
        InvalidParams: it is none of these; the message names `field` and shows valid forms.
    """
    remedy = (
        "write an international phone number (+15550100), "
        "or a JID (15550100@s.whatsapp.net, 1234@lid, 1234-5678@g.us)"
    )
    stripped = text.strip()
    if "@" not in stripped:
        number = _SEPARATORS.sub("", stripped)
        if not number.isascii() or not _PHONE.match(number):
            raise InvalidParams(f"{field}: {text!r:.80} is no phone number: {remedy}", field=field)
        return Jid(number.removeprefix("+"), USER_SERVER)
    try:
        jid = parse_jid(stripped)
    except ValueError as error:
        raise InvalidParams(f"{field}: {text!r:.80} is no JID: {remedy}", field=field) from error
    if jid.server == LEGACY_USER_SERVER:
        jid = jid._replace(server=USER_SERVER)
    users = RECIPIENT_SERVERS.get(jid.server)
    why = _OTHER_SERVERS.get(jid.server)
    if jid.device and users is not None:
        why = "it names one device; leave out the part behind the colon"
    if users is None or jid.device or not users.match(jid.user):
        raise InvalidParams(f"{field}: cannot send to {text!r:.80}: {why or remedy}", field=field)
    return jid


def shortened(address: str) -> str:
    """An address fit for logs: the last four digits of the user only (`…0100@s.whatsapp.net`)."""
    user, at, server = address.partition("@")
    if len(user) > 4:
        user = "…" + user[-4:]
    return user + at + server
