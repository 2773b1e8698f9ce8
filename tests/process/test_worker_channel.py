"""A worker that says what it never should: that is its own end, and nobody else's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.testing
from message_shapes import MESSAGE

from whatsappd.engines.child_process import ChildProcess
from whatsappd.engines.decode import MAX_REASON, WorkerEvent
from whatsappd.engines.port import WhatsAppAccess
from whatsappd.engines.protocol import (
    QrShown,
    UnreadableEvent,
)
from whatsappd.engines.worker_process import CONFIRM_EVERY, SpawnedProcess, WorkerProcess
from whatsappd.errors import WorkerFailed, WorkerGone
from whatsappd.model.content import Text
from whatsappd.model.message import Message
from whatsappd.rules.bounds import WORKER_NEWS
from whatsappd.rules.session_health import Asked
from whatsappd.sessions.checkup import ask
from whatsappd.wire.frames import pack
from whatsappd.wire.rpc import pack_notification, pack_result

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
def a_worker(says: bytes, program: str = _PROGRAM, *arguments: str) -> Iterator[WorkerProcess]:
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
    with pytest.MonkeyPatch.context() as patched:
        if program == _PROGRAM:  # it saves nothing, however long it is given
            patched.setattr("whatsappd.engines.worker_process._SAVE_WITHIN", 0.1)
        spawned = SpawnedProcess(ChildProcess(child.pid), ours, output)
    yield WorkerProcess(
        "acme", spawned, access=WhatsAppAccess(), on_refused_call=lambda _call: None
    )
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
    assert all(isinstance(each.event, QrShown) for each in taken)


@pytest.mark.parametrize(
    ("kind", "data", "number"),
    [
        ("message", {"text": "and nothing else"}, 2),
        ("message", {**MESSAGE, "sender": {**MESSAGE["sender"], "name": b"\xff"}}, 2),
        ("message", {**MESSAGE, "timestamp_ms": "now"}, 2),
        ("message", {**MESSAGE, "content": {"kind": "smell"}}, 2),
        ("message", {**MESSAGE, "content": {"kind": "text", "text": ""}}, 2),
        ("message", {**MESSAGE, "content": "conversation"}, 2),
        ("message", {**MESSAGE, "chat": "1@lid"}, 2),
        ("receipt", {**MESSAGE, "message_ids": [5]}, 2),
        ("qr", {}, None),
        ("connected", {"jid": 5, "lid": None, "push_name": None}, None),
    ],
    ids=[
        *("no message", "no name", "no time", "no kind of content", "no text", "no content"),
        *("no chat", "no ids", "no code", "no JID"),
    ],
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
    assert [type(each.event) for each in taken] == [Message, UnreadableEvent, Message]
    refused = taken[1].event
    assert isinstance(refused, UnreadableEvent)
    assert refused.of == kind
    assert taken[1].number == number
    assert (taken[1].is_inbound) is (number is not None)


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
                    await worker.send("x", Text("y"), b"z")

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
                    await worker.log_out()
                assert len(refusal.value.message) <= MAX_REASON
                nursery.cancel_scope.cancel()

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            await worker.run(on_events)


#: A process that says the same as often as it is told, and ends with its channel.
_REPEATING = """
import socket, sys
channel = socket.socket(fileno=int(sys.argv[1]))
try:
    channel.sendall(bytes.fromhex(sys.argv[2]) * int(sys.argv[3]))
    while channel.recv(1024):
        pass
except ConnectionError:
    pass
"""


@pytest.mark.parametrize("answers", [pack_result(77, {}), pack_result(0, {}) * 2])
async def test_a_worker_that_answers_what_nobody_asked_is_ended(answers: bytes) -> None:
    """A flood of answers would take the daemon's time: nothing else holds it back."""

    async def on_events(_events: list[WorkerEvent]) -> None:
        raise AssertionError("it told of no event")

    with a_worker(answers, _REPEATING, "1") as worker, trio.fail_after(30):
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                with suppress(WorkerGone):
                    await worker.log_out()

            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            await worker.run(on_events)
    assert worker.broken == "a worker answered what nobody asked"


async def test_an_answer_may_come_when_nobody_waits_for_it_any_more() -> None:
    enough = trio.Event()

    async def on_events(_events: list[WorkerEvent]) -> None:
        enough.set()

    with a_worker(pack_result(0, {}) + event(), _REPEATING, "1") as worker, trio.fail_after(30):
        with trio.move_on_after(0):
            await worker.health()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run, on_events)
            await enough.wait()
            assert worker.broken is None
            nursery.cancel_scope.cancel()


async def test_a_worker_that_tells_too_much_of_its_session_is_read_slower() -> None:
    taken: list[WorkerEvent] = []

    async def on_events(events: list[WorkerEvent]) -> None:
        taken.extend(events)

    said = event(data={"code": "x" * 200})
    with a_worker(said, _REPEATING, "1000") as worker, trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run, on_events)
            while len(taken) < WORKER_NEWS.burst:
                await trio.testing.wait_all_tasks_blocked(0.01)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
    assert WORKER_NEWS.burst <= len(taken) < 1000


async def test_a_worker_that_reads_nothing_is_not_held_up_by_our_store() -> None:
    """It fills its own channel with events to confirm, and would never be found to be hung."""
    full = trio.Event()

    async def on_events(_events: list[WorkerEvent]) -> None:
        number = 0
        while True:
            number += CONFIRM_EVERY
            with trio.move_on_after(0.1) as waiting:
                await worker.confirm(number)
            if waiting.cancelled_caught:
                full.set()
                await worker.confirm(number + CONFIRM_EVERY)

    with a_worker(event()) as worker, trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run, on_events)
            await full.wait()
            assert (await ask(worker, 0.01)).asked is Asked.SILENT
            worker.kill()
            nursery.cancel_scope.cancel()
