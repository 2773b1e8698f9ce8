"""`sandbox.*`: control of the loopback WhatsApp.

The process that runs a sandbox offers these methods on its control socket; a daemon in sandbox
mode offers the same on its own, and passes them on. In real mode none of this exists.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from whatsappd.api.params import Params
from whatsappd.errors import Unreachable
from whatsappd.rpc.client import open_client
from whatsappd.rpc.method import Call, Method, NoParams


class ScanParams(Params):
    qr: str
    phone: str


class RegisterParams(Params):
    phone: str
    name: str | None = None
    aliases: list[str] = msgspec.field(default_factory=list)


class UnlinkParams(Params):
    phone: str
    device: int | None = None


class FaultParams(Params):
    """A fault and its arguments; `fault_control` knows them all, with their types."""

    kind: str
    phone: Any = msgspec.UNSET
    seconds: Any = msgspec.UNSET
    count: Any = msgspec.UNSET
    cut: Any = msgspec.UNSET
    code: Any = msgspec.UNSET
    conflict: Any = msgspec.UNSET
    mode: Any = msgspec.UNSET
    reason: Any = msgspec.UNSET
    expire: Any = msgspec.UNSET
    message: Any = msgspec.UNSET
    error: Any = msgspec.UNSET


class StatsParams(Params):
    messages: bool = False


class Described(Protocol):
    def as_wire(self) -> dict[str, Any]: ...


class Controllable(Protocol):
    """What `sandbox.server.sandbox.Sandbox` can be told."""

    def info(self) -> Described: ...

    async def scan(self, qr: str, phone_number: str) -> dict[str, Any]: ...

    def register(
        self, phone_number: str, name: str | None = None, aliases: Sequence[str] = ()
    ) -> dict[str, Any]: ...

    def unlink(self, phone_number: str, device: int | None = None) -> dict[str, Any]: ...

    def fault(self, kind: str, **arguments: Any) -> dict[str, Any]: ...

    def stats(self, *, messages: bool = False) -> dict[str, Any]: ...


Ask = Callable[[str, dict[str, Any]], Awaitable[Any]]


def local_methods(sandbox: Controllable) -> list[Method]:
    """`sandbox.*` for the process that runs the sandbox itself."""

    async def ask(verb: str, arguments: dict[str, Any]) -> Any:
        match verb:
            case "scan":
                return await sandbox.scan(arguments["qr"], arguments["phone"])
            case "register":
                return sandbox.register(arguments["phone"], arguments["name"], arguments["aliases"])
            case "unlink":
                return sandbox.unlink(arguments["phone"], arguments["device"])
            case "fault":
                return sandbox.fault(**arguments)
            case "stats":
                return sandbox.stats(**arguments)
        return sandbox.info().as_wire()

    return _methods(ask)


def forwarded_methods(control: Callable[[], Path]) -> list[Method]:
    """`sandbox.*` for a daemon that uses a sandbox: passed on to the socket at `control()`."""

    async def ask(verb: str, arguments: dict[str, Any]) -> Any:
        try:
            async with open_client(control()) as client:
                return await client.call(f"sandbox.{verb}", **arguments)
        except Unreachable as error:
            raise Unreachable(f"the sandbox does not answer: {error.message}") from error

    return _methods(ask)


def _methods(ask: Ask) -> list[Method]:
    def method(verb: str, params: type[msgspec.Struct], doc: str, *, writes: bool) -> Method:
        async def handler(_call: Call, arguments: msgspec.Struct) -> Any:
            return await ask(verb, msgspec.to_builtins(arguments))

        return Method(f"sandbox.{verb}", params, handler, doc, writes=writes)

    return [
        method("info", NoParams, "Where the sandbox is, and how to trust it.", writes=False),
        method("scan", ScanParams, "A virtual phone scans a QR code.", writes=True),
        method("register", RegisterParams, "Let a phone exist.", writes=True),
        method("unlink", UnlinkParams, "The phone unlinks a device.", writes=True),
        method("fault", FaultParams, "Make the sandbox misbehave.", writes=True),
        method("stats", StatsParams, "What passed through the sandbox.", writes=False),
    ]
