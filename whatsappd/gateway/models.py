"""What requests and responses look like: the source of the OpenAPI document.

Requests are strict and refuse unknown fields. Responses may have more fields than are named here,
when the daemon is newer. Times are integer milliseconds since the epoch.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

#: As in `whatsappd.model`; a gateway and a daemon of one version agree, and tests compare them.
SessionStateName = Literal[
    "stopped", "starting", "pairing", "connecting", "connected", "reconnecting", "backing_off",
    "logged_out", "conflict", "banned", "outdated", "failed", "held",
]  # fmt: skip
OutboxStateName = Literal[
    "queued", "sending", "sent", "delivered", "read", "played", "failed", "expired", "cancelled",
    "uncertain",
]  # fmt: skip

COMPANY_PATTERN = r"^[A-Za-z0-9_-]{1,50}$"
MESSAGE_ID_PATTERN = r"^[A-Za-z0-9]{1,64}$"
CONSUMER_PATTERN = r"^[A-Za-z0-9._:@-]{1,48}$"
#: What a 64-bit column takes.
MAX_SEQ = 2**63 - 1
MAX_TTL_MS = 10 * 366 * 24 * 3600 * 1000

CompanyId = Annotated[str, Field(pattern=COMPANY_PATTERN, examples=["acme"])]
Limit = Annotated[int, Field(ge=0, le=1_000_000)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Response(BaseModel):
    model_config = ConfigDict(extra="allow")


class StartSession(_Request):
    """How to start a session."""

    take_over: bool = Field(
        default=False, description="Start although another program opened this account."
    )
    new_account: bool = Field(
        default=False,
        description="The company may be linked with another number than before, or is held because "
        "it is.",
    )
    queued: Literal["cancel", "send"] = Field(
        default="cancel",
        description="With new_account: what becomes of messages that wait, and were written for "
        "the number before.",
    )

    model_config = ConfigDict(json_schema_extra={"examples": [{}]})


class CreateSession(StartSession):
    """Make a company's session, and start it."""

    company: CompanyId

    model_config = ConfigDict(json_schema_extra={"examples": [{"company": "acme"}]})


class ConfigureSession(_Request):
    """Limits of sending; 0 switches one off, null gives it its default again."""

    per_minute: Limit | None = Field(default=None, description="Messages a minute.")
    per_phone_per_minute: Limit | None = Field(
        default=None, description="Messages a minute to one recipient."
    )
    cold_per_hour: Limit | None = Field(
        default=None, description="First messages an hour to people never written with."
    )
    cold_per_day: Limit | None = Field(default=None, description="The same, a day.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"per_minute": 20}]})


class Session(_Response):
    company: str = Field(examples=["acme"])
    wanted: bool = Field(description="Whether it should be running; survives restarts.")
    state: SessionStateName
    since_ms: int
    cause: str = Field(description="Why it is in this state, in words.")
    next_try_ms: int | None = None
    restarts: int = 0
    jid: str | None = Field(default=None, examples=["15550100:2@s.whatsapp.net"])
    lid: str | None = None
    push_name: str | None = None
    qr: str | None = Field(
        default=None, description="The code to scan, while pairing; for scope admin."
    )
    last_inbound_ms: int | None = None
    last_error: str | None = None
    queued: int = Field(default=0, description="Messages that wait to be sent.")
    account: str | None = Field(
        default=None,
        description="The account that the company is bound to.",
        examples=["15550100@s.whatsapp.net"],
    )


class Sessions(_Response):
    sessions: list[Session]


class SessionLimits(_Response):
    per_minute: int
    per_phone_per_minute: int
    cold_per_hour: int
    cold_per_day: int


class Configured(_Response):
    company: str
    limits: SessionLimits


class QrCode(_Response):
    company: str
    qr: str = Field(description="What the phone scans, as text.")
    since_ms: int
    expires_ms: int


class Pairing(_Response):
    """How far linking is: ask again, or follow the events, until `linked`."""

    company: str
    state: SessionStateName
    cause: str
    linked: bool
    jid: str | None = None
    qr: str | None = None


class SendMessage(_Request):
    to: str = Field(
        min_length=1,
        max_length=100,
        description="An international phone number, or a JID.",
        examples=["+15550200"],
    )
    text: str = Field(min_length=1, max_length=65_536, examples=["Your order is ready."])
    ttl_ms: int | None = Field(
        default=None, ge=1, le=MAX_TTL_MS, description="Do not send it later than that from now."
    )
    on_uncertain: Literal["ask", "resend"] = Field(
        default="ask",
        description="If a crash leaves its fate unknown: leave it `uncertain`, or send it again "
        "at the risk of a duplicate.",
    )
    no_queue: bool = Field(
        default=False, description="Fail now if it could not be sent now, instead of waiting."
    )

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"to": "+15550200", "text": "Your order is ready."}]}
    )


class ResolveMessage(_Request):
    """What a person found out about an `uncertain` message."""

    as_: Literal["sent", "resend", "failed"] = Field(
        alias="as", description="It arrived; send it again; or give it up."
    )

    model_config = ConfigDict(json_schema_extra={"examples": [{"as": "sent"}]})


class OutboxMessage(_Response):
    id: str = Field(examples=["019ab0c4d2e10001"])
    company: str
    chat: str = Field(
        description="The account that it goes to.", examples=["15550200@s.whatsapp.net"]
    )
    asked: str | None = Field(
        default=None, description="The recipient as it was given, where that is another address."
    )
    is_reply: bool = Field(
        default=False, description="The recipient wrote within a day, so it goes before others."
    )
    text: str
    key: str | None = Field(description="The sender's idempotency key.")
    state: OutboxStateName
    reason: str | None = Field(description="Why it failed, waits or is uncertain, in words.")
    attempts: int
    on_uncertain: str
    message_id: str | None = Field(description="WhatsApp's id, once it is known.")
    former_message_id: str | None = Field(
        default=None, description="Its id before it was sent anew, because nobody could read it."
    )
    expires_ms: int | None
    created_ms: int
    updated_ms: int
    sent_ms: int | None


class Messages(_Response):
    """One page, the newest first. `next` is the cursor of the following page; null at the end."""

    messages: list[OutboxMessage]
    next: str | None


class LoggedEvent(_Response):
    seq: int
    time_ms: int
    company: str
    type: str = Field(examples=["message.received"])
    data: dict[str, Any]


class Events(_Response):
    """One page of the log. Go on with `next` as `after`; there is more while it is below
    `last_seq`. `gap` is a number above `after` if retention deleted events of the companies asked
    for that lay between the two."""

    events: list[LoggedEvent]
    next: int
    last_seq: int
    gap: int | None


class Live(_Response):
    gateway: Literal["ok"]
    daemon: Literal["ok", "away"]


class Ready(_Response):
    ready: bool
    daemon: Literal["ok", "away"]


class FieldError(BaseModel):
    field: str
    message: str


class Problem(BaseModel):
    """RFC 9457 problem details. `name` (and `code`) are stable; `detail` is for people."""

    type: str = Field(examples=["urn:whatsappd:problem:unknown_company"])
    title: str
    status: int
    detail: str
    name: str = Field(examples=["unknown_company"])
    code: int | None = Field(default=None, description="The RPC's code, where it has one.")
    errors: list[FieldError] | None = None
    data: dict[str, Any] | None = None
