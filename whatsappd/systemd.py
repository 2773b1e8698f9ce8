"""What systemd tells the daemon at its start, and what the daemon tells systemd from then on.

The protocols are those of sd_notify(3) and sd_listen_fds(3), which are few lines without a library.
`app` calls it; without systemd (no NOTIFY_SOCKET, no LISTEN_FDS) everything here does nothing.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import NamedTuple

import structlog
import trio

from whatsappd.errors import BadStateDirectory

log = structlog.get_logger()

#: The first descriptor that is passed (SD_LISTEN_FDS_START).
FIRST_DESCRIPTOR = 3
#: How long a systemd whose queue is full is waited for, in seconds; the event loop waits too.
SEND_WITHIN = 0.5
#: STATUS= is renewed at most this often, in seconds.
STATUS_PAUSE = 1.0
_NUMBER = re.compile(r"[0-9]{1,15}")

#: Answers None, or what is wrong.
Ask = Callable[[], Awaitable[str | None]]


class Launch(NamedTuple):
    """How the daemon was started, as far as systemd has a part in it."""

    notify: Notify
    watchdog_s: float | None  # a sign of life is due this often
    socket: int | None  # the listening socket that was passed


def take_launch(environment: MutableMapping[str, str]) -> Launch:
    """Read what systemd said, and remove it: children must not believe that it is for them.

    Raises:
        BadStateDirectory: more than one socket was passed, or what was said cannot be.
    """
    given = {
        name: environment.pop(name, "")
        for name in (
            *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
            *("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"),
        )
    }
    own = str(os.getpid())
    watchdog_us = _number("WATCHDOG_USEC", given) if given["WATCHDOG_PID"] in ("", own) else 0
    count = _number("LISTEN_FDS", given) if given["LISTEN_PID"] == own else 0
    for descriptor in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + count):
        try:
            os.set_inheritable(descriptor, False)
        except OSError as error:
            raise BadStateDirectory(
                f"LISTEN_FDS: {count} sockets are said to be passed, and descriptor {descriptor} "
                f"is not open ({error.strerror}): unset it, or start the daemon by systemd"
            ) from error
    if count > 1:
        raise BadStateDirectory(
            f"systemd passed {count} sockets, and the daemon listens on one: whatsappd.socket "
            "must have a single ListenStream="
        )
    return Launch(
        Notify(given["NOTIFY_SOCKET"]),
        watchdog_us / 1_000_000 if watchdog_us else None,
        FIRST_DESCRIPTOR if count else None,
    )


def _number(name: str, given: Mapping[str, str]) -> int:
    """0 where systemd says nothing."""
    text = given[name] or "0"
    if not _NUMBER.fullmatch(text):
        raise BadStateDirectory(
            f"{name}: {text!r:.80} is no number of systemd's: unset it, or start the daemon by "
            "systemd"
        )
    return int(text)


class Notify:
    """Sends to NOTIFY_SOCKET; with an empty `address`, to nobody."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._is_ready = False
        self._failed = False

    @property
    def is_heard(self) -> bool:
        return bool(self._address)

    def ready(self, status: str) -> None:
        """The socket answers."""
        self._is_ready = True
        self.send("READY=1", f"MAINPID={os.getpid()}", f"STATUS={status}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self.send(f"STATUS={status}")

    def watchdog(self) -> None:
        self.send("WATCHDOG=1")

    def reloading(self) -> None:
        """To be followed by `reloaded`, however the reload ends."""
        if self._is_ready:
            self.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        # A daemon that was told to reload while it starts is no sooner ready for it.
        if self._is_ready:
            self.send("READY=1")

    def stopping(self) -> None:
        self.send("STOPPING=1", "STATUS=stopping")

    def extend(self, seconds: float, status: str) -> None:
        """Ask for more time than the unit gives, counted from now."""
        self.send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}", f"STATUS={status}")

    def send(self, *assignments: str) -> None:
        """Send one datagram. A systemd that cannot take it is no reason to stop."""
        if not self._address:
            return
        # "@" stands for the zero byte that begins a name in the abstract namespace (unix(7)).
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                # The event loop waits too: once is enough.
                sender.settimeout(0 if self._failed else SEND_WITHIN)
                sender.sendto("\n".join(assignments).encode(errors="replace"), address)
        except OSError as error:
            if not self._failed:
                log.warning("systemd_not_told", reason=str(error))
            self._failed = True
        else:
            self._failed = False


async def keep_alive(notify: Notify, watchdog_s: float, ask: Ask) -> None:
    """Send WATCHDOG=1 twice in `watchdog_s` seconds, as long as `ask` finds nothing wrong.

    Nothing is sent if it does, or does not answer in time, or if the event loop hangs, which
    needs no asking: then systemd kills the daemon and starts a new one.
    """
    interval = watchdog_s / 2
    last: str | None = None
    while True:
        began = trio.current_time()
        trouble: str | None = f"no answer within {interval:g} s"
        with trio.move_on_after(interval):
            trouble = await ask()
        if trouble is None:
            notify.watchdog()
        elif trouble != last:
            log.error("watchdog_withheld", reason=trouble)
            notify.status(f"unhealthy: {trouble}")
        if last is not None and trouble is None:
            log.info("watchdog_resumed")
        last = trouble
        await trio.sleep_until(began + interval)


async def show_status(
    notify: Notify, describe: Callable[[], str], wait_changed: Callable[[], Awaitable[object]]
) -> None:
    """Keep STATUS= at what `describe` says; it is asked whenever `wait_changed` returns."""
    shown = ""
    while True:
        described = describe()
        if described != shown:
            notify.status(described)
            shown = described
        await wait_changed()
        await trio.sleep(STATUS_PAUSE)  # a burst of changes is one line


async def show_stopping(notify: Notify, within_s: float, remaining: Callable[[], int]) -> None:
    """Say how many sessions are still being stopped, and ask once for the time that may take.

    Args:
        within_s: the daemon ends by itself after so many seconds, whatever hangs.
    """
    shown: int | None = None
    while True:
        count = remaining()
        if shown is None:
            notify.extend(within_s, f"stopping: {count} sessions to go")
        elif count != shown:
            notify.status(f"stopping: {count} sessions to go")
        shown = count
        await trio.sleep(STATUS_PAUSE)
