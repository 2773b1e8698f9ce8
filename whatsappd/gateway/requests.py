"""One request, as routes are given it: who asks, for what, and the way to the daemon."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl

import msgspec
import trio

from whatsappd.api.checking import checked
from whatsappd.api.declaration import Declaration, Params, Result
from whatsappd.api.types import OneCompany
from whatsappd.errors import InvalidParams
from whatsappd.gateway.answers import Receive, Send
from whatsappd.gateway.auth import Identity
from whatsappd.gateway.daemon_link import DaemonLink
from whatsappd.gateway.event_streams import Streams
from whatsappd.gateway.problem_details import HttpError
from whatsappd.supervision import Supervision

#: One request or connection, as ASGI has it.
Scope = dict[str, Any]


class RequestHeaders(Mapping[str, str]):
    """Headers by their names in lower case; of those that came several times, the first."""

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self._all = [
            (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in raw
        ]
        self._first: dict[str, str] = {}
        for name, value in self._all:
            self._first.setdefault(name, value)

    def __getitem__(self, name: str) -> str:
        return self._first[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._first)

    def __len__(self) -> int:
        return len(self._first)

    def all(self, name: str) -> list[str]:
        """All values, in order."""
        return [value for each, value in self._all if each == name]


class HttpRequest:
    """What `admission` let in. `identity` is there where callers have to say who they are.

    `address`: where it comes from. `prefix`: below which path of our own proxy all of this is.
    """

    def __init__(self, scope: Scope, headers: RequestHeaders, address: str, prefix: str) -> None:
        self.scope = scope
        self.headers = headers
        self.address = address
        self.prefix = prefix
        self.is_websocket = scope["type"] == "websocket"
        self.method: str = scope.get("method", "GET")
        self.path: str = scope["path"]
        self.identity: Identity | None = None
        self.body = b""

    @cached_property
    def query(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        text = self.scope.get("query_string", b"").decode("latin-1")
        try:
            pairs = parse_qsl(text, keep_blank_values=True)
        except ValueError as error:
            raise HttpError(400, "malformed", f"the query cannot be read: {error}") from error
        for name, value in pairs:
            found.setdefault(name, []).append(value)
        return found


@dataclass(frozen=True)
class Shared:
    """What all requests of a gateway share."""

    link: DaemonLink
    streams: Streams
    supervision: Supervision
    stopping: trio.Event


P = TypeVar("P", bound=Params)
R = TypeVar("R", bound=Result)
Q_co = TypeVar("Q_co", bound=Params, covariant=True)
B_co = TypeVar("B_co", bound=Params, covariant=True)


@dataclass(frozen=True)
class RoutedRequest(Generic[Q_co, B_co]):
    """What one route is asked for; all of it is checked.

    Args:
        path: the variable parts of the path, by name.
        query: what the route takes there.
        body: likewise; its defaults if the request has none.
    """

    request: HttpRequest
    shared: Shared
    path: Mapping[str, str]
    query: Q_co
    body: B_co

    @property
    def identity(self) -> Identity:
        """Who asks. Only where callers have to say who they are."""
        assert self.request.identity is not None
        return self.request.identity

    @property
    def company(self) -> OneCompany:
        """The company of the path, as most methods take it."""
        return OneCompany(company=self.path["company"])

    def located(self, path: str) -> dict[str, str]:
        """The header that tells where something is, as the caller reaches it."""
        return {"location": self.request.prefix + path}

    async def call(self, method: Declaration[P, R], params: P) -> R:
        """Call the daemon in the caller's name. Raises as `DaemonLink.ask` does."""
        return await self.shared.link.ask(method, params, actor=self.identity.actor)


@dataclass(frozen=True)
class StreamedAnswer:
    """An answer that goes on: `run` sends all of it."""

    run: Callable[[Receive, Send], Awaitable[None]]

    async def __call__(self, receive: Receive, send: Send) -> None:
        await self.run(receive, send)


def from_text(given: Mapping[str, list[str]], wanted: type[P], *, strictly: bool = False) -> P:
    """The structure that a query or headers hold; lists may come several times.

    Args:
        strictly: refuse what it does not have; else it is ignored.

    Raises:
        InvalidParams: a value is wrong, or (strictly) there is no such parameter.
    """
    arguments: dict[str, Any] = {}
    known = _fields(wanted)
    for name, values in given.items():
        takes_list = known.get(name)
        if takes_list is not None:
            arguments[name] = values if takes_list else values[-1]
        elif strictly:
            raise InvalidParams(
                f"{name:.80}: there is no such parameter (accepted: {', '.join(known)})",
                field=name[:80],
            )
    return checked(arguments, wanted, strict=False)


@cache
def _fields(wanted: type[Params]) -> dict[str, bool]:
    """The names of the structure's fields, and whether they take lists."""
    return {
        field.encode_name: any(
            isinstance(kind, msgspec.inspect.ListType) for kind in _kinds(field.type)
        )
        for field in msgspec.structs.fields(wanted)
    }


def _kinds(hint: Any) -> list[msgspec.inspect.Type]:
    found = msgspec.inspect.type_info(hint) if not isinstance(hint, msgspec.inspect.Type) else hint
    if isinstance(found, msgspec.inspect.Metadata):
        return _kinds(found.type)
    if isinstance(found, msgspec.inspect.UnionType):
        return [kind for each in found.types for kind in _kinds(each)]
    return [found]
