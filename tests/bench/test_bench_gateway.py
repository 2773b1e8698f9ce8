"""The gateway beside the socket it stands on: sends a second, latency, subscribers, memory.

The load runs in this
process and shares the cores with the daemon and the gateway, so the ratios tell more than the
absolute figures.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

for room in ("e2e", "gateway"):
    sys.path.insert(0, str(Path(__file__).parents[1] / room))

from daemons import Daemon, running_daemon  # noqa: E402 - found by the lines above
from gateways import Gateway, Stack, running_gateway  # noqa: E402
from processes import usage  # noqa: E402
from websockets import open_websocket  # noqa: E402

pytestmark = pytest.mark.bench

SENDS = 1500
SUBSCRIBERS = 1000
EVENTS = 100


class Keepalive:
    """One HTTP/1.1 connection that does as little as a client can."""

    def __init__(self, stream: trio.SocketStream, key: str) -> None:
        self._stream = stream
        self._key = key
        self._buffer = b""

    async def post(self, path: str, body: dict) -> int:
        content = json.dumps(body).encode()
        await self._stream.send_all(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += await self._more()
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        [length] = [
            int(line.partition(b":")[2])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        ]
        while len(rest) < length:
            rest += await self._more()
        self._buffer = rest[length:]
        return int(head.split(b" ", 2)[1])

    async def _more(self) -> bytes:
        data = await self._stream.receive_some(65536)
        assert data, "hung up"
        return bytes(data)


async def measure(
    senders: int, send: Callable[[int], Awaitable[None]]
) -> tuple[float, float, float]:
    """Requests a second, and p50 and p99 in ms, of SENDS calls by that many senders."""
    took: list[float] = []

    async def one(sender: int) -> None:
        for _ in range(SENDS // senders):
            began = trio.current_time()
            await send(sender)
            took.append(trio.current_time() - began)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for sender in range(senders):
            nursery.start_soon(one, sender)
    elapsed = trio.current_time() - began
    cuts = statistics.quantiles(took, n=100)
    return len(took) / elapsed, cuts[49] * 1000, cuts[98] * 1000


async def unlinked(daemon: Daemon, company: str) -> None:
    """A company that queues whatever it is given."""
    async with daemon.client() as client:
        await client.call("session.start", company=company)
        await client.call("session.stop", company=company)


@pytest.mark.parametrize("senders", [1, 32])
async def test_sends_over_rest_beside_sends_over_the_socket(
    senders: int, measured: Callable[..., None]
) -> None:
    async with running_daemon("--sandbox") as daemon, running_gateway(daemon) as gateway:
        stack = Stack(daemon, gateway)
        await unlinked(daemon, "acme")
        key = await stack.key("send")
        message = {"to": "+15550999", "text": "Your order is ready."}

        async with daemon.client() as client:

            async def by_rpc(_sender: int) -> None:
                await client.call("message.send", company="acme", **message)

            rpc = await measure(senders, by_rpc)

        async with AsyncExitStack() as streams:
            connections = []
            for _ in range(senders):
                stream = await trio.open_tcp_stream("127.0.0.1", gateway.port)
                connections.append(Keepalive(await streams.enter_async_context(stream), key))

            async def by_rest(sender: int) -> None:
                assert await connections[sender].post("/v1/sessions/acme/messages", message) == 202

            rest = await measure(senders, by_rest)
        names = (("rate", "/s"), ("p50", "ms"), ("p99", "ms"))
        for (name, unit), ours, socket in zip(names, rest, rpc, strict=True):
            what = f"POST of a message, {senders} senders, {name}"
            measured(what, ours, unit, beside="over the socket", reference=socket)
        measured(f"gateway's private memory, {senders} senders", private_mb(gateway), "MB")
        assert rest[0] > 50


async def test_a_thousand_websocket_subscribers(measured: Callable[..., None]) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    async with running_daemon("--sandbox") as daemon, running_gateway(daemon) as gateway:
        stack = Stack(daemon, gateway)
        key = await stack.key("read")
        idle = private_mb(gateway)
        await unlinked(daemon, "acme")
        ready, done = trio.Semaphore(0), trio.Semaphore(0)
        last = await stack.last_seq()
        gate = trio.CapacityLimiter(50)  # connecting at once

        async def subscribe() -> None:
            async with gate:
                manager = open_websocket(gateway.port, "type=outbox.state", key=key)
                events = await manager.__aenter__()
                await events.receive()
            try:
                ready.release()
                for _ in range(EVENTS):
                    await events.event()
                done.release()
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(1, shield=True):
                    await manager.__aexit__(None, None, None)

        with trio.fail_after(300):
            async with trio.open_nursery() as nursery:
                began = trio.current_time()
                for _ in range(SUBSCRIBERS):
                    nursery.start_soon(subscribe)
                for _ in range(SUBSCRIBERS):
                    await ready.acquire()
                connected = trio.current_time() - began
                held = private_mb(gateway)

                began = trio.current_time()
                async with daemon.client() as client:
                    for _ in range(EVENTS):
                        await client.call("message.send", company="acme", to="+15550999", text="x")
                for _ in range(SUBSCRIBERS):
                    await done.acquire()
                delivered = trio.current_time() - began
                nursery.cancel_scope.cancel()
        assert await stack.last_seq() >= last + EVENTS
        many = f"{SUBSCRIBERS} WebSockets"
        measured(f"{many} connected in", connected, "s")
        measured(f"events to {many}", SUBSCRIBERS * EVENTS / delivered, "deliveries/s")
        measured(f"gateway's private memory with {many}", held, "MB", beside="idle", reference=idle)


def private_mb(gateway: Gateway) -> float:
    assert gateway.process is not None
    return usage(gateway.process.pid).private_mb
