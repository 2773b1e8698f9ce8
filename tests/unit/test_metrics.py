"""The metrics' names, units, helps and labels, as the library's own parser reads them."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from whatsappd.engines.protocol import EventKind
from whatsappd.metrics import COUNTER, METRICS
from whatsappd.model.message import OutboxState
from whatsappd.model.session import SessionState
from whatsappd.monitoring.exposition import render
from whatsappd.monitoring.procfs import Disk, Memory
from whatsappd.monitoring.snapshot import (
    CompanyFigures,
    MethodFigures,
    Snapshot,
    TaskFigures,
    WebhookFigures,
)
from whatsappd.rpc.method_stats import BOUNDS, Tally
from whatsappd.rules.alerts import AlertRule
from whatsappd.rules.lifecycle import SessionCause
from whatsappd.wire.frames import MAX_MESSAGE

ACME = CompanyFigures(
    company="acme",
    state=SessionState.CONNECTED,
    is_wanted=True,
    is_well=True,
    health_ok=7,
    health_failed=1,
    connections=3,
    reconnections=2,
    restarts={SessionCause.EXITED: 4, SessionCause.HUNG: 1},
    errors=5,
    last_error_ms=1_700_000_000_500,
    last_inbound_ms=None,
    qr_codes=6,
    refused_calls={"socket": 8},
    inbound={EventKind.MESSAGE: 11, EventKind.RECEIPT: 12, EventKind.UNDECRYPTABLE: 13},
    accepted=20,
    entered={OutboxState.QUEUED: 21, OutboxState.SENDING: 21, OutboxState.SENT: 19},
    rows={OutboxState.QUEUED: 1, OutboxState.SENT: 19},
    oldest_queued_ms=1_700_000_000_000,
    limiter_waits=2,
    limiter_wait_s=1.5,
    is_outreach_paused=False,
    memory=Memory(9_000_000, 14_000_000),
)
SNAPSHOT = Snapshot(
    now_ms=1_700_000_090_000,
    started_ms=1_700_000_000_000,
    versions={"version": "1", "neonize": "2", "python": "3", "mode": "real"},
    companies=[ACME],
    alerts=dict.fromkeys(AlertRule, 0),
    checks={"store": True, "disk": False},
    methods=[MethodFigures("daemon.hello", [1] * (len(BOUNDS) + 1), 40.0, {"denied": 2})],
    connections=1,
    connections_accepted=2,
    connections_refused=0,
    descendants_refused=3,
    fork_server_up=True,
    fork_server_restarts=0,
    first_seq=1,
    last_seq=100,
    tail_events=100,
    tail_bytes=5000,
    subscriber_lags=[0, 30],
    consumer_lags={"billing": 10},
    webhooks=[
        WebhookFigures(
            webhook="5pk2wczu",
            delivered=40,
            failures=3,
            lag_events=12,
            waiting_since_ms=1_700_000_030_000,
            is_paused=True,
            dead_letters=2,
            gone=5,
        )
    ],
    webhooks_delivered=True,
    database_bytes=1,
    database_trouble=False,
    log_dropped=3,
    disk=Disk(1, 2),
    tasks=20,
    supervised=[
        TaskFigures("audit", "", False, 3, "OSError", 1_700_000_001_000),
        TaskFigures("session", "acme", True, 0, "", None),
        TaskFigures("dispatcher", "acme", True, 1, "KeyError", 1_700_000_002_000),
    ],
    loop_busy_s=1.0,
    loop_longest_s=0.01,
)


@functools.cache
def rendered() -> str:
    return render(SNAPSHOT)


def parsed(snapshot: Snapshot = SNAPSHOT) -> dict[str, Metric]:
    text = rendered() if snapshot is SNAPSHOT else render(snapshot)
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(name: str, snapshot: Snapshot = SNAPSHOT, **labels: str) -> float:
    [found] = [
        sample.value
        for family in parsed(snapshot).values()
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return float(found)


def test_what_is_rendered_is_what_the_table_names() -> None:
    ours = {name for name in parsed() if name.startswith("whatsappd_")}
    assert ours == {metric.name.removesuffix("_total") for metric in METRICS}
    for metric in METRICS:
        family = parsed()[metric.name.removesuffix("_total")]
        assert family.type == metric.kind
        assert family.documentation == metric.help


def test_names_tell_what_is_counted_and_in_which_unit() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for name, kind, text, *_ in METRICS:
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
    idle = [SNAPSHOT.webhooks[0]._replace(waiting_since_ms=None)]
    name = "whatsappd_webhook_oldest_undelivered_age_seconds"
    assert value(name, SNAPSHOT._replace(webhooks=idle), **ours) == 0


def test_a_histogram_counts_upwards_and_ends_with_all() -> None:
    name = "whatsappd_rpc_request_duration_seconds"
    buckets = [s for s in parsed()[name].samples if s.name == f"{name}_bucket"]
    assert [sample.value for sample in buckets] == list(range(1, len(BOUNDS) + 2))
    assert buckets[-1].labels["le"] == "+Inf"
    assert value(f"{name}_count", method="daemon.hello") == len(BOUNDS) + 1
    assert value(f"{name}_sum", method="daemon.hello") == 40


def test_what_is_unknown_has_no_sample_instead_of_a_false_one() -> None:
    snapshot = SNAPSHOT._replace(companies=[ACME._replace(memory=None)], disk=None)
    for name in (
        "whatsappd_session_last_inbound_timestamp_seconds",
        "whatsappd_worker_private_memory_bytes",
        "whatsappd_disk_free_bytes",
    ):
        assert not parsed(snapshot)[name].samples, name


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
    for metric in METRICS:
        assert set(metric.labels) <= (info if metric.name == "whatsappd_info" else allowed)


def test_hundreds_of_companies_fit_into_one_answer() -> None:
    companies = [
        ACME._replace(company=f"a-company-with-a-name-{number:04}") for number in range(300)
    ]
    assert len(render(SNAPSHOT._replace(companies=companies))) < MAX_MESSAGE


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
    subprocess.run(["promtool", "check", "metrics"], input=render(SNAPSHOT).encode(), check=True)
