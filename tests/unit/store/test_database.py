"""The database: group commit, isolation of writes, and what it does when the host fails it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from whatsappd.errors import BadStateDirectory, Stopping, StoreFailed, TimedOut
from whatsappd.store.sqlite.backup import copy_database
from whatsappd.store.sqlite.connect import connect_writer
from whatsappd.store.sqlite.database import QUERIES, Database, open_database
from whatsappd.store.sqlite.integrity import check
from whatsappd.store.sqlite.migrations import migrations


def put(name: str):
    def write(conn: sqlite3.Connection) -> str:
        conn.execute("INSERT INTO consumers VALUES (?, 0, 0, 0)", (name,))
        return name

    return write


def names(conn: sqlite3.Connection) -> list[str]:
    return [name for (name,) in conn.execute("SELECT name FROM consumers ORDER BY name")]


async def copied(source: Path, target: Path) -> int:
    return await trio.to_thread.run_sync(
        copy_database, source, target, trio.from_thread.check_cancelled
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_write_is_on_disk_when_it_returns(database: Database) -> None:
    assert await database.write(put("one")) == "one"
    with contextlib.closing(sqlite3.connect(database.path)) as other:
        assert names(other) == ["one"]
    assert await database.read(names) == ["one"]
    assert database.size > 0


async def test_queries_of_callers_hold_up_no_read_of_the_daemons_own(database: Database) -> None:
    gate, inside = threading.Event(), threading.Semaphore(0)

    def slow(_conn: sqlite3.Connection) -> None:
        inside.release()
        assert gate.wait(10)

    async with trio.open_nursery() as nursery:
        for _ in range(2 * QUERIES):
            nursery.start_soon(database.query, slow)
        for _ in range(QUERIES):
            await trio.to_thread.run_sync(inside.acquire)
        assert await database.read(names) == []
        gate.set()


async def test_a_query_without_end_is_given_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whatsappd.store.sqlite.database.QUERY_S", 0.05)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with pytest.raises(TimedOut, match="longer than 0"):
        await database.query(lambda conn: conn.execute(endless).fetchone())
    assert await database.query(names) == []


async def test_all_files_are_private_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        async with open_database(path) as database:
            await database.write(put("one"))
            for suffix in ("", "-wal", "-shm"):
                assert mode(path.with_name(path.name + suffix)) == 0o600
            await copied(path, path.with_name("copy.db"))
            assert mode(path.with_name("copy.db")) == 0o600
    finally:
        os.umask(before)


async def test_a_file_with_wide_permissions_is_tightened(path: Path) -> None:
    path.touch()
    path.chmod(0o644)
    async with open_database(path):
        assert mode(path) == 0o600


async def test_writers_that_come_together_share_transactions(
    database: Database, busy_writer
) -> None:
    transactions = []

    class Counting:
        def mark(self) -> None: ...
        def rewind(self, mark: object) -> None: ...
        def flush(self, conn: sqlite3.Connection) -> None: ...
        def committed(self) -> None: ...
        def publish(self, payload: object) -> None:
            transactions.append(payload)

    database.attach(Counting())
    async with busy_writer() as nursery:
        for index in range(100):
            nursery.start_soon(database.write, put(f"{index:03}"))
    assert len(transactions) == 2
    assert len(await database.read(names)) == 100


async def test_a_failing_write_undoes_only_itself(database: Database, busy_writer) -> None:
    errors = []

    async def fail() -> None:
        def write(conn: sqlite3.Connection) -> None:
            conn.execute("INSERT INTO consumers VALUES ('half', 0, 0, 0)")
            raise RuntimeError("half way")

        with pytest.raises(RuntimeError, match="half way") as caught:
            await database.write(write)
        errors.append(caught.value)

    async with busy_writer() as nursery:
        nursery.start_soon(database.write, put("before"))
        nursery.start_soon(fail)
        nursery.start_soon(database.write, put("after"))
    assert await database.read(names) == ["after", "before"]
    assert len(errors) == 1
    assert database.trouble is None


async def test_what_follows_a_write_happens_also_without_a_waiter(
    database: Database, busy_writer, hang_up
) -> None:
    followed: list[str] = []
    await hang_up(lambda: database.write(put("one"), followed.append))
    assert followed == ["one"]

    async def write_and_look(name: str) -> None:
        await database.write(put(name), followed.append)
        assert name in followed  # before the waiter goes on

    async def fail() -> None:
        with pytest.raises(sqlite3.IntegrityError):
            await database.write(put("one"), followed.append)

    async with busy_writer() as nursery:
        for call, arguments in ((write_and_look, ["two"]), (fail, []), (write_and_look, ["three"])):
            nursery.start_soon(call, *arguments)
    assert sorted(followed) == ["one", "three", "two"]


async def test_a_cancelled_waiter_does_not_undo_its_write(database: Database, busy_writer) -> None:
    async with busy_writer() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(_cancel_when_blocked, scope)
            await database.write(put("kept"))
        assert scope.cancelled_caught
    await database.write(lambda _conn: None)
    assert await database.read(names) == ["kept"]


async def _cancel_when_blocked(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()


async def test_cancellation_before_the_call_prevents_the_write(database: Database) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await database.write(put("never"))
    assert scope.cancelled_caught
    await database.write(lambda _conn: None)
    assert await database.read(names) == []


async def test_closing_commits_what_was_submitted(path: Path) -> None:
    gate = threading.Event()
    async with trio.open_nursery() as nursery, open_database(path) as database:
        nursery.start_soon(database.write, lambda _conn: gate.wait(10))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(database.write, put("submitted"))
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    with pytest.raises(Stopping):
        await database.write(put("late"))
    with pytest.raises(Stopping):
        await database.read(names)
    async with open_database(path) as again:
        assert await again.read(names) == ["submitted"]


async def test_closing_leaves_one_file(path: Path) -> None:
    async with open_database(path) as database:
        await database.write(put("one"))
        await database.read(names)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


async def test_a_reader_cannot_write_and_sees_one_moment(database: Database) -> None:
    with pytest.raises(StoreFailed, match="read-only"):
        await database.read(lambda conn: conn.execute("DELETE FROM consumers"))

    def twice(conn: sqlite3.Connection) -> tuple[int, int]:
        first = len(names(conn))
        trio.from_thread.run(database.write, put("meanwhile"))
        return first, len(names(conn))

    assert await database.read(twice) == (0, 0)
    assert await database.read(names) == ["meanwhile"]


async def test_a_full_database_refuses_and_then_goes_on(database: Database, busy_writer) -> None:
    await database.write(put("accepted"))

    def limit(pages: int):
        return lambda conn: conn.execute(f"PRAGMA max_page_count = {pages}").fetchone()

    def fill(conn: sqlite3.Connection) -> None:
        conn.execute(
            "INSERT INTO companies (company, wanted, created_ms, settings) VALUES ('big', 1, 0, ?)",
            ("x" * 10**6,),
        )

    await database.write(limit(60))
    outcomes: dict[str, object] = {}

    async def attempt(name: str, write) -> None:
        try:
            outcomes[name] = await database.write(write)
        except StoreFailed as error:
            outcomes[name] = error

    async with busy_writer() as nursery:
        nursery.start_soon(attempt, "small", put("small"))
        nursery.start_soon(attempt, "big", fill)
        nursery.start_soon(attempt, "other", put("other"))
    assert isinstance(outcomes["big"], StoreFailed)
    assert "disk is full" in str(outcomes["big"])
    assert outcomes["small"] == "small"
    assert outcomes["other"] == "other"
    assert await database.read(names) == ["accepted", "other", "small"]

    await database.write(limit(100_000))
    await database.write(fill)
    assert database.trouble is None
    assert check(database.path) == []


# A disk that is really full: a file system of 1 MiB in a mount namespace of its own.
_FULL_DISK = """
import os, sys, trio
from pathlib import Path
from whatsappd.errors import StoreFailed
from whatsappd.store.sqlite.backup import copy_database
from whatsappd.store.sqlite.database import open_database
from whatsappd.store.sqlite.integrity import check

def put(name, size):
    return lambda conn: conn.execute(
        "INSERT INTO companies (company, wanted, created_ms, settings) VALUES (?, 1, 0, ?)",
        (name, "x" * size),
    ).rowcount

async def main():
    path = Path(sys.argv[1]) / "whatsappd.db"
    accepted = 0
    async with open_database(path) as database:
        try:
            while True:
                await database.write(put(f"company{accepted}", 20_000))
                accepted += 1
        except StoreFailed as error:
            print(error.message)
            assert database.trouble
        # Nothing that was answered is lost, and reading goes on.
        count = lambda conn: conn.execute("SELECT count(*) FROM companies").fetchone()[0]
        assert await database.read(count) == accepted > 5
        try:
            await trio.to_thread.run_sync(
                copy_database, path, path.with_name("copy.db"), trio.from_thread.check_cancelled
            )
        except StoreFailed:
            assert [entry.name for entry in path.parent.glob("*copy*")] == []
        else:
            raise AssertionError("the backup cannot have had room")
        try:
            with path.with_name("ballast").open("ab", buffering=0) as ballast:
                while True:
                    ballast.write(b"x" * 512)
        except OSError:
            pass
        try:
            for _ in range(100):  # the first ones go where the refused write has been
                await database.probe()
        except StoreFailed:
            assert database.trouble
            await database.write(lambda conn: None)
            assert database.trouble  # writing nothing proves nothing
        else:
            raise AssertionError("the probes cannot all have had room")
        os.remove(path.with_name("ballast"))
        await database.probe()
        assert database.trouble is None
        await database.write(put("after", 20_000))
    async with open_database(path) as database:
        assert await database.read(count) == accepted + 1
    assert check(path) == []

trio.run(main)
"""


def run_on_own_disk(commands: str, script: str) -> str:
    """Runs Python `script` behind shell `commands` that may mount; returns its output."""
    probe = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("no mount namespaces here, so no disk of our own")
    run = subprocess.run(
        ["unshare", "-rm", "sh", "-e", "-c", f'{commands}\nexec {sys.executable} -c "$0"', script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_a_full_disk_loses_nothing_and_work_goes_on(tmp_path: Path) -> None:
    told = run_on_own_disk(
        f"mount -t tmpfs -o size=1m,mode=700 none {tmp_path}\n"
        f"head -c 300000 /dev/zero > {tmp_path}/ballast",
        _FULL_DISK.replace("sys.argv[1]", repr(str(tmp_path))),
    )
    assert "the disk is full" in told


def test_a_read_only_disk_is_refused_with_a_remedy(tmp_path: Path) -> None:
    connect_writer(tmp_path / "whatsappd.db").close()
    told = run_on_own_disk(
        f"mount --bind {tmp_path} {tmp_path}\nmount -o remount,ro,bind {tmp_path}",
        f"""
from pathlib import Path
from whatsappd.errors import BadStateDirectory
from whatsappd.store.sqlite.backup import copy_database
from whatsappd.store.sqlite.connect import connect_writer
from whatsappd.store.sqlite.integrity import check
path = Path({str(tmp_path)!r}) / "whatsappd.db"
try:
    connect_writer(path)
except BadStateDirectory as error:
    print(error)
print(check(path))
""",
    )
    assert "Read-only file system" in told
    assert "is writable" in told
    assert told.endswith("\n[]\n")  # it can still be checked


async def test_a_newer_database_is_refused(path: Path) -> None:
    async with open_database(path):
        pass
    with contextlib.closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA user_version = 9999")
    with pytest.raises(BadStateDirectory, match=r"schema 9999.*newer version"):
        await _open(path)
    assert "newer version" in check(path)[0]


async def test_migrations_resume_where_a_crash_left_off(path: Path, monkeypatch) -> None:
    known = migrations()
    broken = known[-1]._replace(sql=known[-1].sql + "\nSELECT no_such_function();")
    monkeypatch.setattr(
        "whatsappd.store.sqlite.migrations.migrations", lambda: [*known[:-1], broken]
    )
    with pytest.raises(sqlite3.OperationalError):
        connect_writer(path)
    monkeypatch.undo()
    await _open(path)
    assert check(path) == []


async def test_foreign_and_broken_files_are_refused_with_a_remedy(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.db"
    with contextlib.closing(sqlite3.connect(foreign)) as conn:
        conn.execute("CREATE TABLE moz_places (id)")
    with pytest.raises(BadStateDirectory, match="another program"):
        await _open(foreign)

    text = tmp_path / "text.db"
    text.write_text("this is no database, and long enough to be looked at\n" * 50)
    with pytest.raises(StoreFailed, match=r"no SQLite database.*restore a backup"):
        await _open(text)
    assert "no SQLite database" in check(text)[0]

    with pytest.raises(BadStateDirectory, match="directory exists"):
        await _open(tmp_path / "missing" / "whatsappd.db")

    link = tmp_path / "link.db"
    link.symlink_to(foreign)
    with pytest.raises(BadStateDirectory):
        await _open(link)

    assert "does not exist" in check(tmp_path / "nothing.db")[0]
    (tmp_path / "empty.db").touch()
    assert "no database of whatsappd" in check(tmp_path / "empty.db")[0]


async def _open(path: Path) -> None:
    async with open_database(path):
        pass


async def test_check_finds_damage(path: Path) -> None:
    async with open_database(path) as database:
        for index in range(200):
            await database.write(put(f"{index:03}" + "x" * 60))
    assert check(path) == []
    content = bytearray(path.read_bytes())
    content[-2 * 4096 : -4096] = os.urandom(4096)
    path.write_bytes(content)
    assert check(path)


async def test_damage_while_running_is_an_error_with_a_remedy(path: Path) -> None:
    async with open_database(path) as database:
        for index in range(500):
            await database.write(put(f"{index:03}" + "x" * 60))
    content = bytearray(path.read_bytes())
    pages = len(content) // 4096
    for page in range(pages - 6, pages):  # the rows' own, which are the newest
        content[page * 4096 : (page + 1) * 4096] = os.urandom(4096)
    path.write_bytes(content)
    async with open_database(path) as database:
        with pytest.raises(StoreFailed, match=r"damaged.*restore a backup"):
            await database.read(names)


async def test_a_backup_is_one_consistent_moment_under_load(
    database: Database, tmp_path: Path
) -> None:
    # Each write adds a pair: a copy that holds half of one would be torn.
    def pair(index: int):
        def write(conn: sqlite3.Connection) -> None:
            conn.execute("INSERT INTO consumers VALUES (?, 0, 0, 0)", (f"{index:06}a" * 50,))
            conn.execute("INSERT INTO consumers VALUES (?, 0, 0, 0)", (f"{index:06}b" * 50,))

        return write

    for index in range(300):
        await database.write(pair(index))
    target = tmp_path / "copy.db"

    async with trio.open_nursery() as nursery:

        async def load() -> None:
            for index in range(1000, 100_000):
                await database.write(pair(index))

        nursery.start_soon(load)
        size = await copied(database.path, target)
        nursery.cancel_scope.cancel()
    assert size == target.stat().st_size
    assert check(target) == []
    assert not target.with_name("copy.db-wal").exists()
    async with open_database(target) as copy:
        found = await copy.read(names)
    assert len(found) >= 600
    assert len(found) % 2 == 0


async def test_a_copy_overwrites_nothing(database: Database, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    with pytest.raises(FileExistsError):
        await copied(database.path, target)
    assert target.read_text() == "precious"


async def test_a_cancelled_copy_leaves_nothing(database: Database, tmp_path: Path) -> None:
    await database.write(put("one"))
    with trio.CancelScope() as scope:
        scope.cancel()
        await copied(database.path, tmp_path / "copy.db")
    assert scope.cancelled_caught
    assert list(tmp_path.glob("*copy*")) == []


def test_a_killed_process_loses_nothing_that_was_answered(path: Path) -> None:
    script = """
import os, sys, trio
from pathlib import Path
from whatsappd.store.sqlite.database import open_database

async def main():
    async with open_database(Path(sys.argv[1])) as database, trio.open_nursery() as nursery:
        async def load(worker):
            for index in range(10**9):
                name = f"{worker}-{index}"
                await database.write(
                    lambda conn: conn.execute("INSERT INTO consumers VALUES (?, 0, 0, 0)", (name,))
                    and None
                )
                os.write(1, f"{name}\\n".encode())
        for worker in range(20):
            nursery.start_soon(load, worker)
trio.run(main)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        answered = [process.stdout.readline().strip() for _ in range(2000)]
        process.kill()
        answered += process.stdout.read().split("\n")[:-1]
    with contextlib.closing(connect_writer(path)) as conn:
        kept = set(names(conn))
    assert set(answered) <= kept
    assert check(path) == []


async def test_a_defect_ends_neither_the_writer_nor_those_who_wait(database: Database) -> None:
    class Broken:
        fails = True

        def mark(self) -> None: ...

        def rewind(self, _mark: None) -> None: ...

        def flush(self, _conn: sqlite3.Connection) -> None: ...

        def committed(self) -> None:
            if self.fails:
                raise KeyError("a defect")

        def publish(self, _payload: None) -> None:
            raise KeyError("another")

    def fail(_result: object) -> None:
        raise RuntimeError("a third")

    broken = Broken()
    database.attach(broken)
    with trio.fail_after(20), capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(StoreFailed, match="an error in whatsappd: KeyError"):
                await database.write(lambda conn: conn.execute("SELECT 1").fetchone())
        assert "KeyError" in (database.trouble or "")
        broken.fails = False
        with pytest.raises(RuntimeError, match="a third"):
            await database.write(lambda conn: conn.execute("SELECT 1").fetchone(), fail)
        await database.probe()
    assert database.trouble is None
    assert {line["event"] for line in logs} == {
        *("writer_failed", "not_published", "not_put_in_force"),
    }
