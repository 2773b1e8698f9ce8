"""Asking a worker process how it is: what its silence means, and what our own slowness must not.

The processes here speak the worker's protocol and are no WhatsApp clients: what is under test is
the daemon's end of the channel.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from whatsappd.engines.child_process import ChildProcess
from whatsappd.engines.decode import WorkerEvent
from whatsappd.engines.port import OnEvents, WhatsAppAccess
from whatsappd.engines.worker_process import SpawnedProcess, WorkerProcess
from whatsappd.errors import TimedOut, WorkerGone
from whatsappd.model.content import Text
from whatsappd.rules.session_health import Asked
from whatsappd.sessions.checkup import ask

#: Answers every request after an event, in one write.
_CHATTY = """
import socket, sys
from whatsappd.wire.frames import MessagePackReader
from whatsappd.wire.rpc import pack_notification, pack_result
ANSWERS = {
    "client.health": {"connected": True, "logged_in": False},
    "client.send": {"message_id": "3EB0", "timestamp_ms": 1},
}
channel = socket.socket(fileno=int(sys.argv[1]))
reader = MessagePackReader()
while data := channel.recv(65536):
    for _, msgid, method, _ in reader.feed(data):
        event = {"company": "acme", "kind": "disconnected", "data": {}, "number": None}
        channel.sendall(
            pack_notification("event", event)
            + pack_result(msgid, ANSWERS[method])
        )
"""


@asynccontextmanager
async def worker_with(on_events: OnEvents) -> AsyncIterator[WorkerProcess]:
    ours, theirs = socket.socketpair()
    output, output_writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", _CHATTY, str(theirs.fileno())], pass_fds=(theirs.fileno(),)
    )
    theirs.close()
    os.close(output_writer)
    spawned = SpawnedProcess(ChildProcess(process.pid), ours, output)
    worker = WorkerProcess(
        "acme", spawned, access=WhatsAppAccess(), on_refused_call=lambda _call: None
    )
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run, on_events)
            with trio.fail_after(20):
                await worker.health()  # it is up
            yield worker
            worker.kill()
    finally:
        process.returncode = 0  # reaped by the worker


async def take_at_once(_events: list[WorkerEvent]) -> None:
    await trio.lowlevel.checkpoint()


async def test_an_answer_tells_how_the_connection_is() -> None:
    async with worker_with(take_at_once) as worker:
        answer = await ask(worker, 20)
        assert answer.asked is Asked.ANSWERED
        assert (answer.socket_up, answer.logged_in) == (True, False)


async def test_a_stopped_process_is_silent_and_an_ended_one_is_gone() -> None:
    async with worker_with(take_at_once) as worker:
        os.kill(worker.pid, signal.SIGSTOP)
        assert (await ask(worker, 0.05)).asked is Asked.SILENT
        with pytest.raises(TimedOut):
            await worker.send("x", Text("y"), b"z", patience_s=0.05)
        worker.kill()
        assert (await ask(worker, 20)).asked is Asked.GONE
        with pytest.raises(WorkerGone):
            await worker.send("x", Text("y"), b"z", patience_s=20)


class FullDisk:
    """Takes events only when told, as a store does whose disk is full."""

    def __init__(self) -> None:
        self.has_room = trio.Event()
        self.has_room.set()
        self.taken = 0

    async def take(self, events: list[WorkerEvent]) -> None:
        await self.has_room.wait()
        self.taken += len(events)


async def test_a_worker_whose_news_we_do_not_take_is_not_called_hung_and_not_given_up() -> None:
    disk = FullDisk()
    async with worker_with(disk.take) as worker:
        disk.has_room = trio.Event()
        assert (await ask(worker, 20)).asked is Asked.ANSWERED  # beside an event that is not taken
        assert (await ask(worker, 0.1)).asked is Asked.HELD_UP
        answered = trio.Event()

        async def send() -> None:
            await worker.send("x", Text("y"), b"z", patience_s=0.05)
            answered.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            with trio.move_on_after(0.5):  # ten times its patience
                await answered.wait()
            assert not answered.is_set()
            disk.has_room.set()
            with trio.fail_after(20):
                await answered.wait()
        assert disk.taken == 4
        assert (await ask(worker, 20)).asked is Asked.ANSWERED
