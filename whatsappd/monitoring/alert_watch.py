"""Raising and clearing alerts: gathers the facts, asks `rules.alerts`, and logs what changed.

`health_rounds` lets it look after each round of health checks.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import structlog
import trio

from whatsappd.clock import now_ms, steady_ms
from whatsappd.errors import StoreFailed
from whatsappd.model.message import OutboxState
from whatsappd.monitoring.watched import Watched
from whatsappd.rules.alerts import (
    AlertChange,
    AlertKey,
    AlertRule,
    HostFacts,
    SessionFacts,
    changes,
    findings,
)
from whatsappd.sessions.session import CompanySession

log = structlog.get_logger()

#: Changes that wait for the store to take them. Rules that flap for days must not fill the memory.
_MAX_UNRECORDED = 1000


class _Now(NamedTuple):
    """One moment by both clocks (`clock`)."""

    wall: int
    steady: int

    def ago(self, duration_ms: int) -> int:
        """The wall clock's time of what was `duration_ms` before."""
        return self.wall - duration_ms


class _Waiting(NamedTuple):
    """A company's oldest queued message: how old it was when it was first seen to be that."""

    created_ms: int  # by the wall clock of then
    age_then_ms: int
    seen_at_ms: int  # by the steady one

    @classmethod
    def seen(cls, before: _Waiting | None, created_ms: int, now: _Now) -> _Waiting:
        if before is not None and before.created_ms == created_ms:
            return before
        return cls(created_ms, max(0, now.wall - created_ms), now.steady)

    def age_ms(self, now: _Now) -> int:
        return self.age_then_ms + now.steady - self.seen_at_ms


class AlertWatch:
    """Raises and clears the daemon's alerts. Open ones survive a restart of the daemon."""

    def __init__(self, watched: Watched) -> None:
        self._store = watched.store
        self._sessions = watched.sessions
        self._host = watched.host
        self._thresholds = watched.settings.alerts
        self._started_at_ms = steady_ms()
        self._open: dict[AlertKey, int] | None = None  # None: not read yet
        self._waiting: dict[str, _Waiting] = {}
        self._unrecorded: deque[AlertChange] = deque(maxlen=_MAX_UNRECORDED)

    def open_alerts(self) -> Mapping[AlertRule, int]:
        """How many alerts of each rule are open."""
        counts = Counter(key.rule for key in self._open or ())
        return {rule: counts[rule] for rule in AlertRule}

    async def look(self, loop_delays_ms: Sequence[int]) -> None:
        """Raise and clear alerts by the present facts.

        Changes that the store does not take now are kept and recorded later, in order.

        Args:
            loop_delays_ms: the event loop's longest delay in each of the last rounds.

        Raises:
            StoreFailed: the alerts that an earlier daemon raised cannot be read.
        """
        if self._open is None:
            known = await self._store.alerts.all()
            self._open = {key: found.since_ms for key, found in known.items()}
        was_open = self._open
        oldest: dict[str, int] | None = None
        try:
            oldest = await self._store.outbox.oldest_queued()
        except StoreFailed as error:
            log.error("queue_not_read", reason=error.message)
        disk = await trio.to_thread.run_sync(self._host.disk, self._sessions.pool.sessions())
        now = _Now(now_ms(), steady_ms())
        host = HostFacts(
            now_ms=now.wall,
            started_ms=now.ago(now.steady - self._started_at_ms),
            disk_free_bytes=disk.free if disk else None,
            disk_files_free=disk.files_free if disk else None,
            store_trouble=self._store.health.trouble,
            loop_delays_ms=tuple(loop_delays_ms),
            queue_unread=oldest is None,
        )
        self._waiting = {
            company: _Waiting.seen(self._waiting.get(company), created_ms, now)
            for company, created_ms in (oldest or {}).items()
        }
        sessions = [self._facts(session, now) for session in self._sessions.pool.sessions()]
        found = findings(host, sessions, self._thresholds(), was_open.keys())
        for change in list(changes(was_open, found)):
            self._take(change, was_open)
        await self._record()

    def _facts(self, session: CompanySession, now: _Now) -> SessionFacts:
        """Times of this daemon's own life are told as if the wall clock had never been set."""
        company, down_ms = session.company, session.down_ms
        waiting = self._waiting.get(company)
        return SessionFacts(
            company=company,
            wanted=session.wanted,
            state=session.state,
            cause=session.cause,
            down_since_ms=None if down_ms is None else now.ago(down_ms),
            oldest_queued_ms=None if waiting is None else now.ago(waiting.age_ms(now)),
            queued=self._store.outbox.counts(company).get(OutboxState.QUEUED, 0),
            crashes_ms=[now.ago(now.steady - at_ms) for at_ms in session.counters.crashes_ms],
        )

    def _take(self, change: AlertChange, is_open: dict[AlertKey, int]) -> None:
        key = change.key
        if change.is_raised:
            is_open[key] = change.since_ms
            log.warning("alert_raised", rule=key.rule, company=key.company, detail=change.detail)
        else:
            del is_open[key]
            log.info("alert_cleared", rule=key.rule, company=key.company)
        self._unrecorded.append(change)

    async def _record(self) -> None:
        """Log what changed. While the store takes nothing it waits here, in order."""
        if not self._unrecorded:
            return
        changes = tuple(self._unrecorded)
        try:
            await self._store.alerts.record(changes)
        except StoreFailed as error:
            log.error("alerts_not_logged", reason=error.message, waiting=len(changes))
            return
        self._unrecorded.clear()
