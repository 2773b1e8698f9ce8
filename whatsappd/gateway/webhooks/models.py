"""What requests and responses about webhooks look like, for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from whatsappd.gateway.models import CompanyId

#: As in `whatsappd.model.event`; tests compare them.
EventType = Literal[
    "session.state", "session.qr", "session.outreach", "message.received", "message.receipt",
    "message.undecryptable", "message.unreadable", "outbox.state", "alert",
]  # fmt: skip

WEBHOOK_ID_PATTERN = r"^[a-z0-9]{8}$"
MAX_URL = 2000
MAX_COMPANIES = 100
MAX_DESCRIPTION = 200
MAX_SEQ = 2**63 - 1

Url = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_URL,
        description="https://, without user, password or fragment. http:// only with "
        "`allow_private`.",
        examples=["https://hooks.shop.example/whatsapp"],
    ),
]
Companies = Annotated[list[CompanyId], Field(min_length=1, max_length=MAX_COMPANIES)]
Types = Annotated[list[EventType], Field(min_length=1, max_length=100)]
Description = Annotated[str, Field(max_length=MAX_DESCRIPTION)]
_PRIVATE = (
    "Let it reach addresses that are not on the Internet. Only keys for all companies may say so."
)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Response(BaseModel):
    model_config = ConfigDict(extra="allow")


class CreateWebhook(_Request):
    url: Url
    companies: Companies | None = Field(default=None, description="Null: all.")
    types: Types | None = Field(
        default=None, description="Null: all types of events but session.qr, which has to be named."
    )
    description: Description = ""
    allow_private: bool = Field(default=False, description=_PRIVATE)
    enabled: bool = True
    after: Annotated[int, Field(ge=0, le=MAX_SEQ)] | None = Field(
        default=None, description="Begin behind this event; null: with what comes. 0: all of it."
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "url": "https://hooks.shop.example/whatsapp",
                    "companies": ["acme"],
                    "types": ["message.received", "outbox.state"],
                }
            ]
        }
    )


class UpdateWebhook(_Request):
    """What is not given stays as it is. The receiver gets another chance at once."""

    url: Url | None = None
    companies: Companies | None = Field(default=None, description="Null: all.")
    types: Types | None = Field(
        default=None, description="Null: all types of events but session.qr, which has to be named."
    )
    description: Description | None = None
    allow_private: bool | None = Field(default=None, description=_PRIVATE)
    enabled: bool | None = Field(default=None, description="Disabled, it keeps its place.")
    rotate_secret: bool = Field(default=False, description="Answer a new secret, valid at once.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"enabled": False}]})


class Webhook(_Response):
    id: str = Field(examples=["5pk2wczu"])
    url: str
    companies: list[str] | None
    types: list[str] | None
    description: str
    allow_private: bool
    enabled: bool
    state: Literal["ok", "failing", "paused", "disabled"] = Field(
        description="`paused`: it failed for long; it is tried now and then, and resumes by itself."
    )
    created_ms: int
    updated_ms: int
    cursor: int = Field(description="Events up to this one are delivered, or dead letters.")
    behind: int = Field(description="Events of the log behind the cursor, of all kinds.")
    delivered: int
    failures: int = Field(description="Attempts that failed.")
    dead_letters: int
    dead_bytes: int = Field(description="Bytes of the events in them.")
    gone: int = Field(
        description="How many events of the log, of all kinds, its retention deleted before this "
        "webhook came to them: at most so many, as others between them may have outlived them."
    )
    last_success_ms: int | None
    failing_since_ms: int | None
    paused_since_ms: int | None
    last_error: str | None
    secret: str | None = Field(
        default=None, description="Only in the answer to making it or to `rotate_secret`."
    )


class Webhooks(_Response):
    webhooks: list[Webhook]


class DeadLetter(_Response):
    id: int
    seq: int = Field(description="The event's.")
    time_ms: int = Field(description="The event's.")
    company: str
    type: str
    dead_ms: int
    attempts: int
    reason: str
    resend: bool = Field(description="One more attempt was asked for, and is due.")


class DeadLetters(_Response):
    """One page, the oldest first. Go on with `next` as `after`; null at the end."""

    dead_letters: list[DeadLetter]
    next: int | None


class Letters(_Request):
    letters: (
        Annotated[list[Annotated[int, Field(ge=1, le=MAX_SEQ)]], Field(max_length=1000)] | None
    ) = Field(default=None, description="Ids of dead letters; null: all of them.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"letters": [1]}, {}]})


class Counted(_Response):
    id: str
    count: int


class Tested(_Response):
    id: str
    ok: bool
    status: int | None
    error: str | None
    took_ms: int
