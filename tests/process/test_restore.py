"""`whatsappd restore`: hostile files, a kill at any moment, and whose the files are afterwards."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import sqlite3
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from older_database import older_database

from whatsappd.check import _foreign_files
from whatsappd.errors import AlreadyRunning, BadBackup, BadStateDirectory
from whatsappd.model.content import Text
from whatsappd.owner_lock import hold_lock
from whatsappd.restore import finish_restore, is_cut_off, restore
from whatsappd.state_directory import REAL, StateDirectory
from whatsappd.store.backup_archive import (
    DATABASE,
    END,
    MANIFEST,
    FileEntry,
    Manifest,
    account_name,
    header,
    padding,
)
from whatsappd.store.sqlite.connect import connect_writer
from whatsappd.store.sqlite.database import open_database
from whatsappd.store.sqlite.event_log import open_event_log
from whatsappd.store.sqlite.migrations import migrations
from whatsappd.store.sqlite.outbox import open_outbox

SCHEMA = migrations()[-1].number


def database(path: Path, company: str) -> bytes:
    """The bytes of a daemon's database that knows `company`."""
    conn = connect_writer(path)
    conn.execute("INSERT INTO companies (company, wanted, created_ms) VALUES (?, 1, 1)", (company,))
    conn.execute("PRAGMA journal_mode = DELETE")
    conn.close()
    return path.read_bytes()


def account(path: Path, word: str) -> bytes:
    with sqlite3.connect(path) as conn:
        conn.execute("CREATE TABLE device (jid TEXT)")
        conn.execute("INSERT INTO device VALUES (?)", (word,))
    conn.close()
    return path.read_bytes()


def packed(name: str, content: bytes) -> bytes:
    return header(name, len(content), 0) + content + padding(len(content))


def manifest_of(contents: dict[str, bytes], /, **changes: object) -> bytes:
    entries = {
        name: FileEntry(len(content), hashlib.sha256(content).hexdigest())
        for name, content in contents.items()
    }
    made = json.loads(Manifest("1.0", 5, REAL, SCHEMA, entries).as_json())
    return json.dumps({**made, **changes}).encode()


def archive(contents: dict[str, bytes], /, **changes: object) -> bytes:
    members = b"".join(packed(name, content) for name, content in contents.items())
    return members + packed(MANIFEST, manifest_of(contents, **changes)) + END


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    """A state directory as a daemon leaves it, with a write-ahead log that was not folded in."""
    state = StateDirectory(tmp_path / "state")
    state.prepare()
    state.claim_mode(REAL)
    database(state.database, "old")
    state.database.with_name("whatsappd.db-wal").write_bytes(b"old log")
    state.company("old").mkdir()
    account(state.company("old") / "session.db", "old")
    return state


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    return {
        account_name("new"): account(tmp_path / "account.db", "new"),
        DATABASE: database(tmp_path / "daemon.db", "new"),
    }


def put_back(state: StateDirectory, file: Path, **more: bool) -> object:
    return restore(file, state, state.root / "d.sock", mode=REAL, **{"dry_run": False, **more})


def look(state: StateDirectory) -> tuple[list[str], list[str], bool]:
    """The companies that the database knows, those with an account, whether there is a log."""
    with sqlite3.connect(f"file:{state.database}?mode=ro&immutable=1", uri=True) as conn:
        known = [name for (name,) in conn.execute("SELECT company FROM companies")]
    conn.close()
    return known, sorted(state.accounts()), state.database.with_name("whatsappd.db-wal").exists()


OLD = (["old"], ["old"], True)


def test_an_archive_replaces_all_and_keeps_what_was_there(
    state: StateDirectory, files: dict[str, bytes], tmp_path: Path
) -> None:
    file = tmp_path / "backup.tar"
    file.write_bytes(archive(files))
    found = put_back(state, file, dry_run=True)
    assert (found.companies, found.kept) == (["new"], None)  # type: ignore[attr-defined]
    assert look(state) == OLD
    assert not list(state.root.glob("restoring*"))
    found = put_back(state, file)
    assert look(state) == (["new"], ["new"], False)
    kept: Path = found.kept  # type: ignore[attr-defined]
    assert look(StateDirectory(kept)) == OLD
    for path in [state.database, *state.companies.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0
    assert not is_cut_off(state)
    assert _foreign_files(state, os.geteuid()) == []


def test_a_bare_database_leaves_the_accounts_alone(
    state: StateDirectory, files: dict[str, bytes], tmp_path: Path
) -> None:
    file = tmp_path / "backup.db"
    file.write_bytes(files[DATABASE])
    put_back(state, file)
    assert look(state) == (["new"], ["old"], False)


async def test_a_backup_of_an_older_version_has_its_messages_as_contents(
    state: StateDirectory, tmp_path: Path
) -> None:
    file = tmp_path / "backup.db"
    with older_database(file, 17) as conn:
        conn.execute("INSERT INTO companies (company, wanted, created_ms) VALUES ('new', 1, 1)")
        conn.execute(
            "INSERT INTO outbox (id, company, chat, text, state, attempts, not_before_ms,"
            " on_uncertain, created_ms, updated_ms, lost_attempts)"
            " VALUES (1, 'new', '15550100@s.whatsapp.net', 'Grüße', 'sent', 1, 0, 'ask', 1, 1, 0)"
        )
    put_back(state, file)
    async with open_database(state.database) as opened:
        outbox = await open_outbox(opened, await open_event_log(opened))
        [row] = await outbox.view.list_rows("new")
        assert row.content == Text("Grüße")


def test_it_refuses_while_a_daemon_runs(
    state: StateDirectory, files: dict[str, bytes], tmp_path: Path
) -> None:
    file = tmp_path / "backup.db"
    file.write_bytes(files[DATABASE])
    with hold_lock(state.lock, socket=state.root / "d.sock", purpose="it"):
        with pytest.raises(AlreadyRunning):
            put_back(state, file)
        put_back(state, file, dry_run=True)
    assert look(state) == OLD


def links(kind: bytes) -> Callable[[dict[str, bytes]], bytes]:
    def made(files: dict[str, bytes]) -> bytes:
        info = tarfile.TarInfo(DATABASE)
        info.type, info.linkname = kind, "/etc/passwd"
        return info.tobuf() + archive(files)

    return made


def damaged_account(files: dict[str, bytes]) -> bytes:
    content = bytearray(files[account_name("new")])
    content[4096:] = b"\xff" * len(content[4096:])
    return archive({**files, account_name("new"): bytes(content)})


def swapped(files: dict[str, bytes]) -> bytes:
    return archive(files).replace(b"SQLite format 3\0", b"SQLite format 4\0", 1)


HOSTILE: dict[str, tuple[Callable[[dict[str, bytes]], bytes], str]] = {
    "empty": (lambda _f: b"", "damaged|cut off"),
    "text": (lambda _f: b"hello" * 1000, "damaged|cut off"),
    "another tar": (lambda _f: packed("notes.txt", b"x") + END, "notes.txt"),
    "cut off": (lambda f: archive(f)[: -len(END) - 1024], "damaged|cut off"),
    "cut in a file": (lambda f: archive(f)[:5000], "damaged|cut off"),
    "changed": (swapped, "checksums"),
    "up": (lambda f: archive({"../../evil": b"x", **f}), "evil"),
    "absolute": (lambda f: archive({"/tmp/evil": b"x", **f}), "evil"),
    "a company that is none": (
        lambda f: archive({"companies/../session.db": b"x", **f}),
        "session",
    ),
    "more than ours": (lambda f: archive({"companies/new/spool": b"x", **f}), "spool"),
    "a link": (links(tarfile.SYMTYPE), "whatsappd.db"),
    "a hard link": (links(tarfile.LNKTYPE), "whatsappd.db"),
    "a device": (links(tarfile.CHRTYPE), "whatsappd.db"),
    "twice": (lambda f: packed(DATABASE, f[DATABASE]) + archive(f), "whatsappd.db"),
    "no database": (lambda f: archive({account_name("new"): f[account_name("new")]}), "database"),
    "newer": (lambda f: archive(f, format=99), "newer whatsappd"),
    "a sandbox's": (lambda f: archive(f, mode="sandbox"), "sandbox accounts"),
    "no manifest": (lambda f: archive(f, kind="other"), "another program"),
    "a manifest of nonsense": (lambda f: archive(f, files=[1]), "manifest"),
    "a damaged account": (damaged_account, "account of new"),
    "an empty account": (lambda f: archive({**f, account_name("new"): b"xx" * 2000}), "account of"),
    "another database": (lambda f: f[account_name("new")], "no database of whatsappd"),
    "half a database": (lambda f: f[DATABASE][:20_000], "not sound"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_sound_backup_changes_nothing(
    name: str, state: StateDirectory, files: dict[str, bytes], tmp_path: Path
) -> None:
    make, words = HOSTILE[name]
    file = tmp_path / "backup"
    file.write_bytes(make(files))
    before = sorted(path.name for path in state.root.iterdir())
    for dry_run in (True, False):
        with pytest.raises(BadBackup, match=words):
            put_back(state, file, dry_run=dry_run)
    assert look(state) == OLD
    assert sorted({path.name for path in state.root.iterdir()} - {"whatsappd.lock"}) == before
    assert sorted(path.name for path in tmp_path.iterdir() if "evil" in path.name) == []


def test_a_database_of_a_newer_version_is_refused(
    state: StateDirectory, files: dict[str, bytes], tmp_path: Path
) -> None:
    file = tmp_path / "backup.db"
    file.write_bytes(files[DATABASE])
    with sqlite3.connect(file) as conn:
        conn.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    conn.close()
    with pytest.raises(BadBackup, match="newer"):
        put_back(state, file)
    assert look(state) == OLD


def killed_at(step: int, state: StateDirectory, file: Path) -> bool:
    """Restore in a child that is killed before its `step`-th change of the disk; whether it was."""
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        return os.WIFSIGNALED(status)
    left = step

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def changed(*arguments: object, **named: object) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return changed

    for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync", "ftruncate"):
        setattr(os, name, counted(getattr(os, name)))
    try:
        put_back(state, file)
    finally:
        os._exit(0)


def test_killed_at_any_moment_it_is_whole_or_not_at_all(
    files: dict[str, bytes], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path / "backup.tar"
    file.write_bytes(archive(files))
    outcomes = []
    for step in range(1, 200):
        state = StateDirectory(tmp_path_factory.mktemp("killed") / "state")
        state.prepare()
        state.claim_mode(REAL)
        database(state.database, "old")
        state.database.with_name("whatsappd.db-wal").write_bytes(b"old log")
        state.company("old").mkdir()
        account(state.company("old") / "session.db", "old")
        was_killed = killed_at(step, state, file)
        finished = finish_restore(state)  # as the next start of the daemon does
        found = look(state)
        assert found in (OLD, (["new"], ["new"], False)), (step, found)
        assert finished or found == OLD or not was_killed or step > 10
        outcomes.append(found == OLD)
        [*kept] = state.root.glob("before-restore-*")
        if found != OLD:
            assert look(StateDirectory(kept[0])) == OLD
        assert not is_cut_off(state)
        if not was_killed:
            break
    # Nothing at first, then all of it, and never back.
    assert outcomes == sorted(outcomes, reverse=True)
    assert {True, False} == set(outcomes)
    # What a kill left is gone after the next one.
    put_back(state, file)
    assert not list(state.root.glob("restoring*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can restore for another user")
def test_as_root_the_files_are_the_owners_and_no_link_leads_astray(
    state: StateDirectory, files: dict[str, bytes], tmp_path: Path
) -> None:
    nobody = 65534
    for path in [state.root, *state.root.rglob("*")]:
        os.chown(path, nobody, nobody)
    for path in (*tmp_path.parents, tmp_path):
        if path.stat().st_uid == 0 and str(path).startswith("/tmp/"):
            path.chmod(path.stat().st_mode | 0o011)
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o700)
    (state.root / "restoring").symlink_to(precious)  # what a worker that was taken over would plant
    file = tmp_path / "backup.tar"
    file.write_bytes(archive(files))
    file.chmod(0o600)
    pid = os.fork()
    if not pid:
        try:
            put_back(state, file)
            os._exit(0)
        except BadStateDirectory:
            os._exit(3)
        except BaseException:
            os._exit(4)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 3)
    assert list(precious.iterdir()) == []
    (state.root / "restoring").unlink(missing_ok=True)
    pid = os.fork()
    if not pid:
        try:
            put_back(state, file)
        except BaseException:
            os._exit(4)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert look(state)[:2] == (["new"], ["new"])
    for path in [state.root, *state.root.rglob("*")]:
        assert path.lstat().st_uid == nobody, path
    assert _foreign_files(state, nobody) == []


def test_check_says_whose_a_file_must_be(state: StateDirectory) -> None:
    findings = _foreign_files(state, os.geteuid() + 1)
    assert {finding.subject for finding in findings} >= {str(state.database), str(state.companies)}
    assert "chown" in findings[0].words
    state.database.chmod(stat.S_IRUSR)
    [finding] = _foreign_files(state, os.geteuid())
    assert "chmod 600" in finding.words


def test_a_manifest_tells_who_is_in_it() -> None:
    entry = FileEntry(1, "00")
    made = Manifest("1", 1, REAL, SCHEMA, {account_name("b"): entry, DATABASE: entry})
    assert json.load(io.BytesIO(made.as_json()))["companies"] == ["b"]
