"""A webhook receiver: a small HTTP server on loopback that remembers, and answers as told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import h11
import trio
from daemons import PATIENCE


class Received(NamedTuple):
    headers: dict[str, str]
    body: bytes
    status: int  # what it was answered
    event: dict[str, Any]


#: From headers and event to a status, or a status with headers.
Answer = Callable[[dict[str, Any]], int | tuple[int, list[tuple[str, str]]]]


class Receiver:
    """`answer` may be changed at any time; `before` runs before each answer."""

    def __init__(self) -> None:
        self.port = 0
        self.received: list[Received] = []
        #: Events that were answered with 200, in order, without pings and tests.
        self.accepted: list[dict[str, Any]] = []
        self.answer: Answer = lambda event: 200
        self.before: Callable[[dict[str, Any]], Any] | None = None
        self.text = b""  # of the answers
        self.connections = 0
        self.at_once = 0
        self._now = 0
        self._more = trio.Event()
        self._scope: trio.CancelScope | None = None
        self._nursery: trio.Nursery | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def start(self) -> None:
        assert self._nursery is not None
        self._scope = trio.CancelScope()

        async def serve(task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
            assert self._scope is not None
            with self._scope:
                await trio.serve_tcp(
                    self._serve, self.port, host="127.0.0.1", task_status=task_status
                )

        [listener] = await self._nursery.start(serve)
        self.port = listener.socket.getsockname()[1]

    def stop(self) -> None:
        """Nobody listens any more; the port stays the same at the next start."""
        assert self._scope is not None
        self._scope.cancel()

    async def until(self, wanted: Callable[[], Any]) -> None:
        with trio.move_on_after(PATIENCE):
            while not wanted():
                await self._more.wait()
            return
        raise AssertionError(f"not within {PATIENCE} s; last: {self.received[-3:]}")

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        connection = h11.Connection(h11.SERVER)
        headers: dict[str, str] = {}
        body = b""
        try:
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await stream.receive_some(65536))
                elif isinstance(event, h11.Request):
                    headers = {name.decode(): value.decode() for name, value in event.headers}
                    body = b""
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    await stream.send_all(await self._answer(connection, headers, body))
                    if connection.our_state is h11.MUST_CLOSE:
                        return
                    connection.start_next_cycle()
                else:
                    return
        except (trio.BrokenResourceError, h11.RemoteProtocolError):
            pass  # the deliverer was killed in the middle

    async def _answer(
        self, connection: h11.Connection, headers: dict[str, str], body: bytes
    ) -> bytes:
        event = json.loads(body)
        self._now += 1
        self.at_once = max(self.at_once, self._now)
        try:
            if self.before is not None:
                await self.before(event)
        finally:
            self._now -= 1
        answer = self.answer(event)
        status, more = answer if isinstance(answer, tuple) else (answer, [])
        self.received.append(Received(headers, body, status, event))
        if status == 200 and not event["type"].startswith("webhook."):
            self.accepted.append(event)
        self._more.set()
        self._more = trio.Event()
        text = self.text if self.text else b"no, thank you" if status >= 300 else b""
        answered = [*more, ("content-length", str(len(text)))]
        return b"".join(
            connection.send(part) or b""
            for part in (
                h11.Response(status_code=status, headers=answered),
                h11.Data(data=text),
                h11.EndOfMessage(),
            )
        )


@asynccontextmanager
async def running_receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    async with trio.open_nursery() as nursery:
        receiver._nursery = nursery
        await receiver.start()
        yield receiver
        nursery.cancel_scope.cancel()


def verify(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """The guide's example, in short."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return f"v1,{expected}" in headers["webhook-signature"].split(" ")
