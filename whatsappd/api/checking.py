"""Named arguments to typed structures, with complaints that name the field.

The arguments of every method come through here, whatever door they came in by.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import cache
from types import UnionType
from typing import (
    Any,
    Literal,
    NamedTuple,
    NoReturn,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from whatsappd.errors import InvalidParams

#: msgspec ends its complaints with the place: "Expected `str`, got `int` - at `$.company`".
_PLACE = " - at `$"
#: The place of an item of a list, behind the list's own.
_ITEM = re.compile(r"\[(\d+|\.\.\.)\]")
#: Characters of a complaint that are answered: it may quote a megabyte of what was given.
_MAX_REASON = 300

S = TypeVar("S", bound=msgspec.Struct)


class _Tags(NamedTuple):
    """What tells the structures apart that a field takes."""

    field: str
    accepted: tuple[str, ...]

    def with_one(self, tag: str) -> _Tags:
        return self._replace(accepted=(*self.accepted, tag))


def checked(arguments: dict[str, Any], wanted: type[S], *, strict: bool = True) -> S:
    """The `wanted` structure for named arguments.

    Args:
        strict: false where all values are text, as in a URL: numbers are read from it.

    Raises:
        InvalidParams: the message begins with the field's name and says what is accepted;
            `data.field` is that name alone.
    """
    if tagged := _tagged(wanted):
        _check_tags(arguments, tagged)
    try:
        return msgspec.convert(arguments, wanted, strict=strict)
    except msgspec.ValidationError as error:
        _complain(arguments, wanted, error)


def _check_tags(arguments: dict[str, Any], tagged: dict[str, _Tags]) -> None:
    """msgspec takes a structure without its tag where there is no other to choose from."""
    for name, tags in tagged.items():
        value = arguments.get(name)
        if isinstance(value, dict) and tags.field not in value:
            raise InvalidParams(
                f"{name}.{tags.field}: is missing (accepted: {', '.join(tags.accepted)})",
                field=name,
            )


def _complain(
    arguments: dict[str, Any], wanted: type[msgspec.Struct], error: msgspec.ValidationError
) -> NoReturn:
    fields = msgspec.structs.fields(wanted)
    accepted = ", ".join(field.encode_name for field in fields) or "no parameters at all"
    known = {field.encode_name for field in fields}
    for name in arguments:
        if name not in known:
            shown = name if len(name) <= 80 else name[:80] + "…"
            raise InvalidParams(
                f"{shown}: there is no such parameter (accepted: {accepted})", field=shown
            ) from error
    for field in fields:
        if field.required and field.encode_name not in arguments:
            raise InvalidParams(
                f"{field.encode_name}: is missing (accepted: {accepted})", field=field.encode_name
            ) from error
    reason, path = _reason_and_path(str(error))
    top = path.partition(".")[0].partition("[")[0]
    tags = _tagged(wanted).get(top)
    choices = list(tags.accepted) if tags and path == f"{top}.{tags.field}" else []
    if path == top or _ITEM.fullmatch(path.removeprefix(top)):
        choices = _choices(wanted, top)
    if choices:
        reason += f" (accepted: {', '.join(choices)})"
    raise InvalidParams(f"{path or 'params'}: {reason}", field=top or "params") from error


def _reason_and_path(complaint: str) -> tuple[str, str]:
    """What is wrong, and where. It quotes what was given, which may look like a place itself."""
    reason, place, path = complaint.rpartition(_PLACE)
    if not place:
        reason, path = complaint, ""
    if len(reason) > _MAX_REASON:
        reason = reason[:_MAX_REASON] + "…"
    return reason, path.removesuffix("`").removeprefix(".")


@cache
def _tagged(wanted: type[msgspec.Struct]) -> dict[str, _Tags]:
    """The fields that take tagged structures."""
    found: dict[str, _Tags] = {}
    for field in msgspec.structs.fields(wanted):
        for hint in _alternatives(wanted, field.encode_name):
            if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
                config = hint.__struct_config__
                if config.tag_field is not None:
                    known = found.get(field.encode_name, _Tags(config.tag_field, ()))
                    found[field.encode_name] = known.with_one(str(config.tag))
    return found


def _choices(wanted: type[msgspec.Struct], name: str) -> list[str]:
    """The literal values that a field takes, if it takes a choice of them."""
    found: list[str] = []
    for hint in _alternatives(wanted, name):
        if get_origin(hint) is Literal:
            found += [str(value) for value in get_args(hint)]
        elif isinstance(hint, type) and issubclass(hint, Enum):
            found += [str(member.value) for member in hint]
    return found


def _alternatives(wanted: type[msgspec.Struct], name: str) -> list[Any]:
    """The types that a field takes, and those within a list of them."""
    names = {field.encode_name: field.name for field in msgspec.structs.fields(wanted)}
    found, pending = [], [get_type_hints(wanted).get(names.get(name, ""))]
    while pending:
        hint = pending.pop(0)
        if get_origin(hint) in (Union, UnionType, list, tuple):
            pending += get_args(hint)
        else:
            found.append(hint)
    return found
