"""The state directory: its layout, its permissions, and whether it is real or a sandbox's.

<state>/                0700
  whatsappd.lock        who owns it
  mode                  "real" or "sandbox", written once
  whatsappd.db          outbox, events, companies
  companies/<id>/       0700; session.db: one company's WhatsApp account
  backups/              0700; copies under way
  sandbox/              only in sandbox mode: the loopback WhatsApp's own state
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Annotated, NamedTuple

from msgspec import Struct

from whatsappd.errors import BadStateDirectory
from whatsappd.model.company import COMPANY_ID, validate_company
from whatsappd.model.paths import default_state_dir
from whatsappd.setting import HostDefault, setting
from whatsappd.working_directory import from_start

REAL = "real"
SANDBOX = "sandbox"


def _default(is_sandboxed: bool) -> Path:
    path = from_start(Path(default_state_dir()))
    return path.with_name(f"{path.name}-sandbox") if is_sandboxed else path


class StateSettings(Struct, frozen=True):
    directory: Annotated[
        Path,
        setting(
            "state_dir",
            "Where accounts, messages and events are kept. Mode 0700.",
            default=HostDefault(
                _default,
                "`/var/lib/whatsappd` for root, `$XDG_STATE_HOME/whatsappd` for users; in sandbox "
                "mode with `-sandbox` at its end",
            ),
        ),
    ]


class StateDirectory(NamedTuple):
    root: Path

    @property
    def lock(self) -> Path:
        return self.root / "whatsappd.lock"

    @property
    def database(self) -> Path:
        return self.root / "whatsappd.db"

    @property
    def companies(self) -> Path:
        return self.root / "companies"

    @property
    def sandbox(self) -> Path:
        return self.root / "sandbox"

    @property
    def mode(self) -> Path:
        return self.root / "mode"

    @property
    def backups(self) -> Path:
        return self.root / "backups"

    def accounts(self) -> dict[str, Path]:
        """The companies' own databases that there are, by company."""
        found = {}
        for directory in self.companies.iterdir():
            path = directory / "session.db"
            if path.is_file() and COMPANY_ID.match(directory.name):
                found[directory.name] = path
        return found

    def company(self, company: str) -> Path:
        """The directory of one company. The id is checked again here, where it becomes a path."""
        return self.companies / validate_company(company)

    def prepare(self) -> None:
        """Create what is missing, with the right permissions.

        Raises:
            BadStateDirectory: it cannot be created, is another user's, or is open to others.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            _require_private(self.root)
            self.companies.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise BadStateDirectory(
                f"state_dir: cannot use {self.root}: {error.strerror}; choose another with "
                "--state-dir or WHATSAPPD_STATE_DIR"
            ) from error

    def claim_mode(self, mode: str) -> None:
        """Mark the directory as `mode`'s for ever, or check that it is. Hold the lock.

        A sandbox's accounts are worthless and a real one's are not: neither may end up in a
        daemon of the other kind.

        Raises:
            BadStateDirectory: the directory was used in the other mode.
        """
        try:
            found = self.mode.read_text().strip()
        except FileNotFoundError:
            found = ""
        if not found:
            # A directory with accounts and no mark is from before marks, or was tampered with:
            # nothing in it was made by a sandbox, which always marks first.
            found = REAL if any(self.companies.iterdir()) else mode
            self._mark(found)
        if found != mode:
            other = "without --sandbox" if found == REAL else "with --sandbox"
            raise BadStateDirectory(
                f"state_dir: {self.root} belongs to {found} accounts and cannot be used in {mode} "
                f"mode; choose another directory, or start {other}",
                mode=found,
            )

    def _mark(self, mode: str) -> None:
        """All of it or nothing: half a mark would be one of neither mode."""
        partial = self.mode.with_name(f".{self.mode.name}.partial")
        try:
            with partial.open("w") as file:
                file.write(f"{mode}\n")
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.mode)
        except OSError as error:
            raise BadStateDirectory(
                f"state_dir: cannot mark {self.root} as one of {mode} accounts: {error.strerror}"
            ) from error


class Place(NamedTuple):
    """A file or directory as it was when it was taken into use."""

    path: Path
    device: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Place:
        """What is at `path` now. Raises OSError."""
        found = path.stat()
        return cls(path, found.st_dev, found.st_ino)

    def trouble(self) -> str | None:
        """What became of it, in words that follow its path; None if it is there, and can be
        written to. Asks the disk: call it in a thread."""
        try:
            found = self.path.stat()
            if (found.st_dev, found.st_ino) != (self.device, self.inode):
                return "was replaced by another one"
            if os.access(self.path, os.W_OK, effective_ids=True):
                return None
        except FileNotFoundError:
            return "was removed"
        except OSError as error:
            return f"cannot be reached ({error.strerror})"
        return "cannot be written to any more"


def _require_private(path: Path) -> None:
    found = path.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise BadStateDirectory(f"state_dir: {path} is no directory")
    if found.st_uid != os.geteuid():
        raise BadStateDirectory(
            f"state_dir: {path} belongs to user {found.st_uid}, not to this daemon's user "
            f"{os.geteuid()}; start it as that user, or choose another directory"
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise BadStateDirectory(
            f"state_dir: {path} is open to others (mode {stat.S_IMODE(found.st_mode):04o}): "
            f"it holds the keys of accounts; run `chmod 700 {path}`"
        )
