"""Methods: a declaration with its handler, the table of them, and what a handler gets.

`handlers.table` builds one `MethodTable`; `exchange` looks methods up in it. A handler is a plain
function when it answers at once, and then costs no task; it is an async function when it really
waits, and then runs in a task of its connection, which ends with the connection.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from whatsappd.api.checking import checked
from whatsappd.api.declaration import Declaration, Params, Result
from whatsappd.errors import UnknownMethod
from whatsappd.rpc.method_stats import Tally
from whatsappd.rpc.peer_credentials import Peer
from whatsappd.wire.rpc import named_arguments


class Notifier(Protocol):
    """The caller's connection, as a handler may use it."""

    @property
    def peer(self) -> Peer: ...

    @property
    def closed(self) -> bool:
        """Whether nothing that is sent now would arrive."""

    def start_soon(self, task: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        """Run a task that is cancelled when the connection ends, such as a subscription.

        It starts after the handler's present step, so that the answer of a plain handler precedes
        everything the task sends. If it fails, the connection ends.
        """

    def bind_to(self, actor: str) -> None:
        """Make the connection the actor's own: it ends when the actor's rights do.

        For what goes on without a call, such as a subscription in the actor's name.
        """

    async def notify(self, method: str, arguments: dict[str, Any]) -> None:
        """Send one notification; waits while the peer has too much unread.

        Raises:
            trio.BrokenResourceError: the peer is gone.
        """

    async def notify_packed(self, packed: bytes) -> None:
        """Send one or many notifications that are packed already, as `notify` does."""

    def offer_packed(self, packed: bytes) -> bool:
        """`notify_packed` without a checkpoint, for callers that have one of their own each time.

        False: nothing was sent, because the peer has too much unread, or is gone. `notify_packed`
        waits, or says so.
        """
        ...


class Call(NamedTuple):
    """Who calls, and the connection on which to notify them.

    `actor` is whom the peer calls for, when it is trusted to say so (the gateway is); see
    `wire.rpc`. None: for itself.
    """

    peer: Peer
    connection: Notifier
    actor: str | None = None


#: `(call, params)` to the declared result, or to an awaitable of it.
Handler = Callable[[Call, Any], Any]


P = TypeVar("P", bound=Params)
R = TypeVar("R", bound=Result)


class Method:
    """One thing that can be called: how it is declared, and what answers.

    Args:
        declaration: name, arguments and result.
        handler: plain or async; see the module's docstring.
    """

    __slots__ = ("concerns", "declaration", "handler", "is_async", "name", "tally", "writes")

    def __init__(
        self,
        declaration: Declaration[P, R],
        handler: Callable[[Call, P], R] | Callable[[Call, P], Awaitable[R]],
    ) -> None:
        # Of the declaration, as attributes of its own: every request asks for them.
        self.declaration: Declaration[Any, Any] = declaration
        self.name = declaration.name
        self.writes = declaration.writes
        self.concerns = declaration.concerns
        self.handler: Handler = handler
        self.is_async = inspect.iscoroutinefunction(handler)
        self.tally = Tally()

    def __repr__(self) -> str:
        return f"<Method {self.name}>"

    def with_handler(self, handler: Handler) -> Method:
        """The same method with another handler, such as one that wraps this one's."""
        return Method(self.declaration, handler)

    def parse(self, params: Any) -> Any:
        """The struct for the `params` member of a request.

        Raises:
            InvalidParams: see `checked`, and `named_arguments`.
        """
        return checked(named_arguments(params), self.declaration.params)


class MethodTable(Mapping[str, Method]):
    """Methods by name, in the order they were given."""

    def __init__(self, methods: Iterable[Method] = ()) -> None:
        self._methods: dict[str, Method] = {}
        self.add(methods)
        #: The method of that name, or None. An attribute, because every request asks.
        self.find = self._methods.get
        #: Calls of what is not in the table.
        self.unknown_tally = Tally()

    def __getitem__(self, name: str) -> Method:
        return self._methods[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._methods)

    def __len__(self) -> int:
        return len(self._methods)

    def add(self, methods: Iterable[Method]) -> None:
        """Add methods, for handlers that are made with the table itself.

        Raises:
            ValueError: one of that name is in the table already.
        """
        for method in methods:
            if method.name in self._methods:
                raise ValueError(f"{method.name} is in the table twice")
            self._methods[method.name] = method

    def tally(self, name: str) -> Tally:
        """Where calls of `name` are counted."""
        method = self.find(name)
        return self.unknown_tally if method is None else method.tally

    def unknown(self, name: str) -> UnknownMethod:
        """The error for a name that is not in the table; it names the nearest one that is."""
        from difflib import get_close_matches

        shown = name if len(name) <= 80 else name[:80] + "…"
        near = get_close_matches(shown, self._methods, n=1)
        remedy = f"did you mean {near[0]}?" if near else "daemon.hello lists what can be called"
        return UnknownMethod(f"there is no method {shown!r}: {remedy}", method=shown)
