"""When an alert about a webhook is raised or cleared, and what it says.

The store logs these events in the transaction that changes the webhook.
"""

from __future__ import annotations

from enum import StrEnum

from whatsappd.model.event import ALERT, Draft
from whatsappd.model.webhook import StoredWebhook
from whatsappd.rules.webhook_policy import host_of


class WebhookAlert(StrEnum):
    """The alert rules for webhooks; their events are those of `rules.alerts`."""

    FAILING = "webhook_failing"  # paused; cleared when it goes on
    EVENTS_GONE = "webhook_events_gone"  # retention was faster; told once, as nothing mends it
    DISABLED = (
        "webhook_disabled"  # the receiver answered 410 Gone; cleared when it is enabled again
    )


def pause_alert(
    was: StoredWebhook, paused_since_ms: int | None, detail: str | None
) -> Draft | None:
    """The event when a webhook is paused (`paused_since_ms`), or goes on (None); None if neither
    is new."""
    if (was.paused_since_ms is None) == (paused_since_ms is None):
        return None
    state = "cleared" if paused_since_ms is None else "raised"
    since_ms = paused_since_ms or was.paused_since_ms
    return webhook_alert(was, WebhookAlert.FAILING, state, since_ms, detail)


def gone_detail(after: int, first: int) -> str:
    """The alert's text about events between these two, deleted before they were delivered."""
    return f"events between {after} and {first} were deleted by the log's retention"


def webhook_alert(
    webhook: StoredWebhook, rule: WebhookAlert, state: str, since_ms: int | None, detail: str | None
) -> Draft:
    """The event; its company is the webhook's, if that is for one only."""
    companies = webhook.wanted.companies
    company = companies[0] if companies is not None and len(companies) == 1 else None
    # Not the URL: its path may be the receiver's secret, and alerts go to many places.
    host = host_of(webhook.wanted.url)
    data = {
        "rule": str(rule),
        "state": state,
        "company": company,
        "since_ms": since_ms,
        "detail": f"webhook {webhook.id} to {host}: {detail}",
        "webhook": webhook.id,
    }
    return Draft(company or "", ALERT, data)
