"""Prometheus' text format, from what was read of all metrics.

Imported by `scrape` when metrics are asked for the first time: the library takes 3 MB and 20 ms,
and many a daemon is never asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from time import sleep
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from whatsappd.metric import COUNTER, Histogram, Metric, Metrics, MetricType, Readings

#: Seconds for which the thread lets the event loop have the interpreter, after each metric. It
#: would otherwise take it for 5 ms whenever the loop lets go of it: at each system call.
GIVE_WAY = 0.0005


def render(metrics: Metrics[Any], readings: Readings) -> str:
    """All of `metrics`, and those of this process (`process_open_fds` and the like).

    Reads /proc, and takes a third of a millisecond a company: call it in a thread.
    """
    registry = CollectorRegistry()
    registry.register(_Collector(metrics, readings))
    ProcessCollector(registry=registry)
    return generate_latest(registry).decode()


class _Collector(Collector):
    """Readings as prometheus_client wants them: not counted by it, only given to it."""

    def __init__(self, metrics: Metrics[Any], readings: Readings) -> None:
        self._metrics = metrics
        self._readings = readings

    def describe(self) -> Iterable[Family]:
        return []  # or registering would collect

    def collect(self) -> Iterator[Family]:
        for metric in self._metrics:
            yield _family(metric, self._readings)
            sleep(GIVE_WAY)


def _family(metric: Metric[Any], readings: Readings) -> Family:
    if metric.type is MetricType.HISTOGRAM:
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, value in readings.of(metric):
            assert isinstance(value, Histogram)
            histogram.add_metric(labels, value.buckets, value.total)
        return histogram
    kind = CounterMetricFamily if metric.type is COUNTER else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in readings.of(metric):
        assert not isinstance(value, Histogram)
        family.add_metric(labels, value)
    return family
