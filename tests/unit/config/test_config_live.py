"""What a reload applies, what it leaves for a restart, and who is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from whatsappd.config.live import LiveSettings
from whatsappd.config.load import Configuration, load
from whatsappd.config.settings import Settings
from whatsappd.config.sources import Sources
from whatsappd.errors import BadConfiguration


def configuration(tmp_path: Path, toml: str) -> Configuration:
    path = tmp_path / "whatsappd.toml"
    path.write_text(toml)
    return load(Sources({}, config=path))


def live(tmp_path: Path, toml: str = "") -> LiveSettings:
    return LiveSettings(Sources({}), configuration(tmp_path, toml))


def test_live_settings_are_applied_and_others_wait_for_a_restart(tmp_path: Path) -> None:
    settings = live(tmp_path)
    seen: list[Settings] = []
    settings.follow(seen.append)
    toml = "log_level = 'debug'\n[queue]\nlimit = 5\n[alerts]\nrestarts_per_hour = 1\n"
    reload = settings.take(configuration(tmp_path, toml))
    assert [str(change) for change in reload.applied] == [
        'log_level: "info" → "debug"',
        "alerts.restarts_per_hour: 6 → 1",
    ]
    assert [str(change) for change in reload.needs_restart] == ["queue.limit: 10000 → 5"]
    assert settings.settings.logs.level == "debug"
    assert settings.settings.sessions.queue_limit == 10_000
    assert [each.logs.level for each in seen] == ["info", "debug"]


def test_what_waits_for_a_restart_is_told_at_every_reload(tmp_path: Path) -> None:
    settings = live(tmp_path)
    for _ in range(2):
        reload = settings.take(configuration(tmp_path, "[queue]\nlimit = 5\n"))
        assert len(reload.needs_restart) == 1
        assert reload.applied == ()
    assert settings.take(configuration(tmp_path, "")).needs_restart == ()


def test_access_rules_are_live(tmp_path: Path) -> None:
    settings = live(tmp_path)
    reload = settings.take(configuration(tmp_path, "[[access]]\nuser = 1000\n"))
    assert [str(change) for change in reload.applied] == ["access: 0 rules → 1 rule"]
    assert [rule.id for rule in settings.settings.access] == [1000]


def test_a_value_that_was_set_lasts_until_the_next_reload(tmp_path: Path) -> None:
    settings = live(tmp_path)
    settings.set("log_level", "debug")
    settings.set("alerts.restarts_per_hour", 2)
    assert settings.settings.logs.level == "debug"
    assert settings.settings.alerts.restarts == 2
    assert len(settings.take(configuration(tmp_path, "")).applied) == 2
    assert settings.settings.logs.level == "info"


def test_a_file_that_is_gone_changes_nothing(tmp_path: Path) -> None:
    """As while an editor, or a deployment, replaces it: access rules must not fall meanwhile."""
    file, away = tmp_path / "whatsappd.toml", tmp_path / "whatsappd.toml.bak"
    sources = Sources({"CONFIGURATION_DIRECTORY": str(tmp_path)})
    settings = LiveSettings(sources, load(sources))  # there is none, and none is missed
    assert settings.take(load(sources)).applied == ()
    file.write_text("[[access]]\nuser = 1000\n")
    settings.take(load(sources))
    seen: list[Settings] = []
    settings.follow(seen.append)
    file.rename(away)
    for _ in range(2):
        with pytest.raises(BadConfiguration, match=str(file)) as refused:
            settings.take(load(sources))
        [problem] = refused.value.data["problems"]
        assert (problem["key"], problem["origin"]) == ("config", str(file))
    assert [rule.id for rule in settings.settings.access] == [1000]
    assert len(seen) == 1
    away.rename(file)
    assert settings.take(load(sources)).applied == ()
