"""A campaign finds what there is to find, and says by what input."""

from __future__ import annotations

from pathlib import Path

import pytest
from campaign import HAS_ATHERIS, by_chance, guided
from hypothesis import strategies as st
from targets import Target


def check_planted(data: bytes) -> None:
    if data[:1] == b"a":
        raise KeyError("planted")


TARGETS = [
    Target("planted", st.sampled_from((b"a", b"b", b"c")), check_planted, (b"b",)),
    Target("sound", st.binary(max_size=9), len, (b"b",)),
]


def test_chance_tells_each_finding_once() -> None:
    planted, sound = (by_chance(target, 0.1) for target in TARGETS)
    [finding] = planted.findings
    assert finding.what == "KeyError: 'planted'"
    assert finding.where.endswith("in check_planted")
    assert finding.value == repr(b"a")
    assert sound.findings == []
    assert sound.cases > 1


@pytest.mark.skipif(not HAS_ATHERIS, reason="not installed: atheris (the extra `fuzz`)")
def test_a_search_tells_the_first_finding_and_its_input(tmp_path: Path) -> None:
    [finding] = guided(TARGETS[0], 20, tmp_path).findings
    assert finding.what == "KeyError: 'planted'"
    assert "in check_planted" in finding.where
    assert "b'a" in finding.value
