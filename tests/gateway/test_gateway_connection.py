"""A connection of the gateway: how long it may be silent, and when what it answers leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import pytest
import trio

from whatsappd.gateway.connection import MAX_AHEAD, HttpConnection, HttpService
from whatsappd.gateway.listener import GuardedListener, open_socket
from whatsappd.gateway.settings import parse_bind
from whatsappd.gateway.websocket import MAX_WAITING

IDLE_FOR = 0.3
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Served(NamedTuple):
    client: trio.SocketStream
    connection: HttpConnection
    ended: trio.Event
    stopping: trio.Event


@asynccontextmanager
async def served(app: Callable[..., Any], idle_for: float = IDLE_FOR) -> AsyncIterator[Served]:
    """A client that is connected to `app`."""
    opened = open_socket(parse_bind("127.0.0.1:0"))
    async with GuardedListener(opened) as listener, trio.open_nursery() as nursery:
        client = await trio.open_tcp_stream("127.0.0.1", opened.getsockname()[1])
        stream = await listener.accept()
        stopping, ended = trio.Event(), trio.Event()
        connection = HttpConnection(HttpService(app, stopping, idle_for=idle_for), stream)

        async def serve() -> None:
            try:
                await connection.serve()
                ended.set()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(stream)

        nursery.start_soon(serve)
        with trio.fail_after(20):
            async with client:
                yield Served(client, connection, ended, stopping)
        nursery.cancel_scope.cancel()


async def respond(send: Callable[..., Any], *parts: bytes, status: int = 200) -> None:
    length = str(sum(map(len, parts))).encode()
    headers = [(b"content-length", length)]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def hello(_scope: Any, _receive: Any, send: Callable[..., Any]) -> None:
    await respond(send, b"hello")


async def until(client: trio.SocketStream, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        more = await client.receive_some(65536)
        assert more, data
        data += more
    return data


async def test_a_small_answer_leaves_in_one_piece_and_the_connection_is_kept() -> None:
    async with served(hello) as (client, _, ended, _):
        for _ in range(3):
            await client.send_all(REQUEST)
            answer = await client.receive_some(65536)
            assert answer.startswith(b"HTTP/1.1 200")
            assert answer.endswith(b"\r\n\r\nhello")
        assert not ended.is_set()


async def test_an_answer_without_a_body_leaves_too() -> None:
    async def nothing(_scope: Any, _receive: Any, send: Callable[..., Any]) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with served(nothing) as (client, _, _, _):
        await client.send_all(REQUEST)
        assert (await until(client, b"\r\n\r\n")).startswith(b"HTTP/1.1 204")


async def test_head_of_what_is_refused_is_answered_without_a_body() -> None:
    async with served(hello) as (client, _, _, _):
        await client.send_all(b"HEAD /a%2Fb HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await until(client, b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")
    assert int(answer.lower().partition(b"content-length: ")[2].split()[0]) > 0


async def test_each_part_of_a_stream_leaves_when_it_is_there() -> None:
    go_on = trio.Event()

    async def stream(_scope: Any, _receive: Any, send: Callable[..., Any]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"second"})

    async with served(stream) as (client, _, ended, _):
        await client.send_all(REQUEST)
        assert b"200" in await until(client, b"5\r\nfirst\r\n")
        await trio.sleep(2 * IDLE_FOR)  # it is no pause while a request runs
        assert not ended.is_set()
        go_on.set()
        await until(client, b"0\r\n\r\n")


async def test_what_only_informs_leaves_at_once() -> None:
    async def echo(_scope: Any, receive: Any, send: Callable[..., Any]) -> None:
        await respond(send, (await receive())["body"])

    async with served(echo) as (client, _, _, _):
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        await client.send_all(head)
        assert (await until(client, b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        await client.send_all(b"hi")
        await until(client, b"\r\n\r\nhi")


@pytest.mark.parametrize("is_first", [True, False])
async def test_headers_that_trickle_do_not_hold_a_connection(is_first: bool) -> None:
    async with served(hello) as (client, _, ended, _):
        if not is_first:
            await client.send_all(REQUEST)
            await until(client, b"hello")
        began = trio.current_time()
        with suppress(trio.BrokenResourceError):
            while not ended.is_set():  # a byte now and then is not enough
                await client.send_all(b"G")
                await trio.sleep(IDLE_FOR / 10)
        await ended.wait()
        assert trio.current_time() - began > IDLE_FOR / 2


async def test_at_the_end_who_waits_is_let_go_and_who_works_goes_on() -> None:
    go_on, begun = trio.Event(), trio.Event()

    async def slow(_scope: Any, _receive: Any, send: Callable[..., Any]) -> None:
        begun.set()
        await go_on.wait()
        await respond(send, b"done")

    async with served(slow, idle_for=60) as (client, connection, ended, stopping):
        stopping.set()
        connection.end_if_idle()
        await ended.wait()
        assert await client.receive_some(1) == b""

    async with served(slow, idle_for=60) as (client, connection, ended, stopping):
        await client.send_all(REQUEST)
        await begun.wait()
        stopping.set()
        connection.end_if_idle()
        go_on.set()
        await until(client, b"done")
        await ended.wait()


async def test_one_whose_body_nobody_reads_does_not_stay() -> None:
    """It was answered before its end, as those without a key are."""
    async with served(hello, idle_for=60) as (client, _, ended, _):
        with suppress(trio.BrokenResourceError):
            await client.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n")
            for _ in range(40):
                await client.send_all(b"x" * 100_000)
        with trio.fail_after(5):
            await ended.wait()


async def test_a_head_that_comes_with_much_of_its_body_is_no_flood() -> None:
    async def app(_scope: Any, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        size, has_more = 0, True
        while has_more:
            message = await receive()
            size += len(message["body"])
            has_more = message["more_body"]
        await respond(send, b"%d" % size)

    body = b"x" * (4 * MAX_AHEAD)
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with served(app, idle_for=5) as gateway:
        for _ in range(60):  # whose turn it is first is a matter of chance
            await gateway.client.send_all(request)
            await until(gateway.client, b"\r\n\r\n%d" % len(body))


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def frame(opcode: int, data: bytes, *, is_last: bool = True) -> bytes:
    """As a client sends it, masked with nothing."""
    return bytes([is_last << 7 | opcode, 0x80 | len(data)]) + b"\0\0\0\0" + data


async def test_any_number_of_messages_may_come_ahead_of_a_websocket_s_answer() -> None:
    """And they stay in front of what comes behind it."""
    count = 5 * MAX_WAITING

    async def app(_scope: Any, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        texts = [(await receive())["text"] for _ in range(count + 1)]
        await send({"type": "websocket.send", "text": ",".join(texts)})
        await receive()  # the end

    async with served(app) as gateway:
        ahead = b"".join(frame(1, b"%d" % number) for number in range(count))
        await gateway.client.send_all(UPGRADE + ahead)
        assert b"101" in await until(gateway.client, b"\r\n\r\n")
        await gateway.client.send_all(frame(1, b"last"))
        expected = ",".join([*map(str, range(count)), "last"])
        await until(gateway.client, expected.encode())


async def test_empty_pieces_of_a_message_are_not_kept() -> None:
    async def app(_scope: Any, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": (await receive())["text"]})
        await receive()  # the end

    async with served(app) as gateway:
        await gateway.client.send_all(UPGRADE + frame(1, b"", is_last=False))
        await gateway.client.send_all(frame(0, b"", is_last=False) * 2000 + frame(9, b"there?"))
        await until(gateway.client, b"there?")
        exchange = gateway.connection._websocket
        assert exchange is not None
        assert not exchange._part
        await gateway.client.send_all(frame(0, b"whole"))
        await until(gateway.client, b"whole")
