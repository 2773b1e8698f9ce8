"""Deleting a company's directory: what its worker kept there, the account's keys above all."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import trio

from whatsappd.errors import StoreFailed


async def remove_directory(directory: Path) -> None:
    """Deletes the directory, if it is there.

    Raises:
        StoreFailed: something in it cannot be deleted; the rest may be.
    """
    try:
        await trio.to_thread.run_sync(_delete_tree, directory)
    except OSError as error:
        raise StoreFailed(
            f"{error.filename} cannot be deleted: {error.strerror}", path=str(directory)
        ) from error


def _delete_tree(directory: Path) -> None:
    """Delete it if it is there, whatever modes its worker gave to what is in it.

    A worker that strangers took over must not be able to make itself stay. A company may have a
    disk of its own, mounted here or behind a link: that is emptied.
    """
    if not directory.exists() and not directory.is_symlink():
        return
    place = directory.resolve()
    place.chmod(0o700)
    for at, directories, _files in os.walk(place):
        for name in directories:
            path = Path(at, name)
            if not path.is_symlink():
                path.chmod(0o700)
    for child in place.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()
    if directory.is_symlink():
        directory.unlink()
        return
    try:
        directory.rmdir()
    except OSError as error:
        if error.errno != errno.EBUSY:  # a disk is mounted there
            raise
