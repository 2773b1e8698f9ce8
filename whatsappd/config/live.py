"""The settings in force, and what a reload changes in them.

`app` holds one `LiveSettings`; parts that follow a setting while the daemon runs register with it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import structs

from whatsappd.config.definitions import ACCESS, DEFINITIONS
from whatsappd.config.load import Configuration, bad_configuration
from whatsappd.config.settings import Settings
from whatsappd.config.sources import ConfigProblem, Sources


class SettingChange(NamedTuple):
    """One setting that is not what it was, both values as they are written."""

    key: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.key}: {self.before} → {self.after}"


class Reload(NamedTuple):
    """What taking up a configuration changed, and what it could not change."""

    applied: tuple[SettingChange, ...]
    needs_restart: tuple[SettingChange, ...]


class LiveSettings:
    """`settings` are those in force; `sources` is what a reload has to load again."""

    def __init__(self, sources: Sources, configuration: Configuration) -> None:
        self.sources = sources
        self.settings = configuration.settings
        self.warnings = configuration.warnings
        self._file = configuration.file
        self._followers: list[Callable[[Settings], None]] = []

    @property
    def file(self) -> Path | None:
        """The file that was read; None if there is none."""
        return self._file

    def follow(self, follower: Callable[[Settings], None]) -> None:
        """Call `follower` with the settings in force: now, and after each change."""
        self._followers.append(follower)
        follower(self.settings)

    def take(self, configuration: Configuration) -> Reload:
        """Put in force what can be while the daemon runs.

        Raises:
            BadConfiguration: the file that holds them is gone; nothing was changed. A default file
                may be missing when the daemon starts; but one that was there and is not was moved
                away for a moment, or by mistake, and without it no access rule would be left.
        """
        if configuration.file is None and self._file is not None:
            message = (
                "is gone, and what is in force stays; put it back (an empty one does), or restart "
                "the daemon to run without it"
            )
            raise bad_configuration([ConfigProblem("config", None, str(self._file), message)])
        self._file = configuration.file
        wanted = configuration.settings
        settings = self.settings
        applied: list[SettingChange] = []
        needs_restart: list[SettingChange] = []
        for key, definition in DEFINITIONS.items():
            before, after = definition.of(self.settings), definition.of(wanted)
            if before == after:
                continue
            written = definition.format.as_toml
            change = SettingChange(key, written(before), written(after))
            if definition.is_live:
                applied.append(change)
                settings = definition.replaced(settings, after)
            else:
                needs_restart.append(change)
        if settings.access != wanted.access:
            change = SettingChange(ACCESS, _count(settings.access), _count(wanted.access))
            applied.append(change)
            settings = structs.replace(settings, access=wanted.access)
        self.warnings = configuration.warnings
        self._put_in_force(settings)
        return Reload(tuple(applied), tuple(needs_restart))

    def set(self, key: str, value: Any) -> None:
        """Change one setting that can be changed, until the next reload or start."""
        definition = DEFINITIONS[key]
        assert definition.is_live
        self._put_in_force(definition.replaced(self.settings, value))

    def _put_in_force(self, settings: Settings) -> None:
        """Tell every follower, also where one of them fails: rights may depend on the next one."""
        self.settings = settings
        failed: list[Exception] = []
        for follower in self._followers:
            try:
                follower(settings)
            except Exception as error:  # noqa: BLE001 - all of them are raised below
                failed.append(error)
        if failed:
            raise ExceptionGroup("settings that could not be put in force", failed)


def _count(rules: tuple[Any, ...]) -> str:
    return f"{len(rules)} rule{'' if len(rules) == 1 else 's'}"
