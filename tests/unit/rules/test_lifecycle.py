"""The table of a session's life, exhaustively."""

from __future__ import annotations

import itertools

import pytest

from whatsappd.model.session import SessionState as S
from whatsappd.rules.lifecycle import (
    ALIVE,
    PARKED,
    TABLE,
    WAITING,
    SessionCause,
    WorkerAction,
    counts_as_crash,
    start_refusal,
    step,
)

FROM_WORKER = {
    SessionCause.OPENED,
    SessionCause.QR,
    SessionCause.PAIRED,
    SessionCause.PAIR_TIMEOUT,
    SessionCause.PAIR_INTERRUPTED,
    SessionCause.PAIR_REFUSED,
    SessionCause.PASSKEY_ASKED,
    SessionCause.CONNECTED,
    SessionCause.DISCONNECTED,
    SessionCause.KEEPALIVE_TIMEOUT,
    SessionCause.KEEPALIVE_RESTORED,
    SessionCause.LOGGED_OUT,
    SessionCause.OTHER_ACCOUNT,
    SessionCause.ACCOUNT_TAKEN,
    SessionCause.STREAM_REPLACED,
    SessionCause.TEMPORARY_BAN,
    SessionCause.CONNECT_FAILURE,
    SessionCause.CLIENT_OUTDATED,
    SessionCause.ENDED,
    SessionCause.EXITED,
    SessionCause.HUNG,
    SessionCause.DEFECT,
    SessionCause.SILENT,
    SessionCause.SPAWN_FAILED,
}


def test_every_state_is_of_one_kind() -> None:
    assert set(S) == ALIVE | WAITING | PARKED
    assert not ALIVE & WAITING
    assert not ALIVE & PARKED
    assert not WAITING & PARKED


@pytest.mark.parametrize(("state", "cause"), itertools.product(S, SessionCause))
def test_actions_agree_with_the_kind_of_the_following_state(state: S, cause: SessionCause) -> None:
    following = step(state, cause)
    if following is None:
        return
    match following.action:
        case WorkerAction.SPAWN:
            assert following.state is S.STARTING
            assert state not in ALIVE
        case WorkerAction.REPLACE:
            assert following.state is S.STARTING
            assert state is S.CONNECTED
        case WorkerAction.KILL:
            assert state in ALIVE
            assert following.state in PARKED
        case WorkerAction.KILL_AND_RETRY:
            assert following.state is S.BACKING_OFF
        case WorkerAction.KILL_AND_WAIT:
            assert following.state is S.BANNED
        case WorkerAction.NONE:
            # The worker stays as it is: there still is one, or there still is none.
            assert (state in ALIVE) == (following.state in ALIVE)


@pytest.mark.parametrize(
    ("state", "cause"), itertools.product(sorted(set(S) - ALIVE), sorted(FROM_WORKER))
)
def test_late_news_of_a_dead_worker_change_nothing(state: S, cause: SessionCause) -> None:
    assert step(state, cause) is None


@pytest.mark.parametrize("state", list(S))
def test_stop_always_ends_in_stopped(state: S) -> None:
    following = step(state, SessionCause.STOP)
    assert following is not None
    assert following.state is S.STOPPED


@pytest.mark.parametrize("state", list(S))
def test_start_works_in_every_state_but_conflict(state: S) -> None:
    if state is S.CONFLICT:
        assert step(state, SessionCause.START) is None
        assert "--take-over" in (start_refusal(state) or "")
    else:
        assert start_refusal(state) is None
        following = step(state, SessionCause.START)
        assert following is not None
        assert following.state in ALIVE


@pytest.mark.parametrize("state", list(S))
def test_take_over_starts_whatever_is_not_running(state: S) -> None:
    following = step(state, SessionCause.TAKE_OVER)
    assert following is not None
    assert (following.action is WorkerAction.SPAWN) == (state not in ALIVE)


@pytest.mark.parametrize("state", sorted(ALIVE))
def test_every_end_of_a_worker_has_a_next_step(state: S) -> None:
    for cause in (
        SessionCause.EXITED,
        SessionCause.HUNG,
        SessionCause.ENDED,
        SessionCause.SPAWN_FAILED,
    ):
        following = step(state, cause)
        assert following is not None
        assert following.state is S.BACKING_OFF


@pytest.mark.parametrize("state", sorted(WAITING))
def test_waiting_states_try_again_when_it_is_time(state: S) -> None:
    assert step(state, SessionCause.RETRY_DUE) == (S.STARTING, WorkerAction.SPAWN)


def test_a_replaced_stream_is_parked_and_never_retried() -> None:
    for state in ALIVE:
        assert step(state, SessionCause.STREAM_REPLACED) == (S.CONFLICT, WorkerAction.KILL)
    assert step(S.CONFLICT, SessionCause.RETRY_DUE) is None


def test_only_a_connected_worker_is_recycled_and_its_successor_starts_at_once() -> None:
    assert {
        state: step(state, SessionCause.RECYCLED)
        for state in S
        if step(state, SessionCause.RECYCLED)
    } == {S.CONNECTED: (S.STARTING, WorkerAction.REPLACE)}


def test_only_ends_of_the_process_itself_count_as_crashes() -> None:
    assert {cause for cause in SessionCause if counts_as_crash(cause)} == {
        SessionCause.EXITED,
        SessionCause.HUNG,
        SessionCause.DEFECT,
    }


def test_every_state_can_be_reached_and_left() -> None:
    reached = {following.state for following in TABLE.values()}
    left = {state for (state, _), following in TABLE.items() if following.state is not state}
    assert reached == set(S)
    assert left == set(S)
