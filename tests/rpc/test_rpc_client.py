"""The trio client: what its callers meet when things go wrong."""

from __future__ import annotations

import socket
from pathlib import Path

import msgpack
import pytest
import trio

from whatsappd.errors import NotConnected, Stopping, Unreachable
from whatsappd.rpc.client import NOTIFICATION_BUFFER, open_client
from whatsappd.rpc.limits import Limits


async def test_nobody_there(tmp_path: Path):
    with pytest.raises(Unreachable, match=r"No such file.*whatsappd run"):
        async with open_client(tmp_path / "none"):
            pass


async def test_errors_of_the_callers_block_come_out_unwrapped(served):
    with pytest.raises(NotConnected) as caught:
        async with open_client(served.path) as client:
            await client.call("test.refuse")
    assert caught.value.data == {"company": "acme"}
    with pytest.raises(KeyError):
        async with open_client(served.path):
            raise KeyError("the caller's own")


async def test_the_callers_own_groups_stay_groups(served):
    async def fail() -> None:
        raise KeyError("one of the caller's tasks")

    with pytest.raises(ExceptionGroup) as caught:
        async with open_client(served.path), trio.open_nursery() as nursery:
            nursery.start_soon(fail)
    assert [type(error) for error in caught.value.exceptions] == [KeyError]


async def test_a_lost_connection_ends_every_call_and_the_notifications(tmp_path: Path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        async with open_client(path) as client:
            sock, _ = listening.accept()
            failures = []

            async def call() -> None:
                with pytest.raises(Unreachable, match="closed the connection") as caught:
                    await client.call("m.n")
                failures.append(caught.value)

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(call)
                await trio.testing.wait_all_tasks_blocked()
                sock.recv(65536)
                sock.close()
            assert len(set(map(id, failures))) == 3
            assert [notice async for notice in client.notifications] == []
            await call()


async def test_the_daemons_last_word_reaches_the_callers(served):
    async with open_client(served.path) as client:
        served.server.stop()
        assert [notice async for notice in client.notifications] == []
        with pytest.raises(Stopping, match="stopping"):
            await client.call("daemon.hello")


@pytest.mark.parametrize("garbage", [b"\xc1", msgpack.packb(5), msgpack.packb([0, 1, "m", []])])
async def test_garbage_from_the_other_end_ends_the_calls(tmp_path: Path, garbage: bytes):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        async with open_client(path) as client:
            with listening.accept()[0] as sock:
                sock.sendall(garbage)
                with (
                    trio.fail_after(5),
                    pytest.raises(Exception, match=r"MessagePack|message|request"),
                ):
                    await client.call("m.n")


async def test_a_cancelled_call_leaves_the_others_their_answers(served):
    async with open_client(served.path) as client:
        with trio.move_on_after(0.02) as patience:
            await client.call("test.wait", value="given up")
        assert patience.cancelled_caught
        served.behaviour.gate.set()
        assert await client.call("test.wait", value="kept") == "kept"


async def test_notifications_that_nobody_reads_stop_the_reading_and_lose_nothing(serve):
    async with serve(Limits(max_unsent=1000)) as served, open_client(served.path) as client:
        count = NOTIFICATION_BUFFER * 20
        await client.call("test.subscribe", size=count)
        with trio.fail_after(30):
            while client.notifications.statistics().current_buffer_used < NOTIFICATION_BUFFER:
                await trio.sleep(0.01)
            await trio.testing.wait_all_tasks_blocked()
            assert client.notifications.statistics().current_buffer_used == NOTIFICATION_BUFFER
            for number in range(count):
                assert (await client.notifications.receive()).arguments == {"number": number}


async def test_closing_the_notifications_lets_calls_go_on(served):
    async with open_client(served.path) as client:
        client.notifications.close()
        await client.call("test.subscribe", size=5000)
        assert await client.call("test.echo", value=1) == 1
