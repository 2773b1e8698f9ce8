"""A fork server that says what it never should is replaced; the daemon and its sessions go on."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from whatsappd.engines.neonize.fork.messages import ForkRequest
from whatsappd.engines.neonize.fork.server import _fork_worker
from whatsappd.engines.neonize.spawn import Confinement, ForkServer
from whatsappd.errors import WorkerFailed
from whatsappd.wire.frames import pack

CONFINED = {"landlock": 0, "seccomp": False, "counted": False, "lacking": None}
WORKER = {"pid": 77, "confined": CONFINED}  # without the descriptors that should be beside it
HELLO = pack({"problem": None, "confined": CONFINED})

#: Says hello, and answers each request with the same words. No words: it goes.
_PROGRAM = """
import os, socket, sys
control = socket.socket(fileno=int(sys.argv[1]))
hello, answer = bytes.fromhex(os.environ["HELLO"]), bytes.fromhex(os.environ["ANSWER"])
if hello:
    control.send(hello)
while socket.recv_fds(control, 4096, 2)[0] and answer:
    socket.send_fds(control, [answer], [0] * int(os.environ["DESCRIPTORS"]))
"""

Running = Callable[..., AbstractAsyncContextManager[ForkServer]]


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Running:
    """`async with running(hello, answer) as fork_server:`, with words of the test's own; and with
    as many descriptors beside the answer as are asked for."""
    (tmp_path / "scripted.py").write_text(_PROGRAM)
    monkeypatch.setattr("whatsappd.engines.neonize.spawn._MODULE", "scripted")
    monkeypatch.setattr("whatsappd.engines.neonize.spawn._RESTART_CAP_MS", 1)

    @asynccontextmanager
    async def running(
        hello: bytes, answer: bytes, descriptors: int = 0
    ) -> AsyncIterator[ForkServer]:
        words = {
            "HELLO": hello.hex(),
            "ANSWER": answer.hex(),
            "DESCRIPTORS": str(descriptors),
            "PYTHONPATH": str(tmp_path),
        }
        fork_server = ForkServer(
            environment={**os.environ, **words}, confinement=Confinement(tmp_path, [])
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fork_server.run)
            with trio.fail_after(30):
                yield fork_server
            nursery.cancel_scope.cancel()

    return running


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def restarted(fork_server: ForkServer, times: int) -> None:
    while fork_server.restarts < times:
        await trio.sleep(0.01)


@pytest.mark.parametrize(
    "hello",
    [
        *(b"\xc1", pack(5), pack({}), pack({"problem": 5, "confined": CONFINED}), HELLO + HELLO),
        *(pack("x" * 40_000), pack({"problem": None, "confined": {"landlock": True}})),
        *(HELLO[:-1], HELLO + b"\xa5ab"),
    ],
    ids=[
        *("no MessagePack", "no map", "no problem", "a number", "two"),
        *("too much", "no confinement", "a part", "and a part"),
    ],
)
async def test_without_a_hello_it_is_replaced(running: Running, hello: bytes) -> None:
    with capture_logs() as logs:
        async with running(hello, HELLO) as fork_server:
            await restarted(fork_server, 2)
            assert fork_server.problem is None
    assert "fork_server_channel_corrupt" in {line["event"] for line in logs}


@pytest.mark.parametrize(
    "answer",
    [
        *(b"\xc1", pack({}), pack({"pid": "7"}), pack({"pid": True}), pack({"pid": -1})),
        *(pack({"pid": 0}), pack({"pid": 1}), pack({"pid": 2**63}), pack({"error": 5})),
        *(pack(WORKER) * 2, pack(WORKER) + b"\xa5ab", pack(WORKER)),
        *(pack({**WORKER, "confined": {**CONFINED, "landlock": -1}}), pack({"pid": 77})),
    ],
)
async def test_with_an_answer_that_is_none_it_is_replaced(running: Running, answer: bytes) -> None:
    descriptors = open_descriptors()
    async with running(HELLO, answer) as fork_server:
        with capture_logs() as logs, pytest.raises(WorkerFailed):
            await fork_server.spawn("acme", directory=Path("/"), ports=())
        await restarted(fork_server, 1)
        with pytest.raises(WorkerFailed):
            await fork_server.spawn("acme", directory=Path("/"), ports=())
    assert "fork_server_channel_corrupt" in {line["event"] for line in logs}
    assert open_descriptors() <= descriptors + 2  # trio's own


async def test_a_process_that_is_not_the_daemons_child_is_no_worker(running: Running) -> None:
    for pid in (os.getpid(), os.getppid(), (1 << 22) - 1):
        async with running(HELLO, pack({**WORKER, "pid": pid}), descriptors=3) as fork_server:
            held = []
            for _ in range(2):
                with pytest.raises(WorkerFailed, match="no process of the daemon's"):
                    await fork_server.spawn("acme", directory=Path("/"), ports=())
                held.append(open_descriptors())
            assert held[0] == held[1]  # those that came with the answer are closed


async def test_what_it_refuses_is_told_and_it_goes_on(running: Running) -> None:
    async with running(HELLO, pack({"error": "cannot fork a worker: no memory"})) as fork_server:
        for _ in range(3):
            with pytest.raises(WorkerFailed, match="no memory"):
                await fork_server.spawn("acme", directory=Path("/"), ports=())
        assert fork_server.restarts == 0


async def test_one_that_goes_with_a_request_is_replaced(running: Running) -> None:
    async with running(HELLO, b"") as fork_server:
        with pytest.raises(WorkerFailed, match="went away"):
            await fork_server.spawn("acme", directory=Path("/"), ports=())
        await restarted(fork_server, 1)


async def test_where_none_can_be_started_it_is_tried_again(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No memory, no descriptors, no program: all of that passes, and must not end the daemon."""
    descriptors = open_descriptors()
    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr("whatsappd.engines.neonize.spawn.sys.executable", "/nonexistent/python")
        async with running(HELLO, pack({"error": "no memory"})) as fork_server:
            await restarted(fork_server, 20)
            # What one attempt has open, which may be under way; twenty would have left eighty.
            assert open_descriptors() <= descriptors + 8
            patch.undo()
            with pytest.raises(WorkerFailed, match="no memory"):
                await fork_server.spawn("acme", directory=Path("/"), ports=())
    assert "fork_server_not_started" in {line["event"] for line in logs}


def test_a_refused_fork_leaves_no_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("whatsappd.engines.neonize.fork.server.os.fork", refuse)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        before = open_descriptors()
        for _ in range(50):
            with pytest.raises(BlockingIOError):
                _fork_worker(
                    ForkRequest("acme", "/", [], [], "no"), ours, [theirs.fileno()], lambda: None
                )
        assert open_descriptors() == before


async def test_without_descriptors_for_a_channel_none_are_left_behind(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    async with running(HELLO, pack({"error": "no memory"})) as fork_server:
        with pytest.raises(WorkerFailed, match="no memory"):
            await fork_server.spawn("acme", directory=Path("/"), ports=())
        before = open_descriptors()
        with monkeypatch.context() as patch:
            patch.setattr("whatsappd.engines.neonize.spawn.os.pipe", refuse)
            for _ in range(20):
                with pytest.raises(WorkerFailed, match="Too many open files"):
                    await fork_server.spawn("acme", directory=Path("/"), ports=())
        assert open_descriptors() == before
        with pytest.raises(WorkerFailed, match="no memory"):
            await fork_server.spawn("acme", directory=Path("/"), ports=())
