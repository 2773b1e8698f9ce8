"""A WebSocket: translates between its frames (wsproto) and the application's messages (ASGI).

`connection` makes a `WebSocketExchange` when a request asks for a WebSocket. It goes on reading
from the client, hands the bytes on with `feed`, and calls `lose` when the client is gone. Routes
speak to the client by `AcceptedWebSocket`.

On failure: a client that sends too large a message gets close code 1009. If the application fails,
the client gets 1011. Whichever end closes, the other one has CLOSE_WITHIN seconds to follow.

Compression is not offered: clients send acks of a few bytes, and the compressors of a thousand
streams would need half a gigabyte.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

import trio
from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, generate_accept_token

from whatsappd.gateway.answers import Receive, Send

#: Bytes of a message from a client: acks are tiny.
MAX_MESSAGE = 4096
#: Messages from the client that wait for the application; then no more is read from it.
MAX_WAITING = 16
#: Seconds for the other end's part of the closing handshake, and for the application to end.
CLOSE_WITHIN = 3.0

Header = tuple[bytes, bytes]


class Upgrade(Protocol):
    """The request that asks for a WebSocket, and how to answer it. `connection` implements it."""

    async def write(self, data: bytes) -> None: ...
    def switched(self, headers: list[Header]) -> tuple[bytes, bytes]: ...
    async def answer(self, status: int, headers: Iterable[Header], body: bytes) -> None: ...
    def cancel_within(self, seconds: float) -> None: ...


class WebSocketExchange:
    """One WebSocket: `run` has the application serve it.

    Whoever reads from the client calls `feed` with what arrives, and `lose` at its end.
    """

    def __init__(self, key: bytes, exchange: Upgrade) -> None:
        self._key = key
        self._exchange = exchange
        self._frames = Frames(ConnectionType.SERVER)
        self._is_answered = False
        self._denial: dict[str, Any] | None = None
        self._is_connect_told = False
        self._part: list[str | bytes | bytearray] = []
        self._part_size = 0
        self._ahead = b""  # what came behind the request, before its answer
        self._accepted = trio.Event()
        self._feeding = trio.Lock()
        self._closed = trio.Event()  # nothing more will come from the client
        self._inbox, self._messages = trio.open_memory_channel[dict[str, Any]](MAX_WAITING)
        self._code = int(CloseReason.ABNORMAL_CLOSURE)
        self.is_open = False

    @property
    def grace(self) -> float:
        """Seconds that the application still has when the client is gone."""
        return CLOSE_WITHIN if self.is_open else -math.inf

    async def run(self, app: Callable[..., Awaitable[None]], scope: dict[str, Any]) -> None:
        """Have `app` serve it, until both ends have closed or used up their time."""
        offered = [value for name, value in scope["headers"] if name == b"sec-websocket-protocol"]
        scope["subprotocols"] = [
            part.strip() for part in b",".join(offered).decode("latin-1").split(",") if part.strip()
        ]
        scope["extensions"] = {"websocket.http.response": {}}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._feed_ahead)
            await self._run_to_its_end(app, scope)
            nursery.cancel_scope.cancel()

    async def _run_to_its_end(
        self, app: Callable[..., Awaitable[None]], scope: dict[str, Any]
    ) -> None:
        try:
            await app(scope, self._receive, self._send)
        finally:
            if self._is_answered and self.is_open and not self._closed.is_set():
                with trio.move_on_after(CLOSE_WITHIN, shield=True):
                    await self._close(CloseReason.INTERNAL_ERROR)
        if self.is_open:
            with trio.move_on_after(CLOSE_WITHIN):
                await self._closed.wait()

    # --- from the client ----------------------------------------------------------------------

    async def feed(self, data: bytes) -> None:
        """Take bytes from the client. Waits while the application has MAX_WAITING messages to
        read, so that no more is read from the client."""
        async with self._feeding:
            data, self._ahead = self._ahead + data, b""
            await self._feed(data)

    async def _feed_ahead(self) -> None:
        # Not by the application, while it accepts: it would wait for itself to read.
        await self._accepted.wait()
        await self.feed(b"")

    async def _feed(self, data: bytes) -> None:
        if self._frames.state is ConnectionState.CLOSED or not data:
            return
        self._frames.receive_data(data)
        for event in self._frames.events():
            if isinstance(event, CloseConnection):
                await self._close(
                    CloseReason.NORMAL_CLOSURE if event.code == CloseReason.NO_STATUS_RCVD
                    else event.code, event.reason,
                )  # fmt: skip
                self.lose(event.code)
                return
            if self._frames.state is not ConnectionState.OPEN:
                continue  # we closed: only its answer counts
            if isinstance(event, Ping):
                await self._write(event.response())
            elif isinstance(event, Message):
                await self._take(event)

    async def _take(self, event: Message[Any]) -> None:
        if event.data:  # a message may have any number of empty pieces
            self._part.append(event.data)
        self._part_size += len(event.data)
        if self._part_size > MAX_MESSAGE:
            self._part.clear()
            await self._close(CloseReason.MESSAGE_TOO_BIG, f"at most {MAX_MESSAGE} bytes")
            self._inbox.close()
            self._exchange.cancel_within(2 * CLOSE_WITHIN)
        elif event.message_finished:
            parts, self._part, self._part_size = self._part, [], 0
            is_text = isinstance(event, TextMessage)
            message: dict[str, Any] = {"type": "websocket.receive", "text": None, "bytes": None}
            if is_text:
                message["text"] = "".join(str(part) for part in parts)
            else:
                message["bytes"] = b"".join(bytes(part) for part in parts)  # type: ignore[arg-type]
            try:
                await self._inbox.send(message)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    def lose(self, code: int | None = None) -> None:
        """The client is gone, or closed the WebSocket with `code`: the application is told after
        it has read what came before, and has CLOSE_WITHIN seconds to end."""
        if code is not None:
            self._code = int(code)
        self._inbox.close()
        self._closed.set()
        if self.is_open:
            self._exchange.cancel_within(CLOSE_WITHIN)

    # --- ASGI ---------------------------------------------------------------------------------

    async def _receive(self) -> dict[str, Any]:
        if not self._is_connect_told:
            self._is_connect_told = True
            return {"type": "websocket.connect"}
        try:
            return await self._messages.receive()
        except trio.EndOfChannel:
            return {"type": "websocket.disconnect", "code": self._code}

    async def _send(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "websocket.send":
            if self._frames.state is ConnectionState.OPEN and not self._closed.is_set():
                text = message.get("text")
                await self._write(
                    BytesMessage(data=bytes(message["bytes"])) if text is None
                    else TextMessage(data=text)
                )  # fmt: skip
            else:
                await trio.lowlevel.checkpoint()  # `receive` tells of the end
        elif kind == "websocket.accept":
            await self._accept(message.get("subprotocol"), message.get("headers", ()))
        elif kind == "websocket.http.response.start":
            self._denial = message
        elif kind == "websocket.http.response.body":
            assert self._denial is not None
            assert not message.get("more_body", False), "a refusal is one piece"
            self._is_answered = True
            await self._exchange.answer(
                self._denial["status"], self._denial.get("headers", ()), message.get("body", b"")
            )
        elif self._is_answered:
            await self._close(int(message.get("code") or 1000), message.get("reason"))
        else:
            self._is_answered = True
            await self._exchange.answer(403, [(b"content-length", b"0")], b"")

    async def _accept(self, subprotocol: str | None, headers: Iterable[Header]) -> None:
        given = [(b"sec-websocket-accept", generate_accept_token(self._key)), *headers]
        if subprotocol is not None:
            given.append((b"sec-websocket-protocol", subprotocol.encode()))
        answer, self._ahead = self._exchange.switched(given)
        self._is_answered = self.is_open = True
        await self._exchange.write(answer)
        self._accepted.set()

    async def _close(self, code: int, reason: str | None = None) -> None:
        # RFC 6455: a reason has at most 123 bytes.
        short = (reason or "").encode()[:123].decode("utf-8", "ignore") or None
        await self._write(CloseConnection(code=int(code), reason=short))

    async def _write(self, event: Any) -> None:
        try:
            data = self._frames.send(event)
        except LocalProtocolError:
            return  # it was closed already
        await self._exchange.write(data)


class AcceptedWebSocket:
    """A WebSocket as routes use it: ASGI's messages as methods.

    Sending to a client that is gone does nothing; `receive` tells that it is gone.
    """

    def __init__(self, subprotocols: list[str], receive: Receive, send: Send) -> None:
        self.subprotocols = subprotocols  # that the client offered
        self._receive = receive
        self._send = send

    async def accept(self, subprotocol: str | None = None) -> None:
        assert (await self._receive())["type"] == "websocket.connect"
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol})

    async def send_text(self, text: str) -> None:
        await self._send({"type": "websocket.send", "text": text})

    async def receive(self) -> dict[str, Any] | None:
        """Wait for the next message, as ASGI has it. Returns None when the client is gone."""
        message = await self._receive()
        return None if message["type"] == "websocket.disconnect" else message

    async def close(self, code: int, reason: str) -> None:
        # RFC 6455: a reason has at most 123 bytes.
        short = reason.encode()[:120].decode("utf-8", "ignore")
        await self._send({"type": "websocket.close", "code": code, "reason": short})
