"""The table of delivery, exhaustively: every state with every cause."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsappd.errors import WrongState
from whatsappd.model.message import OutboxState as S
from whatsappd.rules.delivery import (
    KNOWLEDGE,
    OPEN,
    RECEIPTS,
    SENT_OR_BEYOND,
    TRANSITIONS,
    advances,
    can_reach,
    next_state,
)
from whatsappd.rules.delivery import Cause as C  # noqa: N817 - the table is read by columns

FINAL = {S.FAILED, S.EXPIRED, S.CANCELLED, S.PLAYED}
PROOFS = {C.ACKNOWLEDGED, *RECEIPTS}
LEGAL = [(state, cause) for state, causes in TRANSITIONS.items() for cause in causes]


@pytest.mark.parametrize("state", S)
@pytest.mark.parametrize("cause", C)
def test_every_pair_is_a_transition_or_a_clear_error(state: S, cause: C) -> None:
    if (state, cause) in LEGAL:
        assert next_state(state, cause) is TRANSITIONS[state][cause]
        assert advances(state, cause)
        return
    assert not advances(state, cause)
    with pytest.raises(WrongState, match=f"message that is {state}") as caught:
        next_state(state, cause)
    assert caught.value.data == {"state": state}


def test_only_begun_hands_over_and_only_what_is_queued() -> None:
    assert [pair for pair in LEGAL if next_state(*pair) is S.SENDING] == [(S.QUEUED, C.BEGUN)]


def test_an_uncertain_row_is_queued_only_by_a_decision_or_proof() -> None:
    back = {cause for cause in TRANSITIONS[S.UNCERTAIN] if next_state(S.UNCERTAIN, cause) in OPEN}
    assert back == {C.DECIDED_RESEND, C.NEVER_SENT}


def test_only_a_hand_over_makes_uncertain() -> None:
    assert [pair for pair in LEGAL if next_state(*pair) is S.UNCERTAIN] == [(S.SENDING, C.LOST)]


def test_sent_needs_proof_or_a_decision() -> None:
    for state, cause in LEGAL:
        if state not in SENT_OR_BEYOND and next_state(state, cause) in SENT_OR_BEYOND:
            assert cause in PROOFS | {C.DECIDED_SENT}


def test_what_was_sent_is_never_unsent_unless_nobody_could_read_it() -> None:
    assert [state for state in S if advances(state, C.ASKED_AGAIN)] == [S.SENT]
    assert next_state(S.SENT, C.ASKED_AGAIN) is S.QUEUED
    for state, cause in LEGAL:
        if state in SENT_OR_BEYOND and cause is not C.ASKED_AGAIN:
            assert next_state(state, cause) in SENT_OR_BEYOND


def test_proof_wins_over_everything_that_is_open() -> None:
    for state, cause in itertools.product(OPEN, PROOFS):
        expected = S.SENT if cause is C.ACKNOWLEDGED else S(cause)
        assert next_state(state, cause) is expected


def test_final_states_stay() -> None:
    assert {state for state in S if not TRANSITIONS[state]} == FINAL


def test_open_and_final_and_sent_are_all_states() -> None:
    assert set(S) == OPEN | FINAL | SENT_OR_BEYOND
    assert not OPEN & (FINAL | SENT_OR_BEYOND)


def test_only_queued_can_be_cancelled_and_expire() -> None:
    for cause in (C.CANCELLED, C.EXPIRED):
        assert [state for state in S if advances(state, cause)] == [S.QUEUED]


def test_knowledge_never_loses_a_row_again() -> None:
    for state, cause in LEGAL:
        if cause in KNOWLEDGE:
            assert next_state(state, cause) not in {S.UNCERTAIN, S.FAILED}


@given(st.permutations([C.ACKNOWLEDGED, *RECEIPTS] * 2))
def test_receipts_in_any_order_end_at_the_furthest(causes: list[C]) -> None:
    state = S.SENDING
    rank = [S.SENDING, S.SENT, S.DELIVERED, S.READ, S.PLAYED].index
    for cause in causes:
        if advances(state, cause):
            assert rank(next_state(state, cause)) > rank(state)
            state = next_state(state, cause)
    assert state is S.PLAYED


@given(st.sampled_from(S), st.lists(st.sampled_from(C), max_size=20))
def test_can_reach_agrees_with_what_happens(start: S, causes: list[C]) -> None:
    state = start
    for cause in causes:
        if advances(state, cause):
            state = next_state(state, cause)
        assert can_reach(start, {state})


def test_can_reach_knows_dead_ends() -> None:
    assert can_reach(S.QUEUED, {S.PLAYED})
    assert can_reach(S.UNCERTAIN, {S.SENT})
    assert can_reach(S.FAILED, {S.FAILED})
    assert not can_reach(S.FAILED, {S.SENT, S.DELIVERED})
    assert not can_reach(S.READ, {S.DELIVERED})
    assert can_reach(S.SENT, {S.QUEUED, S.FAILED})  # sent anew, and that may fail
    assert not can_reach(S.DELIVERED, {S.QUEUED, S.FAILED})
