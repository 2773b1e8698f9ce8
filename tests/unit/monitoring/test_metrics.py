"""The metrics' names, units, helps and labels, as the library's own parser reads them."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from typing import NamedTuple

import pytest
from prometheus_client import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from whatsappd.api.declaration import Declaration, NoParams, Result
from whatsappd.engines import metrics as engines
from whatsappd.engines.protocol import EventKind
from whatsappd.metric import COUNTER, Readings
from whatsappd.model.message import OutboxState
from whatsappd.model.session import SessionState
from whatsappd.model.webhook import StoredWebhook, WebhookConfig
from whatsappd.monitoring import metrics
from whatsappd.monitoring.health_checks import Check
from whatsappd.monitoring.kernel import Disk, Memory
from whatsappd.monitoring.metrics import ALL_METRICS, LoopFigures, WorkerMemory
from whatsappd.monitoring.prometheus_text import render
from whatsappd.rpc import metrics as rpc
from whatsappd.rpc.method import Call, Method, MethodTable
from whatsappd.rpc.method_stats import BOUNDS, Tally
from whatsappd.rpc.user_shares import ConnectionCounts
from whatsappd.rules.alerts import AlertRule
from whatsappd.rules.lifecycle import SessionCause
from whatsappd.rules.session_health import Judgement
from whatsappd.sessions import metrics as sessions
from whatsappd.sessions.counters import SessionCounters
from whatsappd.store import metrics as store
from whatsappd.store.metrics import OutboxFigures, WebhookFigures, age_ms
from whatsappd.supervision import Supervised
from whatsappd.wire.frames import MAX_MESSAGE


def counters() -> SessionCounters:
    made = SessionCounters()
    made.health_ok, made.health_failed = 7, 1
    made.connections, made.reconnections = 3, 2
    made.restarts.update({SessionCause.EXITED: 4, SessionCause.HUNG: 1})
    made.errors = 5
    made.qr_codes = 6
    made.refused_calls["socket"] = 8
    made.inbound.update({EventKind.MESSAGE: 11, EventKind.RECEIPT: 12, EventKind.UNDECRYPTABLE: 13})
    made.limiter_waits, made.limiter_wait_s = 2, 1.5
    return made


class Session(NamedTuple):
    company: str = "acme"
    state: SessionState = SessionState.CONNECTED
    wanted: bool = True
    counters: SessionCounters = counters()
    last_error_ms: int | None = 1_700_000_000_500
    last_inbound_ms: int | None = None

    def judgement(self) -> Judgement:
        return Judgement(True, "connected")


class Pacing(NamedTuple):
    company: str
    paused_until_ms: int | None = None


class ForkServer(NamedTuple):
    pid: int | None = 1
    restarts: int = 0


class EventLog(NamedTuple):
    first_seq: int = 1
    last_seq: int = 100
    tail_events: int = 100
    tail_bytes: int = 5000


WEBHOOK = StoredWebhook(
    id="5pk2wczu",
    revision=1,
    wanted=WebhookConfig("https://shop.example/"),
    secret="whsec_",
    created_ms=1,
    updated_ms=1,
    delivered=40,
    failures=3,
    last_success_ms=None,
    failing_since_ms=None,
    paused_since_ms=1,
    last_error=None,
    gone=5,
    owner=None,
    cursor=88,
    dead_letters=2,
    dead_bytes=0,
)
VERSIONS = {"version": "1", "neonize": "2", "python": "3", "mode": "real"}


def table() -> MethodTable:
    async def handle(_call: Call, _params: NoParams) -> Result:
        return Result()

    made = MethodTable(
        [
            Method(Declaration(name, NoParams, Result, "", writes=False), handle)
            for name in ("daemon.hello", "daemon.never")
        ]
    )
    tally = made.tally("daemon.hello")
    tally.counts, tally.seconds = [1] * (len(BOUNDS) + 1), 40.0
    tally.errors["denied"] = 2
    return made


def task(
    name: str, company: str | None, *, failures: int, error: str | None, failed_ms: int | None
) -> Supervised:
    made = Supervised(name, company)
    made.failures = failures
    made.streak = min(1, failures) if company is None else 0
    made.error, made.failed_ms = error, failed_ms
    return made


TASKS = [
    task("audit", None, failures=3, error="OSError: no", failed_ms=1_700_000_001_000),
    task("session", "acme", failures=0, error=None, failed_ms=None),
    task("dispatcher", "acme", failures=1, error="KeyError: 'x'", failed_ms=1_700_000_002_000),
]


def read_company(readings: Readings, company: str = "acme") -> None:
    session = Session(company)
    readings.read(sessions.SESSION, session)
    readings.read(sessions.INBOUND, session)
    readings.read(sessions.PACING, Pacing(company))
    outbox = OutboxFigures(
        company,
        accepted=20,
        entered={OutboxState.QUEUED: 21, OutboxState.SENDING: 21, OutboxState.SENT: 19},
        rows={OutboxState.QUEUED: 1, OutboxState.SENT: 19},
        oldest_queued_age_ms=90_000,
    )
    readings.read(store.OUTBOX, outbox)
    readings.read(metrics.WORKER_MEMORY, WorkerMemory(company, Memory(9_000_000, 14_000_000)))


def readings() -> Readings:
    """Of a daemon with one company."""
    made = Readings()
    checks = [Check("store", True, "it takes what is written"), Check("disk", False, "full")]
    made.read(metrics.DAEMON, None)
    made.read(metrics.INFO, VERSIONS)
    made.read(metrics.START, 1_700_000_000_000)
    made.read(metrics.CHECKS, checks)
    made.read(metrics.ALERTS, dict.fromkeys(AlertRule, 0))
    made.read(metrics.EVENT_LOOP, LoopFigures(busy_s=1.0, longest_s=0.01, tasks=20))
    made.read(metrics.SUPERVISION, TASKS)
    made.read(metrics.LOG, 3)
    made.read(metrics.DISK, Disk(1, 2))
    made.read(engines.FORK_SERVER, ForkServer())
    made.read(sessions.SESSIONS, [Session()])
    read_company(made)
    made.read(store.EVENT_LOG, EventLog())
    made.read(store.SUBSCRIBERS, [0, 30])
    made.read(store.CONSUMERS, {"billing": 10})
    made.read(store.DELIVERER, None)
    made.read(store.WEBHOOK, WebhookFigures(WEBHOOK, lag_events=12, oldest_age_ms=60_000))
    made.read(store.DATABASE, None)
    made.read(store.DATABASE_SIZE, 1)
    made.read(rpc.CONNECTIONS, ConnectionCounts(open=1, accepted=2, refused=0))
    made.read(rpc.DESCENDANTS, 3)
    made.read(rpc.METHODS, table())
    return made


@functools.cache
def rendered() -> str:
    return render(ALL_METRICS, readings())


def parsed(text: str | None = None) -> dict[str, Family]:
    return {family.name: family for family in text_string_to_metric_families(text or rendered())}


def value(name: str, text: str | None = None, **labels: str) -> float:
    [found] = [
        sample.value
        for family in parsed(text).values()
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return float(found)


def test_what_is_rendered_is_what_the_table_names() -> None:
    assert len(ALL_METRICS) > 40
    ours = {name for name in parsed() if name.startswith("whatsappd_")}
    assert ours == {metric.name.removesuffix("_total") for metric in ALL_METRICS}
    for metric in ALL_METRICS:
        family = parsed()[metric.name.removesuffix("_total")]
        assert family.type == metric.type
        assert family.documentation == metric.help


def test_names_tell_what_is_counted_and_in_which_unit() -> None:
    assert len({metric.name for metric in ALL_METRICS}) == len(ALL_METRICS)
    for name, kind, text, *_ in ALL_METRICS:
        assert re.fullmatch(r"whatsappd(_[a-z]+)+", name), name
        assert name.endswith("_total") == (kind == COUNTER), name
        assert text.endswith("."), name
        assert not re.search(r"_(ms|millis|kb|mb|percent|minutes|hours)(_|$)", name), name
        for unit, words in {"seconds": "time|age|longest|duration", "bytes": "memory|size"}.items():
            if re.search(rf"_({words})(_|$)", name):
                assert f"_{unit}" in name, name
            if f"_{unit}" in name:
                assert name.removesuffix("_total").endswith(unit), name


def test_the_process_itself_is_measured() -> None:
    assert value("process_resident_memory_bytes") > 1_000_000
    assert value("process_open_fds") >= 3


def test_figures_arrive_where_they_belong() -> None:
    acme = {"company": "acme"}
    assert value("whatsappd_sessions", state="connected") == 1
    assert value("whatsappd_sessions", state="failed") == 0
    assert value("whatsappd_session_state", state="connected", **acme) == 1
    assert value("whatsappd_worker_restarts_total", cause="exited", **acme) == 4
    assert value("whatsappd_messages_total", state="sent", **acme) == 19
    assert value("whatsappd_messages_total", state="uncertain", **acme) == 0
    assert value("whatsappd_outbox_messages", state="queued", **acme) == 1
    assert value("whatsappd_outbox_oldest_queued_age_seconds", **acme) == 90
    assert value("whatsappd_session_last_error_timestamp_seconds", **acme) == 1_700_000_000.5
    assert value("whatsappd_event_subscriber_lag_events") == 30
    assert value("whatsappd_rpc_errors_total", method="daemon.hello", error="denied") == 2
    assert value("whatsappd_check_ok", check="disk") == 0
    assert value("whatsappd_worker_refused_calls_total", call="socket", **acme) == 8
    assert value("whatsappd_rpc_descendants_refused_total") == 3


def test_figures_of_webhooks_arrive_where_they_belong() -> None:
    ours = {"webhook": "5pk2wczu"}
    assert value("whatsappd_webhooks_delivered") == 1
    assert value("whatsappd_webhook_deliveries_total", result="ok", **ours) == 40
    assert value("whatsappd_webhook_deliveries_total", result="failed", **ours) == 3
    assert value("whatsappd_webhook_lag_events", **ours) == 12
    assert value("whatsappd_webhook_oldest_undelivered_age_seconds", **ours) == 60
    assert value("whatsappd_webhook_paused", **ours) == 1
    assert value("whatsappd_webhook_dead_letters", **ours) == 2
    assert value("whatsappd_webhook_events_gone_total", **ours) == 5


def test_nothing_that_waits_is_no_time_old() -> None:
    assert age_ms(1_700_000_030_000, 1_700_000_090_000) == 60_000
    assert age_ms(None, 1_700_000_090_000) == 0
    assert age_ms(1_700_000_090_001, 1_700_000_090_000) == 0


def test_a_histogram_counts_upwards_and_ends_with_all() -> None:
    name = "whatsappd_rpc_request_duration_seconds"
    buckets = [s for s in parsed()[name].samples if s.name == f"{name}_bucket"]
    assert [sample.value for sample in buckets] == list(range(1, len(BOUNDS) + 2))
    assert buckets[-1].labels["le"] == "+Inf"
    assert value(f"{name}_count", method="daemon.hello") == len(BOUNDS) + 1
    assert value(f"{name}_sum", method="daemon.hello") == 40


def test_what_is_unknown_has_no_sample_instead_of_a_false_one() -> None:
    silent = Readings()
    silent.read(sessions.SESSION, Session(last_inbound_ms=None))
    silent.read(metrics.DISK, None)
    found = parsed(render(ALL_METRICS, silent))
    assert found["whatsappd_session_connected"].samples
    for name in (
        "whatsappd_session_last_inbound_timestamp_seconds",
        "whatsappd_worker_private_memory_bytes",
        "whatsappd_disk_free_bytes",
    ):
        assert not found[name].samples, name


def test_labels_are_bounded() -> None:
    allowed = {
        "company",
        "state",
        "cause",
        "result",
        "method",
        "error",
        "rule",
        "check",
        "consumer",
        "task",
        "webhook",
        "call",  # a name of the kernel's table
    }
    info = {"version", "neonize", "python", "mode"}
    for metric in ALL_METRICS:
        assert set(metric.labels) <= (info if metric.name == "whatsappd_info" else allowed)


def test_hundreds_of_companies_fit_into_one_answer() -> None:
    many = readings()
    for number in range(300):
        read_company(many, f"a-company-with-a-name-{number:04}")
    assert len(render(ALL_METRICS, many)) < MAX_MESSAGE


def test_a_tally_puts_each_duration_into_its_bucket() -> None:
    tally = Tally()
    for bound in BOUNDS:
        tally.took(bound)  # a bound belongs to its own bucket
    tally.took(10**6)
    assert tally.counts == [1] * (len(BOUNDS) + 1)
    assert tally.requests == len(BOUNDS) + 1
    tally.failed("denied")
    tally.failed("denied")
    assert tally.errors == {"denied": 2}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing_to_complain_about() -> None:
    subprocess.run(["promtool", "check", "metrics"], input=rendered().encode(), check=True)
