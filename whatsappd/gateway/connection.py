"""One client's connection: Hypercorn's, with fewer turns of the event loop for each request.

Hypercorn's `TCPServer` has a task for each pause between two requests, and takes a lock, a scope
and a turn of the loop for each of the three pieces that an answer has. Here a pause is a deadline
of the read that waits for its end, and what the kernel takes at once is sent at once: a third of
the processor's time for a small request. HTTP and WebSocket are Hypercorn's all the same. `run`
serves with it.
"""

from __future__ import annotations

import math
from typing import Any

import trio
from hypercorn.events import Closed, Event, RawData
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.typing import ConnectionState

from whatsappd.gateway.listener import GuardedStream


class Connection(TCPServer):
    """`await` it: serves until the client or the server has had enough.

    Args:
        stream: a GuardedStream, or TLS over one.
    """

    def __init__(self, app: Any, config: Any, context: Any, stream: Any) -> None:
        super().__init__(app, config, context, ConnectionState({}), stream)
        self._pause = _Pause(config.keep_alive_timeout, context)
        self.idle_task = self._pause  # type: ignore[assignment]
        self._head = b""

    def end_if_idle(self) -> None:
        """The gateway stops: nothing is waited for any more. A request that runs goes on."""
        self._pause.end()

    async def protocol_send(self, event: Event) -> None:
        data, self._head = self._head, b""
        if isinstance(event, RawData):
            if not data and _is_head(event.data):
                # As the ASGI specification has it, an answer leaves with the first of its body.
                self._head = event.data
                return
            data += event.data
        if data:
            await self._send(data)
        if not isinstance(event, RawData):
            await super().protocol_send(event)

    async def _send(self, data: bytes) -> None:
        stream: Any = self.stream
        if isinstance(stream, GuardedStream) and not self.send_lock.locked():
            try:
                data = data[stream.send_now(data) :]
            except trio.BrokenResourceError:
                await self.protocol.handle(Closed())
                return
        if data:
            await super().protocol_send(RawData(data))

    async def _read_data(self) -> None:
        data = b"more"
        while data:
            with self._pause.reading() as scope:
                try:
                    data = bytes(await self.stream.receive_some(MAX_RECV))
                except (trio.ClosedResourceError, trio.BrokenResourceError):
                    break
            if scope.cancelled_caught:
                break
            await self.protocol.handle(RawData(data))
        await self.protocol.handle(Closed())


class _Pause:
    """In the place of Hypercorn's `TrioSingleTask`: the time that a client may stay silent."""

    def __init__(self, seconds: float, context: Any) -> None:
        self._seconds = seconds
        self._context = context
        self._until = trio.current_time() + seconds  # infinite while a request runs
        self._scope = trio.CancelScope()

    def reading(self) -> trio.CancelScope:
        """The scope of the next read."""
        self._scope = trio.CancelScope(deadline=self._until)
        return self._scope

    def end(self) -> None:
        if self._until < math.inf:
            self._set(-math.inf)

    async def restart(self, _group: Any, _action: Any) -> None:
        stops = self._context.terminated.is_set()
        self._set(-math.inf if stops else trio.current_time() + self._seconds)

    async def stop(self) -> None:
        self._set(math.inf)

    def _set(self, until: float) -> None:
        self._until = self._scope.deadline = until


def _is_head(data: bytes) -> bool:
    """Whether that is all before an answer's body. (What only informs has none: 1xx.)"""
    return data.startswith(b"HTTP/1.1 ") and data[9:10] != b"1" and data.endswith(b"\r\n\r\n")
