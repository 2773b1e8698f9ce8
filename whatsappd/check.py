"""`whatsappd check`: the settings in force and where each came from, and whether their host is fit.

Changes nothing, starts nothing, and may run beside the daemon. Whether a running daemon is well is
`whatsappctl health`'s business.
"""

from __future__ import annotations

import os
import pwd
import stat
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from whatsappd.config.definitions import DEFINITIONS
from whatsappd.config.load import DEFAULT, Configuration
from whatsappd.config.settings import Settings
from whatsappd.config.sources import Sources, default_file
from whatsappd.errors import BadStateDirectory
from whatsappd.model.access import AccessRule
from whatsappd.owner_lock import holder_of
from whatsappd.restore import is_cut_off
from whatsappd.rpc.listener import check_path
from whatsappd.state_directory import REAL, SANDBOX, StateDirectory
from whatsappd.store.sqlite.integrity import check as check_database
from whatsappd.store.sqlite.integrity import check_account


class CheckFinding(NamedTuple):
    """One thing that was looked at."""

    subject: str
    is_ok: bool
    words: str  # how it is; if it is not well, with the remedy


class CheckReport(NamedTuple):
    configuration: Configuration
    sources: Sources
    findings: list[CheckFinding]

    @property
    def is_ok(self) -> bool:
        return all(finding.is_ok for finding in self.findings)

    def as_wire(self) -> dict[str, Any]:
        settings, origins, file, warnings = self.configuration
        return {
            "ok": self.is_ok,
            "file": str(file) if file else None,
            "settings": {
                key: {
                    "value": tomllib.loads(f"value = {definition.written(settings)}")["value"],
                    "origin": origins[key],
                }
                for key, definition in DEFINITIONS.items()
            },
            "access": [_rule(rule) for rule in settings.access],
            "warnings": list(warnings),
            "findings": [finding._asdict() for finding in self.findings],
        }

    def lines(self) -> list[str]:
        """For people."""
        settings, origins, file, warnings = self.configuration
        usual = default_file(self.sources.environment)
        where = file or (f"none ({usual} does not exist)" if usual else "none")
        width = max(map(len, DEFINITIONS))
        values = {key: definition.written(settings) for key, definition in DEFINITIONS.items()}
        shown = max(map(len, values.values()))
        lines = [f"configuration file: {where}", ""]
        for key, value in values.items():
            origin = origins[key] if origins[key] != DEFAULT else "-"
            lines.append(f"{key:{width}}  {value:{shown}}  {origin}")
        lines += ["", *(f"access: {_rule(rule)}" for rule in settings.access)]
        if not settings.access:
            lines.append("access: no rules; whoever may connect to the socket may do everything")
        lines.append("")
        lines += [f"warning  {warning}" for warning in warnings]
        for finding in self.findings:
            lines.append(
                f"{'ok' if finding.is_ok else 'BAD':7}  {finding.subject}: {finding.words}"
            )
        return lines


def inspect(configuration: Configuration, sources: Sources) -> CheckReport:
    """Look at everything that the daemon will need of its host."""
    settings = configuration.settings
    state = StateDirectory(settings.state.directory)
    findings = [*_socket(settings), *_state(state, settings)]
    return CheckReport(configuration, sources, findings)


def _rule(rule: AccessRule) -> str:
    name = rule.name if rule.name == str(rule.id) else f"{rule.name} ({rule.id})"
    companies = "all companies" if rule.companies is None else ", ".join(sorted(rule.companies))
    return f"{rule.subject} {name}: {'reads' if rule.read_only else 'all of'} {companies}"


def _socket(settings: Settings) -> list[CheckFinding]:
    subject = f"socket {settings.socket.path}"
    try:
        check_path(str(settings.socket.path))
    except BadStateDirectory as error:
        return [CheckFinding(subject, False, error.message)]
    mode = f"mode {settings.socket.mode:04o}"
    return [
        CheckFinding(subject, True, f"{mode}, group {settings.socket.group or 'of the daemon'}")
    ]


def _state(state: StateDirectory, settings: Settings) -> list[CheckFinding]:
    subject = f"state directory {state.root}"
    try:
        found = state.root.stat()
    except FileNotFoundError:
        return [_missing(subject, state.root)]
    except OSError as error:
        words = f"cannot be looked at: {error.strerror}; run this as the daemon's user"
        return [CheckFinding(subject, False, words)]
    trouble = _permissions(state.root, found)
    if trouble:
        return [CheckFinding(subject, False, trouble)]
    try:
        return [
            _kind(subject, state, settings, found),
            *_foreign_files(state, found.st_uid),
            *_cut_off(state),
            *_databases(state),
        ]
    except OSError as error:
        words = f"cannot be read: {error.strerror}; run this as the daemon's user"
        return [CheckFinding(subject, False, words)]


def _missing(subject: str, root: Path) -> CheckFinding:
    parent = next(each for each in root.parents if each.exists())
    if os.access(parent, os.W_OK):
        return CheckFinding(subject, True, "is made at the first start")
    words = f"does not exist, and this user may not make it in {parent}; make it, with mode 0700"
    return CheckFinding(subject, False, words)


def _permissions(root: Path, found: os.stat_result) -> str | None:
    if not stat.S_ISDIR(found.st_mode):
        return "is no directory; move it away, or choose another"
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        return (
            f"is open to others (mode {mode:04o}), and holds the keys of accounts; run "
            f"`chmod 700 {root}`"
        )
    if os.geteuid() not in (0, found.st_uid):
        return f"belongs to user {_user(found.st_uid)}; run this, and the daemon, as that user"
    return None


def _kind(
    subject: str, state: StateDirectory, settings: Settings, found: os.stat_result
) -> CheckFinding:
    wanted = SANDBOX if settings.is_sandboxed else REAL
    mode = state.mode.read_text().strip() if state.mode.exists() else wanted
    if mode != wanted:
        other = "with --sandbox" if mode == SANDBOX else "without --sandbox"
        words = f"belongs to {mode} accounts; choose another, or start the daemon {other}"
        return CheckFinding(subject, False, words)
    companies = sum(1 for _ in state.companies.iterdir()) if state.companies.exists() else 0
    holder = holder_of(state.lock)
    used = f"in use by process {holder}" if holder else "not in use"
    owner = _user(found.st_uid)
    return CheckFinding(
        subject, True, f"{mode} accounts of {companies} companies, of {owner}, {used}"
    )


def _foreign_files(state: StateDirectory, owner: int) -> list[CheckFinding]:
    """What the daemon's user cannot read and write, whoever looks at it now."""
    daemon = _user(owner)
    findings: list[CheckFinding] = []
    for path in sorted(
        [*state.root.iterdir(), *state.companies.glob("*"), *state.companies.glob("*/*")]
    ):
        found = path.lstat()
        if path.name.startswith("before-restore-"):
            continue
        needed = 0o700 if stat.S_ISDIR(found.st_mode) else 0o600
        if found.st_uid != owner:
            words = (
                f"belongs to user {_user(found.st_uid)}, and the daemon is user {daemon}; "
                f"run `chown {daemon}: {path}`"
            )
            findings.append(CheckFinding(f"{path}", False, words))
        elif found.st_mode & needed != needed:
            words = (
                f"has mode {stat.S_IMODE(found.st_mode):04o}, with which user {daemon} cannot read "
                f"and write it; run `chmod {needed:o} {path}`"
            )
            findings.append(CheckFinding(f"{path}", False, words))
    return findings


def _cut_off(state: StateDirectory) -> list[CheckFinding]:
    if not is_cut_off(state):
        return []
    words = "was killed in the middle: the next start of the daemon finishes it"
    return [CheckFinding("restore", False, words)]


def _databases(state: StateDirectory) -> list[CheckFinding]:
    findings: list[CheckFinding] = []
    if state.database.exists():
        findings.append(_database(f"database {state.database}", check_database(state.database)))
    if state.companies.exists():
        for directory in sorted(state.companies.iterdir()):
            path = directory / "session.db"
            if path.exists():
                findings.append(_database(f"account {directory.name}", check_account(path)))
    return findings


def _database(subject: str, troubles: list[str]) -> CheckFinding:
    return CheckFinding(subject, not troubles, "; ".join(troubles) or "sound")


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
