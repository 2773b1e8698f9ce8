"""The metrics, by name: what each is called, what it means, and where its value comes from.

`monitoring.exposition` makes text of them when somebody asks; nothing runs in between. Labels are
bounded: companies, words of our own (states, causes, methods, rules, names of errors and checks),
consumers, of which there are at most 1000, and webhooks, of which there are at most 100. Never a
phone number. A company costs 2.6 kB of text (0.1 kB compressed), so hundreds of them are fine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from whatsappd.engines.protocol import EventKind
from whatsappd.model.message import OutboxState
from whatsappd.model.session import SessionState
from whatsappd.rpc.method_stats import BOUNDS

if TYPE_CHECKING:
    from whatsappd.monitoring.snapshot import CompanyFigures, Snapshot, TaskFigures, WebhookFigures

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

#: Label values and the value; a histogram's value is (cumulated buckets, sum).
Sample = tuple[tuple[str, ...], Any]


class Metric(NamedTuple):
    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    samples: Callable[[Snapshot], Iterable[Sample]]


def _one(value: Callable[[Snapshot], float | int | None]) -> Callable[[Snapshot], Iterable[Sample]]:
    """A single figure; None: there is none just now."""

    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        found = value(snapshot)
        if found is not None:
            yield (), found

    return samples


def _each(
    value: Callable[[CompanyFigures], float | int | None],
) -> Callable[[Snapshot], Iterable[Sample]]:
    """A figure of every company that has it."""

    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        for figures in snapshot.companies:
            found = value(figures)
            if found is not None:
                yield (figures.company,), found

    return samples


def _each_webhook(
    value: Callable[[WebhookFigures], int],
) -> Callable[[Snapshot], Iterable[Sample]]:
    return lambda snapshot: (((each.webhook,), value(each)) for each in snapshot.webhooks)


def _seconds(time_ms: int | None) -> float | None:
    return None if time_ms is None else time_ms / 1000


#: Counted from 0, so that a first failure is a rise and not a new series.
_ALWAYS = (
    OutboxState.SENT,
    OutboxState.DELIVERED,
    OutboxState.FAILED,
    OutboxState.UNCERTAIN,
)
_OUTCOMES = (
    *_ALWAYS,
    OutboxState.READ,
    OutboxState.PLAYED,
    OutboxState.EXPIRED,
    OutboxState.CANCELLED,
)
#: What still has to be dealt with.
_OPEN = (OutboxState.QUEUED, OutboxState.SENDING, OutboxState.UNCERTAIN)


def _sessions(snapshot: Snapshot) -> Iterator[Sample]:
    states = [figures.state for figures in snapshot.companies]
    for state in SessionState:
        yield (str(state),), states.count(state)


def _restarts(snapshot: Snapshot) -> Iterator[Sample]:
    for figures in snapshot.companies:
        for cause, count in figures.restarts.items():
            yield (figures.company, str(cause)), count


def _refused_calls(snapshot: Snapshot) -> Iterator[Sample]:
    for figures in snapshot.companies:
        for call, count in figures.refused_calls.items():
            yield (figures.company, call), count


def _health_checks(snapshot: Snapshot) -> Iterator[Sample]:
    for figures in snapshot.companies:
        yield (figures.company, "ok"), figures.health_ok
        yield (figures.company, "failed"), figures.health_failed


def _outcomes(snapshot: Snapshot) -> Iterator[Sample]:
    for figures in snapshot.companies:
        for state in _OUTCOMES:
            count = figures.entered.get(state, 0)
            if count or state in _ALWAYS:
                yield (figures.company, str(state)), count


def _open_messages(snapshot: Snapshot) -> Iterator[Sample]:
    for figures in snapshot.companies:
        for state in _OPEN:
            yield (figures.company, str(state)), figures.rows.get(state, 0)


def _age(snapshot: Snapshot, since_ms: int | None) -> float:
    return 0 if since_ms is None else max(0, snapshot.now_ms - since_ms) / 1000


def _queue_ages(snapshot: Snapshot) -> Iterator[Sample]:
    for figures in snapshot.companies:
        yield (figures.company,), _age(snapshot, figures.oldest_queued_ms)


def _deliveries(snapshot: Snapshot) -> Iterator[Sample]:
    for figures in snapshot.webhooks:
        yield (figures.webhook, "ok"), figures.delivered
        yield (figures.webhook, "failed"), figures.failures


def _webhook_ages(snapshot: Snapshot) -> Iterator[Sample]:
    for figures in snapshot.webhooks:
        yield (figures.webhook,), _age(snapshot, figures.waiting_since_ms)


def _durations(snapshot: Snapshot) -> Iterator[Sample]:
    bounds = [*map(str, BOUNDS), "+Inf"]
    for figures in snapshot.methods:
        buckets = list(zip(bounds, accumulate(figures.counts), strict=True))
        yield (figures.method,), (buckets, figures.seconds)


def _rpc_errors(snapshot: Snapshot) -> Iterator[Sample]:
    for figures in snapshot.methods:
        for name, count in figures.errors.items():
            yield (figures.method, name), count


def _named(
    mapping: Callable[[Snapshot], Iterable[tuple[str, float | int]]],
) -> Callable[[Snapshot], Iterable[Sample]]:
    return lambda snapshot: (((name,), value) for name, value in mapping(snapshot))


def _told_tasks(snapshot: Snapshot) -> Iterator[TaskFigures]:
    return (task for task in snapshot.supervised if task.failures or not task.company)


_COMPANY = ("company",)
_TASK = ("task", "company")
_WEBHOOK = ("webhook",)
_INFO = ("version", "neonize", "python", "mode")

METRICS: tuple[Metric, ...] = (
    # --- the daemon ---
    Metric(
        "whatsappd_up", GAUGE, "1: the daemon gave its figures. 0, in a file: it did not.", (),
        _one(lambda _: 1),
    ),
    Metric(
        "whatsappd_info", GAUGE, "Always 1; the labels tell the versions and the mode.", _INFO,
        lambda s: [(tuple(s.versions[name] for name in _INFO), 1)],
    ),
    Metric(
        "whatsappd_start_time_seconds", GAUGE, "When this daemon started, in Unix time.", (),
        _one(lambda s: s.started_ms / 1000),
    ),
    Metric(
        "whatsappd_check_ok", GAUGE,
        "Whether a check of the daemon's health is passed (1) or not (0); see daemon.health.",
        ("check",), _named(lambda s: [(name, int(ok)) for name, ok in s.checks.items()]),
    ),
    Metric(
        "whatsappd_alerts", GAUGE, "Alerts that are open now, by rule.", ("rule",),
        _named(lambda s: [(str(rule), count) for rule, count in s.alerts.items()]),
    ),
    Metric(
        "whatsappd_event_loop_busy_seconds_total", COUNTER,
        "Time that the event loop was at work; a rate near 1 means that it is saturated.", (),
        _one(lambda s: s.loop_busy_s),
    ),
    Metric(
        "whatsappd_event_loop_longest_seconds", GAUGE,
        "The longest time that the event loop kept everything waiting, "
        "in this and the last round of health checks.", (),
        _one(lambda s: s.loop_longest_s),
    ),
    Metric("whatsappd_tasks", GAUGE, "Tasks of the event loop.", (), _one(lambda s: s.tasks)),
    Metric(
        "whatsappd_task_well", GAUGE,
        "Whether a supervised task runs (1) or failed within the last minute (0). Those of a "
        "company are told once they have failed.", _TASK,
        lambda s: [((t.task, t.company), int(t.is_well)) for t in _told_tasks(s)],
    ),
    Metric(
        "whatsappd_task_failures_total", COUNTER,
        "Errors that ended a supervised task, after each of which it began anew.", _TASK,
        lambda s: [((t.task, t.company), t.failures) for t in _told_tasks(s)],
    ),
    Metric(
        "whatsappd_task_last_failure_time_seconds", GAUGE,
        "When a supervised task failed last, in Unix time; `error` is the class of the error.",
        (*_TASK, "error"),
        lambda s: [
            ((t.task, t.company, t.error), t.failed_ms / 1000)
            for t in s.supervised
            if t.failed_ms is not None
        ],
    ),
    Metric(
        "whatsappd_fork_server_up", GAUGE, "Whether the fork server runs (1) or not (0).", (),
        _one(lambda s: int(s.fork_server_up)),
    ),
    Metric(
        "whatsappd_fork_server_restarts_total", COUNTER, "Fork servers that had to be replaced.",
        (), _one(lambda s: s.fork_server_restarts),
    ),
    # --- sessions ---
    Metric("whatsappd_sessions", GAUGE, "Sessions by state.", ("state",), _sessions),
    Metric(
        "whatsappd_session_state", GAUGE,
        "1 for the state that a session is in; its other states have no sample.",
        ("company", "state"),
        lambda s: [((c.company, str(c.state)), 1) for c in s.companies],
    ),
    Metric(
        "whatsappd_session_connected", GAUGE, "Whether a session is connected (1) or not (0).",
        _COMPANY, _each(lambda c: int(c.state is SessionState.CONNECTED)),
    ),
    Metric(
        "whatsappd_session_wanted", GAUGE, "Whether a session should be running (1) or not (0).",
        _COMPANY, _each(lambda c: int(c.is_wanted)),
    ),
    Metric(
        "whatsappd_session_healthy", GAUGE,
        "Whether nothing needs doing about a session (1), or something does (0).",
        _COMPANY, _each(lambda c: int(c.is_well)),
    ),
    Metric(
        "whatsappd_session_health_checks_total", COUNTER, "Health checks by their result.",
        ("company", "result"), _health_checks,
    ),
    Metric(
        "whatsappd_session_connections_total", COUNTER,
        "Successful logins to WhatsApp, reconnections included.",
        _COMPANY, _each(lambda c: c.connections),
    ),
    Metric(
        "whatsappd_session_reconnections_total", COUNTER,
        "Logins after a lost connection, by the same worker.",
        _COMPANY, _each(lambda c: c.reconnections),
    ),
    Metric(
        "whatsappd_worker_restarts_total", COUNTER,
        "Workers that ended, or were ended, to be started again, by cause.",
        ("company", "cause"), _restarts,
    ),
    Metric(
        "whatsappd_session_errors_total", COUNTER, "What went wrong in a session, all told.",
        _COMPANY, _each(lambda c: c.errors),
    ),
    Metric(
        "whatsappd_session_last_error_timestamp_seconds", GAUGE,
        "When something last went wrong in a session, in Unix time.",
        _COMPANY, _each(lambda c: _seconds(c.last_error_ms)),
    ),
    Metric(
        "whatsappd_session_last_inbound_timestamp_seconds", GAUGE,
        "When a message or a receipt last arrived, in Unix time.",
        _COMPANY, _each(lambda c: _seconds(c.last_inbound_ms)),
    ),
    Metric(
        "whatsappd_session_qr_codes_total", COUNTER, "QR codes shown for linking.",
        _COMPANY, _each(lambda c: c.qr_codes),
    ),
    Metric(
        "whatsappd_worker_refused_calls_total", COUNTER,
        "System calls that a company's workers were refused, by name. A sound worker makes none.",
        (*_COMPANY, "call"), _refused_calls,
    ),
    Metric(
        "whatsappd_worker_private_memory_bytes", GAUGE,
        "Memory that only this worker uses, and gives back when it ends. Of many workers, some "
        "are asked at each scrape.",
        _COMPANY, _each(lambda c: c.memory.private if c.memory else None),
    ),
    Metric(
        "whatsappd_worker_proportional_memory_bytes", GAUGE,
        "A worker's memory with its share of what it shares (PSS). Asked as the private memory is.",
        _COMPANY, _each(lambda c: c.memory.proportional if c.memory else None),
    ),
    # --- messages ---
    Metric(
        "whatsappd_messages_accepted_total", COUNTER, "Outgoing messages taken into the outbox.",
        _COMPANY, _each(lambda c: c.accepted),
    ),
    Metric(
        "whatsappd_message_attempts_total", COUNTER, "Hand-overs of outgoing messages to WhatsApp.",
        _COMPANY, _each(lambda c: c.entered.get(OutboxState.SENDING, 0)),
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
        _COMPANY, _queue_ages,
    ),
    Metric(
        "whatsappd_messages_received_total", COUNTER, "Messages that arrived.",
        _COMPANY, _each(lambda c: c.inbound.get(EventKind.MESSAGE, 0)),
    ),
    Metric(
        "whatsappd_messages_undecryptable_total", COUNTER,
        "Messages that arrived and could not be decrypted (yet: their senders are asked again).",
        _COMPANY, _each(lambda c: c.inbound.get(EventKind.UNDECRYPTABLE, 0)),
    ),
    Metric(
        "whatsappd_events_unreadable_total", COUNTER,
        "Messages, receipts and news of a worker's that arrived and could not be taken over: too "
        "deep, damaged, or unlike anything that is known. The log and `last_error` say which.",
        _COMPANY, _each(lambda c: c.inbound.get(EventKind.UNREADABLE, 0)),
    ),
    Metric(
        "whatsappd_receipts_received_total", COUNTER, "Receipts that arrived.",
        _COMPANY, _each(lambda c: c.inbound.get(EventKind.RECEIPT, 0)),
    ),
    Metric(
        "whatsappd_limiter_waits_total", COUNTER,
        "Times that a company's messages had to wait because of its limits.",
        _COMPANY, _each(lambda c: c.limiter_waits),
    ),
    Metric(
        "whatsappd_limiter_wait_seconds_total", COUNTER,
        "Time that a company's messages had to wait because of its limits.",
        _COMPANY, _each(lambda c: c.limiter_wait_s),
    ),
    Metric(
        "whatsappd_outreach_paused", GAUGE,
        "Whether first messages to strangers are paused because WhatsApp restricts them (1, 0).",
        _COMPANY, _each(lambda c: int(c.is_outreach_paused)),
    ),
    # --- events ---
    Metric(
        "whatsappd_event_log_last_seq", GAUGE, "The newest event's number.", (),
        _one(lambda s: s.last_seq),
    ),
    Metric(
        "whatsappd_event_log_first_seq", GAUGE, "The oldest event that is kept.", (),
        _one(lambda s: s.first_seq),
    ),
    Metric(
        "whatsappd_event_log_tail_events", GAUGE, "Events held in memory for subscribers.", (),
        _one(lambda s: s.tail_events),
    ),
    Metric(
        "whatsappd_event_log_tail_bytes", GAUGE, "Their size.", (), _one(lambda s: s.tail_bytes)
    ),
    Metric(
        "whatsappd_event_subscribers", GAUGE, "Subscriptions that follow the log.", (),
        _one(lambda s: len(s.subscriber_lags)),
    ),
    Metric(
        "whatsappd_event_subscriber_lag_events", GAUGE,
        "How many events the slowest subscriber has not been given yet.", (),
        _one(lambda s: max(s.subscriber_lags, default=0)),
    ),
    Metric(
        "whatsappd_event_consumer_lag_events", GAUGE,
        "How many events a named consumer has not acknowledged yet; webhooks have figures of their "
        "own.", ("consumer",),
        _named(lambda s: s.consumer_lags.items()),
    ),
    # --- webhooks ---
    Metric(
        "whatsappd_webhooks_delivered", GAUGE,
        "Whether a gateway runs that delivers webhooks (1) or not (0).", (),
        _one(lambda s: int(s.webhooks_delivered)),
    ),
    Metric(
        "whatsappd_webhook_deliveries_total", COUNTER,
        "Attempts to deliver an event to a webhook. ok: its receiver took it; failed: it did not, "
        "and the event is tried again or becomes a dead letter.",
        ("webhook", "result"), _deliveries,
    ),
    Metric(
        "whatsappd_webhook_lag_events", GAUGE,
        "Events of the log that a webhook has still to deliver, or to skip as none of its own.",
        _WEBHOOK, _each_webhook(lambda w: w.lag_events),
    ),
    Metric(
        "whatsappd_webhook_oldest_undelivered_age_seconds", GAUGE,
        "How long ago the oldest of them happened; 0 if there is none.",
        _WEBHOOK, _webhook_ages,
    ),
    Metric(
        "whatsappd_webhook_paused", GAUGE,
        "Whether a webhook failed for so long that it is paused (1) or not (0).",
        _WEBHOOK, _each_webhook(lambda w: int(w.is_paused)),
    ),
    Metric(
        "whatsappd_webhook_dead_letters", GAUGE,
        "Events that a webhook's receiver refused, until somebody resends or discards them.",
        _WEBHOOK, _each_webhook(lambda w: w.dead_letters),
    ),
    Metric(
        "whatsappd_webhook_events_gone_total", COUNTER,
        "Events of the log, of all kinds, that its retention deleted before a webhook came to "
        "them.",
        _WEBHOOK, _each_webhook(lambda w: w.gone),
    ),
    # --- the disk ---
    Metric(
        "whatsappd_database_size_bytes", GAUGE, "The database and its write-ahead log.", (),
        _one(lambda s: s.database_bytes),
    ),
    Metric(
        "whatsappd_database_failing", GAUGE,
        "Whether the disk refused the last write (1) or took it (0).", (),
        _one(lambda s: int(s.database_trouble)),
    ),
    Metric(
        "whatsappd_log_lines_dropped_total", COUNTER,
        "Lines of the daemon's log that could not be written in time.", (),
        _one(lambda s: s.log_dropped),
    ),
    Metric(
        "whatsappd_disk_free_bytes", GAUGE, "Free space where the state directory is.", (),
        _one(lambda s: s.disk.free if s.disk else None),
    ),
    Metric(
        "whatsappd_disk_size_bytes", GAUGE, "The size of that file system.", (),
        _one(lambda s: s.disk.total if s.disk else None),
    ),
    # --- the RPC ---
    Metric(
        "whatsappd_rpc_connections", GAUGE, "Connections to the socket that are open.", (),
        _one(lambda s: s.connections),
    ),
    Metric(
        "whatsappd_rpc_connections_accepted_total", COUNTER, "Connections accepted.", (),
        _one(lambda s: s.connections_accepted),
    ),
    Metric(
        "whatsappd_rpc_connections_refused_total", COUNTER,
        "Connections refused because too many were open.", (),
        _one(lambda s: s.connections_refused),
    ),
    Metric(
        "whatsappd_rpc_descendants_refused_total", COUNTER,
        "Connections refused because they came from a process that the daemon started.", (),
        _one(lambda s: s.descendants_refused),
    ),
    Metric(
        "whatsappd_rpc_request_duration_seconds", HISTOGRAM,
        "From reading a request to its answer, with what its caller asked to wait for.",
        ("method",), _durations,
    ),
    Metric(
        "whatsappd_rpc_errors_total", COUNTER, "Requests answered with an error, by its name.",
        ("method", "error"), _rpc_errors,
    ),
)  # fmt: skip
