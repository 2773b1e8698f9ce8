"""What follows from a health check: every combination, and the cases that matter by name."""

from __future__ import annotations

import itertools

import pytest

from whatsappd.model.session import SessionState as S
from whatsappd.rules.lifecycle import ALIVE, SessionCause, counts_as_crash, step
from whatsappd.rules.session_health import (
    REMEDIES,
    Asked,
    HealthLimits,
    Judgement,
    Observation,
    judge,
    remedy,
)

LIMITS = HealthLimits(settle_ms=180_000, connect_ms=60_000, silence_ms=600_000)
NOW = 10_000_000
NEEDS_A_PERSON = {S.LOGGED_OUT, S.CONFLICT, S.HELD, S.BANNED, S.OUTDATED, S.FAILED}


def seen(
    state: S, *, asked: Asked = Asked.NOT_ASKED, for_ms: int = 1000, down_ms: int | None = None,
    wanted: bool = True, socket_up: bool = True, logged_in: bool = True, disagreements: int = 0,
) -> Observation:  # fmt: skip
    return Observation(
        wanted=wanted,
        state=state,
        cause="the cause",
        since_ms=NOW - for_ms,
        down_since_ms=None if down_ms is None else NOW - down_ms,
        now_ms=NOW,
        asked=asked,
        socket_up=socket_up,
        logged_in=logged_in,
        disagreements=disagreements,
    )


EVERYTHING = [
    seen(state, asked=asked, for_ms=for_ms, down_ms=for_ms, wanted=wanted,
         socket_up=socket_up, logged_in=logged_in, disagreements=disagreements)
    for state, asked, for_ms, wanted, socket_up, logged_in, disagreements in itertools.product(
        S, Asked, (0, 61_000, 179_999, 180_000, 600_001), (True, False), (True, False),
        (True, False), (0, 1)
    )
]  # fmt: skip


def test_every_judgement_is_complete_and_can_be_carried_out() -> None:
    for observation in EVERYTHING:
        judgement = judge("acme", observation, LIMITS)
        assert judgement.detail
        assert judgement.ok == (judgement.remedy is None)
        assert "{" not in (judgement.remedy or "")
        if judgement.replace is not None:
            assert not judgement.ok
            assert judgement.disagreements == 0
            following = step(observation.state, judgement.replace.cause)
            assert following is not None
            assert following.state is S.BACKING_OFF


def test_a_worker_is_only_replaced_where_there_is_one_with_no_deadline_of_its_own() -> None:
    for observation in EVERYTHING:
        if judge("acme", observation, LIMITS).replace is not None:
            assert observation.state in ALIVE - {S.STARTING}


def test_a_session_that_is_not_wanted_is_never_ill_unless_its_worker_must_go() -> None:
    for observation in EVERYTHING:
        judgement = judge("acme", observation, LIMITS)
        if not observation.wanted and judgement.replace is None:
            assert judgement.ok


def test_a_worker_that_is_gone_or_held_up_by_our_store_is_never_called_hung() -> None:
    for observation in EVERYTHING:
        replacement = judge("acme", observation, LIMITS).replace
        if observation.asked in (Asked.GONE, Asked.HELD_UP) and replacement is not None:
            # Only for what its state says: stuck in connecting, or reconnecting in vain.
            assert observation.state in (S.CONNECTING, S.RECONNECTING)


@pytest.mark.parametrize("state", sorted(ALIVE - {S.STARTING}))
def test_a_worker_that_does_not_answer_is_hung(state: S) -> None:
    judgement = judge("acme", seen(state, asked=Asked.SILENT), LIMITS)
    assert judgement.replace is not None
    assert judgement.replace.cause is SessionCause.HUNG


def test_a_worker_that_answers_and_does_not_get_on_counts_as_no_crash() -> None:
    """WhatsApp may be away for longer than six workers last; then nothing needs a person."""
    stuck = seen(S.CONNECTING, asked=Asked.ANSWERED, for_ms=LIMITS.connect_ms + 1)
    judgement = judge("acme", stuck, LIMITS)
    assert judgement.replace is not None
    assert not counts_as_crash(judgement.replace.cause)


def test_a_connected_session_that_answers_is_well() -> None:
    judgement = judge("acme", seen(S.CONNECTED, asked=Asked.ANSWERED), LIMITS)
    assert judgement == Judgement(True, "connected")


@pytest.mark.parametrize(("socket_up", "logged_in"), [(False, True), (False, False), (True, False)])
def test_connected_with_a_dead_socket_is_ill_at_once_and_replaced_when_it_lasts(
    socket_up: bool, logged_in: bool
) -> None:
    count = 0
    for number in range(1, LIMITS.disagreements + 1):
        judgement = judge(
            "acme",
            seen(S.CONNECTED, asked=Asked.ANSWERED, socket_up=socket_up, logged_in=logged_in,
                 disagreements=count),
            LIMITS,
        )  # fmt: skip
        assert not judgement.ok
        assert (judgement.replace is not None) == (number == LIMITS.disagreements)
        count = judgement.disagreements
    assert judgement.replace is not None
    assert judgement.replace.cause is SessionCause.SILENT


def test_a_good_answer_between_two_bad_ones_begins_the_count_anew() -> None:
    good = judge("acme", seen(S.CONNECTED, asked=Asked.ANSWERED, disagreements=1), LIMITS)
    assert good.ok
    assert good.disagreements == 0


def test_reconnecting_is_whatsmeows_until_the_limit_of_silence() -> None:
    patient = judge("acme", seen(S.RECONNECTING, for_ms=600_000, asked=Asked.ANSWERED), LIMITS)
    assert patient.replace is None
    late = judge("acme", seen(S.RECONNECTING, for_ms=600_001, asked=Asked.ANSWERED), LIMITS)
    assert late.replace is not None
    assert late.replace.cause is SessionCause.SILENT  # no crash: the network may be away for days
    assert "600 s" in late.replace.words


def test_connecting_without_progress_is_replaced() -> None:
    assert judge("acme", seen(S.CONNECTING, for_ms=60_000), LIMITS).replace is None
    late = judge("acme", seen(S.CONNECTING, for_ms=60_001), LIMITS)
    assert late.replace is not None
    assert "connecting for 60 s" in late.replace.words


@pytest.mark.parametrize("state", sorted(NEEDS_A_PERSON))
def test_what_only_a_person_can_mend_is_ill_at_once(state: S) -> None:
    judgement = judge("acme", seen(state, for_ms=0, down_ms=0), LIMITS)
    assert not judgement.ok
    assert judgement.remedy == remedy("acme", state)


@pytest.mark.parametrize(
    "state", sorted(set(S) - NEEDS_A_PERSON - {S.CONNECTED, S.CONNECTING, S.BACKING_OFF})
)
def test_what_time_mends_is_given_time(state: S) -> None:
    assert judge("acme", seen(state, down_ms=LIMITS.settle_ms - 1), LIMITS).ok
    late = judge("acme", seen(state, down_ms=LIMITS.settle_ms), LIMITS)
    assert not late.ok
    assert "the cause" in late.detail


def test_time_down_counts_across_states_and_not_from_the_last_change() -> None:
    flapping = seen(S.BACKING_OFF, for_ms=100, down_ms=LIMITS.settle_ms)
    assert not judge("acme", flapping, LIMITS).ok


def test_every_state_has_a_remedy() -> None:
    assert set(REMEDIES) == set(S)


@pytest.mark.parametrize("state", [S.BACKING_OFF, *sorted(NEEDS_A_PERSON)])
def test_what_has_failed_is_not_well_from_the_first_moment(state: S) -> None:
    judgement = judge("acme", seen(state, for_ms=0, down_ms=0), LIMITS)
    assert not judgement.ok
    assert judgement.remedy


def test_a_connected_session_whose_files_are_gone_is_not_well() -> None:
    files = "/var/lib/whatsappd/companies/acme was removed"
    judgement = judge("acme", seen(S.CONNECTED)._replace(files=files), LIMITS)
    assert (judgement.ok, judgement.detail) == (False, files)
    assert "backup" in (judgement.remedy or "")
    assert judge("acme", seen(S.STOPPED, wanted=False)._replace(files=files), LIMITS).ok
