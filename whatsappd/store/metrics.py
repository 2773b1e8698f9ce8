"""The figures of what is stored: the outbox, the event log, webhooks, the database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from whatsappd.metric import COUNTER, GAUGE, Metric, Metrics, Sample, one
from whatsappd.model.message import OutboxState
from whatsappd.model.webhook import StoredWebhook

_COMPANY, _WEBHOOK = ("company",), ("webhook",)

#: Counted from 0, so that a first failure is a rise and not a new series.
_ALWAYS = (OutboxState.SENT, OutboxState.DELIVERED, OutboxState.FAILED, OutboxState.UNCERTAIN)
_OUTCOMES = (
    *_ALWAYS,
    OutboxState.READ,
    OutboxState.PLAYED,
    OutboxState.EXPIRED,
    OutboxState.CANCELLED,
)
#: What still has to be dealt with.
_OPEN = (OutboxState.QUEUED, OutboxState.SENDING, OutboxState.UNCERTAIN)


def age_ms(since_ms: int | None, now_ms: int) -> int:
    """How long ago something happened; 0 if nothing did, or by a clock that was set back."""
    return 0 if since_ms is None else max(0, now_ms - since_ms)


class OutboxFigures(NamedTuple):
    """A company's outbox, as memory knows it. Counts are since the daemon started."""

    company: str
    accepted: int
    entered: Mapping[OutboxState, int]
    rows: Mapping[OutboxState, int]  # as they are now
    oldest_queued_age_ms: int


class WebhookFigures(NamedTuple):
    """A webhook that is enabled, and what it has still to deliver."""

    webhook: StoredWebhook
    lag_events: int
    oldest_age_ms: int


class MeasuredEventLog(Protocol):
    """What is read of a `store.port.EventLog`."""

    @property
    def first_seq(self) -> int: ...
    @property
    def last_seq(self) -> int: ...
    @property
    def tail_events(self) -> int: ...
    @property
    def tail_bytes(self) -> int: ...


def _of_company(
    value: Callable[[OutboxFigures], float],
) -> Callable[[OutboxFigures], Iterable[Sample]]:
    return lambda outbox: [Sample((outbox.company,), value(outbox))]


def _outcomes(outbox: OutboxFigures) -> Iterator[Sample]:
    for state in _OUTCOMES:
        count = outbox.entered.get(state, 0)
        if count or state in _ALWAYS:
            yield Sample((outbox.company, str(state)), count)


def _open_messages(outbox: OutboxFigures) -> Iterator[Sample]:
    for state in _OPEN:
        yield Sample((outbox.company, str(state)), outbox.rows.get(state, 0))


def _of_webhook(
    value: Callable[[WebhookFigures], float],
) -> Callable[[WebhookFigures], Iterable[Sample]]:
    return lambda figures: [Sample((figures.webhook.id,), value(figures))]


def _deliveries(figures: WebhookFigures) -> Iterator[Sample]:
    webhook = figures.webhook
    yield Sample((webhook.id, "ok"), webhook.delivered)
    yield Sample((webhook.id, "failed"), webhook.failures)


#: Of each company.
OUTBOX: Metrics[OutboxFigures] = (
    Metric(
        "whatsappd_messages_accepted_total", COUNTER, "Outgoing messages taken into the outbox.",
        _COMPANY, _of_company(lambda outbox: outbox.accepted),
    ),
    Metric(
        "whatsappd_message_attempts_total", COUNTER, "Hand-overs of outgoing messages to WhatsApp.",
        _COMPANY, _of_company(lambda outbox: outbox.entered.get(OutboxState.SENDING, 0)),
    ),
    Metric(
        "whatsappd_messages_total", COUNTER,
        "Outgoing messages that came to a state. sent: WhatsApp's server took it; "
        "delivered, read, played: as receipts told; uncertain: nobody knows whether it was sent.",
        ("company", "state"), _outcomes,
    ),
    Metric(
        "whatsappd_outbox_messages", GAUGE, "Messages in the outbox that are not done, by state.",
        ("company", "state"), _open_messages,
    ),
    Metric(
        "whatsappd_outbox_oldest_queued_age_seconds", GAUGE,
        "How long the oldest queued message has waited; 0 if none is queued.",
        _COMPANY, _of_company(lambda outbox: outbox.oldest_queued_age_ms / 1000),
    ),
)  # fmt: skip

EVENT_LOG: Metrics[MeasuredEventLog] = (
    Metric(
        "whatsappd_event_log_last_seq", GAUGE, "The newest event's number.", (),
        one(lambda log: log.last_seq),
    ),
    Metric(
        "whatsappd_event_log_first_seq", GAUGE, "The oldest event that is kept.", (),
        one(lambda log: log.first_seq),
    ),
    Metric(
        "whatsappd_event_log_tail_events", GAUGE, "Events held in memory for subscribers.", (),
        one(lambda log: log.tail_events),
    ),
    Metric(
        "whatsappd_event_log_tail_bytes", GAUGE, "Their size.", (),
        one(lambda log: log.tail_bytes),
    ),
)  # fmt: skip

#: Of how many events each subscriber has not been given yet.
SUBSCRIBERS: Metrics[Sequence[int]] = (
    Metric("whatsappd_event_subscribers", GAUGE, "Subscriptions that follow the log.", (),
           one(len)),
    Metric(
        "whatsappd_event_subscriber_lag_events", GAUGE,
        "How many events the slowest subscriber has not been given yet.", (),
        one(lambda lags: max(lags, default=0)),
    ),
)  # fmt: skip

#: Of how many events each named consumer has not acknowledged yet.
CONSUMERS: Metrics[Mapping[str, int]] = (
    Metric(
        "whatsappd_event_consumer_lag_events", GAUGE,
        "How many events a named consumer has not acknowledged yet; webhooks have figures of their "
        "own.", ("consumer",),
        lambda lags: [Sample((consumer,), lag) for consumer, lag in lags.items()],
    ),
)  # fmt: skip

#: For how long nobody has delivered webhooks; None: somebody does.
DELIVERER: Metrics[int | None] = (
    Metric(
        "whatsappd_webhooks_delivered", GAUGE,
        "Whether a gateway runs that delivers webhooks (1) or not (0).", (),
        one(lambda away_ms: int(away_ms is None)),
    ),
)  # fmt: skip

#: Of each webhook that is enabled.
WEBHOOK: Metrics[WebhookFigures] = (
    Metric(
        "whatsappd_webhook_deliveries_total", COUNTER,
        "Attempts to deliver an event to a webhook. ok: its receiver took it; failed: it did not, "
        "and the event is tried again or becomes a dead letter.",
        ("webhook", "result"), _deliveries,
    ),
    Metric(
        "whatsappd_webhook_lag_events", GAUGE,
        "Events of the log that a webhook has still to deliver, or to skip as none of its own.",
        _WEBHOOK, _of_webhook(lambda figures: figures.lag_events),
    ),
    Metric(
        "whatsappd_webhook_oldest_undelivered_age_seconds", GAUGE,
        "How long ago the oldest of them happened; 0 if there is none.",
        _WEBHOOK, _of_webhook(lambda figures: figures.oldest_age_ms / 1000),
    ),
    Metric(
        "whatsappd_webhook_paused", GAUGE,
        "Whether a webhook failed for so long that it is paused (1) or not (0).",
        _WEBHOOK, _of_webhook(lambda figures: int(figures.webhook.paused_since_ms is not None)),
    ),
    Metric(
        "whatsappd_webhook_dead_letters", GAUGE,
        "Events that a webhook's receiver refused, until somebody resends or discards them.",
        _WEBHOOK, _of_webhook(lambda figures: figures.webhook.dead_letters),
    ),
    Metric(
        "whatsappd_webhook_events_gone_total", COUNTER,
        "Events of the log, of all kinds, that its retention deleted before a webhook came to "
        "them.",
        _WEBHOOK, _of_webhook(lambda figures: figures.webhook.gone),
    ),
)  # fmt: skip

#: The database's size in bytes: reading it asks the disk.
DATABASE_SIZE: Metrics[int] = (
    Metric(
        "whatsappd_database_size_bytes", GAUGE, "The database and its write-ahead log.", (),
        one(lambda size: size),
    ),
)  # fmt: skip

#: What went wrong with the last write, if anything did.
DATABASE: Metrics[str | None] = (
    Metric(
        "whatsappd_database_failing", GAUGE,
        "Whether the disk refused the last write (1) or took it (0).", (),
        one(lambda trouble: int(trouble is not None)),
    ),
)  # fmt: skip
