"""Counters of one session since the daemon started, increased where things happen.

`monitoring` reads it when somebody asks for metrics; nothing here costs more than an addition.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

from whatsappd.engines.protocol import EventKind
from whatsappd.model.session import SessionState
from whatsappd.rules.lifecycle import SessionCause, Transition, WorkerAction, counts_as_crash

#: Enough for every sensible threshold of "too many restarts".
_CRASHES_KEPT = 100
_RESTARTS = frozenset(
    {
        WorkerAction.KILL_AND_RETRY,
        WorkerAction.KILL_AND_WAIT,
        WorkerAction.KILL_AND_REST,
        WorkerAction.REPLACE,
    }
)


class SessionCounters:
    """The counters of one session. Whoever counts adds to the attributes."""

    __slots__ = (
        "_crashes",
        "connections",
        "errors",
        "health_failed",
        "health_ok",
        "inbound",
        "limiter_wait_s",
        "limiter_waits",
        "qr_codes",
        "reconnections",
        "refused_calls",
        "restarts",
    )

    def __init__(self) -> None:
        self.connections = 0  # logins that succeeded, those after a lost connection included
        self.reconnections = 0  # of them, whatsmeow's own, with the same worker
        self.restarts: Counter[SessionCause] = Counter()  # workers ended to be started again
        self.errors = 0
        self.refused_calls: Counter[str] = Counter()  # system calls, by name
        self.qr_codes = 0
        self.inbound: Counter[EventKind] = (
            Counter()
        )  # messages, receipts, and what could not be read
        self.health_ok = 0
        self.health_failed = 0
        self.limiter_waits = 0  # times that nothing could be sent because of a limit
        self.limiter_wait_s = 0.0
        self._crashes: deque[int] = deque(maxlen=_CRASHES_KEPT)

    @property
    def crashes_ms(self) -> Sequence[int]:
        """When workers crashed, hung, or lost WhatsApp, by `clock.steady_ms`, ascending."""
        return tuple(self._crashes)

    def transition(
        self, before: SessionState, cause: SessionCause, following: Transition, at_ms: int
    ) -> None:
        """Counts what a transition of the session's state means."""
        if cause is SessionCause.CONNECTED and before is not SessionState.CONNECTED:
            self.connections += 1
            if before is SessionState.RECONNECTING:
                self.reconnections += 1
        if following.action in _RESTARTS:
            self.restarts[cause] += 1
            if counts_as_crash(cause) or cause is SessionCause.SILENT:
                self._crashes.append(at_ms)
