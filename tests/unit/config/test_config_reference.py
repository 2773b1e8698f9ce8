"""The sample, the README's table and the parts' own defaults cannot drift from the definitions."""

from __future__ import annotations

import re
from pathlib import Path

from whatsappd.config.definitions import DEFINITIONS
from whatsappd.config.load import load
from whatsappd.config.reference import renewed, sample
from whatsappd.config.settings import LOG_LEVELS
from whatsappd.config.sources import Sources
from whatsappd.logs import LEVELS
from whatsappd.rules.alerts import AlertThresholds
from whatsappd.rules.outreach import MAX_LIMIT, SendLimits
from whatsappd.rules.recycling import RecycleLimits
from whatsappd.sessions.housekeeping import Retention
from whatsappd.sessions.settings import SessionSettings
from whatsappd.settings_for_parts import (
    alert_thresholds,
    recycle_limits,
    retention,
    send_limits,
    session_settings,
)

README = Path(__file__).parents[3] / "README.md"


def load_text(tmp_path: Path, text: str) -> Sources:
    path = tmp_path / "sample.toml"
    path.write_text(text)
    return Sources({}, config=path)


def test_the_sample_as_it_is_printed_changes_nothing(tmp_path: Path) -> None:
    configuration = load(load_text(tmp_path, sample()))
    assert configuration.settings == load(load_text(tmp_path, "")).settings
    assert set(configuration.origins.values()) == {"default"}


def test_the_sample_with_everything_uncommented_parses_to_the_defaults(tmp_path: Path) -> None:
    uncommented = re.sub(r"^#(?=[a-z_]+ = )", "", sample(), flags=re.MULTILINE)
    configuration = load(load_text(tmp_path, uncommented))
    assert configuration.settings == load(load_text(tmp_path, "")).settings
    assert "default" not in configuration.origins.values()


def test_the_samples_example_of_an_access_rule_is_right(tmp_path: Path) -> None:
    example = sample().partition("# [[access]]")[2]
    text = "[[access]]" + re.sub(r"^# ", "", example, flags=re.MULTILINE)
    text = text.replace('"shop"', "1000")  # which this host need not have
    [rule] = load(load_text(tmp_path, text)).settings.access
    assert rule.companies == {"acme"}


def test_the_sample_and_every_line_of_it_are_readable() -> None:
    assert max(map(len, sample().splitlines())) <= 100
    for definition in DEFINITIONS.values():
        assert definition.setting.doc.endswith("."), definition.key


def test_the_readme_has_the_table_of_the_definitions() -> None:
    assert renewed(README.read_text()) == README.read_text(), (
        "renew it: python -m whatsappd.config.reference README.md"
    )


def test_the_parts_defaults_are_the_settings_defaults(tmp_path: Path) -> None:
    settings = load(load_text(tmp_path, "")).settings
    assert send_limits(settings) == SendLimits()
    assert retention(settings) == Retention()
    assert session_settings(settings) == SessionSettings()
    assert alert_thresholds(settings) == AlertThresholds()
    assert recycle_limits(settings) == RecycleLimits()


def test_the_definitions_know_the_parts_choices_and_ranges() -> None:
    assert LOG_LEVELS == LEVELS
    for key in ("limits.per_company_per_minute", "outreach.cold_per_day"):
        assert DEFINITIONS[key].setting.kind.span == f"0 to {MAX_LIMIT}"


def test_no_two_settings_share_a_variable() -> None:
    variables = [definition.variable for definition in DEFINITIONS.values()]
    assert len(set(variables)) == len(variables)
