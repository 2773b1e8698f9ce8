"""Reads the settings and checks them as a whole; tells everything that is wrong at once.

`whatsappd run` and `whatsappd check` call it; so does a reload, with the same sources again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from whatsappd.config.access import group_id, parse_rule
from whatsappd.config.definitions import ACCESS, DEFINITIONS, Definition, parts
from whatsappd.config.quoting import quoted
from whatsappd.config.settings import Settings
from whatsappd.config.sources import ConfigProblem, Given, Sources, gather, shown
from whatsappd.config.value_formats import BadValue
from whatsappd.errors import BadConfiguration, InvalidParams
from whatsappd.model.access import AccessRule
from whatsappd.working_directory import from_start

DEFAULT = "default"


class Configuration(NamedTuple):
    """Settings, and where they came from."""

    settings: Settings
    origins: Mapping[str, str]  # by key: "default", a file's path, a variable or an option
    file: Path | None  # that was read
    warnings: tuple[str, ...]


def load(sources: Sources) -> Configuration:
    """Gather, parse and check everything.

    Raises:
        BadConfiguration: with all problems at once, each with key, value, origin and remedy.
    """
    gathered = gather(sources)
    problems = gathered.problems
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    is_sandboxed = sources.sandbox or sources.sandbox_at is not None
    for key, definition in DEFINITIONS.items():
        origins[key] = DEFAULT
        try:
            values[key] = definition.default_value(is_sandboxed=is_sandboxed)
        except InvalidParams as error:
            if key not in gathered.given:
                problems.append(ConfigProblem(key, None, DEFAULT, error.message))
        # The weaker ones too: a wrong value is a mistake also where another hides it.
        for given in gathered.given.get(key, ()):
            origins[key] = given.origin
            try:
                values[key] = _parse(definition, given)
            except BadValue as error:
                message = f"{error}; write {definition.format.accepts}"
                problems.append(ConfigProblem(key, shown(given.value), given.origin, message))
    rules = _rules(gathered.rules, str(gathered.file), problems)
    if not problems:
        settings = _build(values, rules, sources)
        problems += _contradictions(settings, origins)
    if problems:
        raise bad_configuration(problems)
    return Configuration(settings, origins, gathered.file, tuple(gathered.warnings))


def _parse(definition: Definition, given: Given) -> Any:
    parse = definition.format.from_text if given.is_text else definition.format.from_toml
    return parse(given.value)


def _rules(tables: list[Any], origin: str, problems: list[ConfigProblem]) -> tuple[AccessRule, ...]:
    rules: list[AccessRule] = []
    for number, table in enumerate(tables, 1):
        try:
            rules.append(parse_rule(table))
        except BadValue as error:
            problems.append(ConfigProblem(f"{ACCESS}[{number}]", shown(table), origin, str(error)))
    return tuple(rules)


def _build(values: dict[str, Any], rules: tuple[AccessRule, ...], sources: Sources) -> Settings:
    given: dict[str, dict[str, Any]] = {part: {} for part in parts()}
    for key, value in values.items():
        definition = DEFINITIONS[key]
        given[definition.part][definition.field] = value
    structures: dict[str, Any] = {
        part: structure(**given[part]) for part, structure in parts().items()
    }
    return Settings(
        **structures,
        access=rules,
        sandbox=sources.sandbox,
        sandbox_at=from_start(sources.sandbox_at) if sources.sandbox_at else None,
    )


def _contradictions(settings: Settings, origins: Mapping[str, str]) -> list[ConfigProblem]:
    """What is wrong although each value by itself is right."""
    found: list[ConfigProblem] = []

    def complain(key: str, message: str) -> None:
        value = DEFINITIONS[key].written(settings)
        found.append(ConfigProblem(key, value, origins[key], message))

    sessions = settings.sessions
    if sessions.retry_base_ms > sessions.retry_cap_ms:
        complain("sessions.retry_base", "is longer than sessions.retry_cap; write a shorter one")
    if sessions.health_deadline_s > sessions.health_interval_s:
        complain(
            "sessions.health_deadline",
            "is longer than sessions.health_interval, so checks would overlap; write a shorter one",
        )
    if settings.sandbox and settings.sandbox_at is not None:
        message = "is one sandbox too many; use --sandbox (its own) or --sandbox-at FILE, not both"
        found.append(
            ConfigProblem("sandbox_at", quoted(str(settings.sandbox_at)), "--sandbox-at", message)
        )
    if settings.socket.group:
        try:
            group_id(settings.socket.group)
        except KeyError:
            message = "this host has no such group; create it (`groupadd --system NAME`)"
            complain("socket_group", message)
    return found


def bad_configuration(problems: list[ConfigProblem]) -> BadConfiguration:
    """The error for `problems`: one line each, for people, and the same as data."""
    count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = "".join(f"\n  {problem}" for problem in problems)
    return BadConfiguration(
        f"the configuration has {count}:{lines}",
        problems=[problem._asdict() for problem in problems],
    )
