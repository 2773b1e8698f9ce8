"""Nothing that a client does, or leaves undone, keeps a place after it is gone. Also over TLS."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from certificates import certificate
from counted_gateway import Served, Stream, reset, served_gateway, vanish
from gateways import Stack, make_events

from whatsappd.gateway import admission, connection, event_streams, listener, websocket
from whatsappd.rules.bounds import Holder

SHORT = 0.5


@pytest.fixture
async def events(stack: Stack) -> None:
    """More than a socket's buffers hold; and a company that is not linked."""
    if await stack.last_seq() < 1500:
        await make_events(stack.daemon, "polled", 700)
    async with stack.daemon.client() as client:
        await client.call("session.start", company="polled")
        await client.call("session.stop", company="polled")


@pytest.fixture(params=["plain", "tls"])
async def served(
    request: pytest.FixtureRequest,
    stack: Stack,
    events: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Served]:
    """With deadlines that a test can wait for."""
    for room, name in [
        (connection, "HANDSHAKE_WITHIN"), (connection, "HALF_CLOSED_FOR"),
        (connection, "LINGER_FOR"), (admission, "BODY_WITHIN"), (listener, "SEND_STALLED_AFTER"),
        (event_streams, "SLOW_AFTER"), (websocket, "CLOSE_WITHIN"),
    ]:  # fmt: skip
        monkeypatch.setattr(room, name, SHORT)
    given = certificate(tmp_path) if request.param == "tls" else None
    async with served_gateway(stack.daemon.socket, certificate=given, idle_for=SHORT) as gateway:
        yield gateway


class Abuse:
    """What one client does, with a key that is good."""

    def __init__(self, served: Served, key: dict[str, Any]) -> None:
        self.served = served
        self.caller = f"key:{key['id']}"
        self.head = f"Host: x\r\nAuthorization: Bearer {key['key']}\r\n".encode()
        self.stream: Stream | None = None

    async def say(self, *parts: bytes, receive_buffer: int | None = None) -> Stream:
        self.stream = await self.served.connect(receive_buffer)
        await self.stream.send_all(b"".join(parts))
        return self.stream

    async def half_a_head(self) -> None:
        await self.say(b"GET /v1/sessions HTTP/1.1\r\nHos")

    async def nothing(self) -> None:
        await self.say()

    async def half_a_body(self) -> None:
        await self.say(
            b"POST /v1/sessions HTTP/1.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n", self.head, b"\r\n{"
        )  # fmt: skip

    async def half_a_chunk(self) -> None:
        await self.say(
            b"POST /v1/sessions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", self.head,
            b"\r\nffff\r\n{",
        )  # fmt: skip

    async def an_idle_connection(self) -> None:
        stream = await self.say(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in await stream.receive_some(65536)

    async def a_long_poll(self) -> None:
        """It waits for a message that is not sent, for a minute."""
        body = json.dumps({"to": "+15550200", "text": "x"}).encode()
        await self.say(
            b"POST /v1/sessions/polled/messages?wait=sent&timeout=60 HTTP/1.1\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body),
            self.head, b"\r\n", body,
        )  # fmt: skip
        with trio.fail_after(10):
            while not self.served.app.requests.held(Holder(self.caller)):
                await trio.sleep(0.01)

    async def a_flood_behind_a_long_poll(self) -> None:
        await self.a_long_poll()
        assert self.stream is not None
        with suppress(trio.BrokenResourceError):
            while True:
                await self.stream.send_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)

    async def server_sent_events(self) -> None:
        stream = await self.say(
            b"GET /v1/events HTTP/1.1\r\nAccept: text/event-stream\r\n", self.head, b"\r\n"
        )
        assert b"200" in await stream.receive_some(1000)

    async def events_that_it_does_not_read(self) -> None:
        await self.say(
            b"GET /v1/events?after=0 HTTP/1.1\r\nAccept: text/event-stream\r\n", self.head,
            b"\r\n", receive_buffer=4096,
        )  # fmt: skip

    async def a_page_that_it_does_not_read(self) -> None:
        await self.say(
            *(b"GET /v1/events?limit=500 HTTP/1.1\r\n" + self.head + b"\r\n" for _ in range(20)),
            receive_buffer=4096,
        )

    async def a_websocket(self, after: bytes = b"") -> None:
        stream = await self.say(
            b"GET /v1/events" + after + b" HTTP/1.1\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Version: 13\r\n", self.head, b"\r\n",
        )  # fmt: skip
        assert b"101" in await stream.receive_some(1000)

    async def half_a_frame(self) -> None:
        await self.a_websocket()
        await self._send(b"\x81\xfe\x10")

    async def a_flood_of_pings(self) -> None:
        await self.a_websocket()
        with trio.move_on_after(SHORT):
            while True:
                await self._send((b"\x89\xfd" + b"\x00" * 4 + b"p" * 125) * 500)

    async def what_is_too_long_and_then_nothing(self) -> None:
        await self.a_websocket()
        await self._send(b"\x81\xfe\x20\x00" + b"\x00" * 4 + b"x" * 0x2000)

    async def no_frame_at_all(self) -> None:
        await self.a_websocket()
        await self._send(b"\xff\xff\xff\xff garbage")

    async def its_own_close_and_then_nothing(self) -> None:
        await self.a_websocket()
        await self._send(b"\x88\x82" + b"\x00" * 4 + b"\x03\xe8")

    async def half_a_handshake(self) -> None:
        """Of TLS; without TLS this is no request."""
        tcp = await self.served.tcp()
        self.stream = tcp
        await tcp.send_all(b"\x16\x03\x01\x02\x00\x01\x00")

    async def the_preface_of_http_2(self) -> None:
        stream = await self.say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 30)
        assert b"HTTP/1.1 505" in await stream.receive_some(1000)

    async def _send(self, data: bytes) -> None:
        assert self.stream is not None
        await self.stream.send_all(data)


#: What ends although its client stays, and says nothing more.
ENDS_BY_ITSELF = [
    Abuse.nothing, Abuse.half_a_head, Abuse.half_a_body, Abuse.half_a_chunk,
    Abuse.an_idle_connection, Abuse.events_that_it_does_not_read,
    Abuse.a_page_that_it_does_not_read, Abuse.what_is_too_long_and_then_nothing,
    Abuse.no_frame_at_all, Abuse.its_own_close_and_then_nothing, Abuse.half_a_handshake,
    Abuse.a_flood_behind_a_long_poll, Abuse.the_preface_of_http_2,
]  # fmt: skip
#: What may last, but not longer than its client.
LASTS = [
    Abuse.a_long_poll, Abuse.server_sent_events, Abuse.a_websocket, Abuse.half_a_frame,
    Abuse.a_flood_of_pings,
]  # fmt: skip
Does = Callable[[Abuse], Awaitable[None]]


@asynccontextmanager
async def done(served: Served, stack: Stack, kinds: list[Does]) -> AsyncIterator[list[Stream]]:
    """All of these, one after the other; the clients are there until the block ends."""
    made: list[Abuse] = []
    try:
        for does in kinds:
            made.append(Abuse(served, await stack.make_key()))
            await does(made[-1])
        yield [each.stream for each in made if each.stream is not None]
    finally:
        for each in made:
            if each.stream is not None:
                vanish(each.stream)


async def test_what_is_never_finished_ends(served: Served, stack: Stack) -> None:
    async with done(served, stack, ENDS_BY_ITSELF):
        await served.until_free()


@pytest.mark.parametrize("leave", [reset, vanish], ids=lambda leave: leave.__name__)
async def test_what_lasts_ends_with_its_client(
    served: Served, stack: Stack, leave: Callable[[Stream], None]
) -> None:
    async with done(served, stack, [*ENDS_BY_ITSELF, *LASTS]) as clients:
        assert served.places["streams"] >= len(LASTS) - 1
        for stream in clients:
            leave(stream)
        await served.until_free(within=3)
