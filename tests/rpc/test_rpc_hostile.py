"""What a peer may do wrong: a clear error or a clean close, and other connections never notice."""

from __future__ import annotations

from contextlib import suppress

import msgpack
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from whatsappd.rpc.limits import Limits
from whatsappd.wire.frames import MAX_ITEMS, MAX_MESSAGE, READ_SIZE

BAD_MESSAGES = [
    pytest.param(b"\xc1", "malformed", id="a byte that MessagePack never uses"),
    pytest.param(b"GET / HTTP/1.1\r\n\r\n", "malformed", id="HTTP"),
    pytest.param(msgpack.packb(5), "malformed", id="an integer"),
    pytest.param(msgpack.packb({}), "malformed", id="a map"),
    pytest.param(msgpack.packb([]), "malformed", id="an empty array"),
    pytest.param(msgpack.packb([3, 1, "m", []]), "malformed", id="unknown type"),
    pytest.param(msgpack.packb([False, 1, "m", []]), "malformed", id="type is a boolean"),
    pytest.param(msgpack.packb([0, 1, "m"]), "malformed", id="a member too few"),
    pytest.param(msgpack.packb([0, 1, "m", [], 5]), "malformed", id="a member too many"),
    pytest.param(msgpack.packb([0, "1", "m", []]), "malformed", id="msgid is a string"),
    pytest.param(msgpack.packb([0, True, "m", []]), "malformed", id="msgid is a boolean"),
    pytest.param(msgpack.packb([0, -1, "m", []]), "malformed", id="msgid is negative"),
    pytest.param(msgpack.packb([0, 1 << 32, "m", []]), "malformed", id="msgid is too large"),
    pytest.param(msgpack.packb([0, 1, 5, []]), "malformed", id="method is an integer"),
    pytest.param(msgpack.packb([0, 1, "m", {}]), "malformed", id="params are a map"),
    pytest.param(msgpack.packb([0, 1, "m", None]), "malformed", id="params are nil"),
    pytest.param(
        msgpack.packb([2, 5, []]), "malformed", id="a notification's method is an integer"
    ),
    pytest.param(msgpack.packb([1, 1, None, 5]), "malformed", id="an answer to nothing"),
    pytest.param(b"\x94\x00\x01\xa1\xff\x90", "malformed", id="method is not UTF-8"),
    pytest.param(b"\x91" * 5000, "malformed", id="nested deeply"),
    pytest.param(b"\xdd\xff\xff\xff\xff", "too_large", id="an array of four billion"),
    pytest.param(b"\xdf\xff\xff\xff\xff", "too_large", id="a map of four billion"),
    pytest.param(
        b"\xdb\xff\xff\xff\xff" + bytes(2 * MAX_MESSAGE), "too_large", id="a string of 4 GiB"
    ),
    pytest.param(b"\xc9\xff\xff\xff\xff\x05", "too_large", id="an extension"),
    pytest.param(
        msgpack.packb([0, 1, "m", [{"value": [0] * (MAX_ITEMS + 1)}]]), "too_large", id="many items"
    ),
    pytest.param(
        msgpack.packb([0, 1, "m", [{"value": bytes(MAX_MESSAGE + READ_SIZE)}]]),
        "too_large",
        id="a large value",
    ),
]


@pytest.mark.parametrize(("data", "name"), BAD_MESSAGES)
async def test_bad_messages_are_answered_and_end_the_connection(served, data, name):
    other = await served.raw()
    peer = await served.raw()
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            with suppress(
                BrokenPipeError, ConnectionResetError
            ):  # the server was done with it before the last byte
                await peer.send(data)

        nursery.start_soon(send)
        kind, method, [error] = await peer.receive()
    assert (kind, method, error["name"]) == (2, "error", name)
    assert error["message"]
    assert await peer.receive() is None
    assert (await other.call("test.echo", value=1))[3] == 1


async def test_what_came_before_the_bad_message_is_answered(served):
    peer = await served.raw()
    await peer.send(msgpack.packb([0, 1, "test.echo", [{"value": 1}]]) + msgpack.packb([9]))
    assert await peer.receive() == [1, 1, None, 1]
    assert (await peer.receive())[1] == "error"


async def test_the_largest_message_is_accepted(served):
    peer = await served.raw()
    overhead = len(msgpack.packb([0, 77, "test.echo", [{"value": bytes(1 << 17)}]])) - (1 << 17)
    value = bytes(MAX_MESSAGE - overhead)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: peer.request(77, "test.echo", value=value))
        assert (await peer.receive())[3] == value


async def test_idle_connections_disturb_nobody(served):
    async with trio.open_nursery() as nursery:
        idle = []

        async def connect() -> None:
            idle.append(await served.raw())

        for _ in range(1000):
            nursery.start_soon(connect)
    await served.until(lambda: served.server.counts.open == 1000)
    worker = await served.raw()
    for number in range(100):
        assert (await worker.call("test.echo", value=number))[3] == number
    for peer in idle:
        assert (await peer.call("test.echo", value=1))[3] == 1
        peer.close()
    await served.until(lambda: served.server.counts.open == 1)


async def test_connections_are_limited_with_a_clear_error(serve):
    async with serve(Limits(max_connections=2)) as served:
        peers = [await served.raw() for _ in range(3)]
        kind, method, [error] = await peers[2].receive()
        assert (kind, method, error["name"]) == (2, "error", "too_many_requests")
        assert "2 connections" in error["message"]
        assert await peers[2].receive() is None
        assert served.server.counts.refused == 1
        assert (await peers[0].call("test.echo", value=1))[3] == 1
        peers[1].close()
        await served.until(lambda: served.server.counts.open == 1)
        late = await served.raw()
        assert (await late.call("test.echo", value=1))[3] == 1


async def test_a_peer_that_never_reads_is_bounded_and_then_dropped(serve):
    limits = Limits(max_unsent=100_000, send_stalled_after=0.3)
    async with serve(limits) as served:
        peer = await served.raw()
        other = await served.raw()
        # 65000 requests in one read would be 6.5 GB of answers.
        requests = msgpack.packb([0, 1, "test.big", [{"size": 100_000}]]) * 2000
        with trio.move_on_after(5) as patience:
            with suppress(BrokenPipeError, ConnectionResetError):
                await peer.send(requests * 100)
        assert not patience.cancelled_caught
        await served.until(lambda: served.server.counts.open == 1)
        assert (await other.call("test.echo", value=1))[3] == 1


async def test_unsent_output_stays_bounded(serve):
    async with serve(Limits(max_unsent=100_000)) as served:
        peer = await served.raw()
        await peer.send(msgpack.packb([0, 1, "test.big", [{"size": 60_000}]]) * 1000)
        await trio.testing.wait_all_tasks_blocked()
        [connection] = served.server._connections
        assert 0 < connection._writer.unsent < 100_000 + 2 * 60_100 + 100_000
        for _ in range(1000):
            assert len((await peer.receive())[3]) == 60_000


async def test_a_subscriber_that_never_reads_is_dropped(serve):
    async with serve(Limits(max_unsent=10_000, send_stalled_after=0.2)) as served:
        peer = await served.raw()
        await peer.request(1, "test.subscribe", size=10_000_000)
        await served.until(lambda: served.server.counts.open == 0)
        assert served.behaviour.subscribed == 0
        peer.close()


async def test_a_slow_reader_gets_everything(serve):
    async with serve(Limits(max_unsent=10_000, send_stalled_after=5)) as served:
        peer = await served.raw()
        await peer.request(1, "test.subscribe", size=20_000)
        assert await peer.receive() == [1, 1, None, "subscribed"]
        await trio.testing.wait_all_tasks_blocked()
        for number in range(20_000):
            assert await peer.receive() == [2, "event", [{"number": number}]]


async def test_a_flood_does_not_starve_others(served):
    flood = await served.raw()
    other = await served.raw()
    requests = msgpack.packb([0, 1, "test.echo", []]) * 10_000

    async def read() -> None:
        while await flood.sock.recv(1 << 20):
            pass

    async with trio.open_nursery() as nursery:

        async def send() -> None:
            while True:
                await flood.send(requests)

        nursery.start_soon(read)
        nursery.start_soon(send)
        with trio.fail_after(10):
            for number in range(50):
                assert (await other.call("test.echo", value=number))[3] == number
        nursery.cancel_scope.cancel()


async def test_a_peer_that_leaves_ends_its_waiting_requests(served):
    peer = await served.raw()
    await peer.request(1, "test.wait")
    await served.until(lambda: served.behaviour.waiting == 1)
    peer.close()
    with trio.fail_after(5):
        await served.behaviour.cancelled.wait()
    await served.until(lambda: served.server.counts.open == 0)


async def test_a_peer_that_leaves_in_the_middle_of_a_message(served):
    for length in range(1, 20):
        peer = await served.raw()
        await peer.send(msgpack.packb([0, 1, "test.echo", [{"value": "hello"}]])[:length])
        peer.close()
    await served.until(lambda: served.server.counts.open == 0)


async def test_a_peer_that_leaves_before_its_answers_were_read(served):
    peer = await served.raw()
    await peer.send(msgpack.packb([0, 1, "test.big", [{"size": 60_000}]]) * 100)
    await trio.testing.wait_all_tasks_blocked()
    peer.close()
    await served.until(lambda: served.server.counts.open == 0)


async def test_a_failing_subscription_ends_its_connection_with_an_error(served):
    other = await served.raw()
    peer = await served.raw()
    await peer.request(1, "test.subscribe_badly")
    assert await peer.receive() == [1, 1, None, "subscribed"]
    kind, method, [error] = await peer.receive()
    assert (kind, method, error["name"]) == (2, "error", "internal")
    assert await peer.receive() is None
    assert (await other.call("test.echo", value=1))[3] == 1


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children),
    max_leaves=10,
)
requests = st.tuples(
    st.sampled_from([0, 2]), st.integers(0, 2**33), st.sampled_from(["test.echo", "test.send"])
).flatmap(lambda head: st.lists(values, max_size=2).map(lambda params: [*head, params]))
streams = st.lists(
    st.binary(max_size=200) | values.map(msgpack.packb) | requests.map(msgpack.packb), max_size=5
).map(b"".join)


async def test_no_bytes_harm_the_server(served):
    """Hypothesis runs inside: one server meets all of it, as a daemon would."""
    examples: list[bytes] = []

    @settings(
        max_examples=300,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(streams)
    def collect(data: bytes) -> None:
        examples.append(data)

    collect()
    steady = await served.raw()
    for data in examples:
        peer = await served.raw()
        with suppress(BrokenPipeError):
            await peer.send(data)
        peer.close()
        assert (await steady.call("test.echo", value="up"))[3] == "up"
    await served.until(lambda: served.server.counts.open == 1)
