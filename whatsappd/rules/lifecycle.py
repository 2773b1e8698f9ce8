"""A session's life: the literal table of what each cause does in each state.

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


class Cause(StrEnum):
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


class Action(StrEnum):
    NONE = "none"
    SPAWN = "spawn"
    REPLACE = "replace"  # end it in peace, then spawn at once
    KILL = "kill"
    KILL_AND_RETRY = "kill_and_retry"  # back off, then spawn again
    KILL_AND_WAIT = "kill_and_wait"  # spawn again when the ban ends
    KILL_AND_REST = "kill_and_rest"  # spawn again after a long pause


class Next(NamedTuple):
    state: S
    action: Action


#: States in which a worker process exists (or is being made).
ALIVE = frozenset({S.STARTING, S.PAIRING, S.CONNECTING, S.CONNECTED, S.RECONNECTING})
#: States in which a retry is due at a known time.
WAITING = frozenset({S.BACKING_OFF, S.BANNED})
#: States that only a person ends.
PARKED = frozenset({S.STOPPED, S.LOGGED_OUT, S.CONFLICT, S.OUTDATED, S.FAILED, S.HELD})

_SPAWN = Next(S.STARTING, Action.SPAWN)
_RETRY = Next(S.BACKING_OFF, Action.KILL_AND_RETRY)

#: What a worker's news means, whichever state it arrives in.
_NEWS: dict[Cause, Next] = {
    Cause.QR: Next(S.PAIRING, Action.NONE),
    Cause.PAIRED: Next(S.CONNECTING, Action.NONE),
    Cause.PAIR_TIMEOUT: Next(S.LOGGED_OUT, Action.KILL),
    Cause.PAIR_INTERRUPTED: _RETRY,
    Cause.PAIR_REFUSED: Next(S.LOGGED_OUT, Action.KILL),
    Cause.PASSKEY_ASKED: Next(S.LOGGED_OUT, Action.KILL),
    Cause.CONNECTED: Next(S.CONNECTED, Action.NONE),
    Cause.DISCONNECTED: Next(S.RECONNECTING, Action.NONE),
    Cause.LOGGED_OUT: Next(S.LOGGED_OUT, Action.KILL),
    Cause.OTHER_ACCOUNT: Next(S.HELD, Action.KILL),
    Cause.ACCOUNT_TAKEN: Next(S.HELD, Action.KILL),
    Cause.STREAM_REPLACED: Next(S.CONFLICT, Action.KILL),
    Cause.TEMPORARY_BAN: Next(S.BANNED, Action.KILL_AND_WAIT),
    Cause.CONNECT_FAILURE: _RETRY,
    Cause.CLIENT_OUTDATED: Next(S.OUTDATED, Action.KILL),
    Cause.ENDED: _RETRY,
    Cause.BROKEN_OFF: _RETRY,
    Cause.EXITED: _RETRY,
    Cause.HUNG: _RETRY,
    Cause.SILENT: _RETRY,
    Cause.SPAWN_FAILED: _RETRY,
    Cause.DEFECT: _RETRY,
    Cause.GIVE_UP: Next(S.FAILED, Action.KILL),
    # What crashes the library may be a message that WhatsApp delivers again after each restart.
    # Only time, or another version, ends that; and a person need not be asked to wait.
    Cause.CRASHING: Next(S.BACKING_OFF, Action.KILL_AND_REST),
    Cause.STOP: Next(S.STOPPED, Action.KILL),
}

TABLE: dict[tuple[S, Cause], Next] = {
    **{(state, cause): step for state in ALIVE for cause, step in _NEWS.items()},
    # Starting what runs is no error and no change.
    **{
        (state, cause): Next(state, Action.NONE)
        for state in ALIVE
        for cause in (Cause.START, Cause.TAKE_OVER)
    },
    (S.STARTING, Cause.OPENED): Next(S.CONNECTING, Action.NONE),
    # Nothing was connected before: a lost dial is news about the attempt, not a reconnection.
    (S.STARTING, Cause.DISCONNECTED): Next(S.CONNECTING, Action.NONE),
    (S.CONNECTING, Cause.DISCONNECTED): Next(S.CONNECTING, Action.NONE),
    # Without an account whatsmeow does not dial again; the QR channel's end follows.
    (S.PAIRING, Cause.DISCONNECTED): _RETRY,
    # "Connected, but nothing answers": messages must wait, and people must see it.
    (S.CONNECTED, Cause.KEEPALIVE_TIMEOUT): Next(S.RECONNECTING, Action.NONE),
    (S.RECONNECTING, Cause.KEEPALIVE_TIMEOUT): Next(S.RECONNECTING, Action.NONE),
    (S.RECONNECTING, Cause.KEEPALIVE_RESTORED): Next(S.CONNECTED, Action.NONE),
    (S.CONNECTED, Cause.RECYCLED): Next(S.STARTING, Action.REPLACE),
    # A contact can bring it about with one receipt: nothing is wrong with the account.
    (S.CONNECTED, Cause.BROKEN_OFF): Next(S.STARTING, Action.REPLACE),
    # Without a worker: only people and time act.
    **{(state, Cause.STOP): Next(S.STOPPED, Action.NONE) for state in WAITING | PARKED},
    **{(state, Cause.TAKE_OVER): _SPAWN for state in WAITING | PARKED},
    # A plain start never takes an account back from whoever took it: see `start_refusal`.
    **{(state, Cause.START): _SPAWN for state in (WAITING | PARKED) - {S.CONFLICT}},
    (S.HELD, Cause.UNLINK): _SPAWN,
    **{(state, Cause.RETRY_DUE): _SPAWN for state in WAITING},
    **{(state, Cause.GIVE_UP): Next(S.FAILED, Action.NONE) for state in WAITING},
}


def step(state: S, cause: Cause) -> Next | None:
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


def counts_as_crash(cause: Cause) -> bool:
    """Whether `cause` counts towards the restart intensity.

    A host without network may try for ever; a worker that keeps dying needs a person.
    """
    return cause in (Cause.EXITED, Cause.HUNG, Cause.DEFECT)
