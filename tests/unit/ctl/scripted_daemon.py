"""A daemon with scripted answers behind the real RPC server, in a thread of the test's process.

What is under test are the commands and the client; the methods' parameters are the daemon's own
types, so a command that sends a wrong argument fails here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import trio
from click.testing import CliRunner, Result

from whatsappctl.cli import cli
from whatsappd.api.methods import METHODS
from whatsappd.rpc.listener import close_listener, open_listener
from whatsappd.rpc.method import Call, Method, MethodTable
from whatsappd.rpc.server import RpcServer, serve_rpc


def session(company: str = "acme", state: str = "connected", **changes: Any) -> dict[str, Any]:
    return {
        "company": company,
        "wanted": True,
        "state": state,
        "since_ms": 1,
        "cause": state,
        "next_try_ms": None,
        "restarts": 0,
        "worker_pid": 77,
        "jid": "15550100:3@s.whatsapp.net",
        "lid": None,
        "push_name": None,
        "qr": None,
        "last_inbound_ms": None,
        "last_error": None,
        "queued": 0,
        "recycled": 0,
        "last_recycled": None,
        **changes,
    }


def event(seq: int, type: str = "session.state", company: str = "acme", **data: Any) -> Any:
    return {"seq": seq, "time_ms": 1000 * seq, "company": company, "type": type, "data": data}


class Daemon:
    """Answers by method: a value, an exception to raise, or a function of the parameters.

    A list is consumed, one answer a call, except its last. `events` follow a subscription.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.answers: dict[str, Any] = {}
        self.calls: list[tuple[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.then: Callable[[], Any] | None = None
        self.server: RpcServer | None = None

    def called(self, method: str) -> list[Any]:
        return [params for name, params in self.calls if name == method]

    def _handle(self, name: str, call: Call, params: Any) -> Any:
        self.calls.append((name, params))
        answer = self.answers[name]
        if isinstance(answer, list) and name != "session.list":
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if callable(answer):
            answer = answer(params)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, dict) and "subscription" in answer:
            call.connection.start_soon(self._notify, call, answer["subscription"])
        return answer

    async def _notify(self, call: Call, subscription: int) -> None:
        for item in self.events:
            if isinstance(item.get("gap"), int):
                arguments = {"subscription": subscription, "first_seq": item["gap"]}
                await call.connection.notify("events.gap", arguments)
            else:
                await call.connection.notify("event", {"subscription": subscription, "event": item})
        if self.then is not None:
            self.then()

    def table(self) -> MethodTable:
        return MethodTable(
            [
                Method(each, partial(self._handle, each.name))
                for each in METHODS
                if each.name in self.answers
            ]
        )

    def run(self, body: Callable[[], Any]) -> Any:
        """Serve while `body` runs."""
        started = threading.Event()
        token: list[trio.lowlevel.TrioToken] = []

        async def serve() -> None:
            listener = open_listener(self.path)
            async with trio.open_nursery() as nursery:
                self.server = await nursery.start(serve_rpc, listener.socket, self.table())
                token.append(trio.lowlevel.current_trio_token())
                started.set()
            close_listener(listener)

        thread = threading.Thread(target=trio.run, args=(serve,))
        thread.start()
        assert started.wait(5)
        assert self.server is not None
        try:
            return body()
        finally:
            with suppress(trio.RunFinishedError):  # the test stopped it already
                token[0].run_sync_soon(self.server.stop)
            thread.join(10)
            assert not thread.is_alive()

    def stop(self) -> None:
        assert self.server is not None
        self.server.stop()

    def invoke(self, *arguments: str, input: str | None = None) -> Result:
        """Run `whatsappctl ARGUMENTS` against it."""
        command = ["--socket", self.path, *arguments]
        return self.run(lambda: CliRunner().invoke(cli, command, input=input))
