"""One session's state machine: an incident goes in; the new state and what to do come out.

It knows no worker and no task. `session` gives it incidents, records the resulting step, and does
to the worker what the step says. `rules.lifecycle` is the table of transitions; this adds when the
next try is due, when there were too many crashes, and since when the session is down.
"""

from __future__ import annotations

from typing import NamedTuple

from whatsappd.clock import Moment
from whatsappd.model.session import SessionState
from whatsappd.rules import incidents
from whatsappd.rules.incidents import Incident
from whatsappd.rules.lifecycle import (
    ALIVE,
    SessionCause,
    WorkerAction,
    counts_as_crash,
    step,
)
from whatsappd.sessions.counters import SessionCounters
from whatsappd.sessions.restart_policy import RestartPolicy
from whatsappd.sessions.settings import SessionSettings

#: Causes with which a person starts a session: time before that does not count as time down.
_STARTS = frozenset({SessionCause.START, SessionCause.TAKE_OVER})
#: Causes that are no trouble.
_NO_ERRORS = frozenset(
    {
        *(SessionCause.START, SessionCause.TAKE_OVER, SessionCause.STOP, SessionCause.UNLINK),
        *(SessionCause.OPENED, SessionCause.QR, SessionCause.PAIRED, SessionCause.CONNECTED),
        *(SessionCause.RETRY_DUE, SessionCause.KEEPALIVE_RESTORED, SessionCause.RECYCLED),
    }
)


class SessionStep(NamedTuple):
    """What an incident did."""

    before: SessionState
    state: SessionState
    cause: SessionCause
    words: str
    action: WorkerAction


class SessionMachine:
    """The state of one session. Only `take`, `note_error` and `forgive` change it."""

    def __init__(self, settings: SessionSettings, now: Moment) -> None:
        self.state = SessionState.STOPPED
        self.cause = "not started"  # why it is in this state, for people
        self.since = now  # in this state
        self.down_since_ms: int | None = now.steady_ms  # None: it is connected
        self.next_try: Moment | None = None
        self.restarts = 0  # since a person started the session
        self.last_recycled: str | None = None  # why
        self.last_error: str | None = None
        self.last_error_ms: int | None = None  # by the wall clock
        self.generation = 0  # of workers: what an earlier one brings is ignored
        self.counters = SessionCounters()
        #: Why the device is being unlinked, if that is our doing.
        self.unlink_words: str | None = None
        self._settings = settings
        self._policy = RestartPolicy(settings)

    def forgive(self) -> None:
        """A person starts the session: failures before that count no more."""
        self.restarts = 0
        self._policy.forgive()

    def note_error(self, words: str, now: Moment) -> None:
        """Something went wrong that changes no state."""
        self.last_error, self.last_error_ms = words, now.wall_ms
        self.counters.errors += 1

    def take(
        self, incident: Incident, now: Moment, *, generation: int | None = None
    ) -> SessionStep | None:
        """Take the transition for `incident`. Returns None if it changes nothing.

        Args:
            generation: of the worker that the incident is about: one about an earlier worker
                changes nothing. None: it is about the present one, whichever that is.
        """
        if generation is not None and generation != self.generation:
            return None
        incident = self._at_worst(incident, now)
        cause = incident.cause
        following = step(self.state, cause)
        if following is None:
            return None
        words = incident.words
        if cause is SessionCause.LOGGED_OUT and self.unlink_words is not None:
            words, self.unlink_words = self.unlink_words, None
        before, action = self.state, following.action
        if (following.state, action) == (before, WorkerAction.NONE) and words == self.cause:
            return None
        if cause not in _NO_ERRORS:
            self.note_error(words, now)
        elif cause is SessionCause.CONNECTED:
            self._policy.connected(now.steady_ms)
        self.counters.transition(before, cause, following, now.steady_ms)
        self.state, self.cause = following.state, words
        if self.state is SessionState.CONNECTED:
            self.down_since_ms = None
        elif self.down_since_ms is None or (before not in ALIVE and cause in _STARTS):
            self.down_since_ms = now.steady_ms
        if before is not self.state:
            self.since = now
        if cause is SessionCause.RECYCLED:
            self.last_recycled = incident.detail
        self._plan(action, incident, now)
        return SessionStep(before, self.state, cause, words, action)

    def _at_worst(self, incident: Incident, now: Moment) -> Incident:
        """`incident`, or a worse one in its place if it happened too often."""
        cause = incident.cause
        if cause is SessionCause.BROKEN_OFF and self._policy.broke_off_too_often(now.steady_ms):
            return incidents.ended(incident.words)
        if not counts_as_crash(cause) or self.state not in ALIVE:
            return incident
        if not self._policy.crashed_too_often(now.steady_ms):
            return incident
        return incidents.given_up(self._settings.crash_limit + 1, incident)

    def _plan(self, action: WorkerAction, incident: Incident, now: Moment) -> None:
        """Set the time of the next try, and count the worker that comes to its end or begins."""
        self.next_try = None
        settings = self._settings
        match action:
            case WorkerAction.NONE:
                return
            case WorkerAction.KILL_AND_WAIT:
                self.next_try = now.after(max(incident.ban_ms, settings.shortest_ban_ms))
            case WorkerAction.KILL_AND_REST:
                self.next_try = now.after(settings.crash_rest_ms)
            case WorkerAction.KILL_AND_RETRY:
                self.next_try = now.after(self._policy.next_delay_ms(now.steady_ms))
            case WorkerAction.SPAWN if incident.cause is SessionCause.RETRY_DUE:
                self.restarts += 1
        self.generation += 1
