"""The metrics of the socket: its connections, its methods and their errors."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from whatsappd.metric import COUNTER, GAUGE, HISTOGRAM, Histogram, Metric, Metrics, Sample, one
from whatsappd.rpc.method import MethodTable
from whatsappd.rpc.method_stats import BOUNDS, Tally
from whatsappd.rpc.user_shares import ConnectionCounts


def called(table: MethodTable) -> Iterator[tuple[str, Tally]]:
    """The methods that were called; calls of what there is not are under `unknown`."""
    for name in table:
        if table[name].tally.requests:
            yield name, table[name].tally
    if table.unknown_tally.requests:
        yield "unknown", table.unknown_tally


def _durations(table: MethodTable) -> Iterator[Sample]:
    bounds = [*map(str, BOUNDS), "+Inf"]
    for method, tally in called(table):
        buckets = list(zip(bounds, accumulate(tally.counts), strict=True))
        yield Sample((method,), Histogram(buckets, tally.seconds))


def _errors(table: MethodTable) -> Iterator[Sample]:
    for method, tally in called(table):
        for name, count in tally.errors.items():
            yield Sample((method, name), count)


CONNECTIONS: Metrics[ConnectionCounts] = (
    Metric(
        "whatsappd_rpc_connections", GAUGE, "Connections to the socket that are open.", (),
        one(lambda counts: counts.open),
    ),
    Metric(
        "whatsappd_rpc_connections_accepted_total", COUNTER, "Connections accepted.", (),
        one(lambda counts: counts.accepted),
    ),
    Metric(
        "whatsappd_rpc_connections_refused_total", COUNTER,
        "Connections refused because too many were open.", (),
        one(lambda counts: counts.refused),
    ),
)  # fmt: skip

#: How many connections of the daemon's own descendants were refused.
DESCENDANTS: Metrics[int] = (
    Metric(
        "whatsappd_rpc_descendants_refused_total", COUNTER,
        "Connections refused because they came from a process that the daemon started.", (),
        one(lambda refused: refused),
    ),
)  # fmt: skip

METHODS: Metrics[MethodTable] = (
    Metric(
        "whatsappd_rpc_request_duration_seconds", HISTOGRAM,
        "From reading a request to its answer, with what its caller asked to wait for.",
        ("method",), _durations,
    ),
    Metric(
        "whatsappd_rpc_errors_total", COUNTER, "Requests answered with an error, by its name.",
        ("method", "error"), _errors,
    ),
)  # fmt: skip
