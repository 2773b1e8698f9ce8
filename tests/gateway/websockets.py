"""A WebSocket client on a plain trio stream, that reads only when told."""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)


class Refused(Exception):
    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status}: {body!r}")
        self.status = status
        self.problem = json.loads(body) if body else None


class Closed(Exception):
    def __init__(self, code: int, reason: str | None) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class WebSocket:
    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._connection = WSConnection(ConnectionType.CLIENT)
        self._texts: deque[str] = deque()
        self._partial = ""
        self.accepted: AcceptConnection | None = None
        self._rejected: RejectConnection | None = None
        self._body = b""

    async def open(self, target: str, headers: dict[str, str], subprotocols: list[str]) -> None:
        await self._send(
            Request(
                host="127.0.0.1",
                target=target,
                extra_headers=[(n.encode(), v.encode()) for n, v in headers.items()],
                subprotocols=subprotocols,
            )
        )
        while self.accepted is None:
            await self._read()

    async def _send(self, event: Any) -> None:
        await self._stream.send_all(self._connection.send(event))

    async def _read(self) -> None:
        data = await self._stream.receive_some(65536)
        if not data:
            raise Closed(1006, "hung up")
        self._connection.receive_data(data)
        for event in self._connection.events():
            match event:
                case AcceptConnection():
                    self.accepted = event
                case RejectConnection():
                    self._rejected = event
                    if not event.has_body:
                        raise Refused(event.status_code, b"")
                case RejectData():
                    self._body += event.data
                    if event.body_finished:
                        assert self._rejected is not None
                        raise Refused(self._rejected.status_code, self._body)
                case TextMessage():
                    self._partial += event.data
                    if event.message_finished:
                        self._texts.append(self._partial)
                        self._partial = ""
                case Ping():
                    await self._send(event.response())
                case CloseConnection():
                    self._texts.append(f"closed {event.code} {event.reason}")

    async def receive(self) -> dict[str, Any]:
        """The next message; raises Closed."""
        with trio.fail_after(40):
            while not self._texts:
                await self._read()
        text = self._texts.popleft()
        if text.startswith("closed "):
            _, code, reason = text.split(" ", 2)
            raise Closed(int(code), reason)
        return json.loads(text)

    async def rest(self) -> tuple[list[dict[str, Any]], Closed]:
        """All messages until the other end closes, and how it did."""
        messages = []
        try:
            while True:
                messages.append(await self.receive())
        except Closed as closed:
            return messages, closed

    async def event(self, **wanted: Any) -> dict[str, Any]:
        """The next event with these members."""
        while True:
            message = await self.receive()
            event = message.get("event")
            if event is not None and all(event[name] == value for name, value in wanted.items()):
                return event

    async def send(self, value: Any) -> None:
        await self.send_text(json.dumps(value))

    async def send_text(self, text: str) -> None:
        await self._send(TextMessage(text))


@asynccontextmanager
async def open_websocket(
    port: int,
    query: str = "",
    *,
    key: str | None = None,
    headers: dict[str, str] | None = None,
    subprotocols: list[str] | None = None,
    receive_buffer: int | None = None,
    path: str = "/v1/events",
) -> AsyncIterator[WebSocket]:
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await sock.connect(("127.0.0.1", port))
    async with trio.SocketStream(sock) as stream:
        websocket = WebSocket(stream)
        given = dict(headers or {})
        if key is not None:
            given["Authorization"] = f"Bearer {key}"
        target = f"{path}?{query}" if query else path
        await websocket.open(target, given, subprotocols or [])
        yield websocket
