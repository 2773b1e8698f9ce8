"""The settings of sessions: how they are started, watched and restarted, and what is kept of them.

Tests shorten the times.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from whatsappd.setting import WrittenAs, setting

_S, _MS = WrittenAs.SECONDS, WrittenAs.MILLISECONDS
_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS
_DAY_MS = 24 * _HOUR_MS
_CENTURY_MS = 36_500 * _DAY_MS


class SessionSettings(Struct, frozen=True, kw_only=True):
    """Times are in milliseconds unless the name says otherwise."""

    queue_limit: Annotated[
        int,
        setting(
            "queue.limit",
            "Messages that may wait per company; more are refused with `queue_full`.",
            ge=1,
            le=1_000_000,
        ),
    ] = 10_000
    retry_base_ms: Annotated[
        int,
        setting(
            "sessions.retry_base",
            "The longest pause before the first restart; it doubles.",
            ge=10,
            le=_HOUR_MS,
            written_as=_MS,
        ),
    ] = 1_000
    retry_cap_ms: Annotated[
        int,
        setting(
            "sessions.retry_cap",
            "The longest pause before any restart.",
            ge=10,
            le=_DAY_MS,
            written_as=_MS,
        ),
    ] = 300_000
    stable_ms: Annotated[
        int,
        setting(
            "sessions.stable_time",
            "Connected for this long, the pauses begin anew.",
            ge=1_000,
            le=_DAY_MS,
            written_as=_MS,
        ),
    ] = 60_000
    crash_limit: Annotated[
        int,
        setting(
            "sessions.crash_limit",
            "Crashes within `crash_window` that are borne; one more, and the session is `failed`.",
            ge=1,
            le=1000,
        ),
    ] = 5
    crash_window_ms: Annotated[
        int,
        setting(
            "sessions.crash_window",
            "See `crash_limit`.",
            ge=10_000,
            le=7 * _DAY_MS,
            written_as=_MS,
        ),
    ] = 600_000
    health_interval_s: Annotated[
        float,
        setting(
            "sessions.health_interval",
            "How often each session is asked how it is.",
            ge=1,
            le=3600,
            written_as=_S,
        ),
    ] = 30.0
    health_deadline_s: Annotated[
        float,
        setting(
            "sessions.health_deadline",
            "A worker that answers later than this is replaced.",
            ge=0.1,
            le=600,
            written_as=_S,
        ),
    ] = 10.0
    connect_deadline_ms: Annotated[
        int,
        setting(
            "sessions.connect_deadline",
            "A session that is still connecting after this is started anew.",
            ge=5_000,
            le=_HOUR_MS,
            written_as=_MS,
        ),
    ] = 60_000
    settle_ms: Annotated[
        int,
        setting(
            "sessions.settle_time",
            "How long a session may (re)connect before health counts it as ill.",
            ge=1_000,
            le=_HOUR_MS,
            written_as=_MS,
        ),
    ] = 180_000
    silence_limit_ms: Annotated[
        int,
        setting(
            "sessions.silence_limit",
            "A session that has reconnected in vain for this long gets a new worker.",
            ge=1_000,
            le=_DAY_MS,
            written_as=_MS,
        ),
    ] = 600_000
    start_parallel: Annotated[
        int,
        setting(
            "sessions.start_parallel",
            "Sessions that are brought back at the same time at boot.",
            ge=1,
            le=1000,
        ),
    ] = 8
    hand_over_grace_s: Annotated[
        float,
        setting(
            "sessions.hand_over_grace",
            "How long a message on its way to WhatsApp is waited for when its session is stopped.",
            ge=0,
            le=60,
            written_as=_S,
        ),
    ] = 3.0
    stop_grace_s: Annotated[
        float,
        setting(
            "sessions.stop_grace",
            "How long a session may take to disconnect before it is killed.",
            ge=0,
            le=60,
            written_as=_S,
        ),
    ] = 3.0

    # Nobody needs to set these.
    library_log_level: str = "INFO"  # of whatsmeow, in the workers: as the daemon's
    open_deadline_s: float = 30.0  # loading Go and making the client; usually 30 ms
    logout_grace_s: float = 1.0  # for whatsmeow to delete an account that was unlinked
    confirm_grace_s: float = 3.0  # for receipts of the last messages, before a worker is recycled
    recycle_grace_s: float = 20.0  # `stop_grace_s` for one that is to be replaced, and well
    shortest_ban_ms: int = 60_000  # a ban that names no end is asked about again after this
    crash_rest_ms: int = 1_800_000  # before the next try, when the library itself crashes on
    start_slot_s: float = 5.0  # the longest a session being brought back keeps its place
    start_jitter_s: float = 0.5  # spread of their starts at boot
    retry_store_s: float = 1.0  # between attempts to log an event while the disk is full
    look_up_deadline_s: float = 20.0  # for whether a number is on WhatsApp
    send_deadline_s: float = 100.0  # whatsmeow itself gives up after 75 s
    slow_ack_s: float = 1.0  # without an ack for so long, a message's id is looked up
    late_ack_s: float = 2.0  # for the ack of a message whose receipt is there
    unlink_deadline_s: float = 40.0  # for a connection to WhatsApp, and its answer


class RetentionSettings(Struct, frozen=True):
    """What is kept, and for how long. 0: no bound (but for messages)."""

    events_max_age_ms: Annotated[
        int,
        setting(
            "retention.events_max_age",
            "Older events are deleted. 0: kept for ever.",
            ge=0,
            le=_CENTURY_MS,
            written_as=_MS,
            live=True,
        ),
    ] = 30 * _DAY_MS
    events_max_company_bytes: Annotated[
        int,
        setting(
            "retention.events_max_company_bytes",
            "A company's oldest events beyond this size are deleted. 0: no limit.",
            ge=0,
            le=10**15,
            written_as=WrittenAs.BYTES,
            live=True,
        ),
    ] = 256 << 20
    events_max_bytes: Annotated[
        int,
        setting(
            "retention.events_max_bytes",
            "The size of the whole log. Beyond it, the oldest events of whichever company has most "
            "are deleted: one with less than its share loses none. 0: no limit.",
            ge=0,
            le=10**15,
            written_as=WrittenAs.BYTES,
            live=True,
        ),
    ] = 1 << 30
    messages_max_age_ms: Annotated[
        int,
        setting(
            "retention.messages_max_age",
            "Messages that were sent, failed, expired or cancelled longer ago are deleted. "
            "Those that wait, or whose fate is uncertain, are not.",
            ge=_HOUR_MS,
            le=_CENTURY_MS,
            written_as=_MS,
            live=True,
        ),
    ] = 90 * _DAY_MS
