"""Expires messages whose time to live has passed, and deletes old events and messages.

Two tasks for all companies, started by `app`.
"""

from __future__ import annotations

import structlog
import trio

from whatsappd.clock import settled_ms
from whatsappd.errors import StoreFailed
from whatsappd.model.message import OutboxState
from whatsappd.model.stored_event import EventBounds
from whatsappd.sessions.settings import RetentionSettings
from whatsappd.store.port import EventLog, Outbox

log = structlog.get_logger()

#: How late, in seconds, a message may be found to have expired. (One that is handed over is
#: checked then, exactly.)
EXPIRE_EVERY_S = 5.0
#: How late history may be found to be too old. (How large the event log may be holds at all times:
#: it makes room as it grows.)
RETAIN_EVERY_S = 60.0
#: How long, in seconds, nothing is deleted by a clock that seems to have jumped.
DOUBT_S = 3600.0

_DAY_MS = 24 * 3600 * 1000


class Housekeeping:
    def __init__(self, events: EventLog, outbox: Outbox, retention: RetentionSettings) -> None:
        self._events = events
        self._outbox = outbox
        self._changed = trio.Event()
        self.keep(retention)

    def keep(self, retention: RetentionSettings) -> None:
        """Change how much is kept, from now on."""
        self._retention = retention
        self._events.keep(
            EventBounds(
                max_age_ms=retention.events_max_age_ms or None,
                max_company_bytes=retention.events_max_company_bytes or None,
                max_bytes=retention.events_max_bytes or None,
            )
        )
        self._changed.set()

    async def expire(self) -> None:
        """Expire messages, until cancelled."""
        while True:
            await trio.sleep(EXPIRE_EVERY_S)
            if not any(
                self._outbox.view.counts(company).get(OutboxState.QUEUED)
                for company in self._outbox.view.companies()
            ):
                continue
            try:
                await self._outbox.maintenance.expire(settled_ms())
            except StoreFailed as error:
                log.error("messages_not_expired", reason=error.message)

    async def retain(self) -> None:
        """Delete history that is old enough, until cancelled."""
        # A host may boot with a clock that is months ahead, by which all history is old, and have
        # it set right a moment later.
        if settled_ms() - self._events.newest_at_opening_ms > _DAY_MS:
            await trio.sleep(DOUBT_S)
        while True:
            self._changed = trio.Event()
            try:
                events = await self._events.retain()
                messages = await self._outbox.maintenance.retain(
                    self._retention.messages_max_age_ms
                )
                if events or messages:
                    log.info("history_deleted", events=events, messages=messages)
            except StoreFailed as error:
                log.error("history_not_deleted", reason=error.message)
            with trio.move_on_after(RETAIN_EVERY_S):
                await self._changed.wait()
