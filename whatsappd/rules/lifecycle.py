"""The states of a session: a literal table of what each cause does in each state.

    stopped -> starting -> pairing -> connecting -> connected

and from trouble: reconnecting (whatsmeow is at it), backing_off (no worker; a restart at a known
time), logged_out (needs pairing), conflict (somebody else opened this account), held (linked with
an account that is not the company's own), banned, outdated, failed (needs a person).

`sessions.session` feeds causes in and carries the actions out. Rules of the table:

- A state with a worker (`ALIVE`) has a row for every cause that a worker can bring; a state
  without one has none, because those causes cannot happen there.
- Whatever leaves `ALIVE` kills the worker: neonize's `connect` goes on blocking after a replaced
  stream, a logout or a failure.
- A worker that is recycled is connected, so that nothing waits but for the new one's login.
- Socket reconnection is whatsmeow's; a row that ends in BACKING_OFF is one where it gave up.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from whatsappd.model.session import SessionState as S


class SessionCause(StrEnum):
    # from a person or the boot
    START = "start"
    TAKE_OVER = "take_over"  # a start that may end another owner's connection
    STOP = "stop"
    # from time
    RETRY_DUE = "retry_due"
    GIVE_UP = "give_up"  # the restart intensity was exceeded
    CRASHING = "crashing"  # the same, where each time the library itself crashed
    # from the worker
    OPENED = "opened"
    QR = "qr"
    PAIRED = "paired"
    PAIR_TIMEOUT = "pair_timeout"  # no code was scanned
    PAIR_INTERRUPTED = "pair_interrupted"  # the connection went away while codes were shown
    PAIR_REFUSED = "pair_refused"
    PASSKEY_ASKED = "passkey_asked"  # to link a device, which neonize does not support
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    KEEPALIVE_TIMEOUT = "keepalive_timeout"
    KEEPALIVE_RESTORED = "keepalive_restored"
    LOGGED_OUT = "logged_out"
    OTHER_ACCOUNT = "other_account"  # linked with another number than the company's own
    ACCOUNT_TAKEN = "account_taken"  # linked with the account of another company
    STREAM_REPLACED = "stream_replaced"
    TEMPORARY_BAN = "temporary_ban"
    CONNECT_FAILURE = "connect_failure"
    CLIENT_OUTDATED = "client_outdated"
    ENDED = "ended"  # connect() returned or raised: dial refused, no such host, ...
    BROKEN_OFF = "broken_off"  # neonize met an event that it cannot hand on, nor any after it
    # about the worker
    EXITED = "exited"  # by code, by signal, by a Go panic
    HUNG = "hung"
    SILENT = "silent"  # it answers, but WhatsApp has not been reached for too long
    SPAWN_FAILED = "spawn_failed"
    DEFECT = "defect"  # of ours: whoever talked to the worker failed, and begins anew with another
    RECYCLED = "recycled"  # nothing is wrong with it, but it has grown too much
    UNLINK = "unlink"  # a start only to unlink the device of a held session


class WorkerAction(StrEnum):
    NONE = "none"
    SPAWN = "spawn"
    REPLACE = "replace"  # end it in peace, then spawn at once
    KILL = "kill"
    KILL_AND_RETRY = "kill_and_retry"  # back off, then spawn again
    KILL_AND_WAIT = "kill_and_wait"  # spawn again when the ban ends
    KILL_AND_REST = "kill_and_rest"  # spawn again after a long pause


class Transition(NamedTuple):
    state: S
    action: WorkerAction


#: States in which a worker process exists (or is being made).
ALIVE = frozenset({S.STARTING, S.PAIRING, S.CONNECTING, S.CONNECTED, S.RECONNECTING})
#: States in which a retry is due at a known time.
WAITING = frozenset({S.BACKING_OFF, S.BANNED})
#: States that only a person ends.
PARKED = frozenset({S.STOPPED, S.LOGGED_OUT, S.CONFLICT, S.OUTDATED, S.FAILED, S.HELD})

_SPAWN = Transition(S.STARTING, WorkerAction.SPAWN)
_RETRY = Transition(S.BACKING_OFF, WorkerAction.KILL_AND_RETRY)

#: What a worker's news means, whichever state it arrives in.
_NEWS: dict[SessionCause, Transition] = {
    SessionCause.QR: Transition(S.PAIRING, WorkerAction.NONE),
    SessionCause.PAIRED: Transition(S.CONNECTING, WorkerAction.NONE),
    SessionCause.PAIR_TIMEOUT: Transition(S.LOGGED_OUT, WorkerAction.KILL),
    SessionCause.PAIR_INTERRUPTED: _RETRY,
    SessionCause.PAIR_REFUSED: Transition(S.LOGGED_OUT, WorkerAction.KILL),
    SessionCause.PASSKEY_ASKED: Transition(S.LOGGED_OUT, WorkerAction.KILL),
    SessionCause.CONNECTED: Transition(S.CONNECTED, WorkerAction.NONE),
    SessionCause.DISCONNECTED: Transition(S.RECONNECTING, WorkerAction.NONE),
    SessionCause.LOGGED_OUT: Transition(S.LOGGED_OUT, WorkerAction.KILL),
    SessionCause.OTHER_ACCOUNT: Transition(S.HELD, WorkerAction.KILL),
    SessionCause.ACCOUNT_TAKEN: Transition(S.HELD, WorkerAction.KILL),
    SessionCause.STREAM_REPLACED: Transition(S.CONFLICT, WorkerAction.KILL),
    SessionCause.TEMPORARY_BAN: Transition(S.BANNED, WorkerAction.KILL_AND_WAIT),
    SessionCause.CONNECT_FAILURE: _RETRY,
    SessionCause.CLIENT_OUTDATED: Transition(S.OUTDATED, WorkerAction.KILL),
    SessionCause.ENDED: _RETRY,
    SessionCause.BROKEN_OFF: _RETRY,
    SessionCause.EXITED: _RETRY,
    SessionCause.HUNG: _RETRY,
    SessionCause.SILENT: _RETRY,
    SessionCause.SPAWN_FAILED: _RETRY,
    SessionCause.DEFECT: _RETRY,
    SessionCause.GIVE_UP: Transition(S.FAILED, WorkerAction.KILL),
    # What crashes the library may be a message that WhatsApp delivers again after each restart.
    # Only time, or another version, ends that; and a person need not be asked to wait.
    SessionCause.CRASHING: Transition(S.BACKING_OFF, WorkerAction.KILL_AND_REST),
    SessionCause.STOP: Transition(S.STOPPED, WorkerAction.KILL),
}

TABLE: dict[tuple[S, SessionCause], Transition] = {
    **{(state, cause): step for state in ALIVE for cause, step in _NEWS.items()},
    # Starting what runs is no error and no change.
    **{
        (state, cause): Transition(state, WorkerAction.NONE)
        for state in ALIVE
        for cause in (SessionCause.START, SessionCause.TAKE_OVER)
    },
    (S.STARTING, SessionCause.OPENED): Transition(S.CONNECTING, WorkerAction.NONE),
    # Nothing was connected before: a lost dial is news about the attempt, not a reconnection.
    (S.STARTING, SessionCause.DISCONNECTED): Transition(S.CONNECTING, WorkerAction.NONE),
    (S.CONNECTING, SessionCause.DISCONNECTED): Transition(S.CONNECTING, WorkerAction.NONE),
    # Without an account whatsmeow does not dial again; the QR channel's end follows.
    (S.PAIRING, SessionCause.DISCONNECTED): _RETRY,
    # "Connected, but nothing answers": messages must wait, and people must see it.
    (S.CONNECTED, SessionCause.KEEPALIVE_TIMEOUT): Transition(S.RECONNECTING, WorkerAction.NONE),
    (S.RECONNECTING, SessionCause.KEEPALIVE_TIMEOUT): Transition(S.RECONNECTING, WorkerAction.NONE),
    (S.RECONNECTING, SessionCause.KEEPALIVE_RESTORED): Transition(S.CONNECTED, WorkerAction.NONE),
    (S.CONNECTED, SessionCause.RECYCLED): Transition(S.STARTING, WorkerAction.REPLACE),
    # A contact can bring it about with one receipt: nothing is wrong with the account.
    (S.CONNECTED, SessionCause.BROKEN_OFF): Transition(S.STARTING, WorkerAction.REPLACE),
    # Without a worker: only people and time act.
    **{
        (state, SessionCause.STOP): Transition(S.STOPPED, WorkerAction.NONE)
        for state in WAITING | PARKED
    },
    **{(state, SessionCause.TAKE_OVER): _SPAWN for state in WAITING | PARKED},
    # A plain start never takes an account back from whoever took it: see `start_refusal`.
    **{(state, SessionCause.START): _SPAWN for state in (WAITING | PARKED) - {S.CONFLICT}},
    (S.HELD, SessionCause.UNLINK): _SPAWN,
    **{(state, SessionCause.RETRY_DUE): _SPAWN for state in WAITING},
    **{(state, SessionCause.GIVE_UP): Transition(S.FAILED, WorkerAction.NONE) for state in WAITING},
}


def step(state: S, cause: SessionCause) -> Transition | None:
    """What `cause` does in `state`; None where it means nothing (late news of a dead worker)."""
    return TABLE.get((state, cause))


def start_refusal(state: S) -> str | None:
    """Why a plain start is refused in `state`, with the remedy; None where it is not."""
    if state is S.CONFLICT:
        return (
            "another process opened this account and took it over; end that process first, then "
            "take the account back with `start --take-over` (RPC: take_over)"
        )
    return None


def counts_as_crash(cause: SessionCause) -> bool:
    """Whether `cause` counts towards the restart intensity.

    A host without network may try for ever; a worker that keeps dying needs a person.
    """
    return cause in (SessionCause.EXITED, SessionCause.HUNG, SessionCause.DEFECT)
