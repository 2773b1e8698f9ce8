"""When to raise an alert, and when to clear it.

`monitoring.alert_watch` gives it the facts after each round of health checks and logs the changes.
An alert is raised once and cleared once. Each rule clears later than it raises, so that a value
close to its threshold does not raise alerts all day. A restart of the daemon, which forgets most
facts, clears no alert whose condition still holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from whatsappd.model.session import SessionState


class AlertRule(StrEnum):
    SESSION_DOWN = "session_down"  # wanted, and not connected for too long
    QUEUE_OLD = "queue_old"  # a message waits for too long
    RESTARTS_FREQUENT = "restarts_frequent"  # of one company's worker, because it misbehaved
    DISK_NEARLY_FULL = "disk_nearly_full"
    STORE_FAILING = "store_failing"
    EVENT_LOOP_LAGGING = "event_loop_lagging"


class AlertThresholds(Protocol):
    """The thresholds for all companies (`monitoring.settings`), in milliseconds; 0: rule off."""

    @property
    def session_down_ms(self) -> int: ...
    @property
    def queue_age_ms(self) -> int: ...
    @property
    def restarts(self) -> int: ...  # more than so many within restarts_window_ms
    @property
    def restarts_window_ms(self) -> int: ...
    @property
    def disk_free_bytes(self) -> int: ...
    @property
    def event_loop_delay_ms(self) -> int: ...  # in two of the last LOOP_WINDOWS rounds


#: Below so many files that can still be made, a disk counts as nearly full.
FEW_FILES = 100
#: Rounds of health checks over which the event loop's delays are looked at.
LOOP_WINDOWS = 5
_LOOP_RAISES = 2


class AlertKey(NamedTuple):
    rule: AlertRule
    company: str | None = None  # None: the daemon or its host


class AlertFinding(NamedTuple):
    """A condition that holds now, since `since_ms` (epoch milliseconds)."""

    since_ms: int
    detail: str


class AlertChange(NamedTuple):
    """An alert to be raised or cleared, with what the event tells."""

    key: AlertKey
    is_raised: bool
    since_ms: int
    detail: str

    def as_wire(self) -> dict[str, Any]:
        """The data of an `alert` event."""
        return {
            "rule": str(self.key.rule),
            "state": "raised" if self.is_raised else "cleared",
            "company": self.key.company,
            "since_ms": self.since_ms,
            "detail": self.detail,
        }


class SessionFacts(NamedTuple):
    """What the rules need to know of one company. Times are epoch milliseconds."""

    company: str
    wanted: bool
    state: SessionState
    cause: str
    down_since_ms: int | None = None  # None: connected
    oldest_queued_ms: int | None = None
    queued: int = 0
    crashes_ms: Sequence[int] = ()  # of its workers, since the daemon started, ascending


class HostFacts(NamedTuple):
    now_ms: int
    started_ms: int  # when this daemon did
    disk_free_bytes: int | None = None  # None: nobody could tell
    disk_files_free: int | None = None  # that can still be made; None: as many as one likes
    store_trouble: str | None = None
    loop_delays_ms: Sequence[int] = ()  # the longest of each of the last LOOP_WINDOWS rounds
    queue_unread: bool = False  # nobody could tell `oldest_queued_ms` of any session


def findings(
    host: HostFacts,
    sessions: Collection[SessionFacts],
    thresholds: AlertThresholds,
    is_open: Collection[AlertKey],
) -> dict[AlertKey, AlertFinding]:
    """Every condition that holds. Open alerts are passed in because they are cleared later."""
    found: dict[AlertKey, AlertFinding] = {}
    for facts in sessions:
        for rule, check in _SESSION_RULES.items():
            key = AlertKey(rule, facts.company)
            finding = check(facts, host, thresholds, key in is_open)
            if finding is not None:
                found[key] = finding
    for rule, look in _HOST_RULES.items():
        finding = look(host, thresholds, AlertKey(rule) in is_open)
        if finding is not None:
            found[AlertKey(rule)] = finding
    return found


def changes(
    was_open: Mapping[AlertKey, int], found: Mapping[AlertKey, AlertFinding]
) -> Iterator[AlertChange]:
    """The alerts to raise and to clear. `was_open` has each open alert with its `since_ms`."""
    for key, finding in found.items():
        if key not in was_open:
            yield AlertChange(key, True, *finding)
    for key, since_ms in was_open.items():
        if key not in found:
            yield AlertChange(key, False, since_ms, "it is over")


# --- one company ------------------------------------------------------------------------------


def _session_down(
    facts: SessionFacts, host: HostFacts, thresholds: AlertThresholds, is_open: bool
) -> AlertFinding | None:
    limit = thresholds.session_down_ms
    if not limit or not facts.wanted or facts.down_since_ms is None:
        return None
    # An open alert stays until the session is connected: a restart of the daemon, from which
    # `down_since_ms` counts anew, mends nothing.
    if not is_open and host.now_ms - facts.down_since_ms < limit:
        return None
    return AlertFinding(facts.down_since_ms, f"not connected but {facts.state}: {facts.cause}")


def _queue_old(
    facts: SessionFacts, host: HostFacts, thresholds: AlertThresholds, is_open: bool
) -> AlertFinding | None:
    limit = thresholds.queue_age_ms
    if host.queue_unread:
        # Nobody could tell: what was, is.
        return AlertFinding(host.now_ms, "the queue cannot be read") if limit and is_open else None
    if not limit or facts.oldest_queued_ms is None:
        return None
    age_ms = host.now_ms - facts.oldest_queued_ms
    if age_ms < (limit // 2 if is_open else limit):
        return None
    return AlertFinding(
        facts.oldest_queued_ms,
        f"{facts.queued} messages wait, the oldest for {age_ms // 1000} s; "
        f"the session is {facts.state}",
    )


def _restarts_frequent(
    facts: SessionFacts, host: HostFacts, thresholds: AlertThresholds, is_open: bool
) -> AlertFinding | None:
    window_ms = thresholds.restarts_window_ms
    if not thresholds.restarts or not window_ms:
        return None
    recent = [time_ms for time_ms in facts.crashes_ms if host.now_ms - time_ms < window_ms]
    # Open, it stays until a whole window passed without one, of which this daemon must know.
    knows_all = host.now_ms - host.started_ms >= window_ms
    if len(recent) <= thresholds.restarts and not (is_open and (recent or not knows_all)):
        return None
    return AlertFinding(
        recent[0] if recent else host.started_ms,
        f"{len(recent)} workers crashed or hung in the last {window_ms // 1000} s; "
        f"the session is {facts.state}: {facts.cause}",
    )


_SessionRule = Callable[[SessionFacts, HostFacts, AlertThresholds, bool], AlertFinding | None]
_SESSION_RULES: dict[AlertRule, _SessionRule] = {
    AlertRule.SESSION_DOWN: _session_down,
    AlertRule.QUEUE_OLD: _queue_old,
    AlertRule.RESTARTS_FREQUENT: _restarts_frequent,
}


# --- the host ---------------------------------------------------------------------------------


def _disk_nearly_full(
    host: HostFacts, thresholds: AlertThresholds, is_open: bool
) -> AlertFinding | None:
    limit = thresholds.disk_free_bytes
    if host.disk_free_bytes is None:
        # Nobody could tell: what was, is.
        return AlertFinding(host.now_ms, "the free space is unknown") if limit and is_open else None
    if limit and host.disk_files_free is not None:
        few = 2 * FEW_FILES if is_open else FEW_FILES
        if host.disk_files_free < few:
            files = f"only {host.disk_files_free} more files can be made"
            return AlertFinding(host.now_ms, f"{files} where the state directory is")
    if host.disk_free_bytes >= (limit + limit // 4 if is_open else limit):
        return None
    free_mb = host.disk_free_bytes >> 20
    return AlertFinding(host.now_ms, f"{free_mb} MiB are free where the state directory is")


def _store_failing(
    host: HostFacts, _thresholds: AlertThresholds, _is_open: bool
) -> AlertFinding | None:
    if host.store_trouble is None:
        return None
    return AlertFinding(host.now_ms, host.store_trouble)


def _event_loop_lagging(
    host: HostFacts, thresholds: AlertThresholds, is_open: bool
) -> AlertFinding | None:
    limit = thresholds.event_loop_delay_ms
    if not limit:
        return None
    late = [delay for delay in host.loop_delays_ms[-LOOP_WINDOWS:] if delay >= limit]
    if len(late) < (1 if is_open else _LOOP_RAISES):
        return None
    return AlertFinding(host.now_ms, f"everything waited for up to {max(late)} ms")


_HostRule = Callable[[HostFacts, AlertThresholds, bool], AlertFinding | None]
_HOST_RULES: dict[AlertRule, _HostRule] = {
    AlertRule.DISK_NEARLY_FULL: _disk_nearly_full,
    AlertRule.STORE_FAILING: _store_failing,
    AlertRule.EVENT_LOOP_LAGGING: _event_loop_lagging,
}
