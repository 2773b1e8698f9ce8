"""Runs a round of health checks every 30 s: sessions, workers' memory, the store, alerts.

Started by `app`. `report` answers how the daemon is at any time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import structlog
import trio

from whatsappd.clock import now_ms
from whatsappd.errors import StoreFailed
from whatsappd.monitoring.alert_watch import AlertWatch
from whatsappd.monitoring.event_loop_clock import LoopClock
from whatsappd.monitoring.health_checks import HealthReport
from whatsappd.monitoring.health_report import report_health
from whatsappd.monitoring.watched import Watched
from whatsappd.monitoring.worker_recycler import WorkerRecycler
from whatsappd.rules.alerts import LOOP_WINDOWS, AlertRule

log = structlog.get_logger()

#: Rounds that may be missed before the rounds, and with them the daemon, count as stuck.
_MISSED_ROUNDS = 3


class HealthRounds:
    """`run` must be running; `report` can be asked at any time."""

    def __init__(self, watched: Watched, clock: LoopClock) -> None:
        self._watched = watched
        self._clock = clock
        self._alerts = AlertWatch(watched)
        self._recycler = WorkerRecycler(watched)
        self.started_ms = now_ms()
        self._delays_ms: deque[int] = deque(maxlen=LOOP_WINDOWS)
        self._round_at = trio.current_time()

    async def run(self) -> None:
        """Run one round per interval, until cancelled.

        An error in one part of a round ends that part only; the next round tries it again.
        """
        watched, attempt = self._watched, self._watched.supervision.attempt
        while True:
            due = trio.current_time() + watched.settings.interval_s
            await trio.sleep_until(due)
            late_s = trio.current_time() - due
            await attempt("health_checks", watched.sessions.pool.check_health)
            await attempt("recycler", self._recycler.look)
            self._delays_ms.append(round(max(late_s, self._clock.take_longest()) * 1000))
            await attempt("store_probe", self._prove_store)
            await attempt("alerts", self._look_for_alerts)
            self._round_at = trio.current_time()

    @property
    def is_alive(self) -> bool:
        """Whether the rounds end in time, which systemd's watchdog is told.

        False only if a restart may help. A full disk or a session that is down is in the report and
        in alerts instead.
        """
        patience_s = _MISSED_ROUNDS * self._watched.settings.interval_s + 30
        return trio.current_time() - self._round_at < patience_s

    @property
    def loop_busy_s(self) -> float:
        """Seconds that the event loop has been at work, since the daemon started."""
        return self._clock.busy_s

    @property
    def loop_longest_ms(self) -> int:
        """The longest time that everything had to wait, in this and the last round."""
        return max(round(self._clock.longest_s * 1000), *[0, *self._delays_ms][-1:])

    def open_alerts(self) -> Mapping[AlertRule, int]:
        """How many alerts of each rule are open."""
        return self._alerts.open_alerts()

    async def report(self, companies: frozenset[str] | None = None) -> HealthReport:
        """How everything is now; see `report_health`."""
        return await report_health(
            self._watched,
            rounds_are_alive=self.is_alive,
            loop_longest_ms=self.loop_longest_ms,
            companies=companies,
        )

    async def _prove_store(self) -> None:
        """After a refused write, find out whether the store takes writes again."""
        store = self._watched.store.health
        if store.trouble is not None:
            try:
                await store.probe()
            except StoreFailed as error:
                log.debug("store_still_failing", reason=error.message)

    async def _look_for_alerts(self) -> None:
        await self._alerts.look(self._delays_ms)
