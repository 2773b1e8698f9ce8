"""Messages: what one is in a chat, in both directions, and the rows of the outbox."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, NamedTuple

import msgspec

from whatsappd.model.content import Receivable, Sendable
from whatsappd.model.jid import Jid
from whatsappd.model.person import Chat, Person, chat_of, person_of

#: Where the account itself wrote a message: with its phone, or another linked device.
Origin = Literal["phone", "device"]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where something stands that came from WhatsApp, and who sent it. None: nobody knows."""

    chat: Chat | None
    sender: Person | None
    from_me: bool
    device: int  # of the sender: 0 is the phone
    origin: Origin | None = None  # of what is `from_me`


def source_of(
    *,
    chat: Jid | None,
    sender: Jid | None,
    sender_alt: Jid | None,
    recipient_alt: Jid | None,
    from_me: bool,
    name: str | None,
) -> Source:
    """Where something stands, as WhatsApp names it.

    Args:
        sender_alt: the sender's other address.
        recipient_alt: that of the person to whom the account itself wrote.
        name: what the sender calls themselves.
    """
    known, chat_name = [chat], None
    if from_me:
        known.append(recipient_alt)
    elif chat is not None and sender is not None and chat.account == sender.account:
        known.append(sender_alt)
        chat_name = name
    device = 0 if sender is None else sender.device
    origin: Origin = "device" if device else "phone"
    return Source(
        chat=chat_of(*known, name=chat_name),
        sender=person_of(sender, sender_alt, name=name),
        from_me=from_me,
        device=device,
        origin=origin if from_me else None,
    )


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What a message answers, as it quotes it: shortened, and in the words of whoever quotes."""

    message_id: str
    sender: Person | None = None
    content: Receivable | None = None


class Message(Source, frozen=True, kw_only=True):
    """A message in a chat, as it arrived; the data of the event `message.received`.

    The event also has `text` (`Content.short_text`), and the marks of `wire.shortening`.
    """

    message_id: str
    timestamp_ms: int  # the server's
    content: Receivable
    reply_to: Reply | None = None
    mentions: list[Person] = []
    forwarded: int = 0  # how often, as far as WhatsApp counts; 0: not
    expires_s: int = 0  # seconds until it disappears from the chat; 0: it stays
    view_once: bool = False
    #: What WhatsApp says of a message that changes another (`1` edit, `7` taken back, ...).
    edit: str | None = None
    retry_count: int = 0  # how often it was asked for until it could be read


class OutboxState(StrEnum):
    """Where a row of the outbox is; `rules.delivery` has the table of transitions."""

    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    PLAYED = "played"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    UNCERTAIN = "uncertain"


class OnUncertain(StrEnum):
    """What to do with a row whose fate a crash left unknown."""

    ASK = "ask"  # leave it `uncertain` until a receipt or a person resolves it
    RESEND = "resend"  # send it again, at the risk of a duplicate


class NewMessage(NamedTuple):
    """What a sender wants sent. `key`: see `Row`. `chat` is the recipient's JID as given.

    `expires_ms` is epoch milliseconds; None: it waits for ever.
    """

    company: str
    chat: str
    content: Sendable
    key: str | None = None
    expires_ms: int | None = None
    on_uncertain: OnUncertain = OnUncertain.ASK
    owner: str | None = None  # who sends it: see `Row`


class Row(NamedTuple):
    """One accepted message. Times are epoch milliseconds.

    `id` is ours (16 hex digits of time and chance, in the order of acceptance). `message_id` is
    WhatsApp's, known once the server acknowledged, or once a lost attempt was identified. `key` is
    the sender's idempotency key.
    """

    id: str
    company: str
    chat: str  # the JID of the account it goes to
    content: Sendable
    key: str | None
    state: OutboxState
    reason: str | None  # why it failed, waits or is uncertain, in words
    attempts: int
    not_before_ms: int  # a passing failure's next try; 0: at once
    expires_ms: int | None
    on_uncertain: OnUncertain
    message_id: str | None
    created_ms: int
    updated_ms: int
    sent_ms: int | None  # the server's time of the ack
    handed_ms: int | None = None  # when it was last handed to WhatsApp
    # Attempts whose fate nobody knows. Above 0, the recipient may hold the message whatever the
    # state says, and twice if it was resent.
    lost_attempts: int = 0
    # Who sent it, for the bounds of each: `key:ID`, `uid:1000`; None: root, the daemon's own user,
    # or nobody knows any more. Not told to others.
    owner: str | None = None
    asked: str | None = None  # the recipient's JID as given, where it means another account
    is_reply: bool = False  # the recipient wrote lately, so it goes before the others
    # The id of the message that a device asked for again and WhatsApp's library had forgotten:
    # it was sent anew, under `message_id`.
    former_message_id: str | None = None

    @property
    def text(self) -> str:
        """The content in short: see `Content.short_text`."""
        return self.content.short_text

    @property
    def recipient(self) -> str:
        """The recipient's JID as given."""
        return self.asked or self.chat
