"""The single-owner lock: one daemon per state directory, and a holder that has a name.

The lock is an flock(2) on a file, so it ends with the process that holds it, however that ends;
the file's text says who holds it. Called by `app` before anything else is opened.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import trio

from whatsappd.clock import now_ms
from whatsappd.errors import AlreadyRunning, BadStateDirectory, OwnershipLost

#: Seconds between two looks at whether the lock file is still the one that is locked.
LOOK_EVERY_S = 5.0


class HeldLock(NamedTuple):
    """The lock file, as it was locked."""

    path: Path
    descriptor: int

    async def watch(self) -> None:
        """Look at it now and then, until cancelled.

        Raises:
            OwnershipLost: it is no lock any more.
        """
        while True:
            await trio.sleep(LOOK_EVERY_S)
            loss = await trio.to_thread.run_sync(self.loss, abandon_on_cancel=True)
            if loss is not None:
                raise OwnershipLost(
                    f"the lock file {self.path} {loss} while the daemon ran: another daemon could "
                    "open the same accounts, so this one ends. Find out who removes files there, "
                    "then start it again"
                )

    def loss(self) -> str | None:
        """Why the lock is no lock any more, in words; None while it is one.

        Another process locks the file that is at the path: if that is no longer ours, both own
        what the lock is about.
        """
        ours = os.fstat(self.descriptor)
        try:
            found = self.path.stat()
        except FileNotFoundError:
            # Whoever removed the whole directory left nothing to own, and nobody to own it.
            return "was removed" if self.path.parent.is_dir() else None
        except OSError:
            return None  # nobody else reaches it either
        if (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino):
            return None
        return "was replaced by another file"


@contextmanager
def hold_lock(path: Path, *, socket: Path, purpose: str) -> Iterator[HeldLock]:
    """Hold the lock file at `path`; `socket` is where the holder can be reached.

    Raises:
        AlreadyRunning: another process holds it; the message names its pid, since when, and its
            socket.
        BadStateDirectory: the file cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise BadStateDirectory(f"cannot open the lock file {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _already_running(path, descriptor, purpose) from None
        holder = {"pid": os.getpid(), "since_ms": now_ms(), "socket": str(socket)}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield HeldLock(path, descriptor)
        # The text goes, the file stays: unlinking it would let two processes lock two files.
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def holder_of(path: Path) -> int | None:
    """The pid of the process that holds the lock file at `path`; None if nobody does.

    It is the kernel's list that is asked (proc_locks(5)): taking the lock to find out could make a
    daemon that starts at that moment give up.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()  # "1: FLOCK  ADVISORY  WRITE 4711 fd:01:1234 0 EOF"
        if fields[1] == "FLOCK" and fields[5] == place:
            return int(fields[4])
    return None


def _already_running(path: Path, descriptor: int, purpose: str) -> AlreadyRunning:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        since = datetime.fromtimestamp(holder["since_ms"] / 1000, UTC).isoformat("T", "seconds")
        return AlreadyRunning(
            f"another whatsappd already owns {purpose}: pid {holder['pid']}, since {since}, "
            f"reachable at {holder['socket']}; talk to it with whatsappctl, or stop it first",
            **holder,
        )
    except (ValueError, KeyError, TypeError, OverflowError):
        # Between taking the lock and writing its name the holder is anonymous, for microseconds.
        return AlreadyRunning(f"another whatsappd is just starting on {purpose} ({path})")
