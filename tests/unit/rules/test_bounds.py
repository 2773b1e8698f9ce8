"""The table of bounds: nobody takes all, some is kept, and a refusal says who holds what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsappd.errors import TooManyRequests
from whatsappd.rules.bounds import (
    BACKUPS,
    BOUNDS,
    CONNECTIONS,
    PACES,
    SUBSCRIPTIONS,
    UNFINISHED_BYTES,
    UNSENT_BYTES,
    WAITING_CALLS,
    Bound,
    Holder,
    Pace,
    PaceBound,
    Places,
)

FEW = Bound("chairs", "chairs", each=3, all=8, kept=2, remedy="stand up")
SHOP, OTHER, THIRD = Holder("uid:1001"), Holder("uid:1002"), Holder("uid:1003")
ROOT = Holder("uid:0", is_capped=False, may_use_kept=True)
GATEWAY = Holder("uid:998", is_capped=False)


def test_one_holder_gets_no_more_than_its_share_and_is_told_so() -> None:
    chairs = Places(FEW)
    for _ in range(3):
        chairs.take(SHOP)
    with pytest.raises(TooManyRequests, match=r"uid 1001 holds 3 of 3 chairs: stand up") as told:
        chairs.take(SHOP)
    assert told.value.data == {
        "bound": "chairs", "holder": "uid:1001", "held": 3, "limit": 3,
    }  # fmt: skip
    chairs.take(OTHER)
    chairs.give(SHOP)
    chairs.take(SHOP)
    assert (chairs.held(SHOP), chairs.held(OTHER), chairs.total, chairs.refused) == (3, 1, 4, 1)


def test_what_is_kept_is_for_root_alone() -> None:
    chairs = Places(FEW)
    chairs.take(GATEWAY, 5)
    chairs.take(SHOP)
    with pytest.raises(TooManyRequests) as told:
        chairs.take(OTHER)
    assert "6 of 6 chairs" in told.value.message
    assert "uid 998 holds most, 5" in told.value.message
    assert "2 more are kept for root" in told.value.message
    with pytest.raises(TooManyRequests):
        chairs.take(GATEWAY)
    chairs.take(ROOT, 2)
    with pytest.raises(TooManyRequests):
        chairs.take(ROOT)


def test_where_others_are_no_business_of_a_caller_they_are_not_named() -> None:
    chairs = Places(FEW._replace(names_others=False))
    chairs.take(GATEWAY, 6)
    with pytest.raises(TooManyRequests) as told:
        chairs.take(SHOP)
    assert "998" not in str(told.value.as_wire())


def test_a_place_is_given_back_whatever_happens() -> None:
    chairs = Places(FEW)
    held = []

    def fail() -> None:
        with chairs.place(SHOP, 2):
            held.append(chairs.total)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert held == [2]
    assert chairs.report()["held"] == 0
    assert chairs.report()["holders"] == []


@given(st.lists(st.tuples(st.sampled_from([SHOP, OTHER, THIRD, GATEWAY, ROOT]), st.booleans())))
def test_the_counts_are_what_is_held(steps: list[tuple[Holder, bool]]) -> None:
    chairs = Places(FEW)
    model: dict[Holder, int] = dict.fromkeys((SHOP, OTHER, THIRD, GATEWAY, ROOT), 0)
    for holder, takes in steps:
        if takes:
            try:
                chairs.take(holder)
            except TooManyRequests:
                continue
            model[holder] += 1
        elif model[holder]:
            chairs.give(holder)
            model[holder] -= 1
    assert chairs.total == sum(model.values()) <= FEW.all
    assert {holder: chairs.held(holder) for holder in model} == model
    assert sum(model.values()) - model[ROOT] <= FEW.all - FEW.kept or model[ROOT] == 0
    assert max(model[SHOP], model[OTHER], model[THIRD]) <= FEW.each


def test_the_table_makes_sense() -> None:
    assert len({bound.name for bound in (*BOUNDS, *PACES)}) == len(BOUNDS) + len(PACES)
    for bound in BOUNDS:
        assert 0 <= bound.kept < bound.all
        # No single holder can take all that is not kept.
        assert bound.each < bound.all - bound.kept, bound


def test_a_pace_allows_a_burst_and_then_so_many_a_second() -> None:
    pace = Pace(PaceBound("x", "x", burst=3, per_second=2.0))
    assert [pace.allows("a", 10.0) for _ in range(5)] == [True, True, True, False, False]
    assert pace.allows("b", 10.0)
    assert pace.allows("a", 10.5)
    assert not pace.allows("a", 10.5)


def test_who_is_told_to_wait_keeps_the_pace_by_waiting() -> None:
    pace = Pace(PaceBound("x", "x", burst=2, per_second=4.0))
    now, count = 0.0, 0
    while now < 10.0:
        now += pace.wait("a", now)
        count += 1
    assert count == pytest.approx(2 + 10 * 4, abs=1)


def test_what_callers_take_on_the_daemons_socket_leaves_room_for_root() -> None:
    socket = (CONNECTIONS, UNFINISHED_BYTES, UNSENT_BYTES, WAITING_CALLS, SUBSCRIPTIONS, BACKUPS)
    for bound in socket:
        places = Places(bound)
        for uid in range(1000, 1000 + bound.all):
            try:
                places.take(Holder(f"uid:{uid}"), bound.each)
            except TooManyRequests:
                break
        places.take(Holder("uid:0", is_capped=False, may_use_kept=True))
