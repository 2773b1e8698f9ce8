"""What supervision can be told; `config` fills it in, tests shorten the times."""

from __future__ import annotations

from typing import NamedTuple


class SessionSettings(NamedTuple):
    """Times are in milliseconds unless the name says otherwise."""

    log_level: str = "INFO"  # of whatsmeow, in the workers
    open_deadline_s: float = 30.0  # loading Go and making the client; usually 30 ms
    hand_over_grace_s: float = 3.0  # for a message on its way when the session is stopped
    logout_grace_s: float = 1.0  # for whatsmeow to delete an account that was unlinked
    stop_grace_s: float = 3.0  # for a client to disconnect before its process is killed
    confirm_grace_s: float = 3.0  # for receipts of the last messages, before a worker is recycled
    recycle_grace_s: float = 20.0  # the same for one that is to be replaced, and well
    retry_base_ms: int = 1_000
    retry_cap_ms: int = 300_000
    shortest_ban_ms: int = 60_000  # a ban that names no end is asked about again after this
    stable_ms: int = 60_000  # connected this long, the backoff begins anew
    crash_limit: int = 5  # this many crashes within crash_window_ms are one too many
    crash_window_ms: int = 600_000
    crash_rest_ms: int = 1_800_000  # before the next try, when the library itself crashes on
    connect_deadline_ms: int = 60_000  # from a started worker to a login or an error
    health_interval_s: float = 30.0
    health_deadline_s: float = 10.0
    settle_ms: int = 180_000  # to (re)connect before health counts a session as ill
    silence_limit_ms: int = 600_000  # reconnecting in vain, before the worker is replaced
    start_parallel: int = 8  # sessions started at once at boot
    start_slot_s: float = 5.0  # the longest a session being brought back keeps its place
    start_jitter_s: float = 0.5  # spread of their starts at boot
    retry_store_s: float = 1.0  # between attempts to log an event while the disk is full
    queue_limit: int = 10_000  # messages waiting per company
    look_up_deadline_s: float = 20.0  # for whether a number is on WhatsApp
    send_deadline_s: float = 100.0  # whatsmeow itself gives up after 75 s
    slow_ack_s: float = 1.0  # without an ack for so long, a message's id is looked up
    late_ack_s: float = 2.0  # for the ack of a message whose receipt is there
    unlink_deadline_s: float = 40.0  # for a connection to WhatsApp, and its answer
