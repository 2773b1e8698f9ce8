"""The metrics of the daemon as a whole and of its host, and the list of all metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from whatsappd.engines import metrics as engines
from whatsappd.metric import COUNTER, GAUGE, Metric, Metrics, Sample, one
from whatsappd.monitoring.health_checks import Check
from whatsappd.monitoring.kernel import Disk, Memory
from whatsappd.rpc import metrics as rpc
from whatsappd.sessions import metrics as sessions
from whatsappd.store import metrics as store
from whatsappd.supervision import Supervised

_TASK = ("task", "company")
_INFO = ("version", "neonize", "python", "mode")


class LoopFigures(NamedTuple):
    """How busy the event loop is."""

    busy_s: float  # at work, since the daemon started
    longest_s: float  # that everything waited
    tasks: int


class WorkerMemory(NamedTuple):
    company: str
    memory: Memory


def _labelled(values: Iterable[tuple[str, float]]) -> Iterator[Sample]:
    return (Sample((label,), value) for label, value in values)


def _told(tasks: Sequence[Supervised]) -> Iterator[Supervised]:
    """Those of a company are told once they have failed."""
    return (task for task in tasks if task.failures or task.company is None)


def _of_task(
    value: Callable[[Supervised], float],
) -> Callable[[Sequence[Supervised]], Iterable[Sample]]:
    return lambda tasks: [
        Sample((task.name, task.company or ""), value(task)) for task in _told(tasks)
    ]


def _last_failures(tasks: Sequence[Supervised]) -> Iterator[Sample]:
    for task in tasks:
        if task.failed_ms is not None:
            error = (task.error or "").partition(":")[0]
            yield Sample((task.name, task.company or "", error), task.failed_ms / 1000)


#: That it answers at all.
DAEMON: Metrics[None] = (
    Metric(
        "whatsappd_up", GAUGE, "1: the daemon gave its figures. 0, in a file: it did not.", (),
        one(lambda _: 1),
    ),
)  # fmt: skip

#: The versions of what runs, and the mode, by label.
INFO: Metrics[Mapping[str, str]] = (
    Metric(
        "whatsappd_info", GAUGE, "Always 1; the labels tell the versions and the mode.", _INFO,
        lambda told: [Sample(tuple(told[name] for name in _INFO), 1)],
    ),
)  # fmt: skip

#: When the daemon started, in epoch milliseconds.
START: Metrics[int] = (
    Metric(
        "whatsappd_start_time_seconds", GAUGE, "When this daemon started, in Unix time.", (),
        one(lambda started_ms: started_ms / 1000),
    ),
)  # fmt: skip

CHECKS: Metrics[Sequence[Check]] = (
    Metric(
        "whatsappd_check_ok", GAUGE,
        "Whether a check of the daemon's health is passed (1) or not (0); see daemon.health.",
        ("check",), lambda checks: _labelled((check.name, int(check.ok)) for check in checks),
    ),
)  # fmt: skip

#: How many alerts of each rule are open.
ALERTS: Metrics[Mapping[str, int]] = (
    Metric(
        "whatsappd_alerts", GAUGE, "Alerts that are open now, by rule.", ("rule",),
        lambda counts: _labelled((str(rule), count) for rule, count in counts.items()),
    ),
)  # fmt: skip

EVENT_LOOP: Metrics[LoopFigures] = (
    Metric(
        "whatsappd_event_loop_busy_seconds_total", COUNTER,
        "Time that the event loop was at work; a rate near 1 means that it is saturated.", (),
        one(lambda loop: loop.busy_s),
    ),
    Metric(
        "whatsappd_event_loop_longest_seconds", GAUGE,
        "The longest time that the event loop kept everything waiting, "
        "in this and the last round of health checks.", (),
        one(lambda loop: loop.longest_s),
    ),
    Metric("whatsappd_tasks", GAUGE, "Tasks of the event loop.", (), one(lambda loop: loop.tasks)),
)  # fmt: skip

SUPERVISION: Metrics[Sequence[Supervised]] = (
    Metric(
        "whatsappd_task_well", GAUGE,
        "Whether a supervised task runs (1) or failed within the last minute (0). Those of a "
        "company are told once they have failed.", _TASK,
        _of_task(lambda task: int(task.is_well)),
    ),
    Metric(
        "whatsappd_task_failures_total", COUNTER,
        "Errors that ended a supervised task, after each of which it began anew.", _TASK,
        _of_task(lambda task: task.failures),
    ),
    Metric(
        "whatsappd_task_last_failure_time_seconds", GAUGE,
        "When a supervised task failed last, in Unix time; `error` is the class of the error.",
        (*_TASK, "error"), _last_failures,
    ),
)  # fmt: skip

#: Of each worker that was asked.
WORKER_MEMORY: Metrics[WorkerMemory] = (
    Metric(
        "whatsappd_worker_private_memory_bytes", GAUGE,
        "Memory that only this worker uses, and gives back when it ends. Of many workers, some "
        "are asked at each scrape.",
        ("company",), lambda worker: [Sample((worker.company,), worker.memory.private)],
    ),
    Metric(
        "whatsappd_worker_proportional_memory_bytes", GAUGE,
        "A worker's memory with its share of what it shares (PSS). Asked as the private memory is.",
        ("company",), lambda worker: [Sample((worker.company,), worker.memory.proportional)],
    ),
)  # fmt: skip

#: How many lines of the log were dropped.
LOG: Metrics[int] = (
    Metric(
        "whatsappd_log_lines_dropped_total", COUNTER,
        "Lines of the daemon's log that could not be written in time.", (),
        one(lambda dropped: dropped),
    ),
)  # fmt: skip

#: Of the state directory; None: nobody could tell.
DISK: Metrics[Disk | None] = (
    Metric(
        "whatsappd_disk_free_bytes", GAUGE, "Free space where the state directory is.", (),
        one(lambda disk: disk.free if disk else None),
    ),
    Metric(
        "whatsappd_disk_size_bytes", GAUGE, "The size of that file system.", (),
        one(lambda disk: disk.total if disk else None),
    ),
)  # fmt: skip

#: All metrics, in the order in which they are printed.
ALL_METRICS: Metrics[Any] = (
    *DAEMON, *INFO, *START, *CHECKS, *ALERTS, *EVENT_LOOP, *SUPERVISION, *engines.FORK_SERVER,
    *sessions.SESSIONS, *sessions.SESSION, *WORKER_MEMORY, *store.OUTBOX, *sessions.INBOUND,
    *sessions.PACING, *store.EVENT_LOG, *store.SUBSCRIBERS, *store.CONSUMERS, *store.DELIVERER,
    *store.WEBHOOK, *store.DATABASE_SIZE, *store.DATABASE, *LOG, *DISK, *rpc.CONNECTIONS,
    *rpc.DESCENDANTS, *rpc.METHODS,
)  # fmt: skip
