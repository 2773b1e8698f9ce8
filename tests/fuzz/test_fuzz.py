"""Fuzzing at length: every reader, by chance and guided by coverage; the figures are cases.

With --short about four minutes in all, else an hour and a half. Guided searches need atheris (the
extra `fuzz`), which has no wheel for every machine; without it there is chance alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import company_targets
import pytest
from campaign import HAS_ATHERIS, Outcome, by_chance, guided
from contract import Tried, tried
from daemons import running_daemon
from gateways import Stack, running_gateway
from registry import TARGETS
from targets import Target

pytestmark = pytest.mark.endurance

#: Seconds for each target: by chance, and guided where it takes bytes.
CHANCE, SHORT_CHANCE = 25, 1.2
GUIDED, SHORT_GUIDED = 60, 3
#: The same for a contact of a living company: each case is a message that a real client reads.
CONTACT, SHORT_CONTACT = 3600, 60
#: How much schemathesis tries: of what is right and of each value's edges, and then of chance.
SCHEMA = ("--max-time", "120")
SHORT_SCHEMA = ("--phases", "examples,coverage,fuzzing", "--max-examples", "2")


def tell(measured: Callable[..., None], what: str, outcome: Outcome | Tried) -> None:
    measured(f"{what}: cases", outcome.cases, f"in {outcome.seconds:.0f} s")
    measured(f"{what}: findings", len(outcome.findings), "", aim="none")
    assert not outcome.findings, "\n".join(map(str, outcome.findings))
    assert outcome.cases


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_no_input_of_chance_gets_past_its_reader(
    target: Target, measured: Callable[..., None], is_short: bool
) -> None:
    tell(measured, target.name, by_chance(target, SHORT_CHANCE if is_short else CHANCE))


def test_nothing_that_a_contact_sends_hurts_the_company(
    measured: Callable[..., None], is_short: bool
) -> None:
    [target] = company_targets.TARGETS
    seconds = SHORT_CONTACT if is_short else CONTACT
    tell(measured, f"{target.name}, at length", by_chance(target, seconds))


async def test_no_request_of_chance_gets_past_the_gateway(
    measured: Callable[..., None], is_short: bool, tmp_path: Path
) -> None:
    """Every operation of its OpenAPI document, by schemathesis."""
    how = SHORT_SCHEMA if is_short else SCHEMA
    async with running_daemon("--sandbox") as daemon, running_gateway(daemon) as gateway:
        tell(
            measured, "the gateway's requests", await tried(Stack(daemon, gateway), tmp_path, *how)
        )


@pytest.mark.skipif(not HAS_ATHERIS, reason="not installed: atheris (the extra `fuzz`)")
@pytest.mark.parametrize(
    "target", [each for each in TARGETS if each.seeds], ids=lambda target: target.name
)
def test_no_search_guided_by_coverage_gets_past_a_reader(
    target: Target, measured: Callable[..., None], is_short: bool, tmp_path: Path
) -> None:
    seconds = SHORT_GUIDED if is_short else GUIDED
    tell(measured, f"{target.name}, guided", guided(target, seconds, tmp_path))
