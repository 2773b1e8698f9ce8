"""`message.*`: send messages, and look at what became of them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from whatsappd.api.declaration import Concerns, Declaration, Examples, Params, Result
from whatsappd.api.types import CompanyId, TimeMs
from whatsappd.model.content import MAX_TEXT, Sendable
from whatsappd.model.message import OnUncertain, OutboxState

MAX_KEY = 200
#: Rows of one answer, which has at most 1 MiB.
MAX_LIST = 200
#: Ten years: longer is a slip of the finger.
MAX_TTL_MS = 10 * 366 * 24 * 3600 * 1000
# In JSON Schema `$` is the end; in Python it also stands before a last line feed.
MESSAGE_ID_PATTERN = r"^[A-Za-z0-9]{1,64}$(?!\n)"

MessageId = Annotated[
    str,
    Meta(
        description="The message's id in the outbox.",
        examples=["019ab0c4d2e10001"],
        extra_json_schema={"pattern": MESSAGE_ID_PATTERN},
    ),
]
#: Whose a message must be.
OnlyCompany = Annotated[
    CompanyId | None,
    Meta(description="Only if it is this company's; else it is not found."),
]


class MessageToSend(Params):
    """What a message says, for whom it is, and how to send it.

    `text` is short for `content` of kind `text`: one of the two is given.
    """

    examples: ClassVar[Examples] = ({"to": "+15550200", "text": "Your order is ready."},)

    to: Annotated[
        str,
        Meta(
            description="An international phone number, or a JID.",
            examples=["+15550200"],
            extra_json_schema={"minLength": 1, "maxLength": 100},
        ),
    ]
    text: Annotated[
        Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)] | None,
        Meta(description="What it says.", examples=["Your order is ready."]),
    ] = None
    content: Annotated[
        Sendable | None,
        Meta(
            description="What it says, of any kind.",
            examples=[{"kind": "text", "text": "Your order is ready."}],
        ),
    ] = None
    ttl_ms: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_TTL_MS)] | None,
        Meta(description="Do not send it later than this many milliseconds from now."),
    ] = None
    on_uncertain: Annotated[
        OnUncertain,
        Meta(
            description="If a crash leaves its fate unknown: leave it `uncertain` (`ask`), or send "
            "it again (`resend`) at the risk of a duplicate."
        ),
    ] = OnUncertain.ASK
    no_queue: Annotated[
        bool, Meta(description="Fail now if it could not be sent now, instead of waiting.")
    ] = False


class SendMessage(MessageToSend, kw_only=True):
    """What to send, for which company, and when to answer."""

    examples: ClassVar[Examples] = (
        {"company": "acme", "to": "+15550200", "text": "Your order is ready."},
    )

    company: CompanyId
    key: Annotated[
        Annotated[str, Meta(min_length=1, max_length=MAX_KEY)] | None,
        Meta(
            description="Your idempotency key: the same key with the same content gives the same "
            "message, however often you send it; with other content it is an error.",
            examples=["order-4711"],
        ),
    ] = None
    wait: Annotated[
        Literal["queued", "sent", "delivered"], Meta(description="Answer only when it got there.")
    ] = "queued"


class OneMessage(Params):
    """Names a message."""

    id: MessageId
    company: OnlyCompany = None


class WaitForMessage(Params, rename={"for_": "for"}):
    """Names a message, and what to wait for."""

    id: MessageId
    company: OnlyCompany = None
    for_: Annotated[Literal["sent", "delivered"], Meta(description="How far it is to get.")] = (
        "sent"
    )


class Resolution(Params, rename={"as_": "as"}):
    """What a person found out about an `uncertain` message."""

    examples: ClassVar[Examples] = ({"as": "sent"},)

    as_: Annotated[
        Literal["sent", "resend", "failed"],
        Meta(description="It arrived (`sent`); send it again (`resend`); or give it up (`failed`)"),
    ]


class ResolveMessage(Resolution, rename={"as_": "as"}):
    """Names an `uncertain` message, and says what became of it."""

    examples: ClassVar[Examples] = ({"id": "019ab0c4d2e10001", "as": "sent"},)

    id: MessageId
    company: OnlyCompany = None


class ListMessages(Params):
    """Which messages to list."""

    company: Annotated[
        CompanyId | None, Meta(description="Whose messages; left out: those of all companies.")
    ] = None
    states: Annotated[
        list[OutboxState] | None, Meta(description="Only messages in these states.")
    ] = None
    limit: Annotated[int, Meta(ge=1, le=MAX_LIST, description="Messages in one answer.")] = 50
    before: Annotated[MessageId | None, Meta(description="`next` of the page before.")] = None


class OutboxMessage(Result):
    """A message that was accepted, and what became of it."""

    id: MessageId
    company: CompanyId
    chat: Annotated[
        str,
        Meta(
            description="The JID of the account that it goes to.",
            examples=["15550200@s.whatsapp.net"],
        ),
    ]
    content: Annotated[Sendable, Meta(description="What it says.")]
    text: Annotated[
        str, Meta(description="The same in short: the text, or what stands beside a picture.")
    ]
    key: Annotated[str | None, Meta(description="The sender's idempotency key.")]
    state: OutboxState
    reason: Annotated[
        str | None, Meta(description="Why it failed, waits or is uncertain, in words.")
    ]
    attempts: Annotated[int, Meta(description="How often it was handed to WhatsApp.")]
    not_before_ms: Annotated[
        int, Meta(description="When it is tried again after a passing failure; 0: at once.")
    ]
    expires_ms: Annotated[
        TimeMs | None, Meta(description="It is not sent later than that; null: it waits for ever.")
    ]
    on_uncertain: OnUncertain
    message_id: Annotated[str | None, Meta(description="WhatsApp's id, once it is known.")]
    created_ms: TimeMs
    updated_ms: TimeMs
    sent_ms: Annotated[
        TimeMs | None, Meta(description="When WhatsApp's server took it, by the server's clock.")
    ]
    handed_ms: Annotated[
        TimeMs | None, Meta(description="When it was last handed to WhatsApp.")
    ] = None
    lost_attempts: Annotated[
        int,
        Meta(
            description="Attempts whose fate nobody knows. Above 0, the recipient may have the "
            "message whatever the state says, and twice if it was sent again."
        ),
    ] = 0
    asked: Annotated[
        str | None,
        Meta(description="The recipient as it was given, where that is another address."),
    ] = None
    is_reply: Annotated[
        bool, Meta(description="The recipient wrote within a day, so it goes before others.")
    ] = False
    former_message_id: Annotated[
        str | None,
        Meta(description="Its id before it was sent anew, because nobody could read it."),
    ] = None


class OutboxPage(Result):
    """One page, the newest message first."""

    rows: list[OutboxMessage]
    next: Annotated[
        str | None,
        Meta(description="What to give as `before` for the following page; null at the end."),
    ]


SEND = Declaration(
    "message.send",
    SendMessage,
    OutboxMessage,
    """Send a message.

    Answers when the message is on disk, or with `wait` when it got that far or cannot any more.
    Waiting never decides whether it is sent: a caller that goes away changes nothing.
    """,
    writes=True,
)
GET = Declaration(
    "message.get", OneMessage, OutboxMessage, "One message.",
    writes=False, concerns=Concerns.SEVERAL,
)  # fmt: skip
WAIT = Declaration(
    "message.wait",
    WaitForMessage,
    OutboxMessage,
    """Wait until a message got somewhere.

    Answers when it got that far, or never will: its `state` tells.
    """,
    writes=False,
    concerns=Concerns.SEVERAL,
)
LIST = Declaration(
    "message.list", ListMessages, OutboxPage, "Messages, the newest first.",
    writes=False, concerns=Concerns.SEVERAL,
)  # fmt: skip
CANCEL = Declaration(
    "message.cancel", OneMessage, OutboxMessage, "Cancel a message that waits.",
    writes=True, concerns=Concerns.SEVERAL,
)  # fmt: skip
RESOLVE = Declaration(
    "message.resolve", ResolveMessage, OutboxMessage,
    "Decide what became of an uncertain message.",
    writes=True, concerns=Concerns.SEVERAL,
)  # fmt: skip

METHODS = (SEND, GET, WAIT, LIST, CANCEL, RESOLVE)
