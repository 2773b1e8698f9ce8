"""A worker that says what it never should: that is its own end, and nobody else's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing

from whatsappd.errors import WorkerGone
from whatsappd.sessions.forkserver import Spawned
from whatsappd.sessions.process import ChildProcess
from whatsappd.sessions.worker import Worker
from whatsappd.wire.rpc import pack_notification, pack_result
from whatsappd.wire.worker import WorkerEvent, WorkerMethod

#: A process that says some bytes on its channel, and then does as a hung worker does.
_PROGRAM = """
import socket, sys, time
channel = socket.socket(fileno=int(sys.argv[1]))
channel.sendall(bytes.fromhex(sys.argv[2]))
time.sleep(60)
"""


def event(**changed: object) -> bytes:
    arguments = {"company": "acme", "kind": "qr", "data": {"code": "2@x"}, "number": None}
    return pack_notification("event", {**arguments, **changed})


@contextmanager
def a_worker(says: bytes) -> Iterator[Worker]:
    """One that says this, and nothing else, whatever it is asked."""
    ours, theirs = socket.socketpair()
    output, output_writer = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), says.hex()],
        pass_fds=(theirs.fileno(),),
        stdout=output_writer,
        stderr=output_writer,
    )
    theirs.close()
    os.close(output_writer)
    yield Worker("acme", Spawned(ChildProcess(child.pid), ours, output))
    child.returncode = 0  # it was reaped already


@pytest.mark.parametrize(
    "said",
    [
        b"\xc1",
        b"\x93\x02\xa5event\x91\x05",
        event(kind="message", data={"text": "and nothing else"}),
        event(data={}),
        event(kind="connected", data={"jid": 5, "lid": None, "push_name": None}),
        event(number=True),
    ],
    ids=["no MessagePack", "no arguments", "no message", "no code", "no JID", "no number"],
)
async def test_a_worker_whose_word_cannot_be_is_ended(said: bytes) -> None:
    taken: list[WorkerEvent] = []

    async def on_events(events: list[WorkerEvent]) -> None:
        taken.extend(events)

    with a_worker(event() + said) as worker, trio.fail_after(30):
        status = await worker.run(on_events)
    assert signal.Signals(signal.SIGKILL).name in str(status)
    assert all(each.kind == "qr" for each in taken)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        {"message_id": "3EB0", "timestamp_ms": 2**64 - 1},
        {"message_id": 5, "timestamp_ms": 1},
    ],
    ids=["nothing", "an empty one", "a time that cannot be stored", "a number for an id"],
)
async def test_a_worker_whose_answer_cannot_be_is_ended(answer: object) -> None:
    """Whoever asked learns what a worker's death means: whether it acted is unknown."""

    async def on_events(_events: list[WorkerEvent]) -> None:
        raise AssertionError("it told of no event")

    with a_worker(pack_result(0, answer)) as worker, trio.fail_after(30):
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(WorkerGone, match="never should"):
                    await worker.call(WorkerMethod.SEND, to="x", text="y", secret=b"z")

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            status = await worker.run(on_events)
    assert signal.Signals(signal.SIGKILL).name in str(status)
