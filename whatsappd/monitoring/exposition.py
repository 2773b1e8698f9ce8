"""Metrics as Prometheus text (exposition format 0.0.4), by prometheus_client.

Imported by `scrape` when metrics are asked for the first time: the library takes 3 MB and 20 ms,
and many a daemon is never asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from time import sleep

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from whatsappd.metrics import COUNTER, HISTOGRAM, METRICS
from whatsappd.monitoring.snapshot import Snapshot

#: Seconds for which the thread lets the event loop have the interpreter, after each metric. It
#: would otherwise take it for 5 ms whenever the loop lets go of it: at each system call.
GIVE_WAY = 0.0005


def render(snapshot: Snapshot) -> str:
    """All metrics of `snapshot`, and those of this process (`process_open_fds` and the like).

    Reads /proc, and takes a third of a millisecond a company: call it in a thread.
    """
    registry = CollectorRegistry()
    registry.register(_Collector(snapshot))
    ProcessCollector(registry=registry)
    return generate_latest(registry).decode()


class _Collector(Collector):
    """A snapshot as prometheus_client wants it: not counted by it, only given to it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterable[Metric]:
        return []  # or registering would collect

    def collect(self) -> Iterator[Metric]:
        for metric in METRICS:
            samples = metric.samples(self._snapshot)
            if metric.kind == HISTOGRAM:
                histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
                for labels, (buckets, total) in samples:
                    histogram.add_metric(labels, buckets, total)
                yield histogram
                sleep(GIVE_WAY)
                continue
            kind = CounterMetricFamily if metric.kind == COUNTER else GaugeMetricFamily
            family = kind(metric.name, metric.help, labels=metric.labels)
            for labels, value in samples:
                family.add_metric(labels, value)
            yield family
            sleep(GIVE_WAY)
