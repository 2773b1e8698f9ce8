"""A worker that says what it never should: that is its own end, and nobody else's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest
import trio

from whatsappd.sessions.forkserver import Spawned
from whatsappd.sessions.process import ChildProcess
from whatsappd.sessions.worker import Worker
from whatsappd.wire.rpc import pack_notification
from whatsappd.wire.worker import WorkerEvent

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
    ours, theirs = socket.socketpair()
    output, output_writer = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), (event() + said).hex()],
        pass_fds=(theirs.fileno(),),
        stdout=output_writer,
        stderr=output_writer,
    )
    theirs.close()
    os.close(output_writer)
    taken: list[WorkerEvent] = []

    async def on_events(events: list[WorkerEvent]) -> None:
        taken.extend(events)

    worker = Worker("acme", Spawned(ChildProcess(child.pid), ours, output))
    with trio.fail_after(30):
        status = await worker.run(on_events)
    child.returncode = 0  # it was reaped already
    assert signal.Signals(signal.SIGKILL).name in str(status)
    assert all(each.kind == "qr" for each in taken)
