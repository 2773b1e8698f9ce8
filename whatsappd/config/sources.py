"""Gathers what was given: by the file, the environment, the command line. A later one wins.

Each value comes with its origin. `load` decides whether it is right.
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
from whatsappd.config.quoting import masked
from whatsappd.model.paths import home
from whatsappd.working_directory import from_start

FILE_NAME = "whatsappd.toml"
SYSTEM_FILE = Path("/etc/whatsappd") / FILE_NAME
FILE_VARIABLE = PREFIX + "CONFIG"
#: Bytes. The sample, which explains everything, has 20,000.
MAX_FILE = 1 << 20
#: How often a file is read that changes meanwhile.
_TRIES = 5
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


class ConfigProblem(NamedTuple):
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
    problems: list[ConfigProblem]
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


def _unknown(key: str, value: Any, origin: str) -> ConfigProblem:
    near = nearest_section(key) if isinstance(value, dict | list) else nearest(key)
    remedy = f"did you mean {near}?" if near else "`whatsappd check --sample` lists all settings"
    return ConfigProblem(key, shown(value), origin, f"there is no such setting; {remedy}")


# --- the file -----------------------------------------------------------------------------------


def _file(sources: Sources) -> Path | None:
    """The file to read: one that was named must exist, a default one may be missing."""
    named = sources.config or sources.environment.get(FILE_VARIABLE)
    if named:
        return from_start(Path(named))
    path = default_file(sources.environment)
    # One that cannot be looked at is no missing one: reading it says what is wrong.
    return path if path is not None and _may_exist(path) else None


def _may_exist(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def default_file(environment: Mapping[str, str]) -> Path | None:
    """Where the file is, unless somebody says otherwise.

    The system's for root, and for a systemd service, which is told so (CONFIGURATION_DIRECTORY,
    systemd.exec(5)); the user's for others, as the XDG specification says. None: this user has no
    home.
    """
    directory = environment.get("CONFIGURATION_DIRECTORY", "").split(":")[0]
    if directory:
        return Path(directory) / FILE_NAME
    if os.geteuid() == 0:
        return SYSTEM_FILE
    base = environment.get("XDG_CONFIG_HOME", "")
    if base.startswith("/"):
        return Path(base) / "whatsappd" / FILE_NAME
    found = home()
    return None if found is None else Path(found) / ".config" / "whatsappd" / FILE_NAME


def _read_file(sources: Sources, gathered: Gathered) -> None:
    path = gathered.file
    if path is None:
        return
    named_by = "--config" if sources.config else FILE_VARIABLE
    try:
        text, permissions = _read(path)
        # Editors of other systems begin a file with a mark of its encoding.
        document = tomllib.loads(text.decode("utf-8-sig"))
    except _Unfit as error:
        message = str(error)
    except FileNotFoundError:
        message = f"there is no such file; correct {named_by}, or leave it out"
    except OSError as error:
        message = f"cannot be read: {error.strerror}; let the daemon's user read it"
    except UnicodeDecodeError as error:
        message = f"is no UTF-8 (byte {error.start}); save it as UTF-8"
    except (ValueError, RecursionError) as error:  # also for a number of thousands of digits
        message = f"is no TOML: {error}; `whatsappd check --sample` shows the form"
    else:
        if permissions & 0o002:
            gathered.warnings.append(
                f"{path} can be written by every user of this host: run `chmod o-w {path}`"
            )
        _take_document(document, str(path), gathered)
        return
    gathered.problems.append(ConfigProblem("config", None, str(path), message))


class _Unfit(Exception):
    """The file is of a kind or a size that settings do not have, or changes; the words say so."""


def _read(path: Path) -> tuple[bytes, int]:
    """What the file holds at one moment, and its permissions.

    Nothing here waits for anybody else: a FIFO has no bytes until somebody writes.

    Raises:
        _Unfit: it is no regular file, too large, or written to all the time.
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        for _ in range(_TRIES):
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise _Unfit("is no regular file; write the settings into one")
            text = os.pread(descriptor, MAX_FILE + 1, 0)
            if len(text) > MAX_FILE:
                raise _Unfit(f"is larger than {MAX_FILE >> 10} KiB: is it the right file?")
            after = os.fstat(descriptor)
            if (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, len(text)):
                return text, after.st_mode
    finally:
        os.close(descriptor)
    raise _Unfit("changes while it is read; write it anew, and move it into its place")


def _take_document(document: dict[str, Any], origin: str, gathered: Gathered) -> None:
    for key, value in document.items():
        if key == ACCESS:
            if isinstance(value, list):
                gathered.rules.extend(value)
            else:
                message = "is no list of rules: write [[access]], with two brackets"
                gathered.problems.append(ConfigProblem(ACCESS, None, origin, message))
        elif key in SECTIONS:
            if isinstance(value, dict):
                for name, inner in value.items():
                    _take(f"{key}.{name}", inner, origin, gathered)
            else:
                message = f"is a section: write [{key}], and settings below it"
                gathered.problems.append(ConfigProblem(key, shown(value), origin, message))
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
            if _is_utf8(text):
                gathered.give(keys[variable], Given(text, variable, True))
            else:
                message = "is no UTF-8 text; write it in UTF-8"
                gathered.problems.append(
                    ConfigProblem(keys[variable], shown(text), variable, message)
                )
            continue
        # No error: others set such variables too (Kubernetes does for a service of this name).
        near = nearest(variable.removeprefix(PREFIX).lower().replace("_", ".", 1))
        near = near or nearest(variable.removeprefix(PREFIX).lower())
        meant = f"; did you mean {DEFINITIONS[near].variable}?" if near in DEFINITIONS else ""
        gathered.warnings.append(f"{variable} is no setting, and ignored{meant}")


def _is_utf8(text: str) -> bool:
    """Python lets other bytes in, as halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
