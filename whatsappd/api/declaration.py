"""How a method is declared: its name, its arguments, its result, and what it may touch.

`rpc.method` checks arguments by the declaration, `handlers` answer with the declared result, the
gateway makes its routes and OpenAPI document of the same structures, and `reference` prints them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

import msgspec

Examples: TypeAlias = tuple[dict[str, Any], ...]


class Params(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Base of all arguments. Unknown names are refused."""

    #: Examples of the whole structure, for OpenAPI and the reference.
    examples: ClassVar[Examples] = ()


class NoParams(Params):
    """The arguments of a method that takes none."""


class Result(msgspec.Struct, kw_only=True):
    """Base of all results. A newer daemon may answer more fields than are declared."""


class Done(Result):
    """Nothing but that it is done."""


class Concerns(StrEnum):
    """What a method is about, so that whoever decides on access can tell (`handlers.access`)."""

    COMPANY = "company"  # the one that its parameter `company` names
    SEVERAL = "several"  # the handler itself leaves out, or refuses, what is not its caller's
    ALL = "all"  # all companies, or the daemon
    NONE = "none"  # the caller's own connection, or nothing that anybody needs to hide


P = TypeVar("P", bound=Params)
R = TypeVar("R", bound=Result)


class Declaration(Generic[P, R]):
    """One thing that can be called.

    Args:
        name: `noun.verb`.
        params: its named arguments.
        result: what it answers.
        doc: for people: one line, and maybe more behind an empty one.
        writes: whether it changes anything, so that users bound to reading are refused.
        concerns: by default the company that a required argument `company` names, and without
            one all companies: forgetting it refuses too much, never too little.

    Raises:
        TypeError: `params` would let unknown fields pass.
    """

    __slots__ = ("concerns", "doc", "name", "params", "result", "writes")

    def __init__(
        self,
        name: str,
        params: type[P],
        result: type[R],
        doc: str,
        *,
        writes: bool,
        concerns: Concerns | None = None,
    ) -> None:
        config = params.__struct_config__
        if not config.forbid_unknown_fields or config.array_like:
            raise TypeError(f"{name}: {params.__name__} must have forbid_unknown_fields=True")
        self.name = name
        self.params = params
        self.result = result
        self.doc = doc
        self.writes = writes
        self.concerns = concerns or _default_concern(params)

    def __repr__(self) -> str:
        return f"<Declaration {self.name}>"

    def arguments(self, params: P) -> dict[str, Any]:
        """The named arguments to send; those that are not set are left out."""
        sent: dict[str, Any] = plain(params)
        return sent

    def answer(self, received: Any) -> R:
        """The result that a daemon answered.

        Raises:
            msgspec.ValidationError: it is none: the daemon is of another version.
        """
        return msgspec.convert(received, self.result)


def plain(value: Any) -> Any:
    """Structures as maps, lists and plain values, such as MessagePack carries."""
    return msgspec.to_builtins(value, builtin_types=(bytes,))


def _default_concern(params: type[msgspec.Struct]) -> Concerns:
    names_one = any(
        field.encode_name == "company" and field.required
        for field in msgspec.structs.fields(params)
    )
    return Concerns.COMPANY if names_one else Concerns.ALL
