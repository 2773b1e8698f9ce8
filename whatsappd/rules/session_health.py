"""Judges one health check: is the session well, what can a person do, must the worker be replaced.

`sessions.session` asks the worker every 30 s and has the answer judged here. whatsmeow reconnects
its socket by itself after three minutes of unanswered pings, so a silent worker is replaced only
well after that.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from whatsappd.model.session import SessionState as S
from whatsappd.rules.lifecycle import ALIVE, SessionCause


class Asked(StrEnum):
    """What became of the question to the worker."""

    NOT_ASKED = "not_asked"  # there is no worker, or it is only being made
    ANSWERED = "answered"
    SILENT = "silent"  # no answer in time
    HELD_UP = "held_up"  # its answer waits behind events that our own store does not take
    GONE = "gone"  # it went away meanwhile, which is reported on its own


class HealthLimits(NamedTuple):
    """Patience, in milliseconds unless the name says otherwise."""

    settle_ms: int  # to (re)connect before it counts as ill; a QR code lives 160 s
    connect_ms: int  # from a started worker to a login or an error
    silence_ms: int  # reconnecting in vain, before the worker is replaced
    disagreements: int = 2  # checks in a row that find a connected session's socket down


class Observation(NamedTuple):
    """One session at the moment of a check. Times are milliseconds of a clock that never jumps."""

    wanted: bool
    state: S
    cause: str
    since_ms: int  # in this state
    down_since_ms: int | None  # since when it is not connected
    now_ms: int
    asked: Asked = Asked.NOT_ASKED
    socket_up: bool = False  # both as the worker answered
    logged_in: bool = False
    disagreements: int = 0  # in a row, before this check
    files: str | None = None  # what is wrong with the company's directory


class Replacement(NamedTuple):
    """The worker must go: `cause` for the table of transitions, `words` for people."""

    cause: SessionCause
    words: str


class Judgement(NamedTuple):
    """`ok`: nothing needs doing. `detail` says why or why not; `remedy` what to do, if not ok."""

    ok: bool
    detail: str
    remedy: str | None = None
    replace: Replacement | None = None
    disagreements: int = 0  # for the next check


#: What a person can do in the states that time does not end, and in those that it should.
REMEDIES: dict[S, str] = {
    S.STOPPED: "`whatsappctl start {company}`",
    S.STARTING: "the host may be overloaded; `whatsappctl doctor` tells more",
    S.PAIRING: "scan the code: `whatsappctl qr {company}`",
    S.CONNECTING: "check the way to WhatsApp: `whatsappctl doctor`",
    S.CONNECTED: "nothing: it is looked at again, and replaced if that lasts",
    S.RECONNECTING: "check the way to WhatsApp: `whatsappctl doctor`",
    S.BACKING_OFF: "the cause is named; `whatsappctl start {company}` tries at once",
    S.LOGGED_OUT: "link it again with `whatsappctl start {company}`, or stop it",
    S.CONFLICT: "end the other process, then `whatsappctl start --take-over {company}`",
    S.HELD: "`whatsappctl start --new-account {company}` or `whatsappctl logout {company}`",
    S.BANNED: "wait for the end of the ban, and write to fewer strangers",
    S.OUTDATED: "upgrade neonize, then restart the daemon",
    S.FAILED: "look into the daemon's log, then `whatsappctl start {company}`",
}

FILES_REMEDY = (
    "the account's keys are in it: put it back from a backup with its mode and owner while the "
    "session is stopped; without one, the company must be linked anew"
)

#: States in which a wanted session counts as ill at once: waiting does not mend them, or
#: something has just failed.
_ILL = frozenset({S.LOGGED_OUT, S.CONFLICT, S.HELD, S.BANNED, S.OUTDATED, S.FAILED, S.BACKING_OFF})


def remedy(company: str, state: S) -> str:
    return REMEDIES[state].format(company=company)


def judge(company: str, seen: Observation, limits: HealthLimits) -> Judgement:
    """How the session is, and whether its worker must be replaced."""
    replacement, disagreements = _replacement(seen, limits)
    if replacement is not None:
        return Judgement(
            False, replacement.words, "nothing: a new worker is on its way", replacement
        )
    ill = _illness(seen, limits)
    if ill is None:
        return Judgement(True, _fine(seen))
    help_ = FILES_REMEDY if seen.files is not None else remedy(company, seen.state)
    return Judgement(False, ill, help_, disagreements=disagreements)


def _replacement(seen: Observation, limits: HealthLimits) -> tuple[Replacement | None, int]:
    """Why the worker must go, if it must; and how often it contradicted our state."""
    if seen.state not in ALIVE or seen.state is S.STARTING:
        return None, 0  # a worker that starts has a deadline of its own
    in_state_ms = seen.now_ms - seen.since_ms
    if seen.asked is Asked.SILENT:
        return Replacement(SessionCause.HUNG, "the worker does not answer; it was replaced"), 0
    if seen.state is S.CONNECTING and in_state_ms > limits.connect_ms:
        # A dial that fails ends in an error, one that succeeds in a login: whatsmeow can get
        # stuck between (a stream that closes right behind its last stanza), and stays there.
        # But while WhatsApp is away, whatsmeow dials on, and is here just as long: no crash.
        words = f"no progress in connecting for {in_state_ms // 1000} s; the worker was replaced"
        return Replacement(SessionCause.SILENT, words), 0
    if seen.state is S.RECONNECTING and in_state_ms > limits.silence_ms:
        words = f"reconnecting in vain for {in_state_ms // 1000} s; the worker was replaced"
        return Replacement(SessionCause.SILENT, words), 0
    if seen.state is S.CONNECTED and _contradicts(seen):
        count = seen.disagreements + 1
        if count >= limits.disagreements:
            words = (
                f"{_contradiction(seen)} although the session counted as connected, "
                f"in {count} checks in a row; the worker was replaced"
            )
            return Replacement(SessionCause.SILENT, words), 0
        return None, count
    return None, 0


def _contradicts(seen: Observation) -> bool:
    return seen.asked is Asked.ANSWERED and not (seen.socket_up and seen.logged_in)


def _contradiction(seen: Observation) -> str:
    return "not logged in" if seen.socket_up else "the socket to WhatsApp was down"


def _illness(seen: Observation, limits: HealthLimits) -> str | None:
    if not seen.wanted:
        return None
    if seen.files is not None:
        return seen.files
    if seen.state is S.CONNECTED:
        if _contradicts(seen):
            return f"{_contradiction(seen)} although the session counts as connected"
        if seen.asked is Asked.HELD_UP:
            return "what arrived from WhatsApp waits for the store"
        return None
    down_ms = seen.now_ms - (seen.since_ms if seen.down_since_ms is None else seen.down_since_ms)
    if seen.state in _ILL or down_ms >= limits.settle_ms:
        return f"{seen.state} for {down_ms // 1000} s: {seen.cause}"
    return None


def _fine(seen: Observation) -> str:
    if not seen.wanted:
        return f"{seen.state}, and not wanted"
    return "connected" if seen.state is S.CONNECTED else f"{seen.state}: {seen.cause}"
