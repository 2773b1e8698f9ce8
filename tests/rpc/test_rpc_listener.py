"""Making the socket: whom it may replace, and whom never."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from whatsappd.errors import AlreadyRunning, BadStateDirectory
from whatsappd.rpc.listener import (
    MAX_PATH,
    close_listener,
    inherited_listener,
    open_listener,
)
from whatsappd.rpc.peer_credentials import peer_of


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_the_directory_and_the_socket_have_their_modes_whatever_the_umask(tmp_path: Path, umask):
    directory = tmp_path / "run"
    before = os.umask(0o022)
    directory.mkdir()
    os.umask(umask)
    try:
        listener = open_listener(directory / "s", mode=0o660)
    finally:
        os.umask(before)
    assert mode_of(directory / "s") == 0o660
    close_listener(listener)
    assert list(directory.iterdir()) == []


def test_a_missing_directory_is_made_for_its_group_only(tmp_path: Path):
    listener = open_listener(tmp_path / "run" / "s")
    assert mode_of(tmp_path / "run") == 0o750
    close_listener(listener)


def test_a_stale_socket_is_replaced(tmp_path: Path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listener = open_listener(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    close_listener(listener)


def test_a_socket_that_answers_is_left_alone_and_its_owner_named(tmp_path: Path):
    path = tmp_path / "s"
    code = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]);"
        "s.listen(); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        other.stdout.readline()
        inode = path.lstat().st_ino
        with pytest.raises(AlreadyRunning, match=f"process {other.pid} listens") as caught:
            open_listener(path)
        assert caught.value.data["pid"] == other.pid
        assert path.lstat().st_ino == inode
        other.communicate()


def test_a_listener_that_is_too_busy_to_answer_is_left_alone(tmp_path: Path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(path))
        busy.listen(0)
        first.connect(str(path))
        with pytest.raises(AlreadyRunning, match="too busy"):
            open_listener(path)


@pytest.mark.parametrize("kind", ["file", "directory", "symlink to a file", "datagram socket"])
def test_what_is_no_stream_socket_is_never_removed(tmp_path: Path, kind: str):
    path = tmp_path / "s"
    match kind:
        case "file":
            path.write_text("precious")
        case "directory":
            path.mkdir()
        case "symlink to a file":
            (tmp_path / "precious").write_text("precious")
            path.symlink_to(tmp_path / "precious")
        case "datagram socket":
            datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            datagram.bind(str(path))
    with pytest.raises(BadStateDirectory, match=r"no socket|another kind"):
        open_listener(path)
    assert path.exists()
    if kind == "datagram socket":
        datagram.close()


def test_a_path_that_is_too_long_is_explained(tmp_path: Path):
    with pytest.raises(BadStateDirectory, match=f"Linux allows {MAX_PATH}.*--socket"):
        open_listener(tmp_path / ("x" * 108))
    path = str(tmp_path) + "/"
    path += "x" * (MAX_PATH - len(path))
    close_listener(open_listener(path))


def test_a_directory_that_cannot_be_made_is_explained(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadStateDirectory, match="cannot listen on"):
        open_listener(tmp_path / "file" / "s")


def test_closing_removes_only_our_own_file(tmp_path: Path):
    path = tmp_path / "s"
    listener = open_listener(path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        close_listener(listener)
        assert path.exists()


def test_of_many_at_the_same_moment_one_gets_a_stale_socket(tmp_path: Path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    def attempt(_: int) -> object:
        try:
            return open_listener(path)
        except AlreadyRunning as error:
            return error

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(attempt, range(8)))
    winners = [result for result in results if not isinstance(result, AlreadyRunning)]
    assert len(winners) == 1
    close_listener(winners[0])
    assert not path.exists()


def test_an_inherited_socket_is_served_and_its_file_is_not_ours(tmp_path: Path):
    path = tmp_path / "s"
    original = socket.socket(socket.AF_UNIX)
    original.bind(str(path))
    original.listen()
    listener = inherited_listener(original.detach())
    assert listener.path == str(path)
    assert not listener.socket.getblocking()
    close_listener(listener)
    assert path.exists()


def test_an_inherited_descriptor_of_another_kind_is_explained(tmp_path: Path):
    with (tmp_path / "file").open("w") as file, pytest.raises(BadStateDirectory, match="no socket"):
        inherited_listener(file.fileno())
    with socket.socket(socket.AF_UNIX) as idle, pytest.raises(BadStateDirectory, match="listening"):
        inherited_listener(idle.fileno())


def test_the_peer_of_a_client_is_who_listens(tmp_path: Path):
    listener = open_listener(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        groups = frozenset(os.getgroups())
        assert peer_of(client) == (os.getpid(), os.getuid(), os.getgid(), groups)
    close_listener(listener)
