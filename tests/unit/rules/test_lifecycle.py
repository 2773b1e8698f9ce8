"""The table of a session's life, exhaustively."""

from __future__ import annotations

import itertools

import pytest

from whatsappd.model.session import SessionState as S
from whatsappd.rules.causes import LONGEST_BAN_MS, UNKNOWN_BAN_S, ban_ms, cause_of_end, describe
from whatsappd.rules.lifecycle import (
    ALIVE,
    PARKED,
    TABLE,
    WAITING,
    Action,
    Cause,
    counts_as_crash,
    start_refusal,
    step,
)

FROM_WORKER = {
    Cause.OPENED,
    Cause.QR,
    Cause.PAIRED,
    Cause.PAIR_TIMEOUT,
    Cause.PAIR_INTERRUPTED,
    Cause.PAIR_REFUSED,
    Cause.PASSKEY_ASKED,
    Cause.CONNECTED,
    Cause.DISCONNECTED,
    Cause.KEEPALIVE_TIMEOUT,
    Cause.KEEPALIVE_RESTORED,
    Cause.LOGGED_OUT,
    Cause.OTHER_ACCOUNT,
    Cause.ACCOUNT_TAKEN,
    Cause.STREAM_REPLACED,
    Cause.TEMPORARY_BAN,
    Cause.CONNECT_FAILURE,
    Cause.CLIENT_OUTDATED,
    Cause.ENDED,
    Cause.EXITED,
    Cause.HUNG,
    Cause.DEFECT,
    Cause.SILENT,
    Cause.SPAWN_FAILED,
}


def test_every_state_is_of_one_kind() -> None:
    assert set(S) == ALIVE | WAITING | PARKED
    assert not ALIVE & WAITING
    assert not ALIVE & PARKED
    assert not WAITING & PARKED


@pytest.mark.parametrize(("state", "cause"), itertools.product(S, Cause))
def test_actions_agree_with_the_kind_of_the_following_state(state: S, cause: Cause) -> None:
    following = step(state, cause)
    if following is None:
        return
    match following.action:
        case Action.SPAWN:
            assert following.state is S.STARTING
            assert state not in ALIVE
        case Action.REPLACE:
            assert following.state is S.STARTING
            assert state is S.CONNECTED
        case Action.KILL:
            assert state in ALIVE
            assert following.state in PARKED
        case Action.KILL_AND_RETRY:
            assert following.state is S.BACKING_OFF
        case Action.KILL_AND_WAIT:
            assert following.state is S.BANNED
        case Action.NONE:
            # The worker stays as it is: there still is one, or there still is none.
            assert (state in ALIVE) == (following.state in ALIVE)


@pytest.mark.parametrize(
    ("state", "cause"), itertools.product(sorted(set(S) - ALIVE), sorted(FROM_WORKER))
)
def test_late_news_of_a_dead_worker_change_nothing(state: S, cause: Cause) -> None:
    assert step(state, cause) is None


@pytest.mark.parametrize("state", list(S))
def test_stop_always_ends_in_stopped(state: S) -> None:
    following = step(state, Cause.STOP)
    assert following is not None
    assert following.state is S.STOPPED


@pytest.mark.parametrize("state", list(S))
def test_start_works_in_every_state_but_conflict(state: S) -> None:
    if state is S.CONFLICT:
        assert step(state, Cause.START) is None
        assert "--take-over" in (start_refusal(state) or "")
    else:
        assert start_refusal(state) is None
        following = step(state, Cause.START)
        assert following is not None
        assert following.state in ALIVE


@pytest.mark.parametrize("state", list(S))
def test_take_over_starts_whatever_is_not_running(state: S) -> None:
    following = step(state, Cause.TAKE_OVER)
    assert following is not None
    assert (following.action is Action.SPAWN) == (state not in ALIVE)


@pytest.mark.parametrize("state", sorted(ALIVE))
def test_every_end_of_a_worker_has_a_next_step(state: S) -> None:
    for cause in (Cause.EXITED, Cause.HUNG, Cause.ENDED, Cause.SPAWN_FAILED):
        following = step(state, cause)
        assert following is not None
        assert following.state is S.BACKING_OFF


@pytest.mark.parametrize("state", sorted(WAITING))
def test_waiting_states_try_again_when_it_is_time(state: S) -> None:
    assert step(state, Cause.RETRY_DUE) == (S.STARTING, Action.SPAWN)


def test_a_replaced_stream_is_parked_and_never_retried() -> None:
    for state in ALIVE:
        assert step(state, Cause.STREAM_REPLACED) == (S.CONFLICT, Action.KILL)
    assert step(S.CONFLICT, Cause.RETRY_DUE) is None


def test_only_a_connected_worker_is_recycled_and_its_successor_starts_at_once() -> None:
    assert {state: step(state, Cause.RECYCLED) for state in S if step(state, Cause.RECYCLED)} == {
        S.CONNECTED: (S.STARTING, Action.REPLACE)
    }
    assert "412 descriptors" in describe(Cause.RECYCLED, {"why": "412 descriptors"})


def test_only_ends_of_the_process_itself_count_as_crashes() -> None:
    assert {cause for cause in Cause if counts_as_crash(cause)} == {
        Cause.EXITED,
        Cause.HUNG,
        Cause.DEFECT,
    }


def test_every_state_can_be_reached_and_left() -> None:
    reached = {following.state for following in TABLE.values()}
    left = {state for (state, _), following in TABLE.items() if following.state is not state}
    assert reached == set(S)
    assert left == set(S)


@pytest.mark.parametrize("cause", list(Cause))
def test_every_cause_has_words(cause: Cause) -> None:
    data = {"reason": 401, "error": "x", "status": "exit code 1", "code": 101, "expire_s": 5}
    data |= {"crashes": 6, "last": "y", "message": "z", "why": "412 descriptors", "field": "X.Y"}
    data |= {"owner": "globex", "bound": "1@lid", "linked": "15550100@s.whatsapp.net"}
    words = describe(cause, data)
    assert words
    assert "None" not in words
    assert describe(cause, {})  # a field missing must not stop supervision


def test_what_neonize_cannot_encode_is_recognised_by_the_field_it_names() -> None:
    ban = "proto: required field neonize.TemporaryBan.Code not set"
    assert cause_of_end(ban) == (Cause.TEMPORARY_BAN, {"code": 0, "expire_s": UNKNOWN_BAN_S})
    refusal = "proto: required field neonize.ConnectFailure.Reason not set"
    assert cause_of_end(refusal)[0] is Cause.CONNECT_FAILURE
    assert cause_of_end("dial tcp: refused") == (Cause.ENDED, {"error": "dial tcp: refused"})
    assert cause_of_end(None)[0] is Cause.ENDED


@pytest.mark.parametrize(
    ("expire_s", "expected"),
    [(3600, 3_600_000), (0, 0), (None, 0), (2**63 - 1, LONGEST_BAN_MS), (10**9, LONGEST_BAN_MS)],
)
def test_no_ban_is_longer_than_a_date_can_say(expire_s: int | None, expected: int) -> None:
    assert ban_ms({"code": 101, "expire_s": expire_s}) == expected


def test_the_true_cause_of_a_failed_dial_is_shown() -> None:
    error = (
        "failed to dial whatsapp web websocket: failed to WebSocket dial: failed to send "
        'handshake request: Get "https://web.whatsapp.com/ws/chat": dial tcp: '
        "lookup web.whatsapp.com: no such host"
    )
    words = describe(Cause.ENDED, {"error": error})
    assert words == "cannot connect: dial tcp: lookup web.whatsapp.com: no such host"
