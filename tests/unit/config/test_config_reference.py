"""The sample says what the parts declare."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from whatsappd.config.definitions import DEFINITIONS
from whatsappd.config.load import load
from whatsappd.config.reference import sample
from whatsappd.config.sources import Sources
from whatsappd.config.value_formats import Choice
from whatsappd.limits.settings import MAX_LIMIT, SendLimits
from whatsappd.logs.setup import LEVELS
from whatsappd.monitoring.settings import AlertSettings, RecycleSettings
from whatsappd.sessions.settings import RetentionSettings, SessionSettings


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
        assert definition.meaning.endswith("."), definition.key


def test_what_nobody_can_set_keeps_the_parts_own_value(tmp_path: Path) -> None:
    settings = load(load_text(tmp_path, "")).settings
    assert settings.send_limits == SendLimits()
    assert settings.retention == RetentionSettings()
    assert settings.sessions == SessionSettings()
    assert settings.alerts == AlertSettings()
    assert settings.recycling == RecycleSettings()


def test_the_choices_and_ranges_are_those_of_the_parts() -> None:
    assert DEFINITIONS["log_level"].format == Choice(LEVELS)
    for key in ("limits.per_company_per_minute", "outreach.cold_per_day"):
        assert DEFINITIONS[key].format.span == f"0 to {MAX_LIMIT}"


def test_every_default_can_be_written_and_is_in_its_range() -> None:
    for definition in DEFINITIONS.values():
        default = definition.default_value()
        written = tomllib.loads(f"value = {definition.format.as_toml(default)}")["value"]
        assert definition.format.from_toml(written) == default, definition.key


def test_no_two_settings_share_a_variable() -> None:
    variables = [definition.variable for definition in DEFINITIONS.values()]
    assert len(set(variables)) == len(variables)
