"""The settings of what watches: when an alert is raised, and when a worker is recycled."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from whatsappd.setting import WrittenAs, setting

_YEAR_MS = 365 * 86_400_000
_WEEK_MS = 7 * 86_400_000


class AlertSettings(Struct, frozen=True):
    """Thresholds of `rules.alerts`; 0 switches a rule off."""

    session_down_ms: Annotated[
        int,
        setting(
            "alerts.session_down_for",
            "A wanted session is not connected for this long.",
            ge=0,
            le=_YEAR_MS,
            written_as=WrittenAs.MILLISECONDS,
            live=True,
        ),
    ] = 300_000
    queue_age_ms: Annotated[
        int,
        setting(
            "alerts.queue_older_than",
            "A message waits longer than this.",
            ge=0,
            le=_YEAR_MS,
            written_as=WrittenAs.MILLISECONDS,
            live=True,
        ),
    ] = 600_000
    restarts: Annotated[
        int,
        setting(
            "alerts.restarts_per_hour",
            "A session's workers crashed or hung more often in the last hour.",
            ge=0,
            le=10_000,
            live=True,
        ),
    ] = 6
    disk_free_bytes: Annotated[
        int,
        setting(
            "alerts.disk_free_below",
            "The state directory's disk has less free space than this.",
            ge=0,
            le=10**15,
            written_as=WrittenAs.BYTES,
            live=True,
        ),
    ] = 500_000_000
    restarts_window_ms: int = 3_600_000  # of `restarts`
    event_loop_delay_ms: int = 1_000  # in two of the last rounds of health checks


class RecycleSettings(Struct, frozen=True):
    """What a worker may use (`rules.worker_recycling`); 0: as much as it likes.

    Usual are 20 MB, 17 descriptors and 13 threads.
    """

    memory: Annotated[
        int,
        setting(
            "sessions.recycle_memory",
            "A worker with more private memory gets a successor, between two messages. 0: no "
            "limit.",
            ge=0,
            le=10**12,
            written_as=WrittenAs.BYTES,
            live=True,
        ),
    ] = 100_000_000
    descriptors: Annotated[
        int,
        setting(
            "sessions.recycle_descriptors",
            "The same for one with more open descriptors. 0: no limit.",
            ge=0,
            le=1_000_000,
            live=True,
        ),
    ] = 200
    threads: Annotated[
        int,
        setting(
            "sessions.recycle_threads",
            "The same for one with more threads. 0: no limit.",
            ge=0,
            le=1_000_000,
            live=True,
        ),
    ] = 100
    rest_ms: Annotated[
        int,
        setting(
            "sessions.recycle_rest",
            "A younger worker is left alone, whatever it uses.",
            ge=0,
            le=_WEEK_MS,
            written_as=WrittenAs.MILLISECONDS,
            live=True,
        ),
    ] = 600_000

    @property
    def are_off(self) -> bool:
        return not (self.memory or self.descriptors or self.threads)
