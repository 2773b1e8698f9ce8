"""Making, and removing, the Unix socket that the daemon listens on.

The composition root calls it while it holds the single-owner lock. A socket file that nobody
answers on is what a killed daemon leaves behind: it is replaced. One that somebody answers on, or
that is no socket, is never touched.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path
from typing import NamedTuple

import trio

from whatsappd.errors import AlreadyRunning, BadStateDirectory
from whatsappd.rpc.peer_credentials import peer_of

#: sockaddr_un.sun_path holds 108 bytes, one of them the closing zero (unix(7)).
MAX_PATH = 107
#: Connections that the kernel holds until they are accepted; it caps this at net.core.somaxconn.
BACKLOG = 1024
#: Who may enter the socket's directory, when it has to be made.
DIRECTORY_MODE = 0o750
#: Seconds that whoever listens on an existing socket has to take our connection.
PROBE_WITHIN = 1.0


class Listener(NamedTuple):
    """A listening, nonblocking socket, and which file is it.

    `inode` is (device, inode) of the file that we made; None for a socket that was inherited, whose
    file belongs to whoever made it.
    """

    socket: socket.socket
    path: str
    inode: tuple[int, int] | None


def open_listener(
    path: str | os.PathLike[str],
    *,
    mode: int = 0o660,
    group: int | None = None,
    option: str = "--socket or WHATSAPPD_SOCKET",
) -> Listener:
    """Listen on `path`; its directory is made if it is missing, with mode 0750.

    Blocks for at most PROBE_WITHIN seconds, when a file is there already.

    Args:
        mode: the socket file's permissions, whatever the umask; connecting needs write permission.
        group: the gid that the socket, and its directory if it has to be made, are given to;
            None: our own.
        option: what gives another path, for the errors.

    Raises:
        AlreadyRunning: somebody answers there; `data.pid` is the process that listens.
        BadStateDirectory: the path is too long, is no socket, or cannot be used.
    """
    path = os.fspath(path)
    check_path(path, option)
    try:
        _make_directory(Path(path).parent, group)
        # Between finding a socket stale and binding our own, nobody else may do the same.
        directory = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            _make_way(path, option)
            return _listen(path, mode, group)
        finally:
            os.close(directory)
    except OSError as error:
        raise BadStateDirectory(
            f"cannot listen on {path}: {error.strerror}: give another place with {option}",
            path=path,
        ) from error


def inherited_listener(descriptor: int) -> Listener:
    """The listener that systemd's socket activation passed as an open file descriptor.

    Raises:
        BadStateDirectory: the descriptor is no listening Unix stream socket.
    """
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise BadStateDirectory(
            f"file descriptor {descriptor} is no socket: {error.strerror}"
        ) from error
    listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM or not listening:
        sock.detach()
        raise BadStateDirectory(
            f"file descriptor {descriptor} is no listening Unix stream socket: "
            "the socket unit needs ListenStream= with a path"
        )
    sock.setblocking(False)
    sock.set_inheritable(False)
    return Listener(sock, os.fsdecode(sock.getsockname()), None)


def close_listener(listener: Listener) -> None:
    """Stop listening, and remove the socket's file if it is still the one that we made.

    Connections that nobody accepted are reset, so a client sees at once that nobody is there.
    """
    if listener.inode is not None and _inode(listener.path) == listener.inode:
        Path(listener.path).unlink(missing_ok=True)
    if trio.lowlevel.in_trio_run() and listener.socket.fileno() >= 0:
        trio.lowlevel.notify_closing(listener.socket)
    listener.socket.close()


def check_path(path: str, option: str = "--socket or WHATSAPPD_SOCKET") -> None:
    """Refuse a path that no Unix socket can have.

    Raises:
        BadStateDirectory: it is too long; the message says by how much, and what to do.
    """
    length = len(os.fsencode(path))
    if length > MAX_PATH:
        raise BadStateDirectory(
            f"the socket's path has {length} bytes, and Linux allows {MAX_PATH}: {path}: "
            f"give a shorter one with {option}",
            path=path,
        )


def _make_way(path: str, option: str) -> None:
    """Remove a stale socket.

    Raises:
        AlreadyRunning: it is not stale.
        BadStateDirectory: it is no socket.
    """
    try:
        found = Path(path).lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise BadStateDirectory(
            f"{path} exists and is no socket: move it away, or give another place with {option}",
            path=path,
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_WITHIN)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            Path(path).unlink(missing_ok=True)
            return
        except (TimeoutError, BlockingIOError) as error:
            # Its backlog is full: somebody listens, although they are too busy to answer.
            raise AlreadyRunning(
                f"another process listens on {path} and is too busy to answer: "
                f"stop it, or give another place with {option}",
                path=path,
            ) from error
        except OSError as error:
            if error.errno == errno.EPROTOTYPE:
                raise BadStateDirectory(
                    f"{path} is a socket of another kind: give another place with {option}",
                    path=path,
                ) from error
            raise
        pid = peer_of(probe).pid
    raise AlreadyRunning(
        f"process {pid} listens on {path} already: stop it, or give another place with {option}",
        path=path,
        pid=pid,
    )


def _make_directory(directory: Path, group: int | None) -> None:
    if directory.is_dir():
        return
    directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    if group is not None:
        _give(directory, group)
    directory.chmod(DIRECTORY_MODE)  # whatever the umask: the group must be able to enter


def _give(path: Path, group: int) -> None:
    """Change a file's group.

    Raises:
        BadStateDirectory: this user may not.
    """
    try:
        os.chown(path, -1, group)
    except PermissionError as error:
        raise BadStateDirectory(
            f"socket_group: this user may not give {path} to group {group}: make the user a "
            "member of that group, or leave socket_group out",
            path=str(path),
        ) from error


def _listen(path: str, mode: int, group: int | None) -> Listener:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # bind() takes the file's mode from the socket's, less the umask: never more than `mode`.
        os.fchmod(sock.fileno(), mode)
        sock.bind(path)
        if group is not None:
            _give(Path(path), group)
        Path(path).chmod(mode)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return Listener(sock, path, _inode(path))


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
