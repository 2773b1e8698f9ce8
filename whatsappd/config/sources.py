"""Where settings come from: the file, the environment, the command line; each weaker than the next.

Only gathers what was given, with its origin. `load` decides what it is worth.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from whatsappd.config.definitions import (
    ACCESS,
    DEFINITIONS,
    PREFIX,
    SECTIONS,
    nearest,
    nearest_section,
)
from whatsappd.config.kinds import masked

FILE_NAME = "whatsappd.toml"
SYSTEM_FILE = Path("/etc/whatsappd") / FILE_NAME
FILE_VARIABLE = PREFIX + "CONFIG"
#: Variables that begin like settings and are none.
_OTHER_VARIABLES = frozenset({FILE_VARIABLE, "WHATSAPPD_PRELOAD_PROBLEM"})


class Sources(NamedTuple):
    """What `whatsappd run` was started with; kept, so that a reload reads the same again."""

    environment: Mapping[str, str]
    #: By key: the option that gave it, and its text.
    arguments: Mapping[str, tuple[str, str]] = {}
    config: Path | None = None  # --config
    sandbox: bool = False
    sandbox_at: Path | None = None


class Problem(NamedTuple):
    """Something that must be mended before the daemon can start."""

    key: str
    value: str | None  # as it was written; None where there is none
    origin: str
    message: str  # what is wrong, and the remedy

    def __str__(self) -> str:
        value = "" if self.value is None else f" = {self.value}"
        return f"{self.key}{value} ({self.origin}): {self.message}"


class Given(NamedTuple):
    """A value as it was given."""

    value: Any
    origin: str
    is_text: bool  # from the environment or the command line, where everything is a text


class Gathered(NamedTuple):
    given: dict[str, list[Given]]  # by key, the strongest last
    rules: list[Any]  # the [[access]] tables
    file: Path | None  # that was read
    problems: list[Problem]
    warnings: list[str]

    def give(self, key: str, given: Given) -> None:
        self.given.setdefault(key, []).append(given)


def shown(value: Any) -> str:
    """A value for a complaint: short, and without passwords."""
    try:
        text = masked(f'"{value}"' if isinstance(value, str) else str(value))
    except ValueError:  # Python writes no number of thousands of digits
        return "a number of too many digits"
    return text if len(text) <= 100 else text[:100] + "…"


def gather(sources: Sources) -> Gathered:
    """Everything that was given, with what is wrong about its form."""
    gathered = Gathered({}, [], _file(sources), [], [])
    _read_file(sources, gathered)
    _read_environment(sources.environment, gathered)
    for key, (option, text) in sources.arguments.items():
        if key in DEFINITIONS:
            gathered.give(key, Given(text, option, True))
        else:
            gathered.problems.append(_unknown(key, text, option))
    return gathered


def _unknown(key: str, value: Any, origin: str) -> Problem:
    near = nearest_section(key) if isinstance(value, dict | list) else nearest(key)
    remedy = f"did you mean {near}?" if near else "`whatsappd check --sample` lists all settings"
    return Problem(key, shown(value), origin, f"there is no such setting; {remedy}")


# --- the file -----------------------------------------------------------------------------------


def _file(sources: Sources) -> Path | None:
    """The file to read: one that was named must exist, a default one may be missing."""
    named = sources.config or sources.environment.get(FILE_VARIABLE)
    if named:
        return Path(named).absolute()
    path = default_file(sources.environment)
    return path if path.exists() else None


def default_file(environment: Mapping[str, str]) -> Path:
    """Where the file is, unless somebody says otherwise.

    The system's for root, and for a systemd service, which is told so (CONFIGURATION_DIRECTORY,
    systemd.exec(5)); the user's for others, as the XDG specification says.
    """
    directory = environment.get("CONFIGURATION_DIRECTORY", "").split(":")[0]
    if directory:
        return Path(directory) / FILE_NAME
    if os.geteuid() == 0:
        return SYSTEM_FILE
    base = environment.get("XDG_CONFIG_HOME", "")
    root = Path(base) if base.startswith("/") else Path("~/.config").expanduser()
    return root / "whatsappd" / FILE_NAME


def _read_file(sources: Sources, gathered: Gathered) -> None:
    path = gathered.file
    if path is None:
        return
    named_by = "--config" if sources.config else FILE_VARIABLE
    try:
        with path.open("rb") as file:
            permissions = os.fstat(file.fileno())
            document = tomllib.load(file)
    except FileNotFoundError:
        message = f"there is no such file; correct {named_by}, or leave it out"
    except OSError as error:
        message = f"cannot be read: {error.strerror}; let the daemon's user read it"
    except (ValueError, RecursionError) as error:  # also for a number of thousands of digits
        message = f"is no TOML: {error}; `whatsappd check --sample` shows the form"
    else:
        if stat.S_ISREG(permissions.st_mode) and permissions.st_mode & 0o002:
            gathered.warnings.append(
                f"{path} can be written by every user of this host: run `chmod o-w {path}`"
            )
        _take_document(document, str(path), gathered)
        return
    gathered.problems.append(Problem("config", None, str(path), message))


def _take_document(document: dict[str, Any], origin: str, gathered: Gathered) -> None:
    for key, value in document.items():
        if key == ACCESS:
            if isinstance(value, list):
                gathered.rules.extend(value)
            else:
                message = "is no list of rules: write [[access]], with two brackets"
                gathered.problems.append(Problem(ACCESS, None, origin, message))
        elif key in SECTIONS:
            if isinstance(value, dict):
                for name, inner in value.items():
                    _take(f"{key}.{name}", inner, origin, gathered)
            else:
                message = f"is a section: write [{key}], and settings below it"
                gathered.problems.append(Problem(key, shown(value), origin, message))
        else:
            _take(key, value, origin, gathered)


def _take(key: str, value: Any, origin: str, gathered: Gathered) -> None:
    if key in DEFINITIONS:
        gathered.give(key, Given(value, origin, False))
    else:
        gathered.problems.append(_unknown(key, value, origin))


# --- the environment ----------------------------------------------------------------------------


def _read_environment(environment: Mapping[str, str], gathered: Gathered) -> None:
    keys = {definition.variable: key for key, definition in DEFINITIONS.items()}
    for variable, text in sorted(environment.items()):
        if not variable.startswith(PREFIX) or not text or variable in _OTHER_VARIABLES:
            continue
        if variable in keys:
            gathered.give(keys[variable], Given(text, variable, True))
            continue
        # No error: others set such variables too (Kubernetes does for a service of this name).
        near = nearest(variable.removeprefix(PREFIX).lower().replace("_", ".", 1))
        near = near or nearest(variable.removeprefix(PREFIX).lower())
        meant = f"; did you mean {DEFINITIONS[near].variable}?" if near in DEFINITIONS else ""
        gathered.warnings.append(f"{variable} is no setting, and ignored{meant}")
