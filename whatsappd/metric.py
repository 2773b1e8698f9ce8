"""How a part of the daemon declares what can be measured of it.

    FORK_SERVER: Metrics[ForkServer] = (
        Metric("whatsappd_fork_server_up", GAUGE, "Whether it runs (1) or not (0).", (),
               one(lambda fork_server: int(fork_server.pid is not None))),
    )

Each room that has figures declares them in its `metrics.py`: name, type, meaning, labels, and how
the value is read from the object that counts. Nothing runs until somebody asks: `monitoring.scrape`
then reads all of them, and `monitoring.prometheus_text` makes text of what was read.

Labels are bounded: companies, words of our own (states, causes, methods, rules, names of errors and
checks), consumers, of which there are at most 1000, and webhooks, of which there are at most 100.
Never a phone number. A company costs 2.6 kB of text (0.1 kB compressed), so hundreds are fine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Any, Generic, NamedTuple, TypeVar

Source_contra = TypeVar("Source_contra", contravariant=True)


class MetricType(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


COUNTER, GAUGE, HISTOGRAM = MetricType


class Histogram(NamedTuple):
    """How often a value was at most each bound, and the sum of all values."""

    buckets: Sequence[tuple[str, int]]  # bound and count, cumulated; the last bound is "+Inf"
    total: float


class Sample(NamedTuple):
    """One value, with the values of the metric's labels."""

    labels: tuple[str, ...]
    value: float | Histogram


class Metric(NamedTuple, Generic[Source_contra]):
    """One figure; `samples` reads it from the object that it is about."""

    name: str
    type: MetricType
    help: str
    labels: tuple[str, ...]
    samples: Callable[[Source_contra], Iterable[Sample]]


Metrics = tuple[Metric[Source_contra], ...]


def one(
    value: Callable[[Source_contra], float | None],
) -> Callable[[Source_contra], Iterable[Sample]]:
    """For a metric without labels. None: there is no value just now."""

    def samples(source: Source_contra) -> Iterator[Sample]:
        found = value(source)
        if found is not None:
            yield Sample((), found)

    return samples


class Readings:
    """What was read of some metrics, at one moment."""

    def __init__(self) -> None:
        self._samples: defaultdict[str, list[Sample]] = defaultdict(list)

    def read(self, metrics: Metrics[Source_contra], source: Source_contra) -> None:
        """Read these metrics of `source`, beside what was read of others like it."""
        for metric in metrics:
            self._samples[metric.name] += metric.samples(source)

    def of(self, metric: Metric[Any]) -> Sequence[Sample]:
        return self._samples.get(metric.name, ())
