"""`webhook.*`: configure webhooks, see how they fare, and (for the gateway) deliver them.

What only reads shows URLs, which may hold secrets of the receiver: so all of it is for those who
could change webhooks (`writes`).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from whatsappd.api.declaration import Declaration, Done, Examples, NoParams, Params, Result
from whatsappd.api.events import LoggedEvent
from whatsappd.api.types import MAX_SEQ, CompanyId, Seq, TimeMs
from whatsappd.model.event import EVENT_TYPES
from whatsappd.rules.webhook_policy import MAX_DESCRIPTION, MAX_URL

#: Of one webhook. All webhooks must fit into one answer.
MAX_COMPANIES = 100
MAX_TYPES = 100
MAX_LETTERS = 1000
WEBHOOK_ID_PATTERN = r"^[a-z0-9]{8}$(?!\n)"

WebhookId = Annotated[
    str,
    Meta(
        description="The webhook's id.",
        examples=["5pk2wczu"],
        extra_json_schema={"pattern": WEBHOOK_ID_PATTERN},
    ),
]
Url = Annotated[
    str,
    Meta(
        description="https://, without user, password or fragment. http:// only with "
        "`allow_private`.",
        examples=["https://hooks.shop.example/whatsapp"],
        extra_json_schema={"minLength": 1, "maxLength": MAX_URL},
    ),
]
WebhookCompanies = Annotated[
    list[CompanyId], Meta(max_length=MAX_COMPANIES, extra_json_schema={"minItems": 1})
]
WebhookTypes = Annotated[
    list[Annotated[str, Meta(extra_json_schema={"enum": list(EVENT_TYPES)})]],
    Meta(max_length=MAX_TYPES, extra_json_schema={"minItems": 1}),
]
Description = Annotated[str, Meta(max_length=MAX_DESCRIPTION)]

_ALL_COMPANIES = "The companies that it is for; null: all."
_ALL_TYPES = "Null: all types of events but session.qr, which has to be named."
_PRIVATE = "Let it reach addresses that are not on the Internet."


class CreateWebhook(Params):
    """Where events are to go, and which."""

    examples: ClassVar[Examples] = (
        {
            "url": "https://hooks.shop.example/whatsapp",
            "companies": ["acme"],
            "types": ["message.received", "outbox.state"],
        },
    )

    url: Url
    companies: Annotated[WebhookCompanies | None, Meta(description=_ALL_COMPANIES)] = None
    types: Annotated[WebhookTypes | None, Meta(description=_ALL_TYPES)] = None
    description: Annotated[Description, Meta(description="For people.")] = ""
    allow_private: Annotated[bool, Meta(description=_PRIVATE)] = False
    enabled: Annotated[bool, Meta(description="Whether it delivers.")] = True
    after: Annotated[
        Seq | None,
        Meta(description="Begin behind this event; null: with what comes. 0: all of the log."),
    ] = None


class WebhookChanges(Params):
    """What is to be another way. What is not given stays. The receiver gets another chance."""

    examples: ClassVar[Examples] = ({"enabled": False},)

    url: Annotated[
        Url | UnsetType | None, Meta(description="Where events are to go from now on.")
    ] = UNSET
    companies: Annotated[WebhookCompanies | UnsetType | None, Meta(description=_ALL_COMPANIES)] = (
        UNSET
    )
    types: Annotated[WebhookTypes | UnsetType | None, Meta(description=_ALL_TYPES)] = UNSET
    description: Annotated[Description | UnsetType | None, Meta(description="For people.")] = UNSET
    allow_private: Annotated[bool | UnsetType | None, Meta(description=_PRIVATE)] = UNSET
    enabled: Annotated[
        bool | UnsetType | None, Meta(description="Disabled, it keeps its place in the log.")
    ] = UNSET
    rotate_secret: Annotated[bool, Meta(description="Answer a new secret, valid at once.")] = False


class UpdateWebhook(WebhookChanges, kw_only=True):
    """Which webhook to configure, and what is to be another way."""

    examples: ClassVar[Examples] = ({"id": "5pk2wczu", "enabled": False},)

    id: WebhookId


class OneWebhook(Params):
    id: WebhookId


class ReadDeadLetters(Params):
    """Which page of a webhook's dead letters to read."""

    id: WebhookId
    after: Annotated[Seq, Meta(description="`next` of the page before.")] = 0
    limit: Annotated[int, Meta(ge=1, le=500, description="Dead letters in one answer.")] = 100


class ChosenLetters(Params):
    """Some dead letters, or all."""

    examples: ClassVar[Examples] = ({"letters": [1]}, {})

    letters: Annotated[
        Annotated[list[Annotated[int, Meta(ge=1, le=MAX_SEQ)]], Meta(max_length=MAX_LETTERS)]
        | None,
        Meta(description="Ids of dead letters; null: all of them."),
    ] = None


class LettersOfWebhook(ChosenLetters, kw_only=True):
    """A webhook, and which of its dead letters."""

    examples: ClassVar[Examples] = ({"id": "5pk2wczu", "letters": [1]},)

    id: WebhookId


class WebhookInfo(Result):
    """A webhook, and how it fares."""

    id: WebhookId
    revision: Annotated[int, Meta(description="Of its configuration.")]
    url: str
    companies: Annotated[list[str] | None, Meta(description="Null: all.")]
    types: Annotated[list[str] | None, Meta(description="Null: all but session.qr.")]
    description: str
    allow_private: bool
    enabled: bool
    state: Annotated[
        Literal["ok", "failing", "paused", "disabled"],
        Meta(
            description="`paused`: it failed for long; it is tried now and then, and resumes by "
            "itself."
        ),
    ]
    owner: Annotated[
        str | None,
        Meta(description="Who made it; null: root, or the daemon's own user.", examples=["key:ID"]),
    ]
    created_ms: TimeMs
    updated_ms: TimeMs
    cursor: Annotated[
        int, Meta(description="Events up to this one are delivered, or dead letters.")
    ]
    behind: Annotated[int, Meta(description="Events of the log behind the cursor, of all kinds.")]
    delivered: Annotated[int, Meta(description="Events that the receiver took.")]
    failures: Annotated[int, Meta(description="Attempts that failed.")]
    dead_letters: Annotated[int, Meta(description="Events that the receiver refused for good.")]
    dead_bytes: Annotated[int, Meta(description="Bytes of the events in them.")]
    gone: Annotated[
        int,
        Meta(
            description="How many events of the log, of all kinds, its retention deleted before "
            "this webhook came to them: at most so many, as others between them may have outlived "
            "them."
        ),
    ]
    last_success_ms: TimeMs | None
    failing_since_ms: Annotated[
        TimeMs | None, Meta(description="The first failure since the last success.")
    ]
    paused_since_ms: TimeMs | None
    last_error: str | None
    secret: Annotated[
        str | UnsetType | None,
        Meta(description="Only in the answer to making it or to `rotate_secret`."),
    ] = UNSET


class WebhookList(Result):
    """All webhooks."""

    webhooks: list[WebhookInfo]
    delivering: Annotated[bool, Meta(description="Whether a gateway runs that delivers.")]


class RemovedWebhook(Result):
    id: WebhookId


class DeadLetterInfo(Result):
    """An event that a receiver refused for good."""

    id: int
    webhook: WebhookId
    seq: Annotated[int, Meta(description="The event's.")]
    time_ms: Annotated[TimeMs, Meta(description="The event's.")]
    company: str
    type: str
    dead_ms: Annotated[TimeMs, Meta(description="When it was given up.")]
    attempts: int
    reason: str
    resend: Annotated[bool, Meta(description="One more attempt was asked for, and is due.")]


class DeadLetterPage(Result):
    """One page, the oldest first. Go on with `next` as `after`; null at the end."""

    dead_letters: list[DeadLetterInfo]
    next: int | None


class CountedLetters(Result):
    """Of which webhook, and how many."""

    id: WebhookId
    count: int


class DeliveryOutcome(Result):
    """What became of one attempt to deliver."""

    ok: bool
    status: Annotated[int | None, Meta(description="What the receiver answered, if it did.")]
    error: Annotated[str | None, Meta(description="Why it did not take it, in words.")]
    took_ms: Annotated[int, Meta(description="Milliseconds until it was clear.")]


class TestedWebhook(DeliveryOutcome):
    """What became of a test event."""

    id: WebhookId


CREATE = Declaration(
    "webhook.create", CreateWebhook, WebhookInfo,
    "Make a webhook. Its `secret` is shown now and never again.", writes=True,
)  # fmt: skip
LIST = Declaration("webhook.list", NoParams, WebhookList, "The webhooks.", writes=True)
GET = Declaration("webhook.get", OneWebhook, WebhookInfo, "One webhook.", writes=True)
UPDATE = Declaration(
    "webhook.update", UpdateWebhook, WebhookInfo,
    "Configure a webhook. With `rotate_secret`, `secret` is the new one, from now on.", writes=True,
)  # fmt: skip
REMOVE = Declaration(
    "webhook.remove", OneWebhook, RemovedWebhook, "Remove a webhook and its dead letters.",
    writes=True,
)  # fmt: skip
TEST = Declaration(
    "webhook.test", OneWebhook, TestedWebhook,
    "Deliver an event of type `webhook.test` now, out of turn, and tell what the receiver said.",
    writes=True,
)  # fmt: skip
DEAD_LETTERS = Declaration(
    "webhook.dead_letters", ReadDeadLetters, DeadLetterPage, "Events that the receiver refused.",
    writes=True,
)  # fmt: skip
RESEND = Declaration(
    "webhook.resend", LettersOfWebhook, CountedLetters, "Try dead letters once more.", writes=True
)
DISCARD = Declaration(
    "webhook.discard", LettersOfWebhook, CountedLetters, "Delete dead letters.", writes=True
)

# --- for the process that delivers ----------------------------------------------------------------


class WebhookWork(WebhookInfo):
    """A webhook as whoever delivers needs it: `types` are named, and the secret is there."""

    types: Annotated[list[str], Meta(description="Named, also if it is for all.")]
    secret: str


class AskedTest(Result):
    """A test that somebody waits for."""

    token: str
    id: WebhookId


class DeliveryWork(Result):
    """All that there is to deliver."""

    webhooks: list[WebhookWork]
    resend: Annotated[list[str], Meta(description="Webhooks with dead letters to try again.")]
    tests: list[AskedTest]


class RefusedEvent(Params):
    """An event that becomes a dead letter."""

    event: LoggedEvent
    attempts: int
    reason: str


class GoneEvents(Params):
    """Events between these two were deleted before they could be delivered."""

    after: Seq
    first: Seq


class ReportProgress(Params):
    """How far a webhook is. Counts are since the last report."""

    id: WebhookId
    revision: int
    cursor: Seq
    delivered: Seq = 0
    failures: Seq = 0
    last_success_ms: int | None = None
    failing_since_ms: int | None = None
    paused_since_ms: int | None = None
    last_error: str | None = None
    dead: list[RefusedEvent] = msgspec.field(default_factory=list)
    gone: GoneEvents | None = None


class RefuseForGood(Params):
    """Which receiver wants no more events."""

    id: WebhookId
    revision: int
    reason: str


class TellTest(Params):
    """What became of a test."""

    token: str
    result: DeliveryOutcome


class TellResend(Params):
    """What became of one more attempt."""

    id: WebhookId
    letter: int
    refusal: str | None = None


class DeliveryTurn(Result):
    """The turn to deliver is the caller's."""

    last_seq: int


class DueResend(Result):
    """A dead letter to try again; null: there is none."""

    letter: int | None
    event: LoggedEvent | None


class WebhookCursor(Result):
    cursor: int


DELIVER = Declaration(
    "webhook.deliver",
    NoParams,
    DeliveryTurn,
    """Become the process that delivers, or confirm that one still is it.

    It is notified until its connection ends: `webhook.changed` when there is other work,
    `webhook.due {last_seq}` when the log has grown. It confirms its turn every few seconds, or the
    next that asks gets it. While another process delivers it is the error `wrong_state`.
    """,
    writes=True,
)
WORK = Declaration("webhook.work", NoParams, DeliveryWork, "What there is to deliver.", writes=True)
PROGRESS = Declaration(
    "webhook.progress", ReportProgress, WebhookCursor, "Report how far a webhook is.", writes=True
)
REFUSED_FOR_GOOD = Declaration(
    "webhook.refused_for_good", RefuseForGood, Done,
    "A receiver wants no more: disable its webhook.", writes=True,
)  # fmt: skip
TESTED = Declaration("webhook.tested", TellTest, Done, "Tell what became of a test.", writes=True)
NEXT_RESEND = Declaration(
    "webhook.next_resend", OneWebhook, DueResend, "A dead letter to try again.", writes=True
)
RESENT = Declaration(
    "webhook.resent", TellResend, Done, "Tell what became of one more attempt.", writes=True
)

METHODS = (
    *(CREATE, LIST, GET, UPDATE, REMOVE, TEST, DEAD_LETTERS, RESEND, DISCARD),
    *(DELIVER, WORK, PROGRESS, REFUSED_FOR_GOOD, TESTED, NEXT_RESEND, RESENT),
)
