"""What can be called: methods, their typed parameters, and what a handler is given.

`handlers.table` builds one `MethodTable`; `exchange` looks methods up in it. A handler is a plain
function when it answers at once, and then costs no task; it is an async function when it really
waits, and then runs in a task of its connection, which ends with the connection.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import msgspec

from whatsappd.errors import UnknownMethod
from whatsappd.rpc.method_stats import Tally
from whatsappd.rpc.params import check_params_type, params_from
from whatsappd.rpc.peer_credentials import Peer


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


#: `(call, params)` to a result that MessagePack can carry, or to an awaitable of one.
Handler = Callable[[Call, Any], Any]


class NoParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of a method that has none."""


class Concerns(StrEnum):
    """What a method is about, so that whoever decides on access can tell (`handlers.access`)."""

    COMPANY = "company"  # the one that its parameter `company` names
    SEVERAL = "several"  # the handler itself leaves out, or refuses, what is not its caller's
    ALL = "all"  # all companies, or the daemon
    NONE = "none"  # the caller's own connection, or nothing that anybody needs to hide


class Method:
    """One thing that can be called.

    Args:
        name: `noun.verb`.
        params: a struct with `forbid_unknown_fields=True`, whose fields are the named arguments.
        handler: plain or async; see the module's docstring.
        doc: one line for people.
        writes: whether it changes anything, so that users bound to reading are refused.
        concerns: by default the company that a required parameter `company` names, and without
            one all companies: forgetting it refuses too much, never too little.
    """

    __slots__ = ("concerns", "doc", "handler", "is_async", "name", "params", "tally", "writes")

    def __init__(
        self,
        name: str,
        params: type[msgspec.Struct],
        handler: Handler,
        doc: str,
        *,
        writes: bool,
        concerns: Concerns | None = None,
    ) -> None:
        check_params_type(name, params)
        self.name = name
        self.params = params
        self.handler = handler
        self.doc = doc
        self.writes = writes
        self.concerns = concerns or _default_concern(params)
        self.is_async = inspect.iscoroutinefunction(handler)
        self.tally = Tally()

    def __repr__(self) -> str:
        return f"<Method {self.name}>"

    def with_handler(self, handler: Handler) -> Method:
        """The same method with another handler, such as one that wraps this one's."""
        return Method(
            self.name,
            self.params,
            handler,
            self.doc,
            writes=self.writes,
            concerns=self.concerns,
        )

    def parse(self, params: Any) -> Any:
        """The struct for the `params` member of a request.

        Raises:
            InvalidParams: see `params_from`.
        """
        return params_from(params, self.params)


def _default_concern(params: type[msgspec.Struct]) -> Concerns:
    names_one = any(
        field.encode_name == "company" and field.required
        for field in msgspec.structs.fields(params)
    )
    return Concerns.COMPANY if names_one else Concerns.ALL


class MethodTable(Mapping[str, Method]):
    """Methods by name, in the order they were given."""

    def __init__(self, methods: Iterable[Method]) -> None:
        self._methods: dict[str, Method] = {}
        for method in methods:
            if method.name in self._methods:
                raise ValueError(f"{method.name} is in the table twice")
            self._methods[method.name] = method
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
