"""`events.*`: replay the log from a cursor, then follow it, without a gap or a duplicate."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from msgspec import Meta

from whatsappd.api.declaration import Concerns, Declaration, Examples, Params, Result
from whatsappd.api.types import CompanyId, Seq, TimeMs

#: Events of one answer.
MAX_PAGE = 500
MAX_FILTER = 1000

CompanyFilter = Annotated[
    Annotated[list[CompanyId], Meta(max_length=MAX_FILTER)] | None,
    Meta(description="Only events of these companies."),
]
TypeFilter = Annotated[
    Annotated[list[str], Meta(max_length=MAX_FILTER)] | None,
    Meta(description="Only events of these types.", examples=[["message.received"]]),
]
Consumer = Annotated[
    str,
    Meta(
        description="A name under which the daemon remembers how far somebody is.",
        examples=["crm"],
    ),
]


class Subscribe(Params):
    """Where to begin, and which events to follow."""

    examples: ClassVar[Examples] = ({"consumer": "crm", "types": ["message.received"]},)

    after: Annotated[
        Seq | None,
        Meta(
            description="Replay what is behind this event first. Left out: go on where the "
            "consumer is; without one, only what comes."
        ),
    ] = None
    companies: CompanyFilter = None
    types: TypeFilter = None
    consumer: Annotated[
        Consumer | None,
        Meta(description="A name under which the daemon remembers how far somebody is."),
    ] = None


class ReadEvents(Params):
    """Which page of the log to read."""

    after: Annotated[Seq, Meta(description="The page begins behind this event.")] = 0
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE, description="Events in one answer.")] = 100
    companies: CompanyFilter = None
    types: TypeFilter = None


class Unsubscribe(Params):
    subscription: Annotated[int, Meta(description="As `events.subscribe` answered it.")]


class Acknowledge(Params):
    """Whose cursor to move, and where to."""

    consumer: Consumer
    seq: Annotated[Seq, Meta(description="Everything up to this event is handled.")]


class OneConsumer(Params):
    consumer: Consumer


class LoggedEvent(Result):
    """Something that happened. `data` depends on the type."""

    seq: Annotated[int, Meta(description="Its number: one for all companies, without gaps.")]
    time_ms: Annotated[TimeMs, Meta(description="When the daemon learnt of it.")]
    company: str
    type: Annotated[str, Meta(examples=["message.received"])]
    data: dict[str, Any]


Gap = Annotated[
    int | None,
    Meta(
        description="A number above `after` if retention deleted events of the companies asked for "
        "that lay between the two; else null. Those in between that still exist do come."
    ),
]


class EventsPage(Result):
    """One page of the log. Go on with `next` as `after`: that misses nothing, and always moves.

    There is more while `next` is below `last_seq`. A page without events is the end of the log: to
    go on behind the last event that was handled is right, too.
    """

    events: list[LoggedEvent]
    next: int
    last_seq: Annotated[int, Meta(description="The newest event of the log.")]
    gap: Gap


class Subscribed(Result):
    """A subscription, and where it begins."""

    subscription: Annotated[int, Meta(description="Its number, on this connection.")]
    after: int
    last_seq: Annotated[int, Meta(description="The newest event of the log.")]
    gap: Gap


class Unsubscribed(Result):
    subscription: int


class MovedCursor(Result):
    cursor: Annotated[int, Meta(description="How far the consumer is now.")]


class ForgottenConsumer(Result):
    consumer: str


SUBSCRIBE = Declaration(
    "events.subscribe",
    Subscribe,
    Subscribed,
    """Follow the log.

    Each event comes as a notification `event {subscription, event}`. If retention overtakes a
    subscriber that lags behind, `events.gap {subscription, first_seq}` tells.
    """,
    writes=False,
    concerns=Concerns.SEVERAL,
)
UNSUBSCRIBE = Declaration(
    "events.unsubscribe", Unsubscribe, Unsubscribed, "End a subscription of this connection.",
    writes=False, concerns=Concerns.NONE,
)  # fmt: skip
READ = Declaration(
    "events.read", ReadEvents, EventsPage, "A page of the log, for those who ask now and then.",
    writes=False, concerns=Concerns.SEVERAL,
)  # fmt: skip
# Whoever follows may remember how far they are: it changes nothing for others.
ACK = Declaration(
    "events.ack", Acknowledge, MovedCursor, "Move a consumer's cursor.",
    writes=False, concerns=Concerns.NONE,
)  # fmt: skip
FORGET = Declaration(
    "events.forget",
    OneConsumer,
    ForgottenConsumer,
    """Delete a consumer's saved cursor.

    Under the same name, a new consumer begins.
    """,
    writes=False,
    concerns=Concerns.NONE,
)

METHODS = (SUBSCRIBE, UNSUBSCRIBE, READ, ACK, FORGET)
