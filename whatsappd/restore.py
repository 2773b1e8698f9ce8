"""`whatsappd restore`: put a backup where the daemon's state is, whole or not at all.

What is in the backup is unpacked and checked beside the state first (`restoring/`). Then a journal
is written (`restore.json`), which says what is moved where; from that moment on the restore
happens: what was there before moves into `before-restore-TIME/`, and what was checked to its place.
Killed before the journal, nothing has changed; killed after it, the next `whatsappd run` or
`restore` finishes the moves (`finish_restore`), each of which may be repeated.

The lock of the state directory is held meanwhile, so no daemon begins in between, whoever wakes
one. As root, everything is done as the user who owns the state directory: so that user can read the
result, and no link that is planted there leads root astray.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, NamedTuple

from whatsappd.errors import BadBackup, BadStateDirectory
from whatsappd.owner_lock import hold_lock
from whatsappd.state_directory import StateDirectory
from whatsappd.store.backup_archive import unpack
from whatsappd.store.sqlite.connect import connect_still
from whatsappd.store.sqlite.integrity import check, check_account
from whatsappd.store.sqlite.migrations import schema_version

_SQLITE = b"SQLite format 3\0"
_CHUNK = 1 << 20
_JOURNAL = "restore.json"
_STAGE = "restoring"


class Restored(NamedTuple):
    """What was, or would be, restored.

    `companies` are those whose accounts came along; None: the backup has no accounts, and those
    that are here stay. `kept` is where what was there before is now; None: there was nothing, or
    it was a dry run.
    """

    companies: list[str] | None
    schema: int
    created_ms: int | None
    kept: Path | None


def restore(
    file: Path, state: StateDirectory, socket: Path, *, mode: str, dry_run: bool
) -> Restored:
    """Restore the backup `file` into the state directory of a daemon that does not run.

    Args:
        mode: of the daemon, real or sandbox: a backup of the other kind is refused.
        dry_run: check everything, and change nothing. A daemon may run.

    Raises:
        BadBackup: it is none, is damaged, or is of a newer version or the other mode.
        AlreadyRunning: a daemon runs there.
        BadStateDirectory: the directory cannot be used, or the disk is full.
    """
    try:
        backup = file.open("rb")
    except OSError as error:
        raise BadBackup(f"{file}: cannot be read: {error.strerror}") from error
    with backup:
        _become_owner(state)
        if dry_run:
            # Beside the state, if it is there: that is where there must be room.
            beside = state.root if state.root.exists() else None
            with TemporaryDirectory(prefix=f"{_STAGE}-", dir=beside) as directory:
                return _checked(file, backup, Path(directory) / _STAGE, mode)
        state.prepare()
        with hold_lock(state.lock, socket=socket, purpose=f"the state directory {state.root}"):
            finish_restore(state)
            state.claim_mode(mode)
            return _restore(file, backup, state, mode)


def _become_owner(state: StateDirectory) -> None:
    """As root, give up being root for good: from here on this is the state directory's owner."""
    if os.geteuid() != 0:
        return
    try:
        found = state.root.stat()
    except FileNotFoundError:
        raise BadStateDirectory(
            f"state_dir: {state.root} does not exist, so nobody knows whose it will be: start the "
            "service once and stop it again, or make the directory for the daemon's user "
            f"(`install -d -m 700 -o whatsappd -g whatsappd {state.root}`)"
        ) from None
    if found.st_uid:
        os.setgroups([])
        os.setresgid(found.st_gid, found.st_gid, found.st_gid)
        os.setresuid(found.st_uid, found.st_uid, found.st_uid)


def _restore(file: Path, backup: BinaryIO, state: StateDirectory, mode: str) -> Restored:
    stage = state.root / _STAGE
    shutil.rmtree(stage, ignore_errors=True)  # of a restore that was killed before its journal
    found = _checked(file, backup, stage, mode)
    now = f"before-restore-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    names = (now, *(f"{now}-{number}" for number in range(2, 100)))
    kept = next(path for name in names if not (path := state.root / name).exists())
    away = [f"whatsappd.db{suffix}" for suffix in ("", "-wal", "-shm")]
    in_place = ["whatsappd.db"]
    if found.companies is not None:
        away.append("companies")
        in_place.append("companies")
        (stage / "companies").mkdir(mode=0o700, exist_ok=True)
    _sync_tree(stage)
    journal: dict[str, object] = {"kept": kept.name, "away": away, "in_place": in_place}
    _write_journal(state, journal)
    finish_restore(state)
    return found._replace(kept=kept if kept.exists() else None)


def finish_restore(state: StateDirectory) -> bool:
    """Finish a restore that was killed in the middle, if there is one. Hold the lock.

    Whoever opens the state calls it first. Returns whether there was one.

    Raises:
        BadStateDirectory: it cannot be finished; the message says why.
    """
    path = state.root / _JOURNAL
    try:
        journal = json.loads(path.read_text())
    except FileNotFoundError:
        return False
    stage, kept = state.root / _STAGE, state.root / journal["kept"]
    try:
        # A file that is still in the stage has not come to its place: what stands there is old.
        for name in journal["away"]:
            is_done = name in journal["in_place"] and not (stage / name).exists()
            if not is_done and (state.root / name).exists():
                kept.mkdir(mode=0o700, exist_ok=True)
                (state.root / name).rename(kept / name)
        _sync(state.root)
        for name in journal["in_place"]:
            if (stage / name).exists():
                (stage / name).rename(state.root / name)
        _sync(state.root)
        path.unlink()
        shutil.rmtree(stage, ignore_errors=True)
        _sync(state.root)
    except OSError as error:
        raise BadStateDirectory(
            f"a restore was cut off and cannot be finished: {error.filename}: {error.strerror}"
        ) from error
    return True


# --- checking -------------------------------------------------------------------------------------


def _checked(file: Path, backup: BinaryIO, stage: Path, mode: str) -> Restored:
    """Unpack the backup into the new directory `stage`, and look at all of it."""
    try:
        stage.mkdir(mode=0o700)
        try:
            return _unpacked(backup, stage, mode)
        except BaseException:
            shutil.rmtree(stage, ignore_errors=True)
            raise
    except BadBackup as error:
        raise BadBackup(f"{file}: {error.message}") from error
    except OSError as error:
        raise BadStateDirectory(f"cannot unpack {file} in {stage}: {error.strerror}") from error


def _unpacked(backup: BinaryIO, stage: Path, mode: str) -> Restored:
    database = stage / "whatsappd.db"
    begin = backup.read(len(_SQLITE))
    backup.seek(0)
    companies: list[str] | None = None
    created_ms: int | None = None
    if begin == _SQLITE:
        _copy(backup, database)
    else:
        manifest = unpack(backup, stage)
        companies, created_ms = manifest.companies, manifest.created_ms
        if manifest.mode != mode:
            raise BadBackup(f"it is of {manifest.mode} accounts, and this daemon has {mode} ones")
        for company in companies:
            path = stage / "companies" / company / "session.db"
            _refuse(f"the account of {company}", check_account(path))
    _refuse("its database", check(database))
    with closing(connect_still(database)) as conn:
        schema = schema_version(conn)
    for leftover in stage.rglob("*.db-*"):  # of looking at them
        leftover.unlink()
    return Restored(companies, schema, created_ms, None)


def _refuse(what: str, findings: list[str]) -> None:
    if findings:
        raise BadBackup(f"{what} is not sound: {'; '.join(findings)[:300]}")


def _copy(backup: BinaryIO, target: Path) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        shutil.copyfileobj(backup, file, _CHUNK)
        file.flush()
        os.fsync(file.fileno())


# --- the disk -------------------------------------------------------------------------------------


def _write_journal(state: StateDirectory, journal: dict[str, object]) -> None:
    partial = state.root / f".{_JOURNAL}.partial"
    with partial.open("w") as file:
        json.dump(journal, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(state.root / _JOURNAL)
    _sync(state.root)


def _sync_tree(directory: Path) -> None:
    for path in [directory, *directory.rglob("*")]:
        if path.is_dir():
            _sync(path)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_cut_off(state: StateDirectory) -> bool:
    """Whether a restore was killed in the middle, and waits to be finished."""
    return (state.root / _JOURNAL).exists()
