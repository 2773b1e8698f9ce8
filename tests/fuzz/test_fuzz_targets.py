"""Every reader of what others wrote, with a few hundred inputs each, the same ones every time."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from registry import TARGETS
from targets import Target


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_no_input_gets_past_its_reader(target: Target) -> None:
    @settings(
        max_examples=150,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def check(value: object) -> None:
        target.check(value)

    check()
