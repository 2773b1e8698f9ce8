"""What is read from systemd's environment, and when the watchdog is fed, on a clock of our own."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from whatsappd.errors import BadStateDirectory
from whatsappd.systemd import (
    FIRST_DESCRIPTOR,
    STATUS_PAUSE,
    Notify,
    keep_alive,
    show_status,
    show_stopping,
    take_launch,
)


class Receiver:
    """The other end of NOTIFY_SOCKET; nothing waits for it, so the test's clock may jump."""

    def __init__(self, path: Path) -> None:
        self.notify = Notify(str(path))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))

    async def wait(self) -> None:
        """Wait until something has arrived."""
        await trio.lowlevel.wait_readable(self._socket)

    def take(self) -> list[str]:
        """All assignments since the last call."""
        found: list[str] = []
        while True:
            try:
                found += self._socket.recv(4096).decode().split("\n")
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    receiver = Receiver(tmp_path / "notify")
    yield receiver
    receiver.close()


async def feed(
    receiver: Receiver, ask: Callable[[], Awaitable[str | None]], seconds: float
) -> list[str]:
    with trio.move_on_after(seconds):
        await keep_alive(receiver.notify, 10, ask)
    return receiver.take()


async def test_a_healthy_daemon_feeds_the_watchdog_twice_per_interval(
    receiver: Receiver, autojump_clock: trio.testing.MockClock
) -> None:
    async def ask() -> str | None:
        await trio.sleep(1)  # asking takes time, and must not slow the feeding down
        return None

    # A socket holds ten datagrams until somebody reads them (net.unix.max_dgram_qlen).
    assert await feed(receiver, ask, 41.5) == ["WATCHDOG=1"] * 9


async def test_one_that_finds_something_wrong_does_not(
    receiver: Receiver, autojump_clock: trio.testing.MockClock
) -> None:
    async def ask() -> str | None:
        return "no good"

    assert await feed(receiver, ask, 100) == ["STATUS=unhealthy: no good"]


async def test_one_whose_parts_do_not_answer_does_not(
    receiver: Receiver, autojump_clock: trio.testing.MockClock
) -> None:
    assert await feed(receiver, trio.sleep_forever, 100) == [
        "STATUS=unhealthy: no answer within 5 s"
    ]


async def test_it_is_fed_again_once_all_is_well(
    receiver: Receiver, autojump_clock: trio.testing.MockClock
) -> None:
    async def ask() -> str | None:
        await trio.lowlevel.checkpoint()
        return None if not 15 < trio.current_time() - began < 30 else "no good"

    began = trio.current_time()
    told = await feed(receiver, ask, 41)
    assert told == ["WATCHDOG=1"] * 4 + ["STATUS=unhealthy: no good"] + ["WATCHDOG=1"] * 3


async def test_a_loop_that_hangs_feeds_nothing(receiver: Receiver) -> None:
    """On the real clock: a task that does not yield holds up the feeding, as it must."""

    async def ask() -> str | None:
        await trio.lowlevel.checkpoint()
        return None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_alive, receiver.notify, 0.02, ask)
        await receiver.wait()
        assert "WATCHDOG=1" in receiver.take()
        ends = trio.current_time() + 0.2
        while trio.current_time() < ends:
            pass
        assert receiver.take() == []
        nursery.cancel_scope.cancel()


async def test_the_status_follows_changes_and_is_told_once_each(
    receiver: Receiver, autojump_clock: trio.testing.MockClock
) -> None:
    descriptions = iter(["one", "one", "two", "three"])

    async def changed() -> None:
        await trio.sleep(1)

    with trio.move_on_after(4 * (1 + STATUS_PAUSE) - 0.5):
        await show_status(receiver.notify, lambda: next(descriptions), changed)
    assert receiver.take() == ["STATUS=one", "STATUS=two", "STATUS=three"]


async def test_time_for_the_stop_is_asked_for_once_and_progress_is_shown(
    receiver: Receiver, autojump_clock: trio.testing.MockClock
) -> None:
    counts = iter([3, 3, 2, 2, 2, 2, 2, 2, 2, 2])
    with trio.move_on_after(9.5 * STATUS_PAUSE):
        await show_stopping(receiver.notify, 15, lambda: next(counts))
    assert receiver.take() == [
        "EXTEND_TIMEOUT_USEC=15000000",
        "STATUS=stopping: 3 sessions to go",
        "STATUS=stopping: 2 sessions to go",
    ]


def test_without_systemd_nothing_is_there_and_telling_does_nothing() -> None:
    launch = take_launch({"PATH": "/bin"})
    assert (launch.watchdog_s, launch.socket) == (None, None)
    assert not launch.notify.is_heard
    launch.notify.ready("all well")


def test_a_reload_before_the_daemon_is_ready_makes_it_no_sooner_ready(receiver: Receiver) -> None:
    receiver.notify.reloading()
    receiver.notify.reloaded()
    assert receiver.take() == []
    receiver.notify.ready("all well")
    receiver.take()
    receiver.notify.reloading()
    receiver.notify.reloaded()
    reloading, at, ready = receiver.take()
    assert (reloading, at.partition("=")[0], ready) == ("RELOADING=1", "MONOTONIC_USEC", "READY=1")


def test_a_manager_that_is_gone_disturbs_nothing(tmp_path: Path) -> None:
    Notify(str(tmp_path / "nobody")).watchdog()
    Notify("/" + "x" * 200).watchdog()


def test_what_was_said_is_taken_out_of_the_environment() -> None:
    environment = {
        "NOTIFY_SOCKET": "@x",
        "WATCHDOG_USEC": "2000000",
        "WATCHDOG_PID": str(os.getpid()),
        "LISTEN_PID": "1",
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "whatsappd.socket",
        "PATH": "/bin",
    }
    launch = take_launch(environment)
    assert environment == {"PATH": "/bin"}
    assert (launch.watchdog_s, launch.socket) == (2.0, None)


def test_a_passed_socket_is_not_handed_on(tmp_path: Path) -> None:
    # Descriptor 3 is somebody else's in this process: make way for a moment, and put it back.
    kept = os.dup(FIRST_DESCRIPTOR) if _is_open(FIRST_DESCRIPTOR) else None
    with socket.socket(socket.AF_UNIX) as listening:
        os.dup2(listening.fileno(), FIRST_DESCRIPTOR, inheritable=True)
        try:
            environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
            assert take_launch(environment).socket == FIRST_DESCRIPTOR
            assert not os.get_inheritable(FIRST_DESCRIPTOR)
        finally:
            os.close(FIRST_DESCRIPTOR)
            if kept is not None:
                os.dup2(kept, FIRST_DESCRIPTOR, inheritable=False)
                os.close(kept)


def test_two_passed_sockets_are_refused(tmp_path: Path) -> None:
    if not (_is_open(3) and _is_open(4)):
        pytest.skip("this process has no descriptors 3 and 4")
    was = [os.get_inheritable(descriptor) for descriptor in (3, 4)]
    try:
        with pytest.raises(BadStateDirectory, match="2 sockets"):
            take_launch({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"})
    finally:
        for descriptor, inheritable in zip((3, 4), was, strict=True):
            os.set_inheritable(descriptor, inheritable)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
