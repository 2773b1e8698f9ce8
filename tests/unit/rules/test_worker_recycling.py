"""Which workers are recycled, why, and how many at once."""

from __future__ import annotations

import pytest
from msgspec import structs

from whatsappd.monitoring.settings import RecycleSettings
from whatsappd.rules.worker_recycling import WorkerUse, choose, excess

LIMITS = RecycleSettings(memory=100_000_000, descriptors=200, threads=100, rest_ms=60_000)
USUAL = WorkerUse(age_ms=3_600_000, memory=20_000_000, descriptors=17, threads=13)


def test_a_usual_worker_is_left_alone() -> None:
    assert excess(USUAL, LIMITS) is None
    assert excess(USUAL, RecycleSettings()) is None


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (USUAL._replace(descriptors=412), "412 descriptors"),
        (USUAL._replace(threads=101), "101 threads"),
        (USUAL._replace(memory=131_000_000), "131 MB of memory"),
        # The words are about what is over most.
        (USUAL._replace(memory=131_000_000, threads=500), "500 threads"),
    ],
)
def test_what_is_over_its_limit_is_named(use: WorkerUse, words: str) -> None:
    assert excess(use, LIMITS) == words


def test_exactly_the_limit_is_allowed() -> None:
    assert excess(WorkerUse(10**9, 100_000_000, 200, 100), LIMITS) is None


def test_a_limit_of_0_is_none() -> None:
    off = RecycleSettings(memory=0, descriptors=0, threads=0)
    assert off.are_off
    assert not LIMITS.are_off
    assert excess(WorkerUse(10**9, 10**12, 10**6, 10**6), off) is None


def test_what_is_unknown_is_not_over() -> None:
    assert excess(WorkerUse(10**9, None, None, None), LIMITS) is None


def test_a_worker_has_its_rest_so_that_a_limit_that_is_too_low_does_little_harm() -> None:
    greedy = USUAL._replace(descriptors=1000)
    assert excess(greedy._replace(age_ms=59_999), LIMITS) is None
    assert excess(greedy._replace(age_ms=60_000), LIMITS) is not None


def test_the_oldest_come_first_and_a_few_at_a_time() -> None:
    uses = {
        f"c{number:02}": USUAL._replace(descriptors=201, age_ms=600_000 + number)
        for number in range(40)
    }
    assert list(choose(uses, LIMITS)) == ["c39", "c38", "c37"]


def test_of_few_workers_one_goes_at_a_time() -> None:
    uses = {"acme": USUAL._replace(threads=300), "beta": USUAL._replace(threads=200)}
    assert choose(uses, LIMITS) == {"acme": "300 threads"}
    assert choose({}, LIMITS) == {}
    assert choose({"acme": USUAL}, LIMITS) == {}


def test_all_have_their_turn_even_with_a_limit_that_all_are_always_over() -> None:
    uses = {f"c{number}": USUAL for number in range(10)}
    turns: list[str] = []
    for _ in range(10):
        [chosen] = choose(uses, structs.replace(LIMITS, threads=1))
        turns.append(chosen)
        uses = {name: use._replace(age_ms=use.age_ms + 30_000) for name, use in uses.items()}
        uses[chosen] = USUAL
    assert sorted(turns) == sorted(uses)


def test_in_the_end_all_have_their_turn() -> None:
    uses = {f"c{number}": USUAL._replace(descriptors=300) for number in range(100)}
    rounds = 0
    while chosen := choose(uses, LIMITS):
        uses |= dict.fromkeys(chosen, USUAL)
        rounds += 1
    assert rounds == 17  # six at a time
