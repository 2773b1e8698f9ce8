"""The figures of the processes that hold the accounts."""

from __future__ import annotations

from typing import Protocol

from whatsappd.metric import COUNTER, GAUGE, Metric, Metrics, one


class MeasuredForkServer(Protocol):
    """What is read of an `engines.neonize.spawn.ForkServer`."""

    @property
    def pid(self) -> int | None: ...
    @property
    def restarts(self) -> int: ...


FORK_SERVER: Metrics[MeasuredForkServer] = (
    Metric(
        "whatsappd_fork_server_up", GAUGE, "Whether the fork server runs (1) or not (0).", (),
        one(lambda fork_server: int(fork_server.pid is not None)),
    ),
    Metric(
        "whatsappd_fork_server_restarts_total", COUNTER, "Fork servers that had to be replaced.",
        (), one(lambda fork_server: fork_server.restarts),
    ),
)  # fmt: skip
