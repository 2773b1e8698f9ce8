"""The metrics of the fork server."""

from __future__ import annotations

from whatsappd.engines.port import EngineStatus
from whatsappd.metric import COUNTER, GAUGE, Metric, Metrics, one

FORK_SERVER: Metrics[EngineStatus] = (
    Metric(
        "whatsappd_fork_server_up", GAUGE, "Whether the fork server runs (1) or not (0).", (),
        one(lambda fork_server: int(fork_server.pid is not None)),
    ),
    Metric(
        "whatsappd_fork_server_restarts_total", COUNTER, "Fork servers that had to be replaced.",
        (), one(lambda fork_server: fork_server.restarts),
    ),
)  # fmt: skip
