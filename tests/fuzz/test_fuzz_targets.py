"""Every reader of what others wrote, with 80 inputs each, the same ones every time.

The campaign (`test_fuzz`, `-m endurance`) has others each time, and many more.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from registry import TARGETS
from targets import Target


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_no_input_gets_past_its_reader(target: Target) -> None:
    @settings(
        max_examples=80,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def check(value: object) -> None:
        target.check(value)

    check()
