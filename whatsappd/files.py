"""Files that commands write where their caller says: whole or not at all, and nowhere else.

Whoever names a file may name a directory that others can write to, /tmp for one, and root may be
the one who names it. So `new_file` follows no link at the file's name, and on the way there only
links that root or the caller made. It replaces regular files only: never /dev/null, a FIFO, a
socket or a directory. The content goes to a new file beside the old one, is on the disk before it
takes the name, and takes it in one step.

A process that is killed in the middle leaves a file named `.whatsappd-….new` behind, which the next
one to write in that directory removes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from whatsappd.errors import FileNotWritten

#: Nobody but the owner: for what holds secrets.
PRIVATE = 0o600
#: Everybody may read it.
PUBLIC = 0o644

_PREFIX, _SUFFIX = ".whatsappd-", ".new"
#: As many links on one way as the kernel follows.
_MOST_LINKS = 40
_PASS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def new_file(
    path: str | os.PathLike[str], *, mode: int, keep_mode: bool = False, replace: bool = True
) -> Iterator[BinaryIO]:
    """A file to write to, which gets the name `path` when the block ends without an error.

    An error in the block leaves what was at `path` as it was.

    Args:
        mode: the file's permissions, whatever the umask.
        keep_mode: a file of the caller's own that is replaced keeps its permissions instead.
        replace: False refuses a file that exists already.

    Raises:
        FileNotWritten: it cannot be written, or must not be; the message says why.
    """
    path = os.fspath(path)
    parent, name = os.path.split(path)
    if name in ("", ".", ".."):
        raise FileNotWritten(f"{path or '(empty)'}: give the name of a file", path=path)
    try:
        directory = _enter(path, parent)
        try:
            old = _existing(path, directory, name, replace=replace)
            if keep_mode and old is not None and old.st_uid == os.geteuid():
                mode = stat.S_IMODE(old.st_mode) & 0o777
            _remove_leftovers(directory)
            with _partial(directory) as (partial, file):
                yield file
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
                _existing(path, directory, name, replace=replace)
                _name(path, directory, partial, name, replace=replace)
                _check_named(path, directory, name, file)
        finally:
            os.close(directory)
    except OSError as error:
        raise FileNotWritten(f"{path}: {error.strerror or error}", path=path) from error


def write_file(
    path: str | os.PathLike[str], content: bytes, *, mode: int, keep_mode: bool = False
) -> None:
    """Write `content` to `path`, in one step; as `new_file`."""
    with new_file(path, mode=mode, keep_mode=keep_mode) as file:
        file.write(content)


# --- the way to it --------------------------------------------------------------------------------


def _enter(path: str, parent: str) -> int:
    """A descriptor of the directory `parent`.

    Step by step, because a link that is checked and then followed by its name may be another one
    by then.
    """
    at = os.open("/" if parent.startswith("/") else ".", _PASS | os.O_DIRECTORY)
    steps = parent.split("/")[::-1]
    links = 0
    try:
        while steps:
            step = steps.pop()
            if step in ("", "."):
                continue
            found = os.open(step, _PASS, dir_fd=at)
            if not stat.S_ISLNK(os.fstat(found).st_mode):
                os.close(at)
                at = found
                continue
            try:
                target = _target(path, step, found)
            finally:
                os.close(found)
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            steps += target.split("/")[::-1]
            if target.startswith("/"):
                os.close(at)
                at = os.open("/", _PASS | os.O_DIRECTORY)
        with suppress(PermissionError):  # it may let us write files, and not list them
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
        return os.dup(at)
    finally:
        os.close(at)


def _target(path: str, step: str, link: int) -> str:
    """Where a link on the way leads, if it is one to trust."""
    owner = os.fstat(link).st_uid
    if owner not in (0, os.geteuid()):
        raise FileNotWritten(
            f"{path}: {step!r} on the way there is a link that user {owner} made; "
            "name the directory itself",
            path=path,
        )
    return os.readlink("", dir_fd=link)


_KINDS = {
    stat.S_IFLNK: "a link, which is not followed",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _existing(path: str, directory: int, name: str, *, replace: bool) -> os.stat_result | None:
    """What is there now, if it may be replaced; None: nothing is."""
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no file")
        raise FileNotWritten(f"{path}: is {kind}; name a file", path=path)
    if not replace:
        raise FileNotWritten(
            f"{path}: exists already, and is not overwritten; name another file", path=path
        )
    return found


# --- the file itself ------------------------------------------------------------------------------


@contextmanager
def _partial(directory: int) -> Iterator[tuple[str, BinaryIO]]:
    """A new file without its final name, removed again if it did not get that."""
    while True:
        partial = f"{_PREFIX}{os.urandom(6).hex()}{_SUFFIX}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(partial, flags, 0o600, dir_fd=directory)
        with os.fdopen(descriptor, "wb") as file:
            # Says that its writer lives. It is removed meanwhile if another command looked at it
            # before it was locked.
            with suppress(OSError):  # a file system that knows no locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not os.fstat(descriptor).st_nlink:
                continue
            try:
                yield partial, file
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(partial, dir_fd=directory)
        return


def _name(path: str, directory: int, partial: str, name: str, *, replace: bool) -> None:
    if replace:
        os.rename(partial, name, src_dir_fd=directory, dst_dir_fd=directory)
    else:
        try:
            os.link(
                partial, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False
            )
        except PermissionError:  # a file system without links: then two steps must do
            _existing(path, directory, name, replace=False)
            os.rename(partial, name, src_dir_fd=directory, dst_dir_fd=directory)
        except FileExistsError:
            _existing(path, directory, name, replace=False)
            raise
    with suppress(PermissionError):
        _sync(directory)


def _check_named(path: str, directory: int, name: str, file: BinaryIO) -> None:
    """Whoever may rename files in that directory may have put another one in the place of ours.

    A file of our own user is none of theirs: another command may have written it since.
    """
    ours = os.fstat(file.fileno())
    named: os.stat_result | None = None
    with suppress(FileNotFoundError):
        named = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if named is not None:
        is_ours = (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino)
        if is_ours or (stat.S_ISREG(named.st_mode) and named.st_uid == ours.st_uid):
            return
    raise FileNotWritten(
        f"{path}: somebody replaced it meanwhile; name a file in a directory of your own",
        path=path,
    )


def _sync(directory: int) -> None:
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in (errno.EBADF, errno.EINVAL):  # one that cannot be read, or synced
            raise


def _remove_leftovers(directory: int) -> None:
    """Remove what commands left that were killed: files of ours that nobody holds."""
    try:
        names = os.listdir(directory)
    except OSError:
        return  # it may not be listed
    for name in names:
        if name.startswith(_PREFIX) and name.endswith(_SUFFIX):
            with suppress(OSError):  # another command is at it, or it is not ours
                _remove_if_left(directory, name)


def _remove_if_left(directory: int, name: str) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=directory)
    try:
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name, dir_fd=directory)
    finally:
        os.close(descriptor)
