"""What each part is told, derived from the settings.

Parts below `app` define what they want to know in their own units and know nothing of files; this
is the one place where the two vocabularies meet.
"""

from __future__ import annotations

from whatsappd.config.settings import Settings
from whatsappd.rules.alerts import AlertThresholds
from whatsappd.rules.outreach import SendLimits
from whatsappd.rules.recycling import RecycleLimits
from whatsappd.sessions.housekeeping import Retention
from whatsappd.sessions.settings import SessionSettings
from whatsappd.store.sqlite.retention import EventBounds


def session_settings(settings: Settings) -> SessionSettings:
    sessions = settings.sessions
    return SessionSettings(
        log_level=settings.log_level.upper(),
        hand_over_grace_s=sessions.hand_over_grace,
        stop_grace_s=sessions.stop_grace,
        retry_base_ms=_ms(sessions.retry_base),
        retry_cap_ms=_ms(sessions.retry_cap),
        stable_ms=_ms(sessions.stable_time),
        crash_limit=sessions.crash_limit,
        crash_window_ms=_ms(sessions.crash_window),
        connect_deadline_ms=_ms(sessions.connect_deadline),
        health_interval_s=sessions.health_interval,
        health_deadline_s=sessions.health_deadline,
        settle_ms=_ms(sessions.settle_time),
        silence_limit_ms=_ms(sessions.silence_limit),
        start_parallel=sessions.start_parallel,
        queue_limit=settings.queue.limit,
    )


def send_limits(settings: Settings) -> SendLimits:
    """The limits of companies that have none of their own."""
    return SendLimits(
        per_minute=settings.limits.per_company_per_minute,
        per_phone_per_minute=settings.limits.per_phone_per_minute,
        cold_per_hour=settings.outreach.cold_per_hour,
        cold_per_day=settings.outreach.cold_per_day,
    )


def alert_thresholds(settings: Settings) -> AlertThresholds:
    alerts = settings.alerts
    return AlertThresholds(
        session_down_ms=_ms(alerts.session_down_for),
        queue_age_ms=_ms(alerts.queue_older_than),
        restarts=alerts.restarts_per_hour,
        disk_free_bytes=alerts.disk_free_below,
    )


def recycle_limits(settings: Settings) -> RecycleLimits:
    sessions = settings.sessions
    return RecycleLimits(
        memory=sessions.recycle_memory,
        descriptors=sessions.recycle_descriptors,
        threads=sessions.recycle_threads,
        rest_ms=_ms(sessions.recycle_rest),
    )


def retention(settings: Settings) -> Retention:
    kept = settings.retention
    return Retention(
        events=EventBounds(
            max_age_ms=_ms(kept.events_max_age) or None,
            max_company_bytes=kept.events_max_company_bytes or None,
            max_bytes=kept.events_max_bytes or None,
        ),
        messages_max_age_ms=_ms(kept.messages_max_age),
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
