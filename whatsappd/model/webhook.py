"""Webhooks: what somebody configured, how each fares, and events that receivers refused."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple


class WebhookConfig(NamedTuple):
    """What somebody configured. `companies` and `types` None: all."""

    url: str
    companies: tuple[str, ...] | None = None
    types: tuple[str, ...] | None = None
    description: str = ""
    allow_private: bool = False
    enabled: bool = True


class StoredWebhook(NamedTuple):
    """A webhook and how it fares. Times are epoch milliseconds."""

    id: str
    revision: int  # of the configuration
    wanted: WebhookConfig
    secret: str
    created_ms: int
    updated_ms: int
    delivered: int
    failures: int  # attempts that failed
    last_success_ms: int | None
    failing_since_ms: int | None  # the first failure since the last success
    paused_since_ms: int | None
    last_error: str | None
    gone: int  # events that retention deleted before it came to them, of all kinds; at the most
    owner: str | None  # who made it: `uid:1000`, `key:ID`; None: root or the daemon's own user
    cursor: int  # the seq up to which everything is delivered, or a dead letter
    dead_letters: int
    dead_bytes: int  # of the events in them, packed

    def is_for(self, companies: Collection[str]) -> bool:
        """Whether it is about none but these companies: then whoever may see those may see it."""
        own = self.wanted.companies
        return own is not None and set(own) <= set(companies)

    @property
    def state(self) -> str:
        if not self.wanted.enabled:
            return "disabled"
        if self.paused_since_ms is not None:
            return "paused"
        return "ok" if self.failing_since_ms is None else "failing"


class NewDeadLetter(NamedTuple):
    """An event that becomes a dead letter."""

    event: dict[str, Any]
    attempts: int
    reason: str


class WebhookProgress(NamedTuple):
    """What the deliverer tells of one webhook. Counts are since it last told.

    `revision`: of the configuration it worked by; what it thinks of the receiver
    (`failing_since_ms` and so on) is ignored if somebody changed that meanwhile. `gone`: events
    between these two were deleted by the log's retention before they could be delivered.
    """

    id: str
    revision: int
    cursor: int
    delivered: int
    failures: int
    last_success_ms: int | None
    failing_since_ms: int | None
    paused_since_ms: int | None
    last_error: str | None
    dead: Sequence[NewDeadLetter]
    gone: tuple[int, int] | None = None


class StoredDeadLetter(NamedTuple):
    """An event that a receiver refused. `dead_ms`: when it was given up."""

    id: int
    webhook: str
    seq: int
    time_ms: int
    company: str
    type: str
    dead_ms: int
    attempts: int
    reason: str
    resend: int  # 1: somebody asked for one more attempt, which is due
