"""What a connection held is given back when it ends, not when the garbage collector gets to it.

The daemon's collector runs rarely, and each connection has a buffer: ten of them a second, as
scripts make them, would grow the daemon by tens of megabytes.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from served import RawPeer, Served

from whatsappd.rpc.server_connection import ServerConnection
from whatsappd.wire.frames import MAX_ITEMS, READ_SIZE, MessagePackReader, pack

#: Little that promises much: lists within lists, each with room for all its items, and a message
#: of empty maps of which the last byte is missing.
PROMISES = {
    "lists in lists": (b"\xdc" + MAX_ITEMS.to_bytes(2, "big")) * 1000,
    "empty maps": b"\xdc\0\x64"
    + (b"\xdc" + MAX_ITEMS.to_bytes(2, "big") + b"\x80" * MAX_ITEMS) * 99,
}

End = Callable[[Served, RawPeer], Awaitable[None]]


@pytest.fixture
async def uncollected() -> AsyncIterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def connections() -> int:
    return sum(isinstance(found, ServerConnection) for found in gc.get_objects())


async def hang_up(_served: Served, peer: RawPeer) -> None:
    peer.close()


async def ask_and_hang_up(_served: Served, peer: RawPeer) -> None:
    await peer.call("test.echo", value=1)
    peer.close()


async def hang_up_while_it_waits(served: Served, peer: RawPeer) -> None:
    await peer.request(1, "test.wait")
    await served.until(lambda: served.behaviour.waiting > 0)
    peer.close()


async def subscribe_and_hang_up(_served: Served, peer: RawPeer) -> None:
    await peer.call("test.subscribe", size=3)
    peer.close()


async def send_garbage(_served: Served, peer: RawPeer) -> None:
    await peer.send(b"\xc1")
    await peer.receive()


@pytest.mark.parametrize(
    "end", [hang_up, ask_and_hang_up, hang_up_while_it_waits, subscribe_and_hang_up, send_garbage]
)
async def test_an_ended_connection_is_freed_at_once(
    served: Served, uncollected: None, end: End
) -> None:
    before = connections()
    for _ in range(5):
        peer = await served.raw()
        await served.until(lambda: served.server.counts.open == 1)
        await end(served, peer)
        await served.until(lambda: served.server.counts.open == 0)
    assert connections() == before


@pytest.mark.parametrize("sent", PROMISES.values(), ids=PROMISES)
@pytest.mark.parametrize("step", [1000, READ_SIZE])
def test_of_a_message_that_is_not_whole_only_the_bytes_are_held(sent: bytes, step: int) -> None:
    reader = MessagePackReader()
    tracemalloc.start()
    try:
        for start in range(0, len(sent), step):
            assert reader.feed(sent[start : start + step]) == []
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 3 * len(sent) + 200_000


@pytest.mark.parametrize("step", [1, 7, 1000, READ_SIZE])
def test_however_many_pieces_a_message_comes_in_it_is_the_same(step: int) -> None:
    messages = [{"text": "x" * 5000}, list(range(3000)), "y" * 200, {"text": "z" * 70_000}, 5]
    sent = b"".join(map(pack, messages))
    reader = MessagePackReader()
    got = []
    for start in range(0, len(sent), step):
        got += reader.feed(sent[start : start + step])
    assert got == messages
