"""A live RPC server, and clients that do everything right and wrong, in any order.

Whatever one of them does, a steady client is answered after each step; those that kept to the rules
have all their answers; and when all are gone, nothing is left of them.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgpack
import pytest
import trio
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
)
from live import PATIENCE, Live
from machines import run_machine
from served import Behaviour
from wire_targets import streams

from whatsappd.rpc.limits import Limits
from whatsappd.rpc.listener import close_listener, open_listener
from whatsappd.rpc.server import RpcServer, serve_rpc
from whatsappd.wire.frames import MAX_MESSAGE, READ_SIZE

LIMITS = Limits(max_connections=12, max_in_flight=8, max_unsent=100_000, send_stalled_after=2.0)


@asynccontextmanager
async def served(path: str, behaviour: Behaviour) -> AsyncIterator[RpcServer]:
    listener = open_listener(path)
    try:
        async with trio.open_nursery() as nursery:
            start = partial(serve_rpc, limits=LIMITS)
            server: RpcServer = await nursery.start(start, listener.socket, behaviour.table())
            behaviour.gate = trio.Event()
            yield server
            nursery.cancel_scope.cancel()
    finally:
        close_listener(listener)


class Server:
    """The server, in a thread of its own."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="wf-")
        self.path = os.fspath(Path(self._directory.name) / "rpc.sock")
        self.behaviour = Behaviour()
        self._live = Live(partial(served, self.path, self.behaviour))
        self.server = self._live.subject
        self.see, self.until = self._live.see, self._live.until

    def stop(self) -> None:
        self._live.stop()
        self._directory.cleanup()


class Client:
    """One connection, and the answers that it is owed. `is_bad`: it broke the rules."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(path)
        self.owed: dict[int, Any] = {}
        self.is_bad = False
        self.has_ended = False  # its sending side
        self._msgid = 0
        self._high_msgid = 2**32  # those near the largest are as good as any
        self._unpacker = msgpack.Unpacker(max_buffer_size=1 << 25)

    def send(self, data: bytes) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self.sock.sendall(data)

    def request(self, method: str, expected: Any, **arguments: Any) -> bytes:
        self._msgid += 1
        self.owed[self._msgid] = expected
        return msgpack.packb([0, self._msgid, method, [arguments]])

    def ask(self, method: str, expected: Any) -> bytes:
        """A request without arguments, with one of the largest ids."""
        self._high_msgid -= 1
        self.owed[self._high_msgid] = expected
        return msgpack.packb([0, self._high_msgid, method, []])

    def read(self) -> None:
        """Take all that is owed; a client that broke the rules takes what comes."""
        while self.owed:
            for kind, msgid, error, result in (
                each for each in self._unpacker if isinstance(each, list) and len(each) == 4
            ):
                if kind == 1 and not self.is_bad:
                    expected = self.owed.pop(msgid)
                    told = error["name"] if error is not None else result
                    assert told == expected or told == "too_many_requests", (expected, told)
            if not self.owed or self.is_bad:
                return
            data = self.sock.recv(READ_SIZE)
            assert data, "the connection ended, and answers are owed"
            self._unpacker.feed(data)


class RpcMachine(RuleBasedStateMachine):
    clients = Bundle("clients")

    def __init__(self) -> None:
        super().__init__()
        self.server = Server()
        self.steady = Client(self.server.path)
        self.all: list[Client] = []

    def teardown(self) -> None:
        try:
            self.server.see(self.server.behaviour.gate.set)
            for client in self.all:
                if not client.is_bad:
                    client.read()
                client.sock.close()
            self.the_steady_one_is_answered()
            server = self.server.server
            self.server.until(lambda: server.counts.open == 1)
            [left] = self.server.see(lambda: list(server._connections))
            assert left._exchange._in_flight == 0
            assert self.server.behaviour.waiting == 0
            assert self.server.behaviour.subscribed == 0
        finally:
            for client in [*self.all, self.steady]:
                client.sock.close()
            self.server.stop()

    # --- what clients do ----------------------------------------------------------------------

    @rule(target=clients)
    def connect(self) -> Client:
        client = Client(self.server.path)
        # Beyond the limit it is told so and closed.
        client.is_bad = sum(not each.sock._closed for each in self.all) >= 10  # type: ignore[attr-defined]
        self.all.append(client)
        return client

    @rule(client=clients, value=st.integers() | st.text(max_size=50), step=st.integers(1, 40))
    def ask_in_pieces(self, client: Client, value: Any, step: int) -> None:
        if self._may_send(client) and not (isinstance(value, int) and abs(value) >= 2**63):
            data = client.request("test.echo", value, value=value)
            for start in range(0, len(data), step):
                client.send(data[start : start + step])

    @rule(client=clients, count=st.integers(1, 60))
    def ask_many_at_once(self, client: Client, count: int) -> None:
        if self._may_send(client):
            client.send(
                b"".join(client.request("test.echo", each, value=each) for each in range(count))
            )

    @rule(client=clients, count=st.integers(1, 12))
    def ask_what_waits(self, client: Client, count: int) -> None:
        """More than may be in flight: those above are refused."""
        if self._may_send(client) and not self.server.behaviour.gate.is_set():
            client.send(b"".join(client.request("test.wait", 5, value=5) for _ in range(count)))

    @rule(client=clients, method=st.sampled_from(("test.boom", "test.unpackable", "test.none")))
    def ask_what_fails(self, client: Client, method: str) -> None:
        if self._may_send(client):
            name = "unknown_method" if method == "test.none" else "internal"
            client.send(client.ask(method, name))
            if not client.is_bad and not self._waits(client):
                client.read()

    @rule(client=clients)
    def open_the_gate(self, client: Client) -> None:
        """What waited is answered."""
        self.server.see(self.server.behaviour.gate.set)
        if not client.is_bad:
            client.read()
        self.server.see(lambda: setattr(self.server.behaviour, "gate", trio.Event()))

    @rule(client=clients, data=streams)
    def send_garbage(self, client: Client, data: bytes) -> None:
        client.is_bad = True
        client.send(data)

    @rule(
        client=clients, size=st.sampled_from((MAX_MESSAGE - 60, MAX_MESSAGE + 1, 2 * MAX_MESSAGE))
    )
    def send_too_much(self, client: Client, size: int) -> None:
        client.is_bad = True
        client.sock.setblocking(False)
        with suppress(OSError):
            client.sock.send(msgpack.packb([0, 1, "test.echo", [{"value": bytes(size)}]]))
        client.sock.setblocking(True)

    @rule(client=clients)
    def follow_and_never_read(self, client: Client) -> None:
        client.is_bad = True
        client.send(msgpack.packb([0, 1, "test.subscribe", [{"size": 10**7}]]))

    @rule(client=clients)
    def send_no_more(self, client: Client) -> None:
        client.has_ended = True
        with suppress(OSError):
            client.sock.shutdown(socket.SHUT_WR)

    @rule(client=consumes(clients))
    def vanish(self, client: Client) -> None:
        client.is_bad = True
        client.sock.close()

    def _may_send(self, client: Client) -> bool:
        return not client.is_bad and not client.has_ended

    def _waits(self, client: Client) -> bool:
        return 5 in client.owed.values()

    # --- what holds ---------------------------------------------------------------------------

    @invariant()
    def the_steady_one_is_answered(self) -> None:
        self.steady.send(self.steady.request("test.echo", "up", value="up"))
        self.steady.read()

    @invariant()
    def what_is_held_is_bounded(self) -> None:
        def held() -> list[tuple[int, int]]:
            return [
                (each._exchange._in_flight, each._writer.unsent)
                for each in self.server.server._connections
            ]

        for in_flight, unsent in self.server.see(held):
            assert in_flight <= LIMITS.max_in_flight
            assert unsent <= 2 * LIMITS.max_unsent + MAX_MESSAGE


def test_no_clients_harm_each_other_or_leave_anything_behind() -> None:
    run_machine(RpcMachine, examples=6, steps=30, derandomize=True)


@pytest.mark.soak
def test_no_clients_do_in_many_runs() -> None:
    run_machine(RpcMachine, examples=200, steps=60, derandomize=False)
