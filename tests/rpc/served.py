"""What tests of the RPC talk to: methods that know nothing of WhatsApp, and a raw peer.

The raw peer speaks MessagePack by itself, so that a mistake of ours in both ends cannot hide.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Literal

import msgpack
import msgspec
import trio

from whatsappd.api.declaration import Declaration, NoParams, Params, Result
from whatsappd.errors import NotConnected
from whatsappd.rpc.listener import Listener
from whatsappd.rpc.method import Call, Method, MethodTable
from whatsappd.rpc.server import RpcServer


class Size(Params):
    size: int


class Value(Params):
    value: Any = None


class Send(Params):
    company: str
    to: str
    wait: Literal["queued", "sent", "delivered"] = "queued"
    companies: list[str] = msgspec.field(default_factory=list)


def declared(
    name: str, params: type[Params], handler: Callable[[Call, Any], Any], *, writes: bool = False
) -> Method:
    """A method that answers anything at all."""
    return Method(Declaration(name, params, Result, "", writes=writes), handler)


class Behaviour:
    """The methods' side of a test: what was called, and when the slow ones may answer."""

    def __init__(self) -> None:
        self.gate = trio.Event()
        self.waiting = 0
        self.cancelled = trio.Event()
        self.subscribed = 0
        #: The table that is served, once it is made: its methods count their calls.
        self.table_in_use = MethodTable([])

    def hello(self, call: Call, params: NoParams) -> dict[str, Any]:
        return {"pid": call.peer.pid, "uid": call.peer.uid, "gid": call.peer.gid}

    def echo(self, call: Call, params: Value) -> Any:
        return params.value

    def big(self, call: Call, params: Size) -> bytes:
        return bytes(params.size)

    def boom(self, call: Call, params: NoParams) -> None:
        raise ZeroDivisionError("the secret of acme")

    def refuse(self, call: Call, params: NoParams) -> None:
        raise NotConnected("acme is not connected", company="acme")

    def unpackable(self, call: Call, params: NoParams) -> Any:
        return object()

    def send(self, call: Call, params: Send) -> dict[str, Any]:
        return {"to": params.to}

    async def wait(self, call: Call, params: Value) -> Any:
        self.waiting += 1
        try:
            await self.gate.wait()
        except trio.Cancelled:
            self.cancelled.set()
            raise
        finally:
            self.waiting -= 1
        return params.value

    async def wait_boom(self, call: Call, params: NoParams) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._refuse)

    async def _refuse(self) -> None:
        raise NotConnected("acme is not connected")

    def subscribe(self, call: Call, params: Size) -> str:
        """`size` notifications after the answer."""

        async def notify() -> None:
            self.subscribed += 1
            try:
                for number in range(params.size):
                    await call.connection.notify("event", {"number": number})
            finally:
                self.subscribed -= 1

        call.connection.start_soon(notify)
        return "subscribed"

    async def subscribe_as(self, call: Call, params: NoParams) -> str:
        """What goes on in the name of an actor, until its rights end."""
        assert call.actor is not None
        call.connection.bind_to(call.actor)
        call.connection.start_soon(trio.sleep_forever)
        return "subscribed"

    def subscribe_badly(self, call: Call, params: NoParams) -> str:
        async def fail() -> None:
            raise RuntimeError("a defect in a subscription")

        call.connection.start_soon(fail)
        return "subscribed"

    def table(self) -> MethodTable:
        self.table_in_use = MethodTable(
            [
                declared("daemon.hello", NoParams, self.hello),
                declared("test.echo", Value, self.echo),
                declared("test.big", Size, self.big),
                declared("test.boom", NoParams, self.boom),
                declared("test.boom_often", NoParams, self.boom),
                declared("test.refuse", NoParams, self.refuse),
                declared("test.unpackable", NoParams, self.unpackable),
                declared("test.send", Send, self.send, writes=True),
                declared("test.wait", Value, self.wait),
                declared("test.wait_boom", NoParams, self.wait_boom),
                declared("test.subscribe", Size, self.subscribe),
                declared("test.subscribe_as", NoParams, self.subscribe_as),
                declared("test.subscribe_badly", NoParams, self.subscribe_badly),
            ]
        )
        return self.table_in_use


class Served:
    """A running server and what tests do with it."""

    def __init__(self, listener: Listener, server: RpcServer, behaviour: Behaviour) -> None:
        self.listener = listener
        self.server = server
        self.behaviour = behaviour
        self.path = listener.path
        self.peers: list[RawPeer] = []

    async def raw(self) -> RawPeer:
        """A new connection; closed with the server at the latest."""
        self.peers.append(await RawPeer.connect(self.path))
        return self.peers[-1]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a change inside the server, which runs in this very loop."""
        with trio.fail_after(5):
            while not condition():
                await trio.sleep(0.001)


class RawPeer:
    """A client that sends any bytes, and reads MessagePack values."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self.sock = sock
        self._unpacker = msgpack.Unpacker(max_buffer_size=1 << 26)

    @classmethod
    async def connect(cls, path: str) -> RawPeer:
        sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        await sock.connect(path)
        return cls(sock)

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[await self.sock.send(view) :]

    async def request(self, msgid: int, method: str, **arguments: Any) -> None:
        await self.send(msgpack.packb([0, msgid, method, [arguments] if arguments else []]))

    async def receive(self) -> Any:
        """The next value; None at the end of the stream."""
        with trio.fail_after(10):
            while True:
                for value in self._unpacker:
                    return value
                try:
                    data = await self.sock.recv(65536)
                except ConnectionResetError:
                    return None
                if not data:
                    return None
                self._unpacker.feed(data)

    async def call(self, method: str, **arguments: Any) -> Any:
        await self.request(77, method, **arguments)
        return await self.receive()

    def close(self) -> None:
        self.sock.close()
