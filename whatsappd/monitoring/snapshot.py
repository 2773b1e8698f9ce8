"""The figures of one moment, as `metrics` turns them into text.

`scrape` fills it in, in trio, without a wait between two figures of one company; all of it is a
copy, because the text is made in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from whatsappd.engines.protocol import EventKind
from whatsappd.model.message import OutboxState
from whatsappd.model.session import SessionState
from whatsappd.monitoring.procfs import Disk, Memory
from whatsappd.rules.alerts import AlertRule
from whatsappd.rules.lifecycle import SessionCause
from whatsappd.rules.webhooks import WebhookAlert


class CompanyFigures(NamedTuple):
    """Of one company. Counts are since the daemon started, times epoch milliseconds."""

    company: str
    state: SessionState
    is_wanted: bool
    is_well: bool
    health_ok: int
    health_failed: int
    connections: int
    reconnections: int
    restarts: Mapping[SessionCause, int]
    errors: int
    last_error_ms: int | None
    last_inbound_ms: int | None
    qr_codes: int
    refused_calls: Mapping[str, int]  # system calls of its workers, by name
    inbound: Mapping[EventKind, int]
    accepted: int
    entered: Mapping[OutboxState, int]
    rows: Mapping[OutboxState, int]  # as they are now
    oldest_queued_ms: int | None
    limiter_waits: int
    limiter_wait_s: float
    is_outreach_paused: bool
    memory: Memory | None = None


class WebhookFigures(NamedTuple):
    """Of one webhook that is enabled. Counts are since it was made."""

    webhook: str
    delivered: int
    failures: int  # attempts
    lag_events: int
    waiting_since_ms: int | None  # its oldest undelivered event's time
    is_paused: bool
    dead_letters: int
    gone: int


class MethodFigures(NamedTuple):
    """Of one RPC method: requests by bucket of `rpc.method_stats.BOUNDS`, not cumulated."""

    method: str
    counts: Sequence[int]
    seconds: float
    errors: Mapping[str, int]


class TaskFigures(NamedTuple):
    """Of one supervised task. `company` is empty where it is nobody's alone."""

    task: str
    company: str
    is_well: bool
    failures: int
    error: str  # the last error's class; empty: there was none
    failed_ms: int | None  # when that was, in epoch milliseconds


class Snapshot(NamedTuple):
    now_ms: int
    started_ms: int
    versions: Mapping[str, str]
    companies: Sequence[CompanyFigures]
    alerts: Mapping[AlertRule | WebhookAlert, int]  # open ones
    checks: Mapping[str, bool]  # of the daemon and its host
    methods: Sequence[MethodFigures]
    connections: int
    connections_accepted: int
    connections_refused: int
    descendants_refused: int  # of those: the daemon's own
    fork_server_up: bool
    fork_server_restarts: int
    first_seq: int
    last_seq: int
    tail_events: int
    tail_bytes: int
    subscriber_lags: Sequence[int]
    consumer_lags: Mapping[str, int]  # those of webhooks are among `webhooks`
    webhooks: Sequence[WebhookFigures]
    webhooks_delivered: bool  # whether somebody does
    database_bytes: int
    database_trouble: bool
    log_dropped: int  # lines of the daemon's log
    disk: Disk | None
    tasks: int
    supervised: Sequence[TaskFigures]
    loop_busy_s: float
    loop_longest_s: float
