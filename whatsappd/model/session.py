"""The states of a session, and a snapshot of one."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class SessionState(StrEnum):
    """The states of a session; `rules.lifecycle` has the table of transitions."""

    STOPPED = "stopped"
    STARTING = "starting"
    PAIRING = "pairing"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    BACKING_OFF = "backing_off"
    LOGGED_OUT = "logged_out"
    CONFLICT = "conflict"
    BANNED = "banned"
    OUTDATED = "outdated"
    FAILED = "failed"
    HELD = "held"


class SessionStatus(NamedTuple):
    """A snapshot of one session, which `session.status` answers. Times are epoch milliseconds.

    `CompanySession.status` fills it in. `api.sessions.SessionInfo` declares the same fields for
    callers, so a new one has to be added in these three places.
    """

    company: str
    wanted: bool  # whether it should be running: survives restarts
    state: SessionState
    since_ms: int
    cause: str  # why it is in this state, in words
    next_try_ms: int | None
    restarts: int  # of the worker, since the session was started by a person
    worker_pid: int | None
    jid: str | None
    lid: str | None
    push_name: str | None
    qr: str | None  # the code to scan, while pairing
    last_inbound_ms: int | None
    last_error: str | None
    queued: int  # messages waiting to be sent
    last_error_ms: int | None = None
    recycled: int = 0  # workers replaced because they had grown too much, since the daemon started
    last_recycled: str | None = None  # why
    outreach_paused_until_ms: int | None = None  # no first message to a stranger before that
    account: str | None = None  # the JID of the account that the company is bound to
