"""Alerts: raised once, cleared once, whatever hovers about a threshold and whoever restarts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsappd.model.session import SessionState as S
from whatsappd.monitoring.settings import AlertSettings
from whatsappd.rules.alerts import (
    LOOP_WINDOWS,
    AlertChange,
    AlertFinding,
    AlertKey,
    AlertRule,
    HostFacts,
    SessionFacts,
    changes,
    findings,
)

NOW = 100_000_000
LIMITS = AlertSettings()
DOWN = AlertKey(AlertRule.SESSION_DOWN, "acme")
OLD = AlertKey(AlertRule.QUEUE_OLD, "acme")
RESTARTS = AlertKey(AlertRule.RESTARTS_FREQUENT, "acme")
DISK = AlertKey(AlertRule.DISK_NEARLY_FULL)
STORE = AlertKey(AlertRule.STORE_FAILING)
LOOP = AlertKey(AlertRule.EVENT_LOOP_LAGGING)
NO_LIMITS = AlertSettings(0, 0, 0, 0, 0, 0)


def acme(**facts: Any) -> SessionFacts:
    return SessionFacts(
        **{"company": "acme", "wanted": True, "state": S.CONNECTED, "cause": "connected", **facts}
    )


def host(**facts: Any) -> HostFacts:
    return HostFacts(**{"now_ms": NOW, "started_ms": 0, "disk_free_bytes": 1 << 40, **facts})


def holds(
    key: AlertKey, at: HostFacts, *sessions: SessionFacts, is_open: bool = False,
    limits: AlertSettings = LIMITS,
) -> bool:  # fmt: skip
    return key in findings(at, sessions, limits, {key} if is_open else set())


def test_nothing_is_found_where_all_is_well() -> None:
    assert findings(host(), [acme()], LIMITS, set()) == {}


def test_a_session_is_down_after_its_time_and_until_it_is_connected() -> None:
    def down(for_ms: int, *, is_open: bool, wanted: bool = True) -> bool:
        facts = acme(state=S.BACKING_OFF, down_since_ms=NOW - for_ms, wanted=wanted)
        return holds(DOWN, host(), facts, is_open=is_open)

    limit = LIMITS.session_down_ms
    assert not down(limit - 1, is_open=False)
    assert down(limit, is_open=False)
    # After a restart of the daemon the time counts anew, but nothing was mended.
    assert down(0, is_open=True)
    assert not holds(DOWN, host(), acme(), is_open=True)
    assert not down(limit, is_open=True, wanted=False)


def test_an_old_queue_is_raised_at_its_limit_and_cleared_at_half_of_it() -> None:
    def old(age_ms: int, *, is_open: bool) -> bool:
        facts = acme(oldest_queued_ms=NOW - age_ms, queued=7)
        return holds(OLD, host(), facts, is_open=is_open)

    limit = LIMITS.queue_age_ms
    assert not old(limit - 1, is_open=False)
    assert old(limit, is_open=False)
    assert old(limit // 2, is_open=True)
    assert not old(limit // 2 - 1, is_open=True)
    assert not holds(OLD, host(), acme(), is_open=True)


def test_a_queue_counts_also_where_the_session_is_not_wanted() -> None:
    facts = acme(state=S.STOPPED, wanted=False, oldest_queued_ms=0, queued=1)
    assert holds(OLD, host(), facts)


@pytest.mark.parametrize("is_open", [True, False])
def test_a_queue_that_cannot_be_read_changes_nothing(is_open: bool) -> None:
    assert holds(OLD, host(queue_unread=True), acme(), is_open=is_open) == is_open


def test_restarts_are_frequent_until_a_whole_window_passed_without_one() -> None:
    def frequent(*ages_ms: int, is_open: bool, started_ms: int = 0) -> bool:
        facts = acme(crashes_ms=[NOW - age for age in ages_ms])
        return holds(RESTARTS, host(started_ms=started_ms), facts, is_open=is_open)

    window = LIMITS.restarts_window_ms
    some = range(1, LIMITS.restarts + 1)
    assert not frequent(*some, is_open=False)
    assert frequent(window - 1, *some, is_open=False)
    assert not frequent(window, *some, is_open=False)
    assert frequent(window - 1, is_open=True)
    assert not frequent(window, is_open=True)
    # A daemon that has just started cannot know.
    assert frequent(is_open=True, started_ms=NOW - window + 1)
    assert not frequent(is_open=True, started_ms=NOW - window)


def test_a_disk_is_nearly_full_until_there_is_clearly_more_room() -> None:
    limit = LIMITS.disk_free_bytes
    assert not holds(DISK, host(disk_free_bytes=limit))
    assert holds(DISK, host(disk_free_bytes=limit - 1))
    assert holds(DISK, host(disk_free_bytes=limit), is_open=True)
    assert not holds(DISK, host(disk_free_bytes=limit + limit // 4), is_open=True)


@pytest.mark.parametrize("is_open", [True, False])
def test_a_disk_that_nobody_can_ask_changes_nothing(is_open: bool) -> None:
    assert holds(DISK, host(disk_free_bytes=None), is_open=is_open) == is_open


def test_a_failing_store_is_told_with_its_own_words() -> None:
    found = findings(host(store_trouble="the disk is full"), [], LIMITS, set())
    assert found == {STORE: AlertFinding(NOW, "the disk is full")}
    assert not holds(STORE, host(), is_open=True)


def test_the_loop_lags_when_it_did_so_twice_and_until_it_did_not_for_a_while() -> None:
    limit = LIMITS.event_loop_delay_ms

    def lagging(*delays: int, is_open: bool) -> bool:
        return holds(LOOP, host(loop_delays_ms=delays), is_open=is_open)

    assert not lagging(limit, is_open=False)
    assert lagging(limit, 0, 0, 0, limit, is_open=False)
    assert not lagging(limit, 0, 0, 0, 0, limit, is_open=False)
    assert lagging(limit, 0, 0, 0, 0, is_open=True)
    assert not lagging(limit, *[0] * LOOP_WINDOWS, is_open=True)


def test_thresholds_of_0_switch_rules_off() -> None:
    facts = acme(state=S.FAILED, down_since_ms=0, oldest_queued_ms=0, queued=1, crashes_ms=[NOW])
    at = host(disk_free_bytes=0, loop_delays_ms=[10**6] * LOOP_WINDOWS)
    for is_open in (set[AlertKey](), {DOWN, OLD, RESTARTS, DISK, LOOP}):
        assert findings(at, [facts], NO_LIMITS, is_open) == {}
        assert findings(at._replace(queue_unread=True), [facts], NO_LIMITS, is_open) == {}


def test_what_is_new_is_raised_and_what_is_gone_is_cleared() -> None:
    was_open = {DOWN: 5, STORE: 6}
    found = {STORE: AlertFinding(99, "still"), DISK: AlertFinding(7, "12 MiB are free")}
    assert list(changes(was_open, found)) == [
        AlertChange(DISK, True, 7, "12 MiB are free"),
        AlertChange(DOWN, False, 5, "it is over"),
    ]


def test_a_removed_companys_alerts_are_cleared() -> None:
    assert [change.key for change in changes({DOWN: 5}, findings(host(), [], LIMITS, {DOWN}))] == [
        DOWN
    ]


def test_an_event_tells_all_there_is() -> None:
    assert AlertChange(DOWN, True, 5, "not connected").as_wire() == {
        "rule": "session_down",
        "state": "raised",
        "company": "acme",
        "since_ms": 5,
        "detail": "not connected",
    }


ROUNDS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(0, 2_000_000)),  # how long down
        st.one_of(st.none(), st.integers(0, 2_000_000)),  # age of the queue
        st.integers(0, 1 << 31),  # bytes free
        st.sampled_from([None, "full"]),
        st.lists(st.integers(0, 3000), max_size=LOOP_WINDOWS),
    ),
    max_size=30,
)


@given(ROUNDS)
def test_raised_and_cleared_alternate_whatever_happens(rounds: Sequence[Any]) -> None:
    is_open: dict[AlertKey, int] = {}
    for down, age, free, trouble, delays in rounds:
        facts = acme(
            state=S.CONNECTED if down is None else S.RECONNECTING,
            down_since_ms=None if down is None else NOW - down,
            oldest_queued_ms=None if age is None else NOW - age,
        )
        at = host(disk_free_bytes=free, store_trouble=trouble, loop_delays_ms=delays)
        found = findings(at, [facts], LIMITS, is_open.keys())
        for change in list(changes(is_open, found)):
            assert change.is_raised == (change.key not in is_open)
            assert change.since_ms <= NOW
            if change.is_raised:
                is_open[change.key] = change.since_ms
            else:
                assert is_open.pop(change.key) == change.since_ms
        assert is_open.keys() == found.keys()
