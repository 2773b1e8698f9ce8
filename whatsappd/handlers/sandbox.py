"""`sandbox.*`: control of the loopback WhatsApp.

The process that runs a sandbox offers these methods on its control socket; a daemon in sandbox
mode offers the same on its own, and passes them on. In real mode none of this exists.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from whatsappd.api import sandbox as api
from whatsappd.api.declaration import Declaration, Params
from whatsappd.errors import Unreachable
from whatsappd.rpc.client import open_client
from whatsappd.rpc.method import Call, Method


class Described(Protocol):
    def as_wire(self) -> dict[str, Any]: ...


class Controllable(Protocol):
    """What `sandbox.server.sandbox.Sandbox` can be told."""

    def info(self) -> Described: ...

    async def scan(self, qr: str, phone_number: str) -> Mapping[str, Any]: ...

    def register(
        self, phone_number: str, name: str | None = None, aliases: Sequence[str] = ()
    ) -> Mapping[str, Any]: ...

    def unlink(self, phone_number: str, device: int | None = None) -> Mapping[str, Any]: ...

    def fault(self, kind: str, **arguments: Any) -> Mapping[str, Any]: ...

    def stats(self, *, messages: bool = False) -> dict[str, Any]: ...


#: A method and its arguments, to a value like its result.
Ask = Callable[[Declaration[Any, Any], dict[str, Any]], Awaitable[Any]]


def local_methods(sandbox: Controllable) -> list[Method]:
    """`sandbox.*` for the process that runs the sandbox itself."""

    async def ask(asked: Declaration[Any, Any], arguments: dict[str, Any]) -> Any:
        match asked:
            case api.SCAN:
                return await sandbox.scan(arguments["qr"], arguments["phone"])
            case api.REGISTER:
                return sandbox.register(arguments["phone"], arguments["name"], arguments["aliases"])
            case api.UNLINK:
                return sandbox.unlink(arguments["phone"], arguments["device"])
            case api.FAULT:
                return sandbox.fault(**arguments)
            case api.STATS:
                return sandbox.stats(**arguments)
        return sandbox.info().as_wire()

    return _methods(ask)


def forwarded_methods(control: Callable[[], Path]) -> list[Method]:
    """`sandbox.*` for a daemon that uses a sandbox: passed on to the socket at `control()`."""

    async def ask(asked: Declaration[Any, Any], arguments: dict[str, Any]) -> Any:
        try:
            async with open_client(control()) as client:
                return await client.call(asked.name, **arguments)
        except Unreachable as error:
            raise Unreachable(f"the sandbox does not answer: {error.message}") from error

    return _methods(ask)


def _methods(ask: Ask) -> list[Method]:
    def method(asked: Declaration[Any, Any]) -> Method:
        async def handler(_call: Call, params: Params) -> Any:
            return asked.answer(await ask(asked, asked.arguments(params)))

        return Method(asked, handler)

    return [method(each) for each in api.METHODS]
