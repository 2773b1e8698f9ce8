"""A worker that says what it never should: that is its own end, and nobody else's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from whatsappd.errors import WorkerFailed, WorkerGone
from whatsappd.sessions.forkserver import Spawned
from whatsappd.sessions.process import ChildProcess
from whatsappd.sessions.worker import Worker
from whatsappd.wire.frames import pack
from whatsappd.wire.rpc import pack_notification, pack_result
from whatsappd.wire.worker import MAX_REASON, Kind, WorkerEvent, WorkerMethod

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
def a_worker(says: bytes, program: str = _PROGRAM, *arguments: str) -> Iterator[Worker]:
    """One that says this, and nothing else, whatever it is asked."""
    ours, theirs = socket.socketpair()
    output, output_writer = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(theirs.fileno()), says.hex(), *arguments],
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
        event(kind="gossip"),
        event(number=True),
    ],
    ids=["no MessagePack", "no arguments", "no kind", "no number"],
)
async def test_a_worker_whose_word_cannot_be_is_ended(said: bytes) -> None:
    taken: list[WorkerEvent] = []

    async def on_events(events: list[WorkerEvent]) -> None:
        taken.extend(events)

    with a_worker(event() + said) as worker, trio.fail_after(30):
        status = await worker.run(on_events)
    assert signal.Signals(signal.SIGKILL).name in str(status)
    assert worker.broken
    assert all(each.kind == "qr" for each in taken)


#: What an event of kind "message" must hold.
MESSAGE = {
    **{"message_id": "A", "timestamp_ms": 1, "push_name": None, "content": "conversation"},
    **{"text": "Hello", "edit": None, "retry_count": 0, "chat": "1@lid", "sender": "1@lid"},
    **{"sender_alt": None, "recipient_alt": None, "from_me": False, "is_group": False},
}


@pytest.mark.parametrize(
    ("kind", "data", "number"),
    [
        ("message", {"text": "and nothing else"}, 2),
        ("message", {**MESSAGE, "push_name": b"\xff"}, 2),
        ("message", {**MESSAGE, "timestamp_ms": "now"}, 2),
        ("receipt", {**MESSAGE, "message_ids": [5]}, 2),
        ("qr", {}, None),
        ("connected", {"jid": 5, "lid": None, "push_name": None}, None),
    ],
    ids=["no message", "no name", "no time", "no ids", "no code", "no JID"],
)
async def test_of_one_event_that_cannot_be_only_that_is_told(
    kind: str, data: dict[str, object], number: int | None
) -> None:
    """Those beside it in the same read are taken, and the worker lives."""
    taken: list[WorkerEvent] = []
    enough = trio.Event()

    async def on_events(events: list[WorkerEvent]) -> None:
        taken.extend(events)
        if len(taken) == 3:
            enough.set()

    said = [
        event(kind="message", data=MESSAGE, number=1),
        event(kind=kind, data=data, number=number),
    ]
    said.append(event(kind="message", data=MESSAGE, number=3))
    with a_worker(b"".join(said)) as worker, trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run, on_events)
            await enough.wait()
            assert worker.broken is None
            nursery.cancel_scope.cancel()
    assert [each.kind for each in taken] == [Kind.MESSAGE, Kind.UNREADABLE, Kind.MESSAGE]
    assert taken[1].data["of"] == kind
    assert taken[1].number == number
    assert taken[1].is_inbound is (number is not None)


#: A process that says what no worker says, and saves what it has once its channel is gone.
_SAVING = """
import socket, sys, time
channel = socket.socket(fileno=int(sys.argv[1]))
channel.sendall(bytes.fromhex(sys.argv[2]))
while channel.recv(1024):
    pass
try:
    channel.sendall(b"more")
except BrokenPipeError:
    open(sys.argv[3], "w").close()
"""


async def test_a_worker_that_said_what_cannot_be_has_the_time_to_save_its_spool(
    tmp_path: Path,
) -> None:
    """Its channel is closed both ways: it is killed only if it does not end by itself."""

    async def on_events(_events: list[WorkerEvent]) -> None:
        raise AssertionError("it told of no event")

    saved = tmp_path / "saved"
    with a_worker(b"\xc1", _SAVING, str(saved)) as worker, trio.fail_after(30):
        status = await worker.run(on_events)
    assert status.code == 0
    assert saved.exists()


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        {"message_id": "3EB0", "timestamp_ms": 2**64 - 1},
        {"message_id": 5, "timestamp_ms": 1},
        {"message_id": "3" * 50_000, "timestamp_ms": 1},
    ],
    ids=[
        *("nothing", "an empty one", "a time that cannot be stored", "a number for an id"),
        "a long id",
    ],
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


@pytest.mark.parametrize(
    "error",
    [
        "a text",
        {"message": "x" * 50_000, "name": "queue_full"},
        {"message": None, "data": {"self": 1, "message": 2}},
    ],
    ids=["no map", "a long reason", "data that no error takes"],
)
async def test_a_workers_refusal_is_one_however_it_words_it(error: object) -> None:
    async def on_events(_events: list[WorkerEvent]) -> None:
        raise AssertionError("it told of no event")

    with a_worker(pack([1, 0, error, None])) as worker, trio.fail_after(30):
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(WorkerFailed) as refusal:
                    await worker.call(WorkerMethod.LOGOUT)
                assert len(refusal.value.message) <= MAX_REASON
                nursery.cancel_scope.cancel()

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            await worker.run(on_events)
