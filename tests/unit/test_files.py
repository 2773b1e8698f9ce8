"""Files that commands write: whole or not at all, and nowhere but where they are told."""

from __future__ import annotations

import os
import resource
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from whatsappd.errors import FileNotWritten
from whatsappd.files import PRIVATE, PUBLIC, new_file, write_file

OTHER_USER = 65534
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".new")]


def test_a_file_has_its_mode_whatever_the_umask(tmp_path: Path):
    before = os.umask(0o777)
    try:
        write_file(tmp_path / "public", b"1", mode=PUBLIC)
        write_file(tmp_path / "private", b"2", mode=PRIVATE)
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "public") == 0o644
    assert mode_of(tmp_path / "private") == 0o600
    assert (tmp_path / "public").read_bytes() == b"1"


def test_what_holds_secrets_is_private_also_where_it_replaces_what_was_not(tmp_path: Path):
    file = tmp_path / "qr.png"
    file.write_bytes(b"old")
    file.chmod(0o666)
    write_file(file, b"new", mode=PRIVATE)
    assert (file.read_bytes(), mode_of(file)) == (b"new", 0o600)


def test_a_file_of_ones_own_can_keep_its_mode(tmp_path: Path):
    file = tmp_path / "metrics.prom"
    file.write_bytes(b"old")
    file.chmod(0o640)
    write_file(file, b"new", mode=PUBLIC, keep_mode=True)
    assert (file.read_bytes(), mode_of(file)) == (b"new", 0o640)


@only_root
def test_the_mode_of_anothers_file_is_not_kept(tmp_path: Path):
    file = tmp_path / "metrics.prom"
    file.write_bytes(b"old")
    file.chmod(0o666)
    os.chown(file, OTHER_USER, OTHER_USER)
    write_file(file, b"new", mode=PUBLIC, keep_mode=True)
    assert (mode_of(file), file.stat().st_uid) == (0o644, 0)


@pytest.mark.parametrize("target", ["there", "missing"])
def test_a_link_is_not_followed_and_not_replaced(tmp_path: Path, target: str):
    (tmp_path / "there").write_bytes(b"precious")
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(FileNotWritten, match="is a link, which is not followed"):
        write_file(link, b"new", mode=PUBLIC)
    assert link.is_symlink()
    assert (tmp_path / "there").read_bytes() == b"precious"
    assert not (tmp_path / "missing").exists()


def test_what_another_name_of_the_same_file_shows_is_left_alone(tmp_path: Path):
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    (tmp_path / "file").hardlink_to(precious)
    write_file(tmp_path / "file", b"new", mode=PUBLIC)
    assert precious.read_bytes() == b"precious"


@pytest.mark.parametrize("kind", ["fifo", "socket", "directory", "device"])
def test_only_regular_files_are_replaced(tmp_path: Path, kind: str):
    path = tmp_path / "thing"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(str(path))
        case "directory":
            path.mkdir()
        case "device":
            if os.geteuid() != 0:
                pytest.skip("only root makes devices")
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    before = path.lstat()
    with pytest.raises(FileNotWritten, match=f"{path}: is a"):
        write_file(path, b"new", mode=PUBLIC)
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)


def test_links_of_ones_own_on_the_way_are_followed(tmp_path: Path):
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "absolute").symlink_to(tmp_path / "real")
    (tmp_path / "relative").symlink_to("absolute/deep")
    write_file(tmp_path / "relative" / ".." / "deep" / "file", b"1", mode=PUBLIC)
    assert (tmp_path / "real" / "deep" / "file").read_bytes() == b"1"


@only_root
def test_a_link_that_another_user_made_is_not_followed_on_the_way(tmp_path: Path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to("real")
    os.lchown(link, OTHER_USER, OTHER_USER)
    with pytest.raises(FileNotWritten, match="'link' on the way there is a link that user 65534"):
        write_file(link / "file", b"1", mode=PUBLIC)
    assert not list((tmp_path / "real").iterdir())


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing/file", "No such file or directory"),
        ("file/file", "Not a directory"),
        ("file/", "give the name of a file"),
        ("round/file", "Too many levels of symbolic links"),
        ("", "give the name of a file"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_way_that_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, reason: str
):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("round").symlink_to("round")
    with pytest.raises(FileNotWritten, match=reason):
        write_file(path, b"1", mode=PUBLIC)


def test_a_name_in_the_present_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_file("file", b"1", mode=PUBLIC)
    assert Path("file").read_bytes() == b"1"


def test_a_file_that_exists_is_kept_on_request(tmp_path: Path):
    file = tmp_path / "backup.db"
    with new_file(file, mode=PRIVATE, replace=False) as out:
        out.write(b"first")
    other = tmp_path / "other"
    with (
        pytest.raises(FileNotWritten, match="exists already"),
        new_file(file, mode=PRIVATE, replace=False),
    ):
        pass
    with (
        pytest.raises(FileNotWritten, match="exists already"),
        new_file(other, mode=PRIVATE, replace=False),
    ):
        other.write_bytes(b"meanwhile")
    assert file.read_bytes() == b"first"
    assert other.read_bytes() == b"meanwhile"


@contextmanager
def no_room_beyond(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_what_does_not_fit_leaves_the_old_file(tmp_path: Path):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    with no_room_beyond(1000), pytest.raises(FileNotWritten, match="File too large"):
        write_file(file, b"x" * 1_000_000, mode=PUBLIC)
    assert file.read_bytes() == b"old"


def test_an_error_while_it_is_made_leaves_the_old_file(tmp_path: Path):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    with pytest.raises(TypeError), new_file(file, mode=PUBLIC) as out:
        out.writelines([b"half", "no bytes"])  # type: ignore[list-item]
    assert file.read_bytes() == b"old"


KILLED = """
import os, signal, sys
from whatsappd.files import new_file
with new_file(sys.argv[1], mode=0o600) as out:
    out.write(b"half")
    out.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_command_left_is_removed_by_the_next(tmp_path: Path):
    file = tmp_path / "file"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(file)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.suffix for path in tmp_path.iterdir()] == [".new"]
    write_file(file, b"whole", mode=PUBLIC)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_another_command_is_writing_is_left_to_it(tmp_path: Path):
    with new_file(tmp_path / "one", mode=PUBLIC) as one:
        one.write(b"1")
        write_file(tmp_path / "two", b"2", mode=PUBLIC)
        write_file(tmp_path / "one", b"early", mode=PUBLIC)
    assert (tmp_path / "one").read_bytes() == b"1"
    assert (tmp_path / "two").read_bytes() == b"2"


@pytest.mark.parametrize("replace", [False, True])
def test_whoever_puts_a_link_in_its_place_meanwhile_gets_nothing_linked(
    tmp_path: Path, replace: bool
):
    victim, target = tmp_path / "victim", tmp_path / "backup.db"
    victim.write_text("secret")

    def write() -> None:
        with new_file(target, mode=PRIVATE, replace=replace) as file:
            file.write(b"content")
            [partial] = tmp_path.glob(".whatsappd-*.new")
            partial.unlink()
            partial.symlink_to(victim)

    with pytest.raises(FileNotWritten, match="somebody replaced it"):
        write()
    assert victim.stat().st_nlink == 1
    assert victim.read_text() == "secret"
